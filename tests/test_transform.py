"""The transform of a hybrid: what bits say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import spec_decoder
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import smooth
from torch import Tensor
from variants import HYBRID

from tokcodec.tokenizer.cost import measure_cost
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.transform import EXPONENT_AT, EXPONENT_BITS, MAX_BITS, PEAK, PRICED_BITS, CellTransform

STEPS = pytest.mark.parametrize("first", [True, False], ids=["first", "later"])


def noisy(seed: int, loud: float, rows: int = 1, columns: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 3, 8 * rows, 8 * columns, generator=generator) * 2 - 1) * loud


def shown(transform: CellTransform, tokens: Tensor, count: int) -> Tensor:
    """What the first bits add up to."""
    kept = (torch.arange(tokens.shape[1]) < count).float().view(1, -1, 1, 1).expand_as(tokens)
    return transform.pixels(transform.coefficients(tokens, kept))


@STEPS
def test_the_first_bits_add_up_to_the_picture(first: bool):
    transform, wanted = CellTransform(MAX_BITS, first=first), smooth(4, 5)
    tokens = transform.bits_of(wanted)
    errors = [float((shown(transform, tokens, count) - wanted).square().mean()) for count in (0, 8, 24, MAX_BITS)]
    assert all(less < more for more, less in pairwise(errors))
    assert errors[-1] < (0.02 if first else 0.5) * errors[0]


@STEPS
@given(seed=st.integers(0, 1000), loud=st.floats(0.0, 1.0), price=st.sampled_from([0.0, 1000.0, 20000.0]))
@settings(max_examples=20, deadline=None)
def test_no_other_exponent_and_no_further_bit_is_better(first: bool, seed: int, loud: float, price: float):
    """By error and price of set bits, counted in the picture; of single changes of pairs those that set none before.
    Means come first, and know nothing of the rest."""
    transform = CellTransform(MAX_BITS, first=first)
    wanted = noisy(seed, loud)
    tokens = transform.bits_of(wanted, torch.tensor([price]))
    scaled = [pair for pair in transform.pairs if pair.scaled]
    bits = [pair.bit + second for pair in scaled for second in (0, 1)]

    def cost(candidate: Tensor) -> Tensor:
        left = torch.nn.functional.pixel_unshuffle(wanted - shown(transform, candidate, MAX_BITS), 8)
        set_bits = (candidate[:, bits] > 0).sum(dim=1)
        return left.square().sum(dim=1) * PEAK**2 + set_bits * price * 3 * PRICED_BITS / transform.repeats

    for pair in transform.pairs:
        assert not ((tokens[:, pair.bit] > 0) & (tokens[:, pair.bit + 1] > 0)).any(), "not there with both signs"
    own = cost(tokens)
    nothing = tokens.clone()
    nothing[:, [*range(EXPONENT_AT[first], EXPONENT_AT[first] + EXPONENT_BITS), *bits]] = -1
    assert (own <= cost(nothing) + 0.1).all(), "to set nothing would be better"
    for pair in scaled:
        if pair.multiple == 1:  # others are mended by finer ones
            for bit in (pair.bit, pair.bit + 1):
                less = tokens.clone()
                less[:, bit] = -1
                assert (own <= cost(less) + 0.1).all(), bit


def test_a_token_doubles_what_its_pairs_say():
    transform = CellTransform(MAX_BITS, first=False)
    tokens = -torch.ones(1, MAX_BITS, 1, 4)
    for number in range(EXPONENT_BITS):
        tokens[0, number] = torch.tensor([1.0 if power >> number & 1 else -1.0 for power in range(4)])
    tokens[0, transform.pairs[0].bit] = 1
    found = transform.coefficients(tokens, torch.ones_like(tokens))[0, transform.at[0], 0]
    assert found.tolist() == [4 * 48 * 2**power for power in range(4)]
    unkept = torch.ones_like(tokens)
    unkept[:, :EXPONENT_BITS] = 0
    assert transform.coefficients(tokens, unkept)[0, transform.at[0], 0].tolist() == [4 * 48.0] * 4
    assert not transform.coefficients(tokens, torch.zeros_like(tokens)).any()


@STEPS
@pytest.mark.parametrize("bits", [MAX_BITS, 21, 9, 8])
def test_errors_of_all_prefixes_are_those_of_the_pictures(first: bool, bits: int):
    transform, wanted = CellTransform(bits, first=first), smooth(3, 4)
    tokens = transform.bits_of(wanted)
    assert tokens.shape == (1, bits, 3, 4)
    # A prefix that ends in the exponent says nothing yet, and errors are asked for after it is known.
    both = transform.errors(torch.cat([tokens, tokens.flip(2)]), torch.cat([wanted, wanted]))
    assert both.shape == (bits + 1, 2, 3, 4)
    errors = both[:, 0]
    # Of a first step means around count as if all of their bits were there.
    last_of_means = max((pair.bit + 2 for pair in transform.pairs if not pair.scaled), default=0)
    for count in {count for count in (0, 2, 9, 14, last_of_means, 40, bits) if last_of_means <= count <= bits}:
        difference = (shown(transform, tokens, count) - wanted).square().mean(dim=1) * PEAK**2
        by_hand = torch.nn.functional.avg_pool2d(difference, 8)[0] * 64
        torch.testing.assert_close(errors[count], by_hand, rtol=1e-3, atol=0.5)


def test_errors_of_means_take_the_cells_around_as_they_are():
    """A first step's cell that loses bits by itself, its neighbours being told what it was."""
    transform, wanted = CellTransform(MAX_BITS, first=True), smooth(2, 2) * 0.3
    tokens = transform.bits_of(wanted)
    means = transform.coefficients(tokens, torch.ones_like(tokens))[:, 0]
    errors, whole = transform.errors(tokens, wanted), MAX_BITS
    last = next(pair for pair in transform.pairs if pair[:2] == (1, (0, 0, 0)))
    lost = errors[last.bit] - errors[last.bit + 2]
    unset = (tokens[:, last.bit] < 0) & (tokens[:, last.bit + 1] < 0)
    assert (lost[unset] == 0).all()
    assert not unset.all(), "or nothing was tried"
    assert means.shape == (1, 2, 2)
    assert (errors[whole] <= errors[0] + 1e-3).all()


@STEPS
def test_dearer_bits_are_set_less_often(first: bool):
    transform = CellTransform(MAX_BITS, first=first)
    bits = [pair.bit + second for pair in transform.pairs for second in (0, 1)]
    wanted = smooth(6, 6) + noisy(1, 0.1, 6, 6)
    counts = [
        int((transform.bits_of(wanted, torch.tensor([slope]))[:, bits] > 0).sum())
        for slope in (0.0, 5000.0, 30000.0, 1e9)
    ]
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    assert torch.equal(transform.bits_of(wanted, torch.zeros(1)), transform.bits_of(wanted)), "free bits"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (9, 10)])
def test_every_even_grey_is_said_once(rows: int, columns: int):
    """Cells that are as those around them set no bit."""
    transform = CellTransform(MAX_BITS, first=True)
    unit = 32 / (8 * 3**0.5) / PEAK
    for level in range(-55, 56, 11):
        wanted = torch.full((1, 3, 8 * rows, 8 * columns), level * unit)
        tokens = transform.bits_of(wanted)
        found = transform.pixels(transform.coefficients(tokens, torch.ones_like(tokens)))
        assert (found - wanted).abs().max() <= 0.6 * unit
        said = (tokens[0] > 0).any(dim=0).reshape(-1)
        y, x = np.divmod(np.flatnonzero(said.numpy()), columns)
        assert (y % 8 == 0).all()
        assert (x % 8 == 0).all()


def test_any_mean_can_follow_any_other():
    transform = CellTransform(MAX_BITS, first=True)
    generator = torch.Generator().manual_seed(3)
    wanted = (torch.rand(1, 1, 9, 10, generator=generator) > 0.5).float() * 2 - 1
    wanted = wanted.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(1, 3, -1, -1)
    tokens = transform.bits_of(wanted)
    means = transform.coefficients(tokens, torch.ones_like(tokens))[:, 0] / (8 * 3**0.5) / PEAK
    assert (means - wanted[:, 0, ::8, ::8]).abs().max() < 0.02


def test_any_pure_colour_can_follow_any_other():
    """All eight, in single cells."""
    transform = CellTransform(MAX_BITS, first=True)
    generator = torch.Generator().manual_seed(4)
    colours = (torch.rand(1, 3, 16, 16, generator=generator) > 0.5).float() * 2 - 1
    wanted = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
    tokens = transform.bits_of(wanted)
    coefficients = transform.coefficients(tokens, torch.ones_like(tokens))
    found = torch.nn.functional.avg_pool2d(transform.pixels(coefficients), 8)
    assert (found - colours).abs().max() < 0.03


def test_means_are_chosen_for_the_neighbours_that_are_kept():
    """Where a block loses its last bits, those around it are told as they will be, not as they were."""
    transform, wanted = CellTransform(MAX_BITS, first=True), smooth(8, 8)
    kept = torch.ones(1, MAX_BITS, 8, 8)
    kept[:, 6:, :4, :4] = 0
    blind, told = transform.bits_of(wanted), transform.bits_of(wanted, None, kept)

    def error(tokens: Tensor) -> float:
        difference = transform.pixels(transform.coefficients(tokens, kept)) - wanted
        return float(difference[..., :, 32:].square().mean())

    assert error(told) < error(blind)
    assert torch.equal(transform.bits_of(wanted, None, torch.ones_like(kept)), blind)


def test_transitions_leave_means_alone_and_are_smooth():
    transform = CellTransform(MAX_BITS, first=True)
    ramp = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 16, 64)
    tokens = transform.bits_of(ramp)
    coefficients = transform.coefficients(tokens, torch.ones_like(tokens))
    only = torch.zeros_like(coefficients)
    only[:, transform.predicted] = coefficients[:, transform.predicted]
    found = transform.pixels(only)
    even = torch.nn.functional.avg_pool2d(found, 8)
    torch.testing.assert_close(even[:, 0], coefficients[:, 0] / (8 * 3**0.5) / PEAK, atol=1e-5, rtol=0)
    steps = (found[..., 1:] - found[..., :-1]).abs().amax(dim=(0, 1, 2))
    assert steps[4:-4].max() < 0.07, "no edge between cells, which are 0.2 apart"


@STEPS
def test_all_types_of_the_network_read_the_same(first: bool):
    exact, fast = CellTransform(MAX_BITS, first=first), CellTransform(MAX_BITS, first=first).to(torch.bfloat16)
    tokens = exact.bits_of(smooth(3, 4))
    kept = torch.ones_like(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fast.pixels(fast.coefficients(tokens.bfloat16(), kept.bfloat16()))
    assert torch.equal(found, exact.pixels(exact.coefficients(tokens, kept)))
    atoms, values = spec_decoder.coefficients_of(tokens[0].numpy(), kept[0].numpy(), first=first)
    np.testing.assert_allclose(spec_decoder.cosines_of(atoms, values, first=first), found[0].numpy(), atol=1e-5)


@pytest.mark.cuda
@STEPS
def test_cosines_are_not_rounded_on_a_gpu(first: bool):
    exact, there = CellTransform(MAX_BITS, first=first), CellTransform(MAX_BITS, first=first).to("cuda")
    tokens = exact.bits_of(smooth(3, 4))
    kept = torch.ones_like(tokens)
    found = there.pixels(there.coefficients(tokens.cuda(), kept.cuda())).cpu()
    torch.testing.assert_close(found, exact.pixels(exact.coefficients(tokens, kept)), rtol=0, atol=1e-6)


def test_what_it_costs_is_counted_with_the_transform():
    cost = measure_cost(Tokenizer(HYBRID))
    atoms = len(CellTransform(HYBRID.bits_per_token, first=False).atoms)
    assert cost.encoder_flops_per_pixel == 2 * atoms * 192 / 64 / 4, "one analysis of one frame in four"
