"""Sample by sample: mean squared error, PSNR, luma."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# H.273 matrix -> weights of red and blue. FCC, BT.601 (twice), SMPTE 240M, BT.2020 (twice); the rest is BT.709.
_RED_BLUE = {
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_BT709 = (0.2126, 0.0722)


def mean_squared_error(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean squared error over all samples of two uint8 arrays of one shape; 0 to 65025."""
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape} and {second.shape}")
    difference = first.astype(np.int32) - second.astype(np.int32)
    return float(np.mean(np.square(difference, dtype=np.int64)))


def psnr_of(error: float) -> float:
    """PSNR in dB of a mean squared error of 8-bit samples; infinite for 0."""
    return math.inf if error == 0 else 10.0 * math.log10(255.0**2 / error)


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """PSNR in dB of one frame against another, over all three channels of RGB: uint8 `(H, W, 3)`."""
    return psnr_of(mean_squared_error(first, second))


def luma(pixels: NDArray[np.uint8], matrix: int) -> NDArray[np.float32]:
    """Luma in limited range, as files carry it, but not rounded.

    Args:
        pixels: uint8 `(..., 3)` RGB.
        matrix: YUV matrix, a code point of H.273 (1 is BT.709, 5 and 6 are BT.601); what is not known is BT.709.

    Returns:
        float32 `(...)`, 16 to 235.
    """
    red, blue = _RED_BLUE.get(matrix, _BT709)
    weights = np.array([red, 1.0 - red - blue, blue]) * (219.0 / 255.0)
    return (pixels.astype(np.float32) @ weights.astype(np.float32)) + np.float32(16.0)
