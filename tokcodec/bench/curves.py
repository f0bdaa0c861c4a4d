"""Curves of one clip, their mean, and BD-rates both ways."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokcodec.bench.bdrate import METHODS, BdRate, Method, bd_rate
from tokcodec.bench.equal import OWN, Level, Points, at_rate, full_points, levels_of, mean_points
from tokcodec.bench.record import BETTER_IF_LESS, METRICS, BenchRecord

GRID_POINTS = 8
"""Rates at which curves are averaged where tokcodec was not measured."""


def variant_of(record: BenchRecord) -> str:
    """Which of a codec's curves a record lies on: for VVenC one with QPA and one without, for tokcodec one through a
    post-filter and one without; "" for others."""
    names = [name for name in ("qpa", "post_filter") if name in record.setting]
    return " ".join(f"{name}={record.setting[name]}" for name in names)


def clip_curves(records: Iterable[BenchRecord], codec: str, metric: str) -> dict[str, dict[str, Points]]:
    """Rate and quality, by rising rate: by variant, then by clip; a clip without a value of the metric is left out."""
    curves: dict[str, dict[str, Points]] = {}
    for record in records:
        value = record.metrics[metric]
        if record.codec == codec and value is not None:
            clips = curves.setdefault(variant_of(record), {})
            clips.setdefault(record.clip, []).append((record.bits_per_pixel, value))
    return {name: {clip: sorted(points) for clip, points in clips.items()} for name, clips in curves.items()}


def mean_curve(clips: Mapping[str, Points]) -> Points:
    """The mean over clips at rates that every clip reaches, for results without tokcodec, whose rates give no levels.

    Quantizers are searched clip by clip, so that clips share no settings: each clip's quality is interpolated at rates
    spaced evenly in their logarithm; nothing is extrapolated. Empty where no rate is common.
    """
    curves = [sorted(points) for points in clips.values() if points]
    if not curves:
        return []
    low, high = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if low > high:
        return []
    grid = np.linspace(math.log(low), math.log(high), GRID_POINTS if high > low else 1)
    means = []
    for rate in (min(max(math.exp(one), low), high) for one in grid.tolist()):
        values = [value for curve in curves if (value := at_rate(curve, rate)) is not None]
        means.append((rate, sum(values) / len(values)))
    return means


def averaged_curve(curves: Mapping[str, Points], levels: Sequence[Level], clips: Sequence[str], codec: str) -> Points:
    """The mean over these clips: at tokcodec's rate of every level on each clip, else at rates that all clips reach.

    A level at which a clip does not count has no point. Clips that tokcodec was not measured on are left out.
    """
    if not levels:
        return mean_curve({clip: curves[clip] for clip in clips if clip in curves})
    known = [clip for clip in clips if any(clip in level.rates for level in levels)]
    return full_points(mean_points(curves, levels, known, is_own=codec == OWN))


@dataclass(frozen=True, kw_only=True)
class BdRow:
    """One codec against the anchor by one metric.

    Attributes:
        codec: Name.
        variant: As :func:`variant_of`.
        metric: Name.
        per_clip: BD-rate of each clip by each method.
        mean_per_clip: Mean of those that there are, by method; None where a clip has none.
        clips: Clips that both codecs have.
        from_mean_curve: BD-rate between the two averaged curves (:func:`averaged_curve`), by method.
    """

    codec: str
    variant: str
    metric: str
    per_clip: dict[str, dict[Method, BdRate]]
    mean_per_clip: dict[Method, float | None]
    clips: int
    from_mean_curve: dict[Method, BdRate]

    def missing(self, method: Method) -> str:
        """Why there is no mean over clips; "" where there is one."""
        without = {clip: found[method].reason for clip, found in self.per_clip.items() if found[method].percent is None}
        if not without:
            return "" if self.clips else "no clip that both codecs have"
        clip, reason = next(iter(without.items()))
        return f"{len(without)} of {self.clips} clips have none ({clip}: {reason})"


def bd_rows(records: Sequence[BenchRecord], *, anchor: str = "x265") -> list[BdRow]:
    """Every codec against the anchor by every metric that was measured."""
    rows = []
    levels = levels_of(records)
    codecs = sorted({record.codec for record in records} - {anchor})
    for metric in METRICS:
        base = clip_curves(records, anchor, metric).get("", {})
        for codec in codecs:
            for variant, clips in sorted(clip_curves(records, codec, metric).items()):
                rows.append(_row((anchor, codec), variant, metric, (base, clips), levels))
    return rows


def _row(
    codecs: tuple[str, str],
    variant: str,
    metric: str,
    both: tuple[dict[str, Points], dict[str, Points]],
    levels: Sequence[Level],
) -> BdRow:
    base, clips = both
    common = sorted(base.keys() & clips.keys())
    per_clip: dict[str, dict[Method, BdRate]] = {
        clip: {method: bd_rate(base[clip], clips[clip], method) for method in METHODS} for clip in common
    }
    means: dict[Method, float | None] = {}
    for method in METHODS:
        values = [found[method].percent for found in per_clip.values()]
        there = [value for value in values if value is not None]
        means[method] = sum(there) / len(there) if there and len(there) == len(values) else None
    curves = [averaged_curve(some, levels, common, name) for name, some in zip(codecs, both, strict=True)]
    averaged: dict[Method, BdRate] = {method: bd_rate(curves[0], curves[1], method) for method in METHODS}
    return BdRow(
        codec=codecs[1],
        variant=variant,
        metric=metric,
        per_clip=per_clip,
        mean_per_clip=means,
        clips=len(common),
        from_mean_curve=averaged,
    )


def better_variant(rows: Sequence[BdRow], codec: str, metric: str) -> BdRow | None:
    """Of a codec's variants the one with the lowest BD-rate by this metric; None where the codec has no row."""
    some = [row for row in rows if row.codec == codec and row.metric == metric]
    return min(some, key=_rank, default=None)


def _rank(row: BdRow) -> float:
    value = row.mean_per_clip["pchip"]
    if value is None:
        value = row.from_mean_curve["pchip"].percent
    return math.inf if value is None else value


def is_better(metric: str, first: float, second: float) -> bool:
    """Whether the first value of a metric is better than the second."""
    return first < second if metric in BETTER_IF_LESS else first > second
