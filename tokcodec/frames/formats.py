"""Output formats by name, and which encoder and pixel format each one gets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.codec import Codec

from tokcodec.errors import MediaError, UsageError


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """One output format.

    Attributes:
        muxer: FFmpeg's name of it.
        codec: The encoder used where none is asked for.
        options: Muxer options.
        side_streams: Whether it can hold audio and subtitles.
        tick_seconds: The one unit of its timestamps; None where it takes that of the source.
    """

    muxer: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    side_streams: bool = True
    tick_seconds: Fraction | None = None


# Nothing may be shifted: audio that starts early (encoder delay) would push the first frame away from 0.
_NO_SHIFT = {"avoid_negative_ts": "disabled"}

# FFmpeg writes this scale into every Matroska file; there is no option for a finer one.
_MATROSKA_TICK = Fraction(1, 1000)

MUXED_FORMATS: Mapping[str, OutputFormat] = {
    "mp4": OutputFormat(muxer="mp4", codec="libx264", options=_NO_SHIFT),
    "mov": OutputFormat(muxer="mov", codec="libx264", options=_NO_SHIFT),
    "mkv": OutputFormat(muxer="matroska", codec="libx264", options=_NO_SHIFT, tick_seconds=_MATROSKA_TICK),
    "webm": OutputFormat(muxer="webm", codec="libvpx-vp9", options=_NO_SHIFT, tick_seconds=_MATROSKA_TICK),
    "y4m": OutputFormat(muxer="yuv4mpegpipe", codec="rawvideo", side_streams=False),
}

PNG = "png"
PNG_FOLDER = "png-folder"

_SUFFIXES: Mapping[str, str] = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "mkv",
    ".webm": "webm",
    ".y4m": "y4m",
    ".png": PNG,
}

# What an encoder gets unless the user says otherwise: near-transparent, and fast before small.
_CODEC_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "libx264": {"crf": "14", "preset": "veryfast"},
    "libx264rgb": {"crf": "0", "preset": "veryfast"},
    "libx265": {"crf": "14", "preset": "veryfast", "x265-params": "log-level=error"},
    "libvpx": {"crf": "8", "b": "8M", "deadline": "good", "cpu-used": "5"},
    "libvpx-vp9": {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "6", "row-mt": "1"},
    "libaom-av1": {"crf": "16", "cpu-used": "7"},
    "libsvtav1": {"crf": "16", "preset": "9"},
    "ffv1": {"level": "3", "slicecrc": "1"},
    "mpeg4": {"qmin": "2", "qmax": "3"},
    "mjpeg": {"qmin": "1", "qmax": "3"},
}

# Lossless encoders that store RGB as it is; everything else stores YUV.
_RGB_CODECS = frozenset({"ffv1", "ffvhuff", "huffyuv", "libx264rgb", "magicyuv", "png", "qtrle", "utvideo"})
_RGB_FORMATS = ("gbrp", "rgb24", "bgr0", "bgr24")
_YUV_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")

# libx265 4.x corrupts the heap below this size (seen at 33x17 and 40x24).
_SMALLEST_SIDE = {"libx265": 64}

# PyAV cannot set the aspect ratio of a Matroska track; these encoders store it themselves.
_ASPECT_CODECS = frozenset({"libx264", "libx264rgb", "libx265", "mjpeg", "mpeg4"})

# These subsample the colour of odd sizes themselves; others refuse the size.
_ODD_420_CODECS = frozenset({"libaom-av1", "libsvtav1", "libvpx", "libvpx-vp9"})


def format_for(path: str | Path) -> str:
    """The output format that a name asks for.

    Args:
        path: Name of the output. A name without a suffix, or with a slash at its end, is a folder.

    Returns:
        "mp4", "mov", "mkv", "webm", "y4m", "png" (one picture) or "png-folder".

    Raises:
        UsageError: The suffix is none of these.
    """
    name = Path(path)
    if str(path).endswith(("/", "\\")) or not name.suffix or name.is_dir():
        return PNG_FOLDER
    known = _SUFFIXES.get(name.suffix.lower())
    if known is None:
        raise UsageError(
            f"no output format goes by the suffix {name.suffix!r}",
            where=str(path),
            hint=f"Use {', '.join(_SUFFIXES)}, or a name without a suffix for a folder of PNG.",
        )
    return known


def find_encoder(name: str, *, where: str) -> Codec:
    """Look up a video encoder.

    Raises:
        MediaError: There is none of this name.
    """
    try:
        codec = Codec(name, "w")
    except (ValueError, TypeError) as error:
        raise MediaError(f"there is no encoder {name!r}", where=where, hint=_encoders_hint()) from error
    if codec.type != "video":
        raise MediaError(f"{name!r} encodes {codec.type}, not video", where=where, hint=_encoders_hint())
    return codec


def _encoders_hint() -> str:
    known = ("libx264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1", "ffv1", "mjpeg")
    return f"This FFmpeg has, among others: {', '.join(n for n in known if _exists(n))}."


def _exists(name: str) -> bool:
    try:
        Codec(name, "w")
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def quiet_encoders() -> Iterator[None]:
    """Keep libsvtav1 from printing what it was set to; it looks at this variable when it is opened."""
    if "SVT_LOG" in os.environ:
        yield
        return
    os.environ["SVT_LOG"] = "1"  # errors only
    try:
        yield
    finally:
        os.environ.pop("SVT_LOG", None)


def check_encoder_size(codec: str, *, width: int, height: int, where: str) -> None:
    """Keep pictures from an encoder that writes outside its memory on them.

    Raises:
        MediaError: The picture is too small for the encoder.
    """
    smallest = _SMALLEST_SIDE.get(codec, 1)
    if min(width, height) < smallest:
        raise MediaError(
            f"{codec} takes no picture with a side below {smallest} pixels, and this is {width}x{height}",
            where=where,
            hint="Use libx264 or ffv1.",
        )


def keeps_aspect(format_name: str, codec: str) -> bool:
    """Whether the shape of the pixels survives: in the container, or in the encoder's own header."""
    return format_name in ("mp4", "mov") or codec in _ASPECT_CODECS


def homes_of(codec: str) -> list[str]:
    """The output formats that can hold what an encoder makes."""
    homes = []
    for name, output in MUXED_FORMATS.items():
        if output.side_streams and codec in _codecs_of(output.muxer):
            homes.append(name)
    return homes


def _codecs_of(muxer: str) -> set[str]:
    class _Nowhere:
        def write(self, data: bytes) -> int:
            return len(data)

    with av.open(_Nowhere(), "w", format=muxer) as container:
        return set(container.supported_codecs)


def encoder_options(codec: str, crf: float | None, options: Mapping[str, str] | None) -> dict[str, str]:
    """The options of an encoder: the defaults, then the rate factor, then the user's own."""
    merged = dict(_CODEC_OPTIONS.get(codec, {}))
    if crf is not None:
        merged["crf"] = f"{crf:g}"
    merged.update(options or {})
    return merged


def pixel_format_for(codec: Codec, *, width: int, height: int) -> str:
    """The pixel format to encode in: RGB for lossless encoders, else 4:2:0, or 4:4:4 where a side is odd."""
    known = [item.name for item in codec.video_formats or []]
    wanted: tuple[str, ...] = _YUV_FORMATS
    if codec.name in _RGB_CODECS:
        wanted = _RGB_FORMATS + _YUV_FORMATS
    elif (width % 2 or height % 2) and codec.name not in _ODD_420_CODECS:
        wanted = ("yuv444p", "yuv444p10le", *_YUV_FORMATS)
    if not known:
        return wanted[0]
    return next((name for name in wanted if name in known), known[0])


def is_rgb_format(pixel_format: str) -> bool:
    """Whether a pixel format stores RGB samples."""
    return pixel_format.startswith(("gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr"))
