"""The discriminator of the adversarial loss: 3D convolutions over clips, which blur before they stride.

As in MAGVIT (arXiv 2212.05199) it is like StyleGAN's: residual blocks, no norms, no strided convolution. What looks at
every second position only sees some frequencies as others (aliasing), and teaches the decoder to paint grids.
It gives a map of logits, each over a patch of the clip, so that crops and clips of any size fit.

    clip --3x3x3--> full size --blur, 1/2--> --3x3, blur, 1/2 (time too), 3x3x3--> three times --> logits at 1/16
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky rectifier."""
BLOCKS = 3
"""Each halves frames, rows and columns; the stem has halved rows and columns before."""
SMALLEST_SIDE = 2 ** (BLOCKS + 1)
"""Pixels along each side of the smallest crop that a logit is left of."""


class ClipConv(nn.Module):
    """A convolution over one frame or three, which keeps the size (zero padding).

    Neighbouring frames become channels of a 2D convolution, which gives the same as a 3D one. Those damage the heap in
    bfloat16 on CPUs (torch 2.13, the gradient of a kernel of three input channels).

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: Rows and columns.
        frames: 1 or 3.
        gain: Of the weights at the start; with 1 the variance stays the same after :func:`_rectify`.
        bias: Whether there is one.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, frames: int = 1, gain: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(frames * inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        nn.init.normal_(self.conv.weight, std=gain * math.sqrt(2 / (1 + SLOPE**2) / (frames * inputs * kernel**2)))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, F, C, H, W)` to `(N, F, D, H, W)`."""
        count = x.shape[1]
        if self.frames == 3:
            last = x.permute(0, 1, 3, 4, 2)
            nothing = torch.zeros_like(last[:, :1])
            before, after = torch.cat([nothing, last[:, :-1]], 1), torch.cat([last[:, 1:], nothing], 1)
            x = torch.cat([before, last, after], 4).permute(0, 1, 4, 2, 3)
        out: Tensor = self.conv(x.flatten(0, 1)).unflatten(0, (-1, count))
        return out


def _rectify(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


@functools.cache
def _every_second_frame(frames: int, device: torch.device) -> Tensor:
    """`(ceil(F / 2), F)`: frames weighted 1, 2, 1 around every second one, those beyond the ends repeated."""
    weights = torch.zeros((frames + 1) // 2, frames)
    for row in range(len(weights)):
        for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            weights[row, min(max(2 * row + offset, 0), frames - 1)] += weight
    return weights.to(device)


class BlurDown(nn.Module):
    """Binomial low-pass filter, then every second position: 1, 3, 3, 1 over rows and columns, 1, 2, 1 over frames.

    Both filters have a zero at the highest frequency, which striding alone would show as the lowest.

    Args:
        channels: Of the maps.
        frames: Whether frames are halved as well; a single one stays as it is.
    """

    taps: Tensor

    def __init__(self, channels: int, *, frames: bool) -> None:
        super().__init__()
        self.frames = frames
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        taps = torch.outer(line, line).expand(channels, 1, 4, 4).contiguous()
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, F, C, H, W)` to `(N, F or ceil(F / 2), C, H / 2, W / 2)`, zeros beyond the edges."""
        count = x.shape[1]
        maps = F.conv2d(x.flatten(0, 1), self.taps.to(x.dtype), stride=2, padding=1, groups=x.shape[2])
        last = maps.permute(0, 2, 3, 1).unflatten(0, (-1, count))
        if self.frames and count > 1:
            size = last.shape[2:]
            last = torch.matmul(_every_second_frame(count, x.device).to(last.dtype), last.flatten(2))
            last = last.unflatten(2, size)
        out: Tensor = last.permute(0, 1, 4, 2, 3)
        return out


class Block(nn.Module):
    """3x3 within frames, blur and stride, 3x3x3; added to the blurred input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ClipConv(inputs, inputs, 3)
        self.down = BlurDown(inputs, frames=True)
        self.conv2 = ClipConv(inputs, outputs, 3, frames=3)
        self.skip = ClipConv(inputs, outputs, 1, gain=math.sqrt(0.5), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, F, C, H, W)` to `(N, ceil(F / 2), D, H / 2, W / 2)`."""
        hidden = self.down(_rectify(self.conv1(x)))
        out: Tensor = (_rectify(self.conv2(hidden)) + self.skip(self.down(x))) * math.sqrt(0.5)
        return out


class Discriminator(nn.Module):
    """Clips to logits: above 0 for what it takes for real.

    Flicker from frame to frame is seen before any frames are merged: the first layer spans three of them.

    Args:
        width: Channels at half the resolution, an even number; half as many at the full one, twice as many after
            each block. 24 has 1.1 million parameters, 48 has 4.5.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.clip_in = ClipConv(3, width // 2, 3, frames=3)
        self.down = BlurDown(width // 2, frames=False)
        self.widen = ClipConv(width // 2, width, 1, gain=math.sqrt(0.5), bias=False)
        self.blocks = nn.ModuleList(Block(width << number, width << (number + 1)) for number in range(BLOCKS))
        top = width << BLOCKS
        self.last = ClipConv(top, top, 3)
        self.logits_out = ClipConv(top, 1, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips.

        Args:
            clips: `(N, F, 3, H, W)` in [-1, 1], F = 1 + 4t, H and W at least :data:`SMALLEST_SIDE`.

        Returns:
            float32 `(N, f, h, w)`: F halved three times, rounded up; H and W halved four times, rounded down.
        """
        x = self.widen(self.down(_rectify(self.clip_in(clips))))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.logits_out(_rectify(self.last(x)))
        return logits[:, :, 0].float()
