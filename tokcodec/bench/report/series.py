"""Curves by metric and codec, and how each codec is named and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokcodec.bench.curves import (
    BdRow,
    averaged_curve,
    bd_rows,
    better_variant,
    clip_curves,
    is_better,
    mean_curve,
    variant_of,
)
from tokcodec.bench.equal import OWN, Level, MeanPoint, Points, full_points, levels_of, mean_points
from tokcodec.bench.record import METRICS, BenchRecord

ANCHOR = "x265"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a codec is named and drawn.

    Attributes:
        label: For people.
        colour: "#rrggbb", told apart by colour-blind readers too (Okabe and Ito).
        marker: matplotlib's letter.
    """

    label: str
    colour: str
    marker: str


LOOKS = {
    "tokcodec": Look(label="tokcodec", colour="#d55e00", marker="o"),
    "x265": Look(label="x265", colour="#0072b2", marker="s"),
    "x265-veryslow": Look(label="x265 veryslow", colour="#56b4e9", marker="D"),
    "svtav1": Look(label="SVT-AV1", colour="#009e73", marker="^"),
    "vvenc": Look(label="VVenC", colour="#cc79a7", marker="v"),
    "x264": Look(label="x264", colour="#8c8c8c", marker="P"),
}
_SPARE = Look(label="", colour="#b8860b", marker="X")


def look_of(codec: str) -> Look:
    """The look of a codec; one that is not known by name keeps its name."""
    return LOOKS.get(codec, Look(label=codec, colour=_SPARE.colour, marker=_SPARE.marker))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is named and written.

    Attributes:
        label: For headings.
        unit: Of the axis; "" where it has none.
        digits: After the point, of a single measurement.
        table_digits: Likewise, of a mean over clips.
        less_is_better: Direction.
    """

    label: str
    unit: str
    digits: int
    table_digits: int
    less_is_better: bool = False


METRIC_LOOKS = {
    "psnr_rgb": Metric(label="PSNR RGB", unit="dB", digits=2, table_digits=2),
    "psnr_y": Metric(label="PSNR Y", unit="dB", digits=2, table_digits=2),
    "ms_ssim_rgb": Metric(label="MS-SSIM RGB", unit="", digits=4, table_digits=3),
    "lpips_alex": Metric(label="LPIPS AlexNet", unit="", digits=4, table_digits=3, less_is_better=True),
    "lpips_vgg": Metric(label="LPIPS VGG", unit="", digits=4, table_digits=3, less_is_better=True),
    "dists": Metric(label="DISTS", unit="", digits=4, table_digits=3, less_is_better=True),
    "vmaf": Metric(label="VMAF", unit="", digits=2, table_digits=1),
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One codec by one metric.

    Attributes:
        codec: Name.
        variant: Which of the codec's ways of coding; "" where it has one. The better one by this metric.
        clips: Rate and quality of each point by clip.
        settings: What the codec was told, in the order of those points, by clip.
        levels: The mean over clips at each of tokcodec's levels, at its rate on each clip; empty without tokcodec.
        mean: Those of them that all clips count in, by rising rate. Without tokcodec the mean at rates that all clips
            reach.
    """

    codec: str
    variant: str
    clips: dict[str, Points]
    settings: dict[str, list[str]]
    levels: Sequence[MeanPoint]
    mean: Points

    @property
    def label(self) -> str:
        """The codec, and its variant where it has one."""
        name = look_of(self.codec).label
        return f"{name}, {self.variant.replace('=', ' ')}" if self.variant else name


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A point of a mean as it is drawn.

    Attributes:
        bits_per_pixel: Rate.
        value: Quality.
        text: At which level, over which clips; "" where there are no levels.
        part: How many clips count, where not all do: "11/12". Such a point is hollow.
    """

    bits_per_pixel: float
    value: float
    text: str
    part: str


def drawn_points(series: Series) -> list[Drawn]:
    """The mean over clips by rising rate: all points in which half of the clips or more count."""
    if not series.levels:
        return [Drawn(bits_per_pixel=rate, value=value, text="", part="") for rate, value in series.mean]
    points = [
        Drawn(
            bits_per_pixel=point.bits_per_pixel,
            value=point.value,
            text=f"{point.level}, {point.clips}",
            part=point.share if point.missing else "",
        )
        for point in series.levels
        if point.values and len(point.values) >= len(point.missing)
    ]
    return sorted(points, key=lambda point: point.bits_per_pixel)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that is drawn and tabled.

    Attributes:
        codecs: Names, tokcodec and the anchor first.
        levels: Of tokcodec, by rising mean rate; empty without it.
        series: By metric, then by codec; a metric that nobody was measured by has none.
        missing: Reasons by metric, where a metric is missing from some records or from all.
        bd: BD-rates by metric, then by codec, of the variant that the series shows.
    """

    codecs: Sequence[str]
    levels: Sequence[Level]
    series: dict[str, dict[str, Series]]
    missing: dict[str, list[str]]
    bd: dict[str, dict[str, BdRow]]


def make_comparison(records: Sequence[BenchRecord]) -> Comparison:
    """Choose variants, average, and compute BD-rates against x265."""
    codecs = sorted({record.codec for record in records}, key=lambda name: [*LOOKS, name].index(name))
    rows = bd_rows(records, anchor=ANCHOR)
    levels = levels_of(records)
    series: dict[str, dict[str, Series]] = {}
    bd: dict[str, dict[str, BdRow]] = {}
    missing: dict[str, list[str]] = {}
    for metric in METRICS:
        for codec in codecs:
            one = _series(records, rows, levels, codec, metric)
            if one is None:
                continue
            series.setdefault(metric, {})[codec] = one
            found = [row for row in rows if (row.codec, row.variant, row.metric) == (codec, one.variant, metric)]
            if found:
                bd.setdefault(metric, {})[codec] = found[0]
        without = [record for record in records if record.metrics[metric] is None]
        reasons = {record.metrics_missing.get(metric, "no reason was recorded") for record in without}
        if without and len(without) < len(records):
            missing[metric] = [f"{len(without)} of {len(records)} measurements: {text}" for text in sorted(reasons)]
        elif without:
            missing[metric] = sorted(reasons)
    return Comparison(codecs=codecs, levels=levels, series=series, missing=missing, bd=bd)


def _series(
    records: Sequence[BenchRecord], rows: Sequence[BdRow], levels: Sequence[Level], codec: str, metric: str
) -> Series | None:
    curves = clip_curves(records, codec, metric)
    if not curves:
        return None
    clips = sorted({record.clip for record in records})
    variant = _variant(curves, rows, levels, codec, metric)
    points: dict[str, list[tuple[float, float, str]]] = {}
    for record in records:
        value = record.metrics[metric]
        if record.codec == codec and variant_of(record) == variant and value is not None:
            points.setdefault(record.clip, []).append((record.bits_per_pixel, value, setting_text(record)))
    means = mean_points(curves[variant], levels, clips, is_own=codec == OWN)
    ordered = {clip: sorted(some) for clip, some in sorted(points.items())}
    return Series(
        codec=codec,
        variant=variant,
        clips={clip: [(rate, value) for rate, value, _ in some] for clip, some in ordered.items()},
        settings={clip: [text for _, _, text in some] for clip, some in ordered.items()},
        levels=means,
        mean=full_points(means) if levels else mean_curve(curves[variant]),
    )


def _variant(
    curves: dict[str, dict[str, Points]], rows: Sequence[BdRow], levels: Sequence[Level], codec: str, metric: str
) -> str:
    """The variant with the lower BD-rate; where there are none, the better one over the rates that both have."""
    if len(curves) == 1:
        return next(iter(curves))
    best = better_variant(rows, codec, metric)
    if best is not None and (
        best.mean_per_clip["pchip"] is not None or best.from_mean_curve["pchip"].percent is not None
    ):
        return best.variant
    first, *others = sorted(curves)
    for other in others:
        clips = sorted(curves[first].keys() & curves[other].keys())
        values = _at_common_rates(*(averaged_curve(curves[name], levels, clips, codec) for name in (first, other)))
        if values is not None and is_better(metric, values[1], values[0]):
            first = other
    return first


def _at_common_rates(first: Points, second: Points) -> tuple[float, float] | None:
    """Mean quality of two curves over the rates that both have, linear in the logarithm of the rate."""
    if not first or not second:
        return None
    low, high = max(first[0][0], second[0][0]), min(first[-1][0], second[-1][0])
    if low > high:
        return None
    grid = np.linspace(math.log(low), math.log(high), 33)
    one, two = (
        float(np.mean(np.interp(grid, [math.log(rate) for rate, _ in curve], [quality for _, quality in curve])))
        for curve in (first, second)
    )
    return one, two


def setting_text(record: BenchRecord) -> str:
    """A record's setting for people; digests are cut to eight digits."""
    return ", ".join(
        f"{name} {value[:8] if isinstance(value, str) and len(value) == 64 else value}"
        for name, value in record.setting.items()
    )
