"""The tokenizer: a causal encoder and a recurrent decoder, one latent step at a time.

A chunk's first step holds one frame (an image is a chunk of one frame), each further step holds four. Both
directions are written as one step with a state that goes in and comes out, so that a stream, a whole chunk
and one frame at a time are the same computation. Training runs the same steps in the same order.

    encoder: frames --4x4 patches, 3x3--> 1/4 resolution, a map a frame --> 1/8, four maps merged --> latents
    decoder: signs + kept bits --> latent steps with recurrent state --> four maps at 1/4 --> frames

That is the default; `adaptive_norm`, `temporal_downsampling`, `recurrent` and `coded_motion` of the configuration make
other networks, which lack the layers that they do not need, and `hybrid` one of its own.

The loop is closed: from the second step of a chunk on the encoder sees the forecast, which is what the decoder would
show if nothing was sent, and spends the tokens on what is wrong with it. The tokens of a step thus depend on the bits
that were kept of the steps before, never on those kept of their own step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder, HybridEncoder
from tokcodec.tokenizer.hybrid_trunk import TrunkDecoder
from tokcodec.tokenizer.layers import CausalMix, ChannelNorm, ResidualBlock, conv
from tokcodec.tokenizer.lfq import unit_power
from tokcodec.tokenizer.motion import (
    code_of_motion,
    motion_features,
    motion_of_code,
    over_frames,
    stillness,
    warp,
    warp_features,
)
from tokcodec.tokenizer.plain import PlainDecoder
from tokcodec.tokenizer.state import ALL_FRAMES, PATCH, DecoderState, EncoderState, Forecast, Past

MOTION_CHANNELS = 64
"""Channels in which the encoder looks at motion."""


def _patches(frames: Tensor, *, merged: bool = False) -> Tensor:
    """Frames `(N, F, 3, H, W)` as maps of patches, `(N * F, 48, H/4, W/4)`, or `(N, F * 48, H/4, W/4)` if `merged`."""
    pictures = frames.flatten(1, 2) if merged else frames.flatten(0, 1)
    return F.pixel_unshuffle(pictures, PATCH).contiguous(memory_format=torch.channels_last)


class EncoderTrunk(nn.Module):
    """The encoder at latent resolution.

    A chunk's first step codes a picture, the later ones what is wrong with a forecast: each has a trunk of its own.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        latent = config.latent_channels
        self.blocks = nn.ModuleList(ResidualBlock(latent) for _ in range(config.encoder_blocks))
        self.norm_out = ChannelNorm(latent)
        self.latent_out = conv(latent, config.bits_per_token, 1)


class Encoder(nn.Module):
    """Frames to latents before the sign."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        frame, latent = config.frame_channels, config.latent_channels
        patch = 3 * PATCH * PATCH
        self.early, self.recurrent = config.temporal_downsampling == "early", config.recurrent
        self.patch_in = conv(patch, frame, 3)
        if self.early:
            self.patch_rest = conv(4 * patch, frame, 3)
        self.error_in = conv(4 * patch if self.early else patch, frame, 3, gain=0.0)
        self.frame_block = ResidualBlock(frame)
        self.merge_first = conv(4 * frame, latent, 1)
        self.merge_rest = conv(4 * frame if self.early else 16 * frame, latent, 1)
        if self.recurrent:  # else the decoder moves and holds nothing that the encoder could know of
            self.motion_in = conv(24, MOTION_CHANNELS, 3)
            self.motion_merge = conv(MOTION_CHANNELS, latent, 1, gain=0.0)
            self.norm_known = ChannelNorm(latent)
            self.known_in = conv(latent, latent, 1, gain=0.0)
        self.first = EncoderTrunk(config)
        self.later = EncoderTrunk(config)
        self.mixes = nn.ModuleList(CausalMix(latent) for _ in range(config.encoder_blocks))

    def step(self, frames: Tensor, past: Past | None, slope: Tensor | None = None) -> tuple[Tensor, EncoderState]:
        """One latent step.

        Args:
            frames: float32 `(N, F, 3, H, W)` in [-1, 1], H and W multiples of 8; F = 1 when `past` is None, else 4.
            past: None at the start of a chunk.
            slope: Of no account here: lambda, for an encoder that weighs bits (:mod:`tokcodec.tokenizer.hybrid`).

        Returns:
            Latents, float32 `(N, K, H/8, W/8)`, of unit power, and the state.
        """
        dtype = self.patch_in.weight.dtype
        merged = self.early and past is not None
        patch_in = self.patch_rest if merged else self.patch_in
        x = patch_in(_patches(frames, merged=merged).to(dtype))
        if past is not None:
            x = x + self.error_in(_patches(frames - past.forecast.frames, merged=merged).to(dtype))
        x = F.pixel_unshuffle(self.frame_block(x), 2)
        x = x.unflatten(0, (len(frames), -1)).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        x = self.merge_first(x) if past is None else self.merge_rest(x)
        if past is not None and self.recurrent:
            motion = self.motion_in(motion_features(past.motion, past.forecast.motion).to(dtype))
            x = x + self.motion_merge(F.silu(motion))
            x = x + self.known_in(self.norm_known(past.forecast.features))
        trunk, seen = self.first if past is None else self.later, []
        for number, (mix, block) in enumerate(zip(self.mixes, trunk.blocks, strict=True)):
            seen.append(x)
            if past is not None:
                x = mix(x, past.state.before[number])
            x = block(x)
        z = unit_power(trunk.latent_out(F.silu(trunk.norm_out(x))).float())
        return z, EncoderState(before=tuple(seen))


class DecoderTrunk(nn.Module):
    """The decoder at latent resolution: one network for a chunk's first step, another for the later ones."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        latent = config.latent_channels
        self.token_in = conv(2 * config.bits_per_token, latent, 1)
        condition = latent if config.adaptive_norm else 0
        self.blocks = nn.ModuleList(
            ResidualBlock(latent, condition_channels=condition) for _ in range(config.decoder_blocks)
        )
        self.norm_out = ChannelNorm(latent)


class Decoder(nn.Module):
    """Signs and kept bits to frames; a recurrent state carries on what is not sent."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        frame, latent = config.frame_channels, config.latent_channels
        self.bits_per_token, self.recurrent = config.bits_per_token, config.recurrent
        self.coded_motion = config.coded_motion
        self.first = DecoderTrunk(config)
        self.later = DecoderTrunk(config)
        self.start = nn.Parameter(torch.zeros(latent))
        if self.recurrent:
            self.norm_state = ChannelNorm(latent)
            self.state_in = conv(latent, latent, 1, gain=0.2)
        self.split_first = conv(latent, 4 * frame, 1)
        self.split_rest = conv(latent, 16 * frame, 1)
        if self.coded_motion:
            self.displacement_in = conv(2, latent, 3, gain=0.0)
            self.rest_out = conv(latent, 8, 1, gain=0.0)
        elif self.recurrent:
            self.motion_out = conv(latent, 8, 1, gain=0.0)
        if self.recurrent:
            self.warp_in = conv(3 * PATCH * PATCH, frame, 3, gain=0.0)
        self.frame_block = ResidualBlock(frame)
        if self.recurrent:
            self.mask_out = conv(frame, PATCH * PATCH, 3, gain=0.0)
            nn.init.constant_(self.mask_out.bias, -2.0)  # type: ignore[arg-type]
        self.norm_patch = ChannelNorm(frame)
        self.patch_out = conv(frame, 3 * PATCH * PATCH, 3, gain=0.2)
        if self.recurrent:
            self.repair_out = conv(frame, 3 * PATCH * PATCH, 3, gain=0.0)

    def step(
        self,
        signs: Tensor,
        kept: Tensor,
        state: DecoderState | None,
        displacement: Tensor | None = None,
        *,
        shown: slice = ALL_FRAMES,
    ) -> tuple[Tensor, DecoderState]:
        """One latent step.

        Args:
            signs: `(N, K, h, w)`, +1 or -1 (or continuous latents); what is not kept is ignored.
            kept: Same shape, 1 for bits that are kept, else 0.
            state: None at the start of a chunk. A decoder that is not recurrent looks no further than that.
            displacement: Of a later step where motion is coded: float32 `(N, 2, h, w)`, see
                :func:`tokcodec.tokenizer.motion.displacement_of_map`.
            shown: The frames of a later step that are made; the last must be among them, for it is part of the state.

        Returns:
            Frames `(N, F, 3, 8h, 8w)`, about [-1, 1], not clamped, F = 1 without a state, else 4 or as many as are
            shown; the state.
        """
        trunk = self.first if state is None else self.later
        dtype = trunk.token_in.weight.dtype
        signs, kept = signs.to(dtype), kept.to(dtype)
        tokens = torch.cat([signs * kept, kept], dim=1).contiguous(memory_format=torch.channels_last)
        past = state if self.recurrent else None
        condition = x = trunk.token_in(tokens)
        held = None
        if state is None:
            x = condition + self.start.to(dtype).view(1, -1, 1, 1)
        elif past is not None:
            held = self._held(past, displacement)
            carried = self.norm_state(held)
            x = condition + carried + self.state_in(carried)
            if displacement is not None:
                x = x + self.displacement_in(code_of_motion(displacement).to(dtype))
        for block in trunk.blocks:
            x = block(x, condition)
        features = F.silu(trunk.norm_out(x))
        count = 1 if state is None else 4
        maps = self.split_first(features) if state is None else self.split_rest(features)
        maps = maps.unflatten(1, (count, -1))
        motion = still = None
        if held is not None:
            motion = self._motion(features, displacement)
            still = stillness(motion, kept)
            x = torch.lerp(x, held, still.to(dtype))
            motion = motion[:, shown]
        if state is not None:
            maps = maps[:, shown]
        count = maps.shape[1]
        maps = F.pixel_shuffle(maps.flatten(0, 1), 2)
        maps = maps.contiguous(memory_format=torch.channels_last)
        moved = None
        if past is not None and motion is not None:
            moved = warp(past.picture, motion).flatten(0, 1)
            maps = maps + self.warp_in(
                F.pixel_unshuffle(moved, PATCH).to(dtype).contiguous(memory_format=torch.channels_last)
            )
        maps = F.silu(self.norm_patch(self.frame_block(maps)))
        pixels = F.pixel_shuffle(self.patch_out(maps), PATCH).float()
        if moved is not None:
            mask = torch.sigmoid(F.pixel_shuffle(self.mask_out(maps), PATCH).float())
            repair = F.pixel_shuffle(self.repair_out(maps), PATCH).float()
            pixels = torch.lerp(pixels, moved, mask) + repair
        pixels = pixels.unflatten(0, (-1, count))
        if past is not None and still is not None:
            held = F.interpolate(still, scale_factor=2 * PATCH, mode="nearest").unsqueeze(1)
            pixels = torch.lerp(pixels, past.picture.unsqueeze(1), held)
        picture = pixels[:, -1].clamp(-1.0, 1.0)
        if moved is None:
            return pixels, DecoderState(features=x, picture=picture)
        return pixels, DecoderState(features=x, picture=picture, motion=motion, moved=moved.unflatten(0, (-1, count)))

    def _held(self, past: DecoderState, displacement: Tensor | None) -> Tensor:
        """Features of the step before, where they are now."""
        return past.features if displacement is None else warp_features(past.features, displacement)

    def _motion(self, features: Tensor, displacement: Tensor | None) -> Tensor:
        """Motion of a step's four frames: `(N, 4, 2, h, w)`."""
        if displacement is None:
            made: Tensor = motion_of_code(self.motion_out(features).float()).unflatten(1, (4, 2))
            return made
        rest: Tensor = motion_of_code(self.rest_out(features).float()).unflatten(1, (4, 2))
        return over_frames(displacement) + rest

    def forecast(self, state: DecoderState, displacement: Tensor | None = None) -> Forecast:
        """What the next step would show if no bit of its tokens was kept."""
        rows, columns = state.features.shape[-2:]
        nothing = state.features.new_zeros(len(state.features), self.bits_per_token, rows, columns)
        pixels, after = self.step(nothing, nothing, state, displacement)
        motion = after.motion
        if motion is None:  # it is no first step, so this decoder moves nothing
            motion = pixels.new_zeros(len(pixels), 4, 2, rows, columns)
        held = self._held(state, displacement) if self.recurrent else state.features
        return Forecast(frames=pixels.clamp(-1.0, 1.0), motion=motion, features=held)


class Tokenizer(nn.Module):
    """Encoder and decoder of one set of weights."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder | HybridEncoder = HybridEncoder(config) if config.hybrid else Encoder(config)
        self.decoder: Decoder | HybridDecoder
        if config.plain:
            self.decoder = PlainDecoder(config)
        else:
            self.decoder = TrunkDecoder(config) if config.hybrid else Decoder(config)
