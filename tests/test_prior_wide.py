"""The prior on wide tokens, of more levels than it has spans of planes (spec section 7.3)."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import spec_decoder
import tiny_prior
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bits import formula_chunk, geometries
from test_prior import LEARNED, random_prior, spec_geometry

from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.probability import prior
from tokcodec.probability.interface import Checkerboard
from tokcodec.probability.prior_network import PriorNetwork
from tokcodec.probability.schedule import MAX_SPANS, level_by_level, spans_of
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenChunk, TokenGeometry, truncate
from tokcodec.weights.priors import prior_from_bytes

WIDE = TokenGeometry(bits_per_token=54, level_bits=tiny_prior.WIDE_LEVELS)
WEIGHTS = tiny_prior.prior_bytes(tiny_prior.WIDE_SIZES)


def wide_chunk(*, steps: int = 3, rows: int = 9, columns: int = 14, mixed_levels: bool = True) -> TokenChunk:
    return formula_chunk(steps=steps, rows=rows, columns=columns, geometry=WIDE, mixed_levels=mixed_levels)


def looks_at(chunk: TokenChunk, network: PriorNetwork, patch: pytest.MonkeyPatch) -> list[tuple[int, range]]:
    """Cells and planes of each look of the network."""
    looks: list[tuple[int, range]] = []
    ask = PriorNetwork.stretches

    def counted(self: PriorNetwork, first: NDArray[Any], before: NDArray[Any], planes: range) -> Any:
        looks.append((len(first), planes))
        return ask(self, first, before, planes)

    patch.setattr(PriorNetwork, "stretches", counted)
    encode_tokens(chunk, model="prior", network=network)
    return looks


def test_spans_of_known_tables() -> None:
    def borders(table: tuple[int, ...]) -> list[int]:
        return [span.start for span in spans_of(table)]

    assert borders(DEFAULT_GEOMETRY.level_bits) == [0, 3, 6, 9, 12, 15]
    assert borders(WIDE.level_bits) == [0, 3, 9, 15, 24, 36]
    assert borders((0, 1)) == [0]
    assert borders((0, 10, 40)) == [0, 10]
    assert borders(tuple(range(16))) == [0, 2, 5, 7, 10, 12]


@given(geometry=geometries())
def test_spans_hold_every_plane_once_and_end_at_levels(geometry: TokenGeometry) -> None:
    spans = spans_of(geometry.level_bits)
    assert len(spans) <= MAX_SPANS
    assert [plane for span in spans for plane in span] == list(range(geometry.bits_per_token))
    assert {span.start for span in spans} <= set(geometry.level_bits)


@settings(max_examples=40)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_each_kept_bit_is_coded_once_in_at_most_twelve_looks(geometry: TokenGeometry, seed: int) -> None:
    rng, grid = np.random.default_rng(seed), Checkerboard.of(5, 8)
    kept = rng.choice(geometry.level_bits[: rng.integers(1, 17)], grid.cells).astype(np.uint8)
    seen = np.zeros((geometry.bits_per_token, grid.cells), int)
    looks, cells = [], np.arange(grid.cells)
    for group in level_by_level(grid, kept, geometry.level_bits):
        seen[group.plane, group.where] += 1
        if group.plane == group.planes.start:
            looks.append(group)
        assert (group.planes, group.colour) == (looks[-1].planes, looks[-1].colour)
        first = cells[looks[-1].where]
        assert np.array_equal(cells[group.where], first if group.within is None else first[group.within])
        assert (kept[group.where] > group.planes.start).all()
        assert kept[group.where].max() > group.plane
    assert len(looks) <= 2 * MAX_SPANS
    assert np.array_equal(seen, np.arange(geometry.bits_per_token)[:, None] < kept)


def test_twelve_looks_a_step_at_wide_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = looks_at(wide_chunk(steps=2, mixed_levels=False), prior_from_bytes(WEIGHTS), monkeypatch)
    assert len(looks) == 2 * 12
    assert looks[:12] == [(63, span) for span in spans_of(WIDE.level_bits) for _ in (0, 1)]


def test_planes_that_no_token_keeps_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = wide_chunk(steps=1, mixed_levels=False)
    levels = np.full_like(chunk.levels, 0)
    levels[0, 0, 0], levels[0, 1, 2] = 8, 2  # 30 bits of the span 24 .. 35, 6 of the span 3 .. 8
    looks = looks_at(truncate(chunk, levels), prior_from_bytes(WEIGHTS), monkeypatch)
    wanted = [(16, range(3)), (16, range(3, 9)), (8, range(9, 15)), (8, range(15, 24)), (8, range(24, 30))]
    assert looks == [look for look in wanted for _ in (0, 1)]


@pytest.mark.parametrize("window", [3, 5])
def test_sums_that_grow_span_by_span_are_those_of_all_that_is_known(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tensors = random_prior(planes=54, window=window, channels=8, seed=11)
    network, chunk = PriorNetwork(config, tensors), wide_chunk()
    wanted = encode_tokens(chunk, model="prior", network=network)
    monkeypatch.setattr(prior, "GroupedPrior", prior.PlainPrior)
    assert encode_tokens(chunk, model="prior", network=network) == wanted


def test_one_span_of_all_64_planes_does_not_overflow_a_count() -> None:
    geometry = TokenGeometry(bits_per_token=64, level_bits=(0, 64))
    chunk = formula_chunk(steps=2, rows=5, columns=6, geometry=geometry, mixed_levels=False)
    config, tensors = random_prior(planes=64, channels=6, seed=12)
    network = PriorNetwork(config, tensors)
    data = encode_tokens(chunk, model="prior", network=network)
    back = decode_tokens(data, steps=2, rows=5, columns=6, geometry=geometry, model="prior", network=network)
    assert np.array_equal(back.indices, chunk.indices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "GroupedPrior", prior.PlainPrior)
        assert encode_tokens(chunk, model="prior", network=network) == data


GOLDEN = {
    ("prior", False): "cfaac7385aa0e2eddf79e336aba46476d87724cf4bbe991ea64a5c692f217b83",
    ("prior", True): "37aa7c54f4ce9282b8dea3bdbcfc4dd5a0ad7362aa7e2af7e72c95976f72a0d1",
}


@pytest.mark.parametrize(("model", "mixed_levels"), GOLDEN)
def test_golden_bytes(model: str, mixed_levels: bool) -> None:
    data = encode_tokens(wide_chunk(mixed_levels=mixed_levels), model=model, network=prior_from_bytes(WEIGHTS))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[model, mixed_levels]


@pytest.mark.parametrize("model", LEARNED)
def test_the_independent_decoder_agrees(model: str) -> None:
    small = model != "prior"  # token after token is slow
    chunk = wide_chunk(steps=2, rows=2 if small else 6, columns=3 if small else 9)
    data = encode_tokens(chunk, model=model, network=prior_from_bytes(WEIGHTS))
    steps, rows, columns = chunk.indices.shape
    indices, levels, _ = spec_decoder.decode_tokens(data, steps, rows, columns, spec_geometry(WIDE), prior=WEIGHTS)
    assert np.array_equal(indices, chunk.indices)
    assert np.array_equal(levels, chunk.levels)


def test_the_independent_decoder_agrees_on_sixteen_levels() -> None:
    table = (0, *(bits for bits, _ in pairwise(range(2, 17))), 20)
    geometry = TokenGeometry(bits_per_token=20, level_bits=table, block_tokens=2)
    weights = tiny_prior.prior_bytes({**tiny_prior.SIZES, "bits_per_token": 20})
    chunk = formula_chunk(steps=2, rows=7, columns=9, geometry=geometry, mixed_levels=True)
    data = encode_tokens(chunk, model="prior", network=prior_from_bytes(weights))
    indices, *_ = spec_decoder.decode_tokens(data, 2, 7, 9, spec_geometry(geometry), prior=weights)
    assert np.array_equal(indices, chunk.indices)
