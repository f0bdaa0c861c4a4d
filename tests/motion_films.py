"""What the tests of motion maps by a network share: chunks of seven maps, motion as cameras have it, other networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from test_motion_bits import chunk_of as plain_chunk_of
from test_motion_bits import maps

from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.probability.motion_network import SIZES, MotionNetwork
from tokcodec.tokens import TokenChunk

Maps = NDArray[np.int16]
SHARES = (4, 2, -2, 1, -1, -1, 1)
"""Frames that each of the seven maps reaches back, or forward."""


def chunk_of(vectors: Maps, *, cut: bool = False, network: bool = True) -> TokenChunk:
    """A chunk of seven maps a step, coded with or without a network."""
    chunk = plain_chunk_of(vectors, cut=cut, seven=True)
    return replace(chunk, geometry=replace(chunk.geometry, motion_network=network))


def some_tensors(seed: int = 1, *, reach: int = 300) -> dict[str, NDArray[np.int64]]:
    """A network of random numbers."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(-reach, reach + 1, shape) * (20 if name.endswith("bias") else 1)
        for name, shape in SIZES.shapes().items()
    }


def formula_network() -> MotionNetwork:
    """A network of numbers that a formula makes, which never change."""
    tensors = {}
    for number, (name, shape) in enumerate(SIZES.shapes().items()):
        count = np.arange(np.prod(shape), dtype=np.int64) + 1000 * number
        noise = (count * count * 40503 + count * 2654435 + 977) % 1000003 % 401 - 200
        tensors[name] = (noise * (20 if name.endswith("bias") else 1)).reshape(shape)
    return MotionNetwork(tensors)


def seven(*kinds: str, rows: int, columns: int, seed: int = 1) -> Maps:
    """The seven maps of each step of a chunk, one below the other, each by a formula of its own."""
    parts = [maps(*kinds, rows=rows, columns=columns, seed=seed + number) for number in range(MOTION_MAPS)]
    return np.concatenate(parts, axis=1)


def panning(steps: int, rows: int, columns: int, *, seed: int = 0, objects: int = 2) -> Maps:
    """The maps of a camera that pans, faster and slower, and nears a little; before it things that move otherwise.

    Here and there what is found is not what moved, of all maps alike.
    """
    rng, side = np.random.default_rng(seed), (rows, columns)
    y, x = np.indices(side)
    found, pan = np.zeros((steps, MOTION_MAPS * rows, columns, 2), np.int16), rng.normal(scale=3.0, size=2)
    for step in range(1, steps):
        pan = pan + rng.normal(scale=0.4, size=2)
        motion = np.stack([x - columns / 2, y - rows / 2], axis=-1) * 0.02 + pan
        for number in range(objects):
            top, left = (3 + 5 * number + step // 2) % rows, (4 + 9 * number + step) % columns
            motion[top : top + 4, left : left + 5] = pan + np.asarray((5 - 7 * number, 4 * number - 3))
        motion[rng.random(side) < 0.01] += rng.normal(scale=2.0, size=2)
        found[step] = np.concatenate([np.round(share * motion) for share in SHARES]).clip(-MAX_VECTOR, MAX_VECTOR)
    return found
