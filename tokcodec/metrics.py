"""Quality of decoded 8-bit frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


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
