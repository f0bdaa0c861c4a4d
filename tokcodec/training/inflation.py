"""The start of the video model from the image model (MAGVIT-v2 inflates one); `TrainConfig.inflate` switches it."""

from __future__ import annotations

import torch
from torch import nn

from tokcodec.tokenizer.hybrid_trunk import TrunkDecoder
from tokcodec.tokenizer.model import Decoder, Encoder, Tokenizer


def needs_inflation(model: Tokenizer) -> bool:
    """Whether the four-frame layers were never trained: their biases are still all zero. Where first pictures are
    wavelets there is no image model."""
    if model.config.wavelet:
        return False
    decoder, encoder = model.decoder, model.encoder
    biases = []
    if isinstance(decoder, TrunkDecoder):
        biases.append(decoder.split_last.bias)
    elif isinstance(decoder, Decoder):
        biases.append(decoder.split_rest.bias)
    if isinstance(encoder, Encoder):
        biases.append(encoder.merge_rest.bias)
    return not any(bool(bias.any()) for bias in biases if bias is not None)


def inflate(model: Tokenizer) -> None:
    """Start what serves the later steps from what serves the first."""
    encoder, decoder = model.encoder, model.decoder
    with torch.no_grad():
        if isinstance(decoder, TrunkDecoder):  # other bits of a later step mean other things
            shared = {n: v for n, v in decoder.first.state_dict().items() if not n.startswith("token_in")}
            decoder.later.load_state_dict(decoder.later.state_dict() | shared)
            decoder.split_last.load_state_dict(decoder.split_first.state_dict())
            return
        if not isinstance(decoder, Decoder):
            raise ValueError("a decoder without networks has no image model")
        decoder.later.load_state_dict(decoder.first.state_dict())
        if isinstance(encoder, Encoder):
            encoder.later.load_state_dict(encoder.first.state_dict())
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
