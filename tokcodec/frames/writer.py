"""Frames and side packets -> media file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from tokcodec.errors import UsageError
from tokcodec.frames import formats
from tokcodec.frames.info import Frame, Packet, VideoInfo


class VideoWriter(ABC):
    """Writes one video; made by `open_writer`. In a `with` statement it closes, or aborts on an exception.

    Attributes:
        notes: What the output could not hold, for people; complete after `close`.
    """

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.notes: list[str] = []
        self._last_pts: int | None = None
        self._ended = False

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def write_frame(self, frame: Frame) -> None:
        """Write the next frame: uint8 RGB of the size in `info`, shown later than the one before it.

        Raises:
            UsageError: Another size or type, or a timestamp that does not increase.
            MediaError: The encoder fails.
            OutputError: The file cannot be written.
        """
        shape = (self.info.height, self.info.width, 3)
        if frame.pixels.shape != shape or frame.pixels.dtype != np.uint8:
            raise UsageError(f"a frame is {frame.pixels.dtype} {frame.pixels.shape}; the video is uint8 {shape}")
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise UsageError(f"timestamp {frame.pts} does not come after {self._last_pts}")
        self._last_pts = frame.pts
        self._put_frame(frame)

    def write_packet(self, packet: Packet) -> None:
        """Write a packet of a side stream; it is left out where the output cannot hold its stream.

        Raises:
            UsageError: `info` has no such stream.
            OutputError: The file cannot be written.
        """
        if all(side.index != packet.stream for side in self.info.side_streams):
            raise UsageError(f"there is no side stream {packet.stream}")
        self._put_packet(packet)

    def close(self) -> None:
        """Finish the output. Only now it is complete. Closing twice does nothing.

        Raises:
            MediaError: The encoder fails, or no frame was written.
            OutputError: The file cannot be written.
        """
        if not self._ended:
            self._ended = True
            self._finish()

    def abort(self) -> None:
        """Stop without finishing. What was written stays where it is, for the caller to remove."""
        if not self._ended:
            self._ended = True
            self._drop()

    @abstractmethod
    def _put_frame(self, frame: Frame) -> None: ...

    @abstractmethod
    def _put_packet(self, packet: Packet) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _drop(self) -> None: ...


def open_writer(
    target: Path | BinaryIO,
    info: VideoInfo,
    *,
    format_name: str | None = None,
    codec: str | None = None,
    crf: float | None = None,
    options: Mapping[str, str] | None = None,
) -> VideoWriter:
    """Open an output for writing. It is written in place: atomic replacement is the caller's.

    Args:
        target: Name of the output, or a binary stream, which gets Y4M unless `format_name` says otherwise.
        info: What is written. Side streams that the output cannot hold are left out, with a note.
        format_name: One of the names that `format_for` returns; None takes it from the name.
        codec: Encoder by FFmpeg's name ("libx264", "libx265", "libvpx-vp9", "ffv1" for lossless RGB);
            None is libx264, and libvpx-vp9 in WebM. Y4M and PNG have no choice.
        crf: Rate factor for encoders that have one; smaller is better. None is near-transparent.
        options: More options of the encoder, as FFmpeg names them, "pix_fmt" among them.

    Returns:
        A writer; `close` it, or use it in a `with` statement.

    Raises:
        UsageError: An unknown suffix or format, or an option that the encoder does not have.
        MediaError: The encoder is unknown, does not go into this format, or refuses the video.
        OutputError: The file cannot be written.
    """
    # Imported here: both derive from VideoWriter above.
    from tokcodec.frames.muxer import MuxWriter
    from tokcodec.frames.png import PngWriter

    if format_name is None:
        format_name = formats.format_for(target) if isinstance(target, Path) else "y4m"
    fixed = format_name in ("y4m", formats.PNG, formats.PNG_FOLDER)
    if fixed and (codec is not None or crf is not None or options):
        raise UsageError(
            f"the format {format_name} has no choice of encoder",
            hint="Leave the codec, crf and other encoder options away, or write mkv, mp4 or webm.",
        )
    if format_name in (formats.PNG, formats.PNG_FOLDER):
        return PngWriter(target, info, folder=format_name == formats.PNG_FOLDER)
    output = formats.MUXED_FORMATS.get(format_name)
    if output is None:
        known = ", ".join([*formats.MUXED_FORMATS, formats.PNG, formats.PNG_FOLDER])
        raise UsageError(f"there is no output format {format_name!r}", hint=f"Use one of {known}.")
    return MuxWriter(target, info, output=output, name=format_name, codec=codec, crf=crf, options=options)
