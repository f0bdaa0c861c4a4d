"""Pixels as files of video have them, and as networks do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_frame(frames: Tensor, factor: int) -> Tensor:
    """Replicate the last row and column until both are multiples of `factor`: `(..., 3, H, W)`."""
    height, width = frames.shape[-2:]
    down, right = -height % factor, -width % factor
    if not down and not right:
        return frames
    flat = frames.flatten(0, -4) if frames.dim() > 4 else frames
    padded = F.pad(flat, (0, right, 0, down), mode="replicate")
    return padded.view(*frames.shape[:-2], height + down, width + right)


def to_signed_unit(frames: Tensor) -> Tensor:
    """uint8 `(N, H, W, 3)` to float32 `(N, 3, H, W)` in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 127.5).sub_(1.0)


def to_uint8(pixels: Tensor) -> Tensor:
    """`(N, 3, H, W)` about [-1, 1] to uint8 `(N, H, W, 3)`, rounded and clamped."""
    scaled = pixels.permute(0, 2, 3, 1).to(torch.float32).add(1.0).mul_(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
