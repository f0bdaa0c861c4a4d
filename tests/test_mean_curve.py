"""Means over clips at tokcodec's rates, and what is said where a codec does not reach them."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
from bench_results import make_results, record, records

from tokcodec.bench.curves import bd_rows, mean_curve
from tokcodec.bench.equal import at_rate, full_points, levels_of, mean_points
from tokcodec.bench.record import BenchRecord
from tokcodec.bench.report import write_report
from tokcodec.bench.report.equal_table import equal_groups, equal_notes
from tokcodec.bench.report.figures import draw_summary
from tokcodec.bench.report.load import load_results
from tokcodec.bench.report.series import drawn_points, make_comparison
from tokcodec.errors import UsageError


def apart() -> list[BenchRecord]:
    """tokcodec's rates on "cat" are a quarter of those on "apple", so that the clips share few rates."""
    made = []
    for clip, own in (("apple", (0.02, 0.04, 0.08)), ("cat", (0.005, 0.01, 0.02))):
        made += [record("tokcodec", clip, rate, {"quality": q}) for q, rate in enumerate(own, start=1)]
        made += [record("x265", clip, rate, {"crf": round(1 / rate)}) for rate in (0.008, 0.0123, 0.033, 0.1)]
    return made


def test_levels_are_tokcodecs_settings():
    levels = levels_of(apart())
    assert [level.name for level in levels] == ["quality 1", "quality 2", "quality 3"]
    assert [level.bits_per_pixel for level in levels] == pytest.approx([0.0125, 0.025, 0.05])
    assert levels[1].rates == {"apple": 0.04, "cat": 0.01}
    two = [dataclasses.replace(one, setting={**one.setting, "weights": "ab"}) for one in apart()]
    two += [dataclasses.replace(one, setting={**one.setting, "weights": "cd"}) for one in apart()]
    assert {level.name for level in levels_of(two)} >= {"quality 1, weights ab", "quality 1, weights cd"}
    assert levels_of([one for one in apart() if one.codec != "tokcodec"]) == []


def test_between_points_it_is_pchip_in_the_logarithm_of_the_rate():
    points = [(0.01, 20.0), (0.02, 24.0), (0.04, 25.0), (0.08, 25.5)]
    assert [at_rate(points, rate) for rate, _ in points] == [20.0, 24.0, 25.0, 25.5]
    from scipy.interpolate import PchipInterpolator

    wanted = PchipInterpolator([math.log(rate) for rate, _ in points], [q for _, q in points])(math.log(0.013))
    assert at_rate(list(reversed(points)), 0.013) == pytest.approx(float(wanted))
    linear = 20 + 4 * math.log(1.3) / math.log(2)
    assert abs(float(wanted) - linear) > 0.1, "it is not the chord"
    assert at_rate(points, 0.0099) is None
    assert at_rate(points, 0.0801) is None
    assert at_rate([], 0.01) is None
    assert at_rate([*points, (0.04, 27.0)], 0.04) == 26.0, "two points at one rate"
    lossless = [*points, (0.16, math.inf)]
    assert at_rate(lossless, 0.1) == math.inf
    assert at_rate(lossless, 0.013) == pytest.approx(float(wanted))


def test_the_mean_is_at_tokcodecs_rate_on_each_clip():
    comparison = make_comparison(apart())
    own, other = (comparison.series["psnr_rgb"][codec] for codec in ("tokcodec", "x265"))
    # Of the records: 30 - hard + 3 log2(rate / factor / 0.02), where "cat" is harder by 1 dB.
    second = 30 - 0.5 + 1.5 * (math.log2(0.04 / 0.02) + math.log2(0.01 / 0.02))
    assert other.levels[1].value == pytest.approx(second)
    assert own.levels[1].value == pytest.approx(second - 3 * math.log2(1.5))
    assert other.levels[1].bits_per_pixel == own.levels[1].bits_per_pixel == pytest.approx(0.025)
    assert [rate for rate, _ in own.mean] == pytest.approx([0.0125, 0.025, 0.05]), "wide, though clips share few rates"
    assert [rate for rate, _ in other.mean] == pytest.approx([0.025, 0.05]), "quality 1 is out of range on a clip"
    assert mean_curve(own.clips) == [
        (pytest.approx(0.02), pytest.approx(own.clips["apple"][0][1] / 2 + own.clips["cat"][-1][1] / 2))
    ], "at rates that all clips reach there is a single point"


def test_clips_out_of_range_are_counted_and_named():
    comparison = make_comparison(apart())
    point = comparison.series["psnr_rgb"]["x265"].levels[0]
    assert (point.clips, point.share, point.missing) == ("1 of 2 clips", "1/2", {"cat": "below its lowest rate"})
    assert point.bits_per_pixel == 0.02, "of the clip that counts"
    group = equal_groups(comparison)[0]
    assert group.title == "PSNR RGB, dB (more is better)"
    cells = {row.codec: row.cells for row in group.rows}
    first = cells["x265"][0]
    assert (first.value, first.clips, first.own) == ("30.00", "1 of 2 clips", "tokcodec 28.25")
    assert [cell.is_best for cell in cells["x265"]] == [False, True, True], "over other clips none is best"
    assert not any(cell.is_best for cell in cells["tokcodec"])
    assert cells["tokcodec"][0].value == "24.75", "over both clips"
    assert equal_notes(comparison) == ["x265, quality 1: 1 of 2 clips count (cat: below its lowest rate)"]
    drawn = drawn_points(comparison.series["psnr_rgb"]["x265"])
    assert [(one.part, one.text) for one in drawn][:2] == [
        ("1/2", "quality 1, 1 of 2 clips"),
        ("", "quality 2, 2 of 2 clips"),
    ]


def test_other_reasons_for_a_clip_not_to_count():
    some = apart()
    levels = levels_of(some)
    curve = [(0.03, 30.0), (0.07, 40.0), (0.075, math.inf)]
    one, two, three = mean_points({"apple": curve}, levels, ["apple", "bird", "cat"])
    assert one.missing == {"apple": "below its lowest rate", "bird": "tokcodec was not measured", "cat": "not measured"}
    assert (math.isnan(one.value), math.isnan(one.bits_per_pixel), one.clips) == (True, True, "0 of 3 clips")
    assert two.values == {"apple": at_rate(curve, 0.04)}
    assert three.missing["apple"] == "above its highest rate"
    near = [dataclasses.replace(level, rates={"apple": 0.072}) for level in levels[:1]]
    assert mean_points({"apple": curve}, near, ["apple"])[0].missing == {"apple": "lossless there"}
    # tokcodec's own values are measured ones: a gap is not filled from its other qualities.
    own = {"apple": [(0.02, 28.0), (0.08, 34.0)]}
    assert [point.missing for point in mean_points(own, levels, ["apple"], is_own=True)] == [
        {},
        {"apple": "not measured"},
        {},
    ]
    assert full_points(mean_points(own, levels, ["apple"], is_own=True)) == [(0.02, 28.0), (0.08, 34.0)]


def test_few_clips_are_in_the_table_and_not_drawn():
    some = [one for one in records(["apple", "bird", "cat"]) if one.codec != "x265" or one.clip == "apple"]
    comparison = make_comparison(some)
    assert drawn_points(comparison.series["psnr_rgb"]["x265"]) == [], "one clip of three"
    row = next(row for row in equal_groups(comparison)[0].rows if row.codec == "x265")
    assert {cell.clips for cell in row.cells} == {"1 of 3 clips"}
    assert equal_notes(comparison) == ["x265, quality 1, 2, 3, 4, 5: 1 of 3 clips count (bird, cat: not measured)"], (
        "levels and metrics that lack the same clips are said once"
    )


def test_bd_rate_of_the_averaged_curve_is_of_these_means():
    rows = {(row.codec, row.metric): row for row in bd_rows(records())}
    assert rows["tokcodec", "psnr_rgb"].from_mean_curve["pchip"].percent == pytest.approx(50)
    assert rows["x264", "psnr_rgb"].from_mean_curve["akima"].percent == pytest.approx(100)
    # Without the lowest two rates of x265 on one clip three of five levels are left, here of other quality.
    cut = [one for one in records() if not (one.codec == "x265" and one.clip == "cat" and one.bits_per_pixel < 0.02)]
    overlap = {row.codec: row.from_mean_curve["pchip"].overlap for row in bd_rows(cut) if row.metric == "psnr_rgb"}
    full = {row.codec: row.from_mean_curve["pchip"].overlap for row in bd_rows(records()) if row.metric == "psnr_rgb"}
    assert overlap["svtav1"] < full["svtav1"]


def test_without_tokcodec_the_mean_is_at_rates_that_all_clips_reach(tmp_path: Path):
    some = [one for one in records() if one.codec != "tokcodec"]
    comparison = make_comparison(some)
    assert (comparison.levels, equal_groups(comparison), equal_notes(comparison)) == ([], [], [])
    series = comparison.series["psnr_rgb"]["x265"]
    assert (series.levels, len(series.mean)) == ([], 8)
    assert [point.part for point in drawn_points(series)] == [""] * 8
    page = write_report(make_results(tmp_path / "r", some)).read_text(encoding="utf-8")
    assert 'id="equal-rate"' not in page
    assert "tokcodec was not measured" in page


def test_the_page_has_the_comparison(tmp_path: Path):
    page = write_report(make_results(tmp_path / "r", apart())).read_text(encoding="utf-8")
    assert 'id="equal-rate"' in page
    assert "x265, quality 1: 1 of 2 clips count (cat: below its lowest rate)" in page
    assert "<small>1 of 2 clips</small><small>tokcodec 28.25</small>" in page


def table_script() -> Any:
    path = Path(__file__).parent.parent / "bench" / "table.py"
    spec = importlib.util.spec_from_file_location("bench_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_in_markdown():
    text = table_script().markdown(make_comparison(apart()), ["tokcodec", "x265", "svtav1"], ["psnr_rgb"])
    lines = text.splitlines()
    assert lines[0] == "| quality | bits per pixel | PSNR RGB, dB: tokcodec, x265, SVT-AV1 |"
    assert lines[2] == "| 1 | 0.0125 | **24.75**, 30.00\N{DAGGER}, not measured |"
    assert lines[3].endswith("0.0250 | **27.75**, 29.50, not measured |")
    assert "x265, quality 1: 1 of 2 clips count (cat: below its lowest rate)." in text
    assert "tokcodec over the clips that count for x265, PSNR RGB: 28.25 at quality 1." in text


def test_the_figure_for_a_readme(tmp_path: Path):
    from PIL import Image

    results = load_results(make_results(tmp_path / "r", apart()))
    comparison = make_comparison(results.records)
    target = tmp_path / "rate.png"
    draw_summary(results, comparison, ["lpips_alex", "psnr_rgb"], target)
    with Image.open(target) as picture:
        assert picture.width == pytest.approx(1200, abs=10)
    with pytest.raises(UsageError, match="vmaf"):
        draw_summary(results, comparison, ["vmaf"], target)
