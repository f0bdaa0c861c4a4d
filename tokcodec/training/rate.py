"""The rate term: what the bits of a clip would cost, by a small prior that is trained alongside.

To an entropy coder the signs of a tokenizer are almost noise, for nothing in its training asks them to repeat
themselves. Here the code length that a masked token model needs (the network of
:mod:`tokcodec.training.prior_model`) is part of the loss, and its gradient reaches the latents through the bits: both
as those that are predicted and as those that predict.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokcodec.training.prior_data import TokenBatch
from tokcodec.training.prior_loop import masked_bits
from tokcodec.training.prior_model import PriorModel


def rate_term(
    prior: PriorModel, tokens: Tensor, kept: Tensor, level_bits: tuple[int, ...], *, pixels: int, seed: int
) -> Tensor:
    """Estimated bits per pixel of a batch of clips, by one drawn state of the coding schedule for each step.

    Args:
        prior: Sees the past steps, and of each step the bits that the drawn state knows.
        tokens: `(T, N, K, h, w)`, +1 or -1, with a gradient.
        kept: Same shape, 1 for bits that are kept, else 0.
        level_bits: Bits of each level.
        pixels: Of all frames of the batch.
        seed: Of the draw.

    Returns:
        A scalar: bits for each bit asked for, times the bits that are kept, per pixel.
    """
    counts = kept.sum(dim=2).long()
    batch = TokenBatch(bits=tokens * kept, kept=counts)
    length, asked = masked_bits(prior, batch, "groups", level_bits, torch.Generator().manual_seed(seed))
    return length / asked.clamp(min=1) * counts.sum() / pixels
