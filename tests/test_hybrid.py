"""The variant hybrid: what bits say, seven motion maps a step, and frames that are made of their neighbours."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import spec_decoder
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import CPU, clip, small_model
from test_motion_bits import KINDS, assert_round_trip, maps
from torch import Tensor
from variants import HYBRID

from tokcodec import Codec
from tokcodec.continuation import expected_vectors
from tokcodec.errors import ModelError
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.motion_bits import expected_map
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig, UniformAllocator
from tokcodec.tokenizer.block_search import BlockErrors, HalfPixels, field_of_motion
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import measure_cost
from tokcodec.tokenizer.displacement import choose_map
from tokcodec.tokenizer.hybrid import (
    EARLY,
    EARLY_BACK,
    LAST,
    LATE,
    LATE_BACK,
    MIDDLE,
    MIDDLE_BACK,
    HybridEncoder,
)
from tokcodec.tokenizer.hybrid_motion import HybridMotion
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.motion import displacements_of_maps
from tokcodec.tokenizer.search import grey, search
from tokcodec.tokenizer.state import EncoderState, Past
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder, prepare, to_signed_unit
from tokcodec.tokenizer.transform import EXPONENT_BITS, HEAD, MAX_BITS, MEANS, PEAK, PRICED_BITS, CellTransform
from tokcodec.tokens import TokenChunk, spread_levels
from tokcodec.training.checkpoint import initialise
from tokcodec.training.coded_motion import hybrid_displacements
from tokcodec.training.config import AdversarialConfig, Phase, TrainConfig
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.objective import SLOPE_RANGE, levels_worth_it, sample_slopes
from tokcodec.training.source import Batch
from tokcodec.training.widen import widen
from tokcodec.weights import load_tokenizer, save_tokenizer

STEPS = pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
WHOLE = replace(HYBRID, bits_per_token=MAX_BITS, level_bits=(0, 20, MAX_BITS))


def smooth(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Pixels in [-1, 1] without much detail, `(1, 3, 8 rows, 8 columns)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, rows + 1, columns + 1, generator=generator) * 2 - 1
    tint = 0.3 * torch.rand(1, 3, 1, 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(8 * rows, 8 * columns), mode="bilinear") + tint
    return fine.clamp(-1, 1)


def noisy(seed: int, loud: float, rows: int = 1, columns: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 3, 8 * rows, 8 * columns, generator=generator) * 2 - 1) * loud


def shown(transform: CellTransform, tokens: Tensor, count: int) -> Tensor:
    """What the first bits add up to."""
    kept = (torch.arange(tokens.shape[1]) < count).float().view(1, -1, 1, 1).expand_as(tokens)
    return transform.pixels(transform.coefficients(tokens, kept))


# --- what bits say ---


@STEPS
def test_the_first_bits_add_up_to_the_picture(first: bool):
    transform, wanted = CellTransform(MAX_BITS, first=first), smooth(4, 5)
    tokens = transform.bits_of(wanted)
    errors = [float((shown(transform, tokens, count) - wanted).square().mean()) for count in (0, 10, 20, MAX_BITS)]
    assert all(less < more for more, less in pairwise(errors))
    assert errors[-1] < (0.02 if first else 0.5) * errors[0]


@STEPS
@given(seed=st.integers(0, 1000), loud=st.floats(0.0, 1.0), price=st.sampled_from([0.0, 1000.0, 20000.0]))
@settings(max_examples=20, deadline=None)
def test_no_other_exponent_and_no_further_bit_is_better(first: bool, seed: int, loud: float, price: float):
    """By error and price of set bits, counted in the picture; of single changes of pairs those that set none before."""
    transform = CellTransform(MAX_BITS, first=first)
    wanted = noisy(seed, loud)
    tokens = transform.bits_of(wanted, torch.tensor([price]))
    pairs = tokens[:, HEAD[first] :]

    def cost(candidate: Tensor) -> Tensor:
        left = torch.nn.functional.pixel_unshuffle(wanted - shown(transform, candidate, MAX_BITS), 8)
        set_bits = (candidate[:, HEAD[first] :] > 0).sum(dim=1)
        return left.square().sum(dim=1) * PEAK**2 + set_bits * price * 3 * PRICED_BITS / transform.repeats

    assert not ((pairs[:, 0::2] > 0) & (pairs[:, 1::2] > 0)).any(), "an atom is not there with both signs"
    own, start = cost(tokens), HEAD[first] - EXPONENT_BITS
    nothing = tokens.clone()
    nothing[:, start:] = -1
    assert (own <= cost(nothing) + 0.1).all(), "to set nothing would be better"
    for bit in range(HEAD[first], MAX_BITS):
        less = tokens.clone()
        less[:, bit] = -1
        if transform.pairs[(bit - HEAD[first]) // 2].multiple == 1:  # others are mended by finer ones
            assert (own <= cost(less) + 0.1).all(), bit


def test_a_token_doubles_what_its_pairs_say():
    transform = CellTransform(MAX_BITS, first=False)
    tokens = -torch.ones(1, MAX_BITS, 1, 4)
    for number in range(EXPONENT_BITS):
        tokens[0, number] = torch.tensor([1.0 if power >> number & 1 else -1.0 for power in range(4)])
    tokens[0, HEAD[False]] = 1
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
    for count in {0, 5 if first else 2, min(9, bits), min(14, bits), bits}:
        difference = (shown(transform, tokens, count) - wanted).square().mean(dim=1) * PEAK**2
        by_hand = torch.nn.functional.avg_pool2d(difference, 8)[0] * 64
        torch.testing.assert_close(errors[count], by_hand, rtol=1e-3, atol=0.5)


@STEPS
def test_dearer_bits_are_set_less_often(first: bool):
    transform = CellTransform(MAX_BITS, first=first)
    wanted = smooth(6, 6) + noisy(1, 0.1, 6, 6)
    counts = [
        int((transform.bits_of(wanted, torch.tensor([slope]))[:, HEAD[first] :] > 0).sum())
        for slope in (0.0, 5000.0, 30000.0, 1e9)
    ]
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    assert torch.equal(transform.bits_of(wanted, torch.zeros(1)), transform.bits_of(wanted)), "free bits"


def test_the_mean_of_a_first_picture_is_always_there():
    transform = CellTransform(MAX_BITS, first=True)
    for level in np.linspace(-1, 1, 17):
        wanted = torch.full((1, 3, 8, 8), float(level))
        found = transform.pixels(transform.coefficients(transform.bits_of(wanted), torch.ones(1, MAX_BITS, 1, 1)))
        assert (found - wanted).abs().max() <= MEANS[-1] / (8 * 3**0.5) / PEAK + 1e-5


@STEPS
def test_all_types_of_the_network_read_the_same(first: bool):
    exact, fast = CellTransform(MAX_BITS, first=first), CellTransform(MAX_BITS, first=first).to(torch.bfloat16)
    tokens = exact.bits_of(smooth(3, 4))
    kept = torch.ones_like(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fast.pixels(fast.coefficients(tokens.bfloat16(), kept.bfloat16()))
    assert torch.equal(found, exact.pixels(exact.coefficients(tokens, kept)))
    atoms, values = spec_decoder.coefficients_of(tokens[0].numpy(), kept[0].numpy(), first=first)
    np.testing.assert_allclose(spec_decoder.cosines_of(atoms, values), found[0].numpy(), atol=1e-5)


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


# --- seven maps ---


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 12),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_seven_maps_a_step_come_back(rows: int, columns: int, kinds: list[str], seed: int):
    parts = [maps(*kinds, rows=rows, columns=columns, seed=other) for other in range(seed, seed + MOTION_MAPS)]
    assert_round_trip(np.concatenate(parts, axis=1), seven=True)


def even(first: np.ndarray) -> list[np.ndarray]:
    """All maps where the others are as the first lets expect."""
    found = [first]
    for number in range(1, MOTION_MAPS):
        found.append(expected_map(found, number))
    return found


@pytest.mark.parametrize("kind", ["smooth", "random", "extreme"])
@pytest.mark.parametrize("steps", [1, 6])
def test_six_maps_that_are_as_expected_cost_next_to_nothing(kind: str, steps: int):
    one = maps(*[kind] * steps, rows=9, columns=12)
    seven = np.concatenate(even(one), axis=1)
    assert len(assert_round_trip(seven, seven=True)) <= len(assert_round_trip(one)) + 8 + steps


def test_a_map_that_is_not_as_expected_is_told_by_what_it_lacks():
    """One of the last maps moves by a few blocks otherwise; it costs about what these do."""
    one = maps("random", rows=9, columns=12)
    parts = even(one)
    plain = len(assert_round_trip(np.concatenate(parts, axis=1), seven=True))
    step = np.where(parts[LATE][1, 4, 5] > 0, -3, 3)  # stays in the range of vectors
    parts[LATE][1, 4, 5] += step.astype(np.int16)
    assert len(assert_round_trip(np.concatenate(parts, axis=1), seven=True)) <= plain + 32


PAN = {LAST: 4, MIDDLE: 2, MIDDLE_BACK: -2, EARLY: 1, EARLY_BACK: -1, LATE_BACK: -1, LATE: 1}
"""Frames that each map reaches back, or forward."""


@torch.no_grad()
def test_a_frame_between_is_where_the_motion_says():
    """The networks silenced, a pan in seven maps brings all four frames along."""
    model = silent()
    wide = smooth(6, 12, seed=4)
    frames = torch.stack([wide[..., 2 * n : 2 * n + 64] for n in range(5)], dim=1)
    tokens = -torch.ones(1, MAX_BITS, 6, 8)
    _, state = model.decoder.step(tokens, torch.ones_like(tokens), None)
    state = replace(state, picture=frames[:, 0])
    vectors = torch.zeros(1, MOTION_MAPS, 3, 4, 2, dtype=torch.int16)
    for number, count in PAN.items():  # a frame moves by two pixels, which are four half ones
        vectors[0, number, :, :, 0] = 4 * count
    assert vectors[0, :, 0, 0, 0].tolist() == [16, 8, -8, 4, -4, -4, 4]
    displacement = displacements_of_maps(vectors.flatten(1, 2), 6, 8, maps=MOTION_MAPS)
    assert displacement[0, :, 0, 0, 0].tolist() == [4.0, 2.0, -2.0, 1.0, -1.0, -1.0, 1.0]
    pixels, _ = model.decoder.step(tokens, torch.zeros_like(tokens), state, displacement)
    inner = slice(8, -16)
    torch.testing.assert_close(pixels[..., inner], frames[:, 1:, ..., inner], atol=1e-5, rtol=0)
    last, _ = model.decoder.step(tokens, torch.zeros_like(tokens), state, displacement, shown=slice(3, None))
    assert torch.equal(last, pixels[:, 3:])
    with pytest.raises(ValueError, match="motion"):
        model.decoder.step(tokens, torch.zeros_like(tokens), state)
    forecast = model.decoder.forecast(state, displacement)
    assert torch.equal(forecast.frames, pixels[:, 3:].clamp(-1, 1))


def silent() -> Tokenizer:
    """A model whose networks add nothing: gains are zero at the start where they add to a picture."""
    torch.manual_seed(0)
    return prepare(Tokenizer(WHOLE), CPU, torch.float32)


@torch.no_grad()
def test_what_stands_still_and_keeps_nothing_is_shown_again():
    model = small_model(HYBRID)
    generator = torch.manual_seed(3)
    bits = HYBRID.bits_per_token
    tokens = torch.where(torch.randn(1, bits, 3, 4, generator=generator) > 0, 1.0, -1.0)
    _, state = model.decoder.step(tokens, torch.ones_like(tokens), None)
    still = torch.zeros(1, MOTION_MAPS, 2, 3, 4)
    pixels, after = model.decoder.step(tokens, torch.zeros_like(tokens), state, still)
    for frame in pixels[0]:
        torch.testing.assert_close(frame, state.picture[0])
    torch.testing.assert_close(after.features, state.features)
    frames = {LAST: 3, MIDDLE: 1, MIDDLE_BACK: 1, EARLY: 0, EARLY_BACK: 0, LATE_BACK: 2, LATE: 2}
    for number, frame in frames.items():
        moving = still.clone()
        moving[:, number] = 0.5
        pixels, _ = model.decoder.step(tokens, torch.zeros_like(tokens), state, moving)
        assert (pixels[0, frame] - state.picture[0]).abs().max() > 0.01


# --- as a codec ---


def moving_clip(frames: int, height: int, width: int) -> np.ndarray:
    wide = smooth(height // 8 + 1, (width + 3 * frames) // 8 + 1, seed=2)[0].permute(1, 2, 0).add(1).mul(127.5)
    pixels = wide.to(torch.uint8).numpy()
    return np.stack([pixels[:height, 3 * n : 3 * n + width] for n in range(frames)])


@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_decoder_shows_what_the_encoder_saw(length: int):
    model, frames = silent(), moving_clip(length, 60, 90)
    encoder = StreamEncoder(model, RateDistortionAllocator(RateDistortionConfig(slope=1000.0)))
    steps = [step for step in map(encoder.push, frames) if step is not None]
    expected = None if encoder._decoded is None else encoder._decoded.picture
    last = encoder.end_chunk()
    steps += [] if last is None else [last]
    assert len(steps) == model.config.geometry.steps(length)
    decoder = StreamDecoder(model, height=60, width=90)
    decoder.start_chunk()
    pictures = []
    for step in steps:
        assert step.vectors.shape == (*model.config.geometry.motion_blocks(8, 12), 2) == (28, 6, 2)
        kept = spread_levels(step.levels, encoder.geometry, rows=8, columns=12)
        pictures += list(decoder.step(step.indices, kept, step.vectors))
    error = np.square(np.stack(pictures)[:length].astype(float) - frames).mean()
    assert error < 100, "even without its networks it is a codec"
    assert decoder._state is not None
    if last is None:
        assert expected is not None
        torch.testing.assert_close(decoder._state.picture, expected)


@torch.no_grad()
def test_motion_of_frames_between_does_not_change_the_last():
    """The encoder chooses it after the last frame is decoded."""
    model = small_model(HYBRID)
    tokens = torch.where(torch.randn(1, 18, 3, 4, generator=torch.manual_seed(3)) > 0, 1.0, -1.0)
    kept = torch.ones_like(tokens)
    _, state = model.decoder.step(tokens, kept, None)
    kept[..., :2] = 0
    maps = torch.zeros(1, MOTION_MAPS, 2, 3, 4)
    pixels, after = model.decoder.step(tokens, kept, state, maps)
    maps[:, MIDDLE:] = torch.randn(1, MOTION_MAPS - 1, 2, 3, 4, generator=torch.manual_seed(4))
    others, same = model.decoder.step(tokens, kept, state, maps)
    assert torch.equal(pixels[:, 3], others[:, 3])
    assert torch.equal(after.features, same.features)
    for frame in range(3):
        assert not torch.equal(pixels[:, frame], others[:, frame])


@torch.no_grad()
def test_each_frame_is_made_by_its_own_maps_and_those_of_its_neighbours():
    """As the encoder takes for granted: it chooses the maps one after the other."""
    model = small_model(HYBRID)
    tokens = torch.where(torch.randn(1, 18, 3, 4, generator=torch.manual_seed(3)) > 0, 1.0, -1.0)
    kept = torch.ones_like(tokens)
    _, state = model.decoder.step(tokens, kept, None)
    maps = torch.zeros(1, MOTION_MAPS, 2, 3, 4)
    pixels, _ = model.decoder.step(tokens, kept, state, maps)
    changes = {}
    for number in range(MOTION_MAPS):
        other = maps.clone()
        other[:, number] = 0.75
        found, _ = model.decoder.step(tokens, kept, state, other)
        changes[number] = {frame for frame in range(4) if not torch.equal(found[:, frame], pixels[:, frame])}
    between = {0, 1, 2}
    assert changes == {
        LAST: between | {3},
        MIDDLE: between,
        MIDDLE_BACK: between,
        EARLY: {0},
        EARLY_BACK: {0},
        LATE_BACK: {2},
        LATE: {2},
    }


def test_motion_of_frames_between_is_searched_from_both_sides():
    model, frames = silent(), moving_clip(5, 96, 128)
    encoder = StreamEncoder(model, UniformAllocator(level=6))
    steps = [step for step in map(encoder.push, frames) if step is not None]
    parts = steps[1].vectors.reshape(MOTION_MAPS, 6, 8, 2)
    for number, count in PAN.items():  # a frame moves by three pixels
        inner = parts[number, :, 1:-2]
        assert np.median(inner[..., 0]) == pytest.approx(6 * count, abs=1)
        assert np.median(inner[..., 1]) == pytest.approx(0, abs=1)
    motion = torch.zeros(1, 1, 4, 2, 12, 16)
    pixels = to_signed_unit(torch.from_numpy(frames)).unsqueeze(0)
    motion[0, 0] = search(pixels[:, 1:], pixels[:, 0])[0]
    trained = hybrid_displacements(pixels, motion, slope=torch.tensor([1000.0]))
    assert trained.shape == (1, 1, MOTION_MAPS, 2, 12, 16)
    for number, count in PAN.items():
        assert float(trained[0, 0, number, 0, :, 2:-4].median()) == pytest.approx(1.5 * count, abs=0.3)
    assert torch.equal(trained, (4 * trained).round() / 4), "whole half pixels"


def test_training_sees_each_step_of_each_clip_by_itself():
    clips = [torch.from_numpy(moving_clip(9, 48, 64)), torch.from_numpy(clip(9, 48, 64))]
    pixels = torch.stack([to_signed_unit(frames) for frames in clips])
    motion = torch.zeros(2, 2, 4, 2, 6, 8)
    for number, step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = pixels[number : number + 1, 4 * step : 4 * step + 5]
        motion[number, step] = search(part[:, 1:], part[:, 0])[0]
    slope = torch.tensor([300.0, 30000.0])
    both = hybrid_displacements(pixels, motion, slope=slope)
    assert both.shape == (2, 2, MOTION_MAPS, 2, 6, 8)
    assert not torch.equal(both[0, 0], both[0, 1])
    for number, step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = pixels[number : number + 1, 4 * step : 4 * step + 5]
        one = hybrid_displacements(part, motion[number, step][None, None], slope=slope[number : number + 1])
        assert torch.equal(one[0, 0], both[number, step])


def test_motion_of_frames_between_needs_that_of_the_last():
    frames = to_signed_unit(torch.from_numpy(clip(5, 16, 16)))
    with pytest.raises(RuntimeError, match="first"):
        HybridMotion().of_others(frames[None, 1:], frames[:1], frames[4:], lambda _: frames[2:3], slope=1.0)


def test_a_map_that_saves_too_little_is_not_sent():
    wide = smooth(13, 17, seed=5)
    before, frame = wide[..., :96, :128], wide[..., :96, 3:131]
    found = field_of_motion(search(frame.unsqueeze(1), before)[:, 0])[0]
    wanted, reference = (grey(picture.unsqueeze(1))[:, 0] for picture in (frame, before))
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=1.0)
    nothing = np.zeros(found.shape, np.int16)
    free, dear = (
        choose_map(errors, [found], before=nothing, slope=slope, relative=False, rounds=2) for slope in (1.0, 1e9)
    )
    assert np.median(free[:, :-1], axis=(0, 1)).tolist() == [6, 0]
    assert not dear.any()
    expected = np.full(found.shape, -9, np.int16)
    far = choose_map(errors, [found], before=expected, slope=1e9, relative=True, rounds=2)
    np.testing.assert_array_equal(far, expected)


def test_chosen_vectors_stay_within_their_range():
    generator = np.random.default_rng(0)
    wanted, reference = generator.integers(0, 256, (2, 1, 48, 64), dtype=np.uint8)
    errors = BlockErrors(wanted, HalfPixels(reference), repeats=1.0)
    start = np.where(generator.integers(0, 2, (3, 4, 2)) > 0, MAX_VECTOR, -MAX_VECTOR)
    for relative in (False, True):
        found = choose_map(
            errors, [start, -start], before=start.astype(np.int16), slope=1.0, relative=relative, rounds=3
        )
        assert found.dtype == np.int16
        assert np.abs(found).max() <= MAX_VECTOR


@torch.no_grad()
def test_the_encoder_codes_the_last_frame_alone():
    encoder = HybridEncoder(HYBRID)
    frames = to_signed_unit(torch.from_numpy(clip(4, 16, 24)))[None]
    model = small_model(HYBRID)
    first, _ = encoder.step(frames[:, :1], None)
    _, state = model.decoder.step(first, torch.ones_like(first), None)
    forecast = model.decoder.forecast(state, torch.zeros(1, MOTION_MAPS, 2, 2, 3))
    past = Past(state=EncoderState(before=()), forecast=forecast, motion=forecast.motion)
    z, _ = encoder.step(frames, past)
    changed = frames.clone()
    changed[:, :3] = 0
    assert torch.equal(encoder.step(changed, past)[0], z)


# --- configuration and training ---


def test_configurations_that_are_no_hybrid_are_refused():
    hybrid = {"hybrid": True, "coded_motion": True, "encoder_blocks": 0}
    assert TokenizerConfig(**hybrid).geometry.motion_maps == MOTION_MAPS
    for change in (
        {"bits_per_token": 63},
        {"bits_per_token": 7},
        {"coded_motion": False},
        {"recurrent": False, "coded_motion": False},
        {"encoder_blocks": 2},
        {"temporal_downsampling": "early"},
        {"quantizer": "none"},
    ):
        with pytest.raises(ModelError):
            TokenizerConfig(**(hybrid | change))
    with pytest.raises(ModelError, match="encoder_blocks"):
        TokenizerConfig(encoder_blocks=0)


def test_inflation_gives_later_steps_the_network_of_first_ones():
    model = Tokenizer(HYBRID)
    assert needs_inflation(model)
    with torch.no_grad():
        model.decoder.first.token_in.bias.fill_(0.5)
        model.decoder.split_first.bias.fill_(0.25)
    inflate(model)
    after = model.state_dict()
    assert not (after["decoder.later.token_in.bias"] == 0.5).any(), "bits of later steps mean other things"
    assert torch.equal(after["decoder.later.blocks.0.conv1.weight"], after["decoder.first.blocks.0.conv1.weight"])
    assert (after["decoder.split_last.bias"] == 0.25).all()
    assert not needs_inflation(model)


def test_it_starts_from_weights_that_are_no_hybrid(tmp_path: Path):
    """Later steps take what those had learned of them, and what made the last of four frames."""
    other = replace(HYBRID, hybrid=False, encoder_blocks=1)
    torch.manual_seed(1)
    source, model = small_model(other), Tokenizer(HYBRID)
    source.decoder.split_rest.bias.normal_()
    source.decoder.later.blocks[0].conv1.weight.normal_()
    entry = save_tokenizer(source, tmp_path, name="own")
    initialise(model, entry.path)
    exact = load_tokenizer(entry).decoder
    channels = HYBRID.frame_channels * 4
    assert torch.equal(model.decoder.split_last.weight, exact.split_rest.weight[-channels:])
    assert torch.equal(model.decoder.later.blocks[0].conv1.weight, exact.later.blocks[0].conv1.weight)
    assert not needs_inflation(model), "which would undo it"


def test_what_goes_on_goes_on_evenly():
    geometry = HYBRID.geometry
    rows, columns = geometry.motion_blocks(4, 6)
    vectors = np.random.default_rng(0).integers(-9, 10, (2, rows, columns, 2)).astype(np.int16)
    past = TokenChunk(
        indices=np.zeros((2, 4, 6), np.uint64), levels=np.zeros((2, 1, 2), np.uint8), geometry=geometry, vectors=vectors
    )
    found = np.split(expected_vectors(past), MOTION_MAPS)
    np.testing.assert_array_equal(found[LAST], vectors[1, : rows // MOTION_MAPS])
    np.testing.assert_array_equal(found[MIDDLE], np.floor(found[LAST] / 2))
    np.testing.assert_array_equal(found[MIDDLE_BACK], -found[MIDDLE])
    np.testing.assert_array_equal(found[EARLY], np.floor(found[MIDDLE] / 2))
    np.testing.assert_array_equal(found[EARLY_BACK], found[EARLY] - found[MIDDLE])
    np.testing.assert_array_equal(found[LATE_BACK], np.floor(found[MIDDLE_BACK] / 2))
    np.testing.assert_array_equal(found[LATE], found[LATE_BACK] - found[MIDDLE_BACK])
    assert expected_vectors(past).dtype == np.int16


def test_training_draws_the_prices_of_all_qualities():
    slopes = sample_slopes(2000)
    assert SLOPE_RANGE[0] <= slopes.min() < 1.2 * SLOPE_RANGE[0]
    assert SLOPE_RANGE[1] >= slopes.max() > 0.8 * SLOPE_RANGE[1]


@pytest.mark.parametrize("first", [True, False])
def test_training_keeps_what_an_encoder_would_find_worth_its_bits(first: bool):
    transform, table = CellTransform(62, first=first), (0, 4, 8, 12, 16, 24, 36, 62)
    wanted = 0.3 * torch.randn(2, 3, 40, 72, generator=torch.manual_seed(7))
    wanted[:, :, :, :32] = 0.0  # a column of blocks that lacks nothing
    slopes = torch.tensor([300.0, 30000.0])
    z = transform.bits_of(wanted, slopes)
    levels = levels_worth_it(transform, z, wanted, slopes, table)
    assert levels.shape == (2, 5, 9)
    assert torch.equal(levels[:, :4, :4], levels[:, :1, :1].expand(-1, 4, 4)), "one level a block"
    assert (levels[:, :, :4] == (2 if first else 0)).all() or (first and (levels[:, :, :4] <= 2).all())
    assert levels.min() >= int(first), "a first step is all that there is"
    assert levels[0].float().mean() > levels[1].float().mean(), "dearer bits, fewer of them"
    alone = levels_worth_it(transform, z[1:], wanted[1:], slopes[1:], table)
    assert torch.equal(alone[0], levels[1])
    top = levels_worth_it(transform, z, wanted, slopes * 0, table)
    errors = transform.errors(z, wanted)[list(table)]
    assert (top[:, 4:, 8:] == errors[:, :, 4:, 8:].sum(dim=(2, 3)).argmin(dim=0).view(2, 1, 1)).all(), (
        "a block that is cut"
    )


@pytest.mark.parametrize(
    ("tried", "errors", "chosen"), [((0, 6), (5e4,), [1, 6]), ((0, 3, 6), (5e4, 5e4 - 80, 5e4 - 82), [1, 3])]
)
def test_levels_that_were_not_tried_fall_as_the_transform_does(
    tried: tuple[int, ...], errors: tuple[float, ...], chosen: list[int]
):
    """One that is all in the first bits, and one that is all in the last; at effort 1 no level but 0 is decoded."""

    class Trial:
        geometry = HYBRID.geometry
        first, frames, transform = False, 4, True
        tokens = np.full((1, 2), 16)

        def coded_bits(self, levels: int) -> np.ndarray:
            return np.arange(levels, dtype=float)[:, None, None] * np.ones((1, 1, 2))

        def linear(self, levels: int) -> np.ndarray:
            early = np.array([100.0, 10, 10, 10, 10, 10, 10])
            late = np.array([100.0, 100, 100, 100, 100, 100, 10])
            return np.stack([early, late], axis=-1)[:levels, None]

        def distortions(self, levels: list[int]) -> np.ndarray:
            assert list(levels) == ([0] if len(errors) == 1 else list(tried))
            return np.array(errors)[:, None, None] * np.ones((1, 1, 2))

        def distortion(self, levels: np.ndarray) -> np.ndarray:
            raise AssertionError("nothing is calm")

    allocator = RateDistortionAllocator(RateDistortionConfig(slope=10.0, tried=tried, first_weight_of_transform=12.0))
    np.testing.assert_array_equal(allocator.choose(Trial()), [chosen])


def run(tmp_path: Path, *, adversarial: float = 0.0, frames: int = 1) -> Trainer:
    phase = Phase(share=1.0, frames=frames, side=32, batch=1, stage="nested")
    config = TrainConfig(
        phases=(phase,),
        weights=LossWeights(adversarial=adversarial),
        adversarial=AdversarialConfig(width=4, start=0, adaptive_every=1),
    )
    trainer = Trainer(model_config=HYBRID, config=config, checkpoint=tmp_path / "c.pt")

    class Noise:
        def batch(self, size: int, frames: int, side: int) -> Batch:
            motion = torch.rand(size, (frames - 1) // 4, 4, 2, side // 8, side // 8)
            return Batch(torch.rand(size, frames, 3, side, side) * 2 - 1, motion)

    def enough(_: object) -> None:
        if trainer.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(Noise(), max_minutes=9.0, total_minutes=9.0, log=enough, log_seconds=0.0)
    return trainer


def test_training_reaches_every_parameter(tmp_path: Path):
    model = run(tmp_path, frames=5).model
    torch.manual_seed(TrainConfig().seed)
    made = dict(Tokenizer(HYBRID).named_parameters())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, made[name]) or "state" in name, name
    assert not list(model.encoder.parameters()), "an encoder without a network"


def test_a_discriminator_is_heard_by_a_hybrid(tmp_path: Path):
    assert run(tmp_path, adversarial=0.5).adversary is not None


def test_bits_of_other_weights_are_not_taken_for_coefficients():
    plain = TokenizerConfig(
        frame_channels=HYBRID.frame_channels, latent_channels=HYBRID.latent_channels, bits_per_token=9
    )
    assert widen(Tokenizer(HYBRID), Tokenizer(plain).state_dict()) == ()


def test_the_weights_that_ship_code_a_moving_picture():
    """Nearer to its source than a picture that stands still, and the prior is worth having."""
    wide = skimage.data.astronaut()[:192]
    frames = np.stack([wide[:, 4 * n : 4 * n + 256] for n in range(9)])
    sizes = {}
    for entropy in ("prior", "adaptive"):
        codec = Codec(device="cpu", entropy=entropy)
        data = codec.encode_frames(frames, quality=4, frame_rate=24)
        sizes[entropy] = len(data)
        shown = codec.decode_frames(data).frames.astype(float)
        errors = np.square(shown - frames).mean(axis=(1, 2, 3))
        assert errors.max() < 1.6 * errors[0], "what moves evenly stays as good as the first picture"
    assert sizes["prior"] < 0.8 * sizes["adaptive"]
