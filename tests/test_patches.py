"""Patches as channels, and back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tokcodec.tokenizer.patches import to_patches, to_picture

TYPES = (torch.bfloat16, torch.float32)


@given(
    batch=st.integers(1, 2),
    colours=st.integers(1, 6),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    side=st.sampled_from((2, 4, 8)),
    dtype=st.sampled_from(TYPES),
    odd=st.booleans(),
)
def test_they_are_those_of_pixel_unshuffle(
    batch: int, colours: int, rows: int, columns: int, side: int, dtype: torch.dtype, odd: bool
):
    picture = torch.randn(batch, colours, side * rows, side * columns)
    if odd:  # in another order in memory
        picture = picture.contiguous(memory_format=torch.channels_last)
    patches = to_patches(picture, side, dtype)
    assert torch.equal(patches, F.pixel_unshuffle(picture, side).to(dtype))
    assert patches.is_contiguous(memory_format=torch.channels_last)
    for stored in (patches, patches.contiguous()):
        back = to_picture(stored, side)
        assert back.dtype == dtype
        assert torch.equal(back, picture.to(dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_gradients_go_through(dtype: torch.dtype):
    picture = torch.randn(1, 3, 16, 16, requires_grad=True)
    patches = to_patches(picture, 8, dtype)
    to_picture(patches, 8).float().square().sum().backward()
    assert picture.grad is not None
    torch.testing.assert_close(picture.grad, 2 * picture.detach().to(dtype).float(), atol=0.02, rtol=0.02)
