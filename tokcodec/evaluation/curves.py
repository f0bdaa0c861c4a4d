"""Means over clips, and a curve's quality at a given rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokcodec.evaluation.record import METRICS, Record

BETTER_IF_LESS = frozenset({"lpips_alex", "lpips_vgg", "dists"})


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One setting of one codec, averaged over clips.

    Attributes:
        setting: Quality level, bits per pixel asked for, or constant rate factor.
        clips: How many.
        frames: Of all clips.
        bits_per_pixel: Mean over clips.
        quality: Mean over clips by metric; None where a clip has none.
    """

    setting: float
    clips: int
    frames: int
    bits_per_pixel: float
    quality: dict[str, float | None]


def average(records: Iterable[Record], codec: str) -> list[CurvePoint]:
    """The curve of one codec, by rising rate; every clip counts the same."""
    by_setting: dict[float, list[Record]] = {}
    for record in records:
        if record.key.codec == codec:
            by_setting.setdefault(record.key.setting, []).append(record)
    points = [
        CurvePoint(
            setting=setting,
            clips=len(some),
            frames=sum(record.frames for record in some),
            bits_per_pixel=sum(record.bits_per_pixel for record in some) / len(some),
            quality={name: _mean([record.quality[name] for record in some]) for name in METRICS},
        )
        for setting, some in by_setting.items()
    ]
    return sorted(points, key=lambda point: point.bits_per_pixel)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if len(there) == len(values) else None


def at_rate(curve: Sequence[CurvePoint], bits_per_pixel: float) -> dict[str, float | None] | None:
    """Quality on a curve at a rate: linear in the logarithm of the rate between the two points around it.

    Returns:
        Value by metric, or None where the rate is outside the curve: nothing is extrapolated.
    """
    for left, right in pairwise(curve):
        if left.bits_per_pixel <= bits_per_pixel <= right.bits_per_pixel:
            span = math.log(right.bits_per_pixel / left.bits_per_pixel)
            share = math.log(bits_per_pixel / left.bits_per_pixel) / span if span else 0.0
            return {name: _mix(left.quality[name], right.quality[name], share) for name in METRICS}
    return None


def _mix(left: float | None, right: float | None, share: float) -> float | None:
    if left is None or right is None:
        return None
    if math.isinf(left) or math.isinf(right):
        return min(left, right)
    return left + share * (right - left)


def monotone_breaks(points: Iterable[CurvePoint]) -> list[str]:
    """Where a higher quality level is not larger, or not better by a metric; empty for a curve in order."""
    ordered = sorted(points, key=lambda point: point.setting)
    breaks = []
    for low, high in pairwise(ordered):
        step = f"from level {low.setting:g} to {high.setting:g}"
        if high.bits_per_pixel <= low.bits_per_pixel:
            breaks.append(f"bits_per_pixel does not rise {step}")
        for name in METRICS:
            before, after = low.quality[name], high.quality[name]
            if before is None or after is None:
                continue
            if after >= before if name in BETTER_IF_LESS else after <= before:
                breaks.append(f"{name} gets no better {step}")
    return breaks
