"""The networks that say how likely coefficients of pictures and of residuals are, in integers (spec 7.11 and 7.12).

They are small, the same for every file, and come with the package: their numbers are part of the format. As with the
`prior`, no sum can reach 2**24, so that every machine gets the same (spec section 7.8).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.probability.logistic import SQUASH, STRETCH_MAX
from tokcodec.probability.network_file import packed, unpack

INPUTS, HIDDEN, OUTPUTS = 22, 32, 4
BANDS, COLOURS, PHASES = 16, 3, 4
ACTIVATION_MAX = 255
ACCUMULATOR_LIMIT = 1 << 24
SHIFTS = (8, 8, 8)
"""By which the sums of both hidden layers and the outputs are shifted to the right, rounded."""
SHAPES = {
    "inputs.weight": (INPUTS, HIDDEN),
    "band.bias": (BANDS * COLOURS, HIDDEN),
    "phase.bias": (PHASES, HIDDEN),
    "hidden.weight": (HIDDEN, HIDDEN),
    "hidden.bias": (HIDDEN,),
    "out.weight": (HIDDEN, OUTPUTS),
    "out.bias": (OUTPUTS,),
}
FILE = "picture-2e3a725a33eb.safetensors"
SHA256 = "2e3a725a33eb2fe262c8db3b08b41500d01cc852b29faea590f13ce36c6895fe"
RESIDUAL_FILE = "residual-49dfbf168f2c.safetensors"
RESIDUAL_SHA256 = "49dfbf168f2cdd274d4d8738d178f0967352d32b2657310b8743f0eed4569298"
BLOCK = 8192
"""Coefficients that are computed at a time: bounds memory, and keeps it in the cache."""


class PictureNetwork:
    """Probabilities of the decisions of which a coefficient is made.

    Args:
        tensors: int64, by the names and shapes of `SHAPES`.

    Raises:
        ModelError: A tensor is missing, of another shape, or a sum could reach 2**24.
    """

    def __init__(self, tensors: Mapping[str, NDArray[np.int64]]) -> None:
        _check(tensors)
        halves = [1 << shift - 1 for shift in SHIFTS]
        self._weights = [tensors[f"{name}.weight"].astype(np.float32) for name in ("inputs", "hidden", "out")]
        self._band = (tensors["band.bias"] + halves[0]).astype(np.float32)
        self._phase = tensors["phase.bias"].astype(np.float32)
        self._hidden = (tensors["hidden.bias"] + halves[1]).astype(np.float32)
        self._out = (tensors["out.bias"] + halves[2]).astype(np.float32)

    def probabilities(self, inputs: NDArray[np.uint8], *, band: int, colour: int, phase: int) -> NDArray[np.int32]:
        """16-bit probabilities, `(n, OUTPUTS)`, of inputs `(n, INPUTS)`: spec section 7.11."""
        found = np.empty((len(inputs), OUTPUTS), np.int32)
        first = self._band[COLOURS * band + colour] + self._phase[phase]
        for start in range(0, len(inputs), BLOCK):
            part = slice(start, start + BLOCK)
            x = activated(inputs[part].astype(np.float32) @ self._weights[0] + first, SHIFTS[0])
            x = activated(x @ self._weights[1] + self._hidden, SHIFTS[1])
            stretch = (x @ self._weights[2] + self._out).astype(np.int32) >> SHIFTS[2]
            found[part] = SQUASH[stretch.clip(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX]
        return found


def activated(sums: NDArray[np.float32], shift: int) -> NDArray[np.float32]:
    """An activation in place, `clamp(sums >> shift, 0, 255)`; the rounding half is in the bias."""
    np.maximum(sums, 0, out=sums)
    sums *= np.float32(2.0**-shift)
    np.floor(sums, out=sums)
    return np.minimum(sums, ACTIVATION_MAX, out=sums)


def _check(tensors: Mapping[str, NDArray[np.int64]]) -> None:
    if set(tensors) != set(SHAPES):
        raise ModelError(f"a network of coefficients has exactly the tensors {', '.join(SHAPES)}")
    for name, shape in SHAPES.items():
        if tensors[name].shape != shape:
            raise ModelError(f"the tensor {name} is {tensors[name].shape}, must be {shape}")
    size = {name: abs(tensor) for name, tensor in tensors.items()}
    biases = (
        size["band.bias"].max(axis=0) + size["phase.bias"].max(axis=0),
        size["hidden.bias"],
        size["out.bias"],
    )
    for name, bias, shift in zip(("inputs", "hidden", "out"), biases, SHIFTS, strict=True):
        largest = int((ACTIVATION_MAX * size[f"{name}.weight"].sum(axis=0) + bias).max()) + (1 << shift - 1)
        if largest >= ACCUMULATOR_LIMIT:
            raise ModelError(f"a sum of {name} can reach {largest}, which is not below {ACCUMULATOR_LIMIT}")


def pack(tensors: Mapping[str, NDArray[np.int64]]) -> bytes:
    """The bytes of a weights file.

    Raises:
        ModelError: A tensor does not fit.
    """
    _check(tensors)
    return packed({name: tensors[name] for name in SHAPES})


@functools.cache
def picture_network() -> PictureNetwork:
    """The network of first pictures that comes with the package.

    Raises:
        ModelError: Its file is not the one that the specification names.
    """
    return PictureNetwork(unpack(packaged(FILE, SHA256)))


@functools.cache
def residual_network() -> PictureNetwork:
    """The network of residuals that comes with the package.

    Raises:
        ModelError: As for `picture_network`.
    """
    return PictureNetwork(unpack(packaged(RESIDUAL_FILE, RESIDUAL_SHA256)))


def packaged(file: str, sha256: str) -> bytes:
    """A weights file of the package that is part of the format.

    Raises:
        ModelError: It is missing, or another one.
    """
    try:
        data = (resources.files("tokcodec") / "weights" / file).read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"the file {file} of the package is missing or damaged", hint="install tokcodec again")
    return data
