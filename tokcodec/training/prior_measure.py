"""What a prior gives: coded bits against raw bits and against `adaptive`, and what making it integer costs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.bits import encode_tokens
from tokcodec.probability.interface import Checkerboard
from tokcodec.probability.prior import PlainPrior
from tokcodec.probability.prior_network import PriorNetwork
from tokcodec.probability.schedule import level_by_level, spans_of
from tokcodec.tokens import TokenChunk
from tokcodec.training.prior_data import to_batch, without_picture
from tokcodec.training.prior_model import PriorModel


@dataclass(frozen=True, kw_only=True)
class PriorReport:
    """Bits of all the chunks together, and seconds.

    Attributes:
        tokens: Tokens.
        raw_bits: Kept bits.
        motion_bits: Of the motion maps, which cost the same by every model and are in no other figure.
        adaptive_bits: Coded by `adaptive`.
        prior_bits: Coded by `prior`.
        autoregressive_bits: Coded by `prior-autoregressive`; None where that was not asked for.
        integer_ideal_bits: Ideal code length of the integer network alone, without the mixer.
        float_ideal_bits: The same of the model in floating point; None where there is none.
        adaptive_seconds: Encoding with `adaptive`.
        prior_seconds: Encoding with `prior`.
        autoregressive_seconds: Encoding with `prior-autoregressive`.
    """

    tokens: int
    raw_bits: int
    motion_bits: int
    adaptive_bits: int
    prior_bits: int
    autoregressive_bits: int | None
    integer_ideal_bits: float
    float_ideal_bits: float | None
    adaptive_seconds: float
    prior_seconds: float
    autoregressive_seconds: float | None


def measure_prior(
    network: PriorNetwork,
    chunks: Sequence[TokenChunk],
    *,
    model: PriorModel | None = None,
    autoregressive: bool = False,
) -> PriorReport:
    """Code chunks with each model, and add up.

    Args:
        network: The integer network.
        chunks: What to code; never trained on.
        model: The float model that the network was made from.
        autoregressive: Whether to try the slow order too.
    """
    names = ["adaptive", "prior", *(["prior-autoregressive"] if autoregressive else [])]
    bits, seconds = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    raw = tokens = motion = 0
    integer = floating = 0.0
    for chunk in chunks:
        raw += chunk.kept_bit_count()
        tokens += chunk.indices.size
        still = replace(without_picture(chunk), vectors=np.zeros_like(chunk.vectors))
        motion += 8 * (len(encode_tokens(chunk)) - len(encode_tokens(still)))
        for name in names:
            start = time.perf_counter()
            data = encode_tokens(still, model=name, network=None if name == "adaptive" else network)
            seconds[name] += time.perf_counter() - start
            bits[name] += 8 * len(data)
        integer += integer_ideal_bits(network, chunk)
        if model is not None:
            floating += float_ideal_bits(model, chunk)
    return PriorReport(
        tokens=tokens,
        raw_bits=raw,
        motion_bits=motion,
        adaptive_bits=bits["adaptive"],
        prior_bits=bits["prior"],
        autoregressive_bits=bits.get("prior-autoregressive"),
        integer_ideal_bits=integer,
        float_ideal_bits=None if model is None else floating,
        adaptive_seconds=seconds["adaptive"],
        prior_seconds=seconds["prior"],
        autoregressive_seconds=seconds.get("prior-autoregressive"),
    )


class _Listening(PlainPrior):
    """Adds up the ideal code length of what the network says."""

    ideal_bits = 0.0

    def listen(self, bits: NDArray[np.uint8]) -> None:
        """The bits that the last `probabilities` was about."""
        nats = self._given / 256.0
        self.ideal_bits += float(np.logaddexp(0.0, np.where(bits, -nats, nats)).sum()) / math.log(2)


def integer_ideal_bits(network: PriorNetwork, chunk: TokenChunk) -> float:
    """Ideal code length of a chunk by the integer network alone, in the fixed schedule."""
    grid = Checkerboard.of(*chunk.indices.shape[1:])
    model = _Listening(grid, network)
    for step in range(len(chunk.indices)):
        kept = chunk.kept_bits_of(step).ravel()[grid.order]
        values = chunk.indices[step].ravel()[grid.order]
        model.start_step(kept)
        for group in level_by_level(grid, kept, chunk.geometry.level_bits):
            bits = (values[group.where] >> np.uint64(group.plane)).astype(np.uint8) & np.uint8(1)
            model.probabilities(group)
            model.listen(bits)
            model.observe(group, bits)
        model.finish_step()
    return model.ideal_bits


@torch.inference_mode()
def float_ideal_bits(model: PriorModel, chunk: TokenChunk) -> float:
    """Ideal code length of a chunk by the float model, without rounded activations, in the fixed schedule."""
    rounded, model.rounded = model.rounded, False
    try:
        return sum(_step_bits(model, chunk))
    finally:
        model.rounded = rounded


def _step_bits(model: PriorModel, chunk: TokenChunk) -> Iterator[float]:
    device = next(model.parameters()).device
    indices = torch.from_numpy(chunk.indices.astype(np.int64))[:, None].to(device)
    kept_bits = torch.from_numpy(chunk.kept_bits().astype(np.int64))[:, None].to(device)
    batch = to_batch(indices, kept_bits, planes=chunk.geometry.bits_per_token)
    before, kept_before = torch.zeros_like(batch.bits[0]), torch.zeros_like(batch.kept[0])
    state = model.start(before)
    rows, columns = indices.shape[2:]
    parity = (torch.arange(rows)[:, None] + torch.arange(columns)).to(device) % 2
    for bits, kept in zip(batch.bits, batch.kept, strict=True):
        state = model.context(before, kept_before.unsqueeze(1).float(), state)
        for span in spans_of(chunk.geometry.level_bits):
            for colour in (0, 1):
                known = torch.where((parity == 0) & (colour == 1), span.stop, span.start).expand_as(kept).minimum(kept)
                yield _group_bits(model, state, bits, before, kept, known, parity == colour, span)
        before, kept_before = bits, kept


def _group_bits(
    model: PriorModel,
    state: Tensor,
    bits: Tensor,
    before: Tensor,
    kept: Tensor,
    known: Tensor,
    asked: Tensor,
    span: range,
) -> float:
    first = model.first(state, kept.unsqueeze(1).float(), model.window(bits, before, known))
    planes = slice(span.start, span.stop)
    logits = model.head(first, torch.full_like(known, span.start), before)
    asked = asked & (torch.arange(span.start, span.stop, device=kept.device)[:, None, None] < kept.unsqueeze(1))
    length = F.softplus(-logits[:, planes] * bits[:, planes]) * asked
    return float(length.double().sum()) / math.log(2)
