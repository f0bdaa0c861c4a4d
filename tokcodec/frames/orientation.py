"""How a decoded picture must be turned to be upright: display matrices (MP4, MKV) and EXIF (still images)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from av import VideoFrame

from tokcodec.frames.info import Pixels

Orientation = tuple[bool, bool, bool]
"""(transpose, then mirror left-right, then mirror top-bottom)."""

UPRIGHT: Orientation = (False, False, False)

_QUARTER_TURNS: Mapping[int, Orientation] = {
    0: UPRIGHT,
    1: (True, False, True),
    2: (False, True, True),
    3: (True, True, False),
}

_EXIF: Mapping[int, Orientation] = {
    1: UPRIGHT,
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

_EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")  # in JPEG, PNG and WebP
_ORIENTATION_TAG = 0x0112
_MAX_TAGS = 512


def orientation_of(frame: VideoFrame, packet: bytes) -> Orientation:
    """The orientation of a picture; `packet` is what it was decoded from, for EXIF."""
    sides: Any = frame
    try:
        data = bytes(sides.side_data["DISPLAYMATRIX"])
    except KeyError:
        return UPRIGHT
    except ValueError:
        # PyAV cannot list side data of a kind that it does not know, and EXIF is such a kind.
        stated = exif_orientation(packet)
        if stated is not None:
            return stated
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    return from_matrix(np.frombuffer(data[: len(data) // 4 * 4], dtype=np.int32).tolist())


def from_matrix(matrix: Sequence[int]) -> Orientation:
    """Read a display matrix (nine integers, 16.16 fixed point, as in MP4) as the nearest right-angle turn."""
    if len(matrix) < 5:
        return UPRIGHT
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (False, a < 0, d < 0)
    return (True, c < 0, b < 0)


def exif_orientation(packet: bytes) -> Orientation | None:
    """The orientation in the EXIF block of a still image, or None."""
    for mark in _EXIF_MARKS:
        at = packet.find(mark)
        if at < 0:
            continue
        block = packet[at + len(mark) : at + len(mark) + 16]
        starts = [block.find(order) for order in (b"II*\0", b"MM\0*") if order in block]
        if starts:
            return _first_directory(packet[at + len(mark) + min(starts) :])
    return None


def _first_directory(tiff: bytes) -> Orientation | None:
    order: Any = "little" if tiff.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    for index in range(min(number(directory, 2), _MAX_TAGS)):
        entry = directory + 2 + 12 * index
        if number(entry, 2) == _ORIENTATION_TAG:
            return _EXIF.get(number(entry + 8, 2))
    return None


def turn(pixels: Pixels, orientation: Orientation) -> Pixels:
    """Apply an orientation to (height, width, 3) pixels; the result is C-contiguous."""
    transpose, mirror, flip = orientation
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if mirror:
        pixels = pixels[:, ::-1]
    if flip:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
