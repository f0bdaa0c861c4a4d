"""What encoding and decoding give back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tokcodec.container import Damage, StreamHeader
from tokcodec.counts import Stopwatch, StreamCounts
from tokcodec.frames import VideoInfo
from tokcodec.rate import RateReport


@dataclass(frozen=True, kw_only=True)
class CodecResult:
    """What an encode or a decode did.

    Attributes:
        frames: Frames written.
        chunks: Chunks written or decoded.
        width: Width of the picture, pixels.
        height: Height of the picture, pixels.
        tok_bytes: Size of the `.tok` stream; None where only a part of it was decoded.
        bits_per_pixel: Bits of the `.tok` stream less its side streams, over pixels of all frames.
        seconds: Wall clock of the whole call.
        tokenizer_seconds: Part of it in the neural network; of several processes the sum, which may be more.
        entropy_coding_seconds: Part of it in the entropy coder, likewise; the rest is mostly video I/O.
        notes: What a person should know, such as side streams that were left behind.
        lost: What of the media file could not be read, when encoding.
        damages: What of the `.tok` stream was lost, when decoding.
        rate: What was asked and what came of it, when encoding at a rate.
        concealed: Frames among those written that were filled in for lost ones.
    """

    frames: int
    chunks: int
    width: int
    height: int
    tok_bytes: int | None
    bits_per_pixel: float | None
    seconds: float
    tokenizer_seconds: float
    entropy_coding_seconds: float
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()
    rate: RateReport | None = None
    concealed: int = 0


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """Frames in memory.

    Attributes:
        frames: uint8 `(T, H, W, 3)` RGB.
        pts: Timestamp of each frame, in units of `time_base`.
        time_base: Seconds.
        damages: What was lost.
    """

    frames: NDArray[np.uint8]
    pts: tuple[int, ...]
    time_base: Fraction
    damages: tuple[Damage, ...]


def result_of(
    counts: StreamCounts,
    size: VideoInfo | StreamHeader,
    tok_bytes: int | None,
    watch: Stopwatch,
    *,
    notes: tuple[str, ...],
    lost: tuple[str, ...] = (),
    rate: RateReport | None = None,
) -> CodecResult:
    """The result of a call: what was counted, the size of the picture, and the time that `watch` took."""
    pixels = counts.frames * size.width * size.height
    return CodecResult(
        frames=counts.frames,
        chunks=counts.chunks,
        width=size.width,
        height=size.height,
        tok_bytes=tok_bytes,
        bits_per_pixel=None if tok_bytes is None else 8.0 * (tok_bytes - counts.side_bytes) / pixels,
        seconds=watch.total(),
        tokenizer_seconds=watch.tokenizer,
        entropy_coding_seconds=watch.entropy_coding,
        notes=notes,
        lost=lost,
        damages=counts.damages,
        rate=rate,
    )
