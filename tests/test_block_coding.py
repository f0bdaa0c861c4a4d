"""How the networks of first pictures by blocks were made: what they are shown, what it costs, how they are rounded."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from block_pictures import Counter, Tally, drawn_picture, information, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_picture_training import photograph

from tokcodec import bits
from tokcodec.block_bits import BlockTraversal
from tokcodec.errors import UsageError
from tokcodec.geometry import MAX_COEFFICIENT
from tokcodec.probability import block_network as network
from tokcodec.probability.block_network import BlockNetwork, block_network, pack, unpack
from tokcodec.tokenizer.block_choice import PRICE, blocks_of_planes, planes_of
from tokcodec.tokenizer.pixels import to_signed_unit
from tokcodec.tokens import Picture
from tokcodec.training import block_coding
from tokcodec.training.block_coding import FloatNetwork, Observed, gather, observe, train


def picture_of(pixels: NDArray[np.uint8], scale: int) -> Picture:
    return blocks_of_planes(planes_of(to_signed_unit(torch.from_numpy(pixels)[None])[0]), scale, price=PRICE)


def seen(*pictures: Picture) -> Observed:
    found = Observed()
    for picture in pictures:
        observe(picture, found)
    return found


# --- what they are shown ---


@given(
    shape=sides,
    seed=st.integers(0, 999),
    density=st.sampled_from([0.0, 0.02, 0.3]),
    reach=st.sampled_from([1, 9, MAX_COEFFICIENT]),
)
@settings(max_examples=8)
def test_every_decision_that_a_coder_sees_is_seen_once(
    shape: tuple[int, int], seed: int, density: float, reach: int
) -> None:
    """Of each output of each network as many, and as many that were 1; signs, numbers and the scale are none."""
    picture = drawn_picture(*shape, seed, density=density, reach=reach)
    tally = Tally()
    BlockTraversal(tally).code(tally, bits._copied(picture))
    found = seen(picture)
    for name, outputs in network.OUTPUTS.items():
        decisions = found.decisions(name)
        assert decisions.shape[1] == 3
        rows = sum(len(part) for part in found.inputs[name])
        assert rows == sum(len(part) for part in found.places[name])
        for output in range(outputs):
            own = decisions[decisions[:, 1] == output]
            assert [len(own), own[:, 2].sum()] == tally.counts.get((name, output), [0, 0])
            assert len(own) == 0 or (own[:, 0].min() >= 0 and own[:, 0].max() < rows)


def test_pictures_that_are_observed_stay_as_they_are() -> None:
    picture = drawn_picture(40, 24, 1, density=0.2)
    assert picture.blocks is not None
    before = picture.coefficients.copy(), picture.blocks.copy()
    seen(picture)
    np.testing.assert_array_equal(picture.coefficients, before[0])
    np.testing.assert_array_equal(picture.blocks, before[1])


def test_what_is_seen_is_what_a_coder_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs and places, row by row, of two pictures one after the other."""
    pictures = [picture_of(photograph(40, 48, seed=seed), scale) for seed, scale in ((1, 18), (2, 24))]
    asked: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in network.OUTPUTS}
    real = BlockNetwork.probabilities

    def spy(self, name, inputs, place):
        places = np.broadcast_to(np.asarray(place, np.uint8), (len(inputs),))
        asked[name].append(np.concatenate([inputs, places[:, None]], axis=1))
        return real(self, name, inputs, place)

    monkeypatch.setattr(BlockNetwork, "probabilities", spy)
    for picture in pictures:
        information(picture)
    found = seen(*pictures)
    for name, places in network.PLACES.items():
        inputs = np.concatenate(found.inputs[name])
        assert inputs.dtype == np.uint8
        rows = np.concatenate([inputs, np.concatenate(found.places[name])[:, None]], axis=1)
        np.testing.assert_array_equal(rows, np.concatenate(asked[name]))
        assert rows[:, -1].max() < places
        assert len(np.unique(rows[:, -1])) > 3


def test_what_is_decided_is_what_the_rows_are_about() -> None:
    """Whether a coefficient is there, and larger, next to the sum of what is around it: by hand of one block."""
    coefficients = np.zeros((3, 8, 8), np.int16)
    coefficients[0, 0, :2] = 5, -1
    picture = Picture(coefficients=coefficients, scale=21, blocks=np.full((2, 2), 2 * 35, np.uint8))
    found = seen(picture)
    # Whether it is cut, its mode, more in diagonals 0 and 1 and not in 2, and in other colours none.
    assert found.decisions("layout").tolist() == [[0, 0, 0], [1, 1, 1]]
    assert found.decisions("extent").tolist() == [[n, 0, bit] for n, bit in enumerate((1, 1, 0, 0, 0))]
    sizes = found.decisions("size")
    assert sizes.tolist() == [
        [0, 0, 1],  # 5 is there,
        [0, 1, 1],  # above 1
        [0, 2, 1],  # and 2: 2 + 3, whose length is 1
        [0, 3, 1],
        [0, 3, 0],
        [1, 0, 1],
        [2, 0, 0],
        [1, 1, 0],
    ]
    assert np.concatenate(found.places["extent"]).tolist()[:3] == [(0 * 4 + 2) * 16 + n for n in range(3)]
    assert np.concatenate(found.places["extent"]).tolist()[3:] == [(colour * 4 + 2) * 16 for colour in (1, 2)]


def test_cuts_of_pictures_are_gathered(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(photograph(30, 45, seed=number)).save(tmp_path / f"{number}.png")
    found = gather(tmp_path, count=3, exclude=(), seed=1)
    assert len({int(row[8]) for row in np.concatenate(found.inputs["layout"]) if row[8]}) > 1, "quantizers of their own"
    again = gather(tmp_path, count=3, exclude=(), seed=1)
    for name in network.OUTPUTS:
        np.testing.assert_array_equal(again.decisions(name), found.decisions(name))
        np.testing.assert_array_equal(np.concatenate(again.inputs[name]), np.concatenate(found.inputs[name]))
    few = gather(tmp_path, count=1, exclude=("1.*",), seed=1)
    assert len(few.decisions("size")) < len(found.decisions("size"))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no picture")
    with pytest.raises(UsageError, match="no pictures"):
        gather(tmp_path / "none", count=1, exclude=(), seed=1)


# --- what it costs ---


@pytest.fixture(scope="module")
def learned() -> Observed:
    return seen(*(picture_of(photograph(96, 128, seed=seed), scale) for seed in (1, 2) for scale in (16, 22)))


@pytest.fixture(scope="module")
def trained(learned: Observed) -> dict[str, FloatNetwork]:
    """Trained for a moment."""
    torch.manual_seed(0)
    return {name: train(learned, name, steps=150, batch=1024) for name in network.OUTPUTS}


def rounded(models: dict[str, FloatNetwork]) -> dict[str, NDArray[np.int64]]:
    return {key: tensor for name, model in models.items() for key, tensor in model.rounded(name).items()}


@torch.no_grad()
def odds_of(name: str, model: FloatNetwork, found: Observed) -> torch.Tensor:
    inputs, places = (np.concatenate(part[name]) for part in (found.inputs, found.places))
    return model(torch.from_numpy(inputs), torch.from_numpy(places))


@pytest.mark.parametrize("scale", [16, 22])
def test_files_are_as_large_as_training_says(trained: dict[str, FloatNetwork], scale: int) -> None:
    picture = picture_of(photograph(96, 128, seed=9), scale)
    found, expected, tally = seen(picture), 0.0, Tally()
    BlockTraversal(tally).code(tally, bits._copied(picture))
    for name, model in trained.items():
        rows, outputs, happened = torch.from_numpy(found.decisions(name)).unbind(dim=1)
        odds = odds_of(name, model, found)[rows, outputs]
        expected += float(F.binary_cross_entropy_with_logits(odds, happened.float(), reduction="sum")) / np.log(2)
    expected += tally.even
    after = information(picture, BlockNetwork(rounded(trained)))
    assert after == pytest.approx(expected, rel=0.02)
    torch.manual_seed(1)
    untrained = BlockNetwork(rounded({name: FloatNetwork(network.SIZES[name]) for name in network.OUTPUTS}))
    assert after < 0.85 * information(picture, untrained)


def test_the_networks_of_the_package_fit_pictures(trained: dict[str, FloatNetwork]) -> None:
    """They were trained for longer than a moment, though not with these blots."""
    picture = picture_of(photograph(96, 128, seed=9), 20)
    moment = information(picture, BlockNetwork(rounded(trained)))
    assert information(picture, block_network()) < 1.1 * moment


# --- how they are rounded ---


def test_rounded_tensors_are_those_of_a_file(trained: dict[str, FloatNetwork]) -> None:
    tensors = rounded(trained)
    assert {name: tensor.shape for name, tensor in tensors.items()} == network.SHAPES
    back = unpack(pack(tensors))
    for name, tensor in tensors.items():
        assert tensor.dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)
    counter = Counter()
    BlockTraversal(BlockNetwork(back)).code(counter, drawn_picture(16, 24, 1))
    assert counter.bits > 0


def test_rounding_changes_little(trained: dict[str, FloatNetwork]) -> None:
    found = seen(picture_of(photograph(64, 80, seed=5), 18))
    whole = BlockNetwork(rounded(trained))
    for name, model in trained.items():
        wanted = torch.sigmoid(odds_of(name, model, found)).numpy()
        got = whole.probabilities(name, np.concatenate(found.inputs[name]), np.concatenate(found.places[name]))
        assert np.abs(got / 65536 - wanted).max() < 0.03


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for number in range(2):
        Image.fromarray(photograph(32, 40, seed=number)).save(data / f"{number}.png")
    words = ["--data", data, "--out", out, "--pictures", "2", "--steps", "3", "--exclude", "1.*"]
    monkeypatch.setattr(sys, "argv", ["block_coding", *map(str, words)])
    block_coding.main()
    (file,) = out.iterdir()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name == f"blocks-{digest[:12]}.safetensors"
    assert capsys.readouterr().out.split()[-1] == digest
    BlockNetwork(unpack(file.read_bytes()))
