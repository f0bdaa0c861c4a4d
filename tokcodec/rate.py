"""How large a file shall be, and the search for the quality that makes it so; see docs/rate.md. No torch, no NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal

from tokcodec.errors import UsageError

PROMISED = 0.05
"""How far from what was asked a file of two seconds and more may be, as a share of it."""
CONTENT = 0.03
"""How far from it the search stops."""
TYPICAL_BITS_PER_PIXEL, TYPICAL_SLOPE = 0.01, 0.35
"""Of quality 1, and how the logarithm of the size rises with the quality: where a search begins."""
SLOPES = 0.02, 3.0
"""What is believed of such a rise."""
NARROW = 0.004
"""Qualities that are so near to each other are not told apart."""

UNITS = {"bits_per_pixel": "bits per pixel", "kilobits_per_second": "kbit/s", "max_bytes": "bytes"}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What is asked of a file instead of a quality: one of the first three, and how it is met.

    Attributes:
        bits_per_pixel: Bits of the whole file, over the pixels of all frames; packets of side streams (audio,
            subtitles) are not counted.
        kilobits_per_second: Thousands of bits for each second that the frames are shown, counted likewise.
        max_bytes: The whole file has no more bytes, with all that is in it. Needs a source that can be read again.
        multi_pass: The same quality in all chunks, found by coding the whole file several times; always so for
            `max_bytes`.

    Raises:
        UsageError: None or several are given, or one is not above zero.
    """

    bits_per_pixel: float | None = None
    kilobits_per_second: float | None = None
    max_bytes: int | None = None
    multi_pass: bool = False

    def __post_init__(self) -> None:
        given = [name for name in UNITS if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                f"{len(given) or 'none'} of {', '.join(UNITS)} given",
                hint="a rate is one of bits per pixel, kilobits per second, and a number of bytes",
            )
        kinds: tuple[type, ...] = (int,) if self.max_bytes is not None else (int, float)
        if isinstance(self.asked, bool) or not isinstance(self.asked, kinds):
            raise UsageError(f"a rate is a number, and max_bytes a whole one, not {self.asked!r}")
        if not (math.isfinite(self.asked) and self.asked > 0):
            raise UsageError(f"a rate is above zero, not {self.asked:g} {self.unit}", hint="for example --bpp 0.02")

    @property
    def name(self) -> str:
        """Which of the three it is."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def unit(self) -> str:
        """The unit, as a person would say it."""
        return UNITS[self.name]

    @property
    def asked(self) -> float:
        """The number that was given."""
        value: float = getattr(self, self.name)
        return value

    @property
    def is_whole(self) -> bool:
        """Whether the whole file is coded several times."""
        return self.multi_pass or self.max_bytes is not None

    def bytes_for(self, *, pixels: int, seconds: Fraction) -> float:
        """Bytes that are asked for so many pixels of all frames, shown for so long."""
        if self.max_bytes is not None:
            return self.max_bytes
        if self.bits_per_pixel is not None:
            return self.bits_per_pixel * pixels / 8
        return self.asked * 125 * float(seconds)

    def reached(self, size: int, *, pixels: int, seconds: Fraction) -> float:
        """What so many bytes are, in the unit that was asked for."""
        if self.max_bytes is not None:
            return size
        return 8 * size / pixels if self.bits_per_pixel is not None else size / (125 * float(seconds))


@dataclass(frozen=True, kw_only=True)
class RateReport:
    """What became of a :class:`Rate`.

    Attributes:
        unit: "bits_per_pixel", "kilobits_per_second" or "max_bytes".
        asked: In that unit.
        reached: In that unit.
        passes: How often a frame was coded, on average.
        lowest_quality: Of all chunks; 1 to 6 are those of `--quality`, and there is more on both sides.
        highest_quality: Of all chunks.
        limit: "highest" or "lowest" where less or more came out and no other quality was left to try.
    """

    unit: str
    asked: float
    reached: float
    passes: float
    lowest_quality: float
    highest_quality: float
    limit: Literal["lowest", "highest"] | None

    def line(self) -> str:
        """It in a line."""
        low, high = f"{self.lowest_quality:.2f}", f"{self.highest_quality:.2f}"
        return f"{self._text()}; {self.passes:.1f} passes, quality {low}{'' if low == high else f' to {high}'}"

    def _text(self) -> str:
        if self.unit == "max_bytes":
            return f"{self.reached:.0f} bytes, {self.asked:.0f} allowed"
        return f"{self.reached:.4g} {UNITS[self.unit]}, {self.asked:.4g} asked"

    def notes(self) -> tuple[str, ...]:
        """What a person should know who asked; nothing where it was met."""
        if abs(self.reached / self.asked - 1) <= PROMISED:
            return ()
        if self.limit is not None:
            why = f"the {self.limit} quality takes {'no more' if self.limit == 'highest' else 'as much'}"
        else:
            why = "no quality comes nearer, for the sizes of so short a clip come in steps"
        return (f"rate not reached: {self._text()}; {why}",)


def first_quality(bits_per_pixel: float, limits: tuple[float, float]) -> float:
    """Where a search begins."""
    guess = 1 + math.log(bits_per_pixel / TYPICAL_BITS_PER_PIXEL) / TYPICAL_SLOPE
    return min(max(guess, limits[0], 0.5), limits[1], 7.0)


class QualitySearch:
    """Finds the quality at which something has a wanted size: the secant of log(size), between what is known.

    Args:
        limits: The lowest and the highest quality that there are.
        slope: Of log(size), until two sizes are known.
    """

    def __init__(self, limits: tuple[float, float], *, slope: float = TYPICAL_SLOPE) -> None:
        self._limits = limits
        self.slope = slope
        self.sizes: dict[float, int] = {}

    def add(self, quality: float, size: int) -> None:
        """What a try gave."""
        self.sizes[quality] = size
        near = sorted(self.sizes, key=lambda other: abs(other - quality))[:2]
        if len(near) == 2 and abs(near[1] - near[0]) > NARROW:
            rise = math.log(self.sizes[near[1]] / self.sizes[near[0]]) / (near[1] - near[0])
            self.slope = min(max(rise, SLOPES[0]), SLOPES[1])

    def propose(self, wanted: float) -> float | None:
        """A quality to try next; None where that would tell nothing new."""
        target = math.log(max(wanted, 1.0))
        errors = {quality: math.log(size) - target for quality, size in self.sizes.items()}
        above = min((quality for quality, error in errors.items() if error >= 0), default=None)
        below = max((q for q, error in errors.items() if error < 0 and (above is None or q < above)), default=None)
        if above is not None and below is not None:
            if above - below <= NARROW:
                return None
            share = errors[below] / (errors[below] - errors[above])
            if len(errors) % 3 == 0:  # the secant may creep along one side
                share = 0.5
            return below + min(max(share, 0.05), 0.95) * (above - below)
        known = below if above is None else above
        if known is None or known == self._limits[above is None]:
            return None
        step = max(abs(errors[known]) / self.slope, 2 * NARROW)
        return min(max(known + (step if above is None else -step), self._limits[0]), self._limits[1])
