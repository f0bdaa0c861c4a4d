"""The motion map of a step: what an encoder sends of the motion that it found.

Each block of 16x16 pixels takes, from a few vectors of its neighbourhood, the one of least squared error + lambda *
bits, given those around it; a few rounds of that, one colour of a checkerboard after the other. No decoder needs to
know.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MAX_VECTOR, MOTION_TOKENS, SPATIAL_FACTOR
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.motion import VECTORS_PER_PIXEL, even_displacement
from tokcodec.tokenizer.search import grey

Vectors = NDArray[np.int16]

BLOCK = MOTION_TOKENS * SPATIAL_FACTOR
"""Pixels along each side of a motion block."""
TRIED = (1, 3)
"""Frames of a step that stand for all of them."""
ROUNDS = 3
FLAG_BITS, BASE_BITS = 0.2, 2.5
"""What a component costs that is as its neighbours predict it, and one that differs by half a pixel."""
TRUST = 1.0
"""Share of the error of a moved picture that bits of tokens do not take away."""


def choose_vectors(pixels: Tensor, picture: Tensor, motion: Tensor, *, before: Vectors | None, slope: float) -> Vectors:
    """The vectors of a step's motion map.

    Args:
        pixels: The step's frames, float32 `(1, 4, 3, H, W)` in [-1, 1].
        picture: The decoder's last one, float32 `(1, 3, H, W)`.
        motion: As found, float32 `(1, 4, 2, H/8, W/8)`, see :func:`tokcodec.tokenizer.search.search`.
        before: Those of the step before; None where there are none.
        slope: Lambda, see :class:`tokcodec.tokenizer.allocation.Allocator`.

    Returns:
        int16 `(motion_rows, motion_columns, 2)`, half pixels, x before y.
    """
    even = F.avg_pool2d(even_displacement(motion), MOTION_TOKENS, ceil_mode=True, count_include_pad=False)
    scaled = (even[0] * (MOTION_UNIT * VECTORS_PER_PIXEL)).round().clamp(-MAX_VECTOR, MAX_VECTOR)
    own = scaled.permute(1, 2, 0).cpu().numpy().astype(np.int16)
    candidates = _candidates(own, before)
    errors = _errors(grey(pixels)[0], grey(picture.unsqueeze(1))[0, 0], candidates)
    return _least(candidates, TRUST * errors, slope)


def _candidates(own: Vectors, before: Vectors | None) -> Vectors:
    """Vectors that each block may take: `(candidates, rows, columns, 2)`, its own first."""
    framed = np.pad(own, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]]
    middle = np.median(np.stack([own, *around]), axis=0).astype(np.int16)
    found = [own, *around, middle, np.zeros_like(own)]
    if before is not None:
        found.append(before)
    return np.stack(found)


def _errors(frames: NDArray[np.uint8], picture: NDArray[np.uint8], candidates: Vectors) -> NDArray[np.float32]:
    """Squared error of each block of a step, summed over its pixels and frames, if it were moved by each candidate."""
    import cv2  # late: decoding never needs it

    height, width = picture.shape
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    reference = picture.astype(np.float32)
    rows, columns = candidates.shape[1:3]
    found = np.zeros(candidates.shape[:3], np.float32)
    for vectors, result in zip(candidates, found, strict=True):
        flow = vectors.astype(np.float32).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width]
        flow *= 1 / VECTORS_PER_PIXEL
        for number in TRIED:
            share = np.float32((number + 1) / len(frames))
            moved = cv2.remap(
                reference,
                xs + share * flow[..., 0],
                ys + share * flow[..., 1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            error = np.zeros((rows * BLOCK, columns * BLOCK), np.float32)
            np.square(moved - frames[number], out=error[:height, :width])
            result += error.reshape(rows, BLOCK, columns, BLOCK).sum(axis=(1, 3))
    found *= len(frames) / len(TRIED)
    return found


def _least(candidates: Vectors, errors: NDArray[np.float32], slope: float) -> Vectors:
    """The candidate of least error + slope * bits of each block, where its neighbours are as they came out."""
    rows, columns = errors.shape[1:]
    y, x = np.indices((rows, columns))
    chosen = np.take_along_axis(candidates, errors.argmin(axis=0)[None, ..., None], axis=0)[0]
    options = candidates.astype(np.int32)
    for _ in range(ROUNDS):
        for colour in (0, 1):
            framed = np.pad(chosen, ((1, 1), (1, 1), (0, 0)), mode="edge")
            around = np.stack([framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]])
            ordered = np.sort(around, axis=0).astype(np.int32)
            far = np.abs(options - ((ordered[1] + ordered[2]) >> 1))
            bits = np.where(far == 0, FLAG_BITS, BASE_BITS + 2 * np.log2(np.maximum(far, 1))).sum(axis=-1)
            best = (errors + slope * bits).argmin(axis=0)
            taken = np.take_along_axis(candidates, best[None, ..., None], axis=0)[0]
            chosen = np.where(((y + x) % 2 == colour)[..., None], taken, chosen)
    found: Vectors = chosen.astype(np.int16)
    return found
