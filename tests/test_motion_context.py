"""What the network of motion maps is shown: against the text of spec section 7.14, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_films import Maps, panning, seven
from numpy.typing import NDArray
from test_motion_bits import KINDS

from tokcodec.cell_sets import CellSet, cell_sets
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.motion_bits import MotionTraversal, predict_relative, predict_set
from tokcodec.motion_context import INPUTS, SETS, MotionContext, with_first

GRIDS = [(1, 1), (1, 2), (1, 13), (9, 1), (2, 2), (3, 5), (9, 17), (17, 9)]
grids = st.sampled_from(GRIDS)
Vectors = NDArray[np.int32]
Block = tuple[int, int]

# --- the text of the specification, slowly ---

SIZE = [min(255, round(32 * math.log2(1 + v))) for v in range(256)]


def size(v: int) -> int:
    """S(v) of section 7.13."""
    return SIZE[min(v, 255)]


class Pair(NamedTuple):
    """A vector."""

    x: int
    y: int

    def less(self, other: Pair) -> Pair:
        return Pair(self.x - other.x, self.y - other.y)


Grid = dict[Block, Pair]
"""A map, or what maps differ by."""


def grid_of(vectors: NDArray[np.integer]) -> Grid:
    return {(y, x): Pair(int(vectors[y, x, 0]), int(vectors[y, x, 1])) for y, x in np.ndindex(*vectors.shape[:2])}


def sets_of(rows: int, columns: int) -> list[tuple[int, list[Block], list[Block]]]:
    """Number, blocks, and where those around lie, of the sets of section 7.10."""
    blocks = [(y, x) for y in range(rows) for x in range(columns)]
    found: list[tuple[int, list[Block], list[Block]]] = [(0, [(y, x) for y, x in blocks if y % 8 == x % 8 == 0], [])]
    for stride in (8, 4, 2):
        h, number = stride // 2, len(found)
        both = [(y, x) for y, x in blocks if y % stride == h and x % stride == h]
        found.append((number, both, [(-h, -h), (-h, h), (h, -h), (h, h)]))
        one = [(y, x) for y, x in blocks if (y % stride, x % stride) in ((h, 0), (0, h))]
        found.append((number + 1, one, [(-h, 0), (h, 0), (0, -h), (0, h)]))
    return found


def predicted_of(block: Block, offsets: list[Block], v: Grid, expected: Grid, base: Grid) -> Pair:
    """Section 7.10."""
    if not offsets:
        return expected[block]
    y, x = block
    around = [(y + down, x + right) for down, right in offsets if (y + down, x + right) in v]
    found = []
    for axis in (0, 1):
        e = sorted(v[place][axis] - base[place][axis] for place in around)
        n = len(e)
        middle = (e[(n - 1) // 2] + e[n // 2]) >> 1
        found.append(max(-511, min(511, base[block][axis] + middle)))
    return Pair(*found)


def inputs_of(
    block: Block,
    axis: int,
    offsets: list[Block],
    *,
    v: Grid,
    expected: Grid,
    predicted: Pair,
    last: Grid | None,
    source: Grid | None,
    past: Grid | None,
    rest_of_x: int,
) -> list[int]:
    """Section 7.14: of one block and axis; None where there is no such map."""
    y, x = block
    around = [(y + down, x + right) for down, right in offsets]
    near = [(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (y + down, x + right) in v]
    nothing = Pair(0, 0)
    shift = predicted.less(expected[block])
    rest = [v[place].less(expected[place]).less(shift) if place in v else nothing for place in around]
    rest += [nothing] * (4 - len(rest))
    there = [place for place in around if place in v]
    eight = [
        *rest,
        Pair(-shift.x, -shift.y),
        *(nothing if changes is None else changes[block] for changes in (last, source, past)),
    ]
    both = (axis, 1 - axis)
    found = [size(max(0, pair[axis])) for pair in eight]
    found += [size(max(0, -pair[axis])) for pair in eight]
    found += [size(abs(pair[1 - axis])) for pair in eight]
    found += [size(abs(predicted[each])) for each in both]
    for each in both:
        values = [expected[place][each] for place in near]
        found.append(size(max(values) - min(values)))
    found.append(60 * len(there))
    found.append(60 * sum(v[place] != expected[place] for place in there))
    for changes in (last, past):
        found.append(0 if changes is None else 28 * sum(changes[place] != nothing for place in near))
    r = rest_of_x if axis == 1 else 0
    return [*found, size(max(0, r)), size(max(0, -r))]


class Asked(NamedTuple):
    """What a network is asked at once."""

    axis: int
    number: int
    group: int
    inputs: list[list[int]]


SOURCES = {1: 0, 2: 0, 3: 1, 4: 3, 5: 2, 6: 5}


def expected_by_spec(found: list[Vectors], number: int) -> Vectors:
    """`e` of `decode_motion`."""
    half = {1: 0, 3: 1, 5: 2}
    if number == 2:
        return -(found[0] >> 1)
    if number in half:
        return found[half[number]] >> 1
    first, second = {4: (3, 1), 6: (5, 2)}[number]
    return (found[first] - found[second]).clip(-511, 511)


def asked_by_spec(steps: Maps) -> Iterator[Asked]:
    """All that the network is asked of the maps of a chunk, whose first step has none."""
    every = [list(np.split(step.astype(np.int32), MOTION_MAPS)) for step in steps]
    changes: list[dict[int, Vectors]] = [{}]
    for number_of_step, maps in enumerate(every[1:], start=1):
        changes.append({})
        for number, v in enumerate(maps):
            expected = expected_by_spec(maps, number) if number else every[number_of_step - 1][0]
            base = expected if number else np.zeros_like(v)
            changes[-1][number] = v - expected
            if (v == base).all():
                continue  # moves is 0
            before = changes[-2].get(number)
            named = {
                "last": grid_of(changes[-1][number - 1]) if number else None,
                "source": grid_of(changes[-1][SOURCES[number]]) if number else None,
                "past": None if before is None else grid_of(before),
            }
            own, wanted, plain = grid_of(v), grid_of(expected), grid_of(base)
            for group, blocks, offsets in sets_of(*v.shape[:2]):
                if not blocks:
                    continue
                each = {block: predicted_of(block, offsets, own, wanted, plain) for block in blocks}
                for axis in (0, 1):
                    yield Asked(
                        axis,
                        number,
                        group,
                        [
                            inputs_of(
                                block,
                                axis,
                                offsets,
                                v=own,
                                expected=wanted,
                                predicted=each[block],
                                rest_of_x=own[block].x - each[block].x,
                                **named,
                            )
                            for block in blocks
                        ],
                    )


# --- what is shown ---


class Recorder:
    """Stands for a network, and remembers what it is asked; and for a coder, through which bits go as they are."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def stretches(self, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        assert inputs.dtype == np.uint8
        assert inputs.shape[1] == INPUTS
        self.asked.append(Asked(axis, number, group, inputs.tolist()))
        return np.zeros((len(inputs), 11), np.int32)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        return bits


def asked_of(steps: Maps) -> list[Asked]:
    recorder = Recorder()
    traversal = MotionTraversal(*steps.shape[1:3], maps=MOTION_MAPS, network=recorder)
    for vectors in steps[1:]:
        traversal.code_step(recorder, vectors.copy())
    return recorder.asked


def assert_as_the_text_says(steps: Maps) -> list[Asked]:
    found, wanted = asked_of(steps), list(asked_by_spec(steps))
    assert [each[:3] for each in found] == [each[:3] for each in wanted]
    for own, text in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(own.inputs, text.inputs, err_msg=f"{own[:3]}")
    return found


@given(grid=grids, kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=2), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_maps_of_any_kind_are_shown_as_the_text_says(grid: Block, kinds: list[str], seed: int) -> None:
    assert_as_the_text_says(seven(*kinds, rows=grid[0], columns=grid[1], seed=seed))


@given(grid=grids, seed=st.integers(0, 999), reach=st.sampled_from([1, 4, MAX_VECTOR]), share=st.floats(0, 1))
@settings(max_examples=20)
def test_maps_of_which_some_are_as_expected_are_shown_as_the_text_says(
    grid: Block, seed: int, reach: int, share: float
) -> None:
    """Those that are not told change too, if they are not what was expected: a first map that ends to move does."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(3):
        maps: list[Vectors] = []
        for number in range(MOTION_MAPS):
            own = rng.integers(-reach, reach + 1, (*grid, 2)).astype(np.int32)
            plain = expected_by_spec(maps, number) if number else np.zeros_like(own)
            maps.append(np.where(rng.random((*grid, 1)) < rng.choice([0, share]), own, plain))
        found.append(np.concatenate(maps))
    assert_as_the_text_says(np.stack([np.zeros_like(found[0]), *found]).astype(np.int16))


def test_motion_of_a_camera_is_shown_as_the_text_says() -> None:
    """All inputs vary, but for no more than a few values of the counts."""
    steps = panning(4, 18, 20, seed=2)  # of the last block of set 5, one of those around is there
    found = assert_as_the_text_says(steps)
    assert {each.number for each in found} == set(range(MOTION_MAPS))
    assert {each.group for each in found} == set(range(SETS))
    for axis in (0, 1):
        rows = np.concatenate([each.inputs for each in found if each.axis == axis])
        values = [set(column.tolist()) for column in rows.T]
        assert all(len(each) > 3 for each in values[:28])
        assert values[28] == {0, 60, 120, 180, 240}
        assert values[29] == {0, 60, 120, 180, 240}
        assert values[30] == values[31] == {28 * count for count in range(10)}
        assert all(len(each) > 3 for each in values[32:]) if axis else values[32:] == [{0}, {0}]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_ends_of_what_vectors_may_be_are_shown_as_the_text_says(grid: Block) -> None:
    """What differs by the most that there is: 511 from -511, where -511 and 511 were expected, and so on."""
    steps = seven("extreme", "extreme", rows=grid[0], columns=grid[1], seed=4)
    steps[2] = -steps[1]
    found = assert_as_the_text_says(steps)
    assert max(max(row) for each in found for row in each.inputs) == 255


def test_a_block_by_hand() -> None:
    """The one in the middle of three in a row, of a second map in a first step."""
    steps = np.zeros((2, MOTION_MAPS, 3, 2), np.int16)
    steps[1, 0] = (8, -2), (8, -2), (12, -2)
    steps[1, 1] = (4, -1), (6, -4), (7, -1)  # halves of the first are 4, 4, 6 and -1
    found = [each for each in asked_of(steps) if each.number == 1 and 1 < each.group < 7]
    # Sets 5 and 6 have no block but for the one at column 1, with those at columns 0 and 2 around; set 4 that at 2.
    assert [(each.axis, each.group, len(each.inputs)) for each in found] == [(0, 4, 1), (1, 4, 1), (0, 6, 1), (1, 6, 1)]
    (x,), (y,) = found[2].inputs, found[3].inputs
    # Those around are 0 and 1 beyond what is expected of them, so that 4 is predicted: half of 1, rounded down, more.
    assert x[:8] == [0, 0, 0, SIZE[1], 0, SIZE[8], SIZE[8], 0]  # the first map was expected to be as before: 0
    assert x[8:16] == [0] * 8
    assert x[16:24] == [0, 0, 0, 0, 0, SIZE[2], SIZE[2], 0]
    assert x[24:28] == [SIZE[4], SIZE[1], SIZE[2], 0]
    assert x[28:] == [120, 60, 84, 0, 0, 0]
    assert y[:8] == [0] * 8
    assert y[8:16] == [0, 0, 0, 0, 0, SIZE[2], SIZE[2], 0]
    assert y[16:24] == [0, 0, 0, SIZE[1], 0, SIZE[8], SIZE[8], 0]
    assert y[24:28] == [SIZE[1], SIZE[4], 0, SIZE[2]]
    assert y[28:] == [120, 60, 84, 0, SIZE[2], 0]


# --- the sets of one map, with all that is around it drawn at random ---


@st.composite
def contexts(draw: st.DrawFn) -> tuple[Block, list[Vectors]]:
    """A grid; and expected vectors, changes of both other maps and before, and vectors that are found, unrelated."""
    grid, rng = draw(grids), np.random.default_rng(draw(st.integers(0, 9999)))
    reaches = [draw(st.sampled_from([0, 1, 3, 30, MAX_VECTOR, 2 * MAX_VECTOR])) for _ in range(5)]
    reaches[0], reaches[4] = (min(reach, MAX_VECTOR) for reach in (reaches[0], reaches[4]))
    cells = grid[0] * grid[1]
    return grid, [rng.integers(-reach, reach + 1, (cells, 2)).astype(np.int32) for reach in reaches]


def groups_of(grid: Block, found: Vectors, expected: Vectors, *, relative: bool) -> Iterator[tuple[CellSet, Vectors]]:
    """Sets and predictions of their vectors."""
    for group in cell_sets(*grid):
        yield group, (predict_relative if relative else predict_set)(group, found, expected)[0]


@given(drawn=contexts(), relative=st.booleans())
@settings(max_examples=60)
def test_inputs_of_a_set_are_as_the_text_says(drawn: tuple[Block, list[Vectors]], relative: bool) -> None:
    grid, (expected, last, source, past, found) = drawn
    context = MotionContext(grid, expected, (last, source), past)
    own, wanted, *others = (grid_of(each.reshape(*grid, 2)) for each in (found, expected, last, source, past))
    plain = wanted if relative else dict.fromkeys(wanted, Pair(0, 0))
    sets = [(number, blocks, offsets) for number, blocks, offsets in sets_of(*grid) if blocks]
    for (group, prediction), (number, blocks, offsets) in zip(
        groups_of(grid, found, expected, relative=relative), sets, strict=True
    ):
        inputs = context.inputs(group, found, prediction)
        assert (inputs.dtype, inputs.shape) == (np.uint8, (2, len(blocks), INPUTS))
        assert group.number == number
        rests = found[group.cells, 0] - prediction[:, 0]
        y = inputs[1].copy()
        with_first(y, rests)
        for at, block in enumerate(blocks):
            predicted = predicted_of(block, offsets, own, wanted, plain)
            assert predicted == Pair(*prediction[at].tolist())
            for axis, rows in ((0, inputs[0]), (1, y)):
                assert rows[at].tolist() == inputs_of(
                    block,
                    axis,
                    offsets,
                    v=own,
                    expected=wanted,
                    predicted=predicted,
                    last=others[0],
                    source=others[1],
                    past=others[2],
                    rest_of_x=int(rests[at]),
                )


@given(drawn=contexts(), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_nothing_is_shown_that_a_decoder_does_not_know(drawn: tuple[Block, list[Vectors]], seed: int) -> None:
    """Vectors of the set itself, and of those behind it, may be any."""
    grid, (expected, last, source, past, found) = drawn
    context, rng = MotionContext(grid, expected, (last, source), past), np.random.default_rng(seed)
    known = np.zeros(len(found), bool)
    for group, prediction in groups_of(grid, found, expected, relative=True):
        other = np.where(known[:, None], found, rng.integers(-MAX_VECTOR, MAX_VECTOR + 1, found.shape))
        shown = context.inputs(group, found, prediction)
        np.testing.assert_array_equal(context.inputs(group, other.astype(np.int32), prediction), shown)
        assert not shown[..., -2:].any(), "of x nothing is known yet"
        known[group.cells] = True
    assert known.all()


def test_what_is_given_stays() -> None:
    rng, grid = np.random.default_rng(3), (5, 6)
    given_arrays = [rng.integers(-9, 10, (30, 2)).astype(np.int32) for _ in range(5)]
    before = [each.copy() for each in given_arrays]
    expected, last, source, past, found = given_arrays
    context = MotionContext(grid, expected, (last, source), past)
    first = {group.number: context.inputs(group, found, found[group.cells]) for group in cell_sets(*grid)}
    for group in cell_sets(*grid):
        np.testing.assert_array_equal(context.inputs(group, found, found[group.cells]), first[group.number])
    for array, old in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


# --- of y after x ---


def test_what_is_left_of_x_is_shown_of_y() -> None:
    """In two parts, in place; nothing else is touched."""
    rests = np.asarray([0, 1, -1, 2, -2, 7, -40, 254, -255, 256, 1022, -1022], np.int32)
    found = np.full((rests.size, INPUTS), 77, np.uint8)
    with_first(found, rests)
    assert (found[:, :-2] == 77).all()
    sizes = [SIZE[min(abs(rest), 255)] for rest in rests.tolist()]
    assert found[:, -2].tolist() == [own if rest > 0 else 0 for own, rest in zip(sizes, rests, strict=True)]
    assert found[:, -1].tolist() == [own if rest < 0 else 0 for own, rest in zip(sizes, rests, strict=True)]
    with_first(np.zeros((0, INPUTS), np.uint8), np.zeros(0, np.int32))


def test_of_y_the_other_axis_is_x() -> None:
    """If both components of all vectors change places, so do the inputs, but for what is left of x."""
    rng, grid = np.random.default_rng(8), (6, 7)
    expected, last, source, past, found = (rng.integers(-60, 61, (42, 2)).astype(np.int32) for _ in range(5))
    context = MotionContext(grid, expected, (last, source), past)
    swapped = MotionContext(grid, expected[:, ::-1], (last[:, ::-1], source[:, ::-1]), past[:, ::-1])
    for group, prediction in groups_of(grid, found, expected, relative=True):
        x, y = context.inputs(group, found, prediction)
        other_x, other_y = swapped.inputs(group, found[:, ::-1], prediction[:, ::-1])
        np.testing.assert_array_equal(other_x, y)
        np.testing.assert_array_equal(other_y, x)
