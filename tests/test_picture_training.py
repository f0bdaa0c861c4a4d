"""How the network of first pictures was made: what it is shown, what it costs, and how it is rounded."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_picture_bits import chunk_of, drawn
from test_step_lists import noise

from tokcodec import bits
from tokcodec.bands import BANDS
from tokcodec.bits import picture_bit_count
from tokcodec.picture_bits import PictureTraversal
from tokcodec.probability.picture_network import (
    COLOURS,
    INPUTS,
    OUTPUTS,
    SHAPES,
    PictureNetwork,
    pack,
    picture_network,
    unpack,
)
from tokcodec.tokenizer.pixels import to_signed_unit
from tokcodec.tokenizer.wavelet import quantized
from tokcodec.training import picture_coding
from tokcodec.training.picture_coding import FloatNetwork, bits_of, gather, observations, pictures, train

Coefficients = NDArray[np.int16]


def photograph(height: int, width: int, *, seed: int) -> NDArray[np.uint8]:
    """Blots of two sizes and a little noise."""
    parts = [noise(height, width, seed=seed + blot, blot=blot).astype(int) for blot in (16, 5)]
    grain = np.random.default_rng(seed).integers(-4, 5, (height, width, 3))
    return (parts[0] // 2 + parts[1] // 3 + grain).clip(0, 255).astype(np.uint8)


def coefficients_of(pixels: NDArray[np.uint8], scale: int) -> Coefficients:
    return quantized(to_signed_unit(torch.from_numpy(pixels)[None])[0], scale)


def seen(coefficients: Coefficients, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    rows, sizes = zip(*observations(coefficients, scale), strict=True)
    return np.concatenate(rows), np.concatenate(sizes)


# --- what it is shown ---


@pytest.mark.parametrize(("density", "reach"), [(0.01, 2), (0.3, 40), (1.0, 32767)])
def test_every_coefficient_that_is_coded_is_seen_once(density: float, reach: int) -> None:
    coefficients = drawn(40, 56, density=density, reach=reach, seed=3)
    before = coefficients.copy()
    rows, sizes = seen(coefficients, 21)
    np.testing.assert_array_equal(coefficients, before)
    assert (rows.dtype, rows.shape) == (np.uint8, (len(sizes), INPUTS + 2))
    assert sizes[:, 1].min() >= 1
    for band in BANDS:
        for colour in range(COLOURS):
            part = np.abs(coefficients[colour, band.rows, band.columns].astype(int))
            own = rows[:, -2] == COLOURS * band.number + colour
            assert sizes[own, 1].sum() == (part.size if part.any() else 0)
            assert (sizes[own, 0] * sizes[own, 1]).sum() == part.sum()


def test_what_is_seen_is_what_a_coder_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows, of which those with nothing around are one."""
    coefficients, asked = coefficients_of(photograph(64, 80, seed=1), 18), []
    real = PictureNetwork.probabilities

    def spy(self, inputs, *, band, colour, phase):
        asked.append(np.insert(inputs, INPUTS, [[COLOURS * band + colour], [phase]], axis=1))
        return real(self, inputs, band=band, colour=colour, phase=phase)

    monkeypatch.setattr(PictureNetwork, "probabilities", spy)
    picture_bit_count(chunk_of(coefficients, 18))
    found = {row.tobytes() for row in seen(coefficients, 18)[0]}
    wanted = {row.tobytes() for row in np.concatenate(asked)}
    assert found <= wanted
    assert all(not any(row[: INPUTS - 1]) for row in wanted - found), "a coder asks for those of nothing in any case"


def test_cuts_of_pictures_are_gathered(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(photograph(60, 90, seed=number)).save(tmp_path / f"{number}.png")
    rows, sizes = gather(tmp_path, count=3, exclude=(), seed=1)
    assert (rows.dtype, sizes.dtype, len(rows)) == (torch.uint8, torch.int32, len(sizes))
    assert int(sizes[:, 1].sum()) <= 3 * 3 * 64 * 96
    assert len(rows[:, INPUTS - 1].unique()) > 1, "each cut has a quantizer of its own"
    again = gather(tmp_path, count=3, exclude=(), seed=1)
    assert torch.equal(again[0], rows)


def test_pictures_come_over_and_over_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a.png", "sub/b.png", "secret.png")):
        Image.fromarray(np.full((8, 16, 3), number, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    drawing = pictures(tmp_path, exclude=["secret*"], seed=0)
    found = [int(next(drawing)[0, 0, 0]) for _ in range(20)]
    assert found.count(0) == found.count(1) == 10
    assert not list(pictures(tmp_path / "sub", exclude=["*.png"], seed=0))


# --- what it costs ---


def test_costs_by_hand() -> None:
    """At even odds each decision is a bit, and so is each digit of what is beyond 2."""
    sizes = torch.tensor([0, 1, 2, 3, 4, 5, 9, 10, 12345])
    wanted = [1, 2, 3, 4, 6, 6, 8, 10, 4 + 2 * 13]
    found = bits_of(torch.zeros(len(sizes), OUTPUTS), sizes)
    # 4 is 2 + 2, whose length is 1: longer, then not, and a digit.
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32))
    sure = torch.tensor([[20.0, 20.0, -20.0, 0.0]]).expand(2, -1)
    found = bits_of(sure, torch.tensor([2, 1]))
    torch.testing.assert_close(found, torch.tensor([0.0, 20 / math.log(2)]), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def trained() -> FloatNetwork:
    """Trained for a moment."""
    torch.manual_seed(0)
    found = [
        seen(coefficients_of(photograph(96, 128, seed=seed), scale), scale) for seed in (1, 2) for scale in (12, 20)
    ]
    rows, sizes = (torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True))
    return train(rows, sizes, steps=150, batch=2048)


def coded_bits(network: PictureNetwork, coefficients: Coefficients, scale: int, *, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(bits, "picture_network", lambda: network)
        return picture_bit_count(chunk_of(coefficients, scale))


@pytest.mark.parametrize("scale", [10, 14, 20])
def test_files_are_as_large_as_training_says(
    trained: FloatNetwork, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coefficients = coefficients_of(photograph(96, 128, seed=9), scale)
    rows, sizes = (torch.from_numpy(part) for part in seen(coefficients, scale))
    with torch.no_grad():
        expected = float((bits_of(trained(rows), sizes[:, 0]) * sizes[:, 1]).sum())
    expected += np.count_nonzero(coefficients) + 6 + 3 * len(BANDS)
    network = PictureNetwork(trained.rounded())
    found = coded_bits(network, coefficients, scale, monkeypatch=monkeypatch)
    assert found == pytest.approx(expected, rel=0.02, abs=64)
    torch.manual_seed(1)
    untrained = PictureNetwork(FloatNetwork().rounded())
    assert found < coded_bits(untrained, coefficients, scale, monkeypatch=monkeypatch)


def test_the_network_of_the_package_fits_pictures(trained: FloatNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was trained for longer than a moment, though not with these blots."""
    coefficients = coefficients_of(photograph(96, 128, seed=9), 20)
    moment = coded_bits(PictureNetwork(trained.rounded()), coefficients, 20, monkeypatch=monkeypatch)
    assert coded_bits(picture_network(), coefficients, 20, monkeypatch=monkeypatch) < 1.1 * moment


# --- how it is rounded ---


def test_rounded_tensors_are_those_of_a_file(trained: FloatNetwork) -> None:
    tensors = trained.rounded()
    assert {name: tensor.shape for name, tensor in tensors.items()} == SHAPES
    back = unpack(pack(tensors))
    for name, tensor in tensors.items():
        assert tensor.dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)
    PictureTraversal(PictureNetwork(back))


def test_rounding_changes_little(trained: FloatNetwork) -> None:
    rows, _ = seen(coefficients_of(photograph(64, 80, seed=5), 16), 16)
    network = PictureNetwork(trained.rounded())
    with torch.no_grad():
        wanted = torch.sigmoid(trained(torch.from_numpy(rows))).numpy()
    for place, phase in {(int(row[-2]), int(row[-1])) for row in rows}:
        own = (rows[:, -2] == place) & (rows[:, -1] == phase)
        band, colour = divmod(place, COLOURS)
        found = network.probabilities(rows[own, :INPUTS], band=band, colour=colour, phase=phase) / 65536
        assert np.abs(found - wanted[own]).max() < 0.03


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for number in range(2):
        Image.fromarray(photograph(48, 64, seed=number)).save(data / f"{number}.png")
    words = ["--data", data, "--out", out, "--pictures", "2", "--steps", "3", "--exclude", "1.*"]
    monkeypatch.setattr(sys, "argv", ["picture_coding", *map(str, words)])
    picture_coding.main()
    (file,) = out.iterdir()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name == f"picture-{digest[:12]}.safetensors"
    assert capsys.readouterr().out.split()[-1] == digest
    PictureNetwork(unpack(file.read_bytes()))
