"""LPIPS 0.1 (Zhang et al. 2018): AlexNet or VGG16 features, and the linear heads of the package `lpips`.

The networks are written out here, so that torchvision is not imported: a torchvision built for CUDA does not import
beside a CPU-only torch. The numbers are those of `lpips.LPIPS(net="alex")` and `net="vgg"`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS_PACKAGE = "lpips"

Precision = Literal["float32", "bfloat16"]
"""Of the convolutions; what they give is compared in float32 either way."""
SMALLEST_SIDE = 32
"""Pixels a side below which the last layers of AlexNet have no positions."""

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_DOWNLOADS = "https://download.pytorch.org/models/"
_EPSILON = 1e-10


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network of which LPIPS compares features.

    Attributes:
        name: "alex" or "vgg", as the package `lpips` calls it.
        files: Names of safetensors files with its `features`, under torchvision's names; the first one there is taken.
        checkpoint: Name of torchvision's own checkpoint, in the cache of torch.hub and on the server.
        taps: Numbers of the layers (torchvision's) whose outputs are compared.
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


class Lpips(nn.Module):
    """Perceptual distance of pictures; made by :func:`load_lpips`, or with random weights by itself."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.taps = backbone.taps
        self.features = backbone.features()
        widths = [layer.out_channels for layer in self.features if isinstance(layer, nn.Conv2d)]
        if backbone.name == "vgg":
            widths = [64, 128, 256, 512, 512]
        self.heads = nn.ParameterList([nn.Parameter(torch.rand(width) / width) for width in widths])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of pictures.

        Args:
            first: Floating `(N, 3, H, W)` RGB, -1 to 1; gradients flow to it, and stay finite on flat pictures.
            second: The same shape.

        Returns:
            `(N)`, 0 for equal pictures; of the type of the heads, whatever the features compute in.
        """
        with torch.autocast(first.device.type, enabled=False):
            x, y = self._prepared(first), self._prepared(second)
            distance: Tensor = self.heads[0].new_zeros(first.shape[0])
            tap = 0
            for number, layer in enumerate(self.features):
                x, y = layer(x), layer(y)
                if number == self.taps[tap]:
                    head = self.heads[tap]
                    difference = (self._unit(x) - self._unit(y)) ** 2
                    distance = distance + torch.einsum("nchw,c->nhw", difference, head).mean(dim=(1, 2))
                    tap += 1
            return distance

    def _prepared(self, pictures: Tensor) -> Tensor:
        scaled: Tensor = (pictures.to(self.shift.dtype) - self.shift) / self.scale
        return scaled.to(next(self.features.parameters()).dtype).contiguous(memory_format=torch.channels_last)

    def _unit(self, features: Tensor) -> Tensor:
        return F.normalize(features.to(self.heads[0].dtype), dim=1, eps=_EPSILON)


@dataclass(frozen=True, kw_only=True)
class LoadedLpips:
    """A network, or why there is none.

    Attributes:
        network: Frozen, in evaluation mode; None where something is missing.
        reason: What is missing, and what to do; "" where nothing is.
        source: Name of the backbone's file, and the start of its SHA-256.
        precision: Of the convolutions.
    """

    network: Lpips | None
    reason: str = ""
    source: str = ""
    precision: Precision = "float32"


def load_lpips(
    backbone: Backbone,
    *,
    folder: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> LoadedLpips:
    """LPIPS with its published weights, if they are on this machine.

    The backbone is looked for in `folder`, then in the cache of torch.hub; then, if that is allowed, torch.hub
    downloads torchvision's checkpoint (VGG16 is 528 MB). The heads are those that the package `lpips` carries.

    Args:
        backbone: `ALEX` or `VGG`.
        folder: Holds safetensors files; see `Backbone.files`.
        download: Whether the network may be asked.
        device: Where the network shall be.
        precision: Of the convolutions.

    Returns:
        The network, or the reason why there is none; missing weights are no error.
    """
    network = Lpips(backbone)
    try:
        heads = _read_heads(backbone)
        path = _find_backbone(backbone, folder=folder, download=download)
        features = _read_features(path, network)
        network.features.load_state_dict(features, strict=True)
        with torch.no_grad():
            for parameter, name in zip(network.heads, sorted(heads), strict=True):
                parameter.copy_(heads[name].reshape(-1))
    except _MissingError as error:
        return LoadedLpips(network=None, reason=str(error), precision=precision)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = f"the weights of LPIPS ({backbone.name}) cannot be used: {error}"
        return LoadedLpips(network=None, reason=reason, precision=precision)
    network.eval().requires_grad_(False)
    if precision == "bfloat16":
        network.features.to(torch.bfloat16)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedLpips(network=network.to(device), source=f"{path.name} {digest[:12]}", precision=precision)


class _MissingError(Exception):
    """A part of LPIPS is not on this machine."""


def _read_heads(backbone: Backbone) -> Mapping[str, Tensor]:
    # Finding a package does not run it: importing lpips would import torchvision.
    found = importlib.util.find_spec(HEADS_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise _MissingError("the package lpips is not installed (pip install 'tokcodec[metrics]')")
    path = Path(next(iter(found.submodule_search_locations))) / "weights" / "v0.1" / f"{backbone.name}.pth"
    heads: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return heads


def _find_backbone(backbone: Backbone, *, folder: Path | None, download: bool) -> Path:
    places = [folder / name for name in backbone.files] if folder is not None else []
    places.append(Path(torch.hub.get_dir()) / "checkpoints" / backbone.checkpoint)
    for place in places:
        if place.is_file():
            return place
    if not download:
        where = f"in {folder}" if folder else "(no --lpips-weights given)"
        raise _MissingError(f"no {backbone.files[0]} {where}, nor {backbone.checkpoint} in torch's cache")
    try:
        torch.hub.load_state_dict_from_url(
            _DOWNLOADS + backbone.checkpoint, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise _MissingError(f"{backbone.checkpoint} cannot be downloaded: {error}") from error
    return places[-1]


def _read_features(path: Path, network: Lpips) -> dict[str, Tensor]:
    """The tensors of the features, named as in `network.features`; a classifier in the file is passed over."""
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
    wanted = network.features.state_dict()
    return {name: value for name, value in named.items() if name in wanted}
