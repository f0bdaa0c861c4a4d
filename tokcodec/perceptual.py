"""LPIPS (arXiv 1801.03924), version 0.1: distance between pictures in the features of an ImageNet network.

The heads come from the `lpips` package's files and the backbone from a file under torchvision's names, so that
neither package is imported: torchvision need not work, nor may anything be downloaded.
"""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.errors import ModelError

Network = Literal["vgg", "alex"]

VGG_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3x3 convolutions of each stage of VGG16; a max-pool comes before each stage but the first."""
BACKBONE_FILES: dict[Network, tuple[str, ...]] = {
    "vgg": ("vgg16_features.safetensors", "vgg16_features_fp16.safetensors"),
    "alex": ("alexnet_features.safetensors",),
}
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


def _vgg_layers() -> tuple[list[nn.Module], tuple[int, ...]]:
    """The `features` of torchvision's VGG16 up to the last tap, and the indices of the taps."""
    layers: list[nn.Module] = []
    taps = []
    channels = 3
    for stage in VGG_CHANNELS:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for out in stage:
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
        taps.append(len(layers) - 1)
    return layers, tuple(taps)


def _alex_layers() -> tuple[list[nn.Module], tuple[int, ...]]:
    """The `features` of torchvision's AlexNet up to the last tap, and the indices of the taps."""
    layers: list[nn.Module] = [
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
    ]
    return layers, (1, 4, 7, 9, 11)


class Lpips(nn.Module):
    """The distance; a new one has random weights, :func:`load_lpips` gives the real one.

    Args:
        network: "vgg" (VGG16) or "alex" (AlexNet).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network = "vgg") -> None:
        super().__init__()
        layers, self._taps = _vgg_layers() if network == "vgg" else _alex_layers()
        self.features = nn.Sequential(*layers)
        widths = []
        for number, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            if number in self._taps:
                widths.append(channels)
        self.heads = nn.ParameterList(nn.Parameter(torch.full((width,), 1.0 / width)) for width in widths)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _tapped(self, pictures: Tensor) -> list[Tensor]:
        """Features of unit length at each tap, float32 `(N, C, h, w)`."""
        x = (pictures.float() - self.shift) / self.scale
        x = x.to(next(self.features.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self._taps:
                found.append(F.normalize(x.float(), dim=1, eps=1e-10))
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each picture of `first` from that of `second`.

        Args:
            first: `(N, 3, H, W)` RGB in [-1, 1]; gradients flow to it.
            second: Same shape; the reference, without gradients.

        Returns:
            float32 `(N,)`.
        """
        with torch.autocast(first.device.type, enabled=False):
            with torch.no_grad():
                reference = self._tapped(second)
            total = torch.zeros((), device=first.device)
            for head, a, b in zip(self.heads, self._tapped(first), reference, strict=True):
                total = total + ((a - b).square() * head.float().view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
            return total


def _head_file(network: Network) -> Path:
    """The file of linear heads in the installed `lpips` package, which is not imported."""
    found = importlib.util.find_spec("lpips")
    if found is None or not found.submodule_search_locations:
        raise ModelError("the linear heads of LPIPS are missing", hint="pip install 'tokcodec[metrics]'")
    return Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / f"{network}.pth"


def load_lpips(
    folder: Path, network: Network = "vgg", *, dtype: torch.dtype = torch.float32, heads: Path | None = None
) -> Lpips:
    """LPIPS with real weights.

    Args:
        folder: Holds `vgg16_features.safetensors` (or `..._fp16`) or `alexnet_features.safetensors`: the tensors
            `features.N.weight` and `features.N.bias` of torchvision's ImageNet network.
        network: "vgg" or "alex".
        dtype: What the backbone computes in; float32 to measure, bfloat16 for a loss.
        heads: File of the linear heads; by default that of the installed `lpips` package.

    Raises:
        ModelError: A file is missing or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = next((folder / name for name in BACKBONE_FILES[network] if (folder / name).exists()), None)
    if path is None:
        raise ModelError(
            "no backbone for LPIPS", where=str(folder), hint=f"it must hold {' or '.join(BACKBONE_FILES[network])}"
        )
    heads = heads or _head_file(network)
    model = Lpips(network)
    try:
        backbone = {name: tensor.float() for name, tensor in load_file(path).items()}
        model.features.load_state_dict({name.removeprefix("features."): t for name, t in backbone.items()})
        linear = torch.load(heads, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for number, head in enumerate(model.heads):
                head.copy_(linear[f"lin{number}.model.1.weight"].flatten())
    except (OSError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(f"the weights of LPIPS cannot be read: {error}", where=str(path)) from error
    model.features.to(dtype)
    return model
