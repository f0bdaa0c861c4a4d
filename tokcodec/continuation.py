"""Tokens that go on from those of a chunk, drawn from a prior. No torch; the same on every machine.

The prior says of each bit how likely it is; an entropy coder would code the bit, here it is drawn. What is drawn is
the past of the next step. Everything is whole numbers: the raw numbers of a PCG64 generator, which NumPy promises
never to change, are compared with 16-bit probabilities.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import UsageError
from tokcodec.motion_bits import expected_map
from tokcodec.probability import PRIOR, create_model, schedule_of
from tokcodec.probability.interface import Checkerboard
from tokcodec.probability.logistic import LOG, PROBABILITY_MIN, SQUASH, STRETCH_MAX
from tokcodec.tokens import TokenChunk, spread_levels

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork

TEMPERATURE_UNIT = 256
"""Temperatures are rounded to multiples of 1/256."""
MAX_TEMPERATURE = 8.0
LEVEL_STEPS = 4
"""Steps whose levels say how many bits the drawn steps keep."""


def thresholds(temperature: float) -> NDArray[np.int32]:
    """By what a 16-bit number must stay below to draw a 1, for each 16-bit probability of a 1: int32 `(65537,)`.

    Args:
        temperature: 0 takes the likelier bit, 1 draws as the prior says; in between and above, the logarithm of
            the odds is divided by it.

    Raises:
        UsageError: Not from 0 to 8.
    """
    if not math.isfinite(temperature) or not 0 <= temperature <= MAX_TEMPERATURE:
        raise UsageError(f"the temperature is from 0 to {MAX_TEMPERATURE:g}, not {temperature!r}")
    units = round(temperature * TEMPERATURE_UNIT)
    probability = np.arange(65537)
    if units == 0:
        return np.where(probability > 32768, 65536, 0).astype(np.int32)
    if units == TEMPERATURE_UNIT:
        return probability.astype(np.int32)
    ones = probability.clip(PROBABILITY_MIN, 65536 - PROBABILITY_MIN) >> 2
    odds = (LOG[ones] - LOG[16384 - ones]) >> 4
    cooled = (odds * TEMPERATURE_UNIT // units).clip(-STRETCH_MAX, STRETCH_MAX)
    table: NDArray[np.int32] = SQUASH[cooled + STRETCH_MAX]
    return table


def usual_levels(past: TokenChunk) -> NDArray[np.uint8]:
    """The level of each block that is usual of late: uint8 `(block_rows, block_columns)`.

    It is the lower median of up to four last steps; a chunk's first step, which codes a picture of its own, counts
    only where there is no other (a picture by coefficients keeps nothing, and so does what follows it alone).
    """
    late = np.sort(past.levels[1:][-LEVEL_STEPS:] if len(past.levels) > 1 else past.levels, axis=0)
    usual: NDArray[np.uint8] = late[(len(late) - 1) // 2]
    return usual


def expected_vectors(past: TokenChunk) -> NDArray[np.int16]:
    """The motion maps of the steps that follow, if all goes on evenly as in the last one.

    Returns:
        int16, as one of `past.vectors`. Of seven maps the first goes on, and the others are as motion that is even
        would have them: in the last step a frame may have been one that was repeated, or one that shook. Nothing
        comes from the chunk's first picture.
    """
    maps: list[NDArray[np.int16]] = np.split(past.vectors[-1], past.geometry.step_maps)[:1]
    for number in range(1, past.geometry.motion_maps):
        maps.append(expected_map(maps, number))
    if past.geometry.second_reference:
        maps.append(np.zeros_like(maps[0]))
    return np.concatenate(maps)


class Continuation:
    """Draws step after step.

    Args:
        past: The chunk to go on from, at least one step.
        network: A prior for tokens of as many bits.
        seed: Of the generator, 0 or more.
        temperature: See :func:`thresholds`.

    Raises:
        UsageError: A value is out of range.
        ModelError: The prior is for tokens of another number of bits.
    """

    def __init__(self, past: TokenChunk, network: PriorNetwork, *, seed: int = 0, temperature: float = 1.0) -> None:
        if seed < 0:
            raise UsageError(f"the seed is a whole number from 0 on, not {seed}")
        self._threshold = thresholds(temperature)
        self._generator = np.random.PCG64(seed)
        _, self._rows, self._columns = past.indices.shape
        self._geometry = past.geometry
        self._grid = Checkerboard.of(self._rows, self._columns)
        self._schedule = schedule_of(PRIOR)
        self._model = create_model(PRIOR, grid=self._grid, planes=past.geometry.bits_per_token, network=network)
        self.levels = usual_levels(past)
        """Levels of the steps that are drawn: uint8 `(block_rows, block_columns)`."""
        self.draws = bool(self.levels.any())
        """Whether these steps keep any bits; if not, nothing is drawn, and they are the tokenizer's forecast."""
        if self.draws:
            for indices, levels in zip(past.indices, past.levels, strict=True):
                self._step(levels, indices)

    def step(self) -> NDArray[np.uint64]:
        """The next step: uint64 `(rows, columns)`, in canonical form for `levels`."""
        return self._step(self.levels, None)

    def _step(self, levels: NDArray[np.uint8], given: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
        """Takes a step in, or draws one; gives its tokens."""
        kept = spread_levels(levels, self._geometry, rows=self._rows, columns=self._columns)
        kept = kept.reshape(-1)[self._grid.order]
        known = None if given is None else given.reshape(-1)[self._grid.order]
        values = np.zeros(kept.size, dtype=np.uint64)
        self._model.start_step(kept)
        for group in self._schedule(self._grid, kept, self._geometry.level_bits):
            shift = np.uint64(group.plane)
            probabilities = self._model.probabilities(group)
            if known is None:
                bits = self._draw(probabilities)
            else:
                bits = (known[group.where] >> shift).astype(np.uint8) & np.uint8(1)
            self._model.observe(group, bits)
            values[group.where] |= bits.astype(np.uint64) << shift
        self._model.finish_step()
        indices = np.empty_like(values)
        indices[self._grid.order] = values
        return indices.reshape(self._rows, self._columns)

    def _draw(self, probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Bits, each 1 with its 16-bit probability; one raw number of the generator for each, its upper 16 bits."""
        raw = np.asarray(self._generator.random_raw(probabilities.size), dtype=np.uint64) >> np.uint64(48)
        return (raw.astype(np.int32) < self._threshold[probabilities]).astype(np.uint8)
