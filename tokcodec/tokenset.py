"""Tokens for those who train models: `.tok` files as arrays and as a PyTorch `Dataset`, without a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tokcodec.chunks import decode_chunk
from tokcodec.container import ChunkRecord, StreamHeader, read_stream
from tokcodec.errors import CorruptStreamError, UsageError
from tokcodec.sources import open_tok
from tokcodec.tokens import TokenChunk, TokenGeometry, residual_shape

if TYPE_CHECKING:
    import torch

SUBTOKEN_BITS = 9
"""Bits of a sub-token where nobody says otherwise, as the paper feeds its language models: 18 bits are twice 9."""
MAX_SUBTOKEN_BITS = 31
"""A sub-token fits int32."""


def read_chunk_records(
    source: BinaryIO, *, prior: Path | None = None
) -> Iterator[tuple[StreamHeader, ChunkRecord, TokenChunk]]:
    """Header, record and tokens of each whole chunk of a `.tok` stream; what is damaged is left out.

    Args:
        source: At the first byte; need not be seekable.
        prior: A weights file of the model `prior`, beside those that are installed.

    Raises:
        TokcodecError: Nothing of the file can be used.
    """
    reader = read_stream(source)
    for item in reader:
        if isinstance(item, ChunkRecord):
            try:
                tokens = decode_chunk(item, reader.header, prior=prior)
            except CorruptStreamError:
                continue
            yield reader.header, item, tokens


def read_chunks(source: BinaryIO, *, prior: Path | None = None) -> Iterator[TokenChunk]:
    """The tokens of each whole chunk; see :func:`read_chunk_records`."""
    for _, _, chunk in read_chunk_records(source, prior=prior):
        yield chunk


def default_parts(bits: int) -> int:
    """Sub-tokens of an index of `bits` bits, of nine bits at most: 2 of 18 bits, 6 of 54."""
    return -(-bits // SUBTOKEN_BITS)


def factorize(indices: NDArray[np.integer[Any]], *, bits: int, parts: int | None = None) -> NDArray[np.int32]:
    """Cut indices into sub-tokens, so that a model needs `parts` small vocabularies instead of a large one.

    Args:
        indices: Integers of any shape, below `2 ** bits`.
        bits: Bits of an index.
        parts: Sub-tokens; they get `ceil(bits / parts)` bits each, the last one the rest. None: parts of nine bits.

    Returns:
        int32 `(*shape, parts)`; sub-token 0 holds the least significant bits, which are the most important ones.

    Raises:
        UsageError: There are not that many bits, or a part has more than 31.
    """
    sizes = subtoken_bits(bits, default_parts(bits) if parts is None else parts)
    values = indices.astype(np.uint64)
    out = np.empty((*values.shape, len(sizes)), dtype=np.int32)
    low = 0
    for part, size in enumerate(sizes):
        out[..., part] = (values >> np.uint64(low)) & np.uint64((1 << size) - 1)
        low += size
    return out


def join_subtokens(subtokens: NDArray[np.integer[Any]], *, bits: int) -> NDArray[np.uint64]:
    """The inverse of :func:`factorize`: uint64 `(*shape)`.

    Raises:
        UsageError: A sub-token is outside its vocabulary.
    """
    sizes = subtoken_bits(bits, subtokens.shape[-1])
    indices = np.zeros(subtokens.shape[:-1], dtype=np.uint64)
    low = 0
    for part, size in enumerate(sizes):
        values = subtokens[..., part]
        if values.size and (values.min() < 0 or int(values.max()) >= 1 << size):
            raise UsageError(f"sub-tokens {part} are not all from 0 to {(1 << size) - 1}")
        indices |= values.astype(np.uint64) << np.uint64(low)
        low += size
    return indices


def subtoken_bits(bits: int, parts: int) -> tuple[int, ...]:
    """Bits of each sub-token of an index of `bits` bits."""
    if not 1 <= parts <= bits:
        raise UsageError(f"{bits} bits cannot be cut into {parts} sub-tokens")
    size = -(-bits // parts)
    sizes = tuple(min(size, bits - low) for low in range(0, bits, size))
    if len(sizes) != parts or size > MAX_SUBTOKEN_BITS:
        raise UsageError(
            f"{bits} bits cannot be cut into {parts} sub-tokens of {size} bits",
            hint=f"{default_parts(bits)} of {SUBTOKEN_BITS} bits are usual; none has more than {MAX_SUBTOKEN_BITS}",
        )
    return sizes


@dataclass(frozen=True, kw_only=True)
class _Place:
    path: Path
    chunk: int


class TokenDataset:
    """A PyTorch `Dataset` (map style) over the chunks of all `.tok` files in a folder; no pixel is decoded.

    An item is a dictionary: `indices`, int64 `(T', H', W')` (of 64 bits, those from 2^63 on are negative); `subtokens`,
    int32 `(T', H', W', parts)`, see :func:`factorize`; `kept`, int64 of the shape of `indices`, the bits kept of each
    token; `path`, the file's name below the folder; `chunk`, its number; and where first pictures are coefficients
    `picture`, that of the chunk, int16 `(3, 8H', 8W')`, `scale`, that of its quantizer, and where they have blocks
    `layout`, uint8 `(2H', 2W')`, see :mod:`tokcodec.picture_layout`; where steps may have
    residuals `residuals`, those of its steps, int16 `(T', 3, 2H', 2W')`, zero where a step has none, and
    `residual_scales`, uint8 `(T',)`. Items differ in shape where files do. The last chunk is kept, so that its other
    pieces need not be decoded again.

    Args:
        folder: Looked through at any depth.
        steps: Where given, items have that many latent steps: longer chunks are cut into pieces, the rest is left out.
        parts: Sub-tokens of an index; None: as many as have nine bits.
        prior: A weights file of the model `prior`, beside those that are installed.

    Attributes:
        bits_per_token: Bits of an index.
        subtoken_bits: Bits of each sub-token.

    Raises:
        UsageError: There is no `.tok` file, the files have tokens of several kinds, or an index cannot be cut into so
            many parts.
        TokcodecError: A file is not a `.tok` file.
    """

    def __init__(
        self, folder: str | Path, *, steps: int | None = None, parts: int | None = None, prior: Path | None = None
    ) -> None:
        if steps is not None and steps < 1:
            raise UsageError(f"an item has at least one step, not {steps}")
        self.folder, self._steps, self._prior = Path(folder), steps, prior
        self.paths: Sequence[Path] = sorted(self.folder.rglob("*.tok"))
        if not self.paths:
            raise UsageError("holds no .tok file", where=str(folder))
        self._places: list[tuple[_Place, int]] = []
        self._last: tuple[_Place, TokenChunk] | None = None
        kinds: set[TokenGeometry] = set()
        for path in self.paths:
            with open_tok(path) as source:
                reader = read_stream(source)
                # How motion is coded is nothing that tokens mean.
                kinds.add(replace(reader.header.geometry, motion_network=False))
                for item in reader:
                    if isinstance(item, ChunkRecord):
                        count = reader.header.geometry.steps(item.frames, item.step_frames)
                        pieces = 1 if steps is None else count // steps
                        place = _Place(path=path, chunk=item.number)
                        self._places.extend((place, piece) for piece in range(pieces))

        if len(kinds) > 1:
            raise UsageError("the files have tokens of several kinds", where=str(folder))
        self.bits_per_token = kinds.pop().bits_per_token
        self.subtoken_bits = subtoken_bits(
            self.bits_per_token, default_parts(self.bits_per_token) if parts is None else parts
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | str | int]:
        import torch

        place, piece = self._places[number]
        chunk = self._chunk(place)
        part = slice(None) if self._steps is None else slice(piece * self._steps, (piece + 1) * self._steps)
        indices, first = chunk.indices[part], dict[str, torch.Tensor | int]()
        if chunk.picture is not None:
            first = {"picture": torch.from_numpy(chunk.picture.coefficients.copy()), "scale": chunk.picture.scale}
            if chunk.picture.blocks is not None:
                first["layout"] = torch.from_numpy(chunk.picture.blocks.copy())
        if chunk.geometry.residuals:
            shape = residual_shape(chunk.geometry, *chunk.indices.shape[1:])
            found = [chunk.residual_of(step) for step in range(len(chunk.indices))[part]]
            coefficients = [np.zeros(shape, np.int16) if each is None else each.coefficients for each in found]
            first["residuals"] = torch.from_numpy(np.stack(coefficients))
            first["residual_scales"] = torch.tensor([0 if each is None else each.scale for each in found]).byte()
        return {
            "indices": torch.from_numpy(indices.astype(np.int64)),
            "subtokens": torch.from_numpy(factorize(indices, bits=self.bits_per_token, parts=len(self.subtoken_bits))),
            "kept": torch.from_numpy(chunk.kept_bits()[part].astype(np.int64)),
            "path": place.path.relative_to(self.folder).as_posix(),
            "chunk": place.chunk,
            **first,
        }

    def _chunk(self, place: _Place) -> TokenChunk:
        last = self._last
        if last is None or last[0] != place:
            self._last = last = place, self._read(place)
        return last[1]

    def _read(self, place: _Place) -> TokenChunk:
        with open_tok(place.path) as source:
            reader = read_stream(source)
            for item in reader:
                if isinstance(item, ChunkRecord) and item.number == place.chunk:
                    return decode_chunk(item, reader.header, prior=self._prior)
        raise CorruptStreamError(f"chunk {place.chunk} is not there any more", where=str(place.path))
