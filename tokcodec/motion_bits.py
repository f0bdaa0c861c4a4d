"""Motion maps <-> binary decisions (spec section 7.10).

Cells come from coarse to fine: every eighth of each row and column first, then those in the middle of known ones. Each
vector is predicted by the median of known vectors around it, and what is left is coded; all cells of a set at once.
Tables that follow what is coded say how likely decisions are, and in newer files a network does beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.cell_sets import CellSet, cell_sets
from tokcodec.choice_bits import ChoiceTraversal
from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import MAX_VECTOR
from tokcodec.motion_context import SETS, MotionContext, with_first
from tokcodec.probability.adaptive import initial_counts
from tokcodec.probability.mixing import ContextMixer, ContextTable

STAYS_PROBABILITY = 61440
"""16-bit probability that a map is coded, or is not, as that of the step before."""
HALF = 32768
PREFIX_BITS = 9
"""Most decisions of the unary part of a magnitude, 1 to 1022."""

# Decisions of a component: whether it is not as predicted, in which direction, and the unary part of how far.
_DIFFERS, _SIGN, _PREFIX = 0, 1, 2
_KINDS = _PREFIX + PREFIX_BITS
_SPREADS = 7
"""Contexts, beside the set: how far known vectors around a cell are apart (the last: cells of the first set, around
which none is known)."""
_SPREAD_LIMITS = np.asarray((0, 2, 6, 16, 40))
# Initial stretches. The second of two is for what has its other component not as predicted, or its past not so.
_DIFFERS_BY_SPREAD = np.asarray(((-1400, 100), (-900, -100), (-700, 100), (-500, 300), (-200, 500), (0, 700), (0, 500)))
_DIFFERS_BY_SET = np.asarray(
    ((700, 700), (-200, 400), (-300, 200), (-400, 100), (-500, -200), (-600, -200), (-700, -300))
)
_PREFIX_BY_SPREAD = np.asarray((-300, -200, 0, 300, 500, 500, 500))
_SAME_BITS = np.asarray((0.08, 0.2, 0.5, 0.9, 1.0, 1.4, 0.8))
_OTHER_BITS = np.asarray((6.0, 5.0, 3.8, 3.2, 2.9, 2.7, 3.5))
"""Expected cost of a component that is as predicted, and of one that is half a pixel away, by the spread."""


NETWORK_WEIGHTS = 6554, 6554, 55706
"""Initial weights of both tables and of the network beside them: 0.1 and 0.85 in units of 1/65536."""


class Odds(Protocol):
    """Says how likely decisions are: :class:`tokcodec.probability.motion_network.MotionNetwork`."""

    def stretches(self, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        """Log-odds in units of 1/256, `(n, decisions)`."""
        ...


class _Coder(Protocol):
    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Codes bits under 16-bit probabilities that they are 1; returns the bits."""


_BEYOND = 1 << 12
"""In place of a vector that is not there: larger than any."""


def _median(values: NDArray[np.int32], count: NDArray[np.intp]) -> NDArray[np.int32]:
    """Medians over the first axis, `(4, n, 2)`, whose first `count` are numbers when sorted; two in the middle are
    averaged, downwards."""
    ordered = np.sort(values, axis=0)
    places = np.arange(count.size)
    low, high = ordered[(count - 1) // 2, places], ordered[count // 2, places]
    found: NDArray[np.int32] = (low + high) >> 1
    return found


def predict_set(
    group: CellSet, found: NDArray[np.int32], before: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Predictions of a set's vectors, and how far those are apart that they are made of.

    Args:
        group: The set.
        found: Vectors of this step as far as they are known, `(rows * columns, 2)`.
        before: Those of the step before.

    Returns:
        int32 `(n, 2)`, and the context, `(n,)`.
    """
    if not len(group.known):
        return before[group.cells], np.full(group.cells.size, _SPREADS - 1)
    there = group.known >= 0
    around = np.where(there[..., None], found[group.known], _BEYOND)
    lowest, highest = around.min(axis=0), np.where(there[..., None], around, -_BEYOND).max(axis=0)
    spread = np.searchsorted(_SPREAD_LIMITS, (highest - lowest).max(axis=1))
    return _median(around, there.sum(axis=0)), spread


def predict_relative(
    group: CellSet, found: NDArray[np.int32], expected: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The same where it is known what to expect of each cell: around it counts what others differ from that."""
    rest, spread = predict_set(group, found - expected, np.zeros_like(expected))
    return np.clip(expected[group.cells] + rest, -MAX_VECTOR, MAX_VECTOR), spread


_CLASSES = (0, 1, 1, 2, 2, 2, 2)
"""Of maps, by number, with statistics of their own: of the last frame, of the middle one, of the other two."""
_BETWEEN = {1: (0, 1, None), 2: (0, -1, None), 3: (1, 1, None), 4: (3, 1, 1), 5: (2, 1, None), 6: (5, 1, 2)}
"""What each map after the first is expected to be: half of a map, or its negative, or one map less another."""


def expected_map(maps: Sequence[NDArray[Any]], number: int) -> NDArray[Any]:
    """What is expected of a step's map but the first, where motion is even (spec 7.10).

    Args:
        maps: Those before it, or all, whose vectors are in the last axis, half pixels.
        number: Of the map.

    Returns:
        Shape and dtype of a map; halves are rounded down.
    """
    source, sign, total = _BETWEEN[number]
    if total is None:
        return sign * (maps[source] >> 1)
    found: NDArray[Any] = np.clip(maps[source] - maps[total], -MAX_VECTOR, MAX_VECTOR)
    return found


def expected_bits(rest: NDArray[np.int32], spread: NDArray[np.intp]) -> NDArray[np.float64]:
    """About what vectors cost, for encoders: `(..., n)`.

    Args:
        rest: What predictions leave of them, `(..., n, 2)`.
        spread: Contexts of the cells, `(n,)`.
    """
    size = np.abs(rest)
    same, other = _SAME_BITS[spread][:, None], _OTHER_BITS[spread][:, None]
    bits = np.where(size == 0, same, other + 2 * np.floor(np.log2(np.maximum(size, 1))))
    total: NDArray[np.float64] = bits.sum(axis=-1)
    return total


class MotionTraversal:
    """Codes the motion maps of a chunk's later steps, in both directions (spec section 7.10).

    Args:
        rows: Rows of motion blocks, of all maps of a step.
        columns: Columns of motion blocks.
        maps: Of each step, 1 or 7.
        network: Says how likely decisions are, beside what is learned on the way; None: nothing does.
        choice: Whether a choice map stands below them.
    """

    def __init__(
        self, rows: int, columns: int, *, maps: int = 1, network: Odds | None = None, choice: bool = False
    ) -> None:
        rows_of_map = rows // (maps + choice)
        self._shape = rows_of_map, columns
        self._choice = ChoiceTraversal(rows_of_map, columns) if choice else None
        self._sets = list(cell_sets(*self._shape))
        self._maps, self._network = maps, network
        self._before = np.zeros((rows_of_map * columns, 2), np.int32)
        self._coded = [True] * maps
        self._changes = [np.zeros_like(self._before)] * maps
        """What each map of the step before differs by from what was expected of it."""
        by_spread = np.zeros((2, _KINDS, _SPREADS, 2), np.int64)
        by_set = np.zeros((2, _KINDS, SETS, 2), np.int64)
        by_spread[:, _DIFFERS], by_set[:, _DIFFERS] = _DIFFERS_BY_SPREAD, _DIFFERS_BY_SET
        by_spread[:, _PREFIX:] = _PREFIX_BY_SPREAD[:, None]
        self._mixers = [
            ContextMixer(
                2 * _KINDS,
                [ContextTable(initial=initial_counts(table.reshape(2 * _KINDS, -1))) for table in (by_spread, by_set)],
                weights=None if network is None else np.tile(np.asarray(NETWORK_WEIGHTS, np.int64), (2 * _KINDS, 1)),
            )
            for _ in range(1 + max(_CLASSES[:maps]))
        ]

    def code_step(self, coder: _Coder, vectors: NDArray[np.int16]) -> None:
        """Codes the maps of one later step.

        Args:
            coder: Of the chunk.
            vectors: int16 `(rows, columns, 2)`, half pixels, x before y, each within `MAX_VECTOR`; a decoder fills it.

        Raises:
            CorruptStreamError: A vector is beyond what there is, or a map is coded that need not be.
        """
        found: list[NDArray[np.int32]] = []
        changes: list[NDArray[np.int32]] = []
        none = np.zeros_like(self._before)
        parts = np.split(vectors, self._maps + (self._choice is not None))  # views
        for number, part in enumerate(parts[: self._maps]):
            expected = expected_map(found, number) if number else self._before
            others = (changes[-1], changes[_BETWEEN[number][0]]) if number else (none, none)
            found.append(self._code_map(coder, part, expected, number, others))
            changes.append(found[-1] - expected)
        self._before, self._changes = found[0], changes
        if self._choice is not None:
            self._choice.code_step(coder, parts[-1], changes[0])

    def _code_map(
        self,
        coder: _Coder,
        vectors: NDArray[np.int16],
        expected: NDArray[np.int32],
        number: int,
        others: Sequence[NDArray[np.int32]],
    ) -> NDArray[np.int32]:
        wanted = vectors.reshape(-1, 2)
        found = np.zeros(wanted.shape, np.int32)
        plain = expected if number else found.copy()  # what costs next to nothing to say
        stays = np.asarray([STAYS_PROBABILITY if self._coded[number] else 65536 - STAYS_PROBABILITY], np.int32)
        self._coded[number] = bool(coder.code(np.asarray([np.any(wanted != plain)], np.uint8), stays)[0])
        if self._coded[number]:
            mixer = self._mixers[_CLASSES[number]]
            context = None
            if self._network is not None:
                context = MotionContext(self._shape, expected, others, self._changes[number])
            for cells in self._sets:
                self._code_set(coder, mixer, cells, wanted, found, expected, number=number, context=context)
            if np.array_equal(found, plain):
                what = "as expected" if number else "of zeros"
                raise CorruptStreamError(f"a motion map {what} alone", hint="the file is damaged")
            mixer.adapt()
        else:
            found = plain
        vectors[:] = found.reshape(vectors.shape)
        return found

    def _code_set(
        self,
        coder: _Coder,
        mixer: ContextMixer,
        group: CellSet,
        wanted: NDArray[np.int16],
        found: NDArray[np.int32],
        expected: NDArray[np.int32],
        *,
        number: int,
        context: MotionContext | None,
    ) -> None:
        cells, before = group.cells, expected[group.cells]
        prediction, spread = (predict_relative if number else predict_set)(group, found, expected)
        inputs = None if context is None else context.inputs(group, found, prediction)
        differed = np.zeros(cells.size, np.intp)
        for axis in (0, 1):
            odds = None
            if self._network is not None and inputs is not None:
                odds = self._network.stretches(inputs[axis], axis=axis, number=number, group=group.number)
            changed = (before[:, axis] != prediction[:, axis]).astype(np.intp)
            contexts = (spread * 2 + differed, group.number * 2 + changed)
            rest = wanted[cells, axis] - prediction[:, axis]
            rest = self._code_component(coder, mixer, axis, contexts, odds, rest)
            differed = (rest != 0).astype(np.intp)
            value = prediction[:, axis] + rest
            if np.any(np.abs(value) > MAX_VECTOR):
                raise CorruptStreamError(f"a motion vector beyond {MAX_VECTOR} half pixels", hint="the file is damaged")
            found[cells, axis] = value
            if inputs is not None and axis == 0:
                with_first(inputs[1], rest)

    def _code_component(
        self,
        coder: _Coder,
        mixer: ContextMixer,
        axis: int,
        contexts: tuple[NDArray[np.intp], NDArray[np.intp]],
        odds: NDArray[np.int32] | None,
        rest: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        """Codes what is left of the predictions of a set's cells."""
        first = axis * _KINDS
        given = None if odds is None else odds[:, _DIFFERS]
        chances = mixer.probabilities(first + _DIFFERS, contexts, given)
        differs = coder.code((rest != 0).astype(np.uint8), chances)
        mixer.observe(first + _DIFFERS, contexts, differs, chances, given)
        result = np.zeros(rest.size, np.int32)
        at = np.flatnonzero(differs)
        if at.size:
            slots = slice(first + _SIGN, first + _KINDS)
            some = None if odds is None else odds[at].T[_SIGN:]
            result[at] = _code_signed(coder, mixer, slots, (contexts[0][at], contexts[1][at]), some, rest[at])
        return result


def _code_signed(
    coder: _Coder,
    mixer: ContextMixer,
    slots: slice,
    contexts: tuple[NDArray[np.intp], NDArray[np.intp]],
    odds: NDArray[np.int32] | None,
    rest: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Codes numbers that are not 0, by the slots of the direction and of the unary part of how far."""
    chances = mixer.probabilities_of(slots, contexts, odds)
    coded = np.zeros(chances.shape, np.bool_)
    bits = np.zeros(chances.shape, np.uint8)
    coded[0] = True
    bits[0] = coder.code((rest > 0).astype(np.uint8), chances[0])
    # Exp-Golomb: as many ones as bits follow the magnitude's first one, a zero, and these bits.
    size = np.abs(rest)
    length = np.zeros(rest.size, np.int32)
    open_ = np.arange(rest.size)
    for j in range(PREFIX_BITS):
        longer = coder.code((size[open_] >= 2 << j).astype(np.uint8), chances[1 + j, open_])
        coded[1 + j, open_], bits[1 + j, open_] = True, longer
        open_ = open_[longer.astype(bool)]
        if not open_.size:
            break
        length[open_] += 1
    slot, at = np.nonzero(coded)
    given = None if odds is None else odds[slot, at]
    mixer.observe(slots.start + slot, (contexts[0][at], contexts[1][at]), bits[slot, at], chances[slot, at], given)
    magnitude = _code_magnitudes(coder, size, length)
    return np.where(bits[0], magnitude, -magnitude)


def _code_magnitudes(coder: _Coder, size: NDArray[np.int32], length: NDArray[np.int32]) -> NDArray[np.int32]:
    """Codes the bits of magnitudes that follow their first one, from above, those of one place after the other."""
    magnitude = np.ones(size.size, np.int32)
    longer = [np.flatnonzero(length > place) for place in range(int(length.max(initial=0)))]
    if not longer:
        return magnitude
    wanted = [size[cells] >> (length[cells] - place - 1) & 1 for place, cells in enumerate(longer)]
    every = np.concatenate(wanted).astype(np.uint8)
    bits = coder.code(every, np.full(every.size, HALF, np.int32))
    for cells, part in zip(longer, np.split(bits, np.cumsum([cells.size for cells in longer[:-1]])), strict=True):
        magnitude[cells] = 2 * magnitude[cells] + part
    return magnitude
