"""First pictures by blocks: how blocks are predicted and transformed, and that all of it is whole numbers (8.9)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from block_pictures import SHAPES_OF_PICTURES, drawn_layout, drawn_picture, even_layout, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_deblocking import naive_deblocked

from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, SCALES_IN_OCTAVE
from tokcodec.intra import (
    LARGEST,
    LIMIT,
    STEP_UNIT,
    UNIT,
    Canvas,
    added,
    basis,
    coarser,
    planes,
    predicted,
    predictors,
    references,
    step_units,
    transformed,
    visits,
)
from tokcodec.picture_layout import ACROSS, DIAGONAL, DOWN, MEAN, MODES, PLANAR, SIZES, in_order
from tokcodec.tokens import Picture

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
ANGLES = {
    **dict(zip(range(2, 11), (32, 26, 21, 17, 13, 9, 5, 2, 0), strict=True)),
    **dict(zip(range(11, 19), (-2, -5, -9, -13, -17, -21, -26, -32), strict=True)),
    **dict(zip(range(19, 27), (-26, -21, -17, -13, -9, -5, -2, 0), strict=True)),
    **dict(zip(range(27, 35), (2, 5, 9, 13, 17, 21, 26, 32), strict=True)),
}
"""Table 8-5 of H.265."""
INVERSE = {2: 4096, 5: 1638, 9: 910, 13: 630, 17: 482, 21: 390, 26: 315, 32: 256}
"""Table 8-6, by the magnitude of the angle."""
SMOOTHED = {4: 99, 8: 7, 16: 1, 32: 0}
levels, modes = st.integers(0, len(SIZES) - 1), st.integers(0, MODES - 1)

# --- the same by loops, as H.265 has it: in 512ths, and rounded once ---


def naive_predicted(line: Whole, side: int, mode: int) -> Whole:
    """A block of its references, from the lowest at the left to the corner and to the last above, in whole numbers."""
    exact = 512 * line
    far = min(abs(mode - 26), abs(mode - 10)) > SMOOTHED[side]
    if side > 4 if mode == PLANAR else mode != MEAN and far:
        exact = np.concatenate([exact[:1], (exact[:-2] + 2 * exact[1:-1] + exact[2:]) // 4, exact[-1:]])
    p = {(-1, y): int(exact[2 * side - 1 - y]) for y in range(-1, 2 * side)}  # by column and row
    p |= {(x, -1): int(exact[2 * side + 1 + x]) for x in range(-1, 2 * side)}
    found = np.zeros((side, side), np.int64)
    for y in range(side):
        for x in range(side):
            found[y, x] = naive_pixel(p, side, mode, y, x)
    return found + 256 >> 9


def naive_pixel(p: dict[tuple[int, int], int], side: int, mode: int, y: int, x: int) -> int:
    edges = side < 32
    if mode == PLANAR:
        across = (side - 1 - x) * p[-1, y] + (x + 1) * p[side, -1]
        return divided(across + (side - 1 - y) * p[x, -1] + (y + 1) * p[-1, side], 2 * side)
    if mode == MEAN:
        mean = divided(sum(p[k, -1] + p[-1, k] for k in range(side)), 2 * side)
        if edges and x == y == 0:
            return divided(p[-1, 0] + 2 * mean + p[0, -1], 4)
        if edges and y == 0:
            return divided(p[x, -1] + 3 * mean, 4)
        return divided(p[-1, y] + 3 * mean, 4) if edges and x == 0 else mean
    if mode < 18:  # as those from above of what is mirrored
        p = {(down, right): value for (right, down), value in p.items()}
        y, x = x, y
    angle = ANGLES[mode]
    if angle == 0:
        return p[x, -1] + (divided(p[-1, y] - p[-1, -1], 2) if edges and x == 0 else 0)

    def reference(place: int) -> int:
        if place >= 0:
            return p[place - 1, -1]
        return p[-1, -1 + (-place * INVERSE[-angle] + 128 >> 8)]

    whole, part = (y + 1) * angle >> 5, (y + 1) * angle & 31
    value = (32 - part) * reference(x + whole + 1)
    return divided(value + (part * reference(x + whole + 2) if part else 0), 32)


def divided(value: int, by: int) -> int:
    """In 512ths nothing is left over."""
    assert value % by == 0
    return value // by


def naive_line(known: NDArray[np.bool_], plane: Whole, top: int, left: int, side: int) -> Whole:
    """The references of a block: what is known, and what stands for the rest (section 8.4.4.2.2 of H.265)."""
    places = [(top + 2 * side - 1 - n, left - 1) for n in range(2 * side)] + [(top - 1, left - 1)]
    places += [(top - 1, left + n) for n in range(2 * side)]
    height, width = plane.shape
    found = [int(plane[y, x]) if 0 <= y < height and 0 <= x < width and known[y, x] else None for y, x in places]
    if all(value is None for value in found):
        return np.zeros(len(found), np.int64)
    if found[0] is None:
        found[0] = next(value for value in found if value is not None)
    for n in range(1, len(found)):
        if found[n] is None:
            found[n] = found[n - 1]
    return np.asarray(found, np.int64)


def naive_basis(side: int) -> Whole:
    def entry(k: int, n: int) -> float:
        if side == 4:
            return 2 / math.sqrt(9) * math.sin(math.pi * (2 * k + 1) * (n + 1) / 9)
        return math.sqrt((1 if k == 0 else 2) / side) * math.cos(math.pi * (2 * n + 1) * k / (2 * side))

    return np.asarray([[round(4096 * entry(k, n)) for n in range(side)] for k in range(side)], np.int64)


def naive_added(numbers: NDArray[np.int16], scale: int) -> Whole:
    """Shifts of whole numbers; all fit into 64 bits."""
    sizes = np.abs(numbers.astype(np.int64))
    values = np.minimum((10 * sizes + 1) * naive_step(scale) // 160, 1 << 20) * np.sign(numbers)
    cosines = naive_basis(len(numbers))
    rows = cosines.T @ values + 2048 >> 12
    return rows @ cosines + 2048 >> 12


def naive_step(scale: int) -> int:
    return round(128 * 2 ** (scale / 4))


def naive_blocks(picture: Picture) -> Whole:
    """Pixels before edges are smoothed; what is known is what was decoded before, and nothing else."""
    assert picture.blocks is not None
    shape = picture.coefficients.shape[1:]
    known, found = np.zeros(shape, np.bool_), np.zeros((3, *shape), np.int64)

    def decode(level: int, top: int, left: int) -> None:
        side = SIZES[level]
        if top >= shape[0] or left >= shape[1]:
            return
        own, mode = divmod(int(picture.blocks[top // 4, left // 4]), MODES)  # type: ignore[index]
        if own > level:
            for down in (0, side // 2):
                for right in (0, side // 2):
                    decode(level + 1, top + down, left + right)
            return
        part = slice(top, top + side), slice(left, left + side)
        for colour in range(3):
            line = naive_line(known, found[colour], top, left, side)
            block = naive_predicted(line, side, mode)
            numbers = picture.coefficients[colour][part]
            if numbers.any():
                block = block + naive_added(numbers, picture.scale)
            found[colour][part] = block.clip(-1767, 1767)
        known[part] = True

    for top in range(0, shape[0], 32):
        for left in range(0, shape[1], 32):
            decode(0, top, left)
    assert known.all()
    return found


def assert_as_by_loops(picture: Picture) -> None:
    assert picture.blocks is not None
    wanted = naive_deblocked(naive_blocks(picture), picture.blocks, naive_step(picture.scale))
    np.testing.assert_array_equal(planes(picture), wanted)


@given(
    shape=sides,
    seed=st.integers(0, 999),
    cuts=st.sampled_from([0.0, 0.5, 0.9]),
    density=st.sampled_from([0.0, 0.02, 0.4]),
    scale=st.integers(0, MAX_SCALE),
)
@settings(max_examples=25)
def test_planes_are_those_of_loops(shape: tuple[int, int], seed: int, cuts: float, density: float, scale: int) -> None:
    reach = max(2, 4000 // naive_step(scale))
    assert_as_by_loops(drawn_picture(*shape, seed, density=density, reach=reach, scale=scale, cuts=cuts))


@pytest.mark.parametrize("level", range(4))
def test_every_mode_is_that_of_loops(level: int) -> None:
    side, rng = SIZES[level], np.random.default_rng(level)
    for mode in range(MODES):
        line = rng.integers(-LIMIT, LIMIT + 1, 4 * side + 1)
        found = predicted(line.astype(np.float64), level, mode)
        np.testing.assert_array_equal(found, naive_predicted(line, side, mode), err_msg=f"mode {mode}")


@pytest.mark.parametrize("scale", [0, 20, MAX_SCALE])
def test_hostile_coefficients_are_those_of_loops_and_stay_within_bounds(scale: int) -> None:
    for seed in range(4):
        picture = drawn_picture(40, 72, seed, density=0.5 * seed, reach=MAX_COEFFICIENT, scale=scale)
        if seed == 3:
            signs = np.random.default_rng(1).choice([-1, 1], picture.coefficients.shape)
            picture = replace(picture, coefficients=(signs * MAX_COEFFICIENT).astype(np.int16))
        assert_as_by_loops(picture)
        found = planes(picture)
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, np.round(found))
        assert np.abs(naive_blocks(picture)).max() <= LIMIT
        assert np.abs(found).max() <= 2 * LIMIT, "edges are smoothed, and not clipped"


def test_sums_of_hostile_coefficients_are_exact() -> None:
    """Of one sign where the cosines have it, at the largest step: below 2**53 throughout."""
    for side in SIZES:
        signs = np.sign(basis(side)).astype(np.int64)
        for number in range(side):
            worst = (MAX_COEFFICIENT * np.outer(signs[number], signs[-1 - number])).astype(np.int16)
            np.testing.assert_array_equal(added(worst, MAX_SCALE), naive_added(worst, MAX_SCALE))
        most = np.abs(basis(side)).sum(axis=0).max()
        assert most * LARGEST * most < 2**53
        assert (10 * MAX_COEFFICIENT + 1) * step_units(MAX_SCALE) < 2**53
        assert 2 * LIMIT * side * np.abs(basis(side)).max() ** 2 * side < 2**53


# --- predictions ---


@pytest.mark.parametrize("side", SIZES)
def test_shares_of_references_are_whole_and_sum_up(side: int) -> None:
    found = predictors(side)
    assert found.shape == (MODES, side * side, 4 * side + 1)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.round(found))
    np.testing.assert_array_equal(found.sum(axis=-1), 512)
    edges = {ACROSS, DOWN} if side < 32 else set()
    assert {int(mode) for mode in np.nonzero((found < 0).any(axis=(1, 2)))[0]} == edges
    assert np.abs(found).sum(axis=-1).max() * LIMIT + 256 < 2**53


@pytest.mark.parametrize("value", [0, 1, -1, 77, LIMIT, -LIMIT])
def test_all_modes_go_on_with_what_is_even(value: int) -> None:
    for level, side in enumerate(SIZES):
        line = np.full((3, 4 * side + 1), float(value))
        for mode in range(MODES):
            np.testing.assert_array_equal(predicted(line, level, mode), np.full((3, side, side), value))


def some_lines(side: int, seed: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """References, and of them those at the left from above, the corner, and those above."""
    line = np.random.default_rng(seed).integers(-LIMIT, LIMIT + 1, 4 * side + 1).astype(np.float64)
    return line, line[2 * side - 1 :: -1], line[2 * side : 2 * side + 1], line[2 * side + 1 :]


def smoothed(line: Numbers, *, exact: bool = False) -> Numbers:
    """References of which each has a share of those beside it."""
    found = line.copy()
    found[1:-1] = (line[:-2] + 2 * line[1:-1] + line[2:]) / 4
    return found if exact else np.floor(found + 0.5)


@pytest.mark.parametrize("level", range(4))
def test_straight_modes_repeat_what_is_beside(level: int) -> None:
    side = SIZES[level]
    line, left, (corner,), above = some_lines(side, 1)
    down, across = (predicted(line, level, mode) for mode in (DOWN, ACROSS))
    for y in range(side):
        for x in range(side):
            if (x and y) or side == 32:
                assert down[y, x] == above[x]
                assert across[y, x] == left[y]
    if side < 32:
        half = np.floor((left[:side] - corner) / 2 + 0.5)
        np.testing.assert_array_equal(down[:, 0], above[0] + half)
        half = np.floor((above[:side] - corner) / 2 + 0.5)
        np.testing.assert_array_equal(across[0], left[0] + half)


@pytest.mark.parametrize("level", range(4))
def test_the_diagonal_mode_goes_aside_by_one(level: int) -> None:
    side = SIZES[level]
    line, *_ = some_lines(side, 2)
    smooth = smoothed(line) if side > 4 else line
    found = predicted(line, level, DIAGONAL)
    for y in range(side):
        for x in range(side):
            assert found[y, x] == smooth[2 * side + x - y]


@pytest.mark.parametrize("level", range(4))
def test_planar_is_between_what_is_around(level: int) -> None:
    side = SIZES[level]
    line = some_lines(side, 3)[0]
    exact = smoothed(line, exact=True) if side > 4 else line
    left, above = exact[2 * side - 1 :: -1], exact[2 * side + 1 :]
    found = predicted(line, level, PLANAR)
    for y in range(side):
        for x in range(side):
            right, below = (x + 1) / side, (y + 1) / side
            across = (1 - right) * left[y] + right * above[side]
            down = (1 - below) * above[x] + below * left[side]
            assert found[y, x] == math.floor((across + down) / 2 + 0.5)


@pytest.mark.parametrize("level", range(4))
def test_the_mean_is_one_and_meets_what_is_beside(level: int) -> None:
    side = SIZES[level]
    line, left, _, above = some_lines(side, 3)
    found = predicted(line, level, MEAN)
    mean = (left[:side].sum() + above[:side].sum()) / (2 * side)
    np.testing.assert_array_equal(found[1:, 1:], np.floor(mean + 0.5))
    if side == 32:
        np.testing.assert_array_equal(found, np.floor(mean + 0.5))
    else:
        np.testing.assert_array_equal(found[0, 1:], np.floor((above[1:side] + 3 * mean) / 4 + 0.5))
        np.testing.assert_array_equal(found[1:, 0], np.floor((left[1:side] + 3 * mean) / 4 + 0.5))
        assert found[0, 0] == np.floor((left[0] + 2 * mean + above[0]) / 4 + 0.5)


@pytest.mark.parametrize("level", range(4))
def test_modes_mirror_one_another(level: int) -> None:
    """What comes from the left is what comes from above of a picture whose rows are columns."""
    line, *_ = some_lines(SIZES[level], 4)
    for mode in range(2, DIAGONAL):
        found = predicted(line, level, mode)
        np.testing.assert_array_equal(found, predicted(line[::-1], level, 2 * DIAGONAL - mode).T)
    for mode in (PLANAR, MEAN, DIAGONAL):
        np.testing.assert_array_equal(predicted(line, level, mode), predicted(line[::-1], level, mode).T)


@given(shape=sides, seed=st.integers(0, 999), mode=modes, value=st.integers(-900, 900))
@settings(max_examples=15)
def test_a_block_alone_is_the_whole_picture_by_any_mode(
    shape: tuple[int, int], seed: int, mode: int, value: int
) -> None:
    """A first block of one value goes on to all others, whatever their modes are."""
    blocks, canvas = drawn_layout(*shape, seed), Canvas(*shape, scale=0)
    for number, visit in enumerate(visits(blocks)):
        around = canvas.references(visit)
        assert number or not around.any(), "of the first block nothing is known"
        own = visit.mode if number % 2 else mode
        block = predicted(around, visit.level, own) if number else np.full((3, *[SIZES[visit.level]] * 2), float(value))
        canvas.put(visit, block, np.zeros(block.shape, np.int16))
    np.testing.assert_array_equal(canvas.pixels, value)


# --- references ---


@given(shape=sides, seed=st.integers(0, 999), cuts=st.sampled_from([0.2, 0.6, 1.0]))
def test_references_are_decoded_before(shape: tuple[int, int], seed: int, cuts: float) -> None:
    height, width = shape
    blocks, known = drawn_layout(*shape, seed, cuts=cuts), np.zeros(height * width + 1, np.bool_)
    for number, visit in enumerate(visits(blocks)):
        side = SIZES[visit.level]
        assert visit.places.shape == (4 * side + 1,)
        if number == 0:
            assert (visit.places == height * width).all(), "nothing is there yet"
        else:
            assert known[visit.places].all()
            assert (visit.places < height * width).all()
        part = known[:-1].reshape(height, width)[visit.part[1:]]
        assert not part.any(), "each block is decoded once"
        part[...] = True
    assert known[:-1].all()


@given(shape=sides, seed=st.integers(0, 999), cuts=st.sampled_from([0.2, 0.6, 1.0]))
@settings(max_examples=20)
def test_all_that_is_decoded_is_used_and_the_rest_is_what_comes_before_it(
    shape: tuple[int, int], seed: int, cuts: float
) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
    known = np.zeros(shape, np.bool_)
    for number, visit in enumerate(visits(drawn_layout(*shape, seed, cuts=cuts))):
        _, rows, columns = visit.part
        if number:
            line = naive_line(known, plane, rows.start, columns.start, SIZES[visit.level])
            np.testing.assert_array_equal(visit.places, line)
        known[rows, columns] = True


def test_references_of_a_block_by_hand() -> None:
    """Of the second of four in 16x16 pixels: beside it at the left there are eight, below these none yet."""
    (found,) = references(2, np.asarray([0]), np.asarray([2]), (16, 16))
    left = [7 + 16 * y for y in range(7, -1, -1)]
    assert found.tolist() == [left[0]] * 8 + left + [left[-1]] * 17
    (found,) = references(2, np.asarray([2]), np.asarray([0]), (16, 16))
    above = [7 * 16 + x for x in range(16)]
    assert found.tolist() == [above[0]] * 17 + above
    (found,) = references(2, np.asarray([2]), np.asarray([2]), (16, 16))
    assert found.tolist()[:8] == [15 * 16 + 7] * 8, "beyond the picture"
    assert found.tolist()[16:] == [7 * 16 + 7, *(7 * 16 + x for x in range(8, 16)), *[7 * 16 + 15] * 8]
    assert references(3, np.empty(0, np.intp), np.empty(0, np.intp), (16, 16)).shape == (0, 17)


def test_visits_are_in_order_over_all_bands() -> None:
    blocks = drawn_layout(104, 72, 3)
    found = [(visit.level, visit.mode, visit.row, visit.column) for visit in visits(blocks)]
    assert found == [*zip(*(each.tolist() for each in in_order(blocks)), strict=True)]


# --- transforms ---


@pytest.mark.parametrize("side", SIZES)
def test_cosines_are_those_of_loops_and_nearly_orthogonal(side: int) -> None:
    np.testing.assert_array_equal(basis(side), naive_basis(side))
    np.testing.assert_allclose(basis(side) @ basis(side).T / 4096**2, np.eye(side), atol=6e-4)
    assert (basis(side)[0] > 0).all()


@given(level=levels, seed=st.integers(0, 999), reach=st.sampled_from([1, 20, LIMIT]))
def test_a_block_comes_back_but_for_rounding(level: int, seed: int, reach: int) -> None:
    """By the smallest step of all: a number is wrong by half a step and a tenth, of an orthogonal transform."""
    side, rng = SIZES[level], np.random.default_rng(seed)
    block = rng.integers(-reach, reach + 1, (2, side, side)).astype(np.float64)
    found, step = transformed(block), step_units(0) * UNIT / STEP_UNIT
    np.testing.assert_array_equal(found, np.floor(found))
    numbers = (np.sign(found) * np.floor(np.abs(found) / step + 0.5)).astype(np.int16)
    back = added(numbers, 0)
    rms = float(np.sqrt(((back - block) ** 2).mean()))
    assert rms <= 0.6 * step + 1.5 + 1e-3 * reach


@pytest.mark.parametrize("side", SIZES)
def test_one_coefficient_is_a_cosine_of_its_step(side: int) -> None:
    for scale in (4, 19):
        step = 2 ** (scale / SCALES_IN_OCTAVE)
        for row, column in ((0, 0), (1, 2), (side - 1, side - 1)):
            numbers = np.zeros((side, side), np.int16)
            for size in (1, -3):
                numbers[row, column] = size
                exact = UNIT * step * (abs(size) + 0.1) * np.sign(size)
                wanted = exact * np.outer(basis(side)[row], basis(side)[column]) / 4096**2
                np.testing.assert_allclose(added(numbers, scale), wanted, atol=2.5)
            numbers[row, column] = 0
            assert not added(numbers, scale).any()


def test_steps_double_with_four_scales() -> None:
    assert step_units(0) == STEP_UNIT
    for scale in range(MAX_SCALE + 1):
        assert step_units(scale) == naive_step(scale)
        assert step_units(scale) == pytest.approx(STEP_UNIT * 2 ** (scale / SCALES_IN_OCTAVE), rel=0.003)
    for scale in range(MAX_SCALE - 3):
        assert step_units(scale + 4) == pytest.approx(2 * step_units(scale), abs=1)


# --- pictures ---


@pytest.mark.parametrize("mode", range(MODES))
def test_a_flat_picture_is_one_coefficient(mode: int) -> None:
    """Of the first block: all that come after it need none."""
    blocks = drawn_layout(40, 72, mode, mode=mode)
    blocks[:2, :2] = MODES * 2 + mode  # of 8x8 pixels, whose cosines are none where they are first
    blocks[:2, 2:8] = blocks[2:4, :8] = MODES * 2 + mode
    blocks[4:8, :8] = MODES * 2 + mode
    coefficients = np.zeros((3, 40, 72), np.int16)
    coefficients[:, 0, 0] = 3, -2, 1
    found = planes(Picture(coefficients=coefficients, scale=20, blocks=blocks))
    for plane, size in zip(found, (3, -2, 1), strict=True):
        assert (plane == plane[0, 0]).all()
        assert plane[0, 0] == pytest.approx(UNIT * 32 * (abs(size) + 0.1) * np.sign(size) / 8, abs=1)


def test_a_picture_of_nothing_is_grey() -> None:
    for shape in SHAPES_OF_PICTURES:
        assert not planes(drawn_picture(*shape, 1, density=0.0)).any()


def test_pictures_are_left_alone() -> None:
    picture = drawn_picture(40, 72, 1)
    assert picture.blocks is not None
    before = picture.coefficients.copy(), picture.blocks.copy()
    picture.coefficients.flags.writeable = picture.blocks.flags.writeable = False
    first = planes(picture)
    coarser(picture, 1)
    np.testing.assert_array_equal(planes(picture), first)
    for array, was in zip((picture.coefficients, picture.blocks), before, strict=True):
        np.testing.assert_array_equal(array, was)
    other = Picture(coefficients=np.asfortranarray(before[0]), scale=picture.scale, blocks=np.asfortranarray(before[1]))
    np.testing.assert_array_equal(planes(other), first)


def test_numbers_of_blocks_are_not_halved_by_themselves() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        drawn_picture(16, 24, 1).coarser(1)


def test_pictures_by_wavelets_are_refused() -> None:
    plain = replace(drawn_picture(16, 24, 1), blocks=None)
    for function in (planes, lambda picture: coarser(picture, 1)):
        with pytest.raises(ValueError, match="not one by blocks"):
            function(plain)


# --- coarser ones ---


def scene(height: int, width: int) -> Numbers:
    """Something smooth with an edge, in the units of planes."""
    y, x = np.mgrid[:height, :width]
    found = 500 * np.sin(x / 9) + 400 * np.cos(y / 7) + np.where(x + 2 * y > height, 300, -200)
    return np.stack([found, 0.3 * found, 200 * np.cos(x / 20)]).round()


def picture_of(wanted: Numbers, blocks: NDArray[np.uint8], scale: int) -> Picture:
    """Coefficients that are rounded, block by block."""
    canvas, step = Canvas(*wanted.shape[1:], scale=scale), step_units(scale) * UNIT / STEP_UNIT
    numbers = np.zeros(wanted.shape, np.int16)
    for visit in visits(blocks):
        prediction = predicted(canvas.references(visit), visit.level, visit.mode)
        missing = transformed(wanted[visit.part] - prediction)
        numbers[visit.part] = np.sign(missing) * np.floor(np.abs(missing) / step + 0.5)
        canvas.put(visit, prediction, numbers[visit.part])
    return Picture(coefficients=numbers, scale=scale, blocks=blocks)


def test_coarser_pictures_keep_their_blocks_and_have_larger_steps() -> None:
    picture = drawn_picture(40, 72, 1, scale=9, density=0.2)
    assert picture.blocks is not None
    for halvings in (1, 2, 5):
        found = coarser(picture, halvings)
        assert found.scale == 9 + 4 * halvings
        assert found.blocks is not None
        np.testing.assert_array_equal(found.blocks, picture.blocks)
        assert (found.coefficients.dtype, found.coefficients.shape) == (np.int16, (3, 40, 72))
        assert np.count_nonzero(found.coefficients) < np.count_nonzero(picture.coefficients)
    for halvings in (0, -3):
        assert coarser(picture, halvings) is picture


@pytest.mark.parametrize("scale", [MAX_SCALE - 6, MAX_SCALE - 3, MAX_SCALE])
def test_steps_do_not_grow_beyond_the_largest(scale: int) -> None:
    picture = drawn_picture(16, 24, 1, scale=scale)
    found = coarser(picture, 9)
    assert found.scale == scale + 4 * ((MAX_SCALE - scale) // 4)
    assert found.scale <= MAX_SCALE
    assert (found is picture) == (scale > MAX_SCALE - 4)


@given(shape=sides, seed=st.integers(0, 999), scale=st.integers(0, MAX_SCALE), halvings=st.integers(1, 4))
@settings(max_examples=20)
def test_coarser_ones_of_anything_can_be_coded(shape: tuple[int, int], seed: int, scale: int, halvings: int) -> None:
    picture = drawn_picture(*shape, seed, density=0.3, reach=MAX_COEFFICIENT, scale=scale)
    found = coarser(picture, halvings)
    assert int(np.abs(found.coefficients.astype(int)).max()) <= MAX_COEFFICIENT
    assert_as_by_loops(found)


def test_errors_of_coarser_pictures_do_not_add_up() -> None:
    """Each block is within its own quantizer of what it was, at the end of a long row as at its beginning."""
    blocks = drawn_layout(32, 256, 2, cuts=0.8)
    fine = picture_of(scene(32, 256), blocks, 8)
    exact = planes(fine)
    for halvings in (2, 4):
        found = coarser(fine, halvings)
        step = UNIT * 2 ** (found.scale / SCALES_IN_OCTAVE)
        errors = ((planes(found) - exact) ** 2).mean(axis=(0, 1)).reshape(4, 64).mean(axis=1)
        assert errors.max() < (0.45 * step) ** 2
        assert errors[-1] < 2 * errors[0] + 1
        halved = replace(fine, coefficients=fine.coefficients // (1 << halvings), scale=found.scale)
        drifting = ((planes(halved) - exact) ** 2).mean(axis=(0, 1)).reshape(4, 64).mean(axis=1)
        assert errors.mean() < 0.3 * drifting.mean(), "as of wavelets it would be far off"


def test_coarser_again_is_about_as_good_as_at_once() -> None:
    fine = picture_of(scene(40, 72), drawn_layout(40, 72, 5), 6)
    wanted = planes(fine)
    once, twice = coarser(fine, 2), coarser(coarser(fine, 1), 1)
    assert once.scale == twice.scale
    one, other = (float(((planes(each) - wanted) ** 2).mean()) for each in (once, twice))
    assert other == pytest.approx(one, rel=0.5)


@pytest.mark.parametrize("level", range(4))
def test_a_coarser_picture_is_the_best_of_its_step_but_for_small_ones(level: int) -> None:
    """No coefficient is larger than what is missing, and none is missing by more than 0.6 of a step."""
    blocks = even_layout(64, 64, level, PLANAR)
    fine = picture_of(scene(64, 64), blocks, 4)
    wanted, found = planes(fine), coarser(fine, 3)
    step = step_units(found.scale) * UNIT / STEP_UNIT
    canvas = Canvas(64, 64, found.scale)
    for visit in visits(blocks):
        prediction = predicted(canvas.references(visit), visit.level, visit.mode)
        missing = transformed(wanted[visit.part] - prediction) / step
        numbers = found.coefficients[visit.part]
        assert (np.abs(np.abs(missing) - np.abs(numbers) - 0.1) <= 0.5 + 1e-9).all()
        assert (np.sign(missing) * numbers >= 0).all()
        canvas.put(visit, prediction, numbers)
    assert np.abs(canvas.pixels).max() <= LIMIT
