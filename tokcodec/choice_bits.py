"""Choice maps <-> binary decisions (spec section 7.15): from which picture each block of a last frame comes.

0 is the picture before, 1 the chunk's first one, 2 the mean of both. Most steps have zeros alone. Where there is
something else it comes in clusters, and where there was something a step before.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.cell_sets import CellSet, cell_sets
from tokcodec.errors import CorruptStreamError
from tokcodec.probability.adaptive import initial_counts
from tokcodec.probability.mixing import ContextMixer, ContextTable

MEAN = 2
"""Of a choice map: a block is the mean of what it would be by the picture before and by the first one."""
STAYS_PROBABILITY = 57344
"""16-bit probability that a step has a choice map, or has none, as the step before."""
_OTHER, _MEAN = 0, 1
"""Decisions: that a block does not come from the picture before alone, and that it is the mean."""
_NONE_KNOWN = 5
"""Context of blocks around which none is known."""
# Initial stretches. Other, by how many around are: for what was not the step before, or was.
_OTHER_BY_AROUND = (-700, -300, -300, 100, 100, 300, 400, 500, 600, 700, -600, 0)
# By how many of the nine around were the step before: for what moves as expected, or not.
_OTHER_BY_NEAR = (-600, -400, *(-300, -100) * 3, *(0, 100) * 3, *(200, 300) * 3)
WEIGHTS = 52429
"""Initial weight of each table, 0.8 in units of 1/65536."""

Numbers = NDArray[np.intp]


class _Coder(Protocol):
    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Codes bits under 16-bit probabilities that they are 1; returns the bits."""


class ChoiceTraversal:
    """Codes the choice maps of a chunk's later steps, in both directions (spec section 7.15).

    Args:
        rows: Rows of motion blocks.
        columns: Columns of motion blocks.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._shape = rows, columns
        self._sets = list(cell_sets(rows, columns))
        self._before: Numbers = np.zeros(rows * columns, np.intp)
        self._any = False
        # The mean's tables have no initial stretch: 3 x 3 contexts, in the place of the first ones.
        tables = [
            ContextTable(initial=initial_counts(np.stack([np.asarray(stretch), np.zeros(len(stretch), np.int64)])))
            for stretch in (_OTHER_BY_AROUND, _OTHER_BY_NEAR)
        ]
        self._mixer = ContextMixer(2, tables, weights=np.full((2, 2), WEIGHTS, np.int64))

    def code_step(self, coder: _Coder, choice: NDArray[np.int16], changes: NDArray[np.int32]) -> None:
        """Codes the choice map of one later step.

        Args:
            coder: Of the chunk.
            choice: int16 `(rows, columns, 2)`, x from 0 to 2, y is 0; a decoder fills it.
            changes: What the vectors of the last frame differ by from what was expected of them,
                `(rows * columns, 2)`.

        Raises:
            CorruptStreamError: A map is coded that need not be.
        """
        wanted: Numbers = choice[..., 0].reshape(-1).astype(np.intp)
        stays = np.asarray([STAYS_PROBABILITY if self._any else 65536 - STAYS_PROBABILITY], np.int32)
        self._any = bool(coder.code(np.asarray([wanted.any()], np.uint8), stays)[0])
        found: Numbers = np.zeros(wanted.size, np.intp)
        if self._any:
            near = self._near()
            moved: Numbers = (changes != 0).any(axis=1).astype(np.intp)
            for group in self._sets:
                self._code_set(coder, group, wanted, found, near, moved)
            if not found.any():
                raise CorruptStreamError("a choice map of zeros alone", hint="the file is damaged")
            self._mixer.adapt()
        self._before = found
        choice[..., 0] = found.reshape(self._shape)
        choice[..., 1] = 0

    def _near(self) -> Numbers:
        """Of each block and the eight around it, how many were not 0 in the step before."""
        framed = np.pad((self._before != 0).astype(np.intp).reshape(self._shape), 1)
        lines = framed[:-2] + framed[1:-1] + framed[2:]
        found: Numbers = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]
        return found.reshape(-1)

    def _code_set(
        self, coder: _Coder, group: CellSet, wanted: Numbers, found: Numbers, near: Numbers, moved: Numbers
    ) -> None:
        cells, before = group.cells, self._before[group.cells]
        around = np.where(group.known >= 0, found[group.known], 0)
        others = (around != 0).sum(axis=0) if len(group.known) else np.full(cells.size, _NONE_KNOWN)
        contexts = others * 2 + (before != 0), near[cells] * 2 + moved[cells]
        is_other = self._decide(coder, _OTHER, contexts, wanted[cells] != 0)
        at = np.flatnonzero(is_other)
        if at.size:
            votes = np.sign((around[:, at] == MEAN).sum(axis=0) - (around[:, at] == 1).sum(axis=0))
            contexts = votes + 1, before[at]
            found[cells[at]] = 1 + self._decide(coder, _MEAN, contexts, wanted[cells[at]] == MEAN)

    def _decide(
        self, coder: _Coder, slot: int, contexts: tuple[Numbers, Numbers], bits: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        probabilities = self._mixer.probabilities(slot, contexts)
        found = coder.code(bits.astype(np.uint8), probabilities)
        self._mixer.observe(slot, contexts, found, probabilities)
        return found
