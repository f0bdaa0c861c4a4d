"""What an encoder expects bits to cost, before it has decided which to keep.

The entropy coder comes after the decision and may be any of several; all of them do well where bits repeat what was
there before or what is around them. So costs are counted here from that alone. Only encoders do this, and nothing that
a file means depends on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.int8]
"""+1 or -1; 0 where there is none."""

STRENGTH = 12.0
"""Observations for which the first guess of a context counts."""
_BACK, _VOTE = 0.8, 0.25
"""First guess, in nats in favour of a bit: of the one a step back, and of each neighbour."""
_CONTEXTS = 2 * 3 * 9


class CodingCost:
    """Counts, for each plane, how bits follow the one a step back and their four neighbours.

    As in the coding order of the entropy coder, tokens of one colour of a checkerboard see their neighbours of the
    step before, those of the other colour see those of their own step.

    Args:
        planes: Bits of a token.
        seldom: Whether many bits are seldom set, so that a chunk's first step is priced by its own bits.
    """

    def __init__(self, planes: int, *, seldom: bool = False) -> None:
        self._planes, self._seldom = planes, seldom
        self.start_chunk()

    def start_chunk(self) -> None:
        """Forget the past."""
        back, votes = np.meshgrid([-1, 0, 1], range(-4, 5), indexing="ij")
        ones = 1 / (1 + np.exp(-(_BACK * back + _VOTE * votes))).ravel()
        first = STRENGTH * np.stack([1 - ones, ones], axis=-1)
        self._counts = np.tile(first, (self._planes, 2, 1)).reshape(self._planes * _CONTEXTS, 2)
        self._before: Bits | None = None

    def estimate(self, bits: Bits) -> NDArray[np.float32]:
        """Expected cost of each bit in bits of information, should it and what is around it be kept.

        Args:
            bits: `(planes, rows, columns)`, of the first planes or all; +1 or -1.
        """
        places = 2 * self._contexts(bits) + (bits > 0)
        counts = self._counts
        if self._seldom and self._before is None:
            counts = counts + np.bincount(places.ravel(), minlength=counts.size).reshape(counts.shape)
        costs = -np.log2(counts / counts.sum(axis=1, keepdims=True))
        found: NDArray[np.float32] = costs.astype(np.float32).reshape(-1)[places]
        return found

    def learn(self, bits: Bits) -> None:
        """Count the bits of a step as they were kept: `(planes, rows, columns)`, 0 where a bit is not kept."""
        contexts = self._contexts(bits)
        seen = (2 * contexts + (bits > 0))[bits != 0]
        # Not in place: a step that is only tried is taken back with a shallow copy.
        self._counts = self._counts + np.bincount(seen, minlength=self._counts.size).reshape(self._counts.shape)
        self._before = bits

    def _contexts(self, bits: Bits) -> NDArray[np.intp]:
        planes, rows, columns = bits.shape
        before = np.zeros_like(bits) if self._before is None else self._before[:planes]
        colour = (np.arange(rows)[:, None] + np.arange(columns)) % 2
        votes = np.where(colour == 0, _neighbours(before), _neighbours(bits))
        inner = (colour * 3 + before + 1) * 9 + votes + 4
        contexts: NDArray[np.intp] = inner + _CONTEXTS * np.arange(planes, dtype=np.intp)[:, None, None]
        return contexts


def _neighbours(bits: Bits) -> Bits:
    """Sum over the four neighbours of each position; outside the grid there are none."""
    padded = np.pad(bits, ((0, 0), (1, 1), (1, 1)))
    total: Bits = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return total
