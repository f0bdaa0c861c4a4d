"""The network of a hybrid's last frames that has features of its own, which go on from step to step (spec 8.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.between import Between, Mean
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder, Known
from tokcodec.tokenizer.layers import ChannelNorm, ResidualBlock, conv
from tokcodec.tokenizer.motion import code_of_motion, warp_features
from tokcodec.tokenizer.patches import to_patches, to_picture
from tokcodec.tokenizer.state import PATCH, DecoderState
from tokcodec.tokenizer.transform import CELL, CellTransform

COEFFICIENT_UNIT = 1 / 32
"""Of coefficients as the network reads them."""


class HybridTrunk(nn.Module):
    """The decoder at latent resolution, of a chunk's first step or of the later ones."""

    def __init__(self, config: TokenizerConfig, *, first: bool) -> None:
        super().__init__()
        latent = config.latent_channels
        self.transform = CellTransform(config.bits_per_token, first=first)
        self.token_in = conv(len(self.transform.atoms) + 2 * config.bits_per_token, latent, 1, gain=0.5)
        self.blocks = nn.ModuleList(
            ResidualBlock(latent, condition_channels=latent if config.adaptive_norm else 0)
            for _ in range(config.decoder_blocks)
        )
        self.norm_out = ChannelNorm(latent)


class TrunkDecoder(HybridDecoder):
    """A hybrid's decoder with such a network."""

    def __init__(self, config: TokenizerConfig) -> None:
        frame, latent = config.frame_channels, config.latent_channels
        super().__init__(config)
        patch = 3 * PATCH * PATCH
        if not config.wavelet:
            self.first = HybridTrunk(config, first=True)
            self.start = nn.Parameter(torch.zeros(latent))
            self.split_first = conv(latent, 4 * frame, 1)
        self.later = HybridTrunk(config, first=False)
        self.latent_channels, self.wavelet = latent, config.wavelet
        self.norm_state = ChannelNorm(latent)
        self.state_in = conv(latent, latent, 1, gain=0.2)
        self.displacement_in = conv(2, latent, 3, gain=0.0)
        self.known_in = conv(3 * CELL * CELL, latent, 1, gain=0.5)
        self.split_last = conv(latent, 4 * frame, 1)
        self.warp_in = conv(patch, frame, 3)
        self.frame_block = ResidualBlock(frame)
        self.norm_patch = ChannelNorm(frame)
        self.repair_out = conv(frame, patch, 3, gain=0.0)
        self.between = Mean() if config.mean_between else Between(frame)

    @property
    def transform(self) -> CellTransform:
        """Of later steps."""
        return self.later.transform

    @property
    def last_weight(self) -> Tensor:
        """That of the last layer of the network that mends."""
        return self.repair_out.weight

    def _first_step(self, signs: Tensor, kept: Tensor) -> tuple[Tensor, DecoderState]:
        if self.wavelet:
            return super()._first_step(signs, kept)
        coefficients = self.first.transform.coefficients(signs, kept)
        known = self.first.transform.pixels(coefficients)
        condition = self._condition(self.first, coefficients, signs, kept)
        x = condition + self.start.to(condition.dtype).view(1, -1, 1, 1)
        x, pixels = self._through(self.first, self.split_first, x, condition, known)
        return pixels.unsqueeze(1), DecoderState(features=x, picture=pixels.clamp(-1.0, 1.0))

    def _mended(self, known: Known, state: DecoderState) -> tuple[Tensor, Tensor, Tensor]:
        condition = self._condition(self.later, known.coefficients, known.signs, known.kept)
        dtype = condition.dtype
        held = warp_features(state.features, known.forward)
        carried = self.norm_state(held)
        x = condition + carried + self.state_in(carried)
        x = x + self.displacement_in(code_of_motion(known.forward).to(dtype))
        x = x + self.known_in(to_patches(known.pixels, CELL, dtype))
        x, pixels = self._through(self.later, self.split_last, x, condition, known.pixels)
        return x, held, pixels

    @staticmethod
    def _condition(trunk: HybridTrunk, coefficients: Tensor, signs: Tensor, kept: Tensor) -> Tensor:
        dtype = trunk.token_in.weight.dtype
        signs, kept = signs.to(dtype), kept.to(dtype)
        read = torch.asinh(coefficients * COEFFICIENT_UNIT).to(dtype)
        tokens = torch.cat([read, signs * kept, kept], dim=1).contiguous(memory_format=torch.channels_last)
        found: Tensor = trunk.token_in(tokens)
        return found

    def _through(
        self, trunk: HybridTrunk, split: nn.Conv2d, x: Tensor, condition: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features of a step, and the picture that is made of them and of what is known: float32 `(N, 3, H, W)`."""
        for block in trunk.blocks:
            x = block(x, condition)
        maps = F.pixel_shuffle(split(F.silu(trunk.norm_out(x))), 2)
        maps = maps.contiguous(memory_format=torch.channels_last) + self.warp_in(to_patches(known, PATCH, x.dtype))
        maps = F.silu(self.norm_patch(self.frame_block(maps)))
        return x, known + to_picture(self.repair_out(maps), PATCH)

    def begin(self, picture: Tensor) -> DecoderState:
        """See :meth:`HybridDecoder.begin`."""
        batch, _, height, width = picture.shape
        like = self.state_in.weight
        shape = batch, self.latent_channels, height // CELL, width // CELL
        features = like.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return DecoderState(features=features, picture=picture.clamp(-1.0, 1.0))
