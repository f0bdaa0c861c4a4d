"""Test videos, made with PyAV directly, so that the package under test does not judge itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
RATE = 24
TIME_BASE = Fraction(1, 12288)
TICK = 512


def picture(width: int, height: int, index: int = 0) -> Picture:
    """A smooth moving pattern: uint8 (height, width, 3), all levels and colours."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [
        128 + 100 * np.sin((x + 3 * index) / 17),
        128 + 90 * np.cos(y / 13 + index / 5),
        128 + 80 * np.sin((x + y) / 23),
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """PSNR in dB between two uint8 arrays."""
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def make_video(
    target: Path | io.BytesIO,
    *,
    size: tuple[int, int] = (64, 48),
    count: int = 8,
    container: str | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction = TIME_BASE,
    rotation: float | None = None,
    mirror: bool = False,
    keyframe_every: int = 250,
    tags: tuple[int, int, int, int] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Write a video of `picture`s; `tags` are (primaries, transfer, matrix, range)."""
    width, height = size
    stamps = list(pts) if pts is not None else [TICK * i for i in range(count)]
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = keyframe_every
        if tags is not None:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirror)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(width, height, index), format="rgb24")
            frame = frame.reformat(format=pixel_format, interpolation="BICUBIC")
            frame.pts, frame.time_base = stamp, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def flat_video(
    target: Path,
    samples: tuple[int, int, int],
    *,
    pixel_format: str,
    tags: tuple[int, int, int, int],
    codec: str = "ffv1",
    size: tuple[int, int] = (64, 48),
) -> None:
    """One lossless frame whose planes hold these 8-bit samples (scaled for deeper formats)."""
    with av.open(target, "w") as output:
        stream = output.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        frame = av.VideoFrame(*size, pixel_format)
        deep = "10" in pixel_format or "12" in pixel_format
        scale = 16 if "12" in pixel_format else 4 if deep else 1
        for plane, sample in zip(frame.planes, samples, strict=False):
            if deep:
                plane.update(np.full(plane.buffer_size // 2, sample * scale, np.uint16).tobytes())
            else:
                plane.update(bytes([sample]) * plane.buffer_size)
        frame.colorspace, frame.color_range = tags[2], tags[3]
        frame.pts, frame.time_base = 0, Fraction(1, RATE)
        output.mux([*stream.encode(frame), *stream.encode(None)])


def add_audio(output: av.container.OutputContainer, codec: str) -> Any:
    """Add an audio stream of 48 kHz stereo."""
    stream = output.add_stream(codec, rate=48000)
    stream.codec_context.layout = "stereo"
    stream.codec_context.format = stream.codec_context.codec.audio_formats[0].name
    return stream


def encode_audio(stream: Any, count: int = 40) -> list[Any]:
    """Packets of some noise, 1024 samples a frame."""
    made = []
    name = stream.codec_context.format.name
    for index in range(count):
        frame = av.AudioFrame(format=name, layout="stereo", samples=1024)
        noise = np.random.default_rng(index)
        for plane in frame.planes:
            plane.update(noise.integers(0, 60, plane.buffer_size, dtype=np.uint8).tobytes())
        frame.sample_rate, frame.pts, frame.time_base = 48000, index * 1024, Fraction(1, 48000)
        made += stream.encode(frame)
    return made + stream.encode(None)


SRT = b"1\n00:00:00,100 --> 00:00:00,300\nHello\n\n2\n00:00:00,400 --> 00:00:00,600\nWorld <i>x</i>\n\n"


def make_film(target: Path, *, audio: str = "aac", subtitles: bool = True) -> None:
    """Eighteen frames with an audio stream (French) and SubRip subtitles (English)."""
    with av.open(target, "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = TIME_BASE
        sound = add_audio(output, audio)
        sound.metadata["language"] = "fre"
        packets: list[Any] = []
        lines = av.open(io.BytesIO(SRT))
        if subtitles:
            text = output.add_stream_from_template(lines.streams[0])
            text.metadata["language"] = "eng"
        output.start_encoding()
        if subtitles:
            for line in lines.demux():
                if line.size:
                    line.stream = text
                    packets.append(line)
        packets += encode_audio(sound)
        for index in range(18):
            frame = av.VideoFrame.from_ndarray(picture(64, 48, index), format="rgb24")
            frame.pts, frame.time_base = index * TICK, TIME_BASE
            packets += video.encode(frame)
        packets += video.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            output.mux(packet)
        lines.close()


class OneWay(io.RawIOBase):
    """A stream that cannot seek, like standard input in a pipe."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)
