"""Blocks of a first picture <-> its pixels, in whole numbers (spec section 8.9): the same on every machine.

A block is predicted by the pixels that were decoded around it, as HEVC predicts blocks (ITU-T H.265, section 8.4.4.2),
and a cosine transform of what that lacks is added. All numbers are whole and small enough for float64 to be exact, so
that matrix products can be anybody's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.deblocking import deblocked
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, SCALES_IN_OCTAVE
from tokcodec.picture_layout import ACROSS, CELL, DOWN, MODES, SIZES, Blocks, Places, in_order, leaves, order
from tokcodec.tokens import Picture

UNIT = 8
"""Whole numbers for one 8-bit value."""
LIMIT = 1767
"""Largest magnitude of a pixel in a colour, in these units: 127.5 times the root of 3."""
STEP_UNIT = 16 * UNIT
"""Whole numbers for a quantizer's step of one 8-bit value."""
TENTHS = 10
"""Of a step, in which coefficients are restored."""
BASIS_BITS, WEIGHT_BITS = 12, 9
"""Binary digits behind the point of cosines, and of a reference's share in a predicted pixel."""
LARGEST = 1 << 20
"""Of restored coefficients; no encoder has use for larger ones."""
ROUNDING = 2
"""Fifths of a step that are added to a magnitude before it is rounded down, where a picture is made coarser."""
_ANGLES = (32, 26, 21, 17, 13, 9, 5, 2)
_DIRECTIONS = (*_ANGLES, 0, *(-a for a in _ANGLES[::-1]), *(-a for a in _ANGLES[1:]), 0, *_ANGLES[::-1])
"""Pixels in 32 by which each direction goes aside, from one row (or column) to the next."""
_SMOOTHED_BEYOND = {4: 99, 8: 7, 16: 1, 32: 0}
"""By side: directions further than this from straight down and across see smoothed references."""

Numbers = NDArray[np.float64]


def step_units(scale: int) -> int:
    """A quantizer's step in whole numbers, `STEP_UNIT` of them an 8-bit value: spec section 8.9."""
    return round(STEP_UNIT * math.pow(2.0, scale / SCALES_IN_OCTAVE))


@functools.cache
def predictors(side: int) -> Numbers:
    """What each mode makes of references, in 512ths: float64 `(MODES, side * side, 4 * side + 1)`.

    References come from the lowest at the left up to the corner, and from there to the right.
    """
    plain = np.eye(4 * side + 1)
    smooth = plain.copy()
    smooth[1:-1] = (plain[:-2] + 2 * plain[1:-1] + plain[2:]) / 4
    found = [_planar(smooth if side > CELL else plain, side), _mean(plain, side)]
    for mode in range(2, MODES):
        far = min(abs(mode - DOWN), abs(mode - ACROSS)) > _SMOOTHED_BEYOND[side]
        found.append(_directed(smooth if far else plain, side, mode))
    whole: Numbers = np.stack([each.reshape(side * side, -1) for each in found]) * (1 << WEIGHT_BITS)
    return np.round(whole)


def _sides(references: Numbers, side: int) -> tuple[Numbers, Numbers, Numbers]:
    """The corner, those above from left to right, those at the left from above."""
    return references[2 * side], references[2 * side + 1 :], references[: 2 * side][::-1]


def _planar(references: Numbers, side: int) -> Numbers:
    _, above, left = _sides(references, side)
    y, x = np.mgrid[:side, :side]
    down, right = y[..., None], x[..., None]
    across = (side - 1 - right) * left[y] + (right + 1) * above[side]
    found: Numbers = (across + (side - 1 - down) * above[x] + (down + 1) * left[side]) / (2 * side)
    return found


def _mean(references: Numbers, side: int) -> Numbers:
    _, above, left = _sides(references, side)
    mean = (above[:side].sum(axis=0) + left[:side].sum(axis=0)) / (2 * side)
    found = np.broadcast_to(mean, (side, side, mean.size)).copy()
    if side < SIZES[0]:
        found[0, 1:] = (above[1:side] + 3 * mean) / 4
        found[1:, 0] = (left[1:side] + 3 * mean) / 4
        found[0, 0] = (left[0] + 2 * mean + above[0]) / 4
    return found


def _directed(references: Numbers, side: int, mode: int) -> Numbers:
    """Directions that come from above look along columns, the others along rows."""
    corner, above, left = _sides(references, side)
    vertical, aside = mode >= 18, _DIRECTIONS[mode - 2]
    ahead, beside = (above, left) if vertical else (left, above)
    line = {0: corner} | {1 + place: value for place, value in enumerate(ahead)}
    if aside < 0:
        inverse = round(8192 / -aside)
        for place in range(1, side + 1):
            far = place * inverse + 128 >> 8
            line[-place] = beside[min(far, 2 * side) - 1]
    found = np.empty((side, side, references.shape[1]))
    for row in range(side):
        whole, part = divmod((row + 1) * aside, 32)
        for column in range(side):
            value = (32 - part) * line[column + whole + 1]
            value = value + part * line[column + whole + 2] if part else value
            found[row, column] = value / 32
    if aside == 0 and side < SIZES[0]:
        found[:, 0] += (beside[:side] - corner) / 2
    return found if vertical else found.swapaxes(0, 1)


@functools.cache
def basis(side: int) -> Numbers:
    """Cosines, one in each row, in 4096ths: float64 `(side, side)`; of blocks of 4 sines, which are small next to what
    they are predicted by."""
    k, place = np.mgrid[:side, :side]
    if side == CELL:
        rows = np.sin(np.pi * (2 * k + 1) * (place + 1) / (2 * side + 1)) * (2 / np.sqrt(2 * side + 1))
    else:
        rows = np.cos(np.pi * (2 * place + 1) * k / (2 * side)) * np.sqrt(2 / side)
        rows[0] /= np.sqrt(2)
    whole: Numbers = np.round(rows * (1 << BASIS_BITS))
    return whole


def references(level: int, rows: Places, columns: Places, shape: tuple[int, int]) -> NDArray[np.intp]:
    """Where the references of blocks are, in a plane one pixel after the other: `(n, 4 * side + 1)`.

    Those that are not decoded yet, or beyond the picture, have the place of the next one before them in order that is,
    or of the first one; where none is, the place behind the last pixel.

    Args:
        level: Of all the blocks.
        rows: Their top rows, in cells, `(n,)`.
        columns: Their left columns, in cells, `(n,)`.
        shape: Of the picture, in pixels.
    """
    side, (height, width) = SIZES[level], shape
    number = np.arange(4 * side + 1)
    y = CELL * rows[:, None] + np.where(number < 2 * side, 2 * side - 1 - number, -1)
    x = CELL * columns[:, None] + np.where(number <= 2 * side, -1, number - 2 * side - 1)
    there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    across = -(-width // CELL)
    there &= order(y // CELL, x // CELL, across) < order(rows, columns, across)[:, None]
    place = np.maximum.accumulate(np.where(there, number, -1), axis=1)
    place = np.where(place < 0, there.argmax(axis=1)[:, None], place)
    found = np.take_along_axis(y * width + x, place, axis=1)
    found[~there.any(axis=1)] = height * width
    return found


def predicted(values: Numbers, level: int, mode: int) -> Numbers:
    """A block, `(..., side, side)`, of its references `(..., 4 * side + 1)`."""
    side = SIZES[level]
    sums = values @ predictors(side)[mode].T
    found: Numbers = np.floor((sums + (1 << WEIGHT_BITS - 1)) / (1 << WEIGHT_BITS))
    return found.reshape(*values.shape[:-1], side, side)


def transformed(block: Numbers) -> Numbers:
    """Coefficients of what a prediction lacks, `(..., side, side)`, rounded down."""
    cosines, one, half = basis(block.shape[-1]), 1 << BASIS_BITS, 1 << BASIS_BITS - 1
    rows = np.floor((cosines @ block + half) / one)
    found: Numbers = np.floor((rows @ cosines.T + half) / one)
    return found


def added(coefficients: NDArray[np.integer], scale: int) -> Numbers:
    """What coefficients `(..., side, side)` add to a prediction."""
    cosines, one, half = basis(coefficients.shape[-1]), 1 << BASIS_BITS, 1 << BASIS_BITS - 1
    sizes = np.abs(coefficients.astype(np.float64))
    values = np.floor((TENTHS * sizes + 1) * step_units(scale) / (TENTHS * STEP_UNIT // UNIT))
    values = np.minimum(values, LARGEST) * np.sign(coefficients)
    rows = np.floor((cosines.T @ values + half) / one)
    found: Numbers = np.floor((rows @ cosines + half) / one)
    return found


class Visit(NamedTuple):
    """A block that is to be decoded.

    Attributes:
        level: An index into `SIZES`.
        mode: Of its prediction.
        row: Its top row, in cells.
        column: Its left column, in cells.
        places: Of its references, `(4 * side + 1,)`, see :func:`references`.
    """

    level: int
    mode: int
    row: int
    column: int
    places: NDArray[np.intp]

    @property
    def part(self) -> tuple[slice, slice, slice]:
        """Of the planes of a picture, its pixels."""
        down, right, side = CELL * self.row, CELL * self.column, SIZES[self.level]
        return slice(None), slice(down, down + side), slice(right, right + side)


def visits(blocks: Blocks) -> Iterator[Visit]:
    """The blocks of a layout, as they are decoded."""
    shape = CELL * blocks.shape[0], CELL * blocks.shape[1]
    band = SIZES[0] // CELL
    for top in range(0, blocks.shape[0], band):
        level, mode, row, column = in_order(blocks[top : top + band])
        row += top
        places: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * level.size
        for each in np.unique(level):
            here = np.flatnonzero(level == each)
            found = references(int(each), row[here], column[here], shape)
            for number, one in zip(here.tolist(), found, strict=True):
                places[number] = one
        yield from map(Visit, level.tolist(), mode.tolist(), row.tolist(), column.tolist(), places)


class Canvas:
    """A picture while its blocks are decoded.

    Args:
        height: In pixels, a multiple of 8.
        width: In pixels, a multiple of 8.
        scale: Number of the quantizer's step.

    Attributes:
        pixels: float64 `(3, H, W)`, whole numbers within `LIMIT`.
    """

    def __init__(self, height: int, width: int, scale: int) -> None:
        self._scale = scale
        self._flat = np.zeros((3, height * width + 1))
        self.pixels: Numbers = self._flat[:, :-1].reshape(3, height, width)

    def references(self, visit: Visit) -> Numbers:
        """Those of a block, `(3, 4 * side + 1)`."""
        return self._flat[:, visit.places]

    def put(self, visit: Visit, prediction: Numbers, coefficients: NDArray[np.integer]) -> None:
        """Decode a block: prediction, which is changed, and coefficients are `(3, side, side)`."""
        has = coefficients.any(axis=(1, 2))
        if has.any():
            prediction[has] += added(coefficients[has], self._scale)
        self.fill(visit, prediction)

    def fill(self, visit: Visit, values: Numbers) -> None:
        """The pixels of a block, `(3, side, side)`, not clamped."""
        np.clip(values, -LIMIT, LIMIT, out=self.pixels[visit.part])


def planes(picture: Picture) -> Numbers:
    """The pixels of a picture by blocks: whole numbers, `UNIT` for an 8-bit value, float64 `(3, H, W)`."""
    blocks, (height, width) = blocks_of(picture), picture.coefficients.shape[1:]
    canvas, band, begins = Canvas(height, width, picture.scale), SIZES[0] // CELL, -1
    changes = np.zeros(0)
    for visit in visits(blocks):
        if visit.row // band != begins:
            begins = visit.row // band
            top = begins * band
            part = picture.coefficients[:, CELL * top : CELL * (top + band)]
            changes = _changes(part, blocks[top : top + band] // MODES, picture.scale)
        prediction = predicted(canvas.references(visit), visit.level, visit.mode)
        colours, rows, columns = visit.part
        offset = CELL * band * begins
        prediction += changes[colours, rows.start - offset : rows.stop - offset, columns]
        canvas.fill(visit, prediction)
    return deblocked(canvas.pixels, blocks, step_units(picture.scale))


def _changes(coefficients: NDArray[np.int16], levels: NDArray[np.integer], scale: int) -> Numbers:
    """What coefficients add to predictions, `(3, H, W)`; `levels` are those of blocks at each cell."""
    found = np.zeros(coefficients.shape)
    for level in range(len(SIZES)):
        rows, columns = leaves(levels, level).pixels()
        each = coefficients[:, rows, columns]
        has = each.any(axis=(2, 3))
        if has.any():
            some = np.zeros(each.shape)
            some[has] = added(each[has], scale)
            found[:, rows, columns] = some
    return found


def coarser(picture: Picture, halvings: int) -> Picture:
    """A picture by blocks with a step that is twice as large, so many times, or as often as it can be.

    Blocks and modes stay; what is predicted is predicted of the coarser picture, so that nothing adds up.
    """
    halvings = min(halvings, (MAX_SCALE - picture.scale) // SCALES_IN_OCTAVE)
    if halvings <= 0:
        return picture
    wanted, scale = planes(picture), picture.scale + SCALES_IN_OCTAVE * halvings
    numbers, step = np.zeros_like(picture.coefficients), step_units(scale)
    per_step = STEP_UNIT // UNIT

    def coded(visit: Visit, prediction: Numbers) -> NDArray[np.integer]:
        missing = transformed(wanted[visit.part] - prediction)
        sizes = np.floor((5 * per_step * np.abs(missing) + ROUNDING * step) / (5 * step))
        numbers[visit.part] = np.minimum(sizes, MAX_COEFFICIENT) * np.sign(missing)
        return numbers[visit.part]

    canvas = Canvas(numbers.shape[1], numbers.shape[2], scale)
    for visit in visits(blocks_of(picture)):
        prediction = predicted(canvas.references(visit), visit.level, visit.mode)
        canvas.put(visit, prediction, coded(visit, prediction))
    return Picture(coefficients=numbers, scale=scale, blocks=picture.blocks)


def blocks_of(picture: Picture) -> Blocks:
    """The layout of a picture that is one by blocks."""
    if picture.blocks is None:
        raise ValueError("the picture is not one by blocks")
    return picture.blocks
