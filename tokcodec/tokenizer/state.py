"""What steps of the tokenizer leave to each other."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from torch import Tensor

from tokcodec.tokenizer.overlapped import Reference
from tokcodec.tokenizer.second_reference import Chosen

PATCH = 4
"""Pixels along each side of the patches at frame resolution."""
ALL_FRAMES = slice(None)
"""Every frame of a step."""
LAST_FRAME = slice(3, None)
"""Of a later step's four: all that the next step needs."""
MIDDLE_AND_LAST = slice(1, None, 2)
"""Of a later step's four, what a step of two shows."""
SHOWN = {4: ALL_FRAMES, 2: MIDDLE_AND_LAST, 1: LAST_FRAME}
"""The frames of a later step that shows so many (spec 3.2)."""


@dataclass(frozen=True, kw_only=True)
class DecoderState:
    """What a decoder step leaves to the next.

    Attributes:
        features: `(N, C, H/8, W/8)`.
        picture: The last one, float32 `(N, 3, H, W)`.
        motion: Of the step's frames, float32 `(N, 4, 2, H/8, W/8)`; None after a chunk's first, and in a decoder that
            is not recurrent, or hybrid. The next step does not need it.
        moved: What that motion made of the picture before, float32 `(N, 4, 3, H, W)`; None where `motion` is. The next
            step does not need it.
        residual: What the next step adds to its prediction, float32 `(N, 3, H, W)`; None is nothing.
        chosen: What of the next step's last frame comes from the chunk's first picture; None is nothing.
        origin: That picture, where it is not this one.
        predicted: This picture as the next step's first map moves it, float32 `(N, 3, H, W)`; None where the step is to
            move it.
    """

    features: Tensor
    picture: Tensor
    motion: Tensor | None = None
    moved: Tensor | None = None
    residual: Tensor | None = None
    chosen: Chosen | None = None
    origin: Reference | None = None
    predicted: Tensor | None = None

    def with_residual(self, residual: Tensor | None) -> DecoderState:
        """The same before a step with another residual."""
        return self._with(replace(self, residual=residual))

    def with_chosen(self, chosen: Chosen | None) -> DecoderState:
        """The same before a step of whose blocks others come from the first picture."""
        return self._with(replace(self, chosen=chosen, predicted=None))

    def with_predicted(self, predicted: Tensor) -> DecoderState:
        """The same before a step whose last frame is predicted already."""
        return self._with(replace(self, predicted=predicted))

    def _with(self, found: DecoderState) -> DecoderState:
        if "reference" in vars(self):
            vars(found)["reference"] = self.reference  # it takes a while to make
        return found

    @functools.cached_property
    def reference(self) -> Reference:
        """The picture, as a hybrid moves it."""
        return Reference(self.picture)

    @property
    def first(self) -> Reference:
        """The chunk's first picture, as a hybrid moves it."""
        return self.reference if self.origin is None else self.origin


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a decoder would show next if no bit was kept.

    Attributes:
        frames: `(N, 4, 3, H, W)`, clamped to [-1, 1]; of a hybrid decoder the last one alone, `(N, 1, 3, H, W)`.
        motion: By which it would move its last picture, `(N, 4, 2, H/8, W/8)`, see :mod:`tokcodec.tokenizer.motion`;
            zero where the decoder is not recurrent, or hybrid.
        features: What it holds before that step, moved where motion is coded (not of a hybrid, where nobody asks),
            `(N, C, H/8, W/8)`.
    """

    frames: Tensor
    motion: Tensor
    features: Tensor

    def detach(self) -> Forecast:
        """The same, cut off from the gradient."""
        return Forecast(frames=self.frames.detach(), motion=self.motion.detach(), features=self.features.detach())


@dataclass(frozen=True, kw_only=True)
class EncoderState:
    """What an encoder step leaves to the next: the input of each block's causal mix, each `(N, C, h, w)`."""

    before: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the encoder is told of a later step, beyond its frames.

    Attributes:
        state: That the step before left.
        forecast: Of the decoder.
        motion: Since the last frame of the step before, as :func:`tokcodec.tokenizer.search.search` finds it; where
            the encoder does not look at it (not recurrent, or hybrid) that of the forecast.
    """

    state: EncoderState
    forecast: Forecast
    motion: Tensor
