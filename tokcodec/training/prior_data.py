"""Crops of token chunks for training a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokcodec.container import read_stream
from tokcodec.errors import UsageError
from tokcodec.sources import open_tok
from tokcodec.tokens import TokenChunk, TokenGeometry
from tokcodec.tokenset import read_chunks


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Crops of chunks, from their first step on.

    Attributes:
        bits: float32 `(T, B, K, h, w)`: +1, -1, and 0 where a bit is not kept.
        kept: int64 `(T, B, h, w)`, bits kept.
    """

    bits: Tensor
    kept: Tensor


def load_chunks(folder: Path) -> tuple[TokenGeometry, list[TokenChunk]]:
    """All chunks of all `.tok` files of a folder, at any depth.

    Raises:
        UsageError: There are none, or their tokens are not of one kind.
    """
    chunks: list[TokenChunk] = []
    for path in sorted(folder.rglob("*.tok")):
        with open_tok(path) as source:
            chunks.extend(without_picture(chunk) for chunk in read_chunks(source))
    if not chunks:
        raise UsageError("holds no tokens", where=str(folder), hint="make some with tokcodec encode")
    # How motion is coded is nothing that tokens mean.
    if len({replace(chunk.geometry, motion_network=False) for chunk in chunks}) > 1:
        raise UsageError("the files have tokens of several kinds", where=str(folder))
    return chunks[0].geometry, chunks


def without_picture(chunk: TokenChunk) -> TokenChunk:
    """The tokens of a chunk alone: a prior has nothing to do with a picture and residuals by coefficients."""
    if chunk.picture is None:
        return chunk
    plain = replace(chunk.geometry, pictures=False, residuals=False, intra=False)
    return replace(chunk, picture=None, residuals=(), geometry=plain)


def bits_of_folder(folder: Path) -> int:
    """Bits of a token of the first `.tok` file of a folder.

    Raises:
        UsageError: There is none.
    """
    for path in sorted(folder.rglob("*.tok")):
        with open_tok(path) as source:
            return read_stream(source).header.geometry.bits_per_token
    raise UsageError("holds no tokens", where=str(folder), hint="make some with tokcodec encode")


def to_batch(indices: Tensor, kept: Tensor, *, planes: int) -> TokenBatch:
    """Indices and kept bits, int64 `(T, B, h, w)`, as a batch."""
    plane = torch.arange(planes, device=indices.device)[:, None, None]
    ones = (indices.unsqueeze(2) >> plane) & 1
    bits = (2 * ones - 1) * (plane < kept.unsqueeze(2))
    return TokenBatch(bits=bits.float(), kept=kept)


class ChunkSampler:
    """Draws crops of one size; every crop of every step is equally likely.

    Args:
        chunks: What to draw from.
        steps: Steps of a crop; shorter chunks are not drawn.
        rows: Token rows of a crop; fewer where a chunk has fewer.
        columns: Token columns of a crop.
        seed: Of the draws.

    Raises:
        UsageError: No chunk is long enough.
    """

    def __init__(self, chunks: Sequence[TokenChunk], *, steps: int, rows: int, columns: int, seed: int) -> None:
        self._chunks = [chunk for chunk in chunks if len(chunk.indices) >= steps]
        if not self._chunks:
            raise UsageError(f"no chunk has {steps} latent steps", hint="encode longer clips")
        self._rows = min(rows, *(chunk.indices.shape[1] for chunk in self._chunks))
        self._columns = min(columns, *(chunk.indices.shape[2] for chunk in self._chunks))
        self._steps, self._random = steps, np.random.default_rng(seed)
        sizes = np.asarray([chunk.indices[0].size for chunk in self._chunks], dtype=np.float64)
        self._shares = sizes / sizes.sum()
        self._kept = [chunk.kept_bits() for chunk in self._chunks]

    def some(self, count: int) -> list[TokenChunk]:
        """Up to `count` of the chunks, whole, spread over all of them."""
        return self._chunks[:: max(1, len(self._chunks) // count)][:count]

    def draw(self, count: int, device: torch.device) -> TokenBatch:
        """`count` crops."""
        indices, kept = [], []
        for number in self._random.choice(len(self._chunks), size=count, p=self._shares):
            chunk = self._chunks[number]
            _, rows, columns = chunk.indices.shape
            top = int(self._random.integers(rows - self._rows + 1))
            left = int(self._random.integers(columns - self._columns + 1))
            part = np.s_[: self._steps, top : top + self._rows, left : left + self._columns]
            indices.append(torch.from_numpy(chunk.indices[part].astype(np.int64)))
            kept.append(torch.from_numpy(self._kept[number][part].astype(np.int64)))
        planes = self._chunks[0].geometry.bits_per_token
        return to_batch(torch.stack(indices, 1).to(device), torch.stack(kept, 1).to(device), planes=planes)
