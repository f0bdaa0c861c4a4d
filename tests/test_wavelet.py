"""The wavelet transform of first pictures, its quantizer (spec section 8.7), and coarser pictures (3.6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import smooth
from torch import Tensor

from tokcodec.bands import BANDS
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.tokenizer.transform import PEAK, colour_matrix
from tokcodec.tokenizer.wavelet import (
    DEAD,
    OUTWARD,
    dead_of_slope,
    forward,
    inverse,
    quantized,
    restored,
    scale_of_slope,
    step_of,
)
from tokcodec.tokens import Picture

NOTHING = torch.zeros(1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the transform ---


@given(height=st.integers(1, 75), width=st.integers(1, 75), seed=st.integers(0, 99))
def test_pixels_come_back(height: int, width: int, seed: int):
    """Of any sides, and so of odd ones at every level."""
    values = noise(3, height, width, seed=seed) * 127.5
    before = values.clone()
    coefficients = forward(values)
    assert torch.equal(values, before)
    torch.testing.assert_close(inverse(coefficients), values, atol=1e-3, rtol=0)
    assert height * width == 1 or not torch.allclose(coefficients, values, atol=1)


def put_together(line: list[float]) -> list[float]:
    """The words of the specification about a line of values."""
    count = len(line)
    if count == 1:
        return line

    def beside(place: int) -> float:
        left, right = place - 1, place + 1
        return line[right if left < 0 else left] + line[left if right >= count else right]

    line = [value * 1.149604398 if i % 2 else value / 1.149604398 for i, value in enumerate(line)]
    for first, share in ((0, -0.443506852), (1, -0.882911075), (0, 0.052980118), (1, 1.586134342)):
        changed = {i: line[i] + share * beside(i) for i in range(first, count, 2)}
        line = [changed.get(i, value) for i, value in enumerate(line)]
    return line


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (16, 72), (13, 7), (1, 5), (2, 3)])
def test_the_inverse_is_that_of_the_specification(height: int, width: int):
    coefficients = noise(height, width, seed=1) * 100
    found = [[float(value) for value in row] for row in coefficients]
    for n in (5, 4, 3, 2, 1):
        step = 2 ** (n - 1)
        for x in range(0, width, step):
            column = put_together([found[y][x] for y in range(0, height, step)])
            for y, value in zip(range(0, height, step), column, strict=True):
                found[y][x] = value
        for y in range(0, height, step):
            found[y][::step] = put_together(found[y][::step])
    torch.testing.assert_close(inverse(coefficients), torch.tensor(found), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 40), (96, 160)])
def test_errors_stay_about_as_large(height: int, width: int):
    values = noise(8, height, width, seed=2)
    for change in (forward, inverse):
        assert float(change(values).square().sum() / values.square().sum()) == pytest.approx(1, abs=0.15)


def test_colours_stand_upright():
    matrix = colour_matrix(NOTHING)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3))
    torch.testing.assert_close(matrix[0], torch.full((3,), 3**-0.5))


# --- the quantizer ---


@pytest.mark.parametrize("scale", [0, 8, 17, 26, 40])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 9), (12, 8)])
def test_what_is_restored_is_off_by_less_than_a_step(scale: int, rows: int, columns: int):
    picture = noise(3, 8 * rows, 8 * columns, seed=3)
    numbers = quantized(picture, scale)
    assert numbers.dtype == np.int16
    shown = restored(Picture(coefficients=numbers, scale=scale), NOTHING)
    assert (shown.dtype, shown.shape) == (torch.float32, picture.shape)
    error = float((shown - picture).square().mean().sqrt()) * PEAK
    assert error < 0.7 * step_of(scale)
    coefficients = forward(torch.einsum("kc,chw->khw", colour_matrix(picture), picture * PEAK)) / step_of(scale)
    given_back = torch.from_numpy(numbers).float()
    given_back += OUTWARD * given_back.sign()
    assert float((coefficients - given_back).abs().max()) < 0.5 + DEAD + 1e-2


def test_smaller_steps_are_closer_and_need_more():
    picture = noise(3, 64, 64, seed=4) * 0.3 + smooth(8, 8)[0]
    errors, sizes = [], []
    for scale in range(0, 37, 4):
        numbers = quantized(picture, scale)
        shown = restored(Picture(coefficients=numbers, scale=scale), NOTHING)
        errors.append(float((shown - picture).square().mean()))
        sizes.append(int(np.abs(numbers.astype(int)).sum()))
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 300
    assert sizes == sorted(sizes, reverse=True)


def test_numbers_stay_within_their_range():
    bright = torch.ones(3, 96, 96)
    for picture in (bright, -bright):
        numbers = quantized(1000 * picture, 0)
        assert int(np.abs(numbers.astype(int)).max()) == MAX_COEFFICIENT
    whole = quantized(bright, 0)
    assert int(whole.max()) < MAX_COEFFICIENT / 4, "no picture comes near"


@pytest.mark.parametrize("scale", [0, 12, 30])
def test_a_constant_picture_has_one_band(scale: int):
    grey, red = torch.full((3, 40, 72), 0.4), torch.full((3, 40, 72), -0.7)
    red[0] = 0.9
    for picture, colours in ((grey, [0]), (red, [0, 1, 2])):
        numbers = quantized(picture, scale)
        for band in BANDS:
            part = numbers[:, band.rows, band.columns]
            there = [colour for colour in range(3) if part[colour].any()]
            assert there == (colours if band.number == 0 else [])
        shown = restored(Picture(coefficients=numbers, scale=scale), NOTHING)
        torch.testing.assert_close(shown, picture, atol=step_of(scale) / PEAK, rtol=0)


# --- scales ---


def test_steps_double_every_four_scales():
    assert step_of(0) == 1
    assert step_of(20) == 32
    assert step_of(21) / step_of(20) == pytest.approx(2**0.25)


@given(low=st.floats(0, 1e9), high=st.floats(0, 1e9))
def test_scales_rise_with_lambda(low: float, high: float):
    low, high = sorted((low, high))
    assert 0 <= scale_of_slope(low) <= scale_of_slope(high) <= MAX_SCALE


def test_scales_are_those_of_the_root_and_end_somewhere():
    assert [scale_of_slope(slope) for slope in (-1.0, 0.0, 1e-30, 1.0)] == [0, 0, 0, 0]
    assert [scale_of_slope(slope) for slope in (1e12, 1e300)] == [MAX_SCALE] * 2
    for slope in (10.0, 300.0, 5000.0, 1e6):
        assert step_of(scale_of_slope(slope)) == pytest.approx(0.55 * math.sqrt(slope), rel=0.0906)
        assert scale_of_slope(4 * slope) == scale_of_slope(slope) + 4


@given(slope=st.floats(4.0, 1e8))
def test_what_becomes_nothing_rises_evenly_with_lambda(slope: float):
    """Steps jump from scale to scale; the largest coefficient that is left out does not."""
    dead = dead_of_slope(slope)
    assert 0 <= dead <= 0.5
    assert (0.5 + dead) * step_of(scale_of_slope(slope)) == pytest.approx(0.7 * 0.55 * math.sqrt(slope))


def test_less_is_coded_where_more_becomes_nothing():
    picture = noise(3, 64, 64, seed=6)
    counts = [np.count_nonzero(quantized(picture, 24, dead=dead)) for dead in (0.0, DEAD, 0.5)]
    assert counts[0] > counts[1] > counts[2]
    np.testing.assert_array_equal(quantized(picture, 24), quantized(picture, 24, dead=DEAD))
    for slope in (-1.0, 0.0, 1e300):
        assert 0 <= dead_of_slope(slope) <= 0.5


# --- coarser pictures ---


@given(scale=st.integers(0, MAX_SCALE), halvings=st.integers(0, 20), seed=st.integers(0, 9))
@settings(max_examples=80)
def test_a_coarser_picture_has_halves_towards_zero(scale: int, halvings: int, seed: int):
    low, high = -MAX_COEFFICIENT, MAX_COEFFICIENT
    numbers = np.random.default_rng(seed).integers(low, high, (3, 8, 8), endpoint=True).astype(np.int16)
    numbers[0, 0, :6] = 1, -1, 3, -3, low, high
    before = numbers.copy()
    found = Picture(coefficients=numbers, scale=scale).coarser(halvings)
    np.testing.assert_array_equal(numbers, before)
    times = min(halvings, (MAX_SCALE - scale) // 4)
    assert found.scale == scale + 4 * times <= MAX_SCALE
    assert found.coefficients.dtype == np.int16
    np.testing.assert_array_equal(found.coefficients, np.trunc(numbers / 2.0**times))


def test_a_picture_that_is_as_coarse_as_can_be_stays():
    numbers = np.full((3, 8, 8), -9, np.int16)
    for scale in (60, 61, 63):
        found = Picture(coefficients=numbers, scale=scale).coarser(3)
        assert (found.scale, found.coefficients.min()) == (scale, -9)
    found = Picture(coefficients=numbers, scale=59).coarser(3)
    assert (found.scale, found.coefficients.min()) == (63, -4)


def test_a_coarser_picture_is_little_worse_than_that_of_the_larger_step():
    picture = noise(3, 64, 64, seed=5) * 0.3 + smooth(8, 8)[0]
    fine = Picture(coefficients=quantized(picture, 12), scale=12)
    for halvings in (1, 2):
        coarser = fine.coarser(halvings)
        meant = Picture(coefficients=quantized(picture, coarser.scale), scale=coarser.scale)
        found, wanted = (float((restored(each, NOTHING) - picture).square().mean()) for each in (coarser, meant))
        assert wanted < found < 2 * wanted
