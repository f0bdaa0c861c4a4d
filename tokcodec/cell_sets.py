"""The cells of a grid from coarse to fine (spec section 7.10): every eighth of each row and column first, then those in
the middle of known ones.

Motion maps are coded in this order, and the means of a first picture are predicted in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BASE = 8
"""Cells between those that come first, in each direction."""


class CellSet(NamedTuple):
    """Cells that are coded together.

    Attributes:
        cells: intp `(n,)`, row-major.
        known: intp `(4, n)`, the cells around each, of which at least one is in the grid; -1 for those that are
            not. Empty, `(0, n)`, for the first set.
        number: Of the set, 0 to 6.
        spacing: From known cell to known cell in a row or a column, once these are known.
    """

    cells: NDArray[np.intp]
    known: NDArray[np.intp]
    spacing: int
    number: int


@functools.lru_cache(maxsize=8)
def cell_sets(rows: int, columns: int) -> tuple[CellSet, ...]:
    """The sets of a grid that have cells, in coding order; their arrays are not to be written to."""
    return tuple(_sets(rows, columns))


def _sets(rows: int, columns: int) -> Iterator[CellSet]:
    y, x = (grid.ravel() for grid in np.indices((rows, columns)))
    first = np.flatnonzero((y % BASE == 0) & (x % BASE == 0))
    yield CellSet(first, np.empty((0, first.size), np.intp), BASE, 0)
    stride, number = BASE, 0
    while stride > 1:
        half = stride // 2
        odd_row, odd_column = y % stride == half, x % stride == half
        even_row, even_column = y % stride == 0, x % stride == 0
        for inside, spacing, offsets in (
            (odd_row & odd_column, stride, ((-half, -half), (-half, half), (half, -half), (half, half))),
            ((odd_row & even_column) | (even_row & odd_column), half, ((-half, 0), (half, 0), (0, -half), (0, half))),
        ):
            number += 1
            cells = np.flatnonzero(inside)
            if cells.size:
                yield CellSet(cells, _around(rows, columns, y[cells], x[cells], offsets), spacing, number)
        stride = half


def _around(
    rows: int, columns: int, y: NDArray[np.intp], x: NDArray[np.intp], offsets: tuple[tuple[int, int], ...]
) -> NDArray[np.intp]:
    found = np.empty((len(offsets), y.size), np.intp)
    for result, (down, right) in zip(found, offsets, strict=True):
        there = (y + down >= 0) & (y + down < rows) & (x + right >= 0) & (x + right < columns)
        result[:] = np.where(there, (y + down) * columns + x + right, -1)
    return found
