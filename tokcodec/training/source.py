"""Where batches come from: one protocol, and the choices that every source shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from tokcodec.training.camera import CameraConfig


class ClipSource(Protocol):
    """Random batches of clips, without end."""

    def batch(self, size: int, frames: int, side: int) -> Tensor:
        """float32 `(size, frames, 3, side, side)` RGB in [-1, 1]; photographs take part where `frames` is 1.

        Raises:
            UsageError: The data holds nothing of that size.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How a source draws.

    Attributes:
        photograph_share: Share of photographs among images; the others are frames of videos.
        camera_share: Share of camera moves over photographs among clips (of sources that make them as they go).
        stride_two_share: Share of clips that take every second frame, where the video is long enough.
        flip_share: Share that is mirrored.
        camera: How far the camera moves.
    """

    photograph_share: float = 0.6
    camera_share: float = 0.1
    stride_two_share: float = 0.15
    flip_share: float = 0.5
    camera: CameraConfig = field(default_factory=CameraConfig)


class Window(NamedTuple):
    """A part of a clip: frames `first::stride`, rows from `top`, columns from `left`."""

    first: int
    stride: int
    top: int
    left: int


def draw_window(
    shape: tuple[int, int, int], frames: int, side: int, augment: AugmentConfig, random: np.random.Generator
) -> Window | None:
    """A random window of `frames` x `side` x `side` in a clip of `shape` (T, H, W); None where it does not fit."""
    length, height, width = shape
    if length < frames or height < side or width < side:
        return None
    twice = frames > 1 and 2 * frames - 1 <= length and random.random() < augment.stride_two_share
    stride = 2 if twice else 1
    room = (length - stride * (frames - 1) - 1, height - side, width - side)
    first, top, left = (int(random.integers(0, n + 1)) for n in room)
    return Window(first, stride, top, left)
