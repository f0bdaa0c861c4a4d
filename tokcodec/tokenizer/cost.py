"""FLOPs a pixel, counted by torch in the convolutions that a model runs; a multiply-add is two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from tokcodec.geometry import MOTION_MAPS
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.post_filter import PostFilter, PostFilterConfig
from tokcodec.tokenizer.state import DecoderState, EncoderState, Past

_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What a model costs.

    Attributes:
        encoder_flops_per_pixel: Of a step of four frames.
        decoder_flops_per_pixel: Of a step of four frames.
        encoder_parameters: Number of parameters.
        decoder_parameters: Number of parameters.
    """

    encoder_flops_per_pixel: float
    decoder_flops_per_pixel: float
    encoder_parameters: int
    decoder_parameters: int


def measure_cost(model: Tokenizer) -> ModelCost:
    """Run the second step of a chunk on shapes alone (the meta device) and count."""
    with torch.device("meta"):
        counted = Tokenizer(model.config)
        first = torch.empty(1, 1, 3, _SIDE, _SIDE)
        four = torch.empty(1, 4, 3, _SIDE, _SIDE)
        bits = torch.empty(1, model.config.bits_per_token, _SIDE // 8, _SIDE // 8)
        motion = torch.empty(1, 4, 2, _SIDE // 8, _SIDE // 8)
    encoder_state, decoder_state = _first_states(counted, bits, first)
    displacement = _displacement(model.config, motion)
    forecast = counted.decoder.forecast(decoder_state, displacement)
    past = Past(state=encoder_state, forecast=forecast, motion=motion)
    with FlopCounterMode(display=False) as encoder:
        counted.encoder.step(four, past)
    with FlopCounterMode(display=False) as decoder:
        counted.decoder.step(bits, bits, decoder_state, displacement)
    pixels = 4 * _SIDE * _SIDE
    return ModelCost(
        encoder_flops_per_pixel=encoder.get_total_flops() / pixels,
        decoder_flops_per_pixel=decoder.get_total_flops() / pixels,
        encoder_parameters=sum(p.numel() for p in model.encoder.parameters()),
        decoder_parameters=sum(p.numel() for p in model.decoder.parameters()),
    )


def clip_flops_per_pixel(config: TokenizerConfig, *, frames: int) -> float:
    """FLOPs of encoding and decoding a chunk of `frames` frames, for each of its `frames * height * width` pixels.

    The forecasts, which training does not differentiate, are not in it.
    """
    with torch.device("meta"):
        model = Tokenizer(config)
        first = torch.empty(1, 1, 3, _SIDE, _SIDE)
        four = torch.empty(1, 4, 3, _SIDE, _SIDE)
        bits = torch.empty(1, config.bits_per_token, _SIDE // 8, _SIDE // 8)
        motion = torch.empty(1, 4, 2, _SIDE // 8, _SIDE // 8)
    displacement = _displacement(config, motion)
    with FlopCounterMode(display=False) as counter:
        encoder_state, decoder_state = _first_states(model, bits, first)
        before = counter.get_total_flops()
    forecast = model.decoder.forecast(decoder_state, displacement)
    with FlopCounterMode(display=False) as counter:
        model.encoder.step(four, Past(state=encoder_state, forecast=forecast, motion=motion))
        model.decoder.step(bits, bits, decoder_state, displacement)
        step = counter.get_total_flops()
    later = config.geometry.steps(frames) - 1
    return float(before + later * step) / (frames * _SIDE * _SIDE)


def post_filter_flops_per_pixel(config: PostFilterConfig) -> float:
    """FLOPs of a post-filter for each pixel of a picture."""
    with torch.device("meta"):
        network, picture = PostFilter(config), torch.empty(1, 3, _SIDE, _SIDE)
    with FlopCounterMode(display=False) as counter:
        network(picture)
    return float(counter.get_total_flops() / _SIDE**2)


def _first_states(model: Tokenizer, bits: torch.Tensor, first: torch.Tensor) -> tuple[EncoderState, DecoderState]:
    """Those after a chunk's first picture."""
    if isinstance(model.decoder, HybridDecoder) and model.config.wavelet:
        return EncoderState(before=()), model.decoder.begin(first[:, 0])
    _, encoder_state = model.encoder.step(first, None)
    _, decoder_state = model.decoder.step(bits, bits, None)
    return encoder_state, decoder_state


def _displacement(config: TokenizerConfig, motion: torch.Tensor) -> torch.Tensor | None:
    if config.hybrid:
        return motion.new_empty(len(motion), MOTION_MAPS, *motion.shape[2:])
    return motion[:, 0] if config.coded_motion else None
