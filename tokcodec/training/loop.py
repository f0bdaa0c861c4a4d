"""The training loop: phases from images to nested video, EMA, resumable checkpoints, a running log."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tokcodec import interruption
from tokcodec.errors import ModelError, UsageError
from tokcodec.metrics.lpips_network import Lpips
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import clip_flops_per_pixel
from tokcodec.tokenizer.hybrid import HybridDecoder
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training.adversarial import Adversary
from tokcodec.training.checkpoint import InitReport, initialise, read_checkpoint, save_checkpoint
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.distributed import Group, alone
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.meter import ComputeClock, Meter, Progress, device_name, peak_flops
from tokcodec.training.objective import Allocations, Steps, allocations_of, clip_losses
from tokcodec.training.optimizer import HybridOptimizer
from tokcodec.training.prior_model import PriorModel
from tokcodec.training.source import Batch, ClipSource

FAILURE_CHARACTERS = 300
"""Of what a compiler says, in the log."""


class Trainer:
    """A run that can be stopped and taken up again.

    Args:
        model_config: The model; that of the checkpoint must be the same.
        config: The run.
        checkpoint: File to resume from, if it exists, and to save to.
        device: Where to train; ignored where `group` is given.
        init: Weights to start from, where there is no checkpoint.
        lpips: The distance of the LPIPS term; needed where its weight is not 0.
        group: The processes that train together.

    Attributes:
        init_report: What was taken from `init`; None when it was not used.
    """

    def __init__(
        self,
        *,
        model_config: TokenizerConfig,
        config: TrainConfig,
        checkpoint: Path,
        device: str = "cpu",
        init: Path | None = None,
        lpips: Lpips | None = None,
        group: Group | None = None,
    ) -> None:
        if config.weights.lpips and lpips is None:
            raise UsageError("the run has an LPIPS term", hint="name its weights with --lpips-weights DIR")
        if config.decoder_only and init is None and not checkpoint.exists():
            raise UsageError("the run trains the decoder only, of weights that are not there", hint="--init FILE")
        self.group = group or alone(torch.device(device))
        self.device, self.config, self.checkpoint = self.group.device, config, checkpoint
        torch.manual_seed(config.seed)
        self.model = Tokenizer(model_config).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.init_report: InitReport | None = None
        if init is not None and not checkpoint.exists():
            self.init_report = initialise(self.model, init)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.model.encoder.requires_grad_(not config.decoder_only)
        self.optimizer = HybridOptimizer(
            self.model, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.prior: PriorModel | None = None
        self._prior_optimizer: HybridOptimizer | None = None
        if config.weights.rate:
            self.prior = PriorModel(PriorConfig(bits_per_token=model_config.bits_per_token)).to(self.device)
            self.prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._prior_optimizer = HybridOptimizer(
                self.prior, learning_rate=config.learning_rate, weight_decay=config.weight_decay
            )
        self.adversary = Adversary(config, self.group) if config.weights.adversarial else None
        self.step = 0
        self.seconds = 0.0
        if checkpoint.exists():
            self._load()
        learned = [] if self.prior is None else list(self.prior.parameters())
        if self.adversary is not None:
            learned += self.adversary.discriminator.parameters()
        self.group.start_alike([*self.model.parameters(), *self.average.parameters(), *learned])
        torch.manual_seed(config.seed + self.step + 1000 * self.group.rank)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self._lpips = None if lpips is None else lpips.to(self.device)
        self._steps = Steps.of(self.model, compiled=config.compile)
        self._compiled = config.compile
        self._note: Callable[[str], None] = lambda _: None
        self._skipped = 0
        decoder = self.model.decoder  # every step of a decoder ends in it
        self._last_layer = decoder.last_weight if isinstance(decoder, HybridDecoder) else decoder.patch_out.weight

    def _load(self) -> None:
        # Into the memory of the CPU: on a GPU AdamW would ask for each of its counts of steps, at every step.
        saved = read_checkpoint(self.checkpoint, torch.device("cpu"))
        if saved.get("model_config") != self.model.config.to_json():
            raise ModelError(
                "the checkpoint is of another model",
                where=str(self.checkpoint),
                hint="start a run in a new folder, with --init and this file",
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            if "optimizer" in saved:
                self.optimizer.load_state_dict(saved["optimizer"])
            if self.prior is not None and self._prior_optimizer is not None and "prior" in saved:
                self.prior.load_state_dict(saved["prior"])
                if "prior_optimizer" in saved:
                    self._prior_optimizer.load_state_dict(saved["prior_optimizer"])
            if self.adversary is not None and "adversary" in saved:
                self.adversary.load_state_dict(saved["adversary"])
            self.step, self.seconds = int(saved["step"]), float(saved["seconds"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"not a checkpoint of tokcodec: {error}", where=str(self.checkpoint)) from error

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        if self.group.first:
            values = {
                "model_config": self.model.config.to_json(),
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
            }
            if self.prior is not None and self._prior_optimizer is not None:
                values["prior_config"] = self.prior.config.to_json()
                values["prior"] = self.prior.state_dict()
                values["prior_optimizer"] = self._prior_optimizer.state_dict()
            if self.adversary is not None:
                values["adversary"] = self.adversary.state_dict()
            save_checkpoint(self.checkpoint, values)

    def _learning_rate(self, fraction: float) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        return self.config.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fraction)))

    def phase_at(self, fraction: float) -> int:
        """Number of the phase at a fraction of the run."""
        total = 0.0
        for number, phase in enumerate(self.config.phases):
            total += phase.share
            if fraction < total:
                return number
        return len(self.config.phases) - 1

    def _allocations(self, phase: Phase) -> Allocations:
        geometry = self.model.config.geometry
        shape = (phase.batch, geometry.steps(phase.frames), phase.side // 8, phase.side // 8)
        top = len(geometry.level_bits) - 1
        return allocations_of(phase.stage, self.config, shape, top=top).to(self.device)

    def _gradients(self, batch: Batch, phase: Phase) -> dict[str, Tensor]:
        """The loss terms of a batch, whose gradients are then those of the weights.

        A network that cannot be compiled is run as it is, from there on: the compiler works when a shape is first
        seen, and for gradients when they are first wanted.
        """
        if not self._compiled:
            return self._plain_gradients(batch, phase)
        try:
            return self._plain_gradients(batch, phase)
        except Exception as error:
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:FAILURE_CHARACTERS]
        # Outside of the handler, which holds memory. What was not the compiler's fault is raised again.
        self._steps, self._compiled = Steps.of(self.model), False
        terms = self._plain_gradients(batch, phase)
        self._note(f"training goes on without compiling, which failed: {failure}")
        return terms

    def _plain_gradients(self, batch: Batch, phase: Phase) -> dict[str, Tensor]:
        config, weights = self.config, self.config.weights
        precision: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if config.precision == "bf16":
            precision = torch.autocast(self.device.type, dtype=torch.bfloat16)
        lpips = self._lpips if phase.lpips and weights.lpips else None
        adversary = self.adversary if phase.adversarial else None
        shown: list[Tensor] = []
        with precision:
            terms = clip_losses(
                self.model,
                batch.frames,
                self._allocations(phase),
                config,
                phase.stage,
                motion=batch.motion,
                steps=self._steps,
                lpips=lpips,
                prior=self.prior,
                show=None if adversary is None else shown.append,
            )
        factors = {name: getattr(weights, name) for name in terms}
        if adversary is not None and (judged := adversary.terms(shown.pop())):
            terms |= judged
            factors["adversarial"] = weights.adversarial * adversary.weight(terms, self._last_layer)
        loss = torch.stack([factors[name] * term for name, term in terms.items()]).sum()
        self.model.zero_grad(set_to_none=True)
        if self.prior is not None:
            self.prior.zero_grad(set_to_none=True)
        loss.backward()
        return terms

    def _update(self, source: ClipSource, phase: Phase, rate: float) -> tuple[dict[str, Tensor], bool]:
        """One step of the optimizer; its loss terms, and whether it was skipped."""
        config = self.config
        batch = source.batch(phase.batch, phase.frames, phase.side).to(self.device)
        terms = self._gradients(batch, phase)
        self.group.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step(learning_rate=rate)
            if self.prior is not None and self._prior_optimizer is not None and "rate" in terms:
                self._learn_rate(self.prior, self._prior_optimizer, rate)
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        learned: dict[str, Tensor] = {}
        if finite and self.adversary is not None and phase.adversarial:
            learned = self.adversary.learn(batch.frames, share=rate / config.learning_rate)
        self._skipped = 0 if finite else self._skipped + 1
        if self._skipped > config.max_skipped_steps:
            raise ModelError(
                f"the gradients of {self._skipped} steps in a row were not finite",
                hint="go on from the last checkpoint with a lower learning_rate",
            )
        return {name: term.detach() for name, term in terms.items()} | {"gradient_norm": norm} | learned, not finite

    def _learn_rate(self, prior: PriorModel, optimizer: HybridOptimizer, rate: float) -> None:
        """A step of the prior from the same gradients; how much the rate weighs is none of its business."""
        self.group.average_gradients(prior)
        for parameter in prior.parameters():
            if parameter.grad is not None:
                parameter.grad /= self.config.weights.rate
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(prior.parameters(), self.config.gradient_clip)):
            optimizer.step(learning_rate=rate)

    def run(
        self,
        source: ClipSource,
        *,
        max_minutes: float,
        total_minutes: float,
        log: Callable[[Progress], None],
        note: Callable[[str], None] = lambda _: None,
        log_seconds: float = 10.0,
        save_seconds: float = 120.0,
    ) -> None:
        """Train for `max_minutes` of a run of `total_minutes`, which sets phases and learning rate.

        Minutes are those of :class:`tokcodec.training.meter.ComputeClock`: a process that is stopped for a while
        goes on where it was. Whatever ends the call, short of an error, the checkpoint is saved. `note` is told if
        the network cannot be compiled.
        """
        self._note = note
        clock = ComputeClock()
        meter = Meter(devices=self.group.size, peak=peak_flops(device_name(self.device)))
        flops = {p.frames: 3 * clip_flops_per_pixel(self.model.config, frames=p.frames) for p in self.config.phases}
        before = self.phase_at(self.seconds / (60 * total_minutes))
        inflated = self.config.decoder_only or not self.config.inflate
        begun, saved, last = self.seconds, self.seconds, min(self.seconds + 60 * max_minutes, 60 * total_minutes)
        try:
            while True:
                (self.seconds,) = self.group.agree([self.seconds])
                if self.seconds >= last:
                    break
                fraction = self.seconds / (60 * total_minutes)
                rate = self._learning_rate(fraction)
                number = self.phase_at(fraction)
                phase = self.config.phases[number]
                if number != before and not meter.empty and self.group.first:  # a line is about one phase
                    log(meter.progress(minutes=self.seconds / 60, step=self.step, phase=before, learning_rate=rate))
                before = number
                if phase.frames > 1 and not inflated:  # asked once: the answer waits for the device
                    if needs_inflation(self.model):
                        inflate(self.model)
                        inflate(self.average)
                    inflated = True
                terms, skipped = self._update(source, phase, rate)
                self.step += 1
                passed = clock.lap()
                self.seconds += passed
                pixels = phase.batch * phase.frames * phase.side**2
                meter.add(terms, clips=phase.batch, flops=flops[phase.frames] * pixels, seconds=passed, skipped=skipped)
                if meter.seconds >= log_seconds and self.group.first:
                    log(meter.progress(minutes=self.seconds / 60, step=self.step, phase=number, learning_rate=rate))
                if self.seconds - saved >= save_seconds:
                    self.save()
                    saved = self.seconds
        except Exception:
            raise
        except BaseException:  # interrupted or terminated: what was learned stays
            interruption.settle()
            self.save()
            raise
        if self.seconds > begun:
            self.save()
