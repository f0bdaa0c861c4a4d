"""`tokcodec demo`: a short clip from the photographs that scikit-image ships, through the codec and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokcodec.codec import Codec
from tokcodec.frames import Colour, Frame, VideoInfo, open_video, open_writer
from tokcodec.metrics import mean_squared_error, psnr_of
from tokcodec.output import atomic
from tokcodec.results import CodecResult

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
FRAME_RATE = 24
COLOUR = Colour(primaries=1, transfer=1, matrix=1, full_range=False)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Files and figures of the demo.

    Attributes:
        original: The clip that was made, lossless.
        tok: The coded clip.
        decoded: What came back.
        picture: Original and decoded frames side by side.
        encoded: What the encoder did.
        decoded_result: What the decoder did.
        psnr: PSNR in dB of the mean squared error over all frames, RGB.
    """

    original: Path
    tok: Path
    decoded: Path
    picture: Path
    encoded: CodecResult
    decoded_result: CodecResult
    psnr: float


def camera_move(photograph: NDArray[np.uint8], *, frames: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """A slow zoom and pan over a photograph.

    Args:
        photograph: uint8 `(h, w, 3)` RGB.
        frames: How many pictures to give.
        height: Their height in pixels.
        width: Their width in pixels.

    Yields:
        uint8 `(height, width, 3)` RGB.
    """
    from skimage.transform import AffineTransform, warp

    rows, columns = photograph.shape[:2]
    fit = min(rows / height, columns / width)
    for number in range(frames):
        along = number / max(1, frames - 1)
        scale = fit * (1.0 - 0.25 * along)
        left = along * 0.8 * (columns - scale * width)
        top = (0.2 + 0.4 * along) * (rows - scale * height)
        move = AffineTransform(scale=(scale, scale), translation=(left, top))
        picture = warp(photograph, move, output_shape=(height, width), order=1, mode="edge", preserve_range=True)
        yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _clip(*, seconds: float, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    from skimage import data

    each = max(1, round(seconds * FRAME_RATE / len(PHOTOGRAPHS)))
    for name in PHOTOGRAPHS:
        photograph = np.ascontiguousarray(getattr(data, name)()[..., :3])
        yield from camera_move(photograph, frames=each, height=height, width=width)


def free_folder(name: str = "tokcodec-demo") -> Path:
    """The first of NAME, NAME-2, NAME-3 ... that does not exist in the working folder."""
    number = 1
    while (folder := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def run_demo(folder: Path, codec: Codec, *, seconds: float = 3.0, height: int = 240, width: int = 320) -> DemoResult:
    """Make the clip, encode it, decode it, compare.

    Args:
        folder: Where the four files go; it appears when they are whole.
        codec: What encodes and decodes.
        seconds: Length of the clip.
        height: Height in pixels.
        width: Width in pixels.

    Raises:
        OutputError: The folder is not empty, or cannot be made.
    """
    with atomic(folder, force=False) as part:
        part.mkdir()
        made = {name: part / f"demo{suffix}" for name, suffix in _SUFFIXES.items()}
        info = VideoInfo(
            width=width,
            height=height,
            time_base=Fraction(1, FRAME_RATE),
            frame_rate=Fraction(FRAME_RATE),
            colour=COLOUR,
        )
        with open_writer(made["original"], info, codec="ffv1") as writer:
            for number, pixels in enumerate(_clip(seconds=seconds, height=height, width=width)):
                writer.write_frame(Frame(pixels=pixels, pts=number))
        encoded = codec.encode(made["original"], made["tok"])
        decoded = codec.decode(made["tok"], made["decoded"])
        difference = _compare(made["original"], made["decoded"], made["picture"])
    return DemoResult(
        original=folder / made["original"].name,
        tok=folder / made["tok"].name,
        decoded=folder / made["decoded"].name,
        picture=folder / made["picture"].name,
        encoded=encoded,
        decoded_result=decoded,
        psnr=psnr_of(difference),
    )


_SUFFIXES = {"original": "_original.mkv", "tok": ".tok", "decoded": ".mp4", "picture": ".png"}


def _compare(original: Path, decoded: Path, picture: Path) -> float:
    """Mean squared error over all frames; also writes the middle frame of each photograph, side by side."""
    errors: list[float] = []
    pairs: list[NDArray[np.uint8]] = []
    with open_video(original) as first, open_video(decoded) as second:
        frames = ((f for f in reader if isinstance(f, Frame)) for reader in (first, second))
        for ours, theirs in zip(*frames, strict=True):
            errors.append(mean_squared_error(ours.pixels, theirs.pixels))
            pairs.append(np.concatenate([ours.pixels, theirs.pixels], axis=1))
        each = len(pairs) // len(PHOTOGRAPHS)
        sheet = np.concatenate([pairs[each * i + each // 2] for i in range(len(PHOTOGRAPHS))])
        info = VideoInfo(
            width=sheet.shape[1],
            height=sheet.shape[0],
            time_base=Fraction(1),
            frame_rate=None,
            colour=first.info.colour,
            is_image=True,
        )
    with open_writer(picture, info) as writer:
        writer.write_frame(Frame(pixels=sheet, pts=0))
    return float(np.mean(errors))
