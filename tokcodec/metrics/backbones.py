"""The ImageNet networks that perceptual metrics compare features of, and how a metric gets its published weights.

The networks are written out here, so that torchvision is not imported: a torchvision built for CUDA does not import
beside a CPU-only torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
"""Of the convolutions; what they give is compared in float32 either way."""
SMALLEST_SIDE = 32
"""Pixels a side below which the last layers of AlexNet have no positions, and those of VGG16 one or two."""

_DOWNLOADS = "https://download.pytorch.org/models/"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network whose features are compared.

    Attributes:
        name: "alex" or "vgg", as the package `lpips` calls it.
        files: Names of safetensors files with its `features`, under torchvision's names; the first one there is taken.
        checkpoint: Name of torchvision's own checkpoint, in the cache of torch.hub and on the server.
        taps: Numbers of the layers (torchvision's) whose outputs LPIPS compares.
    """

    name: str
    files: tuple[str, ...]
    checkpoint: str
    taps: tuple[int, ...]

    def features(self) -> nn.Sequential:
        """The layers, with random weights."""
        return _alexnet() if self.name == "alex" else _vgg16()


ALEX = Backbone(
    name="alex",
    files=("alexnet_features.safetensors", "alexnet_features_fp16.safetensors"),
    checkpoint="alexnet-owt-7be5be79.pth",
    taps=(1, 4, 7, 9, 11),
)
VGG = Backbone(
    name="vgg",
    files=("vgg16_features.safetensors", "vgg16_features_fp16.safetensors"),
    checkpoint="vgg16-397923af.pth",
    taps=(3, 8, 15, 22, 29),
)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[:-1])  # no tap behind the last pooling


class FeatureNetwork(nn.Module):
    """A perceptual distance: `features` of a backbone, and weights of its own."""

    features: nn.Sequential


Network = TypeVar("Network", bound=FeatureNetwork)


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork(Generic[Network]):
    """A network, or why there is none.

    Attributes:
        network: Frozen, in evaluation mode; None where something is missing.
        reason: What is missing, and what to do; "" where nothing is.
        source: Name of the backbone's file, and the start of its SHA-256.
        precision: Of the convolutions.
    """

    network: Network | None
    reason: str = ""
    source: str = ""
    precision: Precision = "float32"


class MissingError(Exception):
    """A part of a metric is not on this machine."""


def load_network(
    network: Network,
    backbone: Backbone,
    fill: Callable[[Network], None],
    *,
    name: str,
    folder: Path | None,
    download: bool,
    device: str | torch.device,
    precision: Precision,
) -> LoadedNetwork[Network]:
    """Give a network its published weights, if they are on this machine.

    The backbone is looked for in `folder`, then in the cache of torch.hub; then, if that is allowed, torch.hub
    downloads torchvision's checkpoint (VGG16 is 528 MB).

    Args:
        network: With random weights.
        backbone: Of its `features`.
        fill: Gives it the weights that are not the backbone's; may raise `MissingError`.
        name: Of the metric, for people.
        folder: Holds safetensors files; see `Backbone.files`.
        download: Whether the network may be asked.
        device: Where the network shall be.
        precision: Of the convolutions.

    Returns:
        The network, or the reason why there is none; missing weights are no error.
    """
    try:
        fill(network)
        path = _find_backbone(backbone, folder=folder, download=download)
        network.features.load_state_dict(_read_features(path, network.features), strict=True)
    except MissingError as error:
        return LoadedNetwork(network=None, reason=str(error), precision=precision)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = f"the weights of {name} cannot be used: {error}"
        return LoadedNetwork(network=None, reason=reason, precision=precision)
    network.eval().requires_grad_(False)
    if precision == "bfloat16":
        network.features.to(torch.bfloat16)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedNetwork(network=network.to(device), source=f"{path.name} {digest[:12]}", precision=precision)


def package_file(package: str, *parts: str) -> Path:
    """A file that an installed package carries; the package is not imported, which would import torchvision.

    Raises:
        MissingError: It is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"the package {package} is not installed (pip install 'tokcodec[metrics]')")
    return Path(next(iter(found.submodule_search_locations))).joinpath(*parts)


def _find_backbone(backbone: Backbone, *, folder: Path | None, download: bool) -> Path:
    places = [folder / name for name in backbone.files] if folder is not None else []
    places.append(Path(torch.hub.get_dir()) / "checkpoints" / backbone.checkpoint)
    for place in places:
        if place.is_file():
            return place
    if not download:
        where = f"in {folder}" if folder else "(no --lpips-weights given)"
        raise MissingError(f"no {backbone.files[0]} {where}, nor {backbone.checkpoint} in torch's cache")
    try:
        torch.hub.load_state_dict_from_url(
            _DOWNLOADS + backbone.checkpoint, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise MissingError(f"{backbone.checkpoint} cannot be downloaded: {error}") from error
    return places[-1]


def _read_features(path: Path, features: nn.Sequential) -> dict[str, Tensor]:
    """The tensors of the features, named as in `features`; a classifier in the file is passed over."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path.name} is no safetensors file: {error}") from error
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    prefix = "features."
    named = {name[len(prefix) :]: value.float() for name, value in tensors.items() if name.startswith(prefix)}
    wanted = features.state_dict()
    return {name: value for name, value in named.items() if name in wanted}
