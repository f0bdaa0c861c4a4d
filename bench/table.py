"""A results folder of `tokcodec bench` as a table in Markdown: each quality of tokcodec, others at the same rate.

    python bench/table.py bench/results/dev [--plot FILE.png]

Means over clips. Another codec's value is interpolated clip by clip at the rate of tokcodec's point, linearly in the
logarithm of the rate, never extrapolated: where a clip's points do not reach the rate, the cell says so. Of VVenC the
better of its two curves is taken for each metric.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from tokcodec.bench.curves import Points, clip_curves, is_better
from tokcodec.bench.record import BenchRecord
from tokcodec.bench.report.load import load_results
from tokcodec.bench.report.series import look_of

COLUMNS = {
    "psnr_rgb": "PSNR RGB, dB",
    "ms_ssim_rgb": "MS-SSIM",
    "lpips_alex": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG)",
}
DIGITS = {"psnr_rgb": 2, "ms_ssim_rgb": 3, "lpips_alex": 3, "lpips_vgg": 3}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quality of tokcodec; values by metric, then by codec, None where a clip does not reach the rate."""

    quality: int
    bits_per_pixel: float
    values: dict[str, dict[str, float | None]]


def at_rates(clips: Mapping[str, Points], rates: Mapping[str, float]) -> float | None:
    """Mean over clips of a codec's quality, each at its rate; None where one clip does not reach it."""
    values = []
    for clip, rate in rates.items():
        points = sorted(clips.get(clip, []))
        if not points or not points[0][0] <= rate <= points[-1][0]:
            return None
        values.append(float(np.interp(math.log(rate), [math.log(r) for r, _ in points], [q for _, q in points])))
    return fmean(values)


def beside(records: list[BenchRecord], codec: str, metric: str, rates: Mapping[str, float]) -> float | None:
    """The better of a codec's curves at these rates."""
    best: float | None = None
    for clips in clip_curves(records, codec, metric).values():
        value = at_rates(clips, rates)
        if value is not None and (best is None or is_better(metric, value, best)):
            best = value
    return best


def rows(records: list[BenchRecord], others: list[str], metrics: list[str]) -> list[Row]:
    """One row for each quality of tokcodec."""
    found = []
    ours = [record for record in records if record.codec == "tokcodec"]
    for quality in sorted({int(record.setting["quality"]) for record in ours}):
        level = [record for record in ours if record.setting["quality"] == quality]
        rates = {record.clip: record.bits_per_pixel for record in level}
        values = {
            metric: {
                "tokcodec": fmean(float(record.metrics[metric] or math.nan) for record in level),
                **{codec: beside(records, codec, metric, rates) for codec in others},
            }
            for metric in metrics
        }
        found.append(Row(quality=quality, bits_per_pixel=fmean(rates.values()), values=values))
    return found


def markdown(found: list[Row], others: list[str], metrics: list[str]) -> str:
    """The rows as a table."""
    heads = [f"{COLUMNS[metric]}: tokcodec, {', '.join(others)}" for metric in metrics]
    lines = ["| quality | bits per pixel | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for row in found:
        cells = []
        for metric in metrics:
            texts = {
                codec: "out of reach" if value is None else f"{value:.{DIGITS[metric]}f}"
                for codec, value in row.values[metric].items()
            }
            cells.append(", ".join([f"**{texts['tokcodec']}**", *(texts[codec] for codec in others)]))
        lines.append(f"| {row.quality} | {row.bits_per_pixel:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: list[Row], others: list[str], metrics: list[str], target: Path) -> None:
    """The rows as curves, a panel for each metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(metrics), 3.6), layout="constrained")
    for axis, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        for codec in ["tokcodec", *others]:
            points = [(row.bits_per_pixel, row.values[metric][codec]) for row in found]
            known = [point for point in points if point[1] is not None]
            look = look_of(codec)
            axis.plot(*zip(*known, strict=True), color=look.colour, marker=look.marker, label=look.label)
        axis.set(title=COLUMNS[metric], xlabel="bits per pixel")
        axis.grid(alpha=0.3)
        axis.legend()
        if metric.startswith("lpips"):
            axis.invert_yaxis()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what `tokcodec bench --out` wrote")
    parser.add_argument("--others", default="x265,svtav1,vvenc", help="codecs beside tokcodec")
    parser.add_argument("--metrics", default="psnr_rgb,lpips_alex", help=", ".join(COLUMNS))
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the rows too, better is up")
    arguments = parser.parse_args()
    others, metrics = arguments.others.split(","), arguments.metrics.split(",")
    found = rows(list(load_results(arguments.results).records), others, metrics)
    print(markdown(found, others, metrics))
    if arguments.plot is not None:
        plot(found, others, metrics, arguments.plot)


if __name__ == "__main__":
    main()
