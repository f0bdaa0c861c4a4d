"""The bits that each block of a step keeps: what an encoder may choose, and no decoder needs to know.

Both ways here are causal: a step's map follows from the steps up to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.geometry import TokenGeometry

Distortions = NDArray[np.float64]
Levels = NDArray[np.uint8]


class Trial(Protocol):
    """A step whose tokens are known and whose levels are not."""

    geometry: TokenGeometry
    first: bool
    frames: float
    """Of the step, or how often an error of a hybrid's last frame counts."""
    transform: bool
    """Whether bits begin as coefficients, so that all levels are for all steps."""
    tokens: NDArray[np.int64]
    """Tokens of each block: `(block_rows, block_columns)`; those at the edge have fewer."""

    def coded_bits(self, levels: int) -> NDArray[np.float64]:
        """What each block's tokens are expected to cost at each of the first levels: `(levels, rows, columns)`."""
        ...

    def linear(self, levels: int) -> Distortions | None:
        """Errors of a transform without the networks, at each of the first levels: `(levels, rows, columns)`.

        In the units of `distortions`; None where there is no transform.
        """
        ...

    def distortions(self, levels: Sequence[int]) -> Distortions:
        """Squared error of each block, were all blocks to keep that level: `(len(levels), block_rows, block_columns)`.

        Summed over the step's frames and the pixels of the picture, of 8-bit values, mean over colours.
        """
        ...

    def distortion(self, levels: Levels) -> Distortions:
        """The same of each block when each keeps a level of its own: `(block_rows, block_columns)`."""
        ...


class Allocator(Protocol):
    """Chooses the levels of each step, in order."""

    @property
    def slope(self) -> float:
        """Lambda: squared error (sum over pixels of 8-bit values) that one coded bit must save."""
        ...

    def start_chunk(self) -> None:
        """Forget the past."""
        ...

    def began(self, error: Distortions) -> None:
        """Hear what is left of a first picture that was coded without levels: squared errors `(rows, columns)`."""
        ...

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        ...


@dataclass(kw_only=True)
class UniformAllocator:
    """The same level everywhere.

    Attributes:
        level: An index into the geometry's `level_bits`; what is between two indices is a mix of both, scattered
            evenly over blocks and steps. With a transform a quality, of which the highest stands for all bits.
    """

    level: float
    _step: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def slope(self) -> float:
        """That of the quality of this number, by which motion is chosen."""
        return slope_of(self.level)

    def start_chunk(self) -> None:
        """Begin the pattern again."""
        self._step = 0

    def began(self, error: Distortions) -> None:
        """Of no account here."""

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        top = len(trial.geometry.level_bits) - 1
        level = self.level * top / len(SLOPES) if trial.transform else self.level
        whole = math.floor(level)
        scattered = (_GOLDEN * (1 + np.arange(trial.tokens.size)) + _SILVER * self._step) % 1
        self._step += 1
        levels = whole + (scattered < level - whole).reshape(trial.tokens.shape)
        # The first step is all there is to go on from.
        chosen: Levels = np.clip(levels, int(trial.first), top).astype(np.uint8)
        return chosen


_GOLDEN, _SILVER = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1
"""Multiples of these are spread evenly over 0 to 1."""
GAIN_SCALE_BITS = 0.4
"""The logarithm of a block's error falls about as log(1 + bits / this): by measurement, where only some levels are
tried."""
CALM = 0.8
"""A block is calm whose error without bits was there a step before, but for a fifth."""
CALM_SHARE = 0.2
"""Of the blocks of a step, from which on it is worth the time to decode it as it was decided."""
CODED_SHARE = 0.8
"""Of what bits of a transform are expected to cost in later steps, what the prior makes of it: by measurement."""
TRIED = {1: (0, 6), 2: (0, 3, 6), 3: (0, 1, 2, 3, 4, 5, 6)}
"""Levels that are decoded at each effort, of first steps the highest one too; effort 0 tries nothing. With a transform
a few more of first steps, and of later ones none but 0 at effort 1 (0.015 dB worse than the highest as well, and than
decoding what was chosen), else the highest too."""
SLOPES = {1: 100000.0, 2: 45000.0, 3: 25000.0, 4: 14000.0, 5: 7000.0, 6: 2500.0}
"""Lambda of each quality; that of first pictures and residuals, too."""


@dataclass(frozen=True, kw_only=True)
class RateDistortionConfig:
    """How :class:`RateDistortionAllocator` weighs.

    Attributes:
        slope: Lambda: squared error (sum over pixels of 8-bit values) that one coded bit must save.
        tried: Levels that are decoded, from 0 on; what lies between is interpolated, what lies above is not chosen but
            for first steps, of which the highest level is tried too, and where there is a transform.
        block_bits: Bits that a block costs beyond its tokens, where it keeps any.
        first_weight: How often the first step's error counts, for later steps are made of it.
        first_weight_of_transform: The same of a hybrid whose first pictures are tokens.
        horizon: Later steps for which an improvement of a still block can count.
    """

    slope: float
    tried: tuple[int, ...] = TRIED[1]
    block_bits: float = 2.0
    first_weight: float = 8.0
    first_weight_of_transform: float = 60.0
    horizon: int = 6


class RateDistortionAllocator:
    """The level of least weighted error + lambda * bits, for each block by itself.

    What a step repairs stays repaired while the picture stands still, so its error is weighted by the number of
    steps for which that is expected: by p, the share of the error that the step before left in a block and that is all
    there is when the block keeps nothing now, as a geometric series.
    """

    def __init__(self, config: RateDistortionConfig) -> None:
        self._config = config
        self._left: Distortions | None = None

    @property
    def slope(self) -> float:
        """That of the configuration."""
        return self._config.slope

    def start_chunk(self) -> None:
        """Forget the past."""
        self._left = None

    def began(self, error: Distortions) -> None:
        """See :class:`Allocator`."""
        self._left = error

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        config = self._config
        table = np.asarray(trial.geometry.level_bits, np.float64)
        top = len(table) - 1
        linear, thorough = trial.linear(len(table)), len(config.tried) > len(TRIED[1])
        if linear is None:
            wanted = {*config.tried, top} if trial.first else set(config.tried)
        else:
            more = set(config.tried) if thorough else set()
            wanted = (more - {0}) | {1, 6, 9, top} if trial.first else more | {top} if more else {0}
        tried = sorted({min(level, top) for level in wanted})
        error = np.maximum(trial.distortions(tried), 1.0)
        bits = table[: tried[-1] + 1] if linear is None else table
        if linear is None:
            gains = np.log1p(table / GAIN_SCALE_BITS)
            expected = np.exp(_interpolated(gains[: len(bits)], gains[tried], np.log(error)))
        else:
            expected = _along(linear, tried, error)
        if trial.first or self._left is None:
            first_weight = config.first_weight if linear is None else config.first_weight_of_transform
            stays, weight = np.zeros(error.shape[1:]), np.full(error.shape[1:], first_weight)
        else:
            stays = np.clip(self._left * trial.frames / expected[0], 0.0, 0.95)
            weight = (1 - stays**config.horizon) / (1 - stays)
        coded = trial.coded_bits(len(bits))
        if linear is not None and not trial.first:
            coded *= CODED_SHARE
        coded[1:] += config.block_bits
        cost = weight * expected + config.slope * coded
        if trial.first:
            cost[0] = np.inf  # the first step is all there is to go on from
        levels = cost.argmin(axis=0)
        chosen: Levels = levels.astype(np.uint8)
        left = np.take_along_axis(expected, levels[None], axis=0)[0]
        looks = not trial.first and (linear is None or thorough)
        if looks and np.mean(stays > CALM) > CALM_SHARE and ((stays > CALM) & (chosen > 0)).any():
            # Among blocks without bits, bits do less good than where all have them: what does none is taken back.
            left = np.maximum(trial.distortion(chosen), 1.0)
            paid = config.slope * np.take_along_axis(coded, levels[None], axis=0)[0]
            futile = weight * left + paid >= weight * error[0]
            chosen[futile] = 0
            left = np.where(futile, error[0], left)
        self._left = left / trial.frames
        return chosen


def _interpolated(wanted: NDArray[np.float64], known: NDArray[np.float64], values: Distortions) -> Distortions:
    """Values `(len(known), ...)` at the rising places `known`, as those at `wanted`, on straight lines."""
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    part = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    part = part.reshape(-1, *[1] * (values.ndim - 1))
    lines: Distortions = values[right - 1] * (1 - part) + values[right] * part
    return lines


def _along(linear: Distortions, tried: list[int], error: Distortions) -> Distortions:
    """Errors at all levels, which between those that were tried fall as they do without the networks, and beyond the
    last by as much; levels below the first are not known, and dear."""
    found = np.full_like(linear, np.inf)
    last = tried[-1]
    found[last:] = error[-1] - np.maximum.accumulate(linear[last] - linear[last:], axis=0)
    for number, (left, right) in enumerate(pairwise(tried)):
        fall = np.maximum.accumulate(linear[left] - linear[left : right + 1], axis=0)
        evenly = np.arange(right - left + 1).reshape(-1, 1, 1) / (right - left)
        part = np.where(fall[-1] > 0, fall / np.maximum(fall[-1], 1e-9), evenly).clip(0, 1)
        found[left : right + 1] = error[number] + part * (error[number + 1] - error[number])
    return np.maximum(found, 1.0)


QUALITY_LIMITS = {0: (0.0, 6.0), 1: (-8.0, 16.0), 2: (-8.0, 16.0), 3: (-8.0, 16.0)}
"""By effort, the qualities beyond which nothing changes: below, even an error of black for white is not worth a bit."""


def slope_of(quality: float) -> float:
    """Lambda of any quality: `SLOPES` on straight lines in the logarithm, which go on beyond both ends."""
    if quality in SLOPES:
        return SLOPES[int(quality)]
    left = min(max(math.floor(quality), min(SLOPES)), max(SLOPES) - 1)
    return SLOPES[left] * math.pow(SLOPES[left + 1] / SLOPES[left], quality - left)


def allocator_for(*, quality: float, effort: int) -> Allocator:
    """The allocator of a quality, within `QUALITY_LIMITS`, and an effort.

    Args:
        quality: 1 to 6 are those of the command line; what is between and beyond serves rate control.
        effort: 0 (the same level everywhere, but for first pictures and residuals) to 3 (all levels up to
            the sixth are tried).
    """
    if effort == 0:
        return UniformAllocator(level=quality)
    return RateDistortionAllocator(RateDistortionConfig(slope=slope_of(quality), tried=TRIED[effort]))
