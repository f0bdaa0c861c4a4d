"""The training loop: phases from images to nested video, EMA, resumable checkpoints, a running log."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tokcodec.errors import ModelError, UsageError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.lfq import straight_through
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training.data import Sampler
from tokcodec.training.losses import LossWeights, latent_terms, psnr_of_mse, reconstruction_terms
from tokcodec.training.optimizer import HybridOptimizer

Stage = Literal["continuous", "full", "nested"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a run.

    Attributes:
        share: Share of the run's minutes.
        frames: Frames a clip, 1 + 4t; 1 trains on images.
        side: Pixels along each side of a crop.
        batch: Clips a step of the optimizer.
        stage: "continuous" latents, "full" rate bits, or "nested" prefixes and maps.
    """

    share: float
    frames: int
    side: int
    batch: int
    stage: Stage


DEFAULT_PHASES = (
    Phase(share=0.03, frames=1, side=96, batch=16, stage="continuous"),
    Phase(share=0.12, frames=1, side=96, batch=16, stage="full"),
    Phase(share=0.35, frames=17, side=96, batch=4, stage="full"),
    Phase(share=0.50, frames=17, side=128, batch=4, stage="nested"),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All choices of a run; written into its log.

    Attributes:
        phases: In order; the shares add up to one.
        learning_rate: Peak; after a warm-up it falls to zero as a cosine over the run.
        full_rate_share: Share of nested batches that keep every bit.
        ema: Decay of the moving average of the weights, which is what gets exported.
    """

    phases: tuple[Phase, ...] = DEFAULT_PHASES
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    full_rate_share: float = 0.5
    ema: float = 0.998
    seed: int = 0
    weights: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log."""

    minutes: float
    step: int
    phase: int
    clips_per_second: float
    learning_rate: float
    psnr: float
    terms: dict[str, float]

    def line(self) -> str:
        """JSON with rounded numbers."""
        fields = dataclasses.asdict(self)
        fields.update(fields.pop("terms"))
        return json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in fields.items()})


def inflate(model: Tokenizer) -> None:
    """Start the four-frame layers from the one-frame layers (the paper inflates an image model)."""
    encoder, decoder = model.encoder, model.decoder
    with torch.no_grad():
        encoder.merge_rest.weight.copy_(encoder.merge_first.weight.repeat(1, 4, 1, 1) / 4)
        encoder.merge_rest.bias.copy_(encoder.merge_first.bias)  # type: ignore[union-attr, arg-type]
        decoder.split_rest.weight.copy_(decoder.split_first.weight.repeat(4, 1, 1, 1))
        decoder.split_rest.bias.copy_(decoder.split_first.bias.repeat(4))  # type: ignore[union-attr]


def sample_levels(batch: int, steps: int, rows: int, columns: int, *, top: int, full_rate_share: float) -> Tensor:
    """Random bit allocations: int64 levels `(batch, steps, rows, columns)` at token resolution.

    A share of the batch keeps everything; of the rest, half has one level for all and half a random map in
    which blocks of later steps often keep nothing, for that is what an encoder wants of still blocks.
    """
    levels = torch.full((batch, steps, rows, columns), top, dtype=torch.long)
    block_rows, block_columns = -(-rows // 4), -(-columns // 4)
    for i in range(batch):
        draw = float(torch.rand(()))
        if draw < full_rate_share:
            continue
        if draw < full_rate_share + 0.5 * (1 - full_rate_share):
            levels[i] = int(torch.randint(1, top + 1, ()))
            continue
        blocks = torch.randint(1, top + 1, (steps, block_rows, block_columns))
        zero = torch.rand(steps, block_rows, block_columns) < float(torch.rand(()))
        zero[0] = False
        blocks[zero] = 0
        levels[i] = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :rows, :columns]
    return levels


def kept_from_levels(levels: Tensor, level_bits: tuple[int, ...], bits: int) -> Tensor:
    """Float masks of the bits that are kept: `(..., h, w)` levels -> `(..., K, h, w)`, 1 or 0."""
    kept = torch.tensor(level_bits, device=levels.device)[levels]
    axis = torch.arange(bits, device=levels.device).view(-1, 1, 1)
    return (axis < kept.unsqueeze(-3)).float()


def clip_losses(model: Tokenizer, frames: Tensor, kept: Tensor, config: TrainConfig, stage: Stage) -> dict[str, Tensor]:
    """Run a batch of clips through the steps of encoder and decoder; every loss term, unweighted.

    Args:
        frames: float32 `(N, 1 + 4t, 3, H, W)` in [-1, 1].
        kept: `(N, 1 + t, K, H/8, W/8)`, 1 or 0.
        stage: Continuous latents skip the signs and the latent terms.
    """
    encoder_state = decoder_state = None
    latents, decoded = [], []
    for step in range(kept.shape[1]):
        part = frames[:, :1] if step == 0 else frames[:, 4 * step - 3 : 4 * step + 1]
        z, encoder_state = model.encoder.step(part, encoder_state)
        tokens = z if stage == "continuous" or model.config.quantizer == "none" else straight_through(z)
        pixels, decoder_state = model.decoder.step(tokens, kept[:, step], decoder_state)
        latents.append(z)
        decoded.append(pixels)
    terms = reconstruction_terms(torch.cat(decoded, dim=1), frames)
    if stage != "continuous" and model.config.quantizer == "lfq":
        terms |= latent_terms(torch.cat(latents), diversity=config.weights.diversity)
    return terms


class Trainer:
    """A run that can be stopped and taken up again.

    Args:
        model_config: Used where there is no checkpoint.
        config: The run.
        data: Folder that :func:`tokcodec.training.data.pack` wrote.
        checkpoint: File to resume from, if it exists, and to save to.
        device: Where to train.
    """

    def __init__(
        self,
        *,
        model_config: TokenizerConfig,
        config: TrainConfig,
        data: Path,
        checkpoint: Path,
        device: str = "cpu",
    ) -> None:
        if not math.isclose(sum(p.share for p in config.phases), 1.0, abs_tol=1e-6):
            raise UsageError("the shares of the phases must add up to 1")
        torch.manual_seed(config.seed)
        self.config, self.device, self.checkpoint = config, torch.device(device), checkpoint
        self.model = Tokenizer(model_config).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = HybridOptimizer(
            self.model, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        self.phase = 0
        self.seconds = 0.0
        if checkpoint.exists():
            self._load()
        self.sampler = Sampler(data, seed=config.seed + self.step)

    def _load(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if saved["model_config"] != self.model.config.to_json():
            raise ModelError("the checkpoint is of another model", where=str(self.checkpoint))
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        if "optimizer" in saved:
            self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.phase, self.seconds = saved["step"], saved["phase"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model_config": self.model.config.to_json(),
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "phase": self.phase,
                "seconds": self.seconds,
            },
            part,
        )
        part.replace(self.checkpoint)

    def _learning_rate(self, fraction: float) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        return self.config.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fraction)))

    def _phase_at(self, fraction: float) -> int:
        total = 0.0
        for number, phase in enumerate(self.config.phases):
            total += phase.share
            if fraction < total:
                return number
        return len(self.config.phases) - 1

    def _kept(self, phase: Phase) -> Tensor:
        geometry = self.model.config.geometry
        side, steps, top = phase.side // 8, geometry.steps(phase.frames), len(geometry.level_bits) - 1
        share = self.config.full_rate_share if phase.stage == "nested" else 1.0
        levels = sample_levels(phase.batch, steps, side, side, top=top, full_rate_share=share)
        return kept_from_levels(levels, geometry.level_bits, geometry.bits_per_token).to(self.device)

    def _update(self, phase: Phase, rate: float) -> dict[str, Tensor]:
        frames = self.sampler.batch(phase.batch, phase.frames, phase.side).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            terms = clip_losses(self.model, frames, self._kept(phase), self.config, phase.stage)
        loss = sum((getattr(self.config.weights, name) * term for name, term in terms.items()), torch.zeros(()))
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step(learning_rate=rate)
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return {name: term.detach() for name, term in terms.items()} | {"gradient_norm": norm}

    def run(
        self,
        *,
        max_minutes: float,
        total_minutes: float,
        log: Callable[[Progress], None],
        log_seconds: float = 10.0,
        save_seconds: float = 120.0,
    ) -> None:
        """Train for `max_minutes` of a run of `total_minutes`, which sets phases and learning rate."""
        start = last_log = last_save = time.monotonic()
        earlier, clips = self.seconds, 0
        sums: dict[str, float] = {}
        count = 0
        while (now := time.monotonic()) - start < 60 * max_minutes and self.seconds < 60 * total_minutes:
            self.seconds = earlier + now - start
            fraction = self.seconds / (60 * total_minutes)
            number = self._phase_at(fraction)
            phase = self.config.phases[number]
            if number != self.phase and phase.frames > 1 and self.config.phases[self.phase].frames == 1:
                inflate(self.model)
                inflate(self.average)
            self.phase = number
            rate = self._learning_rate(fraction)
            for name, value in self._update(phase, rate).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            count, clips, self.step = count + 1, clips + phase.batch, self.step + 1
            if (now := time.monotonic()) - last_log >= log_seconds:
                terms = {name: value / count for name, value in sums.items()}
                log(
                    Progress(
                        minutes=self.seconds / 60,
                        step=self.step,
                        phase=number,
                        learning_rate=rate,
                        clips_per_second=clips / (now - last_log),
                        psnr=psnr_of_mse(terms["mse"]),
                        terms=terms,
                    )
                )
                last_log, clips, count, sums = now, 0, 0, {}
            if now - last_save >= save_seconds:
                self.save()
                last_save = now
        self.save()
