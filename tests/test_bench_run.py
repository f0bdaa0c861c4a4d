"""Runs of the bench: resuming, engines, the command."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from media import make_video

from tokcodec.bench import examples, runner, tracks
from tokcodec.bench.clips import ClipFacts
from tokcodec.bench.codecs import make_codecs, vvenc
from tokcodec.bench.datasets import ClipSource, Dataset, parse_size
from tokcodec.bench.engine import RayEngine, Task, make_engine
from tokcodec.bench.examples import ExampleJob
from tokcodec.bench.plan import Outcome, Plan
from tokcodec.bench.rates import TOLERANCE, RateSpan
from tokcodec.bench.record import METRICS, BenchRecord
from tokcodec.bench.runner import run_plan
from tokcodec.bench.store import open_store
from tokcodec.bench.tasks import Encoded, EncodeJob, Measured, MeasureJob, MetricChoice
from tokcodec.cli import app
from tokcodec.cli.bench import _present
from tokcodec.errors import IncompleteError, MediaError, UsageError


@dataclass
class CountingEngine:
    """Runs a task when its result is asked for, and keeps what ran."""

    jobs: int = 2
    ran: list[str] = field(default_factory=list)
    fail_at: str = ""
    tasks: list[Task] = field(default_factory=list)

    def submit(self, task: Task) -> Any:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def wait(self, handles: Any) -> Any:
        return next(iter(handles))

    def result(self, handle: Any) -> Any:
        function, job = self.tasks[handle]
        setting = getattr(getattr(job, "encode", job), "setting", {})
        self.ran.append(f"{function.__name__} {setting.get('crf', '')}".strip())
        if self.ran[-1] == self.fail_at:
            raise MediaError("broken")
        return function(job)

    def close(self) -> None:
        pass


@pytest.fixture
def fake_tasks(monkeypatch: pytest.MonkeyPatch):
    """Tasks that make up their results: the rate falls with the quantizer, the quality too."""
    from bench_helpers import MACHINE, SPEED

    def prepare_clip(job: Any) -> ClipFacts:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        return ClipFacts(width=1000, height=800, frames=10, frame_rate="24/1", matrix=1)

    def encode_clip(job: EncodeJob) -> Encoded:
        steps = 51.5 - 5 * job.setting["quality"] if "quality" in job.setting else job.setting["crf"]
        return Encoded(coded_bytes=int(2e6 * 0.88**steps), speed=SPEED, machine="m")

    def measure_clip(job: MeasureJob) -> Measured:
        values = {**dict.fromkeys(METRICS), "psnr_y": 50.0}
        return Measured(encoded=None, speed=SPEED, values=values, missing={}, sources={}, machine=MACHINE)

    def make_example(job: ExampleJob) -> None:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_text(f"frame {job.number} {'' if job.encode is None else job.encode.setting}")

    monkeypatch.setattr(runner, "prepare_clip", prepare_clip)
    monkeypatch.setattr(tracks, "encode_clip", encode_clip)
    monkeypatch.setattr(tracks, "measure_clip", measure_clip)
    monkeypatch.setattr(examples, "make_example", make_example)


def plan_of(folder: Path, **changes: Any) -> Plan:
    names = ("a", "b")
    for name in names:
        (folder / f"{name}.mkv").write_text(name)
    clips = tuple(ClipSource(name=name, path=folder / f"{name}.mkv") for name in names)
    fields: dict[str, Any] = {
        "dataset": Dataset(name="d", size=None, clips=clips),
        "codecs": make_codecs(["x264"]),
        "size": None,
        "max_frames": None,
        "threads": 1,
        "span": RateSpan(),
        "metrics": MetricChoice(),
        "lpips": {"lpips_alex": "", "lpips_vgg": ""},
        "vmaf": "",
    }
    return Plan(**{**fields, **changes})


def run_fake(plan: Plan, folder: Path, **engine: Any) -> tuple[Outcome, list[str], list[BenchRecord]]:
    counting = CountingEngine(**engine)
    with open_store(folder) as store:
        outcome = run_plan(plan, store, counting, lambda _: None)
        return outcome, counting.ran, store.records


@pytest.mark.usefixtures("fake_tasks")
def test_nothing_is_measured_twice(tmp_path: Path):
    out = tmp_path / "out"
    plan = plan_of(tmp_path)
    outcome, ran, records = run_fake(plan, out)
    assert (outcome.measured, outcome.known, outcome.failures, outcome.short) == (12, 0, [], [])
    for clip in ("a", "b"):
        rates = sorted(record.bits_per_pixel for record in records if record.clip == clip)
        assert len(rates) == 6
        assert rates[0] <= 0.005 < rates[1]
        assert rates[-2] < 0.1 <= rates[-1]
    assert ran.count("prepare_clip") == 2
    assert not (out / "work").exists()
    again, ran, same = run_fake(plan, out)
    assert (again.measured, again.known, ran) == (0, 12, [])
    assert same == records
    lines = (out / "encodes.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines})


@pytest.mark.usefixtures("fake_tasks")
def test_what_failed_is_measured_by_the_next_run(tmp_path: Path):
    plan = plan_of(tmp_path)
    _, ran, _ = run_fake(plan, tmp_path / "probe")
    last = next(name for name in reversed(ran) if name.startswith("measure"))
    outcome, _, records = run_fake(plan, tmp_path / "out", fail_at=last)
    assert len(outcome.failures) == 2
    assert "broken" in outcome.failures[0]
    assert len(records) == 10
    outcome, ran, records = run_fake(plan, tmp_path / "out")
    assert (outcome.measured, outcome.known) == (2, 10)
    assert sorted(ran) == [last, last, "prepare_clip", "prepare_clip"]
    assert len(records) == 12


def break_encoder(monkeypatch: pytest.MonkeyPatch, broken: Container[float]) -> None:
    """To be used with `fake_tasks`."""
    works = tracks.encode_clip

    def encode_clip(job: EncodeJob) -> Encoded:
        if job.setting.get("crf") in broken:
            raise MediaError("it wrote nothing")
        return works(job)

    monkeypatch.setattr(tracks, "encode_clip", encode_clip)


@pytest.mark.usefixtures("fake_tasks")
def test_an_encoder_that_fails_at_a_quantizer_gets_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    plan = plan_of(tmp_path, codecs=make_codecs(["x264", "tokcodec"]))
    _, _, records = run_fake(plan, tmp_path / "probe")
    curve = sorted(record.setting["crf"] for record in records if (record.clip, record.codec) == ("a", "x264"))
    broken = {curve[0], curve[3]}
    break_encoder(monkeypatch, broken)
    outcome, ran, records = run_fake(plan, out)
    assert outcome.failures == []
    found = sorted(record.setting["crf"] for record in records if (record.clip, record.codec) == ("a", "x264"))
    assert len(found) == 6
    assert found[0] == curve[0] - 1, "the span is still enclosed"
    assert abs(found[3] - curve[3]) == 1
    assert not broken & set(found)
    said = [f"{clip}, x264 crf {crf} preset medium: it wrote nothing" for clip in ("a", "b") for crf in sorted(broken)]
    assert sorted(outcome.failed) == said
    assert ran.count(f"encode_clip {curve[0]}") == 2, "once a clip"
    kept = json.loads((out / "failed.json").read_text())
    assert {(one["clip"], one["setting"]["crf"]) for one in kept.values()} == {(c, q) for c in "ab" for q in broken}
    again, ran, same = run_fake(plan, out)
    assert (ran, same) == ([], records)
    assert sorted(again.failed) == said


@pytest.mark.usefixtures("fake_tasks")
def test_an_encoder_that_fails_always_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        break_encoder(patch, range(52))
        outcome, ran, records = run_fake(plan_of(tmp_path, examples=False), tmp_path / "out")
    assert outcome.failures == ["a, x264: it wrote nothing", "b, x264: it wrote nothing"]
    assert sum(name.startswith("encode_clip") for name in ran) == 2 * (tracks.MOST_FAILURES + 1)
    assert (records, outcome.failed, (tmp_path / "out" / "failed.json").exists()) == ([], [], False)
    assert run_fake(plan_of(tmp_path), tmp_path / "out")[0].measured == 12


@pytest.mark.usefixtures("fake_tasks")
def test_other_networks_and_other_weights_are_other_measurements(tmp_path: Path):
    plan = plan_of(tmp_path)
    run_fake(plan, tmp_path / "out")
    with_lpips = plan_of(tmp_path, lpips={"lpips_alex": "x 1", "lpips_vgg": ""})
    outcome, ran, _ = run_fake(with_lpips, tmp_path / "out")
    assert (outcome.measured, outcome.known) == (12, 0)
    assert not any(name.startswith("encode") for name in ran), "rates are known"
    assert run_fake(plan_of(tmp_path, threads=2), tmp_path / "out")[0].known == 0


@pytest.mark.usefixtures("fake_tasks")
def test_example_frames_are_at_tokcodecs_rate_and_made_once(tmp_path: Path):
    out = tmp_path / "out"
    plan = plan_of(tmp_path, codecs=make_codecs(["x264", "tokcodec"]))
    _, ran, _ = run_fake(plan, out)
    assert sum(name.startswith("make_example") for name in ran) == 6
    index = json.loads((out / "frames" / "index.json").read_text())
    rates = {(entry["clip"], entry["codec"]): entry["bits_per_pixel"] for entry in index}
    assert len(rates) == 6
    # Level 4 is the nearest to 0.03; whole quantizers of x264 are 6% above and below it.
    own = rates["a", "tokcodec"]
    assert own == pytest.approx(2 * 0.88**31.5, rel=1e-3)
    assert rates["a", "x264"] == pytest.approx(own, rel=TOLERANCE)
    assert rates["a", "original"] is None
    assert {(entry["target"], entry["frame"]) for entry in index if entry["codec"] == "x264"} == {(own, 5)}
    assert "'crf'" in (out / "frames" / "a" / "x264.png").read_text()
    assert run_fake(plan, out)[1] == []
    (out / "frames" / "a" / "x264.png").unlink()
    _, ran, _ = run_fake(plan, out)
    assert len(ran) == 2
    assert (ran[0], ran[1].split()[0]) == ("prepare_clip", "make_example")
    assert run_fake(plan_of(tmp_path, examples=False, threads=2), out)[1][-1].startswith("measure_clip")


@pytest.mark.usefixtures("fake_tasks")
def test_sampling_and_precision_are_a_part_of_what_was_measured(tmp_path: Path):
    networks = {"lpips_alex": "x 1", "lpips_vgg": ""}
    for number, choice in enumerate(
        [MetricChoice(), MetricChoice(alex_every=4), MetricChoice(alex_every=4, precision="bfloat16")]
    ):
        plan = plan_of(tmp_path, lpips=networks, metrics=choice)
        outcome, _, records = run_fake(plan, tmp_path / "out")
        assert (outcome.measured, outcome.known) == (12, 0)
        assert records[0].metric_first == ({} if number == 0 else {"lpips_alex": 2})
        assert set(records[0].metric_precision.values()) == ({"bfloat16"} if number == 2 else set())
    assert MetricChoice(vgg_every=64).first_frames(10) == {"lpips_vgg": 9, "dists": 9}


def test_too_small_for_a_codec_is_said(tmp_path: Path):
    make_video(tmp_path / "small.mkv", size=(48, 40), count=2)
    dataset = Dataset(name="d", size=None, clips=(ClipSource(name="small", path=tmp_path / "small.mkv"),))
    outcome, ran, _ = run_fake(plan_of(tmp_path, dataset=dataset, codecs=make_codecs(["x265"])), tmp_path / "out")
    assert ran == ["prepare_clip"]
    assert outcome.left_out == ["small, x265: libx265 takes no picture with a side below 64 pixels"]


def test_engines():
    with pytest.raises(UsageError, match="no engine"):
        make_engine("slurm", jobs=1, threads=1)
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(UsageError, match="needs the package ray"):
            make_engine("ray", jobs=1, threads=1)


@pytest.mark.parametrize("name", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_an_engine_gives_back_results_and_errors(name: str):
    if name == "ray":
        pytest.importorskip("ray")
    engine = make_engine(name, jobs=1, threads=1)
    try:
        handles = [engine.submit((parse_size, text)) for text in ("640x360", "nonsense")]
        results = []
        while handles:
            handle = engine.wait(handles)
            handles.remove(handle)
            try:
                results.append(engine.result(handle))
            except UsageError as error:
                results.append(str(error))
        assert sorted(results, key=str) == sorted([(640, 360), "'nonsense' is not a size"], key=str)
    finally:
        engine.close()


def test_a_worker_that_ray_lost_ends_the_run():
    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        cause = UsageError("told wrongly")

    class FakeRay:
        exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

        @staticmethod
        def get(error: Exception) -> Any:
            raise error

    engine = RayEngine.__new__(RayEngine)
    engine._ray = FakeRay
    with pytest.raises(UsageError, match="told wrongly"):
        engine.result(RayTaskError())
    with pytest.raises(IncompleteError, match=r"Ray lost a task: the worker died$"):
        engine.result(RayError("the worker died\nand much more"))


def test_codecs_that_are_not_here_are_said_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vvenc, "_program", lambda: None)
    said: list[str] = []
    console = SimpleNamespace(note=said.append)
    present, absent = _present(make_codecs(["x264", "vvenc"]), console)  # type: ignore[arg-type]
    assert [codec.name for codec in present] == ["x264"]
    assert "imageio-ffmpeg" in absent["vvenc"]
    assert said == [f"vvenc is absent: {absent['vvenc']}"]
    with pytest.raises(UsageError, match="none of the codecs"):
        _present(make_codecs(["vvenc"]), console)  # type: ignore[arg-type]
    with open_store(tmp_path) as store:
        store.set_absent(absent, ["x264", "vvenc"])
        store.set_absent({}, ["x264"])
        assert json.loads((tmp_path / "absent.json").read_text()) == absent, "not asked for again"
        store.set_absent({}, ["vvenc"])
        assert json.loads((tmp_path / "absent.json").read_text()) == {}


def command(folder: Path, *words: str) -> list[str]:
    fixed = ["--out", str(folder), "--codecs", "x264", "--points", "2", "--no-vmaf", "--no-report"]
    return [sys.executable, "-m", "tokcodec", "bench", *fixed, *words]


def test_a_killed_run_resumes(tmp_path: Path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    make_video(clips / "a.mkv", size=(64, 48), count=6, codec="ffv1", pixel_format="bgr0", tags=(1, 1, 0, 2))
    # Two files of one content would be one clip.
    (clips / "b.mkv").write_bytes((clips / "a.mkv").read_bytes() + b"b")
    results = out / "results.jsonl"
    process = subprocess.Popen(command(out, "--dataset", str(clips)), start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    try:
        while not (results.exists() and results.read_bytes().count(b"\n")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = results.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    encodes = (out / "encodes.jsonl").read_bytes().count(b"\n")
    assert 1 <= before.count(b"\n") < 4, "killed too late"
    done = subprocess.run(
        command(out, "--dataset", str(clips), "--json", "-v"), capture_output=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["measured"], values["known"]) == (4 - before.count(b"\n"), before.count(b"\n"))
    assert results.read_bytes().startswith(before)
    records = [BenchRecord.from_json(line) for line in results.read_text().splitlines()]
    assert len({record.key for record in records}) == len(records) == 4
    assert (out / "encodes.jsonl").read_bytes().count(b"\n") >= encodes
    machine = json.loads((out / "machine.json").read_text())
    assert set(machine) == {record.machine for record in records}
    assert all(machine[key]["cores"] >= 1 for key in machine)
    assert not (out / "work").exists()
    assert values["short"], "6 frames of 64x48 cannot have 0.005 bits per pixel"


def test_the_command_refuses_at_once(tmp_path: Path):
    for words, reason in (
        (["--dataset", "nothing"], "no dataset"),
        (["--dataset", "smoke", "--codecs", "h266"], "no codec"),
        (["--dataset", "smoke", "--size", "big"], "not a size"),
        (["--dataset", "smoke", "--engine", "slurm"], "no engine"),
        (["--dataset", "smoke", "--lpips-precision", "float16"], "no precision"),
    ):
        with pytest.raises(UsageError, match=reason):
            app(["bench", "--out", str(tmp_path / "out"), *words], standalone_mode=False)
    assert not (tmp_path / "out").exists()
