"""Videos of a folder, and their frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import MediaError
from tokcodec.frames import Frame, open_video
from tokcodec.frames.colour import effective_matrix

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m")
DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A video in memory.

    Attributes:
        frames: uint8 `(T, H, W, 3)` RGB.
        frame_rate: Frames a second; 25 where the file does not say.
        matrix: YUV matrix, a code point of H.273: the one stated, else by height.
    """

    frames: NDArray[np.uint8]
    frame_rate: Fraction
    matrix: int


def find_clips(folder: Path) -> list[Path]:
    """Videos directly in `folder`, by name.

    Raises:
        MediaError: There is none.
    """
    clips = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not clips:
        raise MediaError("no videos", where=str(folder), hint=f"looked for {', '.join(VIDEO_SUFFIXES)}")
    return clips


def digest_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits.

    Raises:
        MediaError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def read_clip(path: Path, *, max_frames: int | None = None) -> Clip:
    """Read a video, or its first frames; memory is that of all of them.

    Raises:
        MediaError: It cannot be read as video.
    """
    with open_video(path, side_streams=False) as reader:
        pictures = (item.pixels for item in reader if isinstance(item, Frame))
        frames = np.stack(list(islice(pictures, max_frames)))
        info = reader.info
    return Clip(
        frames=frames,
        frame_rate=info.frame_rate or DEFAULT_RATE,
        matrix=effective_matrix(info.colour.matrix, info.height),
    )
