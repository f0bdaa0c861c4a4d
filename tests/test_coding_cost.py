"""What an encoder expects bits to cost: it learns what repeats, and comes near to what the entropy coder needs."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.bits import encode_tokens
from tokcodec.geometry import TokenGeometry
from tokcodec.tokenizer.coding_cost import CodingCost
from tokcodec.tokens import TokenChunk

PLANES = 6


def noise(seed: int, *, rows: int = 12, columns: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.asarray([-1, 1], np.int8), (PLANES, rows, columns))


def test_noise_costs_a_bit_once_it_was_seen():
    cost = CodingCost(PLANES)
    for seed in range(12):
        cost.learn(noise(seed))
    assert cost.estimate(noise(99)).mean() == pytest.approx(1.0, abs=0.03)


def test_what_repeats_costs_little_and_only_there():
    cost = CodingCost(PLANES)
    for seed in range(12):  # the first three planes stay as they are, the others are noise
        cost.learn(np.concatenate([noise(0)[:3], noise(seed)[3:]]))
    found = cost.estimate(np.concatenate([noise(0)[:3], noise(99)[3:]])).mean(axis=(1, 2))
    assert found[:3].max() < 0.2
    assert found[3:].min() > 0.9
    assert cost.estimate(-noise(0))[:3].mean() > 2.0, "what does not repeat is dear"
    cost.start_chunk()
    assert cost.estimate(noise(0)).mean() == pytest.approx(CodingCost(PLANES).estimate(noise(0)).mean())


def test_bits_that_were_not_kept_are_no_reason_to_expect_anything():
    cost = CodingCost(PLANES)
    cost.learn(np.zeros((PLANES, 12, 16), np.int8))
    np.testing.assert_array_equal(cost.estimate(noise(1)), CodingCost(PLANES).estimate(noise(1)))


def test_only_some_planes_may_be_asked_for():
    cost = CodingCost(PLANES)
    cost.learn(noise(0))
    np.testing.assert_array_equal(cost.estimate(noise(1)[:2]), cost.estimate(noise(1))[:2])


@pytest.mark.parametrize("change", [0.02, 0.2])
def test_the_estimate_is_near_what_the_entropy_coder_needs(change: float):
    random = np.random.default_rng(5)
    steps = [np.repeat(np.repeat(noise(3, rows=6, columns=8), 4, axis=1), 4, axis=2)]
    for _ in range(9):
        steps.append(np.where(random.random(steps[0].shape) < change, -steps[-1], steps[-1]))
    cost, expected = CodingCost(PLANES), 0.0
    for step in steps:
        expected += float(cost.estimate(step).sum())
        cost.learn(step)
    weights = 1 << np.arange(PLANES, dtype=np.uint64)
    indices = np.stack([((step > 0) * weights[:, None, None]).sum(axis=0).astype(np.uint64) for step in steps])
    geometry = TokenGeometry(bits_per_token=PLANES, level_bits=(0, 3, 6))
    chunk = TokenChunk(indices=indices, levels=np.full((10, 6, 8), 2, np.uint8), geometry=geometry)
    assert expected == pytest.approx(8 * len(encode_tokens(chunk)), rel=0.25)


def test_a_first_step_of_bits_that_are_seldom_set_is_priced_by_itself():
    bits = np.where(np.random.default_rng(1).random((PLANES, 24, 32)) < 0.05, 1, -1).astype(np.int8)
    known, unknown = (CodingCost(PLANES, seldom=seldom).estimate(bits).mean() for seldom in (True, False))
    assert known < 0.4 < unknown
