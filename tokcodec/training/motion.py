"""The motion that clips are trained with: searched once, when they are packed or loaded, never in the loop.

Of each frame of a clip it is stored how the frames soon after have moved since; so a part of the clip may begin
anywhere, at either stride. Nothing here imports torch: the processes of a pool start in a fraction of a second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.geometry import SPATIAL_FACTOR
from tokcodec.tokenizer.dis import MOTION_LIMIT, MOTION_UNIT, SMALLEST_SIDE, flows
from tokcodec.training.media import MediaItem, Pixels, read_whole

LAGS = (1, 2, 3, 4, 6, 8)
"""Frames since the one that motion is stored of: those of a step at stride one and at stride two."""
Pace = tuple[int, int, int, int]
"""Which frames of a video the four frames of a step are, counted from the last frame of the step before."""
USUAL: Pace = (1, 2, 3, 4)
EVERY_SECOND: Pace = (2, 4, 6, 8)
SHORT: tuple[Pace, ...] = ((1, 1, 2, 2), (1, 1, 1, 1))
"""Those of steps that show two frames, and one: what they do not show is shown again in its place (spec 3.2)."""
CODE_STEP = MOTION_LIMIT / 2047
"""What one unit of stored motion is of the code of motion: 0.005 pixels about rest, 0.25% of motion that is fast."""
PLANES = 3
"""Bytes of one stored motion: the high eight of 12 bits of x, those of y, and the low four of both, x below y."""

Motion = NDArray[np.int8]
"""Stored motion, `(T - 1, 6, 3, H/8, W/8)`: of each frame but the last, after each of `LAGS`; 0 where the clip has
ended by then. It is 9.4% of the clip's bytes. In 8 bits (6.3%) the pictures that it moves along came out up to
0.2 dB worse; float16 would be 12.5%."""


class Clip(NamedTuple):
    """A clip and its motion: uint8 `(T, H, W, 3)` RGB, and int8 as of :data:`Motion`."""

    pixels: Pixels
    motion: Motion


def stored_motion(motion: NDArray[np.floating]) -> Motion:
    """Motion `(..., 2, H/8, W/8)` in units of `MOTION_UNIT` as it is stored: its code in steps of `CODE_STEP`."""
    code = np.arcsinh(motion).clip(-MOTION_LIMIT, MOTION_LIMIT)
    steps = np.rint(code / CODE_STEP).astype(np.int16)
    low = steps & 15
    planes = np.concatenate([steps >> 4, low[..., :1, :, :] | low[..., 1:, :, :] << 4], axis=-3)
    return planes.astype(np.int8)


def find_motion(pixels: Pixels) -> Motion:
    """Search for the motion of a clip, as the encoder does, in one thread.

    Args:
        pixels: uint8 `(T, H, W, 3)` RGB.

    Returns:
        int8 `(T - 1, 6, 3, H/8, W/8)`; 0 where the pictures are smaller than a search takes.
    """
    length, height, width, _ = pixels.shape
    rows, columns = height // SPATIAL_FACTOR, width // SPATIAL_FACTOR
    found = np.zeros((max(0, length - 1), len(LAGS), PLANES, rows, columns), np.int8)
    if length > 1 and min(height, width) >= SMALLEST_SIDE:
        import cv2

        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the processes of a pool share the processors
        try:
            _search(_grey(pixels), found)
        finally:
            cv2.setNumThreads(threads)
    return found


def _search(pictures: NDArray[np.uint8], found: Motion) -> None:
    rows, columns = found.shape[-2:]
    for start, results in enumerate(found):
        lags = [lag for lag in LAGS if start + lag < len(pictures)]
        later = [pictures[start + lag] for lag in lags]
        for result, flow in zip(results, flows(pictures[start], later, lags), strict=False):
            cells = flow[: rows * SPATIAL_FACTOR, : columns * SPATIAL_FACTOR]
            cells = cells.reshape(rows, SPATIAL_FACTOR, columns, SPATIAL_FACTOR, 2)
            result[:] = stored_motion(cells.mean(axis=(1, 3)).transpose(2, 0, 1) / MOTION_UNIT)


def _grey(pixels: Pixels) -> NDArray[np.uint8]:
    """Luma of uint8 `(T, H, W, 3)` by the operations of the encoder's search, so that it rounds alike."""
    grey = np.empty(pixels.shape[:3], np.uint8)
    for result, picture in zip(grey, pixels, strict=True):
        red, green, blue = np.moveaxis(picture.astype(np.float32) / np.float32(127.5) - 1, -1, 0)
        luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
        result[:] = np.rint((luma + 1) * np.float32(127.5)).clip(0, 255)
    return grey


def read_clip(item: MediaItem) -> Clip | None:
    """All frames of an item and their motion, or None of one that cannot be read."""
    pixels = read_whole(item)
    return None if pixels is None else Clip(pixels, find_motion(pixels))
