"""The network that says how likely the decisions are of which motion maps are made, in integers (spec 7.14).

As those of pictures it comes with the package and is part of the format. Motion models take what it says beside what
they learn from a chunk itself (:mod:`tokcodec.motion_bits`).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_MAPS
from tokcodec.motion_context import INPUTS, SETS
from tokcodec.probability import network_file
from tokcodec.probability.decision_network import DecisionNetwork, Sizes, Tensors, check
from tokcodec.probability.picture_network import packaged

KINDS = 11
"""Decisions of a component: whether it is not as predicted, in which direction, and the unary part of how far."""
SIZES = Sizes(inputs=INPUTS, places=2 * MOTION_MAPS * SETS, hidden=32, outputs=KINDS)
FILE = "motion-2d18b09e653b.safetensors"
SHA256 = "2d18b09e653b8ac38e8c06e78aa6a1ac6601992828fb66264875af64b227d4d2"


class MotionNetwork:
    """Log-odds of decisions.

    Args:
        tensors: int64, by the names and shapes of `SIZES`.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(self, tensors: Tensors) -> None:
        _check(tensors)
        self._network = DecisionNetwork(tensors, SIZES)

    def stretches(self, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        """Log-odds in units of 1/256, int32 `(n, KINDS)`.

        Args:
            inputs: uint8 `(n, INPUTS)`.
            axis: 0 of x, 1 of y.
            number: Of the map.
            group: Number of the set.
        """
        return self._network.stretches(inputs, place(axis=axis, number=number, group=group))


def place(*, axis: int, number: int, group: int) -> int:
    """Row of the table of biases."""
    return (MOTION_MAPS * axis + number) * SETS + group


def _check(tensors: Tensors) -> None:
    if set(tensors) != set(SIZES.shapes()):
        raise ModelError(f"the network of motion has exactly the tensors {', '.join(SIZES.shapes())}")
    check(tensors, SIZES)


def pack(tensors: Tensors) -> bytes:
    """The bytes of a weights file.

    Raises:
        ModelError: A tensor does not fit.
    """
    _check(tensors)
    return network_file.packed({name: tensors[name] for name in SIZES.shapes()})


def unpack(data: bytes) -> dict[str, NDArray[np.int64]]:
    """The tensors of a weights file.

    Raises:
        ModelError: It is no such file.
    """
    return network_file.unpack(data, SIZES.shapes())


@functools.cache
def motion_network() -> MotionNetwork:
    """The network that comes with the package.

    Raises:
        ModelError: Its file is not the one that the specification names.
    """
    return MotionNetwork(unpack(packaged(FILE, SHA256)))
