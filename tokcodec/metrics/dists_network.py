"""DISTS (Ding et al. 2020): statistics of VGG16 features, weighted by alpha and beta of the package `dists-pytorch`.

The numbers are those of `DISTS_pytorch.DISTS()` on pictures as they are, without scaling them to 256 pixels a side;
on flat pictures those that it gives in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.metrics.backbones import VGG, FeatureNetwork, LoadedNetwork, Precision, load_network, package_file

WEIGHTS_PACKAGE = "DISTS_pytorch"

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_WIDTHS = (3, 64, 128, 256, 512, 512)
"""Channels of what is compared: the picture itself, then the taps of VGG16."""
_STABILITY = 1e-6


class L2Pool(nn.Module):
    """Half size by the root of a blurred square (3x3 of a Hann window), in the place of VGG16's maximum."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        # Not persistent: the names of the state are those of the backbone's file.
        self.register_buffer("kernel", torch.outer(taps, taps).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)`, not negative, to `(N, C, (H + 1) // 2, (W + 1) // 2)`."""
        blurred = F.conv2d(features.square(), self.kernel, stride=2, padding=1, groups=features.shape[1])
        return (blurred + 1e-12).sqrt()


class Dists(FeatureNetwork):
    """Distance in texture and structure; made by :func:`load_dists`, or with random weights by itself."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.taps = VGG.taps
        self.features = VGG.features()
        channels = 3
        for number, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            elif isinstance(layer, nn.MaxPool2d):
                self.features[number] = L2Pool(channels)
        self.alpha, self.beta = (nn.Parameter(torch.rand(sum(_WIDTHS))) for _ in range(2))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of pictures.

        Args:
            first: Floating `(N, 3, H, W)` RGB, -1 to 1.
            second: The same shape.

        Returns:
            `(N)`, 0 for equal pictures, at most about 1; of the type of the weights, whatever the features compute in.
        """
        with torch.autocast(first.device.type, enabled=False):
            kind = self.alpha.dtype
            pictures = [(picture.to(kind) + 1) / 2 for picture in (first, second)]
            terms = [_dissimilarity(*pictures)]
            x, y = (self._prepared(picture) for picture in pictures)
            for number, layer in enumerate(self.features):
                x, y = layer(x), layer(y)
                if number in self.taps:
                    terms.append(_dissimilarity(x.to(kind), y.to(kind)))
            of_means, of_structure = (torch.cat(some, dim=1) for some in zip(*terms, strict=True))
            weighted = (self.alpha * of_means + self.beta * of_structure).sum(dim=1)
            distance: Tensor = weighted / (self.alpha.sum() + self.beta.sum())
            return distance

    def _prepared(self, picture: Tensor) -> Tensor:
        scaled = (picture - self.mean) / self.deviation
        return scaled.to(next(self.features.parameters()).dtype).contiguous(memory_format=torch.channels_last)


def _dissimilarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One minus the similarity of means (texture), and of structure: `(N, C, H, W)` twice to `(N, C)` twice."""
    x_mean, y_mean = (features.mean(dim=(2, 3), keepdim=True) for features in (x, y))
    # Centred before the product: the package subtracts afterwards, which cancels in float32 on flat pictures (3% off).
    x, y = x - x_mean, y - y_mean
    x_variance, y_variance = (features.square().mean(dim=(2, 3)) for features in (x, y))
    covariance = (x * y).mean(dim=(2, 3))
    x_mean, y_mean = x_mean.flatten(1), y_mean.flatten(1)
    means = (2 * x_mean * y_mean + _STABILITY) / (x_mean.square() + y_mean.square() + _STABILITY)
    structure = (2 * covariance + _STABILITY) / (x_variance + y_variance + _STABILITY)
    return 1 - means, 1 - structure


LoadedDists = LoadedNetwork[Dists]


def load_dists(
    *,
    folder: Path | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> LoadedDists:
    """DISTS with its published weights, if they are on this machine: see :func:`load_network`.

    VGG16 is the same file as that of LPIPS; alpha and beta are those that the package `dists-pytorch` carries.

    Args:
        folder: Holds safetensors files; see `Backbone.files`.
        download: Whether the network may be asked.
        device: Where the network shall be.
        precision: Of the convolutions.

    Returns:
        The network, or the reason why there is none; missing weights are no error.
    """
    return load_network(
        Dists(), VGG, _fill, name="DISTS", folder=folder, download=download, device=device, precision=precision
    )


def _fill(network: Dists) -> None:
    path = package_file(WEIGHTS_PACKAGE, "weights.pt")
    weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        network.alpha.copy_(weights["alpha"].reshape(-1))
        network.beta.copy_(weights["beta"].reshape(-1))
