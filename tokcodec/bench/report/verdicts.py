"""BD-rates in words."""

from __future__ import annotations

from statistics import fmean

from tokcodec.bench.report.series import METRIC_LOOKS, Comparison, look_of
from tokcodec.bench.report.tables import bd_value


def overlaps(comparison: Comparison) -> list[str]:
    """How much of the range of quality BD-rates of clips cover, a phrase for each codec: "x264 50% to 70%"."""
    phrases = []
    for codec in comparison.codecs:
        rows = [some[codec] for some in comparison.bd.values() if codec in some]
        shares = [fmean(found["pchip"].overlap for found in row.per_clip.values()) for row in rows if row.per_clip]
        if shares:
            low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
            phrases.append(f"{look_of(codec).label} {low if low == high else f'{low} to {high}'}")
    return phrases


def verdicts(comparison: Comparison, codec: str = "tokcodec") -> list[str]:
    """Where a codec wins and loses against the anchor, a phrase for each metric."""
    sentences = []
    apart: dict[str, list[str]] = {}
    for metric, rows in comparison.bd.items():
        row = rows.get(codec)
        if row is None:
            continue
        value, label = bd_value(row, "pchip"), METRIC_LOOKS[metric].label
        if value is None:
            apart.setdefault(row.missing("pchip"), []).append(label)
        else:
            kind = " (averaged curve)" if row.mean_per_clip["pchip"] is None else ""
            sentences.append(f"{abs(value):.0f}% {'less' if value < 0 else 'more'} at equal {label}{kind}")
    return sentences + [f"none by {', '.join(labels)} ({reason})" for reason, labels in apart.items()]
