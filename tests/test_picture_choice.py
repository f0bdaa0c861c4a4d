"""Coefficients of first pictures by what they cost (`tokcodec/tokenizer/picture_choice.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_helpers import smooth
from numpy.typing import NDArray
from test_picture_bits import drawn

from tokcodec.bands import BANDS, PHASES
from tokcodec.geometry import MAX_COEFFICIENT
from tokcodec.picture_bits import Coder, PictureTraversal
from tokcodec.picture_context import Magnitudes, PictureContext
from tokcodec.probability.picture_network import COLOURS, picture_network
from tokcodec.tokenizer.picture_choice import BIT_SHARE, EVENING, bits_of_sizes, chosen, price_of
from tokcodec.tokenizer.transform import PEAK, colour_matrix
from tokcodec.tokenizer.wavelet import OUTWARD, analysed, dead_of_slope, inverse, quantized, scale_of_slope, step_of

SLOPES = [2500.0, 16000.0, 60000.0]
"""About those of qualities from 6 to 1."""
Numbers = NDArray[np.int16]


class Counter:
    """In the place of the range coder: the information of what it is given, in bits."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        happened = np.where(bits > 0, probabilities, 65536 - probabilities) / 65536
        self.bits -= float(np.log2(happened).sum())
        return bits


class Priced(PictureTraversal):
    """Adds up what `bits_of_sizes` says of each phase."""

    said = 0.0

    def _code_phase(
        self, coder: Coder, values: Numbers, sizes: Magnitudes, context: PictureContext, place: tuple[int, int, int]
    ) -> None:
        (band, colour, phase), (down, right) = place, PHASES[place[2]]
        exact = np.abs(values[down::2, right::2].astype(np.int64)).reshape(-1)
        if exact.size:
            odds = picture_network().probabilities(context.inputs(phase), band=band, colour=colour, phase=phase)
            self.said += float(bits_of_sizes(exact, odds).sum())
        super()._code_phase(coder, values, sizes, context, place)


def information(coefficients: Numbers, scale: int) -> float:
    counter = Counter()
    PictureTraversal(picture_network()).code(counter, coefficients.copy(), scale)
    return counter.bits


def scene(rows: int = 12, columns: int = 16, seed: int = 0) -> torch.Tensor:
    """Smooth, with an edge and a little noise: float32 `(3, 8 rows, 8 columns)`."""
    generator = torch.Generator().manual_seed(seed)
    found = smooth(rows, columns, seed)[0].clone()
    found[:, :, 4 * columns :] *= -0.8
    return (found + 0.06 * torch.randn(found.shape, generator=generator)).clamp(-1, 1)


@pytest.mark.parametrize("reach", [1, 2, 3, 9, MAX_COEFFICIENT])
def test_bits_are_those_of_the_coder(reach: int):
    coefficients = drawn(40, 56, density=0.4, reach=reach, seed=reach)
    traversal, counter = Priced(picture_network()), Counter()
    traversal.code(counter, coefficients.copy(), 20)
    beside = 6 + COLOURS * len(BANDS)  # the scale, and which bands have any
    assert traversal.said == pytest.approx(counter.bits - beside, rel=1e-9)


def test_bits_of_several_choices_are_those_of_each():
    odds = np.random.default_rng(1).integers(32, 65504, (50, 4)).astype(np.int32)
    sizes = np.random.default_rng(2).integers(0, 12, (3, 50))
    np.testing.assert_array_equal(bits_of_sizes(sizes, odds), np.stack([bits_of_sizes(row, odds) for row in sizes]))


@pytest.mark.parametrize("slope", SLOPES)
def test_error_and_bits_are_less_than_by_a_dead_zone(slope: float):
    """What is minimized is what it is for: squared error + price * bits of the coder itself."""
    picture, scale = scene(), scale_of_slope(slope)
    found = analysed(picture).numpy().astype(np.float64)

    def cost(coefficients: Numbers) -> float:
        back = (coefficients + OUTWARD * np.sign(coefficients)) * step_of(scale)
        return float(((found - back) ** 2).sum()) + price_of(slope) * information(coefficients, scale)

    best = chosen(picture, slope)
    assert best.scale == scale
    costs = [cost(quantized(picture, scale, dead=dead)) for dead in (0.0, dead_of_slope(slope), 0.3, 0.5)]
    assert cost(best.coefficients) < min(costs)


@pytest.mark.parametrize("slope", SLOPES)
def test_none_is_larger_than_rounded_or_of_another_sign(slope: float):
    picture, scale = scene(seed=3), scale_of_slope(slope)
    rounded = quantized(picture, scale, dead=0.0).astype(int)
    found = chosen(picture, slope).coefficients
    assert found.dtype == np.int16
    assert (np.abs(found) <= np.abs(rounded)).all()
    assert (found * rounded >= 0).all()
    assert np.abs(found).sum() < np.abs(rounded).sum()


def test_bits_that_cost_nothing_are_all_taken():
    """But for what is given back better as the next smaller number."""
    picture = scene(seed=4)
    exact = np.abs(analysed(picture).numpy())
    found = np.abs(chosen(picture, 0.0).coefficients.astype(int))
    assert step_of(chosen(picture, 0.0).scale) == 1
    assert np.abs(exact - (found + OUTWARD * (found > 0))).max() <= 0.5 + OUTWARD / 2 + 1e-3


def test_one_alone_goes_sooner_than_one_among_many():
    """Of the same coefficient exactly, in one band: by a dead zone both would stay or go."""
    slope = 500.0
    band = next(band for band in BANDS if band.number == 10)
    coefficients = torch.zeros(3, 128, 256)
    part = coefficients[0, band.rows, band.columns]
    part[:] = 0.0
    part[:, : part.shape[1] // 2] = 3.0 * torch.where(torch.arange(part.shape[1] // 2) % 2 > 0, 1.0, -1.0)
    many, alone = (8, 7), (8, part.shape[1] - 9)
    for place in (many, alone):
        part[place] = 0.95
    step = step_of(scale_of_slope(slope))
    picture = torch.einsum("kc,khw->chw", colour_matrix(coefficients), inverse(coefficients * step)) / PEAK
    sizes = np.abs(chosen(picture, slope).coefficients[0, band.rows, band.columns])
    rounded = np.abs(quantized(picture, scale_of_slope(slope), dead=0.0)[0, band.rows, band.columns])
    assert rounded[many] == rounded[alone] == 1
    assert sizes[many] == 1
    assert sizes[alone] == 0


def test_the_price_of_bits_rises_with_lambda_and_more_within_a_step():
    slopes = np.geomspace(1000, 100000, 200)
    prices = np.array([price_of(slope) for slope in slopes])
    scales = np.array([scale_of_slope(slope) for slope in slopes])
    within = scales[1:] == scales[:-1]
    growth = np.log(prices[1:] / prices[:-1]) / np.log(slopes[1] / slopes[0])
    np.testing.assert_allclose(growth[within], 1 + EVENING / 2, rtol=1e-6)
    assert np.abs(np.log(prices / (BIT_SHARE * slopes))).max() < 0.23
    assert price_of(0.0) == 0


@pytest.mark.parametrize("value", [0.4, -1.0])
def test_a_constant_picture_is_one_band(value: float):
    found = chosen(torch.full((3, 40, 72), value), 500.0).coefficients.copy()
    assert found[:, ::32, ::32].any()
    found[:, ::32, ::32] = 0
    assert not found.any()


def test_nothing_leaves_the_range():
    found = chosen(torch.full((3, 32, 32), 300.0), 1e-9).coefficients
    assert int(np.abs(found.astype(int)).max()) == MAX_COEFFICIENT
