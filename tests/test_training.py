"""Training: data, losses, the loop, resuming, export; on a folder made by the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from media import make_video

from tokcodec.errors import MediaError, ModelError, UsageError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training.data import PackConfig, Sampler, pack
from tokcodec.training.loop import (
    Phase,
    Progress,
    TrainConfig,
    Trainer,
    clip_losses,
    inflate,
    kept_from_levels,
    sample_levels,
)
from tokcodec.training.losses import latent_terms, psnr_of_mse, reconstruction_terms
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.run import train_folder
from tokcodec.weights import find_by_name, load_tokenizer

SMALL = TokenizerConfig(frame_channels=8, latent_channels=64, encoder_blocks=1, decoder_blocks=1)
PACK = PackConfig(clip_frames=5, side=32, clips=6)
PHASES = (
    Phase(share=0.5, frames=1, side=32, batch=4, stage="full"),
    Phase(share=0.5, frames=5, side=32, batch=2, stage="nested"),
)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, a photograph, one that is too small, and one that is none."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    make_video(folder / "a.mp4", count=8)
    (folder / "more").mkdir()
    make_video(folder / "more" / "b.mkv", count=9)
    make_video(folder / "short.mp4", count=2)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    (folder / "broken.mp4").write_bytes(b"none")
    return folder


def test_packing_a_folder(media: Path, tmp_path: Path):
    counts = pack(media, tmp_path, PACK)
    assert counts == {"clips": 4, "images": 1, "passed_over": 2}
    clips = np.load(tmp_path / "clips.npy")
    assert clips.shape == (4, 5, 32, 32, 3)
    assert clips.dtype == np.uint8
    assert not list(tmp_path.glob("*.part*"))
    batch = Sampler(tmp_path, seed=1).batch(3, 5, 24)
    assert batch.shape == (3, 5, 3, 24, 24)
    assert -1 <= float(batch.min()) < float(batch.max()) <= 1
    torch.testing.assert_close(Sampler(tmp_path, seed=1).batch(3, 5, 24), batch)
    with pytest.raises(UsageError, match="smaller"):
        Sampler(tmp_path, seed=1).batch(1, 9, 24)
    with pytest.raises(UsageError, match="not packed"):
        Sampler(media, seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="no videos"):
        pack(tmp_path / "empty", tmp_path, PACK)


def test_allocation_maps_of_training():
    torch.manual_seed(0)
    levels = sample_levels(400, 3, 9, 10, top=6, full_rate_share=0.5)
    assert levels.shape == (400, 3, 9, 10)
    full = (levels == 6).flatten(1).all(dim=1).float().mean()
    assert 0.4 < float(full) < 0.65
    assert int(levels[:, 0].min()) >= 1, "a first step always keeps something"
    assert (levels[:, 1:] == 0).any()
    blocks = levels[:, :, :8, :8].unflatten(2, (2, 4)).unflatten(4, (2, 4))
    assert bool((blocks == blocks[:, :, :, :1, :, :1]).all()), "one level for each block of 4x4 tokens"
    kept = kept_from_levels(levels, (0, 3, 6, 9, 12, 15, 18), 18)
    assert kept.shape == (400, 3, 18, 9, 10)
    torch.testing.assert_close(kept.sum(dim=2), 3.0 * levels)
    assert bool((kept[:, :, :-1] >= kept[:, :, 1:]).all()), "prefixes"


@torch.no_grad()
def test_inflation_starts_video_from_the_image_model():
    torch.manual_seed(0)
    model = Tokenizer(SMALL)
    inflate(model)
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


@pytest.mark.parametrize("quantizer", ["lfq", "none"])
def test_losses_of_a_clip_reach_every_weight(quantizer: str):
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig(frame_channels=8, latent_channels=16, quantizer=quantizer))
    with torch.no_grad():  # some layers start at zero, and what comes before them then has no gradient
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    frames = torch.rand(1, 9, 3, 16, 16) * 2 - 1
    terms = clip_losses(model, frames, torch.ones(1, 3, 18, 2, 2), TrainConfig(), "full")
    assert ("entropy" in terms) == (quantizer == "lfq")
    sum(terms.values(), torch.zeros(())).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert unused == []


def test_the_optimizer_learns_and_its_kernels_share_memory():
    torch.manual_seed(0)
    model = Tokenizer(SMALL).to(memory_format=torch.channels_last)
    optimizer = HybridOptimizer(model, learning_rate=1e-3, weight_decay=0.0)
    frames = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    kept = torch.ones(2, 1, 18, 2, 2)
    before = model.decoder.blocks[0].conv1.weight.detach().clone()
    losses = []
    for _ in range(30):
        model.zero_grad()
        loss = clip_losses(model, frames, kept, TrainConfig(), "continuous")["mse"]
        loss.backward()
        optimizer.step(learning_rate=2e-3)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert (model.decoder.blocks[0].conv1.weight != before).any()
    other = HybridOptimizer(model, learning_rate=1e-3, weight_decay=0.0)
    other.load_state_dict(optimizer.state_dict())


def trainer(packed: Path, checkpoint: Path, config: TokenizerConfig = SMALL) -> Trainer:
    return Trainer(model_config=config, config=TrainConfig(phases=PHASES), data=packed, checkpoint=checkpoint)


def test_a_run_is_logged_saved_and_taken_up_again(media: Path, tmp_path: Path):
    pack(media, tmp_path / "packed", PACK)
    lines: list[Progress] = []
    first = trainer(tmp_path / "packed", tmp_path / "c.pt")
    first.run(max_minutes=0.03, total_minutes=0.1, log=lines.append, log_seconds=0.2)
    assert first.step > 0
    values = json.loads(lines[-1].line())
    assert {"l1", "mse", "commitment", "entropy", "psnr", "clips_per_second", "gradient_norm"} <= set(values)
    second = trainer(tmp_path / "packed", tmp_path / "c.pt")
    assert (second.step, second.phase) == (first.step, first.phase)
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], tensor)
    second.run(max_minutes=1.0, total_minutes=0.1, log=lines.append, log_seconds=0.2)
    assert second.phase == 1, "the second call reached the video phase"
    assert second.seconds == pytest.approx(6.0, abs=4.0), "a run ends at its total"
    with pytest.raises(ModelError, match="another model"):
        trainer(tmp_path / "packed", tmp_path / "c.pt", TokenizerConfig())
    with pytest.raises(UsageError, match="add up"):
        Trainer(
            model_config=SMALL,
            config=TrainConfig(phases=PHASES[:1]),
            data=tmp_path / "packed",
            checkpoint=tmp_path / "d.pt",
        )


def test_from_a_folder_to_weights_that_code(media: Path, tmp_path: Path):
    entry = train_folder(
        media,
        tmp_path / "run",
        max_minutes=0.05,
        total_minutes=0.05,
        name="own",
        device="cpu",
        log=lambda _: None,
        model_config=SMALL,
        config=TrainConfig(phases=PHASES),
        pack_config=PACK,
    )
    assert load_tokenizer(entry).config == SMALL
    from tokcodec import Codec

    codec = Codec(model=str(entry.path), weights=entry.path, device="cpu")
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    data = codec.encode_frames(frames)
    assert codec.decode_frames(data).frames.shape == frames.shape
    assert find_by_name(str(entry.path)).sha256.encode() not in data, "the digest is binary"
    assert bytes.fromhex(entry.sha256) in data


def test_nothing_above_imports_training():
    script = (
        "import sys, tokcodec.codec, tokcodec.inspection, tokcodec.evaluation, tokcodec.demo\n"
        "sys.exit(any(name.startswith('tokcodec.training') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=100).returncode == 0
