"""Bjontegaard's delta rate, by the package `bjontegaard`, with what it does not check checked."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tokcodec.errors import UsageError

Method = Literal["pchip", "akima"]
METHODS: tuple[Method, ...] = ("pchip", "akima")

Curve = Sequence[tuple[float, float]]
"""Rate (above 0) and quality of each point, in any order."""


@dataclass(frozen=True, kw_only=True)
class BdRate:
    """How much more rate one codec takes than another, at equal quality.

    Attributes:
        percent: Mean over the qualities that both reach; negative is less rate. None where it has no meaning.
        reason: Why it is None; "" where it is not.
        overlap: Share of the two curves' joint range of quality that both reach, 0 to 1.
    """

    percent: float | None
    reason: str = ""
    overlap: float = 0.0


def check_bjontegaard() -> None:
    """Refuse at once, and not after hours.

    Raises:
        UsageError: The package is not installed.
    """
    if importlib.util.find_spec("bjontegaard") is None:
        raise UsageError("BD-rates need the package bjontegaard", hint="pip install 'tokcodec[bench]'")


def bd_rate(anchor: Curve, test: Curve, method: Method = "pchip") -> BdRate:
    """Rate of `test` against `anchor`, as a percentage; a metric where less is better works as well.

    Points that are not better at a higher rate cannot lie on a curve of rate over quality: a curve that holds one
    has no BD-rate. Nothing is extrapolated: the mean is over the range of quality that both curves reach.

    Raises:
        UsageError: The package `bjontegaard` is not installed.
    """
    check_bjontegaard()
    if len(anchor) < 2 or len(test) < 2:
        return BdRate(percent=None, reason="a curve has fewer than two points")
    rising = _direction(anchor) or _direction(test)
    curves = []
    for name, curve in (("the anchor", anchor), ("the codec", test)):
        ordered = sorted((float(rate), float(quality)) for rate, quality in curve)
        if not all(math.isfinite(quality) for _, quality in ordered):
            return BdRate(percent=None, reason=f"{name} is lossless at a point")
        steps = [(after - before) * rising for (_, before), (_, after) in pairwise(ordered)]
        if min(steps) <= 0:
            return BdRate(percent=None, reason=f"{name} does not get better with every point")
        # The package takes qualities that rise.
        curves.append([(rate, quality * rising) for rate, quality in ordered])
    (low, high), (test_low, test_high) = ((curve[0][1], curve[-1][1]) for curve in curves)
    shared = min(high, test_high) - max(low, test_low)
    if shared <= 0:
        better = "above" if test_low >= high else "below"
        return BdRate(percent=None, reason=f"no quality that both reach: the codec is {better} the anchor throughout")
    from bjontegaard import bd_rate as package_bd_rate

    (rates, qualities), (test_rates, test_qualities) = (zip(*curve, strict=True) for curve in curves)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a small overlap, which is reported instead
        percent = package_bd_rate(
            list(rates),
            list(qualities),
            list(test_rates),
            list(test_qualities),
            method=method,
            require_matching_points=False,
            min_overlap=0,
        )
    return BdRate(percent=float(percent), overlap=shared / (max(high, test_high) - min(low, test_low)))


def _direction(curve: Curve) -> int:
    """1 where quality rises with rate from end to end, -1 where it falls, 0 where neither."""
    ordered = sorted(curve)
    change = ordered[-1][1] - ordered[0][1]
    return (change > 0) - (change < 0)
