"""The training loop of the prior: masked prediction of bits, over the steps of crops."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.errors import ModelError, UsageError
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.training.checkpoint import read_checkpoint, save_checkpoint
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.prior_data import ChunkSampler, TokenBatch
from tokcodec.training.prior_export import from_integers
from tokcodec.training.prior_masks import Mask, Order, draw_mask
from tokcodec.training.prior_model import PriorModel
from tokcodec.weights.priors import read_prior

ORDERS: tuple[Order, ...] = ("groups", "random", "raster")
SAVE_SECONDS = 120.0
LOG_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class PriorTrainConfig:
    """All choices of a run.

    Attributes:
        learning_rate: Peak; after a warm-up it falls to zero as a cosine over the run.
        batch: Crops an update.
        steps: Latent steps of a crop.
        rows: Token rows of a crop.
        columns: Token columns of a crop.
        order_shares: Shares of the masks of the fixed schedule, of random order, of raster order.
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    gradient_clip: float = 1.0
    batch: int = 6
    steps: int = 9
    rows: int = 16
    columns: int = 24
    order_shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.batch, self.steps, self.rows, self.columns, self.warmup_steps) < 1:
            raise UsageError("batch, steps, rows, columns and warmup_steps must be at least 1")
        if len(self.order_shares) != len(ORDERS) or min(self.order_shares) < 0 or sum(self.order_shares) <= 0:
            raise UsageError("order_shares are three shares, at least 0, and not all 0")


def masked_bits(
    model: PriorModel, batch: TokenBatch, order: Order, level_bits: tuple[int, ...], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Code length of the bits that a drawn mask asks for, in bits of information, and how many bits those are."""
    before, states = torch.zeros_like(batch.bits[0]), []
    state, kept_before = model.start(before), torch.zeros_like(batch.kept[0])
    for bits, kept in zip(batch.bits, batch.kept, strict=True):
        state = model.context(before, kept_before.unsqueeze(1).float(), state)
        states.append(state)
        before, kept_before = bits, kept
    past = torch.cat([torch.zeros_like(batch.bits[:1]), batch.bits[:-1]]).flatten(0, 1)
    bits, kept = batch.bits.flatten(0, 1), batch.kept.flatten(0, 1)
    mask = draw_mask(order, kept, level_bits, generator)
    logits = _logits(model, torch.cat(states), bits, past, kept, mask)
    wanted = bits[mask.asked]
    length = F.softplus(-logits[mask.asked] * wanted).sum() / math.log(2)
    return length, mask.asked.sum()


def _logits(model: PriorModel, state: Tensor, bits: Tensor, past: Tensor, kept: Tensor, mask: Mask) -> Tensor:
    own = model.window(bits, past, mask.known)
    levels = kept.unsqueeze(1).float()
    if mask.order == "raster":
        first = model.first_in_raster_order(state, levels, model.window(bits, past, kept), own)
    else:
        first = model.first(state, levels, own)
    return model.head(first, mask.known, past)


class PriorTrainer:
    """Trains a prior; goes on from its checkpoint where there is one.

    Args:
        config: Sizes of the network.
        train: Choices of the run.
        level_bits: Bits of each level of the tokens.
        checkpoint: Read if it exists, and written.
        device: Where to compute.
        init: Exported weights of a prior, or a checkpoint of one or of a tokenizer with a rate term, to start from
            where there is no checkpoint.

    Raises:
        ModelError: The checkpoint is of another network.
    """

    def __init__(
        self,
        config: PriorConfig,
        train: PriorTrainConfig,
        *,
        level_bits: tuple[int, ...],
        checkpoint: Path,
        device: torch.device,
        init: Path | None = None,
    ) -> None:
        torch.manual_seed(train.seed)
        self.model = PriorModel(config).to(device=device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.device, self._levels, self._checkpoint = train, device, level_bits, checkpoint
        self._optimizer = HybridOptimizer(
            self.model, learning_rate=train.learning_rate, weight_decay=train.weight_decay
        )
        self.step, self.minutes = 0, 0.0
        self._generator = torch.Generator().manual_seed(train.seed)
        if checkpoint.exists():
            self._load()
        elif init is not None:
            self._start_from(init)

    def _read(self, path: Path) -> dict[str, Any]:
        saved = read_checkpoint(path, self.device)
        if "prior_config" not in saved:
            raise ModelError("there is no prior in the checkpoint", where=str(path))
        if saved["prior_config"] != self.model.config.to_json():
            raise ModelError("the checkpoint is of another network", where=str(path))
        return saved

    def _start_from(self, path: Path) -> None:
        if path.suffix == ".safetensors":
            config, tensors = read_prior(path)
            if config != self.model.config:
                raise ModelError("the prior has other sizes", where=str(path))
            self.model.load_state_dict(from_integers(tensors))
            return
        saved = self._read(path)
        try:
            self.model.load_state_dict(saved.get("prior") or saved["model"])
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"not a checkpoint of a prior: {error}", where=str(path)) from error

    def _load(self) -> None:
        saved = self._read(self._checkpoint)
        try:
            self.model.load_state_dict(saved["model"])
            self._optimizer.load_state_dict(saved["optimizer"])
            self.step, self.minutes = saved["step"], saved["minutes"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"not a checkpoint of a prior: {error}", where=str(self._checkpoint)) from error
        self._generator.manual_seed(self.train.seed + self.step)

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            self._checkpoint,
            {
                "prior_config": self.model.config.to_json(),
                "model": self.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "minutes": self.minutes,
            },
        )

    def run(
        self, sampler: ChunkSampler, *, max_minutes: float, total_minutes: float, log: Callable[[str], None]
    ) -> None:
        """Train for `max_minutes` of processor time of a run of `total_minutes`; log a line of JSON now and then."""
        end = min(self.minutes + max_minutes, total_minutes)
        logged = saved = time.monotonic()
        sums = {order: [0.0, 0.0] for order in ORDERS}
        while self.minutes < end:
            started = time.monotonic()
            order, bits, count = self._update(sampler, total_minutes)
            sums[order][0] += bits
            sums[order][1] += count
            now = time.monotonic()
            self.minutes += (now - started) / 60
            if now - logged > LOG_SECONDS:
                shares = {order: round(a / b, 4) for order, (a, b) in sums.items() if b}
                log(json.dumps({"step": self.step, "minutes": round(self.minutes, 2), "bits_per_bit": shares}))
                logged, sums = now, {order: [0.0, 0.0] for order in ORDERS}
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
        self.save()

    def _update(self, sampler: ChunkSampler, total_minutes: float) -> tuple[Order, float, float]:
        config = self.train
        order = ORDERS[int(torch.multinomial(torch.tensor(config.order_shares), 1, generator=self._generator))]
        batch = sampler.draw(config.batch, self.device)
        length, count = masked_bits(self.model, batch, order, self._levels, self._generator)
        loss = length / count.clamp(min=1)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.step += 1
        warm = min(1.0, self.step / config.warmup_steps)
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, self.minutes / total_minutes))
        self._optimizer.step(learning_rate=config.learning_rate * warm * max(fall, 0.01))
        return order, float(length.detach()), float(count)
