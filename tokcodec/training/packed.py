"""Packed crops: a folder of media, decoded once into arrays on disk, for machines whose memory is small."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from tokcodec.errors import UsageError
from tokcodec.training.camera import CameraConfig, camera_move
from tokcodec.training.media import MediaItem, Pixels, decode_all, find_media, read_whole
from tokcodec.training.source import AugmentConfig, draw_window


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How a folder becomes arrays.

    Attributes:
        clip_frames: Frames of each clip, 1 + 4t.
        side: Pixels along each side of a stored crop; training crops again within it.
        clips: Clips to store, spread evenly over the videos.
        camera_share: Camera moves over photographs, as a share of `clips`; they come on top.
        camera: How far the camera moves.
        seed: Seed of the choice of crops.
    """

    clip_frames: int = 17
    side: int = 160
    clips: int = 4000
    camera_share: float = 0.1
    camera: CameraConfig = field(default_factory=CameraConfig)
    seed: int = 0


_AS_IT_IS = AugmentConfig(stride_two_share=0.0)


def _crops(item: MediaItem, *, count: int, frames: int, side: int, seed: int) -> Pixels | None:
    """Random crops of one item, uint8 `(count, frames, side, side, 3)`; None of one that is unreadable or small."""
    pixels = read_whole(item)
    if pixels is None:
        return None
    random = np.random.default_rng((seed, crc32(item.name.encode())))
    found = []
    for _ in range(count):
        window = draw_window(pixels.shape[:3], frames, side, _AS_IT_IS, random)
        if window is None:
            return None
        first, _, top, left = window
        found.append(pixels[first : first + frames, top : top + side, left : left + side])
    return np.stack(found)


def pack(folder: Path, out: Path, config: PackConfig, *, workers: int = 1) -> dict[str, int]:
    """Decode every item once and store crops as `clips.npy` and `images.npy` under `out`.

    Returns:
        The number of clips (camera moves included), camera moves and images stored, and of items passed over as
        too small or unreadable.
    """
    items = find_media(folder)
    videos = [item for item in items if item.kind == "video"]
    photographs = [item for item in items if item.kind == "photograph"]
    random = np.random.default_rng(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    each = -(-config.clips // max(1, len(videos)))
    moves = config.camera_share * config.clips / max(1, len(photographs))
    most = each * len(videos) + int(np.ceil(moves)) * len(photographs)
    shape = (most, config.clip_frames, config.side, config.side, 3)
    clips = np.lib.format.open_memmap(out / "clips.part.npy", mode="w+", dtype=np.uint8, shape=shape)
    stored = passed_over = 0
    images = []
    for _, photograph in decode_all(photographs, workers=workers):
        window = None if photograph is None else draw_window(photograph.shape[:3], 1, config.side, _AS_IT_IS, random)
        if photograph is None or window is None:
            passed_over += 1
            continue
        images.append(photograph[0, window.top :, window.left :][: config.side, : config.side].copy())
        for _ in range(int(moves + random.random())):
            moved = camera_move(torch.from_numpy(photograph[0]), config.clip_frames, config.side, random, config.camera)
            if moved is not None:
                clips[stored] = moved.numpy()
                stored += 1
    camera_moves = stored
    task = partial(_crops, count=each, frames=config.clip_frames, side=config.side, seed=config.seed)
    for _, crops in decode_all(videos, workers=workers, task=task):
        if crops is None:
            passed_over += 1
            continue
        clips[stored : stored + each] = crops
        stored += each
    clips.flush()
    np.save(out / "images.npy", np.stack(images) if images else np.zeros((0, config.side, config.side, 3), np.uint8))
    (out / "clips.part.npy").replace(out / "clips.npy")
    counts = {"clips": stored, "camera_moves": camera_moves, "images": len(images), "passed_over": passed_over}
    (out / "pack.json").write_text(json.dumps(counts))
    return counts


class Sampler:
    """Random batches from a packed folder.

    Args:
        folder: What :func:`pack` wrote.
        seed: Seed of the order; two samplers of one seed give the same batches.
        augment: How to draw.
    """

    def __init__(self, folder: Path, *, seed: int, augment: AugmentConfig | None = None) -> None:
        if not (folder / "pack.json").exists():
            raise UsageError("not packed", where=str(folder), hint="run `tokcodec train --data DIR` to pack it")
        counts = json.loads((folder / "pack.json").read_text())
        self._clips = np.load(folder / "clips.npy", mmap_mode="r")[: counts["clips"]]
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._augment = augment or AugmentConfig()
        self._random = np.random.default_rng(seed)

    def batch(self, size: int, frames: int, side: int) -> Tensor:
        """float32 `(size, frames, 3, side, side)` in [-1, 1]; photographs take part where `frames` is 1."""
        random, augment = self._random, self._augment
        out = np.empty((size, frames, side, side, 3), np.uint8)
        for i in range(size):
            photograph = frames == 1 and len(self._images)
            if photograph and len(self._clips):
                photograph = random.random() < augment.photograph_share
            if photograph:
                source = self._images[random.integers(len(self._images))][None]
            elif len(self._clips):
                source = self._clips[random.integers(len(self._clips))]
            else:
                raise UsageError(
                    "the packed folder holds no clips", hint="pack videos, or photographs with camera moves"
                )
            window = draw_window(source.shape[:3], frames, side, augment, random)
            if window is None:
                raise UsageError(f"packed clips are smaller than {frames} frames of {side}x{side}")
            first, stride, top, left = window
            part = source[first::stride, top : top + side, left : left + side][:frames]
            out[i] = part[:, :, ::-1] if random.random() < augment.flip_share else part
        pixels = torch.from_numpy(out).permute(0, 1, 4, 2, 3)
        return pixels.float().div_(127.5).sub_(1.0)
