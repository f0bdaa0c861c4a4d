"""Metrics against slow formulas that are written down here once more, and against published implementations."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from tokcodec.metrics import luma, mean_squared_error, psnr, psnr_of
from tokcodec.metrics.backbones import ALEX, VGG, Backbone
from tokcodec.metrics.dists_network import Dists, LoadedDists
from tokcodec.metrics.lpips_network import LoadedLpips, Lpips, load_lpips
from tokcodec.metrics.meter import Meter
from tokcodec.metrics.structure import SCALE_WEIGHTS, ms_ssim, scales_for

BACKBONES_VARIABLE = "TOKCODEC_LPIPS_WEIGHTS"
"""A folder with the real ImageNet backbones; without it, LPIPS is tested with random ones."""


def photographs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, the same in squares of 4x4 pixels, and another one: uint8 (256, 256, 3)."""
    from skimage import data

    first = data.astronaut()[:256, 128:384]
    squares = first.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return first, squares.repeat(4, axis=0).repeat(4, axis=1), data.chelsea()[:256, :256]


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()


def test_psnr_and_luma():
    first, second, _ = photographs()
    error = float(np.mean((first.astype(float) - second) ** 2))
    assert mean_squared_error(first, second) == pytest.approx(error)
    assert psnr(first, second) == pytest.approx(10 * math.log10(255**2 / error))
    assert psnr_of(0) == math.inf
    white, black = np.full((1, 1, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)
    for matrix in (1, 5, 6, 9):
        assert luma(white, matrix).item() == pytest.approx(235, abs=1e-3)
        assert luma(black, matrix).item() == 16
    green = np.array([[[0, 255, 0]]], np.uint8)
    assert luma(green, 1).item() == pytest.approx(16 + 219 * 0.7152, abs=1e-3)
    assert luma(green, 6).item() == pytest.approx(16 + 219 * 0.587, abs=1e-3)


def slow_ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """One channel in float64, with SciPy's correlation and a window of 11x11, as the paper says it."""
    from scipy.signal import correlate2d

    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(image: np.ndarray) -> np.ndarray:
        return correlate2d(image, window, mode="valid")

    x, y, result = first.astype(float), second.astype(float), 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        value = (2 * cov + 58.5225) / (vx + vy + 58.5225)
        if scale == 4:
            value = value * (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
        result *= value.mean() ** weight
        x, y = (np.pad(a, [(0, n % 2) for n in a.shape], mode="edge") for a in (x, y))
        x, y = (a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2).mean(axis=(1, 3)) for a in (x, y))
    return result


@pytest.mark.parametrize(("height", "width"), [(176, 192), (161, 175)])
def test_ms_ssim_is_that_of_the_paper(height: int, width: int):
    first, second, _ = (picture[:height, :width] for picture in photographs())
    found = ms_ssim(tensor(first), tensor(second))
    assert found.shape == (1, 3)
    for channel in range(3):
        assert found[0, channel].item() == pytest.approx(
            slow_ms_ssim(first[..., channel], second[..., channel]), abs=2e-5
        )


def test_ms_ssim_of_equal_other_and_small_pictures():
    first, second, other = (tensor(picture) for picture in photographs())
    assert ms_ssim(first, first).numpy() == pytest.approx(1, abs=1e-6)
    assert (ms_ssim(first, second) > ms_ssim(first, other)).all()
    negative = ms_ssim(first, 255 - first)
    assert (negative == 0).all(), "opposite structure counts as none"
    assert sum(SCALE_WEIGHTS) == pytest.approx(1, abs=1e-3)
    assert [scales_for(side, 4000) for side in (11, 20, 21, 41, 81, 160, 161, 2160)] == [1, 1, 2, 3, 4, 4, 5, 5]
    assert ms_ssim(first[..., :40, :], first[..., :40, :]).numpy() == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="11 pixels a side"):
        ms_ssim(first[..., :10, :], first[..., :10, :])
    with pytest.raises(ValueError, match="shapes differ"):
        ms_ssim(first, first[..., :100, :])


# torchvision's layers as (number, stride, padding) of convolutions, and the numbers of poolings and taps.
ALEX_LAYERS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
VGG_LAYERS = dict.fromkeys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (1, 1))
SHAPES = {
    "alex": [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)],
    "vgg": [
        (after, before, 3)
        for before, after in zip(
            (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
            strict=True,
        )
    ],
}
LAYERS = {"alex": ALEX_LAYERS, "vgg": VGG_LAYERS}
POOLS = {"alex": {2: 3, 5: 3}, "vgg": {4: 2, 9: 2, 16: 2, 23: 2}}


def write_backbone(kind: Backbone, folder: Path) -> dict[str, torch.Tensor]:
    """Random weights under torchvision's names, from a seed."""
    random = torch.Generator().manual_seed(7)
    tensors = {}
    for number, (after, before, size) in zip(LAYERS[kind.name], SHAPES[kind.name], strict=True):
        fan_in = before * size * size
        weight = torch.randn(after, before, size, size, generator=random) * math.sqrt(2 / fan_in)
        tensors[f"features.{number}.weight"] = weight
        tensors[f"features.{number}.bias"] = torch.randn(after, generator=random) * 0.1
    save_file(tensors, folder / kind.files[0])
    return tensors


def heads_of(kind: Backbone) -> list[torch.Tensor]:
    import importlib.util

    found = importlib.util.find_spec("lpips")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "weights" / "v0.1" / f"{kind.name}.pth"
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return [stored[f"lin{number}.model.1.weight"] for number in range(5)]


def slow_lpips(kind: Backbone, tensors: dict[str, torch.Tensor], first: np.ndarray, second: np.ndarray) -> float:
    """LPIPS in float64, a layer and a picture at a time, with the heads as 1x1 convolutions."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    taps: list[list[torch.Tensor]] = []
    for picture in (first, second):
        x = tensor((picture / 127.5 - 1 - shift) / scale).double()
        seen = []
        for number in range(kind.taps[-1] + 1):
            if number in LAYERS[kind.name]:
                stride, padding = LAYERS[kind.name][number]
                weight, bias = (tensors[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
                x = functional.conv2d(x, weight, bias, stride=stride, padding=padding)
            elif number in POOLS[kind.name]:
                x = functional.max_pool2d(x, POOLS[kind.name][number], 2)
            else:
                x = x.clamp(min=0)
            if number in kind.taps:
                seen.append(x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10))
        taps.append(seen)
    heads = heads_of(kind)
    terms = [functional.conv2d((a - b) ** 2, h.double()).mean() for a, b, h in zip(*taps, heads, strict=True)]
    return float(sum(terms))


@pytest.mark.parametrize("kind", [ALEX, VGG], ids=["alex", "vgg"])
def test_lpips_is_its_formula_with_random_backbones(kind: Backbone, tmp_path: Path):
    tensors = write_backbone(kind, tmp_path)
    loaded = load_lpips(kind, folder=tmp_path)
    assert loaded.network is not None, loaded.reason
    assert loaded.source.startswith(kind.files[0])
    first, second, _ = (picture[:71, :64] for picture in photographs())
    with torch.inference_mode():
        scaled = [tensor(picture) / 127.5 - 1 for picture in (first, second)]
        found = loaded.network(*scaled)
        assert loaded.network(scaled[0], scaled[0]).item() == 0
    assert found.shape == (1,)
    assert found.item() == pytest.approx(slow_lpips(kind, tensors, first, second), rel=1e-4)


REAL_VALUES = {"alex": (0.355555, 0.745606), "vgg": (0.476942, 0.738923)}
"""Of `lpips.LPIPS` 0.1.4 itself with torchvision's ImageNet weights, on the pictures of :func:`photographs`."""


@pytest.mark.parametrize("kind", [ALEX, VGG], ids=["alex", "vgg"])
def test_lpips_of_photographs_with_the_real_backbones(kind: Backbone, tmp_path: Path):
    """With the real backbones where there are any; what is true of all backbones holds with random ones too."""
    folder = os.environ.get(BACKBONES_VARIABLE)
    if folder is None:
        write_backbone(kind, tmp_path)
    loaded = load_lpips(kind, folder=Path(folder) if folder else tmp_path)
    assert loaded.network is not None, loaded.reason
    side = 256 if folder else 64
    first, squares, other = (tensor(picture[:side, :side]) / 127.5 - 1 for picture in photographs())
    with torch.inference_mode():
        found = [loaded.network(first, picture).item() for picture in (squares, other)]
    assert 0 < found[0] < found[1]
    if folder:
        assert found == pytest.approx(REAL_VALUES[kind.name], abs=2e-4)


def test_missing_weights_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    missing = load_lpips(ALEX, folder=tmp_path)
    assert missing.network is None
    assert "alexnet_features.safetensors" in missing.reason
    (tmp_path / ALEX.files[0]).write_bytes(b"no tensors")
    assert "cannot be used" in load_lpips(ALEX, folder=tmp_path).reason

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    assert "no network here" in load_lpips(VGG, download=True).reason
    monkeypatch.setattr("tokcodec.metrics.lpips_network.HEADS_PACKAGE", "no_such_package")
    assert "no_such_package is not installed" in load_lpips(ALEX, folder=tmp_path).reason


def test_half_precision_files_and_checkpoints_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = write_backbone(ALEX, tmp_path)
    (tmp_path / ALEX.files[0]).unlink()
    halves = {name: value.half() for name, value in tensors.items()}
    save_file(halves, tmp_path / ALEX.files[1])
    half = load_lpips(ALEX, folder=tmp_path).network
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    tensors["classifier.1.weight"] = torch.zeros(2, 2)
    torch.save(tensors, tmp_path / "hub" / "checkpoints" / ALEX.checkpoint)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    whole = load_lpips(ALEX).network
    assert half is not None
    assert whole is not None
    assert torch.equal(whole.features[0].weight.half().float(), half.features[0].weight)
    assert not any(parameter.requires_grad for parameter in whole.parameters())


def test_a_meter_takes_means_over_frames():
    absent = LoadedLpips(network=None, reason="absent")
    network = Lpips(ALEX).eval()
    meter = Meter(alex=LoadedLpips(network=network), vgg=absent, every=2)
    first, second, other = (picture[:64, :64] for picture in photographs())
    found = meter.measure([first] * 4, iter([second, first, other, first]), matrix=1)
    assert (found.frames, found.lpips_frames) == (4, 2)
    errors = [mean_squared_error(first, second), mean_squared_error(first, other)]
    assert found.psnr_rgb == pytest.approx(psnr_of(sum(errors) / 4))
    scaled = [tensor(picture) / 127.5 - 1 for picture in (first, second, other)]
    with torch.inference_mode():
        expected = (network(scaled[0], scaled[1]) + network(scaled[0], scaled[2])).item() / 2
    assert found.lpips_alex == pytest.approx(expected)
    assert found.lpips_vgg is None
    channels = [ms_ssim(tensor(first), tensor(picture)).mean().item() for picture in (second, first, other, first)]
    assert found.ms_ssim_rgb == pytest.approx(sum(channels) / 4, abs=1e-5)
    tiny = meter.measure([first[:8]], [first[:8]], matrix=1)
    assert (tiny.psnr_rgb, tiny.ms_ssim_y, tiny.lpips_alex) == (math.inf, None, None)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        meter.measure([first, first], [first], matrix=1)
    with pytest.raises(ValueError, match="no frames"):
        meter.measure([], [], matrix=1)


@pytest.mark.parametrize(("every", "count", "measured"), [(4, 9, [2, 6]), (4, 2, [1]), (1, 2, [0, 1]), (5, 3, [2])])
def test_centred_sampling_avoids_the_first_frame(every: int, count: int, measured: list[int]):
    absent = LoadedLpips(network=None, reason="absent")
    network = Lpips(ALEX).eval()
    meter = Meter(alex=LoadedLpips(network=network), vgg=absent, every=every, centred=True)
    first, *others = (np.full((32, 32, 3), 20 * number, np.uint8) for number in range(count + 1))
    found = meter.measure([first] * count, others, matrix=1)
    scaled = [tensor(picture) / 127.5 - 1 for picture in (first, *(others[number] for number in measured))]
    with torch.inference_mode():
        expected = [network(scaled[0], other).item() for other in scaled[1:]]
    assert (found.frames, found.lpips_frames) == (count, len(measured))
    assert found.lpips_alex == pytest.approx(sum(expected) / len(expected))


def test_dists_is_measured_on_the_frames_of_vgg():
    torch.manual_seed(0)
    network = Dists().eval()
    absent = LoadedLpips(network=None, reason="absent")
    meter = Meter(alex=absent, vgg=absent, dists=LoadedDists(network=network, source="x 1"), vgg_every=2)
    assert meter.missing == {"lpips_alex": "absent", "lpips_vgg": "absent"}
    assert meter.sources["dists"] == "x 1"
    first, second, other = (picture[:32, :32] for picture in photographs())
    found = meter.measure([first] * 3, [second, other, other], matrix=1)
    scaled = [tensor(picture) / 127.5 - 1 for picture in (first, second, other)]
    with torch.inference_mode():
        expected = [network(scaled[0], picture).item() for picture in scaled[1:]]
    assert found.dists == pytest.approx(sum(expected) / 2)
    assert found.lpips_vgg is None
    without = Meter(alex=absent, vgg=absent)
    assert without.measure([first], [second], matrix=1).dists is None
    assert without.missing["dists"] == "not asked for"


def test_lpips_in_bfloat16_is_near(tmp_path: Path):
    write_backbone(ALEX, tmp_path)
    whole, half = (load_lpips(ALEX, folder=tmp_path, precision=kind).network for kind in ("float32", "bfloat16"))
    assert whole is not None
    assert half is not None
    assert {parameter.dtype for parameter in half.features.parameters()} == {torch.bfloat16}
    first, second, _ = (tensor(picture[:64, :64]) / 127.5 - 1 for picture in photographs())
    with torch.inference_mode():
        one, other = whole(first, second), half(first, second)
    assert other.dtype == torch.float32
    assert one.item() != other.item()
    assert other.item() == pytest.approx(one.item(), rel=0.03)


def test_torchvision_is_not_imported():
    script = (
        "import sys\n"
        "from tokcodec.metrics.lpips_network import ALEX, load_lpips\n"
        "load_lpips(ALEX)\n"
        "sys.exit(bool({'torchvision', 'lpips'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lpips_as_a_loss_has_finite_gradients_on_flat_pictures(dtype: torch.dtype):
    torch.manual_seed(0)
    network = Lpips(VGG).eval().requires_grad_(False)
    network.features.to(dtype)
    flat = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    other = torch.rand(1, 3, 32, 32)
    for reference in (other, flat.detach()):
        distance = network(flat, reference)
        assert distance.dtype == torch.float32
        (gradient,) = torch.autograd.grad(distance.sum(), flat)
        assert bool(torch.isfinite(gradient).all())
