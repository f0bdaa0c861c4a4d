"""What the network of motion maps is shown of each block (spec section 7.14): what is known around, and of maps before.

All that is signed comes in two parts, how far it is above zero and how far below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokcodec.cell_sets import CellSet
from tokcodec.picture_context import sizes_of

SETS = 7
"""Of blocks, as they are coded from coarse to fine."""
_SHARE = 60
"""One of at most four, as an input."""
_EACH = 28
"""One of at most nine."""

INPUTS = 8 + 8 + 8 + 4 + 2 + 2 + 2
"""Eight signed numbers in two parts, eight magnitudes, two more of the prediction, counts, and of x."""

Vectors = NDArray[np.int32]


class MotionContext:
    """Inputs of the network for the sets of one map.

    Args:
        shape: Rows and columns of the map.
        expected: Vectors that are expected, `(rows * columns, 2)`.
        changes: What other maps of the step differ by from what was expected of them, the same: of the one that was
            coded last, and of the one that the map is expected from; zeros where there are none.
        before: The same of this map in the step before.
    """

    def __init__(self, shape: tuple[int, int], expected: Vectors, changes: Sequence[Vectors], before: Vectors) -> None:
        self._expected = expected
        of_last, of_source = changes
        self._above, self._below = _parts(np.stack([of_last, of_source, before], axis=1))
        self._near = np.stack([_counts(other, shape) * _EACH for other in (of_last, before)], axis=1).astype(np.uint8)
        self._uneven = sizes_of(_ranges(expected, shape))

    def inputs(self, group: CellSet, found: Vectors, prediction: Vectors) -> NDArray[np.uint8]:
        """Of both components of each block, uint8 `(2, n, INPUTS)`; the last two are of what is coded of x before y.

        Args:
            group: The set.
            found: Vectors as far as they are known.
            prediction: Of the blocks of the set, `(n, 2)`.
        """
        cells = group.cells
        shift = prediction - self._expected[cells]
        there = group.known >= 0
        # Of those around: how they differ from what was expected of them.
        around = np.where(there[..., None], found[group.known] - self._expected[group.known], 0)
        signed = np.zeros((cells.size, 5, 2), np.int32)
        signed[:, : len(around)] = np.where(there[..., None], around - shift, 0).transpose(1, 0, 2)
        np.negative(shift, out=signed[:, 4])
        above, below = (
            np.concatenate([part, whole[cells]], axis=1)
            for part, whole in zip(_parts(signed), (self._above, self._below), strict=True)
        )
        sizes = np.maximum(above, below)
        far, uneven = sizes_of(np.abs(prediction)), self._uneven[cells]
        values = np.zeros((2, cells.size, INPUTS), np.uint8)
        for axis in (0, 1):
            values[axis, :, :8], values[axis, :, 8:16] = above[..., axis], below[..., axis]
            values[axis, :, 16:24] = sizes[..., 1 - axis]
            values[axis, :, 24], values[axis, :, 25] = far[:, axis], far[:, 1 - axis]
            values[axis, :, 26], values[axis, :, 27] = uneven[:, axis], uneven[:, 1 - axis]
        values[..., 28] = _SHARE * there.sum(axis=0)
        values[..., 29] = _SHARE * around.any(axis=2).sum(axis=0)
        values[..., 30:32] = self._near[cells]
        return values


def with_first(inputs: NDArray[np.uint8], rest: NDArray[np.int32]) -> None:
    """Put into the inputs of y what is left of the predictions of x."""
    inputs[:, -2], inputs[:, -1] = _parts(rest)


def _parts(signed: Vectors) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """How far numbers are above zero, and how far below."""
    return sizes_of(np.maximum(signed, 0)), sizes_of(np.maximum(-signed, 0))


def _counts(changes: Vectors, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Of each block and the eight around it, how many have a change."""
    rows, columns = shape
    has = np.pad((changes != 0).any(axis=1).reshape(shape).astype(np.int64), 1)
    lines = has[:-2] + has[1:-1] + has[2:]
    found: NDArray[np.int64] = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]
    return found.reshape(rows * columns)


def _ranges(vectors: Vectors, shape: tuple[int, int]) -> Vectors:
    """How far the vectors of each block and the eight around it are apart, `(rows * columns, 2)`."""
    grid = np.pad(vectors.reshape(*shape, 2), ((1, 1), (1, 1), (0, 0)), mode="edge")
    found = []
    for best in (np.maximum, np.minimum):
        lines = best(best(grid[:-2], grid[1:-1]), grid[2:])
        found.append(best(best(lines[:, :-2], lines[:, 1:-1]), lines[:, 2:]).reshape(-1, 2))
    return np.asarray(found[0] - found[1])
