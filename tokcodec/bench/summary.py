"""What `tokcodec bench` says at the end: BD-rates, what is absent, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokcodec.bench.curves import BdRow, bd_rows, better_variant
from tokcodec.bench.record import METRICS, BenchRecord

HEADS = {
    "psnr_rgb": "PSNR RGB",
    "psnr_y": "PSNR Y",
    "ms_ssim_rgb": "MS-SSIM",
    "lpips_alex": "LPIPS Alex",
    "lpips_vgg": "LPIPS VGG",
    "dists": "DISTS",
    "vmaf": "VMAF",
}
ANCHOR = "x265"


def bd_table(records: Sequence[BenchRecord]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows and remarks of the table of BD-rates against x265 medium, PCHIP, per clip then averaged.

    Of VVenC's two curves each metric gets the better one. A dash is a BD-rate that does not exist; a remark says why.
    """
    rows = bd_rows(records, anchor=ANCHOR)
    metrics = [metric for metric in METRICS if any(row.metric == metric for row in rows)]
    codecs = list(dict.fromkeys(row.codec for row in rows))
    table, remarks = [], []
    for codec in codecs:
        cells = [codec]
        for metric in metrics:
            row = better_variant(rows, codec, metric)
            cells.append("" if row is None else _cell(row))
            if row is not None and row.mean_per_clip["pchip"] is None:
                remarks.append(f"{codec}, {HEADS[metric]}: {row.missing('pchip')}")
        table.append(cells)
    return ["codec", *(HEADS[metric] for metric in metrics)], table, remarks


def _cell(row: BdRow) -> str:
    value = row.mean_per_clip["pchip"]
    return "-" if value is None else f"{value:+.1f}%"


def bd_values(records: Sequence[BenchRecord]) -> list[dict[str, Any]]:
    """Every BD-rate for programs: per clip, their mean, and from the averaged curve; null with a reason."""
    return [
        {
            "codec": row.codec,
            "variant": row.variant,
            "anchor": ANCHOR,
            "metric": row.metric,
            "clips": row.clips,
            "mean_per_clip": dict(row.mean_per_clip),
            "mean_per_clip_missing": row.missing("pchip"),
            "from_mean_curve": {
                method: {"percent": found.percent, "reason": found.reason}
                for method, found in row.from_mean_curve.items()
            },
            "per_clip": {
                clip: {method: found.percent for method, found in both.items()} for clip, both in row.per_clip.items()
            },
        }
        for row in bd_rows(records, anchor=ANCHOR)
    ]
