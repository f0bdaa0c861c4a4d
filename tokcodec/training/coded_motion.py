"""Motion maps as training sees them: what an encoder would send, without its search for the cheapest.

An encoder weighs what a vector costs against what it saves, at every rate another way; here the motion found is
averaged, merged where blocks nearly agree (how nearly differs from clip to clip), and rounded. A hybrid has overlapped
blocks, each with a vector of its own, and these are matched.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS, TEMPORAL_FACTOR
from tokcodec.tokenizer.block_search import BlockErrors, HalfPixels, descend, field_of_motion
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.hybrid_motion import ALONE_COUNTS
from tokcodec.tokenizer.motion import VECTORS_PER_PIXEL, displacement_of_map, even_displacement
from tokcodec.tokenizer.search import grey
from tokcodec.tokenizer.step_length import REPEATS

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


def hybrid_displacements(frames: Tensor, motion: Tensor, *, slope: Tensor) -> Tensor:
    """The displacements of a clip's later steps, as a hybrid decoder would have them, by blocks of the clip itself.

    Args:
        frames: The clip, float32 `(N, 1 + 4t, 3, H, W)` in [-1, 1].
        motion: float32 `(N, t, 4, 2, h, w)`, as :func:`tokcodec.tokenizer.search.search_clip` gives it.
        slope: Lambda of each clip, float32 `(N,)`.

    Returns:
        float32 `(N, t, 7, 2, h, w)`, in units of `MOTION_UNIT` pixels.
    """
    clips, steps = motion.shape[:2]
    luma = grey(frames)
    each = [luma[:, start::4][:, :steps].reshape(-1, *luma.shape[2:]) for start in range(5)]
    pictures = dict(zip(("before", "early", "middle", "late", "last"), each, strict=True))
    references = {name: HalfPixels(pictures[name]) for name in ("before", "middle", "last")}
    price = slope.detach().cpu().numpy().repeat(steps)[:, None]

    repeats = {"last": REPEATS[TEMPORAL_FACTOR], **ALONE_COUNTS}

    def matched(frame: str, reference: str, *starts: NDArray[np.int32], kind: str = "other") -> NDArray[np.int32]:
        errors = BlockErrors(pictures[frame], references[reference], repeats=repeats[kind])
        return descend(errors, starts, slope=price)

    found = [field_of_motion(motion[:, :, number].flatten(0, 1)) for number in (3, 1)]
    last = matched("last", "before", found[0], kind="last")
    middle = matched("middle", "before", last >> 1, found[1], kind="middle")
    middle_back = matched("middle", "last", middle - last, -(last >> 1), kind="middle")
    early = matched("early", "before", middle >> 1)
    early_back = matched("early", "middle", early - middle)
    late_back = matched("late", "last", middle_back >> 1)
    late = matched("late", "middle", late_back - middle_back)
    maps = (last, middle, middle_back, early, early_back, late_back, late)
    vectors = torch.from_numpy(np.stack(maps, axis=1).astype(np.float32)).to(frames.device)
    rows, columns = motion.shape[-2:]
    each_map = displacement_of_map(vectors.flatten(0, 1), rows, columns)
    return each_map.view(clips, steps, MOTION_MAPS, *each_map.shape[1:])


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
