"""Which quantizers are measured, so that a codec's curve spans the rates of interest, or meets one of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass

from tokcodec.bench.codecs.base import Quantizer
from tokcodec.errors import MediaError

HIGHEST_RATE = 0.1
LOWEST_RATE = 0.005
POINTS = 6

TOLERANCE = 0.05
"""Share by which a rate that was searched may be off."""

MOST_TRIES = 12

_SLOPE = math.log(2) / 4.5
"""Of the logarithm of the rate, for a step of the quantizer, until two points are known."""


@dataclass(frozen=True, kw_only=True)
class RateSpan:
    """Rates that a curve shall span, in bits per pixel, and how many points it shall have."""

    highest: float = HIGHEST_RATE
    lowest: float = LOWEST_RATE
    points: int = POINTS


Search = Generator[int, float | None, list[int]]
"""Yields a quantizer, wants its rate in bits per pixel sent, or None where the encoder fails at it; returns the
quantizers to measure, rising."""


def search(quantizer: Quantizer, span: RateSpan) -> Search:
    """Find the two ends, which enclose the span as tightly as whole quantizers can, and points between them.

    Points between the ends are spaced evenly in the logarithm of the rate, as far as whole quantizers allow. Where the
    quantizer's own range ends before an end of the span, the curve ends there. The rate is taken to fall with the
    quantizer. In the place of a quantizer at which the encoder fails the nearest one is taken at which it does not.

    Raises:
        MediaError: The encoder fails at all quantizers.
    """
    known: dict[int, float] = {}
    failed: set[int] = set()
    first = yield from _edge(quantizer, span.highest, quantizer.typical[0], known, failed, is_above=True)
    last = yield from _edge(quantizer, span.lowest, quantizer.typical[1], known, failed, is_above=False)
    chosen = {first, last}
    ends = min(first, last), max(first, last)
    for number in range(1, span.points - 1):
        share = number / (span.points - 1)
        wanted = (1 - share) * math.log(known[first]) + share * math.log(known[last])
        between = _interpolate(known, wanted)
        while (found := _working(between, *ends, failed)) is not None and found not in known:
            yield from _try(found, known, failed)
        if found is not None:
            chosen.add(found)
    return sorted(chosen)


def _working(wanted: int, low: int, high: int, failed: Collection[int]) -> int | None:
    """The quantizer nearest to one, from `low` to `high`, at which the encoder did not fail; None if there is none."""
    return min((q for q in range(low, high + 1) if q not in failed), key=lambda q: abs(q - wanted), default=None)


def _try(q: int, known: dict[int, float], failed: set[int]) -> Generator[int, float | None, None]:
    rate = yield q
    if rate is None:
        failed.add(q)
    else:
        known[q] = rate


def _edge(
    quantizer: Quantizer, target: float, typical: int, known: dict[int, float], failed: set[int], *, is_above: bool
) -> Generator[int, float | None, int]:
    """The largest quantizer with at least the rate, or the smallest with at most the rate; else the range's end."""
    tries = 0
    while True:
        reaching = [q for q, rate in known.items() if (rate >= target if is_above else rate > target)]
        below = [q for q in known if q not in reaching]
        low = max(reaching, default=quantizer.lowest - 1)
        # A rate that does not fall everywhere leaves points below on both sides; only those beyond count.
        high = min((q for q in below if q > low), default=quantizer.highest + 1)
        if high - low <= 1:
            break
        guess = typical if not known else _interpolate(known, math.log(target))
        if tries % 3 == 2:  # interpolation may creep along one side
            guess = (low + high) // 2
        tries += 1
        working = _working(guess, low + 1, high - 1, failed)
        if working is None:
            break
        yield from _try(working, known, failed)
    if not known:
        raise MediaError(f"the encoder fails at every {quantizer.name}")
    edge = low if is_above else high
    return min(known, key=lambda q: abs(q - edge))


Match = Generator[float, float | None, float]
"""Yields a quantizer, wants its rate in bits per pixel sent, or None where the encoder fails at it; returns the
quantizer that was searched."""


def match(quantizer: Quantizer, target: float, known: Mapping[float, float]) -> Match:
    """Find a quantizer, in the smallest steps that the encoder takes, whose rate is a given one.

    The first within :data:`TOLERANCE` of it is taken; where there is none, the nearest of those tried.

    Args:
        quantizer: What is searched.
        target: Bits per pixel.
        known: Rates in bits per pixel of quantizers that were tried before.

    Raises:
        MediaError: The encoder fails at all that were tried.
    """
    tried, failed = dict(known), set[float]()
    for _ in range(MOST_TRIES):
        if tried and abs(tried[best := _nearest(tried, target)] / target - 1) <= TOLERANCE:
            return best
        low = max((q for q, rate in tried.items() if rate >= target), default=quantizer.lowest - quantizer.step)
        below = [q for q, rate in tried.items() if rate < target and q > low]
        high = min(below, default=quantizer.highest + quantizer.step)
        between = round((high - low) / quantizer.step) - 1
        if between < 1:
            break
        guess = float(sum(quantizer.typical) / 2) if not tried else _crossing(tried, math.log(target))
        left = [number for number in range(1, between + 1) if low + number * quantizer.step not in failed]
        if not left:
            break
        wanted = (guess - low) / quantizer.step
        value = low + min(left, key=lambda number: abs(number - wanted)) * quantizer.step
        rate = yield value
        if rate is None:
            failed.add(value)
        else:
            tried[value] = rate
    if not tried:
        raise MediaError(f"the encoder fails at every {quantizer.name} that was tried")
    return _nearest(tried, target)


def _nearest(tried: Mapping[float, float], target: float) -> float:
    return min(tried, key=lambda q: abs(math.log(tried[q] / target)))


def _interpolate(known: Mapping[int, float], wanted: float) -> int:
    """The whole quantizer at which the logarithm of the rate is likely to be `wanted`."""
    return round(_crossing(known, wanted))


def _crossing(known: Mapping[int, float] | Mapping[float, float], wanted: float) -> float:
    """The quantizer at which the logarithm of the rate is likely to be `wanted`."""
    points = sorted((q, math.log(rate)) for q, rate in known.items())
    if len(points) == 1:
        return points[0][0] + (points[0][1] - wanted) / _SLOPE
    # The two neighbours around it, or the two at the nearer end.
    number = next((i for i in range(1, len(points) - 1) if points[i][1] <= wanted), len(points) - 1)
    (q0, r0), (q1, r1) = points[number - 1], points[number]
    if r0 <= r1:
        return (q0 + q1) / 2
    return q0 + (r0 - wanted) * (q1 - q0) / (r0 - r1)
