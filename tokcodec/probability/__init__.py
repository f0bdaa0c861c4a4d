"""Probability models of the entropy coder: integers only, the same on every machine (spec section 7)."""

from __future__ import annotations

from tokcodec.errors import UsageError
from tokcodec.probability.adaptive import AdaptiveModel
from tokcodec.probability.interface import Checkerboard, TokenModel

__all__ = ["TokenModel", "create_model"]


def create_model(name: str, *, grid: Checkerboard, planes: int) -> TokenModel:
    """A fresh model, in the state in which every chunk starts (spec section 7.3).

    Args:
        name: `adaptive`.
        grid: Coding order of the token grid.
        planes: Bits of a token.

    Raises:
        UsageError: There is no model of that name.
    """
    if name == "adaptive":
        return AdaptiveModel(grid, planes)
    raise UsageError(f"no probability model is called {name!r}", hint="use 'adaptive'")
