"""Blocks, modes and coefficients of first pictures by what they cost (`tokcodec/tokenizer/block_choice.py`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from block_pictures import Layout, even_layout, information
from numpy.typing import NDArray
from test_picture_choice import scene

from tokcodec import bits
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, SCALES_IN_OCTAVE
from tokcodec.intra import LIMIT, STEP_UNIT, UNIT, Canvas, planes, predicted, step_units, transformed, visits
from tokcodec.picture_layout import DIAGONAL, DOWN, MEAN, MODES, is_layout
from tokcodec.tokenizer import block_choice, picture_choice
from tokcodec.tokenizer.block_choice import PRICE, blocks_of_planes, chosen, planes_of
from tokcodec.tokenizer.first_picture import restored
from tokcodec.tokenizer.wavelet import restored as restored_wavelets
from tokcodec.tokenizer.wavelet import scale_of_slope, step_of, wanted_step
from tokcodec.tokens import Picture

SLOPES = [2500.0, 16000.0, 60000.0]
"""About those of qualities from 6 to 1."""
Values = NDArray[np.float64]


def error_of(picture: Picture, wanted: Values) -> float:
    """Squared error before edges are smoothed, in 8-bit values."""
    assert picture.blocks is not None
    canvas = Canvas(*wanted.shape[1:], scale=picture.scale)
    for visit in visits(picture.blocks):
        block = predicted(canvas.references(visit), visit.level, visit.mode)
        canvas.put(visit, block, picture.coefficients[visit.part])
    return float(((canvas.pixels - wanted) ** 2).sum()) / UNIT**2


def made_of(wanted: Values, blocks: Layout, scale: int, *, dead: float) -> Picture:
    """The coefficients of a layout, each by itself, with a dead zone."""
    canvas, step = Canvas(*wanted.shape[1:], scale=scale), step_units(scale) * UNIT / STEP_UNIT
    numbers = np.zeros(wanted.shape, np.int16)
    for visit in visits(blocks):
        block = predicted(canvas.references(visit), visit.level, visit.mode)
        missing = transformed(wanted[visit.part] - block) / step
        numbers[visit.part] = np.sign(missing) * np.floor(np.abs(missing) + 0.5 - dead)
        canvas.put(visit, block, numbers[visit.part])
    return Picture(coefficients=numbers, scale=scale, blocks=blocks)


def cost_of(picture: Picture, wanted: Values, *, price: float) -> float:
    """What is minimized: squared error in steps + price * bits of the coder itself."""
    return error_of(picture, wanted) / step_of(picture.scale) ** 2 + price * information(picture)


def price_of(slope: float) -> float:
    return PRICE * (wanted_step(slope) / step_of(scale_of_slope(slope))) ** 2


# --- what an encoder sends can be sent, and is what it wanted ---


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (5, 9), (9, 5), (1, 8), (4, 4)])
def test_a_picture_of_any_sides_can_be_coded(rows: int, columns: int) -> None:
    picture = scene(rows, columns)
    for slope in (20.0, 16000.0):
        found = chosen(picture, slope)
        assert found.blocks is not None
        assert (found.blocks.dtype, found.blocks.shape) == (np.uint8, (2 * rows, 2 * columns))
        assert (found.coefficients.dtype, found.coefficients.shape) == (np.int16, (3, 8 * rows, 8 * columns))
        assert is_layout(found.blocks)
        assert found.scale == scale_of_slope(slope)
        back = restored(found, picture)
        assert (back.dtype, back.shape) == (torch.float32, picture.shape)
        assert float((back - picture).square().mean()) * 127.5**2 < (2 if slope == 20.0 else 200)


def test_planes_are_whole_and_give_the_picture_back() -> None:
    picture = scene()
    found = planes_of(picture)
    assert (found.dtype, found.shape) == (np.float64, (3, 96, 128))
    np.testing.assert_array_equal(found, np.round(found))
    assert np.abs(found).max() <= LIMIT
    white = planes_of(torch.ones(3, 8, 8))
    assert white[0].min() == white[0].max() == LIMIT
    assert np.abs(white[1:]).max() <= 1
    np.testing.assert_array_equal(planes_of(-torch.ones(3, 8, 8))[0], -LIMIT)
    assert np.abs(planes_of(torch.full((3, 8, 8), 300.0))).max() == LIMIT


@pytest.mark.parametrize("scale", [0, 9, 20])
def test_bits_that_cost_nothing_are_all_taken(scale: int) -> None:
    """Then each coefficient is the nearest by decoded predictions, so that no error is carried on."""
    wanted = planes_of(scene(5, 9, seed=4))
    found = blocks_of_planes(wanted, scale, price=0.0)
    assert found.blocks is not None
    canvas, step = Canvas(40, 72, scale), step_units(scale) * UNIT / STEP_UNIT
    for visit in visits(found.blocks):
        block = predicted(canvas.references(visit), visit.level, visit.mode)
        exact = np.abs(transformed(wanted[visit.part] - block)) / step
        numbers = np.abs(found.coefficients[visit.part].astype(int))
        assert np.abs(exact - numbers - 0.1 * (numbers > 0)).max() <= 0.5 + 0.05 + 1e-9
        canvas.put(visit, block, found.coefficients[visit.part])
    assert np.abs(canvas.pixels - wanted).mean() < 0.5 * step + 1


def test_the_step_is_that_of_lambda_and_the_price_that_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []

    def spy(wanted: Values, scale: int, *, price: float) -> Picture:
        seen.append((scale, price))
        return Picture(coefficients=np.zeros(wanted.shape, np.int16), scale=scale)

    monkeypatch.setattr(block_choice, "blocks_of_planes", spy)
    slopes = np.geomspace(300, 100000, 40)
    for slope in slopes:
        chosen(torch.zeros(3, 8, 8), float(slope))
    scales, prices = (np.asarray(each) for each in zip(*seen, strict=True))
    assert scales.tolist() == [scale_of_slope(slope) for slope in slopes]
    # In pixels: as much for each bit as lambda says, however steps fall.
    shares = prices * 4.0 ** (scales / SCALES_IN_OCTAVE) / slopes
    np.testing.assert_allclose(shares, shares[0], rtol=1e-6)
    assert prices.min() > PRICE * 2**-0.26
    assert prices.max() < PRICE * 2**0.26


# --- and it is worth its bits ---


DEAD = (0.0, 0.15, 0.3)


@pytest.mark.parametrize("slope", SLOPES)
def test_it_is_better_than_means_of_blocks_of_one_size(slope: float) -> None:
    """By squared error and bits of the coder itself, whatever the dead zone of the others is."""
    picture, price = scene(8, 10), price_of(slope)
    wanted, found = planes_of(picture), chosen(picture, slope)
    means = [
        made_of(wanted, even_layout(64, 80, level, MEAN), found.scale, dead=dead) for level in (1, 2) for dead in DEAD
    ]
    assert cost_of(found, wanted, price=price) < 0.95 * min(cost_of(each, wanted, price=price) for each in means)
    grey = replace(found, coefficients=np.zeros_like(found.coefficients))
    assert cost_of(found, wanted, price=price) < 0.3 * cost_of(grey, wanted, price=price)


def test_its_numbers_are_better_than_by_a_dead_zone() -> None:
    """Of the same blocks and modes: about as good as the best dead zone of each lambda, and better than any of all."""
    totals = np.zeros(len(DEAD))
    own, picture = 0.0, scene(8, 10, seed=2)
    wanted = planes_of(picture)
    for slope in SLOPES:
        found, price = chosen(picture, slope), price_of(slope)
        assert found.blocks is not None
        others = [cost_of(made_of(wanted, found.blocks, found.scale, dead=dead), wanted, price=price) for dead in DEAD]
        cost = cost_of(found, wanted, price=price)
        assert cost < 1.01 * min(others)
        own += cost / min(others)
        totals += np.asarray(others) / min(others)
    assert own < totals.min()


def test_a_finer_lambda_has_more_coefficients_and_less_error() -> None:
    picture = scene(8, 10)
    pictures = [chosen(picture, slope) for slope in (4.0, 60.0, 1000.0, 20000.0, 400000.0)]
    errors = [float((restored(each, picture) - picture).square().mean()) for each in pictures]
    counts = [np.count_nonzero(each.coefficients) for each in pictures]
    blocks = [len({(visit.row, visit.column) for visit in visits(each.blocks)}) for each in pictures]  # type: ignore[arg-type]
    assert errors == sorted(errors)
    assert counts == sorted(counts, reverse=True)
    assert blocks[0] > blocks[-1]
    assert errors[0] < errors[-1] / 100
    assert len({each.scale for each in pictures}) == 5


@pytest.mark.parametrize("slope", SLOPES)
def test_it_costs_less_than_wavelets_where_it_is_as_close(slope: float) -> None:
    """Of what blocks are for: straight edges, and flat areas beside fine ones."""
    y, x = np.mgrid[:96, :128]
    plane = np.where(x + 2 * y > 130, 0.6, -0.5) + 0.2 * (x > 64) * np.where(x // 4 % 2 > 0, 1.0, -1.0)
    picture = torch.from_numpy(plane).float().expand(3, -1, -1).contiguous()
    found, other = chosen(picture, slope), picture_choice.chosen(picture, slope)
    error = float((restored(found, picture) - picture).square().mean())
    assert error < 1.3 * float((restored_wavelets(other, picture) - picture).square().mean())
    plain = bits._Encoder()
    bits._code_picture(plain, bits._copied(other))
    assert information(found) < 0.9 * 32 * len(plain.finish())


@pytest.mark.parametrize("value", [0.0, 0.4, -1.0, 1.0])
def test_an_even_picture_is_a_number_of_each_colour_and_large_blocks(value: float) -> None:
    picture = torch.full((3, 64, 96), value)
    found = chosen(picture, 2500.0)
    assert found.blocks is not None
    assert (found.blocks // MODES == 0).all()
    assert np.count_nonzero(found.coefficients) == (value != 0)
    assert np.count_nonzero(found.coefficients[0, ::32, ::32]) == (value != 0)
    assert float((restored(found, picture) - picture).abs().max()) * 127.5 < 2


@pytest.mark.parametrize(("mode", "moved"), [(DOWN, 0), (DIAGONAL, 1)])
def test_what_is_along_a_direction_is_said_once(mode: int, moved: int) -> None:
    """Lines that go on from the first blocks: those behind them have that mode, and hardly a coefficient."""
    y, x = np.mgrid[:96, :96]
    line = np.random.default_rng(1).uniform(-0.8, 0.8, 400)
    picture = torch.from_numpy(line[x - moved * y + 200]).float().expand(3, -1, -1).contiguous()
    found = chosen(picture, 2500.0)
    assert found.blocks is not None
    inner = found.blocks[8:, 8:] % MODES
    assert (inner == mode).mean() > 0.8
    counts = [np.count_nonzero(found.coefficients[:, 32 * n : 32 * n + 32]) for n in range(3)]
    if moved == 0:  # else new ones come in at the left of each row
        assert max(counts[1:]) < 0.3 * counts[0]


def test_busy_places_have_small_blocks() -> None:
    generator = torch.Generator().manual_seed(1)
    picture = torch.full((3, 64, 128), 0.3)
    picture[:, 20:44, 72:96] += torch.where(torch.rand(24, 24, generator=generator) > 0.5, 0.6, -0.6)
    found = chosen(picture, 500.0)
    assert found.blocks is not None
    levels = found.blocks // MODES
    assert (levels[:, :16] == 0).all()
    assert levels[5:11, 18:24].min() >= 2


def test_no_number_leaves_the_range() -> None:
    wanted = np.where(np.random.default_rng(1).random((3, 32, 32)) < 0.5, float(LIMIT), -float(LIMIT))
    for scale in (0, MAX_SCALE):
        found = blocks_of_planes(wanted, scale, price=PRICE)
        assert int(np.abs(found.coefficients.astype(int)).max()) <= MAX_COEFFICIENT
    assert not found.coefficients.any()
    numbers = block_choice._numbers(np.asarray([[[1e9, -1e9], [0.0, 0.3]]] * 3), PRICE)
    assert numbers.tolist() == [[[MAX_COEFFICIENT, -MAX_COEFFICIENT], [0, 0]]] * 3


def test_a_block_that_is_not_worth_it_has_none() -> None:
    """A single number that saves less than it costs to say where it is, and one that saves more."""
    exact = np.zeros((3, 8, 8))
    exact[0, 0, 1], exact[1, 0, 0], exact[2, 5, 5] = 0.72, 3.0, 0.9
    found = block_choice._numbers(exact, PRICE)
    assert (found[0].any(), found[2].any()) == (False, False)
    assert found[1, 0, 0] == 3
    assert block_choice._numbers(exact, 0.0).any(axis=(1, 2)).all()


def test_the_same_picture_has_the_same_blocks() -> None:
    picture = scene(5, 9, seed=3)
    one, other = chosen(picture, 2500.0), chosen(picture.clone(), 2500.0)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    np.testing.assert_array_equal(one.blocks, other.blocks)
    assert replace(one, coefficients=other.coefficients).scale == other.scale
    np.testing.assert_array_equal(planes(one), planes(other))
