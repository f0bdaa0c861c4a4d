"""How many frames a hybrid's step shows: what an encoder may choose, and a file lists (spec 3.2).

Frames between the last ones have no bits: where things move fast they fall apart. There a step of two frames or of one
is nearer to what it is made of. Whether a step was too long is seen when its middle frame is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokcodec.geometry import STEP_FRAMES

REPEATS = {4: 4.0, 2: 2.5, 1: 2.0}
"""How often an error of the last frame counts: more than its step shows, for later steps are made of it."""
TOO_LONG = 1.35
"""A step is too long whose middle frame has this many times the error of its last one."""
CALM = 1.1
"""After a step of two frames with a middle no worse than this, one of four is tried."""
PATIENCE = 4
"""Steps after which a longer one is tried again that was too long, or that was not tried, for a step of one frame has
no middle."""
UNSEEN = 4.0
"""Mean squared error, in 8-bit values, that is added to both before they are compared."""


@dataclass(frozen=True, kw_only=True)
class StepErrors:
    """Mean squared errors of a step that was coded, in 8-bit values.

    Attributes:
        middle: Of its middle frame; None of a step that has none.
        last: Of its last one.
    """

    middle: float | None
    last: float

    @property
    def excess(self) -> float:
        """How many times the error of the last frame the middle one has; 1 where there is none."""
        return 1.0 if self.middle is None else (self.middle + UNSEEN) / (self.last + UNSEEN)


class StepLength:
    """Proposes lengths and learns how they went.

    Args:
        allowed: Lengths that may be chosen, of `STEP_FRAMES`.
    """

    def __init__(self, allowed: Sequence[int] = STEP_FRAMES) -> None:
        self._allowed = [length for length in STEP_FRAMES if length in allowed]
        self.start_chunk()

    def start_chunk(self) -> None:
        """Forget the past."""
        self._next, self._waited = self._allowed[0], 0

    def candidates(self, waiting: int) -> list[int]:
        """Lengths to try, the longest first: the first that is not too long is right.

        Args:
            waiting: Frames there are; the longest length may have more, then frames are repeated.
        """
        found = [length for length in self._allowed if length <= self._next]
        fits = [length for length in found if length <= waiting or length == STEP_FRAMES[0]]
        return fits or [min(self._allowed)]

    @staticmethod
    def is_too_long(errors: StepErrors | None) -> bool:
        """Whether a step should be shorter, by its errors."""
        return errors is not None and errors.excess > TOO_LONG

    def took(self, length: int, *, tried: int, errors: StepErrors) -> None:
        """Hear what came out.

        Args:
            length: The one that was taken.
            tried: The longest that was tried.
            errors: Of what was taken.
        """
        place = self._allowed.index(length)
        self._waited = 0 if tried > length or length != self._next else self._waited + 1
        calm = errors.excess <= CALM
        longer = place > 0 and calm and self._waited >= PATIENCE
        self._next = self._allowed[place - 1] if longer else length
