"""The networks that say how likely the decisions are of which a picture by blocks is made, in integers (spec 7.13).

Three of one shape: of the layout, of where the coefficients of a block end, and of coefficients. As those of wavelets
(:mod:`tokcodec.probability.picture_network`) they come with the package and are part of the format.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.probability import network_file
from tokcodec.probability.decision_network import DecisionNetwork, Sizes, Tensors, check
from tokcodec.probability.picture_network import packaged

INPUTS, HIDDEN = 30, 32
OUTPUTS = {"layout": 4, "extent": 1, "size": 4}
"""Decisions of each network: whether a block is cut, and whether its mode is the first, second and third that is
likely; whether there are more coefficients; whether one is not 0, beyond 1, beyond 2, and longer."""
PLACES = {"layout": 16, "extent": 192, "size": 192}
"""Rows of the table of biases that each has for the place of a decision."""
SIZES = {
    name: Sizes(inputs=INPUTS, places=PLACES[name], hidden=HIDDEN, outputs=outputs) for name, outputs in OUTPUTS.items()
}
SHAPES = {f"{name}.{key}": shape for name, sizes in SIZES.items() for key, shape in sizes.shapes().items()}
FILE = "blocks-b2de0257ca7b.safetensors"
SHA256 = "b2de0257ca7b47386dc0fd16a5045d76947decd3a09af4fc9ae9f63dbb47587f"


class BlockNetwork:
    """Probabilities of decisions.

    Args:
        tensors: int64, by the names and shapes of `SHAPES`.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(self, tensors: Tensors) -> None:
        _check(tensors)
        self._networks = {name: DecisionNetwork(tensors, sizes, name=name) for name, sizes in SIZES.items()}

    def probabilities(
        self, name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
    ) -> NDArray[np.int32]:
        """16-bit probabilities of a network's decisions, `(n, OUTPUTS[name])`: spec section 7.13.

        Args:
            name: A key of `OUTPUTS`.
            inputs: `(n, INPUTS)`.
            place: Row of the table of biases, one for all, or `(n,)`.
        """
        return self._networks[name].probabilities(inputs, place)


def _check(tensors: Tensors) -> None:
    if set(tensors) != set(SHAPES):
        raise ModelError(f"the networks of blocks have exactly the tensors {', '.join(SHAPES)}")
    for name, sizes in SIZES.items():
        check(tensors, sizes, name=name)


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
