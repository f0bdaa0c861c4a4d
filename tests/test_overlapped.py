"""Overlapped block motion compensation: by blocks and by pixels, and by the decoder of the specification."""

from __future__ import annotations

import numpy as np
import pytest
import spec_decoder
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokcodec.geometry import MAX_VECTOR
from tokcodec.tokenizer import overlapped
from tokcodec.tokenizer.motion import displacement_of_map
from tokcodec.tokenizer.overlapped import BLOCK, OVERLAP, TAPS, Reference

SIZES = pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (1, 2), (2, 1), (1, 9), (3, 5), (4, 4), (5, 8), (7, 6)],
    ids=lambda tokens: str(8 * tokens),
)
"""Tokens in each direction: pictures smaller than a block, odd numbers of blocks, and cut ones."""
REACHES = pytest.mark.parametrize("reach", [1, 9, 60, MAX_VECTOR])
"""Largest vectors, in half pixels; most of the last two point out of the picture."""


def noise(rows: int, columns: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, 8 * rows, 8 * columns, generator=generator) * 2 - 1


def vectors_of(rows: int, columns: int, reach: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Random ones, int64 `(N, motion_rows, motion_columns, 2)`, those at both ends of the range among them."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch, -(-rows // 2), -(-columns // 2), 2
    found = torch.randint(-reach, reach + 1, shape, generator=generator)
    found[-1, -1, -1] = torch.tensor([reach, -reach])
    found[0, 0, 0] = torch.tensor([-reach, reach])
    return found


def moved(picture: Tensor, vectors: Tensor, *, by_pixels: bool = False) -> Tensor:
    rows, columns = (side // 8 for side in picture.shape[-2:])
    source = picture.clone().requires_grad_(by_pixels)
    found = Reference(source).moved(displacement_of_map(vectors, rows, columns))
    assert found.requires_grad is by_pixels
    return found.detach()


@SIZES
@REACHES
def test_blocks_and_pixels_give_the_same(rows: int, columns: int, reach: int):
    picture, vectors = noise(rows, columns, batch=2), vectors_of(rows, columns, reach, batch=2)
    by_blocks = moved(picture, vectors)
    assert by_blocks.shape == picture.shape
    torch.testing.assert_close(by_blocks, moved(picture, vectors, by_pixels=True), atol=1e-5, rtol=0)
    for number in range(2):
        one = slice(number, number + 1)
        torch.testing.assert_close(moved(picture[one], vectors[one]), by_blocks[one], atol=1e-6, rtol=0)


@pytest.mark.parametrize("band", [2, 4])
def test_bands_of_blocks_fit_together(band: int, monkeypatch: pytest.MonkeyPatch):
    picture, vectors = noise(19, 6), vectors_of(19, 6, 60)
    at_once = moved(picture, vectors)
    monkeypatch.setattr(overlapped, "BAND", band)
    torch.testing.assert_close(moved(picture, vectors), at_once, atol=1e-6, rtol=0)


@SIZES
@REACHES
def test_the_decoder_of_the_specification_moves_alike(rows: int, columns: int, reach: int):
    picture, vectors = noise(rows, columns, seed=1), vectors_of(rows, columns, reach, seed=2)
    expected = spec_decoder.overlapped(picture[0].numpy(), vectors[0].numpy().astype(np.int16))
    np.testing.assert_allclose(moved(picture, vectors)[0].numpy(), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    reach=st.sampled_from([2, 33, 200]),
    seed=st.integers(0, 99),
)
def test_all_three_agree_on_any_picture(rows: int, columns: int, reach: int, seed: int):
    picture, vectors = noise(rows, columns, seed=seed), vectors_of(rows, columns, reach, seed=seed)
    found = moved(picture, vectors)
    torch.testing.assert_close(found, moved(picture, vectors, by_pixels=True), atol=1e-5, rtol=0)
    expected = spec_decoder.overlapped(picture[0].numpy(), vectors[0].numpy().astype(np.int16))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


BOTH = pytest.mark.parametrize("by_pixels", [False, True], ids=["blocks", "pixels"])


@BOTH
@SIZES
def test_what_does_not_move_stays_as_it_is(rows: int, columns: int, by_pixels: bool):
    picture = noise(rows, columns)
    still = torch.zeros_like(vectors_of(rows, columns, 1))
    torch.testing.assert_close(moved(picture, still, by_pixels=by_pixels), picture, atol=1e-6, rtol=0)


@BOTH
@SIZES
def test_a_picture_of_one_colour_stays_so_wherever_it_is_taken_from(rows: int, columns: int, by_pixels: bool):
    """The weights of blocks add up to one, and so do the taps."""
    picture = torch.tensor([0.75, -0.5, 1.0]).view(1, 3, 1, 1).repeat(1, 1, 8 * rows, 8 * columns)
    for reach in (3, MAX_VECTOR):
        found = moved(picture, vectors_of(rows, columns, reach), by_pixels=by_pixels)
        torch.testing.assert_close(found, picture, atol=1e-6, rtol=0)
    assert 2 * sum(TAPS) == 64


@BOTH
@pytest.mark.parametrize("shift", [(3, 0), (0, -5), (-17, 9), (40, 100), (-200, -255)])
def test_whole_pixels_shift_a_picture_whose_edges_go_on(shift: tuple[int, int], by_pixels: bool):
    picture = noise(5, 7)
    vectors = torch.tensor(shift).mul(2).expand(1, 3, 4, 2)
    rows = (torch.arange(40) + shift[1]).clamp(0, 39)
    columns = (torch.arange(56) + shift[0]).clamp(0, 55)
    expected = picture[:, :, rows][..., columns]
    torch.testing.assert_close(moved(picture, vectors, by_pixels=by_pixels), expected, atol=1e-6, rtol=0)


@BOTH
@pytest.mark.parametrize("axis", [0, 1], ids=["right", "below"])
def test_half_a_pixel_is_between_two(axis: int, by_pixels: bool):
    """By hand, in the inner part: the taps of HEVC in 64ths."""
    picture = noise(4, 4)
    vectors = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    vectors[..., axis] = -1  # half a pixel to the left of, or above: between the one before and this one
    found = moved(picture, vectors, by_pixels=by_pixels)
    lines = picture.movedim(3 - axis, -1)
    taps = (-1, 4, -11, 40, 40, -11, 4, -1)
    expected = sum(tap / 64 * lines[..., k : k + 25] for k, tap in enumerate(taps))
    torch.testing.assert_close(found.movedim(3 - axis, -1)[..., 4:29], expected, atol=1e-5, rtol=0)


@BOTH
def test_a_block_reaches_to_the_middles_of_those_around_it(by_pixels: bool):
    picture = noise(8, 8)
    vectors = torch.zeros(1, 4, 4, 2, dtype=torch.int64)
    vectors[0, 1, 2] = torch.tensor([14, -6])
    found = moved(picture, vectors, by_pixels=by_pixels)
    changed = (found - picture).abs().amax(dim=1)[0] > 1e-6
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[BLOCK - OVERLAP : 2 * BLOCK + OVERLAP, 2 * BLOCK - OVERLAP : 3 * BLOCK + OVERLAP] = True
    assert not changed[~inside].any()
    assert changed[inside].float().mean() > 0.99
    whole = moved(picture, vectors[:, 1:2, 2:3].expand(1, 4, 4, 2), by_pixels=by_pixels)
    # In the middle of a block, between four pixels, its own weight is the square of 31 / 32.
    at = BLOCK + BLOCK // 2, 2 * BLOCK + BLOCK // 2
    expected = torch.lerp(picture, whole, (31 / 32) ** 2)
    torch.testing.assert_close(found[..., at[0], at[1]], expected[..., at[0], at[1]], atol=1e-5, rtol=0)


# --- gradients ---


@SIZES
@pytest.mark.parametrize("reach", [5, 300])
def test_the_gradient_is_the_transpose_of_the_motion(rows: int, columns: int, reach: int):
    """To move is linear in the picture: <moved(a), b> = <a, gradient of b>."""
    a, b = noise(rows, columns, batch=2, seed=3).double(), noise(rows, columns, batch=2, seed=4).double()
    displacement = displacement_of_map(vectors_of(rows, columns, reach, batch=2), rows, columns)
    source = a.clone().requires_grad_()
    found = Reference(source).moved(displacement)
    (gradient,) = torch.autograd.grad((found * b).sum(), source)
    other = noise(rows, columns, batch=2, seed=5).double()
    there = Reference(other.requires_grad_()).moved(displacement)
    torch.testing.assert_close((gradient * other).sum(), (there * b).sum(), atol=1e-4, rtol=1e-4)


def test_several_pictures_of_one_add_their_gradients():
    """A reference is moved more than once, and what it holds is used again."""
    picture = noise(3, 4)
    displacements = [displacement_of_map(vectors_of(3, 4, 20, seed=seed), 3, 4) for seed in (0, 1)]

    def gradient(*which: int) -> Tensor:
        source = picture.clone().requires_grad_()
        reference = Reference(source)
        sum(reference.moved(displacements[number]).sin().sum() for number in which).backward()
        assert source.grad is not None
        return source.grad

    torch.testing.assert_close(gradient(0, 1), gradient(0) + gradient(1))
    assert gradient(0).abs().max() > 0


def test_what_decoding_leaves_behind_serves_in_training():
    """Tensors that are made in inference mode cannot be saved for a backward pass; those that are kept need not be."""
    for cache in (overlapped._windows,):
        cache.cache_clear()
    picture, vectors = noise(3, 4), vectors_of(3, 4, 9)
    displacement = displacement_of_map(vectors, 3, 4)
    with torch.inference_mode():
        expected = Reference(picture).moved(displacement)
    torch.testing.assert_close(Reference(picture).moved(displacement), expected.clone())
    source = picture.clone().requires_grad_()
    found = Reference(source).moved(displacement)
    found.square().sum().backward()
    assert source.grad is not None
    torch.testing.assert_close(found.detach(), expected.clone(), atol=1e-5, rtol=0)


@pytest.mark.cuda
def test_a_gpu_moves_alike():
    picture, vectors = noise(5, 9, batch=2), vectors_of(5, 9, 70, batch=2)
    expected = moved(picture, vectors)
    for by_pixels in (False, True):
        found = moved(picture.cuda(), vectors.cuda(), by_pixels=by_pixels).cpu()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
