"""PNG figures by matplotlib."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcodec.bench.report.load import Results
from tokcodec.bench.report.paper import PAPER_METRICS, read_paper
from tokcodec.bench.report.series import ANCHOR, METRIC_LOOKS, Comparison, look_of
from tokcodec.bench.report.tables import bd_value
from tokcodec.errors import OutputError, UsageError
from tokcodec.output import atomic, write_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
_PUBLISHED = {"HEVC": ("#0072b2", "s"), "VVC": ("#cc79a7", "v"), "MAGVIT": ("#444444", "*"), "MAGVIT-v2": ("k", "*")}


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
        "paper": _paper(comparison),
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
    axis.set_xlabel("bits per pixel")
    axis.set_ylabel(f"{look.label}{f', {look.unit}' if look.unit else ''}")
    axis.set_title(f"{look.label} ({'less' if look.less_is_better else 'more'} is better)", fontsize=10)
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.grid(visible=True, which="minor", axis="x", alpha=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axis.tick_params(which="both", labelsize=8)
    axis.tick_params(axis="x", which="both", length=3, pad=3)
    if look.less_is_better:
        axis.invert_yaxis()


def _curves(axis: Any, comparison: Comparison, metric: str) -> None:
    for codec, series in comparison.series[metric].items():
        look = look_of(codec)
        for points in series.clips.values():
            rates, values = zip(*points, strict=True)
            axis.plot(rates, values, look.marker, color=look.colour, markersize=3, alpha=0.4, markeredgewidth=0)
        if series.mean:
            rates, values = zip(*series.mean, strict=True)
            width = 2.4 if codec == "tokcodec" else 1.5
            axis.plot(
                rates,
                values,
                f"{look.marker}-",
                color=look.colour,
                label=series.label,
                markersize=4,
                linewidth=width,
                zorder=3 if codec == "tokcodec" else 2,
            )


def _rate_quality(results: Results, comparison: Comparison) -> Figure | None:
    if not comparison.series:
        return None
    figure, axes = _panels(len(comparison.series))
    for axis, metric in zip(axes, comparison.series, strict=True):
        _curves(axis, comparison, metric)
        _dress(axis, metric)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=7, frameon=False)
    clips = len(results.clips)
    figure.suptitle(
        f"{', '.join(results.datasets)}, {clips} {'clip' if clips == 1 else 'clips'}, {', '.join(results.sizes)}: "
        "lines are means over clips at equal rate, faint points the single measurements",
        fontsize=9,
    )
    return figure


def _bd_rate(comparison: Comparison) -> Figure | None:
    bars = {
        metric: {
            codec: value
            for codec, row in rows.items()
            if codec != ANCHOR and (value := bd_value(row, "pchip")) is not None
        }
        for metric, rows in comparison.bd.items()
    }
    bars = {metric: some for metric, some in bars.items() if some}
    if not bars:
        return None
    figure, axes = _panels(len(bars), height=2.2)
    for axis, (metric, some) in zip(axes, bars.items(), strict=True):
        names = list(reversed(some))
        labels = [look_of(codec).label for codec in names]
        drawn = axis.barh(labels, [some[codec] for codec in names], color=[look_of(codec).colour for codec in names])
        axis.bar_label(drawn, fmt="%+.0f%%", fontsize=7, padding=2)
        axis.axvline(0, color="k", linewidth=0.8)
        axis.margins(x=0.25)
        axis.set_title(f"BD-rate against x265, {METRIC_LOOKS[metric].label}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _paper(comparison: Comparison) -> Figure | None:
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
                style = {"markerfacecolor": "none", "markersize": 9, "linestyle": "none"}
                axis.plot(
                    *zip(*found, strict=True), marker, color=colour, label=f"{published}, published", zorder=4, **style
                )
        _dress(axis, name)
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label.split(", qpa")[0], handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle("Hollow: published points of the MAGVIT-v2 paper (MCL-JCV). Lines: measured here.", fontsize=9)
    return figure
