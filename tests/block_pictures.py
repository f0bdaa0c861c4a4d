"""What the tests of first pictures by blocks share: layouts, coefficients, chunks, and the networks of a formula."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec import bits
from tokcodec.block_bits import BlockTraversal
from tokcodec.picture_layout import MODES, SIZES, UNKNOWN
from tokcodec.probability.block_network import OUTPUTS, SHAPES, BlockNetwork, block_network
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry

GEOMETRY = TokenGeometry(bits_per_token=1, level_bits=(0, 1), block_tokens=64, pictures=True, intra=True)
"""Tokens that cost next to nothing beside the picture."""
SHAPES_OF_PICTURES = [(8, 8), (16, 24), (32, 32), (40, 72), (72, 40), (8, 64), (104, 8)]
"""Sides are multiples of 8, and most not of 32."""
Coefficients = NDArray[np.int16]
Layout = NDArray[np.uint8]

sides = st.sampled_from(SHAPES_OF_PICTURES)


class Draw(Protocol):
    """As NumPy draws."""

    def random(self) -> float: ...

    def integers(self, high: int, /) -> int | np.int64: ...


class Formula:
    """Numbers of the linear congruential generator of C, which never change."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def random(self) -> float:
        self._state = (1103515245 * self._state + 12345) % (1 << 31)
        return self._state / (1 << 31)

    def integers(self, high: int, /) -> int:
        return int(high * self.random())


def quadtree(height: int, width: int, rng: Draw, *, cuts: float) -> Iterator[tuple[int, int, int]]:
    """Level, row and column in pixels of the blocks of a picture, in the order in which they are decoded."""

    def below(level: int, top: int, left: int) -> Iterator[tuple[int, int, int]]:
        side = SIZES[level]
        if top >= height or left >= width:
            return
        whole = top + side <= height and left + side <= width
        if whole and (level == len(SIZES) - 1 or rng.random() >= cuts):
            yield level, top, left
            return
        for down in (0, side // 2):
            for right in (0, side // 2):
                yield from below(level + 1, top + down, left + right)

    for top in range(0, height, SIZES[0]):
        for left in range(0, width, SIZES[0]):
            yield from below(0, top, left)


def drawn_layout(height: int, width: int, seed: int, *, cuts: float = 0.5, mode: int | None = None) -> Layout:
    """A layout by random cuts, with random modes, or one."""
    rng, modes = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    return layout_by(rng, modes, height, width, cuts=cuts, mode=mode)


def layout_by(rng: Draw, modes: Draw, height: int, width: int, *, cuts: float = 0.5, mode: int | None = None) -> Layout:
    found = np.full((height // 4, width // 4), UNKNOWN, np.uint8)
    for level, top, left in quadtree(height, width, rng, cuts=cuts):
        side, own = SIZES[level] // 4, modes.integers(MODES) if mode is None else mode
        found[top // 4 : top // 4 + side, left // 4 : left // 4 + side] = MODES * level + own
    assert found.max() < MODES * len(SIZES)
    return found


def even_layout(height: int, width: int, level: int, mode: int) -> Layout:
    """Blocks of one size, but for smaller ones at the right and below, where it does not fit in."""
    found, side = drawn_layout(height, width, 0, cuts=0.0, mode=mode), SIZES[level] // 4
    rows, columns = (length // side * side for length in found.shape)
    found[:rows, :columns] = MODES * level + mode
    return found


def drawn(height: int, width: int, *, density: float, reach: int, seed: int) -> Coefficients:
    """Coefficients of which a share is not 0, of all magnitudes up to a limit, each length as often as any other."""
    rng, shape = np.random.default_rng(seed), (3, height, width)
    sizes = np.exp(rng.uniform(0, np.log(reach + 1), shape)).astype(int).clip(1, reach)
    return np.where(rng.random(shape) < density, rng.choice([-1, 1], shape) * sizes, 0).astype(np.int16)


def drawn_picture(
    height: int,
    width: int,
    seed: int,
    *,
    density: float = 0.05,
    reach: int = 20,
    scale: int = 20,
    cuts: float = 0.5,
    mode: int | None = None,
) -> Picture:
    """A picture by blocks, drawn at random."""
    return Picture(
        coefficients=drawn(height, width, density=density, reach=reach, seed=seed),
        scale=scale,
        blocks=drawn_layout(height, width, seed, cuts=cuts, mode=mode),
    )


def chunk_of(picture: Picture) -> TokenChunk:
    """A chunk of one step with this picture."""
    rows, columns = (side // 8 for side in picture.coefficients.shape[1:])
    return TokenChunk(
        indices=np.zeros((1, rows, columns), np.uint64),
        levels=np.zeros((1, *GEOMETRY.blocks(rows, columns)), np.uint8),
        geometry=GEOMETRY,
        picture=picture,
    )


def some_tensors(seed: int = 1, *, reach: int = 300) -> dict[str, NDArray[np.int64]]:
    """Networks of random numbers."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(-reach, reach + 1, shape) * (20 if name.endswith("bias") else 1)
        for name, shape in SHAPES.items()
    }


def formula_network() -> BlockNetwork:
    """Networks of numbers that a formula makes, which never change."""
    tensors = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        count = np.arange(np.prod(shape), dtype=np.int64) + 1000 * number
        noise = (count * count * 40503 + count * 2654435 + 977) % 1000003 % 401 - 200
        tensors[name] = (noise * (20 if name.endswith("bias") else 1)).reshape(shape)
    return BlockNetwork(tensors)


class Counter:
    """In the place of the range coder: the information of what it is given, in bits."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        happened = np.where(bits > 0, probabilities, 65536 - probabilities) / 65536
        self.bits -= float(np.log2(happened).sum())
        return bits


class Scripted:
    """A coder from which these bits come, and then always the last of them."""

    def __init__(self, *script: int) -> None:
        self.script = list(script)

    def code(self, wanted: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        assert wanted.shape == probabilities.shape
        return np.asarray([self.script.pop(0) if len(self.script) > 1 else self.script[0] for _ in wanted], np.uint8)


class Tally:
    """A coder and networks that count the decisions of each network and output, and how often they were 1."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], list[int]] = {}
        self.even = 0

    def probabilities(
        self, name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
    ) -> NDArray[np.int32]:
        first = 1000 + 10 * list(OUTPUTS).index(name)
        return np.broadcast_to(np.arange(first, first + OUTPUTS[name], dtype=np.int32), (len(inputs), OUTPUTS[name]))

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        assert bits.shape == probabilities.shape
        for bit, odds in zip(bits.tolist(), probabilities.tolist(), strict=True):
            if odds == 32768:
                self.even += 1
                continue
            name, output = list(OUTPUTS)[(odds - 1000) // 10], (odds - 1000) % 10
            found = self.counts.setdefault((name, output), [0, 0])
            found[0] += 1
            found[1] += bit
        return bits


def information(picture: Picture, network: BlockNetwork | None = None) -> float:
    """Bits of a picture, by the networks of the package where none is given."""
    counter = Counter()
    BlockTraversal(network or block_network()).code(counter, bits._copied(picture))
    return counter.bits
