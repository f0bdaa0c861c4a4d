"""The page: one HTML file with everything in it."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokcodec.bench.rates import TOLERANCE
from tokcodec.bench.report.equal_table import equal_groups, equal_notes
from tokcodec.bench.report.load import ORIGINAL, ExampleFrame, Results
from tokcodec.bench.report.paper import PAPER_METRICS, differences, read_paper, table3_rows
from tokcodec.bench.report.pictures import embed
from tokcodec.bench.report.series import ANCHOR, METRIC_LOOKS, Comparison, drawn_points, look_of, setting_text
from tokcodec.bench.report.tables import (
    bd_table,
    clip_tables,
    machine_text,
    machines_of,
    speed_tables,
)
from tokcodec.bench.report.verdicts import overlaps, verdicts

PAGE_NAME = "report.html"
_ASSETS = "assets"


def render_page(results: Results, comparison: Comparison, figures: dict[str, Path]) -> str:
    """The page as text; pictures, styles and scripts are inside, and its own policy forbids any request.

    Raises:
        MediaError: An example frame is not a picture.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("report.html.j2"))
    return template.render(**_values(results, comparison, figures))


def _asset(name: str) -> str:
    return files(__package__).joinpath(_ASSETS, name).read_text(encoding="utf-8")


def _values(results: Results, comparison: Comparison, figures: dict[str, Path]) -> dict[str, Any]:
    paper = read_paper()
    tables = {method: bd_table(comparison, method) for method in ("pchip", "akima")}
    notes = {
        method: list(dict.fromkeys(note for row in rows for cell in row.cells for note in cell.notes))
        for method, rows in tables.items()
    }
    pictures = embed(results.frames)
    return {
        "styles": _asset("report.css"),
        "script": _asset("report.js"),
        "data": _script_json(_chart_data(results, comparison)),
        "frames": _script_json(_frame_data(results, pictures.uris)),
        "results": results,
        "anchor": look_of(ANCHOR).label,
        "metrics": {name: METRIC_LOOKS[name] for name in comparison.series},
        "missing": {METRIC_LOOKS[name].label: reasons for name, reasons in comparison.missing.items()},
        "absent": {look_of(codec).label: reason for codec, reason in results.absent.items()},
        "failed": [f"{one.clip}, {look_of(one.codec).label}, {one.setting}: {one.reason}" for one in results.failed],
        "codecs": [(codec, look_of(codec)) for codec in comparison.codecs],
        "verdicts": verdicts(comparison),
        "levels": comparison.levels,
        "equal_groups": equal_groups(comparison),
        "equal_notes": equal_notes(comparison),
        "bd_tables": tables,
        "bd_notes": notes,
        "overlaps": overlaps(comparison),
        "speed_tables": speed_tables(results, comparison),
        "clip_tables": clip_tables(results, comparison),
        "paper": paper,
        "paper_rows": table3_rows(paper, comparison),
        "paper_metrics": [name for ours in PAPER_METRICS.values() for name in ours],
        "paper_differences": differences(paper, results),
        "conditions": _conditions(results, comparison),
        "machines": [machine_text(results, machine) for machine in machines_of(results)],
        "sampling": _sampling(results),
        "precision": _precision(results),
        "figures": {
            name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
            for name, path in figures.items()
        },
        "is_searched": all(frame.target is not None for frame in results.frames if frame.codec != ORIGINAL),
        "is_equal": all(_is_at_target(frame) for frame in results.frames if frame.codec != ORIGINAL),
        "picture_note": pictures.note,
    }


def _script_json(values: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _chart_data(results: Results, comparison: Comparison) -> dict[str, Any]:
    return {
        "clips": results.clips,
        "codecs": {
            codec: {"colour": look_of(codec).colour, "label": look_of(codec).label} for codec in comparison.codecs
        },
        "charts": [
            {
                "metric": metric,
                "label": METRIC_LOOKS[metric].label,
                "unit": METRIC_LOOKS[metric].unit,
                "digits": METRIC_LOOKS[metric].digits,
                "less": METRIC_LOOKS[metric].less_is_better,
                "series": [
                    {
                        "codec": codec,
                        "label": series.label,
                        "mean": [
                            [point.bits_per_pixel, _drawable(point.value), point.text, point.part]
                            for point in drawn_points(series)
                        ],
                        "clips": {
                            clip: [
                                [rate, _drawable(value), setting]
                                for (rate, value), setting in zip(points, series.settings[clip], strict=True)
                            ]
                            for clip, points in series.clips.items()
                        },
                    }
                    for codec, series in some.items()
                ],
            }
            for metric, some in comparison.series.items()
        ],
    }


def _drawable(value: float) -> float | None:
    """A lossless point has no place on the axis."""
    return value if math.isfinite(value) else None


def _frame_data(results: Results, uris: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "clip": frame.clip,
            "codec": frame.codec,
            "label": "original" if frame.codec == ORIGINAL else look_of(frame.codec).label,
            "bits_per_pixel": frame.bits_per_pixel,
            "frame": frame.frame,
            "uri": uri,
        }
        for frame, uri in zip(results.frames, uris, strict=True)
    ]


def _is_at_target(frame: ExampleFrame) -> bool:
    """Whether a frame is at the rate that was searched, as nearly as the search wants it."""
    if frame.bits_per_pixel is None or frame.target is None:
        return False
    return abs(frame.bits_per_pixel / frame.target - 1) <= TOLERANCE


def _conditions(results: Results, comparison: Comparison) -> list[dict[str, str]]:
    """An example of what each codec was told, and the versions that took part."""
    rows = []
    for codec in comparison.codecs:
        own = [record for record in results.records if record.codec == codec]
        example = own[len(own) // 2]
        versions = sorted({f"{name} {_cut(version)}" for record in own for name, version in record.versions.items()})
        rows.append(
            {
                "label": look_of(codec).label,
                "setting": setting_text(example),
                "command": example.command,
                "versions": ", ".join(versions),
            }
        )
    return rows


def _cut(version: str) -> str:
    """A version whose digests are cut to twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", version)


def _sampling(results: Results) -> list[str]:
    """Metrics that were not measured on every frame."""
    every: dict[str, set[str]] = {}
    for record in results.records:
        for metric, step in record.metric_frames.items():
            if record.metrics.get(metric) is not None:
                first = record.metric_first.get(metric, 0)
                every.setdefault(metric, set()).add(
                    "all" if step == 1 else f"one frame in {step} from number {first} on"
                )
    return [
        f"{METRIC_LOOKS[metric].label}: {' or '.join(sorted(steps))}"
        for metric, steps in every.items()
        if steps != {"all"}
    ]


def _precision(results: Results) -> list[str]:
    """Metrics that were computed in another precision than float32."""
    found = {
        f"{METRIC_LOOKS[metric].label} in {precision}"
        for record in results.records
        for metric, precision in record.metric_precision.items()
        if record.metrics.get(metric) is not None
    }
    return sorted(found)
