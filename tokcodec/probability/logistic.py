"""Integer logistic arithmetic: logarithm and squash from two short tables (spec section 7.5).

The stretch domain is 1/256 nat: `stretch = 256 ln(p / (1 - p))`, kept to +-2047. Probabilities are
16-bit: `p` stands for `p / 65536` and stays in `[PROBABILITY_MIN, 65536 - PROBABILITY_MIN]`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRETCH_MAX = 2047
"""Largest magnitude of a stretched probability."""
PROBABILITY_MIN = 32
"""Smallest 16-bit probability; the largest is 65536 less this."""

COUNT_MAX = 16384
"""Largest count of a context."""

# fmt: off
SQUASH_KNOTS = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438,
    65476, 65500, 65514,
)
"""16-bit squash at the stretches -2048, -1920, ..., 2048."""
LOG_KNOTS = (
    0, 126, 248, 367, 482, 595, 704, 810, 914, 1015, 1114, 1210, 1304, 1396, 1486, 1575, 1661, 1745,
    1828, 1909, 1989, 2067, 2143, 2218, 2292, 2365, 2436, 2506, 2575, 2642, 2709, 2775, 2839,
)
"""4096 ln(1 + j / 32) for j = 0 to 32."""
# fmt: on


def _squash_table() -> NDArray[np.int32]:
    offset = np.arange(-STRETCH_MAX, STRETCH_MAX + 1) + STRETCH_MAX + 1
    knots = np.asarray(SQUASH_KNOTS, dtype=np.int64)
    low, fraction = knots[offset >> 7], offset & 127
    value = low + ((knots[(offset >> 7) + 1] - low) * fraction >> 7)
    table: NDArray[np.int64] = value.clip(PROBABILITY_MIN, 65536 - PROBABILITY_MIN)
    return table.astype(np.int32)


SQUASH: NDArray[np.int32] = _squash_table()
"""16-bit probability of each stretch from -2047 to 2047 (spec section 7.5)."""


def _log_table() -> NDArray[np.int32]:
    count = np.arange(1, COUNT_MAX + 1)
    exponent = np.asarray([k.bit_length() - 1 for k in range(1, COUNT_MAX + 1)])
    fraction = (count << (16 - exponent)) - 65536
    knots = np.asarray(LOG_KNOTS, dtype=np.int64)
    low, rest = knots[fraction >> 11], fraction & 2047
    value = exponent * LOG_KNOTS[32] + low + ((knots[(fraction >> 11) + 1] - low) * rest >> 11)
    return np.concatenate([[0], value]).astype(np.int32)


LOG: NDArray[np.int32] = _log_table()
"""4096 ln(count) for counts from 1 to `COUNT_MAX` (spec section 7.5); entry 0 is not used."""


def stretch_of_counts(zeros: NDArray[np.int64], ones: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stretch of counts of zeros and ones, each from 1 to `COUNT_MAX` (spec section 7.5)."""
    stretch = (LOG.take(ones) - LOG.take(zeros)) >> 4
    return stretch.clip(-STRETCH_MAX, STRETCH_MAX).astype(np.int64)
