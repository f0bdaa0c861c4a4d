"""Arrays of equal shape in files of a bounded size, read by memory mapping."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tokcodec.errors import UsageError

SHARD_BYTES = 60 << 20
"""Largest file: small enough for places that refuse large ones."""
HEADER_BYTES = 1024
"""Room for the header of a `.npy` file."""
OPEN_SHARDS = 256
"""Files that a reader keeps mapped: each holds a file descriptor, of which a process often has 1024."""

_AGAIN = "copy the pack again, or remove it: `tokcodec pack` or the next call with --data packs again"

Item = NDArray[Any]
"""An array of the type that its writer was given."""


class Shard(TypedDict):
    """One file of an index."""

    file: str
    items: int


class ShardWriter:
    """Writes items one after the other to `NAME-00000.npy`, `NAME-00001.npy`, ...

    Args:
        folder: Where to.
        name: Start of the files' names.
        shape: Of an item.
        dtype: Of an item; one byte each.
        shard_bytes: Largest file.

    Raises:
        UsageError: An item alone is larger than that.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, ...],
        *,
        dtype: DTypeLike = np.uint8,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        each = (shard_bytes - HEADER_BYTES) // max(1, int(np.prod(shape)))
        if each < 1:
            raise UsageError(
                f"one of the {name} is larger than a file of {shard_bytes} bytes", hint="pack fewer frames, or smaller"
            )
        self._folder, self._name = folder, name
        self._waiting = np.empty((each, *shape), dtype)
        self._count = 0
        self._shards: list[Shard] = []

    def add(self, item: Item) -> None:
        """Store one item."""
        self._waiting[self._count] = item
        self._count += 1
        if self._count == len(self._waiting):
            self._write()

    def _write(self) -> None:
        file = f"{self._name}-{len(self._shards):05d}.npy"
        part = self._folder / f"{file}.part"
        with part.open("wb") as out:
            np.save(out, self._waiting[: self._count])
        part.replace(self._folder / file)
        self._shards.append({"file": file, "items": self._count})
        self._count = 0

    def finish(self) -> list[Shard]:
        """Write what is left; the files in order."""
        if self._count:
            self._write()
        return self._shards


class Shards:
    """All items of an index by number; a file is mapped when an item of it is first wanted.

    Args:
        folder: Of the files.
        shards: What :meth:`ShardWriter.finish` gave.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._files = [folder / shard["file"] for shard in shards]
        self._ends = list(accumulate(shard["items"] for shard in shards))
        self._open = lru_cache(maxsize=OPEN_SHARDS)(_mapped)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Item:
        """An item, a view of its file."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = bisect_right(self._ends, number)
        first = self._ends[shard - 1] if shard else 0
        item: Item = self._open(self._files[shard])[number - first]
        return item

    def check(self) -> None:
        """Look at the head and the length of every file.

        Raises:
            UsageError: One cannot be read, or has another number of items.
        """
        start = 0
        for path, end in zip(self._files, self._ends, strict=True):
            found = len(_mapped(path))
            if found != end - start:
                raise UsageError(f"holds {found} items instead of {end - start}", where=str(path), hint=_AGAIN)
            start = end

    def files(self) -> Iterator[Item]:
        """The items of each file, `(n, ...)`."""
        return map(self._open, self._files)


def _mapped(path: Path) -> Item:
    try:
        items: Item = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(f"packed data cannot be read: {error}", where=str(path), hint=_AGAIN) from error
    return items
