"""A clip's frames at the size that is measured, as a lossless file that every codec reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tokcodec.bench.datasets import RAW_SUFFIX, ClipSource, pictures_of
from tokcodec.errors import MediaError, OutputError, UsageError
from tokcodec.evaluation.clips import DEFAULT_RATE
from tokcodec.frames import Frame, open_video
from tokcodec.frames.colour import ToRgb, effective_matrix
from tokcodec.frames.info import UNSPECIFIED, Colour, Pixels
from tokcodec.frames.streams import AV_ERRORS, describe
from tokcodec.output import atomic

_SCALING = int(Interpolation.LANCZOS | Interpolation.ACCURATE_RND)
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What a clip is once it has been read.

    Attributes:
        width: As measured, pixels.
        height: As measured, pixels.
        frames: As measured.
        frame_rate: Frames a second, as a ratio ("24/1").
        matrix: YUV matrix, a code point of H.273: the one that the source states, else by its height.
    """

    width: int
    height: int
    frames: int
    frame_rate: str
    matrix: int


def write_clip(
    source: ClipSource, target: Path, *, size: tuple[int, int] | None = None, max_frames: int | None = None
) -> ClipFacts:
    """Read a clip, scale it (Lanczos, in RGB) if it has another size, and write FFV1 of 8-bit RGB into AVI.

    Args:
        source: The clip.
        target: The file; an existing one is replaced.
        size: Width and height; None keeps those of the source.
        max_frames: Only the first so many frames.

    Raises:
        MediaError: It cannot be read, or has fewer frames than it should.
        UsageError: `size` has another shape.
    """
    pictures, rate, matrix = _open(source)
    with atomic(target, force=True) as part:
        width, height, count = _write(islice(_scaled(pictures, size, source), max_frames), part, rate)
        expected = source.frames if max_frames is None else min(max_frames, source.frames or max_frames)
        if source.frames is not None and count < (expected or 0):
            raise MediaError(
                f"the clip {source.name} is short: {count} of {expected} frames",
                where=str(source.path),
                hint="get it again; bench/datasets.toml says where",
            )
    return ClipFacts(
        width=width, height=height, frames=count, frame_rate=f"{rate.numerator}/{rate.denominator}", matrix=matrix
    )


def _write(pictures: Iterable[Pixels], target: Path, rate: Fraction) -> tuple[int, int, int]:
    """Width, height and number of the pictures written."""
    width = height = count = 0
    # AVI keeps every frame rate exactly; Matroska's milliseconds would cost tokcodec a byte a frame.
    try:
        with av.open(str(target), "w", format="avi") as output:
            stream = output.add_stream("ffv1", rate=rate, options={"level": "3"})
            for count, pixels in enumerate(pictures, start=1):
                if not width:
                    height, width = pixels.shape[:2]
                    stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
                    stream.time_base = stream.codec_context.time_base = 1 / rate
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
                frame.pts, frame.time_base = count - 1, 1 / rate
                output.mux(stream.encode(frame))
            if not count:
                raise MediaError("the clip has no frames")
            output.mux(stream.encode(None))
    except AV_ERRORS as error:
        raise OutputError(f"the lossless clip cannot be written: {describe(error)}", where=str(target)) from error
    return width, height, count


def facts_of(values: dict[str, object]) -> ClipFacts:
    """The inverse of `dataclasses.asdict`.

    Raises:
        TypeError: It is something else.
    """
    names = {field.name for field in dataclasses.fields(ClipFacts)}
    if set(values) != names:
        raise TypeError("not the facts of a clip")
    return ClipFacts(**values)  # type: ignore[arg-type]


def _open(source: ClipSource) -> tuple[Iterable[Pixels], Fraction, int]:
    """Pictures, frame rate and matrix of a clip."""
    if source.path is None:
        return _generated(source), source.rate or DEFAULT_RATE, 1
    if source.path.is_dir():
        paths = pictures_of(source.path)
        if not paths:
            raise MediaError("no pictures", where=str(source.path))
        return _pictures(paths), source.rate or DEFAULT_RATE, effective_matrix(UNSPECIFIED, source.height or 0)
    if source.path.suffix.lower() == RAW_SUFFIX:
        return _raw(source), source.rate or DEFAULT_RATE, effective_matrix(UNSPECIFIED, source.height or 0)
    with open_video(source.path, side_streams=False) as reader:
        info = reader.info
    rate = info.frame_rate or source.rate or DEFAULT_RATE
    return _video(source.path), rate, effective_matrix(info.colour.matrix, info.height)


def _video(path: Path) -> Iterator[Pixels]:
    with open_video(path, side_streams=False) as reader:
        yield from (item.pixels for item in reader if isinstance(item, Frame))


def _pictures(paths: list[Path]) -> Iterator[Pixels]:
    for path in paths:
        yield from _video(path)


def _raw(source: ClipSource) -> Iterator[Pixels]:
    """Planes of 4:2:0 without a header, in limited range."""
    if source.path is None or source.width is None or source.height is None:
        raise UsageError(f"the raw clip {source.name} needs width and height in the manifest")
    width, height = source.width, source.height
    colour = Colour(matrix=effective_matrix(UNSPECIFIED, height))
    convert = ToRgb()
    rows = height * 3 // 2
    kind = np.dtype("<u2") if source.pixel_format.endswith("10le") else np.dtype(np.uint8)
    with source.path.open("rb") as file:
        while len(data := file.read(rows * width * kind.itemsize)) == rows * width * kind.itemsize:
            planes: Any = np.frombuffer(data, kind).reshape(rows, width)
            frame = av.VideoFrame.from_ndarray(planes, format=source.pixel_format)
            yield convert.convert(frame, colour, width=width, height=height)


def _generated(source: ClipSource) -> Iterator[Pixels]:
    from skimage import data

    from tokcodec.demo import camera_move

    photograph = np.ascontiguousarray(getattr(data, source.name)()[..., :3])
    return camera_move(photograph, frames=source.frames or 1, height=source.height or 0, width=source.width or 0)


def _scaled(pictures: Iterable[Pixels], size: tuple[int, int] | None, source: ClipSource) -> Iterator[Pixels]:
    reformatter = VideoReformatter()
    for pixels in pictures:
        height, width = pixels.shape[:2]
        if size is None or size == (width, height):
            yield pixels
            continue
        if abs(size[0] * height / (size[1] * width) - 1) > _ASPECT_TOLERANCE:
            raise UsageError(
                f"{source.name} is {width}x{height}, which {size[0]}x{size[1]} would distort",
                hint="choose a size of the same shape, or --size source",
            )
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        small = reformatter.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation=_SCALING, threads=1
        )
        yield np.ascontiguousarray(small.to_ndarray().astype(np.uint8, copy=False))
