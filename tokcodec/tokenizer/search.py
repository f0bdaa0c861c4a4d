"""The motion that an encoder codes: what dense inverse search finds, as means of 8x8 pixels.

Only encoders search; a decoder is sent motion (:mod:`tokcodec.tokenizer.displacement`), or makes it of the tokens. A
search that finds other motion changes which tokens are chosen, never what they mean.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.geometry import SPATIAL_FACTOR
from tokcodec.tokenizer.dis import MOTION_UNIT, SMALLEST_SIDE, flows


def search(frames: Tensor, before: Tensor) -> Tensor:
    """Motion of frames since an earlier picture, as :func:`tokcodec.tokenizer.motion.warp` takes it.

    Args:
        frames: `(N, F, 3, H, W)` in [-1, 1], in order of time; each begins where the one before ended.
        before: `(N, 3, H, W)`.

    Returns:
        float32 `(N, F, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels, on the device of `frames`.
    """
    batch, count, _, height, width = frames.shape
    if min(height, width) < SMALLEST_SIDE:
        return frames.new_zeros(batch, count, 2, height // SPATIAL_FACTOR, width // SPATIAL_FACTOR, dtype=torch.float32)
    pictures = grey(torch.cat([before.unsqueeze(1), frames], dim=1))
    found = np.empty((batch, count, height, width, 2), np.float32)
    for result, (first, *later) in zip(found, pictures, strict=True):
        for number, flow in enumerate(flows(first, later, range(1, count + 1))):
            result[number] = flow
    motion = torch.from_numpy(found).flatten(0, 1).permute(0, 3, 1, 2)
    motion = F.avg_pool2d(motion, SPATIAL_FACTOR) / MOTION_UNIT
    return motion.view(batch, count, *motion.shape[1:]).to(frames.device)


def search_clip(frames: Tensor) -> Tensor:
    """Motion of each later step of a chunk since the end of the step before.

    Args:
        frames: `(N, 1 + 4t, 3, H, W)` in [-1, 1].

    Returns:
        float32 `(N, t, 4, 2, H/8, W/8)`, as :func:`search` gives it.
    """
    batch, steps = len(frames), (frames.shape[1] - 1) // 4
    later = frames[:, 1:].unflatten(1, (steps, 4)).flatten(0, 1)
    motion = search(later, frames[:, 0:-1:4].flatten(0, 1))
    return motion.view(batch, steps, *motion.shape[1:])


def grey(pictures: Tensor) -> np.ndarray:
    """Luma of `(N, F, 3, H, W)` in [-1, 1] as uint8 `(N, F, H, W)`."""
    red, green, blue = pictures.float().unbind(2)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
