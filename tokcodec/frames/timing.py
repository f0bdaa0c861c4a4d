"""Timestamps that strictly increase, from whatever a file has; and the part of it that was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from tokcodec.errors import UsageError
from tokcodec.frames.info import Packet

# A step back of more than this is a new timeline (joined recordings), not a misplaced frame.
_JUMP_BACK = Fraction(1)


class TimestampRepair:
    """Makes the timestamps of decoded frames strictly increasing, and changes none that need no change."""

    def __init__(self, *, time_base: Fraction, frame_rate: Fraction | None) -> None:
        self._time_base = time_base
        step = round(1 / (frame_rate * time_base)) if frame_rate else 1
        self._step = max(1, step)
        self._shift = 0
        self._last: int | None = None
        self.repaired_count = 0

    def next(self, pts: int | None, dts: int | None) -> int:
        """The timestamp of the next frame in presentation order, in ticks of the time base."""
        stated = pts if pts is not None else dts
        if self._last is None:
            value = stated if stated is not None else 0
        elif stated is None:
            value = self._last + self._step
            self.repaired_count += 1
        else:
            value = stated + self._shift
            if value <= self._last:
                self.repaired_count += 1
                if (self._last - value) * self._time_base > _JUMP_BACK:
                    self._shift += self._last + self._step - value
                    value = self._last + self._step
                else:
                    value = self._last + 1
        self._last = value
        return value


class CoarseClock:
    """Keeps timestamps apart in an output with a clock of its own, which the source's may be finer than.

    Args:
        time_base: Seconds of a tick of the source.
        tick_seconds: Seconds of a tick of the output.
    """

    def __init__(self, *, time_base: Fraction, tick_seconds: Fraction) -> None:
        self._tick = tick_seconds
        self._ratio = time_base / tick_seconds
        self._last: int | None = None
        self._last_pts = 0
        self._steps: tuple[int, int] | None = None  # shortest and longest
        self._largest_shift = Fraction(0)
        self._collapsed = False

    def next(self, pts: int) -> int:
        """The next timestamp in ticks of the source, changed where it would meet the one before it."""
        place = _rounded(pts * self._ratio)
        changed = pts
        if self._last is not None:
            self._note_step(pts - self._last_pts)
            if place <= self._last:
                place = self._last + 1
                changed = _rounded(place / self._ratio)
                self._collapsed = True
        self._largest_shift = max(self._largest_shift, abs(place - pts * self._ratio))
        self._last, self._last_pts = place, pts
        return changed

    def _note_step(self, step: int) -> None:
        shortest, longest = self._steps or (step, step)
        self._steps = min(shortest, step), max(longest, step)

    @property
    def shift_seconds(self) -> Fraction:
        """How far a timestamp moved, where that matters; 0 if an even rate was only rounded to the clock."""
        even = self._steps is None or self._steps[1] - self._steps[0] <= 1
        return Fraction(0) if even and not self._collapsed else self._largest_shift * self._tick


def _rounded(value: Fraction) -> int:
    """The nearest integer, halves away from zero, as FFmpeg does it."""
    return math.floor(abs(value) + Fraction(1, 2)) * (1 if value >= 0 else -1)


@dataclass(frozen=True, kw_only=True)
class TimeRange:
    """The part of a video that is wanted, in ticks of the video's time base: start <= pts < end."""

    start: int | None
    end: int | None
    time_base: Fraction

    def starts_after(self, pts: int) -> bool:
        """Whether a frame at `pts` is too early."""
        return self.start is not None and pts < self.start

    def ends_before(self, pts: int) -> bool:
        """Whether a frame at `pts` is too late."""
        return self.end is not None and pts >= self.end

    def holds(self, packet: Packet, time_base: Fraction) -> bool:
        """Whether any part of a side packet (timestamps in `time_base`) falls into the range."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return True
        begin = stamp * time_base
        end = begin + packet.duration * time_base
        if self.start is not None and max(begin, end - time_base) < self.start * self.time_base:
            return False
        return self.end is None or begin < self.end * self.time_base


def check_range(start_seconds: float, duration_seconds: float | None) -> None:
    """Refuse a range that makes no sense.

    Raises:
        UsageError: A negative or infinite start, or a duration that is not positive.
    """
    if not math.isfinite(start_seconds) or start_seconds < 0:
        raise UsageError(f"the start must be 0 seconds or more, not {start_seconds}")
    if duration_seconds is not None and (not math.isfinite(duration_seconds) or duration_seconds <= 0):
        raise UsageError(f"the duration must be more than 0 seconds, not {duration_seconds}")


def make_range(*, origin: int, time_base: Fraction, start_seconds: float, duration_seconds: float | None) -> TimeRange:
    """The range in ticks; `origin` is the timestamp of the first frame, to which the start relates."""
    start = Fraction(start_seconds)
    first = origin + round(start / time_base)
    end = None
    if duration_seconds is not None:
        end = max(first + 1, origin + round((start + Fraction(duration_seconds)) / time_base))
    return TimeRange(start=first if start_seconds > 0 else None, end=end, time_base=time_base)
