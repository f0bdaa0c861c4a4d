"""Pictures as maps of their patches and back: `pixel_unshuffle` and `pixel_shuffle`, with the types around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WORDS = {8: torch.int64, 16: torch.complex128}
"""A row of a patch of so many bytes, copied as one word."""


def to_patches(picture: Tensor, side: int, dtype: torch.dtype) -> Tensor:
    """Patches as channels, by colour, row and column.

    Args:
        picture: `(N, C, H, W)`, H and W multiples of `side`.
        side: Pixels along each side of a patch.
        dtype: Of the result.

    Returns:
        `(N, C * side * side, H / side, W / side)`, channels last in memory.
    """
    if not _is_fast(picture, side, dtype):
        return F.pixel_unshuffle(picture, side).to(dtype).contiguous(memory_format=torch.channels_last)
    batch, colours, height, width = picture.shape
    words = picture.to(dtype).contiguous().view(_WORDS[side * dtype.itemsize])
    rows = words.view(batch, colours, height // side, side, width // side).permute(0, 2, 4, 1, 3).contiguous()
    return rows.view(dtype).view(batch, height // side, width // side, -1).permute(0, 3, 1, 2)


def to_picture(patches: Tensor, side: int) -> Tensor:
    """The way back: `(N, C * side * side, h, w)` -> `(N, C, side * h, side * w)`, of the same type."""
    if not _is_fast(patches, side, patches.dtype):
        return F.pixel_shuffle(patches, side)
    batch, channels, rows, columns = patches.shape
    colours = channels // side**2
    words = patches.permute(0, 2, 3, 1).contiguous().view(_WORDS[side * patches.dtype.itemsize])
    lines = words.view(batch, rows, columns, colours, side).permute(0, 3, 1, 4, 2).contiguous()
    return lines.view(patches.dtype).view(batch, colours, side * rows, side * columns)


def _is_fast(values: Tensor, side: int, dtype: torch.dtype) -> bool:
    """Whether rows of patches can be moved as words, several times as fast on a CPU; there is no gradient then.

    A map that is one patch wide may have any strides, and what is part of another tensor may begin within a word.
    """
    suits = side * dtype.itemsize in _WORDS and values.device.type == "cpu" and not values.requires_grad
    return suits and min(values.shape[-2:]) > 1 and values.storage_offset() % side == 0
