"""The network for motion: tokcodec and the decoder written from the spec alone agree on maps (spec section 7.14)."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import pytest
import spec_coding
import spec_decoder
import spec_motion
from hypothesis import given, settings
from hypothesis import strategies as st
from make_vectors import motion_map
from numpy.typing import NDArray

from tokcodec.bits import encode_tokens
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS
from tokcodec.motion_bits import expected_map
from tokcodec.probability import motion_network
from tokcodec.tokens import TokenChunk, TokenGeometry

GEOMETRY = TokenGeometry(
    bits_per_token=1,
    level_bits=(0, 1),
    block_tokens=64,
    motion_tokens=MOTION_TOKENS,
    motion_maps=MOTION_MAPS,
    motion_network=True,
)
"""Tokens that cost next to nothing beside the maps."""
SPEC_GEOMETRY = spec_decoder.Geometry(1, (0, 1), 64, motion=True, seven=True, network=True)
KINDS = ("even", "nearly", "none", "random", "extreme", "slow", "smooth", "sparse")
"""Those of `make_vectors.motion_map`, and what is expected of a map, or is but for a few vectors."""
Maps = NDArray[np.int16]


def step_of(kinds: list[str], rows: int, columns: int, seed: int) -> Maps:
    """The seven maps of a step."""
    maps: list[Maps] = []
    for number, kind in enumerate(kinds):
        plain = {"even": "smooth", "nearly": "sparse"}.get(kind, kind)
        found = motion_map(plain, rows, columns, seed=seed + 10 * number)
        if number and kind in ("even", "nearly"):
            expected = expected_map(maps, number).astype(np.int16)
            change = found // 8 if kind == "nearly" else np.zeros_like(found)
            found = np.clip(expected + change, -MAX_VECTOR, MAX_VECTOR)
        maps.append(found)
    return np.concatenate(maps)


def chunk_of(steps: list[Maps], *, cut: bool = False) -> TokenChunk:
    """A chunk of no bits with these maps; `cut`: sides are odd."""
    vectors = np.stack([np.zeros_like(steps[0]), *steps])
    rows, columns = 2 * (vectors.shape[1] // MOTION_MAPS) - cut, 2 * vectors.shape[2] - cut
    return TokenChunk(
        indices=np.zeros((len(vectors), rows, columns), np.uint64),
        levels=np.zeros((len(vectors), *GEOMETRY.blocks(rows, columns)), np.uint8),
        geometry=GEOMETRY,
        vectors=vectors,
    )


def decoded(data: bytes, chunk: TokenChunk) -> Maps:
    found: Maps = spec_decoder.decode_tokens(data, *chunk.indices.shape, SPEC_GEOMETRY)[2]
    return found


def assert_same(chunk: TokenChunk) -> None:
    np.testing.assert_array_equal(decoded(encode_tokens(chunk), chunk), chunk.vectors)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    kinds=st.lists(st.lists(st.sampled_from(KINDS), min_size=7, max_size=7), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    cut=st.booleans(),
)
def test_any_maps(rows: int, columns: int, kinds: list[list[str]], seed: int, cut: bool) -> None:
    steps = [step_of(each, rows, columns, seed + 100 * number) for number, each in enumerate(kinds)]
    assert_same(chunk_of(steps, cut=cut))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 17), (20, 1), (8, 8), (9, 9), (20, 17)])
def test_grids(rows: int, columns: int) -> None:
    kinds = ["slow", "nearly", "sparse", "even", "extreme", "random", "nearly"]
    steps = [step_of(kinds[number:] + kinds[:number], rows, columns, number) for number in range(2)]
    assert_same(chunk_of([*steps, steps[-1], np.zeros_like(steps[0])]))


@pytest.mark.parametrize("kind", ["random", "extreme"])
def test_the_ends_of_what_vectors_may_be(kind: str) -> None:
    assert_same(chunk_of([step_of([kind] * MOTION_MAPS, 5, 6, seed) for seed in (1, 2)]))


class _Noting(spec_motion.MotionNetwork):
    """Notes what it is asked."""

    noted: ClassVar[list[list[int]]] = []
    places: ClassVar[set[tuple[int, int, int]]] = set()

    def stretches(self, axis: int, number: int, *args: Any) -> NDArray[np.int64]:
        self.places.add((axis, len(self.changes), number))
        return super().stretches(axis, number, *args)

    def inputs(self, *args: Any) -> list[int]:
        self.noted.append(super().inputs(*args))
        return self.noted[-1]


def test_every_input_and_place_has_been_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or maps that are the same would show little."""
    monkeypatch.setattr(spec_motion, "MotionNetwork", _Noting)
    kinds = ["slow", "nearly", "sparse", "nearly", "smooth", "random", "nearly"]
    assert_same(chunk_of([step_of(kinds[number:] + kinds[:number], 9, 9, number) for number in range(2)]))
    inputs = np.asarray(_Noting.noted)
    assert inputs.shape[1] == 34
    assert inputs.min() == 0
    assert inputs.max() == 255
    assert all(len(np.unique(values)) > 2 for values in inputs.T)
    assert len(_Noting.places) == 98


def test_the_document_names_the_network_that_the_package_has() -> None:
    digest = spec_coding.format_digest("motion")
    assert digest == motion_network.SHA256
    assert f"motion-{digest[:12]}.safetensors" == motion_network.FILE
    folder = spec_coding.ROOT / "tokcodec/weights"
    assert hashlib.sha256((folder / motion_network.FILE).read_bytes()).hexdigest() == digest
