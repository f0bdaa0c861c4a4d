"""Checkpoints: whole ones to go on from, weights of any kind to start from, and parts small enough to carry."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tokcodec.errors import ModelError
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training.widen import widen, with_last_frame

PART_BYTES = 15 << 20
"""Largest part of a split checkpoint: below the 16 MiB that some places allow a file."""
INDEX_NAME = "index.json"
OptimizerParts = Literal["whole", "half", "none"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole; the old one stays until then."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def save_checkpoint(path: Path, values: Mapping[str, Any]) -> None:
    """Write a checkpoint; the old one stays until the new one is whole."""
    part = path.with_name(path.name + ".part")
    torch.save(dict(values), part)
    part.replace(path)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"not a checkpoint of tokcodec: {error}", where=str(path)) from error
    if not isinstance(saved, dict):
        raise ModelError("not a checkpoint of tokcodec", where=str(path))
    return saved


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """What a model took from a file.

    Attributes:
        taken: Tensors that fit.
        widened: Tensors of fewer bits a token that were filled up, see :func:`tokcodec.training.widen.widen`.
        fresh: Tensors of the model that stay as initialised: new ones, and those of another shape.
        unused: Tensors of the file that the model has no place for.
    """

    taken: tuple[str, ...]
    widened: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.taken)} tensors taken"
        for label, names in (("widened", self.widened), ("as initialised", self.fresh), ("not used", self.unused)):
            if names:
                text += f"; {label}: {', '.join(names)}"
        return text


def read_weights(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of a `.safetensors` file, or the averaged (else the plain) weights of a checkpoint.

    Raises:
        ModelError: It cannot be read.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: Mapping[str, Any] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read the weights: {error}", where=str(path)) from error
    else:
        saved = read_checkpoint(path, torch.device("cpu"))
        tensors = saved.get("average") or saved.get("model") or saved
    found = {name: tensor.float() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    if not found:
        raise ModelError("there are no weights in it", where=str(path))
    return found


def initialise(model: Tokenizer, path: Path) -> InitReport:
    """Take the tensors of a file that fit by name and shape, and widen those of fewer bits a token.

    Of a layer that makes four frames a hybrid takes what makes the last.

    Raises:
        ModelError: The file cannot be read, or nothing in it fits.
    """
    tensors = read_weights(path)
    if model.config.hybrid:
        tensors = with_last_frame(tensors)
    taken, fresh = [], []
    widened = widen(model, tensors)
    with torch.no_grad():
        for name, target in model.state_dict().items():
            if name in tensors and tensors[name].shape == target.shape:
                target.copy_(tensors[name])
                taken.append(name)
            elif name not in widened:
                fresh.append(name)
    if not taken:
        raise ModelError("no tensor fits the model", where=str(path))
    unused = set(tensors) - set(taken) - set(widened)
    return InitReport(taken=tuple(taken), widened=widened, fresh=tuple(fresh), unused=tuple(sorted(unused)))


def _halved(value: Any) -> Any:
    """Float tensors of a nest of dictionaries and lists in bfloat16; a load makes float32 of them again."""
    if isinstance(value, dict):
        return {key: _halved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_halved(item) for item in value]
    return value.bfloat16() if isinstance(value, Tensor) and value.dim() and value.is_floating_point() else value


def split_checkpoint(
    path: Path, folder: Path, *, optimizer: OptimizerParts = "whole", part_bytes: int = PART_BYTES
) -> Path:
    """Cut a checkpoint into files of at most `part_bytes`, with an index that holds their SHA-256.

    Args:
        path: The checkpoint.
        folder: Where to; made if it is not there.
        optimizer: The optimizer's state is about a third: "whole", "half" (in bfloat16) or "none".
        part_bytes: Largest part.

    Returns:
        The path of the index.
    """
    if optimizer == "whole":
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    else:
        saved = read_checkpoint(path, torch.device("cpu"))
        state = saved.pop("optimizer", None)
        if optimizer == "half" and state is not None:
            saved["optimizer"] = _halved(state)
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        data = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(data), part_bytes)):
        piece = data[start : start + part_bytes]
        name = f"{path.name}.{number:03d}"
        write_atomically(folder / name, piece)
        parts.append({"file": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    index = {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "parts": parts}
    write_atomically(folder / INDEX_NAME, json.dumps(index, indent=1).encode())
    return folder / INDEX_NAME


def join_checkpoint(folder: Path, path: Path) -> None:
    """Put together what :func:`split_checkpoint` cut.

    Raises:
        ModelError: The index or a part is missing or damaged.
    """
    try:
        index = json.loads((folder / INDEX_NAME).read_bytes())
        pieces = []
        for part in index["parts"]:
            if Path(part["file"]).name != part["file"]:
                raise ModelError(f"{part['file']!r} is not the name of a part", where=str(folder / INDEX_NAME))
            piece = (folder / part["file"]).read_bytes()
            if hashlib.sha256(piece).hexdigest() != part["sha256"]:
                raise ModelError("the part is damaged: its SHA-256 is another", where=str(folder / part["file"]))
            pieces.append(piece)
        data = b"".join(pieces)
        if hashlib.sha256(data).hexdigest() != index["sha256"]:
            raise ModelError("the parts are not those of one checkpoint", where=str(folder))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the parts of the checkpoint cannot be read: {error}", where=str(folder)) from error
    write_atomically(path, data)
