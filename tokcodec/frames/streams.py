"""File objects for PyAV: no name ever reaches FFmpeg, which would read patterns and URLs into it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
import av.error

from tokcodec.errors import MediaError, OutputError

# What PyAV raises for bad input: its own tree, and builtins where a wrapper meets what it did not expect.
AV_ERRORS = (
    av.error.FFmpegError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
    AttributeError,
    ArithmeticError,
)


def describe(error: BaseException) -> str:
    """The reason in an FFmpeg or OS error, without codes, addresses and file names."""
    text = getattr(error, "strerror", None)
    return str(text or error or type(error).__name__).strip().rstrip(".")


class ByteSource:
    """A readable file object over a path or a binary stream; remembers an error of the stream itself."""

    name = "media"  # neutral, so that the content decides what the file is

    def __init__(self, source: str | Path | BinaryIO) -> None:
        self._owned = isinstance(source, str | Path)
        if isinstance(source, str | Path):
            path = Path(source)
            self.label = str(path)
            if path.is_dir():
                raise MediaError("is a directory", where=self.label, hint="Give the name of one media file.")
            try:
                self._stream: BinaryIO = path.open("rb")
            except (OSError, ValueError) as error:
                hint = "Check the name." if isinstance(error, FileNotFoundError) else None
                raise MediaError(f"cannot be opened: {describe(error)}", where=self.label, hint=hint) from error
        else:
            self._stream = source
            name = getattr(source, "name", None)
            self.label = name if isinstance(name, str) else "the input stream"
        self.can_seek = self._ask_seekable()
        self.error: Exception | None = None
        self.read_bytes = 0
        self.head = b""

    def _ask_seekable(self) -> bool:
        try:
            return bool(self._stream.seekable())
        except (AttributeError, OSError, ValueError):
            return False

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether the stream can go back."""
        return self.can_seek

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end, and after an error, which `error` keeps."""
        try:
            data = self._stream.read(size) or b""
        except (OSError, ValueError) as error:
            self.error = error
            return b""
        if not self.read_bytes:
            self.head = data
        self.read_bytes += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte offset."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The byte offset."""
        return self._stream.tell()

    def release(self) -> None:
        """Close the file if this object opened it."""
        if self._owned:
            self._stream.close()


def label_of(target: Path | BinaryIO) -> str:
    """What messages call an output: its name, where it has one."""
    if isinstance(target, Path):
        return str(target)
    name = getattr(target, "name", None)
    return name if isinstance(name, str) else "the output stream"


_OUTPUT_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or write to another one.",
    errno.EFBIG: "The file system, or a limit of the shell, takes no file of this size.",
    errno.EACCES: "Choose a place where you may write.",
    errno.EROFS: "Choose a place where you may write.",
}


def output_error(error: Exception, label: str) -> OutputError:
    """The error of an output that cannot be opened or written."""
    hint = _OUTPUT_HINTS.get(getattr(error, "errno", None) or 0)
    return OutputError(f"cannot be written: {describe(error)}", where=label, hint=hint)


class ByteSink:
    """A writable file object over a path or a binary stream.

    It raises nothing while PyAV writes, which would print the exception and go on: it keeps the first error
    for `check` and drops what comes after it.

    Args:
        target: Name of the file, or the stream.
        label: What messages call it; None is its name.
    """

    name = "media"

    def __init__(self, target: Path | BinaryIO, *, label: str | None = None) -> None:
        self._owned = isinstance(target, Path)
        self.label = label or label_of(target)
        self.closed = False
        self._error: Exception | None = None
        if isinstance(target, Path):
            try:
                self._stream: BinaryIO = target.open("w+b")
            except (OSError, ValueError) as error:
                raise output_error(error, self.label) from error
        else:
            self._stream = target

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether the stream can go back."""
        try:
            return bool(self._stream.seekable())
        except (AttributeError, OSError, ValueError):
            return False

    def write(self, data: bytes) -> int:
        """Write all of `data`; `check` tells what went wrong."""
        if self._error is None and not self.closed:
            try:
                self._stream.write(data)
            except (OSError, ValueError) as error:
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte offset; -1 where that fails, and `check` tells why."""
        if self._error is None and not self.closed:
            try:
                return self._stream.seek(offset, whence)
            except (OSError, ValueError) as error:
                self._error = error
        return -1

    def tell(self) -> int:
        """The byte offset."""
        return self._stream.tell()

    def check(self) -> None:
        """Say what went wrong so far.

        Raises:
            OutputError: Something could not be written.
        """
        if self._error is not None:
            raise output_error(self._error, self.label) from self._error

    def release(self) -> None:
        """Flush; close the file if this object opened it; then `check`."""
        if self.closed:
            return
        self.closed = True
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._error = self._error or error
        finally:
            if self._owned:
                with contextlib.suppress(OSError):
                    self._stream.close()
        self.check()

    def discard(self) -> None:
        """Stop writing; what was written so far stays and is the caller's to remove."""
        self.closed = True
        if self._owned:
            with contextlib.suppress(OSError):
                self._stream.close()


@contextmanager
def output_errors(sink: ByteSink, doing: str, hint: str | None = None) -> Iterator[None]:
    """Turn what goes wrong while writing into OutputError (the file) or MediaError (PyAV's exceptions)."""
    try:
        yield
    except AV_ERRORS as error:
        sink.check()
        raise MediaError(f"{doing} failed: {describe(error)}", where=sink.label, hint=hint) from error
    sink.check()
