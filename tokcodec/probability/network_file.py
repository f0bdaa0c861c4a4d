"""Networks of whole numbers as safetensors files: 16 bits for weights, 32 for biases (spec sections 7.11 to 7.14)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError


def packed(tensors: Mapping[str, NDArray[np.int64]]) -> bytes:
    """The bytes of a weights file, tensors in the order that they have.

    Raises:
        ModelError: A number does not fit its type.
    """
    from safetensors.numpy import save

    if any(abs(tensor).max() > np.iinfo(_type(name)).max for name, tensor in tensors.items()):
        raise ModelError("a number of a network of whole numbers does not fit its type")
    data: bytes = save({name: np.ascontiguousarray(tensor.astype(_type(name))) for name, tensor in tensors.items()})
    return data


def unpack(data: bytes, names: Container[str] | None = None) -> dict[str, NDArray[np.int64]]:
    """The tensors of a weights file.

    Args:
        data: The file.
        names: Of tensors whose types are looked at; None: all.

    Raises:
        ModelError: It is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, NDArray[Any]] = load(data)
    except SafetensorError as error:
        raise ModelError("not a safetensors file") from error
    looked_at = [name for name in tensors if names is None or name in names]
    if any(tensors[name].dtype != _type(name) for name in looked_at):
        raise ModelError("the numbers of a network of whole numbers have other types")
    return {name: tensor.astype(np.int64) for name, tensor in tensors.items()}


def _type(name: str) -> type[np.signedinteger[Any]]:
    return np.int16 if name.endswith(".weight") else np.int32
