"""The report of a results folder: numbers, texts, figures, and the page in a browser."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_results import COLOURS, make_results, record, records
from browser import chromium, complaints

from tokcodec.bench.report import write_report
from tokcodec.bench.report.load import load_results
from tokcodec.bench.report.paper import differences, nearest, read_paper, table3_rows
from tokcodec.bench.report.pictures import embed
from tokcodec.bench.report.series import make_comparison
from tokcodec.bench.report.tables import MINUS, NONE, bd_table, clip_tables, machine_text, speed_tables
from tokcodec.bench.report.verdicts import overlaps, verdicts
from tokcodec.errors import MediaError

TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its report."""
    place = make_results(tmp_path_factory.mktemp("report") / "results")
    assert write_report(place) == place / "report.html"
    return place


def cells(rows: Any, codec: str) -> dict[str, Any]:
    return {cell.metric: cell for row in rows if row.codec == codec for cell in row.cells}


@pytest.mark.parametrize("method", ["pchip", "akima"])
def test_bd_rates_are_the_ones_that_the_records_were_made_with(folder: Path, method: Any):
    rows = bd_table(make_comparison(load_results(folder).records), method)
    assert [row.codec for row in rows] == ["tokcodec", "svtav1", "vvenc", "x264"], "the anchor has no row"
    expected = {
        "tokcodec": ("+50.0%", f"{MINUS}50.0%"),
        "svtav1": (f"{MINUS}20.0%", f"{MINUS}20.0%"),
        "x264": ("+100.0%", "+100.0%"),
    }
    for codec, (psnr, lpips) in expected.items():
        found = cells(rows, codec)
        assert (found["psnr_rgb"].per_clip, found["psnr_rgb"].curve) == (psnr, psnr)
        assert (found["lpips_alex"].per_clip, found["lpips_alex"].curve) == (lpips, lpips)
    assert cells(rows, "tokcodec")["psnr_rgb"].sign == 1
    assert cells(rows, "tokcodec")["lpips_alex"].sign == -1


def test_vvenc_is_shown_at_its_better_variant_for_each_metric(folder: Path):
    comparison = make_comparison(load_results(folder).records)
    assert comparison.series["psnr_rgb"]["vvenc"].variant == "qpa=0"
    assert comparison.series["lpips_alex"]["vvenc"].variant == "qpa=1"
    found = cells(bd_table(comparison, "pchip"), "vvenc")
    assert (found["psnr_rgb"].per_clip, found["psnr_rgb"].variant) == (f"{MINUS}40.0%", "qpa 0")
    assert (found["lpips_alex"].per_clip, found["lpips_alex"].variant) == (f"{MINUS}25.0%", "qpa 1")
    alone = make_comparison([one for one in records() if one.codec == "vvenc"])
    assert alone.series["psnr_rgb"]["vvenc"].variant == "qpa=0", "without an anchor the curves themselves decide"
    assert alone.series["lpips_alex"]["vvenc"].variant == "qpa=1"
    assert [cell.per_clip for cell in bd_table(alone, "pchip")[0].cells] == [NONE] * 4


def test_a_dash_says_why():
    apart = [
        dataclasses.replace(one, metrics=one.metrics | {"psnr_rgb": (one.metrics["psnr_rgb"] or 0) - 60})
        if one.codec == "tokcodec"
        else one
        for one in records()
    ]
    comparison = make_comparison(apart)
    cell = cells(bd_table(comparison, "pchip"), "tokcodec")["psnr_rgb"]
    assert (cell.per_clip, cell.curve, cell.sign) == (NONE, NONE, 0)
    assert any("below the anchor" in note for note in cell.notes)
    assert any(text.startswith("none by PSNR RGB (3 of 3 clips have none") for text in verdicts(comparison))
    without = make_comparison([one for one in records() if one.codec != "x265"])
    cell = cells(bd_table(without, "pchip"), "tokcodec")["psnr_rgb"]
    assert cell.per_clip == NONE
    assert cell.notes


def test_empty_metrics_keep_their_reasons(folder: Path):
    comparison = make_comparison(load_results(folder).records)
    assert set(comparison.series) == {"psnr_rgb", "psnr_y", "ms_ssim_rgb", "lpips_alex"}
    assert comparison.missing["vmaf"] == ["no libvmaf in the ffmpeg at hand"]
    partly = [dataclasses.replace(one, metrics=one.metrics | {"vmaf": 80.0}) for one in records()[:4]] + records()[4:]
    reason = make_comparison(partly).missing["vmaf"][0]
    assert reason == f"{len(partly) - 4} of {len(partly)} measurements: no libvmaf in the ffmpeg at hand"


def test_speed_is_a_ratio_over_the_same_clips_on_the_same_machine():
    some = records()
    # Another machine is ten times as fast, and one clip has no x265 there.
    fast = dataclasses.replace(some[0].encode, seconds=0.2)
    some += [
        dataclasses.replace(
            one, machine="m2", setting={**one.setting, "again": 1}, encode=dataclasses.replace(fast), decode=fast
        )
        for one in records()
        if one.codec in ("x265", "tokcodec") and not (one.codec == "x265" and one.clip == "cat")
    ]
    results = _results(some)
    first, second = speed_tables(results, make_comparison(some))
    rows = {row.codec: row for row in first.rows}
    assert (rows["tokcodec"].encode.rate, rows["tokcodec"].encode.ratio) == ("48.0", f"2.00{TIMES}")
    assert (rows["x265"].encode.ratio, rows["x264"].encode.ratio) == (f"1.00{TIMES}", f"0.50{TIMES}")
    assert rows["tokcodec"].encode.stages == "tokenizer 70%, entropy coding 10%, video I/O 20%"
    assert rows["x265"].encode.stages == ""
    assert (rows["x264"].encode.memory, rows["x264"].encode.memory_ratio) == ("200", f"1.00{TIMES}")
    assert {row.codec: row.encode.ratio for row in second.rows} == {"tokcodec": f"1.00{TIMES}", "x265": f"1.00{TIMES}"}
    assert first.machine == "Abacus 3000, 2 cores, 8.0 GiB of memory"
    assert "not described" in second.machine
    # One that encoded only: its speed is not in the row of the machine that decoded.
    moved = [dataclasses.replace(one, encode_machine="m3") if one.codec == "x264" else one for one in records()]
    first, third = speed_tables(_results(moved), make_comparison(moved))
    (row,) = (row for row in first.rows if row.codec == "x264")
    assert (row.encode.rate, row.encode.ratio, row.decode.rate) == (NONE, NONE, "12.0")
    (row,) = third.rows
    assert (row.encode.rate, row.encode.ratio, row.decode.rate) == ("12.0", NONE, NONE)


def _results(some: list[Any]) -> Any:
    from tokcodec.bench.report.load import Results

    machines = {"m1": {"cpu": "Abacus 3000", "cores": 2, "memory_bytes": 8 * 2**30}}
    return Results(records=some, machines=machines, absent={}, failed=[], frames=[])


def test_the_paper_is_beside_ours(folder: Path):
    results = load_results(folder)
    comparison = make_comparison(results.records)
    paper = read_paper()
    rows = {row.name: row for row in table3_rows(paper, comparison)}
    assert rows["MAGVIT-v2"].cells == {"lpips_alex": "0.104", "psnr_rgb": "26.18", "ms_ssim_rgb": "0.894"}
    assert rows["HEVC"].cells["psnr_rgb"] == "30.10 ?", "what is not sure says so"
    assert (rows["x265"].ours, rows["HEVC"].ours) == (True, False)
    assert rows["x265"].rate == "0.0384"
    point = nearest(comparison.series["psnr_rgb"]["x265"], 0.0384)
    assert point is not None
    # The records are linear in log2 of the rate, and the clips' rates are 1, 1.05 and 1.1 times 0.0384 / 1.05.
    mean = np.mean(np.log2(0.0384 / 0.02 * np.array([1, 1.05, 1.1]) / 1.05))
    assert point[1] == pytest.approx(30 - 0.5 + 3 * mean, abs=1e-9)
    assert rows["x265"].cells["psnr_rgb"] == f"{point[1]:.2f}"
    assert rows["x265"].cells["lpips_vgg"] == ""
    assert any("the dataset here is synthetic" in text for text in differences(paper, results))
    low = make_comparison([one for one in records() if one.bits_per_pixel < 0.02])
    far = {row.name: row for row in table3_rows(paper, low)}["x265"]
    assert re.search(r"nearest rate measured is \d+% off", far.note)


def test_every_measurement_is_in_a_table(folder: Path):
    results = load_results(folder)
    tables = clip_tables(results, make_comparison(results.records))
    assert [table.clip for table in tables] == ["apple", "bird", "cat"]
    assert sum(len(table.rows) for table in tables) == len(results.records)
    assert tables[0].rows[0][:4] == ["tokcodec", "quality 1", "0.00600", "553"]
    assert machine_text(results, "m1").startswith("Abacus 3000, 2 cores, 8.0 GiB")


def test_results_are_read_as_a_killed_run_left_them(tmp_path: Path):
    place = make_results(tmp_path / "r")
    with (place / "results.jsonl").open("a") as file:
        again = dataclasses.replace(records()[0], coded_bytes=7)
        file.write(again.to_json() + "\n" + '{"schema": 1, "data')
    found = load_results(place)
    assert len(found.records) == len(records())
    assert [one.coded_bytes for one in found.records if one.key == again.key] == [7], "the last one counts"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place: (place / "results.jsonl").unlink(), "cannot be read"),
        (lambda place: (place / "results.jsonl").write_text(""), "holds no results"),
        (lambda place: (place / "results.jsonl").write_text("{}\n"), "line 1"),
        (lambda place: (place / "absent.json").write_text("[]"), "not a JSON object"),
        (lambda place: (place / "failed.json").write_text('{"k": {"clip": "a"}}'), "list of failures"),
        (lambda place: (place / "frames" / "index.json").write_text('[{"clip": "a"}]'), "index of frames"),
    ],
)
def test_what_is_no_results_folder_is_refused(tmp_path: Path, spoil: Any, said: str):
    place = make_results(tmp_path / "r")
    spoil(place)
    with pytest.raises(MediaError, match=said):
        load_results(place)


def test_one_name_for_two_clips_is_refused(tmp_path: Path):
    other = record("x265", "apple", 0.01, {"crf": 1}, width=320)
    place = make_results(tmp_path / "r", [*records(), other])
    with pytest.raises(MediaError, match="two clips, or one clip at two sizes"):
        load_results(place)


def test_frames_outside_the_folder_are_not_taken(tmp_path: Path):
    place = make_results(tmp_path / "r")
    (tmp_path / "secret.png").write_bytes(b"secret")
    index = json.loads((place / "frames" / "index.json").read_text())
    count = len(index)
    index += [{**index[0], "file": "../../secret.png"}, {**index[0], "file": "gone.png"}]
    (place / "frames" / "index.json").write_text(json.dumps(index))
    assert len(load_results(place).frames) == count


def test_frames_whose_rate_was_not_searched_are_not_said_to_be_equal(tmp_path: Path):
    place = make_results(tmp_path / "results")
    index = json.loads((place / "frames" / "index.json").read_text())
    for change, said in (
        ({"bits_per_pixel": 0.04}, "not all reach it"),
        ({"target": None}, "nearest to the working rate"),
    ):
        index[1] |= change
        (place / "frames" / "index.json").write_text(json.dumps(index))
        page = write_report(place).read_text(encoding="utf-8")
        assert "Frames at about the same rate" in page
        assert said in page


def test_heavy_frames_become_webp_and_say_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    frames = load_results(folder).frames
    light = embed(frames)
    assert all(uri.startswith("data:image/png;base64,") for uri in light.uris)
    assert "lossless" in light.note
    monkeypatch.setattr("tokcodec.bench.report.pictures.LOSSLESS_BYTES", 10)
    heavy = embed(frames)
    assert all(uri.startswith("data:image/webp;base64,") for uri in heavy.uris)
    assert "WebP" in heavy.note


def test_page_is_one_file_and_equal_results_give_equal_files(folder: Path, tmp_path: Path):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page), "nothing is loaded from elsewhere"
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert "no &lt;libx265&gt; here" in page
    assert "no backbone &lt;here&gt;" in page
    assert "<here>" not in page
    assert "<li>apple, VVenC, qp 40, qpa 1: it wrote &lt;nothing&gt;</li>" in page
    assert "LPIPS AlexNet: one frame in 8 from number 4 on" in page
    assert "LPIPS AlexNet in bfloat16" in page
    assert "Frames at the same rate" in page
    assert "not all reach it" not in page
    again = make_results(tmp_path / "again")
    write_report(again)
    write_report(again)
    for name in ("report.html", "figures/rate_quality.png", "figures/bd_rate.png", "figures/paper.png"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in folder.iterdir())


def test_a_clip_name_cannot_leave_its_place(tmp_path: Path):
    name = "a</script><script>document.title='broken'</script>"
    some = [dataclasses.replace(one, clip=name) for one in records(["apple"])]
    place = make_results(tmp_path / "r", [])
    (place / "results.jsonl").write_text("".join(f"{one.to_json()}\n" for one in some))
    page = write_report(place).read_text(encoding="utf-8")
    assert "<script>document.title" not in page


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    with chromium(width=1200, height=900) as session:
        session.get((folder / "report.html").as_uri())
        yield session


def test_browser_reads_the_table(folder: Path, browser: Any):
    table = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('#bd-pchip tbody tr')].map(row =>"
        "[row.dataset.codec, Object.fromEntries([...row.querySelectorAll('td')].map(cell =>"
        "[cell.dataset.metric, cell.querySelector('b').textContent]))]))"
    )
    assert table["tokcodec"] == {
        "psnr_rgb": "+50.0%",
        "psnr_y": "+50.0%",
        "ms_ssim_rgb": "+50.0%",
        "lpips_alex": f"{MINUS}50.0%",
    }
    assert table["vvenc"]["lpips_alex"] == f"{MINUS}25.0%"
    assert overlaps(make_comparison(load_results(folder).records))[0] == "tokcodec 60% to 75%"
    assert "50% less at equal LPIPS AlexNet" in browser.find_element("id", "verdict").text
    assert "tokcodec 60% to 75%" in browser.find_element("id", "overlaps").text
    assert "x265 veryslow: no <libx265> here" in browser.find_element("id", "absent").text
    assert "VMAF not measured: no libvmaf in the ffmpeg at hand" in browser.find_element("id", "missing").text
    assert complaints(browser) == []
    requests = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
        ".filter(name => !name.startsWith('data:'))"
    )
    assert requests == [], "nothing came over the network"


def test_browser_draws_each_codecs_points(browser: Any):
    from selenium.webdriver.support.select import Select

    def points(codec: str) -> int:
        chosen = f"#charts figure[data-metric=psnr_rgb] .point[data-codec='{codec}']"
        return len(browser.find_elements("css selector", chosen))

    assert len(browser.find_elements("css selector", "#charts figure svg")) == 4
    Select(browser.find_element("id", "curve-clip")).select_by_visible_text("bird")
    assert (points("tokcodec"), points("x265"), points("vvenc")) == (5, 5, 5)
    tip = browser.execute_script(
        "return document.querySelector('#charts figure[data-metric=psnr_rgb] .point[data-codec=tokcodec]').dataset.tip"
    )
    assert tip.split("\n") == ["tokcodec", "quality 1", "0.00630 bits per pixel", "PSNR RGB 22.75 dB"]
    browser.find_element("css selector", "#legend input[value=x265]").click()
    assert (points("tokcodec"), points("x265")) == (5, 0)
    browser.find_element("css selector", "#legend input[value=x265]").click()
    Select(browser.find_element("id", "curve-clip")).select_by_visible_text("mean over clips")
    assert (points("x265"), points("vvenc")) == (5, 5)
    tip = browser.execute_script("return document.querySelector('.point[data-codec=x265]').dataset.tip")
    assert tip.split("\n")[:3] == ["x265", "mean over clips", "quality 1, 3 of 3 clips"]


def colours(browser: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is really on the screen at a quarter and at three quarters of the stage."""
    from PIL import Image

    stage = browser.find_element("id", "stage")
    picture = Image.open(io.BytesIO(stage.screenshot_as_png)).convert("RGB")
    row = picture.height // 4
    left, right = (picture.getpixel((picture.width * part // 4, row)) for part in (1, 3))
    return tuple(left), tuple(right)


def near(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 4


def test_browser_drives_the_slider(browser: Any):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    slider = browser.find_element("id", "slider")
    browser.execute_script("arguments[0].scrollIntoView({block: 'end', behavior: 'instant'})", slider)
    assert "x265, 0.0300 bits per pixel" in browser.find_element("id", "caption-left").text
    assert "tokcodec, 0.0330 bits per pixel" in browser.find_element("id", "caption-right").text
    assert "10.0% more rate" in browser.find_element("id", "rate-note").text
    left, right = colours(browser)
    assert near(left, COLOURS["x265"])
    assert near(right, COLOURS["tokcodec"])
    slider.send_keys(Keys.HOME)
    assert all(near(colour, COLOURS["tokcodec"]) for colour in colours(browser)), "all the way left: the right picture"
    slider.send_keys(Keys.END)
    assert all(near(colour, COLOURS["x265"]) for colour in colours(browser))
    slider.send_keys(Keys.ARROW_LEFT * 4)
    assert float(slider.get_attribute("value")) == 98
    stage = browser.find_element("id", "stage")
    width = stage.size["width"]
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(
        -round(width * 0.4), 0
    ).release().perform()
    assert float(slider.get_attribute("value")) == pytest.approx(10, abs=1)
    assert all(near(colour, COLOURS["tokcodec"]) for colour in colours(browser))
    Select(browser.find_element("id", "frame-right")).select_by_value("original")
    assert near(colours(browser)[1], COLOURS["original"])
    assert browser.find_element("id", "rate-note").text == ""
    Select(browser.find_element("id", "frame-clip")).select_by_visible_text("cat")
    assert "cat, frame 24" in browser.find_element("id", "picture-right").get_attribute("alt")
    assert complaints(browser) == []
