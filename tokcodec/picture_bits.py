"""The coefficients of a picture <-> bits (spec section 7.11): integers only.

Coefficients lie where the transform leaves them (spec section 8.7): those of a band are every so many rows and columns
of one array. Bands are coded from coarse to fine, of each band the colours one after the other, of each colour four
phases, so that what is around a coefficient is known in part, and so is what lies there in the coarser band, in bands
of other directions and in other colours. A network says of all that how likely the decisions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tokcodec.bands import BANDS, PHASES, Band
from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.picture_context import Magnitudes, PictureContext
from tokcodec.probability.picture_network import COLOURS, INPUTS, PictureNetwork

EVEN = 32768
"""16-bit probability of a half."""


class Coder(Protocol):
    """Passes bits through the range coder; the bits that go in are ignored when decoding."""

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Codes bits under 16-bit probabilities that they are 1; returns the bits."""


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
                context = PictureContext(known, band, colour, scale)
                for phase in range(len(PHASES)):
                    self._code_phase(coder, values[colour], sizes[colour], context, (band.number, colour, phase))
                if not sizes[colour].any():
                    raise CorruptStreamError("a band of a picture has no coefficient", hint="the file is damaged")
        return found

    def _code_phase(
        self,
        coder: Coder,
        values: NDArray[np.int16],
        sizes: Magnitudes,
        context: PictureContext,
        place: tuple[int, int, int],
    ) -> None:
        down, right = PHASES[place[2]]
        wanted = values[down::2, right::2]
        if not wanted.size:
            return
        probabilities = self._probabilities(context.inputs(place[2]), *place)
        found = code_coefficients(coder, wanted.reshape(-1), probabilities)
        values[down::2, right::2] = found.reshape(wanted.shape)
        sizes[down::2, right::2] = np.minimum(np.abs(found), 255).reshape(wanted.shape)

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


def code_scale(coder: Coder, scale: int) -> int:
    """Codes the number of a quantizer's step, 0 to `MAX_SCALE`, bit by bit from above; a decoder ignores its own."""
    found = 0
    for bit in range(MAX_SCALE.bit_length() - 1, -1, -1):
        coded = coder.code(np.asarray([scale >> bit & 1], np.uint8), np.asarray([EVEN], np.int32))
        found = 2 * found + int(coded[0])
    return found
