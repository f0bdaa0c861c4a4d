"""The geometry of chunks, latent steps, blocks and bits (spec section 3): plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

SPATIAL_FACTOR = 8
"""Pixels a token covers in each direction of space."""
TEMPORAL_FACTOR = 4
"""Frames a latent step covers, but for a chunk's first step, which holds one."""
BLOCK_TOKENS = 4
"""Tokens along each side of a block of the bit allocation map (32 pixels)."""
MOTION_TOKENS = 2
"""Tokens along each side of a block of a motion map, where there is one (16 pixels)."""
MOTION_MAPS = 7
"""Motion maps of a step, where there are several: one of its last frame, two of each other."""
STEP_FRAMES = (4, 2, 1)
"""Frames that a later step can show where there are seven maps: all of them; the middle and the last; the last."""
MAX_VECTOR = 511
"""Largest magnitude of a component of a motion vector, in half pixels."""
PICTURE_LEVELS = 5
"""Times that a first picture is halved, where it is coded by wavelets."""
BLOCK_CELL = 4
"""Pixels along each side of the smallest block of a first picture by blocks."""
RESIDUAL_SPACING = 4
"""Pixels between the coefficients of a residual: of the transform of pictures its two finest sizes are left out."""
RESIDUAL_LEVELS = 3
"""Sizes of it that are left."""
MAX_SCALE = 63
"""Largest number of the step of its quantizer."""
SCALES_IN_OCTAVE = 4
"""By which the step of the quantizer doubles."""
MAX_COEFFICIENT = 32767
"""Largest magnitude of one of its coefficients."""
BITS_PER_TOKEN = 18
"""Bits of one token, K."""
LEVEL_BITS = (0, 3, 6, 9, 12, 15, 18)
"""Bits kept at each allocation level; levels 1 to 6 are the quality levels of the command line."""
MAX_SIDE_PIXELS = 16384
"""Longest side of a picture that a file can state (spec section 10.1)."""
MAX_PICTURE_PIXELS = 1 << 25
"""Width x height beyond which pictures are refused, by the encoder and by a reader's default limits
(spec section 10.2); 7680x4320 is within."""


def usual_steps(step_frames: tuple[int, ...]) -> tuple[int, ...]:
    """Frames of a chunk's later steps, as they are listed: nothing where each shows all four."""
    return () if set(step_frames) <= {TEMPORAL_FACTOR} else step_frames


@dataclass(frozen=True, kw_only=True)
class TokenGeometry:
    """What a token means, as a file's header states it.

    Attributes:
        bits_per_token: K, 1 to 64.
        level_bits: Bits kept at each allocation level, strictly rising from 0 to K; 2 to 16 entries.
        spatial_factor: Pixels along each side of a token.
        temporal_factor: Frames in each latent step but the first.
        block_tokens: Tokens along each side of an allocation block.
        motion_tokens: Tokens along each side of a motion block; 0 where later steps carry no motion map.
        motion_maps: Motion maps of each later step, one below the other: 1 or 7; 1 where there are none.
        pictures: Whether a chunk's first picture is coded by coefficients (spec sections 3.6 and 3.8); then its first
            step keeps no bits.
        residuals: Whether later steps may have residuals by wavelets (spec section 3.7).
        intra: Whether a chunk's first picture is coded by blocks and not by wavelets (spec section 3.8); then
            `pictures` is true, too.
        motion_network: Whether motion maps are coded with a network (spec section 7.14); only where there are seven.
        second_reference: Whether blocks of last frames may come from the chunk's first picture, or from the mean of it
            and of the picture before (spec section 3.5); then a choice map stands below the seven, and `pictures` is
            true.
    """

    bits_per_token: int = BITS_PER_TOKEN
    level_bits: tuple[int, ...] = LEVEL_BITS
    spatial_factor: int = SPATIAL_FACTOR
    temporal_factor: int = TEMPORAL_FACTOR
    block_tokens: int = BLOCK_TOKENS
    motion_tokens: int = 0
    motion_maps: int = 1
    pictures: bool = False
    residuals: bool = False
    intra: bool = False
    motion_network: bool = False
    second_reference: bool = False

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Token rows and columns of a picture of `height` x `width` pixels."""
        return -(-height // self.spatial_factor), -(-width // self.spatial_factor)

    def blocks(self, rows: int, columns: int) -> tuple[int, int]:
        """Allocation block rows and columns of a token grid."""
        return -(-rows // self.block_tokens), -(-columns // self.block_tokens)

    def motion_blocks(self, rows: int, columns: int) -> tuple[int, int]:
        """Motion block rows and columns of a token grid, rows of all maps of a step; none without motion maps."""
        if not self.motion_tokens:
            return 0, 0
        return self.step_maps * -(-rows // self.motion_tokens), -(-columns // self.motion_tokens)

    @property
    def step_maps(self) -> int:
        """Maps of a step, one below the other: those of motion, and the choice map, where there is one."""
        return self.motion_maps + self.second_reference

    def steps(self, frames: int, step_frames: tuple[int, ...] = ()) -> int:
        """Latent steps of a chunk of `frames` frames: 1 for the first, then one for each started four, or as listed.

        Args:
            frames: Of the chunk.
            step_frames: Frames that each later step shows, where they are listed (spec section 3.2).
        """
        return 1 + (len(step_frames) or -(-(frames - 1) // self.temporal_factor))

    def frames_of_step(self, step: int, step_frames: tuple[int, ...] = ()) -> int:
        """Frames that a step shows, those beyond the chunk's last among them: 1 of the first.

        Args:
            step: Its number in the chunk.
            step_frames: As for :meth:`steps`.
        """
        if step == 0:
            return 1
        return step_frames[step - 1] if step_frames else self.temporal_factor


DEFAULT_GEOMETRY = TokenGeometry()
