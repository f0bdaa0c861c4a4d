"""A network of whole numbers that says how likely decisions are, from inputs and a place (spec sections 7.13 and 7.14).

No sum of it can reach 2**24, so that every machine gets the same from float32 (spec section 7.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.probability.logistic import SQUASH, STRETCH_MAX
from tokcodec.probability.picture_network import ACCUMULATOR_LIMIT, ACTIVATION_MAX, SHIFTS, activated

BLOCK = 8192
"""Decisions that are computed at a time: bounds memory, and keeps it in the cache."""
_LAYERS = ("inputs", "place"), ("hidden", "hidden"), ("out", "out")
"""Layers, and the names of their biases."""

Tensors = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a network.

    Attributes:
        inputs: From 0 to 255 each.
        places: Rows of the table of biases for the place of a decision.
        hidden: Of both hidden layers.
        outputs: Decisions.
    """

    inputs: int
    places: int
    hidden: int
    outputs: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its tensors, by name, in the order that they have in a file."""
        return {
            "inputs.weight": (self.inputs, self.hidden),
            "place.bias": (self.places, self.hidden),
            "hidden.weight": (self.hidden, self.hidden),
            "hidden.bias": (self.hidden,),
            "out.weight": (self.hidden, self.outputs),
            "out.bias": (self.outputs,),
        }


class DecisionNetwork:
    """How likely decisions are.

    Args:
        tensors: int64, by name.
        sizes: Their shapes.
        name: What stands before the names of tensors, a dot behind it; "" where nothing does.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(self, tensors: Tensors, sizes: Sizes, *, name: str = "") -> None:
        check(tensors, sizes, name=name)
        own = {key: tensors[_full(name, key)].astype(np.float32) for key in sizes.shapes()}
        for (_, bias), shift in zip(_LAYERS, SHIFTS, strict=True):
            own[f"{bias}.bias"] += 1 << shift - 1
        self._tensors, self._sizes = own, sizes

    def stretches(self, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int) -> NDArray[np.int32]:
        """Log-odds in units of 1/256, within `STRETCH_MAX`, int32 `(n, outputs)`.

        Args:
            inputs: `(n, inputs)`.
            place: Row of the table of biases, one for all, or `(n,)`.
        """
        own = self._tensors
        places = np.broadcast_to(np.asarray(place), (len(inputs),))
        found = np.empty((len(inputs), self._sizes.outputs), np.int32)
        for start in range(0, len(inputs), BLOCK):
            part = slice(start, start + BLOCK)
            first = own["place.bias"][places[part]]
            x = activated(inputs[part].astype(np.float32) @ own["inputs.weight"] + first, SHIFTS[0])
            x = activated(x @ own["hidden.weight"] + own["hidden.bias"], SHIFTS[1])
            stretch = (x @ own["out.weight"] + own["out.bias"]).astype(np.int32) >> SHIFTS[2]
            found[part] = stretch.clip(-STRETCH_MAX, STRETCH_MAX)
        return found

    def probabilities(self, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int) -> NDArray[np.int32]:
        """The same as 16-bit probabilities."""
        found: NDArray[np.int32] = SQUASH[self.stretches(inputs, place) + STRETCH_MAX]
        return found


def check(tensors: Tensors, sizes: Sizes, *, name: str = "") -> None:
    """Look at the shapes of a network's tensors, and at how large its sums can become.

    Raises:
        ModelError: A shape is another, a tensor is missing, or a sum could reach 2**24.
    """
    for key, shape in sizes.shapes().items():
        found = tensors.get(_full(name, key))
        if found is None or found.shape != shape:
            has = "missing" if found is None else str(found.shape)
            raise ModelError(f"the tensor {_full(name, key)} is {has}, must be {shape}")
    for (layer, bias), shift in zip(_LAYERS, SHIFTS, strict=True):
        weight, more = (abs(tensors[_full(name, key)]) for key in (f"{layer}.weight", f"{bias}.bias"))
        largest = int((ACTIVATION_MAX * weight.sum(axis=0) + more).max()) + (1 << shift - 1)
        if largest >= ACCUMULATOR_LIMIT:
            raise ModelError(f"a sum of {_full(name, layer)} can reach {largest}, not below {ACCUMULATOR_LIMIT}")


def _full(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
