"""PNG figures by matplotlib."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcodec.bench.report.load import Results
from tokcodec.bench.report.paper import PAPER_METRICS, read_paper
from tokcodec.bench.report.series import ANCHOR, METRIC_LOOKS, Comparison, drawn_points, look_of
from tokcodec.bench.report.tables import MINUS, bd_value, percent
from tokcodec.errors import OutputError, UsageError
from tokcodec.output import atomic, write_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
HOLLOW = (
    "Hollow: mean over fewer clips, their number beside it; the others lie outside that codec's rates or have no value."
)
_PUBLISHED = {
    "HEVC": ("#0072b2", "s"),
    "VVC": ("#cc79a7", "v"),
    "MAGVIT": ("#bbbbbb", "*"),
    "MAGVIT-v2": ("#f0e442", "*"),
}


def check_matplotlib() -> None:
    """Refuse at once, and not after hours.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("figures need matplotlib", hint="pip install 'tokcodec[bench]'")


def draw_figures(results: Results, comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Draw every figure that there are numbers for, replacing those of an earlier run.

    Returns:
        File by name: "rate_quality", "bd_rate", "paper".

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: The folder cannot be written.
    """
    check_matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, where=str(folder)) from error
    made = {
        "rate_quality": _rate_quality(results, comparison),
        "bd_rate": _bd_rate(comparison),
        "paper": _paper(results, comparison),
    }
    written = {}
    for name, figure in made.items():
        if figure is not None:
            written[name] = folder / f"{name}.png"
            _save(figure, written[name])
    return written


def _save(figure: Figure, target: Path) -> None:
    with atomic(target, force=True) as part:
        try:
            # Without the version of matplotlib in it, equal figures are equal files.
            figure.savefig(part, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        except OSError as error:
            raise OutputError("cannot be written", where=str(target)) from error


def _panels(count: int, *, width: float = 4.6, height: float = 3.5) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = 2 if count in (2, 4) else min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    axes: list[Any] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def _dress(axis: Any, metric: str) -> None:
    look = METRIC_LOOKS[metric]
    axis.set_xscale("log")
    axis.set_xlabel("bits per pixel", fontsize=9)
    unit = f", {look.unit}" if look.unit else ""
    better = "less is better, axis points down" if look.less_is_better else "more is better"
    axis.set_title(f"{look.label}{unit}", fontsize=10.5, fontweight="bold", loc="left")
    axis.set_title(better, fontsize=8.5, color="#555555", loc="right")
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.grid(visible=True, which="minor", axis="x", alpha=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axis.get_xlim()
    shown = "2357" if high / low < 12 else "25"
    axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in shown else "")
    axis.tick_params(which="both", labelsize=8)
    axis.tick_params(axis="x", which="both", length=3, pad=3)
    if look.less_is_better:
        axis.invert_yaxis()


def _curves(axis: Any, comparison: Comparison, metric: str) -> bool:
    """Draw the means; gives whether there are hollow points, in which not all clips count."""
    is_hollow = False
    for codec, series in comparison.series[metric].items():
        look, points = look_of(codec), drawn_points(series)
        own = codec == "tokcodec"
        style = {"color": look.colour, "zorder": 3 if own else 2}
        whole = [(point.bits_per_pixel, point.value) for point in points if not point.part]
        part = [(point.bits_per_pixel, point.value) for point in points if point.part]
        if part:
            every = [(point.bits_per_pixel, point.value) for point in points]
            axis.plot(*zip(*every, strict=True), ":", linewidth=1.2, **style)
            name = {} if whole else {"label": series.label}
            hollow = {"markerfacecolor": "white", "markersize": 6 if own else 5, "markeredgewidth": 1.3}
            axis.plot(*zip(*part, strict=True), look.marker, **hollow, **style, **name)
            is_hollow = True
            for point in points:
                place = {"xy": (point.bits_per_pixel, point.value), "xytext": (5, -9), "textcoords": "offset points"}
                axis.annotate(point.part, **place, fontsize=6.5, color=look.colour)
        if whole:
            wide = {"markersize": 6 if own else 5, "linewidth": 2.4 if own else 1.6}
            axis.plot(*zip(*whole, strict=True), f"{look.marker}-", label=series.label, **wide, **style)
    return is_hollow


def _facts(results: Results) -> str:
    clips = len(results.clips)
    return f"{', '.join(results.datasets)}: {clips} {'clip' if clips == 1 else 'clips'} of {', '.join(results.sizes)}"


def _means(comparison: Comparison) -> str:
    """What the points are, in a line."""
    if comparison.levels:
        return "means over clips; others at tokcodec's rate on each clip"
    return "means over clips at rates that all clips reach"


def _rate_quality(results: Results, comparison: Comparison) -> Figure | None:
    if not comparison.series:
        return None
    figure, axes = _panels(len(comparison.series))
    _fill(figure, axes, comparison, list(comparison.series))
    figure.suptitle(f"{_facts(results)}; {_means(comparison)}", fontsize=9)
    return figure


def _fill(figure: Figure, axes: list[Any], comparison: Comparison, metrics: Sequence[str]) -> None:
    """A panel for each metric with a legend, and below all what hollow points are."""
    is_hollow = False
    for axis, metric in zip(axes, metrics, strict=True):
        is_hollow |= _curves(axis, comparison, metric)
        _dress(axis, metric)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8.5, frameon=False, loc="best")
    if is_hollow:
        figure.supxlabel(HOLLOW, fontsize=8, color="#555555", x=0.01, ha="left")


def draw_summary(results: Results, comparison: Comparison, metrics: Sequence[str], target: Path) -> None:
    """One row of panels, for a page such as the README.

    Args:
        results: Of a run.
        comparison: What is drawn.
        metrics: A panel for each.
        target: The PNG, about 600 pixels a panel wide.

    Raises:
        UsageError: matplotlib is not installed, or a metric was not measured.
        OutputError: The file cannot be written.
    """
    check_matplotlib()
    unknown = [metric for metric in metrics if metric not in comparison.series]
    if unknown:
        raise UsageError(f"not measured: {', '.join(unknown)}", hint=f"one of {', '.join(comparison.series)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.62 * len(metrics), 3.9), layout="constrained")
    axes = list(figure.subplots(1, len(metrics), squeeze=False).flat)
    _fill(figure, axes, comparison, metrics)
    figure.suptitle(f"{_facts(results)}; {_means(comparison)}", fontsize=9.5)
    _save(figure, target)


def _bd_rate(comparison: Comparison) -> Figure | None:
    bars = {
        metric: {codec: bd_value(row, "pchip") for codec, row in rows.items() if codec != ANCHOR}
        for metric, rows in comparison.bd.items()
    }
    bars = {metric: some for metric, some in bars.items() if any(value is not None for value in some.values())}
    if not bars:
        return None
    figure, axes = _panels(len(bars), height=2.2)
    for axis, (metric, some) in zip(axes, bars.items(), strict=True):
        names = list(reversed(some))
        labels = [look_of(codec).label for codec in names]
        lengths = [value if (value := some[codec]) is not None else 0.0 for codec in names]
        texts = [
            "none" if some[codec] is None else percent(length, digits=0)
            for codec, length in zip(names, lengths, strict=True)
        ]
        drawn = axis.barh(labels, lengths, color=[look_of(codec).colour for codec in names])
        axis.bar_label(drawn, labels=texts, fontsize=8, padding=3)
        axis.axvline(0, color="k", linewidth=0.8)
        low, high = min(lengths), max(lengths)
        room = 0.22 * ((high - low) or 1)
        axis.set_xlim(min(low, 0) - room, max(high, 0) + room)
        axis.set_title(METRIC_LOOKS[metric].label, fontsize=10, fontweight="bold", loc="left")
        axis.tick_params(labelsize=8)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}%".replace("-", MINUS))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("BD-rate against x265 (less is better)", fontsize=9.5)
    return figure


def _paper(results: Results, comparison: Comparison) -> Figure | None:
    pairs = [(theirs, name) for theirs, ours in PAPER_METRICS.items() for name in ours if name in comparison.series]
    if not pairs:
        return None
    paper = read_paper()
    figure, axes = _panels(len(pairs))
    for axis, (theirs, name) in zip(axes, pairs, strict=True):
        _curves(axis, comparison, name)
        for published, (colour, marker) in _PUBLISHED.items():
            found = [
                (point.bits_per_pixel, value)
                for point in paper.figure9
                if point.name == published and (value := point.values[theirs]) is not None
            ]
            if found:
                style = {"color": colour, "markeredgecolor": "black", "markersize": 11 if marker == "*" else 8}
                axis.plot(*zip(*found, strict=True), marker, label=f"{published}, published", zorder=4, **style)
        _dress(axis, name)
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label.split(", qpa")[0], handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(
        f"Black edge: published in the MAGVIT-v2 paper (MCL-JCV, 640x360). Lines: measured here ({_facts(results)}).",
        fontsize=9,
    )
    return figure
