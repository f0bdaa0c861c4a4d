"""LPIPS against its definition, with random weights: nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tokcodec.errors import ModelError
from tokcodec.perceptual import BACKBONE_FILES, Lpips, Network, load_lpips

VGG = [(0, 3), (2, 64), "tap", "pool", (5, 64), (7, 128), "tap", "pool", (10, 128), (12, 256), (14, 256), "tap", "pool"]
VGG += [(17, 256), (19, 512), (21, 512), "tap", "pool", (24, 512), (26, 512), (28, 512), "tap"]


def random_weights(folder: Path, network: Network) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A backbone under torchvision's names and heads under those of the lpips package, written to files."""
    torch.manual_seed(0)
    model = Lpips(network)
    backbone = {f"features.{name}": tensor.clone() for name, tensor in model.features.state_dict().items()}
    heads = {f"lin{number}.model.1.weight": torch.rand(1, len(head), 1, 1) for number, head in enumerate(model.heads)}
    save_file({name: tensor.contiguous() for name, tensor in backbone.items()}, folder / BACKBONE_FILES[network][0])
    torch.save(heads, folder / "heads.pth")
    return backbone, heads


def vgg_distance(weights: dict[str, torch.Tensor], heads: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor):
    """The forward pass of lpips 0.1.4 (`LPIPS.forward`, `normalize_tensor`, `ScalingLayer`), written out for VGG16."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    x, total, layer = [(picture - shift) / scale for picture in (a, b)], 0.0, 0
    for step in VGG:
        if step == "pool":
            x = [F.max_pool2d(one, kernel_size=2, stride=2) for one in x]
        elif step == "tap":
            unit = [one / (one.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for one in x]
            difference = (unit[0] - unit[1]) ** 2
            total = total + F.conv2d(difference, heads[f"lin{layer}.model.1.weight"]).mean(dim=(2, 3)).flatten()
            layer += 1
        else:
            key = f"features.{step[0]}"
            assert weights[f"{key}.weight"].shape[1] == step[1]
            x = [F.relu(F.conv2d(one, weights[f"{key}.weight"], weights[f"{key}.bias"], padding=1)) for one in x]
    return total


def test_the_distance_is_that_of_the_lpips_package(tmp_path: Path):
    weights, heads = random_weights(tmp_path, "vgg")
    model = load_lpips(tmp_path, "vgg", heads=tmp_path / "heads.pth")
    a, b = torch.rand(2, 2, 3, 32, 48) * 2 - 1
    found = model(a, b)
    assert found.shape == (2,)
    torch.testing.assert_close(found, vgg_distance(weights, heads, a, b), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(a, a), torch.zeros(2))


def test_alexnet_has_the_taps_of_the_lpips_package(tmp_path: Path):
    random_weights(tmp_path, "alex")
    model = load_lpips(tmp_path, "alex", heads=tmp_path / "heads.pth")
    assert [len(head) for head in model.heads] == [64, 192, 384, 256, 256]
    a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    assert float(model(a, b)) > 0


def test_gradients_are_finite_on_flat_pictures_in_bfloat16(tmp_path: Path):
    random_weights(tmp_path, "vgg")
    model = load_lpips(tmp_path, "vgg", dtype=torch.bfloat16, heads=tmp_path / "heads.pth")
    flat = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    other = torch.rand(1, 3, 32, 32)
    for reference in (other, flat.detach()):
        (gradient,) = torch.autograd.grad(model(flat, reference).sum(), flat)
        assert bool(torch.isfinite(gradient).all())


def test_missing_and_wrong_files(tmp_path: Path):
    with pytest.raises(ModelError, match="no backbone"):
        load_lpips(tmp_path)
    random_weights(tmp_path, "vgg")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / BACKBONE_FILES["vgg"][0])
    with pytest.raises(ModelError, match="cannot be read"):
        load_lpips(tmp_path, heads=tmp_path / "heads.pth")


@pytest.mark.skipif(find_spec("lpips") is None, reason="the lpips package is not installed")
def test_the_heads_of_the_installed_package(tmp_path: Path):
    random_weights(tmp_path, "alex")
    model = load_lpips(tmp_path, "alex")
    assert all(bool((head >= 0).all()) for head in model.heads), "the package's heads are not negative"
