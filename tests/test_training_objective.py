"""What training minimises: allocations, inflation, losses, and the optimizer that does it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import SMALL, everything, some_frames

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Forecast, Tokenizer
from tokcodec.tokenizer.search import search_clip
from tokcodec.training import loop
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import latent_terms, perceptual_term, psnr_of_mse, reconstruction_terms
from tokcodec.training.objective import (
    Allocations,
    Steps,
    allocations_of,
    clip_losses,
    kept_from_levels,
    sample_allocations,
)
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.source import AugmentConfig
from tokcodec.training.store import FrameStore


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


def test_nothing_waits_for_the_device():
    """Tensors on the device "meta" have no values: what asks for one, as what mixes devices, fails."""
    torch.manual_seed(0)
    meta = torch.device("meta")
    video = torch.empty(9, 48, 48, 3, dtype=torch.uint8, device=meta)
    photograph = torch.empty(1, 60, 60, 3, dtype=torch.uint8, device=meta)
    motion = torch.empty(8, 6, 3, 6, 6, dtype=torch.int8, device=meta)
    source = FrameStore([video], [photograph], motion=[motion], seed=0, augment=AugmentConfig(camera_share=0.5))
    frames, found = source.batch(8, 9, 32)
    kept = sample_allocations(8, 3, 4, 4, top=6, usual=6, full_rate_share=0.2)
    assert bool(kept.still.any()), "some leave out what is good already"
    model = Tokenizer(SMALL).to(meta)
    terms = clip_losses(
        model,
        frames,
        kept.to(meta),
        TrainConfig(lpips_frames=2),
        "nested",
        motion=found,
        lpips=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)),
    )
    assert {"l1", "mse", "moved", "motion", "lpips", "commitment", "entropy"} == set(terms)
    assert all(term.device == meta for term in terms.values())
    sum(terms.values(), torch.zeros((), device=meta)).backward()
    assert all(p.grad is not None and p.grad.device == meta for p in model.parameters())


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
