"""A study from a results folder: the clips are coded again, all codecs at one rate."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench_results import make_results, record
from media import make_video

from tokcodec.bench.codecs import CodecTask, Quantizer
from tokcodec.bench.datasets import find_dataset
from tokcodec.errors import MediaError, UsageError
from tokcodec.study import rerun
from tokcodec.study.make import MakeSettings
from tokcodec.study.rerun import Rerun, plan_rerun

SIZE = (64, 48)
FRAMES = 4
PIXELS = SIZE[0] * SIZE[1] * FRAMES

# The coded file is the name of the lossless clip, padded to the size that the setting asks for.
ENCODE = (
    "import sys; from pathlib import Path; source, target, size = sys.argv[1:];"
    "Path(target).write_bytes(source.encode().ljust(int(size))); print('{\"seconds\": 1}')"
)
DECODE = (
    "import sys, shutil; from pathlib import Path; source, target = sys.argv[1:];"
    "shutil.copy(Path(source).read_text().strip(), target); print('{\"seconds\": 1}')"
)


@dataclass(frozen=True, kw_only=True)
class FakeCodec:
    """Gives the clip back as it is, in files of 6000 bytes times its factor, half as large every six steps."""

    name: str
    factor: float = 1.0
    quantizer: Quantizer | None = None
    weights: str = ""
    missing: str = ""
    suffix: str = ".bin"

    def size(self, setting: Mapping[str, Any]) -> int:
        steps = setting["quality"] * -6 if self.quantizer is None else setting["qp"]
        return round(self.factor * 6000 * 2 ** (-steps / 6))

    def settings(self) -> Sequence[dict[str, Any]]:
        return [{"quality": level, "weights": self.weights} for level in (-3, -2, -1)]

    def absent(self) -> str:
        return self.missing

    def encode_command(self, task: CodecTask) -> list[str]:
        return [sys.executable, "-c", ENCODE, str(task.source), str(task.target), str(self.size(task.setting))]

    def decode_command(self, task: CodecTask) -> list[str]:
        return [sys.executable, "-c", DECODE, str(task.source), str(task.target)]


FIXED = FakeCodec(name="tokcodec", weights="w1")
SEARCHED = FakeCodec(name="x265", factor=1.7, quantizer=Quantizer(name="qp", lowest=0, highest=51, typical=(6, 20)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of one clip, and results of two codecs on it."""
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "apple.mp4", size=SIZE, count=FRAMES)
    (source,) = find_dataset(str(tmp_path / "clips")).clips
    facts = {"width": SIZE[0], "height": SIZE[1], "frames": FRAMES, "clip_sha256": source.digest()}

    def measured(codec: FakeCodec, setting: dict[str, Any]) -> Any:
        rate = 8 * codec.size(setting) / PIXELS
        return dataclasses.replace(record(codec.name, "apple", rate, setting), **facts)

    some = [measured(FIXED, dict(setting)) for setting in FIXED.settings()]
    some += [measured(SEARCHED, {"qp": qp}) for qp in (3, 12, 21, 30)]
    make_results(tmp_path / "results", some)
    use(monkeypatch, FIXED, SEARCHED)
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, *codecs: FakeCodec) -> list[str]:
    """Gives the styles that are asked for."""
    styles: list[str] = []

    def make(names: Sequence[str], *, style: str) -> list[FakeCodec]:
        styles.append(style)
        return [one for one in codecs if one.name in names]

    monkeypatch.setattr(rerun, "make_codecs", make)
    return styles


def wanted(place: Path, *rates: float) -> Rerun:
    return Rerun(dataset=str(place / "clips"), root=None, codecs=("tokcodec", "x265"), rates=rates)


def test_codecs_meet_at_the_rate_of_the_one_that_cannot_choose(place: Path):
    fixed_rate = 8 * FIXED.size({"quality": -2}) / PIXELS
    plan = plan_rerun(place / "results", wanted(place, fixed_rate * 1.1))
    (meeting,) = plan.meetings
    assert meeting.target == pytest.approx(fixed_rate)
    study = plan.make(place / "out", MakeSettings(seed="x"))
    rates = {stimulus.codec: stimulus.bits_per_pixel for stimulus in study.stimuli}
    assert rates["tokcodec"] == pytest.approx(fixed_rate)
    best = min(range(52), key=lambda qp: abs(math.log(SEARCHED.size({"qp": qp}) / FIXED.size({"quality": -2}))))
    assert best not in (3, 12, 21, 30), "the search had to move"
    assert rates["x265"] == pytest.approx(8 * SEARCHED.size({"qp": best}) / PIXELS)
    assert len(study.pairs) == 1
    assert all((place / "out" / stimulus.file).is_file() for stimulus in study.stimuli)
    assert {(stimulus.width, stimulus.height, stimulus.frames) for stimulus in study.stimuli} == {(*SIZE, FRAMES)}


def test_a_quantizer_at_which_the_encoder_fails_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch):
    rate = 8 * FIXED.size({"quality": -2}) / PIXELS
    sizes = {qp: abs(math.log(SEARCHED.size({"qp": qp}) / FIXED.size({"quality": -2}))) for qp in range(52)}
    best, second = sorted(sizes, key=lambda qp: sizes[qp])[:2]
    encode = FakeCodec.encode_command

    def failing(self: FakeCodec, task: CodecTask) -> list[str]:
        broken = self is SEARCHED and task.setting["qp"] == best
        return [sys.executable, "-c", "import sys; sys.exit(3)"] if broken else encode(self, task)

    monkeypatch.setattr(FakeCodec, "encode_command", failing)
    study = plan_rerun(place / "results", wanted(place, rate)).make(place / "out", MakeSettings(seed="x"))
    rates = {stimulus.codec: stimulus.bits_per_pixel for stimulus in study.stimuli}
    assert rates["x265"] == pytest.approx(8 * SEARCHED.size({"qp": second}) / PIXELS)


def test_a_search_that_ends_at_the_last_quantizer_is_noted(place: Path, monkeypatch: pytest.MonkeyPatch):
    narrow = dataclasses.replace(SEARCHED, quantizer=Quantizer(name="qp", lowest=0, highest=13, typical=(6, 12)))
    use(monkeypatch, FIXED, narrow)
    low_rate = 8 * FIXED.size({"quality": -3}) / PIXELS
    plan = plan_rerun(place / "results", wanted(place, low_rate))
    plan.meetings[0].records[1].setting["qp"] = 12
    study = plan.make(place / "out", MakeSettings(seed="x"))
    assert any("rates from" in note for note in study.notes)


def test_what_cannot_be_compared_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch):
    rate = 8 * FIXED.size({"quality": -2}) / PIXELS
    with pytest.raises(UsageError, match="no clip has two codecs"):
        plan_rerun(place / "results", wanted(place, rate * 20))
    use(monkeypatch, dataclasses.replace(FIXED, weights="w2"), SEARCHED)
    with pytest.raises(UsageError, match="other weights"):
        plan_rerun(place / "results", wanted(place, rate))
    use(monkeypatch, FIXED, dataclasses.replace(SEARCHED, missing="no library"))
    with pytest.raises(UsageError, match="x265 is not on this machine: no library"):
        plan_rerun(place / "results", wanted(place, rate))
    use(monkeypatch, FIXED, dataclasses.replace(SEARCHED, name="x264"))
    with pytest.raises(UsageError, match="x264 was not measured"):
        plan_rerun(place / "results", dataclasses.replace(wanted(place, rate), codecs=("tokcodec", "x264")))
    use(monkeypatch, FIXED, SEARCHED)
    make_video(place / "clips" / "apple.mp4", size=SIZE, count=FRAMES + 1)
    with pytest.raises(MediaError, match="not the clip that was measured"):
        plan_rerun(place / "results", wanted(place, rate))


@pytest.mark.parametrize(("post_filter", "style"), [(None, "faithful"), ("0123456789ab", "auto")])
def test_pictures_are_shown_as_they_were_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch, post_filter: str | None, style: str
):
    results = place / "results" / "results.jsonl"
    records = [json.loads(line) for line in results.read_text().splitlines()]
    for line in records:
        if line["codec"] == "tokcodec" and post_filter:
            line["setting"]["post_filter"] = post_filter
    results.write_text("".join(json.dumps(line) + "\n" for line in records))
    styles = use(monkeypatch, FIXED, SEARCHED)
    with contextlib.suppress(UsageError):  # these codecs know of no filter
        plan_rerun(place / "results", wanted(place, 8 * FIXED.size({"quality": -2}) / PIXELS))
    assert styles == [style]
