"""Frames between two, of both as motion has moved them (spec 8.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.layers import ChannelNorm, ResidualBlock, conv
from tokcodec.tokenizer.patches import to_patches, to_picture
from tokcodec.tokenizer.state import PATCH


class Mean(nn.Module):
    """A picture between two: so much of the later one, half of it if nobody trains it."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([0.5]))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Float32 `(N, 3, H, W)` each, and so is the result."""
        return torch.lerp(before, after, self.share.to(before.dtype))


class Between(nn.Module):
    """A picture between two, by a network: how much of each, pixel by pixel, and what both lack."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        patch = 3 * PATCH * PATCH
        self.pictures_in = conv(2 * patch, channels, 3)
        self.block = ResidualBlock(channels)
        self.norm_out = ChannelNorm(channels)
        self.share_out = conv(channels, PATCH * PATCH, 3, gain=0.0)
        self.repair_out = conv(channels, patch, 3, gain=0.0)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Float32 `(N, 3, H, W)` each, and so is the result."""
        dtype = self.pictures_in.weight.dtype
        before, after = before.contiguous(), after.contiguous()  # what follows is done plane by plane
        both = torch.cat([0.5 * (before + after), after - before], dim=1)
        x = self.pictures_in(to_patches(both, PATCH, dtype))
        x = F.silu(self.norm_out(self.block(x)))
        share = torch.sigmoid(to_picture(self.share_out(x), PATCH).float())
        return torch.lerp(before, after, share) + to_picture(self.repair_out(x), PATCH)
