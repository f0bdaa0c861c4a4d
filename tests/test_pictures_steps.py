"""First pictures by wavelets, step by step: models, encoders and decoders (spec section 8.7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from network_helpers import small_model
from picture_films import WAVELET, coded, decoded, error_of, glide, silent
from test_steps import turning
from variants import HYBRID

from tokcodec.codec import Codec
from tokcodec.errors import ModelError
from tokcodec.geometry import STEP_FRAMES
from tokcodec.tokenizer.allocation import RateDistortionAllocator, UniformAllocator, slope_of
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
from tokcodec.tokenizer.trial import block_errors
from tokcodec.tokenizer.wavelet import restored, scale_of_slope
from tokcodec.tokens import TokenGeometry

# --- the configuration ---


def test_wavelets_are_those_of_hybrids():
    assert WAVELET.geometry == replace(HYBRID.geometry, pictures=True, second_reference=True)
    assert TokenizerConfig.from_json(WAVELET.to_json()) == WAVELET
    assert "wavelet" not in HYBRID.to_json()
    with pytest.raises(ModelError, match="hybrid"):
        TokenizerConfig(wavelet=True, hybrid=False)
    with pytest.raises(ModelError, match="true or false"):
        replace(HYBRID, wavelet=1)
    with pytest.raises(ModelError):
        TokenizerConfig.from_json(tiny_model.MOTION_CONFIG_JSON[:-1] + ', "wavelet": true}')


def test_weights_have_nothing_for_first_frames(tmp_path: Path):
    names = set(small_model(WAVELET).decoder.state_dict())
    others = set(small_model(HYBRID).decoder.state_dict())
    assert names < others
    assert {name.split(".")[0] for name in others - names} == {"first", "start", "split_first"}
    path = tmp_path / "other.safetensors"
    data = tiny_model.weights_bytes(tiny_model.HYBRID_CONFIG_JSON)
    head = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + head].replace(
        b'\\"quantizer\\": \\"lfq\\"}', b'\\"quantizer\\": \\"lfq\\", \\"wavelet\\": true}'
    )
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + head :])
    with pytest.raises(ModelError, match="do not fit"):
        Codec(model=str(path), device="cpu").encode_frames(glide(1))


# --- steps ---


@pytest.mark.parametrize("length", [1, 5, 9])
@pytest.mark.parametrize("slope", [20.0, 4000.0])
def test_a_decoder_shows_what_the_encoder_saw(length: int, slope: float):
    model, frames = silent(), glide(length)
    encoder, steps = coded(model, frames, slope=slope)
    saw = encoder._decoded
    assert saw is not None
    assert len(steps) == model.config.geometry.steps(length)
    assert not encoder.end_chunk()
    first = steps[0]
    assert first.picture is not None
    assert (first.frames, first.indices.any(), first.levels.any(), first.vectors.any()) == (1, False, False, False)
    assert first.picture.coefficients.shape == (3, 64, 96)
    assert first.picture.scale == scale_of_slope(slope)
    assert all(step.picture is None for step in steps[1:])
    decoder, shown = decoded(model, steps, height=60, width=90)
    assert decoder._state is not None
    torch.testing.assert_close(decoder._state.picture, saw.picture)
    torch.testing.assert_close(decoder._state.features, saw.features)
    assert shown.shape == frames.shape
    assert error_of(shown, frames) < (6 if slope == 20.0 else 120)


def test_the_first_frame_is_its_picture():
    model, frames = silent(), glide(1)
    encoder, (step,) = coded(model, frames, slope=10.0)
    assert step.picture is not None
    _, shown = decoded(model, [step], height=60, width=90)
    pixels = restored(step.picture, torch.zeros(1))
    whole = pixels.permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    np.testing.assert_array_equal(shown[0], whole[:60, :90])
    assert error_of(shown, frames) < 2
    assert encoder._decoded is not None
    torch.testing.assert_close(encoder._decoded.picture[0], pixels.clamp(-1, 1))
    assert not encoder._decoded.features.any()
    assert encoder._decoded.features.shape == (1, 16, 8, 12)


def test_lambda_says_how_close_the_picture_is():
    frames, errors, counts = turning(1), [], []
    for slope in (4.0, 60.0, 1000.0, 20000.0):
        _, steps = coded(silent(), frames, slope=slope)
        assert steps[0].picture is not None
        errors.append(error_of(decoded(silent(), steps, height=96, width=128)[1], frames))
        counts.append(np.count_nonzero(steps[0].picture.coefficients))
    assert errors == sorted(errors)
    assert counts == sorted(counts, reverse=True)
    assert errors[0] < 1
    assert errors[-1] > 10


def test_each_chunk_has_a_picture():
    model, frames = silent(), glide(10)
    encoder, steps = coded(model, frames[:5])
    encoder.end_chunk()
    again = [step for step in map(encoder.push, frames[:5]) if step is not None]
    for one, other in zip(steps, again, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.vectors, other.vectors)
    assert steps[0].picture is not None
    assert again[0].picture is not None
    np.testing.assert_array_equal(steps[0].picture.coefficients, again[0].picture.coefficients)


def test_what_the_picture_lacks_is_what_the_next_step_hears(monkeypatch: pytest.MonkeyPatch):
    """The allocator is told the errors that the picture leaves in each block."""
    heard = []
    monkeypatch.setattr(RateDistortionAllocator, "began", lambda self, error: heard.append(error))
    model, frames = silent(), turning(1)
    _, steps = coded(model, frames, slope=1000.0)
    ((error,),) = (heard,)
    assert error.shape == model.config.geometry.blocks(12, 16) == (3, 4)
    assert steps[0].picture is not None
    shown = restored(steps[0].picture, torch.zeros(1)).clamp(-1, 1).permute(1, 2, 0).add(1).mul(127.5).numpy()
    blocks = np.square(shown - frames[0]).mean(axis=-1).reshape(3, 32, 4, 32).sum(axis=(1, 3))
    np.testing.assert_allclose(error, blocks, rtol=1e-3)


def test_errors_of_blocks_leave_padding_out():
    geometry = TokenGeometry()
    shown, wanted = torch.zeros(2, 3, 40, 48), torch.full((2, 36, 41, 3), 127, dtype=torch.uint8)
    found = block_errors(shown, wanted, geometry)
    np.testing.assert_allclose(found, 2 * 0.25 * np.outer([32, 4], [32, 9]))
    far = block_errors(shown + 9, wanted, geometry)
    np.testing.assert_allclose(far, 2 * 128.0**2 * np.outer([32, 4], [32, 9]))


@pytest.mark.parametrize("step_frames", [(1,), (2, 1), STEP_FRAMES])
def test_steps_of_all_lengths_follow_a_picture(step_frames: tuple[int, ...]):
    model, frames = silent(), turning(8)
    encoder, steps = coded(model, frames, slope=500.0, step_frames=step_frames)
    steps += encoder.end_chunk()
    assert {step.frames for step in steps} <= {*step_frames, 1}
    shown = decoded(model, steps, height=96, width=128)[1]
    assert error_of(shown[:8], frames) < 60


def test_a_picture_that_is_missing_is_told():
    model = small_model(WAVELET)
    decoder = StreamDecoder(model, height=16, width=24)
    nothing = np.zeros((2, 3), np.uint64), np.zeros((2, 3), np.uint8), np.zeros((7, 2, 2), np.int16)
    with pytest.raises(ModelError, match="picture"):
        decoder.step(*nothing)
    assert isinstance(model.decoder, HybridDecoder)
    with pytest.raises(ValueError, match="begin"):
        model.decoder.step(torch.ones(1, 18, 2, 3), torch.ones(1, 18, 2, 3), None)


def test_an_even_allocation_has_pictures_of_its_quality():
    for level in (1, 6):
        step = StreamEncoder(silent(), UniformAllocator(level=level)).push(glide(1)[0])
        assert step is not None
        assert step.picture is not None
        assert step.picture.scale == scale_of_slope(slope_of(level))
        assert not step.levels.any()
