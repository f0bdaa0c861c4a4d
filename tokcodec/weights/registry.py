"""Which weights there are, where they lie, and what they must hash to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcodec.errors import ModelError, OutputError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from tokcodec.tokenizer.model import Tokenizer

PACKAGE_FOLDER = Path(__file__).parent
REGISTRY = PACKAGE_FOLDER / "registry.json"
WEIGHTS_PATH_VARIABLE = "TOKCODEC_WEIGHTS_PATH"
MAX_WEIGHTS_BYTES = 1 << 30
CONFIG_KEY = "tokcodec.tokenizer"
"""Key of the configuration in the safetensors metadata."""


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """A set of tokenizer weights.

    Attributes:
        name: Model name, as `--model` takes it.
        sha256: Digest of the whole file, 64 hex digits; the model's identity in a `.tok` file.
        path: Where the file lies.
    """

    name: str
    sha256: str
    path: Path


def entries() -> tuple[WeightsEntry, ...]:
    """The weights that come with the package, the default first."""
    listed = json.loads(REGISTRY.read_text(encoding="utf-8"))["tokenizers"]
    return tuple(
        WeightsEntry(name=item["name"], sha256=item["sha256"], path=PACKAGE_FOLDER / item["file"]) for item in listed
    )


def tokenizers_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokenizers that a prior or a post-filter of the registry is for: its `tokenizer`, a digest or a list."""
    found = item.get("tokenizer", [])
    return tuple(filter(None, [found] if isinstance(found, str) else found))


def default_entry() -> WeightsEntry:
    """The weights that `tokcodec encode` uses when none are named."""
    return entries()[0]


def entry_of_file(path: Path) -> WeightsEntry:
    """An entry for a weights file of one's own; reads and hashes it.

    Raises:
        ModelError: The file cannot be read or is absurdly large.
    """
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ModelError("weights files have at most 1 GiB", where=str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"cannot read the weights: {error.strerror or error}", where=str(path), hint="name a .safetensors file"
        ) from error
    return WeightsEntry(name=path.stem, sha256=digest, path=path)


def find_by_name(name: str) -> WeightsEntry:
    """A model of the registry by its name, or a `.safetensors` file by its path.

    Raises:
        ModelError: There is none.
    """
    for entry in entries():
        if entry.name == name:
            return entry
    if name.endswith(".safetensors"):
        return entry_of_file(Path(name))
    known = ", ".join(entry.name for entry in entries())
    raise ModelError(f"no model is called {name!r}", hint=f"known: {known}; or give the path of a .safetensors file")


def find_by_digest(sha256: str, *, extra: Path | None = None) -> WeightsEntry:
    """The weights with this digest: of the package, `extra`, or a folder in TOKCODEC_WEIGHTS_PATH.

    Raises:
        ModelError: None of them has it.
    """
    return find_among(entries(), sha256, extra=extra, option="--weights FILE")


def find_among(known: Iterable[WeightsEntry], sha256: str, *, extra: Path | None, option: str) -> WeightsEntry:
    """As :func:`find_by_digest`, for other weights that come with the package and another option."""
    if extra is not None:
        entry = entry_of_file(extra)
        if entry.sha256 == sha256:
            return entry
        raise ModelError(
            f"the weights have SHA-256 {entry.sha256[:12]}..., the stream needs {sha256[:12]}...",
            where=str(extra),
            hint="give the file that the stream was encoded with",
        )
    for entry in known:
        if entry.sha256 == sha256:
            return entry
    for folder in filter(None, os.environ.get(WEIGHTS_PATH_VARIABLE, "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("*.safetensors")):
            with contextlib.suppress(ModelError):  # one unreadable file must not hide the others
                entry = entry_of_file(path)
                if entry.sha256 == sha256:
                    return entry
    raise ModelError(
        f"no weights with SHA-256 {sha256[:12]}... are installed",
        hint=f"give them with {option}, or put them into a folder named by {WEIGHTS_PATH_VARIABLE}; a newer version of "
        "tokcodec may bring them",
    )


def read_checked(entry: WeightsEntry) -> bytes:
    """The bytes of a weights file, whose digest is right.

    Raises:
        ModelError: It cannot be read, or is another one.
    """
    try:
        data = entry.path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read the weights: {error.strerror or error}",
            where=str(entry.path),
            hint="install tokcodec again",
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise ModelError(
            f"the weights are damaged: SHA-256 is {found[:12]}..., must be {entry.sha256[:12]}...",
            where=str(entry.path),
            hint="install tokcodec again",
        )
    return data


def read_tensors(entry: WeightsEntry, key: str) -> tuple[dict[str, Tensor], str]:
    """Check the digest; all tensors of a file, as float32, and what its metadata say under a key ("" for nothing).

    Raises:
        ModelError: Missing file, wrong digest, no safetensors, or tensors that are not bfloat16.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_checked(entry)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise ModelError("not a safetensors file", where=str(entry.path)) from error
    if any(tensor.dtype != torch.bfloat16 for tensor in tensors.values()):
        raise ModelError("the tensors are not bfloat16", where=str(entry.path))
    return {name: tensor.float() for name, tensor in tensors.items()}, str(metadata.get(key, ""))


def fill(network: Module, tensors: dict[str, Tensor], entry: WeightsEntry) -> None:
    """Load every tensor into a network, strictly.

    Raises:
        ModelError: They do not fit.
    """
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ModelError("the tensors do not fit the configuration", where=str(entry.path)) from error


def save_network(network: Module, folder: Path, *, name: str, metadata: dict[str, str]) -> WeightsEntry:
    """Write a network as `NAME-DIGEST.safetensors`, rounded to bfloat16, in which the fast path computes.

    Raises:
        OutputError: The file cannot be written.
    """
    import torch
    from safetensors.torch import save

    tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in network.state_dict().items()}
    data = save(tensors, metadata=metadata)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{digest[:12]}.safetensors"
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write the weights: {error.strerror or error}", where=str(path)) from error
    return WeightsEntry(name=name, sha256=digest, path=path)


def load_tokenizer(entry: WeightsEntry) -> Tokenizer:
    """Check the digest, read the configuration from the file, and load every tensor strictly.

    Raises:
        ModelError: Missing file, wrong digest, or tensors that do not fit the configuration.
    """
    from tokcodec.tokenizer.config import TokenizerConfig
    from tokcodec.tokenizer.model import Tokenizer

    tensors, config = read_tensors(entry, CONFIG_KEY)
    model = Tokenizer(TokenizerConfig.from_json(config))
    fill(model, tensors, entry)
    return model


def save_tokenizer(model: Tokenizer, folder: Path, *, name: str) -> WeightsEntry:
    """Write weights as `NAME-DIGEST.safetensors`, bfloat16, with the configuration in the metadata.

    Args:
        model: The weights.
        folder: Where to; it must exist.
        name: Model name.

    Raises:
        OutputError: The file cannot be written.
    """
    return save_network(model, folder, name=name, metadata={CONFIG_KEY: model.config.to_json()})
