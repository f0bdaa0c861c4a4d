"""How the network of motion maps was made: what it is shown, what files cost by it, how it is rounded."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from block_pictures import Counter
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_films import Maps, chunk_of, panning, seven
from numpy.typing import NDArray
from test_motion_bits import KINDS
from test_motion_files import BY_NETWORK, SEVEN
from test_tokens_files import make_tok

from tokcodec import bits
from tokcodec.bits import encode_tokens
from tokcodec.errors import UsageError
from tokcodec.geometry import MOTION_MAPS
from tokcodec.motion_bits import MotionTraversal
from tokcodec.probability import motion_network as network
from tokcodec.probability.motion_network import MotionNetwork, motion_network, pack, unpack
from tokcodec.tokens import TokenGeometry
from tokcodec.tokenset import read_chunks
from tokcodec.training import motion_coding
from tokcodec.training.decision_training import FloatNetwork, fit
from tokcodec.training.motion_coding import Observed, gather, observe, train


def seen(*films: Maps) -> Observed:
    found = Observed()
    for vectors in films:
        observe(chunk_of(vectors), found)
    return found


class Tally(MotionTraversal):
    """Counts the decisions of each row of the table of biases and kind that a coder codes, and how many were 1."""

    def __init__(self, rows: int, columns: int, *, network: object) -> None:
        super().__init__(rows, columns, maps=MOTION_MAPS, network=network)  # type: ignore[arg-type]
        self.counts: dict[tuple[int, int], list[int]] = {}
        self.bits = self.even = 0
        for mixer in self._mixers:
            mixer.observe = partial(self._told, mixer.observe)  # type: ignore[method-assign]

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        assert bits.shape == probabilities.shape
        self.bits += bits.size
        return bits

    def _told(self, observe: Callable[..., None], slot: int | NDArray[np.intp], *args: Any) -> None:
        """What a mixer hears of, beside its contexts: bits, one slot for all or one each."""
        bits = args[1]
        for one, bit in zip(np.broadcast_to(slot, bits.shape).tolist(), bits.tolist(), strict=True):
            own = self.counts.setdefault(divmod(one, network.KINDS), [0, 0])
            own[0] += 1
            own[1] += bit
        observe(slot, *args)


# --- what it is shown ---


@given(
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_every_decision_that_a_coder_sees_is_seen_once(rows: int, columns: int, kinds: list[str], seed: int) -> None:
    """Of each axis and kind as many, and as many that were 1; not what magnitudes end with, nor what maps are told."""
    vectors = seven(*kinds, rows=rows, columns=columns, seed=seed)
    tally = Tally(*vectors.shape[1:3], network=motion_network())
    for step in vectors[1:]:
        tally.code_step(tally, step.copy())
    found = seen(vectors)
    if not found.rests:
        assert tally.counts == {}
        assert tally.bits == MOTION_MAPS * len(kinds)
        return
    decisions, places = found.decisions(), np.concatenate(found.places)
    assert len(places) == len(np.concatenate(found.inputs)) == len(np.concatenate(found.rests))
    assert decisions.shape[1] == 3
    assert decisions[:, 0].max() < len(places)
    for axis in (0, 1):
        own = decisions[places[decisions[:, 0]] // 49 == axis]
        for kind in range(network.KINDS):
            of_kind = own[own[:, 1] == kind]
            assert [len(of_kind), of_kind[:, 2].sum()] == tally.counts.get((axis, kind), [0, 0])
    rests = np.abs(np.concatenate(found.rests))
    lengths = int(np.floor(np.log2(rests[rests > 0])).sum())
    assert tally.bits == len(decisions) + lengths + MOTION_MAPS * len(kinds)


def test_what_is_seen_is_what_a_coder_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs and places, row by row, of two chunks one after the other."""
    films = [panning(3, 9, 12, seed=1), seven("slow", "sparse", rows=4, columns=7)]
    asked: list[NDArray[np.uint8]] = []
    real = MotionNetwork.stretches

    def spy(self: MotionNetwork, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        row = np.full((len(inputs), 1), network.place(axis=axis, number=number, group=group), np.uint8)
        asked.append(np.concatenate([inputs, row], axis=1))
        return real(self, inputs, axis=axis, number=number, group=group)

    monkeypatch.setattr(MotionNetwork, "stretches", spy)
    for vectors in films:
        encode_tokens(chunk_of(vectors))
    found = seen(*films)
    inputs = np.concatenate(found.inputs)
    assert inputs.dtype == np.uint8
    rows = np.concatenate([inputs, np.concatenate(found.places)[:, None]], axis=1)
    np.testing.assert_array_equal(rows, np.concatenate(asked))
    assert rows[:, -1].max() < network.SIZES.places
    assert len(np.unique(rows[:, -1])) > 60


def test_what_is_decided_is_what_the_rows_are_about() -> None:
    """By hand: a map of two blocks, of which the second one differs by 5 to the left of the first."""
    vectors = np.zeros((2, MOTION_MAPS, 2, 2), np.int16)
    # The others are as expected: halves, or what two differ by.
    for number, (first, second) in enumerate([(1, -4), (0, -2), (0, 2), (0, -1), (0, 1), (0, 1), (0, -1)]):
        vectors[1, number] = (first, 0), (second, 0)
    found = seen(vectors)
    assert np.concatenate(found.rests).tolist() == [1, 0, -5, 0]
    assert np.concatenate(found.places).tolist() == [0, 49, 6, 55]
    assert sorted(found.decisions().tolist()) == sorted(
        [
            *([0, 0, 1], [0, 1, 1], [0, 2, 0]),  # 1: differs, positive, no longer than one bit
            [1, 0, 0],  # its y does not
            *([2, 0, 1], [2, 1, 0], [2, 2, 1], [2, 3, 1], [2, 4, 0]),  # -5: two bits follow the first
            [3, 0, 0],
        ]
    )
    # Of what is left of x, y is shown the size: in two parts, of which only one is not zero.
    assert [row[-2:].tolist() for row in np.concatenate(found.inputs)] == [[0, 0], [32, 0], [0, 0], [0, 83]]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 511, 512, 1022])
def test_magnitudes_are_unary_in_their_length(most: int) -> None:
    found = Observed()
    found.rests.append(np.asarray([most, -most], np.int32))
    length = most.bit_length() - 1
    wanted = [[row, 2 + j, int(j < length)] for row in (0, 1) for j in range(min(length + 1, 9))]
    decisions = found.decisions().tolist()
    assert sorted(each for each in decisions if each[1] > 1) == wanted
    assert sorted(each for each in decisions if each[1] < 2) == [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_chunks_that_are_observed_stay_as_they_are() -> None:
    vectors = seven("random", "smooth", rows=4, columns=5)
    before = vectors.copy()
    seen(vectors)
    np.testing.assert_array_equal(vectors, before)


def test_files_are_gathered(tmp_path: Path) -> None:
    """Those with seven maps a step, whether or not a network coded them, at any depth, by name."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.tok").write_bytes(make_tok(geometry=BY_NETWORK, seed=1))
    (tmp_path / "a.tok").write_bytes(make_tok(geometry=SEVEN, chunks=1))
    (tmp_path / "c.tok").write_bytes(make_tok(geometry=TokenGeometry(motion_tokens=2)))
    found, wanted = gather(tmp_path), Observed()
    for name in ("a.tok", "b/one.tok"):
        for chunk in read_chunks(io.BytesIO((tmp_path / name).read_bytes())):
            observe(chunk, wanted)
    for name in ("inputs", "places", "rests"):
        np.testing.assert_array_equal(*(np.concatenate(getattr(each, name)) for each in (found, wanted)))
    assert np.concatenate(found.rests).any()
    for name in ("a.tok", "b/one.tok"):
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match="no tokens with seven motion maps a step") as caught:
        gather(tmp_path)
    assert "tokcodec encode" in (caught.value.hint or "")


# --- what files cost ---


@pytest.fixture(scope="module")
def learned() -> Observed:
    return seen(*(panning(6, 18, 24, seed=seed) for seed in range(20, 26)))


@pytest.fixture(scope="module")
def trained(learned: Observed) -> FloatNetwork:
    """Trained for a moment."""
    torch.manual_seed(0)
    return train(learned, steps=250, batch=2048)


@pytest.fixture(scope="module")
def untrained() -> FloatNetwork:
    torch.manual_seed(1)
    return FloatNetwork(network.SIZES)


def odds_of(model: FloatNetwork, found: Observed) -> torch.Tensor:
    inputs, places = (torch.from_numpy(np.concatenate(part)) for part in (found.inputs, found.places))
    with torch.no_grad():
        return model(inputs, places)


def bits_of(odds: torch.Tensor, found: Observed) -> float:
    """What decisions cost, a decision, by these odds alone."""
    rows, kinds, happened = torch.from_numpy(found.decisions()).unbind(dim=1)
    loss = F.binary_cross_entropy_with_logits(odds[rows, kinds], happened.float())
    return float(loss) / np.log(2)


def size_of(vectors: Maps, monkeypatch: pytest.MonkeyPatch, model: FloatNetwork) -> int:
    with monkeypatch.context() as patched:
        patched.setattr(bits, "motion_network", lambda: MotionNetwork(model.rounded()))
        return len(encode_tokens(chunk_of(vectors)))


def test_a_moment_of_training_makes_files_smaller(
    trained: FloatNetwork, untrained: FloatNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of films that were not learned from: than a network that knows nothing, and than none."""
    for seed in (1, 2):
        film = panning(5, 18, 24, seed=seed)
        after, before = (size_of(film, monkeypatch, model) for model in (trained, untrained))
        assert after < 0.8 * before
        assert after < 0.95 * len(encode_tokens(chunk_of(film, network=False)))


def test_training_fits_decisions(trained: FloatNetwork, untrained: FloatNetwork) -> None:
    found = seen(panning(4, 18, 24, seed=3))
    after, before = (bits_of(odds_of(model, found), found) for model in (trained, untrained))
    nothing = bits_of(torch.zeros(len(np.concatenate(found.rests)), network.KINDS), found)
    assert nothing == pytest.approx(1.0)
    assert after < 0.5 * min(before, nothing)


def test_the_network_of_the_package_fits_motion(trained: FloatNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was trained for longer than a moment, though not with such films, but with those of cameras."""
    film = panning(5, 18, 24, seed=4)
    assert len(encode_tokens(chunk_of(film))) < 1.4 * size_of(film, monkeypatch, trained)


def test_training_is_told_now_and_then(learned: Observed, capsys: pytest.CaptureFixture[str]) -> None:
    small = network.SIZES
    decisions = learned.decisions()[:64]
    rows = int(decisions[:, 0].max()) + 1
    inputs, places = (np.concatenate(part)[:rows] for part in (learned.inputs, learned.places))
    torch.manual_seed(0)
    models = [fit(small, inputs, places, decisions, name="some", steps=steps, batch=4) for steps in (0, 500)]
    out = capsys.readouterr().out
    assert out.startswith("some, step 500: ")
    assert out.count("bits a decision") == 1
    found = [model(torch.from_numpy(inputs), torch.from_numpy(places)).shape for model in models]
    assert found == [(rows, network.KINDS)] * 2


# --- how it is rounded ---


def test_rounded_tensors_are_those_of_a_file(trained: FloatNetwork) -> None:
    tensors = trained.rounded()
    assert {name: tensor.shape for name, tensor in tensors.items()} == network.SIZES.shapes()
    back = unpack(pack(tensors))
    for name, tensor in tensors.items():
        assert tensor.dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)
    named = trained.rounded("some")
    assert list(named) == [f"some.{name}" for name in tensors]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(named[f"some.{name}"], tensor)
    counter = Counter()
    vectors = panning(2, 4, 5)
    traversal = MotionTraversal(4 * MOTION_MAPS, 5, maps=MOTION_MAPS, network=MotionNetwork(back))
    traversal.code_step(counter, vectors[1].copy())
    assert counter.bits > 0


def test_rounding_changes_little(trained: FloatNetwork) -> None:
    found = seen(panning(3, 18, 24, seed=5))
    odds = odds_of(trained, found)
    whole, start = MotionNetwork(trained.rounded()), 0
    got = np.empty(odds.shape)
    for inputs, rows in zip(found.inputs, found.places, strict=True):
        (row,) = np.unique(rows)
        axis, number, group = row // 49, row // 7 % 7, row % 7
        got[start : start + len(inputs)] = whole.stretches(inputs, axis=axis, number=number, group=group) / 256
        start += len(inputs)
    wanted = odds.clamp(-2047 / 256, 2047 / 256)
    assert (torch.sigmoid(torch.from_numpy(got)) - torch.sigmoid(wanted)).abs().max() < 0.03
    assert bits_of(torch.from_numpy(got).float(), found) == pytest.approx(bits_of(odds, found), rel=0.01, abs=0.001)


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    (data / "a.tok").write_bytes(make_tok(geometry=SEVEN))
    words = ["--tokens", data, "--out", out, "--steps", "3"]
    names, again = [], []
    for seed in ("1", "1", "2"):
        monkeypatch.setattr(sys, "argv", ["motion_coding", *map(str, words), "--seed", seed])
        motion_coding.main()
        digest = capsys.readouterr().out.split()[-1]
        names.append(f"motion-{digest[:12]}.safetensors")
        again.append(digest)
    assert again[0] == again[1] != again[2], "the same seed gives the same file"
    assert {file.name for file in out.iterdir()} == set(names)
    for name, digest in zip(names, again, strict=True):
        file = (out / name).read_bytes()
        assert hashlib.sha256(file).hexdigest() == digest
        MotionNetwork(unpack(file))
