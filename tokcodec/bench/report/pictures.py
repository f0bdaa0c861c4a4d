"""Example frames as data inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from tokcodec.bench.report.load import ExampleFrame
from tokcodec.errors import MediaError

LOSSLESS_BYTES = 6 * 2**20
"""Up to so many bytes of PNG in all, frames go into the page as they are."""
WEBP_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Frames ready for the page.

    Attributes:
        uris: `data:` address of each frame, in the order given.
        note: How they were coded for the page, for people.
    """

    uris: Sequence[str]
    note: str


def embed(frames: Sequence[ExampleFrame]) -> Pictures:
    """Frames as they are where they are small, else as WebP of quality 95, so that the page stays light.

    Raises:
        MediaError: A file is not a picture.
    """
    if sum(frame.path.stat().st_size for frame in frames) <= LOSSLESS_BYTES:
        uris = [_uri("png", frame.path.read_bytes()) for frame in frames]
        return Pictures(uris=uris, note="The frames are lossless PNG.")
    return Pictures(
        uris=[_uri("webp", _webp(frame)) for frame in frames],
        note=f"To keep the page light the frames are WebP of quality {WEBP_QUALITY}; "
        "the run kept the lossless ones in its folder frames.",
    )


def _webp(frame: ExampleFrame) -> bytes:
    from PIL import Image

    try:
        with Image.open(frame.path) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    except OSError as error:
        raise MediaError(f"is not a picture: {error}", where=str(frame.path)) from error
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
