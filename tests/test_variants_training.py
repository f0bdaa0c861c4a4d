"""Training with the other sides of the switches: losses, inflation, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from network_helpers import SMALL
from variants import ALL, EARLY, MEMORYLESS, MOVED, PLAIN, RECURRENT_PARTS, VARIANTS

from tokcodec.errors import ModelError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Encoder, Tokenizer
from tokcodec.tokenizer.search import search_clip
from tokcodec.training.checkpoint import initialise
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.objective import Allocations, Steps, clip_losses
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.source import Batch


def everything(batch: int, steps: int, side: int) -> Allocations:
    """All bits of all tokens."""
    return Allocations(levels=torch.full((batch, steps, side, side), 6), still=torch.zeros(batch))


class Noise:
    """A source of the same clips again and again."""

    def batch(self, size: int, frames: int, side: int) -> Batch:
        clips = torch.rand(size, frames, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return Batch(clips, search_clip(clips))


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("quantizer", ["lfq", "none"])
def test_losses_of_variants_reach_every_weight(config: TokenizerConfig, quantizer: str):
    if quantizer == "none" and config.hybrid:
        with pytest.raises(ModelError, match="cannot be continuous"):
            replace(config, quantizer=quantizer)
        return
    torch.manual_seed(0)
    model = Tokenizer(replace(config, quantizer=quantizer))
    with torch.no_grad():  # some layers start at zero, and what comes before them then has no gradient
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    frames, motion = Noise().batch(1, 9, 16)
    motion = motion + 1  # so that something moves, in so small a picture too
    if config.hybrid:  # pictures that differ much from what is expected: else no bit is set, and nothing is sent
        frames = 0.2 * frames + 0.8 * (-1.0) ** (torch.arange(9).view(1, -1, 1, 1, 1) // 2)
    kept = everything(1, 3, 2)
    terms = clip_losses(model, frames, kept, TrainConfig(), "full", motion=motion)
    assert ("motion" in terms) == ("moved" in terms) == (config.recurrent and not config.hybrid), (
        "nobody learns to move what does not move"
    )
    sum(terms.values(), torch.zeros(())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
    graphs = Steps.of(model, compiled=True, backend="eager")  # captures graphs, compiles nothing
    compiled = clip_losses(model, frames, kept, TrainConfig(), "full", motion=motion, steps=graphs)
    assert compiled.keys() == terms.keys()
    for name, term in compiled.items():
        torch.testing.assert_close(term, terms[name])


@pytest.mark.parametrize("config", VARIANTS)
def test_variants_learn(config: TokenizerConfig):
    torch.manual_seed(0)
    model = Tokenizer(replace(config, encoder_blocks=min(1, config.encoder_blocks), decoder_blocks=1)).to(
        memory_format=torch.channels_last
    )
    inflate(model)
    optimizer = HybridOptimizer(model, learning_rate=1e-3, weight_decay=0.0)
    ramp = torch.linspace(-1, 1, 32).view(1, 1, 1, 1, 32)
    shift = torch.linspace(0, 1, 9).view(1, 9, 1, 1, 1)
    frames = (ramp * (1 - shift) - 0.5 * shift).expand(2, 9, 3, 32, 32).contiguous()
    motion, later = search_clip(frames), []
    bits = replace(everything(2, 3, 4), slope=torch.full((2,), 1e6))  # a transform alone would leave little to learn
    for _ in range(12):
        model.zero_grad()
        terms = clip_losses(model, frames, bits, TrainConfig(), "full", motion=motion)
        (terms["mse"] + terms["l1"]).backward()
        optimizer.step(learning_rate=4e-3)
        later.append(float(terms["mse"].detach()))
    assert later[-1] < 0.7 * later[0]


@pytest.mark.parametrize("config", [pytest.param(SMALL, id="default"), *VARIANTS])
@torch.no_grad()
def test_variants_are_inflated(config: TokenizerConfig):
    torch.manual_seed(0)
    model = Tokenizer(config)
    encoder, decoder = model.encoder, model.decoder
    decoder.split_first.bias.fill_(0.5)
    assert needs_inflation(model)
    inflate(model)
    assert not needs_inflation(model)
    own_parts = ("token_in",) if config.hybrid else ()
    of_one, of_four = (
        {name: value for name, value in trunk.state_dict().items() if not name.startswith(own_parts)}
        for trunk in (decoder.first, decoder.later)
    )
    torch.testing.assert_close(of_four, of_one)
    if not isinstance(encoder, Encoder):
        return
    picture = torch.rand(1, 48, 4, 4)
    if config.temporal_downsampling == "early":
        torch.testing.assert_close(encoder.patch_rest(picture.repeat(1, 4, 1, 1)), encoder.patch_in(picture))
    features = torch.rand(1, 32, 2, 2)
    repeated = features if config.temporal_downsampling == "early" else features.repeat(1, 4, 1, 1)
    torch.testing.assert_close(encoder.merge_rest(repeated), encoder.merge_first(features))


@pytest.mark.parametrize("switch", [True, False])
def test_inflation_is_switched_by_the_run(switch: bool, tmp_path: Path):
    phase = Phase(share=1.0, frames=5, side=16, batch=1, stage="full")
    config = TrainConfig(phases=(phase,), inflate=switch, learning_rate=1e-9)
    run = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt")
    before = run.model.encoder.merge_rest.weight.detach().clone()
    run.run(Noise(), max_minutes=0.0001, total_minutes=0.0001, log=lambda _: None)
    assert run.step >= 1
    for model in (run.model, run.average):
        encoder = model.encoder
        inflated = encoder.merge_first.weight.repeat(1, 4, 1, 1) / 4
        assert torch.allclose(encoder.merge_rest.weight, inflated, atol=1e-6) is switch
        assert torch.allclose(encoder.merge_rest.weight, before, atol=1e-6) is not switch
        trunks = [trunk.blocks[0].conv1.weight for trunk in (encoder.first, encoder.later)]
        assert torch.allclose(*trunks, atol=1e-6) is switch


def test_a_run_goes_on_with_its_own_variant_only(tmp_path: Path):
    phase = Phase(share=1.0, frames=5, side=16, batch=1, stage="nested")
    config = TrainConfig(phases=(phase,))
    checkpoint = tmp_path / "c.pt"
    run = Trainer(model_config=ALL, config=config, checkpoint=checkpoint)
    run.run(Noise(), max_minutes=0.0001, total_minutes=0.0001, log=lambda _: None)
    assert Trainer(model_config=ALL, config=config, checkpoint=checkpoint).step == run.step >= 1
    for other in (SMALL, PLAIN, EARLY, MOVED, MEMORYLESS):
        with pytest.raises(ModelError, match="another model"):
            Trainer(model_config=other, config=config, checkpoint=checkpoint)
    report = initialise(Tokenizer(SMALL), checkpoint)
    assert "decoder.first.blocks.0.conv1.weight" in report.taken
    assert "decoder.first.blocks.0.modulation.weight" in report.fresh
    assert {f"decoder.{part}.bias" for part in RECURRENT_PARTS} <= set(report.fresh)
    assert "encoder.merge_rest.weight" in report.fresh, "it has another shape"
    assert set(report.unused) == {
        "encoder.error_in.weight",
        "encoder.merge_rest.weight",
        "encoder.patch_rest.weight",
        "encoder.patch_rest.bias",
    }
