"""Training data: a folder of videos and photographs, packed once into uint8 arrays on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.errors import MediaError, UsageError

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How a folder becomes arrays.

    Attributes:
        clip_frames: Frames of each clip, 1 + 4t.
        side: Pixels along each side of a stored crop; training crops again within it.
        clips: Clips to store, spread over the videos by their length.
        seed: Seed of the choice of crops.
    """

    clip_frames: int = 17
    side: int = 160
    clips: int = 4000
    seed: int = 0


def find_media(folder: Path) -> tuple[list[Path], list[Path]]:
    """Videos and photographs under `folder`, sorted by path.

    Raises:
        MediaError: There is no video and no photograph.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if not videos and not images:
        raise MediaError(
            "no videos and no photographs",
            where=str(folder),
            hint=f"put files with these suffixes there: {', '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}",
        )
    return videos, images


def _decode(path: Path) -> NDArray[np.uint8]:
    """All frames of a video or a photograph, uint8 `(T, H, W, 3)` RGB."""
    with av.open(str(path)) as media:
        stream = media.streams.video[0]
        stream.thread_type = "AUTO"
        frames = [frame.to_ndarray(format="rgb24") for frame in media.decode(stream)]
    return np.stack(frames)


def _crop(pixels: NDArray[np.uint8], frames: int, side: int, random: np.random.Generator) -> NDArray[np.uint8] | None:
    """A random window of `frames` x `side` x `side`; None where the source is too small."""
    length, height, width = pixels.shape[:3]
    if length < frames or height < side or width < side:
        return None
    t, y, x = (int(random.integers(0, n + 1)) for n in (length - frames, height - side, width - side))
    return pixels[t : t + frames, y : y + side, x : x + side]


def pack(folder: Path, out: Path, config: PackConfig) -> dict[str, int]:
    """Decode every file once and store random crops as `clips.npy` and `images.npy` under `out`.

    Returns:
        The number of clips and images stored, and of files passed over as too small or unreadable.
    """
    videos, photographs = find_media(folder)
    random = np.random.default_rng(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    passed_over = 0
    side = config.side
    images = []
    for path in photographs:
        try:
            crop = _crop(_decode(path), 1, side, random)
        except (av.error.FFmpegError, IndexError, ValueError):
            crop = None
        if crop is None:
            passed_over += 1
        else:
            images.append(crop[0])
    np.save(out / "images.npy", np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8))

    each = -(-config.clips // max(1, len(videos)))
    shape = (each * len(videos), config.clip_frames, side, side, 3)
    clips = np.lib.format.open_memmap(out / "clips.part.npy", mode="w+", dtype=np.uint8, shape=shape)
    stored = 0
    for path in videos:
        try:
            pixels = _decode(path)
        except (av.error.FFmpegError, IndexError, ValueError):
            passed_over += 1
            continue
        crops = [_crop(pixels, config.clip_frames, side, random) for _ in range(each)]
        for crop in crops:
            if crop is not None:
                clips[stored] = crop
                stored += 1
        passed_over += crops[0] is None
    clips.flush()
    order = random.permutation(stored)
    final = np.lib.format.open_memmap(out / "clips.npy", mode="w+", dtype=np.uint8, shape=(stored, *shape[1:]))
    for target, source in enumerate(order):
        final[target] = clips[source]
    final.flush()
    (out / "clips.part.npy").unlink()
    counts = {"clips": stored, "images": len(images), "passed_over": passed_over}
    (out / "pack.json").write_text(json.dumps(counts))
    return counts


class Sampler:
    """Random batches from a packed folder, with crops and horizontal flips.

    Args:
        folder: What :func:`pack` wrote.
        seed: Seed of the order; two samplers of one seed give the same batches.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        if not (folder / "pack.json").exists():
            raise UsageError("not packed", where=str(folder), hint="run `tokcodec train --data DIR` to pack it")
        self._clips = np.load(folder / "clips.npy", mmap_mode="r")
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._random = np.random.default_rng(seed)

    def batch(self, size: int, frames: int, side: int) -> Tensor:
        """float32 `(size, frames, 3, side, side)` in [-1, 1]; photographs take part where `frames` is 1."""
        random = self._random
        out = np.empty((size, frames, side, side, 3), np.uint8)
        for i in range(size):
            photograph = frames == 1 and len(self._images) and (not len(self._clips) or random.random() < 0.6)
            if photograph:
                source = self._images[random.integers(len(self._images))][None]
            else:
                source = self._clips[random.integers(len(self._clips))]
            window = _crop(source, frames, side, random)
            if window is None:
                raise UsageError(f"packed clips are smaller than {frames} frames of {side}x{side}")
            out[i] = window[:, :, ::-1] if random.random() < 0.5 else window
        pixels = torch.from_numpy(out).permute(0, 1, 4, 2, 3)
        return pixels.float().div_(127.5).sub_(1.0)
