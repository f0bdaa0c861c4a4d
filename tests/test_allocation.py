"""What the encoder's allocators choose, on steps whose errors are made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec.geometry import DEFAULT_GEOMETRY, TokenGeometry
from tokcodec.tokenizer.allocation import (
    GAIN_SCALE_BITS,
    QUALITY_LIMITS,
    SLOPES,
    TRIED,
    RateDistortionAllocator,
    RateDistortionConfig,
    UniformAllocator,
    allocator_for,
    slope_of,
)


@dataclass
class MadeUpTrial:
    """Errors that fall from `worst` to `best` as a power of the level; `futile`: not where blocks choose."""

    worst: NDArray[np.float64]
    best: NDArray[np.float64]
    first: bool = False
    frames: int = 4
    geometry: TokenGeometry = DEFAULT_GEOMETRY
    futile: bool = False
    transform: bool = False
    asked: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def tokens(self) -> NDArray[np.int64]:
        return np.full(self.worst.shape, 16)

    def coded_bits(self, levels: int) -> NDArray[np.float64]:
        return 0.75 * np.asarray(self.geometry.level_bits[:levels])[:, None, None] * self.tokens

    def linear(self, levels: int) -> None:
        return None

    def distortions(self, levels: Sequence[int]) -> NDArray[np.float64]:
        self.asked.append(tuple(levels))
        gains = np.log1p(np.asarray(self.geometry.level_bits) / GAIN_SCALE_BITS)
        return np.stack([self.worst * (self.best / self.worst) ** (gains[level] / gains[-1]) for level in levels])

    def distortion(self, levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.asked.append(("map",))
        each = self.distortions(range(len(self.geometry.level_bits)))
        return each[0] if self.futile else np.take_along_axis(each, levels[None].astype(int), axis=0)[0]


def choose(trial: MadeUpTrial, slope: float, **options: object) -> NDArray[np.uint8]:
    allocator = RateDistortionAllocator(RateDistortionConfig(slope=slope, **options))  # type: ignore[arg-type]
    allocator.start_chunk()
    return allocator.choose(trial)


def test_uniform_is_uniform():
    assert (UniformAllocator(level=4).choose(MadeUpTrial(np.ones((2, 3)), np.ones((2, 3)))) == 4).all()


def test_uniform_qualities_of_a_transform_span_its_levels():
    geometry = TokenGeometry(bits_per_token=26, level_bits=tuple(range(0, 27, 2)))
    trial = MadeUpTrial(np.ones((2, 3)), np.ones((2, 3)), geometry=geometry, transform=True)
    means = [UniformAllocator(level=quality).choose(trial).mean() for quality in (0, 3, 6)]
    assert means == [0, pytest.approx(6.5), 13]


def test_the_extremes():
    trial = MadeUpTrial(np.full((2, 3), 1e6), np.full((2, 3), 1e4))
    assert (choose(trial, 0.0) == 6).all(), "bits that cost nothing are all kept"
    assert (choose(trial, 1e12) == 0).all()
    trial.first = True
    assert (choose(trial, 1e12) == 1).all(), "a first step never keeps nothing"
    assert trial.asked == [(0, 6)] * 3


def test_first_steps_of_wide_tokens_may_keep_more():
    wide = TokenGeometry(bits_per_token=54, level_bits=(0, 3, 6, 9, 12, 15, 18, 24, 36, 54))
    trial = MadeUpTrial(np.full((2, 3), 1e6), np.full((2, 3), 1e3), geometry=wide)
    assert (choose(trial, 1.0) == 6).all()
    trial.first = True
    assert (choose(trial, 1.0) == 9).all()
    assert trial.asked == [(0, 6), (0, 6, 9)]


@given(slope=st.floats(1.0, 1e5), factor=st.floats(1.0, 100.0))
def test_dearer_bits_are_never_more_bits(slope: float, factor: float):
    random = np.random.default_rng(0)
    best = random.uniform(1e3, 1e5, (4, 5))
    trial = MadeUpTrial(best * random.uniform(1, 50, (4, 5)), best)
    assert (choose(trial, slope * factor) <= choose(trial, slope)).all()


def test_each_block_decides_by_itself():
    worst, best = np.array([[1e6, 1e6]]), np.array([[1e4, 0.99e6]])
    levels = choose(MadeUpTrial(worst, best), 3000.0)
    assert levels[0, 0] >= 2
    assert levels[0, 1] == 0, "what bits do not repair gets none"


@pytest.mark.parametrize("tried", TRIED.values())
@pytest.mark.parametrize("slope", [500.0, 3000.0])
def test_the_choice_is_the_cheapest_of_all_levels(slope: float, tried: tuple[int, ...]):
    trial = MadeUpTrial(np.array([[8e5]]), np.array([[2e4]]))
    level = int(choose(trial, slope, first_weight=1.0, tried=tried)[0, 0])
    costs = []
    for number, bits in enumerate(DEFAULT_GEOMETRY.level_bits):
        block_bits = 2.0 if number else 0.0
        costs.append(float(trial.distortions([number])[0, 0, 0]) + slope * (0.75 * bits * 16 + block_bits))
    assert level == int(np.argmin(costs))


def test_a_repair_that_lasts_is_worth_more():
    allocator = RateDistortionAllocator(RateDistortionConfig(slope=9000.0))
    still = MadeUpTrial(np.full((1, 2), 4e5), np.full((1, 2), 1e5))
    levels = []
    for left in (1e5, 1e2):  # error per frame that the step before left: all of it stays, or next to nothing did
        allocator.start_chunk()
        allocator.choose(MadeUpTrial(np.full((1, 2), left), np.full((1, 2), left), first=True, frames=1))
        levels.append(int(allocator.choose(still)[0, 0]))
    assert levels[0] > levels[1]


@pytest.mark.parametrize("futile", [False, True])
def test_bits_that_do_no_good_in_calm_blocks_are_taken_back(futile: bool):
    allocator = RateDistortionAllocator(RateDistortionConfig(slope=2000.0))
    allocator.start_chunk()
    allocator.choose(MadeUpTrial(np.full((1, 2), 1e5), np.full((1, 2), 1e5), first=True, frames=1))
    trial = MadeUpTrial(np.full((1, 2), 4e5), np.full((1, 2), 1e5), futile=futile)
    assert (allocator.choose(trial) == 0).all() == futile
    assert ("map",) in trial.asked
    moving = MadeUpTrial(np.full((1, 2), 4e7), np.full((1, 2), 1e5), futile=futile)
    assert (allocator.choose(moving) > 0).all()
    assert ("map",) not in moving.asked, "a step without calm blocks is not decoded once more"


def test_qualities_and_efforts():
    assert allocator_for(quality=4, effort=0) == UniformAllocator(level=4)
    assert [slope for _, slope in sorted(SLOPES.items())] == sorted(SLOPES.values(), reverse=True)
    random = np.random.default_rng(1)
    best = random.uniform(1e3, 1e5, (6, 8))
    sums = []
    for quality in range(1, 7):
        trial = MadeUpTrial(best * random.uniform(1, 50, (6, 8)), best)
        sums.append(int(allocator_for(quality=quality, effort=1).choose(trial).sum()))
    assert sums == sorted(sums)


def test_qualities_between_and_beyond():
    assert [slope_of(quality) for quality in range(1, 7)] == [SLOPES[quality] for quality in range(1, 7)]
    assert slope_of(2.5) == pytest.approx((SLOPES[2] * SLOPES[3]) ** 0.5)
    slopes = [slope_of(quality / 4) for quality in range(-32, 65)]
    assert slopes == sorted(slopes, reverse=True)
    assert slope_of(7) == pytest.approx(SLOPES[6] ** 2 / SLOPES[5])
    for effort, (low, high) in QUALITY_LIMITS.items():
        if effort:
            black_for_white = 255.0**2 * 32 * 32 * 4
            trial = MadeUpTrial(np.full((1, 1), black_for_white), np.ones((1, 1)))
            assert allocator_for(quality=low, effort=effort).choose(trial) == 0
            trial = MadeUpTrial(np.full((1, 1), 1000.0), np.full((1, 1), 990.0))
            assert allocator_for(quality=high, effort=effort).choose(trial) == 6


def test_uniform_levels_between_two():
    trial = MadeUpTrial(np.ones((6, 8)), np.ones((6, 8)))
    allocator = UniformAllocator(level=2.25)
    allocator.start_chunk()
    steps = [allocator.choose(trial) for _ in range(8)]
    assert all(set(np.unique(levels)) == {2, 3} for levels in steps)
    assert np.mean(steps) == pytest.approx(2.25, abs=0.02)
    assert np.ptp(np.mean(steps, axis=0)) < 0.5, "no block has more than the others in every step"
    allocator.start_chunk()
    assert (allocator.choose(trial) == steps[0]).all()
    trial.first = True
    assert (UniformAllocator(level=0.0).choose(trial) == 1).all(), "a first step never keeps nothing"
    assert (UniformAllocator(level=9.5).choose(trial) == 6).all(), "there is no more than the highest level"
