"""What a video is, apart from its pixels: plain values that both directions share."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

UNSPECIFIED = 2
"""The H.273 code point "unspecified", the same for primaries, transfer and matrix."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Colour:
    """How RGB values are to be understood, and which YUV they came from (code points of H.273).

    Attributes:
        primaries: Colour primaries (1 = BT.709).
        transfer: Transfer characteristics (1 = BT.709, 13 = sRGB, 16 = PQ).
        matrix: Matrix coefficients (0 = the source was RGB, 1 = BT.709, 5 and 6 = BT.601, 9 = BT.2020).
        full_range: Whether the YUV samples used the full range (0..255 at 8 bits).
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool = False


@dataclass(frozen=True, kw_only=True)
class SideStream:
    """An audio, subtitle or attachment stream that rides along unchanged.

    Attributes:
        index: Number of the stream in the source; `Packet.stream` refers to it.
        kind: "audio", "subtitle" or "attachment".
        codec: Name of the codec ("aac", "subrip").
        time_base: Unit of the packets' timestamps, in seconds.
        language: ISO 639 code, or "" where unknown.
        template: A media file without packets, from which the codec's parameters are rebuilt.
    """

    index: int
    kind: str
    codec: str
    time_base: Fraction
    language: str
    template: bytes


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known about a video before its frames are read.

    Attributes:
        width: Width of the upright picture, in pixels.
        height: Height of the upright picture, in pixels.
        time_base: Unit of `Frame.pts`, in seconds.
        frame_rate: Average frames a second, or None where there is none (still images).
        colour: Colour description of the source.
        sample_aspect_ratio: Width of a pixel over its height; 1 where unknown.
        frame_count_hint: Number of frames that the file claims, or None. May be wrong.
        duration_seconds: Duration that the file claims, or None. May be wrong.
        is_image: Whether the source is a still image, which is a video of one frame.
        side_streams: The streams whose packets come along.
    """

    width: int
    height: int
    time_base: Fraction
    frame_rate: Fraction | None
    colour: Colour
    sample_aspect_ratio: Fraction = Fraction(1)
    frame_count_hint: int | None = None
    duration_seconds: float | None = None
    is_image: bool = False
    side_streams: tuple[SideStream, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        pixels: RGB, uint8 (height, width, 3), C-contiguous, 0..255, not linear light.
        pts: When it is shown, in units of `VideoInfo.time_base`; strictly increasing.
    """

    pixels: Pixels
    pts: int


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One packet of a side stream, opaque.

    Attributes:
        stream: `SideStream.index` of its stream.
        pts: Presentation time in the stream's time base, or None.
        dts: Decoding time in the stream's time base, or None.
        duration: Duration in the stream's time base; 0 where unknown.
        is_keyframe: Whether decoding can start here.
        data: The payload, unchanged.
    """

    stream: int
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool
    data: bytes
