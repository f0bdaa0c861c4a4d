"""Tokens drawn from a prior: the same everywhere, and as the entropy coder sees them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tiny_prior
from numpy.typing import NDArray
from test_bits import formula_chunk
from test_prior import random_prior

from tokcodec import bits
from tokcodec.continuation import Continuation, thresholds, usual_levels
from tokcodec.errors import ModelError, UsageError
from tokcodec.probability.prior_network import PriorNetwork
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenChunk, TokenGeometry, masks, spread_levels
from tokcodec.weights.priors import prior_from_bytes

NETWORK = prior_from_bytes(tiny_prior.prior_bytes())


def past_of(*, steps: int, rows: int, columns: int) -> TokenChunk:
    """Tokens with every level somewhere."""
    return formula_chunk(steps=steps, rows=rows, columns=columns, geometry=DEFAULT_GEOMETRY, mixed_levels=True)


def drawn(past: TokenChunk, steps: int, network: PriorNetwork = NETWORK, **options: float) -> TokenChunk:
    """`past` and what goes on from it."""
    source = Continuation(past, network, **options)  # type: ignore[arg-type]
    news = np.stack([source.step() for _ in range(steps)])
    return TokenChunk(
        indices=np.concatenate([past.indices, news]),
        levels=np.concatenate([past.levels, np.stack([source.levels] * steps)]),
        geometry=past.geometry,
    )


class Listener:
    """Passes bits through, and keeps them and their probabilities."""

    def __init__(self) -> None:
        self.heard: list[tuple[NDArray[np.uint8], NDArray[np.int32]]] = []

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        self.heard.append((bits, probabilities))
        return bits


def heard_of(chunk: TokenChunk, network: PriorNetwork, first: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Bits and probabilities of the tokens from step `first` on, as the entropy coder meets them."""
    steps, rows, columns = chunk.indices.shape
    traversal = bits._Traversal(rows, columns, chunk.geometry, "prior", network)
    coder = Listener()
    traversal.start(coder, steps)
    traversal._code_levels = lambda coder, levels: None  # type: ignore[method-assign]
    for step in range(steps):
        if step == first:
            coder.heard.clear()
        indices, vectors = chunk.indices[step].copy(), chunk.vectors[step].copy()
        traversal.code_step(coder, indices, chunk.levels[step], vectors, first=step == 0)
    return np.concatenate([found for found, _ in coder.heard]), np.concatenate([given for _, given in coder.heard])


def test_at_temperature_zero_every_bit_is_the_likelier_one_of_the_coder():
    past = past_of(steps=3, rows=6, columns=9)
    found, probabilities = heard_of(drawn(past, 2, temperature=0.0), NETWORK, 3)
    assert found.size > 500
    np.testing.assert_array_equal(found, probabilities > 32768)


def test_at_temperature_one_bits_come_as_often_as_the_prior_says():
    past = past_of(steps=2, rows=12, columns=16)
    found, probabilities = heard_of(drawn(past, 6, temperature=1.0, seed=5), NETWORK, 2)
    share = probabilities / 65536
    spread = np.sqrt((share * (1 - share)).sum())
    assert spread > 10
    assert abs(found.sum() - share.sum()) < 4 * spread
    assert 0.01 < np.mean(found != (probabilities > 32768)) < 0.99, "they are drawn, not chosen"


def test_the_same_seed_draws_the_same_tokens_on_every_machine():
    past = past_of(steps=2, rows=5, columns=7)
    one, two, other = (drawn(past, 3, seed=seed, temperature=0.75) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.indices, two.indices)
    assert np.any(one.indices != other.indices)
    digest = hashlib.sha256(one.indices.astype("<u8").tobytes()).hexdigest()
    assert digest[:16] == "643fe43f83c3d651", "written down once, so that another machine or NumPy shows"


def test_what_is_drawn_is_canonical_and_can_be_coded():
    past = past_of(steps=4, rows=6, columns=9)
    whole = drawn(past, 3, seed=1)
    for step in range(4, 7):
        assert not np.any(whole.indices[step] & ~masks(whole.kept_bits_of(step)))
    data = bits.encode_tokens(whole, model="prior", network=NETWORK)
    back = bits.decode_tokens(data, steps=7, rows=6, columns=9, geometry=past.geometry, model="prior", network=NETWORK)
    np.testing.assert_array_equal(back.indices, whole.indices)


def test_wide_tokens_with_their_own_levels():
    geometry = TokenGeometry(bits_per_token=54, level_bits=(0, 3, 6, 9, 12, 15, 18, 24, 30, 36, 45, 54))
    network = PriorNetwork(*random_prior(planes=54, channels=4))
    levels = (np.arange(2 * 2 * 2).reshape(2, 2, 2) % 12).astype(np.uint8)
    levels[1] = [[11, 9], [0, 3]]
    values = np.random.default_rng(0).integers(0, 1 << 54, (2, 6, 6), dtype=np.uint64)
    for step in range(2):
        values[step] &= masks(spread_levels(levels[step], geometry, rows=6, columns=6))
    past = TokenChunk(indices=values, levels=levels, geometry=geometry)
    whole = drawn(past, 2, network)
    np.testing.assert_array_equal(whole.levels[2], levels[1])
    assert np.any(whole.indices[2] >> np.uint64(45)), "the last bits are drawn too"
    assert not whole.indices[2, 4:, :4].any(), "a block of level 0 has none"
    bits.encode_tokens(whole, model="prior", network=network)


def test_levels_are_the_lower_median_of_the_last_steps():
    past = past_of(steps=6, rows=4, columns=8)
    past.levels[:, 0, 0] = [6, 1, 5, 2, 4, 3]
    past.levels[:, 0, 1] = [6, 6, 0, 0, 6, 6]
    assert usual_levels(past).tolist() == [[3, 0]]
    one = TokenChunk(indices=past.indices[:1], levels=past.levels[:1], geometry=past.geometry)
    assert usual_levels(one).tolist() == [[6, 6]], "a first step alone has no other"
    two = TokenChunk(indices=past.indices[:2], levels=past.levels[:2], geometry=past.geometry)
    assert usual_levels(two).tolist() == [[1, 6]]


def test_where_blocks_usually_keep_nothing_nothing_is_drawn_and_the_past_is_not_read(monkeypatch: pytest.MonkeyPatch):
    past = past_of(steps=5, rows=4, columns=8)
    past.levels[1:] = 0
    past.levels[2] = past.levels[4] = 6
    whole = drawn(past, 2)
    assert not whole.levels[5:].any()
    assert not whole.indices[5:].any()
    monkeypatch.setattr(Continuation, "_step", None)
    assert not Continuation(past, NETWORK).draws
    past.levels[3, 0, 0] = 1
    with pytest.raises(TypeError):
        Continuation(past, NETWORK)


def test_temperatures():
    asked = np.asarray([32, 8192, 32768, 57344, 65504])
    assert thresholds(0.0)[asked].tolist() == [0, 0, 0, 65536, 65536]
    assert thresholds(1.0)[asked].tolist() == asked.tolist()
    cold, hot = thresholds(0.5)[asked] / 65536, thresholds(2.0)[asked] / 65536
    share = asked / 65536
    for found, power in ((cold, 2.0), (hot, 0.5)):
        wanted = share**power / (share**power + (1 - share) ** power)
        np.testing.assert_allclose(found, wanted, atol=0.01)
    for wrong in (-0.1, 8.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="temperature"):
            thresholds(wrong)


def test_what_does_not_fit_is_refused():
    past = past_of(steps=1, rows=2, columns=2)
    with pytest.raises(UsageError, match="seed"):
        Continuation(past, NETWORK, seed=-1)
    with pytest.raises(ModelError, match="tokens of"):
        Continuation(past, PriorNetwork(*random_prior(planes=12, channels=4)))


def test_a_bit_is_one_where_the_upper_sixteen_bits_of_a_raw_number_are_below_its_probability():
    source = Continuation(past_of(steps=1, rows=2, columns=2), NETWORK, temperature=1.0)

    class Fixed:
        def random_raw(self, size: int) -> NDArray[np.uint64]:
            return np.asarray([999 << 48 | 0xFFFFFFFFFFFF, 1000 << 48, 0, 0xFFFF << 48], dtype=np.uint64)[:size]

    source._generator = Fixed()  # type: ignore[assignment]
    assert source._draw(np.asarray([1000, 1000, 32, 65504], dtype=np.int32)).tolist() == [1, 0, 1, 0]
