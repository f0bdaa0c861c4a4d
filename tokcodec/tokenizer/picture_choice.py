"""Which coefficients a first picture has: each that of least error + a share of lambda * bits, in the order of coding.

A rounded coefficient alone among zeros costs ten times as many bits as one among many. So each is asked what it, the
next smaller number and 0 would cost by the network of spec section 7.11, after all that were chosen before it; what it
does to the bits of later ones is not counted. Only encoders do this, and nothing that a file means depends on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MAX_COEFFICIENT
from tokcodec.picture_bits import BANDS, PHASES, contexts
from tokcodec.probability.picture_network import COLOURS, picture_network
from tokcodec.tokenizer.wavelet import OUTWARD, analysed, scale_of_slope, step_of, wanted_step
from tokcodec.tokens import Picture

BIT_SHARE = 0.033
"""Of lambda, what a bit of a first picture must save: all pictures of a chunk are made of it. By measurement."""
EVENING = 2.5
"""Power of the step that there is not by which bits are dearer, so that rates fall evenly with lambda."""
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
    step = step_of(scale)
    found = analysed(picture).cpu().numpy()
    price = price_of(slope) / step**2
    network = picture_network()
    numbers = np.zeros(found.shape, np.int16)
    known: list[NDArray[np.uint8]] = []
    for band in BANDS:
        wanted, taken = found[:, band.rows, band.columns], numbers[:, band.rows, band.columns]
        known.append(np.zeros(wanted.shape, np.uint8))
        for colour in range(COLOURS):
            for phase, (down, right) in enumerate(PHASES):
                exact = np.abs(wanted[colour, down::2, right::2]).astype(np.float64) / step
                rounded = np.minimum(np.floor(exact + 0.5), MAX_COEFFICIENT).astype(np.int64)
                places = np.flatnonzero(rounded)
                if not places.size:
                    continue
                inputs = contexts(known, band, colour, phase, scale)[places]
                odds = network.probabilities(inputs, band=band.number, colour=colour, phase=phase)
                flat = rounded.reshape(-1)
                flat[places] = _cheapest(exact.reshape(-1)[places], flat[places], odds, price)
                taken[colour, down::2, right::2] = rounded
                known[-1][colour, down::2, right::2] = np.minimum(rounded, 255)
    return Picture(coefficients=(numbers * np.sign(found)).astype(np.int16), scale=scale)


def price_of(slope: float) -> float:
    """Squared error, of 8-bit values, that a bit must save: `BIT_SHARE` of lambda, and more where the step is smaller
    than what lambda asks for (it comes by quarters of an octave), or rates would jump more from step to step."""
    missing = wanted_step(slope) / step_of(scale_of_slope(slope))
    return float(BIT_SHARE * max(slope, 0.0) * missing**EVENING)


def _cheapest(exact: Values, rounded: NDArray[np.int64], odds: NDArray[np.int32], price: float) -> NDArray[np.int64]:
    """Of each magnitude as it was rounded, the next smaller one and 0, that of least squared error + price * bits.

    Args:
        exact: Magnitudes in steps, `(n,)`.
        rounded: To the nearest number, `(n,)`, 1 and more.
        odds: 16-bit probabilities of the decisions, `(n, OUTPUTS)`.
        price: Squared error, in steps, that a bit must save.
    """
    choices = np.stack([rounded, rounded - 1, np.zeros_like(rounded)])
    error = (exact - (choices + OUTWARD * (choices > 0))) ** 2
    best = np.argmin(error + price * bits_of_sizes(choices, odds), axis=0)
    found: NDArray[np.int64] = np.take_along_axis(choices, best[None], axis=0)[0]
    return found


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
