"""The network of the tokenizer: streaming, causality, locality, prefixes, resolutions, motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import NO_MOTION, clip, encode_stream, small_model

from tokcodec.tokenizer.allocation import UniformAllocator
from tokcodec.tokenizer.layers import ResidualBlock
from tokcodec.tokenizer.lfq import pack_bits, signs, unit_power
from tokcodec.tokenizer.model import PATCH, Forecast, Past, Tokenizer
from tokcodec.tokenizer.motion import MOTION_LIMIT, MOTION_UNIT, code_of_motion, motion_of_code, warp
from tokcodec.tokenizer.pixels import pad_frame, to_signed_unit
from tokcodec.tokenizer.search import search
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder


def latents_of_chunk(model: Tokenizer, frames: np.ndarray, *, bits: int) -> torch.Tensor:
    """The encoder written again, without its states, on frames that fill a chunk: `(steps, K, h, w)`.

    The decoder starts from the beginning for each step.
    """
    encoder = model.encoder

    pictures = pad_frame(to_signed_unit(torch.from_numpy(frames)), 8)
    before: list[torch.Tensor] = [torch.empty(0)] * len(encoder.mixes)
    latents: list[torch.Tensor] = []
    for step in range(model.config.geometry.steps(len(frames))):
        part = pictures[:1] if step == 0 else pictures[4 * step - 3 : 4 * step + 1]
        x = encoder.patch_in(F.pixel_unshuffle(part, PATCH))
        if step:
            state = None
            for z in latents:
                kept = (torch.arange(z.shape[1]).view(1, -1, 1, 1) < bits).float().expand_as(z)
                _, state = model.decoder.step(signs(z), kept, state)
            shown, after = model.decoder.step(torch.ones_like(kept), torch.zeros_like(kept), state)
            x = x + encoder.error_in(F.pixel_unshuffle(part - shown[0].clamp(-1, 1), PATCH))
        x = F.pixel_unshuffle(encoder.frame_block(x), 2)
        if step == 0:
            y = encoder.merge_first(x)
        else:
            found = search(part.unsqueeze(0), pictures[4 * step - 4].unsqueeze(0))
            new = torch.asinh(found) - torch.asinh(after.motion)
            features = torch.cat([torch.asinh(found), 2 * new, (8 * new).clamp(-2, 2)], dim=1).flatten(1, 2)
            motion = encoder.motion_merge(F.silu(encoder.motion_in(features)))
            known = encoder.known_in(encoder.norm_known(state.features))
            y = encoder.merge_rest(x.flatten(0, 1).unsqueeze(0)) + motion + known
        trunk = encoder.later if step else encoder.first
        for number, (mix, block) in enumerate(zip(encoder.mixes, trunk.blocks, strict=True)):
            seen = y
            y = block(y if step == 0 else mix(y, before[number]))
            before[number] = seen
        latents.append(unit_power(trunk.latent_out(F.silu(trunk.norm_out(y)))))
    return torch.cat(latents)


@pytest.mark.parametrize("level", [2, 6])
@torch.inference_mode()
def test_the_stream_codes_what_the_decoder_lacks(level: int):
    model = small_model()
    frames = clip(17, 40, 56)
    bits = model.config.geometry.level_bits[level]
    z = latents_of_chunk(model, frames, bits=bits)
    kept = pack_bits((z > 0) & (torch.arange(z.shape[1]).view(-1, 1, 1) < bits)).numpy().astype(np.uint64)
    assert z.abs().min() > 1e-5, "a latent too near to zero to compare signs"
    np.testing.assert_array_equal(encode_stream(model, frames, level=level), kept)


def test_tokens_depend_on_the_bits_kept_before_and_not_on_those_of_their_own_step():
    model = small_model()
    frames = clip(9, 24, 24)
    full, poor = encode_stream(model, frames), encode_stream(model, frames, level=2)
    low = np.uint64((1 << model.config.geometry.level_bits[2]) - 1)
    np.testing.assert_array_equal(full[0] & low, poor[0])
    assert (full[1] & low != poor[1]).any()


def test_a_chunk_does_not_depend_on_what_was_encoded_before():
    model = small_model()
    encoder = StreamEncoder(model, UniformAllocator(level=6))
    frames = clip(5, 16, 24)
    for frame in clip(7, 16, 24, seed=9):
        encoder.push(frame)
    encoder.end_chunk()
    again = [step for step in map(encoder.push, frames) if step is not None]
    np.testing.assert_array_equal(np.stack([step.indices for step in again]), encode_stream(model, frames))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9])
def test_an_unfinished_step_repeats_the_last_frame(count: int):
    model = small_model()
    frames = clip(count, 16, 16)
    missing = -(count - 1) % 4
    padded = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    tokens = encode_stream(model, frames)
    assert len(tokens) == model.config.geometry.steps(count)
    np.testing.assert_array_equal(tokens, encode_stream(model, padded))


@pytest.mark.parametrize("changed", [1, 4, 5, 8])
def test_the_encoder_is_causal(changed: int):
    model = small_model()
    frames = clip(9, 16, 16)
    other = frames.copy()
    other[changed:] = clip(9 - changed, 16, 16, seed=5)
    step = -(-changed // 4)
    first, second = encode_stream(model, frames), encode_stream(model, other)
    np.testing.assert_array_equal(first[:step], second[:step])
    assert (first[step] != second[step]).any()


@torch.no_grad()
def test_frames_are_merged_late():
    encoder = small_model().encoder
    seen: list[torch.Tensor] = []
    encoder.merge_rest.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(3)
    before, frames = torch.rand(1, 1, 3, 16, 16), torch.rand(1, 4, 3, 16, 16)
    nothing = Forecast(
        features=torch.zeros(1, 16, 2, 2), frames=torch.zeros(1, 4, 3, 16, 16), motion=torch.zeros(1, 4, 2, 2, 2)
    )
    past = Past(state=encoder.step(before, None)[1], forecast=nothing, motion=torch.zeros(1, 4, 2, 2, 2))
    latents = [encoder.step(part, past)[0] for part in (frames, frames.flip(1))]
    assert latents[0].shape == (1, 18, 2, 2), "four frames, one latent step"
    maps = [each.unflatten(1, (4, 32)) for each in seen]  # 8 channels at a quarter, 32 at an eighth of the resolution
    torch.testing.assert_close(maps[1], maps[0].flip(1), msg="until then each frame is by itself")
    assert (latents[0] != latents[1]).any(), "after that their order counts"


@torch.no_grad()
def test_the_norm_adapts_to_the_tokens():
    torch.manual_seed(0)
    block, x = ResidualBlock(8, condition_channels=4), torch.rand(1, 8, 3, 3)
    modulation = block.modulation
    assert modulation is not None
    modulation.weight.zero_()
    modulation.bias.zero_()
    plain = ResidualBlock(8)
    plain.load_state_dict(block.state_dict(), strict=False)
    torch.testing.assert_close(block(x, torch.zeros(1, 4, 3, 3)), plain(x), msg="scale 1 and shift 0 at rest")
    modulation.weight[:8, 0] = 1.0  # the scale of every channel is 1 + the first channel of the condition
    modulation.weight[8:, 1] = 1.0  # the shift is the second
    condition = torch.zeros(1, 4, 3, 3)
    condition[:, 0], condition[:, 1] = 0.5, 0.25
    normed = block.norm2(block.conv1(F.silu(block.norm1(x))))
    torch.testing.assert_close(block(x, condition), x + block.conv2(F.silu(1.5 * normed + 0.25)))
    assert all(part.modulation is not None for part in small_model().decoder.later.blocks)


def test_tokens_are_local():
    # The source: two blocks of two 3x3 at 8 pixels, 32 pixels of search and three 3x3 at 4 pixels reach 76 + 8 pixels.
    # By the picture that the decoder shows, each further step sees as far again, and 46 pixels more.
    model = small_model()
    frames = clip(5, 16, 320)
    other = frames.copy()
    other[:, :, 256:] = clip(5, 16, 64, seed=7)
    first, second = encode_stream(model, frames), encode_stream(model, other)
    np.testing.assert_array_equal(first[..., :11], second[..., :11])
    assert (first[..., 32:] != second[..., 32:]).any()


def test_the_middle_of_a_large_picture_is_that_of_a_crop():
    model = small_model()
    frames = clip(5, 24, 480)  # too low for a motion search, which looks at the whole
    first = encode_stream(model, frames)
    crop = encode_stream(model, frames[:, :, 32:448])
    np.testing.assert_array_equal(first[..., 27:33], crop[..., 23:29])


@settings(max_examples=15)
@given(height=st.integers(1, 40), width=st.integers(1, 40), count=st.integers(1, 6))
def test_any_resolution(height: int, width: int, count: int):
    model = small_model()
    tokens = encode_stream(model, clip(count, height, width))
    rows, columns = -(-height // 8), -(-width // 8)
    assert tokens.shape == (model.config.geometry.steps(count), rows, columns)
    decoder = StreamDecoder(model, height=height, width=width)
    for number, step in enumerate(tokens):
        pictures = decoder.step(step, np.full((rows, columns), 18, np.uint8), NO_MOTION)
        assert pictures.shape == (4 if number else 1, height, width, 3)
        assert pictures.dtype == np.uint8


@pytest.mark.parametrize("kept", [0, 3, 9, 15])
def test_bits_that_are_not_kept_do_not_matter(kept: int):
    model = small_model()
    tokens = encode_stream(model, clip(5, 16, 16))
    noise = np.random.default_rng(1).integers(0, 1 << 18, tokens.shape, dtype=np.uint64)
    low = np.uint64((1 << kept) - 1)
    other = (tokens & low) | (noise & ~low)
    assert (other != tokens).any()
    bits = np.full(tokens.shape[1:], kept, np.uint8)
    decoders = [StreamDecoder(model, height=16, width=16) for _ in range(2)]
    for step, changed in zip(tokens, other, strict=True):
        first, second = (d.step(t, bits, NO_MOTION) for d, t in zip(decoders, (step, changed), strict=True))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shown", [slice(3, None), slice(1, None, 2)])
@torch.inference_mode()
def test_a_step_may_show_only_some_of_its_frames(shown: slice):
    decoder = small_model().decoder
    tokens = torch.randn(2, 2, 18, 3, 3, generator=torch.manual_seed(4)).sign()
    kept = torch.ones(2, 18, 3, 3)
    _, state = decoder.step(tokens[0], kept, None)
    frames, after = decoder.step(tokens[1], kept, state)
    some, after_some = decoder.step(tokens[1], kept, state, shown=shown)
    torch.testing.assert_close(some, frames[:, shown])
    torch.testing.assert_close(after_some.picture, after.picture)
    torch.testing.assert_close(after_some.features, after.features)


def test_a_block_without_bits_is_continued_from_the_state():
    model = small_model()
    decoder = StreamDecoder(model, height=16, width=16)
    nothing, all_bits = np.zeros((2, 2), np.uint8), np.full((2, 2), 18, np.uint8)
    pictures = []
    for seed in (1, 2):
        tokens = encode_stream(model, clip(1, 16, 16, seed=seed))
        decoder.start_chunk()
        decoder.step(tokens[0], all_bits, NO_MOTION)
        pictures.append(decoder.step(tokens[0], nothing, NO_MOTION))
    assert (pictures[0] != pictures[1]).any(), "the past must show where no bits are sent"


@pytest.mark.parametrize(("motion", "is_still"), [(0.05, True), (0.5, False)])
@torch.no_grad()
def test_what_keeps_no_bits_and_does_not_move_is_shown_again(motion: float, is_still: bool):
    decoder = small_model().decoder
    decoder.motion_out.weight.zero_()
    decoder.motion_out.bias.fill_(motion)
    tokens = torch.randn(2, 2, 18, 6, 6, generator=torch.manual_seed(4)).sign()
    kept = torch.ones(2, 18, 6, 6)
    _, state = decoder.step(tokens[0], kept, None)
    kept[..., :3] = 0
    frames, after = decoder.step(tokens[1], kept, state)
    again = state.picture.unsqueeze(1).expand_as(frames)
    assert torch.equal(frames[..., :24], again[..., :24]) is is_still
    assert torch.equal(after.features[..., :3], state.features[..., :3]) is is_still
    assert not torch.isclose(frames[..., 24:], again[..., 24:]).all(), "where bits are kept the picture changes"


def test_the_search_finds_motion():
    blobs = (
        F.interpolate(torch.rand(1, 3, 14, 22, generator=torch.manual_seed(0)), size=(112, 176), mode="bicubic") * 2 - 1
    )
    before = blobs[:, :, 8:104, 8:168]
    frames = torch.stack([blobs[:, :, 8 + n : 104 + n, 8 - n : 168 - n] for n in range(1, 5)], dim=1)
    motion = search(frames, before)
    assert motion.shape == (1, 4, 2, 12, 20)
    for number in range(1, 5):  # what is at (x, y) now was at (x - n, y + n)
        inner = motion[0, number - 1, :, 3:-3, 3:-3] * MOTION_UNIT
        assert float((inner[0] + number).abs().median()) < 0.25
        assert float((inner[1] - number).abs().median()) < 0.25
    moved = warp(before, motion)
    assert (
        float((moved - frames)[..., 16:-16, 16:-16].abs().mean()) < 0.02 < float((before - frames[:, 3]).abs().mean())
    )


def test_motion_has_a_code():
    motion = torch.linspace(-70, 70, 57)
    torch.testing.assert_close(motion_of_code(code_of_motion(motion)), motion, rtol=1e-4, atol=1e-4)
    assert float(motion_of_code(torch.tensor(99.0))) == pytest.approx(math.sinh(MOTION_LIMIT), rel=1e-5)


def test_small_pictures_stand_still():
    assert not search(torch.rand(1, 4, 3, 24, 40), torch.rand(1, 3, 24, 40)).any()


def test_the_decoder_moves_its_last_picture():
    picture = torch.rand(1, 3, 16, 24)
    still = torch.zeros(1, 4, 2, 2, 3)
    torch.testing.assert_close(warp(picture, still), picture.unsqueeze(1).expand(1, 4, 3, 16, 24))
    motion = still.clone()
    motion[:, 1, 0] = 1.5  # in units of two pixels: each value is taken from three pixels to the right
    motion[:, 2, 1] = -2.25
    moved = warp(picture, motion)[0]
    torch.testing.assert_close(moved[1, :, :, :21], picture[0, :, :, 3:])
    torch.testing.assert_close(moved[1, :, :, 21:], picture[0, :, :, 23:].expand(3, 16, 3))
    between = (picture[0, :, :-5] + picture[0, :, 1:-4]) / 2
    torch.testing.assert_close(moved[2, :, 5:], between)


def test_kept_bits_may_differ_from_block_to_block():
    model = small_model()
    tokens = encode_stream(model, clip(1, 16, 64))[0]
    kept = np.full(tokens.shape, 18, np.uint8)
    decoder = StreamDecoder(model, height=16, width=64)
    full = decoder.step(tokens, kept, NO_MOTION)
    kept[:, :4] = 3
    decoder.start_chunk()
    mixed = decoder.step(tokens, kept, NO_MOTION)
    assert (full[:, :, :32] != mixed[:, :, :32]).any()
    # Far from the poor blocks nothing changes: two decoder blocks and three 3x3 at 4 pixels reach 46 pixels.
    decoder = StreamDecoder(model, height=16, width=160)
    tokens = encode_stream(model, clip(1, 16, 160))[0]
    kept = np.full(tokens.shape, 18, np.uint8)
    full = decoder.step(tokens, kept, NO_MOTION)
    kept[:, :4] = 3
    decoder.start_chunk()
    np.testing.assert_array_equal(full[:, :, 96:], decoder.step(tokens, kept, NO_MOTION)[:, :, 96:])
