"""What the networks of coefficients are shown of each (spec section 7.11): what is known around it and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokcodec.bands import PHASES, Band
from tokcodec.probability.picture_network import INPUTS

_SIZES = np.asarray([min(255, round(32 * np.log2(1 + m))) for m in range(256)], np.uint8)
_EDGES, _CORNERS, _REACH = ((-1, 0), (1, 0), (0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1)), 2
_OWN = len(_EDGES) + len(_CORNERS)
_SUMS = 3
_OTHERS = 2
"""Bands of the same size that came before, at most, and colours."""

Magnitudes = NDArray[np.uint8]
"""At most 255: no context looks further."""


class PictureContext:
    """Inputs of the network for the coefficients that a band has of a colour.

    Args:
        known: Magnitudes of every band so far, `(3, rows, columns)`; 0 where they are not known yet. What is asked for
            follows as the last of them is filled, in this colour.
        band: The last of these.
        colour: Of the coefficients.
        scale: Number of the quantizer's step.
    """

    def __init__(self, known: Sequence[Magnitudes], band: Band, colour: int, scale: int) -> None:
        self._own = known[band.number][colour]
        self._scale = scale
        sources: list[Magnitudes | None] = [None] * (1 + 2 * _OTHERS)
        if band.coarser is not None:
            sources[0] = known[band.coarser][colour].repeat(2, axis=0).repeat(2, axis=1)
        for place, number in enumerate(band.others):
            sources[1 + place] = known[number][colour]
        for other in range(colour):
            sources[1 + _OTHERS + other] = known[band.number][other]
        self._sources = sources
        self._elsewhere: NDArray[np.uint8] | None = None

    def inputs(self, phase: int) -> NDArray[np.uint8]:
        """Those of the coefficients of a phase, row-major: uint8 `(n, INPUTS)`.

        Args:
            phase: An index into `PHASES`.
        """
        if self._elsewhere is None:
            self._elsewhere = self._around_elsewhere()
        (down, right), (height, width) = PHASES[phase], self._own.shape
        framed = np.zeros((height + 2 * _REACH, width + 2 * _REACH), np.uint8)
        framed[_REACH:-_REACH, _REACH:-_REACH] = self._own
        rows, columns = self._own[down::2, right::2].shape

        def at(way: tuple[int, int]) -> Magnitudes:
            return framed[down + _REACH + way[0] :: 2, right + _REACH + way[1] :: 2][:rows, :columns]

        found = np.empty((INPUTS, rows, columns), np.uint8)
        for place, way in enumerate((*_EDGES, *_CORNERS)):
            found[place] = at(way)
        edges, corners = (found[part].sum(axis=0, dtype=np.uint16) for part in (slice(4), slice(4, _OWN)))
        far = at((-_REACH, 0)).astype(np.uint16)
        for way in ((_REACH, 0), (0, -_REACH), (0, _REACH)):
            far += at(way)
        found[:_OWN] = _SIZES.take(found[:_OWN])
        for place, total in enumerate((edges, corners, far)):
            found[_OWN + place] = sizes_of(total)
        found[_OWN + _SUMS : -1] = self._elsewhere[:, down::2, right::2]
        found[-1] = 4 * self._scale
        return np.ascontiguousarray(found.reshape(INPUTS, -1).T)

    def _around_elsewhere(self) -> NDArray[np.uint8]:
        """Of each other source what is there, and the sum of the eight around: `(2 * sources, rows, columns)`."""
        height, width = self._own.shape
        found = np.zeros((2 * len(self._sources), height, width), np.uint8)
        for number, source in enumerate(self._sources):
            if source is None:
                continue
            cut = source[:height, :width]  # where it ends sooner there is nothing
            framed = np.zeros((height + 2, width + 2), np.uint16)
            framed[1 : 1 + cut.shape[0], 1 : 1 + cut.shape[1]] = cut
            lines = framed[:-2] + framed[1:-1] + framed[2:]
            there = framed[1:-1, 1:-1]
            found[2 * number] = _SIZES.take(there)
            found[2 * number + 1] = sizes_of(lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:] - there)
        return found


def sizes_of(magnitudes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Magnitudes, or sums of them, as networks see them."""
    found: NDArray[np.uint8] = _SIZES.take(np.minimum(magnitudes, 255))
    return found
