"""The variant hybrid: seven motion maps a step, frames that are made of their neighbours, and all of it as a codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import CPU, clip, small_model, smooth
from test_motion_bits import KINDS, assert_round_trip, maps
from torch import Tensor
from variants import HYBRID

from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.motion_bits import expected_map
from tokcodec.tokenizer import stream
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig, UniformAllocator
from tokcodec.tokenizer.block_search import BlockErrors, HalfPixels, field_of_motion
from tokcodec.tokenizer.coding_cost import CodingCost
from tokcodec.tokenizer.device import prepare
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
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.motion import displacements_of_maps
from tokcodec.tokenizer.pixels import to_signed_unit
from tokcodec.tokenizer.search import grey, search
from tokcodec.tokenizer.state import DecoderState, EncoderState, Past
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
from tokcodec.tokenizer.transform import MAX_BITS
from tokcodec.tokenizer.trial import StepTrial
from tokcodec.tokens import spread_levels
from tokcodec.training.coded_motion import hybrid_displacements

WHOLE = replace(HYBRID, bits_per_token=MAX_BITS, level_bits=(0, 20, MAX_BITS))


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
    steps += last
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
    if not last:
        assert expected is not None
        torch.testing.assert_close(decoder._state.picture, expected)


def begun() -> tuple[Tokenizer, Tensor, Tensor, DecoderState]:
    """A small model, tokens whose bits are all kept, and the state that they leave as a first step."""
    model = small_model(HYBRID)
    tokens = torch.where(torch.randn(1, 18, 3, 4, generator=torch.manual_seed(3)) > 0, 1.0, -1.0)
    kept = torch.ones_like(tokens)
    return model, tokens, kept, model.decoder.step(tokens, kept, None)[1]


@torch.no_grad()
def test_motion_of_frames_between_does_not_change_the_last():
    """The encoder chooses it after the last frame is decoded."""
    model, tokens, kept, state = begun()
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
    model, tokens, kept, state = begun()
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


def test_levels_of_first_steps_are_tried_with_the_bits_that_they_would_have(monkeypatch: pytest.MonkeyPatch):
    model = prepare(small_model(replace(HYBRID, bits_per_token=MAX_BITS, level_bits=(0, 8, 24, MAX_BITS))), CPU)
    frames = torch.from_numpy(clip(1, 64, 64))
    pixels, slope = to_signed_unit(frames).unsqueeze(0), torch.tensor([2500.0])
    encoder = model.encoder
    assert isinstance(encoder, HybridEncoder)
    tokens = signs(encoder.step(pixels, None, slope)[0])

    def settled(kept: Tensor) -> Tensor:
        return signs(encoder.settled(pixels, kept, slope))

    def trial(settle: Callable[[Tensor], Tensor] | None) -> StepTrial:
        cost = CodingCost(MAX_BITS, seldom=True)
        return StepTrial(
            model, tokens, None, frames, pixels=pixels, forecast=None, cost=cost, displacement=None, settle=settle
        )

    levels = np.array([[1, 3], [3, 1]], np.uint8)
    with torch.inference_mode():
        kept = trial(None).kept(levels)
        shown = model.decoder.step(settled(kept), kept, None)[0][0, 0].clamp(-1, 1)
        error = ((shown - pixels[0, 0]) * 127.5).square().mean(dim=0).sum()
        found, blind = trial(settled).distortion(levels).sum(), trial(None).distortion(levels).sum()
    assert found == pytest.approx(float(error), rel=1e-4)
    assert blind != pytest.approx(found, rel=1e-3)
    given: list[bool] = []

    class Spy(StepTrial):
        def __init__(self, *words: Any, **named: Any) -> None:
            given.append(named["settle"] is not None)
            super().__init__(*words, **named)

    monkeypatch.setattr(stream, "StepTrial", Spy)
    coder = StreamEncoder(model, RateDistortionAllocator(RateDistortionConfig(slope=2500.0)))
    for frame in clip(5, 64, 64):
        coder.push(frame)
    assert given == [True, False]
