"""What an opened media file says about itself, before anything is decoded."""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from tokcodec.errors import LimitError, MediaError
from tokcodec.frames.info import SideStream
from tokcodec.frames.packets import codec_name, describe_stream
from tokcodec.frames.streams import AV_ERRORS, ByteSource, describe
from tokcodec.geometry import MAX_PICTURE_PIXELS, MAX_SIDE_PIXELS

_STILL_BRANDS = frozenset({"avif", "heic", "heix", "mif1"})
_MAX_FRAME_RATE = 2000  # beyond it is a time base that somebody took for a rate


def open_container(source: ByteSource) -> InputContainer:
    """Open a media file by its content.

    Raises:
        MediaError: It is empty, unreadable, or no media file.
    """
    try:
        return av.open(source, "r", metadata_errors="replace")
    except AV_ERRORS as error:
        if source.error is not None:
            raise MediaError(f"cannot be read: {describe(source.error)}", where=source.label) from error
        raise MediaError(
            f"is not a media file that can be read: {describe(error)}",
            where=source.label,
            hint="An MP4 whose end is missing cannot be opened at all; MKV and TS files can.",
        ) from error


def pick_video(container: InputContainer, label: str) -> VideoStream:
    """The video stream to read: the best one that is not a cover picture.

    Raises:
        MediaError: There is none, or no decoder for it.
        LimitError: Its pictures are too large.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
        held = "a cover picture only" if container.streams.video else ", ".join(kinds)
        raise MediaError(f"has no video stream (it holds: {held})", where=label, hint="Give a video or a still image.")
    decodable = [s for s in streams if s.codec_context is not None]
    if not decodable:
        raise MediaError("has video in a codec that this FFmpeg cannot decode", where=label)
    best = container.streams.best("video")
    stream = next((s for s in decodable if best is not None and s.index == best.index), decodable[0])
    context = stream.codec_context
    check_size(context.width, context.height, label)
    return stream


def check_size(width: int, height: int, label: str) -> None:
    """Refuse pictures that a `.tok` file cannot hold, before memory is taken for them.

    Raises:
        LimitError: More than MAX_PICTURE_PIXELS pixels, or a side above MAX_SIDE_PIXELS.
    """
    if width * height > MAX_PICTURE_PIXELS or max(width, height) > MAX_SIDE_PIXELS:
        raise LimitError(
            f"pictures of {width}x{height}; the limit is {MAX_PICTURE_PIXELS} pixels, and {MAX_SIDE_PIXELS} a side",
            where=label,
            hint="Scale the video down first.",
        )


def is_still_image(container: InputContainer) -> bool:
    """Whether the file is a still image (PNG, JPEG, WebP, AVIF, ...) rather than a video."""
    name = container.format.name
    if name == "image2" or name.endswith("_pipe"):
        return True
    return container.metadata.get("major_brand", "").strip() in _STILL_BRANDS


def frame_rate_of(stream: VideoStream) -> Fraction | None:
    """Average frames a second, or None where the file gives no sensible one."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0 < rate <= _MAX_FRAME_RATE:
            return Fraction(rate)
    return None


def duration_of(container: InputContainer, stream: Stream) -> Fraction | None:
    """Duration in seconds as the file claims it, or None."""
    if stream.duration and stream.time_base and stream.duration > 0:
        return Fraction(stream.duration * stream.time_base)
    total = getattr(container, "duration", None)
    return Fraction(int(total), av.time_base) if total and total > 0 else None


def side_streams_of(container: InputContainer, notes: list[str]) -> dict[int, SideStream]:
    """Describe every stream that can ride along; say in `notes` which cannot."""
    sides: dict[int, SideStream] = {}
    for stream in container.streams:
        if stream.type == "video":
            continue
        side = describe_stream(stream)
        if side is None:
            name = codec_name(stream)
            notes.append(f"stream {stream.index} ({stream.type}{', ' + name if name else ''}) cannot be carried")
        else:
            sides[stream.index] = side
    return sides
