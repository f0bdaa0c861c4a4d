"""Building blocks: local norms, residual blocks, adaptive norms. Maps are `(N, C, h, w)`, channels last."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of one position.

    Not group norm: a norm over the frame would make a token depend on the crop, the tile and the chunk. Layer
    norm and not RMS norm, for it alone has a fused kernel on CPUs, several times as fast in both directions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as `x`."""
        last = x.permute(0, 2, 3, 1)
        gain, bias = self.gain.to(x.dtype), self.bias.to(x.dtype)
        # On CUDA autocast would make float32 of it, and of all that follows.
        with torch.autocast("cuda", enabled=False) if x.is_cuda else contextlib.nullcontext():
            return F.layer_norm(last, (x.shape[1],), gain, bias, 1e-5).permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, kernel: int, *, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size (zero padding), weights scaled by `gain` at the start."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=gain * (inputs * kernel * kernel) ** -0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3, norm, SiLU, 3x3, added to the input.

    With `condition_channels` the second norm is adaptive (MAGVIT-v2, section 3.2): scale and shift come from
    a 1x1 convolution of the condition.
    """

    def __init__(self, channels: int, *, condition_channels: int = 0) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = conv(channels, channels, 3)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = conv(channels, channels, 3, gain=0.2)
        self.modulation = conv(condition_channels, 2 * channels, 1, gain=0.2) if condition_channels else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Same shape as `x`; `condition` is `(N, condition_channels, h, w)`, and left alone where there are none."""
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(condition).chunk(2, dim=1)
            hidden = torch.addcmul(hidden + shift, hidden, scale)
        out: Tensor = x + self.conv2(F.silu(hidden))
        return out


class CausalMix(nn.Module):
    """Adds a 1x1 convolution of the step before: a causal kernel of two in time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = conv(channels, channels, 1, gain=0.2)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """`x` and `before` (the same map one step earlier): `(N, C, h, w)`."""
        out: Tensor = x + self.conv(self.norm(before))
        return out
