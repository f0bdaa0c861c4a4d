"""Motion: how the decoder moves its last picture along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.geometry import MOTION_TOKENS, SPATIAL_FACTOR
from tokcodec.tokenizer.dis import MOTION_LIMIT, MOTION_UNIT

BLOCK = MOTION_TOKENS * SPATIAL_FACTOR
"""Pixels along each side of a motion block."""
VECTORS_PER_PIXEL = 2
"""Vectors of a motion map are whole numbers of half pixels."""
STILL, MOVING = 0.2, 0.4
"""Motion since the last picture, in units of `MOTION_UNIT` pixels: up to the first, what keeps no bits stands still;
from the second on, it moves."""


def motion_of_code(code: Tensor) -> Tensor:
    """Motion in units of `MOTION_UNIT`: sinh, which is fine near zero and reaches far, of the code within its limit."""
    return torch.sinh(code.clamp(-MOTION_LIMIT, MOTION_LIMIT))


def code_of_motion(motion: Tensor) -> Tensor:
    """The inverse of :func:`motion_of_code`."""
    return torch.asinh(motion).clamp(-MOTION_LIMIT, MOTION_LIMIT)


def over_frames(displacement: Tensor) -> Tensor:
    """The motion of a step's frames that moves evenly by a displacement: `(N, 2, h, w)` -> `(N, 4, 2, h, w)`."""
    share = torch.arange(1, 5, device=displacement.device, dtype=displacement.dtype) / 4
    return displacement.unsqueeze(1) * share.view(1, -1, 1, 1, 1)


def even_displacement(motion: Tensor) -> Tensor:
    """The displacement over a step whose even motion is nearest to that of its frames, by least squares.

    Args:
        motion: `(N, 4, 2, h, w)`.

    Returns:
        `(N, 2, h, w)`.
    """
    share = torch.arange(1, 5, device=motion.device, dtype=motion.dtype) / 4
    weights = share / share.square().sum()
    return (motion * weights.view(1, -1, 1, 1, 1)).sum(dim=1)


def displacement_of_map(vectors: Tensor, rows: int, columns: int) -> Tensor:
    """A motion map as the network takes it: what each token is moved by (spec 8.4, 8.5).

    Args:
        vectors: Half pixels, x before y: `(N, motion_rows, motion_columns, 2)`.
        rows: Token rows.
        columns: Token columns.

    Returns:
        float32 `(N, 2, rows, columns)`, in units of `MOTION_UNIT` pixels.
    """
    values = vectors.permute(0, 3, 1, 2).float() * (1 / (VECTORS_PER_PIXEL * MOTION_UNIT))
    whole = values.repeat_interleave(MOTION_TOKENS, 2).repeat_interleave(MOTION_TOKENS, 3)
    return whole[:, :, :rows, :columns].contiguous()


def displacements_of_maps(vectors: Tensor, rows: int, columns: int, *, maps: int) -> Tensor:
    """Motion maps of a step, one below the other, as the network takes them.

    Args:
        vectors: Half pixels, x before y: `(N, motion_rows, motion_columns, 2)`, rows of all maps.
        rows: Token rows.
        columns: Token columns.
        maps: How many; where it is 1 the result is without that axis.

    Returns:
        float32 `(N, maps, 2, rows, columns)` or `(N, 2, rows, columns)`, see :func:`displacement_of_map`.
    """
    if maps == 1:
        return displacement_of_map(vectors, rows, columns)
    return torch.stack([displacement_of_map(part, rows, columns) for part in vectors.chunk(maps, dim=1)], dim=1)


def warp(picture: Tensor, motion: Tensor) -> Tensor:
    """Move a picture: the value at (x, y) is taken from (x + motion_x, y + motion_y), edges replicated.

    Args:
        picture: float32 `(N, 3, H, W)`.
        motion: float32 `(N, F, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels.

    Returns:
        float32 `(N, F, 3, H, W)`.
    """
    batch, count = motion.shape[:2]
    flow = F.interpolate(motion.flatten(0, 1), size=picture.shape[-2:], mode="bilinear", align_corners=False)
    repeated = picture.repeat_interleave(count, dim=0)
    return _sampled(repeated, MOTION_UNIT * flow).view(batch, count, *picture.shape[1:])


def warp_features(features: Tensor, displacement: Tensor) -> Tensor:
    """Move the decoder's features as :func:`warp` moves pictures.

    Args:
        features: `(N, C, h, w)`.
        displacement: float32 `(N, 2, h, w)`, in units of `MOTION_UNIT` pixels.

    Returns:
        Shape and dtype of the features.
    """
    moved = _sampled(features.float(), displacement * (MOTION_UNIT / SPATIAL_FACTOR))
    return moved.to(features.dtype).contiguous(memory_format=torch.channels_last)


def _sampled(values: Tensor, flow: Tensor) -> Tensor:
    """Values `(N, C, H, W)` at each place moved by a flow `(N, 2, H, W)` in places."""
    height, width = values.shape[-2:]
    scale = flow.new_tensor([2.0 / max(1, size - 1) for size in (width, height)])
    ys = torch.linspace(-1, 1, height, device=flow.device) if height > 1 else flow.new_zeros(1)
    xs = torch.linspace(-1, 1, width, device=flow.device) if width > 1 else flow.new_zeros(1)
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1) + flow.permute(0, 2, 3, 1) * scale
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=True)


def stillness(motion: Tensor, kept: Tensor) -> Tensor:
    """How much a token's place just stays as it is: `(N, 1, h, w)`, 1 where no bit is kept and nothing moves.

    Args:
        motion: Of any number of frames or maps, `(N, F, 2, h, w)`, in units of `MOTION_UNIT` pixels.
        kept: `(N, K, h, w)`.
    """
    # The norm has a gradient where nothing moves; the root is several times as fast.
    lengths = motion.norm(dim=2) if motion.requires_grad else motion.square().sum(dim=2).sqrt()
    fastest = lengths.amax(dim=1)
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
