"""The variant `hybrid`: a later step is its last frame, predicted and mended, and three between (spec 8.5).

    decoder, a later step:
        last   = the picture before, moved, + the residual + the tokens' cosines + what a network with a recurrent state
                 makes of all
        middle = the picture before and the last one, each moved, blended and mended by a small network
        early, late (the other two): the same, of the middle one and the one on their other side

This is how hybrid video codecs predict; what is learned is all that they do by rule: how to blend, to deblock and to
mend. The encoder has no network. It codes the transform of what the forecast of the last frame lacks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.layers import ChannelNorm, ResidualBlock, conv
from tokcodec.tokenizer.motion import code_of_motion, stillness, warp_features
from tokcodec.tokenizer.overlapped import Reference
from tokcodec.tokenizer.patches import to_patches, to_picture
from tokcodec.tokenizer.state import (
    ALL_FRAMES,
    LAST_FRAME,
    MIDDLE_AND_LAST,
    PATCH,
    DecoderState,
    EncoderState,
    Forecast,
    Past,
)
from tokcodec.tokenizer.transform import CELL, PEAK, CellTransform

LAST, MIDDLE, MIDDLE_BACK, EARLY, EARLY_BACK, LATE_BACK, LATE = range(7)
"""Motion maps of a step, in their order: from where each frame comes in the picture that it is made of, or in the
earlier one of two, and (`BACK`) in the later one. The last and the middle frame are made of the picture before."""
COEFFICIENT_UNIT = 1 / 32
"""Of coefficients as the network reads them."""


class HybridEncoder(nn.Module):
    """A transform of what the forecast lacks."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.first = CellTransform(config.bits_per_token, first=True)
        self.later = CellTransform(config.bits_per_token, first=False)

    def step(self, frames: Tensor, past: Past | None, slope: Tensor | None = None) -> tuple[Tensor, EncoderState]:
        """One latent step, see :meth:`tokcodec.tokenizer.model.Encoder.step`; of four frames the last is coded."""
        if past is None:
            z = self.first.bits_of(frames[:, 0], slope)
        else:
            z = self.later.bits_of(frames[:, -1] - past.forecast.frames[:, -1], slope)
        return z, EncoderState(before=())

    def settled(self, frames: Tensor, kept: Tensor, slope: Tensor | None = None) -> Tensor:
        """The bits of a first step, `(N, K, h, w)`, once it is known which are kept: one mean is predicted by others,
        which must be those that the decoder will have. Arguments as of `step`, and of `CellTransform.bits_of`."""
        return self.first.bits_of(frames[:, 0], slope, kept)


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


class Between(nn.Module):
    """A picture between two, of both as they have been moved to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        patch = 3 * PATCH * PATCH
        self.pictures_in = conv(2 * patch, channels, 3)
        self.block = ResidualBlock(channels)
        self.norm_out = ChannelNorm(channels)
        self.share_out = conv(channels, PATCH * PATCH, 3, gain=0.0)
        self.repair_out = conv(channels, patch, 3, gain=0.0)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Float32 `(N, 3, H, W)` each, and so is the result."""
        dtype = self.pictures_in.weight.dtype
        both = torch.cat([0.5 * (before + after), after - before], dim=1)
        x = self.pictures_in(to_patches(both, PATCH, dtype))
        x = F.silu(self.norm_out(self.block(x)))
        share = torch.sigmoid(to_picture(self.share_out(x), PATCH).float())
        return torch.lerp(before, after, share) + to_picture(self.repair_out(x), PATCH)


class HybridDecoder(nn.Module):
    """Tokens and motion maps to frames."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        frame, latent = config.frame_channels, config.latent_channels
        patch = 3 * PATCH * PATCH
        self.bits_per_token = config.bits_per_token
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
        self.between = Between(frame)

    def step(
        self,
        signs: Tensor,
        kept: Tensor,
        state: DecoderState | None,
        displacement: Tensor | None = None,
        *,
        shown: slice = ALL_FRAMES,
    ) -> tuple[Tensor, DecoderState]:
        """One latent step, see :meth:`tokcodec.tokenizer.model.Decoder.step`.

        Args:
            signs: `(N, K, h, w)`, +1 or -1; what is not kept is ignored.
            kept: Same shape, 1 for bits that are kept, else 0.
            state: None at the start of a chunk.
            displacement: Of a later step, which needs it, float32 `(N, 7, 2, h, w)`: the maps from `LAST` to `LATE`.
            shown: The frames of a later step that are made.

        Returns:
            Frames `(N, F, 3, 8h, 8w)`, about [-1, 1], not clamped, and the state.

        Raises:
            ValueError: A later step without displacements, or a first one where pictures come without tokens.
        """
        if state is None and self.wavelet:
            raise ValueError("a first picture without tokens has no step: call begin")
        trunk = self.first if state is None else self.later
        coefficients = trunk.transform.coefficients(signs, kept)
        known = trunk.transform.pixels(coefficients)
        dtype = trunk.token_in.weight.dtype
        signs, kept = signs.to(dtype), kept.to(dtype)
        read = torch.asinh(coefficients * COEFFICIENT_UNIT).to(dtype)
        tokens = torch.cat([read, signs * kept, kept], dim=1).contiguous(memory_format=torch.channels_last)
        condition = trunk.token_in(tokens)
        if state is None:
            x = condition + self.start.to(dtype).view(1, -1, 1, 1)
            x, pixels = self._mended(trunk, self.split_first, x, condition, known)
            return pixels.unsqueeze(1), DecoderState(features=x, picture=pixels.clamp(-1.0, 1.0))
        if displacement is None:
            raise ValueError("a later step of a hybrid is made of motion")
        forward = displacement[:, LAST]
        known = known + state.reference.moved(forward)
        if state.residual is not None:
            known = known + state.residual
        held = warp_features(state.features, forward)
        carried = self.norm_state(held)
        x = condition + carried + self.state_in(carried)
        x = x + self.displacement_in(code_of_motion(forward).to(dtype)) + self.known_in(to_patches(known, CELL, dtype))
        x, pixels = self._mended(trunk, self.split_last, x, condition, known)
        even = _evenness(state.residual)
        still = even * stillness(forward.unsqueeze(1), kept)  # an encoder knows no other map yet
        if _has_any(still):
            x = torch.lerp(x, held.to(x.dtype), still.to(x.dtype))
            pixels = torch.lerp(pixels, state.picture, _each_pixel(still))
        after = DecoderState(features=x, picture=pixels.clamp(-1.0, 1.0))
        if shown == LAST_FRAME:
            return pixels.unsqueeze(1), after
        if shown == MIDDLE_AND_LAST:
            others = self.middle(state.reference, after.reference, displacement).unsqueeze(1)
        else:
            others = self._others(state.reference, after.reference, displacement)
        unmoved = even * stillness(displacement, kept)
        if _has_any(unmoved):
            others = torch.lerp(others, state.picture.unsqueeze(1), _each_pixel(unmoved).unsqueeze(1))
        found = torch.cat([others, pixels.unsqueeze(1)], dim=1)
        return found if shown == MIDDLE_AND_LAST else found[:, shown], after

    def _mended(
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
        """The state after a first picture that came without tokens (spec 8.7): float32 `(N, 3, H, W)`, not clamped."""
        batch, _, height, width = picture.shape
        like = self.state_in.weight
        shape = batch, self.latent_channels, height // CELL, width // CELL
        features = like.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return DecoderState(features=features, picture=picture.clamp(-1.0, 1.0))

    def middle(self, before: Reference, last: Reference, displacement: Tensor) -> Tensor:
        """The middle frame, `(N, 3, H, W)`, not clamped, of the frames before and after by the maps `MIDDLE` and
        `MIDDLE_BACK`."""
        found: Tensor = self.between(before.moved(displacement[:, MIDDLE]), last.moved(displacement[:, MIDDLE_BACK]))
        return found

    def _others(self, before: Reference, last: Reference, displacement: Tensor) -> Tensor:
        """The three frames before the last, `(N, 3, 3, H, W)`."""
        maps = displacement.unbind(dim=1)
        centre = self.middle(before, last, displacement)
        middle = Reference(centre.clamp(-1.0, 1.0))
        early = self.between(before.moved(maps[EARLY]), middle.moved(maps[EARLY_BACK]))
        late = self.between(middle.moved(maps[LATE]), last.moved(maps[LATE_BACK]))
        return torch.stack([early, centre, late], dim=1)

    def forecast(self, state: DecoderState, displacement: Tensor | None = None) -> Forecast:
        """What the last frame of the next step would be if no bit was kept: frames `(N, 1, 3, H, W)`."""
        rows, columns = state.features.shape[-2:]
        nothing = state.features.new_zeros(len(state.features), self.bits_per_token, rows, columns)
        pixels, _ = self.step(nothing, nothing, state, displacement, shown=LAST_FRAME)
        none = pixels.new_zeros(len(pixels), 4, 2, rows, columns)
        return Forecast(frames=pixels.clamp(-1.0, 1.0), motion=none, features=state.features)


def _has_any(values: Tensor) -> bool:
    """Whether a value may be other than 0; elsewhere than on a CPU it costs more to ask than to go on."""
    return values.device.type != "cpu" or bool(values.any())


def _evenness(residual: Tensor | None) -> Tensor | float:
    """1 where a residual changes no pixel of a token by more than half of an 8-bit value, 0 from a whole one on:
    `(N, 1, h, w)`."""
    if residual is None:
        return 1.0
    largest = F.max_pool2d(residual.abs().amax(dim=1, keepdim=True), CELL) * PEAK
    return (2.0 - 2.0 * largest).clamp(0.0, 1.0)


def _each_pixel(values: Tensor) -> Tensor:
    """Values of tokens `(N, 1, h, w)` at each of their pixels."""
    return F.interpolate(values, scale_factor=CELL, mode="nearest")
