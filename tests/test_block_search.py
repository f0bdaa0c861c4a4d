"""Block matching: cutting blocks, their errors, and what is found by going downhill or by trying all shifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tokcodec.geometry import MAX_VECTOR
from tokcodec.tokenizer.block_search import (
    BLOCK,
    COARSE,
    REACH,
    SAMPLING,
    BlockErrors,
    EitherErrors,
    HalfPixels,
    MeanErrors,
    coarse_field,
    descend,
    field_of_motion,
    neighbours,
)
from tokcodec.tokenizer.displacement import Trials
from tokcodec.tokenizer.motion import displacement_of_map
from tokcodec.tokenizer.overlapped import OVERLAP, Reference
from tokcodec.tokenizer.search import search
from tokcodec.tokenizer.second_reference import Places

TAPS = np.array([-1, 4, -11, 40, 40, -11, 4, -1]) / 64
SIZES = pytest.mark.parametrize(("height", "width"), [(48, 64), (40, 56), (16, 16), (8, 24)])

Luma = NDArray[np.uint8]


def noise(height: int, width: int, *, count: int = 1, seed: int = 0) -> Luma:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), dtype=np.uint8)


def texture(height: int, width: int, *, grain: int = 8, seed: int = 0) -> Luma:
    """Blobs of about `grain` pixels, `(H, W)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, height // grain + 2, width // grain + 2, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    found: Luma = fine[0, 0].mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    return found


def moved(picture: Luma, vector: tuple[int, int]) -> Luma:
    """A picture as a decoder moves it, all of it by one vector."""
    rows, columns = (side // 8 for side in picture.shape)
    pixels = torch.from_numpy(picture).float().expand(1, 3, -1, -1)
    vectors = torch.tensor(vector).expand(1, -(-rows // 2), -(-columns // 2), 2)
    found = Reference(pixels).moved(displacement_of_map(vectors, rows, columns))
    shown: Luma = found[0, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    return shown


def grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // BLOCK), -(-width // BLOCK)


def zeros(height: int, width: int, count: int = 1) -> NDArray[np.int32]:
    return np.zeros((count, *grid(height, width), 2), np.int32)


def taken(picture: Luma, y: int, x: int, vector: NDArray[np.integer]) -> NDArray[np.float64]:
    """A block of 16x16 pixels by hand, not rounded; outside the picture its edges go on."""
    height, width = picture.shape
    padded = np.pad(picture.astype(np.float64), 4, mode="edge")
    planes = {(0, 0): padded}
    planes[1, 0] = sum(tap * np.roll(padded, 3 - k, axis=1) for k, tap in enumerate(TAPS))
    planes[0, 1] = sum(tap * np.roll(padded, 3 - k, axis=0) for k, tap in enumerate(TAPS))
    planes[1, 1] = sum(tap * np.roll(planes[1, 0], 3 - k, axis=0) for k, tap in enumerate(TAPS))
    plane = planes[vector[0] & 1, vector[1] & 1][4:-4, 4:-4]
    rows = (np.arange(y - OVERLAP, y + BLOCK + OVERLAP) + (vector[1] >> 1)).clip(0, height - 1)
    columns = (np.arange(x - OVERLAP, x + BLOCK + OVERLAP) + (vector[0] >> 1)).clip(0, width - 1)
    return plane[rows][:, columns]


# --- blocks and their errors ---


def test_blocks_are_cut_at_half_pixels():
    pictures = noise(64, 80, count=2)
    half = HalfPixels(pictures)
    number, y, x = (part.ravel() for part in np.mgrid[:2, 16:40:8, 16:56:8])
    vectors = np.random.default_rng(1).integers(-32, 16, (3, len(y), 2)).astype(np.int32)  # none leaves the picture
    assert {(int(a) & 1, int(b) & 1) for a, b in vectors.reshape(-1, 2)} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    found = half.blocks(number, y, x, vectors)
    assert found.shape == (3, len(y), REACH // SAMPLING, REACH // SAMPLING)
    assert found.dtype == np.uint8
    for k in range(3):
        for i in range(len(y)):
            expected = taken(pictures[number[i]], y[i], x[i], vectors[k, i])[::SAMPLING, ::SAMPLING]
            assert np.abs(found[k, i] - expected.clip(0, 255)).max() <= 0.51


@SIZES
def test_blocks_beyond_a_picture_have_its_edges(height: int, width: int):
    pictures = noise(height, width, count=2)
    rows, columns = grid(height, width)
    number, y, x = (part.ravel() for part in np.mgrid[:2, :rows, :columns])
    far = np.random.default_rng(2).integers(-MAX_VECTOR // 2, MAX_VECTOR // 2, (2, len(y), 2)).astype(np.int32)
    found = HalfPixels(pictures).blocks(number, BLOCK * y, BLOCK * x, 2 * far)
    for k in range(2):
        for i in range(len(y)):
            expected = taken(pictures[number[i]], BLOCK * y[i], BLOCK * x[i], 2 * far[k, i])
            np.testing.assert_array_equal(found[k, i], expected[::SAMPLING, ::SAMPLING])


@SIZES
def test_errors_are_sums_of_squares_over_every_second_pixel_by_how_much_a_vector_has_a_say(height: int, width: int):
    """Blocks that are cut count as if the edges of what is wanted went on."""
    ramp = np.minimum(np.arange(0.5, REACH, SAMPLING), REACH - np.arange(0.5, REACH, SAMPLING))
    weights = np.outer(ramp, ramp)
    weights *= BLOCK**2 / weights.sum()
    wanted, reference = noise(height, width, count=2, seed=3), noise(height, width, count=2, seed=4)
    rows, columns = grid(height, width)
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=2.5)
    vectors = 2 * np.random.default_rng(5).integers(-40, 41, (3, 2, rows, columns, 2))
    found = errors.errors(vectors)
    assert found.shape == (3, 2, rows, columns)
    assert found.dtype == np.float32
    still = np.zeros(2, np.int64)
    for k, n, y, x in np.ndindex(3, 2, rows, columns):
        place = BLOCK * y, BLOCK * x
        away = taken(reference[n], *place, vectors[k, n, y, x]) - taken(wanted[n], *place, still)
        expected = 2.5 * (weights * np.square(away[::SAMPLING, ::SAMPLING])).sum()
        assert found[k, n, y, x] == pytest.approx(expected, rel=1e-5)
    flat = vectors.reshape(3, -1, 2).astype(np.int32)
    some = np.array([len(flat[0]) - 1, 0])
    np.testing.assert_array_equal(errors.of(some, flat[:, some]), found.reshape(3, -1)[:, some])


def test_errors_of_one_picture_have_the_shape_of_its_blocks():
    wanted, reference = noise(40, 56, seed=3), noise(40, 56, seed=4)
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=1.0)
    assert errors.errors(np.zeros((3, 4, 2), np.int16)).shape == (3, 4)
    assert errors.errors(np.zeros((5, 3, 4, 2), np.int32)).shape == (5, 3, 4)


# --- fields ---


def test_neighbours_are_those_above_below_left_and_right():
    field = np.arange(12, dtype=np.int16).reshape(2, 3, 2)  # x is 0 2 4 / 6 8 10, and y one more
    found = neighbours(field)
    assert found.shape == (4, 2, 3, 2)
    assert found.dtype == np.int32
    for part, expected in zip(
        found,
        (
            [[0, 2, 4], [0, 2, 4]],
            [[6, 8, 10], [6, 8, 10]],
            [[0, 0, 2], [6, 6, 8]],
            [[2, 4, 4], [8, 10, 10]],
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(part[..., 0], expected)
        np.testing.assert_array_equal(part[..., 1], np.array(expected) + 1)
    both = neighbours(np.stack([field, field + 100]))
    np.testing.assert_array_equal(both[:, 0], found)
    np.testing.assert_array_equal(both[:, 1], found + 100)


def test_motion_becomes_vectors_of_blocks():
    motion = torch.zeros(1, 2, 3, 5)
    motion[0, 0, :2, :2] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # in units of two pixels
    motion[0, 1, :2, 4] = torch.tensor([-1.0, -2.0])  # a block that is cut
    motion[0, 0, 2, 2:4] = 1000.0
    motion[0, 1, 2, 2:4] = -1000.0
    found = field_of_motion(motion)
    assert found.shape == (1, 2, 3, 2)
    assert found.dtype == np.int32
    expected = np.zeros((2, 3, 2))
    expected[0, 0] = 10, 0  # half pixels
    expected[0, 2] = 0, -6
    expected[1, 1] = MAX_VECTOR, -MAX_VECTOR
    np.testing.assert_array_equal(found[0], expected)


# --- what is found ---


@pytest.mark.parametrize(
    ("vector", "start"),
    [((4, -2), (0, 0)), ((0, 1), (0, 0)), ((5, -3), (2, -4)), ((-7, 6), (-8, 8)), ((41, -19), (40, -16))],
)
def test_going_downhill_finds_a_shift(vector: tuple[int, int], start: tuple[int, int]):
    reference = texture(96, 128)
    errors = BlockErrors(moved(reference, vector)[None], HalfPixels(reference[None]), repeats=1.0)
    found = descend(errors, [zeros(96, 128) + start], slope=1.0)
    assert found.shape == (1, 6, 8, 2)
    assert found.dtype == np.int32
    away = np.abs(found[0, 1:-1, 1:-2] - vector).max(axis=-1)  # the rest comes from outside
    assert away.max() <= 1, "a way that is neither across nor down is not gone"
    assert np.mean(away == 0) > 0.75


def test_each_block_begins_with_the_better_of_several_fields():
    reference = texture(64, 128, seed=1)
    shifts = (60, 0), (-44, 30)
    wanted = np.concatenate([moved(reference, shifts[0])[:, :64], moved(reference, shifts[1])[:, 64:]], axis=1)
    errors = BlockErrors(wanted[None], HalfPixels(reference[None]), repeats=1.0)
    starts = [zeros(64, 128) + shift for shift in shifts]
    for order in (starts, starts[::-1]):
        found = descend(errors, order, slope=1.0)[0]
        # Blocks at the border, and those at the edges, reach into what is not theirs.
        assert np.mean(found[:, 1:3] == shifts[0]) > 0.9
        assert np.mean(found[:, 5:7] == shifts[1]) > 0.75


def test_vectors_are_alike_where_bits_are_dear():
    wanted, reference = noise(64, 96, seed=6), noise(64, 96, seed=7)
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=1.0)
    wild = np.random.default_rng(8).integers(-60, 61, (1, 4, 6, 2))
    starts = [zeros(64, 96), wild]
    lengths = [np.abs(descend(errors, starts, slope=slope)).mean() for slope in (1.0, 3e4, 1e9)]
    assert lengths[0] > lengths[1] > lengths[2] == 0


def test_going_downhill_never_makes_a_still_picture_move():
    picture = texture(48, 64)
    errors = BlockErrors(picture[None], HalfPixels(picture[None]), repeats=1.0)
    assert not descend(errors, [zeros(48, 64) + 20, zeros(48, 64)], slope=100.0).any()


def test_vectors_stay_within_their_range():
    wanted, reference = noise(48, 64, count=2, seed=6), noise(48, 64, count=2, seed=7)
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=1.0)
    generator = np.random.default_rng(9)
    ends = np.where(generator.integers(0, 2, (2, 3, 4, 2)) > 0, MAX_VECTOR, -MAX_VECTOR)
    for starts in ([ends], [ends, -ends], [3 * ends], [zeros(48, 64, 2), 3 * ends]):
        found = descend(errors, starts, slope=0.0)
        assert np.abs(found).max() <= MAX_VECTOR
    far = coarse_field(wanted[0], reference[0])
    assert np.abs(far).max() <= MAX_VECTOR


def test_two_pictures_at_once_are_as_one_by_one():
    reference = np.stack([texture(64, 80, seed=1), texture(64, 80, seed=2)])
    wanted = np.stack([moved(reference[0], (6, 3)), noise(64, 80)[0]])
    starts = np.random.default_rng(3).integers(-9, 10, (2, 2, 4, 5, 2))
    slope = np.array([[50.0], [5000.0]], np.float32)
    both = descend(BlockErrors(wanted, HalfPixels(reference), repeats=2.0), list(starts), slope=slope)
    assert both.any()
    for number in range(2):
        one = slice(number, number + 1)
        errors = BlockErrors(wanted[one], HalfPixels(reference[one]), repeats=2.0)
        found = descend(errors, list(starts[:, one]), slope=float(slope[number, 0]))
        np.testing.assert_array_equal(found[0], both[number])


def fast_pan(pixels: int) -> tuple[Luma, Luma]:
    """A picture, and it after a camera has moved that far to the right."""
    wide = texture(192, 320 + pixels, grain=12, seed=4)
    return wide[:, :320].copy(), wide[:, pixels:].copy()


@pytest.mark.parametrize("pixels", [100, 104, -100])
def test_trying_all_shifts_finds_what_moves_far(pixels: int):
    reference, wanted = fast_pan(abs(pixels))
    if pixels < 0:
        reference, wanted = wanted, reference
    found = coarse_field(wanted, reference)
    assert found.shape == (12, 20, 2)
    there = slice(2, 12) if pixels > 0 else slice(8, 18)  # the rest comes from outside
    assert np.median(np.abs(found[:, there] - [2 * pixels, 0]), axis=(0, 1)).max() <= COARSE
    errors = BlockErrors(wanted[None], HalfPixels(reference[None]), repeats=1.0)
    exact = descend(errors, [zeros(192, 320), found[None]], slope=10.0)[0, :, there]
    assert np.mean(np.abs(exact - [2 * pixels, 0]).max(axis=-1) <= 1) > 0.9


def test_dense_search_alone_would_lose_what_moves_far():
    """Why all shifts are tried: or this could go."""
    reference, wanted = (
        torch.from_numpy(part).float().div(127.5).sub(1).expand(1, 3, -1, -1) for part in fast_pan(100)
    )
    dense = field_of_motion(search(wanted.unsqueeze(1), reference)[:, 0])[0]
    assert np.mean(np.abs(dense[:, 2:12, 0] - 200) <= COARSE) < 0.5


def test_trying_all_shifts_leaves_what_stands_still():
    picture = texture(96, 128)
    assert not coarse_field(picture, picture).any()
    flat = np.full((40, 56), 99, np.uint8)
    found = coarse_field(flat, flat)
    assert found.shape == (3, 4, 2)
    assert not found.any()


def test_errors_of_some_blocks_are_those_that_all_have() -> None:
    generator = np.random.default_rng(3)
    wanted, near, far = generator.integers(0, 256, (3, 1, 50, 70), dtype=np.uint8)
    halves, first = HalfPixels(near), HalfPixels(far)
    tried = (
        BlockErrors(wanted, halves, repeats=2.0),
        EitherErrors(wanted, halves, first, Places.at_start(4, 5), repeats=2.0, price=9.0),
        MeanErrors(BlockErrors(wanted, halves, repeats=2.0), generator.integers(0, 256, (20, 256), dtype=np.uint8)),
        Trials([(0.5, wanted[0]), (1.0, near[0])], far[0], repeats=2.0),
    )
    vectors, blocks = generator.integers(-30, 31, (3, 4, 5, 2)), np.asarray([17, 3, 4, 0])
    for errors in tried:
        whole = errors.errors(vectors).reshape(3, 20)
        some = errors.errors(vectors.reshape(3, 20, 2)[:, blocks], blocks)
        assert some.dtype == np.float32
        np.testing.assert_allclose(some, whole[:, blocks], rtol=1e-6)


def test_a_mean_is_tried_with_what_the_other_side_brings() -> None:
    """Two pictures that are wrong in opposite ways by as much: each vector alone has an error, the right mean none."""
    generator = np.random.default_rng(3)
    wanted = generator.integers(40, 216, (1, 48, 64), dtype=np.uint8)
    wrong = generator.integers(-40, 41, wanted.shape).astype(np.int16)
    sides = [(wanted + sign * wrong).astype(np.uint8) for sign in (1, -1)]
    near, far = (BlockErrors(wanted, HalfPixels(side), repeats=1.0) for side in sides)
    still, other = np.zeros((3, 4, 2), np.int32), np.full((3, 4, 2), 2)
    both = MeanErrors(near, far.moved(np.arange(12), still.reshape(-1, 2)))
    assert not both.errors(still).any()
    assert both.errors(other).min() > 0
    assert near.errors(still).min() > 0
    assert both.errors(still).dtype == np.float32
    assert np.array_equal(both.of(np.arange(12), still.reshape(1, 12, 2))[0], both.errors(still).ravel())
