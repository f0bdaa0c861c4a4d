"""The windowed layers of the `prior` model in 8-bit integers, for CPUs that multiply those fast.

A weight is two 8-bit digits, and a sum two products of 8 bits with sums of 32. The lower digit is within -64 to 63, so
that not even processors that add up pairs of products in 16 bits have to saturate: 2 * 255 * 64 < 2**15.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import Numbers, WindowSums

DIGIT = 128
"""The upper digit counts so much."""
OFFSET = 128
"""Less than activations are here: they are 0 to 255, an 8-bit number with a sign is not."""


def is_worth_it() -> bool:
    """Whether torch is there already (who only wants bits need not wait for it), and this CPU has the instructions."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "_int_mm"):
        return False
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(supported is not None and supported())


class Int8Windows:
    """Sums of the products of windows and weights, exact.

    Args:
        weights: int64 `(taps, inputs, outputs)`, within `LARGEST`.
        signed: How many inputs, the first ones, are -128 to 127; the others are 0 to 255.

    Raises:
        ValueError: A weight is larger.
    """

    LARGEST = 127 * DIGIT
    """Of the magnitude of a weight."""

    def __init__(self, weights: NDArray[np.int64], signed: int) -> None:
        import torch

        if np.abs(weights).max() > self.LARGEST:
            raise ValueError(f"weights beyond {self.LARGEST} have more than two digits")
        self._signed = signed
        flat = weights.reshape(-1, weights.shape[-1])
        lower = (flat + DIGIT // 2) % DIGIT - DIGIT // 2
        digits = np.concatenate([lower, (flat - lower) // DIGIT], axis=1)
        self._digits = torch.from_numpy(digits.astype(np.int8))
        self._constant = (OFFSET * weights[:, signed:].sum(axis=(0, 1))).astype(np.int32)

    def of(self, x: Numbers) -> WindowSums:
        """See `WindowLayer.of`."""
        import torch

        small = np.empty(x.shape, np.int8)
        small[:, : self._signed] = x[:, : self._signed]
        small[:, self._signed :] = x[:, self._signed :] - np.asarray(OFFSET, x.dtype)

        def sums(window: NDArray[np.intp]) -> Numbers:
            seen = torch.from_numpy(small.take(window, axis=0).reshape(len(window), -1))
            both = torch._int_mm(seen, self._digits).numpy()
            outputs = len(self._constant)
            found = both[:, outputs:] * np.int32(DIGIT)
            found += both[:, :outputs]
            found += self._constant
            return found.astype(x.dtype)

        return sums


def int8_windows(weights: NDArray[np.int64], signed: int) -> Int8Windows | None:
    """A layer in 8 bits, where that is worth it and the weights allow it."""
    if not is_worth_it() or np.abs(weights).max() > Int8Windows.LARGEST:
        return None
    return Int8Windows(weights, signed)
