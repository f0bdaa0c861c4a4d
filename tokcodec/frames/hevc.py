"""Frames <-> an elementary stream of HEVC by x265, the codec that a rate-quality curve is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from tokcodec.frames.elementary import StreamEncoder, decode_elementary
from tokcodec.frames.info import Pixels

SMALLEST_SIDE = 64
"""libx265 corrupts the heap below this many pixels."""

PIXEL_FORMAT = "yuv420p10le"
"""Ten bits: x265 codes eight-bit video better with them."""


def x265_encoder(*, crf: float, preset: str, params: Mapping[str, str], threads: int = 0) -> StreamEncoder:
    """libx265 of FFmpeg.

    Args:
        crf: Constant rate factor, 0 to 51.
        preset: Of x265 ("medium").
        params: `x265-params`.
        threads: How many; 0 lets x265 choose.
    """
    return StreamEncoder(
        name="libx265",
        options={
            "preset": preset,
            "crf": f"{crf:g}",
            "x265-params": ":".join(f"{key}={value}" for key, value in {**params, "log-level": "none"}.items()),
        },
        pixel_format=PIXEL_FORMAT,
        smallest_side=SMALLEST_SIDE,
        threads=threads,
    )


def encode_hevc(
    frames: Iterable[Pixels], *, crf: float, frame_rate: Fraction, matrix: int, preset: str, params: Mapping[str, str]
) -> bytes:
    """Encode pictures with x265; see :func:`x265_encoder` and :meth:`StreamEncoder.encode`."""
    return x265_encoder(crf=crf, preset=preset, params=params).encode(frames, frame_rate=frame_rate, matrix=matrix)


def decode_hevc(data: bytes, *, matrix: int, width: int, height: int) -> Iterator[Pixels]:
    """Decode an elementary stream of :func:`encode_hevc` to RGB; see :func:`decode_elementary`."""
    return decode_elementary(data, decoder="hevc", matrix=matrix, width=width, height=height)
