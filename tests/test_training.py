"""Training: losses, the loop, resuming, starting from weights, export; on arrays and a folder made by the tests."""

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
from tiny_model import write_weights

from tokcodec.errors import ModelError, UsageError
from tokcodec.metrics.lpips_network import VGG, Lpips
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import clip_flops_per_pixel, measure_cost
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import Forecast, Past, Tokenizer
from tokcodec.tokenizer.search import search_clip
from tokcodec.training import loop, meter
from tokcodec.training.checkpoint import initialise, join_checkpoint, split_checkpoint
from tokcodec.training.config import Phase, RunConfig, TrainConfig
from tokcodec.training.export import export
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights, latent_terms, perceptual_term, psnr_of_mse, reconstruction_terms
from tokcodec.training.meter import ComputeClock, Meter, Progress, peak_flops
from tokcodec.training.objective import (
    Allocations,
    Steps,
    allocations_of,
    clip_losses,
    kept_from_levels,
    sample_allocations,
)
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.packed import PackConfig
from tokcodec.training.run import train_folder
from tokcodec.training.source import Batch
from tokcodec.training.store import FrameStore
from tokcodec.weights import find_by_name, load_tokenizer, save_tokenizer

SMALL = TokenizerConfig(frame_channels=8, latent_channels=64, encoder_blocks=1, decoder_blocks=1)
PHASES = (
    Phase(share=0.5, frames=1, side=32, batch=4, stage="full"),
    Phase(share=0.5, frames=5, side=32, batch=2, stage="nested"),
)


def some_frames() -> FrameStore:
    """A video and a photograph of noise in memory."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (9, 48, 48, 3), dtype=torch.uint8, generator=generator)
    photograph = torch.randint(0, 256, (1, 48, 48, 3), dtype=torch.uint8, generator=generator)
    return FrameStore([video], [photograph], seed=0)


def trainer(checkpoint: Path, model: TokenizerConfig = SMALL, **options: object) -> Trainer:
    config = TrainConfig(phases=PHASES, **options)  # type: ignore[arg-type]
    return Trainer(model_config=model, config=config, checkpoint=checkpoint)


def everything(batch: int, steps: int, side: int) -> Allocations:
    """All bits of all tokens."""
    return Allocations(levels=torch.full((batch, steps, side, side), 6), still=torch.zeros(batch))


def test_allocation_maps_of_training():
    torch.manual_seed(0)
    found = sample_allocations(400, 3, 9, 10, top=8, usual=6, full_rate_share=0.5)
    levels = found.levels
    assert levels.shape == (400, 3, 9, 10)
    full = (levels[:, 1:] >= 6).flatten(1).all(dim=1).float().mean()
    assert 0.4 < float(full) < 0.7
    assert (int(levels.min()), int(levels.max())) == (0, 8)
    assert 0.02 < float((levels[:, 1:] > 6).flatten(1).any(dim=1).float().mean()) < 0.2, "seldom more than usual"
    assert int(levels[:, 0].min()) >= 1, "a first step always keeps something"
    assert 0 < int((found.still > 0).sum()) < 200
    even = found.still > 0
    assert bool((levels[even, 0] >= levels[even, 1]).all()), "a first step is not poorer than the later ones"
    blocks = levels[:, :, :8, :8].unflatten(2, (2, 4)).unflatten(4, (2, 4))
    assert bool((blocks == blocks[:, :, :, :1, :, :1]).all()), "one level for each block of 4x4 tokens"
    kept = kept_from_levels(levels, (0, 3, 6, 9, 12, 15, 18, 21, 24), 24)
    assert kept.shape == (400, 3, 24, 9, 10)
    torch.testing.assert_close(kept.sum(dim=2), 3.0 * levels)
    assert bool((kept[:, :, :-1] >= kept[:, :, 1:]).all()), "prefixes"


def test_what_each_stage_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = TrainConfig(usual_level=6, full_rate_share=0.0)
    full = allocations_of("full", config, (2, 3, 4, 5), top=11)
    assert full.levels.shape == (2, 3, 4, 5)
    assert bool((full.levels[:, 0] == 11).all()), "a first step keeps everything"
    assert bool((full.levels[:, 1:] == 6).all()), "later ones what the encoder gives them at most"
    assert not full.still.any()
    assert bool((allocations_of("full", config, (2, 3, 4, 5), top=4).levels == 4).all())
    assert bool((allocations_of("continuous", config, (2, 3, 4, 5), top=11).levels == 11).all())
    assert len(allocations_of("nested", config, (9, 3, 4, 5), top=11).levels[:, 1:].unique()) > 2
    seen = []

    def clip_losses_seen(*arguments: object, **options: object) -> dict[str, torch.Tensor]:
        seen.append(arguments[2])
        return clip_losses(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "clip_losses", clip_losses_seen)
    phase = Phase(share=1.0, frames=9, side=32, batch=1, stage="full")
    run = Trainer(model_config=SMALL, config=TrainConfig(phases=(phase,), usual_level=2), checkpoint=tmp_path / "c.pt")
    run.run(some_frames(), max_minutes=0.0001, total_minutes=0.0001, log=lambda _: None)
    assert seen[0].levels[0, :, 0, 0].tolist() == [6, 2, 2]


def test_blocks_that_are_good_already_keep_nothing():
    still = Allocations(levels=torch.full((2, 2, 9, 5), 4), still=torch.tensor([0.1, 0.0]))
    past = Forecast(
        features=torch.zeros(2, 8, 9, 5), frames=torch.zeros(2, 4, 3, 72, 40), motion=torch.zeros(2, 4, 2, 9, 5)
    )
    frames = torch.zeros(2, 4, 3, 72, 40)
    frames[..., 32:64, 32:] = 0.5  # a squared error of 0.25 in the second row and column of blocks
    levels = still.at(1, frames, past)
    assert bool((levels[1] == 4).all()), "nothing is left out of this clip"
    assert bool((levels[0, 4:8, 4:] == 4).all())
    levels[0, 4:8, 4:] = 0
    assert bool((levels[0] == 0).all())
    assert bool((still.at(0, frames, None) == 4).all()), "the first step has no past"


@torch.no_grad()
def test_inflation_starts_video_from_the_image_model():
    torch.manual_seed(0)
    model = Tokenizer(SMALL)
    assert needs_inflation(model)
    model.encoder.merge_first.bias.fill_(0.5)
    for part in (model.encoder, model.decoder):
        for tensor in part.first.state_dict().values():
            tensor.normal_()
        assert any((tensor != part.later.state_dict()[name]).any() for name, tensor in part.first.state_dict().items())
    inflate(model)
    for part in (model.encoder, model.decoder):
        torch.testing.assert_close(part.later.state_dict(), part.first.state_dict(), rtol=0, atol=0)
        assert all(
            a.data_ptr() != b.data_ptr() for a, b in zip(part.later.parameters(), part.first.parameters(), strict=True)
        )
    assert not needs_inflation(model), "what was trained is not overwritten"
    features = torch.rand(1, 32, 4, 4)
    torch.testing.assert_close(
        model.encoder.merge_rest(features.repeat(1, 4, 1, 1)), model.encoder.merge_first(features)
    )
    latent = torch.rand(1, 64, 4, 4)
    torch.testing.assert_close(model.decoder.split_rest(latent), model.decoder.split_first(latent).repeat(1, 4, 1, 1))


def test_losses():
    a, b = torch.zeros(1, 1, 3, 4, 4), torch.full((1, 1, 3, 4, 4), 0.5)
    terms = reconstruction_terms(a, b)
    assert float(terms["l1"]) == pytest.approx(0.5)
    assert float(terms["mse"]) == pytest.approx(0.25)
    assert psnr_of_mse(0.25) == pytest.approx(12.04, abs=0.01)
    z = torch.tensor([1.0, -1.0, 1.0, 1.0]).view(1, 4, 1, 1)
    assert float(latent_terms(z, diversity=1.0)["commitment"]) == 0
    assert float(latent_terms(0.4 * z, diversity=1.0)["commitment"]) == pytest.approx(0.36)
    even = latent_terms(torch.zeros(1, 4, 1, 1), diversity=1.0, group=2)["entropy"]
    assert float(even) == pytest.approx(0.0, abs=1e-5), "undecided, but diverse"
    assert float(latent_terms(z, diversity=0.0)["entropy"]) < 0.02, "decided"


def test_the_perceptual_term_looks_at_some_frames():
    seen = []

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((a.shape, (a - b).abs().amax()))
        return (a - b).abs().mean(dim=(1, 2, 3))

    frames = torch.rand(2, 5, 3, 4, 4)
    term = perceptual_term(frames + 0.5, frames, distance, count=3)
    assert float(term) == pytest.approx(0.5)
    assert seen[0][0] == (3, 3, 4, 4)
    assert float(seen[0][1]) == pytest.approx(0.5), "each frame against its own original"
    perceptual_term(frames, frames, distance, count=99)
    assert seen[1][0] == (10, 3, 4, 4)


@pytest.mark.parametrize(("quantizer", "bits"), [("lfq", 18), ("none", 18), ("lfq", 36)])
def test_losses_of_a_clip_reach_every_weight(quantizer: str, bits: int):
    torch.manual_seed(0)
    config = TokenizerConfig(frame_channels=8, latent_channels=16, quantizer=quantizer, bits_per_token=bits)
    model = Tokenizer(config)
    with torch.no_grad():  # some layers start at zero, and what comes before them then has no gradient
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    frames = torch.rand(1, 9, 3, 16, 16) * 2 - 1
    terms = clip_losses(
        model, frames, everything(1, 3, 2), TrainConfig(entropy_group=9), "full", motion=search_clip(frames)
    )
    assert ("entropy" in terms) == (quantizer == "lfq")
    sum(terms.values(), torch.zeros(())).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert unused == []


def test_compiled_steps_are_the_same_function():
    torch.manual_seed(0)
    model = Tokenizer(SMALL)
    frames, kept = torch.rand(1, 9, 3, 16, 16) * 2 - 1, everything(1, 3, 2)
    motion = search_clip(frames)
    plain = clip_losses(model, frames, kept, TrainConfig(), "full", motion=motion)
    graphs = Steps.of(model, compiled=True, backend="eager")  # captures graphs, compiles nothing
    other = clip_losses(model, frames, kept, TrainConfig(), "full", motion=motion, steps=graphs)
    for name, term in other.items():
        torch.testing.assert_close(term, plain[name])


def test_the_optimizer_learns_and_its_kernels_share_memory():
    torch.manual_seed(0)
    model = Tokenizer(SMALL).to(memory_format=torch.channels_last)
    optimizer = HybridOptimizer(model, learning_rate=1e-3, weight_decay=0.0)
    frames = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    kept, motion = everything(2, 1, 2), search_clip(frames)
    before = model.decoder.first.blocks[0].conv1.weight.detach().clone()
    losses = []
    for _ in range(30):
        model.zero_grad()
        loss = clip_losses(model, frames, kept, TrainConfig(), "continuous", motion=motion)["mse"]
        loss.backward()
        optimizer.step(learning_rate=2e-3)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert (model.decoder.first.blocks[0].conv1.weight != before).any()
    other = HybridOptimizer(model, learning_rate=1e-3, weight_decay=0.0)
    other.load_state_dict(optimizer.state_dict())


def test_a_run_is_logged_saved_and_taken_up_again(tmp_path: Path):
    lines: list[Progress] = []
    source = some_frames()
    first = trainer(tmp_path / "c.pt")
    first.run(source, max_minutes=0.03, total_minutes=0.1, log=lines.append, log_seconds=0.2)
    assert first.step > 0
    values = json.loads(lines[-1].line())
    assert {"l1", "mse", "commitment", "entropy", "psnr", "clips_per_second", "gradient_norm"} <= set(values)
    assert values["flops_per_second"] > 0
    assert values["peak_share"] is None, "nobody knows the peak of a CPU"
    assert values["skipped"] == 0
    second = trainer(tmp_path / "c.pt")
    assert (second.step, second.seconds) == (first.step, first.seconds)
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor)
    momentum = [run.optimizer.state_dict()["muon"]["state"] for run in (first, second)]
    assert momentum[0]
    torch.testing.assert_close(momentum[1], momentum[0])
    second.run(source, max_minutes=1.0, total_minutes=0.1, log=lines.append, log_seconds=0.2)
    assert lines[-1].phase == 1, "the second call reached the video phase"
    assert second.seconds == pytest.approx(6.0, abs=4.0), "a run ends at its total"
    assert not needs_inflation(second.model)
    with pytest.raises(ModelError, match="another model"):
        trainer(tmp_path / "c.pt", TokenizerConfig())
    assert [line.phase for line in lines] == sorted(line.phase for line in lines)
    split_checkpoint(tmp_path / "c.pt", tmp_path / "parts", optimizer="half")
    join_checkpoint(tmp_path / "parts", tmp_path / "half.pt")
    states = [run.optimizer.state_dict()["muon"]["state"][0] for run in (second, trainer(tmp_path / "half.pt"))]
    assert states[1]["momentum_buffer"].dtype == torch.float32
    torch.testing.assert_close(states[1], states[0], rtol=0.01, atol=1e-6)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    del saved["optimizer"]
    torch.save(saved, tmp_path / "light.pt")
    assert trainer(tmp_path / "light.pt").step == second.step, "weights alone are enough to go on"


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
    torch.testing.assert_close(exported.state_dict()[name].float(), expected.bfloat16().float())


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


def test_starting_from_weights(tmp_path: Path):
    torch.manual_seed(1)
    small = Tokenizer(SMALL)
    entry = save_tokenizer(small, tmp_path, name="small")
    larger = dataclasses.replace(SMALL, encoder_blocks=2, bits_per_token=36)
    run = Trainer(model_config=larger, config=TrainConfig(phases=PHASES), checkpoint=tmp_path / "c.pt", init=entry.path)
    report = run.init_report
    assert report is not None
    assert "encoder.first.blocks.0.conv1.weight" in report.taken
    assert "encoder.first.blocks.1.conv1.weight" in report.fresh, "a new one"
    assert "decoder.first.token_in.weight" in report.widened, "one of fewer bits"
    assert "; widened: encoder.first.latent_out.weight, " in str(report)
    assert "; as initialised: " in str(report)
    torch.testing.assert_close(
        run.average.encoder.first.blocks[0].conv1.weight, small.encoder.first.blocks[0].conv1.weight.bfloat16().float()
    )
    run.save()
    again = Tokenizer(larger)
    report = initialise(again, tmp_path / "c.pt")
    assert (report.fresh, report.widened, report.unused) == ((), (), ())
    torch.testing.assert_close(again.state_dict(), run.average.state_dict())
    other = Tokenizer(dataclasses.replace(SMALL, latent_channels=32))
    assert "decoder.first.token_in.weight" in initialise(other, entry.path).fresh, "one of another shape"
    with pytest.raises(ModelError, match="not a checkpoint"):
        initialise(again, entry.path.with_name("none.pt"))


@torch.no_grad()
def test_wider_tokens_start_from_what_narrow_ones_say(tmp_path: Path):
    weights = write_weights(tmp_path)
    narrow = load_tokenizer(find_by_name(str(weights)))
    torch.manual_seed(2)
    wide = Tokenizer(dataclasses.replace(narrow.config, bits_per_token=54, level_bits=(0, 9, 18, 36, 54)))
    report = initialise(wide, weights)
    layers = [f"{part}.weight" for part in ("encoder.{}.latent_out", "decoder.{}.token_in")]
    layers.append("encoder.{}.latent_out.bias")
    assert set(report.widened) == {layer.format(trunk) for layer in layers for trunk in ("first", "later")}
    assert (report.fresh, report.unused) == ((), ())
    frames = torch.rand(1, 9, 3, 32, 32) * 2 - 1
    for kept_bits, same in ((18, True), (9, True), (54, False)):
        shown = []
        for model in (narrow, wide):
            bits = model.config.bits_per_token
            past, state, found, pictures = None, None, search_clip(frames), []
            for step in range(3):
                part = frames[:, :1] if step == 0 else frames[:, 4 * step - 3 : 4 * step + 1]
                z, encoder_state = model.encoder.step(part, past)
                kept = (torch.arange(bits) < kept_bits).float().view(1, bits, 1, 1).expand(1, bits, 4, 4)
                pixels, state = model.decoder.step(signs(z), kept, state)
                pictures.append(pixels)
                if step < 2:
                    past = Past(state=encoder_state, forecast=model.decoder.forecast(state), motion=found[:, step])
            shown.append(torch.cat(pictures, dim=1))
        difference = float((shown[0] - shown[1]).abs().max())
        assert (difference < 1e-4) == same, f"{kept_bits} bits differ by {difference}"
    fresh = Tokenizer(wide.config).decoder.first.token_in.weight.std()
    started = wide.decoder.first.token_in.weight
    assert float(started[:, 18:54].std() / fresh) == pytest.approx(0.1, rel=0.2)
    assert float(started[:, 72:].std() / fresh) == pytest.approx(0.01, rel=0.2)
    assert not initialise(
        Tokenizer(dataclasses.replace(narrow.config, bits_per_token=9, level_bits=())), weights
    ).widened


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
