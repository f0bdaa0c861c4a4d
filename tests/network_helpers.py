"""A small network with weights large enough to tell what depends on what, and clips of noise; one as tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tokcodec.tokenizer.allocation import UniformAllocator
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.device import prepare
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.stream import StreamEncoder

CPU = torch.device("cpu")
NO_MOTION = np.zeros((0, 0, 2), dtype=np.int16)
"""The motion map of a step of a model that has none."""
SMALL = TokenizerConfig(frame_channels=8, latent_channels=16, encoder_blocks=2, decoder_blocks=2)


def small_model(config: TokenizerConfig = SMALL, seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    model = Tokenizer(config)
    with torch.no_grad():  # the small gains of the start would hide what depends on what
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return prepare(model, CPU, torch.float32)


def clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def encode_stream(model: Tokenizer, frames: np.ndarray, *, level: int = 6) -> np.ndarray:
    encoder = StreamEncoder(model, UniformAllocator(level=level))
    steps = [step for step in map(encoder.push, frames) if step is not None]
    last = encoder.end_chunk()
    return np.stack([step.indices for step in [*steps, *last]])


def smooth(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Pixels in [-1, 1] without much detail, `(1, 3, 8 rows, 8 columns)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, rows + 1, columns + 1, generator=generator) * 2 - 1
    tint = 0.3 * torch.rand(1, 3, 1, 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(8 * rows, 8 * columns), mode="bilinear") + tint
    return fine.clamp(-1, 1)


def silent_hybrid(config: TokenizerConfig) -> Tokenizer:
    """A hybrid of 62 bits whose networks say nothing, so that it shows what pictures, bits and motion make."""
    model = small_model(replace(config, bits_per_token=62, level_bits=(0, 20, 62)))
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if "repair_out" in name or "share_out" in name:
                parameter.zero_()
    return prepare(model, CPU, torch.float32)
