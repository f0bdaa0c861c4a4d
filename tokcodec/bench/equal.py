"""All codecs at tokcodec's rates: the comparison at equal rate on every clip, and its means over clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from tokcodec.bench.record import BenchRecord, Setting

OWN = "tokcodec"

Points = list[tuple[float, float]]

BELOW, ABOVE = "below its lowest rate", "above its highest rate"
UNKNOWN, LOSSLESS = "not measured", "lossless there"


@dataclass(frozen=True, kw_only=True)
class Level:
    """One setting of tokcodec, which means the same for all clips.

    Attributes:
        name: For people: "quality 3".
        rates: Bits per pixel that it gives, by clip.
    """

    name: str
    rates: dict[str, float]

    @property
    def bits_per_pixel(self) -> float:
        """Mean over clips."""
        return fmean(self.rates.values())


@dataclass(frozen=True, kw_only=True)
class MeanPoint:
    """One codec by one metric at one of tokcodec's levels.

    Attributes:
        level: Its name.
        rates: Bits per pixel of that level, by clip, of the clips that count.
        values: The codec's quality at exactly that rate, by clip, likewise.
        missing: Why the other clips do not count, by clip; empty where all do.
    """

    level: str
    rates: dict[str, float]
    values: dict[str, float]
    missing: dict[str, str]

    @property
    def bits_per_pixel(self) -> float:
        """Mean over the clips that count; NaN where none does."""
        return fmean(self.rates.values()) if self.rates else math.nan

    @property
    def value(self) -> float:
        """Mean over the clips that count; NaN where none does."""
        return fmean(self.values.values()) if self.values else math.nan

    @property
    def clips(self) -> str:
        """How many count: "11 of 12 clips"."""
        return f"{self.share.replace('/', ' of ')} clips"

    @property
    def share(self) -> str:
        """Likewise: "11/12"."""
        return f"{len(self.values)}/{len(self.values) + len(self.missing)}"


def levels_of(records: Iterable[BenchRecord]) -> list[Level]:
    """tokcodec's settings by rising mean rate; none where it was not measured."""
    own = [record for record in records if record.codec == OWN]
    varying = [name for name in _names(own) if len({record.setting.get(name) for record in own}) > 1]
    levels: dict[str, dict[str, float]] = {}
    for record in own:
        levels.setdefault(_level_name(record.setting, varying), {})[record.clip] = record.bits_per_pixel
    found = [Level(name=name, rates=rates) for name, rates in levels.items()]
    return sorted(found, key=lambda level: level.bits_per_pixel)


def _names(records: Iterable[BenchRecord]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.setting))


def _level_name(setting: Setting, varying: Sequence[str]) -> str:
    told = [name for name in setting if name == "quality" or name in varying]
    return ", ".join(f"{name} {setting[name]}" for name in told) or "its only setting"


def at_rate(points: Points, rate: float) -> float | None:
    """Quality at a rate: PCHIP in the logarithm of the rate; None outside the points, for nothing is extrapolated."""
    by_rate: dict[float, list[float]] = {}
    for some, quality in points:
        by_rate.setdefault(some, []).append(quality)
    rates = sorted(by_rate)
    if not rates or not rates[0] <= rate <= rates[-1]:
        return None
    qualities = [fmean(by_rate[some]) for some in rates]
    if rate in by_rate:
        return qualities[rates.index(rate)]
    # Beside a lossless point there is no curve; elsewhere it would spoil those that there are.
    left = int(np.searchsorted(rates, rate)) - 1
    if not all(map(math.isfinite, qualities[left : left + 2])):
        return math.inf
    kept = [(math.log(some), quality) for some, quality in zip(rates, qualities, strict=True) if math.isfinite(quality)]
    from scipy.interpolate import PchipInterpolator

    return float(PchipInterpolator(*zip(*kept, strict=True))(math.log(rate)))


def mean_points(
    curves: Mapping[str, Points], levels: Iterable[Level], clips: Sequence[str], *, is_own: bool = False
) -> list[MeanPoint]:
    """A codec at the rates of every level, over these clips.

    Args:
        curves: Rate and quality of the codec's points, by clip.
        levels: Of tokcodec.
        clips: Over which the mean shall be.
        is_own: The codec is tokcodec: only what was measured counts, nothing is interpolated.
    """
    found = []
    for level in levels:
        values, missing = {}, {}
        for clip in clips:
            value = _value(curves.get(clip, []), level.rates.get(clip), is_own=is_own)
            if isinstance(value, str):
                missing[clip] = value
            else:
                values[clip] = value
        rates = {clip: level.rates[clip] for clip in values}
        found.append(MeanPoint(level=level.name, rates=rates, values=values, missing=missing))
    return found


def _value(points: Points, rate: float | None, *, is_own: bool) -> float | str:
    """A clip's quality, or why it has none."""
    if rate is None:
        return UNKNOWN if is_own else f"{OWN} was {UNKNOWN}"
    if is_own:
        points = [point for point in points if point[0] == rate]
    if not points:
        return UNKNOWN
    value = at_rate(points, rate)
    if value is None:
        return BELOW if rate < min(points)[0] else ABOVE
    return value if math.isfinite(value) else LOSSLESS


def full_points(points: Iterable[MeanPoint]) -> Points:
    """Rate and quality where every clip counts: means that can be compared, and joined by a line."""
    return sorted((point.bits_per_pixel, point.value) for point in points if point.values and not point.missing)
