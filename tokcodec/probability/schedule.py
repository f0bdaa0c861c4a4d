"""In which order and in which groups the bits of a step are coded (spec section 7.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tokcodec.probability.interface import BitGroup, Checkerboard, Places

Schedule: TypeAlias = Callable[[Checkerboard, NDArray[np.uint8], Sequence[int]], Iterator[BitGroup]]
"""Gives the groups of a step, from the grid, the bits kept of each cell in coding order, and the bits of each level."""
MAX_SPANS = 6
"""Spans of planes that `prior` codes one after the other, each in two colours: 12 looks of its network a step."""


def spans_of(level_bits: Sequence[int]) -> tuple[range, ...]:
    """The spans of planes that `prior` codes together (spec section 7.3).

    Those between two levels, or where levels are many, between levels further apart. The wider spans of a table whose
    levels grow apart are its last ones, whose bits matter least.
    """
    pairs = len(level_bits) - 1
    borders = [level_bits[pairs * number // MAX_SPANS] for number in range(MAX_SPANS + 1)]
    return tuple(range(first, last) for first, last in pairwise(borders) if first < last)


def plane_by_plane(grid: Checkerboard, kept: NDArray[np.uint8], level_bits: Sequence[int]) -> Iterator[BitGroup]:
    """The order of `adaptive`: each plane, in it each colour."""
    for first, last in pairwise(level_bits):
        places = list(_of_each_colour(grid, kept >= last))
        for plane in range(first, last):
            for colour, where in places:
                yield BitGroup(plane=plane, colour=colour, where=where)


def level_by_level(grid: Checkerboard, kept: NDArray[np.uint8], level_bits: Sequence[int]) -> Iterator[BitGroup]:
    """The order of `prior`: a span of planes at one colour, then at the other; 12 looks at most."""
    for whole in spans_of(level_bits):
        for colour, where in _of_each_colour(grid, kept > whole.start):
            bits = kept[where]
            # Planes that no cell keeps are no part of the span: they would cost time.
            span = range(whole.start, min(whole.stop, int(bits.max())))
            cells, within = where, None
            for plane in span:
                if plane in level_bits[1:] and (bits <= plane).any():
                    within = np.flatnonzero(bits > plane)
                    cells = within + where.start if isinstance(where, slice) else where[within]
                yield BitGroup(plane=plane, colour=colour, where=cells, span=span, within=within)


def wave_by_wave(grid: Checkerboard, kept: NDArray[np.uint8], level_bits: Sequence[int]) -> Iterator[BitGroup]:
    """The order of `prior-autoregressive`: token by token, and of a token bit by bit.

    Tokens of one wave, whose column + 3 * row is the same, are coded together: none is in the window of another.
    """
    rows, columns = np.divmod(grid.order, grid.columns)
    wave = columns + 3 * rows
    order = np.argsort(wave, kind="stable")
    starts = np.searchsorted(wave[order], np.arange(wave.max() + 2))
    for number, (start, end) in enumerate(pairwise(starts)):
        cells = order[start:end]
        for plane in range(level_bits[-1]):
            cells = cells[kept[cells] > plane]
            if not cells.size:
                break
            yield BitGroup(plane=plane, colour=number & 1, where=cells)


def _of_each_colour(grid: Checkerboard, kept: NDArray[np.bool_]) -> Iterator[tuple[int, Places]]:
    """The cells of each colour that are kept, where there are any."""
    for colour, span in enumerate((slice(0, grid.split), slice(grid.split, kept.size))):
        part = kept[span]
        if part.size and part.all():
            yield colour, span
        elif part.any():
            yield colour, np.flatnonzero(part) + span.start
