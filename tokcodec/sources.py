"""Where `.tok` bytes are read from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from tokcodec.errors import MediaError


class CountingSource(io.RawIOBase, BinaryIO):
    """Counts the bytes that a reader takes from a binary stream."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        data = self._source.read(size)
        self.bytes_read += len(data)
        return data


def open_tok(path: Path) -> BinaryIO:
    """Open a `.tok` file for reading.

    Raises:
        MediaError: It cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        hint = "give a .tok file" if path.is_dir() else "check the name and the permissions"
        raise MediaError(f"cannot be opened: {error.strerror or error}", where=str(path), hint=hint) from error
