"""Checkpoints: runs that are taken up again, starting from weights and from narrower tokens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_model import write_weights
from training_helpers import PHASES, SMALL, some_frames, trainer

from tokcodec.errors import ModelError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import Past, Tokenizer
from tokcodec.tokenizer.search import search_clip
from tokcodec.training.checkpoint import initialise, join_checkpoint, split_checkpoint
from tokcodec.training.config import TrainConfig
from tokcodec.training.inflation import needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.meter import Progress
from tokcodec.weights import find_by_name, load_tokenizer, save_tokenizer


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
