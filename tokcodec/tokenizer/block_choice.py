"""The blocks, modes and coefficients of a first picture, as an encoder chooses them (spec 8.9 leaves it open).

How the picture is cut is chosen for all of it at once, with predictions by its own pixels, in the place of decoded
ones: for each size and each block, what each mode leaves is transformed, and coefficients cost what they do about. Then
block by block, as a decoder will have it, one of the best modes is taken, and the coefficients of least squared error +
a share of lambda * bits.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.deblocking import deblocked
from tokcodec.geometry import MAX_COEFFICIENT
from tokcodec.intra import (
    BASIS_BITS,
    LIMIT,
    STEP_UNIT,
    TENTHS,
    UNIT,
    WEIGHT_BITS,
    Canvas,
    basis,
    blocks_of,
    predicted,
    predictors,
    references,
    step_units,
    transformed,
    visits,
)
from tokcodec.picture_layout import CELL, MEAN, MODES, PLANAR, SIZES, UNKNOWN, Blocks, Leaves, likely_modes
from tokcodec.tokenizer.transform import PEAK, colour_matrix, mixed
from tokcodec.tokenizer.wavelet import scale_of_slope, step_of, wanted_step
from tokcodec.tokens import Picture

PRICE = 0.09
"""Squared error, in steps, that a bit must save, at the step that lambda asks for."""
KEPT = 4
"""Best modes of each block, by the picture's own pixels, that are tried again by decoded ones."""
BLOCK_BITS, CUT_BITS = 10.0, 1.0
"""What a block costs beside its coefficients, and to be cut, where sizes are compared: by measurement."""
FOUND_BITS = 3.5
"""What a coefficient of one step costs, there; each doubling costs two more."""
LEFT_ERROR = 1 / 12
"""Squared error, in steps, of one that is sent."""
NAMED_BITS, NAMELESS_BITS = (1.0, 3.0, 4.0), 9.0
"""What modes cost where they are among the likely ones, and where not: by measurement."""
SENT_BITS = 4.5
"""As `FOUND_BITS`, where modes are compared."""
ENDS_BITS = 2.0
"""What it costs to say where coefficients end, beyond what it costs to say that there are none."""
_TOGETHER = 1 << 21
"""Coefficients that are looked at together."""

Values = NDArray[np.float64]


class _Tried(NamedTuple):
    """What blocks of one size would cost.

    Attributes:
        costs: Squared error + price * bits, in steps, of the best mode: float32 `(rows, columns)`.
        modes: The best ones, `(rows, columns, KEPT)`.
    """

    costs: NDArray[np.float32]
    modes: NDArray[np.int64]


def chosen(picture: Tensor, slope: float) -> Picture:
    """A first picture by blocks.

    Args:
        picture: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.
        slope: Lambda (squared error, sum over pixels of 8-bit values, that one coded bit of later steps must save).
    """
    scale, price = _scale_and_price(slope)
    return blocks_of_planes(planes_of(picture), scale, price=price)


def chosen_and_decoded(picture: Tensor, slope: float) -> tuple[Picture, Values]:
    """The same, and what :func:`tokcodec.intra.planes` makes of it, which is known on the way."""
    scale, price = _scale_and_price(slope)
    found, pixels = _coded(planes_of(picture), scale, price)
    return found, deblocked(pixels, blocks_of(found), step_units(scale))


def _scale_and_price(slope: float) -> tuple[int, float]:
    scale = scale_of_slope(slope)
    missing = wanted_step(slope) / step_of(scale)
    return scale, PRICE * missing**2


def planes_of(picture: Tensor) -> Values:
    """A picture in the colours and units of :mod:`tokcodec.intra`, float64 `(3, H, W)`, whole numbers."""
    colours = mixed(colour_matrix(picture.float()), picture.float().unsqueeze(0) * (PEAK * UNIT))[0]
    found: Values = colours.round().clamp(-LIMIT, LIMIT).double().cpu().numpy()
    return found


def blocks_of_planes(wanted: Values, scale: int, *, price: float) -> Picture:
    """The same of planes.

    Args:
        wanted: As of `planes_of`.
        scale: Number of the quantizer's step.
        price: Squared error, in steps, that a bit must save.
    """
    return _coded(wanted, scale, price)[0]


def _coded(wanted: Values, scale: int, price: float) -> tuple[Picture, Values]:
    """The picture, and its pixels before edges are smoothed."""
    height, width = wanted.shape[1:]
    tried = [_tried(wanted[0], level, scale, price) for level in range(len(SIZES))]
    layout = _cut(tried, (height, width), price)
    coefficients = np.zeros(wanted.shape, np.int16)
    canvas = Canvas(height, width, scale)
    step = step_units(scale) * UNIT / STEP_UNIT
    modes = np.full((height // CELL + 1, width // CELL + 1), UNKNOWN, np.intp)
    for visit in visits(layout):
        level, row, column, part = visit.level, visit.row, visit.column, visit.part
        side = SIZES[level] // CELL
        around = canvas.references(visit)
        likely = likely_modes(modes[[row], [column - 1]], modes[[row - 1], [column]])[0].tolist()
        best = tried[level].modes[row // side, column // side].tolist()
        mode, prediction = _best_mode(wanted[part][0], around[0], level, [*likely, PLANAR, MEAN, *best], step, price)
        others = predicted(around[1:], level, mode)
        all_ = np.concatenate([prediction[None], others])
        numbers = _numbers(transformed(wanted[part] - all_) / step, price)
        coefficients[part] = numbers
        canvas.put(visit, all_, numbers)
        modes[row : row + side, column : column + side] = mode
    found = Picture(coefficients=coefficients, scale=scale, blocks=_with_modes(layout, modes[:-1, :-1]))
    return found, canvas.pixels


def _with_modes(layout: Blocks, modes: NDArray[np.intp]) -> Blocks:
    found: Blocks = (layout // MODES * MODES + modes).astype(np.uint8)
    return found


def _tried(plane: Values, level: int, scale: int, price: float) -> _Tried:
    """What the blocks of a level that are whole would cost, each by itself."""
    side = SIZES[level]
    rows, columns = (length // side for length in plane.shape)
    if not rows * columns:
        return _Tried(np.zeros((rows, columns), np.float32), np.zeros((rows, columns, KEPT), np.int64))
    step = step_units(scale) * UNIT / STEP_UNIT
    flat = torch.from_numpy(np.append(plane.reshape(-1), 0).astype(np.float32))
    cosines = torch.from_numpy(basis(side) / (1 << BASIS_BITS)).float()
    shares = torch.from_numpy(predictors(side) / (1 << WEIGHT_BITS)).float().view(MODES, side, side, -1)
    # What each reference means for each coefficient, in steps.
    shares = torch.einsum("ij,mjkr,lk->milr", cosines / step, shares, cosines).reshape(MODES * side * side, -1)
    blocks = torch.from_numpy(plane[: rows * side, : columns * side].astype(np.float32))
    blocks = blocks.view(rows, side, columns, side).transpose(1, 2).reshape(-1, side, side)
    wanted = ((cosines / step) @ blocks @ cosines.T).view(-1, 1, side * side)
    at = Leaves(level, *(side // CELL * place.reshape(-1) for place in np.indices((rows, columns))))
    costs = torch.empty(len(blocks), MODES)
    count = max(1, _TOGETHER // (MODES * side * side))
    for start in range(0, len(blocks), count):
        part = slice(start, start + count)
        places = references(level, at.rows[part], at.columns[part], (plane.shape[0], plane.shape[1]))
        made = (flat[torch.from_numpy(places)] @ shares.T).view(-1, MODES, side * side)
        costs[part] = _expected(wanted[part] - made, price).sum(dim=-1)
    best = costs.topk(KEPT, dim=1, largest=False)
    found = best.values[:, 0].view(rows, columns) + price * BLOCK_BITS
    return _Tried(found.numpy(), best.indices.view(rows, columns, KEPT).numpy())


def _expected(coefficients: Tensor, price: float) -> Tensor:
    """About what coefficients cost, in steps, of which small ones are not sent."""
    sizes = coefficients.abs()
    sent = LEFT_ERROR + price * (FOUND_BITS + 2 * torch.log2(sizes.clamp(min=0.6)))
    return torch.minimum(sizes.square(), sent)


def _cut(tried: list[_Tried], shape: tuple[int, int], price: float) -> Blocks:
    """The layout of least cost, all modes 0."""
    height, width = shape
    levels = np.full((height // CELL, width // CELL), len(SIZES) - 1, np.uint8)
    below = tried[-1].costs.astype(np.float64)
    for level in range(len(SIZES) - 2, -1, -1):
        side = SIZES[level]
        rows, columns = -(-height // side), -(-width // side)
        framed = np.pad(below, ((0, 2 * rows - below.shape[0]), (0, 2 * columns - below.shape[1])))
        below = framed.reshape(rows, 2, columns, 2).sum(axis=(1, 3)) + price * CUT_BITS
        own = tried[level].costs
        keeps = np.zeros((rows, columns), np.bool_)
        keeps[: own.shape[0], : own.shape[1]] = own <= below[: own.shape[0], : own.shape[1]]
        below[: own.shape[0], : own.shape[1]] = np.minimum(own, below[: own.shape[0], : own.shape[1]])
        whole = keeps.repeat(side // CELL, axis=0).repeat(side // CELL, axis=1)[: levels.shape[0], : levels.shape[1]]
        levels[whole] = level
    return levels * MODES


def _best_mode(
    wanted: Values, around: Values, level: int, offered: list[int], step: float, price: float
) -> tuple[int, Values]:
    """Of modes, of which the likely ones come first, the cheapest by decoded references; and what it predicts."""
    modes = list(dict.fromkeys(mode for mode in offered if mode != UNKNOWN))
    side = SIZES[level]
    sums = predictors(side)[modes] @ around
    made = np.floor((sums + (1 << WEIGHT_BITS - 1)) / (1 << WEIGHT_BITS)).reshape(-1, side, side)
    cosines = basis(side) / (1 << BASIS_BITS)
    sizes = np.abs(cosines @ (wanted - made) @ cosines.T) / step
    sent = LEFT_ERROR + price * (SENT_BITS + 2 * np.log2(np.maximum(sizes, 0.6)))
    bits = np.full(len(modes), NAMELESS_BITS)
    bits[: len(NAMED_BITS)] = NAMED_BITS
    best = int((np.minimum(sizes**2, sent).sum(axis=(1, 2)) + price * bits).argmin())
    return modes[best], made[best]


def _numbers(exact: Values, price: float) -> NDArray[np.int16]:
    """Coefficients of least squared error + price * bits, `(3, side, side)`, of exact ones in steps."""
    side = exact.shape[-1]
    sizes = np.abs(exact)
    rounded = np.minimum(np.floor(sizes + 0.5), MAX_COEFFICIENT)
    if not rounded.any():
        return np.zeros(exact.shape, np.int16)
    options = np.stack([rounded, np.maximum(rounded - 1, 0), np.zeros_like(rounded)])
    errors = (sizes - (options + (options > 0) / TENTHS)) ** 2
    more = np.where(options > 1, 1.5 + 2 * np.log2(np.maximum(options, 1)), 0)
    costs = errors + price * np.where(options > 0, _sent_bits(side) + more, 0)
    best = costs.argmin(axis=0)[None]
    found = np.take_along_axis(options, best, axis=0)[0] * np.sign(exact)
    spent = np.take_along_axis(costs, best, axis=0)[0].sum(axis=(1, 2)) + price * ENDS_BITS
    found[spent >= (sizes**2).sum(axis=(1, 2))] = 0
    numbers: NDArray[np.int16] = found.astype(np.int16)
    return numbers


@functools.cache
def _sent_bits(side: int) -> Values:
    """About what it costs that a coefficient is 1, beyond that it is 0."""
    rows, columns = np.mgrid[:side, :side]
    found: Values = np.minimum(2.5 + 0.55 * (rows + columns) * (8 / side), 7.5)
    return found
