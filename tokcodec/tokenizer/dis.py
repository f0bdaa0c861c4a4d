"""Dense inverse search (Kroeger et al. 2016), by OpenCV, on arrays.

Nothing here imports torch: processes that prepare training data start without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MOTION_UNIT = 2.0
"""Pixels for each unit of motion."""
MOTION_LIMIT = 5.0
"""Largest code of motion; it stands for 148 pixels."""
SMALLEST_SIDE = 32
"""Pixels; smaller pictures have no room for a search, and are taken to stand still."""


def flows(
    first: NDArray[np.uint8], later: Sequence[NDArray[np.uint8]], lags: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """Where each pixel of later pictures was in a first one.

    Args:
        first: Luma, uint8 `(H, W)`, of at least `SMALLEST_SIDE` pixels each way.
        later: Luma, in order of time.
        lags: Frames from the first picture to each of these, rising: a search begins where the one before ended,
            at the speed that was found.

    Yields:
        float32 `(H, W, 2)` for each of `later`, x before y, in pixels.
    """
    import cv2  # late: decoding never needs it

    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    guess = np.zeros((*first.shape, 2), np.float32)
    for picture, lag, following in zip(later, lags, (*lags[1:], 0), strict=True):
        flow: NDArray[np.float32] = finder.calc(picture, first, guess)  # type: ignore[assignment]
        guess = flow * np.float32(following / lag)
        yield flow
