"""Whether a file ends before its own headers say it should, where FFmpeg passes over that in silence."""

from __future__ import annotations

import os

from tokcodec.frames.streams import ByteSource

_HEAD_BYTES = 4096
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(source: ByteSource) -> int | None:
    """How many bytes are missing at the end of a Matroska or MPEG-TS file.

    Returns:
        0 for a whole file; None where this cannot be told (other formats, pipes). MPEG-TS only tells
        whether its last packet is whole. The position in the stream is kept.
    """
    if not source.can_seek:
        return None
    try:
        here = source.tell()
        source.seek(0)
        head = source.read(_HEAD_BYTES)
        size = source.seek(0, os.SEEK_END)
        source.seek(here)
    except (OSError, ValueError):
        return None
    if head.startswith(_EBML):
        return _missing_matroska(head, size)
    for packet in (188, 192):
        if size > 2 * packet and head[packet - 188 :: packet].startswith(b"\x47\x47"):
            return -size % packet
    return None


def missing_y4m_bytes(source: ByteSource, frame_bytes: int) -> int | None:
    """How many bytes the last frame of a Y4M stream lacks, asked at its end; None for other formats."""
    header, _, _ = source.head.partition(b"\n")
    if not header.startswith(b"YUV4MPEG2"):
        return None
    try:
        total = source.seek(0, os.SEEK_END) if source.can_seek else source.read_bytes
    except (OSError, ValueError):
        return None
    return -(total - len(header) - 1) % (len(b"FRAME\n") + frame_bytes)


def _missing_matroska(head: bytes, size: int) -> int | None:
    header, start = _read_length(head, len(_EBML))
    if header is None or head[start + header : start + header + 4] != _SEGMENT:
        return None
    length, begin = _read_length(head, start + header + 4)
    if length is None:
        return None  # written as a stream: the length was never known
    return max(0, begin + length - size)


def _read_length(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length at a byte offset, None where it is "unknown", and the offset behind it."""
    if at >= len(data) or data[at] == 0:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    unknown = value == (1 << 7 * width) - 1
    return (None if unknown else value), at + width
