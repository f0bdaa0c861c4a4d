"""The wavelet transform of first pictures and residuals (spec sections 8.7 and 8.8): pixels <-> whole numbers.

A transform of cells of 8x8 pixels says an even sky cell by cell, and has no way to say a fine edge. A chunk's first
picture is what all others are made of, so in tokenizers with `wavelet` and without `intra` it is coded by the wavelets
of JPEG 2000 (the 9/7 filters of Cohen, Daubechies and Feauveau, by lifting), five times over, and no network takes
part. The residual of a later step has the coarser ones of these wavelets: what is large and smooth there, tokens would
say cell by cell.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import (
    MAX_COEFFICIENT,
    MAX_SCALE,
    PICTURE_LEVELS,
    RESIDUAL_LEVELS,
    RESIDUAL_SPACING,
    SCALES_IN_OCTAVE,
)
from tokcodec.tokenizer.transform import PEAK, colour_matrix, mixed
from tokcodec.tokens import Picture

LIFTING = (-1.586134342, -0.052980118, 0.882911075, 0.443506852)
"""Shares of what is at both sides that are added, in turn, to the odd places and to the even ones."""
GAIN = 1.149604398
"""By which even places are multiplied, and odd ones divided, in the end: so that errors stay as large."""
OUTWARD = 0.1
"""Share of a step by which a coefficient is restored larger than its number says: by measurement."""
DEAD = 0.2
"""Share of a step by which a coefficient must exceed the middle between two numbers to have the larger one, where
coefficients are not chosen one by one (:mod:`tokcodec.tokenizer.picture_choice`), as in training."""
STEP_OF_SLOPE = 0.55
"""The quantizer's step, in 8-bit values, for the root of lambda: by measurement."""


def step_of(scale: int) -> float:
    """The quantizer's step in 8-bit values, of a scale from 0 to `MAX_SCALE`."""
    return math.pow(2.0, scale / SCALES_IN_OCTAVE)


def scale_of_slope(slope: float) -> int:
    """The scale for a lambda (squared error, sum over pixels of 8-bit values, that one coded bit must save)."""
    return min(max(round(SCALES_IN_OCTAVE * math.log2(wanted_step(slope))), 0), MAX_SCALE)


def dead_of_slope(slope: float) -> float:
    """What takes the place of `DEAD` for a lambda, so that rates do not jump from scale to scale: it makes up for the
    step that there is not."""
    ratio = wanted_step(slope) / step_of(scale_of_slope(slope))
    return min(max((0.5 + DEAD) * ratio - 0.5, 0.0), 0.5)


def wanted_step(slope: float) -> float:
    """The quantizer's step that a lambda asks for, in 8-bit values, before it becomes one that there is."""
    return STEP_OF_SLOPE * math.sqrt(max(slope, 1e-9))


def quantized(picture: Tensor, scale: int, *, dead: float | None = None) -> NDArray[np.int16]:
    """The coefficients of a picture.

    Args:
        picture: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.
        scale: Number of the quantizer's step.
        dead: In the place of `DEAD`, 0 to 0.5.

    Returns:
        int16 `(3, H, W)`, where the transform leaves them.
    """
    found = analysed(picture)
    size = (found.abs() / step_of(scale) + (0.5 - (DEAD if dead is None else dead))).floor().clamp(max=MAX_COEFFICIENT)
    numbers: NDArray[np.int16] = (size * found.sign()).to(torch.int16).cpu().numpy()
    return numbers


def quantized_residual(residual: Tensor, scale: int, *, dead: float) -> NDArray[np.int16]:
    """The coefficients of a residual, int16 `(3, H / 4, W / 4)`; arguments as for :func:`quantized`."""
    return np.ascontiguousarray(quantized(residual, scale, dead=dead)[:, ::RESIDUAL_SPACING, ::RESIDUAL_SPACING])


def analysed(picture: Tensor) -> Tensor:
    """What is quantized, float32 in 8-bit values, of a picture as of :func:`quantized`; the same shape."""
    return forward(mixed(colour_matrix(picture.float()), picture.float().unsqueeze(0) * PEAK)[0])


def restored(picture: Picture, like: Tensor) -> Tensor:
    """Its pixels: float32 `(3, H, W)` in units of [-1, 1], not clamped, on the device of `like`."""
    whole = inverse(_values(picture, like))
    return mixed(colour_matrix(whole).T, whole.unsqueeze(0))[0] / PEAK


def restored_residual(residual: Picture, like: Tensor) -> Tensor:
    """What it adds: float32 `(3, H, W)` in units of [-1, 1], four times as many rows and columns as it has, on the
    device of `like`."""
    coarse = inverse(_values(residual, like), levels=RESIDUAL_LEVELS)
    found = mixed(colour_matrix(coarse).T, coarse.unsqueeze(0))[0] / PEAK
    for _ in range(PICTURE_LEVELS - RESIDUAL_LEVELS):
        found = _widened(_widened(found, -2), -1)
    return found


def _values(picture: Picture, like: Tensor) -> Tensor:
    """What its numbers stand for."""
    numbers = torch.from_numpy(np.ascontiguousarray(picture.coefficients, np.int16)).to(like.device).float()
    return (numbers + OUTWARD * numbers.sign()) * step_of(picture.scale)


def forward(values: Tensor) -> Tensor:
    """Coefficients, float32 `(..., H, W)`, each where it arises: those of level n every 2^n places."""
    found = values.clone()
    for level in range(PICTURE_LEVELS):
        part = found[..., :: 1 << level, :: 1 << level]
        part.copy_(_lifted(_lifted(part, -1), -2))
    return found


def inverse(coefficients: Tensor, *, levels: int = PICTURE_LEVELS) -> Tensor:
    """The inverse of :func:`forward`, but for rounding; or of the first `levels` times that it halves."""
    found = coefficients.clone()
    for level in reversed(range(levels)):
        part = found[..., :: 1 << level, :: 1 << level]
        part.copy_(_unlifted(_unlifted(part, -2), -1))
    return found


def _split(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What is at even places, and at odd ones."""
    index = [slice(None)] * values.dim()
    index[dim] = slice(0, None, 2)
    even = values[tuple(index)]
    index[dim] = slice(1, None, 2)
    return even, values[tuple(index)]


def _added(to: Tensor, sides: Tensor, share: float, dim: int, *, odd: bool) -> Tensor:
    """`to + share * (left + right)`, mirrored where a side is beyond the end: of odd places the even ones at both sides
    are added, of even ones the odd ones."""
    length, there = to.shape[dim], sides.shape[dim]
    place = torch.arange(length, device=to.device)
    left, right = (place, place + 1) if odd else (place - 1, place)
    # Beyond the end lies what is as far before it, which is the other side.
    before = torch.where(left < 0, right, left)
    after = torch.where(right >= there, left, right)
    return to + share * (sides.index_select(dim, before) + sides.index_select(dim, after))


def _lifted(values: Tensor, dim: int) -> Tensor:
    if values.shape[dim] == 1:
        return values
    even, odd = _split(values, dim)
    for number in (0, 2):
        odd = _added(odd, even, LIFTING[number], dim, odd=True)
        even = _added(even, odd, LIFTING[number + 1], dim, odd=False)
    return _joined(even * GAIN, odd / GAIN, dim)


def _unlifted(values: Tensor, dim: int) -> Tensor:
    if values.shape[dim] == 1:
        return values
    even, odd = _split(values, dim)
    even, odd = even / GAIN, odd * GAIN
    for number in (2, 0):
        even = _added(even, odd, -LIFTING[number + 1], dim, odd=False)
        odd = _added(odd, even, -LIFTING[number], dim, odd=True)
    return _joined(even, odd, dim)


def _widened(values: Tensor, dim: int) -> Tensor:
    """What `_unlifted` makes of these at even places and of zeros at odd ones, with as many of either."""
    size = values.shape[dim]

    def beside(part: Tensor, *, before: bool) -> Tensor:
        """The sum of each and its neighbour on one side; that beyond the end is itself."""
        end = part.narrow(dim, 0 if before else size - 1, 1)
        rest = part.narrow(dim, 0 if before else 1, size - 1)
        return part + torch.cat([end, rest] if before else [rest, end], dim)

    even = values / GAIN
    odd = -LIFTING[2] * beside(even, before=False)
    even = even - LIFTING[1] * beside(odd, before=True)
    odd = odd - LIFTING[0] * beside(even, before=False)
    return _joined(even, odd, dim)


def _joined(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    shape = list(even.shape)
    shape[dim] += odd.shape[dim]
    found = even.new_empty(shape)
    for part, target in zip((even, odd), _split(found, dim), strict=True):
        target.copy_(part)
    return found
