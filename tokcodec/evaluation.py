"""`tokcodec eval`: rate and quality of a model over a folder of videos, from real files, decoded afresh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokcodec.codec import Codec
from tokcodec.errors import MediaError
from tokcodec.frames import Frame, open_video
from tokcodec.metrics import mean_squared_error, psnr_of

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m")


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """One clip at one quality level.

    Attributes:
        clip: File name.
        quality: Level, 1 to 6.
        frames: Frames measured, all of them.
        tok_bytes: Size of the `.tok` file, without audio.
        bits_per_pixel: Of that file.
        psnr: PSNR in dB of the mean squared error over all frames and channels of RGB.
        frame_psnr: PSNR in dB of each frame.
    """

    clip: str
    quality: int
    frames: int
    tok_bytes: int
    bits_per_pixel: float
    psnr: float
    frame_psnr: tuple[float, ...]


def find_clips(folder: Path) -> list[Path]:
    """Videos directly in `folder`, by name.

    Raises:
        MediaError: There is none.
    """
    clips = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not clips:
        raise MediaError("no videos", where=str(folder), hint=f"looked for {', '.join(VIDEO_SUFFIXES)}")
    return clips


def score_clips(clips: list[Path], codec: Codec, *, qualities: tuple[int, ...]) -> Iterator[ClipScore]:
    """Encode each clip at each quality level, decode the bytes, and compare 8-bit RGB frames."""
    for clip in clips:
        with open_video(clip, side_streams=False) as reader:
            frames = np.stack([item.pixels for item in reader if isinstance(item, Frame)])
        for quality in qualities:
            data = codec.encode_frames(frames, quality=quality)
            yield _score(clip.name, quality, frames, codec.decode_frames(data).frames, len(data))


def _score(clip: str, quality: int, frames: NDArray[np.uint8], decoded: NDArray[np.uint8], tok_bytes: int) -> ClipScore:
    errors = [mean_squared_error(a, b) for a, b in zip(frames, decoded, strict=True)]
    return ClipScore(
        clip=clip,
        quality=quality,
        frames=len(frames),
        tok_bytes=tok_bytes,
        bits_per_pixel=8.0 * tok_bytes * 3 / frames.size,
        psnr=psnr_of(float(np.mean(errors))),
        frame_psnr=tuple(psnr_of(error) for error in errors),
    )
