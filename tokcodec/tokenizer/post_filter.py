"""A filter behind the decoder that makes its pictures look better: no token depends on it, nor any other picture.

    picture --space to depth 4, 3x3, block--> 1/4 --space to depth 2--> 1/8, blocks --depth to space--> block --> added

The decoder predicts each picture from the last, so it stays near the mean of what may have been there, which is the
best to predict from and looks blurred. The filter is out of that loop, as the neural-network post-filters of VVC's SEI
messages are, so it may give up some squared error for what the eye takes for sharp. It is trained on coded pictures
(:mod:`tokcodec.training.post_filter_loop`), and a file says nothing of it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.errors import ModelError
from tokcodec.tokenizer.layers import ChannelNorm, ResidualBlock, conv
from tokcodec.tokenizer.patches import to_patches, to_picture

ARCHITECTURE = "post-filter-1"
"""Changes whenever the same weights would mean another function."""
PATCH = 4
"""Pixels along each side of a place of the first maps; of the inner ones there are twice as many."""


LEAST_SCALE, SCALES_APART, SCALES = 16, 4, 5
"""Numbers of quantizers that a filter which is told it has weights of its own for: 16, 20 to 32."""
_LEAST_SHARE, _SHARE, _AT_SCALE, _BY_SCALE = 0.65, 0.75, 22, 0.075


def share_of_scale(scale: int) -> float:
    """How much is shown of the change of a filter that is not told the quantizer, 0.65 to 1: where pictures are fine
    already, all of it is too much.

    By measurement: at quality 5 three quarters are better than all by PSNR and by LPIPS of both networks.

    Args:
        scale: Number of the step of the quantizer of the chunk's first picture.
    """
    return min(max(_SHARE + _BY_SCALE * (scale - _AT_SCALE), _LEAST_SHARE), 1.0)


@dataclass(frozen=True, kw_only=True)
class PostFilterConfig:
    """Sizes of the filter.

    Attributes:
        channels: At a quarter of the picture's resolution.
        inner_channels: At an eighth.
        blocks: Residual blocks at an eighth; there is one before them and one behind at a quarter.
        by_scale: Whether it is told the quantizer of the chunk's first picture, and learns itself how much to change.
    """

    channels: int = 32
    inner_channels: int = 96
    blocks: int = 2
    by_scale: bool = False

    def __post_init__(self) -> None:
        if type(self.by_scale) is not bool:
            raise ModelError(f"by_scale of a post-filter must be true or false, not {self.by_scale!r}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "by_scale" and (type(value) is not int or not 1 <= value <= 1024):
                raise ModelError(f"{field.name} of a post-filter must be a whole number from 1 to 1024, not {value!r}")

    def to_json(self) -> str:
        """The configuration as one line of JSON with sorted keys."""
        fields = dataclasses.asdict(self)
        if not self.by_scale:
            del fields["by_scale"]  # as earlier versions read it
        return json.dumps({"architecture": ARCHITECTURE, **fields}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PostFilterConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            ModelError: Not JSON, another architecture, other keys, or values that are not possible.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            architecture = fields.pop("architecture")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError("the weights carry no readable configuration of a post-filter") from error
        if architecture != ARCHITECTURE:
            raise ModelError(
                f"the post-filter is of architecture {architecture!r}, this version has {ARCHITECTURE!r}",
                hint="use the version of tokcodec that it came with, or --style faithful",
            )
        fields.setdefault("by_scale", False)  # which is said only where it is true
        if set(fields) != {field.name for field in dataclasses.fields(cls)}:
            raise ModelError("the configuration of the post-filter has unknown or missing keys")
        return cls(**fields)


class PostFilter(nn.Module):
    """Pictures to pictures."""

    def __init__(self, config: PostFilterConfig) -> None:
        super().__init__()
        self.config = config
        outer, inner = config.channels, config.inner_channels
        self.pictures_in = conv(3 * PATCH * PATCH, outer, 3)
        self.block_in = ResidualBlock(outer)
        self.narrow = conv(4 * outer, inner, 1)
        self.blocks = nn.ModuleList(ResidualBlock(inner) for _ in range(config.blocks))
        self.norm_inner = ChannelNorm(inner)
        self.widen = conv(inner, 4 * outer, 1)
        self.block_out = ResidualBlock(outer)
        self.norm_out = ChannelNorm(outer)
        # Not zero: then nothing before it would learn at first.
        self.change_out = conv(outer, 3 * PATCH * PATCH, 3, gain=0.03)
        self.by_scale = _ByScale(2 * inner + outer) if config.by_scale else None

    def forward(self, pictures: Tensor, scales: Tensor | None = None) -> Tensor:
        """Filtered pictures, about [-1, 1], not clamped.

        Args:
            pictures: float32 `(N, 3, H, W)` in [-1, 1], H and W multiples of 8.
            scales: float32 `(N,)`, the numbers of the quantizers of their chunks' first pictures; only a filter with
                `by_scale` looks at them.
        """
        return pictures + self.change(pictures, scales)

    def change(self, pictures: Tensor, scales: Tensor | None = None) -> Tensor:
        """What is added to pictures; arguments as for :meth:`forward`."""
        x = self.block_in(self.pictures_in(to_patches(pictures, PATCH, self.pictures_in.weight.dtype)))
        y = self.narrow(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        gains = None
        if self.by_scale is not None and scales is not None:
            inner = self.config.inner_channels
            scale, shift, gains = self.by_scale(scales).to(y.dtype).split((inner, inner, self.config.channels), dim=1)
            y = torch.addcmul(y + shift, y, scale)
        for block in self.blocks:
            y = block(y)
        y = F.pixel_shuffle(self.widen(F.silu(self.norm_inner(y))), 2)
        x = self.block_out(x + y.contiguous(memory_format=torch.channels_last))
        x = F.silu(self.norm_out(x))
        x = x if gains is None else x + x * gains
        return to_picture(self.change_out(x), PATCH)


class _ByScale(nn.Module):
    """Values of each channel for a quantizer, on straight lines between those that are learned; none at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(SCALES, channels))

    def forward(self, scales: Tensor) -> Tensor:
        """`(N,)` to `(N, channels, 1, 1)`."""
        place = ((scales.float() - LEAST_SCALE) / SCALES_APART).clamp(0, SCALES - 1)
        near = (1 - (place[:, None] - torch.arange(SCALES, device=place.device)).abs()).clamp_min(0)
        return (near @ self.values.float())[:, :, None, None]


def shown_through(network: PostFilter, pictures: Tensor, scale: int | None) -> Tensor:
    """Pictures of a chunk as they are shown, not clamped.

    Args:
        network: The filter.
        pictures: float32 `(N, 3, H, W)` in [-1, 1].
        scale: Number of the step of the quantizer of the chunk's first picture; None where it has none.
    """
    if scale is None:
        scales, share = None, 1.0
    else:
        scales, share = pictures.new_full((len(pictures),), scale), share_of_scale(scale)
    change = network.change(pictures, scales)
    return torch.add(pictures, change, alpha=1.0 if network.config.by_scale else share)
