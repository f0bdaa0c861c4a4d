"""Frames <-> an elementary stream of a codec of FFmpeg: what a rate-quality curve is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np

from tokcodec.errors import MediaError
from tokcodec.frames.colour import FromRgb, ToRgb, effective_matrix
from tokcodec.frames.info import Colour, Pixels
from tokcodec.frames.streams import AV_ERRORS, describe


@dataclass(frozen=True, kw_only=True)
class StreamEncoder:
    """An encoder of FFmpeg, and what it is told.

    Attributes:
        name: FFmpeg's ("libx265").
        options: Its options.
        pixel_format: What it is given, with 4:2:0 chroma.
        smallest_side: Pixels a side below which it takes no picture.
        gop_size: Frames from one intra picture to the next where that is no option; None leaves the default.
        threads: How many; 0 lets it choose.
    """

    name: str
    options: Mapping[str, str]
    pixel_format: str
    smallest_side: int = 1
    gop_size: int | None = None
    threads: int = 0

    def encode(self, frames: Iterable[Pixels], *, frame_rate: Fraction, matrix: int) -> bytes:
        """Encode pictures.

        Args:
            frames: uint8 (H, W, 3) RGB, all of one size. An odd side is padded by a repeated line, as 4:2:0 wants it.
            frame_rate: Frames a second; rate control weighs frames by their duration.
            matrix: YUV matrix, a code point of H.273, or 2 for the rule of :func:`effective_matrix`.

        Returns:
            The elementary stream, which is what the rate counts.

        Raises:
            MediaError: No frames, pictures that are too small, or an FFmpeg without the encoder.
        """
        stream = bytearray()
        context: av.VideoCodecContext | None = None
        try:
            for number, frame in enumerate(self.pictures(frames, matrix=matrix)):
                if context is None:
                    context = self._open(frame.width, frame.height, frame_rate)
                frame.pts, frame.time_base = number, 1 / frame_rate
                for packet in context.encode(frame):
                    stream += bytes(packet)
            if context is None:
                raise MediaError("no frames to encode")
            for packet in context.encode(None):
                stream += bytes(packet)
        except AV_ERRORS as error:
            raise MediaError(f"{self.name}: {describe(error)}") from error
        return bytes(stream)

    def pictures(self, frames: Iterable[Pixels], *, matrix: int) -> Iterator[av.VideoFrame]:
        """The pictures that the encoder is given: limited range, even sides."""
        convert: FromRgb | None = None
        for pixels in frames:
            height, width = pixels.shape[:2]
            if convert is None:
                if min(height, width) < self.smallest_side:
                    raise MediaError(f"{self.name} takes no picture with a side below {self.smallest_side} pixels")
                colour = Colour(matrix=effective_matrix(matrix, height))
                convert = FromRgb(pixel_format=self.pixel_format, colour=colour)
            padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            yield convert.convert(padded)

    def _open(self, width: int, height: int, frame_rate: Fraction) -> av.VideoCodecContext:
        context = cast("av.VideoCodecContext", av.VideoCodecContext.create(self.name, "w"))
        context.width, context.height, context.pix_fmt = width, height, self.pixel_format
        context.time_base, context.framerate = 1 / frame_rate, frame_rate
        context.options = dict(self.options)
        if self.gop_size is not None:
            context.gop_size = self.gop_size
        if self.threads:
            context.thread_count = self.threads
        return context


def decode_elementary(
    data: bytes, *, decoder: str, matrix: int, width: int, height: int, threads: int = 0
) -> Iterator[Pixels]:
    """Decode an elementary stream to RGB.

    Args:
        data: The whole stream.
        decoder: FFmpeg's name ("hevc").
        matrix: As it was encoded with.
        width: Of the pictures that went in.
        height: Of the pictures that went in.
        threads: How many; 0 lets the decoder choose.

    Yields:
        uint8 (height, width, 3) RGB.

    Raises:
        MediaError: The stream is damaged.
    """
    colour = Colour(matrix=effective_matrix(matrix, height))
    convert = ToRgb()
    try:
        context = cast("av.VideoCodecContext", av.VideoCodecContext.create(decoder, "r"))
        if threads:
            context.thread_count = threads
        for packet in [*context.parse(data), *context.parse(None), None]:
            for picture in context.decode(packet):
                pixels = convert.convert(picture, colour, width=picture.width, height=picture.height)
                yield np.ascontiguousarray(pixels[:height, :width])
    except AV_ERRORS as error:
        raise MediaError(f"{decoder}: {describe(error)}") from error
