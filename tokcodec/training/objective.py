"""What one step of training computes: random allocations, the unrolled clip, and every loss term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokcodec.metrics.lpips_network import Lpips
from tokcodec.tokenizer.lfq import straight_through
from tokcodec.tokenizer.model import DecoderState, EncoderState, Tokenizer
from tokcodec.training.config import Stage, TrainConfig
from tokcodec.training.losses import latent_terms, perceptual_term, reconstruction_terms


@dataclass(frozen=True)
class Steps:
    """The two functions that a clip is unrolled with: those of the model, or compiled ones."""

    encode: Callable[[Tensor, EncoderState | None], tuple[Tensor, EncoderState]]
    decode: Callable[[Tensor, Tensor, DecoderState | None], tuple[Tensor, DecoderState]]

    @classmethod
    def of(cls, model: Tokenizer, *, compiled: bool = False, backend: str = "inductor") -> Steps:
        """The steps of a model; `compiled` for `torch.compile`, one graph each for first and later steps."""
        if not compiled:
            return cls(model.encoder.step, model.decoder.step)
        return cls(
            torch.compile(model.encoder.step, dynamic=False, backend=backend),
            torch.compile(model.decoder.step, dynamic=False, backend=backend),
        )


def needs_inflation(model: Tokenizer) -> bool:
    """Whether the four-frame layers were never trained: their biases are still all zero."""
    biases = (model.encoder.merge_rest.bias, model.decoder.split_rest.bias)
    return not any(bool(bias.any()) for bias in biases if bias is not None)


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


def clip_losses(
    model: Tokenizer,
    frames: Tensor,
    kept: Tensor,
    config: TrainConfig,
    stage: Stage,
    *,
    steps: Steps | None = None,
    lpips: Lpips | None = None,
) -> dict[str, Tensor]:
    """Run a batch of clips through the steps of encoder and decoder; every loss term, unweighted.

    Args:
        model: The tokenizer.
        frames: float32 `(N, 1 + 4t, 3, H, W)` in [-1, 1].
        kept: `(N, 1 + t, K, H/8, W/8)`, 1 or 0.
        config: The run.
        stage: Continuous latents skip the signs and the latent terms.
        steps: Those of the model, where they are not compiled.
        lpips: Adds the LPIPS term.
    """
    steps = steps or Steps.of(model)
    encoder_state: EncoderState | None = None
    decoder_state: DecoderState | None = None
    latents, decoded = [], []
    for step in range(kept.shape[1]):
        part = frames[:, :1] if step == 0 else frames[:, 4 * step - 3 : 4 * step + 1]
        z, encoder_state = steps.encode(part, encoder_state)
        tokens = z if stage == "continuous" or model.config.quantizer == "none" else straight_through(z)
        pixels, decoder_state = steps.decode(tokens, kept[:, step], decoder_state)
        latents.append(z)
        decoded.append(pixels)
    result = torch.cat(decoded, dim=1)
    terms = reconstruction_terms(result, frames)
    if lpips is not None:
        terms["lpips"] = perceptual_term(result, frames, lpips, count=config.lpips_frames)
    if stage != "continuous" and model.config.quantizer == "lfq":
        terms |= latent_terms(torch.cat(latents), diversity=config.weights.diversity, group=config.entropy_group)
    return terms
