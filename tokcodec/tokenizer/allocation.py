"""The bits that each block of a step keeps: what an encoder may choose, and no decoder needs to know.

Both ways here are causal: a step's map follows from the steps up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    frames: int
    tokens: NDArray[np.int64]
    """Tokens of each block: `(block_rows, block_columns)`; those at the edge have fewer."""

    def distortions(self, levels: Sequence[int]) -> Distortions:
        """Squared error of each block, were all blocks to keep that level: `(len(levels), block_rows, block_columns)`.

        Summed over the step's frames and the pixels of the picture, of 8-bit values, mean over colours.
        """
        ...


class Allocator(Protocol):
    """Chooses the levels of each step, in order."""

    def start_chunk(self) -> None:
        """Forget the past."""
        ...

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        ...


@dataclass(frozen=True, kw_only=True)
class UniformAllocator:
    """The same level everywhere.

    Attributes:
        level: An index into the geometry's `level_bits`.
    """

    level: int

    def start_chunk(self) -> None:
        """Nothing to forget."""

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        return np.full(trial.tokens.shape, self.level, np.uint8)


@dataclass(frozen=True, kw_only=True)
class RateDistortionConfig:
    """How :class:`RateDistortionAllocator` weighs.

    Attributes:
        slope: Lambda: squared error (sum over pixels of 8-bit values) that one coded bit must save.
        tried: Levels that are decoded; what lies between is interpolated. Must begin with 0 and end with the highest.
        coded_share: Coded bits for each raw bit.
        block_bits: Bits that a block costs beyond its tokens, where it keeps any.
        first_weight: How often the first step's error counts, for later steps are made of it.
        horizon: Later steps for which an improvement of a still block can count.
    """

    slope: float
    tried: tuple[int, ...] = (0, 3, 6)
    coded_share: float = 0.75
    block_bits: float = 2.0
    first_weight: float = 4.0
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

    def start_chunk(self) -> None:
        """Forget the past."""
        self._left = None

    def choose(self, trial: Trial) -> Levels:
        """Levels of a step: uint8 `(block_rows, block_columns)`."""
        config = self._config
        bits = np.asarray(trial.geometry.level_bits, np.float64)
        top = len(bits) - 1
        tried = tuple(sorted({min(level, top) for level in config.tried}))
        error = np.maximum(trial.distortions(tried), 1.0)
        # Errors fall about as a power of the bits; in the logarithm, what lies between is a straight line.
        logs = np.stack([np.log(error[n]) for n in range(len(tried))])
        flat = logs.reshape(len(tried), -1)
        all_levels = np.stack([np.interp(np.arange(top + 1), tried, column) for column in flat.T], axis=1)
        expected = np.exp(all_levels).reshape(top + 1, *error.shape[1:])
        if trial.first or self._left is None:
            weight = np.full(error.shape[1:], config.first_weight)
        else:
            stays = np.clip(self._left * trial.frames / expected[0], 0.0, 0.95)
            weight = (1 - stays**config.horizon) / (1 - stays)
        coded = config.coded_share * bits[:, None, None] * trial.tokens
        coded[1:] += config.block_bits
        cost = weight * expected + config.slope * coded
        if trial.first:
            cost[0] = np.inf  # the first step is all there is to go on from
        levels = cost.argmin(axis=0)
        self._left = np.take_along_axis(expected, levels[None], axis=0)[0] / trial.frames
        chosen: Levels = levels.astype(np.uint8)
        return chosen
