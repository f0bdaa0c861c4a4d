"""LPIPS and DISTS beside their packages."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tokcodec.metrics.backbones import ALEX, VGG, Backbone, package_file
from tokcodec.metrics.dists_network import WEIGHTS_PACKAGE, load_dists
from tokcodec.metrics.lpips_network import load_lpips
from tokcodec.metrics.lpips_package import import_lpips

BACKBONES_VARIABLE = "TOKCODEC_LPIPS_WEIGHTS"

PINNED = {
    "alex": {"seeded": 0.1357050, "imagenet": 0.1299569},
    "vgg": {"seeded": 0.1149563, "imagenet": 0.1465369},
}
"""What `lpips.LPIPS` 0.1.4 gives for the pair of :func:`made_pair`, by backbone."""


PINNED_DISTS = {"seeded": 0.2223790, "imagenet": 0.1875603}
"""What `DISTS_pytorch.DISTS` 0.1 gives for it."""


def made_pair() -> list[torch.Tensor]:
    """Two pictures of whole numbers, equal everywhere; the second one is moved, flat and dark."""
    rows, columns = np.mgrid[:96, :128]
    first = np.stack([columns * 7 % 256, rows * 5 % 256, (rows * rows + columns) % 256], axis=0)
    second = np.roll(first, 3, axis=2) // 2 + 20
    return [torch.from_numpy(picture)[None].float() / 127.5 - 1 for picture in (first, second)]


def seeded_features(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Weights that are the same with every version of NumPy and torch."""
    random = np.random.RandomState(7)
    made = {}
    for name, shape in shapes.items():
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        made[name] = torch.from_numpy(random.standard_normal(tuple(shape)) * scale).float()
    return made


@pytest.mark.parametrize("weights", ["seeded", "imagenet"])
@pytest.mark.parametrize("kind", [ALEX, VGG], ids=lambda kind: kind.name)
def test_lpips_is_that_of_the_package(kind: Backbone, weights: str, tmp_path: Path):
    """The package's own network with its published heads; the backbone is made from a seed, or the real one."""
    folder = tmp_path
    if weights == "imagenet":
        if BACKBONES_VARIABLE not in os.environ:
            pytest.skip(f"{BACKBONES_VARIABLE} names no folder of backbones")
        folder = Path(os.environ[BACKBONES_VARIABLE])
    package = import_lpips().LPIPS(net=kind.name, pnet_rand=True, verbose=False).eval()
    # "slice1.0.weight" is torchvision's "features.0.weight".
    places = {name: name.partition(".")[2] for name in package.net.state_dict()}
    if weights == "seeded":
        shapes = {f"features.{places[name]}": value.shape for name, value in package.net.state_dict().items()}
        save_file(seeded_features(shapes), folder / kind.files[0])
    ours = load_lpips(kind, folder=folder).network
    assert ours is not None
    features = ours.features.state_dict()
    package.net.load_state_dict({name: features[place] for name, place in places.items()})
    with torch.inference_mode():
        expected, found = package(*made_pair()).item(), ours(*made_pair()).item()
    assert expected == pytest.approx(PINNED[kind.name][weights], rel=1e-4)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weights", ["seeded", "imagenet"])
def test_dists_is_that_of_the_package(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The package's own network with its published alpha and beta; the backbone likewise."""
    folder = tmp_path
    if weights == "imagenet":
        if BACKBONES_VARIABLE not in os.environ:
            pytest.skip(f"{BACKBONES_VARIABLE} names no folder of backbones")
        folder = Path(os.environ[BACKBONES_VARIABLE])
    else:
        shapes = {f"features.{name}": value.shape for name, value in VGG.features().state_dict().items()}
        save_file(seeded_features(shapes), folder / VGG.files[0])
    ours = load_dists(folder=folder).network
    assert ours is not None
    import_lpips()
    models = importlib.import_module("torchvision.models")
    # The package asks for torchvision's download; its layers keep the numbers of the backbone.
    monkeypatch.setattr(models, "vgg16", lambda **_: SimpleNamespace(features=VGG.features()))
    package = importlib.import_module(WEIGHTS_PACKAGE).DISTS(load_weights=False).eval()
    features = ours.features.state_dict()
    for stage in (package.stage1, package.stage2, package.stage3, package.stage4, package.stage5):
        own = stage.state_dict()
        stage.load_state_dict({name: features.get(name, value) for name, value in own.items()})
    stored = torch.load(package_file(WEIGHTS_PACKAGE, "weights.pt"), weights_only=True)
    package.alpha.data, package.beta.data = stored["alpha"], stored["beta"]
    first, second = made_pair()
    with torch.inference_mode():
        expected, found = package((first + 1) / 2, (second + 1) / 2).item(), ours(first, second).item()
        assert ours(first, first).item() == 0
    assert expected == pytest.approx(PINNED_DISTS[weights], rel=1e-4)
    assert found == pytest.approx(expected, rel=1e-4)


def test_dists_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    missing = load_dists(folder=tmp_path)
    assert missing.network is None
    assert "vgg16_features.safetensors" in missing.reason
    monkeypatch.setattr("tokcodec.metrics.dists_network.WEIGHTS_PACKAGE", "no_such_package")
    assert "no_such_package is not installed" in load_dists(folder=tmp_path).reason


def test_torchvisions_operators_can_be_given_schemas():
    """In a process without torchvision, as beside a CPU-only torch."""
    code = (
        "import torch\n"
        "from tokcodec.metrics.lpips_package import define_operators\n"
        "assert not hasattr(torch.ops.torchvision, 'nms')\n"
        "define_operators()\n"
        "assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
