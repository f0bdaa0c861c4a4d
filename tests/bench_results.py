"""A results folder of synthetic records: made-up codecs' curves with known BD-rates, for tests of the report only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokcodec.bench.record import METRICS, BenchRecord, Speed
from tokcodec.frames.png import encode_png

RATE_FACTORS = {"tokcodec": 1.5, "x265": 1.0, "svtav1": 0.8, "x264": 2.0}
"""Rate at equal quality over x265's: BD-rates are +50%, -20% and +100% by PSNR, exactly."""
LPIPS_FACTORS = {"tokcodec": 0.5, "x265": 1.0, "svtav1": 0.8, "x264": 2.0}
VVENC = {0: (0.6, 0.9), 1: (0.7, 0.75)}
"""By QPA: rate factors by PSNR, where 0 is better, and by LPIPS, where 1 is."""
COLOURS = {"original": (200, 30, 30), "x265": (30, 160, 30), "tokcodec": (30, 30, 200)}
RATES = (0.006, 0.012, 0.025, 0.05, 0.1)
SIZE = (160, 96)


def record(codec: str, clip: str, rate: float, setting: dict[str, Any], **changes: Any) -> BenchRecord:
    """A synthetic record; quality rises with the logarithm of rate over the codec's factor."""
    psnr_factor, lpips_factor = (
        VVENC[setting["qpa"]] if codec == "vvenc" else (RATE_FACTORS[codec], LPIPS_FACTORS[codec])
    )
    hard = 0.5 * (ord(clip[0]) - ord("a"))
    metrics: dict[str, float | None] = {
        "psnr_rgb": 30 - hard + 3 * math.log2(rate / psnr_factor / 0.02),
        "psnr_y": 31 - hard + 3 * math.log2(rate / psnr_factor / 0.02),
        "ms_ssim_rgb": 0.9 + 0.02 * math.log2(rate / psnr_factor / 0.02),
        "lpips_alex": 0.3 - 0.05 * math.log2(rate / lpips_factor / 0.02),
        "lpips_vgg": None,
        "dists": None,
        "vmaf": None,
    }
    width, height = SIZE
    seconds = {"x265": 2.0, "tokcodec": 1.0}.get(codec, 4.0)
    stages = {"tokenizer": 0.7, "entropy_coding": 0.1, "video_io": 0.2} if codec == "tokcodec" else None
    speed = Speed(
        seconds=seconds, frames_per_second=48 / seconds, peak_memory_bytes=200_000_000, threads=1, stages=stages
    )
    values: dict[str, Any] = {
        "dataset": "synthetic",
        "clip": clip,
        "clip_sha256": f"{ord(clip[0]):064x}",
        "codec": codec,
        "setting": setting,
        "width": width,
        "height": height,
        "frames": 48,
        "frame_rate": 24.0,
        "coded_bytes": round(rate * width * height * 48 / 8),
        "bits_per_pixel": rate,
        "metrics": metrics,
        "metrics_missing": {
            "lpips_vgg": "no backbone <here>",
            "dists": "no weights here",
            "vmaf": "no libvmaf in the ffmpeg at hand",
        },
        "metric_frames": {name: 8 if name == "lpips_alex" else 1 for name in METRICS},
        "metric_first": {"lpips_alex": 4},
        "metric_precision": {"lpips_alex": "bfloat16"},
        "encode": speed,
        "decode": speed,
        "command": f"{codec} --made-up {clip}",
        "versions": {codec: "0.0 synthetic"},
        "machine": "m1",
    }
    return BenchRecord(**{**values, **changes})


def records(clips: Sequence[str] = ("apple", "bird", "cat")) -> list[BenchRecord]:
    """All codecs over all clips; no two clips share a rate."""
    made = []
    for number, clip in enumerate(clips):
        for step, rate in enumerate(RATES):
            at = rate * (1 + 0.05 * number)
            for codec in RATE_FACTORS:
                name = "quality" if codec == "tokcodec" else "crf"
                made.append(record(codec, clip, at, {name: step + 1 if codec == "tokcodec" else 51 - 5 * step}))
            made += [record("vvenc", clip, at, {"qp": 50 - 5 * step, "qpa": qpa}) for qpa in VVENC]
    return made


def make_results(folder: Path, some: Sequence[BenchRecord] | None = None) -> Path:
    """Write a results folder, with flat example frames in the colours of `COLOURS`."""
    folder.mkdir(parents=True, exist_ok=True)
    some = records() if some is None else some
    (folder / "results.jsonl").write_text("".join(f"{one.to_json()}\n" for one in some), encoding="utf-8")
    machine = {"cpu": "Abacus 3000", "cores": 2, "memory_bytes": 8 * 2**30, "system": "Linux"}
    (folder / "machine.json").write_text(json.dumps({"m1": machine}))
    (folder / "absent.json").write_text(json.dumps({"x265-veryslow": "no <libx265> here"}))
    failed = {"clip": "apple", "codec": "vvenc", "setting": {"qp": 40, "qpa": 1}, "reason": "it wrote <nothing>"}
    (folder / "failed.json").write_text(json.dumps({"key": failed}))
    index = []
    (folder / "frames").mkdir(exist_ok=True)
    for clip in sorted({one.clip for one in some}):
        (folder / "frames" / clip).mkdir(parents=True, exist_ok=True)
        for codec, colour in COLOURS.items():
            pixels = np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)
            file = f"{clip}/{codec}.png"
            (folder / "frames" / file).write_bytes(encode_png(pixels))
            rate = {"original": None, "x265": 0.03, "tokcodec": 0.033}[codec]
            target = None if codec == "original" else 0.0315
            values = {"clip": clip, "codec": codec, "bits_per_pixel": rate, "target": target, "frame": 24, "file": file}
            index.append(values)
    (folder / "frames" / "index.json").write_text(json.dumps(index))
    return folder
