"""MS-SSIM (Wang, Simoncelli, Bovik 2003), by separable convolutions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first, as published; their sum is 1.0001."""

WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def scales_for(height: int, width: int) -> int:
    """How many scales a picture has: those on which the window of 11 fits, five at most.

    Five from 161 pixels a side on. With fewer, the exponents that are left are scaled to the same sum.

    Raises:
        ValueError: The window does not fit once.
    """
    side, count = min(height, width), 0
    while side >= WINDOW and count < len(SCALE_WEIGHTS):
        side, count = (side + 1) // 2, count + 1
    if count == 0:
        raise ValueError(f"MS-SSIM needs {WINDOW} pixels a side, the picture has {min(height, width)}")
    return count


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """MS-SSIM of each channel of each picture; the mean over channels is that of a colour picture.

    As in the paper: a Gaussian of 11 taps and sigma 1.5 without padding, contrast and structure at every scale,
    luminance at the coarsest; half size by the mean of 2x2, where an odd side repeats its last line. A negative
    term counts as 0.

    Args:
        first: Floating `(N, C, H, W)`, 0 to 255.
        second: The same shape.

    Returns:
        `(N, C)`, 0 to 1.

    Raises:
        ValueError: The shapes differ, or the picture is under 11 pixels a side.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
    count, channels, height, width = first.shape
    scales = scales_for(height, width)
    share = sum(SCALE_WEIGHTS) / sum(SCALE_WEIGHTS[:scales])
    weights = [weight * share for weight in SCALE_WEIGHTS[:scales]]
    pair = torch.stack([first, second]).flatten(1, 2)  # (2, N * C, H, W)
    result = pair.new_ones(count * channels)
    for scale, weight in enumerate(weights):
        is_last = scale == scales - 1
        term = _ssim(pair, with_luminance=is_last)
        result = result * term.clamp(min=0) ** weight
        if not is_last:
            pair = _half(pair)
    return result.view(count, channels)


def _ssim(pair: Tensor, *, with_luminance: bool) -> Tensor:
    """Mean over the picture of contrast times structure, and of luminance if wanted: `(2, M, H, W)` to `(M,)`."""
    # Sum and difference instead of the two: four maps to blur instead of five.
    total, difference = pair[0] + pair[1], pair[0] - pair[1]
    maps = _blur(torch.stack([total, difference, total * total, difference * difference]))
    total, difference = maps[0] ** 2, maps[1] ** 2
    total_variance, difference_variance = maps[2] - total, maps[3] - difference
    # 2 cov = (var(x+y) - var(x-y)) / 2 and var(x) + var(y) = (var(x+y) + var(x-y)) / 2; likewise for the means.
    value = (total_variance - difference_variance + 2 * C2) / (total_variance + difference_variance + 2 * C2)
    if with_luminance:
        value = value * (total - difference + 2 * C1) / (total + difference + 2 * C1)
    return value.mean(dim=(-2, -1))


def _blur(maps: Tensor) -> Tensor:
    """Gaussian of 11 taps, down and across, without padding: `(..., H, W)` to `(..., H - 10, W - 10)`."""
    offsets = [tap - WINDOW // 2 for tap in range(WINDOW)]
    taps = [math.exp(-(offset**2) / (2 * SIGMA**2)) for offset in offsets]
    kernel = [tap / sum(taps) for tap in taps]
    for axis in (-2, -1):
        size = maps.shape[axis] - WINDOW + 1
        # On a CPU, sums of shifted pictures are eight times faster than a convolution of one channel.
        blurred = maps.narrow(axis, 0, size) * kernel[0]
        for tap in range(1, WINDOW):
            blurred.add_(maps.narrow(axis, tap, size), alpha=kernel[tap])
        maps = blurred
    return maps


def _half(pair: Tensor) -> Tensor:
    height, width = pair.shape[-2:]
    return functional.avg_pool2d(functional.pad(pair, (0, width % 2, 0, height % 2), mode="replicate"), 2)
