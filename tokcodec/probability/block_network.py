"""The networks that say how likely the decisions are of which a picture by blocks is made, in integers (spec 7.13).

Three of one shape: of the layout, of where the coefficients of a block end, and of coefficients. As those of wavelets
(:mod:`tokcodec.probability.picture_network`) they come with the package and are part of the format.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.probability import network_file
from tokcodec.probability.logistic import SQUASH, STRETCH_MAX
from tokcodec.probability.picture_network import ACCUMULATOR_LIMIT, ACTIVATION_MAX, SHIFTS, activated, packaged

INPUTS, HIDDEN = 30, 32
OUTPUTS = {"layout": 4, "extent": 1, "size": 4}
"""Decisions of each network: whether a block is cut, and whether its mode is the first, second and third that is
likely; whether there are more coefficients; whether one is not 0, beyond 1, beyond 2, and longer."""
PLACES = {"layout": 16, "extent": 192, "size": 192}
"""Rows of the table of biases that each has for the place of a decision."""
SHAPES = {
    f"{name}.{tensor}": shape
    for name, outputs in OUTPUTS.items()
    for tensor, shape in {
        "inputs.weight": (INPUTS, HIDDEN),
        "place.bias": (PLACES[name], HIDDEN),
        "hidden.weight": (HIDDEN, HIDDEN),
        "hidden.bias": (HIDDEN,),
        "out.weight": (HIDDEN, outputs),
        "out.bias": (outputs,),
    }.items()
}
FILE = "blocks-b2de0257ca7b.safetensors"
SHA256 = "b2de0257ca7b47386dc0fd16a5045d76947decd3a09af4fc9ae9f63dbb47587f"
BLOCK = 8192
"""Decisions that are computed at a time: bounds memory, and keeps it in the cache."""

Tensors = Mapping[str, NDArray[np.int64]]


class BlockNetwork:
    """Probabilities of decisions.

    Args:
        tensors: int64, by the names and shapes of `SHAPES`.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(self, tensors: Tensors) -> None:
        _check(tensors)
        halves = [1 << shift - 1 for shift in SHIFTS]
        self._tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        for name in OUTPUTS:
            for bias, half in zip(("place", "hidden", "out"), halves, strict=True):
                self._tensors[f"{name}.{bias}.bias"] += half

    def probabilities(
        self, name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
    ) -> NDArray[np.int32]:
        """16-bit probabilities of a network's decisions, `(n, OUTPUTS[name])`: spec section 7.13.

        Args:
            name: A key of `OUTPUTS`.
            inputs: `(n, INPUTS)`.
            place: Row of the table of biases, one for all, or `(n,)`.
        """
        own = {key: self._tensors[f"{name}.{key}"] for key in _TENSORS}
        places = np.broadcast_to(np.asarray(place), (len(inputs),))
        found = np.empty((len(inputs), OUTPUTS[name]), np.int32)
        for start in range(0, len(inputs), BLOCK):
            part = slice(start, start + BLOCK)
            first = own["place.bias"][places[part]]
            x = activated(inputs[part].astype(np.float32) @ own["inputs.weight"] + first, SHIFTS[0])
            x = activated(x @ own["hidden.weight"] + own["hidden.bias"], SHIFTS[1])
            stretch = (x @ own["out.weight"] + own["out.bias"]).astype(np.int32) >> SHIFTS[2]
            found[part] = SQUASH[stretch.clip(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX]
        return found


_TENSORS = ("inputs.weight", "place.bias", "hidden.weight", "hidden.bias", "out.weight", "out.bias")


def _check(tensors: Tensors) -> None:
    if set(tensors) != set(SHAPES):
        raise ModelError(f"the networks of blocks have exactly the tensors {', '.join(SHAPES)}")
    for name, shape in SHAPES.items():
        if tensors[name].shape != shape:
            raise ModelError(f"the tensor {name} is {tensors[name].shape}, must be {shape}")
    for name in OUTPUTS:
        for layer, bias, shift in zip(("inputs", "hidden", "out"), ("place", "hidden", "out"), SHIFTS, strict=True):
            weight, more = abs(tensors[f"{name}.{layer}.weight"]), abs(tensors[f"{name}.{bias}.bias"])
            largest = int((ACTIVATION_MAX * weight.sum(axis=0) + more).max()) + (1 << shift - 1)
            if largest >= ACCUMULATOR_LIMIT:
                raise ModelError(f"a sum of {name}.{layer} can reach {largest}, not below {ACCUMULATOR_LIMIT}")


def pack(tensors: Tensors) -> bytes:
    """The bytes of a weights file.

    Raises:
        ModelError: A tensor does not fit.
    """
    _check(tensors)
    return network_file.packed({name: tensors[name] for name in SHAPES})


def unpack(data: bytes) -> dict[str, NDArray[np.int64]]:
    """The tensors of a weights file.

    Raises:
        ModelError: It is no such file.
    """
    return network_file.unpack(data, SHAPES)


@functools.cache
def block_network() -> BlockNetwork:
    """The networks that come with the package.

    Raises:
        ModelError: Their file is not the one that the specification names.
    """
    return BlockNetwork(unpack(packaged(FILE, SHA256)))
