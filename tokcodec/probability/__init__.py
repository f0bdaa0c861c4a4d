"""Probability models of the entropy coder: integers only, the same on every machine (spec section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokcodec.errors import ModelError, UsageError
from tokcodec.probability.adaptive import AdaptiveModel
from tokcodec.probability.interface import Checkerboard, TokenModel
from tokcodec.probability.schedule import Schedule, level_by_level, plane_by_plane, wave_by_wave

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork

__all__ = ["ADAPTIVE", "AUTOREGRESSIVE", "MODELS", "PRIOR", "TokenModel", "create_model", "schedule_of"]

ADAPTIVE, PRIOR, AUTOREGRESSIVE = "adaptive", "prior", "prior-autoregressive"
MODELS: dict[str, Schedule] = {
    ADAPTIVE: plane_by_plane,
    PRIOR: level_by_level,
    AUTOREGRESSIVE: wave_by_wave,
}
"""The order of bits of each model (spec section 7.3)."""


def schedule_of(name: str) -> Schedule:
    """The order in which a model codes the bits of a step.

    Raises:
        UsageError: There is no model of that name.
    """
    if name not in MODELS:
        raise UsageError(f"no probability model is called {name!r}", hint=f"use {' or '.join(MODELS)}")
    return MODELS[name]


def create_model(name: str, *, grid: Checkerboard, planes: int, network: PriorNetwork | None = None) -> TokenModel:
    """A fresh model, in the state in which every chunk starts (spec section 7.3).

    Args:
        name: `adaptive`, `prior` or `prior-autoregressive`.
        grid: Coding order of the token grid.
        planes: Bits of a token.
        network: What the latter two need.

    Raises:
        UsageError: There is no model of that name, or it has no network.
        ModelError: The network is for tokens of another number of bits.
    """
    schedule_of(name)
    if name == ADAPTIVE:
        return AdaptiveModel(grid, planes)
    if network is None:
        raise UsageError(f"the probability model {name!r} needs its weights")
    if network.config.bits_per_token != planes:
        raise ModelError(f"the prior is for tokens of {network.config.bits_per_token} bits, these have {planes}")
    from tokcodec.probability.prior import GroupedPrior, PlainPrior

    return GroupedPrior(grid, network) if name == PRIOR else PlainPrior(grid, network)
