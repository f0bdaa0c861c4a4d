"""Short camera moves over a photograph: pan, zoom and a little roll, or none, by `grid_sample`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tokcodec.geometry import SPATIAL_FACTOR
from tokcodec.tokenizer.dis import MOTION_UNIT


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """How far a camera moves.

    Attributes:
        still_share: Share of the moves that do not move at all: a still background must stay still.
        pan_pixels: Largest pan a frame, in pixels of the crop.
        zoom_per_frame: Largest change of scale a frame, as a factor above one.
        roll_degrees: Largest turn a frame.
        scale: Smallest and largest side of the window in the photograph, in units of the crop's.
    """

    still_share: float = 0.15
    pan_pixels: float = 6.0
    zoom_per_frame: float = 1.015
    roll_degrees: float = 0.3
    scale: tuple[float, float] = (0.7, 1.6)


class CameraMove(NamedTuple):
    """A clip that a moving camera took of a photograph.

    Attributes:
        pixels: uint8 `(frames, side, side, 3)`.
        centre: Of each frame's window, x + iy in pixels of the photograph.
        turn: Of each frame's window: what its coordinates, x + iy from -1 to 1, are multiplied with: half its side,
            turned.
    """

    pixels: Tensor
    centre: NDArray[np.complex128]
    turn: NDArray[np.complex128]

    def motion(self, frames: ArrayLike, since: ArrayLike) -> NDArray[np.float64]:
        """How frames have moved since others: `(..., 2, side/8, side/8)` in units of `MOTION_UNIT`, x before y.

        Nothing is searched: it is known where a camera was.

        Args:
            frames: Numbers of frames, of any shape `(...)`.
            since: Numbers of the frames that they are compared with.
        """
        side = self.pixels.shape[1]
        cells = (2 * np.arange(side // SPATIAL_FACTOR) + 1) * SPATIAL_FACTOR / side - 1
        here = cells + 1j * cells[:, np.newaxis]
        (now, then), (turn, turned) = (
            [values[np.asarray(numbers), np.newaxis, np.newaxis] for numbers in (frames, since)]
            for values in (self.centre, self.turn)
        )
        moved = ((now - then + turn * here) / turned - here) * (side / 2 / MOTION_UNIT)
        return np.stack([moved.real, moved.imag], axis=-3)


def _path(
    frames: int, side: int, height: int, width: int, config: CameraConfig, random: np.random.Generator
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """Centre x, centre y (photograph's pixels), half side (same) and angle (radians) of each frame's window."""
    largest = min(height, width) / side
    if largest < config.scale[0]:
        return None
    scale = math.exp(random.uniform(math.log(config.scale[0]), math.log(min(config.scale[1], largest))))
    time = np.arange(frames) - (frames - 1) / 2
    if random.random() < config.still_share:
        time = np.zeros(frames)
    zoom = random.uniform(-1, 1) * math.log(config.zoom_per_frame)
    half = np.minimum(scale * side / 2 * np.exp(zoom * time), min(height, width) / 2)
    direction, speed = random.uniform(0, 2 * math.pi), random.uniform(0, config.pan_pixels) * scale
    angle = math.radians(random.uniform(-1, 1) * config.roll_degrees) * time
    path = []
    for step, extent in ((math.cos(direction), width), (math.sin(direction), height)):
        room = max(0.0, extent / 2 - float(half.max()))
        reach = speed * abs(step) * (frames - 1) / 2
        step *= min(1.0, room / reach) if reach > 0 else 0.0  # the window stays inside the photograph
        slack = max(0.0, room - speed * abs(step) * (frames - 1) / 2)
        path.append(extent / 2 + random.uniform(-slack, slack) + step * speed * time)
    return np.stack([path[0], path[1], half, angle], axis=1)


def camera_move(
    photograph: Tensor, frames: int, side: int, random: np.random.Generator, config: CameraConfig
) -> CameraMove | None:
    """A clip that a moving camera would take of a photograph.

    Args:
        photograph: uint8 `(H, W, 3)`, on any device.
        frames: Frames of the clip.
        side: Pixels along each side of the clip.
        random: Source of the move.
        config: How far the camera moves.

    Returns:
        The clip on the photograph's device; None of a photograph that is too small.
    """
    height, width = photograph.shape[:2]
    path = _path(frames, side, height, width, config, random)
    if path is None:
        return None
    x, y, half, angle = path.T
    cosine, sine = np.cos(angle) * half, np.sin(angle) * half
    # Rows of affine matrices from the crop's [-1, 1] to the photograph's [-1, 1] (pixel edges at +-1).
    theta = np.stack(
        [
            np.stack([cosine * 2 / width, -sine * 2 / width, 2 * x / width - 1], axis=1),
            np.stack([sine * 2 / height, cosine * 2 / height, 2 * y / height - 1], axis=1),
        ],
        axis=1,
    )
    left, right = (int(np.clip(f, 0, width)) for f in ((x - 1.5 * half).min() - 2, (x + 1.5 * half).max() + 3))
    top, bottom = (int(np.clip(f, 0, height)) for f in ((y - 1.5 * half).min() - 2, (y + 1.5 * half).max() + 3))
    part = photograph[top:bottom, left:right]
    rows, columns = part.shape[:2]
    # The same map, into the part alone.
    theta[:, 0] *= width / columns
    theta[:, 0, 2] += (width - 2 * left) / columns - 1
    theta[:, 1] *= height / rows
    theta[:, 1, 2] += (height - 2 * top) / rows - 1
    matrices = torch.from_numpy(theta.astype(np.float32)).to(photograph.device)
    grid = F.affine_grid(matrices, [frames, 3, side, side], align_corners=False)
    source = part.permute(2, 0, 1).float().unsqueeze(0).expand(frames, -1, -1, -1)
    moved = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    pixels = moved.permute(0, 2, 3, 1).round_().clamp_(0, 255).to(torch.uint8)
    return CameraMove(pixels, x + 1j * y, cosine + 1j * sine)
