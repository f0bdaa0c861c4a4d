"""Frames and packets to a file at a quality or at a rate, in as many passes as that takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.container import ContainerWriter
from tokcodec.counts import Stopwatch
from tokcodec.errors import UsageError
from tokcodec.frames import Colour, Frame, Packet, VideoInfo
from tokcodec.passes import Coded, find_pass
from tokcodec.pipeline import EncodeSettings, EncodingWorkers, Progress, encode_items
from tokcodec.rate import RateReport
from tokcodec.steering import Steering
from tokcodec.tokenizer.stream import StreamEncoder


class Source(Protocol):
    """Frames and packets, in file order."""

    @property
    def info(self) -> VideoInfo:
        """What they are."""
        ...

    def __iter__(self) -> Iterator[Frame | Packet]: ...


class ArraySource:
    """Frames of an array as a source.

    Args:
        frames: uint8 `(T, H, W, 3)` RGB.
        frame_rate: Frames a second.
    """

    def __init__(self, frames: NDArray[np.uint8], *, frame_rate: Fraction) -> None:
        self._frames = frames
        self.info = VideoInfo(
            width=frames.shape[2],
            height=frames.shape[1],
            time_base=1 / frame_rate,
            frame_rate=frame_rate,
            colour=Colour(),
            frame_count_hint=len(frames),
        )

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(pixels=pixels, pts=number) for number, pixels in enumerate(self._frames))


OpenSource = Callable[[], AbstractContextManager[Source]]
"""Opens the source, from its beginning each time."""
MakeEncoder = Callable[[BinaryIO, VideoInfo, EncodeSettings, float], tuple[ContainerWriter, StreamEncoder]]
"""A writer with its header written, and an encoder, for a sink, a video, settings and a quality."""
MakeWorkers = Callable[[VideoInfo, EncodeSettings, float], EncodingWorkers | None]
"""Processes that encode chunks of a video, or None where this one does."""


def _no_workers(info: VideoInfo, settings: EncodeSettings, quality: float) -> None:
    """Encode in this process."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What came out.

    Attributes:
        info: What the source is.
        coded: The file.
        report: What became of the rate; None where none was asked for.
        notes: What a person should know of that.
    """

    info: VideoInfo
    coded: Coded
    report: RateReport | None = None
    notes: tuple[str, ...] = ()


def encode_source(
    open_source: OpenSource,
    make_encoder: MakeEncoder,
    sink: BinaryIO,
    *,
    settings: EncodeSettings,
    watch: Stopwatch,
    progress: Progress | None = None,
    make_workers: MakeWorkers = _no_workers,
) -> Encoding:
    """Encode a source into a sink.

    Args:
        open_source: Opens the source; called several times where the rate needs several passes.
        make_encoder: Makes the encoder.
        sink: Where the file goes; need not be seekable.
        settings: What to make.
        watch: Takes the time of the stages.
        progress: Called with the number of frames done, after each; begins again with each pass.
        make_workers: Makes processes that encode chunks, where no rate is asked for.

    Raises:
        UsageError: The rate makes no sense for this source.
        TokcodecError: As for reading, coding and writing.
    """
    rate = settings.rate
    is_steered = rate is not None and not rate.is_whole
    coded_frames = 0
    infos: list[VideoInfo] = []

    def code(quality: float | None, sink: BinaryIO) -> Coded:
        nonlocal coded_frames
        with open_source() as source:
            info = source.info
            infos.append(info)
            if rate is not None and rate.kilobits_per_second is not None and info.is_image:
                raise UsageError("a picture has no duration", hint="ask for bits per pixel or a number of bytes")
            first = settings.quality_for(info) if quality is None else quality
            writer, encoder = make_encoder(sink, info, settings, first)
            workers = make_workers(info, settings, first) if rate is None else None
            with contextlib.nullcontext() if workers is None else workers:
                counts = encode_items(
                    source,
                    writer,
                    encoder,
                    info=info,
                    settings=settings,
                    watch=watch,
                    progress=progress,
                    steering=Steering(settings.limits, first=first) if is_steered else None,
                    workers=workers,
                )
        coded_frames += counts.coded_frames
        pixels = counts.frames * info.width * info.height
        return Coded(quality=first, size=writer.bytes_written, counts=counts, pixels=pixels)

    if rate is None:
        coded = code(None, sink)
        return Encoding(info=infos[-1], coded=coded)
    if is_steered:
        coded = code(None, sink)
        used, tried = coded.counts.used, coded.counts.tried
    else:
        coded, tried = find_pass(code, rate, sink, limits=settings.limits)
        used = coded.quality, coded.quality
    if used is None or tried is None:
        raise UsageError("a rate without a quality")
    reached = rate.reached(coded.counted(rate), pixels=coded.pixels, seconds=coded.counts.seconds)
    report = RateReport(
        unit=rate.name,
        asked=rate.asked,
        reached=reached,
        passes=coded_frames / coded.counts.frames,
        lowest_quality=used[0],
        highest_quality=used[1],
        limit=_limit(reached < rate.asked, tried, settings.limits),
    )
    return Encoding(info=infos[-1], coded=coded, report=report, notes=report.notes())


def _limit(
    is_less: bool, tried: tuple[float, float], limits: tuple[float, float]
) -> Literal["lowest", "highest"] | None:
    """The end of what there is that the search came to, on the side where more was to be had."""
    if is_less:
        return "highest" if tried[1] >= limits[1] else None
    return "lowest" if tried[0] <= limits[0] else None


def can_open_again(source: object) -> bool:
    """Whether a file or a stream can be read from its beginning once more."""
    if isinstance(source, (str, Path)):
        return Path(source).is_file()
    try:
        return bool(source.seekable())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
