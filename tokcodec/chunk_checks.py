"""Checks of a chunk's arrays before they are coded: those of an encoder come from anybody (spec sections 3 and 5.3)."""

from __future__ import annotations

import numpy as np

from tokcodec.choice_bits import MEAN
from tokcodec.errors import UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, MAX_VECTOR, MOTION_MAPS
from tokcodec.picture_layout import is_layout
from tokcodec.tokens import Picture, TokenChunk, layout_shape, masks, picture_shape, residual_shape


def _check_picture(chunk: TokenChunk) -> None:
    """Check that there is a picture where there must be one, and residuals where there may be, which can be coded."""
    if len(chunk.residuals) != (len(chunk.indices) - 1 if chunk.geometry.residuals else 0):
        raise UsageError(f"{len(chunk.residuals)} residuals do not fit {len(chunk.indices)} steps of this geometry")
    shape = residual_shape(chunk.geometry, *chunk.indices.shape[1:])
    for residual in chunk.residuals:
        if residual is not None:
            if residual.blocks is not None:
                raise UsageError("a residual has no blocks")
            _check_coefficients(residual, shape)
            if not residual.coefficients.any():
                raise UsageError("a residual is zero everywhere", hint="leave it out")
    picture = chunk.picture
    if (picture is not None) != chunk.geometry.pictures:
        raise UsageError("a chunk has a picture by coefficients where its geometry says so, and nowhere else")
    if picture is None:
        return
    if (picture.blocks is not None) != chunk.geometry.intra:
        raise UsageError("a first picture is by blocks where its geometry says so, and nowhere else")
    if picture.blocks is not None:
        layout = layout_shape(chunk.geometry, *chunk.indices.shape[1:])
        if picture.blocks.shape != layout or picture.blocks.dtype != np.uint8 or not is_layout(picture.blocks):
            raise UsageError(f"the blocks of a first picture are no layout of {layout} cells")
    _check_coefficients(picture, picture_shape(chunk.geometry, *chunk.indices.shape[1:]))
    if chunk.levels[0].any():
        raise UsageError("a first step keeps bits beside its picture")


def _check_coefficients(picture: Picture, wanted: tuple[int, int, int]) -> None:
    if picture.coefficients.shape != wanted or not 0 <= picture.scale <= MAX_SCALE:
        raise UsageError(f"a picture {picture.coefficients.shape} of scale {picture.scale} does not fit {wanted}")
    if np.abs(picture.coefficients.astype(np.int32)).max() > MAX_COEFFICIENT:
        raise UsageError(f"coefficients of a picture beyond {MAX_COEFFICIENT}")


def checked_shape(chunk: TokenChunk) -> tuple[int, int, int]:
    """Shape of a chunk's tokens, after checking that it can be coded."""
    if chunk.indices.ndim != 3 or chunk.indices.size == 0:
        raise UsageError(f"tokens of shape {chunk.indices.shape} cannot be coded")
    steps, rows, columns = chunk.indices.shape
    geometry = chunk.geometry
    if geometry.motion_network and geometry.motion_maps != MOTION_MAPS:
        raise UsageError(f"a network for motion is one of {MOTION_MAPS} maps, not of {geometry.motion_maps}")
    if chunk.levels.shape != (steps, *geometry.blocks(rows, columns)):
        raise UsageError(f"levels of shape {chunk.levels.shape} do not fit tokens of {chunk.indices.shape}")
    if chunk.levels.max() >= len(geometry.level_bits):
        raise UsageError(f"level {chunk.levels.max()} is not among the {len(geometry.level_bits)} levels")
    if chunk.vectors.shape != (steps, *geometry.motion_blocks(rows, columns), 2):
        raise UsageError(f"motion vectors of shape {chunk.vectors.shape} do not fit tokens of {chunk.indices.shape}")
    if chunk.vectors.size and (chunk.vectors[0].any() or np.abs(chunk.vectors.astype(np.int32)).max() > MAX_VECTOR):
        raise UsageError(f"motion vectors in the first step, or beyond {MAX_VECTOR} half pixels")
    if geometry.second_reference and chunk.vectors.size:
        choice = np.split(chunk.vectors, geometry.step_maps, axis=1)[-1]
        if choice[..., 1].any() or choice.min() < 0 or choice.max() > MEAN:
            raise UsageError("a choice map has other numbers than 0, 1 and 2 in x, and 0 in y")
    for step in range(steps):
        if np.any(chunk.indices[step] & ~masks(chunk.kept_bits_of(step))):
            raise UsageError("a token has bits beyond those that its block keeps", hint="call tokens.truncate")
    _check_picture(chunk)
    return steps, rows, columns
