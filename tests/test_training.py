"""The loop of training: averages, interruptions, what it computes, from a folder to weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from media import make_video
from training_helpers import PHASES, SMALL, some_frames, trainer

from tokcodec.errors import ModelError, UsageError
from tokcodec.metrics.lpips_network import VGG, Lpips
from tokcodec.tokenizer.cost import clip_flops_per_pixel, measure_cost
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training import meter
from tokcodec.training.config import RunConfig, TrainConfig
from tokcodec.training.export import export
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.meter import ComputeClock, Meter, Progress, peak_flops
from tokcodec.training.packed import PackConfig
from tokcodec.training.run import train_folder
from tokcodec.training.source import Batch
from tokcodec.weights import find_by_name, load_tokenizer


def test_the_average_follows_the_weights(tmp_path: Path):
    run = trainer(tmp_path / "c.pt", ema=0.15, learning_rate=0.1, warmup_steps=1)
    name = "decoder.first.token_in.weight"
    expected = run.average.state_dict()[name].clone()
    decays = []

    def follow(progress: Progress) -> None:
        nonlocal expected
        decays.append(min(0.15, progress.step / (9 + progress.step)))  # little of the beginning stays
        expected = decays[-1] * expected + (1 - decays[-1]) * run.model.state_dict()[name]
        torch.testing.assert_close(run.average.state_dict()[name], expected)
        assert (run.average.state_dict()[name] != run.model.state_dict()[name]).any(), "it lags behind"
        if len(decays) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(some_frames(), max_minutes=9.0, total_minutes=9.0, log=follow, log_seconds=0.0)
    assert decays == pytest.approx([1 / 10, 0.15, 0.15, 0.15])
    exported = load_tokenizer(export(tmp_path / "c.pt", tmp_path, name="own"))
    assert torch.equal(exported.state_dict()[name].float(), run.average.state_dict()[name].bfloat16().float())


def test_an_interrupted_run_is_saved(tmp_path: Path):
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    run = trainer(tmp_path / "c.pt")
    with pytest.raises(KeyboardInterrupt):
        run.run(some_frames(), max_minutes=1.0, total_minutes=1.0, log=interrupt, log_seconds=0.0)
    assert trainer(tmp_path / "c.pt").step == 1


def test_steps_without_finite_gradients_are_skipped(tmp_path: Path):
    class Broken:
        def batch(self, size: int, frames: int, side: int) -> Batch:
            return Batch(torch.full((size, frames, 3, side, side), float("nan")), torch.zeros(size, 0, 4, 2, 4, 4))

    run = trainer(tmp_path / "c.pt", max_skipped_steps=3)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    lines: list[Progress] = []
    with pytest.raises(ModelError, match="not finite"):
        run.run(Broken(), max_minutes=1.0, total_minutes=1.0, log=lines.append, log_seconds=0.0)
    for model in (run.model, run.average):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, before[name])
    assert [line.skipped for line in lines] == [1, 1, 1]
    assert not (tmp_path / "c.pt").exists()


def test_a_run_with_lpips(tmp_path: Path):
    phases = (dataclasses.replace(PHASES[0], share=1.0, side=16, batch=1),)
    config = TrainConfig(phases=phases, weights=LossWeights(lpips=0.1), lpips_frames=1)
    with pytest.raises(UsageError, match="LPIPS"):
        Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt")
    lines: list[Progress] = []
    run = Trainer(
        model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt", lpips=Lpips(VGG).eval().requires_grad_(False)
    )
    run.run(some_frames(), max_minutes=0.001, total_minutes=0.001, log=lines.append, log_seconds=0.0)
    assert lines[0].terms["lpips"] > 0


def test_time_is_that_of_computing(monkeypatch: pytest.MonkeyPatch):
    times = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(meter.time, "monotonic", lambda: times["wall"])
    monkeypatch.setattr(meter.time, "process_time", lambda: times["cpu"])
    clock = ComputeClock()
    times.update(wall=2.0, cpu=0.1)
    assert clock.lap() == 2.0, "a GPU computes, or the processors are shared"
    times.update(wall=1002.0, cpu=1.1)
    assert clock.lap() == meter.STEP_SECONDS, "the process was stopped"
    times.update(wall=1062.0, cpu=101.1)
    assert clock.lap() == 60.0, "a long step on two processors"


def test_what_a_run_computes_a_second():
    cost = measure_cost(Tokenizer(SMALL))
    later = cost.encoder_flops_per_pixel + cost.decoder_flops_per_pixel
    first = clip_flops_per_pixel(SMALL, frames=1)
    assert first > later, "a step of one frame has a map of its own"
    assert clip_flops_per_pixel(SMALL, frames=17) == pytest.approx((first + 16 * later) / 17)
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA L40") == 181e12
    assert peak_flops("cpu") is None
    some = Meter(devices=2, peak=1e9)
    for skipped in (False, True):
        some.add({"mse": torch.tensor(0.25)}, clips=4, flops=1e9, seconds=2.0, skipped=skipped)
    line = some.progress(minutes=1.0, step=2, phase=0, learning_rate=0.1)
    assert (line.clips_per_second, line.flops_per_second, line.peak_share, line.skipped) == (4.0, 1e9, 0.5, 1)
    assert line.terms == {"mse": 0.25}


@pytest.mark.parametrize("bits", [18, 36])
def test_from_a_folder_to_weights_that_code(tmp_path: Path, bits: int):
    (tmp_path / "media").mkdir()
    make_video(tmp_path / "media" / "a.mp4", count=8)
    model = dataclasses.replace(SMALL, bits_per_token=bits)
    config = TrainConfig(phases=PHASES, seed=4, source="packed" if bits == 18 else "store")
    entry = train_folder(
        tmp_path / "media",
        tmp_path / "run",
        max_minutes=0.03,
        total_minutes=0.03,
        name="own",
        device="cpu",
        workers=1,
        log=lambda _: None,
        run=RunConfig(model=model, train=config, pack=PackConfig(clip_frames=5, side=32, clips=6)),
    )
    assert entry is not None
    assert load_tokenizer(entry).config == model
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["run"]["train"]["seed"] == 4
    assert first["run"]["model"]["bits_per_token"] == bits
    assert export(tmp_path / "run" / "checkpoint.pt", tmp_path, name="own").sha256 == entry.sha256
    from tokcodec import Codec

    codec = Codec(model=str(entry.path), weights=entry.path, device="cpu")
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    data = codec.encode_frames(frames)
    assert codec.decode_frames(data).frames.shape == frames.shape
    assert find_by_name(str(entry.path)).sha256.encode() not in data, "the digest is binary"
    assert bytes.fromhex(entry.sha256) in data


def train_a_moment(folder: Path, run: RunConfig, *, exclude: tuple[str, ...] = ()) -> list[str]:
    """Train on `folder/media` into `folder/run`; gives the lines of the log."""
    lines: list[str] = []
    train_folder(
        folder / "media",
        folder / "run",
        max_minutes=0.0001,
        total_minutes=0.0001,
        name="own",
        device="cpu",
        workers=1,
        exclude=exclude,
        log=lines.append,
        run=run,
    )
    return lines


def test_phases_are_compared_with_the_pack_before_anything_is_done(tmp_path: Path):
    (tmp_path / "media").mkdir()
    make_video(tmp_path / "media" / "a.mp4", count=8)
    small = RunConfig(
        model=SMALL,
        train=TrainConfig(phases=PHASES, source="packed"),
        pack=PackConfig(clip_frames=1, side=40, clips=6),
    )
    with pytest.raises(UsageError, match="phase 2 takes 5 frames of 32x32, but packed clips have 1 of 40x40") as found:
        train_a_moment(tmp_path, small)
    assert '"pack": {"clip_frames": 5, "side": 40}' in (found.value.hint or "")
    assert not (tmp_path / "run" / "packed").exists()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    fitting = dataclasses.replace(small, pack=PackConfig(clip_frames=5, side=32, clips=6))
    assert any(line.startswith("packed {'clips': 6") for line in train_a_moment(tmp_path, fitting))
    larger = TrainConfig(phases=(dataclasses.replace(PHASES[1], share=1.0, side=40),), source="packed")
    with pytest.raises(UsageError, match=r"phase 1 .*5 of 32x32") as found:
        train_a_moment(tmp_path, dataclasses.replace(small, train=larger))
    assert found.value.where == str(tmp_path / "run" / "packed"), "what is there counts, not what would be packed"
    assert "remove the folder first" in (found.value.hint or "")


def test_a_run_leaves_out_what_it_is_told_to(tmp_path: Path):
    (tmp_path / "media").mkdir()
    for name in ("a", "b", "c"):
        make_video(tmp_path / "media" / f"{name}.mp4", count=8)
    pack_config = PackConfig(clip_frames=5, side=32, clips=6)
    packed, store = (
        RunConfig(model=SMALL, train=TrainConfig(phases=PHASES, source=source), pack=pack_config)
        for source in ("packed", "store")
    )
    assert "1 of 3 videos and photographs excluded" in train_a_moment(tmp_path, store, exclude=("b*",))
    lines = train_a_moment(tmp_path, packed, exclude=("b*", "c.mp4"))
    assert "2 of 3 videos and photographs excluded" in lines
    assert any("'excluded': 2" in line for line in lines)
    with pytest.raises(UsageError, match=r"packed with b\* c.mp4 excluded"):
        train_a_moment(tmp_path, packed, exclude=("a*",))
    lines = train_a_moment(tmp_path, store, exclude=("c.mp4", "b*"))
    assert any(line.startswith("6 packed clips") for line in lines), "a store reads what is packed"


def test_nothing_above_imports_training():
    script = (
        "import sys, tokcodec.codec, tokcodec.inspection, tokcodec.evaluation, tokcodec.demo\n"
        "sys.exit(any(name.startswith('tokcodec.training') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 0
