"""First pictures by wavelets where tokens are trained on, measured and counted."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from variants import HYBRID

from tokcodec import Codec
from tokcodec.tokenizer.cost import clip_flops_per_pixel, measure_cost
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.search import search_clip
from tokcodec.tokenset import TokenDataset, read_chunks
from tokcodec.training.config import TrainConfig
from tokcodec.training.inflation import needs_inflation
from tokcodec.training.objective import allocations_of, begun, clip_losses
from tokcodec.training.prior_data import load_chunks, without_picture
from tokcodec.training.prior_measure import measure_prior
from tokcodec.weights import default_entry
from tokcodec.weights.priors import choose_prior, load_prior

WAVELET = replace(HYBRID, wavelet=True)


@pytest.fixture(scope="module")
def film() -> bytes:
    """Seven frames by the weights that ship."""
    frames = (np.indices((7, 40, 56)).sum(axis=0) * 4 % 256).astype(np.uint8)
    return Codec(device="cpu").encode_frames(np.stack([frames] * 3, axis=-1), frame_rate=24)


def test_training_goes_on_from_pictures_by_wavelets():
    torch.manual_seed(3)
    model, frames = Tokenizer(WAVELET), torch.rand(2, 9, 3, 32, 32) * 2 - 1
    config = TrainConfig()
    allocations = allocations_of("nested", config, (2, 3, 4, 4), top=len(WAVELET.geometry.level_bits) - 1)
    shown: list[torch.Tensor] = []
    terms = clip_losses(
        model, frames, allocations, config, "nested", motion=search_clip(frames), show=lambda clip: shown.append(clip)
    )
    assert shown[0].shape == frames.shape
    torch.testing.assert_close(shown[0][:, 0], begun(model, frames[:, 0], allocations.slope).picture)
    (terms["l1"] + terms["mse"]).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without, without


def test_a_finer_lambda_begins_with_a_better_picture():
    model, pictures = Tokenizer(WAVELET), torch.rand(2, 3, 16, 24) * 2 - 1
    state = begun(model, pictures, torch.tensor([1.0, 1e5]))
    errors = (state.picture - pictures).square().mean(dim=(1, 2, 3))
    assert errors[0] < 0.01 * errors[1]
    assert not state.features.any()


def test_there_is_no_image_model_to_start_from():
    assert needs_inflation(Tokenizer(HYBRID))
    assert not needs_inflation(Tokenizer(WAVELET))


def test_first_pictures_cost_no_network():
    whole, less = (measure_cost(Tokenizer(config)) for config in (HYBRID, WAVELET))
    assert less.decoder_parameters < 0.8 * whole.decoder_parameters
    assert less.decoder_flops_per_pixel == whole.decoder_flops_per_pixel, "of a later step"
    assert clip_flops_per_pixel(WAVELET, frames=1) == 0
    assert 0 < clip_flops_per_pixel(WAVELET, frames=5) < clip_flops_per_pixel(HYBRID, frames=5)


def test_a_prior_is_measured_and_trained_on_tokens_alone(film: bytes, tmp_path: Path):
    (tmp_path / "film.tok").write_bytes(film)
    (chunk,) = read_chunks(io.BytesIO(film))
    assert chunk.picture is not None
    geometry, (loaded,) = load_chunks(tmp_path)
    assert (geometry.pictures, loaded.picture) == (False, None)
    network = load_prior(choose_prior(None, tokenizer=default_entry().sha256))
    with_it, without = (measure_prior(network, [each]) for each in (chunk, without_picture(chunk)))
    assert with_it.prior_bits == without.prior_bits
    assert with_it.adaptive_bits == without.adaptive_bits


def test_items_of_a_dataset_have_pictures_of_their_own(film: bytes, tmp_path: Path):
    (tmp_path / "film.tok").write_bytes(film)
    data = TokenDataset(tmp_path, steps=1)
    first, second = data[0], data[1]
    (chunk,) = read_chunks(io.BytesIO(film))
    assert chunk.picture is not None
    for item in (first, second):
        assert item["scale"] == chunk.picture.scale
        np.testing.assert_array_equal(item["picture"].numpy(), chunk.picture.coefficients)  # type: ignore[union-attr]
    first["picture"] += 1  # type: ignore[operator]
    np.testing.assert_array_equal(data[1]["picture"].numpy(), chunk.picture.coefficients)  # type: ignore[union-attr]
