"""Weights of the probability model `prior`: integers in a safetensors file (spec section 7.8). No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError, OutputError
from tokcodec.weights.registry import (
    PACKAGE_FOLDER,
    REGISTRY,
    WeightsEntry,
    entry_of_file,
    find_among,
    tokenizers_of,
)

if TYPE_CHECKING:
    from tokcodec.probability.prior_config import PriorConfig
    from tokcodec.probability.prior_network import Arithmetic, PriorNetwork

CONFIG_KEY = "tokcodec.prior"
"""Key of the configuration in the safetensors metadata."""
MAX_PRIOR_BYTES = 8_000_000
_OPTION = "--prior FILE"


@dataclass(frozen=True, kw_only=True)
class PriorEntry(WeightsEntry):
    """Weights of a prior.

    Attributes:
        tokenizers: SHA-256 of the tokenizers it is for, that whose tokens it was trained on first; none where nobody
            said.
    """

    tokenizers: tuple[str, ...] = ()


def prior_entries() -> tuple[PriorEntry, ...]:
    """The priors that come with the package; of those of one tokenizer the first is the default."""
    listed = json.loads(REGISTRY.read_text(encoding="utf-8")).get("priors", [])
    return tuple(
        PriorEntry(
            name=item["name"],
            sha256=item["sha256"],
            path=PACKAGE_FOLDER / item["file"],
            tokenizers=tokenizers_of(item),
        )
        for item in listed
    )


def choose_prior(name: str | None, *, tokenizer: str) -> WeightsEntry:
    """The prior to encode with: by name, by path, or the one that was trained for a tokenizer.

    Args:
        name: A name of the registry, or the path of a `.safetensors` file; None chooses.
        tokenizer: SHA-256 of the tokenizer.

    Raises:
        ModelError: There is none.
    """
    known = prior_entries()
    for entry in known:
        if entry.name == name or (name is None and tokenizer in entry.tokenizers):
            return entry
    if name is not None and name.endswith(".safetensors"):
        return entry_of_file(Path(name))
    names = ", ".join(entry.name for entry in known) or "none so far"
    if name is None:
        raise ModelError(
            "no prior for this tokenizer comes with the package",
            hint=f"name one with {_OPTION}, train one with `tokcodec train-prior`, or use --entropy adaptive",
        )
    raise ModelError(f"no prior is called {name!r}", hint=f"known: {names}; or give the path of a .safetensors file")


def find_prior(sha256: str, *, extra: Path | None = None) -> WeightsEntry:
    """The prior with this digest: of the package, `extra`, or a folder in TOKCODEC_WEIGHTS_PATH.

    Raises:
        ModelError: None of them has it.
    """
    return find_among(prior_entries(), sha256, extra=extra, option=_OPTION)


@lru_cache(maxsize=4)
def load_prior(entry: WeightsEntry) -> PriorNetwork:
    """Check the digest, read the sizes from the file, load every tensor strictly and check every bound.

    Raises:
        ModelError: Missing file, wrong digest, tensors that do not fit, or sums that could be inexact.
    """
    from tokcodec.probability.prior_int8 import int8_windows
    from tokcodec.probability.prior_network import PriorNetwork
    from tokcodec.weights.registry import read_checked

    data = read_checked(entry)
    try:
        return PriorNetwork(*_unpack(data), windows=int8_windows)
    except ModelError as error:
        raise ModelError(error.message, where=str(entry.path), hint=error.hint) from error


def read_prior(path: Path) -> tuple[PriorConfig, dict[str, NDArray[np.int64]]]:
    """Sizes and tensors of a weights file, as its integers.

    Raises:
        ModelError: It cannot be read, or is no prior.
    """
    try:
        return _unpack(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except ModelError as error:
        raise ModelError(error.message, where=str(path), hint=error.hint) from error


def prior_from_bytes(data: bytes, arithmetic: Arithmetic | None = None) -> PriorNetwork:
    """The network of the bytes of a weights file, to be computed by a certain arithmetic.

    Raises:
        ModelError: As :func:`load_prior`.
    """
    from tokcodec.probability.prior_network import PriorNetwork

    config, tensors = _unpack(data)
    return PriorNetwork(config, tensors, arithmetic)


def _unpack(data: bytes) -> tuple[PriorConfig, dict[str, NDArray[np.int64]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from tokcodec.probability.prior_config import PriorConfig

    if len(data) > MAX_PRIOR_BYTES:
        raise ModelError(f"the weights of a prior have at most {MAX_PRIOR_BYTES} bytes")
    try:
        tensors = load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise ModelError("not a safetensors file") from error
    config = PriorConfig.from_json(metadata.get(CONFIG_KEY, ""))
    for name, tensor in tensors.items():
        if tensor.dtype != tensor_type(name):
            raise ModelError(f"the tensor {name} is {tensor.dtype}, must be {tensor_type(name)}")
    return config, {name: tensor.astype(np.int64) for name, tensor in tensors.items()}


def tensor_type(name: str) -> np.dtype[np.signedinteger[Any]]:
    """Type of a tensor in the file."""
    return np.dtype(np.int16 if name.endswith(".weight") else np.int32)


def pack_prior(config_json: str, tensors: Mapping[str, NDArray[np.int64]]) -> bytes:
    """The bytes of a weights file.

    Raises:
        ModelError: A value does not fit its type.
    """
    from safetensors.numpy import save

    packed = {}
    for name, tensor in tensors.items():
        limits = np.iinfo(tensor_type(name))
        if tensor.min() < limits.min or tensor.max() > limits.max:
            raise ModelError(f"values of the tensor {name} do not fit {limits.bits} bits")
        packed[name] = np.ascontiguousarray(tensor.astype(tensor_type(name)))
    data: bytes = save(packed, metadata={CONFIG_KEY: config_json})
    return data


def save_prior(config_json: str, tensors: Mapping[str, NDArray[np.int64]], folder: Path, *, name: str) -> WeightsEntry:
    """Write a prior as `NAME-DIGEST.safetensors`.

    Raises:
        OutputError: The file cannot be written.
    """
    data = pack_prior(config_json, tensors)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{digest[:12]}.safetensors"
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write the weights: {error.strerror or error}", where=str(path)) from error
    return WeightsEntry(name=name, sha256=digest, path=path)
