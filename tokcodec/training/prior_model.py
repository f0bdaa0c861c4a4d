"""The network of the `prior` model in floating point, with activations rounded as the integers will be."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.probability.prior_config import ACTIVATION_MAX, COUNT_UNIT, SIGN_UNIT, PriorConfig

COUNT_SCALE = COUNT_UNIT / SIGN_UNIT
TOP = ACTIVATION_MAX / SIGN_UNIT
"""Largest activation."""


def activate(x: Tensor, *, rounded: bool) -> Tensor:
    """Clamp to 0 .. 255/32 and round to 1/32; the gradient does not see the rounding."""
    clamped = x.clamp(0.0, TOP)
    if not rounded:
        return clamped
    return clamped + ((clamped * SIGN_UNIT).add(0.5).floor().div(SIGN_UNIT) - clamped).detach()


class PriorModel(nn.Module):
    """The float model; maps are `(batch, channels, rows, columns)`, a bit is -1, +1, or 0 where it is absent.

    Attributes:
        rounded: Whether activations are rounded; off, it is the model before it was made integer.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config, self.rounded = config, True
        K, C, S, H = config.bits_per_token, config.context_channels, config.state_channels, config.head_channels
        pad = config.window // 2
        self.context1 = nn.Conv2d(K + 1 + S, C, 3, padding=1)
        self.context2 = nn.Conv2d(C, S, 3, padding=1)
        self.state = nn.Conv2d(S, H, 1, bias=False)
        self.known = nn.Conv2d(config.known_channels, H, config.window, padding=pad, bias=False)
        self.kept = nn.Conv2d(1, H, config.window, padding=pad, bias=False)
        self.plane = nn.Embedding(K, H)
        self.hidden = nn.Conv2d(H, H, 1)
        self.out = nn.Conv2d(H, 2 * K, 1)
        self._initialise()

    def _initialise(self) -> None:
        for layer in (self.context1, self.context2, self.state, self.known, self.kept, self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for part in (self.state, self.known, self.kept):
                part.weight.mul_(0.6)  # three of them are added
            self.out.weight.mul_(0.1)
        nn.init.zeros_(cast(Tensor, self.out.bias))
        nn.init.normal_(self.plane.weight, std=0.3)

    def context(self, before: Tensor, kept: Tensor, state: Tensor) -> Tensor:
        """State after a step: its bits `(B, K, h, w)`, bits kept `(B, 1, h, w)` and the state before it."""
        x = torch.cat([before, kept * COUNT_SCALE, state], dim=1)
        x = activate(self.context1(x), rounded=self.rounded)
        return activate(self.context2(x), rounded=self.rounded)

    def start(self, like: Tensor) -> Tensor:
        """State before the first step, for bits `(B, K, h, w)`."""
        return like.new_zeros(like.shape[0], self.config.state_channels, *like.shape[2:])

    def head(self, first: Tensor, known: Tensor, before: Tensor) -> Tensor:
        """Logits in nats of all bits `(B, K, h, w)`, from the first layer's sum.

        Args:
            first: `(B, H, h, w)`: :meth:`first`.
            known: `(B, h, w)` how many bits are known.
            before: The bits of the step before.
        """
        K = self.config.bits_per_token
        x = first + self.plane(known.clamp(max=K - 1)).movedim(-1, 1)
        x = activate(x, rounded=self.rounded)
        x = activate(self.hidden(x), rounded=self.rounded)
        own, back = self.out(x).split(K, dim=1)
        return cast(Tensor, own + before * back)

    def window(self, bits: Tensor, before: Tensor, known: Tensor) -> Tensor:
        """Channels of the window `(B, 2K + 1, h, w)`, of which the first `known` `(B, h, w)` bits are seen."""
        planes = torch.arange(self.config.bits_per_token, device=bits.device)[:, None, None]
        seen = bits * (planes < known.unsqueeze(1))
        return torch.cat([seen, seen * before, known.unsqueeze(1) * COUNT_SCALE], dim=1)

    def first(self, state: Tensor, kept: Tensor, window: Tensor) -> Tensor:
        """The first layer's sum, but for the bias of the plane: `(B, H, h, w)`."""
        return cast(Tensor, self.state(state) + self.kept(kept * COUNT_SCALE) + self.known(window))

    def first_in_raster_order(self, state: Tensor, kept: Tensor, earlier: Tensor, own: Tensor) -> Tensor:
        """As :meth:`first`, each position seeing `earlier` at the positions before it, and `own` at its own."""
        weight, middle = self.known.weight, self.config.window // 2
        before = torch.zeros_like(weight[0, 0])
        before[:middle] = 1.0
        before[middle, :middle] = 1.0
        around = F.conv2d(earlier, weight * before, padding=middle)
        at = F.conv2d(own, weight[:, :, middle : middle + 1, middle : middle + 1])
        return cast(Tensor, self.state(state) + self.kept(kept * COUNT_SCALE) + around + at)
