"""What every writer of videos has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np

from tokcodec.errors import UsageError
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
