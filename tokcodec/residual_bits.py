"""The residuals of a chunk's later steps <-> bits (spec section 7.12): integers only.

Coefficients are coded as those of a first picture, by a network of their own. Whether a step has any, at which scale,
and in which bands follows the residual before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokcodec.bands import bands_of
from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import RESIDUAL_LEVELS
from tokcodec.picture_bits import Coder, PictureTraversal, code_scale
from tokcodec.probability.picture_network import COLOURS, PictureNetwork

RESIDUAL_BANDS = bands_of(RESIDUAL_LEVELS)
"""Those of the array of coefficients that is coded; the ten coarsest of a picture."""
LIKELY, SELDOM = 61440, 4096
"""16-bit probabilities of what was so before, and of what was not."""


class ResidualTraversal:
    """Codes the residuals of a chunk, step by step, in both directions.

    Args:
        network: Says how likely decisions are.
    """

    def __init__(self, network: PictureNetwork) -> None:
        self._traversal = PictureTraversal(network, RESIDUAL_BANDS)
        self._there, self._scale = False, -1
        self._has = np.zeros((len(RESIDUAL_BANDS), COLOURS), np.bool_)

    def code_step(self, coder: Coder, coefficients: NDArray[np.int16], scale: int | None) -> int | None:
        """Codes the residual of the next step.

        Args:
            coder: Of the chunk.
            coefficients: int16 `(3, 2 rows, 2 columns)`; a decoder fills it, zero before.
            scale: Number of the quantizer's step; None where there is no residual; a decoder ignores it.

        Returns:
            The scale, or None.

        Raises:
            CorruptStreamError: A residual is zero everywhere, or its scale is said anew and is the same.
        """
        self._there = _decide(coder, scale is not None, LIKELY if self._there else SELDOM)
        if not self._there:
            return None
        wanted = -1 if scale is None else scale
        if self._scale < 0:
            self._scale = code_scale(coder, wanted)
        elif not _decide(coder, wanted == self._scale, LIKELY):
            before, self._scale = self._scale, code_scale(coder, wanted)
            if before == self._scale:
                raise CorruptStreamError("a residual has another scale that is the same", hint="the file is damaged")
        likely = np.where(self._has, LIKELY, SELDOM).astype(np.int32)
        self._has = self._traversal.code_bands(coder, coefficients, self._scale, likely=likely)
        if not self._has.any():
            raise CorruptStreamError("a residual has no coefficient", hint="the file is damaged")
        return self._scale


def _decide(coder: Coder, what: bool, probability: int) -> bool:
    return bool(coder.code(np.asarray([what], np.uint8), np.asarray([probability], np.int32))[0])
