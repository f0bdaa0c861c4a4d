"""The edges of blocks of a first picture are smoothed, in whole numbers (spec section 8.10).

As in HEVC (ITU-T H.265, section 8.7.2): where a picture is even on both sides of an edge of a block, and the step
across it is no larger than a quantizer makes it, it is taken for one that is not in the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokcodec.picture_layout import CELL, MODES, SIZES, Blocks

GRID = 8
"""Pixels between the lines of edges that are looked at."""
LARGEST_CHANGE = 3, 400
"""Share of a quantizer's step, in its unit, by which a pixel at an edge may change: 0.12 of it in pixels."""
UNEVENNESS = 9, 80
"""Share of it from which on there is unevenness: 1.8 of it in pixels."""

Pixels = NDArray[np.float64]


def deblocked(pixels: Pixels, blocks: Blocks, step: int) -> Pixels:
    """A picture with smooth edges of blocks.

    Args:
        pixels: Whole numbers, float64 `(3, H, W)`, H and W multiples of 8.
        blocks: Its layout, uint8 `(H / 4, W / 4)`.
        step: The quantizer's, in whole numbers, see :func:`tokcodec.intra.step_units`.
    """
    side = np.asarray(SIZES)[blocks // MODES] // CELL
    rows, columns = np.indices(blocks.shape)
    change, uneven = (float(step * part // whole) for part, whole in (LARGEST_CHANGE, UNEVENNESS))
    upright, level = columns % side == 0, (rows % side == 0).T
    found = np.empty_like(pixels)
    for colour, plane in enumerate(pixels):  # one after the other, which needs a third of the memory
        across = _across(plane, upright, change, uneven)
        found[colour] = _across(across.T, level, change, uneven).T
    return found


def _across(pixels: Pixels, begins: NDArray[np.bool_], change: float, uneven: float) -> Pixels:
    """Smooth upright edges; `begins`, `(H / 4, W / 4)`, says at which cells a block begins at the left."""
    height, width = pixels.shape
    found = pixels.copy()
    if width < 2 * GRID:
        return found
    half = GRID // 2
    lines = found[:, half:-half].reshape(height // CELL, CELL, width // GRID - 1, GRID)
    line = [lines[..., place] for place in range(GRID)]
    p3, p2, p1, p0, q0, q1, q2, q3 = line
    left, right = np.abs(p2 - 2 * p1 + p0), np.abs(q2 - 2 * q1 + q0)
    ends = [0, CELL - 1]
    bent = (left + right)[:, ends]
    at_edge = begins[:, GRID // CELL :: GRID // CELL]
    smooth = at_edge & (bent.sum(axis=1) < uneven)
    flat = (
        (2 * bent < np.floor(uneven / 4))
        & ((np.abs(p3 - p0) + np.abs(q0 - q3))[:, ends] < np.floor(uneven / 8))
        & (np.abs(p0 - q0)[:, ends] < np.floor((5 * change + 1) / 2))
    ).all(axis=1)
    strong = [
        np.floor((2 * p3 + 3 * p2 + p1 + p0 + q0 + 4) / 8),
        np.floor((p2 + p1 + p0 + q0 + 2) / 4),
        np.floor((p2 + 2 * p1 + 2 * p0 + 2 * q0 + q1 + 4) / 8),
        np.floor((p1 + 2 * p0 + 2 * q0 + 2 * q1 + q2 + 4) / 8),
        np.floor((p0 + q0 + q1 + q2 + 2) / 4),
        np.floor((p0 + q0 + q1 + 3 * q2 + 2 * q3 + 4) / 8),
    ]
    missing = np.floor((9 * (q0 - p0) - 3 * (q1 - p1) + 8) / 16)
    is_step = np.abs(missing) < 10 * change
    shift = np.clip(missing, -change, change)
    one_side = np.floor((uneven + np.floor(uneven / 2)) / 8)
    more = []
    for bend, outer, inner, next_, sign in ((left, p2, p0, p1, 1), (right, q2, q0, q1, -1)):
        even = (bend[:, ends].sum(axis=1) < one_side)[:, None]
        moved = np.floor((np.floor((outer + inner + 1) / 2) - next_ + sign * shift) / 2)
        half_change = np.floor(change / 2)
        more.append(next_ + even * np.clip(moved, -half_change, half_change))
    weak = [p2, more[0], p0 + shift, q0 - shift, more[1], q2]
    smooth, flat = smooth[:, None], flat[:, None]
    for place in range(1, GRID - 1):
        old = line[place]
        firm = np.clip(strong[place - 1], old - 2 * change, old + 2 * change)
        new = np.where(flat, firm, np.where(is_step, weak[place - 1], old))
        columns = found[:, half + place : -half : GRID]
        columns[...] = np.where(smooth, new, old).reshape(columns.shape)
    return found
