"""Media file -> frames and side packets, as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from av import VideoFrame
from av.container import InputContainer

from tokcodec.errors import MediaError
from tokcodec.frames import probe
from tokcodec.frames.colour import ToRgb, colour_of
from tokcodec.frames.demux import Demuxer, TimedFrame
from tokcodec.frames.info import Frame, Packet, Pixels, SideStream, VideoInfo
from tokcodec.frames.orientation import orientation_of, turn
from tokcodec.frames.packets import codec_name
from tokcodec.frames.streams import AV_ERRORS, ByteSource, describe
from tokcodec.frames.timing import check_range, make_range

# How far before the start to look for a keyframe, in seconds; None is the beginning of the file.
_SEEK_MARGINS: tuple[int | None, ...] = (0, 2, 10, None)

# Side packets that stand before the first frame wait in memory, up to this much.
_MAX_WAITING_BYTES = 64 << 20


def open_video(
    source: str | Path | BinaryIO,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    side_streams: bool = True,
) -> VideoReader:
    """Open a video or a still image for reading.

    Args:
        source: Name of a file, or a binary stream, which need not be seekable. The content decides what
            it is, not the name.
        start_seconds: Skip frames that are shown earlier, counted from the first frame. Timestamps stay
            as they are in the file.
        duration_seconds: Stop this long after the start; None reads to the end.
        side_streams: Whether audio, subtitle and attachment streams come along.

    Returns:
        A reader whose `info` is known; close it, or use it in a `with` statement.

    Raises:
        MediaError: The file is missing, no media file, has no video, no frame of it can be decoded, or
            none lies in the range.
        LimitError: The pictures are absurdly large.
        UsageError: The range makes no sense.
    """
    check_range(start_seconds, duration_seconds)
    opened = ByteSource(source)
    try:
        container = probe.open_container(opened)
        try:
            return VideoReader(
                opened,
                container,
                start_seconds=start_seconds,
                duration_seconds=duration_seconds,
                side_streams=side_streams,
            )
        except BaseException:
            container.close()
            raise
    except BaseException:
        opened.release()
        raise


class VideoReader:
    """Frames and side packets of one file, in the file's order; made by `open_video`.

    Iterate once. Memory does not grow with the length of the video.

    Attributes:
        info: What the video is.
        damage: What was lost to damage, for people; complete once the iteration has ended.
        notes: What was changed or left out for other reasons, for people.
    """

    def __init__(
        self,
        source: ByteSource,
        container: InputContainer,
        *,
        start_seconds: float,
        duration_seconds: float | None,
        side_streams: bool,
    ) -> None:
        self._source = source
        self._container = container
        self._closed = False
        self.notes: list[str] = []
        self._sides: dict[int, SideStream] = probe.side_streams_of(container, self.notes) if side_streams else {}
        self._demuxer = Demuxer(source, container, sides=self._sides)
        self._range = make_range(
            origin=self._demuxer.stream.start_time or 0,
            time_base=self._demuxer.time_base,
            start_seconds=start_seconds,
            duration_seconds=duration_seconds,
        )
        self._bad_frames = 0
        self._convert = ToRgb()
        raw, first = self._find_start()
        self._orientation = orientation_of(first, self._demuxer.first_packet)
        self._coded_size = (first.width, first.height)
        self._colour = colour_of(first, codec_name(self._demuxer.stream))
        self.info = self._describe(start_seconds, duration_seconds)
        self._events = self._select(raw)
        self._ahead: deque[Frame | Packet] = deque()
        self._read_ahead()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame | Packet]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._events

    @property
    def damage(self) -> list[str]:
        """What was lost to damage so far, for people; empty for a sound file."""
        notes = self._demuxer.damage()
        if self._bad_frames:
            notes.append(f"{self._bad_frames} frame(s) are damaged; the decoder filled in what was missing")
        return notes

    def close(self) -> None:
        """Close the file; a stream that the caller opened stays open."""
        if not self._closed:
            self._closed = True
            self._demuxer.closed = True
            self._ahead.clear()
            self._events = iter(())
            self._container.close()
            self._source.release()

    def _find_start(self) -> tuple[Iterator[TimedFrame | Packet], VideoFrame]:
        """Go to where the first decoded frame is not after the start."""
        demuxer, start = self._demuxer, self._range.start
        # MPEG-TS finds its first keyframe only from well before it.
        early = (demuxer.stream.start_time or 0) - round(10 / demuxer.time_base)
        margins = _SEEK_MARGINS if start is not None and self._source.can_seek else (None,)
        for margin in margins:
            if start is not None and self._source.can_seek:
                target = early if margin is None else max(early, start - round(margin / demuxer.time_base))
                if not demuxer.seek(target) and margin is not None:
                    continue
            raw = demuxer.read(end=self._range.end)
            waiting, first = self._first_frame(raw)
            if first is not None and (margin is None or start is None or first[1] <= start):
                return chain(waiting, [first], raw), first[0]
        reason = f": {demuxer.error}" if demuxer.error else ""
        raise MediaError(
            f"no frame could be decoded{reason}",
            where=self._source.label,
            hint="The file is damaged, or its codec is not supported.",
        )

    def _first_frame(self, raw: Iterator[TimedFrame | Packet]) -> tuple[list[Packet], TimedFrame | None]:
        waiting: list[Packet] = []
        held_bytes = 0
        for item in raw:
            if not isinstance(item, Packet):
                return waiting, item
            waiting.append(item)
            held_bytes += len(item.data)
            if held_bytes > _MAX_WAITING_BYTES:
                raise MediaError(
                    "the video starts too far behind the other streams of the file",
                    where=self._source.label,
                    hint="Read it without its side streams.",
                )
        return waiting, None

    def _describe(self, start_seconds: float, duration_seconds: float | None) -> VideoInfo:
        stream, rate = self._demuxer.stream, self._demuxer.frame_rate
        width, height = self._coded_size
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if aspect <= 0:
            aspect = Fraction(1)
        if self._orientation[0]:
            width, height, aspect = height, width, 1 / aspect
        still = probe.is_still_image(self._container)
        duration = probe.duration_of(self._container, stream)
        count = stream.frames or None
        if duration is not None and (start_seconds > 0 or duration_seconds is not None):
            duration = max(Fraction(0), duration - Fraction(start_seconds))
            if duration_seconds is not None:
                duration = min(duration, Fraction(duration_seconds))
            count = None
        if count is None and duration is not None and rate is not None:
            count = max(1, round(duration * rate))
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._demuxer.time_base,
            frame_rate=None if still else rate,
            colour=self._colour,
            sample_aspect_ratio=aspect,
            frame_count_hint=1 if still else count,
            duration_seconds=None if still or duration is None else float(duration),
            is_image=still,
            side_streams=tuple(self._sides.values()),
        )

    def _read_ahead(self) -> None:
        """Find the first frame in the range now, so that an empty range is an error at once."""
        for event in self._events:
            self._ahead.append(event)
            if isinstance(event, Frame):
                return
        raise MediaError(
            "has no frame in the part asked for",
            where=self._source.label,
            hint="Choose a start before the end of the video.",
        )

    def _select(self, raw: Iterator[TimedFrame | Packet]) -> Iterator[Frame | Packet]:
        """Keep what is in the range; pictures become upright RGB."""
        for item in raw:
            if isinstance(item, Packet):
                if self._range.holds(item, self._sides[item.stream].time_base):
                    yield item
                continue
            frame, pts = item
            if self._range.starts_after(pts) or self._range.ends_before(pts):
                continue
            self._bad_frames += frame.is_corrupt
            yield Frame(pixels=self._pixels(frame), pts=pts)

    def _pixels(self, frame: VideoFrame) -> Pixels:
        width, height = self._coded_size
        if (frame.width, frame.height) != self._coded_size:
            note = f"frames of another size were scaled to {width}x{height}"
            if note not in self.notes:
                self.notes.append(note)
        try:
            pixels = self._convert.convert(frame, self._colour, width=width, height=height)
        except AV_ERRORS as error:
            raise MediaError(
                f"pictures in the format {frame.format.name} cannot be converted: {describe(error)}",
                where=self._source.label,
            ) from error
        return turn(pixels, self._orientation)
