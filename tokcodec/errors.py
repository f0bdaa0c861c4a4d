"""One exception tree; every branch has its exit code.

Everything that a caller can cause or meet derives from :class:`TokcodecError`; any other exception that
leaves the package is a bug (exit code 1).
"""

from __future__ import annotations


class TokcodecError(Exception):
    """Base of every error that tokcodec raises on purpose.

    Args:
        message: What went wrong, in one sentence.
        where: The place, as a person would name it ("in.mp4", "chunk 3").
        offset: Byte offset in the input at which it was noticed.
        hint: What to do about it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if self.offset is not None:
            text += f" (at byte {self.offset})"
        return text


class UsageError(TokcodecError):
    """Arguments that make no sense together, or outside their range."""

    exit_code = 2


class MediaError(TokcodecError):
    """The media file cannot be read, has no video, or cannot hold what is asked of it."""

    exit_code = 3


class CorruptStreamError(TokcodecError):
    """The `.tok` bytes violate the bitstream specification: damage, truncation or forgery."""

    exit_code = 4


class UnsupportedStreamError(TokcodecError):
    """A valid `.tok` file that needs something this version does not have."""

    exit_code = 5


class ModelError(TokcodecError):
    """The model that a file or a command names is missing, damaged or another one."""

    exit_code = 6


class OutputError(TokcodecError):
    """The output exists already, or cannot be written."""

    exit_code = 7


class DeviceError(TokcodecError):
    """The compute device that was asked for is not there or ran out of memory."""

    exit_code = 8


class LimitError(TokcodecError):
    """The input asks for more memory or work than the limits allow."""

    exit_code = 9


class IncompleteError(TokcodecError):
    """The output was written, but parts of the input were lost to damage."""

    exit_code = 10
