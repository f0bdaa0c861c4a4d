"""Matrix products of the `prior` model by torch, on any device. Exact, as those of NumPy are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from tokcodec.probability.prior_network import Numbers


@contextlib.contextmanager
def whole_precision() -> Iterator[None]:
    """Float32 products in float32: TF32 and bfloat16 would round the factors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class TorchArithmetic:
    """See :class:`tokcodec.probability.prior_network.Arithmetic`.

    Args:
        device: "cpu" or "cuda".
        dtype: float32 or float64; int32 and int64 on the CPU.
    """

    def __init__(self, device: str | torch.device = "cpu", dtype: DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self._device = torch.device(device)

    def prepare(self, weights: NDArray[np.int64]) -> Any:
        """See `Arithmetic.prepare`."""
        return torch.from_numpy(np.ascontiguousarray(weights, dtype=self.dtype)).to(self._device)

    def multiply(self, x: Numbers, weights: Any) -> Numbers:
        """See `Arithmetic.multiply`."""
        with whole_precision(), torch.inference_mode():
            product = torch.from_numpy(np.ascontiguousarray(x)).to(self._device) @ weights
        found: Numbers = product.cpu().numpy()
        return found
