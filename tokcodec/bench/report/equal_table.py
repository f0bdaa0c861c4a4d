"""Every codec at tokcodec's rates, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tokcodec.bench.curves import is_better
from tokcodec.bench.equal import OWN, MeanPoint
from tokcodec.bench.report.series import METRIC_LOOKS, Comparison, Series, look_of

NOBODY = "out of range"


@dataclass(frozen=True, kw_only=True)
class EqualCell:
    """One codec by one metric at one level.

    Attributes:
        value: Mean over clips; "out of range" where no clip counts.
        clips: How many count, where not all do: "11 of 12 clips".
        own: tokcodec's mean over those clips, where not all count.
        note: Which clips do not count and why; "" where all do.
        is_best: Whether no codec is better there; never where a codec lacks a clip.
    """

    value: str
    clips: str
    own: str
    note: str
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class EqualRow:
    """One codec by one metric, a cell for each level."""

    codec: str
    label: str
    cells: Sequence[EqualCell]


@dataclass(frozen=True, kw_only=True)
class EqualGroup:
    """One metric.

    Attributes:
        title: Its name, unit and direction.
        rows: One for each codec.
    """

    title: str
    rows: Sequence[EqualRow]


def equal_groups(comparison: Comparison) -> list[EqualGroup]:
    """A group for each metric that was measured; none without tokcodec."""
    if not comparison.levels:
        return []
    groups = []
    for metric, some in comparison.series.items():
        look = METRIC_LOOKS[metric]
        unit = f", {look.unit}" if look.unit else ""
        best = [_best(metric, some, number) for number in range(len(comparison.levels))]
        rows = [
            EqualRow(
                codec=codec,
                label=series.label,
                cells=[
                    _cell(metric, codec, point, own_point(some, number), is_best=codec in best[number])
                    for number, point in enumerate(series.levels)
                ],
            )
            for codec, series in some.items()
        ]
        groups.append(
            EqualGroup(title=f"{look.label}{unit} ({'less' if look.less_is_better else 'more'} is better)", rows=rows)
        )
    return groups


def equal_notes(comparison: Comparison) -> list[str]:
    """Which clips do not count in which cells, said once where levels or metrics have it in common."""
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for metric, some in comparison.series.items():
        for series in some.values():
            for point in series.levels:
                if point.missing:
                    levels = found.setdefault((series.label, point.clips, missing_text(point)), {})
                    levels.setdefault(metric, []).append(point.level)
    notes = []
    for (label, clips, why), levels in found.items():
        # Metrics nearly always lack the same clips.
        for where in dict.fromkeys(map(tuple, levels.values())):
            metrics = [metric for metric, some in levels.items() if tuple(some) == where]
            own = [metric for metric, some in comparison.series.items() if any(s.label == label for s in some.values())]
            names = "" if metrics == own else f" ({', '.join(METRIC_LOOKS[metric].label for metric in metrics)})"
            notes.append(f"{label}{names}, {join_levels(where)}: {clips} count ({why})")
    return notes


def join_levels(levels: Sequence[str]) -> str:
    """Levels in one phrase: "quality 2, 3, 4"."""
    first, *others = levels
    return ", ".join([first, *(level.removeprefix("quality ") for level in others)])


def own_point(some: Mapping[str, Series], number: int) -> MeanPoint | None:
    """tokcodec's point at a level; None where it was not measured by this metric."""
    return some[OWN].levels[number] if OWN in some else None


def over_same_clips(own: MeanPoint | None, point: MeanPoint) -> float | None:
    """tokcodec's mean over the clips in which another codec counts; None where it has not all of them."""
    if own is None or not point.values or not point.values.keys() <= own.values.keys():
        return None
    return fmean(own.values[clip] for clip in point.values)


def missing_text(point: MeanPoint) -> str:
    """The clips that do not count, by reason: "camel, dog below its lowest rate"."""
    reasons: dict[str, list[str]] = {}
    for clip, reason in point.missing.items():
        reasons.setdefault(reason, []).append(clip)
    return "; ".join(f"{', '.join(clips)}: {reason}" for reason, clips in reasons.items())


def _best(metric: str, some: Mapping[str, Series], number: int) -> set[str]:
    """Codecs with the best value at a level; means over different clips do not compare."""
    points = {codec: series.levels[number] for codec, series in some.items()}
    if len(points) < 2 or any(point.missing for point in points.values()):
        return set()
    values = {codec: round(point.value, METRIC_LOOKS[metric].table_digits) for codec, point in points.items()}
    return {codec for codec, value in values.items() if not any(is_better(metric, v, value) for v in values.values())}


def _cell(metric: str, codec: str, point: MeanPoint, own: MeanPoint | None, *, is_best: bool) -> EqualCell:
    digits = METRIC_LOOKS[metric].table_digits
    beside = None if codec == OWN or not point.missing else over_same_clips(own, point)
    return EqualCell(
        value=f"{point.value:.{digits}f}" if point.values else NOBODY,
        clips=point.clips if point.missing and point.values else "",
        own="" if beside is None else f"{look_of(OWN).label} {beside:.{digits}f}",
        note=missing_text(point),
        is_best=is_best,
    )
