"""A step whose tokens are known and whose levels are not: what an allocator asks of it, by decoding it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import TokenGeometry
from tokcodec.tokenizer.coding_cost import CodingCost
from tokcodec.tokenizer.hybrid import HybridEncoder
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.state import LAST_FRAME, DecoderState, Forecast
from tokcodec.tokenizer.step_length import REPEATS
from tokcodec.tokens import spread_levels

TRIED_FRAMES = slice(1, None, 2)
"""Every second frame of a step: they stand for the others where a step is only tried."""


class StepTrial:
    """See :class:`tokcodec.tokenizer.allocation.Trial`.

    Args:
        model: That codes.
        tokens: Signs, `(1, K, rows, columns)`.
        decoded: The decoder's state before the step; None for a chunk's first.
        source: The step's frames, uint8 `(F, H, W, 3)`.
        pixels: The same, padded: float32 `(1, F, 3, 8 rows, 8 columns)` in [-1, 1].
        forecast: Of the step; None for a chunk's first.
        cost: What bits have cost in the steps before.
        displacement: Of the step, where motion is coded.
        settle: Decides tokens anew for a mask of kept bits, both `(1, K, rows, columns)`, where tokens depend on it.
    """

    def __init__(
        self,
        model: Tokenizer,
        tokens: Tensor,
        decoded: DecoderState | None,
        source: Tensor,
        *,
        pixels: Tensor,
        forecast: Forecast | None,
        cost: CodingCost,
        displacement: Tensor | None,
        settle: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._displacement, self._pixels, self._settle = displacement, pixels, settle
        self._model, self._tokens, self._decoded, self._source = model, tokens, decoded, source
        self._forecast, self._cost = forecast, cost
        self.was_priced, self.transform = False, model.config.hybrid
        self._shown = LAST_FRAME if model.config.hybrid else TRIED_FRAMES
        self._compared = slice(-1, None) if model.config.hybrid else TRIED_FRAMES
        self.geometry = model.config.geometry
        self.first = decoded is None
        hybrid_later = model.config.hybrid and not self.first
        self.frames = REPEATS[len(source)] if hybrid_later else float(len(source))
        self._grid = rows, columns = tokens.shape[-2:]
        heights, widths = (_block_sizes(count, self.geometry.block_tokens) for count in (rows, columns))
        self.tokens = np.outer(heights, widths)

    def kept(self, levels: NDArray[np.uint8]) -> Tensor:
        """Mask of the bits kept: `(1, K, rows, columns)`."""
        rows, columns = self._grid
        kept_bits = spread_levels(levels, self.geometry, rows=rows, columns=columns)
        return kept_mask(kept_bits, self._tokens.shape[1], self._tokens)

    def coded_bits(self, levels: int) -> NDArray[np.float64]:
        """Expected bits of each block at each of the first levels, by what steps before it cost."""
        self.was_priced = True
        table = self.geometry.level_bits[:levels]
        side = self.geometry.block_tokens
        bits = self._tokens[0, : table[-1]].to(torch.int8).cpu().numpy()
        costs = _block_sums(self._cost.estimate(bits), side)
        sums = np.concatenate([np.zeros_like(costs[:1]), costs.cumsum(axis=0, dtype=np.float64)])
        found: NDArray[np.float64] = sums[list(table)]
        return found

    def linear(self, levels: int) -> NDArray[np.float64] | None:
        """Squared error of each block at each of the first levels if nothing but the transform was there."""
        encoder = self._model.encoder
        if not isinstance(encoder, HybridEncoder):
            return None
        wanted = self._pixels[:, -1] if self._forecast is None else self._pixels[:, -1] - self._forecast.frames[:, -1]
        transform = encoder.first if self.first else encoder.later
        errors = self.frames * transform.errors(self._tokens, wanted)[:, 0].cpu().numpy()
        table = self.geometry.level_bits[:levels]
        return _block_sums(errors[list(table)].astype(np.float64), self.geometry.block_tokens)

    def distortions(self, levels: Sequence[int]) -> NDArray[np.float64]:
        """Squared error of each block at each level, of a step of four by every second frame, or by its last."""
        found = []
        for level in levels:
            if level == 0 and self._forecast is not None:
                frames = self._forecast.frames
                found.append(self._errors(frames if frames.shape[1] == 1 else frames[:, TRIED_FRAMES]))
            else:
                found.append(self.distortion(np.full(self.tokens.shape, level, np.uint8)))
        return np.stack(found)

    def distortion(self, levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Squared error of each block at these levels, of a step of four by every second frame, or by its last."""
        kept = self.kept(levels)
        tokens = self._tokens if self._settle is None else self._settle(kept)
        pixels, _ = self._model.decoder.step(tokens, kept, self._decoded, self._displacement, shown=self._shown)
        return self._errors(pixels)

    def _errors(self, pixels: Tensor) -> NDArray[np.float64]:
        source = self._source if self.first else self._source[self._compared]
        scaled: NDArray[np.float64] = block_errors(pixels[0], source, self.geometry) * (self.frames / len(source))
        return scaled


def block_errors(shown: Tensor, wanted: Tensor, geometry: TokenGeometry) -> NDArray[np.float64]:
    """Squared error of each block, summed over pictures, of 8-bit values, mean over colours: `(rows, columns)`.

    Args:
        shown: float32 `(F, 3, 8 rows, 8 columns)`, in units of [-1, 1].
        wanted: uint8 `(F, H, W, 3)`.
        geometry: Says how large blocks are.
    """
    side = geometry.block_tokens * geometry.spatial_factor
    height, width = wanted.shape[1:3]
    values = shown[..., :height, :width].clamp(-1, 1).add(1).mul_(127.5)
    error = (values - wanted.permute(0, 3, 1, 2)).square_().mean(dim=1).sum(dim=0)
    padded = F.pad(error, (0, -width % side, 0, -height % side))
    blocks = padded.unflatten(0, (-1, side)).unflatten(2, (-1, side)).sum(dim=(1, 3))
    found: NDArray[np.float64] = blocks.double().cpu().numpy()
    return found


def _block_sizes(count: int, side: int) -> NDArray[np.int64]:
    """Lengths of the blocks that `count` tokens are cut into."""
    return np.minimum(side, count - side * np.arange(-(-count // side)))


def _block_sums(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Sums over blocks of `side` x `side` places, or what is left of them at the edges: `(..., rows, columns)`."""
    for axis in (-2, -1):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], side), axis=axis)
    return values


def kept_mask(kept_bits: NDArray[np.uint8], bits: int, like: Tensor) -> Tensor:
    """1 for bits that are kept, else 0: `(1, bits, rows, columns)`, dtype and device of `like`."""
    kept = torch.from_numpy(kept_bits.astype(np.int64)).to(like.device)
    return (torch.arange(bits, device=like.device).view(-1, 1, 1) < kept).to(like.dtype).unsqueeze(0)
