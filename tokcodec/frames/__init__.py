"""Media files <-> frames. Everything that touches FFmpeg is in this package; no torch."""

from tokcodec.frames.formats import format_for
from tokcodec.frames.info import Colour, Frame, Packet, SideStream, VideoInfo
from tokcodec.frames.reader import VideoReader, open_video
from tokcodec.frames.video_writer import VideoWriter
from tokcodec.frames.writer import open_writer

__all__ = [
    "Colour",
    "Frame",
    "Packet",
    "SideStream",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "format_for",
    "open_video",
    "open_writer",
]
