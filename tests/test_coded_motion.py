"""Motion that is sent beside the tokens: what encoders choose, what decoders make of it, what training sees of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from network_helpers import SMALL

from tokcodec.bits import encode_tokens
from tokcodec.errors import ModelError
from tokcodec.geometry import MAX_VECTOR
from tokcodec.tokenizer.displacement import choose_vectors
from tokcodec.tokenizer.model import DecoderState, Tokenizer
from tokcodec.tokenizer.motion import (
    displacement_of_map,
    even_displacement,
    over_frames,
    warp,
    warp_features,
)
from tokcodec.tokenizer.search import search
from tokcodec.tokens import TokenChunk
from tokcodec.training.coded_motion import coded_displacements

CODED = replace(SMALL, coded_motion=True)


def _texture(height: int, width: int) -> torch.Tensor:
    """A smooth random picture, float32 `(1, 3, height, width)` in [-1, 1]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=generator) * 2 - 1
    picture = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return picture.clamp(-1, 1)


def _pan(pixels_a_frame: int, *, height: int = 96, width: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture, and four frames of a camera that moves to the right: `(1, 3, H, W)` and `(1, 4, 3, H, W)`."""
    wide = _texture(height, width + 4 * pixels_a_frame)
    frames = [wide[..., k * pixels_a_frame : k * pixels_a_frame + width] for k in range(5)]
    return frames[0], torch.stack(frames[1:], dim=1)


def test_a_pan_is_one_vector() -> None:
    picture, frames = _pan(3)
    vectors = choose_vectors(frames, picture, search(frames, picture), before=None, slope=1000.0)
    # Twelve pixels in four frames are 24 half pixels; what comes into the picture at the right is found nowhere.
    inner = vectors[:, :-2]
    assert np.abs(inner - [24, 0]).max() <= 1
    assert np.mean(inner == [24, 0]) > 0.8


def test_a_still_picture_has_no_motion() -> None:
    picture = _texture(64, 64)
    frames = picture.unsqueeze(1).expand(-1, 4, -1, -1, -1)
    vectors = choose_vectors(frames, picture, search(frames, picture), before=None, slope=1000.0)
    assert vectors.shape == (4, 4, 2)
    assert not vectors.any()


def test_motion_gets_simpler_as_bits_get_dearer() -> None:
    picture = _texture(192, 320)
    zooms = [torch.tensor([[[1 - 0.03 * k, 0, 0], [0, 1 - 0.03 * k, 0]]]) for k in range(1, 5)]
    grids = [torch.nn.functional.affine_grid(zoom, [1, 3, 192, 320], align_corners=False) for zoom in zooms]
    frames = torch.stack([torch.nn.functional.grid_sample(picture, g, align_corners=False) for g in grids], dim=1)
    found = search(frames, picture)
    sizes = []
    for slope in (1.0, 1e5):
        vectors = choose_vectors(frames, picture, found, before=None, slope=slope)
        both = np.stack([np.zeros_like(vectors), vectors])
        levels = np.zeros((2, 6, 10), np.uint8)
        indices = np.zeros((2, 24, 40), np.uint64)
        chunk = TokenChunk(indices=indices, levels=levels, geometry=CODED.geometry, vectors=both)
        sizes.append(len(encode_tokens(chunk)))
    assert sizes[0] > 2 * sizes[1]


def test_maps_of_any_size_are_chosen() -> None:
    """Grids that are cut at the right and at the bottom, and pictures too small to search in."""
    for height, width in ((8, 8), (24, 40), (72, 56)):
        picture = _texture(height, width)
        frames = picture.flip(-1).unsqueeze(1).expand(-1, 4, -1, -1, -1)
        found = search(frames, picture)
        vectors = choose_vectors(frames, picture, found, before=None, slope=100.0)
        assert vectors.shape == (-(-height // 16), -(-width // 16), 2)
        assert np.abs(vectors).max(initial=0) <= MAX_VECTOR


def test_tokens_take_the_vector_of_their_block() -> None:
    vectors = torch.arange(2 * 3 * 2).view(1, 2, 3, 2)
    moved = displacement_of_map(vectors, 3, 5)
    assert moved.shape == (1, 2, 3, 5)
    # Half pixels to units of two pixels.
    assert moved[0, :, 1, 1].tolist() == [0.0, 0.25]
    assert moved[0, :, 2, 4].tolist() == [10 / 4, 11 / 4]


def test_even_motion_is_found_again() -> None:
    displacement = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(even_displacement(over_frames(displacement)), displacement, atol=1e-6)


def test_features_move_as_pictures_do() -> None:
    """A picture of 8x8 equal pixels for each value, and the values themselves, moved by whole tokens."""
    values = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    by_two = torch.zeros(1, 2, 6, 7)
    by_two[:, 0] = 8.0  # units of two pixels: two tokens
    moved = warp_features(values, by_two)
    assert torch.allclose(moved[..., :-2], values[..., 2:], atol=1e-5)
    assert torch.allclose(moved[..., -1], values[..., -1], atol=1e-5)
    picture = values.repeat_interleave(8, 2).repeat_interleave(8, 3)
    pictures = warp(picture, by_two.unsqueeze(1))[:, 0]
    assert torch.allclose(pictures[..., 4::8, 4::8], moved, atol=1e-4)


def test_coded_motion_moves_what_is_held() -> None:
    """Without a bit, and with the layers that end in zeros as they start, the last picture is shown where it moved."""
    torch.manual_seed(0)
    model = Tokenizer(CODED).eval()
    torch.nn.init.constant_(model.decoder.mask_out.bias, 50.0)
    rows, columns = 4, 6
    picture = _texture(8 * rows, 8 * columns)
    state = DecoderState(features=torch.randn(1, CODED.latent_channels, rows, columns), picture=picture)
    vectors = torch.zeros(1, 2, 3, 2)
    vectors[..., 0] = 32  # sixteen pixels in four frames
    displacement = displacement_of_map(vectors, rows, columns)
    with torch.inference_mode():
        forecast = model.decoder.forecast(state, displacement)
        still = model.decoder.forecast(state, torch.zeros_like(displacement))
    for number in range(4):
        by = 4 * (number + 1)
        assert torch.allclose(forecast.frames[0, number, :, :, :-by], picture[0, :, :, by:], atol=1e-3)
    assert torch.allclose(forecast.features[..., :-2], state.features[..., 2:], atol=1e-4)
    assert torch.allclose(still.frames[0, 3], picture[0], atol=1e-5)


def test_motion_needs_a_decoder_that_holds_something() -> None:
    with pytest.raises(ModelError, match="recurrent"):
        replace(CODED, recurrent=False)


def test_training_sees_motion_as_an_encoder_would_send_it() -> None:
    motion = over_frames(torch.randn(6, 2, 6, 10, generator=torch.Generator().manual_seed(0))).view(2, 3, 4, 2, 6, 10)
    seen = coded_displacements(motion, seed=1)
    assert seen.shape == (2, 3, 2, 6, 10)
    assert torch.equal(seen * 4, (seen * 4).round()), "half pixels"
    for row, column in ((0, 0), (2, 6), (4, 8)):
        block = seen[..., row : row + 2, column : column + 2]
        assert torch.equal(block, block[..., :1, :1].expand_as(block)), "one vector for four tokens"
    far = even_displacement(motion.flatten(0, 1)).view(2, 3, 2, 6, 10)
    mean = far.unflatten(-1, (5, 2)).mean(-1).unflatten(-2, (3, 2)).mean(-2)
    # A block is as found, or as the mean of its four where they nearly agree: within a pixel and a half's rounding.
    assert (seen[..., ::2, ::2] - mean).abs().max() <= 1.0 + 0.125 + 1e-5
    assert not torch.equal(coded_displacements(motion, seed=2), seen)
