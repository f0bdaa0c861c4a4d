"""A first picture by blocks <-> bits (spec section 7.13): integers only.

First how the picture is cut, size by size, then the modes of its blocks, along diagonals from the top left corner, then
the coefficients of each colour, size by size and in each block from low frequencies to high ones. Of each kind of
decision many are made at once, so that a network can say of all how likely they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.bands import PHASES
from tokcodec.errors import CorruptStreamError
from tokcodec.picture_bits import EVEN, Coder, code_coefficients, code_scale
from tokcodec.picture_context import sizes_of
from tokcodec.picture_layout import (
    ACROSS,
    CELL,
    DIAGONAL,
    DOWN,
    LIKELY,
    MEAN,
    MODES,
    PLANAR,
    SIZES,
    UNKNOWN,
    Blocks,
    Leaves,
    leaves,
    likely_modes,
)
from tokcodec.probability.block_network import INPUTS
from tokcodec.tokens import Picture

MODE_BITS = 5
"""Of the number of a mode among those that were not asked for by name."""
DIAGONALS = 16
"""Of a block's coefficients, that have a place of their own in a table of biases; the last stands for all behind it."""


def _nearness(to: int) -> NDArray[np.uint8]:
    """How near each mode is to a direction."""
    found: NDArray[np.uint8] = np.maximum(0, 255 - 32 * np.abs(np.arange(MODES) - to)).astype(np.uint8)
    found[[PLANAR, MEAN]] = 0
    return found


_ACROSS, _DOWN, _DIAGONAL = (_nearness(to) for to in (ACROSS, DOWN, DIAGONAL))
_PLAIN = np.asarray([200, 100, *[0] * (MODES - 2)], np.uint8)

Numbers = NDArray[np.int64]


class Odds(Protocol):
    """Says how likely decisions are: :class:`tokcodec.probability.block_network.BlockNetwork`."""

    def probabilities(
        self, name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
    ) -> NDArray[np.int32]:
        """16-bit probabilities, `(n, decisions)`."""
        ...


class BlockTraversal:
    """Codes one picture by blocks, in both directions (spec section 7.13).

    Args:
        network: Says how likely decisions are.
    """

    def __init__(self, network: Odds) -> None:
        self._network = network

    def code(self, coder: Coder, picture: Picture) -> int:
        """Codes one picture.

        Args:
            coder: Of the chunk.
            picture: A decoder's has coefficients of zeros and blocks of `UNKNOWN`, which it fills.

        Returns:
            The scale; a decoder ignores that of the picture.

        Raises:
            CorruptStreamError: A coefficient is beyond what there is, or a block is said to have more and has none.
        """
        if picture.blocks is None:
            raise ValueError("the picture is not one by blocks")
        scale = code_scale(coder, picture.scale)
        layout = _Layout(self._network, coder, scale)
        layout.code(picture.blocks)
        for colour in range(len(picture.coefficients)):
            coefficients = _Coefficients(self._network, coder, scale, picture.blocks, picture.coefficients, colour)
            for level in range(len(SIZES)):
                coefficients.code_level(level)
        return scale


class _Layout:
    """How a picture is cut, and its modes."""

    def __init__(self, network: Odds, coder: Coder, scale: int) -> None:
        self._network, self._coder, self._scale = network, coder, scale

    def code(self, blocks: Blocks) -> None:
        levels = np.where(blocks == UNKNOWN, 0, blocks // MODES).astype(np.intp)
        found = self._code_levels(levels)
        modes = self._code_modes(found, np.where(blocks == UNKNOWN, 0, blocks % MODES).astype(np.intp))
        blocks[...] = MODES * found + modes

    def _code_levels(self, wanted: NDArray[np.intp]) -> NDArray[np.intp]:
        """The level at each cell."""
        found = np.zeros(wanted.shape, np.intp)
        known = np.zeros(wanted.shape, np.int64)
        """0 where nothing is known, 2 n + 2 where blocks are known to be of level n, 2 n + 1 where they are known to be
        cut into those of level n."""
        for level, size in enumerate(SIZES[:-1]):
            side = size // CELL
            open_ = found[::side, ::side] == level
            rows, columns = np.nonzero(open_)
            whole = (side * (rows + 1) <= wanted.shape[0]) & (side * (columns + 1) <= wanted.shape[1])
            self._cut(found, known, Leaves(level, side * rows[~whole], side * columns[~whole]))
            for phase, (down, right) in enumerate(PHASES):
                here = whole & (rows % 2 == down) & (columns % 2 == right)
                group = Leaves(level, side * rows[here], side * columns[here])
                if not group.rows.size:
                    continue
                inputs = np.zeros((group.rows.size, INPUTS), np.uint8)
                for place, value in enumerate(_around(known, group, 0)):
                    inputs[:, place] = 30 * value
                inputs[:, 8] = 4 * self._scale
                odds = self._network.probabilities("layout", inputs, len(PHASES) * level + phase)
                cut = self._coder.code((wanted[group.rows, group.columns] > level).astype(np.uint8), odds[:, 0]) > 0
                ends = Leaves(level, group.rows[~cut], group.columns[~cut])
                known[ends.cells()] = 2 * level + 2
                self._cut(found, known, Leaves(level, group.rows[cut], group.columns[cut]))
        return found

    @staticmethod
    def _cut(found: NDArray[np.intp], known: Numbers, group: Leaves) -> None:
        """Blocks are cut; those beyond the picture's edge have fewer cells."""
        rows, columns = group.cells()
        rows, columns = np.broadcast_arrays(rows, columns)
        inside = (rows < found.shape[0]) & (columns < found.shape[1])
        found[rows[inside], columns[inside]] = group.level + 1
        known[rows[inside], columns[inside]] = 2 * group.level + 3

    def _code_modes(self, levels: NDArray[np.intp], wanted: NDArray[np.intp]) -> NDArray[np.intp]:
        """The mode at each cell."""
        known = np.full((levels.shape[0] + 1, levels.shape[1] + 1), UNKNOWN, np.intp)
        """Behind the last row and column nothing is ever known, and so before the first."""
        all_ = [leaves(levels, level) for level in range(len(SIZES))]
        rows = np.concatenate([each.rows for each in all_])
        columns = np.concatenate([each.columns for each in all_])
        diagonal = rows + columns
        sequence = np.argsort(diagonal, kind="stable")
        cuts = np.flatnonzero(np.diff(diagonal[sequence])) + 1
        for part in np.split(sequence, cuts):
            y, x = rows[part], columns[part]
            own = levels[y, x]
            modes = self._code_diagonal(known, levels, y, x, wanted[y, x])
            for level in np.unique(own):
                here = own == level
                cells = Leaves(level, y[here], x[here]).cells()
                known[cells] = modes[here][:, None, None]
        return known[:-1, :-1]

    def _code_diagonal(
        self,
        known: NDArray[np.intp],
        levels: NDArray[np.intp],
        y: NDArray[np.intp],
        x: NDArray[np.intp],
        wanted: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Modes of blocks of which none is another's neighbour, `(n,)`."""
        near = np.stack([known[y, x - 1], known[y - 1, x], known[y - 1, x - 1]], axis=1)
        likely = likely_modes(near[:, 0], near[:, 1])
        inputs = np.zeros((y.size, INPUTS), np.uint8)
        inputs[:, :3] = 60 * (near != UNKNOWN)
        for number, mode in enumerate(likely.T):
            inputs[:, 8 + number] = 60 * (near == mode[:, None]).sum(axis=1)
            inputs[:, 11 + number] = _PLAIN[mode]
            inputs[:, 14 + number], inputs[:, 17 + number] = _ACROSS[mode], _DOWN[mode]
        directed = ((near[:, :2] > 1) & (near[:, :2] != UNKNOWN)).all(axis=1)
        apart = np.minimum(np.abs(near[:, 0] - near[:, 1]), 31)
        inputs[:, 20], inputs[:, 21] = 8 * apart * directed, 60 * directed
        inputs[:, 23] = 4 * self._scale
        inputs[:, 24], inputs[:, 25] = 80 * levels[y, x - 1] * (x > 0), 80 * levels[y - 1, x] * (y > 0)
        odds = self._network.probabilities("layout", inputs, len(PHASES) * (len(SIZES) - 1) + levels[y, x])
        found = np.zeros(y.size, np.intp)
        left = np.arange(y.size)
        for number in range(LIKELY):
            named = likely[left, number]
            hit = self._coder.code((wanted[left] == named).astype(np.uint8), odds[left, 1 + number]) > 0
            found[left[hit]] = named[hit]
            left = left[~hit]
            if not left.size:
                return found
        named = np.sort(likely[left], axis=1)
        number = wanted[left] - (wanted[left][:, None] > named).sum(axis=1)
        rest = np.zeros(left.size, np.intp)
        for bit in range(MODE_BITS - 1, -1, -1):
            coded = self._coder.code((number >> bit & 1).astype(np.uint8), np.full(left.size, EVEN, np.int32))
            rest = 2 * rest + coded
        for lower in named.T:
            rest += rest >= lower
        found[left] = rest
        return found


class _Coefficients:
    """Those of one colour."""

    def __init__(
        self,
        network: Odds,
        coder: Coder,
        scale: int,
        blocks: Blocks,
        coefficients: NDArray[np.int16],
        colour: int,
    ) -> None:
        self._network, self._coder, self._scale, self._colour = network, coder, scale, colour
        self._levels, self._modes = blocks // MODES, (blocks % MODES).astype(np.intp)
        self._values, self._before = coefficients[colour], coefficients[:colour]
        self._amount = np.zeros(blocks.shape, np.int64)
        """Of each block that is known, as far as it is: magnitudes for each four pixels of its side."""
        self._extent = np.zeros(blocks.shape, np.int64)
        """And how far its frequencies reach, of 255."""

    def code_level(self, level: int) -> None:
        """Codes the blocks of one size."""
        group = leaves(self._levels, level)
        if not group.rows.size:
            return
        side, count = group.side, group.rows.size
        pixels = group.pixels()
        wanted = self._values[pixels]
        values = np.zeros(wanted.shape, np.int16)
        sizes = _framed(np.zeros(wanted.shape, np.int16))
        others = [_framed(plane[pixels]) for plane in self._before]
        rest = [_beyond(each[:, 2:-1, 2:-1]) for each in others]
        has_more = _beyond(_capped(wanted)) > 0
        fixed = np.zeros((count, INPUTS), np.uint8)
        modes = self._modes[group.rows, group.columns]
        for place, table in enumerate((_ACROSS, _DOWN, _PLAIN, _DIAGONAL)):
            fixed[:, 8 + place] = table[modes]
        fixed[:, 12] = 4 * self._scale
        last, before_last, total = (np.zeros(count, np.int64) for _ in range(3))
        open_ = np.arange(count)
        for diagonal in range(2 * side - 1):
            here = Leaves(level, group.rows[open_], group.columns[open_])
            inputs = fixed[open_]
            for place, (amount, extent) in enumerate(
                zip(_around(self._amount, here, 0)[:4], _around(self._extent, here, 0)[:4], strict=True)
            ):
                inputs[:, place], inputs[:, 4 + place] = sizes_of(amount), extent
            for place, known in enumerate((last, before_last, total)):
                inputs[:, 13 + place] = sizes_of(known[open_])
            for number, each in enumerate(rest):
                inputs[:, 16 + number] = sizes_of(each[open_, diagonal])
            place = (self._colour * len(SIZES) + level) * DIAGONALS + min(diagonal, DIAGONALS - 1)
            asked = inputs.copy()
            for number, each in enumerate(rest):
                asked[:, 18 + number] = sizes_of(each[open_, 0])
            asked[:, 20] = min(255, diagonal * (128 // side))
            # Where the diagonal before has none there must be more, or it would have ended there.
            ask = np.flatnonzero(last[open_] > 0) if diagonal else np.arange(count)
            odds = self._network.probabilities("extent", asked[ask], place)[:, 0]
            more = np.ones(open_.size, np.bool_)
            more[ask] = self._coder.code(has_more[open_[ask], diagonal].astype(np.uint8), odds) > 0
            open_, inputs = open_[more], inputs[more]
            if not open_.size:
                break
            found = self._code_diagonal(inputs, place, open_, diagonal, wanted, sizes, others)
            rows = np.arange(max(0, diagonal - side + 1), min(diagonal, side - 1) + 1)
            values[open_[:, None], rows, diagonal - rows] = found
            magnitudes = np.abs(found.astype(np.int64))
            sizes[open_[:, None], 2 + rows, 2 + diagonal - rows] = np.minimum(magnitudes, 255)
            before_last[open_], last[open_] = last[open_], magnitudes.sum(axis=1)
            total[open_] += last[open_]
            cells = Leaves(level, group.rows[open_], group.columns[open_]).cells()
            amount = np.maximum(total[open_] * CELL // side, total[open_] > 0)
            self._amount[cells] = amount[:, None, None]
            self._extent[cells] = min(255, (diagonal + 1) * 128 // side)
            if diagonal == 2 * side - 2 and not last[open_].all():
                raise CorruptStreamError("a block of a picture has no last coefficient", hint="the file is damaged")
        self._values[pixels] = values

    def _code_diagonal(
        self,
        inputs: NDArray[np.uint8],
        place: int,
        blocks: NDArray[np.intp],
        diagonal: int,
        wanted: NDArray[np.int16],
        sizes: NDArray[np.uint8],
        others: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.int16]:
        """Coefficients of one diagonal of blocks, `(blocks, n)`, from its top right end."""
        side = wanted.shape[-1]
        rows = np.arange(max(0, diagonal - side + 1), min(diagonal, side - 1) + 1)
        columns = diagonal - rows
        each = np.repeat(inputs, rows.size, axis=0).reshape(blocks.size, rows.size, INPUTS)
        block = blocks[:, None]

        def at(array: NDArray[np.uint8], down: int, right: int) -> Numbers:
            found: Numbers = array[block, 2 + rows + down, 2 + columns + right].astype(np.int64)
            return found

        near = [at(sizes, *way) for way in ((-1, 0), (0, -1), (-1, -1), (-2, 0), (0, -2))]
        for number, value in enumerate(near):
            each[..., 18 + number] = sizes_of(value)
        each[..., 23] = sizes_of(2 * (near[0] + near[1]) + near[2] + near[3] + near[4])
        each[..., 24], each[..., 25] = (np.minimum(128 // side * place, 255) for place in (rows, columns))
        for number, other in enumerate(others):
            each[..., 26 + 2 * number] = sizes_of(at(other, 0, 0))
            beside = at(other, -1, 0) + at(other, 1, 0) + at(other, 0, -1) + at(other, 0, 1)
            each[..., 27 + 2 * number] = sizes_of(beside)
        odds = self._network.probabilities("size", each.reshape(-1, INPUTS), place)
        found = code_coefficients(self._coder, wanted[block, rows, columns].reshape(-1), odds)
        return found.astype(np.int16).reshape(blocks.size, rows.size)


def _around(values: Numbers, group: Leaves, nothing: int) -> list[Numbers]:
    """What is at the left of the middle of each block, above it, right of it and below, and at its four corners.

    Args:
        values: Of cells.
        group: The blocks.
        nothing: What is beyond the picture.
    """
    side = group.side // CELL
    framed = np.pad(values, 1, constant_values=nothing)
    y, x, middle = group.rows + 1, group.columns + 1, side // 2
    ways = ((middle, -1), (-1, middle), (middle, side), (side, middle), (-1, -1), (-1, side), (side, -1), (side, side))
    return [framed[y + down, x + right] for down, right in ways]


def _capped(coefficients: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Magnitudes up to 255: no context looks further."""
    found: NDArray[np.uint8] = np.minimum(np.abs(coefficients), 255).astype(np.uint8)
    return found


def _framed(coefficients: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Magnitudes of blocks with two rows and columns of zeros before them, and one behind."""
    framed: NDArray[np.uint8] = np.pad(_capped(coefficients), ((0, 0), (2, 1), (2, 1)))
    return framed


def _beyond(sizes: NDArray[np.uint8]) -> Numbers:
    """Of blocks `(n, side, side)`, the sums of each diagonal and of all behind it, `(n, 2 * side - 1)`."""
    side = sizes.shape[-1]
    rows, columns = np.mgrid[:side, :side]
    found = np.zeros((len(sizes), 2 * side - 1), np.int64)
    for diagonal in range(2 * side - 1):
        found[:, diagonal] = sizes[:, rows + columns == diagonal].sum(axis=1, dtype=np.int64)
    summed: Numbers = found[:, ::-1].cumsum(axis=1)[:, ::-1]
    return summed
