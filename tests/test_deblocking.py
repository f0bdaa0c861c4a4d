"""Edges of blocks of first pictures are smoothed where they are the quantizer's, and nowhere else (8.10)."""

from __future__ import annotations

import numpy as np
import pytest
from block_pictures import SHAPES_OF_PICTURES, drawn_layout, even_layout, sides
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec.deblocking import deblocked
from tokcodec.geometry import MAX_SCALE
from tokcodec.intra import LIMIT, step_units
from tokcodec.picture_layout import MODES, SIZES

Whole = NDArray[np.int64]
STEP = step_units(20)
"""Of 32 8-bit values, which are 256 units: edges of less than 0.12 of it are smoothed most."""

# --- the same by loops, as H.265 has it ---


def naive_deblocked(pixels: Whole, blocks: NDArray[np.uint8], step: int) -> Whole:
    """Upright edges first, of all the picture, then the others."""
    found = pixels.astype(np.int64)
    for colour in range(3):
        for turned in (False, True):
            plane = found[colour].T if turned else found[colour]
            layout = blocks.T if turned else blocks
            for top in range(0, plane.shape[0], 4):
                for x in range(8, plane.shape[1], 8):
                    side = SIZES[int(layout[top // 4, x // 4]) // MODES]
                    if x % side == 0:
                        _smooth_edge(plane[top : top + 4, x - 4 : x + 4], 3 * step // 400, 18 * step // 160)
    return found


def _smooth_edge(part: Whole, tc: int, beta: int) -> None:
    """Four lines across an edge, `(4, 8)`, in place (sections 8.7.2.5.3 to 8.7.2.5.7)."""
    lines = part.tolist()

    def bend(line: list[int]) -> tuple[int, int]:
        return abs(line[1] - 2 * line[2] + line[3]), abs(line[6] - 2 * line[5] + line[4])

    def flat(line: list[int]) -> bool:
        ends = abs(line[0] - line[3]) + abs(line[4] - line[7])
        return 2 * sum(bend(line)) < beta >> 2 and ends < beta >> 3 and abs(line[3] - line[4]) < 5 * tc + 1 >> 1

    def clip(low: int, value: int, high: int) -> int:
        return max(low, min(value, high))

    first, last = bend(lines[0]), bend(lines[3])
    if sum(first) + sum(last) >= beta:
        return
    strong = flat(lines[0]) and flat(lines[3])
    even = [first[n] + last[n] < beta + (beta >> 1) >> 3 for n in (0, 1)]
    for number, (p3, p2, p1, p0, q0, q1, q2, q3) in enumerate(lines):
        if strong:
            wanted = [
                (2 * p3 + 3 * p2 + p1 + p0 + q0 + 4) >> 3,
                (p2 + p1 + p0 + q0 + 2) >> 2,
                (p2 + 2 * p1 + 2 * p0 + 2 * q0 + q1 + 4) >> 3,
                (p1 + 2 * p0 + 2 * q0 + 2 * q1 + q2 + 4) >> 3,
                (p0 + q0 + q1 + q2 + 2) >> 2,
                (p0 + q0 + q1 + 3 * q2 + 2 * q3 + 4) >> 3,
            ]
            old = [p2, p1, p0, q0, q1, q2]
            part[number, 1:7] = [clip(was - 2 * tc, new, was + 2 * tc) for was, new in zip(old, wanted, strict=True)]
            continue
        delta = (9 * (q0 - p0) - 3 * (q1 - p1) + 8) >> 4
        if abs(delta) >= 10 * tc:
            continue
        delta = clip(-tc, delta, tc)
        part[number, 3:5] = p0 + delta, q0 - delta
        if even[0]:
            part[number, 2] = p1 + clip(-(tc >> 1), ((p2 + p0 + 1 >> 1) - p1 + delta) >> 1, tc >> 1)
        if even[1]:
            part[number, 5] = q1 + clip(-(tc >> 1), ((q2 + q0 + 1 >> 1) - q1 - delta) >> 1, tc >> 1)


def stepped(height: int, width: int, *, across: int, slope: float = 0.0, noise: int = 0, seed: int = 0) -> Whole:
    """Cells of 8x8 pixels of values that are apart, on a slope, with noise: `(3, H, W)`."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(-across, across + 1, (3, height // 8, width // 8)).repeat(8, axis=1).repeat(8, axis=2)
    y, x = np.mgrid[:height, :width]
    grain = rng.integers(-noise, noise + 1, cells.shape)
    return (cells + np.round(slope * (x + 0.5 * y)).astype(int) + grain).clip(-LIMIT, LIMIT)


@given(
    shape=sides,
    seed=st.integers(0, 999),
    scale=st.integers(0, MAX_SCALE),
    share=st.sampled_from([0.05, 0.12, 0.5, 1.5, 5.0]),
    slope=st.sampled_from([0.0, 0.7, 3.0]),
    noise=st.sampled_from([0.0, 0.01, 0.1]),
)
def test_edges_are_those_of_loops(
    shape: tuple[int, int], seed: int, scale: int, share: float, slope: float, noise: float
) -> None:
    step = step_units(scale)
    blocks = drawn_layout(*shape, seed, cuts=0.6)
    pixels = stepped(*shape, across=round(share * step / 16), slope=slope, noise=round(noise * step / 16), seed=seed)
    found = deblocked(pixels.astype(np.float64), blocks, step)
    np.testing.assert_array_equal(found, naive_deblocked(pixels, blocks, step))


def test_all_kinds_of_edges_are_among_them() -> None:
    """The loops would prove little if nothing were smoothed, or all of it likewise."""
    counts = set()
    for across, noise in ((20, 0), (60, 0), (20, 3), (60, 9), (400, 0)):
        pixels = stepped(64, 64, across=across, noise=noise, seed=across)
        moved = naive_deblocked(pixels, even_layout(64, 64, 2, 0), STEP) != pixels
        counts |= {int(each) for each in moved[0, ::4].sum(axis=1)}
    assert len(counts) > 8


# --- what is left alone ---


@pytest.mark.parametrize("shape", SHAPES_OF_PICTURES)
def test_what_is_flat_stays_so(shape: tuple[int, int]) -> None:
    for value in (0, 5, -LIMIT, LIMIT):
        pixels = np.full((3, *shape), float(value))
        for scale in (0, 20, MAX_SCALE):
            np.testing.assert_array_equal(deblocked(pixels, drawn_layout(*shape, 1), step_units(scale)), pixels)


def half_and_half(across: int, *, turned: bool = False) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Two values, and the edge of two blocks of 16x16 between them."""
    pixels = np.zeros((3, 16, 32))
    pixels[:, :, 16:] = across
    blocks = even_layout(16, 32, 1, 0)
    return (pixels.swapaxes(1, 2), blocks.T) if turned else (pixels, blocks)


@pytest.mark.parametrize("turned", [False, True])
def test_large_edges_of_the_picture_stay(turned: bool) -> None:
    change = 3 * STEP // 400
    for across in (27 * change, -27 * change, LIMIT):
        pixels, blocks = half_and_half(across, turned=turned)
        np.testing.assert_array_equal(deblocked(pixels, blocks, STEP), pixels)


@pytest.mark.parametrize("turned", [False, True])
def test_small_steps_are_smoothed(turned: bool) -> None:
    change = 3 * STEP // 400
    for across in (2, change, 2 * change, -2 * change, 10 * change):
        pixels, blocks = half_and_half(across, turned=turned)
        found = deblocked(pixels, blocks, STEP)
        line = found[0, :, 3] if turned else found[0, 3]
        assert (line[:16] * across >= 0).all(), "towards the other side"
        assert abs(line[16] - line[15]) < abs(across)
        assert (np.diff(line) * across >= 0).all(), "no pixel is beyond its neighbours"
        assert abs(line - pixels[0, :, 3] if turned else line - pixels[0, 3]).max() <= 2 * change
        if abs(across) <= 2 * change:
            assert abs(np.diff(line)).max() <= max(1, abs(across) / 2), "a step of six pixels"
        for plane in found:
            np.testing.assert_array_equal(plane, found[0])


def test_pixels_away_from_edges_stay() -> None:
    """At most three at each side of an edge, of lines that are multiples of 8 pixels apart."""
    for level in range(4):
        side = max(SIZES[level], 8)
        blocks = even_layout(64, 64, level, 0)
        pixels = stepped(64, 64, across=30, noise=2, seed=level).astype(np.float64)
        moved = (deblocked(pixels, blocks, STEP) != pixels).any(axis=0)
        place = np.arange(64)
        near = ((place + 3) % side < 6) & (place > 4) & (place < 60)
        assert not moved[np.ix_(~near, ~near)].any()
        assert moved[:, near].any()
        assert moved[near].any()


def test_within_a_block_nothing_is_smoothed() -> None:
    pixels = stepped(32, 32, across=30, seed=1).astype(np.float64)
    np.testing.assert_array_equal(deblocked(pixels, even_layout(32, 32, 0, 0), STEP), pixels)
    assert (deblocked(pixels, even_layout(32, 32, 2, 0), STEP) != pixels).any()


def test_blocks_of_four_pixels_have_edges_only_at_every_eighth() -> None:
    cells = np.random.default_rng(0).integers(-12, 13, (3, 4, 4)).repeat(4, axis=1).repeat(4, axis=2)
    small, large = (deblocked(cells.astype(np.float64), even_layout(16, 16, level, 0), STEP) for level in (3, 2))
    np.testing.assert_array_equal(small, large)


def test_what_bends_is_left_alone() -> None:
    """A step of the same size is smoothed among even pixels, and not in a pattern."""
    pixels, blocks = half_and_half(20)
    pattern = np.where(np.arange(32) % 2 > 0, 40.0, -40.0)
    assert (deblocked(pixels, blocks, STEP) != pixels).any()
    np.testing.assert_array_equal(deblocked(pixels + pattern, blocks, STEP), pixels + pattern)


@pytest.mark.parametrize("scale", [0, 1, 5])
def test_the_finest_steps_change_next_to_nothing(scale: int) -> None:
    pixels = stepped(40, 72, across=400, noise=50, seed=3).astype(np.float64)
    blocks = drawn_layout(40, 72, 3)
    found = deblocked(pixels, blocks, step_units(scale))
    assert np.abs(found - pixels).max() <= 2 * (2 * (3 * step_units(scale) // 400))


def test_pixels_that_are_given_stay() -> None:
    pixels, blocks = half_and_half(20)
    before = pixels.copy()
    found = deblocked(pixels, blocks, STEP)
    np.testing.assert_array_equal(pixels, before)
    pixels.flags.writeable = False
    np.testing.assert_array_equal(deblocked(pixels, blocks, STEP), found)
    assert found.shape == pixels.shape


def test_upright_and_lying_edges_are_treated_alike() -> None:
    """But for the order, which tells only where they cross."""
    pixels, blocks = half_and_half(20)
    other = deblocked(pixels.swapaxes(1, 2), blocks.T, STEP).swapaxes(1, 2)
    np.testing.assert_array_equal(deblocked(pixels, blocks, STEP), other)


@given(shape=sides, seed=st.integers(0, 999), scale=st.integers(0, MAX_SCALE))
def test_nothing_changes_by_more_than_it_may(shape: tuple[int, int], seed: int, scale: int) -> None:
    step, rng = step_units(scale), np.random.default_rng(seed)
    pixels = rng.integers(-LIMIT, LIMIT + 1, (3, *shape)).astype(np.float64)
    found = deblocked(pixels, drawn_layout(*shape, seed), step)
    np.testing.assert_array_equal(found, np.round(found))
    assert np.abs(found - pixels).max() <= 4 * (3 * step // 400)
