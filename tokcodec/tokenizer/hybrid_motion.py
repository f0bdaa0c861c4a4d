"""The three motion maps of a hybrid's steps, as an encoder chooses them: in two parts, for the second needs a picture
that is made of the first (spec 3.5, 8.5)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MOTION_MAPS
from tokcodec.motion_bits import halved
from tokcodec.tokenizer.displacement import choose_map
from tokcodec.tokenizer.motion import displacements_of_maps
from tokcodec.tokenizer.search import search

MIDDLE_AND_LAST = slice(1, None, 2)
"""Frames of a step whose motion is searched."""
REPEATS = 2.0
"""How often an error counts when vectors are chosen, for other frames are made of them."""

Vectors = NDArray[np.int16]


class HybridMotion:
    """Chooses the maps of a chunk's later steps, in order; for each step `of_last` is called, then `of_middle`."""

    def __init__(self) -> None:
        self._forward: Vectors | None = None
        self._found: Tensor | None = None

    def of_last(self, pixels: Tensor, last: Tensor, picture: Tensor, *, slope: float) -> Tensor:
        """Choose the first map.

        Args:
            pixels: The step's frames, float32 `(1, 4, 3, H, W)` in [-1, 1].
            last: The source's last frame before, float32 `(1, 3, H, W)`.
            picture: That frame as it is decoded.
            slope: Lambda, see :class:`tokcodec.tokenizer.allocation.Allocator`.

        Returns:
            Displacements, float32 `(1, 3, 2, H/8, W/8)`; those of the middle frame, not known yet, are zero.
        """
        self._found = search(pixels[:, MIDDLE_AND_LAST], last)
        self._forward = choose_map(
            pixels[:, -1], picture, self._found[:, 1], before=self._forward, slope=slope, repeats=REPEATS
        )
        rows, columns = self._found.shape[-2:]
        known = np.concatenate([self._forward, *[np.zeros_like(self._forward)] * (MOTION_MAPS - 1)])
        vectors = torch.from_numpy(known).to(pixels.device).unsqueeze(0)
        return displacements_of_maps(vectors, rows, columns, maps=MOTION_MAPS)

    def of_middle(self, pixels: Tensor, before: Tensor, after: Tensor, *, slope: float) -> Vectors:
        """Choose the other two.

        Args:
            pixels: The step's frames, float32 `(1, 4, 3, H, W)` in [-1, 1].
            before: The last frame before the step as it is decoded, float32 `(1, 3, H, W)`.
            after: The step's last frame as it is decoded.
            slope: Lambda.

        Returns:
            All three, one below the other: int16 `(motion_rows, motion_columns, 2)`.
        """
        if self._forward is None or self._found is None:
            raise RuntimeError("the motion of the last frame comes first")
        middle = pixels[:, 1]
        back = search(middle.unsqueeze(1), pixels[:, -1])[:, 0]
        maps = [self._forward]
        for reference, motion in ((before, self._found[:, 0]), (after, back)):
            expected = halved(self._forward, back=reference is after)
            maps.append(
                choose_map(middle, reference, motion, before=expected, slope=slope, repeats=REPEATS, relative=True)
            )
        return np.concatenate(maps)
