"""Encode, decode, measure: each clip at each setting of each codec."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from tokcodec.codec import DEFAULT_EFFORT, Codec
from tokcodec.errors import MediaError, UsageError
from tokcodec.evaluation.clips import Clip, digest_of, read_clip
from tokcodec.evaluation.record import METRICS, TOKCODEC, X265, Key, Record
from tokcodec.evaluation.store import RecordStore
from tokcodec.frames.hevc import SMALLEST_SIDE, decode_hevc, encode_hevc
from tokcodec.metrics.meter import Meter
from tokcodec.rate import Rate
from tokcodec.trim import trim

X265_PRESET = "medium"
X265_PARAMS = {"keyint": "64", "min-keyint": "64", "scenecut": "0", "info": "0"}
"""An intra picture every 64 frames, and no message about settings, which would be 12% of a low rate."""

DEFAULT_CRFS = (28.0, 33.0, 38.0, 44.0, 51.0)
"""0.12 down to about 0.005 bits per pixel on video of 640x360 with motion."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to measure.

    Attributes:
        qualities: Quality levels of tokcodec; unused where rates are given.
        effort: Of tokcodec's encoder, 0 to 3.
        rates: Bits per pixel to encode at, instead of qualities.
        trimmed_from: Encode at this quality and trim to the rates; 0 encodes at the rates.
        crfs: Constant rate factors of x265; none leaves it out.
        max_frames: Only the first so many frames of each clip; None is all.
    """

    qualities: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    effort: int = DEFAULT_EFFORT
    crfs: tuple[float, ...] = DEFAULT_CRFS
    max_frames: int | None = None
    rates: tuple[float, ...] = ()
    trimmed_from: int = 0

    def __post_init__(self) -> None:
        if self.trimmed_from and not self.rates:
            raise UsageError("trimming needs rates to trim to", hint="add --bpp")
        for rate in self.rates:
            Rate(bits_per_pixel=rate)

    @property
    def ours(self) -> tuple[float, ...]:
        """Settings of tokcodec."""
        return self.rates or self.qualities


def evaluate(
    clips: Iterable[Path],
    codec: Codec,
    meter: Meter,
    settings: EvalSettings,
    *,
    model_sha256: str,
    store: RecordStore,
    say: Callable[[str], None] = lambda _: None,
) -> list[Record]:
    """Measure what `store` does not hold yet; a clip is read only if something is missing.

    Args:
        clips: Video files.
        codec: The tokenizer that is measured.
        meter: The metrics.
        settings: What to measure.
        model_sha256: Digest of the tokenizer's weights.
        store: Where records come from and go to.
        say: Takes a line for people after each measurement.

    Returns:
        All records, by clip, then codec, then setting.

    Raises:
        MediaError: A clip cannot be read.
    """
    paths = list(clips)
    wanted = [(TOKCODEC, float(level)) for level in settings.ours] + [(X265, crf) for crf in settings.crfs]
    records: list[Record] = []
    for clip_number, path in enumerate(paths):
        bench = _Bench(path, codec, meter, settings, model_sha256)
        for number, (name, setting) in enumerate(wanted, start=1 + clip_number * len(wanted)):
            place = f"{number} of {len(paths) * len(wanted)}: {path.name} {name} {setting:g}"
            key = bench.key(name, setting)
            record = store.find(key, lpips_sources=bench.sources)
            if record is not None:
                say(f"{place}: known")
            elif name == X265 and min(bench.clip.frames.shape[1:3]) < SMALLEST_SIDE:
                say(f"{place}: left out, x265 takes no side below {SMALLEST_SIDE} pixels")
                continue
            else:
                record = bench.measure(key)
                store.add(record)
                say(f"{place}: {_line(record)} ({record.seconds:.1f} s)")
            records.append(record)
    return records


def _line(record: Record) -> str:
    values = [f"{name} {value:.4g}" for name in METRICS if (value := record.quality[name]) is not None]
    return f"{record.bits_per_pixel:.5f} bpp, " + ", ".join(values)


class _Bench:
    """One clip, and all that is needed to measure it."""

    def __init__(self, path: Path, codec: Codec, meter: Meter, settings: EvalSettings, model_sha256: str) -> None:
        self._path = path
        self._codec, self._meter, self._settings = codec, meter, settings
        self._model_sha256 = model_sha256
        self._sha256 = digest_of(path)
        self.sources = meter.sources

    @cached_property
    def clip(self) -> Clip:
        return read_clip(self._path, max_frames=self._settings.max_frames)

    def key(self, name: str, setting: float) -> Key:
        ours = name == TOKCODEC
        return Key(
            clip_sha256=self._sha256,
            max_frames=self._settings.max_frames,
            codec=name,
            setting=setting,
            effort=self._settings.effort if ours else 0,
            model_sha256=self._model_sha256 if ours else "",
            device=str(self._codec.device) if ours else "",
            lpips_every=self._meter.every,
            by="bpp" if ours and self._settings.rates else "quality",
            entropy=self._codec.entropy.model if ours else "adaptive",
            prior_sha256=self._codec.entropy.sha256 if ours else "",
            post_filter_sha256=self._codec.post_filter_sha256 if ours else "",
            trimmed_from=self._settings.trimmed_from if ours else 0,
            lpips_precision=self._meter.alex.precision,
        )

    def measure(self, key: Key) -> Record:
        start = time.perf_counter()
        clip = self.clip
        count, height, width = clip.frames.shape[:3]
        coded_bytes, decoded = self._through_file(key) if key.codec == TOKCODEC else self._through_x265(key)
        try:
            quality = self._meter.measure(clip.frames, decoded, matrix=clip.matrix)
        except ValueError as error:
            raise MediaError(f"{key.codec} {key.setting:g} gave back something else: {error}") from error
        values = dataclasses.asdict(quality)
        return Record(
            key=key,
            clip=self._path.name,
            width=width,
            height=height,
            frames=count,
            coded_bytes=coded_bytes,
            bits_per_pixel=8.0 * coded_bytes / (count * height * width),
            quality={name: values[name] for name in METRICS},
            lpips_sources=dict(self.sources),
            seconds=round(time.perf_counter() - start, 3),
            versions=_versions(),
        )

    def _through_file(self, key: Key) -> tuple[int, NDArray[np.uint8]]:
        """The size of the whole `.tok` file, and what its decoder makes of it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip.tok"
            file.write_bytes(self._encoded(key))
            return file.stat().st_size, self._codec.decode_frames(file.read_bytes()).frames

    def _encoded(self, key: Key) -> bytes:
        """The clip as a `.tok` file."""
        frames, frame_rate = self.clip.frames, self.clip.frame_rate
        rate = Rate(bits_per_pixel=key.setting) if key.by == "bpp" else None
        if key.trimmed_from:
            whole = self._codec.encode_frames(
                frames, quality=key.trimmed_from, effort=key.effort, frame_rate=frame_rate
            )
            sink = io.BytesIO()
            trim(io.BytesIO(whole), sink, bits_per_pixel=key.setting, prior=self._codec.prior_file)
            return sink.getvalue()
        quality = None if rate else int(key.setting)
        return self._codec.encode_frames(frames, quality=quality, rate=rate, effort=key.effort, frame_rate=frame_rate)

    def _through_x265(self, key: Key) -> tuple[int, Iterable[NDArray[np.uint8]]]:
        clip = self.clip
        data = encode_hevc(
            clip.frames,
            crf=key.setting,
            frame_rate=clip.frame_rate,
            matrix=clip.matrix,
            preset=X265_PRESET,
            params=X265_PARAMS,
        )
        height, width = clip.frames.shape[1:3]
        return len(data), decode_hevc(data, matrix=clip.matrix, width=width, height=height)


def _versions() -> dict[str, str]:
    return {
        "tokcodec": importlib.metadata.version("tokcodec"),
        "torch": torch.__version__,
        "av": av.__version__,
        "libavcodec": ".".join(str(part) for part in av.library_versions["libavcodec"]),
    }
