"""One clip, coded by one codec at one rate: a line of `results.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokcodec.errors import MediaError

SCHEMA = 1
METRICS = ("psnr_rgb", "psnr_y", "ms_ssim_rgb", "lpips_alex", "lpips_vgg", "dists", "vmaf")
ADDED_METRICS = {"dists": "measured before DISTS was a metric of the bench"}
"""What lines of earlier versions do not have, and why it is missing there."""
BETTER_IF_LESS = frozenset({"lpips_alex", "lpips_vgg", "dists"})

Setting = dict[str, int | float | str]
"""What a codec was told: `{"crf": 34, "preset": "medium"}`."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time and memory of one encode or decode.

    Attributes:
        seconds: Wall clock from the opened input to the closed output, without the start of the process.
        frames_per_second: Frames over those seconds.
        peak_memory_bytes: Peak resident memory of the largest process; None where the system does not say.
        threads: How many threads the codec was allowed.
        stages: Seconds by "tokenizer", "entropy_coding" and "video_io" (all that is left); None for other codecs.
    """

    seconds: float
    frames_per_second: float
    peak_memory_bytes: int | None
    threads: int
    stages: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """One measurement.

    Attributes:
        dataset: Name of the dataset, or of the folder.
        clip: Name of the clip.
        clip_sha256: Digest of the clip's file, or of its pictures.
        codec: Name on the command line.
        setting: What the codec was told; with the weights' digest for tokcodec.
        width: Of the pictures measured, pixels.
        height: Of the pictures measured, pixels.
        frames: Frames coded.
        frame_rate: Frames a second.
        coded_bytes: Elementary stream; for tokcodec the whole file.
        bits_per_pixel: Of those bytes, over pixels of all frames.
        metrics: Value by name, see `METRICS`; None where it was not measured. PSNR may be infinite.
        metrics_missing: Reason by name for each None.
        metric_frames: 1 where a metric was measured on all frames, N for every Nth.
        metric_first: Number of the first frame measured, where that is not 0.
        metric_precision: Of the convolutions of LPIPS and DISTS, where that is not float32.
        metric_sources: File and digest of the backbone of LPIPS or DISTS, or name of the VMAF model, by metric that was
            tried.
        encode: Time and memory.
        decode: Time and memory.
        command: What a person would type, or tell PyAV, to repeat it.
        versions: Of what took part.
        machine: Key of `machine.json`: where it was decoded and measured.
        encode_machine: Where it was encoded; "" is the same.
        schema: Of this line.
    """

    dataset: str
    clip: str
    clip_sha256: str
    codec: str
    setting: Setting
    width: int
    height: int
    frames: int
    frame_rate: float
    coded_bytes: int
    bits_per_pixel: float
    metrics: dict[str, float | None]
    metrics_missing: dict[str, str]
    metric_frames: dict[str, int]
    metric_first: dict[str, int] = field(default_factory=dict)
    metric_precision: dict[str, str] = field(default_factory=dict)
    metric_sources: dict[str, str] = field(default_factory=dict)
    encode: Speed
    decode: Speed
    command: str
    versions: dict[str, str]
    machine: str
    encode_machine: str = ""
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The same for the same measurement."""
        return record_key(
            clip_sha256=self.clip_sha256,
            codec=self.codec,
            setting=self.setting,
            width=self.width,
            height=self.height,
            frames=self.frames,
            threads=self.encode.threads,
        )

    def to_json(self) -> str:
        """One line. JSON knows no infinity: it becomes the word "inf"."""
        values = dataclasses.asdict(self)
        values["metrics"] = {name: "inf" if v == math.inf else v for name, v in self.metrics.items()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> BenchRecord:
        """The inverse of :meth:`to_json`.

        Raises:
            MediaError: The line is none, or of another schema.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            if values.get("schema") != SCHEMA:
                raise ValueError(f"schema {values.get('schema')!r}, not {SCHEMA}")
            values["metrics"] = {name: None if v is None else float(v) for name, v in values["metrics"].items()}
            for name in ADDED_METRICS.keys() - values["metrics"].keys():
                values["metrics"][name] = None
                values["metrics_missing"].setdefault(name, ADDED_METRICS[name])
            if set(values["metrics"]) != set(METRICS):
                raise ValueError("other metrics")
            for side in ("encode", "decode"):
                values[side] = Speed(**values[side])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MediaError(f"not a line of tokcodec bench: {error}") from error


def record_key(
    *,
    clip_sha256: str,
    codec: str,
    setting: Mapping[str, int | float | str],
    width: int,
    height: int,
    frames: int,
    threads: int,
) -> str:
    """What makes a measurement the same one, as text."""
    told = json.dumps({name: _plain(value) for name, value in setting.items()}, sort_keys=True)
    return f"{clip_sha256} {width}x{height}x{frames} {codec} {told} threads={threads}"


def _plain(value: float | str) -> float | str:
    return int(value) if isinstance(value, float) and value.is_integer() else value
