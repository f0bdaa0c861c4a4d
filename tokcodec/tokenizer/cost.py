"""Multiply-adds a pixel, counted from the convolutions that a model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tokcodec.geometry import MOTION_MAPS
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.state import Past

_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What a model costs; a multiply-add is two FLOPs.

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
    _, encoder_state = counted.encoder.step(first, None)
    _, decoder_state = counted.decoder.step(bits, bits, None)
    displacement = _displacement(model.config, motion)
    forecast = counted.decoder.forecast(decoder_state, displacement)
    past = Past(state=encoder_state, forecast=forecast, motion=motion)
    with _Counter(counted.encoder) as encoder:
        counted.encoder.step(four, past)
    with _Counter(counted.decoder) as decoder:
        counted.decoder.step(bits, bits, decoder_state, displacement)
    pixels = 4 * _SIDE * _SIDE
    return ModelCost(
        encoder_flops_per_pixel=2 * encoder.multiply_adds / pixels,
        decoder_flops_per_pixel=2 * decoder.multiply_adds / pixels,
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
    with _Counter(model) as counter:
        _, encoder_state = model.encoder.step(first, None)
        _, decoder_state = model.decoder.step(bits, bits, None)
        before = counter.multiply_adds
        displacement = _displacement(config, motion)
        forecast = model.decoder.forecast(decoder_state, displacement)
        forecast_cost = counter.multiply_adds - before
        model.encoder.step(four, Past(state=encoder_state, forecast=forecast, motion=motion))
        model.decoder.step(bits, bits, decoder_state, displacement)
        step = counter.multiply_adds - before - forecast_cost
    later = config.geometry.steps(frames) - 1
    return 2 * (before + later * step) / (frames * _SIDE * _SIDE)


def _displacement(config: TokenizerConfig, motion: torch.Tensor) -> torch.Tensor | None:
    if config.hybrid:
        return motion[:, :MOTION_MAPS]
    return motion[:, 0] if config.coded_motion else None


class _Counter:
    """Adds up the multiply-adds of every convolution below a module while the block runs."""

    def __init__(self, module: nn.Module) -> None:
        self.multiply_adds = 0
        self._module = module
        self._hooks: list[Any] = []

    def __enter__(self) -> _Counter:
        for layer in self._module.modules():
            if isinstance(layer, nn.Conv2d):
                self._hooks.append(layer.register_forward_hook(self._count))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        kernel = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
        self.multiply_adds += output.numel() * kernel
