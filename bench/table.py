"""A results folder of `tokcodec bench` as a table in Markdown: each quality of tokcodec, others at the same rate.

    python bench/table.py bench/results/dev [--plot FILE.png]

Means over clips, as in the report: tokcodec at each quality, another codec interpolated at tokcodec's rate on each clip
(PCHIP in the logarithm of the rate), never extrapolated. Where a codec does not reach the rate on every clip, its mean
is over the clips that both have, with a mark, and lines below the table say which they are and what tokcodec has there.
Of VVenC the better of its two curves is taken for each metric.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokcodec.bench.equal import OWN
from tokcodec.bench.report.equal_table import EqualCell, equal_groups, equal_notes
from tokcodec.bench.report.figures import draw_summary
from tokcodec.bench.report.load import load_results
from tokcodec.bench.report.series import METRIC_LOOKS, Comparison, look_of, make_comparison
from tokcodec.errors import TokcodecError

MARK = "\N{DAGGER}"


def markdown(comparison: Comparison, codecs: list[str], metrics: list[str]) -> str:
    """The comparison as a table, a row for each level of tokcodec."""
    groups = dict(zip(comparison.series, equal_groups(comparison), strict=True))
    labels = ", ".join(look_of(codec).label for codec in codecs)
    units = {metric: f", {unit}" if (unit := METRIC_LOOKS[metric].unit) else "" for metric in metrics}
    heads = [f"{METRIC_LOOKS[metric].label}{units[metric]}: {labels}" for metric in metrics]
    lines = ["| quality | bits per pixel | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    below: dict[str, list[str]] = {}
    for number, level in enumerate(comparison.levels):
        cells = []
        for metric in metrics:
            found = {row.codec: row.cells[number] for row in groups[metric].rows}
            cells.append(", ".join(_text(found.get(codec), is_own=codec == OWN) for codec in codecs))
            for codec in codecs:
                if codec in found and found[codec].own:
                    head = f"{look_of(OWN).label} over the clips that count for {look_of(codec).label}"
                    own = found[codec].own.removeprefix(f"{look_of(OWN).label} ")
                    below.setdefault(f"{head}, {METRIC_LOOKS[metric].label}", []).append(f"{own} at {level.name}")
        lines.append(f"| {level.name.removeprefix('quality ')} | {level.bits_per_pixel:.4f} | {' | '.join(cells)} |")
    shown = {series.label for metric in metrics for name, series in comparison.series[metric].items() if name in codecs}
    notes = [
        note
        for note in equal_notes(comparison)
        if note.startswith(tuple(f"{label}{end}" for label in shown for end in (",", " (")))
    ]
    texts = [*notes, *(f"{head}: {', '.join(values)}" for head, values in below.items())]
    return "\n".join(lines) + "".join(f"\n\n{MARK} {text}." for text in texts)


def _text(cell: EqualCell | None, *, is_own: bool) -> str:
    if cell is None:
        return "not measured"
    value = f"{cell.value}{MARK if cell.clips else ''}"
    return f"**{value}**" if is_own else value


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what `tokcodec bench --out` wrote")
    parser.add_argument("--others", default="x265,svtav1,vvenc", help="codecs beside tokcodec")
    parser.add_argument("--metrics", default="psnr_rgb,lpips_alex", help=", ".join(METRIC_LOOKS))
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the metrics too, with all codecs")
    arguments = parser.parse_args()
    metrics = arguments.metrics.split(",")
    try:
        results = load_results(arguments.results)
        comparison = make_comparison(results.records)
        missing = [metric for metric in metrics if OWN not in comparison.series.get(metric, {})]
        if missing:
            parser.error(f"{OWN} was not measured by {', '.join(missing)}")
        print(markdown(comparison, [OWN, *arguments.others.split(",")], metrics))
        if arguments.plot is not None:
            draw_summary(results, comparison, metrics, arguments.plot)
    except TokcodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
