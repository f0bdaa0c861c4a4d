"""Motion maps as training sees them: what an encoder would send, without its search for the cheapest.

An encoder weighs what a vector costs against what it saves, at every rate another way; here the motion found is
averaged, merged where blocks nearly agree (how nearly differs from clip to clip), and rounded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.geometry import MAX_VECTOR, MOTION_TOKENS
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.motion import VECTORS_PER_PIXEL, displacement_of_map, even_displacement
from tokcodec.tokenizer.search import search

MERGE_PIXELS = 2.0
"""Blocks of 2x2 vectors agree where they differ by less than up to this from their mean."""


def coded_displacements(motion: Tensor, *, seed: int) -> Tensor:
    """The displacements of a clip's later steps, as a decoder would have them.

    Args:
        motion: float32 `(N, t, 4, 2, h, w)`, as :func:`tokcodec.tokenizer.search.search_clip` gives it.
        seed: Of how nearly blocks must agree to be merged.

    Returns:
        float32 `(N, t, 2, h, w)`, in units of `MOTION_UNIT` pixels.
    """
    clips, steps = motion.shape[:2]
    found: Tensor = _rounded(even_displacement(motion.flatten(0, 1)), clips, seed).unflatten(0, (clips, steps))
    return found


def hybrid_displacements(frames: Tensor, motion: Tensor, *, seed: int) -> Tensor:
    """The three displacements of a clip's later steps, as a hybrid decoder would have them.

    The motion of a step's middle frame since its last one is searched here: packed clips have none that goes back.

    Args:
        frames: The clip, float32 `(N, 1 + 4t, 3, H, W)` in [-1, 1].
        motion: float32 `(N, t, 4, 2, h, w)`, as :func:`tokcodec.tokenizer.search.search_clip` gives it.
        seed: Of how nearly blocks must agree to be merged.

    Returns:
        float32 `(N, t, 3, 2, h, w)`, in units of `MOTION_UNIT` pixels.
    """
    clips, steps = motion.shape[:2]
    later = frames[:, 1:].unflatten(1, (steps, 4)).flatten(0, 1)
    back = search(later[:, 1:2], later[:, 3])[:, 0]
    since = motion.flatten(0, 1)
    maps = [_rounded(part, clips, seed) for part in (since[:, 3], since[:, 1], back)]
    found: Tensor = torch.stack(maps, dim=1).unflatten(0, (clips, steps))
    return found


def _rounded(motion: Tensor, clips: int, seed: int) -> Tensor:
    """Motion `(N * t, 2, h, w)` as vectors of blocks would have it."""
    rows, columns = motion.shape[-2:]
    fine = _mean_of(motion)
    coarse = _mean_of(fine).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : fine.shape[2], : fine.shape[3]]
    within = torch.rand(clips, generator=torch.Generator().manual_seed(seed)) * MERGE_PIXELS / MOTION_UNIT
    limit = within.to(motion.device).repeat_interleave(len(motion) // clips).view(-1, 1, 1, 1)
    merged = torch.where((fine - coarse).abs().amax(dim=1, keepdim=True) < limit, coarse, fine)
    vectors = (merged * (MOTION_UNIT * VECTORS_PER_PIXEL)).round().clamp(-MAX_VECTOR, MAX_VECTOR)
    found: Tensor = displacement_of_map(vectors.permute(0, 2, 3, 1), rows, columns)
    return found


def _mean_of(values: Tensor) -> Tensor:
    """Means of 2x2 places, or as many of them as there are at the edge."""
    return F.avg_pool2d(values, MOTION_TOKENS, ceil_mode=True, count_include_pad=False)
