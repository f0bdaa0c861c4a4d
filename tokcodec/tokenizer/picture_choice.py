"""Which coefficients a picture has: each that of least error + a share of lambda * bits, in the order of coding.

A rounded coefficient alone among zeros costs ten times as many bits as one among many. So each is asked what it, the
next smaller number and 0 would cost by the network of spec section 7.11 or 7.12, after all that were chosen before it;
what it does to the bits of later ones is not counted. Only encoders do this, and nothing that a file means depends on
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.bands import BANDS, PHASES, Band
from tokcodec.geometry import MAX_COEFFICIENT, RESIDUAL_SPACING
from tokcodec.picture_context import PictureContext
from tokcodec.probability.picture_network import COLOURS, PictureNetwork, picture_network, residual_network
from tokcodec.residual_bits import LIKELY, RESIDUAL_BANDS, SELDOM
from tokcodec.tokenizer.wavelet import OUTWARD, analysed, scale_of_slope, step_of, wanted_step
from tokcodec.tokens import Picture

BIT_SHARE = 0.033
"""Of lambda, what a bit of a first picture must save: all pictures of a chunk are made of it. By measurement."""
RESIDUAL_WEIGHT = 3.0
"""How much more an error counts in a residual than in the step that has it, for later steps are made of it."""
SCALE_SLACK = 2
"""Quarters of an octave by which the step of a residual's quantizer may differ from the one that lambda asks for."""
EVENING = 2.5
"""Power of the step that there is not by which bits are dearer, so that rates fall evenly with lambda."""
_NEW_BAND_BITS = math.log2(LIKELY / SELDOM)
"""By how many bits a band with coefficients is dearer than one without, if the residual before had none there."""
_LONGEST = MAX_COEFFICIENT.bit_length() - 1
"""Bits of what is beyond 2, but for the first; nobody asks whether there are more."""
_ONE = 1 << 16
_BITS = -np.log2(np.maximum(np.arange(_ONE + 1), 1) / _ONE)
"""What happens costs so many bits, by its 16-bit probability."""

Values = NDArray[np.float64]


def chosen(picture: Tensor, slope: float) -> Picture:
    """The coefficients of a picture and their scale.

    Args:
        picture: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.
        slope: Lambda (squared error, sum over pixels of 8-bit values, that one coded bit of later steps must save); a
            bit of this picture must save `BIT_SHARE` of it.
    """
    scale = scale_of_slope(slope)
    found = analysed(picture).cpu().numpy()
    numbers = _numbers(found, BANDS, picture_network(), scale, price_of(slope))
    return Picture(coefficients=numbers, scale=scale)


class ResidualChoice:
    """Chooses the residuals of a chunk's later steps, in order: what bands cost depends on those before."""

    def __init__(self) -> None:
        self._before: Picture | None = None

    def chosen(self, residual: Tensor, slope: float, *, repeats: float) -> Picture | None:
        """The coefficients of a step's residual and their scale; None where none is worth its bits.

        The scale stays that of the residual before, where it is near enough to what lambda asks for.

        Args:
            residual: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.
            slope: Lambda, as for :func:`chosen`.
            repeats: How often an error of the step counts.
        """
        equal = slope_of_residual(slope, repeats=repeats)
        scale = scale_of_slope(equal)
        new = np.full((len(RESIDUAL_BANDS), COLOURS), _NEW_BAND_BITS)
        if self._before is not None:
            scale = self._before.scale if abs(self._before.scale - scale) <= SCALE_SLACK else scale
            coefficients = self._before.coefficients
            new[[coefficients[:, band.rows, band.columns].any(axis=(1, 2)) for band in RESIDUAL_BANDS]] *= -1
        found = analysed(residual)[:, ::RESIDUAL_SPACING, ::RESIDUAL_SPACING].cpu().numpy()
        numbers = _numbers(found, RESIDUAL_BANDS, residual_network(), scale, price_of(equal), band_bits=new)
        return Picture(coefficients=numbers, scale=scale) if numbers.any() else None

    def took(self, residual: Picture | None) -> None:
        """Hear what the next step of the chunk has."""
        self._before = residual or self._before


def slope_of_residual(slope: float, *, repeats: float) -> float:
    """The lambda at which a bit of a picture has the price of one of a residual, whose errors count so often."""
    return slope * COLOURS / (repeats * RESIDUAL_WEIGHT) / BIT_SHARE


def _numbers(
    found: NDArray[np.float32],
    bands: Sequence[Band],
    network: PictureNetwork,
    scale: int,
    price: float,
    *,
    band_bits: Values | None = None,
) -> NDArray[np.int16]:
    """Of exact coefficients those that are sent.

    Args:
        found: In 8-bit values, `(3, rows, columns)`.
        bands: Those that there are.
        network: Says what decisions cost.
        scale: Number of the quantizer's step.
        price: Squared error that a bit must save.
        band_bits: How many more a band costs that has coefficients of a colour than one that has none, `(bands, 3)`.
    """
    step = step_of(scale)
    price /= step**2
    numbers = np.zeros(found.shape, np.int16)
    known: list[NDArray[np.uint8]] = []
    for band in bands:
        wanted, taken = found[:, band.rows, band.columns], numbers[:, band.rows, band.columns]
        known.append(np.zeros(wanted.shape, np.uint8))
        for colour in range(COLOURS):
            saved, context = 0.0, PictureContext(known, band, colour, scale)
            for phase, (down, right) in enumerate(PHASES):
                exact = np.abs(wanted[colour, down::2, right::2]).astype(np.float64) / step
                rounded = np.minimum(np.floor(exact + 0.5), MAX_COEFFICIENT).astype(np.int64)
                places = np.flatnonzero(rounded)
                if not places.size:
                    continue
                inputs = context.inputs(phase)[places]
                odds = network.probabilities(inputs, band=band.number, colour=colour, phase=phase)
                flat = rounded.reshape(-1)
                flat[places], less = _cheapest(exact.reshape(-1)[places], flat[places], odds, price)
                saved += less
                taken[colour, down::2, right::2] = rounded
                known[-1][colour, down::2, right::2] = np.minimum(rounded, 255)
            if band_bits is not None and saved < price * band_bits[band.number, colour]:
                taken[colour], known[-1][colour] = 0, 0
    return (numbers * np.sign(found)).astype(np.int16)


def price_of(slope: float) -> float:
    """Squared error, of 8-bit values, that a bit must save: `BIT_SHARE` of lambda, and more where the step is smaller
    than what lambda asks for (it comes by quarters of an octave), or rates would jump more from step to step."""
    missing = wanted_step(slope) / step_of(scale_of_slope(slope))
    return float(BIT_SHARE * max(slope, 0.0) * missing**EVENING)


def _cheapest(
    exact: Values, rounded: NDArray[np.int64], odds: NDArray[np.int32], price: float
) -> tuple[NDArray[np.int64], float]:
    """Of each magnitude as it was rounded, the next smaller one and 0, that of least squared error + price * bits; and
    by how much that is less, of all together, than if all were 0.

    Args:
        exact: Magnitudes in steps, `(n,)`.
        rounded: To the nearest number, `(n,)`, 1 and more.
        odds: 16-bit probabilities of the decisions, `(n, OUTPUTS)`.
        price: Squared error, in steps, that a bit must save.
    """
    choices = np.stack([rounded, rounded - 1, np.zeros_like(rounded)])
    error = (exact - (choices + OUTWARD * (choices > 0))) ** 2
    cost = error + price * bits_of_sizes(choices, odds)
    found: NDArray[np.int64] = np.take_along_axis(choices, np.argmin(cost, axis=0)[None], axis=0)[0]
    return found, float((cost[-1] - cost.min(axis=0)).sum())


def bits_of_sizes(sizes: NDArray[np.int64], odds: NDArray[np.int32]) -> Values:
    """What coefficients cost, signs included: spec section 7.11.

    Args:
        sizes: Magnitudes, `(..., n)`.
        odds: 16-bit probabilities of the decisions, `(n, OUTPUTS)`.

    Returns:
        Bits, `(..., n)`.
    """
    more, less = _BITS[odds], _BITS[_ONE - odds]
    bits = np.where(sizes > 0, 1 + more[:, 0], less[:, 0])
    for number in (1, 2):
        bits = bits + np.where(sizes > number, more[:, number], np.where(sizes == number, less[:, number], 0))
    length = np.frexp(np.maximum(sizes - 2, 1))[1] - 1
    longer = length * (1 + more[:, 3]) + np.where(length < _LONGEST, less[:, 3], 0)
    return np.asarray(bits + np.where(sizes > 2, longer, 0))
