"""Which bits are known when others are predicted: the masks that the prior is trained with.

The bits of a token are known from the most important one on, so a mask is a map of counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tokcodec.probability.schedule import spans_of

Order = Literal["groups", "random", "raster"]
GUESSED_PLANES = 3
"""Bits of a token that are predicted from one mask of the random orders."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What is known of a batch of steps.

    Attributes:
        order: How the mask came about; in "raster" order `known` holds for a position's own bits, and those of
            every earlier position are known whole.
        known: int64 `(B, h, w)`, known bits of each token, at most those kept.
        asked: bool `(B, K, h, w)`, the bits to predict.
    """

    order: Order
    known: Tensor
    asked: Tensor


def draw_mask(order: Order, kept: Tensor, level_bits: tuple[int, ...], generator: torch.Generator) -> Mask:
    """Draw a mask, each step of the batch by itself.

    Args:
        order: "groups" is a state of the fixed schedule, "random" knows a random share of the tokens whole and
            the others up to one plane, "raster" is a state of the autoregressive order.
        kept: int64 `(B, h, w)`, bits kept of each token.
        level_bits: Bits of each level, from which the spans of the schedule follow.
        generator: Source of randomness.
    """
    batch, rows, columns = kept.shape
    planes = level_bits[-1]

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    wanted = torch.ones(batch, rows, columns, dtype=torch.bool)
    if order == "groups":
        spans = spans_of(level_bits)
        starts, stops = torch.tensor([span.start for span in spans]), torch.tensor([span.stop for span in spans])
        number = integers(len(spans), batch, 1, 1)
        parity = (torch.arange(rows)[:, None] + torch.arange(columns)) % 2
        second = integers(2, batch, 1, 1) == 1  # the first colour is known up to the end of the span
        done = second & (parity == 0)
        state, end = torch.where(done, stops[number], starts[number]), stops[number]
        wanted = ~done
    else:
        state = integers(planes, batch, 1, 1).expand(batch, rows, columns)
        end = state[:, :1, :1] + GUESSED_PLANES
        if order == "random":
            share = torch.rand(batch, 1, 1, generator=generator)
            whole = torch.rand(batch, rows, columns, generator=generator) < share
            state = torch.where(whole, planes, state)
            wanted = ~whole
    state, end = state.to(kept.device), end.to(kept.device)
    plane = torch.arange(planes, device=kept.device)[:, None, None]
    from_here, limit = state.unsqueeze(1), kept.unsqueeze(1)
    asked = (plane >= from_here) & (plane < end.unsqueeze(1)) & (plane < limit)
    asked &= wanted.to(kept.device).unsqueeze(1)
    return Mask(order=order, known=torch.minimum(state, kept), asked=asked)
