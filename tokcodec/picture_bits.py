"""The coefficients of a picture <-> bits (spec section 7.11): integers only.

Coefficients lie where the transform leaves them (spec section 8.7): those of a band are every so many rows and columns
of one array. Bands are coded from coarse to fine, of each band the colours one after the other, of each colour four
phases, so that what is around a coefficient is known in part, and so is what lies there in the coarser band, in bands
of other directions and in other colours. A network says of all that how likely the decisions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, PICTURE_LEVELS
from tokcodec.probability.picture_network import COLOURS, INPUTS, PictureNetwork

EVEN = 32768
"""16-bit probability of a half."""
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Rows and columns at which every second coefficient of a band is coded, in order."""
_SIZES = np.asarray([min(255, round(32 * np.log2(1 + m))) for m in range(256)], np.uint8)
_EDGES, _CORNERS, _FAR = ((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1)), 2

Magnitudes = NDArray[np.uint8]
"""At most 255: no context looks further."""


class Coder(Protocol):
    """Passes bits through the range coder; the bits that go in are ignored when decoding."""

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Codes bits under 16-bit probabilities that they are 1; returns the bits."""


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
_EVEN_FLAGS = np.full((len(BANDS), COLOURS), EVEN, np.int32)


class PictureTraversal:
    """Codes the coefficients of one picture, in both directions (spec section 7.11).

    Args:
        network: Says how likely decisions are.
        bands: What there is of a picture.
    """

    def __init__(self, network: PictureNetwork, bands: Sequence[Band] = BANDS) -> None:
        self._network, self._bands = network, bands

    def code(self, coder: Coder, coefficients: NDArray[np.int16], scale: int) -> int:
        """Codes one picture.

        Args:
            coder: Of the chunk.
            coefficients: int16 `(3, 8 rows, 8 columns)`; a decoder fills it, zero before.
            scale: Number of the quantizer's step, 0 to `MAX_SCALE`; a decoder ignores it.

        Returns:
            The scale.

        Raises:
            CorruptStreamError: A coefficient is beyond what there is, or a band is said to have some and has none.
        """
        scale = code_scale(coder, scale)
        self.code_bands(coder, coefficients, scale, likely=_EVEN_FLAGS)
        return scale

    def code_bands(
        self, coder: Coder, coefficients: NDArray[np.int16], scale: int, *, likely: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Codes all but the scale.

        Args:
            coder: Of the chunk.
            coefficients: As for `code`, of the bands that there are.
            scale: Number of the quantizer's step.
            likely: 16-bit probability that a band has coefficients of a colour, `(bands, 3)`.

        Returns:
            Which have some, `(bands, 3)`.

        Raises:
            CorruptStreamError: As for `code`.
        """
        known: list[Magnitudes] = []
        found = np.zeros(likely.shape, np.bool_)
        for band in self._bands:
            values = coefficients[:, band.rows, band.columns]
            sizes = np.zeros(values.shape, np.uint8)
            known.append(sizes)
            if not values.size:
                continue
            for colour in range(COLOURS):
                there = np.asarray([values[colour].any()], np.uint8)
                if not coder.code(there, likely[band.number, colour : colour + 1])[0]:
                    continue
                found[band.number, colour] = True
                for phase in range(len(PHASES)):
                    self._code_phase(coder, values[colour], known, band, colour, phase, scale)
                if not sizes[colour].any():
                    raise CorruptStreamError("a band of a picture has no coefficient", hint="the file is damaged")
        return found

    def _code_phase(
        self,
        coder: Coder,
        values: NDArray[np.int16],
        known: list[Magnitudes],
        band: Band,
        colour: int,
        phase: int,
        scale: int,
    ) -> None:
        down, right = PHASES[phase]
        wanted = values[down::2, right::2]
        if not wanted.size:
            return
        inputs = contexts(known, band, colour, phase, scale)
        probabilities = self._probabilities(inputs, band.number, colour, phase)
        found = code_coefficients(coder, wanted.reshape(-1), probabilities)
        values[down::2, right::2] = found.reshape(wanted.shape)
        known[band.number][colour, down::2, right::2] = np.minimum(np.abs(found), 255).reshape(wanted.shape)

    def _probabilities(self, inputs: NDArray[np.uint8], band: int, colour: int, phase: int) -> NDArray[np.int32]:
        """Those of the network, which looks once at all coefficients around which there is nothing."""
        busy = np.flatnonzero(inputs[:, :-1].any(axis=1))
        rows = np.concatenate([inputs[busy], np.zeros((1, INPUTS), np.uint8)])
        rows[-1, -1] = inputs[0, -1]
        found = self._network.probabilities(rows, band=band, colour=colour, phase=phase)
        spread = np.broadcast_to(found[-1], (len(inputs), found.shape[1])).copy()
        spread[busy] = found[:-1]
        return spread


def code_coefficients(coder: Coder, wanted: NDArray[np.int16], probabilities: NDArray[np.int32]) -> NDArray[np.int32]:
    """Codes coefficients `(n,)`: whether each is there, the signs of those that are, and their magnitudes.

    Args:
        coder: Of the chunk.
        wanted: A decoder's are of no account.
        probabilities: Of the decisions, 16 bits, `(n, OUTPUTS)`.

    Raises:
        CorruptStreamError: One is beyond what there is.
    """
    flat = wanted.astype(np.int32)
    there = np.flatnonzero(coder.code((flat != 0).astype(np.uint8), probabilities[:, 0]))
    found = np.zeros(flat.size, np.int32)
    if there.size:
        negative = coder.code((flat[there] < 0).astype(np.uint8), np.full(there.size, EVEN, np.int32))
        size = _code_sizes(coder, np.abs(flat[there]), probabilities[there])
        if size.max() > MAX_COEFFICIENT:
            raise CorruptStreamError(f"a coefficient beyond {MAX_COEFFICIENT}", hint="the file is damaged")
        found[there] = np.where(negative, -size, size)
    return found


def _code_sizes(coder: Coder, size: NDArray[np.int32], probabilities: NDArray[np.int32]) -> NDArray[np.int32]:
    """Codes magnitudes of 1 and more: above 1? above 2? then the rest, by its length."""
    found = np.ones(size.size, np.int32)
    left = np.arange(size.size)
    for number in (1, 2):
        above = coder.code((size[left] > number).astype(np.uint8), probabilities[left, number])
        left = left[above > 0]
        found[left] += 1
        if not left.size:
            return found
    rest = np.maximum(size[left] - 2, 1)  # 1 and more
    wanted = np.frexp(rest)[1] - 1
    length = np.zeros(left.size, np.int32)
    going = np.arange(left.size)
    for number in range(MAX_COEFFICIENT.bit_length() - 1):
        longer = coder.code((wanted[going] > number).astype(np.uint8), probabilities[left[going], 3])
        going = going[longer > 0]
        if not going.size:
            break
        length[going] += 1
    value = np.ones(left.size, np.int32)
    for number in range(int(length.max())):
        at = np.flatnonzero(length > number)
        bits = (rest[at] >> np.maximum(length[at] - 1 - number, 0) & 1).astype(np.uint8)
        value[at] = 2 * value[at] + coder.code(bits, np.full(at.size, EVEN, np.int32))
    found[left] = value + 2
    return found


def contexts(known: list[Magnitudes], band: Band, colour: int, phase: int, scale: int) -> NDArray[np.uint8]:
    """What is known around the coefficients of a phase, row-major: uint8 `(n, INPUTS)` (spec section 7.11).

    Args:
        known: Magnitudes of every band so far, up to 255, `(3, rows, columns)`; 0 where they are not known yet.
        band: The last of these.
        colour: Of the coefficients.
        phase: An index into `PHASES`.
        scale: Number of the quantizer's step.
    """
    down, right = PHASES[phase]
    own = known[band.number][colour]
    rows, columns = own[down::2, right::2].shape
    framed = np.pad(own, 2)

    def at(array: Magnitudes, way: tuple[int, int], margin: int) -> Magnitudes:
        top, left = down + margin + way[0], right + margin + way[1]
        return array[top::2, left::2][:rows, :columns]

    def around(array: Magnitudes) -> list[NDArray[np.integer]]:
        """There, and the sum of the eight around; where the array ends sooner there is nothing."""
        cut = array[: own.shape[0], : own.shape[1]]
        near = np.pad(cut, [(1, 1 + wanted - has) for wanted, has in zip(own.shape, cut.shape, strict=True)])
        return [at(near, (0, 0), 1), _total([at(near, way, 1) for way in (*_EDGES, *_CORNERS)])]

    edges, corners = ([at(framed, way, 2) for way in ways] for ways in (_EDGES, _CORNERS))
    far = [at(framed, (_FAR * y, _FAR * x), 2) for y, x in _EDGES]
    parts: list[NDArray[np.integer] | None] = [*edges, *corners]
    parts += [_total(group) for group in (edges, corners, far)]
    if band.coarser is None:
        parts += [None] * 2
    else:
        parts += around(known[band.coarser][colour].repeat(2, axis=0).repeat(2, axis=1))
    for number in range(2):
        parts += around(known[band.others[number]][colour]) if number < len(band.others) else [None] * 2
    for other in range(2):
        parts += around(known[band.number][other]) if other < colour else [None] * 2
    inputs = np.zeros((rows * columns, INPUTS), np.uint8)
    for place, part in enumerate(parts):
        if part is not None:
            inputs[:, place] = sizes_of(part).reshape(-1)
    inputs[:, -1] = 4 * scale
    return inputs


def sizes_of(magnitudes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Magnitudes, or sums of them, as networks see them."""
    found: NDArray[np.uint8] = _SIZES[np.minimum(magnitudes, 255)]
    return found


def _total(parts: list[Magnitudes]) -> NDArray[np.int32]:
    found = np.zeros(parts[0].shape, np.int32)
    for part in parts:
        found += part
    return found


def code_scale(coder: Coder, scale: int) -> int:
    """Codes the number of a quantizer's step, 0 to `MAX_SCALE`, bit by bit from above; a decoder ignores its own."""
    found = 0
    for bit in range(MAX_SCALE.bit_length() - 1, -1, -1):
        coded = coder.code(np.asarray([scale >> bit & 1], np.uint8), np.asarray([EVEN], np.int32))
        found = 2 * found + int(coded[0])
    return found
