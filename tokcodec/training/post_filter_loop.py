"""The training loop of a post-filter: coded crops in, originals wanted, by distances that see as people do."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tokcodec.errors import ModelError, UsageError
from tokcodec.metrics.lpips_network import Lpips
from tokcodec.tokenizer.allocation import SLOPES
from tokcodec.tokenizer.post_filter import (
    LEAST_SCALE,
    SCALES,
    SCALES_APART,
    PostFilter,
    PostFilterConfig,
    share_of_scale,
)
from tokcodec.training.adversarial import Adversary
from tokcodec.training.checkpoint import read_checkpoint, save_checkpoint
from tokcodec.training.coded_clips import CropSampler
from tokcodec.training.config import AdversarialConfig, TrainConfig
from tokcodec.training.distributed import Group
from tokcodec.training.losses import LossWeights, reconstruction_terms
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.weights.post_filters import load_post_filter
from tokcodec.weights.registry import entry_of_file

SAVE_SECONDS = 120.0
LOG_SECONDS = 20.0
MAX_SKIPPED = 20
"""Steps in a row without finite gradients, from which on a run ends."""


@dataclass(frozen=True, kw_only=True)
class PostFilterTrainConfig:
    """All choices of a run.

    Attributes:
        learning_rate: Peak; after a warm-up it falls to zero as a cosine over the run.
        batch: Crops an update.
        side: Pixels along each side of a crop.
        weights: Of the losses: `l1`, `mse`, `lpips` (all of it) and `adversarial`.
        alex: Weight of AlexNet's distance in `lpips`, on all crops.
        vgg: Weight of VGG16's, on the first `vgg_crops`.
        vgg_crops: How many those are; they take most of the time.
        by_quality: What the distances of crops of quality 1 to 6 are multiplied by: where little is lost, little need
            be changed.
        teacher_l1: Weight of the mean absolute error to what a teacher makes of the coded crops, where there is one.
        teacher_mse: Weight of the mean squared error to the same.
        adversarial: Choices of the discriminator.
        ema: Decay of the moving average of the weights, which is what is exported.
    """

    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 30
    gradient_clip: float = 1.0
    batch: int = 12
    side: int = 128
    weights: LossWeights = field(default_factory=lambda: LossWeights(l1=1.0, mse=2.0, lpips=1.0))
    alex: float = 0.3
    vgg: float = 0.9
    vgg_crops: int = 4
    by_quality: tuple[float, ...] = (1.0,) * len(SLOPES)
    teacher_l1: float = 1.0
    teacher_mse: float = 2.0
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    ema: float = 0.995
    precision: Literal["bf16", "float32"] = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.batch, self.vgg_crops, self.warmup_steps) < 1 or self.side < 64 or self.side % 8:
            raise UsageError("batch, vgg_crops and warmup_steps are at least 1, side a multiple of 8 from 64 on")
        if len(self.by_quality) != len(SLOPES) or not all(0 <= factor < math.inf for factor in self.by_quality):
            raise UsageError(f"by_quality has {len(SLOPES)} factors, none below zero, one for each quality")
        if not all(0 <= weight < math.inf for weight in (self.teacher_l1, self.teacher_mse)):
            raise UsageError("teacher_l1 and teacher_mse are weights of losses, none below zero")
        if self.precision not in ("bf16", "float32"):
            raise UsageError(f"precision must be bf16 or float32, not {self.precision!r}")


@torch.no_grad()
def grow(model: PostFilter, smaller: PostFilter, *, where: str) -> None:
    """Make a fresh filter do what one does that has fewer blocks, or is not told the quantizer.

    Where it is told and the other is not, it begins with the share of the change that is shown of the other, short of
    the bias of the last layer, which counts whole.

    Raises:
        ModelError: The other has other channels, more blocks, or is told the quantizer where this is not.
    """
    ours, theirs = model.config, smaller.config
    possible = dataclasses.replace(theirs, blocks=ours.blocks, by_scale=ours.by_scale)
    if possible != ours or theirs.blocks > ours.blocks or theirs.by_scale > ours.by_scale:
        raise ModelError(
            "the post-filter has other sizes",
            where=where,
            hint="give --channels and --inner-channels as it has them, as many --blocks or more, --by-scale if it is",
        )
    tensors = model.state_dict()
    for name in tensors:
        if name.startswith("blocks.") and "conv2" in name:
            tensors[name].zero_()  # a block that adds nothing
    model.load_state_dict({**tensors, **smaller.state_dict()})
    if model.by_scale is not None and smaller.by_scale is None:
        shares = [share_of_scale(LEAST_SCALE + number * SCALES_APART) for number in range(SCALES)]
        model.by_scale.values[:, -ours.channels :] = torch.tensor(shares)[:, None] - 1


class PostFilterTrainer:
    """Trains a post-filter; goes on from its checkpoint where there is one.

    Args:
        config: Sizes of the network.
        train: Choices of the run.
        checkpoint: Read if it exists, and written.
        device: Where to compute.
        alex: LPIPS by AlexNet; None leaves it out, as its share does.
        vgg: LPIPS by VGG16; the same.
        init: To start from, where there is no checkpoint: one of a filter of the same sizes, or exported weights, which
            may be those of one with fewer blocks, or one that is not told the quantizer.
        teacher: A filter to learn from (distillation): of what it makes of the coded crops, all of its change. Of any
            sizes, but told the quantizer just if this one is, so that of both the same share is shown.

    Raises:
        ModelError: A checkpoint is of another network, or the teacher is told the quantizer and this one is not, or the
            other way round.
    """

    def __init__(
        self,
        config: PostFilterConfig,
        train: PostFilterTrainConfig,
        *,
        checkpoint: Path,
        device: torch.device,
        alex: Lpips | None,
        vgg: Lpips | None,
        init: Path | None = None,
        teacher: PostFilter | None = None,
    ) -> None:
        if teacher is not None and teacher.config.by_scale != config.by_scale:
            told, other = ("the teacher", "this") if teacher.config.by_scale else ("this", "the teacher")
            raise ModelError(
                f"{told} is a filter that is told the quantizer, {other} is none",
                hint="leave --by-scale out or give it, as the teacher was made, or give another --teacher",
            )
        torch.manual_seed(train.seed)
        self.model = PostFilter(config).to(device=device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.device, self._checkpoint = train, device, checkpoint
        self._alex, self._vgg = alex, vgg
        self._teacher = None if teacher is None else teacher.to(device=device).eval().requires_grad_(False)
        if self._teacher is not None:
            self._teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = HybridOptimizer(
            self.model, learning_rate=train.learning_rate, weight_decay=train.weight_decay
        )
        self.step, self.minutes, self._skipped = 0, 0.0, 0
        self._adversary_of_before: dict[str, Any] | None = None
        group = Group(rank=0, size=1, device=device)
        run = TrainConfig(
            weights=train.weights, adversarial=train.adversarial, precision=train.precision, compile=False
        )
        self._adversary = Adversary(run, group) if train.weights.adversarial else None
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        if checkpoint.exists():
            self._load()
        elif init is not None:
            self._start_from(init)

    def _read(self, path: Path) -> dict[str, Any]:
        saved = read_checkpoint(path, self.device)
        config = saved.get("post_filter_config")
        try:
            same = isinstance(config, str) and PostFilterConfig.from_json(config) == self.model.config
        except ModelError:
            same = False
        if not same:
            raise ModelError("the checkpoint is of another network, or of no post-filter", where=str(path))
        return saved

    def _start_from(self, path: Path) -> None:
        if path.suffix == ".safetensors":
            grow(self.model, load_post_filter(entry_of_file(path)), where=str(path))
            self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
            return
        saved = self._read(path)
        try:
            self.model.load_state_dict(saved["average"])
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"not a checkpoint of a post-filter: {error}", where=str(path)) from error
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}

    def _load(self) -> None:
        saved = self._read(self._checkpoint)
        try:
            self.model.load_state_dict(saved["model"])
            self.average = saved["average"]
            self._optimizer.load_state_dict(saved["optimizer"])
            self.step, self.minutes = saved["step"], saved["minutes"]
            self._adversary_of_before = saved.get("adversary")  # kept, where this call has none
            if self._adversary is not None and self._adversary_of_before is not None:
                self._adversary.load_state_dict(self._adversary_of_before)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"not a checkpoint of a post-filter: {error}", where=str(self._checkpoint)) from error

    def save(self) -> None:
        """Write the checkpoint."""
        values = {
            "post_filter_config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
        }
        if self._adversary is not None:
            values["adversary"] = self._adversary.state_dict()
        elif self._adversary_of_before is not None:
            values["adversary"] = self._adversary_of_before
        save_checkpoint(self._checkpoint, values)

    def averaged(self) -> PostFilter:
        """A filter with the moving average of the weights."""
        made = PostFilter(self.model.config)
        made.load_state_dict(self.average)
        return made

    def run(
        self, sampler: CropSampler, *, max_minutes: float, total_minutes: float, log: Callable[[str], None]
    ) -> None:
        """Train for `max_minutes` of a run of `total_minutes`; log a line of JSON now and then."""
        end = min(self.minutes + max_minutes, total_minutes)
        logged = saved = time.monotonic()
        sums: dict[str, float] = {}
        steps = 0
        while self.minutes < end:
            started = time.monotonic()
            for name, value in self._update(sampler, total_minutes).items():
                sums[name] = sums.get(name, 0.0) + value
            steps += 1
            now = time.monotonic()
            self.minutes += (now - started) / 60
            if now - logged > LOG_SECONDS or self.minutes >= end:
                means = {name: round(value / steps, 5) for name, value in sums.items()}
                speed = round(steps * self.train.batch / max(1e-9, now - logged), 2)
                line = {"step": self.step, "minutes": round(self.minutes, 2), "crops_per_second": speed, **means}
                log(json.dumps(line))
                logged, sums, steps = now, {}, 0
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
        self.save()

    def _update(self, sampler: CropSampler, total_minutes: float) -> dict[str, float]:
        train = self.train
        crops = sampler.draw(train.batch, train.side)
        coded, original, quality = (part.to(self.device) for part in crops[:3])
        scales = None if crops.scales is None else crops.scales.to(self.device)
        if self.model.config.by_scale and scales is None:
            raise ModelError("a filter by scale is trained on clips that say theirs", hint="code the clips anew")
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=train.precision == "bf16"):
            shown = self.model(coded, scales)
            taught = None if self._teacher is None else self._teacher(coded, scales)
        terms = reconstruction_terms(shown, original)
        factors: dict[str, Tensor | float] = {"l1": train.weights.l1, "mse": train.weights.mse}
        if taught is not None:
            terms |= {f"teacher_{name}": term for name, term in reconstruction_terms(shown, taught.float()).items()}
            factors |= {"teacher_l1": train.teacher_l1, "teacher_mse": train.teacher_mse}
        lpips = self._lpips(shown, original, coded.new_tensor(train.by_quality)[quality - min(SLOPES)])
        if lpips is not None:
            terms["lpips"], factors["lpips"] = lpips, train.weights.lpips
        adversary = self._adversary
        if adversary is not None and (judged := adversary.terms(shown.unsqueeze(1))):
            terms |= judged
            factors["adversarial"] = train.weights.adversarial * adversary.weight(terms, self.model.change_out.weight)
        loss = torch.stack([factors[name] * term for name, term in terms.items()]).sum()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        self.step += 1
        found = {name: float(term.detach()) for name, term in terms.items()}
        if not torch.isfinite(norm):
            self._skip()
            return dict.fromkeys(found, 0.0)
        self._skipped = 0
        warm = min(1.0, self.step / train.warmup_steps)
        fall = max(0.01, 0.5 + 0.5 * math.cos(math.pi * min(1.0, self.minutes / total_minutes)))
        self._optimizer.step(learning_rate=train.learning_rate * warm * fall)
        self._follow()
        if adversary is not None:
            learned = adversary.learn(original.unsqueeze(1), share=warm * fall)
            found |= {name: float(term) for name, term in learned.items()}
        return found

    def _skip(self) -> None:
        self._skipped += 1
        if self._skipped > MAX_SKIPPED:
            raise ModelError(
                f"the gradients of {self._skipped} steps in a row were not finite",
                hint="go on from the last checkpoint with a lower --learning-rate",
            )

    def _lpips(self, shown: Tensor, original: Tensor, factors: Tensor) -> Tensor | None:
        train, parts = self.train, []
        for network, weight, count in (
            (self._alex, train.alex, len(shown)),
            (self._vgg, train.vgg, train.vgg_crops),
        ):
            if network is not None:
                parts.append(weight * (factors[:count] * network(shown[:count], original[:count]).flatten()).mean())
        return torch.stack(parts).sum() if parts else None

    @torch.no_grad()
    def _follow(self) -> None:
        share = 1 - min(self.train.ema, self.step / (self.step + 10))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, share)
