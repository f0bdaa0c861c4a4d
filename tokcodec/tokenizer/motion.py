"""Motion: what the encoder looks at to find it, and how the decoder moves its last picture along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SEARCH = 4
"""Displacements that the encoder compares, in token positions each way: 32 pixels."""
DISPLACEMENTS = (2 * SEARCH + 1) ** 2
MOTION_UNIT = 2.0
"""Pixels for each unit that the decoder's motion layer puts out."""


def correlate(maps: Tensor, others: Tensor) -> Tensor:
    """Products of each position with the positions around it in another map: cosines, for vectors of unit length.

    Args:
        maps: `(N, C, h, w)`.
        others: Same shape; zeros are assumed outside.

    Returns:
        `(N, DISPLACEMENTS, h, w)`, displacements row by row.
    """
    batch, channels, rows, columns = maps.shape
    side, wide = 2 * SEARCH + 1, columns + 2 * SEARCH
    lines = maps.permute(0, 2, 3, 1).reshape(batch * rows, columns, channels)
    padded = F.pad(others, (SEARCH, SEARCH, SEARCH, SEARCH)).transpose(1, 2)
    found = []
    for down in range(side):
        # All products of two lines are one matrix product; the band of it that is within reach is cut out.
        other = padded[:, down : down + rows].reshape(batch * rows, channels, wide)
        products = F.pad((lines @ other).flatten(1), (0, columns))
        found.append(products.view(batch * rows, columns, wide + 1)[..., :side])
    near = torch.stack(found, dim=1).view(batch, rows, side, columns, side)
    return near.permute(0, 2, 4, 1, 3).reshape(batch, DISPLACEMENTS, rows, columns)


def expected_displacement(similar: Tensor, sharpness: Tensor) -> Tensor:
    """Mean displacement, weighted by the softmax of the similarities, as a part of the search range.

    Args:
        similar: `(N, DISPLACEMENTS, h, w)`, from :func:`correlate`.
        sharpness: Scalar that multiplies the similarities.

    Returns:
        `(N, 2, h, w)` in [-1, 1], x before y.
    """
    weights = (similar.float() * sharpness.float()).softmax(dim=1)
    places = torch.linspace(-1, 1, 2 * SEARCH + 1, device=similar.device)
    ys, xs = torch.meshgrid(places, places, indexing="ij")
    return torch.einsum("nkhw,dk->ndhw", weights, torch.stack([xs.flatten(), ys.flatten()])).to(similar.dtype)


def warp(picture: Tensor, motion: Tensor) -> Tensor:
    """Move a picture: the value at (x, y) is taken from (x + motion_x, y + motion_y), bilinear, edges replicated.

    Args:
        picture: float32 `(N, 3, H, W)`.
        motion: float32 `(N, F, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels.

    Returns:
        float32 `(N, F, 3, H, W)`.
    """
    batch, count = motion.shape[:2]
    height, width = picture.shape[-2:]
    flow = F.interpolate(motion.flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False)
    scale = flow.new_tensor([2.0 * MOTION_UNIT / max(1, size - 1) for size in (width, height)])
    ys = torch.linspace(-1, 1, height, device=flow.device) if height > 1 else flow.new_zeros(1)
    xs = torch.linspace(-1, 1, width, device=flow.device) if width > 1 else flow.new_zeros(1)
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1) + flow.permute(0, 2, 3, 1) * scale
    repeated = picture.repeat_interleave(count, dim=0)
    moved = F.grid_sample(repeated, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return moved.view(batch, count, *picture.shape[1:])
