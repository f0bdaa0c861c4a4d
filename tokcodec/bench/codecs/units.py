"""Units of elementary streams that carry no picture and that no decoder needs; they are not counted as rate."""

from __future__ import annotations

import re
from collections.abc import Callable

from tokcodec.errors import MediaError

_START = re.compile(rb"\x00?\x00\x00\x01")
_TEMPORAL_DELIMITER = 2


def without_units(stream: bytes, is_dropped: Callable[[bytes], bool]) -> bytes:
    """An Annex B stream (H.264, HEVC, VVC) without some of its units.

    Args:
        stream: With start codes.
        is_dropped: Takes the first two bytes of a unit.

    Raises:
        MediaError: It has none.
    """
    starts = [(match.start(), match.end()) for match in _START.finditer(stream)]
    if not starts:
        raise MediaError("the encoder's stream has no start codes")
    ends = [start for start, _ in starts[1:]] + [len(stream)]
    return b"".join(
        stream[start:end]
        for (start, unit), end in zip(starts, ends, strict=True)
        if not is_dropped(stream[unit : unit + 2])
    )


def without_delimiters(stream: bytes) -> bytes:
    """An AV1 stream without temporal delimiters, two bytes a frame, as files of other formats carry it.

    Raises:
        ValueError: A unit does not state its size.
    """
    kept, place = bytearray(), 0
    while place < len(stream):
        header = stream[place]
        if not header & 0x02:
            raise ValueError("a unit of the AV1 stream does not state its size")
        end = place + 1 + (header >> 2 & 1)
        size = shift = 0
        while True:
            byte = stream[end]
            size |= (byte & 0x7F) << shift
            end, shift = end + 1, shift + 7
            if not byte & 0x80:
                break
        end += size
        if (header >> 3 & 0x0F) != _TEMPORAL_DELIMITER:
            kept += stream[place:end]
        place = end
    return bytes(kept)
