"""The adversarial set of MAGVIT-v2: what a discriminator asks of the decoder, and how it learns itself.

Non-saturating losses (arXiv 1406.2661), R1 on real clips (arXiv 1801.04406), LeCAM (arXiv 2104.03310), and the weight
of VQGAN (arXiv 2012.09841), which gives the adversarial gradient the size of the reconstruction's where both reach the
decoder's last layer. All of it is off where `LossWeights.adversarial` is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.errors import ModelError
from tokcodec.training.config import TrainConfig
from tokcodec.training.discriminator import Discriminator
from tokcodec.training.distributed import Group

RECONSTRUCTION = ("l1", "mse", "lpips")
"""Terms that the adversarial one is weighed against."""


def generator_loss(fake: Tensor) -> Tensor:
    """-log sigmoid of the logits of decoded clips, mean: small where they are taken for real."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Cross entropy of the logits of real clips to 1 and of decoded ones to 0, each a mean."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def lecam_penalty(real: Tensor, fake: Tensor, averages: Tensor) -> Tensor:
    """How far logits went to their own side of the other side's average, squared, mean.

    Args:
        real: Logits of real clips.
        fake: Logits of decoded ones.
        averages: `(2,)`, moving averages of the mean logits of real and of decoded clips.
    """
    return F.relu(real - averages[1]).square().mean() + F.relu(averages[0] - fake).square().mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """R1: squared norm of the gradient of a logit by the clip, mean over logits.

    Every logit of the map counts as a discriminator of its own. Their gradients are added with random signs, so that
    one backward pass gives the sum of squares in expectation: the penalty does not depend on the size of the map.

    Args:
        discriminator: `(N, F, 3, H, W)` to `(N, ...)`.
        clips: `(N, F, 3, H, W)`.
    """
    clips = clips.detach().requires_grad_(True)
    logits = discriminator(clips)
    signs = torch.randint(0, 2, logits.shape, device=logits.device) * 2 - 1
    (gradient,) = torch.autograd.grad((signs * logits).sum(), clips, create_graph=True)
    return gradient.square().sum() / logits.numel()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, layer: Tensor, *, limit: float) -> Tensor:
    """Ratio of the norms of two losses' gradients at a layer, at most `limit`; 0 where there is none.

    Args:
        reconstruction: Scalar.
        adversarial: Scalar. The graphs of both are kept.
        layer: Parameter that both depend on.
        limit: Largest ratio.
    """
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return torch.nan_to_num(norms[0] / norms[1], nan=0.0, posinf=limit).clamp(max=limit)


class Adversary:
    """A discriminator beside a run: says what is wrong with decoded clips, and learns from them.

    A step of training calls :meth:`terms`, where there is a term :meth:`weight`, and once the decoder's gradients are
    known to be finite :meth:`learn`.

    Args:
        config: The run.
        group: The processes that train together.

    Attributes:
        discriminator: The network.
        updates: Steps of its optimizer so far.
    """

    def __init__(self, config: TrainConfig, group: Group) -> None:
        self._run, self._config, self._group = config, config.adversarial, group
        self.discriminator = Discriminator(self._config.width).to(group.device)
        # Weight decay is left out: R1 is what keeps it small.
        self._optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=self._config.learning_rate, betas=(0.0, 0.99), weight_decay=0.0
        )
        self.updates = self._skipped = 0
        self._averages = torch.zeros(2, device=group.device)
        self._weight = torch.zeros((), device=group.device)
        self._decoded: Tensor | None = None
        if config.compile and self._config.adaptive_every:
            keep_graphs_of_compiled_steps()

    def _precision(self, *, low: bool = True) -> torch.autocast:
        low = low and self._run.precision == "bf16"
        return torch.autocast(self._group.device.type, dtype=torch.bfloat16, enabled=low)

    def terms(self, decoded: Tensor) -> dict[str, Tensor]:
        """The term `adversarial` of decoded clips, which are also kept for :meth:`learn`.

        Nothing in the first `start` updates, in which the discriminator learns alone.

        Args:
            decoded: `(N, F, 3, H, W)` about [-1, 1], with their graph. What is beyond [-1, 1] is never shown.
        """
        clips = decoded.clamp(-1.0, 1.0)
        self._decoded = clips.detach()
        if self.updates < self._config.start:
            return {}
        self.discriminator.requires_grad_(False)
        with self._precision():
            return {"adversarial": generator_loss(self.discriminator(clips))}

    def weight(self, terms: dict[str, Tensor], layer: Tensor) -> Tensor:
        """What the term `adversarial` is multiplied by, beside its weight in the configuration.

        Args:
            terms: Of the step, with their graphs.
            layer: Weight of the decoder's last layer.
        """
        every = self._config.adaptive_every
        if not every:
            return torch.ones_like(self._weight)
        if (self.updates - self._config.start) % every == 0:
            weights = self._run.weights
            parts = [getattr(weights, name) * terms[name] for name in RECONSTRUCTION if name in terms]
            found = adaptive_weight(
                torch.stack(parts).sum(), terms["adversarial"], layer, limit=self._config.adaptive_limit
            )
            self._weight = self._group.average(found)
        return self._weight

    def learn(self, frames: Tensor, *, share: float) -> dict[str, Tensor]:
        """One step of the discriminator, from the clips that :meth:`terms` was given last.

        Args:
            frames: The real clips, float32 `(N, F, 3, H, W)` in [-1, 1].
            share: Of the learning rate.

        Returns:
            Terms for the log; none where a gradient was not finite, and nothing was changed.

        Raises:
            ModelError: That happened more than `max_skipped_steps` times in a row.
        """
        if self._decoded is None:
            raise ValueError("no decoded clips to learn from")
        config, network = self._config, self.discriminator.requires_grad_(True)
        decoded, self._decoded = self._decoded, None
        network.zero_grad(set_to_none=True)
        with self._precision():
            real, fake = network(torch.cat([frames, decoded])).chunk(2)
        terms = {"discriminator": discriminator_loss(real, fake)}
        loss = terms["discriminator"]
        if config.lecam:
            terms["lecam"] = lecam_penalty(real, fake, self._averages)
            loss = loss + config.lecam * terms["lecam"]
        loss.backward()
        if config.r1 and self.updates % config.r1_every == 0:
            with self._precision(low=False):  # squares of gradients: bfloat16 is too coarse
                terms["r1"] = gradient_penalty(network, frames)
            (0.5 * config.r1 * config.r1_every * terms["r1"]).backward()
        self._group.average_gradients(network)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self._run.gradient_clip)
        if not torch.isfinite(norm):
            self._skip()
            return {}
        for group in self._optimizer.param_groups:
            group["lr"] = share * config.learning_rate
        self._optimizer.step()
        self.updates, self._skipped = self.updates + 1, 0
        means = self._group.average(torch.stack([real.detach().mean(), fake.detach().mean()]))
        # The first averages are those of few steps, and not of where they began.
        self._averages = torch.lerp(means, self._averages, min(config.lecam_decay, self.updates / (10 + self.updates)))
        terms |= {"real_logit": means[0], "fake_logit": means[1], "adaptive_weight": self._weight}
        return {name: term.detach() for name, term in terms.items()}

    def _skip(self) -> None:
        self._skipped += 1
        if self._skipped > self._run.max_skipped_steps:
            raise ModelError(
                f"the discriminator's gradients of {self._skipped} steps in a row were not finite",
                hint="go on from the last checkpoint with a lower learning_rate of train.adversarial",
            )

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "width": self._config.width,
            "updates": self.updates,
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "averages": self._averages,
            "weight": self._weight,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`.

        Raises:
            ModelError: It is of a discriminator of another width.
        """
        if saved["width"] != self._config.width:
            raise ModelError(
                f"the checkpoint's discriminator has a width of {saved['width']}, the run's {self._config.width}",
                hint=f'set "adversarial": {{"width": {saved["width"]}}}, or start a new run with --init and this file',
            )
        self.discriminator.load_state_dict(saved["discriminator"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.updates = int(saved["updates"])
        self._averages = saved["averages"].to(self._group.device)
        self._weight = saved["weight"].to(self._group.device)


def keep_graphs_of_compiled_steps() -> None:
    """Let a compiled function be differentiated more than once, as :func:`adaptive_weight` does.

    By default its first backward pass works in the memory of what was saved for it.
    """
    import torch._functorch.config as compiler

    compiler.donated_buffer = False
