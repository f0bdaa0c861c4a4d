"""Tokens as arrays: what lies between the tokenizer and the entropy coder (spec section 3). No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tokcodec.geometry import BLOCK_CELL, DEFAULT_GEOMETRY, MAX_SCALE, RESIDUAL_SPACING, SCALES_IN_OCTAVE, TokenGeometry

__all__ = [
    "DEFAULT_GEOMETRY",
    "Picture",
    "TokenChunk",
    "TokenGeometry",
    "layout_shape",
    "masks",
    "picture_shape",
    "residual_shape",
    "spread_levels",
    "truncate",
]


_NO_VECTORS = np.zeros((0, 0, 0, 2), np.int16)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chunk's first picture, or the residual of a later step, as coefficients (spec 3.6 to 3.8).

    Attributes:
        coefficients: int16, each within `MAX_COEFFICIENT`: `(3, H, W)` of a picture, H and W those of the token grid in
            pixels; `(3, H / 4, W / 4)` of a residual, every `RESIDUAL_SPACING`th of them.
        scale: Number of the quantizer's step, 0 to `MAX_SCALE`.
        blocks: Of a first picture by blocks its layout, uint8 `(H / 4, W / 4)`, see
            :mod:`tokcodec.picture_layout`; then its coefficients are cosines, each block's where the block is. None
            where they are wavelets.
    """

    coefficients: NDArray[np.int16]
    scale: int
    blocks: NDArray[np.uint8] | None = None

    def coarser(self, halvings: int) -> Picture:
        """One of wavelets with a step that is twice as large, so many times, or as often as it can be.

        Raises:
            ValueError: It is one by blocks, of which :func:`tokcodec.intra.coarser` makes a coarser one.
        """
        if self.blocks is not None:
            raise ValueError("the coefficients of blocks cannot be halved: others are predicted by them")
        halvings = min(halvings, (MAX_SCALE - self.scale) // SCALES_IN_OCTAVE)
        sizes = np.abs(self.coefficients) >> halvings
        return Picture(
            coefficients=np.where(self.coefficients < 0, -sizes, sizes).astype(np.int16),
            scale=self.scale + SCALES_IN_OCTAVE * halvings,
        )


def picture_shape(geometry: TokenGeometry, rows: int, columns: int) -> tuple[int, int, int]:
    """Of the coefficients of a first picture of so many tokens."""
    return 3, geometry.spatial_factor * rows, geometry.spatial_factor * columns


def layout_shape(geometry: TokenGeometry, rows: int, columns: int) -> tuple[int, int]:
    """Of the layout of a first picture by blocks of so many tokens."""
    _, height, width = picture_shape(geometry, rows, columns)
    return height // BLOCK_CELL, width // BLOCK_CELL


def residual_shape(geometry: TokenGeometry, rows: int, columns: int) -> tuple[int, int, int]:
    """Of the coefficients of a residual of so many tokens."""
    colours, height, width = picture_shape(geometry, rows, columns)
    return colours, height // RESIDUAL_SPACING, width // RESIDUAL_SPACING


@dataclass(frozen=True, kw_only=True)
class TokenChunk:
    """The tokens of one chunk, in canonical form: bits that are not kept are zero.

    Attributes:
        indices: uint64 `(steps, rows, columns)`; bit i (0 = least significant = most important) is
            `[z_(i+1) > 0]` of MAGVIT-v2 eq. 4.
        levels: uint8 `(steps, block_rows, block_columns)`, an index into `geometry.level_bits`.
        geometry: What the numbers mean.
        vectors: Motion maps, int16 `(steps, motion_rows, motion_columns, 2)`: half pixels, x before y, each within
            `MAX_VECTOR`; zero in the first step; rows of all maps of a step, one below the other. Without any,
            `(steps, 0, 0, 2)` where the geometry has no motion, and all zero where it has.
        picture: The first one, where the geometry has `pictures`; then the first step keeps nothing.
        residuals: Of each later step, in order, where the geometry has `residuals`; None where a step has none, for
            no residual is zero everywhere. Without any given, no step has one.
    """

    indices: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    geometry: TokenGeometry = DEFAULT_GEOMETRY
    vectors: NDArray[np.int16] = field(default_factory=lambda: _NO_VECTORS)
    picture: Picture | None = None
    residuals: tuple[Picture | None, ...] = ()

    def __post_init__(self) -> None:
        if self.geometry.residuals and not self.residuals:
            object.__setattr__(self, "residuals", (None,) * (len(self.indices) - 1))
        if self.vectors is _NO_VECTORS and self.indices.ndim == 3:
            steps, rows, columns = self.indices.shape
            still = np.zeros((steps, *self.geometry.motion_blocks(rows, columns), 2), np.int16)
            object.__setattr__(self, "vectors", still)

    def residual_of(self, step: int) -> Picture | None:
        """The residual of a step; None where it has none, as the first."""
        return self.residuals[step - 1] if step and self.residuals else None

    def kept_bits(self) -> NDArray[np.uint8]:
        """Bits kept at each token: uint8 `(steps, rows, columns)`."""
        kept = np.empty(self.indices.shape, dtype=np.uint8)
        for step, bits in enumerate(kept):
            bits[...] = self.kept_bits_of(step)
        return kept

    def kept_bit_count(self) -> int:
        """Bits kept of all tokens together, which is their raw size."""
        return sum(int(self.kept_bits_of(step).sum(dtype=np.int64)) for step in range(len(self.levels)))

    def kept_bits_of(self, step: int) -> NDArray[np.uint8]:
        """Bits kept at each token of one step: uint8 `(rows, columns)`."""
        _, rows, columns = self.indices.shape
        return spread_levels(self.levels[step], self.geometry, rows=rows, columns=columns)


def spread_levels(levels: NDArray[np.uint8], geometry: TokenGeometry, *, rows: int, columns: int) -> NDArray[np.uint8]:
    """Bits kept at each token, uint8 `(rows, columns)`, by the levels of the blocks, `(block_rows, block_columns)`."""
    side = geometry.block_tokens
    table = np.asarray(geometry.level_bits, dtype=np.uint8)
    full: NDArray[np.uint8] = table[levels].repeat(side, axis=0).repeat(side, axis=1)
    return full[:rows, :columns]


_MASKS = np.asarray([(1 << bits) - 1 for bits in range(65)], dtype=np.uint64)


def masks(kept: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """For each number of kept bits, 0 to 64, the bits that are kept."""
    return _MASKS[kept]


def truncate(chunk: TokenChunk, levels: NDArray[np.uint8]) -> TokenChunk:
    """Keep at most the bits that `levels` allows; the lower of the old and the new level counts.

    Args:
        chunk: Tokens in canonical form.
        levels: uint8, same shape as `chunk.levels`.
    """
    lower = np.minimum(chunk.levels, levels)
    kept = replace(chunk, indices=chunk.indices.copy(), levels=lower)
    for step, indices in enumerate(kept.indices):
        indices &= masks(kept.kept_bits_of(step))
    return kept
