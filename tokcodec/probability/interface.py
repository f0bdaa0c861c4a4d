"""What `bits.py` and a probability model say to each other (spec section 7.3).

`bits.py` decides which bits are coded, in which order and in which groups; a model gives one integer
probability for each bit of a group and is then told the bits. A model sees nothing else, so it cannot use
what a decoder does not know yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Places: TypeAlias = slice | NDArray[np.intp]
"""Cells of a grid, as places in coding order."""


@dataclass(frozen=True, kw_only=True)
class Checkerboard:
    """The coding order of the cells of a grid: colour 0 (row + column even) first, each row-major.

    Attributes:
        rows: Rows of the grid.
        columns: Columns of the grid.
        order: intp `(cells,)`, row-major index of each cell in coding order.
        neighbours: intp `(4, cells)`, coding-order index of the cell above, below, left and right of each
            cell in coding order; `cells` where there is none.
        split: Cells of colour 0.
    """

    rows: int
    columns: int
    order: NDArray[np.intp]
    neighbours: NDArray[np.intp]
    split: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.order.size

    @classmethod
    def of(cls, rows: int, columns: int) -> Checkerboard:
        """The coding order of a grid of `rows` x `columns` cells (spec section 7.3)."""
        parity = (np.arange(rows)[:, None] + np.arange(columns)[None, :]) & 1
        order = np.argsort(parity, axis=None, kind="stable")
        around = _shifted(rows, columns, order, ((-1, 0), (1, 0), (0, -1), (0, 1)))
        return cls(rows=rows, columns=columns, order=order, neighbours=around, split=int((parity == 0).sum()))

    def window(self, side: int) -> NDArray[np.intp]:
        """The cells around each cell: intp `(cells, side * side)`, row-major in the window; `cells` outside."""
        reach = range(-(side // 2), side // 2 + 1)
        offsets = tuple((down, right) for down in reach for right in reach)
        return np.ascontiguousarray(_shifted(self.rows, self.columns, self.order, offsets).T)


def _shifted(rows: int, columns: int, order: NDArray[np.intp], offsets: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """Coding-order index of the cell at each offset (down, right) from each cell: `(offsets, cells)`."""
    place = np.empty(rows * columns, dtype=np.intp)
    place[order] = np.arange(rows * columns)
    reach = max((abs(step) for offset in offsets for step in offset), default=0)
    framed = np.pad(place.reshape(rows, columns), reach, constant_values=rows * columns)
    around = [
        framed[reach + down : reach + down + rows, reach + right : reach + right + columns] for down, right in offsets
    ]
    return np.stack([cells.ravel()[order] for cells in around])


@dataclass(frozen=True, kw_only=True)
class BitGroup:
    """Bits that are coded in one go: one plane, one colour, the cells that keep the bit.

    Attributes:
        plane: Which bit of the token; 0 is the most important.
        colour: 0 or 1.
        where: The cells, as places in coding order; at least one.
        span: Planes that are coded at the cells of its first plane one after the other, this one among them; what
            else is known does not change meanwhile. None: just this one.
        within: The cells, as places among those of the first plane of the span. None: all of these.
    """

    plane: int
    colour: int
    where: Places
    span: range | None = None
    within: NDArray[np.intp] | None = None

    @property
    def planes(self) -> range:
        """The span."""
        return range(self.plane, self.plane + 1) if self.span is None else self.span


class TokenModel(Protocol):
    """Gives the probabilities of token bits; one object serves one chunk (spec section 7.3).

    For each latent step: `start_step`; then `probabilities` and `observe` for each group that is not empty,
    in the order of the spec; then `finish_step`.
    """

    def start_step(self, kept: NDArray[np.uint8]) -> None:
        """Begins a step; `kept` is how many bits each cell keeps, in coding order."""

    def probabilities(self, group: BitGroup) -> NDArray[np.int32]:
        """16-bit probabilities, 32 to 65504, that the bits of `group` are 1."""

    def observe(self, group: BitGroup, bits: NDArray[np.uint8]) -> None:
        """Takes in the bits of the group that `probabilities` was last asked about."""

    def finish_step(self) -> None:
        """Adapts to the step that was just coded; the next one begins."""
