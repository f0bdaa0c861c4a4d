"""Losses of the tokenizer, each a function of tensors, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokcodec.tokenizer.lfq import entropy_terms, signs


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weight of each term in the sum.

    Attributes:
        l1: Mean absolute error of pixels in [-1, 1].
        mse: Mean squared error of pixels in [-1, 1].
        lpips: LPIPS by VGG16, mean over some frames of the batch; 0 leaves it out.
        moved: Mean absolute error of what motion alone shows of the later steps, for where the mask hides the moved
            picture its motion would never be learned.
        motion: Mean absolute difference between the codes of the decoder's motion and of the searched one.
        commitment: Mean squared distance of z to its signs (paper: 0.25).
        entropy: The entropy penalty, E[H] - diversity * H[E] (paper: 0.1).
        diversity: Weight of H[E] inside the entropy penalty.
        rate: Bits per pixel by a prior that is trained alongside; 0 leaves both out.
        adversarial: The non-saturating loss by a discriminator that is trained alongside, times the adaptive weight
            (paper: 0.1); 0 leaves all of :mod:`tokcodec.training.adversarial` out.
    """

    l1: float = 0.5
    mse: float = 2.0
    lpips: float = 0.0
    moved: float = 0.5
    motion: float = 0.1
    commitment: float = 0.02
    entropy: float = 0.01
    diversity: float = 1.0
    rate: float = 0.0
    adversarial: float = 0.0


def reconstruction_terms(decoded: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """`l1` and `mse` between two tensors of the same shape in [-1, 1]."""
    difference = decoded.float() - frames
    return {"l1": difference.abs().mean(), "mse": difference.square().mean()}


def perceptual_term(
    decoded: Tensor, frames: Tensor, distance: Callable[[Tensor, Tensor], Tensor], *, count: int
) -> Tensor:
    """Mean distance over `count` frames of the batch, drawn at random without repetition.

    Args:
        decoded: `(N, F, 3, H, W)` about [-1, 1].
        frames: Same shape.
        distance: Of `(n, 3, H, W)` from `(n, 3, H, W)`, giving `(n,)`; :class:`tokcodec.metrics.lpips_network.Lpips`.
        count: Frames; all of them where there are no more.
    """
    chosen = torch.randperm(decoded.shape[0] * decoded.shape[1])[:count].to(decoded.device)
    return distance(decoded.flatten(0, 1)[chosen], frames.flatten(0, 1)[chosen]).mean()


def latent_terms(z: Tensor, *, diversity: float, group: int = 6) -> dict[str, Tensor]:
    """`commitment` and `entropy` of latents `(N, K, h, w)` before the sign, in sub-groups of `group` axes."""
    certainty, spread = entropy_terms(z, group=group)
    return {
        "commitment": (z - signs(z).detach()).square().mean(),
        "entropy": certainty - diversity * spread,
    }


def psnr_of_mse(mse: float) -> float:
    """PSNR in dB of a mean squared error of pixels in [-1, 1] (peak to peak 2)."""
    return float(10.0 * torch.log10(torch.tensor(4.0 / max(mse, 1e-10))))
