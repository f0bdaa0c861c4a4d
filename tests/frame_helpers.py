"""What the tests of frames share: a video read at once, one written at once, and colours by the formulas."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from media import TICK, TIME_BASE, picture

from tokcodec.frames import (
    Colour,
    Frame,
    Packet,
    VideoInfo,
    open_video,
    open_writer,
)

# kr, kb of the matrices, by H.273 code point.
COEFFICIENTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def read(source, **options):
    with open_video(source, **options) as reader:
        events = list(reader)
    frames = [event for event in events if isinstance(event, Frame)]
    packets = [event for event in events if isinstance(event, Packet)]
    return reader, frames, packets


def info_of(width=64, height=48, **changes) -> VideoInfo:
    info = VideoInfo(width=width, height=height, time_base=TIME_BASE, frame_rate=Fraction(24), colour=Colour())
    return replace(info, **changes)


def write(target, info, *, pts=None, count=6, pixels=None, **options):
    stamps = list(pts) if pts is not None else [TICK * i for i in range(count)]
    with open_writer(target, info, **options) as writer:
        for index, stamp in enumerate(stamps):
            shown = picture(info.width, info.height, index) if pixels is None else pixels[index]
            writer.write_frame(Frame(pixels=shown, pts=stamp))
    return writer


def rgb_of(samples, matrix, full_range):
    kr, kb = COEFFICIENTS[matrix]
    y, cb, cr = (float(sample) for sample in samples)
    if full_range:
        y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
    else:
        y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)
