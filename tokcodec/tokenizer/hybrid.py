"""The variant `hybrid`: a later step is its last frame, predicted and mended, and three between (spec 8.5).

    decoder, a later step:
        last   = the picture before, moved, + the residual + the tokens' cosines + what a network makes of all
        middle = the picture before and the last one, each moved, blended and mended by a small network
        early, late (the other two): the same, of the middle one and the one on their other side

This is how hybrid video codecs predict; what is learned is all that they do by rule: how to blend, to deblock and to
mend. The network of last frames has features of its own that go on from step to step
(:mod:`tokcodec.tokenizer.hybrid_trunk`); without any, :mod:`tokcodec.tokenizer.plain`. The encoder has none. It codes
the transform of what the forecast of the last frame lacks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.motion import stillness
from tokcodec.tokenizer.overlapped import Reference
from tokcodec.tokenizer.state import (
    ALL_FRAMES,
    LAST_FRAME,
    MIDDLE_AND_LAST,
    DecoderState,
    EncoderState,
    Forecast,
    Past,
)
from tokcodec.tokenizer.transform import CELL, PEAK, CellTransform

LAST, MIDDLE, MIDDLE_BACK, EARLY, EARLY_BACK, LATE_BACK, LATE = range(7)
"""Motion maps of a step, in their order: from where each frame comes in the picture that it is made of, or in the
earlier one of two, and (`BACK`) in the later one. The last and the middle frame are made of the picture before."""


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


class Known(NamedTuple):
    """What is known of a later step's last frame before the network.

    Attributes:
        pixels: The picture before, moved, with the residual and the tokens' cosines, float32 `(N, 3, H, W)`.
        coefficients: Of those cosines, float32 `(N, A, h, w)`, see `CellTransform`.
        signs: `(N, K, h, w)`, +1 or -1.
        kept: Same shape, 1 for bits that are kept, else 0.
        forward: Since the picture before, float32 `(N, 2, h, w)`.
    """

    pixels: Tensor
    coefficients: Tensor
    signs: Tensor
    kept: Tensor
    forward: Tensor


class HybridDecoder(nn.Module):
    """Tokens and motion maps to frames, but for the network that mends a last frame, which subclasses have."""

    between: nn.Module
    """Of two pictures as they have been moved makes the one between."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.bits_per_token = config.bits_per_token

    @property
    def transform(self) -> CellTransform:
        """Of later steps."""
        raise NotImplementedError

    @property
    def last_weight(self) -> Tensor:
        """That of the last layer of the network that mends."""
        raise NotImplementedError

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
        if state is None:
            return self._first_step(signs, kept)
        if displacement is None:
            raise ValueError("a later step of a hybrid is made of motion")
        known = self._known(signs, kept, state, displacement[:, LAST])
        features, held, pixels = self._mended(known, state)
        even = _evenness(state.residual)
        held_back = 1.0 if state.chosen is None else 1.0 - state.chosen.of_tokens(*kept.shape[-2:])
        even = even * held_back
        still = even * stillness(displacement[:, :1], kept)  # an encoder knows no other map yet
        if _has_any(still):
            features = torch.lerp(features, held.to(features.dtype), still.to(features.dtype))
            pixels = torch.lerp(pixels, state.picture, _each_pixel(still))
        after = DecoderState(features=features, picture=pixels.clamp(-1.0, 1.0), origin=state.first)
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

    def _known(self, signs: Tensor, kept: Tensor, state: DecoderState, forward: Tensor) -> Known:
        coefficients = self.transform.coefficients(signs, kept)
        predicted = _moved(state, forward) if state.predicted is None else state.predicted
        pixels = self.transform.pixels(coefficients) + predicted
        if state.residual is not None:
            pixels = pixels + state.residual
        return Known(pixels, coefficients, signs, kept, forward)

    def _first_step(self, signs: Tensor, kept: Tensor) -> tuple[Tensor, DecoderState]:
        raise ValueError("a first picture without tokens has no step: call begin")

    def _mended(self, known: Known, state: DecoderState) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the step, those of places that are held, and the last frame, float32 `(N, 3, H, W)`."""
        raise NotImplementedError

    def begin(self, picture: Tensor) -> DecoderState:
        """The state after a first picture that came without tokens (spec 8.7): float32 `(N, 3, H, W)`, not clamped."""
        raise NotImplementedError

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

    @staticmethod
    def predicted(state: DecoderState, displacement: Tensor) -> DecoderState:
        """The same state before a step that is taken more than once by the same motion."""
        return state.with_predicted(_moved(state, displacement[:, LAST]))

    def forecast(self, state: DecoderState, displacement: Tensor | None = None) -> Forecast:
        """What the last frame of the next step would be if no bit was kept: frames `(N, 1, 3, H, W)`."""
        rows, columns = state.features.shape[-2:]
        nothing = state.picture.new_zeros(len(state.picture), self.bits_per_token, rows, columns)
        pixels, _ = self.step(nothing, nothing, state, displacement, shown=LAST_FRAME)
        none = pixels.new_zeros(len(pixels), 4, 2, rows, columns)
        return Forecast(frames=pixels.clamp(-1.0, 1.0), motion=none, features=state.features)


def _moved(state: DecoderState, forward: Tensor) -> Tensor:
    """What a step's last frame is predicted by, but for the residual."""
    second = None if state.chosen is None else (state.first, state.chosen)
    return state.reference.moved(forward, second).contiguous()


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
