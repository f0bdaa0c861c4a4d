"""Tokens as arrays: what lies between the tokenizer and the entropy coder (spec section 3). No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokcodec.geometry import DEFAULT_GEOMETRY, TokenGeometry

__all__ = ["DEFAULT_GEOMETRY", "TokenChunk", "TokenGeometry", "truncate"]


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """The tokens of one chunk, in canonical form: bits that are not kept are zero.

    Attributes:
        indices: uint64 `(steps, rows, columns)`; bit i (0 = least significant = most important) is
            `[z_(i+1) > 0]` of MAGVIT-v2 eq. 4.
        levels: uint8 `(steps, block_rows, block_columns)`, an index into `geometry.level_bits`.
        geometry: What the numbers mean.
    """

    indices: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    geometry: TokenGeometry = DEFAULT_GEOMETRY

    def kept_bits(self) -> NDArray[np.uint8]:
        """Bits kept at each token: uint8 `(steps, rows, columns)`."""
        table = np.asarray(self.geometry.level_bits, dtype=np.uint8)
        side = self.geometry.block_tokens
        full = table[self.levels].repeat(side, axis=1).repeat(side, axis=2)
        _, rows, columns = self.indices.shape
        return full[:, :rows, :columns]


def truncate(chunk: TokenChunk, levels: NDArray[np.uint8]) -> TokenChunk:
    """Keep at most the bits that `levels` allows; the lower of the old and the new level counts.

    Args:
        chunk: Tokens in canonical form.
        levels: uint8, same shape as `chunk.levels`.
    """
    lower = np.minimum(chunk.levels, levels)
    kept = TokenChunk(indices=chunk.indices, levels=lower, geometry=chunk.geometry).kept_bits()
    mask = np.asarray([(1 << b) - 1 for b in range(65)], dtype=np.uint64)[kept]
    return TokenChunk(indices=chunk.indices & mask, levels=lower, geometry=chunk.geometry)
