"""Sizes and units of the network of the `prior` model (spec section 7.8). No torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from tokcodec.errors import ModelError

ARCHITECTURE = "masked-bits-1"
ACTIVATION_SHIFT = 5
"""An activation of 32 stands for 1.0, and so does a known bit."""
ACTIVATION_MAX = 255
SIGN_UNIT = 1 << ACTIVATION_SHIFT
"""What a known bit is at the input: +32 for a 1, -32 for a 0; 0 where it is not known."""
COUNT_UNIT = 4
"""What each bit of a count (of kept or known bits) adds at the input."""
MIXER_INPUTS = 4
"""The three tables of `adaptive`, and the network."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Sizes of the network.

    Attributes:
        bits_per_token: K.
        context_channels: Outputs of the first context layer.
        state_channels: Channels that go from step to step.
        head_channels: Channels of both hidden layers of the head.
        window: Side of the window of known bits that the head sees, 3 or 5.
    """

    bits_per_token: int = 18
    context_channels: int = 96
    state_channels: int = 64
    head_channels: int = 128
    window: int = 3

    def __post_init__(self) -> None:
        bounds = {
            "bits_per_token": (1, 64),
            "context_channels": (1, 1024),
            "state_channels": (1, 1024),
            "head_channels": (1, 1024),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ModelError(f"{name} of a prior must be a whole number from {low} to {high}, not {value!r}")
        if self.window not in (3, 5):
            raise ModelError(f"the window of a prior is 3 or 5, not {self.window!r}")

    @property
    def known_channels(self) -> int:
        """Channels of the window at each position: known bits, agreements, their count."""
        return 2 * self.bits_per_token + 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of the file (spec section 7.8)."""
        K, C, S, H = self.bits_per_token, self.context_channels, self.state_channels, self.head_channels
        taps = self.window * self.window
        return {
            "context1.weight": (9, K + 1 + S, C),
            "context1.bias": (C,),
            "context2.weight": (9, C, S),
            "context2.bias": (S,),
            "state.weight": (S, H),
            "known.weight": (taps, self.known_channels, H),
            "kept.weight": (taps, H),
            "plane.bias": (K, H),
            "hidden.weight": (H, H),
            "hidden.bias": (H,),
            "out.weight": (H, 2 * K),
            "out.bias": (2 * K,),
            "shifts": (5,),
            "mixer.weights": (2 * K, MIXER_INPUTS),
        }

    def to_json(self) -> str:
        """One line of JSON: the metadata of a weights file."""
        return json.dumps({"architecture": ARCHITECTURE, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PriorConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            ModelError: Not such JSON, another architecture, or sizes out of range.
        """
        try:
            values = json.loads(text)
            architecture = values.pop("architecture", None)
            if architecture != ARCHITECTURE:
                raise ModelError(f"the architecture {architecture!r} of the prior is not known")
            names = {field.name for field in dataclasses.fields(cls)}
            if set(values) != names:
                raise ModelError(f"the description of a prior has exactly the keys architecture, {', '.join(names)}")
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"not the description of a prior: {error}") from error
