"""The network for motion (7.14), for `spec_decoder`: written from bitstream_spec.md alone.

It favours plainness over speed. Numbers in brackets are sections of bitstream_spec.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from spec_coding import Ints, ask_for_stretches, format_network, size_of

SOURCES = (0, 0, 0, 1, 3, 2, 5)  # the map that each map is expected from; of map 0 it does not apply
Place = tuple[int, int]
Seen = tuple[Place, Sequence[int], int]  # a block, what it is predicted to be, and its rest of axis 0


class MotionNetwork:
    """What the network says of decisions. Changes are arrays `(rows, columns, 2)`."""

    def __init__(self, rows: int, columns: int) -> None:
        self.t = format_network("motion")
        self.rows, self.columns = rows, columns
        self.nothing = np.zeros((rows, columns, 2), dtype=np.int64)
        self.changes: list[Ints] = []  # of the maps of this step that are known
        self.past: list[Ints] = []  # of all those of the step before

    def begin_step(self) -> None:
        self.past, self.changes = self.changes, []

    def end_map(self, change: Ints) -> None:
        self.changes.append(change)

    def stretches(self, axis: int, number: int, v: Ints, expected: Ints, around: list[Place], seen: list[Seen]) -> Ints:
        """`given` of every kind of each block of a set, of that number, and axis."""
        place = 49 * axis + 7 * len(self.changes) + number
        found = v - expected  # where v is known
        inputs = np.array([self.inputs(axis, found, expected, around, block) for block in seen])
        return ask_for_stretches(inputs @ self.t["inputs.weight"] + self.t["place.bias"][place], self.t)

    def inside(self, places: Iterable[Place]) -> list[Place | None]:
        return [(y, x) if 0 <= y < self.rows and 0 <= x < self.columns else None for y, x in places]

    def inputs(self, axis: int, found: Ints, expected: Ints, around: list[Place], seen: Seen) -> list[int]:
        """Of a block; `found` is what vectors of this map differ by from those that were expected."""
        block, predicted, rest_of_axis_0 = seen
        number = len(self.changes)  # of the map
        last = self.changes[-1] if number > 0 else self.nothing
        source = self.changes[SOURCES[number]] if number > 0 else self.nothing
        past = self.past[number] if self.past else self.nothing
        y, x = block
        known = self.inside((y + dy, x + dx) for dy, dx in around)
        near = [place for place in self.inside((y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)) if place]

        def numbers(a: int) -> list[int]:
            shift = predicted[a] - int(expected[block][a])
            rests = [int(found[place][a]) - shift if place else 0 for place in known] or [0] * 4
            return [*rests, -shift, int(last[block][a]), int(source[block][a]), int(past[block][a])]

        def span(a: int) -> int:
            values = [int(expected[place][a]) for place in near]
            return max(values) - min(values)

        def differing(change: Ints, places: Iterable[Place | None]) -> int:
            return sum(bool(change[place].any()) for place in places if place)

        own, other, both = numbers(axis), numbers(1 - axis), (axis, 1 - axis)
        inputs = [size_of(max(0, value)) for value in own]
        inputs += [size_of(max(0, -value)) for value in own]
        inputs += [size_of(abs(value)) for value in other]
        inputs += [size_of(abs(predicted[a])) for a in both] + [size_of(span(a)) for a in both]
        inputs += [60 * sum(place is not None for place in known), 60 * differing(found, known)]
        inputs += [28 * differing(last, near), 28 * differing(past, near)]
        r = rest_of_axis_0 if axis == 1 else 0
        return [*inputs, size_of(max(0, r)), size_of(max(0, -r))]
