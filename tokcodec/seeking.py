"""A part of a `.tok` file: where to begin reading, and how much there is to come."""

from __future__ import annotations

from typing import BinaryIO

from tokcodec.container import StreamHeader, StreamReader, find_chunk_index, read_stream, read_stream_from
from tokcodec.errors import CorruptStreamError
from tokcodec.frames.timing import TimeRange, check_range, make_range


def seek(source: BinaryIO, *, start_seconds: float, duration_seconds: float | None) -> tuple[StreamReader, TimeRange]:
    """A reader just before the chunk in which the start lies, and the range to decode."""
    check_range(start_seconds, duration_seconds)
    entries = find_chunk_index(source).entries
    if not entries:
        raise CorruptStreamError("no chunk of the file is whole", hint="run `tokcodec verify`")
    source.seek(0)
    part = make_range(
        origin=entries[0].first_pts,
        time_base=read_stream(source).header.time_base,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
    )
    before = [entry for entry in entries if part.start is None or entry.first_pts <= part.start]
    # Packets may run ahead of their pictures, so that the first of the range lie behind the chunk before.
    return read_stream_from(source, before[max(0, len(before) - 2)]), part


def total_frames(source: BinaryIO) -> int | None:
    """Frames of the whole file, for the progress; the position is put back. None where the source cannot seek."""
    if not source.seekable():
        return None
    total = find_chunk_index(source).total_frames
    source.seek(0)
    return total


def frames_in(part: TimeRange, header: StreamHeader) -> int | None:
    """About how many frames a range holds; None where nobody knows."""
    if part.end is None or part.start is None or header.frame_rate is None:
        return None
    return round((part.end - part.start) * header.time_base * header.frame_rate)
