"""Frames <-> an elementary stream of HEVC by x265, the codec that a rate-quality curve is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import av
import numpy as np

from tokcodec.errors import MediaError
from tokcodec.frames.colour import FromRgb, ToRgb, effective_matrix
from tokcodec.frames.info import Colour, Pixels
from tokcodec.frames.streams import AV_ERRORS, describe

SMALLEST_SIDE = 64
"""libx265 corrupts the heap below this many pixels."""

PIXEL_FORMAT = "yuv420p10le"
"""Ten bits: x265 codes eight-bit video better with them."""


def encode_hevc(
    frames: Iterable[Pixels], *, crf: float, frame_rate: Fraction, matrix: int, preset: str, params: Mapping[str, str]
) -> bytes:
    """Encode pictures with x265.

    Args:
        frames: uint8 (H, W, 3) RGB, all of one size. An odd side is padded by a repeated line, as 4:2:0 wants it.
        crf: Constant rate factor, 0 to 51.
        frame_rate: Frames a second; x265 weighs frames by their duration.
        matrix: YUV matrix, a code point of H.273, or 2 for the rule of :func:`effective_matrix`.
        preset: Of x265 ("medium").
        params: `x265-params`.

    Returns:
        The elementary stream (Annex B), which is what the rate counts.

    Raises:
        MediaError: No frames, pictures under 64 pixels a side, or an FFmpeg without libx265.
    """
    stream = bytearray()
    context: av.VideoCodecContext | None = None
    convert: FromRgb | None = None
    try:
        for number, pixels in enumerate(frames):
            height, width = pixels.shape[:2]
            if context is None or convert is None:
                if min(height, width) < SMALLEST_SIDE:
                    raise MediaError(f"x265 takes no picture with a side below {SMALLEST_SIDE} pixels")
                context = _encoder(width + width % 2, height + height % 2, frame_rate)
                context.options = {
                    "preset": preset,
                    "crf": f"{crf:g}",
                    "x265-params": ":".join(f"{key}={value}" for key, value in {**params, "log-level": "none"}.items()),
                }
                colour = Colour(matrix=effective_matrix(matrix, height))
                convert = FromRgb(pixel_format=PIXEL_FORMAT, colour=colour)
            padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = convert.convert(padded)
            picture.pts, picture.time_base = number, 1 / frame_rate
            for packet in context.encode(picture):
                stream += bytes(packet)
        if context is None:
            raise MediaError("no frames to encode")
        for packet in context.encode(None):
            stream += bytes(packet)
    except AV_ERRORS as error:
        raise MediaError(f"x265: {describe(error)}") from error
    return bytes(stream)


def _encoder(width: int, height: int, frame_rate: Fraction) -> av.VideoCodecContext:
    context = av.VideoCodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, PIXEL_FORMAT
    context.time_base, context.framerate = 1 / frame_rate, frame_rate
    return context


def decode_hevc(data: bytes, *, matrix: int, width: int, height: int) -> Iterator[Pixels]:
    """Decode an elementary stream of :func:`encode_hevc` to RGB.

    Args:
        data: The whole stream.
        matrix: As it was encoded with.
        width: Of the pictures that went in.
        height: Of the pictures that went in.

    Raises:
        MediaError: The stream is damaged.
    """
    colour = Colour(matrix=effective_matrix(matrix, height))
    convert = ToRgb()
    try:
        context = av.VideoCodecContext.create("hevc", "r")
        for packet in [*context.parse(data), *context.parse(None), None]:
            for picture in context.decode(packet):
                pixels = convert.convert(picture, colour, width=picture.width, height=picture.height)
                yield np.ascontiguousarray(pixels[:height, :width])
    except AV_ERRORS as error:
        raise MediaError(f"HEVC: {describe(error)}") from error
