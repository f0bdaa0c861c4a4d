"""Training media: a folder of videos, photographs and tar files of them, decoded by a pool of processes.

Nothing here imports torch: the processes of the pool start in a fraction of a second.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import MediaError, TokcodecError
from tokcodec.frames import Frame, open_video

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

Pixels = NDArray[np.uint8]
Kind = Literal["video", "photograph"]


@dataclass(frozen=True, kw_only=True)
class MediaItem:
    """A video or a photograph: a file, or a member of a tar file.

    Attributes:
        path: The file, or the tar file that holds it.
        name: Path below the folder, for order and messages.
        kind: Judged by the suffix.
        offset: First byte of the member in the tar file; 0 of a file.
        size: Bytes of the member; None of a file.
    """

    path: Path
    name: str
    kind: Kind
    offset: int = 0
    size: int | None = None

    def read(self) -> Pixels:
        """All frames, uint8 `(T, H, W, 3)` RGB; a photograph has one.

        Raises:
            TokcodecError, OSError: It cannot be read.
        """
        if self.size is None:
            return _decode(self.path)
        with self.path.open("rb") as archive:
            archive.seek(self.offset)
            return _decode(io.BytesIO(archive.read(self.size)))


UNREADABLE = (TokcodecError, OSError)
"""What reading a damaged file raises."""


def _decode(source: Path | io.BytesIO) -> Pixels:
    """By the codec's own reader, so that training sees the colours and the orientation that encoding sees."""
    with open_video(source, side_streams=False) as reader:
        return np.stack([item.pixels for item in reader if isinstance(item, Frame)])


def _kind_of(name: str) -> Kind | None:
    suffix = Path(name).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "photograph" if suffix in IMAGE_SUFFIXES else None


def find_media(folder: Path) -> list[MediaItem]:
    """Videos and photographs under `folder` and in uncompressed tar files there, sorted by name.

    Raises:
        MediaError: There is no video and no photograph, or a tar file is damaged.
    """
    items = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        kind = _kind_of(name)
        if kind is not None:
            items.append(MediaItem(path=path, name=name, kind=kind))
        elif path.suffix.lower() == ".tar":
            items += _members(path, name)
    if not items:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise MediaError(
            "no videos and no photographs",
            where=str(folder),
            hint=f"put files with these suffixes there, or tar files of them: {suffixes}",
        )
    return items


def leave_out(items: Sequence[MediaItem], patterns: Sequence[str]) -> list[MediaItem]:
    """The items whose path below the folder, or that of a folder or tar file they lie in, matches no pattern.

    Args:
        items: What :func:`find_media` found.
        patterns: As of :mod:`fnmatch`, case-sensitive; `*` matches slashes too.

    Raises:
        MediaError: All of them match.
    """
    kept = []
    for item in items:
        name = PurePosixPath(item.name)
        places = [str(place) for place in (name, *name.parents[:-1])]
        if not any(fnmatchcase(place, pattern) for place in places for pattern in patterns):
            kept.append(item)
    if not kept:
        raise MediaError(f"all {len(items)} videos and photographs are excluded", hint="see --exclude")
    return kept


def _members(path: Path, name: str) -> list[MediaItem]:
    found = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                kind = _kind_of(member.name)
                if kind is not None and member.isreg() and not member.issparse():
                    found.append(
                        MediaItem(
                            path=path,
                            name=f"{name}/{member.name}",
                            kind=kind,
                            offset=member.offset_data,
                            size=member.size,
                        )
                    )
    except (tarfile.TarError, OSError) as error:
        raise MediaError("the tar file cannot be read", where=str(path)) from error
    return sorted(found, key=lambda item: item.name)


_Result = TypeVar("_Result")


def read_whole(item: MediaItem) -> Pixels | None:
    """All frames of an item, or None of one that cannot be read."""
    try:
        return item.read()
    except UNREADABLE:
        return None


def _to_file(task: Callable[[MediaItem], object], item: MediaItem, folder: str) -> str:
    """Run a task and leave its arrays in a file: a pipe between processes is many times as slow."""
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as out:
        pickle.dump(task(item), out, protocol=5)
    return name


def _take(name: str) -> object:
    with Path(name).open("rb") as file:
        result: object = pickle.load(file)  # written by a process of the pool, for this one
    Path(name).unlink()
    return result


def decode_all(
    items: Sequence[MediaItem], task: Callable[[MediaItem], _Result], *, workers: int
) -> Iterator[tuple[MediaItem, _Result]]:
    """Each item with what `task` makes of it, in order.

    Args:
        items: What to decode.
        task: A function of a module (:func:`read_whole`, for example), or a `functools.partial` of one.
        workers: Processes; 1 or less decodes in this one.
    """
    if workers <= 1:
        for item in items:
            yield item, task(item)
        return
    waiting: deque[tuple[MediaItem, Future[str]]] = deque()
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="tokcodec-") as folder,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        try:
            for item in items:
                waiting.append((item, pool.submit(_to_file, task, item, folder)))
                if len(waiting) >= 3 * workers:
                    first, result = waiting.popleft()
                    yield first, cast(_Result, _take(result.result()))
            for first, result in waiting:
                yield first, cast(_Result, _take(result.result()))
        finally:
            pool.shutdown(cancel_futures=True)


def default_workers() -> int:
    """One process for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
