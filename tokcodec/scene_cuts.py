"""Where a video cuts to another scene: there a chunk begins, for nothing of the old scene predicts the new one."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from tokcodec.frames.info import Pixels

LONGEST_SIDE = 64
"""Pixels along the longer side of the small pictures that are compared."""
LEAST = 12.0
"""Mean absolute difference, in 8-bit values, below which nothing is a cut."""
SUDDEN = 2.5
"""How many times the largest difference of late a cut has."""
MEMORY = 8
"""Frames that say what is usual; the first of a video say nothing yet."""
REACH = 10
"""Small pixels by which a picture may have been moved as a whole, each way."""
UNLIKE = 0.65
"""A cut has no shift at which two pictures differ by less than this share of what each differs from its mean."""
BLANK = 4.0
"""Mean absolute difference from its own mean, in 8-bit values, below which a picture is blank: it is passed over."""


class SceneCuts:
    """Is told every frame, in order."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None
        self._usual: deque[float] = deque(maxlen=MEMORY)

    def is_cut(self, pixels: Pixels) -> bool:
        """Whether a frame, uint8 `(H, W, 3)`, begins another scene than the one that was seen before.

        Brightness that changes everywhere alike is no cut, nor are blank frames, black or white, with the same scene
        on both sides, nor a camera that pans at an even speed. After a cut, or another leap, there is none for
        `MEMORY` frames but a greater one.
        """
        small, before = _small(pixels), self._before
        if float(np.abs(small).mean()) < BLANK:
            return False
        self._before = small
        if before is None or before.shape != small.shape:
            return False
        away = float(np.abs(small - before).mean())
        usual = max(self._usual, default=away)
        self._usual.append(away)
        if away < LEAST or away < SUDDEN * usual:
            return False
        least = min(float(np.abs(part).mean()) for part in (small, before))
        return least_difference(small, before) >= UNLIKE * least


def _small(pixels: Pixels) -> NDArray[np.float32]:
    """Luma of a frame, small, without its mean."""
    import cv2  # late: decoding never needs it

    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    values = small.astype(np.float32)
    found: NDArray[np.float32] = values - values.mean()
    return found


def least_difference(picture: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least mean absolute difference of what two pictures share, over all shifts of one of them."""
    height, width = picture.shape
    least = np.inf
    down_most, right_most = min(REACH, height // 2), min(REACH, width // 2)
    for down in range(-down_most, down_most + 1):
        rows, others = slice(max(0, down), height + min(0, down)), slice(max(0, -down), height + min(0, -down))
        for right in range(-right_most, right_most + 1):
            columns = slice(max(0, right), width + min(0, right))
            other_columns = slice(max(0, -right), width + min(0, -right))
            least = min(least, float(np.abs(picture[rows, columns] - other[others, other_columns]).mean()))
    return least
