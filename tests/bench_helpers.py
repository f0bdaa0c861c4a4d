"""What several tests of the bench need."""

from __future__ import annotations

from typing import Any

from tokcodec.bench.machine import Machine
from tokcodec.bench.record import METRICS, BenchRecord, Speed

MACHINE = Machine(key="m", description={"cpu": "any", "cores": 1})
SPEED = Speed(seconds=2.0, frames_per_second=5.0, peak_memory_bytes=1000, threads=1)


def bench_record(rate: float, *, codec: str = "x265", clip: str = "a", **changes: Any) -> BenchRecord:
    """A record with what matters; metrics by name, settings as `setting`."""
    values = {name: changes.pop(name, None) for name in METRICS}
    setting = changes.pop("setting", {"crf": round(1000 * rate), "preset": "medium"})
    fields: dict[str, Any] = {
        "dataset": "test",
        "clip": clip,
        "clip_sha256": f"sha of {clip}",
        "codec": codec,
        "setting": setting,
        "width": 100,
        "height": 50,
        "frames": 10,
        "frame_rate": 24.0,
        "coded_bytes": round(rate * 50000 / 8),
        "bits_per_pixel": rate,
        "metrics": values,
        "metrics_missing": {name: "not measured" for name, value in values.items() if value is None},
        "metric_frames": dict.fromkeys(METRICS, 1),
        "metric_sources": {},
        "encode": SPEED,
        "decode": SPEED,
        "command": "encode",
        "versions": {"x265": "4"},
        "machine": "m",
    }
    return BenchRecord(**{**fields, **changes})
