"""What several tests of the bench need."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
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


def bench_script(name: str) -> Any:
    """A script of the folder `bench` as a module."""
    path = Path(__file__).parent.parent / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no script")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
