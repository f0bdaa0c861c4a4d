"""Tokens that suit the decoder better than those the encoder found, by gradient descent on what the decoder shows.

An encoder network answers in one pass for all pictures alike; for the picture at hand its answer can be improved, and
no decoder needs to know (as in arXiv 2006.04240; here latents are binary, and the gradient passes straight through
their signs, as in training).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokcodec.tokenizer.lfq import signs, straight_through
from tokcodec.tokenizer.model import Decoder
from tokcodec.tokenizer.state import DecoderState

STEP_SIZE = 0.15
"""Of Adam, where latents have unit power: by measurement; 0.4 was worse."""
LATENT_LIMIT = 1.5
"""Latents stay within it, so that every bit can still change."""

ITERATIONS = {0: 0, 1: 0, 2: 5, 3: 15}
"""Of each effort."""


def refine(
    decoder: Decoder,
    latents: Tensor,
    kept: Tensor,
    state: DecoderState | None,
    pixels: Tensor,
    *,
    displacement: Tensor | None = None,
    iterations: int,
) -> Tensor:
    """Signs of a step with a smaller squared error, or those of the latents, where none is found.

    Args:
        decoder: Its parameters are not changed.
        latents: Of the encoder, before the sign, float32 `(1, K, h, w)`.
        kept: 1 for bits that are kept, else 0: `(1, K, h, w)`. The others do not change.
        state: The decoder's, before this step.
        pixels: What the step should show: float32 `(1, F, 3, 8h, 8w)` in [-1, 1].
        displacement: Of a later step where motion is coded, see :meth:`tokcodec.tokenizer.model.Decoder.step`.
        iterations: Of gradient descent; each costs about three steps of the decoder.

    Returns:
        +1 or -1, `(1, K, h, w)`, dtype of the latents.
    """
    with torch.inference_mode(False), torch.enable_grad():
        target, mask, before = pixels.clone(), kept.clone(), _outside_inference(state)
        moved = None if displacement is None else displacement.clone()
        moving = latents.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([moving], lr=STEP_SIZE, betas=(0.9, 0.95))
        best, least = signs(moving.detach()), torch.inf
        for iteration in range(iterations + 1):
            tokens = straight_through(moving)
            shown, _ = decoder.step(tokens, mask, before, moved)
            error = (shown.clamp(-1.0, 1.0) - target).square().sum()
            if error.item() < least:
                best, least = signs(moving.detach()), error.item()
            if iteration == iterations:
                break
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            with torch.no_grad():
                moving.clamp_(-LATENT_LIMIT, LATENT_LIMIT)
    return best


def _outside_inference(state: DecoderState | None) -> DecoderState | None:
    """Copies that autograd accepts."""
    if state is None:
        return None
    return replace(state, features=state.features.clone(), picture=state.picture.clone(), motion=None, moved=None)
