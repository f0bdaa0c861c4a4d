"""Refining tokens: never worse, only what is kept, the same each time; and through the command's efforts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_helpers import clip, small_model

from tokcodec.tokenizer.allocation import UniformAllocator
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import DecoderState, Tokenizer
from tokcodec.tokenizer.pixels import to_signed_unit
from tokcodec.tokenizer.refine import refine
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder


def error_of(model: Tokenizer, tokens: torch.Tensor, kept: torch.Tensor, state: DecoderState | None, pixels) -> float:
    shown, _ = model.decoder.step(tokens, kept, state)
    return float((shown.clamp(-1, 1) - pixels).square().sum())


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("bits", [3, 18])
@torch.no_grad()
def test_the_error_falls_and_bits_that_are_not_kept_stay(later: bool, bits: int):
    model = small_model()
    found = []
    for seed in range(3):
        frames = to_signed_unit(torch.from_numpy(clip(5, 16, 24, seed=seed)))
        z, _ = model.encoder.step(frames[None, :1], None)
        kept = (torch.arange(18).view(1, -1, 1, 1) < bits).float().expand_as(z)
        state = model.decoder.step(signs(z), kept, None)[1] if later else None
        pixels = frames[None, 1:] if later else frames[None, :1]
        refined = refine(model.decoder, z, kept, state, pixels, iterations=12)
        before, after = (error_of(model, tokens, kept, state, pixels) for tokens in (signs(z), refined))
        assert after <= before
        found.append(after < before)
        assert set(refined.unique().tolist()) <= {-1.0, 1.0}
        torch.testing.assert_close(refined * (1 - kept), signs(z) * (1 - kept))
        torch.testing.assert_close(refine(model.decoder, z, kept, state, pixels, iterations=12), refined)
    assert bits == 3 or any(found), "of all bits of three pictures of noise some are better otherwise"


def test_no_iteration_changes_nothing():
    model = small_model()
    z, _ = model.encoder.step(to_signed_unit(torch.from_numpy(clip(1, 16, 16)))[None], None)
    frames = to_signed_unit(torch.from_numpy(clip(1, 16, 16)))[None]
    torch.testing.assert_close(refine(model.decoder, z, torch.ones_like(z), None, frames, iterations=0), signs(z))


def test_a_refined_stream_decodes_nearer_to_its_source():
    model = small_model()
    frames = clip(9, 24, 32)

    def decoded(iterations: int) -> np.ndarray:
        encoder = StreamEncoder(model, UniformAllocator(level=6), iterations=iterations)
        steps = [step for step in map(encoder.push, frames) if step is not None]
        decoder = StreamDecoder(model, height=24, width=32)
        kept = np.full(steps[0].indices.shape, 18, np.uint8)
        return np.concatenate([decoder.step(step.indices, kept, step.vectors) for step in steps])

    errors = [np.square(decoded(count).astype(float) - frames).mean() for count in (0, 8)]
    assert errors[1] < errors[0]
