"""Frames <-> tokens: the geometry of chunks, latent steps, blocks and bits (spec section 3).

Plain numbers and NumPy arrays; nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPATIAL_FACTOR = 8
"""Pixels a token covers in each direction of space."""
TEMPORAL_FACTOR = 4
"""Frames a latent step covers, but for a chunk's first step, which holds one."""
BLOCK_TOKENS = 4
"""Tokens along each side of a block of the bit allocation map (32 pixels)."""
BITS_PER_TOKEN = 18
"""Bits of one token, K."""
LEVEL_BITS = (0, 3, 6, 9, 12, 15, 18)
"""Bits kept at each allocation level; levels 1 to 6 are the quality levels of the command line."""


@dataclass(frozen=True, kw_only=True)
class TokenGeometry:
    """What a token means, as a file's header states it.

    Attributes:
        bits_per_token: K, 1 to 64.
        level_bits: Bits kept at each allocation level, strictly rising from 0 to K; 2 to 16 entries.
        spatial_factor: Pixels along each side of a token.
        temporal_factor: Frames in each latent step but the first.
        block_tokens: Tokens along each side of an allocation block.
    """

    bits_per_token: int = BITS_PER_TOKEN
    level_bits: tuple[int, ...] = LEVEL_BITS
    spatial_factor: int = SPATIAL_FACTOR
    temporal_factor: int = TEMPORAL_FACTOR
    block_tokens: int = BLOCK_TOKENS

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns of a picture of `height` x `width` pixels."""
        return -(-height // self.spatial_factor), -(-width // self.spatial_factor)

    def blocks(self, rows: int, columns: int) -> tuple[int, int]:
        """Allocation block rows and columns of a token grid."""
        return -(-rows // self.block_tokens), -(-columns // self.block_tokens)

    def steps(self, frames: int) -> int:
        """Latent steps of a chunk of `frames` frames: 1 for the first, then one for each started four."""
        return 1 + -(-(frames - 1) // self.temporal_factor)


DEFAULT_GEOMETRY = TokenGeometry()


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
