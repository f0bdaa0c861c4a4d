"""Blocks that come from a chunk's first picture: choice maps, places, pixels, and the encoder that makes use of it."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import spec_decoder
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tokcodec import Codec
from tokcodec.bits import decode_tokens, encode_tokens, motion_bit_count
from tokcodec.chunks import decode_chunk
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.continuation import expected_vectors
from tokcodec.errors import UsageError
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS, TokenGeometry
from tokcodec.tokenizer.block_search import BlockErrors, EitherErrors, HalfPixels
from tokcodec.tokenizer.motion import displacement_of_map
from tokcodec.tokenizer.overlapped import Reference
from tokcodec.tokenizer.second_reference import FARTHEST, Chosen, Places
from tokcodec.tokens import TokenChunk

GEOMETRY = TokenGeometry(motion_tokens=MOTION_TOKENS, motion_maps=MOTION_MAPS, second_reference=True)
Map = NDArray[np.int16]


def chunk_of(vectors: Map, choices: Map) -> TokenChunk:
    """Map 0 of each later step, `(steps, rows, columns, 2)`, others of zeros, and choice maps; no token keeps bits."""
    steps, rows, columns, _ = vectors.shape
    between = np.zeros((steps, (MOTION_MAPS - 1) * rows, columns, 2), np.int16)
    none = np.zeros((1, (MOTION_MAPS + 1) * rows, columns, 2), np.int16)
    whole = np.concatenate([none, np.concatenate([vectors, between, choices], axis=1)])
    shape = 1 + steps, 2 * rows, 2 * columns
    levels = np.zeros((1 + steps, *GEOMETRY.blocks(*shape[1:])), np.uint8)
    return TokenChunk(indices=np.zeros(shape, np.uint64), levels=levels, geometry=GEOMETRY, vectors=whole)


def choice_of(numbers: NDArray[np.integer]) -> Map:
    found = np.zeros((*numbers.shape, 2), np.int16)
    found[..., 0] = numbers
    return found


@given(data=st.data())
def test_choice_maps_come_back(data: st.DataObject) -> None:
    steps, rows, columns = (data.draw(st.integers(1, high)) for high in (4, 11, 11))
    seed, share = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    random = np.random.default_rng(seed)
    numbers = np.where(random.random((steps, rows, columns)) < share, random.integers(1, 3, (steps, rows, columns)), 0)
    vectors = random.integers(-3, 4, (steps, rows, columns, 2)).astype(np.int16)
    chunk = chunk_of(vectors, choice_of(numbers))
    found = decode_tokens(encode_tokens(chunk), steps=1 + steps, rows=2 * rows, columns=2 * columns, geometry=GEOMETRY)
    assert np.array_equal(found.vectors, chunk.vectors)


def test_nothing_chosen_costs_next_to_nothing_and_clusters_less_than_what_is_scattered() -> None:
    random = np.random.default_rng(1)
    scattered = random.permuted(np.arange(20 * 30) < 60).reshape(1, 20, 30).repeat(8, axis=0)
    cluster = np.zeros((8, 20, 30), bool)
    cluster[:, 5:11, 8:18] = True
    apart = random.permuted(scattered.reshape(8, -1), axis=1).reshape(8, 20, 30)
    sizes = [
        motion_bit_count(chunk_of(np.zeros((8, 20, 30, 2), np.int16), choice_of(2 * where)))
        for where in (np.zeros((8, 20, 30), int), cluster, apart)
    ]
    assert sizes[0] <= 96  # three words
    assert sizes[1] < 8 * 60 < sizes[2] < 8 * 60 * 8


@pytest.mark.parametrize(("component", "number"), [(0, 3), (0, -1), (1, 1)])
def test_what_is_no_choice_is_refused(component: int, number: int) -> None:
    chunk = chunk_of(np.zeros((1, 2, 2, 2), np.int16), np.zeros((1, 2, 2, 2), np.int16))
    chunk.vectors[1, -1, 0, component] = number
    with pytest.raises(UsageError, match="choice map"):
        encode_tokens(chunk)


def test_the_other_maps_are_coded_as_without_a_second_reference() -> None:
    vectors = np.random.default_rng(2).integers(-5, 6, (3, 9, 9, 2)).astype(np.int16)
    chunk = chunk_of(vectors, np.zeros_like(vectors))
    plain = replace(
        chunk, geometry=replace(GEOMETRY, second_reference=False), vectors=chunk.vectors[:, : 9 * MOTION_MAPS]
    )
    assert 0 <= len(encode_tokens(chunk)) - len(encode_tokens(plain)) <= 4


def test_what_goes_on_comes_from_the_picture_before() -> None:
    vectors = np.full((2, 3, 4, 2), 6, np.int16)
    found = expected_vectors(chunk_of(vectors, choice_of(np.ones((2, 3, 4), int))))
    assert found.shape == (8 * 3, 4, 2)
    assert np.array_equal(found[:3], vectors[-1])
    assert not found[-3:].any()


@given(data=st.data())
def test_places_are_those_of_the_spec(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    reach = data.draw(st.sampled_from([2, 40, MAX_VECTOR]))
    places, since = Places.at_start(rows, columns), np.zeros((rows, columns, 2), np.int64)
    for _ in range(3):
        vectors = random.integers(-reach, reach + 1, (rows, columns, 2)).astype(np.int16)
        since = spec_decoder.far_of(vectors, since)
        assert np.array_equal(places.of(vectors), since)
        some = random.permutation(rows * columns)[: 1 + rows * columns // 2]
        assert np.array_equal(places.of(vectors.reshape(-1, 2)[None, some], some)[0], since.reshape(-1, 2)[some])
        places = places.after(vectors)


def test_places_stay_within_their_range() -> None:
    vectors = np.full((2, 2, 2), MAX_VECTOR, np.int16)
    places = Places.at_start(2, 2)
    for _ in range(70):
        places = places.after(vectors)
    assert np.all(places.of(vectors) == FARTHEST)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (48, 64)])
def test_pictures_are_moved_as_the_spec_says(size: tuple[int, int]) -> None:
    random = np.random.default_rng(size[1])
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    own, other = (random.uniform(-1, 1, (3, *size)).astype(np.float32) for _ in range(2))
    for reach, kind in itertools.product((1, 9, MAX_VECTOR), ("random", "far", "mean", "one")):
        vectors = random.integers(-reach, reach + 1, (rows, columns, 2)).astype(np.int16)
        far = random.integers(-3 * reach, 3 * reach + 1, (rows, columns, 2))
        numbers = {"random": random.integers(0, 3, (rows, columns)), "far": np.ones((rows, columns), int)}
        numbers |= {"mean": np.full((rows, columns), 2), "one": np.eye(rows, columns, dtype=int)}
        wanted = spec_decoder.overlapped(own, vectors, spec_decoder.Second(other, far, numbers[kind]))
        displacement = displacement_of_map(torch.from_numpy(vectors)[None], size[0] // 8, size[1] // 8)
        chosen = Chosen(torch.from_numpy(numbers[kind])[None], torch.from_numpy(far).permute(2, 0, 1)[None])
        references = (Reference(torch.from_numpy(each)[None]) for each in (own, other))
        found = next(references).moved(displacement, (next(references), chosen))
        assert np.abs(found[0].numpy() - wanted).max() < 1e-5, (reach, kind)


def test_a_second_reference_has_no_gradient() -> None:
    reference = Reference(torch.zeros(1, 3, 16, 16, requires_grad=True))
    chosen = Chosen(torch.ones(1, 1, 1, dtype=torch.long), torch.zeros(1, 2, 1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="gradient"):
        reference.moved(torch.zeros(1, 2, 2, 2), (Reference(torch.zeros(1, 3, 16, 16)), chosen))


def test_tokens_of_chosen_blocks_are_marked() -> None:
    chosen = Chosen(torch.tensor([[[0, 1], [2, 0]]]), torch.zeros(1, 2, 2, 2, dtype=torch.long))
    expected = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]]).float()
    assert torch.equal(chosen.of_tokens(3, 3)[0, 0], expected)


def test_each_block_takes_what_is_best_by_more_than_its_price() -> None:
    random = np.random.default_rng(3)
    wanted = random.integers(0, 256, (1, 48, 48)).astype(np.uint8)
    noise = random.integers(-40, 41, wanted.shape)
    pictures = [wanted.copy(), np.full_like(wanted, 90)]
    sides = [HalfPixels(picture) for picture in pictures]
    still, places = np.zeros((3, 3, 2), np.int16), Places.at_start(3, 3)
    near_is_right = EitherErrors(wanted, *sides, places, repeats=1.0, price=100.0)
    assert not near_is_right.choice(still).any()
    first_is_right = EitherErrors(wanted, *sides[::-1], places, repeats=1.0, price=100.0)
    assert np.all(first_is_right.choice(still) == 1)
    assert np.allclose(first_is_right.errors(still), 100.0)
    assert not EitherErrors(wanted, *sides[::-1], places, repeats=1.0, price=1e9).choice(still).any()
    above, below = (np.clip(wanted.astype(int) + sign * noise, 0, 255).astype(np.uint8) for sign in (1, -1))
    both = EitherErrors(wanted, HalfPixels(above), HalfPixels(below), places, repeats=1.0, price=100.0)
    assert np.all(both.choice(still) == 2)
    own = BlockErrors(wanted, HalfPixels(above), repeats=1.0)
    assert np.all(both.errors(still) < own.errors(still))


def hiding_clip() -> NDArray[np.uint8]:
    """A thing that passes in front of something with texture, `(37, 128, 192, 3)`."""
    small = np.random.default_rng(5).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    behind = np.asarray(Image.fromarray(small).resize((192, 128), Image.Resampling.BICUBIC))
    frames = np.stack([behind] * 37)
    for number, frame in enumerate(frames):
        left = 6 * number - 40
        frame[32:80, max(left, 0) : max(left + 48, 0)] = 128
    return frames


def test_what_was_hidden_comes_from_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(model="fast", device="cpu", style="faithful", entropy="adaptive")
    frames = hiding_clip()
    data = codec.encode_frames(frames, quality=4, frame_rate=25)
    stream = read_stream(io.BytesIO(data))
    assert stream.header.geometry.second_reference
    (record,) = (item for item in stream if isinstance(item, ChunkRecord))
    chunk = decode_chunk(record, stream.header)
    chosen = np.split(chunk.vectors, MOTION_MAPS + 1, axis=1)[-1][..., 0] != 0
    assert not chosen[:2].any(), "the first later step has one reference"
    assert chosen[:, 2:5].sum() > chosen.sum() / 2, "where the thing went"
    shown = codec.decode_frames(data).frames
    assert np.array_equal(shown, Codec(device="cpu", style="faithful").decode_frames(data).frames)
    # Without it more bits make worse pictures.
    monkeypatch.setattr("tokcodec.tokenizer.hybrid_motion.CHOICE_BITS", 1e9)
    other = codec.encode_frames(frames, quality=4, frame_rate=25)
    assert len(other) > len(data)
    errors = [
        ((each[-1].astype(float) - frames[-1]) ** 2).mean() for each in (shown, codec.decode_frames(other).frames)
    ]
    assert errors[0] < 0.75 * errors[1], "what comes out again is better"
