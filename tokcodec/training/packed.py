"""Packed crops: a folder of media, decoded and searched for motion once, as arrays on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from tokcodec.errors import UsageError
from tokcodec.training.camera import CameraMove, camera_move
from tokcodec.training.checkpoint import write_atomically
from tokcodec.training.media import MediaItem, decode_all, find_media, leave_out, read_whole
from tokcodec.training.motion import LAGS, Clip, Motion, find_motion, stored_motion
from tokcodec.training.pack_plan import INDEX_BYTES, PackConfig, plan_pack
from tokcodec.training.shards import SHARD_BYTES, Shard, Shards, ShardWriter
from tokcodec.training.source import (
    GRID,
    AugmentConfig,
    Batch,
    draw_window,
    empty_batch,
    finish_batch,
    motion_of_stored,
)

INDEX_NAME = "pack.json"


_AS_IT_IS = AugmentConfig(stride_two_share=0.0)


def _crops(item: MediaItem, *, count: int, frames: int, side: int, seed: int) -> list[Clip] | None:
    """Random crops of one item, of `frames` frames each; None of one that is unreadable or small."""
    pixels = read_whole(item)
    if pixels is None:
        return None
    random = np.random.default_rng((seed, crc32(item.name.encode())))
    found = []
    for _ in range(count):
        window = draw_window(pixels.shape[:3], frames, side, _AS_IT_IS, random)
        if window is None:
            return None
        crop = np.ascontiguousarray(pixels[window.pixels])
        found.append(Clip(crop, find_motion(crop)))
    return found


def _motion_of(move: CameraMove) -> Motion:
    """The motion of a camera move as it is stored."""
    frames = len(move.pixels)
    since = np.arange(frames - 1)[:, np.newaxis]
    after = since + np.array(LAGS)
    found = move.motion(np.minimum(after, frames - 1), since)
    found[after >= frames] = 0
    return stored_motion(found)


@dataclass(frozen=True, kw_only=True)
class PackIndex:
    """What a packed folder holds; its `pack.json`.

    Attributes:
        clip_frames: Frames of each clip.
        side: Pixels along each side of clips and images.
        exclude: Patterns of what was left out.
        counts: Clips (camera moves included), camera moves and images stored, items excluded, items passed over
            as too small or unreadable, and, where the size is limited, clips and images left out for it.
        clips: The files of the clips, each item uint8 `(clip_frames, side, side, 3)`.
        motion: The files of their motion, each item int8 `(clip_frames - 1, 6, 3, side/8, side/8)`, as
            :func:`tokcodec.training.motion.find_motion` gives it.
        images: The files of the images, each item uint8 `(side, side, 3)`.
    """

    clip_frames: int
    side: int
    exclude: tuple[str, ...]
    counts: dict[str, int]
    clips: list[Shard]
    motion: list[Shard]
    images: list[Shard]

    @property
    def shards(self) -> list[Shard]:
        """All files but the index."""
        return [*self.clips, *self.motion, *self.images]

    def check_files(self, folder: Path) -> None:
        """Look at the size of each file of a packed folder, of which some may have been lost on the way.

        Raises:
            UsageError: One is missing, or holds less than the index says.
        """
        for shards in (self.clips, self.motion, self.images):
            Shards(folder, shards).check()

    def size_bytes(self, folder: Path) -> int:
        """Bytes of all files of a packed folder, the index among them."""
        names = (INDEX_NAME, *(shard["file"] for shard in self.shards))
        return sum((folder / name).stat().st_size for name in names)


def is_packed(folder: Path) -> bool:
    """Whether there is something to read for :func:`read_index`."""
    return (folder / INDEX_NAME).exists()


def read_index(folder: Path) -> PackIndex:
    """The index of a packed folder.

    Raises:
        UsageError: It is not packed, or in the way of an earlier version.
    """
    if not is_packed(folder):
        inside = folder / "packed"
        hint = f"name {inside}" if is_packed(inside) else "`tokcodec pack --data DIR --out DIR` makes such a folder"
        raise UsageError("not packed", where=str(folder), hint=hint)
    try:
        index = PackIndex(**json.loads((folder / INDEX_NAME).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            "packed by an earlier version, or damaged",
            where=str(folder),
            hint="remove the folder; `tokcodec pack` or the next call with --data packs again",
        ) from error
    return replace(index, exclude=tuple(index.exclude))


def pack(
    folder: Path,
    out: Path,
    config: PackConfig,
    *,
    workers: int = 1,
    exclude: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Decode every item once and store crops and their motion under `out`.

    The files are `clips-*.npy`, `motion-*.npy` and `images-*.npy`, with an index of them.

    Args:
        folder: See :func:`tokcodec.training.media.find_media`.
        out: Where to; made if it is not there. The index comes last: without one the folder is not packed. What
            another pack has left there is removed first.
        config: What to store.
        workers: Processes that decode.
        exclude: Patterns of what to leave out, see :func:`tokcodec.training.media.leave_out`.
        shard_bytes: Largest file.
        log: Told what a limit of the size leaves out.

    Returns:
        The counts of the index.

    Raises:
        MediaError: There is nothing to pack.
        UsageError: Nothing fits into a file, or into `config.max_megabytes`.
    """
    found = find_media(folder)
    items = leave_out(found, exclude)
    videos = [item for item in items if item.kind == "video"]
    photographs = [item for item in items if item.kind == "photograph"]
    plan = plan_pack(
        config,
        videos=len(videos),
        photographs=len(photographs),
        shard_bytes=shard_bytes,
        index_bytes=INDEX_BYTES + len(json.dumps(list(exclude), indent=2)),
    )
    if plan.left_out:
        log(f"{plan.left_out} clips and images left out, to stay within {config.max_megabytes:g} megabytes")
    random = np.random.default_rng(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    clips = ShardWriter(out, "clips", config.clip_shape, shard_bytes=shard_bytes)
    motion = ShardWriter(out, "motion", config.motion_shape, dtype=np.int8, shard_bytes=shard_bytes)
    images = ShardWriter(out, "images", config.image_shape, shard_bytes=shard_bytes)
    stored = passed_over = camera_moves = 0
    chosen = [photograph for photograph, count in zip(photographs, plan.images, strict=True) if count]
    for _, photograph in decode_all(chosen, read_whole, workers=workers):
        window = None if photograph is None else draw_window(photograph.shape[:3], 1, config.side, _AS_IT_IS, random)
        if photograph is None or window is None:
            passed_over += 1
            continue
        images.add(photograph[window.pixels][0])
        for _ in range(min(int(plan.moves + random.random()), plan.most_moves - camera_moves)):
            moved = camera_move(torch.from_numpy(photograph[0]), config.clip_frames, config.side, random, config.camera)
            if moved is not None:
                clips.add(moved.pixels.numpy())
                motion.add(_motion_of(moved))
                camera_moves += 1
    each = max(plan.clips, default=0)
    task = partial(_crops, count=each, frames=config.clip_frames, side=config.side, seed=config.seed)
    decoded = decode_all(
        [video for video, count in zip(videos, plan.clips, strict=True) if count], task, workers=workers
    )
    for (_, crops), count in zip(decoded, filter(None, plan.clips), strict=True):
        if crops is None:
            passed_over += 1
            continue
        for crop in crops[:count]:
            clips.add(crop.pixels)
            motion.add(crop.motion)
            stored += 1
    image_shards = images.finish()
    index = PackIndex(
        clip_frames=config.clip_frames,
        side=config.side,
        exclude=tuple(exclude),
        counts={
            "clips": stored + camera_moves,
            "camera_moves": camera_moves,
            "images": sum(shard["items"] for shard in image_shards),
            "excluded": len(found) - len(items),
            "passed_over": passed_over,
            **({"left_out": plan.left_out} if config.max_megabytes else {}),
        },
        clips=clips.finish(),
        motion=motion.finish(),
        images=image_shards,
    )
    write_atomically(out / INDEX_NAME, json.dumps(asdict(index), indent=1).encode())
    return index.counts


def _clear(out: Path) -> None:
    """Remove the files of another pack, the index first."""
    (out / INDEX_NAME).unlink(missing_ok=True)
    for kind in ("clips", "motion", "images"):
        for ending in (".npy", ".npy.part"):
            for path in out.glob(f"{kind}-{'[0-9]' * 5}{ending}"):
                path.unlink()


class Sampler:
    """Random batches from a packed folder.

    Args:
        folder: What :func:`pack` wrote.
        seed: Seed of the order; two samplers of one seed give the same batches, whatever the sizes of the files.
        augment: How to draw.
        device: Where batches go, as the bytes that they are stored as; they become float32 there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        augment: AugmentConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        index = read_index(folder)
        self._clips = Shards(folder, index.clips)
        self._motion = Shards(folder, index.motion)
        self._images = Shards(folder, index.images)
        self._augment = augment or AugmentConfig()
        self._device = device
        self._random = np.random.default_rng(seed)

    def batch(self, size: int, frames: int, side: int) -> Batch:
        """Clips on the device; photographs take part where `frames` is 1."""
        random, augment = self._random, self._augment
        pixels, motion = empty_batch(size, frames, side)
        mirrored = []
        for i in range(size):
            photograph = frames == 1 and len(self._images)
            if photograph and len(self._clips):
                photograph = random.random() < augment.photograph_share
            if photograph:
                number = int(random.integers(len(self._images)))
                source = self._images[number][None]
            elif len(self._clips):
                number = int(random.integers(len(self._clips)))
                source = self._clips[number]
            else:
                raise UsageError(
                    "the packed folder holds no clips", hint="pack videos, or photographs with camera moves"
                )
            window = draw_window(source.shape[:3], frames, side, augment, random, grid=GRID if frames > 1 else 1)
            if window is None:
                raise UsageError(f"packed clips are smaller than {frames} frames of {side}x{side}")
            pixels[i].numpy()[:] = source[window.pixels]
            if frames > 1:
                for k, place in enumerate(window.motion):
                    motion[i, :, k].numpy()[:] = self._motion[number][place]
            mirrored.append(random.random() < augment.flip_share)
        return finish_batch(pixels.to(self._device), motion_of_stored(motion.to(self._device)), mirrored)
