"""The start of the video model from the image model (MAGVIT-v2 inflates one); `TrainConfig.inflate` switches it."""

from __future__ import annotations

import torch
from torch import nn

from tokcodec.tokenizer.model import Encoder, Tokenizer

OWN_PARTS = ("analysis", "synthesis")
"""Parts of a trunk that are made for one frame or for four."""


def needs_inflation(model: Tokenizer) -> bool:
    """Whether the four-frame layers were never trained: their biases are still all zero."""
    biases = [model.decoder.split_rest.bias]
    if isinstance(model.encoder, Encoder):
        biases.append(model.encoder.merge_rest.bias)
    return not any(bool(bias.any()) for bias in biases if bias is not None)


def inflate(model: Tokenizer) -> None:
    """Start what serves the later steps from what serves the first."""
    encoder, decoder = model.encoder, model.decoder
    own_parts = (*OWN_PARTS, "token_in") if model.config.transform else OWN_PARTS  # other bits mean other things
    with torch.no_grad():
        for first, later in ((encoder.first, encoder.later), (decoder.first, decoder.later)):
            own = later.state_dict()
            shared = {n: v for n, v in first.state_dict().items() if not n.startswith(own_parts)}
            later.load_state_dict(own | shared)
        if isinstance(encoder, Encoder):
            if encoder.early:
                _average(encoder.patch_rest, encoder.patch_in)
            _average(encoder.merge_rest, encoder.merge_first)
        decoder.split_rest.weight.copy_(decoder.split_first.weight.repeat(4, 1, 1, 1))
        decoder.split_rest.bias.copy_(decoder.split_first.bias.repeat(4))  # type: ignore[union-attr]


def _average(rest: nn.Conv2d, first: nn.Conv2d) -> None:
    """A layer of several frames gives what that of one gives of each of them, on the average."""
    frames = rest.in_channels // first.in_channels
    rest.weight.copy_(first.weight.repeat(1, frames, 1, 1) / frames)
    rest.bias.copy_(first.bias)  # type: ignore[union-attr, arg-type]
