"""Lookup-free quantization (MAGVIT-v2, arXiv 2310.05737, section 3.1): a token is the signs of a vector."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_power(z: Tensor) -> Tensor:
    """Scale each latent vector to a mean square of one, so that the distance to the signs is bounded.

    Args:
        z: float `(N, K, h, w)`.
    """
    return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-6)


def signs(z: Tensor) -> Tensor:
    """+1 where z > 0, else -1 (eq. 3; the sign of 0 is -1). Same shape and dtype as `z`."""
    return torch.where(z > 0, 1.0, -1.0).to(z.dtype)


def straight_through(z: Tensor) -> Tensor:
    """The signs of `z`, with the gradient of the identity."""
    return z + (signs(z) - z).detach()


def pack_bits(positive: Tensor) -> Tensor:
    """Index of each token: `sum_i 2^(i-1) [z_i > 0]` (eq. 4).

    Args:
        positive: bool `(..., K, h, w)`, K at most 63.

    Returns:
        int64 `(..., h, w)`.
    """
    weights = (1 << torch.arange(positive.shape[-3], device=positive.device)).view(-1, 1, 1)
    return (positive.long() * weights).sum(dim=-3)


def unpack_bits(indices: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`pack_bits`: int64 `(..., h, w)` -> bool `(..., K, h, w)`."""
    shifts = torch.arange(bits, device=indices.device).view(-1, 1, 1)
    return ((indices.unsqueeze(-3) >> shifts) & 1).bool()


def entropy_terms(z: Tensor, *, group: int = 6, temperature: float = 0.5) -> tuple[Tensor, Tensor]:
    """The two terms of the entropy penalty E[H(q(z))] - H[E q(z)] (eq. 5), in nats per bit.

    The first is a sum over axes, for they are independent given z; the second is estimated over groups of
    `group` axes, each with its joint table, as the paper does beyond 2^18 codes.

    Args:
        z: float `(N, K, h, w)`, latents before the sign.
        group: Axes a table; K need not be a multiple.
        temperature: Softness of the assignment of z to +1 or -1.
    """
    bits = z.shape[1]
    flat = z.float().permute(0, 2, 3, 1).reshape(-1, bits)
    probability = torch.sigmoid(4.0 * flat / temperature).clamp(1e-6, 1 - 1e-6)
    each = -(probability * probability.log() + (1 - probability) * (1 - probability).log())
    certainty = each.mean()
    diversity = flat.new_zeros(())
    for start in range(0, bits, group):
        joint = flat.new_ones(flat.shape[0], 1)
        for axis in range(start, min(start + group, bits)):
            p = probability[:, axis : axis + 1]
            joint = torch.cat([joint * (1 - p), joint * p], dim=1)
        mean = joint.mean(dim=0)
        diversity = diversity - (mean * (mean + 1e-9).log()).sum()
    return certainty, diversity / bits
