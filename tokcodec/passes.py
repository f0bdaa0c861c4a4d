"""Rate control over the whole file: one quality for all chunks, found by coding all of it again; see docs/rate.md."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from tokcodec.container.writer import write_all
from tokcodec.counts import StreamCounts
from tokcodec.errors import UsageError
from tokcodec.rate import QualitySearch, Rate

MOST_PASSES = 7
"""Without the one that shows whether the lowest quality fits."""
KEPT_IN_MEMORY_BYTES = 1 << 26
"""Files beyond this wait on the disk."""
_ENOUGH = 0.97
"""A file of so much of the bytes that it may have is large enough."""
_CLOSE = 0.02
"""A file that misses a rate by so much is good enough."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A whole file, coded at one quality.

    Attributes:
        quality: That quality; where it was steered, the one of the beginning.
        size: Its bytes.
        counts: What is in it.
        pixels: Of all its frames.
    """

    quality: float
    size: int
    counts: StreamCounts
    pixels: int

    def counted(self, rate: Rate) -> int:
        """Bytes that count for a rate."""
        return self.size if rate.max_bytes is not None else self.size - self.counts.side_bytes

    def asked(self, rate: Rate) -> float:
        """Bytes that a rate asks for."""
        return rate.bytes_for(pixels=self.pixels, seconds=self.counts.seconds)

    def miss(self, rate: Rate) -> float:
        """How far it is from a rate, as a share; infinite where it may not be taken."""
        share = self.counted(rate) / self.asked(rate) - 1
        return math.inf if rate.max_bytes is not None and share > 0 else abs(share)


Coder = Callable[[float | None, BinaryIO], Coded]
"""Codes the file at a quality; None is the one to begin with."""


def find_pass(
    code: Coder, rate: Rate, sink: BinaryIO, *, limits: tuple[float, float]
) -> tuple[Coded, tuple[float, float]]:
    """Code a file until its size is right, and write it.

    Args:
        code: Codes it.
        rate: What is asked.
        sink: Where the file goes.
        limits: The lowest and the highest quality that there are.

    Returns:
        What was written, and the lowest and the highest quality that were tried.

    Raises:
        UsageError: The lowest quality has more than `max_bytes`.
        OutputError: The sink takes no more bytes.
    """
    good_enough = _CLOSE if rate.max_bytes is None else 1 - _ENOUGH
    aim = 1.0 if rate.max_bytes is None else (1 + _ENOUGH) / 2
    search = QualitySearch(limits)
    best: Coded | None = None
    quality: float | None = None
    # The best file so far, and the one that is tried.
    with _temporary() as one, _temporary() as other:
        kept, spare = one, other
        while True:
            spare.seek(0)
            spare.truncate()
            tried = code(quality, spare)
            search.add(tried.quality, tried.counts.chunk_bytes)
            if tried.miss(rate) < (math.inf if best is None else best.miss(rate)):
                best, kept, spare = tried, spare, kept
            around = tried.counted(rate) - tried.counts.chunk_bytes
            quality = search.propose(aim * tried.asked(rate) - around)
            if tried.miss(rate) <= good_enough:
                break
            if quality is None or len(search.sizes) >= MOST_PASSES:
                if best is not None or limits[0] in search.sizes:
                    break
                quality = limits[0]
        if best is None:
            raise _too_small(rate, tried)
        kept.seek(0)
        offset = 0
        while data := kept.read(1 << 20):
            write_all(sink, data, offset=offset)
            offset += len(data)
    return best, (min(search.sizes), max(search.sizes))


def _temporary() -> BinaryIO:
    # A BinaryIO in all that counts.
    return tempfile.SpooledTemporaryFile(max_size=KEPT_IN_MEMORY_BYTES)  # type: ignore[return-value]


def _too_small(rate: Rate, lowest: Coded) -> UsageError:
    without = ", or leave audio and subtitles behind" if lowest.counts.side_bytes else ""
    return UsageError(
        f"the file cannot have {rate.asked:g} bytes: at the lowest quality it has {lowest.size}",
        hint=f"ask for {lowest.size} bytes or more{without}",
    )
