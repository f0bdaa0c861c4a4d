"""A chunk's first picture as a second reference (spec 3.5, 8.5): where a block of a last frame was in it.

What hides behind something and comes out again was in the first picture, which is the best one of its chunk; and the
mean of two pictures has less of the errors of either. One vector says both: where a block was in the picture before,
and, with what those steps said of that place, where it was in the first one. What comes out from behind something has
that thing's vectors behind it, so medians of those around stand for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MOTION_TOKENS
from tokcodec.tokenizer.motion import BLOCK, VECTORS_PER_PIXEL

WINDOW = 7
"""Blocks along each side of the neighbourhoods whose median motion since the first picture counts."""
FARTHEST = 32767
"""Largest magnitude of a component of motion since the first picture, in half pixels."""
_UNITS = BLOCK * VECTORS_PER_PIXEL

Field = NDArray[np.int32]


class Chosen(NamedTuple):
    """Blocks of a step's last frame that come from the chunk's first picture, or from the mean of both.

    Attributes:
        blocks: From where, the numbers of a choice map: int64 `(N, rows, columns)`.
        vectors: From where they, and all others, would come: half pixels, x before y, int64 `(N, 2, rows, columns)`.
    """

    blocks: Tensor
    vectors: Tensor

    def of_tokens(self, rows: int, columns: int) -> Tensor:
        """1 for tokens of these blocks, else 0: float32 `(N, 1, rows, columns)`."""
        whole = (self.blocks != 0).repeat_interleave(MOTION_TOKENS, 1).repeat_interleave(MOTION_TOKENS, 2)
        return whole[:, None, :rows, :columns].float()


class Places:
    """Where the blocks of a chunk's last decoded frame were in its first picture.

    Args:
        since: Half pixels, x before y, int32 `(rows, columns, 2)`; zeros after the first picture.
    """

    def __init__(self, since: Field) -> None:
        self._rows, self._columns = since.shape[:2]
        side = WINDOW // 2
        framed = np.pad(since, ((side, side), (side, side), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(framed, (WINDOW, WINDOW), axis=(0, 1))
        flat = windows.reshape(self._rows * self._columns, 2, WINDOW**2)
        self._middles: Field = np.partition(flat, WINDOW**2 // 2, axis=-1)[..., WINDOW**2 // 2]
        y, x = np.indices((self._rows, self._columns)).reshape(2, -1)
        self._centres = (np.stack([x, y], axis=-1) * _UNITS + _UNITS // 2).astype(np.int32)

    @classmethod
    def at_start(cls, rows: int, columns: int) -> Places:
        """After a first picture of so many blocks."""
        return cls(np.zeros((rows, columns, 2), np.int32))

    def of(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Field:
        """Vectors into the first picture.

        Args:
            vectors: Into the picture before, half pixels, x before y: `(..., rows, columns, 2)`, or `(..., n, 2)` of
                some blocks.
            blocks: Numbers of these, row-major, `(n,)`.

        Returns:
            int32, the shape of `vectors`.
        """
        flat = vectors.astype(np.int32)
        if blocks is None:
            flat = flat.reshape(*vectors.shape[:-3], -1, 2)
        at = (flat + (self._centres if blocks is None else self._centres[blocks])) // _UNITS
        place = at[..., 1].clip(0, self._rows - 1) * self._columns + at[..., 0].clip(0, self._columns - 1)
        found: Field = (flat + self._middles[place]).clip(-FARTHEST, FARTHEST).reshape(vectors.shape)
        return found

    def after(self, vectors: NDArray[np.integer]) -> Places:
        """The same after a step whose last frame moved by these, `(rows, columns, 2)`."""
        return Places(self.of(vectors))

    def chosen(self, vectors: NDArray[np.integer], choice: NDArray[np.integer], device: torch.device) -> Chosen | None:
        """The blocks of a step that come from the first picture, or from both; None where there are none.

        Args:
            vectors: Of its last frame, `(rows, columns, 2)`.
            choice: Its choice map, `(rows, columns, 2)`, see :mod:`tokcodec.choice_bits`.
            device: Where the result is.
        """
        blocks = choice[..., 0].astype(np.int64)
        if not blocks.any():
            return None
        far = torch.from_numpy(self.of(vectors).astype(np.int64)).permute(2, 0, 1)
        return Chosen(torch.from_numpy(blocks)[None].to(device), far[None].to(device))
