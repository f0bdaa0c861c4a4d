"""The rate term of training: what it counts, where its gradient goes, and that a run lowers it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tokcodec.probability.prior_config import PriorConfig
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.training.checkpoint import initialise, read_checkpoint, read_weights
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.meter import Progress
from tokcodec.training.objective import kept_from_levels
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.prior_model import PriorModel
from tokcodec.training.rate import rate_term
from tokcodec.training.store import FrameStore

BITS, LEVELS = 6, (0, 2, 4, 6)
SMALL = TokenizerConfig(
    frame_channels=8, latent_channels=16, encoder_blocks=1, decoder_blocks=1, bits_per_token=BITS, level_bits=LEVELS
)


def small_prior(seed: int = 0) -> PriorModel:
    torch.manual_seed(seed)
    sizes = PriorConfig(bits_per_token=BITS, context_channels=16, state_channels=8, head_channels=24)
    return PriorModel(sizes)


def masks(level: int) -> torch.Tensor:
    return kept_from_levels(torch.full((3, 2, 5, 4), level), LEVELS, BITS)


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, (3, 2, BITS, 5, 4), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1


def estimate(prior: PriorModel, tokens: torch.Tensor, kept: torch.Tensor) -> float:
    pixels = 2 * 9 * 40 * 32
    values = [rate_term(prior, tokens, kept, LEVELS, pixels=pixels, seed=seed) for seed in range(12)]
    return float(torch.stack(values).mean().detach()) * pixels


def test_an_untrained_prior_finds_about_a_bit_in_a_bit_that_is_kept():
    tokens, prior = noise(), small_prior()
    for level in (1, 3):
        assert estimate(prior, tokens, masks(level)) == pytest.approx(3 * 2 * 20 * LEVELS[level], rel=0.1)
    assert estimate(prior, tokens, masks(0)) == 0.0


def test_bits_that_are_not_kept_cost_nothing_and_get_no_gradient():
    prior, kept = small_prior(), masks(1)
    tokens = noise().requires_grad_(True)
    rate_term(prior, tokens, kept, LEVELS, pixels=100, seed=0).backward()
    assert tokens.grad is not None
    assert bool((tokens.grad * (1 - kept) == 0).all())
    assert bool((tokens.grad * kept).any()), "through the bits that are predicted"
    changed = torch.where(kept.bool(), tokens.detach(), -tokens.detach())
    assert estimate(prior, changed, kept) == pytest.approx(estimate(prior, tokens.detach(), kept))


def test_what_repeats_becomes_cheap_and_noise_does_not():
    prior, kept = small_prior(), masks(3)
    optimizer = HybridOptimizer(prior, learning_rate=5e-3, weight_decay=0.0)

    def repeated(seed: int) -> torch.Tensor:
        return noise(seed)[:1].expand(3, -1, -1, -1, -1)

    for number in range(120):
        prior.zero_grad(set_to_none=True)
        (rate_term(prior, repeated(number), kept, LEVELS, pixels=1, seed=number) / kept.sum()).backward()
        optimizer.step(learning_rate=5e-3)
    whole = float(kept.sum())
    assert estimate(prior, repeated(1000), kept) < 0.75 * whole, "two of three steps say what is known"
    assert estimate(prior, noise(1000), kept) > 0.95 * whole


def some_frames() -> FrameStore:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (9, 48, 48, 3), dtype=torch.uint8, generator=generator)
    photograph = torch.randint(0, 256, (1, 48, 48, 3), dtype=torch.uint8, generator=generator)
    return FrameStore([video], [photograph], seed=0)


def run_of(folder: Path, weights: LossWeights, *, steps: int) -> tuple[Trainer, list[Progress]]:
    """A run that is interrupted after some steps."""
    phase = Phase(share=1.0, frames=5, side=32, batch=2, stage="nested")
    config = TrainConfig(phases=(phase,), usual_level=3, weights=weights, precision="float32", warmup_steps=5)
    trainer = Trainer(model_config=SMALL, config=config, checkpoint=folder / "checkpoint.pt")
    lines: list[Progress] = []

    def log(line: Progress) -> None:
        lines.append(line)
        if len(lines) == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(some_frames(), max_minutes=1e6, total_minutes=1e6, log=log, log_seconds=0.0)
    return trainer, lines


def test_a_run_logs_the_rate_keeps_the_prior_and_takes_both_up_again(tmp_path: Path):
    weights = LossWeights(rate=0.5)
    first, lines = run_of(tmp_path, weights, steps=5)
    assert all(line.terms["rate"] > 0 for line in lines)
    saved = read_checkpoint(tmp_path / "checkpoint.pt", torch.device("cpu"))
    assert PriorConfig.from_json(saved["prior_config"]).bits_per_token == BITS
    fresh = Trainer(model_config=SMALL, config=first.config, checkpoint=tmp_path / "checkpoint.pt")
    for mine, theirs in zip(fresh.prior.parameters(), first.prior.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.manual_seed(first.config.seed)
    begun = PriorModel(PriorConfig(bits_per_token=BITS))
    assert not torch.equal(fresh.prior.out.weight, begun.out.weight), "it has learned"
    assert not any(name.startswith("prior") for name in read_weights(tmp_path / "checkpoint.pt"))
    assert not initialise(fresh.model, tmp_path / "checkpoint.pt").unused


def test_without_a_weight_there_is_no_prior(tmp_path: Path):
    trainer, lines = run_of(tmp_path, LossWeights(), steps=2)
    assert trainer.prior is None
    assert all("rate" not in line.terms for line in lines)
    assert "prior" not in read_checkpoint(tmp_path / "checkpoint.pt", torch.device("cpu"))
    with_rate = dataclasses.replace(trainer.config, weights=LossWeights(rate=1.0))
    taken_up = Trainer(model_config=SMALL, config=with_rate, checkpoint=tmp_path / "checkpoint.pt")
    assert taken_up.prior is not None, "a run may begin to mind the rate"


def test_a_heavy_rate_makes_tokens_predictable(tmp_path: Path):
    rates = {}
    for weight in (0.0001, 50.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        _, lines = run_of(folder, LossWeights(rate=weight), steps=120)
        rates[weight] = sum(line.terms["rate"] for line in lines[-30:]) / 30
    assert rates[50.0] < 0.8 * rates[0.0001]
