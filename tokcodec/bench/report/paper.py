"""The published numbers of the MAGVIT-v2 paper, and ours beside them."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from tokcodec.bench.equal import at_rate
from tokcodec.bench.report.load import Results
from tokcodec.bench.report.series import METRIC_LOOKS, Comparison, Series, look_of

PAPER_METRICS = {"lpips": ("lpips_alex", "lpips_vgg"), "psnr": ("psnr_rgb", "psnr_y"), "ms_ssim": ("ms_ssim_rgb",)}
"""Ours by theirs: they do not say which LPIPS network and which PSNR, so both stand beside it."""
FAR = 0.1
"""A rate that is off by more than this share is pointed out."""


@dataclass(frozen=True, kw_only=True)
class PublishedPoint:
    """One codec at one rate, as published.

    Attributes:
        name: Codec.
        bits_per_pixel: Rate.
        values: By "lpips", "psnr" and "ms_ssim"; None where the paper has no number.
        uncertain: Names of values that are not sure.
        note: Where it was published.
    """

    name: str
    bits_per_pixel: float
    values: dict[str, float | None]
    uncertain: frozenset[str]
    note: str


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The published numbers.

    Attributes:
        title: Of the paper.
        source: Where it is.
        dataset: Name of its dataset here.
        dataset_label: The dataset for people.
        size: Of its pictures.
        bits_per_pixel: Rate of Table 3.
        lpips_network: What is known of it.
        table3: Its rows.
        figure9: Points of quality over rate that are published as numbers, those of Table 3 among them.
    """

    title: str
    source: str
    dataset: str
    dataset_label: str
    size: str
    bits_per_pixel: float
    lpips_network: str
    table3: Sequence[PublishedPoint]
    figure9: Sequence[PublishedPoint]


def read_paper() -> Paper:
    """The numbers of `paper.toml`, which comes with the package."""
    values = tomllib.loads(files(__package__).joinpath("paper.toml").read_text(encoding="utf-8"))
    table = values["table3"]
    rows = [_point({"bits_per_pixel": table["bits_per_pixel"], "note": "Table 3", **row}) for row in table["rows"]]
    return Paper(
        title=values["title"],
        source=values["source"],
        dataset=table["dataset"],
        dataset_label=table["dataset_label"],
        size=table["size"],
        bits_per_pixel=table["bits_per_pixel"],
        lpips_network=table["lpips_network"],
        table3=rows,
        figure9=[*rows, *(_point(row) for row in values["figure9"]["points"])],
    )


def _point(row: dict[str, object]) -> PublishedPoint:
    uncertain = row.get("uncertain", ())
    return PublishedPoint(
        name=str(row["name"]),
        bits_per_pixel=float(str(row["bits_per_pixel"])),
        values={name: float(str(row[name])) if name in row else None for name in PAPER_METRICS},
        uncertain=frozenset(uncertain) if isinstance(uncertain, list) else frozenset(),
        note=str(row["note"]),
    )


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of Table 3 as it is laid out here.

    Attributes:
        name: Codec.
        ours: Whether it was measured here.
        rate: Text.
        cells: Text by our metric; for the published ones by their metric.
        note: What to know about it; "" for nothing.
    """

    name: str
    ours: bool
    rate: str
    cells: dict[str, str]
    note: str


def table3_rows(paper: Paper, comparison: Comparison) -> list[PaperRow]:
    """The published rows, then ours, each at the point of its averaged curve that is nearest to the paper's rate.

    A codec without an averaged curve has a row too, which says why it is empty.
    """
    rows = []
    for point in paper.table3:
        cells = {}
        for name, ours in PAPER_METRICS.items():
            value, digits = point.values[name], 2 if name == "psnr" else 3
            text = "" if value is None else f"{value:.{digits}f}{' ?' if name in point.uncertain else ''}"
            cells[ours[0]] = text
        rows.append(
            PaperRow(name=point.name, ours=False, rate=f"{point.bits_per_pixel:.4f}", cells=cells, note="published")
        )
    return rows + [_our_row(paper, comparison, codec) for codec in comparison.codecs]


def _our_row(paper: Paper, comparison: Comparison, codec: str) -> PaperRow:
    cells, rates, label = {}, [], look_of(codec).label
    for name in (name for ours in PAPER_METRICS.values() for name in ours):
        series = comparison.series.get(name, {}).get(codec)
        point = None if series is None else nearest(series, paper.bits_per_pixel)
        if series is None or point is None:
            cells[name] = ""
            continue
        variant = f" ({series.variant.replace('=', ' ')})" if series.variant else ""
        cells[name] = f"{point[1]:.{2 if METRIC_LOOKS[name].unit else 3}f}{variant}"
        rates.append(point[0])
    if not rates:
        note = "there is no rate at which all clips count"
        return PaperRow(name=label, ours=True, rate="", cells=cells, note=note)
    low, high = min(rates), max(rates)
    rate = f"{low:.4f}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.4f} to {high:.4f}"
    off = max((abs(rate / paper.bits_per_pixel - 1) for rate in rates), default=0.0)
    note = f"nearest rate measured is {off:.0%} off" if off > FAR else ""
    return PaperRow(name=label, ours=True, rate=rate, cells=cells, note=note)


def nearest(series: Series, bits_per_pixel: float) -> tuple[float, float] | None:
    """Rate and quality of the averaged curve at this rate, or at its end that is nearest; None without a curve.

    Between the averaged curve's points it is interpolated as between those of a clip; nothing is extrapolated.
    """
    if not series.mean:
        return None
    rate = min(max(bits_per_pixel, series.mean[0][0]), series.mean[-1][0])
    value = at_rate(series.mean, rate)
    return None if value is None else (rate, value)


def differences(paper: Paper, results: Results) -> list[str]:
    """In what our measurement is not the paper's; empty where it is the same."""
    found = []
    if results.datasets != [paper.dataset]:
        found.append(f"the dataset here is {', '.join(results.datasets)}, the paper's is {paper.dataset_label}")
    if results.sizes != [paper.size]:
        found.append(f"the size here is {', '.join(results.sizes)}, the paper's is {paper.size}")
    found.append(f"the paper's LPIPS network is {paper.lpips_network}, so both of ours are given")
    found.append("the paper does not say whether its PSNR is of RGB or of luma, so both of ours are given")
    return found
