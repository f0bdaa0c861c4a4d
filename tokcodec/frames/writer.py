"""Frames and side packets -> media file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tokcodec.errors import UsageError
from tokcodec.frames import formats
from tokcodec.frames.info import VideoInfo
from tokcodec.frames.muxer import MuxWriter
from tokcodec.frames.png import PngWriter
from tokcodec.frames.video_writer import VideoWriter


def open_writer(
    target: Path | BinaryIO,
    info: VideoInfo,
    *,
    format_name: str | None = None,
    codec: str | None = None,
    crf: float | None = None,
    options: Mapping[str, str] | None = None,
    label: str | None = None,
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
        label: What messages call the output; None is the name of `target`.

    Returns:
        A writer; `close` it, or use it in a `with` statement.

    Raises:
        UsageError: An unknown suffix or format, or an option that the encoder does not have.
        MediaError: The encoder is unknown, does not go into this format, or refuses the video.
        OutputError: The file cannot be written.
    """
    if format_name is None:
        format_name = formats.format_for(target) if isinstance(target, Path) else "y4m"
    fixed = format_name in ("y4m", formats.PNG, formats.PNG_FOLDER)
    if fixed and (codec is not None or crf is not None or options):
        raise UsageError(
            f"the format {format_name} has no choice of encoder",
            hint="Leave the codec, crf and other encoder options away, or write mkv, mp4 or webm.",
        )
    if format_name in (formats.PNG, formats.PNG_FOLDER):
        return PngWriter(target, info, folder=format_name == formats.PNG_FOLDER, label=label)
    output = formats.MUXED_FORMATS.get(format_name)
    if output is None:
        known = ", ".join([*formats.MUXED_FORMATS, formats.PNG, formats.PNG_FOLDER])
        raise UsageError(f"there is no output format {format_name!r}", hint=f"Use one of {known}.")
    return MuxWriter(target, info, output=output, name=format_name, codec=codec, crf=crf, options=options, label=label)
