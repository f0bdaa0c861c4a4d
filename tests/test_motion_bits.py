"""Motion maps <-> bytes (spec section 7.10)."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
import spec_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from make_vectors import FOLDER, motion_map
from numpy.typing import NDArray
from test_bits import assert_refused_or_the_code_of_others, decode_like

from tokcodec.bits import encode_tokens, motion_bit_count, tokens_crc32
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import CorruptStreamError, UsageError
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS
from tokcodec.inspection import decode_chunk
from tokcodec.motion_bits import expected_map
from tokcodec.tokens import TokenChunk, TokenGeometry, truncate

GEOMETRY = TokenGeometry(bits_per_token=1, level_bits=(0, 1), block_tokens=64, motion_tokens=MOTION_TOKENS)
"""Tokens that cost next to nothing beside the maps."""
SPEC_GEOMETRY = spec_decoder.Geometry(1, (0, 1), 64, motion=True)
KINDS = ("none", "random", "extreme", "slow", "smooth", "sparse")


def chunk_of(vectors: NDArray[np.int16], *, cut: bool = False, seven: bool = False) -> TokenChunk:
    """A chunk of no bits with these maps, `(steps, motion_rows, motion_columns, 2)`; `cut`: sides are odd."""
    count = MOTION_MAPS if seven else 1
    steps, rows, columns = vectors.shape[0], 2 * (vectors.shape[1] // count) - cut, 2 * vectors.shape[2] - cut
    return TokenChunk(
        indices=np.zeros((steps, rows, columns), np.uint64),
        levels=np.zeros((steps, *GEOMETRY.blocks(rows, columns)), np.uint8),
        geometry=replace(GEOMETRY, motion_maps=count),
        vectors=vectors,
    )


def maps(*kinds: str, rows: int, columns: int, seed: int = 1) -> NDArray[np.int16]:
    """The maps of a chunk, by the kinds of its later steps."""
    later = [motion_map(kind, rows, columns, seed=seed + step) for step, kind in enumerate(kinds)]
    return np.stack([np.zeros((rows, columns, 2), np.int16), *later])


def assert_round_trip(vectors: NDArray[np.int16], *, cut: bool = False, seven: bool = False) -> bytes:
    chunk = chunk_of(vectors, cut=cut, seven=seven)
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    assert back.vectors.dtype == np.int16
    np.testing.assert_array_equal(back.vectors, vectors)
    assert tokens_crc32(back) == tokens_crc32(chunk)
    return data


# --- there and back ---


@given(data=st.data())
def test_any_maps_come_back(data: st.DataObject) -> None:
    steps, rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    reach, seven = data.draw(st.sampled_from([1, 3, 40, MAX_VECTOR])), data.draw(st.booleans())
    shape = (steps, rows * (MOTION_MAPS if seven else 1), columns, 2)
    given_maps = data.draw(arrays(np.int16, shape, elements=st.integers(-reach, reach)))
    given_maps[0] = 0
    cut = data.draw(st.booleans())
    words = assert_round_trip(given_maps, cut=cut, seven=seven)
    chunk = chunk_of(given_maps, cut=cut, seven=seven)
    found = spec_decoder.decode_tokens(words, *chunk.indices.shape, SPEC_GEOMETRY._replace(seven=seven))
    np.testing.assert_array_equal(found[2], given_maps)
    assert spec_decoder.tokens_crc(*found) == tokens_crc32(chunk)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 34),
    columns=st.integers(1, 34),
    kinds=st.lists(st.sampled_from(KINDS), max_size=5),
    seed=st.integers(0, 99),
    cut=st.booleans(),
)
def test_maps_of_any_grid_come_back(rows: int, columns: int, kinds: list[str], seed: int, cut: bool) -> None:
    assert_round_trip(maps(*kinds, rows=rows, columns=columns, seed=seed), cut=cut)


@pytest.mark.parametrize("place", [(0, 0), (7, 3), (8, 8), (4, 4), (16, 16), (15, 9)])
@pytest.mark.parametrize("vector", [(1, 0), (0, -1), (MAX_VECTOR, -MAX_VECTOR), (-MAX_VECTOR, 2)])
def test_one_vector_alone_comes_back(place: tuple[int, int], vector: tuple[int, int]) -> None:
    given_maps = np.zeros((3, 17, 17, 2), np.int16)
    given_maps[1, *place] = vector
    assert len(assert_round_trip(given_maps)) < 80


def test_maps_lie_between_the_tokens_and_change_none() -> None:
    geometry = TokenGeometry(motion_tokens=MOTION_TOKENS)
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 1 << 18, (4, 9, 13), dtype=np.uint64)
    levels = rng.integers(0, 7, (4, *geometry.blocks(9, 13))).astype(np.uint8)
    vectors = maps("slow", "none", "sparse", rows=5, columns=7)
    top = TokenChunk(indices=indices, levels=np.full_like(levels, 6), geometry=geometry, vectors=vectors)
    chunk = truncate(top, levels)
    assert chunk.vectors is vectors, "fewer bits of tokens leave motion as it is"
    back = decode_like(chunk, encode_tokens(chunk))
    for name in ("indices", "levels", "vectors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))
    still = replace(chunk, vectors=np.zeros_like(vectors))
    assert tokens_crc32(still) != tokens_crc32(chunk)
    assert len(encode_tokens(still)) < len(encode_tokens(chunk))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([16, 8, -8, 4, -4, -4], [8, -8, 4, -4, -4, 4]),
        ([7, 3, -3, 1, -2, -2], [3, -3, 1, -2, -2, 1]),
        ([-7, -4, 4, -2, 2, 2], [-4, 4, -2, 2, 2, -2]),
        ([0, 511, -511, -511, 0, 511], [0, 0, 255, -511, -256, 511]),
    ],
    ids=["even", "rounded down", "negative", "beyond"],
)
def test_maps_are_expected_where_even_motion_has_them(known: list[int], expected: list[int]) -> None:
    """By hand: half of the map of the last frame, and so on; the last two are what others differ by."""
    vectors = [np.full((1, 1, 2), value, np.int16) for value in known]
    found = [expected_map(vectors, number) for number in range(1, MOTION_MAPS)]
    assert [int(value[0, 0, 0]) for value in found] == expected
    assert {value.dtype for value in found} == {np.dtype(np.int16)}


# --- the same bytes everywhere ---

GOLDEN = {
    "random": "e04dc6ee2fd560d43428624aad801148369f3f141348ea1fd48bde1877bd80d2",
    "extreme": "b9540346359244cb602469fc8c122229342aae3bc06e6040f4171099696dd1af",
    "slow": "4fa1c3c628a71b11fc3332c0a596723b2da8b2740fe9b326346c74ef090163f0",
    "smooth": "1b1f772eee2477682a0be1ddd01dd4d046edc265ac2120025675413f91bdb9ab",
    "sparse": "d81919dbedd89b5767ee637a358a5696c68c87f3dc2ff58cdd9667825d85309e",
    "none": "6802d71c85363e1d98c221c94f4fe7cc735e4b4401bcd6311dcce0eaeed854c6",
}
"""SHA-256 of the coded bytes of three later steps: the first and the last of the kind, one at rest between."""


@pytest.mark.parametrize("kind", GOLDEN)
def test_coded_bytes_are_the_same_everywhere(kind: str) -> None:
    data = assert_round_trip(maps(kind, "none", kind, rows=19, columns=27))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[kind]


def test_coding_again_gives_the_same_bytes_and_leaves_the_maps_alone() -> None:
    vectors = maps("random", "smooth", rows=11, columns=6)
    before = vectors.copy()
    data = encode_tokens(chunk_of(vectors))
    np.testing.assert_array_equal(vectors, before)
    assert encode_tokens(chunk_of(np.asfortranarray(vectors))) == data
    vectors.flags.writeable = False
    assert encode_tokens(chunk_of(vectors)) == data


# --- what they cost ---


def test_what_is_easily_said_costs_little() -> None:
    size = {
        kind: len(encode_tokens(chunk_of(maps(*[kind] * 4, rows=23, columns=40)))) for kind in KINDS if kind != "none"
    }
    assert size["smooth"] < size["sparse"] < size["slow"] < size["random"]
    assert size["smooth"] < size["random"] / 10
    assert size["random"] < 4 * 23 * 40 * 20 / 8 * 1.25, "20 bits are needed for a vector of any length"
    assert len(encode_tokens(chunk_of(maps(*["none"] * 16, rows=23, columns=40)))) <= 8


def test_motion_that_goes_on_costs_next_to_nothing() -> None:
    pan = np.zeros((17, 23, 40, 2), np.int16)
    pan[1:] = 14, -6
    one, all_ = (len(encode_tokens(chunk_of(pan[:steps]))) for steps in (2, 17))
    assert one < 250
    assert (all_ - one) / 15 < 20, "bytes a step"


# --- what is refused ---


@given(
    data=st.binary(max_size=90) | st.binary(min_size=1, max_size=22).map(lambda part: part * 4),
    steps=st.integers(2, 4),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    seven=st.booleans(),
)
@settings(max_examples=250)
def test_random_words_are_refused_or_are_the_code_of_what_they_say(
    data: bytes, steps: int, rows: int, columns: int, seven: bool
) -> None:
    shape = chunk_of(np.zeros((steps, rows * (MOTION_MAPS if seven else 1), columns, 2), np.int16), seven=seven)
    try:
        found = decode_like(shape, data)
    except CorruptStreamError:
        return
    assert not found.vectors[0].any()
    assert np.abs(found.vectors.astype(int)).max() <= MAX_VECTOR
    assert encode_tokens(found) == data


@given(at=st.integers(0), bit=st.integers(0, 7), kind=st.sampled_from(KINDS[1:]), seven=st.booleans())
@settings(max_examples=100)
def test_altered_words_are_refused_or_are_the_code_of_others(at: int, bit: int, kind: str, seven: bool) -> None:
    rows = 3 * MOTION_MAPS if seven else 6
    chunk = chunk_of(maps(kind, kind, rows=rows, columns=9), seven=seven)
    assert_refused_or_the_code_of_others(chunk, at=at, bit=bit)


def test_maps_that_are_told_and_need_not_be_are_refused() -> None:
    for name, message in (("of_zeros", "of zeros alone"), ("as_expected", "as expected alone")):
        reader = read_stream(io.BytesIO((FOLDER / f"bad/motion_{name}.tok").read_bytes()))
        _, told = (item for item in reader if isinstance(item, ChunkRecord))
        with pytest.raises(CorruptStreamError, match=message):
            decode_chunk(told, reader.header)


def test_maps_that_cannot_be_are_refused() -> None:
    good = maps("slow", rows=3, columns=4)
    first, far, below = good.copy(), good.copy(), good.copy()
    first[0, 1, 1, 0] = 1
    far[1, 2, 3, 1] = MAX_VECTOR + 1
    below[1, 0, 0, 0] = np.iinfo(np.int16).min
    for vectors in (first, far, below):
        with pytest.raises(UsageError, match="motion vectors"):
            encode_tokens(chunk_of(vectors))
    chunk = chunk_of(good)
    for vectors in (good[:1], good[:, :2], good[..., :1], np.zeros((2, 0, 0, 2), np.int16)):
        with pytest.raises(UsageError, match="do not fit"):
            encode_tokens(replace(chunk, vectors=vectors))
    with pytest.raises(UsageError, match="do not fit"):
        encode_tokens(replace(chunk, geometry=replace(GEOMETRY, motion_tokens=0)))


def test_what_maps_cost_is_told_apart_from_tokens() -> None:
    chunk = chunk_of(maps("random", "smooth", rows=9, columns=16))
    still = replace(chunk, vectors=np.zeros_like(chunk.vectors))
    both, without = (8 * len(encode_tokens(found)) for found in (chunk, still))
    assert both - without == pytest.approx(motion_bit_count(chunk), abs=64)
    assert motion_bit_count(chunk) > 1000
    plain = TokenChunk(indices=np.zeros((2, 4, 4), np.uint64), levels=np.zeros((2, 1, 1), np.uint8))
    assert motion_bit_count(plain) == 0
