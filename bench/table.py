"""A results folder of `tokcodec bench` as a table in Markdown: each quality of tokcodec, others at the same rate.

    python bench/table.py bench/results/dev

Means over clips. Another codec's value is interpolated clip by clip at the rate of tokcodec's point, linearly in the
logarithm of the rate, never extrapolated: where a clip's points do not reach the rate, the cell says so. Of VVenC the
better of its two curves is taken for each metric.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import numpy as np

from tokcodec.bench.curves import Points, clip_curves, is_better
from tokcodec.bench.record import BenchRecord
from tokcodec.bench.report.load import load_results

COLUMNS = {
    "psnr_rgb": "PSNR RGB, dB",
    "ms_ssim_rgb": "MS-SSIM",
    "lpips_alex": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG)",
}
DIGITS = {"psnr_rgb": 2, "ms_ssim_rgb": 3, "lpips_alex": 3, "lpips_vgg": 3}


def at_rates(clips: Mapping[str, Points], rates: Mapping[str, float]) -> float | None:
    """Mean over clips of a codec's quality, each at its rate; None where one clip does not reach it."""
    values = []
    for clip, rate in rates.items():
        points = sorted(clips.get(clip, []))
        if not points or not points[0][0] <= rate <= points[-1][0]:
            return None
        values.append(float(np.interp(math.log(rate), [math.log(r) for r, _ in points], [q for _, q in points])))
    return fmean(values)


def cell(records: list[BenchRecord], codec: str, metric: str, rates: Mapping[str, float]) -> str:
    """The better of a codec's curves at these rates, as text."""
    found = [at_rates(clips, rates) for clips in clip_curves(records, codec, metric).values()]
    best: float | None = None
    for value in found:
        if value is not None and (best is None or is_better(metric, value, best)):
            best = value
    return "out of reach" if best is None else f"{best:.{DIGITS[metric]}f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what `tokcodec bench --out` wrote")
    parser.add_argument("--others", default="x265,svtav1,vvenc", help="codecs beside tokcodec")
    parser.add_argument("--metrics", default="psnr_rgb,lpips_alex", help=", ".join(COLUMNS))
    arguments = parser.parse_args()
    records = list(load_results(arguments.results).records)
    others, metrics = arguments.others.split(","), arguments.metrics.split(",")
    ours = [record for record in records if record.codec == "tokcodec"]
    heads = [f"{COLUMNS[metric]}: tokcodec, {', '.join(others)}" for metric in metrics]
    print("| quality | bits per pixel | " + " | ".join(heads) + " |")
    print("|---" * (2 + len(heads)) + "|")
    for quality in sorted({int(record.setting["quality"]) for record in ours}):
        level = [record for record in ours if record.setting["quality"] == quality]
        rates = {record.clip: record.bits_per_pixel for record in level}
        cells = []
        for metric in metrics:
            mean = fmean(float(record.metrics[metric] or math.nan) for record in level)
            beside = [cell(records, codec, metric, rates) for codec in others]
            cells.append(f"**{mean:.{DIGITS[metric]}f}**, {', '.join(beside)}")
        print(f"| {quality} | {fmean(rates.values()):.4f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
