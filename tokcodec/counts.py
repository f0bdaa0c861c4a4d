"""What went through a pipeline, and how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from tokcodec.container import Damage


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds since it was made, and seconds by stage."""

    tokenizer: float = 0.0
    entropy_coding: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the block to "tokenizer" or "entropy_coding"."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - start)

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


@dataclass(frozen=True, kw_only=True)
class StreamCounts:
    """What went through a pipeline.

    Attributes:
        frames: Frames.
        chunks: Chunks.
        side_bytes: Bytes of side-stream packets.
        damages: What was lost, when decoding.
        chunk_bytes: Bytes that the chunks take, their entries of the index included, when encoding.
        coded_frames: Frames that went through the network when encoding; more than `frames` where a rate needs it.
        seconds: For how long the frames are shown, when encoding.
        used: The lowest and the highest quality of all chunks, where they were steered.
        tried: Of all tries, likewise.
    """

    frames: int
    chunks: int
    side_bytes: int
    damages: tuple[Damage, ...] = ()
    chunk_bytes: int = 0
    coded_frames: int = 0
    seconds: Fraction = Fraction(0)
    used: tuple[float, float] | None = None
    tried: tuple[float, float] | None = None
