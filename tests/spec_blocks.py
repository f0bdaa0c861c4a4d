"""First pictures by blocks (3.8, 7.13, 8.9, 8.10), for `spec_decoder`: written from bitstream_spec.md alone.

It favours plainness over speed. Numbers in brackets are sections of bitstream_spec.md.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from spec_coding import (
    Ints,
    RangeDecoder,
    ask_network,
    check,
    decode_coefficients,
    decode_scale,
    format_network,
    size_of,
)

PLANAR, MEAN, ACROSS, DIAGONAL, DOWN = 0, 1, 10, 18, 26
ONE = 4096  # what stands for 1 in the table of the transform (8.9)
Rows = list[list[int]]


class Block(NamedTuple):
    row: int  # of its top left cell
    column: int
    level: int

    @property
    def side(self) -> int:
        return 32 >> self.level

    @property
    def cells(self) -> int:
        return 8 >> self.level

    @property
    def place(self) -> tuple[slice, slice]:
        """Where it is in an array of cells."""
        return slice(self.row, self.row + self.cells), slice(self.column, self.column + self.cells)

    @property
    def pixels(self) -> tuple[slice, slice]:
        y, x = 4 * self.row, 4 * self.column
        return slice(y, y + self.side), slice(x, x + self.side)

    def quarters(self) -> list[Block]:
        h = self.cells // 2
        return [Block(self.row + y, self.column + x, self.level + 1) for y in (0, h) for x in (0, h)]


def in_order(layout: NDArray[np.uint8]) -> list[tuple[Block, int]]:
    """The blocks of a layout with their modes, in order (3.8)."""
    rows, columns = layout.shape

    def of_square(square: Block) -> list[tuple[Block, int]]:
        if square.row >= rows or square.column >= columns:
            return []
        level, mode = divmod(int(layout[square.row, square.column]), 35)
        if level == square.level:
            assert (layout[square.place] == layout[square.row, square.column]).all()
            return [(square, mode)]
        return [block for quarter in square.quarters() for block in of_square(quarter)]

    squares = [Block(r, c, 0) for r in range(0, rows, 8) for c in range(0, columns, 8)]
    return [block for square in squares for block in of_square(square)]


# --- the layout and the coefficients (7.13) ---


def near(mode: int, direction: int) -> int:
    return max(0, 255 - 32 * abs(mode - direction)) if mode >= 2 else 0


def plain(mode: int) -> int:
    return {PLANAR: 200, MEAN: 100}.get(mode, 0)


def at(cells: Rows, row: int, column: int) -> int:
    """A number of a cell, 0 beyond the picture."""
    return cells[row][column] if 0 <= row < len(cells) and 0 <= column < len(cells[0]) else 0


def fill(cells: Rows, block: Block, value: int) -> None:
    """Put a number at those cells of a square that lie in the picture."""
    for row in cells[block.row : block.row + block.cells]:
        for column in range(block.column, min(block.column + block.cells, len(row))):
            row[column] = value


class _Asked:
    """What is known of an open block at a diagonal."""

    def __init__(self, block: Block, mode: int, coefficients: Ints) -> None:
        self.block, self.mode = block, mode
        self.values: Ints = coefficients[(slice(None), *block.pixels)]  # of the three colours; a view
        self.last = self.before = self.total = 0
        self.inputs: list[int] = []


class BlocksDecoder:
    """The first picture by blocks: after `decode` its scale, layout and coefficients."""

    def __init__(self, decoder: RangeDecoder, rows: int, columns: int) -> None:
        self.decoder, self.t = decoder, format_network("blocks")
        self.rows, self.columns = 2 * rows, 2 * columns  # of cells
        self.coefficients = np.zeros((3, 8 * rows, 8 * columns), dtype=np.int64)
        self.layout = np.zeros((self.rows, self.columns), dtype=np.uint8)
        self.blocks: list[Block] = []
        self.modes: dict[Block, int] = {}
        self.scale = 0

    def decode(self) -> None:
        self.scale = decode_scale(self.decoder)
        self.decode_cuts()
        self.decode_modes()
        for block in self.blocks:
            self.layout[block.place] = 35 * block.level + self.modes[block]
        for colour in range(3):
            self.amount, self.extent = self.cells(), self.cells()
            for level in range(4):
                self.decode_blocks(colour, level)

    def cells(self) -> Rows:
        return [[0] * self.columns for _ in range(self.rows)]

    def ask(self, network: str, inputs: Rows, places: list[int]) -> Rows:
        """The probabilities of a network, of as many as there are inputs."""
        if not inputs:
            return []
        whole = np.array([values + [0] * (30 - len(values)) for values in inputs], dtype=np.int64)
        assert whole.min() >= 0
        assert whole.max() <= 255
        first = whole @ self.t[network + ".inputs.weight"] + self.t[network + ".place.bias"][places]
        found: Rows = ask_network(first, self.t, network + ".").tolist()
        return found

    def reaches_beyond(self, square: Block) -> bool:
        return square.row + square.cells > self.rows or square.column + square.cells > self.columns

    def decode_cuts(self) -> None:
        known = self.cells()
        squares = [Block(r, c, 0) for r in range(0, self.rows, 8) for c in range(0, self.columns, 8)]
        for level in range(3):
            cut = {square for square in squares if self.reaches_beyond(square)}
            for square in cut:
                fill(known, square, 2 * level + 3)
            whole = sorted(square for square in squares if square not in cut)
            for phase, rests in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
                here = [s for s in whole if (s.row // s.cells % 2, s.column // s.cells % 2) == rests]
                inputs = [self.cut_inputs(square, known) for square in here]
                p = self.ask("layout", inputs, [4 * level + phase] * len(here))
                said = [self.decoder.decode(values[0]) for values in p]
                for square, bit in zip(here, said, strict=True):
                    fill(known, square, 2 * level + 2 + bit)
                    cut |= {square} if bit else set()
            self.blocks += [square for square in whole if square not in cut]
            quarters = [quarter for square in sorted(cut) for quarter in square.quarters()]
            squares = [q for q in quarters if q.row < self.rows and q.column < self.columns]
        self.blocks += squares

    def cut_inputs(self, square: Block, known: Rows) -> list[int]:
        r, c, n = square.row, square.column, square.cells
        h = n // 2
        sides = (r + h, c - 1), (r - 1, c + h), (r + h, c + n), (r + n, c + h)
        corners = (r - 1, c - 1), (r - 1, c + n), (r + n, c - 1), (r + n, c + n)
        return [*(30 * at(known, *place) for place in (*sides, *corners)), 4 * self.scale]

    def decode_modes(self) -> None:
        owner: dict[tuple[int, int], Block] = {}
        sets: dict[int, list[Block]] = {}
        for block in sorted(self.blocks, key=lambda b: (b.level, b.row, b.column)):
            sets.setdefault(block.row + block.column, []).append(block)
            for row in range(block.row, block.row + block.cells):
                owner |= {(row, column): block for column in range(block.column, block.column + block.cells)}
        for _, blocks in sorted(sets.items()):
            likely, inputs = [], []
            for b in blocks:
                places = (b.row, b.column - 1), (b.row - 1, b.column), (b.row - 1, b.column - 1)
                around = [owner.get(place) for place in places]
                likely.append(self.likely_modes(around))
                inputs.append(self.mode_inputs(around, likely[-1]))
            p = self.ask("layout", inputs, [12 + block.level for block in blocks])
            self.decode_set(blocks, likely, p)

    def likely_modes(self, around: list[Block | None]) -> list[int]:
        found = [self.modes[block] for block in around[:2] if block is not None]
        return list(dict.fromkeys([*found, PLANAR, MEAN, DOWN, ACROSS]))[:3]

    def mode_inputs(self, around: list[Block | None], likely: list[int]) -> list[int]:
        modes = [None if block is None else self.modes[block] for block in around]
        left, above, _ = modes
        inputs = [0] * 30
        inputs[0:3] = [60 * (block is not None) for block in around]
        inputs[8:11] = [60 * modes.count(mode) for mode in likely]
        inputs[11:14] = [plain(mode) for mode in likely]
        inputs[14:17] = [near(mode, ACROSS) for mode in likely]
        inputs[17:20] = [near(mode, DOWN) for mode in likely]
        if left is not None and above is not None and min(left, above) >= 2:
            inputs[20:22] = [8 * min(31, abs(left - above)), 60]
        inputs[23] = 4 * self.scale
        inputs[24:26] = [0 if block is None else 80 * block.level for block in around[:2]]
        return inputs

    def decode_set(self, blocks: list[Block], likely: Rows, p: Rows) -> None:
        left = list(range(len(blocks)))
        for k in range(3):
            for n in left:
                if self.decoder.decode(p[n][k + 1]):
                    self.modes[blocks[n]] = likely[n][k]
            left = [n for n in left if blocks[n] not in self.modes]
        number = dict.fromkeys(left, 0)
        for _ in range(5):
            for n in left:
                number[n] = 2 * number[n] + self.decoder.decode(32768)
        for n in left:
            for mode in sorted(likely[n]):
                number[n] += number[n] >= mode
            self.modes[blocks[n]] = number[n]

    def decode_blocks(self, colour: int, level: int) -> None:
        blocks = sorted(block for block in self.blocks if block.level == level)
        opened = [_Asked(block, self.modes[block], self.coefficients) for block in blocks]
        side = 32 >> level
        for d in range(2 * side - 1):
            if not opened:
                return
            place = 16 * (4 * colour + level) + min(d, 15)
            for o in opened:
                o.inputs = self.common_inputs(o, colour, d)
            asked = [o for o in opened if d == 0 or o.last > 0]
            inputs = [self.extent_inputs(o, colour, d) for o in asked]
            p = self.ask("extent", inputs, [place] * len(asked))
            shut = [o for o, (more,) in zip(asked, p, strict=True) if not self.decoder.decode(more)]
            opened = [o for o in opened if o not in shut]
            places = [(u, d - u) for u in range(max(0, d - side + 1), min(d, side - 1) + 1)]
            inputs = [self.size_inputs(o, colour, u, v) for o in opened for u, v in places]
            found = decode_coefficients(self.decoder, self.ask("size", inputs, [place] * len(inputs)))
            for number, o in enumerate(opened):
                values = found[number * len(places) : (number + 1) * len(places)]
                for (u, v), value in zip(places, values, strict=True):
                    o.values[colour, u, v] = value
                o.before, o.last = o.last, sum(map(abs, values))
                o.total += o.last
                fill(self.amount, o.block, max(o.total * 4 // side, min(1, o.total)))
                fill(self.extent, o.block, (d + 1) * 128 // side)
        check(all(o.last for o in opened), self.decoder.offset, "a block that is open and has no more")

    def common_inputs(self, o: _Asked, colour: int, d: int) -> list[int]:
        r, c, n = o.block.row, o.block.column, o.block.cells
        h = n // 2
        sides = (r + h, c - 1), (r - 1, c + h), (r + h, c + n), (r + n, c + h)
        inputs = [size_of(at(self.amount, *place)) for place in sides]
        inputs += [at(self.extent, *place) for place in sides]
        inputs += [near(o.mode, ACROSS), near(o.mode, DOWN), plain(o.mode), near(o.mode, DIAGONAL), 4 * self.scale]
        inputs += [size_of(o.last), size_of(o.before), size_of(o.total)]
        return inputs + [size_of(magnitudes_from(o.values[k], d)) if k < colour else 0 for k in (0, 1)]

    def extent_inputs(self, o: _Asked, colour: int, d: int) -> list[int]:
        sums = [size_of(magnitudes_from(o.values[k], 0)) if k < colour else 0 for k in (0, 1)]
        return [*o.inputs, *sums, d * 128 // o.block.side]

    def size_inputs(self, o: _Asked, colour: int, u: int, v: int) -> list[int]:
        side = o.block.side

        def magnitude(of: int, row: int, column: int) -> int:
            return abs(int(o.values[of, row, column])) if 0 <= row < side and 0 <= column < side else 0

        own = [magnitude(colour, u - y, v - x) for y, x in ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2))]
        inputs = [*o.inputs, *map(size_of, own), size_of(2 * sum(own[:2]) + sum(own[2:]))]
        inputs += [u * 128 // side, v * 128 // side]
        for k in range(min(colour, 2)):
            around = sum(magnitude(k, *place) for place in ((u - 1, v), (u + 1, v), (u, v - 1), (u, v + 1)))
            inputs += [size_of(magnitude(k, u, v)), size_of(around)]
        return inputs


def magnitudes_from(values: Ints, d: int) -> int:
    """The sum of the magnitudes of a block's diagonal d and of all behind it."""
    u, v = np.indices(values.shape)
    return int(np.abs(values)[u + v >= d].sum())


# --- pixels (8.9) ---

TO_18 = [32, 26, 21, 17, 13, 9, 5, 2, 0, -2, -5, -9, -13, -17, -21, -26, -32]  # T of modes 2 to 18, and of 34 to 18
ASIDE = {mode: T for n, T in enumerate(TO_18) for mode in (2 + n, 34 - n)}
INVERSE = {-2: 4096, -5: 1638, -9: 910, -13: 630, -17: 482, -21: 390, -26: 315, -32: 256}


def step_of(scale: int) -> int:
    return math.floor(128 * 2 ** (scale / 4) + 0.5)


@functools.cache
def waves(side: int) -> Ints:
    """B[u][n]."""
    if side == 4:
        return np.array(
            [[934, 1755, 2365, 2689], [2365, 2365, 0, -2365], [2689, -934, -2365, 1755], [1755, -2689, 2365, -934]]
        )
    rows = [[ONE / math.sqrt(side)] * side]
    for u in range(1, side):
        angles = [math.pi * (2 * n + 1) * u / (2 * side) for n in range(side)]
        rows.append([ONE * math.sqrt(2 / side) * math.cos(angle) for angle in angles])
    return np.floor(np.array(rows) + 0.5).astype(np.int64)


def added(q: Ints, step: int) -> Rows:
    """A, of the coefficients of a block and a colour."""
    c = np.minimum((10 * np.abs(q) + 1) * step // 160, 2**20) * np.sign(q)
    B = waves(len(q))
    t = (B.T @ c + 2048) >> 12
    found: Rows = ((t @ B + 2048) >> 12).tolist()
    return found


def references(pixels: Rows, order: Rows, block: Block, number: int) -> list[int]:
    """R: `order` has the number in order of the block at each cell, and `number` is that of this one."""
    y0, x0, N = 4 * block.row, 4 * block.column, block.side
    places = [(y0 + 2 * N - 1 - i, x0 - 1) for i in range(2 * N)]
    places += [(y0 - 1, x0 - 1)]
    places += [(y0 - 1, x0 + i) for i in range(2 * N)]
    found: list[int | None] = []
    for y, x in places:
        there = 0 <= y < len(pixels) and 0 <= x < len(pixels[0]) and order[y // 4][x // 4] < number
        found.append(pixels[y][x] if there else (found[-1] if found else None))
    first = next((value for value in found if value is not None), 0)
    return [first if value is None else value for value in found]


def is_smoothed(mode: int, N: int) -> bool:
    if mode == PLANAR:
        return N >= 8
    if mode == MEAN or N == 4:
        return False
    return min(abs(mode - 10), abs(mode - 26)) > {8: 7, 16: 1, 32: 0}[N]


def predicted(R: list[int], mode: int, N: int) -> Rows:
    """P. The line is counted in quarters, v in 256ths."""
    line = [4 * value for value in R]
    if is_smoothed(mode, N):
        line[1:-1] = [R[i - 1] + 2 * R[i] + R[i + 1] for i in range(1, 4 * N)]
    k = line[2 * N]
    a = [line[2 * N + 1 + i] for i in range(2 * N)]
    b = [line[2 * N - 1 - i] for i in range(2 * N)]
    if mode == PLANAR:
        v = [
            [32 // N * ((N - 1 - x) * b[y] + (x + 1) * a[N] + (N - 1 - y) * a[x] + (y + 1) * b[N]) for x in range(N)]
            for y in range(N)
        ]
    elif mode == MEAN:
        mean = 32 // N * (sum(a[:N]) + sum(b[:N]))
        v = [[mean] * N for _ in range(N)]
        if N < 32:
            for i in range(1, N):
                v[0][i] = (64 * a[i] + 3 * mean) // 4
                v[i][0] = (64 * b[i] + 3 * mean) // 4
            v[0][0] = (64 * a[0] + 2 * mean + 64 * b[0]) // 4
    else:
        v = directed(k, a, b, mode, N)
    return [[(w + 128) >> 8 for w in row] for row in v]


def directed(k: int, a: list[int], b: list[int], mode: int, N: int) -> Rows:
    """v of a direction."""
    T = ASIDE[mode]
    ahead, beside = (a, b) if mode >= 18 else (b, a)

    def along(i: int) -> int:
        if i > 0:
            return ahead[i - 1]
        return k if i == 0 else beside[((-i * INVERSE[T] + 128) >> 8) - 1]

    g = []
    for j in range(N):
        s, f = ((j + 1) * T) >> 5, ((j + 1) * T) & 31
        g.append([2 * ((32 - f) * along(i + s + 1) + (f * along(i + s + 2) if f else 0)) for i in range(N)])
        if mode in (10, 26) and N < 32:
            g[j][0] += 32 * (beside[j] - k)
    return g if mode >= 18 else [[g[x][y] for x in range(N)] for y in range(N)]


def pixels_before_edges(coefficients: Ints, scale: int, layout: NDArray[np.uint8]) -> Ints:
    """Y, of (8.9)."""
    step, blocks = step_of(scale), in_order(layout)
    order = [[0] * layout.shape[1] for _ in layout]
    for number, (block, _) in enumerate(blocks):
        fill(order, block, number)
    found = []
    for colour in range(3):
        pixels = [[0] * (4 * layout.shape[1]) for _ in range(4 * layout.shape[0])]
        for number, (block, mode) in enumerate(blocks):
            q = coefficients[(colour, *block.pixels)].astype(np.int64)
            P, A = predicted(references(pixels, order, block, number), mode, block.side), added(q, step)
            for y in range(block.side):
                for x in range(block.side):
                    value = min(max(P[y][x] + A[y][x], -1767), 1767)
                    pixels[4 * block.row + y][4 * block.column + x] = value
        found.append(pixels)
    return np.array(found, dtype=np.int64)


# --- edges (8.10) ---


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def smoothed(pixels: Rows, sides: Rows, step: int) -> Rows:
    """The pixels of a colour after the pass over upright edges; `sides` has that of the block at each cell."""
    change, uneven = 3 * step // 400, 9 * step // 80
    found = [list(row) for row in pixels]
    for r in range(len(sides)):
        for x in range(8, len(pixels[0]), 8):
            if x % sides[r][x // 4] == 0:
                new = edge([pixels[4 * r + i][x - 4 : x + 4] for i in range(4)], change, uneven)
                for i in range(4):
                    found[4 * r + i][x - 4 : x + 4] = new[i]
    return found


def edge(rows: Rows, change: int, uneven: int) -> Rows:
    """Four rows of p3 to p0, q0 to q3, as they are afterwards."""
    bend_p = [abs(p2 - 2 * p1 + p0) for _, p2, p1, p0, *_ in rows]
    bend_q = [abs(q2 - 2 * q1 + q0) for *_, q0, q1, q2, _ in rows]
    if not bend_p[0] + bend_q[0] + bend_p[3] + bend_q[3] < uneven:
        return rows
    flat = all(
        2 * (bend_p[i] + bend_q[i]) < uneven // 4
        and abs(rows[i][0] - rows[i][3]) + abs(rows[i][4] - rows[i][7]) < uneven // 8
        and abs(rows[i][3] - rows[i][4]) < (5 * change + 1) // 2
        for i in (0, 3)
    )

    def firm(new: int, old: int) -> int:
        return clamp(new, old - 2 * change, old + 2 * change)

    even = (uneven + uneven // 2) // 8
    found = []
    for p3, p2, p1, p0, q0, q1, q2, q3 in rows:
        P2, P1, P0, Q0, Q1, Q2 = p2, p1, p0, q0, q1, q2
        if flat:
            P2 = firm((2 * p3 + 3 * p2 + p1 + p0 + q0 + 4) >> 3, p2)
            P1 = firm((p2 + p1 + p0 + q0 + 2) >> 2, p1)
            P0 = firm((p2 + 2 * p1 + 2 * p0 + 2 * q0 + q1 + 4) >> 3, p0)
            Q0 = firm((p1 + 2 * p0 + 2 * q0 + 2 * q1 + q2 + 4) >> 3, q0)
            Q1 = firm((p0 + q0 + q1 + q2 + 2) >> 2, q1)
            Q2 = firm((p0 + q0 + q1 + 3 * q2 + 2 * q3 + 4) >> 3, q2)
        else:
            m = (9 * (q0 - p0) - 3 * (q1 - p1) + 8) >> 4
            if abs(m) < 10 * change:
                m = clamp(m, -change, change)
                P0, Q0 = p0 + m, q0 - m
                if bend_p[0] + bend_p[3] < even:
                    P1 = p1 + clamp((((p2 + p0 + 1) >> 1) - p1 + m) >> 1, -(change // 2), change // 2)
                if bend_q[0] + bend_q[3] < even:
                    Q1 = q1 + clamp((((q2 + q0 + 1) >> 1) - q1 - m) >> 1, -(change // 2), change // 2)
        found.append([p3, P2, P1, P0, Q0, Q1, Q2, q3])
    return found


def block_pixels(coefficients: Ints, scale: int, layout: NDArray[np.uint8]) -> Ints:
    """Z, of (8.10)."""
    sides = (32 >> layout.astype(np.int64) // 35).tolist()
    step, found = step_of(scale), []
    for pixels in pixels_before_edges(coefficients, scale, layout).tolist():
        upright = smoothed(pixels, sides, step)
        found.append(turned(smoothed(turned(upright), turned(sides), step)))
    return np.array(found, dtype=np.int64)


def turned(rows: Rows) -> Rows:
    """Rows and columns exchanged."""
    return [list(column) for column in zip(*rows, strict=True)]
