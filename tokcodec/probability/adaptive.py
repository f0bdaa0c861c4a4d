"""The `adaptive` probability model: no weights, learns within the chunk (spec section 7.7).

Contexts of a token bit are bits already coded: the same bit one step back, the four neighbours, the earlier
bits of the same token, and how well these agreed with the step before. The allocation map has a smaller
model of the same kind (spec section 7.4), which serves every token model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokcodec.probability.interface import BitGroup, Checkerboard
from tokcodec.probability.logistic import SQUASH, STRETCH_MAX
from tokcodec.probability.mixing import COUNT_STEP, ContextMixer, ContextTable

ABSENT = 2
"""In place of a bit: there is none."""
_SIGN = np.asarray((-1, 1, 0), dtype=np.int8)
"""Vote of a neighbour whose bit is 0, 1 or absent."""

# Agreement state of a token: 32 * min(disagreements, 3) + the last five agreements (latest in bit 0).
_DISAGREED = np.asarray([32 * min(q // 32 + 1, 3) + q % 32 * 2 % 32 for q in range(128)], dtype=np.uint8)
_AGREED = np.asarray([q // 32 * 32 + (q % 32 * 2 + 1) % 32 for q in range(128)], dtype=np.uint8)
_AGREEMENT = np.concatenate([_DISAGREED, _AGREED])
"""Next agreement state, at `128 * agrees + state`."""

_TRUST = np.asarray([300 + 300 * q.bit_count() if q < 32 else 75 * (q & 31).bit_count() for q in range(128)])
"""Initial stretch in favour of the bit one step back, for each agreement state (spec section 7.7)."""


def initial_counts(stretch: NDArray[np.int64]) -> NDArray[np.int64]:
    """Initial counts `(2, ...)` for initial stretches (spec section 7.6)."""
    ones = (COUNT_STEP * SQUASH[stretch + STRETCH_MAX].astype(np.int64) + 32768) >> 16
    ones = ones.clip(1, COUNT_STEP - 1)
    return np.stack([COUNT_STEP - ones, ones])


class AdaptiveModel:
    """The adaptive model of token bits; see `TokenModel` (spec section 7.7).

    Args:
        grid: Coding order of the token grid.
        planes: Bits of a token.
        weights: Initial weights of the mixer, int64 `(2 * planes, inputs)`; see `ContextMixer`.
    """

    def __init__(self, grid: Checkerboard, planes: int, *, weights: NDArray[np.int64] | None = None) -> None:
        self._grid = grid
        cells = grid.cells
        back = np.asarray((-205, 205, 0))[:, None]
        votes = 64 * np.arange(-4, 5)
        recent = (back + votes).reshape(1, 27).repeat(2 * planes, axis=0)
        spatial = votes.repeat(16)[None].repeat(2 * planes, axis=0)
        agreement = (np.asarray((-1, 1, 0))[:, None] * _TRUST).reshape(1, 384).repeat(planes, axis=0)
        self._mixer = ContextMixer(
            2 * planes,
            [
                ContextTable(initial=initial_counts(recent)),
                ContextTable(initial=initial_counts(spatial)),
                ContextTable(initial=initial_counts(agreement), slots_per_row=2),
            ],
            weights=weights,
        )
        # One further cell stands for everything outside the grid; it is always absent.
        self._previous = np.full((planes, cells + 1), ABSENT, dtype=np.uint8)
        self._current = np.full((planes, cells + 1), ABSENT, dtype=np.uint8)
        self._votes_back = np.zeros((planes, grid.split), dtype=np.int8)
        self._tail = np.zeros(cells, dtype=np.uint8)
        self._agreement = np.zeros(cells, dtype=np.uint8)

    def start_step(self, kept: NDArray[np.uint8]) -> None:
        """See `TokenModel.start_step`; bits that are not kept are never observed, so they stay absent."""
        self._current.fill(ABSENT)
        self._tail.fill(0)
        self._agreement.fill(0)

    def probabilities(self, group: BitGroup) -> NDArray[np.int32]:
        """See `TokenModel.probabilities`."""
        return self.mixed(group, None)

    @property
    def weights(self) -> NDArray[np.int64]:
        """Weights of the mixer as they are now."""
        return self._mixer.weights

    def mixed(self, group: BitGroup, given: NDArray[np.int32] | None) -> NDArray[np.int32]:
        """As `probabilities`, with the stretches of another predictor as one input more."""
        plane, where = group.plane, group.where
        back = self._previous[plane][where]
        if group.colour == 0:
            votes = self._votes_back[plane][where]
        else:
            around = _SIGN.take(self._current[plane].take(self._grid.neighbours[:, where]))
            votes = around[0] + around[1] + around[2] + around[3]
        votes, wide = votes.astype(np.intp) + 4, back.astype(np.intp)
        contexts = [
            wide * 9 + votes,
            (votes << 4) + self._tail[where],
            (wide << 7) + self._agreement[where],
        ]
        found = self._mixer.probabilities(2 * plane + group.colour, contexts, given)
        self._asked = (back, contexts, found, given)
        return found

    def observe(self, group: BitGroup, bits: NDArray[np.uint8]) -> None:
        """See `TokenModel.observe`."""
        back, contexts, found, given = self._asked
        where = group.where
        self._mixer.observe(2 * group.plane + group.colour, contexts, bits, found, given)
        self._current[group.plane][where] = bits
        self._tail[where] = (self._tail[where] << 1 | bits) & 15
        state = self._agreement[where]
        self._agreement[where] = _AGREEMENT.take(((bits == back).view(np.uint8) << 7) + state)

    def finish_step(self) -> None:
        """See `TokenModel.finish_step`."""
        self._mixer.adapt()
        self._previous, self._current = self._current, self._previous
        signs = _SIGN.take(self._previous)
        around = [signs.take(side[: self._grid.split], axis=1) for side in self._grid.neighbours]
        self._votes_back = around[0] + around[1] + around[2] + around[3]


class AllocationModel:
    """The model of explicit allocation maps (spec section 7.4).

    A level is coded in unary: bit `j` says whether it is above `j`, for `j` = 0, 1, ... until one is 0.

    Args:
        grid: Coding order of the block grid.
        levels: Number of allocation levels.
    """

    def __init__(self, grid: Checkerboard, levels: int) -> None:
        self._grid = grid
        slots = 2 * (levels - 1)
        # Relation of the level one step back to j: none, below, equal, one above, more above.
        back = np.asarray((0, -256, -128, 128, 256))[:, None]
        votes = 64 * np.arange(-4, 5)
        both = (back + votes).reshape(1, 45).repeat(slots, axis=0)
        self._mixer = ContextMixer(
            slots,
            [
                ContextTable(initial=initial_counts(both)),
                ContextTable(initial=initial_counts(back.reshape(1, 5)), slots_per_row=slots),
            ],
        )
        self._previous: NDArray[np.int8] | None = None
        self._current = np.full(grid.cells + 1, -1, dtype=np.int8)

    def probabilities(self, group: BitGroup) -> NDArray[np.int32]:
        """Probabilities that the levels at `group.where`, all at least `group.plane`, are above it."""
        plane, where = group.plane, group.where
        shape = self._grid.order[where].shape
        back = np.zeros(shape, dtype=np.intp)
        if self._previous is not None:
            back = (self._previous[where].astype(np.intp) - plane).clip(-1, 2) + 2
        source = self._previous if group.colour == 0 else self._current
        votes = np.zeros(shape, dtype=np.intp)
        if source is not None:
            around = source.take(self._grid.neighbours[:, where])
            votes = (around > plane).sum(axis=0) - ((around <= plane) & (around >= 0)).sum(axis=0)
        contexts = [back * 9 + votes + 4, back]
        found = self._mixer.probabilities(2 * plane + group.colour, contexts)
        self._asked = (contexts, found)
        return found

    def observe(self, group: BitGroup, bits: NDArray[np.uint8]) -> None:
        """Takes in the bits of the group that `probabilities` was last asked about."""
        contexts, found = self._asked
        self._mixer.observe(2 * group.plane + group.colour, contexts, bits, found)

    def reveal(self, where: slice, levels: NDArray[np.uint8]) -> None:
        """Takes in the finished levels of one colour, or of all cells."""
        self._current[where] = levels

    def finish_step(self) -> None:
        """Adapts; the levels revealed become those of the step before."""
        self._mixer.adapt()
        self._previous = self._current
        self._current = np.full_like(self._current, -1)
