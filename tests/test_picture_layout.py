"""How first pictures are cut into blocks: what is a layout, in which order it is decoded, and likely modes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from block_pictures import SHAPES_OF_PICTURES, drawn_layout, even_layout, quadtree, sides
from hypothesis import given
from hypothesis import strategies as st

from tokcodec.geometry import BLOCK_CELL
from tokcodec.picture_layout import (
    ACROSS,
    DOWN,
    LIKELY,
    MEAN,
    MODES,
    PLANAR,
    SIZES,
    UNKNOWN,
    in_order,
    is_layout,
    leaves,
    likely_modes,
    order,
)

seeds, shares = st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.7, 1.0])

# --- what is a layout ---


def test_every_number_of_a_layout_is_a_byte_that_is_not_unknown() -> None:
    assert MODES * len(SIZES) <= UNKNOWN
    assert SIZES[-1] == BLOCK_CELL
    assert all(larger == 2 * side for larger, side in itertools.pairwise(SIZES))


@given(shape=sides, seed=seeds, cuts=shares)
def test_what_random_cuts_make_is_a_layout(shape: tuple[int, int], seed: int, cuts: float) -> None:
    assert is_layout(drawn_layout(*shape, seed, cuts=cuts))


@given(shape=sides, seed=seeds, cuts=shares, at=st.integers(0), to=st.integers(0, 255))
def test_another_number_in_one_cell_is_one_only_in_a_block_of_one_cell(
    shape: tuple[int, int], seed: int, cuts: float, at: int, to: int
) -> None:
    blocks = drawn_layout(*shape, seed, cuts=cuts)
    row, column = divmod(at % blocks.size, blocks.shape[1])
    was = int(blocks[row, column])
    blocks[row, column] = to
    least = 3 * MODES
    assert is_layout(blocks) == (to == was or (least <= was and least <= to < 4 * MODES))


def test_blocks_that_are_not_aligned_are_no_layout() -> None:
    for level, side in enumerate(SIZES[:-1]):
        cells = side // 4
        for down, right in ((cells // 2, 0), (0, cells // 2), (cells // 2, cells // 2)):
            blocks = np.full((2 * cells, 2 * cells), 3 * MODES + 7, np.uint8)
            blocks[down : down + cells, right : right + cells] = MODES * level + 7
            assert not is_layout(blocks)
        aligned = np.full((2 * cells, 2 * cells), 3 * MODES + 7, np.uint8)
        aligned[cells:, cells:] = MODES * level + 7
        assert is_layout(aligned)


def test_blocks_that_overlap_are_no_layout() -> None:
    blocks = even_layout(32, 32, 0, 4)
    assert is_layout(blocks)
    blocks[4:, 4:] = MODES + 4  # a smaller one in a corner of a larger one, which is not whole then
    assert not is_layout(blocks)
    blocks[:4, :4] = MODES + 4
    assert not is_layout(blocks)
    blocks[:4, 4:], blocks[4:, :4] = MODES + 9, MODES
    assert is_layout(blocks)


def test_a_block_of_several_modes_is_none() -> None:
    blocks = even_layout(16, 16, 1, 5)
    blocks[2:, 2:] += 1
    assert not is_layout(blocks)


def test_blocks_beyond_the_edge_are_none() -> None:
    for shape in ((16, 8), (8, 16), (40, 72), (24, 32)):
        for level in (0, 1):
            blocks = np.full((shape[0] // 4, shape[1] // 4), MODES * level, np.uint8)
            assert is_layout(blocks) == (shape[0] % SIZES[level] == shape[1] % SIZES[level] == 0)
        assert is_layout(np.full((shape[0] // 4, shape[1] // 4), MODES * 2, np.uint8))


@pytest.mark.parametrize("wrong", [MODES * len(SIZES), UNKNOWN, -1, 1000])
def test_numbers_out_of_range_are_none(wrong: int) -> None:
    blocks = np.full((4, 4), 3 * MODES, np.int64)
    assert is_layout(blocks)
    assert is_layout(blocks + MODES - 1)
    blocks[3, 3] = wrong
    assert not is_layout(blocks)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (3, 4), (4, 5), (1, 4, 4)])
def test_arrays_of_other_shapes_are_none(shape: tuple[int, ...]) -> None:
    assert not is_layout(np.full(shape, 3 * MODES, np.uint8))


# --- blocks ---


@given(shape=sides, seed=seeds, cuts=shares)
def test_blocks_come_in_the_order_of_the_tree(shape: tuple[int, int], seed: int, cuts: float) -> None:
    blocks = drawn_layout(*shape, seed, cuts=cuts)
    wanted = list(quadtree(*shape, np.random.default_rng(seed), cuts=cuts))
    levels, modes, rows, columns = in_order(blocks)
    assert [*zip(levels.tolist(), (4 * rows).tolist(), (4 * columns).tolist(), strict=True)] == wanted
    np.testing.assert_array_equal(MODES * levels + modes, blocks[rows, columns])
    numbers = order(rows, columns, blocks.shape[1])
    assert (np.diff(numbers) > 0).all()
    covered = np.zeros(blocks.shape, int)
    for level, row, column in zip(levels, rows, columns, strict=True):
        side = SIZES[level] // 4
        assert row % side == column % side == 0
        covered[row : row + side, column : column + side] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("shape", SHAPES_OF_PICTURES)
def test_cells_are_in_order_by_squares_and_quarters(shape: tuple[int, int]) -> None:
    rows, columns = np.indices((shape[0] // 4, shape[1] // 4))
    found = order(rows, columns, shape[1] // 4)
    wanted = [(top // 4, left // 4) for _, top, left in quadtree(*shape, np.random.default_rng(0), cuts=1.0)]
    by_number = sorted(zip(found.flat, rows.flat, columns.flat, strict=True))
    assert [(row, column) for _, row, column in by_number] == wanted
    assert len({number for number, _, _ in by_number}) == found.size


def test_leaves_know_their_cells_and_pixels() -> None:
    blocks = even_layout(40, 72, 1, 3)
    found = leaves(blocks // MODES, 1)
    assert (found.side, len(found.rows)) == (16, 2 * 4)
    cells, pixels = np.zeros(blocks.shape, int), np.zeros((40, 72), int)
    cells[found.cells()] += 1
    pixels[found.pixels()] += 1
    np.testing.assert_array_equal(cells, blocks // MODES == 1)
    np.testing.assert_array_equal(pixels, cells.repeat(4, axis=0).repeat(4, axis=1))
    rows, columns = found.pixels()
    assert (rows.shape, columns.shape) == ((8, 16, 1), (8, 1, 16))


# --- modes ---


def naive_likely(left: int, above: int) -> list[int]:
    found: list[int] = []
    for mode in (left, above, PLANAR, MEAN, DOWN, ACROSS):
        if mode != UNKNOWN and mode not in found:
            found.append(mode)
    return found[:LIKELY]


def test_likely_modes_are_those_around_and_then_the_usual_ones() -> None:
    every = [*range(MODES), UNKNOWN]
    pairs = np.asarray(list(itertools.product(every, every)))
    found = likely_modes(pairs[:, 0], pairs[:, 1])
    assert found.shape == (len(pairs), LIKELY)
    assert found.tolist() == [naive_likely(*pair) for pair in pairs.tolist()]
    assert found.max() < MODES
    assert all(len(set(row)) == LIKELY for row in found.tolist())
    assert likely_modes(np.asarray([UNKNOWN, 5, DOWN]), np.asarray([UNKNOWN, 5, MEAN])).tolist() == [
        [PLANAR, MEAN, DOWN],
        [5, PLANAR, MEAN],
        [DOWN, MEAN, PLANAR],
    ]
    assert likely_modes(np.empty(0, np.intp), np.empty(0, np.intp)).shape == (0, LIKELY)
