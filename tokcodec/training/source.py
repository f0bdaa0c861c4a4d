"""Where batches come from: one protocol, and what every source shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tokcodec.geometry import SPATIAL_FACTOR, TEMPORAL_FACTOR
from tokcodec.tokenizer.motion import motion_of_code
from tokcodec.training.camera import CameraConfig
from tokcodec.training.motion import CODE_STEP, EVERY_SECOND, LAGS, PLANES, SHORT, USUAL, Pace

GRID = SPATIAL_FACTOR
"""Pixels between the places where a crop of a video may begin: its motion is stored for cells of that size."""


class Batch(NamedTuple):
    """Clips and their motion.

    Attributes:
        frames: float32 `(N, F, 3, S, S)` RGB in [-1, 1].
        motion: float32 `(N, t, 4, 2, S/8, S/8)`: of each later step since the end of the step before, in the form of
            :func:`tokcodec.tokenizer.search.search_clip`; it was found once, and in more of the clip than the crop.
    """

    frames: Tensor
    motion: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.frames.to(device), self.motion.to(device))


class ClipSource(Protocol):
    """Random batches of clips, without end."""

    def batch(self, size: int, frames: int, side: int) -> Batch:
        """`size` clips of 1 + 4t `frames` of `side` x `side`; photographs take part where `frames` is 1.

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
        short_step_share: Share, of the other clips, of those whose steps show two frames, or one, as steps of fast
            motion do; half of each.
        flip_share: Share that is mirrored.
        camera: How far the camera moves.
    """

    photograph_share: float = 0.6
    camera_share: float = 0.1
    stride_two_share: float = 0.15
    short_step_share: float = 0.0
    flip_share: float = 0.5
    camera: CameraConfig = field(default_factory=CameraConfig)


class Window(NamedTuple):
    """A part of a clip: a frame and steps of four from `first` on at a pace, rows from `top`, columns from `left`."""

    first: int
    pace: Pace
    top: int
    left: int
    frames: int
    side: int

    @property
    def _starts(self) -> list[int]:
        """The last frame before each step."""
        return [self.first + self.pace[-1] * step for step in range((self.frames - 1) // TEMPORAL_FACTOR)]

    @property
    def pixels(self) -> tuple[list[int], slice, slice]:
        """Where it is in pixels `(T, H, W, 3)`."""
        return (
            [self.first, *(start + ahead for start in self._starts for ahead in self.pace)],
            slice(self.top, self.top + self.side),
            slice(self.left, self.left + self.side),
        )

    @property
    def motion(self) -> list[tuple[list[int], int, slice, slice, slice]]:
        """Where the motion of each of the four frames of its steps is, in :data:`tokcodec.training.motion.Motion`."""
        top, left, side = (pixels // SPATIAL_FACTOR for pixels in (self.top, self.left, self.side))
        rows, columns = slice(top, top + side), slice(left, left + side)
        return [(self._starts, LAGS.index(ahead), slice(None), rows, columns) for ahead in self.pace]


def draw_window(
    shape: tuple[int, int, int],
    frames: int,
    side: int,
    augment: AugmentConfig,
    random: np.random.Generator,
    *,
    grid: int = 1,
) -> Window | None:
    """A random window of `frames` x `side` x `side` in a clip of `shape` (T, H, W); None where it does not fit.

    Rows and columns begin at multiples of `grid`.
    """
    length, height, width = shape
    if length < frames or height < side or width < side:
        return None
    pace = USUAL
    if frames > 1 and 2 * frames - 1 <= length and random.random() < augment.stride_two_share:
        pace = EVERY_SECOND
    elif frames > 1 and augment.short_step_share and random.random() < augment.short_step_share:
        pace = SHORT[int(random.integers(len(SHORT)))]
    first = int(random.integers(0, length - pace[-1] * (frames - 1) // TEMPORAL_FACTOR))
    top, left = (grid * int(random.integers(0, (room - side) // grid + 1)) for room in (height, width))
    return Window(first, pace, top, left, frames, side)


def empty_batch(size: int, frames: int, side: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Room for a batch as it is stored: uint8 `(N, F, S, S, 3)` and int8 `(N, t, 4, 3, S/8, S/8)`, the latter zero."""
    cells = side // SPATIAL_FACTOR
    pixels = torch.empty(size, frames, side, side, 3, dtype=torch.uint8, device=device)
    shape = size, (frames - 1) // TEMPORAL_FACTOR, TEMPORAL_FACTOR, PLANES, cells, cells
    return pixels, torch.zeros(shape, dtype=torch.int8, device=device)


def motion_of_stored(motion: Tensor) -> Tensor:
    """float32 motion `(..., 2, H/8, W/8)` in units of `MOTION_UNIT`, of int8 `(..., 3, H/8, W/8)`."""
    high, low = motion.split([2, 1], dim=-3)
    low = torch.cat([low, low >> 4], dim=-3) & 15
    return motion_of_code((high.float().mul_(16) + low) * CODE_STEP)


def finish_batch(pixels: Tensor, motion: Tensor, mirrored: Sequence[bool]) -> Batch:
    """A batch of uint8 pixels `(N, F, S, S, 3)` and float32 motion, of which some clips are mirrored (in place)."""
    for i, mirror in enumerate(mirrored):
        if mirror:
            pixels[i] = pixels[i].flip(2)
            motion[i] = motion[i].flip(-1)
            motion[i, :, :, 0].neg_()
    return Batch(pixels.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1.0), motion)
