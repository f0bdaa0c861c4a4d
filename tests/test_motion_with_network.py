"""Motion maps <-> bytes with a network of whole numbers beside what is learned on the way (spec 7.10 and 7.14)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from motion_films import Maps, chunk_of, formula_network, panning, seven, some_tensors
from numpy.typing import NDArray
from test_bits import assert_refused_or_the_code_of_others, decode_like
from test_motion_bits import KINDS

from tokcodec import bits
from tokcodec.bits import encode_tokens, motion_bit_count, tokens_crc32
from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.motion_bits import NETWORK_WEIGHTS, MotionTraversal
from tokcodec.probability.motion_network import KINDS as DECISIONS
from tokcodec.probability.motion_network import MotionNetwork, motion_network


def assert_round_trip(vectors: Maps, *, cut: bool = False, network: bool = True) -> bytes:
    chunk = chunk_of(vectors, cut=cut, network=network)
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    assert back.vectors.dtype == np.int16
    np.testing.assert_array_equal(back.vectors, vectors)
    assert back.geometry == chunk.geometry
    assert tokens_crc32(back) == tokens_crc32(chunk)
    return data


# --- there and back ---


@given(data=st.data())
@settings(max_examples=20)
def test_any_maps_come_back(data: st.DataObject) -> None:
    steps, rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    reach = data.draw(st.sampled_from([1, 3, 40, MAX_VECTOR]))
    shape = (steps, rows * MOTION_MAPS, columns, 2)
    given_maps = data.draw(arrays(np.int16, shape, elements=st.integers(-reach, reach)))
    given_maps[0] = 0
    assert_round_trip(given_maps, cut=data.draw(st.booleans()))


@settings(max_examples=15)
@given(
    rows=st.integers(1, 18),
    columns=st.integers(1, 18),
    kinds=st.lists(st.sampled_from(KINDS), max_size=3),
    seed=st.integers(0, 99),
    cut=st.booleans(),
)
def test_maps_of_any_grid_come_back(rows: int, columns: int, kinds: list[str], seed: int, cut: bool) -> None:
    assert_round_trip(seven(*kinds, rows=rows, columns=columns, seed=seed), cut=cut)


@pytest.mark.parametrize("number", range(MOTION_MAPS))
@pytest.mark.parametrize("vector", [(1, 0), (MAX_VECTOR, -MAX_VECTOR), (-MAX_VECTOR, 2)])
def test_one_vector_alone_comes_back(number: int, vector: tuple[int, int]) -> None:
    given_maps = np.zeros((3, 9 * MOTION_MAPS, 9, 2), np.int16)
    given_maps[1, 9 * number + 4, 7] = vector
    assert len(assert_round_trip(given_maps)) < 120


@given(seed=st.integers(0, 99), reach=st.sampled_from([3, 300, 1700]), kind=st.sampled_from(KINDS[1:]))
@settings(max_examples=6)
def test_whatever_a_network_says_maps_come_back(seed: int, reach: int, kind: str) -> None:
    """Odds that are wrong cost bits and lose nothing; other networks do not understand the bits."""
    with pytest.MonkeyPatch.context() as patch:
        network = MotionNetwork(some_tensors(seed, reach=reach))
        patch.setattr(bits, "motion_network", lambda: network)
        vectors = seven(kind, "none", kind, rows=5, columns=7, seed=seed)
        data = assert_round_trip(vectors)
    chunk = chunk_of(vectors)
    assert encode_tokens(chunk) != data
    try:
        found = decode_like(chunk, data)
    except CorruptStreamError:
        return
    assert tokens_crc32(found) != tokens_crc32(chunk)


def test_coding_again_gives_the_same_bytes_and_leaves_the_maps_alone() -> None:
    vectors = seven("random", "smooth", rows=5, columns=6)
    before = vectors.copy()
    data = encode_tokens(chunk_of(vectors))
    np.testing.assert_array_equal(vectors, before)
    assert encode_tokens(chunk_of(np.asfortranarray(vectors))) == data
    vectors.flags.writeable = False
    assert encode_tokens(chunk_of(vectors)) == data


GOLDEN = {
    "random": "3a95c2119c65aeaa74865cad1a6bb232150f37cb14e40bcfdc7bef6a4cd95ae3",
    "extreme": "951278c742eb407fa1d1f8e293f1e8a541b2fabc35af15290ad56beac49c443f",
    "slow": "c8ed995c36c8143e4b9d250d0fb5c09731082dc5e00f49ef3a5b747f5d0f38f6",
    "smooth": "3538085fde414c59b92ad22d52fa8e42b4b8ef298d3277e088781f3d233e532c",
    "sparse": "46acf99d65115904efe7415ff8ad4543664790db8124de7b78d3dc828e7ebc58",
    "none": "f2ad89fbc5d565841331f4a81a853bd789632ae611a026192ab851327c85e195",
}
"""SHA-256 of the coded bytes of three later steps: the first and the last of the kind, one at rest between."""


@pytest.mark.parametrize("kind", GOLDEN)
def test_coded_bytes_are_the_same_everywhere(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that a formula makes."""
    network = formula_network()
    monkeypatch.setattr(bits, "motion_network", lambda: network)
    data = assert_round_trip(seven(kind, "none", kind, rows=11, columns=18))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[kind]


# --- what they cost ---


def test_motion_of_a_camera_is_smaller_with_the_network() -> None:
    """Than without; it was trained on files of cameras, and a pan is what they do most."""
    for seed in range(3):
        vectors = panning(5, 18, 30, seed=seed)
        with_it, without = (len(assert_round_trip(vectors, network=network)) for network in (True, False))
        assert with_it < 0.95 * without


def test_what_is_easily_said_costs_little() -> None:
    size = {kind: len(encode_tokens(chunk_of(seven(kind, kind, rows=9, columns=16)))) for kind in KINDS}
    assert size["none"] <= 8
    assert size["sparse"] < size["slow"] < size["random"]
    assert size["random"] < 2 * MOTION_MAPS * 9 * 16 * 22 / 8 * 1.25, "22 bits are the most for what is left"


def test_what_maps_cost_is_told_apart_from_tokens() -> None:
    chunk = chunk_of(seven("random", "smooth", rows=5, columns=8))
    still = replace(chunk, vectors=np.zeros_like(chunk.vectors))
    both, without = (8 * len(encode_tokens(found)) for found in (chunk, still))
    assert both - without == pytest.approx(motion_bit_count(chunk), abs=64)
    plain = replace(chunk, geometry=replace(chunk.geometry, motion_network=False))
    assert motion_bit_count(plain) != motion_bit_count(chunk) > 1000


class Asked:
    """Stands for a network and a coder: knows what it was asked, and what was coded with which probabilities."""

    def __init__(self, stretch: int) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.coded: list[tuple[int, int]] = []
        self._stretch = stretch

    def stretches(self, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        self.calls.append((axis, number, group))
        return np.full((len(inputs), DECISIONS), self._stretch, np.int32)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        self.coded += zip(bits.tolist(), probabilities.tolist(), strict=True)
        return bits


def test_the_network_is_asked_of_maps_that_are_told_and_of_sets_that_there_are() -> None:
    vectors = np.zeros((2, 2 * MOTION_MAPS, 3, 2), np.int16)
    vectors[1, 2 * 3] = 5  # of map 3, which map 4 is expected by
    vectors[1, 2 * 4] = 5
    asked = Asked(0)
    MotionTraversal(*vectors.shape[1:3], maps=MOTION_MAPS, network=asked).code_step(asked, vectors[1].copy())
    groups = [0, 4, 5, 6]
    assert asked.calls == [(axis, 3, group) for group in groups for axis in (0, 1)]


def test_what_it_says_counts_for_most_at_first() -> None:
    """0.85 of its log-odds, and a tenth of those of both tables."""
    assert NETWORK_WEIGHTS == (6554, 6554, 55706)
    for stretch in (-1000, 0, 1000):
        asked = Asked(stretch)
        vectors = np.zeros((MOTION_MAPS, 1, 2), np.int16)
        vectors[0] = 3, 0
        MotionTraversal(MOTION_MAPS, 1, maps=MOTION_MAPS, network=asked).code_step(asked, vectors)
        # Whether a first map is told, and whether x differs there: of the last spread and the first set, both not so.
        (_, told), (differs, odds) = asked.coded[:2]
        assert (told, differs) == (61440, 1)
        # The tables start at stretches of 0 and 700 (their counts are whole, so only about so).
        wanted = 1 / (1 + np.exp(-(0.85 * stretch + 70) / 256))
        assert odds / 65536 == pytest.approx(wanted, abs=0.01)


# --- chunks by themselves ---


def test_every_chunk_begins_anew() -> None:
    """What was learned, what moved and what maps differed by is forgotten."""
    one, other = chunk_of(seven("random", "slow", rows=5, columns=7)), chunk_of(panning(3, 5, 7, seed=5))
    alone = encode_tokens(other)
    first = encode_tokens(one)
    assert encode_tokens(other) == alone
    decode_like(one, first)
    np.testing.assert_array_equal(decode_like(other, alone).vectors, other.vectors)
    # What there is to forget: the same step in the same chunk again is shown otherwise, and is not as likely.
    found = []
    for _ in range(2):
        traversal = MotionTraversal(5 * MOTION_MAPS, 7, maps=MOTION_MAPS, network=motion_network())
        for _ in range(2):
            counter = Asked(0)
            traversal.code_step(counter, one.vectors[1].copy())
            found.append([odds for _, odds in counter.coded])
    assert found[0] == found[2] != found[1] == found[3]


# --- damage ---


@given(
    data=st.binary(max_size=90) | st.binary(min_size=1, max_size=22).map(lambda part: part * 4),
    steps=st.integers(2, 4),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
)
@settings(max_examples=60)
def test_random_words_are_refused_or_are_the_code_of_what_they_say(
    data: bytes, steps: int, rows: int, columns: int
) -> None:
    shape = chunk_of(np.zeros((steps, rows * MOTION_MAPS, columns, 2), np.int16))
    try:
        found = decode_like(shape, data)
    except CorruptStreamError:
        return
    assert not found.vectors[0].any()
    assert np.abs(found.vectors.astype(int)).max() <= MAX_VECTOR
    assert encode_tokens(found) == data


@given(at=st.integers(0), bit=st.integers(0, 7), kind=st.sampled_from(KINDS[1:]))
@settings(max_examples=25)
def test_altered_words_are_refused_or_are_the_code_of_others(at: int, bit: int, kind: str) -> None:
    assert_refused_or_the_code_of_others(chunk_of(seven(kind, kind, rows=3, columns=9)), at=at, bit=bit)


@given(kind=st.sampled_from(KINDS[1:]), kept=st.floats(0, 1), more=st.binary(max_size=12))
@settings(max_examples=15)
def test_cut_words_are_refused_or_are_the_code_of_others(kind: str, kept: float, more: bytes) -> None:
    chunk = chunk_of(seven(kind, kind, rows=3, columns=5))
    whole = encode_tokens(chunk)
    data = whole[: int(kept * len(whole))] + more
    try:
        found = decode_like(chunk, data)
    except CorruptStreamError:
        return
    assert encode_tokens(found) == data


class Given:
    """A coder from which these bits come, and then zeros."""

    def __init__(self, *given_bits: int) -> None:
        self._bits = list(given_bits)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        return np.asarray([self._bits.pop(0) if self._bits else 0 for _ in bits], np.uint8)


@pytest.mark.parametrize(
    ("given_bits", "message"),
    [
        ([1], "of zeros alone"),
        ([0, 1], "as expected alone"),
        # It is told, x differs, to the right, by 2^9 and more: nine ones, and nine bits of which the first is 1.
        ([1, 1, 1, *[1] * 9, *[1] * 9], "beyond 511 half pixels"),
        ([1, 1, 0, *[1] * 9, *[0] * 9], "beyond 511 half pixels"),
    ],
)
def test_maps_that_cannot_be_are_refused(given_bits: list[int], message: str) -> None:
    traversal = MotionTraversal(MOTION_MAPS, 1, maps=MOTION_MAPS, network=motion_network())
    with pytest.raises(CorruptStreamError, match=message) as caught:
        traversal.code_step(Given(*given_bits), np.zeros((MOTION_MAPS, 1, 2), np.int16))
    assert caught.value.hint == "the file is damaged"
