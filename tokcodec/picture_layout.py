"""How a first picture is cut into blocks, and which modes they are likely to have (spec sections 3.8 and 7.13)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.geometry import BLOCK_CELL

SIZES = (32, 16, 8, 4)
"""Pixels along each side of blocks, by level: a block of one level may be cut into four of the next."""
CELL = BLOCK_CELL
"""Pixels along each side of a cell, the smallest block."""
MODES = 35
"""Ways to predict a block: planar, mean, and 33 directions."""
PLANAR, MEAN, ACROSS, DIAGONAL, DOWN = 0, 1, 10, 18, 26
"""Modes by name: of the directions, from the left, from above on the left, and from above."""
UNKNOWN = 255
"""In place of a mode."""
LIKELY = 3
"""Modes that are asked for by name, before the number of another one is said."""
_ALWAYS = (PLANAR, MEAN, DOWN, ACROSS)

Blocks = NDArray[np.uint8]
"""A picture's layout, `(H / 4, W / 4)`: at each cell `MODES` * the level of its block + its mode."""
Places = NDArray[np.intp]


class Leaves(NamedTuple):
    """Blocks of one size.

    Attributes:
        level: An index into `SIZES`.
        rows: The top row of each, in cells, `(n,)`.
        columns: The left column of each, in cells, `(n,)`.
    """

    level: int
    rows: Places
    columns: Places

    @property
    def side(self) -> int:
        """Pixels along each side."""
        return SIZES[self.level]

    def cells(self) -> tuple[Places, Places]:
        """Rows and columns of their cells, `(n, k, 1)` and `(n, 1, k)`."""
        each = np.arange(self.side // CELL)
        return self.rows[:, None, None] + each[:, None], self.columns[:, None, None] + each

    def pixels(self) -> tuple[Places, Places]:
        """Rows and columns of their pixels, `(n, side, 1)` and `(n, 1, side)`."""
        each = np.arange(self.side)
        return CELL * self.rows[:, None, None] + each[:, None], CELL * self.columns[:, None, None] + each


def leaves(levels: NDArray[np.integer], level: int) -> Leaves:
    """The blocks of a level, row by row, of the levels at each cell."""
    side = SIZES[level] // CELL
    rows, columns = np.nonzero(levels[::side, ::side] == level)
    return Leaves(level, rows * side, columns * side)


def is_layout(blocks: NDArray[np.integer]) -> bool:
    """Whether numbers are the layout of a picture, `(rows, columns)` of cells."""
    if blocks.ndim != 2 or blocks.size == 0 or any(side % 2 for side in blocks.shape):
        return False
    if blocks.min() < 0 or blocks.max() >= MODES * len(SIZES):
        return False
    levels = blocks // MODES
    covered = np.zeros(blocks.shape, np.int64)
    for level, size in enumerate(SIZES):
        found, side = leaves(levels, level), size // CELL
        inside = (found.rows + side <= blocks.shape[0]) & (found.columns + side <= blocks.shape[1])
        if not inside.all():
            return False
        cells = found.cells()
        if np.any(blocks[cells] != blocks[found.rows, found.columns][:, None, None]):
            return False
        covered[cells] += 1
    return bool((covered == 1).all())


def order(rows: Places, columns: Places, width: int) -> NDArray[np.int64]:
    """Numbers that grow in the order in which blocks are decoded: squares of 32 pixels row by row, in each of them the
    four quarters row by row, in each of these likewise.

    Args:
        rows: Of cells.
        columns: Of cells, of the same shape.
        width: Of the picture, in cells.
    """
    whole = SIZES[0] // CELL
    number = (rows // whole) * -(-width // whole) + columns // whole
    for bit in range(whole.bit_length() - 2, -1, -1):
        number = 4 * number + 2 * (rows >> bit & 1) + (columns >> bit & 1)
    return np.asarray(number, np.int64)


def in_order(blocks: Blocks) -> tuple[Places, Places, Places, Places]:
    """Level, mode, row and column in cells of all blocks, `(n,)` each, as they are decoded."""
    levels = blocks // MODES
    found = [leaves(levels, level) for level in range(len(SIZES))]
    rows = np.concatenate([each.rows for each in found])
    columns = np.concatenate([each.columns for each in found])
    sequence = np.argsort(order(rows, columns, blocks.shape[1]))
    rows, columns = rows[sequence], columns[sequence]
    numbers = blocks[rows, columns].astype(np.intp)
    return numbers // MODES, numbers % MODES, rows, columns


def likely_modes(left: Places, above: Places) -> NDArray[np.intp]:
    """The modes that are asked for by name, `(n, LIKELY)`: those of the blocks at the left and above, and the first of
    planar, mean, down and across that are not among them.

    Args:
        left: Mode of the block at the left of each block's top left pixel, `UNKNOWN` beyond the picture, `(n,)`.
        above: The same above.
    """
    return _likely()[np.minimum(left, MODES), np.minimum(above, MODES)]


@functools.cache
def _likely() -> NDArray[np.intp]:
    """Those of all modes at the left and above, `UNKNOWN` the last of them: `(MODES + 1, MODES + 1, LIKELY)`."""
    found = np.full((MODES + 1, MODES + 1, LIKELY), UNKNOWN, np.intp)
    for near in np.ndindex(MODES + 1, MODES + 1):
        named = [mode for mode in near if mode < MODES]
        found[near] = list(dict.fromkeys([*named, *_ALWAYS]))[:LIKELY]
    return found
