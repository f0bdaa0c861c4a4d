"""LPIPS 0.1 (Zhang et al. 2018): AlexNet or VGG16 features, and the linear heads of the package `lpips`.

The numbers are those of `lpips.LPIPS(net="alex")` and `net="vgg"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.metrics.backbones import (
    ALEX,
    SMALLEST_SIDE,
    VGG,
    Backbone,
    FeatureNetwork,
    LoadedNetwork,
    Precision,
    load_network,
    package_file,
)

__all__ = ["ALEX", "SMALLEST_SIDE", "VGG", "Backbone", "LoadedLpips", "Lpips", "Precision", "load_lpips"]

HEADS_PACKAGE = "lpips"

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class Lpips(FeatureNetwork):
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


LoadedLpips = LoadedNetwork[Lpips]


def load_lpips(
    backbone: Backbone,
    *,
    folder: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> LoadedLpips:
    """LPIPS with its published weights, if they are on this machine: see :func:`load_network`.

    The heads are those that the package `lpips` carries.

    Args:
        backbone: `ALEX` or `VGG`.
        folder: Holds safetensors files; see `Backbone.files`.
        download: Whether the network may be asked.
        device: Where the network shall be.
        precision: Of the convolutions.

    Returns:
        The network, or the reason why there is none; missing weights are no error.
    """

    def fill(network: Lpips) -> None:
        path = package_file(HEADS_PACKAGE, "weights", "v0.1", f"{backbone.name}.pth")
        heads: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for parameter, name in zip(network.heads, sorted(heads), strict=True):
                parameter.copy_(heads[name].reshape(-1))

    return load_network(
        Lpips(backbone),
        backbone,
        fill,
        name=f"LPIPS ({backbone.name})",
        folder=folder,
        download=download,
        device=device,
        precision=precision,
    )
