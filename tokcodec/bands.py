"""Where the coefficients of a picture lie, and in which order they are coded (spec sections 7.11 and 8.7)."""

from __future__ import annotations

from dataclasses import dataclass

from tokcodec.geometry import PICTURE_LEVELS

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Rows and columns at which every second coefficient of a band is coded, in order."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Coefficients of one size and direction.

    Attributes:
        number: In coding order, 0 to 15.
        rows: Those of the array.
        columns: Those of the array.
        coarser: Number of the band of twice the size and the same direction; None where there is none.
        others: Numbers of the bands of the same size that come before.
    """

    number: int
    rows: slice
    columns: slice
    coarser: int | None
    others: tuple[int, ...]


def bands_of(levels: int) -> tuple[Band, ...]:
    """The bands of a transform that halves so many times, in coding order."""
    side = 1 << levels
    found = [Band(number=0, rows=slice(0, None, side), columns=slice(0, None, side), coarser=None, others=())]
    for level in range(levels, 0, -1):
        step, half = 1 << level, 1 << level - 1
        start = len(found)
        for place, (down, right) in enumerate(((0, half), (half, 0), (half, half))):
            found.append(
                Band(
                    number=start + place,
                    rows=slice(down, None, step),
                    columns=slice(right, None, step),
                    coarser=None if level == levels else start + place - 3,
                    others=tuple(range(start, start + place)),
                )
            )
    return tuple(found)


BANDS = bands_of(PICTURE_LEVELS)
"""Those of a first picture."""
