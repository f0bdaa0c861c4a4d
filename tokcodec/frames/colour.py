"""Decoded pictures <-> 8-bit RGB, with the matrix and range that the file states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from tokcodec.frames.info import UNSPECIFIED, Colour, Pixels

RGB_MATRIX = 0
BT709_MATRIX = 1
BT601_MATRIX = 5

# H.273 matrix -> swscale's number for it. What is absent (YCgCo, ICtCp) swscale cannot convert.
_SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}

_LIMITED_RANGE = 1
_FULL_RANGE = 2

# These codecs mean limited range where they say nothing, also in grey; swscale takes grey as full range.
_LIMITED_GREY_CODECS = frozenset({"h264", "hevc", "vvc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4"})

# The slow and exact path of swscale: chroma is interpolated, sums are rounded and not cut.
_FLAGS = int(
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)


def effective_matrix(matrix: int, height: int) -> int:
    """The YUV matrix to compute with: the one stated, else BT.709 from 720 lines on and BT.601 below.

    Args:
        matrix: H.273 code point; RGB (0), unspecified (2) and unknown ones fall under the rule.
        height: Height of the coded picture in pixels, before any rotation.
    """
    if matrix in _SWSCALE_MATRICES:
        return matrix
    return BT709_MATRIX if height >= 720 else BT601_MATRIX


def colour_of(frame: VideoFrame, codec: str) -> Colour:
    """The colour description of a decoded picture, as far as the file states it."""
    name = frame.format.name
    if frame.format.is_rgb or name.startswith("pal8"):
        # pal8 counts as RGB although swscale's flags disagree between versions.
        return Colour(
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            matrix=RGB_MATRIX,
            full_range=True,
        )
    stated = int(frame.color_range)
    full = name.startswith("yuvj") or stated == _FULL_RANGE
    if stated not in (_LIMITED_RANGE, _FULL_RANGE) and _is_grey(name):
        full = codec not in _LIMITED_GREY_CODECS
    matrix = int(frame.colorspace)
    if matrix != UNSPECIFIED and matrix not in _SWSCALE_MATRICES:
        matrix = UNSPECIFIED
    return Colour(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=matrix,
        full_range=full,
    )


def _is_grey(format_name: str) -> bool:
    return format_name.startswith(("gray", "ya8", "ya16", "mono"))


class ToRgb:
    """Turns decoded pictures into RGB of one size; keeps swscale's tables between calls."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, frame: VideoFrame, colour: Colour, *, width: int, height: int) -> Pixels:
        """Convert one picture.

        Args:
            frame: A decoded picture of any size and pixel format. Alpha is dropped, not composited.
            colour: How to read its YUV samples.
            width: Width of the result in pixels, before any rotation.
            height: Height of the result in pixels, before any rotation.

        Returns:
            uint8 (height, width, 3) RGB.
        """
        grey = _is_grey(frame.format.name)
        frame.colorspace = effective_matrix(colour.matrix, frame.height)
        if colour.matrix == RGB_MATRIX:
            frame.colorspace = RGB_MATRIX
        frame.color_range = _FULL_RANGE if colour.full_range or grey else _LIMITED_RANGE
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=_FLAGS, threads=1
        )
        pixels = rgb.to_ndarray().astype(np.uint8, copy=False)
        if grey and not colour.full_range:
            pixels = _STRETCH[pixels]
        return np.ascontiguousarray(pixels)


def _stretch_table() -> Pixels:
    levels = (np.arange(256, dtype=np.float64) - 16.0) * (255.0 / 219.0)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


_STRETCH = _stretch_table()


class FromRgb:
    """Turns RGB into pictures of one pixel format for an encoder."""

    def __init__(self, *, pixel_format: str, colour: Colour) -> None:
        self.pixel_format = pixel_format
        self._colour = colour
        self._reformatter = VideoReformatter()

    def convert(self, pixels: Pixels) -> VideoFrame:
        """Convert uint8 (height, width, 3) RGB to a picture that carries its colour tags."""
        colour = self._colour
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if colour.matrix != RGB_MATRIX:
            matrix = effective_matrix(colour.matrix, pixels.shape[0])
            frame = self._reformatter.reformat(
                frame,
                format=self.pixel_format,
                dst_colorspace=_SWSCALE_MATRICES[matrix],
                dst_color_range=_FULL_RANGE if colour.full_range else _LIMITED_RANGE,
                interpolation=_FLAGS,
                threads=1,
            )
        elif self.pixel_format != "rgb24":
            frame = self._reformatter.reformat(frame, format=self.pixel_format, interpolation=_FLAGS, threads=1)
        frame.colorspace = colour.matrix
        frame.color_range = _FULL_RANGE if colour.full_range else _LIMITED_RANGE
        frame.color_primaries = colour.primaries
        frame.color_trc = colour.transfer
        return frame


def colour_for_output(colour: Colour, *, rgb_samples: bool, carries_matrix: bool, full_range_only: bool) -> Colour:
    """The colour description under which an output is written.

    Args:
        colour: The description of the source.
        rgb_samples: Whether the output stores RGB (lossless codecs), and no YUV.
        carries_matrix: Whether the output can say which matrix it uses (Y4M cannot).
        full_range_only: Whether the encoder takes nothing else (JPEG).
    """
    if rgb_samples:
        return replace(colour, matrix=RGB_MATRIX, full_range=True)
    matrix, full_range = colour.matrix, colour.full_range or full_range_only
    if matrix == RGB_MATRIX:
        # Limited range is what every player expects of YUV that states nothing else.
        full_range = full_range_only
    if matrix not in _SWSCALE_MATRICES or not carries_matrix:
        matrix = UNSPECIFIED
    return replace(colour, matrix=matrix, full_range=full_range)
