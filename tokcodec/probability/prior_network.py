"""The network of the `prior` model in integers (spec section 7.8).

Weights and activations are whole numbers, and no sum of products can reach 2**24, whatever the input: so float32,
float64 and integer matrix products give the same numbers, in any order of summation and on any device. That is
checked when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tokcodec.errors import ModelError
from tokcodec.probability.logistic import STRETCH_MAX
from tokcodec.probability.mixing import WEIGHT_LIMIT
from tokcodec.probability.prior_config import ACTIVATION_MAX, COUNT_UNIT, SIGN_UNIT, PriorConfig

Numbers = NDArray[Any]
"""Whole numbers, of the type that the arithmetic computes in."""
ACCUMULATOR_LIMIT = 1 << 24
"""No sum may reach this: float32 holds every whole number below it."""
BLOCK_CELLS = 2048
"""Cells whose windows are gathered at a time: bounds memory, and keeps it in the cache."""
MIN_SHIFT, MAX_SHIFT = 1, 16


class Arithmetic(Protocol):
    """Multiplies matrices of whole numbers."""

    dtype: np.dtype[Any]

    def prepare(self, weights: NDArray[np.int64]) -> Any:
        """Weights `(inputs, outputs)` as `multiply` takes them."""

    def multiply(self, x: Numbers, weights: Any) -> Numbers:
        """`x @ weights`, exact: `(n, inputs)` to `(n, outputs)`."""


WindowSums = Callable[[NDArray[np.intp]], Numbers]
"""Sums at the cells of windows `(n, taps)`: `(n, outputs)`."""


class WindowLayer(Protocol):
    """Multiplies what windows see by weights."""

    def of(self, x: Numbers) -> WindowSums:
        """Exact sums for inputs `(cells + 1, inputs)`: `gather(x, window) @ weights`."""


class NumpyArithmetic:
    """NumPy's matrix product, in float32 by default.

    Args:
        dtype: float32, float64, int32 or int64.
    """

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)

    def prepare(self, weights: NDArray[np.int64]) -> Numbers:
        """See `Arithmetic.prepare`."""
        return np.ascontiguousarray(weights, dtype=self.dtype)

    def multiply(self, x: Numbers, weights: Any) -> Numbers:
        """See `Arithmetic.multiply`."""
        product: Numbers = x @ weights
        return product


class _GatheredWindows:
    """See `WindowLayer`; by any arithmetic."""

    def __init__(self, weights: NDArray[np.int64], arithmetic: Arithmetic) -> None:
        self._weights = arithmetic.prepare(weights.reshape(-1, weights.shape[-1]))
        self._arithmetic = arithmetic

    def of(self, x: Numbers) -> WindowSums:
        return lambda window: self._arithmetic.multiply(gather(x, window), self._weights)


class PriorNetwork:
    """The layers of the network, for cells of a grid in any order; an instance serves any number of chunks.

    Args:
        config: Sizes.
        tensors: int64, by the names and shapes of `PriorConfig.shapes`.
        arithmetic: What multiplies matrices.
        windows: Makes the two layers that see windows of weights int64 `(9, inputs, outputs)` and of how many inputs
            may be negative, in another way; None for those that it is no way for.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(
        self,
        config: PriorConfig,
        tensors: Mapping[str, NDArray[np.int64]],
        arithmetic: Arithmetic | None = None,
        *,
        windows: Callable[[NDArray[np.int64], int], WindowLayer | None] | None = None,
    ) -> None:
        check_tensors(config, tensors)
        self.config, self.arithmetic = config, arithmetic or NumpyArithmetic()
        self.dtype = self.arithmetic.dtype
        self._tensors = dict(tensors)
        self._shifts = [int(shift) for shift in tensors["shifts"]]
        self.mixer_weights = tensors["mixer.weights"]
        prepare = self.arithmetic.prepare
        flat = {name: tensor.reshape(-1, tensor.shape[-1]) for name, tensor in tensors.items()}
        self._context: list[WindowLayer] = []
        for name, signed in (("context1.weight", config.bits_per_token), ("context2.weight", 0)):
            layer = None if windows is None else windows(tensors[name], signed)
            self._context.append(layer or _GatheredWindows(tensors[name], self.arithmetic))
        self._state, self._kept = prepare(flat["state.weight"]), prepare(flat["kept.weight"])
        self._hidden = prepare(flat["hidden.weight"])
        halves = [1 << shift - 1 for shift in self._shifts]
        biases = rounded_biases(config, tensors, halves)
        self._bias = {name: bias.astype(self.dtype) for name, bias in biases.items()}
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = {}
        self._out: dict[range, tuple[Any, Numbers]] = {}

    def _activate(self, sums: Numbers, shift: int) -> Numbers:
        """`clamp(sums >> shift, 0, 255)`, in place; the rounding half is in the bias."""
        np.maximum(sums, 0, out=sums)
        if self.dtype.kind == "f":
            sums *= np.asarray(2.0**-shift, dtype=self.dtype)
            np.floor(sums, out=sums)
        else:
            sums >>= shift
        return np.minimum(sums, ACTIVATION_MAX, out=sums)

    def context(self, past: Numbers, window: NDArray[np.intp]) -> Numbers:
        """State `(cells, S)` after a step.

        Args:
            past: `(cells + 1, K + 1 + S)`: bits in units of 32, bits kept in units of 4, the state before;
                the last row, which is all zero, stands for what is outside.
            window: Cells around each cell, 3 x 3.
        """
        x = self._layer(past, window, 0, "context1.bias")
        x = np.concatenate([x, np.zeros((1, x.shape[1]), dtype=self.dtype)])
        return self._layer(x, window, 1, "context2.bias")

    def _layer(self, x: Numbers, window: NDArray[np.intp], number: int, bias: str) -> Numbers:
        outputs = np.empty((len(window), len(self._bias[bias])), dtype=self.dtype)
        sums_of = self._context[number].of(x)
        for start in range(0, len(window), BLOCK_CELLS):
            part = slice(start, start + BLOCK_CELLS)
            sums = sums_of(window[part])
            sums += self._bias[bias]
            outputs[part] = self._activate(sums, self._shifts[number])
        return outputs

    def first(self, state: Numbers, kept: Numbers) -> Numbers:
        """What state `(n, S)` and the window of kept bits `(n, taps)` (units of 4) add to the first sum."""
        sums = self.arithmetic.multiply(state, self._state)
        sums += self.arithmetic.multiply(kept, self._kept)
        return sums

    def known(self, seen: Numbers, *, taps: tuple[int, ...], channels: tuple[int, ...]) -> Numbers:
        """What known bits add to the first sum.

        Args:
            seen: `(n, len(taps) * len(channels))`, tap by tap.
            taps: Places of the window, row-major.
            channels: Channels at each place: bits by plane, agreements by plane, count.
        """
        weights = self._known.get((taps, channels))
        if weights is None:
            part = self._tensors["known.weight"][np.ix_(taps, channels)]
            weights = self.arithmetic.prepare(part.reshape(-1, part.shape[-1]))
            self._known[taps, channels] = weights
        return self.arithmetic.multiply(seen, weights)

    def stretches(self, first: Numbers, before: Numbers, planes: range) -> NDArray[np.int32]:
        """Stretches `(len(planes), n)` of bits, the tokens being known up to the first of the planes.

        Args:
            first: `(n, H)`, the first sum without the bias of the plane; not changed.
            before: `(n, len(planes))`, the bits of the step before: -1, 1, or 0 where absent.
            planes: Which bits.
        """
        x = self._activate(first + self._bias["plane.bias"][planes.start], self._shifts[2])
        x = self.arithmetic.multiply(x, self._hidden)
        x += self._bias["hidden.bias"]
        x = self._activate(x, self._shifts[3])
        found = self._out.get(planes)
        if found is None:
            columns = [*planes, *(self.config.bits_per_token + plane for plane in planes)]
            weights = self.arithmetic.prepare(self._tensors["out.weight"][:, columns])
            found = self._out[planes] = weights, self._bias["out.bias"][columns]
        x = self.arithmetic.multiply(x, found[0])
        x += found[1]
        count = len(planes)
        total = x[:, :count] + before * x[:, count:]
        stretch = total.astype(np.int32) >> self._shifts[4]
        return np.ascontiguousarray(stretch.clip(-STRETCH_MAX, STRETCH_MAX).T)


def gather(x: Numbers, window: NDArray[np.intp]) -> Numbers:
    """Rows of `x` at the cells of each window, side by side: `(n, taps * channels)`."""
    return x.take(window, axis=0).reshape(len(window), window.shape[1] * x.shape[1])


def rounded_biases(
    config: PriorConfig, tensors: Mapping[str, NDArray[np.int64]], halves: list[int]
) -> dict[str, NDArray[np.int64]]:
    """The biases, with the halves that make a shift round to the nearest."""
    names = ("context1.bias", "context2.bias", "plane.bias", "hidden.bias", "out.bias")
    biases = {name: tensors[name] + half for name, half in zip(names, halves, strict=True)}
    biases["out.bias"][config.bits_per_token :] -= halves[-1]  # of the two sums of a bit one is enough
    return biases


def check_tensors(config: PriorConfig, tensors: Mapping[str, NDArray[np.int64]]) -> None:
    """Check names, shapes and every bound of spec section 7.8.

    Raises:
        ModelError: One does not hold; the message says which.
    """
    shapes = config.shapes()
    if set(tensors) != set(shapes):
        raise ModelError(f"a prior has exactly the tensors {', '.join(shapes)}")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ModelError(f"the tensor {name} is {tensors[name].shape}, must be {shape}")
    shifts = tensors["shifts"]
    if shifts.min() < MIN_SHIFT or shifts.max() > MAX_SHIFT:
        raise ModelError(f"the shifts of a prior are {MIN_SHIFT} to {MAX_SHIFT}")
    if abs(tensors["mixer.weights"]).max() > WEIGHT_LIMIT:
        raise ModelError(f"the mixing weights of a prior are at most {WEIGHT_LIMIT}")
    for name, largest in largest_sums(config, tensors).items():
        if largest >= ACCUMULATOR_LIMIT:
            raise ModelError(f"a sum of {name} can reach {largest}, which is not below {ACCUMULATOR_LIMIT}")


def largest_sums(config: PriorConfig, tensors: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    """The largest magnitude that a sum of each layer can have, in any order of summation."""
    K = config.bits_per_token
    halves = [1 << int(shift) - 1 for shift in tensors["shifts"]]
    bias = {name: abs(value) for name, value in rounded_biases(config, tensors, halves).items()}
    size = {name: abs(value) for name, value in tensors.items()}
    past = np.full(K + 1 + config.state_channels, ACTIVATION_MAX)
    past[:K], past[K] = SIGN_UNIT, COUNT_UNIT * K
    seen = np.full(config.known_channels, SIGN_UNIT)
    seen[-1] = COUNT_UNIT * K
    context1 = np.einsum("tio,i->o", size["context1.weight"], past) + bias["context1.bias"]
    context2 = size["context2.weight"].sum(axis=(0, 1)) * ACTIVATION_MAX + bias["context2.bias"]
    first = (
        ACTIVATION_MAX * size["state.weight"].sum(axis=0)
        + COUNT_UNIT * K * size["kept.weight"].sum(axis=0)
        + np.einsum("tio,i->o", size["known.weight"], seen)
        + bias["plane.bias"].max(axis=0)
    )
    hidden = ACTIVATION_MAX * size["hidden.weight"].sum(axis=0) + bias["hidden.bias"]
    out = ACTIVATION_MAX * size["out.weight"].sum(axis=0) + bias["out.bias"]
    return {
        "context1": int(context1.max()),
        "context2": int(context2.max()),
        "first": int(first.max()),
        "hidden": int(hidden.max()),
        "out": int((out[:K] + out[K:]).max()),
    }
