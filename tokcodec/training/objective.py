"""What one step of training computes: random allocations, the unrolled clip, and every loss term."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.geometry import BLOCK_TOKENS, TEMPORAL_FACTOR
from tokcodec.metrics.lpips_network import Lpips
from tokcodec.tokenizer.allocation import SLOPES, RateDistortionConfig
from tokcodec.tokenizer.cell_means import keep_from_compiler
from tokcodec.tokenizer.first_picture import quickly_chosen, restored
from tokcodec.tokenizer.hybrid import HybridDecoder, HybridEncoder
from tokcodec.tokenizer.lfq import straight_through
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.motion import code_of_motion
from tokcodec.tokenizer.picture_choice import slope_of_residual
from tokcodec.tokenizer.state import DecoderState, EncoderState, Forecast, Past
from tokcodec.tokenizer.step_length import REPEATS
from tokcodec.tokenizer.transform import CellTransform
from tokcodec.tokenizer.wavelet import quantized_residual, restored_residual, scale_of_slope
from tokcodec.tokens import Picture
from tokcodec.training.coded_motion import coded_displacements, hybrid_displacements
from tokcodec.training.config import Stage, TrainConfig
from tokcodec.training.losses import latent_terms, perceptual_term, reconstruction_terms
from tokcodec.training.prior_model import PriorModel
from tokcodec.training.rate import rate_term

SLOPE_RANGE = 0.6 * min(SLOPES.values()), 1.2 * max(SLOPES.values())
"""Lambdas that training draws from: those of all qualities, and a little beyond."""
SET_BITS = 4.0
"""About what a set bit costs, in bits of information."""
ERROR_COUNTS = {True: RateDistortionConfig.first_weight_of_transform, False: 6.0}
"""How often the error of a first step's picture, or of a later one's last, counts when levels are chosen."""
RESIDUAL_DEAD = 0.4
"""Share of a step by which a coefficient of a residual must exceed the middle between two numbers: about what an
encoder leaves out that looks at what each costs."""
BLOCK_PIXELS = 32
"""Pixels along each side of a block of 4x4 tokens."""


@dataclass(frozen=True)
class Steps:
    """The functions that a clip is unrolled with: those of the model, or compiled ones."""

    encode: Callable[[Tensor, Past | None, Tensor | None], tuple[Tensor, EncoderState]]
    decode: Callable[[Tensor, Tensor, DecoderState | None, Tensor | None], tuple[Tensor, DecoderState]]
    forecast: Callable[[DecoderState, Tensor | None], Forecast]

    @classmethod
    def of(cls, model: Tokenizer, *, compiled: bool = False, backend: str = "inductor") -> Steps:
        """The steps of a model; `compiled` for `torch.compile`, one graph each for first and later steps.

        An encoder without a network stays as it is: it has a hundred small decisions, and no gradient.
        """
        encode = model.encoder.step
        if not compiled:
            return cls(encode, model.decoder.step, model.decoder.forecast)
        keep_from_compiler()
        return cls(
            encode if model.config.hybrid else torch.compile(encode, dynamic=False, backend=backend),
            torch.compile(model.decoder.step, dynamic=False, backend=backend),
            torch.compile(model.decoder.forecast, dynamic=False, backend=backend),
        )


@dataclass(frozen=True, kw_only=True)
class Allocations:
    """Which bits each clip of a batch keeps.

    Attributes:
        levels: int64 `(N, steps, rows, columns)` at token resolution.
        still: float32 `(N,)`. A block of a later step keeps nothing where the forecast is nearer to the frames
            than this mean squared error of pixels in [-1, 1]; 0 leaves the levels as they are.
        slope: float32 `(N,)`, lambda of the encoder of a hybrid; None for its lowest thresholds.
    """

    levels: Tensor
    still: Tensor
    slope: Tensor | None = None

    def to(self, device: torch.device) -> Allocations:
        """The same on a device."""
        return Allocations(
            levels=self.levels.to(device, non_blocking=True),
            still=self.still.to(device, non_blocking=True),
            slope=None if self.slope is None else self.slope.to(device, non_blocking=True),
        )

    def at(self, step: int, frames: Tensor, forecast: Forecast | None) -> Tensor:
        """Levels of a step, `(N, rows, columns)`, once its frames `(N, F, 3, H, W)` and their forecast are known."""
        levels = self.levels[:, step]
        if forecast is None:
            return levels
        error = (frames[:, -forecast.frames.shape[1] :] - forecast.frames).square().mean(dim=(1, 2)).unsqueeze(1)
        error = F.avg_pool2d(error, BLOCK_PIXELS, ceil_mode=True, count_include_pad=False)
        error = error.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, 0, : levels.shape[1], : levels.shape[2]]
        return torch.where(error < self.still.view(-1, 1, 1), 0, levels)


def allocations_of(stage: Stage, config: TrainConfig, shape: tuple[int, int, int, int], *, top: int) -> Allocations:
    """The bits that clips of a stage keep.

    Args:
        stage: "nested" draws at random. "full" keeps `config.usual_level` in later steps, which get no more from the
            encoder either, and everything in first ones. "continuous" latents are whole.
        config: The run.
        shape: Clips, steps, rows and columns.
        top: Highest level.
    """
    usual = min(top, config.usual_level)
    if stage == "nested":
        return sample_allocations(*shape, top=top, usual=usual, full_rate_share=config.full_rate_share)
    levels = torch.full(shape, top)
    if stage == "full":
        levels[:, 1:] = usual
    return Allocations(levels=levels, still=torch.zeros(shape[0]), slope=sample_slopes(shape[0]))


def sample_allocations(
    batch: int, steps: int, rows: int, columns: int, *, top: int, usual: int, full_rate_share: float
) -> Allocations:
    """Random bit allocations.

    First steps keep anything up to `top`, later ones up to `usual`, and one time in eight up to `top`. A share of the
    batch keeps all of that. Of the rest a quarter has a random map, in which blocks of later steps often keep nothing;
    the others have one level for all later steps and one not below it for the first, and half of them leave out
    blocks that are good already, as an encoder would.
    """
    levels = torch.empty((batch, steps, rows, columns), dtype=torch.long)
    still = torch.zeros(batch)
    block_rows, block_columns = -(-rows // 4), -(-columns // 4)
    for i in range(batch):
        kind, rich, skips, amount, unusual = torch.rand(5).tolist()
        most = top if unusual < 0.125 else usual
        if kind < full_rate_share:
            levels[i] = most
            levels[i, 0] = top if rich < 0.5 else int(torch.randint(most, top + 1, ()))
        elif kind < full_rate_share + 0.75 * (1 - full_rate_share):
            later = int(torch.randint(1, most + 1, ()))
            levels[i] = later
            levels[i, 0] = top if rich < 0.3 else int(torch.randint(later, top + 1, ()))
            if skips < 0.5:
                still[i] = 4 * 10 ** -(2.0 + 1.6 * amount)  # 20 to 36 dB
        else:
            blocks = torch.randint(1, most + 1, (steps, block_rows, block_columns))
            blocks[0] = torch.randint(1, top + 1, (block_rows, block_columns))
            zero = torch.rand(steps, block_rows, block_columns) < amount
            zero[0] = False
            blocks[zero] = 0
            levels[i] = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :rows, :columns]
    return Allocations(levels=levels, still=still, slope=sample_slopes(batch))


def sample_slopes(batch: int) -> Tensor:
    """Lambdas of the encoder, float32 `(batch,)`: their logarithms are equally likely, over those of all qualities."""
    low, high = (math.log(value) for value in SLOPE_RANGE)
    return torch.empty(batch).uniform_(low, high).exp()


@functools.cache
def _table(level_bits: tuple[int, ...], device: torch.device) -> Tensor:
    """Copied to a device once, for a copy waits until the device has done all that it was given."""
    return torch.tensor(level_bits, device=device)


@torch.no_grad()
def levels_worth_it(
    transform: CellTransform, z: Tensor, wanted: Tensor, slope: Tensor, level_bits: tuple[int, ...]
) -> Tensor:
    """The levels that an encoder of a hybrid would choose by the transform alone, of least error + lambda * bits.

    Args:
        transform: Of the step.
        z: Bits, `(N, K, h, w)`.
        wanted: What they are about, float32 `(N, 3, 8h, 8w)` in units of [-1, 1].
        slope: Lambda of each clip, `(N,)`.
        level_bits: Bits kept at each level.

    Returns:
        int64 `(N, h, w)`, the same within each block; at least 1 in a chunk's first step.
    """
    table = _table(level_bits, z.device)
    errors = transform.errors(z, wanted)[table]
    bits = (z > 0).float()
    count = F.pad(bits.cumsum(dim=1), (0, 0, 0, 0, 1, 0)).transpose(0, 1)[table]
    cost = ERROR_COUNTS[transform.first] * errors + (SET_BITS * slope).view(1, -1, 1, 1) * count
    blocks = F.avg_pool2d(cost, BLOCK_TOKENS, ceil_mode=True, divisor_override=1)
    if transform.first:
        blocks[0] = torch.inf  # it is all that there is to go on from
    best = blocks.argmin(dim=0).repeat_interleave(BLOCK_TOKENS, 1).repeat_interleave(BLOCK_TOKENS, 2)
    return best[:, : z.shape[2], : z.shape[3]]


def kept_from_levels(levels: Tensor, level_bits: tuple[int, ...], bits: int) -> Tensor:
    """Float masks of the bits that are kept: `(..., h, w)` levels -> `(..., K, h, w)`, 1 or 0."""
    kept = _table(level_bits, levels.device)[levels]
    axis = torch.arange(bits, device=levels.device).view(-1, 1, 1)
    return (axis < kept.unsqueeze(-3)).float()


@torch.no_grad()
def begun(model: Tokenizer, pictures: Tensor, slope: Tensor | None) -> DecoderState:
    """The state after first pictures that come without tokens, about as an encoder would choose them.

    Args:
        model: Of which it is the state.
        pictures: float32 `(N, 3, H, W)` in [-1, 1].
        slope: Lambda of each clip, `(N,)`; None for the finest.
    """
    if not isinstance(model.decoder, HybridDecoder):
        raise ValueError("first pictures by coefficients are those of a hybrid")
    slopes = [SLOPE_RANGE[0]] * len(pictures) if slope is None else slope.tolist()
    found = []
    for picture, each in zip(pictures, slopes, strict=True):
        coded = quickly_chosen(picture, each, blocks=model.config.intra)
        found.append(restored(coded, picture))
    return model.decoder.begin(torch.stack(found))


@torch.no_grad()
def residuals_of(missing: Tensor, slope: Tensor | None) -> Tensor:
    """What the residuals of a step say of what the forecast of its last frame lacks, with a wide dead zone in the place
    of an encoder's choice.

    Args:
        missing: float32 `(N, 3, H, W)`, in units of [-1, 1].
        slope: Lambda of each clip, `(N,)`; None for the finest.

    Returns:
        Of the shape of `missing`.
    """
    slopes = [SLOPE_RANGE[0]] * len(missing) if slope is None else slope.tolist()
    found = []
    for residual, each in zip(missing.float(), slopes, strict=True):
        scale = scale_of_slope(slope_of_residual(each, repeats=REPEATS[TEMPORAL_FACTOR]))
        coefficients = quantized_residual(residual, scale, dead=RESIDUAL_DEAD)
        found.append(restored_residual(Picture(coefficients=coefficients, scale=scale), residual))
    return torch.stack(found)


def clip_losses(
    model: Tokenizer,
    frames: Tensor,
    allocations: Allocations,
    config: TrainConfig,
    stage: Stage,
    *,
    motion: Tensor,
    steps: Steps | None = None,
    lpips: Lpips | None = None,
    prior: PriorModel | None = None,
    show: Callable[[Tensor], None] | None = None,
) -> dict[str, Tensor]:
    """Run a batch of clips through the steps of encoder and decoder; every loss term, unweighted.

    Args:
        model: The tokenizer.
        frames: float32 `(N, 1 + 4t, 3, H, W)` in [-1, 1].
        allocations: The bits kept, for 1 + t steps.
        config: The run.
        stage: Continuous latents skip the signs and the latent terms.
        motion: float32 `(N, t, 4, 2, H/8, W/8)`, that of each later step since the step before.
        steps: Those of the model, where they are not compiled.
        lpips: Adds the LPIPS term.
        prior: Adds the rate term.
        show: Is given the decoded clips, `(N, 1 + 4t, 3, H, W)`, not clamped, with their graph.
    """
    steps = steps or Steps.of(model)
    past: Past | None = None
    decoder_state: DecoderState | None = None
    displacements = None
    if model.config.coded_motion and motion.shape[1]:
        if model.config.hybrid:
            slope = allocations.slope
            slope = frames.new_full((len(frames),), SLOPE_RANGE[0]) if slope is None else slope
            displacements = hybrid_displacements(frames, motion, slope=slope)
        else:
            displacements = coded_displacements(motion, seed=int(torch.randint(1 << 31, ())))
    latents, decoded, moved, motions, sent, masks = [], [], [], [], [], []
    geometry = model.config.geometry
    if model.config.wavelet:
        decoder_state = begun(model, frames[:, 0], allocations.slope)
        decoded.append(decoder_state.picture.unsqueeze(1))
        if displacements is not None:
            forecast = steps.forecast(decoder_state, displacements[:, 0]).detach()
            past = Past(state=EncoderState(before=()), forecast=forecast, motion=motion[:, 0])
    for step in range(int(model.config.wavelet), allocations.levels.shape[1]):
        part = frames[:, :1] if step == 0 else frames[:, 4 * step - 3 : 4 * step + 1]
        if model.config.residuals and past is not None and decoder_state is not None:
            expected = past.forecast.frames
            residual = residuals_of(part[:, -1] - expected[:, -1], allocations.slope)
            decoder_state = decoder_state.with_residual(residual)
            # What the network makes of it is left out, for a second forecast would take a third more time.
            forecast = replace(past.forecast, frames=(expected + residual.unsqueeze(1)).clamp(-1.0, 1.0))
            past = replace(past, forecast=forecast)
        z, encoder_state = steps.encode(part, past, allocations.slope)
        levels = allocations.at(step, part, None if past is None else past.forecast)
        if isinstance(model.encoder, HybridEncoder) and allocations.slope is not None:
            transform = model.encoder.first if past is None else model.encoder.later
            wanted = part[:, 0] if past is None else part[:, -1] - past.forecast.frames[:, -1]
            worth = levels_worth_it(transform, z, wanted, allocations.slope, geometry.level_bits)
            levels = torch.minimum(levels, worth)
        kept = kept_from_levels(levels, geometry.level_bits, geometry.bits_per_token)
        if isinstance(model.encoder, HybridEncoder) and past is None:
            z = model.encoder.settled(part, kept, allocations.slope)
        continuous = stage == "continuous" and not model.config.hybrid
        tokens = z if continuous or model.config.quantizer == "none" else straight_through(z)
        displacement = displacements[:, step - 1] if step and displacements is not None else None
        pixels, decoder_state = steps.decode(tokens, kept, decoder_state, displacement)
        latents.append(z)
        sent.append(tokens)
        masks.append(kept)
        decoded.append(pixels)
        if decoder_state.moved is not None and decoder_state.motion is not None:
            moved.append(decoder_state.moved)
            motions.append(decoder_state.motion)
        if step + 1 < allocations.levels.shape[1]:
            # Not under no_grad: autocast would keep its copies of the weights, and they would have no gradient.
            following = None if displacements is None else displacements[:, step]
            forecast = steps.forecast(decoder_state, following).detach()
            seen = motion[:, step] if model.config.recurrent else forecast.motion
            past = Past(state=encoder_state, forecast=forecast, motion=seen)
    result = torch.cat(decoded, dim=1)
    if show is not None:
        show(result)
    terms = reconstruction_terms(result, frames)
    if moved:
        terms["moved"] = (torch.cat(moved, dim=1) - frames[:, 1:]).abs().mean()
        terms["motion"] = (code_of_motion(torch.stack(motions, dim=1)) - code_of_motion(motion)).abs().mean()
    if lpips is not None:
        terms["lpips"] = perceptual_term(result, frames, lpips, count=config.lpips_frames)
    if latents and stage != "continuous" and model.config.quantizer == "lfq":
        terms |= latent_terms(torch.cat(latents), diversity=config.weights.diversity, group=config.entropy_group)
        if prior is not None:
            terms["rate"] = rate_term(
                prior,
                torch.stack(sent),
                torch.stack(masks),
                geometry.level_bits,
                pixels=result[:, :, 0].numel(),
                seed=int(torch.randint(1 << 31, ())),
            )
    return terms
