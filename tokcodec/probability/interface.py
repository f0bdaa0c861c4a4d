"""What `bits.py` and a probability model say to each other (spec section 7.3).

`bits.py` decides which bits are coded, in which order and in which groups; a model gives one integer
probability for each bit of a group and is then told the bits. A model sees nothing else, so it cannot use
what a decoder does not know yet.
"""

from __future__ import annotations

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
        order: intp `(cells,)`, row-major index of each cell in coding order.
        neighbours: intp `(4, cells)`, coding-order index of the cell above, below, left and right of each
            cell in coding order; `cells` where there is none.
        split: Cells of colour 0.
    """

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
        framed = np.full((rows + 2, columns + 2), rows * columns, dtype=np.intp)
        place = np.empty(rows * columns, dtype=np.intp)
        place[order] = np.arange(rows * columns)
        framed[1:-1, 1:-1] = place.reshape(rows, columns)
        around = (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:])
        neighbours = np.stack([side.ravel()[order] for side in around])
        return cls(order=order, neighbours=neighbours, split=int((parity == 0).sum()))


@dataclass(frozen=True, kw_only=True)
class BitGroup:
    """Bits that are coded in one go: one plane, one colour, the cells that keep the bit.

    Attributes:
        plane: Which bit of the token; 0 is the most important.
        colour: 0 or 1.
        where: The cells, as places in coding order; at least one.
    """

    plane: int
    colour: int
    where: Places


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
