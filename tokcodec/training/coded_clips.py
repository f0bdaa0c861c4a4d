"""Coded pictures beside their originals, for what learns to mend them: real files, decoded again."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.errors import MediaError, OutputError
from tokcodec.tokenizer.allocation import SLOPES
from tokcodec.tokenset import read_chunks
from tokcodec.training.media import MediaItem, decode_all, read_whole

if TYPE_CHECKING:
    from tokcodec.codec import Codec

Pixels = NDArray[np.uint8]
CLIP_FRAMES = 45
"""Frames of a clip that is coded: most of a chunk, for errors of a chunk's end are not those of its first frames."""
KEPT_FRAMES = 20
"""Of them those that are kept: the first, and others at random, for neighbours say much the same."""
CODED_SIZE = 192, 320
"""Rows and columns of the crop that is coded, or what there is."""
SMALLEST_SIDE = 64
"""Rows and columns of the smallest video that is learned from: less is too little for LPIPS."""


class CodedClip(NamedTuple):
    """Pictures of one clip.

    Attributes:
        coded: As decoded, uint8 `(F, H, W, 3)`.
        original: The same of the source.
        quality: Level at which it was coded.
        scale: Number of the step of the first picture's quantizer; None where it was coded without.
    """

    coded: Pixels
    original: Pixels
    quality: int
    scale: int | None = None


class Crops(NamedTuple):
    """Crops of coded clips.

    Attributes:
        coded: float32 `(N, 3, S, S)` in [-1, 1].
        original: The same.
        quality: Of each, int64 `(N,)`.
        scales: float32 `(N,)`; None where one has none.
    """

    coded: Tensor
    original: Tensor
    quality: Tensor
    scales: Tensor | None


@functools.lru_cache(maxsize=1)
def _codec(model: str | None) -> Codec:
    from tokcodec.codec import Codec

    if parent_process() is not None:
        torch.set_num_threads(1)  # there is a process for each core
    return Codec(model=model, device="cpu", entropy="adaptive", style="faithful")


def code_clip(item: MediaItem, *, model: str | None, seed: int) -> CodedClip | None:
    """A random part of a video, coded at a random quality and decoded; None of what cannot be read, or is too small."""
    frames = read_whole(item)
    if frames is None or min(frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    random = np.random.default_rng([seed, *item.name.encode()])
    count, rows, columns = (min(a, b) for a, b in zip(frames.shape, (CLIP_FRAMES, *CODED_SIZE), strict=False))
    first, top, left = (
        int(random.integers(0, room - size + 1))
        for room, size in zip(frames.shape, (count, rows, columns), strict=False)
    )
    part = np.ascontiguousarray(frames[first : first + count, top : top + rows, left : left + columns])
    quality = int(random.integers(min(SLOPES), max(SLOPES) + 1))
    codec = _codec(model)
    data = codec.encode_frames(part, quality=quality)
    coded = codec.decode_frames(data).frames
    picture = next(read_chunks(io.BytesIO(data))).picture
    others = random.permutation(np.arange(1, count))[: KEPT_FRAMES - 1]
    kept = np.sort(np.append(others, 0))
    return CodedClip(coded[kept], part[kept], quality, None if picture is None else picture.scale)


def code_clips(
    items: Sequence[MediaItem], folder: Path, *, model: str | None, seed: int, workers: int, say: Callable[[str], None]
) -> None:
    """Code a part of each video into `folder`, one file each; those that are there already are left alone.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        _code_clips(items, folder, model=model, seed=seed, workers=workers, say=say)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error


def _code_clips(
    items: Sequence[MediaItem], folder: Path, *, model: str | None, seed: int, workers: int, say: Callable[[str], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [item for item in items if item.kind == "video" and not _file_of(item, folder).exists()]
    task = functools.partial(code_clip, model=model, seed=seed)
    for number, (item, clip) in enumerate(decode_all(waiting, task, workers=workers), start=1):
        if clip is None:
            say(f"{item.name}: left out, for it cannot be read or is smaller than {SMALLEST_SIDE} pixels")
            continue
        part = _file_of(item, folder).with_suffix(".part")
        with part.open("wb") as out:
            scale = np.asarray([] if clip.scale is None else [clip.scale], np.int64)
            np.savez(out, coded=clip.coded, original=clip.original, quality=np.int64(clip.quality), scale=scale)
        part.replace(_file_of(item, folder))
        if number % 20 == 0 or number == len(waiting):
            say(f"{number} of {len(waiting)} videos coded")


def _file_of(item: MediaItem, folder: Path) -> Path:
    return folder / (item.name.replace("/", "__") + ".npz")


def read_clips(folder: Path) -> Iterator[CodedClip]:
    """What :func:`code_clips` left in a folder, by name.

    Raises:
        MediaError: A file there is none of its own.
    """
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                scale = int(arrays["scale"].item()) if "scale" in arrays and arrays["scale"].size else None
                clip = CodedClip(arrays["coded"], arrays["original"], int(arrays["quality"]), scale)
            if clip.coded.shape != clip.original.shape or clip.coded.ndim != 4:
                raise ValueError(clip.coded.shape)
            if min(clip.coded.shape[1:3]) >= SMALLEST_SIDE:
                yield clip
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise MediaError("not a coded clip", where=str(path), hint="delete it; it will be made again") from error


class CropSampler:
    """Random crops of coded clips.

    Args:
        clips: At least one.
        seed: Of everything random.
    """

    def __init__(self, clips: Sequence[CodedClip], *, seed: int) -> None:
        if not clips:
            raise MediaError("there are no coded clips to learn from", hint="give videos with --data")
        self._clips, self._random = clips, np.random.default_rng(seed)

    def draw(self, count: int, side: int) -> Crops:
        """Crops as coded and as they were, some mirrored.

        `side` is a multiple of 8; where a clip is smaller its own size bounds the crops, all of one batch alike.
        """
        chosen = [self._clips[int(self._random.integers(len(self._clips)))] for _ in range(count)]
        side = min([side, *(min(clip.coded.shape[1:3]) // 8 * 8 for clip in chosen)])
        coded, original = [], []
        for clip in chosen:
            frames, height, width = clip.coded.shape[:3]
            frame = int(self._random.integers(frames))
            top, left = (int(self._random.integers(0, room - side + 1)) for room in (height, width))
            flip = 1 - 2 * int(self._random.integers(2))
            part = (frame, slice(top, top + side), slice(left, left + side))
            coded.append(clip.coded[part][:, ::flip])
            original.append(clip.original[part][:, ::flip])
        scales = [clip.scale for clip in chosen]
        return Crops(
            to_batch(coded),
            to_batch(original),
            torch.tensor([clip.quality for clip in chosen]),
            None if None in scales else torch.tensor(scales, dtype=torch.float32),
        )


def to_batch(pictures: Sequence[Pixels]) -> Tensor:
    """uint8 `(H, W, 3)` each -> float32 `(N, 3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
