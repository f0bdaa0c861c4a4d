"""Motion: how the decoder moves its last picture along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.tokenizer.dis import MOTION_LIMIT, MOTION_UNIT

STILL, MOVING = 0.2, 0.4
"""Motion since the last picture, in units of `MOTION_UNIT` pixels: up to the first, what keeps no bits stands still;
from the second on, it moves."""


def motion_of_code(code: Tensor) -> Tensor:
    """Motion in units of `MOTION_UNIT`: sinh, which is fine near zero and reaches far, of the code within its limit."""
    return torch.sinh(code.clamp(-MOTION_LIMIT, MOTION_LIMIT))


def code_of_motion(motion: Tensor) -> Tensor:
    """The inverse of :func:`motion_of_code`."""
    return torch.asinh(motion).clamp(-MOTION_LIMIT, MOTION_LIMIT)


def warp(picture: Tensor, motion: Tensor) -> Tensor:
    """Move a picture: the value at (x, y) is taken from (x + motion_x, y + motion_y), bilinear, edges replicated.

    Args:
        picture: float32 `(N, 3, H, W)`.
        motion: float32 `(N, F, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels.

    Returns:
        float32 `(N, F, 3, H, W)`.
    """
    batch, count = motion.shape[:2]
    height, width = picture.shape[-2:]
    flow = F.interpolate(motion.flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False)
    scale = flow.new_tensor([2.0 * MOTION_UNIT / max(1, size - 1) for size in (width, height)])
    ys = torch.linspace(-1, 1, height, device=flow.device) if height > 1 else flow.new_zeros(1)
    xs = torch.linspace(-1, 1, width, device=flow.device) if width > 1 else flow.new_zeros(1)
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1) + flow.permute(0, 2, 3, 1) * scale
    repeated = picture.repeat_interleave(count, dim=0)
    moved = F.grid_sample(repeated, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return moved.view(batch, count, *picture.shape[1:])


def stillness(motion: Tensor, kept: Tensor) -> Tensor:
    """How much a token's place just stays as it is: `(N, 1, h, w)`, 1 where no bit is kept and nothing moves.

    Args:
        motion: `(N, 4, 2, h, w)`, in units of `MOTION_UNIT` pixels.
        kept: `(N, K, h, w)`.
    """
    fastest = motion.norm(dim=2).amax(dim=1)
    calm = ((MOVING - fastest) / (MOVING - STILL)).clamp(0.0, 1.0)
    still: Tensor = calm * (1 - kept.float().amax(dim=1))
    return still.unsqueeze(1)


def motion_features(found: Tensor, known: Tensor) -> Tensor:
    """Codes of the motion found, what the decoder does not know of them, and that with its small values enlarged.

    Args:
        found: `(N, 4, 2, h, w)`, in units of `MOTION_UNIT` pixels.
        known: The same of the forecast.

    Returns:
        `(N, 24, h, w)`.
    """
    code, new = code_of_motion(found), code_of_motion(found) - code_of_motion(known)
    features = torch.cat([code, 2 * new, (8 * new).clamp(-2, 2)], dim=1)
    return features.flatten(1, 2).contiguous(memory_format=torch.channels_last)
