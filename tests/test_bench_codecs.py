"""The codecs of the bench, each with its encoder, and what their processes are measured by."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from media import make_video, psnr

from tokcodec.bench.clips import ClipFacts, write_clip
from tokcodec.bench.codecs import BenchCodec, make_codecs, vvenc
from tokcodec.bench.datasets import ClipSource
from tokcodec.bench.examples import ExampleJob, make_example
from tokcodec.bench.process import run_measured
from tokcodec.bench.record import METRICS
from tokcodec.bench.tasks import EncodeJob, MeasureJob, MetricChoice, encode_clip, measure_clip
from tokcodec.bench.vmaf import vmaf_missing
from tokcodec.errors import MediaError
from tokcodec.evaluation import read_clip


def not_here(reason: str) -> NoReturn:
    """Skips the test; where CI=true, which installs all that the tests need, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipFacts]:
    """Nine frames of 96x80, lossless."""
    folder = tmp_path_factory.mktemp("clip")
    make_video(folder / "in.mkv", size=(96, 80), count=9, tags=(1, 1, 1, 1))
    path = folder / "clip.avi"
    return path, write_clip(ClipSource(name="in", path=folder / "in.mkv"), path)


def job_of(codec: BenchCodec, setting: dict[str, Any], clip: tuple[Path, ClipFacts], folder: Path) -> EncodeJob:
    target = folder / f"coded{codec.suffix}"
    return EncodeJob(codec=codec, setting=setting, clip=clip[0], target=target, facts=clip[1], threads=1)


@pytest.mark.parametrize("name", ["tokcodec", "x265", "svtav1", "vvenc", "x264"])
def test_each_codec_through_real_files(name: str, clip: tuple[Path, ClipFacts], tmp_path: Path):
    (codec,) = make_codecs([name])
    if reason := codec.absent():
        not_here(reason)
    fixed = dict(codec.settings()[0])
    sizes, scores = [], []
    for value in (30, 45):
        setting = fixed if codec.quantizer is None else {codec.quantizer.name: value, **fixed}
        job = job_of(codec, setting, clip, tmp_path)
        encoded = encode_clip(job)
        assert job.target.stat().st_size == encoded.coded_bytes > 100
        choice = MetricChoice(lpips_folder=tmp_path, vmaf=False)
        again = MeasureJob(encode=job, coded_bytes=encoded.coded_bytes, metrics=choice)
        measured = measure_clip(again)
        assert measured.encoded is None, "the coded file was there"
        assert measured.values["psnr_rgb"] is not None
        assert measured.missing["vmaf"] == "not asked for"
        assert measured.values.keys() == set(METRICS)
        pictures = []
        for coded in (None, job):
            target = tmp_path / "pictures" / f"{len(pictures)}.png"
            example = ExampleJob(number=4, target=target, clip=clip[0], encode=coded, coded_bytes=encoded.coded_bytes)
            assert make_example(example) is None
            pictures.append(read_clip(target).frames[0])
        assert (pictures[0] == read_clip(clip[0]).frames[4]).all()
        assert abs(psnr(*pictures) - measured.values["psnr_rgb"]) < 6
        for speed in (encoded.speed, measured.speed):
            assert speed.frames_per_second == pytest.approx(9 / speed.seconds, rel=0.01)
            assert 10e6 < (speed.peak_memory_bytes or 0) < 4e9
            assert (speed.stages is not None) == (name == "tokcodec")
        sizes.append(encoded.coded_bytes)
        scores.append(measured.values["psnr_rgb"])
        if codec.quantizer is None:
            return
    assert sizes[0] > sizes[1]
    assert scores[0] > scores[1]
    assert scores[0] > 25
    job.target.unlink()
    measured = measure_clip(again)
    assert measured.encoded is not None, "a coded file that is gone is made again"
    assert measured.encoded.coded_bytes == sizes[1]
    assert measured.values["psnr_rgb"] == scores[1]
    told = codec.told(job.setting, threads=1)
    assert "45" in told
    assert "64" in told, "the intra period"


def test_vmaf_of_equal_and_of_spoilt_pictures(clip: tuple[Path, ClipFacts], tmp_path: Path):
    from tokcodec.bench.vmaf import measure_vmaf

    if reason := vmaf_missing():
        not_here(reason)
    make_video(tmp_path / "bad.mkv", size=(96, 80), count=9, tags=(1, 1, 1, 1), options={"crf": "48"})
    assert measure_vmaf(clip[0], clip[0], threads=1) > 90
    assert measure_vmaf(clip[0], tmp_path / "bad.mkv", threads=1) < 80
    with pytest.raises(MediaError, match="VMAF"):
        measure_vmaf(clip[0], tmp_path / "none.mkv", threads=1)


def test_a_codec_that_is_not_here_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vvenc, "_program", lambda: None)
    assert "imageio-ffmpeg" in vvenc.Vvenc().absent()
    (x264,) = make_codecs(["x264"])
    object.__setattr__(x264, "encoder", "libnothing")
    assert x264.absent() == "the FFmpeg in PyAV has no libnothing"
    (x265,) = make_codecs(["x265"])
    assert "64" in x265.refuses(640, 62)
    assert x265.refuses(640, 64) == ""


def test_an_encoder_that_ends_well_and_writes_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "vvencapp"
    program.write_text("#!/bin/sh\ncat > /dev/null\n")
    program.chmod(0o755)
    monkeypatch.setattr(vvenc, "_program", lambda: (str(program), False))
    pictures = [np.zeros((64, 64, 3), np.uint8)]
    setting = {"preset": "medium", "qp": 30, "qpa": 0}
    with pytest.raises(MediaError, match=r"VVenC failed \(0\): it wrote nothing"):
        vvenc.Vvenc().encode(pictures, setting=setting, frame_rate=Fraction(24), matrix=1, threads=1)


def test_memory_is_that_of_the_program_and_not_of_who_starts_it():
    held = np.ones(40_000_000)  # 320 MB
    small = run_measured([sys.executable, "-c", "print('{}')"], threads=1, name="small")
    large = run_measured([sys.executable, "-c", "x = b'x' * 200_000_000; print('{\"a\": 1}')"], threads=1, name="large")
    assert held.sum() == 40_000_000
    assert large.values == {"a": 1}
    assert 0 < (small.peak_memory_bytes or 0) < 100e6 < 200e6 < (large.peak_memory_bytes or 0) < 300e6
    code = "import sys; sys.stderr.write('of no use'); sys.exit(3)"
    with pytest.raises(MediaError, match=r"bad failed \(3\): of no use"):
        run_measured([sys.executable, "-c", code], threads=1, name="bad")
    with pytest.raises(MediaError, match="did not print"):
        run_measured([sys.executable, "-c", "print('hello')"], threads=1, name="bad")
