"""`tokcodec eval`: records, curves, the anchor, and what is printed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from command_line import called, typed
from media import make_video, picture, psnr

from tokcodec import Codec
from tokcodec.errors import MediaError, OutputError, UsageError
from tokcodec.evaluation import (
    CurvePoint,
    EvalSettings,
    Record,
    RecordStore,
    at_rate,
    average,
    evaluate,
    find_clips,
    measure,
    monotone_breaks,
    read_clip,
)
from tokcodec.evaluation.plot import draw
from tokcodec.evaluation.record import METRICS, TOKCODEC, X265, Key
from tokcodec.evaluation.report import make_report
from tokcodec.frames.hevc import decode_hevc, encode_hevc
from tokcodec.metrics.lpips_network import ALEX, LoadedLpips, Lpips
from tokcodec.metrics.meter import Meter

ABSENT = LoadedLpips(network=None, reason="absent")


def record(setting: float, rate: float, *, codec: str = TOKCODEC, clip: str = "a", **quality: float | None) -> Record:
    key = Key(
        clip_sha256=clip,
        max_frames=None,
        codec=codec,
        setting=setting,
        effort=1 if codec == TOKCODEC else 0,
        model_sha256="m" if codec == TOKCODEC else "",
        device="cpu",
        lpips_every=1,
    )
    return Record(
        key=key,
        clip=f"{clip}.mp4",
        width=100,
        height=100,
        frames=8,
        coded_bytes=round(rate * 10000),
        bits_per_pixel=rate,
        quality={name: quality.get(name) for name in METRICS},
        lpips_sources={"lpips_alex": "", "lpips_vgg": ""},
        seconds=1.0,
        versions={},
    )


def point(setting: float, rate: float, **quality: float | None) -> CurvePoint:
    return average([record(setting, rate, **quality)], TOKCODEC)[0]


def test_curves_are_means_over_clips_by_rising_rate():
    records = [
        record(2, 0.03, clip="a", psnr_rgb=30.0, lpips_alex=0.2),
        record(1, 0.01, clip="a", psnr_rgb=24.0, lpips_alex=0.4),
        record(2, 0.05, clip="b", psnr_rgb=32.0, lpips_alex=None),
        record(1, 0.02, clip="b", psnr_rgb=26.0, lpips_alex=0.6),
        record(9, 0.02, clip="b", codec=X265, psnr_rgb=20.0),
    ]
    low, high = average(records, TOKCODEC)
    assert (low.setting, low.clips, low.frames, high.setting) == (1, 2, 16, 2)
    assert low.bits_per_pixel == pytest.approx(0.015)
    assert low.quality["psnr_rgb"] == 25
    assert low.quality["lpips_alex"] == pytest.approx(0.5)
    assert high.quality["lpips_alex"] is None, "a mean over some of the clips would be compared with one over all"


def test_between_points_quality_is_linear_in_the_logarithm_of_the_rate():
    curve = [point(3, 0.01, psnr_rgb=20.0), point(2, 0.04, psnr_rgb=26.0), point(1, 0.08, psnr_rgb=math.inf)]
    found = at_rate(curve, 0.02)
    assert found is not None
    assert found["psnr_rgb"] == pytest.approx(23)
    assert found["lpips_vgg"] is None
    assert [at_rate(curve, rate) for rate in (0.0099, 0.0801)] == [None, None]
    for rate, value in ((0.01, 20), (0.04, 26), (0.05, 26)):
        at_point = at_rate(curve, rate)
        assert at_point is not None
        assert at_point["psnr_rgb"] == pytest.approx(value)
    assert at_rate(curve[:1], 0.01) is None


def test_levels_out_of_order_are_found():
    good = [point(1, 0.01, psnr_y=20.0, lpips_alex=0.5), point(2, 0.02, psnr_y=21.0, lpips_alex=0.4)]
    assert monotone_breaks(good) == []
    bad = [*good, point(3, 0.015, psnr_y=21.0, lpips_alex=0.45)]
    assert monotone_breaks(bad) == [
        "bits_per_pixel does not rise from level 2 to 3",
        "psnr_y gets no better from level 2 to 3",
        "lpips_alex gets no better from level 2 to 3",
    ]


def test_a_store_goes_on_where_a_killed_run_stopped(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    first, second = record(1, 0.01, psnr_rgb=math.inf), record(2, 0.02, psnr_rgb=30.0)
    store = RecordStore(path)
    store.add(first)
    store.add(second)
    data = path.read_bytes()
    assert b"Infinity" not in data
    path.write_bytes(data[:-20])
    again = RecordStore(path)
    assert again.find(first.key, lpips_sources={}) == first
    assert again.find(second.key, lpips_sources={}) is None
    again.add(second)
    assert path.read_bytes() == data
    assert len(RecordStore(path)) == 2
    assert RecordStore(None).find(first.key, lpips_sources={}) is None


def test_lpips_is_measured_again_with_other_backbones_only(tmp_path: Path):
    measured = dataclasses.replace(record(1, 0.01), lpips_sources={"lpips_alex": "x 1", "lpips_vgg": ""})
    store = RecordStore(tmp_path / "out.jsonl")
    store.add(measured)
    for alex, vgg, fits in (("x 1", "", True), ("", "", True), ("x 2", "", False), ("x 1", "y 1", False)):
        found = store.find(measured.key, lpips_sources={"lpips_alex": alex, "lpips_vgg": vgg})
        assert (found is not None) == fits


def test_lines_without_dists_load():
    values = json.loads(record(1, 0.01).to_json())
    del values["quality"]["dists"]
    assert Record.from_json(json.dumps(values)).quality["dists"] is None


def test_other_files_are_refused_and_kept(tmp_path: Path):
    for text in ('{"a": 1}\n', "notes\n", "notes without an end"):
        path = tmp_path / "notes.txt"
        path.write_text(text)
        with pytest.raises(MediaError, match="eval"):
            RecordStore(path)
        assert path.read_text() == text
    with pytest.raises(OutputError):
        RecordStore(tmp_path / "none" / "out.jsonl")


def moving(count: int, height: int, width: int) -> np.ndarray:
    return np.stack([picture(width, height, index) for index in range(count)])


def x265(frames: np.ndarray, crf: float) -> bytes:
    return encode_hevc(frames, crf=crf, frame_rate=Fraction(24), matrix=1, preset="medium", params=measure.X265_PARAMS)


def test_x265_gives_all_frames_back_at_any_size():
    frames = moving(4, 65, 77)
    small, large = x265(frames, 45), x265(frames, 20)
    assert large.startswith(b"\0\0\0\1")
    assert len(small) < len(large)
    assert b"x265" not in large, "no message about settings in the rate"
    scores = []
    for data in (small, large):
        decoded = np.stack(list(decode_hevc(data, matrix=1, width=77, height=65)))
        assert decoded.shape == frames.shape
        scores.append(psnr(frames, decoded))
    assert scores[0] < scores[1]
    assert scores[1] > 33
    with pytest.raises(MediaError, match="below 64"):
        x265(moving(1, 64, 62), 30)
    with pytest.raises(MediaError, match="no frames"):
        x265(moving(1, 64, 64)[:0], 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clips")
    make_video(place / "large.mkv", size=(80, 64), count=4, tags=(1, 1, 1, 1))
    make_video(place / "small.mkv", size=(64, 32), count=3)
    (place / "notes.txt").write_text("not a video")
    return place


def test_clips(folder: Path, tmp_path: Path):
    large, small = find_clips(folder)
    clip = read_clip(large)
    assert clip.frames.shape == (4, 64, 80, 3)
    assert (clip.frame_rate, clip.matrix, read_clip(small).matrix) == (24, 1, 5)
    assert read_clip(large, max_frames=2).frames.shape[0] == 2
    with pytest.raises(MediaError, match="no videos"):
        find_clips(tmp_path)


def test_a_second_run_measures_nothing_twice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    codec = Codec(device="cpu")
    meter = Meter(alex=LoadedLpips(network=Lpips(ALEX).eval(), source="random"), vgg=ABSENT)
    settings = EvalSettings(qualities=(1, 6), crfs=(30.0, 45.0), max_frames=3)
    path = tmp_path / "out.jsonl"

    def run(**changes: object) -> list[Record]:
        some = dataclasses.replace(settings, **changes)
        store = RecordStore(path)
        return evaluate(find_clips(folder), codec, meter, some, model_sha256="m", store=store, say=said.append)

    records = run()
    assert [(r.clip, r.key.codec, r.key.setting) for r in records] == [
        ("large.mkv", TOKCODEC, 1),
        ("large.mkv", TOKCODEC, 6),
        ("large.mkv", X265, 30),
        ("large.mkv", X265, 45),
        ("small.mkv", TOKCODEC, 1),
        ("small.mkv", TOKCODEC, 6),
    ]
    assert len(said) == 8
    assert sum("left out" in line for line in said) == 2
    frames = read_clip(folder / "large.mkv", max_frames=3).frames
    data = codec.encode_frames(frames, quality=6, frame_rate=24)
    ours = records[1]
    assert (ours.coded_bytes, ours.frames) == (len(data), 3)
    assert ours.bits_per_pixel == pytest.approx(8 * len(data) / (3 * 64 * 80))
    assert ours.quality["psnr_rgb"] == pytest.approx(psnr(frames, codec.decode_frames(data).frames))
    assert ours.quality["lpips_alex"] is not None
    assert ours.quality["lpips_vgg"] is None
    lines = path.read_text().splitlines()
    assert [Record.from_json(line) for line in lines] == records

    monkeypatch.setattr(codec, "encode_frames", lambda *_, **__: pytest.fail("measured twice"))
    (folder / "small.mkv").rename(folder / "another name.mkv")
    try:
        assert [r.quality for r in sorted(run(), key=lambda r: r.width, reverse=True)] == [r.quality for r in records]
    finally:
        (folder / "another name.mkv").rename(folder / "small.mkv")
    assert path.read_text().splitlines() == lines
    assert len(run(qualities=())) == 2


def test_the_report_says_what_is_missing():
    ours = [
        record(level, rate, psnr_rgb=20.0 + level, ms_ssim_rgb=0.9 + rate)
        for level, rate in ((1, 0.004), (2, 0.02), (3, 0.2))
    ]
    anchor = [record(crf, rate, codec=X265, psnr_rgb=20.0, ms_ssim_rgb=0.5) for crf, rate in ((30, 0.1), (50, 0.01))]
    report = make_report([*ours, *anchor], missing={"lpips_vgg": "no file"}, lpips_every=3, max_frames=None)
    texts = [" ".join(" ".join(line).split()) for line in report.lines()]
    assert texts[1:7] == [
        "quality 1 0.00400 21.00 0.9040",
        "x265 medium its lowest rate is 0.01000",
        "quality 2 0.02000 22.00 0.9200",
        "x265 medium 0.02000 20.00 0.5000",
        "quality 3 0.20000 23.00 1.1000",
        "x265 medium its highest rate measured is 0.10000",
    ]
    assert texts[7].startswith("monotone yes")
    assert "LPIPS and DISTS on one frame in 3" in texts[8]
    assert "effort 1" in texts[9]
    assert "crf 30 50" in texts[10]
    assert "linear in log(bpp)" in texts[10]
    assert texts[11] == "LPIPS VGG not measured: no file"
    values = report.values()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert [level["anchor"] is None for level in values["levels"]] == [True, False, True]
    fewer = make_report([*ours, record(1, 0.01, clip="b"), *anchor], missing={}, lpips_every=1, max_frames=4)
    assert fewer.anchor_at(fewer.levels[0]) == (None, "not every clip is large enough for x265")


def test_the_picture(tmp_path: Path):
    records = [record(1, 0.01, psnr_rgb=20.0), record(2, 0.02, psnr_rgb=22.0), record(30, 0.03, codec=X265)]
    report = make_report(records, missing={}, lpips_every=1, max_frames=None)
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(UsageError, match="matplotlib"):
            draw(report, tmp_path / "a.png")
        assert not (tmp_path / "a.png").exists()
        return
    draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(folder: Path, tmp_path: Path):
    command = ("eval", "--data", folder, "--json", "--device", "cpu")
    out = tmp_path / "out.jsonl"
    options = ("-v", "--frames", "1", "--qualities", "2", "--anchor-crf", "40", "--every", "2", "--out", out)
    done = typed(*command, *options)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert [level["setting"] for level in values["levels"]] == [2]
    assert [anchor["clips"] for anchor in values["anchor"]] == [1]
    assert len(out.read_text().splitlines()) == 3
    assert b"1 of 4: large.mkv tokcodec 2: " in done.stderr
    for words in (["--qualities", "7"], ["--qualities", "a"], ["--anchor-crf", "99"], ["--every", "0"]):
        done = called(*command, *words)
        assert done.returncode == 2, done.stderr
        assert done.stdout == b""
