"""Rate control in one pass: each chunk gets the quality that keeps the file, up to it, near the rate; see docs/rate.md.

No torch, no NumPy.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator

from tokcodec.rate import CONTENT, TYPICAL_SLOPE, QualitySearch

MOST_TRIES = 8
"""For a chunk."""
KEPT_IN_MEMORY_BYTES = 1 << 28
"""Frames of a chunk beyond this wait in a temporary file."""
_MARGIN = 2 / 3, 0.1
"""A new try aims inside of what would do, by the lesser of these shares: of what a chunk may miss, and of the chunk."""
_PATIENCE = 4, 0.25
"""A deviation is made up for over so many chunks, or such a share of those that there were, whichever are more."""


class Steering:
    """Chooses qualities, chunk by chunk, so that the size of the file is near what is asked at the end of each.

    The quality stays what it was as long as that is so. How much a chunk may miss is a share of the file so far, so
    chunks differ ever more in size and ever less in quality as the file goes on.

    Args:
        limits: The lowest and the highest quality that there are.
        first: The quality to begin with.
    """

    def __init__(self, limits: tuple[float, float], *, first: float) -> None:
        self._limits = limits
        self._slope = TYPICAL_SLOPE
        self._asked = 0.0  # through the last chunk
        self._weight = 0.0  # what all chunks would have at quality 0
        self.quality = first
        self.used = self.tried = (math.inf, -math.inf)

    def search(self, *, asked: float, spent: int) -> ChunkSearch:
        """The search for a chunk's quality.

        Args:
            asked: Bytes that the file should have with this chunk.
            spent: Bytes that it has without it.
        """
        inner = CONTENT * asked - _margin(asked, asked - self._asked)
        return ChunkSearch(self._limits, self._slope, wanted=asked - spent, slack=CONTENT * asked, inner=inner)

    def took(self, search: ChunkSearch, *, asked: float, spent: int) -> None:
        """A chunk was written; says what :attr:`quality` the next one is tried with first.

        Args:
            search: Its search.
            asked: As for :meth:`search`.
            spent: Bytes that the file has with it.
        """
        quality = search.best
        self.used = min(self.used[0], quality), max(self.used[1], quality)
        self.tried = min(self.tried[0], *search.sizes), max(self.tried[1], *search.sizes)
        self._slope = search.slope
        weight = search.sizes[quality] * math.exp(-self._slope * quality)
        self._weight += weight
        share = asked - self._asked
        self._asked = asked
        # The quality at which all chunks together had been as large as asked, and a part of what they were not.
        patience = max(_PATIENCE[0] * share, _PATIENCE[1] * asked)
        owed = min(max((asked - spent) / patience, -0.5), 0.5)
        steady = math.log(asked / self._weight * (1 + owed)) / self._slope
        # Within what will do if the next chunk is like this one.
        wanted, inner = asked + share - spent, CONTENT * (asked + share) - _margin(asked + share, share)
        low, high = (math.log(max(size, 1.0) / weight) / self._slope for size in (wanted - inner, wanted + inner))
        self.quality = min(max(steady, low, self._limits[0]), max(high, self._limits[0]), self._limits[1])


def _margin(asked: float, share: float) -> float:
    """How far inside of what would do a try aims, in bytes: of a file so far, and of its last chunk."""
    return min(_MARGIN[0] * CONTENT * asked, _MARGIN[1] * share)


class ChunkSearch:
    """The tries for one chunk; `best` is the quality to take, `sizes` has what each gave.

    Args:
        limits: The lowest and the highest quality that there are.
        slope: Of log(size) over quality, as the last chunk had it.
        wanted: Bytes that the chunk should have.
        slack: By how many it may miss that.
        inner: By how many the next try shall, where one misses by more.
    """

    def __init__(self, limits: tuple[float, float], slope: float, *, wanted: float, slack: float, inner: float) -> None:
        self._search = QualitySearch(limits, slope=slope)
        self._wanted, self._slack, self._inner = wanted, slack, inner

    @property
    def sizes(self) -> dict[float, int]:
        """Bytes by quality tried."""
        return self._search.sizes

    @property
    def slope(self) -> float:
        """Of log(size) over quality, as far as it is known."""
        return self._search.slope

    @property
    def best(self) -> float:
        """The quality whose size is nearest."""
        return min(self.sizes, key=lambda quality: abs(self.sizes[quality] - self._wanted))

    def add(self, quality: float, size: int) -> float | None:
        """What a try gave; the quality to try next, or None where `best` is to be taken."""
        self._search.add(quality, size)
        miss = size - self._wanted
        if abs(miss) <= self._slack or len(self.sizes) >= MOST_TRIES:
            return None
        # The near side of what will do: the quality changes no more than it must.
        return self._search.propose(self._wanted + math.copysign(self._inner, miss))


class KeptFrames:
    """Frames of the open chunk, to code them again: in memory, or in a temporary file where they are large."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=KEPT_IN_MEMORY_BYTES)  # noqa: SIM115  # see close
        self._frame_bytes = 0

    def add(self, frame: bytes | memoryview) -> None:
        """Keep a frame; all have the same size."""
        self._frame_bytes = len(frame)
        self._file.write(frame)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while frame := self._file.read(self._frame_bytes):
            yield frame

    def clear(self) -> None:
        """Forget them."""
        self._file.seek(0)
        self._file.truncate()

    def close(self) -> None:
        """Give back memory and disk."""
        self._file.close()
