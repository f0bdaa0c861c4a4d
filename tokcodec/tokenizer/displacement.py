"""The motion map of a step: what an encoder sends of the motion that it found.

Blocks choose in the order in which they are coded, coarse to fine (spec section 7.10): each takes, of a few vectors
that were found around it and the one that is predicted for it, that of least squared error + lambda * bits. Those that
come early count the error of what is around them as well, for others will be predicted by them. No decoder needs to
know.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.cell_sets import CellSet, cell_sets
from tokcodec.geometry import MAX_VECTOR
from tokcodec.motion_bits import expected_bits, predict_relative, predict_set
from tokcodec.tokenizer.block_search import field_of_motion, neighbours
from tokcodec.tokenizer.motion import BLOCK, VECTORS_PER_PIXEL, even_displacement
from tokcodec.tokenizer.search import grey

Vectors = NDArray[np.int16]
Errors = NDArray[np.float32]
Predict = Callable[[CellSet, NDArray[np.int32], NDArray[np.int32]], tuple[NDArray[np.int32], NDArray[np.intp]]]

SAMPLING = 2
"""Every second row and column of every second frame stands for all."""
WINDOWS = (3, 5, 9)
"""Blocks along each side of the neighbourhoods whose median motion is tried."""


class TriedErrors(Protocol):
    """Squared errors of blocks, were they moved by one vector or another."""

    def errors(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """Of all blocks or of some: float32 `(..., rows, columns)`, for half pixels `(..., rows, columns, 2)`, or
        `(..., n)`, for `(..., n, 2)`.

        Args:
            vectors: Half pixels, x before y.
            blocks: Numbers of the blocks, row-major, `(n,)`.
        """
        ...


class Trials:
    """Squared errors of blocks, were they moved by one vector or another.

    Args:
        wanted: The share of a vector that a picture has moved by, and its luma, uint8 `(H, W)`, for each picture.
        reference: Luma of the picture that is moved, uint8 `(H, W)`.
        repeats: How often the errors count.
    """

    def __init__(
        self, wanted: Sequence[tuple[float, NDArray[np.uint8]]], reference: NDArray[np.uint8], *, repeats: float
    ) -> None:
        height, width = reference.shape
        self._reference = reference.astype(np.float32)
        self._ys, self._xs = (grid.astype(np.float32) for grid in np.mgrid[:height:SAMPLING, :width:SAMPLING])
        self._wanted = [
            (np.float32(share), picture[::SAMPLING, ::SAMPLING].astype(np.float32)) for share, picture in wanted
        ]
        self._scale = np.float32(repeats * SAMPLING**2)

    def errors(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """See :class:`TriedErrors`: sums over each block's pixels and frames."""
        side = BLOCK // SAMPLING
        height, width = self._xs.shape
        rows, columns = -(-height // side), -(-width // side)
        if blocks is not None:
            whole = np.zeros((*vectors.shape[:-2], rows * columns, 2), vectors.dtype)
            whole[..., blocks, :] = vectors
            every = self.errors(whole.reshape(*vectors.shape[:-2], rows, columns, 2))
            return every.reshape(*vectors.shape[:-2], -1)[..., blocks]
        if vectors.ndim > 3:
            return np.stack([self.errors(each) for each in vectors])
        import cv2  # late: decoding never needs it

        flow = vectors.astype(np.float32) * np.float32(1 / VECTORS_PER_PIXEL)
        flow = flow.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
        total = np.zeros((rows * side, columns * side), np.float32)
        for share, wanted in self._wanted:
            x, y = self._xs + share * flow[..., 0], self._ys + share * flow[..., 1]
            moved = cv2.remap(self._reference, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            total[:height, :width] += np.square(moved - wanted)
        found: Errors = total.reshape(rows, side, columns, side).sum(axis=(1, 3)) * self._scale
        return found


def choose_vectors(pixels: Tensor, picture: Tensor, motion: Tensor, *, before: Vectors | None, slope: float) -> Vectors:
    """The vectors of a step's motion map.

    Args:
        pixels: The step's frames, float32 `(1, 4, 3, H, W)` in [-1, 1].
        picture: The decoder's last one, float32 `(1, 3, H, W)`.
        motion: As found, float32 `(1, 4, 2, H/8, W/8)`, see :func:`tokcodec.tokenizer.search.search`.
        before: Those of the step before; None where there are none.
        slope: Lambda, see :class:`tokcodec.tokenizer.allocation.Allocator`.

    Returns:
        int16 `(motion_rows, motion_columns, 2)`, half pixels, x before y.
    """
    luma = grey(pixels)[0]
    wanted = [((number + 1) / len(luma), luma[number]) for number in range(1, len(luma), 2)]
    trials = Trials(wanted, grey(picture.unsqueeze(1))[0, 0], repeats=len(luma) / len(wanted))
    return _cheapest(even_displacement(motion), trials, before, slope)


def choose_map(
    trials: TriedErrors,
    starts: Sequence[NDArray[np.integer]],
    *,
    before: Vectors,
    slope: float,
    relative: bool,
    rounds: int,
) -> Vectors:
    """The vectors of a hybrid's motion map: in rounds, of those that stand, those around them, their medians and more.

    Args:
        trials: Errors of its blocks.
        starts: Fields that were found, the best first, half pixels, `(motion_rows, motion_columns, 2)`.
        before: The map of the step before, or what is expected.
        slope: Lambda, see :class:`tokcodec.tokenizer.allocation.Allocator`.
        relative: Whether vectors are coded by what they differ from what is expected.
        rounds: How many; after the first, half a pixel to each side is tried instead of other starts.

    Returns:
        int16 `(motion_rows, motion_columns, 2)`, half pixels, x before y.
    """
    predict = predict_relative if relative else predict_set
    field, *others = (start.astype(np.int16) for start in starts)
    for number in range(rounds):
        if number == 0:
            more = others + [_median_of(other, WINDOWS[1]) for other in others]
        else:
            more = [np.clip(field + np.asarray(way, np.int16), -MAX_VECTOR, MAX_VECTOR) for way in _WAYS]
        medians = [_median_of(field, side) for side in WINDOWS[:2]]
        options = np.stack([field, *neighbours(field), *medians, np.zeros_like(field), before, *more]).astype(np.int32)
        field = _of_options(options, trials, before, slope, predict)
    return field


_WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def _cheapest(motion: Tensor, trials: Trials, before: Vectors | None, slope: float) -> Vectors:
    """Vectors near a motion `(1, 2, H/8, W/8)`, of least error and bits."""
    own = field_of_motion(motion)[0].astype(np.int16)
    before = np.zeros_like(own) if before is None else before
    return _of_options(_candidates(own, before), trials, before, slope, predict_set)


def _of_options(
    options: NDArray[np.int32],
    trials: TriedErrors,
    before: Vectors,
    slope: float,
    predict: Predict,
) -> Vectors:
    """The cheapest of `(options, rows, columns, 2)`, chosen in coding order."""
    shape = options.shape[1:]
    errors = trials.errors(options)
    found = np.zeros((shape[0] * shape[1], 2), np.int32)
    for group in cell_sets(*shape[:2]):
        found[group.cells] = _chosen(group, found, before, options, errors, trials, slope, predict)
    chosen: Vectors = found.reshape(shape).astype(np.int16)
    return chosen


def _candidates(own: Vectors, before: Vectors) -> NDArray[np.int32]:
    """Vectors that each block may take: `(candidates, rows, columns, 2)`."""
    medians = [_median_of(own, side) for side in WINDOWS]
    return np.stack([own, *neighbours(own), *medians, np.zeros_like(own), before]).astype(np.int32)


def _median_of(vectors: Vectors, side: int) -> Vectors:
    """Medians of `side` x `side` blocks."""
    framed = np.pad(vectors, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(framed, (side, side), axis=(0, 1))
    found: Vectors = np.median(windows, axis=(-2, -1)).astype(np.int16)
    return found


def _chosen(
    group: CellSet,
    found: NDArray[np.int32],
    before: Vectors,
    candidates: NDArray[np.int32],
    errors: Errors,
    trials: TriedErrors,
    slope: float,
    predict: Predict,
) -> NDArray[np.int32]:
    """The vectors of a set's blocks, int32 `(n, 2)`, where those of the sets before are known."""
    prediction, spread = predict(group, found, before.reshape(-1, 2).astype(np.int32))
    shape, reach = errors.shape[1:], _reach(group)
    blocks, owners = _near(shape, group.number)
    own = trials.errors(prediction[owners], blocks)
    if reach:
        each = np.concatenate([errors, np.zeros((1, *shape), np.float32)])
        each[-1].reshape(-1)[blocks] = own
        cost = _summed(each, reach).reshape(len(each), -1)[:, group.cells]
    else:
        cost = np.concatenate([errors.reshape(len(errors), -1)[:, group.cells], own[None]])
    options = np.concatenate([candidates.reshape(len(candidates), -1, 2)[:, group.cells], prediction[None]])
    best = (cost + slope * expected_bits(options - prediction, spread)).argmin(axis=0)
    taken: NDArray[np.int32] = options[best, np.arange(group.cells.size)]
    return taken


def _reach(group: CellSet) -> int:
    """How far the blocks are, in each direction, that a set's block stands for: what is nearer to it than to the next,
    or half of that: by measurement."""
    return group.spacing // 4


@functools.lru_cache(maxsize=64)
def _near(shape: tuple[int, int], number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The blocks that those of a set stand for, row-major, and which of the set each belongs to: `(n,)` both."""
    rows, columns = shape
    group = next(each for each in cell_sets(rows, columns) if each.number == number)
    reach, (y, x) = _reach(group), np.divmod(group.cells, columns)
    owners = np.full(shape, -1, np.intp)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            inside = np.flatnonzero((y + down >= 0) & (y + down < rows) & (x + right >= 0) & (x + right < columns))
            owners[y[inside] + down, x[inside] + right] = inside
    flat = owners.reshape(-1)
    blocks = np.flatnonzero(flat >= 0)
    return blocks, flat[blocks]


def _summed(errors: Errors, reach: int) -> Errors:
    """Sums over the blocks up to `reach` away in each direction."""
    import cv2

    size = (2 * reach + 1, 2 * reach + 1)
    return np.stack(
        [cv2.boxFilter(error, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT) for error in errors]
    )
