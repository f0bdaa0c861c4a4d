"""The bench without encoders: records, results folders, datasets, rates, curves."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from bench_helpers import SPEED, bench_record
from hypothesis import given
from hypothesis import strategies as st
from media import make_video, picture

from tokcodec.bench.bdrate import METHODS, bd_rate
from tokcodec.bench.clips import write_clip
from tokcodec.bench.codecs import NAMES, make_codecs
from tokcodec.bench.codecs.base import Quantizer
from tokcodec.bench.codecs.units import without_delimiters, without_units
from tokcodec.bench.curves import bd_rows, better_variant, mean_curve
from tokcodec.bench.datasets import (
    MANIFEST,
    ROOT_VARIABLE,
    ClipSource,
    Dataset,
    dataset_names,
    find_dataset,
    parse_size,
)
from tokcodec.bench.plan import Plan
from tokcodec.bench.rates import MOST_TRIES, TOLERANCE, RateSpan, match, search
from tokcodec.bench.record import BenchRecord
from tokcodec.bench.store import open_store
from tokcodec.bench.summary import bd_table, bd_values
from tokcodec.bench.tasks import Encoded, MetricChoice
from tokcodec.errors import MediaError, OutputError, UsageError
from tokcodec.evaluation import read_clip


def test_a_record_is_the_same_when_read_back():
    record = bench_record(0.02, psnr_rgb=math.inf, lpips_alex=0.25, codec="tokcodec", setting={"quality": 3})
    line = record.to_json()
    assert "Infinity" not in line
    assert BenchRecord.from_json(line) == record
    for broken in ("{}", "[]", "x", line.replace('"schema": 1', '"schema": 2'), line.replace("psnr_y", "psnr_z")):
        with pytest.raises(MediaError, match="tokcodec bench"):
            BenchRecord.from_json(broken)


def test_lines_without_dists_load_and_say_so():
    record = bench_record(0.02, lpips_vgg=0.5)
    values = json.loads(record.to_json())
    del values["metrics"]["dists"]
    values["metrics_missing"].pop("dists", None)
    found = BenchRecord.from_json(json.dumps(values))
    assert found.metrics == {**record.metrics, "dists": None}
    assert "before DISTS" in found.metrics_missing["dists"]
    plan = Plan(
        dataset=Dataset(name="d", size=None, clips=()),
        codecs=[],
        size=None,
        max_frames=None,
        threads=1,
        span=RateSpan(),
        metrics=MetricChoice(),
        lpips={"lpips_alex": "", "lpips_vgg": "", "dists": ""},
        vmaf="",
    )
    assert plan.is_enough(found)
    assert not dataclasses.replace(plan, lpips={"dists": "x 1"}).is_enough(found)


def test_what_makes_a_measurement_another_one():
    one = bench_record(0.02, setting={"crf": 30})
    assert one.key == bench_record(0.03, setting={"crf": 30.0}, psnr_y=30.0, machine="n").key
    others = [{"setting": {"crf": 31}}, {"codec": "x264"}, {"width": 99}, {"frames": 9}, {"clip_sha256": "b"}]
    keys = {bench_record(0.02, **{"setting": {"crf": 30}, **other}).key for other in others}
    assert len(keys | {one.key}) == 6


def test_a_results_folder_survives_a_kill(tmp_path: Path):
    first, second = bench_record(0.01), bench_record(0.02)
    encoded = Encoded(coded_bytes=77, speed=SPEED, machine="m")
    with open_store(tmp_path) as store:
        store.add(first)
        store.add(second)
        store.add_encode("k", encoded)
    path = tmp_path / "results.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with open_store(tmp_path) as store:
        assert (store.find(first.key), store.find(second.key)) == (first, None)
        assert store.find_encode("k") == encoded
        store.add(second)
        with pytest.raises(OutputError, match="another run"), open_store(tmp_path):
            pass
    assert path.read_bytes() == data
    path.write_text("notes\n")
    with pytest.raises(MediaError, match="not a file"), open_store(tmp_path):
        pass
    assert path.read_text() == "notes\n"


def test_an_example_frame_is_replaced_and_known_by_its_key(tmp_path: Path):
    def add(key: str, codec: str, rate: float | None, text: str) -> None:
        (tmp_path / "new.png").write_text(text)
        store.add_example(
            key, clip="a", codec=codec, bits_per_pixel=rate, target=rate, number=5, picture=tmp_path / "new.png"
        )

    with open_store(tmp_path) as store:
        add("one", "x265", 0.02, "1")
        add("two", "x265", 0.03, "2")
        add("three", "original", None, "3")
    with open_store(tmp_path) as store:
        assert [store.has_example(key) for key in ("one", "two", "three")] == [False, True, True]
        (tmp_path / "frames" / "a" / "original.png").unlink()
        assert not store.has_example("three"), "its file is gone"
    index = json.loads((tmp_path / "frames" / "index.json").read_text())
    assert [(entry["codec"], entry["bits_per_pixel"], entry["frame"], entry["file"]) for entry in index] == [
        ("x265", 0.03, 5, "a/x265.png"),
        ("original", None, 5, "a/original.png"),
    ]
    assert (tmp_path / "frames" / "a" / "x265.png").read_text() == "2"


@given(
    slope=st.floats(0.03, 0.3),
    at_thirty=st.floats(0.005, 0.2),
    target=st.floats(0.005, 0.2),
    step=st.sampled_from((1.0, 0.25)),
    known=st.lists(st.integers(0, 51), unique=True, max_size=5),
    broken=st.sets(st.integers(0, 204).map(lambda number: number / 4), max_size=3),
)
def test_a_rate_is_met_as_nearly_as_quantizers_can(
    slope: float, at_thirty: float, target: float, step: float, known: list[int], broken: set[float]
):
    quantizer = Quantizer(name="q", lowest=0, highest=51, typical=(28, 48), step=step)

    def rate(q: float) -> float:
        return at_thirty * math.exp(-slope * (q - 30))

    asked: list[float] = []
    known = [q for q in known if q not in broken]
    steps = match(quantizer, target, {q: rate(q) for q in known})
    try:
        q = next(steps)
        while True:
            assert q not in [*asked, *known], "encoded twice"
            assert 0 <= q <= 51
            assert (q / step).is_integer()
            asked.append(q)
            q = steps.send(None if q in broken else rate(q))
    except StopIteration as end:
        found = end.value
    assert found in {*asked, *known} - broken
    assert len(asked) <= MOST_TRIES
    all_working = {number * step for number in range(int(51 / step) + 1)} - broken
    nearest = min(all_working, key=lambda q: abs(math.log(rate(q) / target)))
    assert abs(rate(found) / target - 1) <= TOLERANCE or found == nearest


@given(
    slope=st.floats(0.05, 0.5),
    at_thirty=st.floats(0.001, 0.5),
    bend=st.floats(-0.004, 0.004),
    typical=st.integers(0, 51),
    broken=st.sets(st.integers(0, 51), max_size=3),
)
def test_the_search_encloses_the_span_as_tightly_as_quantizers_can(
    slope: float, at_thirty: float, bend: float, typical: int, broken: set[int]
):
    quantizer = Quantizer(name="q", lowest=0, highest=51, typical=(typical, typical))
    span = RateSpan()
    measured: dict[int, float | None] = {}

    def rate(q: int) -> float:
        return at_thirty * math.exp(-slope * (q - 30) - bend * min(q - 30, 0) ** 2 / 10)

    steps = search(quantizer, span)
    q = next(steps)
    try:
        while True:
            assert q not in measured, "encoded twice"
            measured[q] = None if q in broken else rate(q)
            q = steps.send(measured[q])
    except StopIteration as end:
        chosen = end.value
    assert len(measured) <= 20 + len(broken)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= measured.keys() - broken
    first, last = chosen[0], chosen[-1]
    working = sorted(set(range(52)) - broken)
    if rate(first) >= span.highest:
        assert first == working[-1] or rate(working[working.index(first) + 1]) < span.highest
    else:
        assert first == working[0], "the range ends before the rate"
    if rate(last) <= span.lowest:
        assert last == working[0] or rate(working[working.index(last) - 1]) > span.lowest
    else:
        assert last == working[-1]
    if last - first >= 10 and not broken:
        assert len(chosen) == span.points


CURVE = [(0.005 * 2**k, 25.0 + 2 * k) for k in range(5)]


def test_bd_rate_of_a_curve_at_half_the_rate_is_minus_fifty_percent():
    half = [(rate / 2, quality) for rate, quality in CURVE]
    for method in METHODS:
        assert bd_rate(CURVE, half, method).percent == pytest.approx(-50)
        assert bd_rate(list(reversed(half)), CURVE, method).percent == pytest.approx(100)
        falling = [[(rate, 1 - quality / 100) for rate, quality in some] for some in (CURVE, half)]
        assert bd_rate(falling[0], falling[1], method).percent == pytest.approx(-50)
    assert bd_rate(CURVE, CURVE).percent == pytest.approx(0)
    assert bd_rate(CURVE, CURVE).overlap == pytest.approx(1)


def test_where_there_is_no_bd_rate_the_reason_is_said():
    better = [(rate, quality + 20) for rate, quality in CURVE]
    dented = [*CURVE[:2], (CURVE[2][0], CURVE[1][1]), *CURVE[3:]]
    lossless = [*CURVE[:4], (0.9, math.inf)]
    for test, reason in (
        (better, "above the anchor"),
        ([(rate, quality - 20) for rate, quality in CURVE], "below the anchor"),
        (dented, "does not get better"),
        (lossless, "lossless"),
        (CURVE[:1], "fewer than two"),
    ):
        found = bd_rate(CURVE, test)
        assert found.percent is None
        assert reason in found.reason


def test_both_ways_of_averaging():
    records = []
    for clip, offset in (("a", 0.0), ("b", 5.0)):
        for rate, quality in CURVE:
            records.append(bench_record(rate, clip=clip, psnr_y=quality + offset))
            for qpa, factor in ((0, 0.5), (1, 0.8)):
                setting = {"qp": round(rate * 1e4), "qpa": qpa}
                changes = {"codec": "vvenc", "clip": clip, "setting": setting, "psnr_y": quality + offset}
                records.append(bench_record(rate * factor, **changes))
    rows = bd_rows(records)
    assert [(row.codec, row.variant, row.metric, row.clips) for row in rows] == [
        ("vvenc", "qpa=0", "psnr_y", 2),
        ("vvenc", "qpa=1", "psnr_y", 2),
    ]
    assert rows[0].mean_per_clip["pchip"] == pytest.approx(-50)
    assert rows[1].from_mean_curve["akima"].percent == pytest.approx(-20)
    assert better_variant(rows, "vvenc", "psnr_y") == rows[0]
    heads, table, remarks = bd_table(records)
    assert (heads, table, remarks) == (["codec", "PSNR Y"], [["vvenc", "-50.0%"]], [])
    json.dumps(bd_values(records), allow_nan=False)
    flat = [record for record in records if (record.clip, record.codec) != ("b", "vvenc")]
    flat += [bench_record(rate, codec="vvenc", clip="b", psnr_y=10.0) for rate in (0.01, 0.02)]
    assert bd_table(flat)[1] == [["vvenc", "-50.0%"]], "a curve of another variant"


def test_the_mean_curve_is_at_rates_that_every_clip_reaches():
    clips = {"a": [(0.01, 20.0), (0.04, 24.0)], "b": [(0.02, 30.0), (0.08, 38.0)]}
    curve = mean_curve(clips)
    assert (curve[0], curve[-1]) == (pytest.approx((0.02, 26.0)), pytest.approx((0.04, 29.0)))
    assert mean_curve({"a": [(0.01, 20.0), (0.02, 24.0)], "b": [(0.03, 30.0), (0.08, 38.0)]}) == []
    assert mean_curve({}) == []


def test_units_without_pictures_are_taken_out():
    stream = b"\0\0\0\1\x67abc\0\0\1\x06settings\0\0\0\1\x65data"
    assert without_units(stream, lambda head: head[0] & 31 == 6) == b"\0\0\0\1\x67abc\0\0\0\1\x65data"
    assert without_units(stream, lambda _: False) == stream
    with pytest.raises(MediaError, match="no start codes"):
        without_units(b"", lambda _: False)
    obus = [b"\x12\0", b"\x0a\x02hi", b"\x12\0", b"\x32\x81\x01" + bytes(129), b"\x36\x08\x01x"]
    assert without_delimiters(b"".join(obus)) == obus[1] + obus[3] + obus[4]
    with pytest.raises(ValueError, match="size"):
        without_delimiters(b"\x10")


def test_the_codecs_by_name():
    assert NAMES == ("tokcodec", "x265", "x265-veryslow", "svtav1", "vvenc", "x264")
    codecs = make_codecs(["x264", "tokcodec"])
    assert [codec.name for codec in codecs] == ["x264", "tokcodec"]
    assert [setting["quality"] for setting in codecs[1].settings()] == [1, 2, 3, 4, 5, 6]
    for names in (["x266"], [], ["x264", "x264"]):
        with pytest.raises(UsageError):
            make_codecs(names)


def test_the_manifest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert dataset_names() == ["smoke", "mcl-jcv", "uvg", "vid4", "davis"]
    assert [clip.path for clip in find_dataset("smoke").clips] == [None] * 3
    for name in ("mcl-jcv", "uvg", "vid4", "davis"):
        with pytest.raises(UsageError, match=name) as caught:
            find_dataset(name)
        assert ROOT_VARIABLE in str(caught.value.hint)
        assert "https://" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no dataset"):
        find_dataset("nothing-of-this-name")
    linked = Path(__file__).parents[1] / "bench" / "datasets.toml"
    assert "[mcl-jcv]" in linked.read_text(encoding="utf-8")


def test_a_missing_or_short_clip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = tmp_path / "datasets.toml"
    manifest.write_text(
        '[tiny]\ntitle = "t"\nsource = "https://x"\nhow = "ask"\nsize = "32x16"\n'
        'clips = [{name = "one", frames = 2, width = 64, height = 32, rate = "24"},\n'
        '{name = "two", frames = 3, width = 64, height = 32, rate = "24"}]\n'
    )
    root = tmp_path / "root"
    (root / "tiny").mkdir(parents=True)
    one = root / "tiny" / "one_64x32_24.yuv"

    def problem(kind: type[Exception]) -> str:
        with pytest.raises(kind) as caught:
            find_dataset("tiny", root=root, manifest=manifest)
        return f"{caught.value} {getattr(caught.value, 'hint', '')}"

    assert "clip one is missing" in (text := problem(MediaError))
    assert "https://x: ask" in text
    one.write_bytes(bytes(2 * 64 * 48 - 1))
    assert "clip one is short: 6143 bytes instead of 6144" in problem(MediaError)
    one.write_bytes(bytes(2 * 64 * 48))
    assert "clip two is missing" in problem(MediaError)
    make_video(root / "tiny" / "two.mkv", size=(64, 32), count=2)
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    dataset = find_dataset("tiny", manifest=manifest)
    assert dataset.size == (32, 16)
    assert write_clip(dataset.clips[0], tmp_path / "one.avi", size=dataset.size).frames == 2
    with pytest.raises(MediaError, match="clip two is short: 2 of 3 frames"):
        write_clip(dataset.clips[1], tmp_path / "two.avi")
    assert not (tmp_path / "two.avi").exists()
    make_video(root / "tiny" / "two_again.mkv", size=(64, 32), count=3)
    assert "2 files are the clip two" in problem(UsageError)


def test_a_clip_is_written_without_loss(tmp_path: Path):
    make_video(tmp_path / "in.mkv", size=(64, 48), count=4, codec="ffv1", pixel_format="bgr0", tags=(1, 1, 0, 2))
    source = ClipSource(name="in", path=tmp_path / "in.mkv")
    facts = write_clip(source, tmp_path / "out.avi", max_frames=3)
    assert (facts.width, facts.height, facts.frames, facts.frame_rate) == (64, 48, 3, "24/1")
    written = read_clip(tmp_path / "out.avi")
    assert written.frame_rate == 24
    assert (written.frames == np.stack([picture(64, 48, index) for index in range(3)])).all()
    facts = write_clip(source, tmp_path / "out.avi", size=(32, 24))
    assert (facts.width, facts.height, facts.frames) == (32, 24, 4)
    small = read_clip(tmp_path / "out.avi").frames[0].astype(float)
    assert np.abs(small - picture(64, 48, 0).reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))).mean() < 4
    with pytest.raises(UsageError, match="distort"):
        write_clip(source, tmp_path / "out.avi", size=(48, 48))


def test_a_folder_of_pictures_is_a_clip(tmp_path: Path):
    from tokcodec.bench.datasets import pictures_of

    for index in range(2):
        make_video(
            tmp_path / f"{index}.png", size=(32, 24), count=1, codec="png", pixel_format="rgb24", container="image2"
        )
    source = ClipSource(name="p", path=tmp_path, frames=2, height=24)
    assert len(pictures_of(tmp_path)) == 2
    before = source.digest()
    assert write_clip(source, tmp_path / "out.avi").frames == 2
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes() + b"x")
    assert source.digest() != before


def test_sizes():
    assert (parse_size("640x360"), parse_size("source")) == ((640, 360), None)
    for text in ("640", "0x2", "axb", "640x360x2", ""):
        with pytest.raises(UsageError):
            parse_size(text)


@pytest.mark.parametrize(("name", "clips", "frames"), [("mcl-jcv", 30, 4115), ("uvg", 7, 3900)])
def test_sizes_of_raw_files_follow_from_frames(name: str, clips: int, frames: int):
    values = tomllib.loads(MANIFEST.read_text())[name]["clips"]
    assert (len(values), sum(clip["frames"] for clip in values)) == (clips, frames)
    for clip in values:
        assert clip["raw_bytes"] == clip["frames"] * 1920 * 1080 * 3 // 2


def test_frames_of_clips_of_pictures_are_those_of_the_authors():
    values = tomllib.loads(MANIFEST.read_text())
    counts = {name: [clip["frames"] for clip in values[name]["clips"]] for name in ("vid4", "davis")}
    assert counts["vid4"] == [41, 34, 49, 47]
    assert (len(counts["davis"]), sum(counts["davis"])) == (20, 1376)


def test_the_smoke_set_needs_nothing(tmp_path: Path):
    facts = write_clip(find_dataset("smoke").clips[0], tmp_path / "out.avi")
    assert (facts.width, facts.height, facts.frames, facts.frame_rate) == (256, 192, 17, "24/1")
    frames = read_clip(tmp_path / "out.avi").frames
    assert (frames[0] != frames[-1]).any(), "the camera moves"


def test_raw_files_of_8_and_10_bits_give_the_same_pictures(tmp_path: Path):
    samples = np.random.default_rng(0).integers(16, 236, (2, 48, 64), dtype=np.uint8)
    found = []
    for kind, values in (("yuv420p", samples), ("yuv420p10le", samples.astype("<u2") * 4)):
        path = tmp_path / f"{kind}.yuv"
        values.tofile(path)
        source = ClipSource(name=kind, path=path, frames=2, width=64, height=32, pixel_format=kind)
        assert write_clip(source, tmp_path / "out.avi").frames == 2
        found.append(read_clip(tmp_path / "out.avi").frames.astype(int))
    assert found[0].shape == (2, 32, 64, 3)
    assert np.abs(found[0] - found[1]).max() <= 1


def test_quarters_of_a_crf_reach_the_encoder():
    for codec in make_codecs(["x264", "x265", "svtav1"]):
        assert "35.25" in codec.told({"crf": 35.25, "preset": "4"}, threads=1)
        assert "35." not in codec.told({"crf": 35, "preset": "4"}, threads=1)
        assert codec.quantizer is not None
        assert codec.quantizer.step == 0.25
    told = codec.told({"crf": 35.25, "preset": "4"}, threads=1)
    assert "-crf" not in told, "FFmpeg's option would round it"
