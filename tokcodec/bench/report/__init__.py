"""The report of a results folder: a page that opens from disk, and figures.

load.py         what a run left in its folder
series.py       curves by codec and metric, with the names, colours and markers of the codecs
equal_table.py  every codec at tokcodec's rates, as rows of text
tables.py       BD-rates, speed and memory, and every measurement, likewise
verdicts.py     BD-rates in words
paper.py        the published numbers (paper.toml) beside ours
pictures.py     example frames as data inside the page
figures.py      PNG files by matplotlib
page.py         the page, from assets/
"""

from __future__ import annotations

from pathlib import Path

from tokcodec.bench.bdrate import check_bjontegaard
from tokcodec.bench.report.figures import check_matplotlib, draw_figures
from tokcodec.bench.report.load import load_results
from tokcodec.bench.report.page import PAGE_NAME, render_page
from tokcodec.bench.report.series import make_comparison
from tokcodec.output import atomic

__all__ = ["PAGE_NAME", "write_report"]


def write_report(out: Path) -> Path:
    """Write `report.html` and `figures/*.png` into a results folder, replacing those of an earlier run.

    Args:
        out: Holds `results.jsonl`, and may hold `machine.json`, `absent.json`, `failed.json` and `frames/index.json`.

    Returns:
        The page. It needs no other file and no network.

    Raises:
        MediaError: There are no results, or a file is not what a run writes.
        UsageError: matplotlib or bjontegaard is not installed.
        OutputError: The folder cannot be written.
    """
    check_matplotlib()
    check_bjontegaard()
    results = load_results(out)
    comparison = make_comparison(results.records)
    figures = draw_figures(results, comparison, out / "figures")
    page = render_page(results, comparison, figures)
    target = out / PAGE_NAME
    with atomic(target, force=True) as part:
        part.write_text(page, encoding="utf-8")
    return target
