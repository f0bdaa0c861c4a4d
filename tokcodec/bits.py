"""Tokens <-> bytes: range coding of one chunk (spec section 7).

    TokenChunk <-> groups of bits, in the order of the spec <-> 32-bit words <-> bytes
                   a probability model says how likely each bit is

Integers only, and the same on every machine. One traversal (`_Traversal`) serves both directions: the coder
it is given either puts bits into the stream or takes them out.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from tokcodec.block_bits import BlockTraversal
from tokcodec.chunk_checks import checked_shape
from tokcodec.errors import CorruptStreamError, LimitError, UsageError
from tokcodec.motion_bits import MotionTraversal
from tokcodec.picture_bits import PictureTraversal
from tokcodec.picture_layout import UNKNOWN
from tokcodec.probability import ADAPTIVE, AUTOREGRESSIVE, PRIOR, create_model, schedule_of
from tokcodec.probability.adaptive import AllocationModel
from tokcodec.probability.block_network import block_network
from tokcodec.probability.interface import BitGroup, Checkerboard
from tokcodec.probability.motion_network import motion_network
from tokcodec.probability.picture_network import picture_network, residual_network
from tokcodec.residual_bits import ResidualTraversal
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, layout_shape, picture_shape, residual_shape

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork

WORD_BYTES = 4
"""Bytes of a word of the range coder; words are little-endian in the file."""
AUTOREGRESSIVE_PROBABILITY = 4096
"""16-bit probability that a chunk of `prior` has the autoregressive order."""
MAX_LOOKS = 1 << 20
"""Most looks of the network at a chunk in the autoregressive order: a few bytes could ask for hours (spec 10.2)."""
SAME_MODE_PROBABILITY = 61440
"""16-bit probability that a step has the mode of the step before."""

_HINT = "the file is damaged; decode the other chunks, or fetch the file again"


def looks(steps: int, rows: int, columns: int, *, bits: int) -> int:
    """How often the network looks at a chunk in the autoregressive order (spec 7.3)."""
    return steps * (columns + 3 * (rows - 1)) * bits


def tokens_crc32(chunk: TokenChunk) -> int:
    """CRC-32 of the tokens themselves, to be compared after decoding (spec section 5.3).

    It covers all indices `(steps, rows, columns)` as u64 little-endian, then all levels as u8, then
    all motion vectors, where there are any, as i16 little-endian, then of the first picture, where there is one, the
    coefficients as i16, the layout as u8, where it has blocks, and the scale as u8; and of each later step that may
    have one whether it has a residual, as u8, and the same of it.
    """
    crc = 0
    for step in chunk.indices:
        crc = zlib.crc32(step.astype("<u8", copy=False).tobytes(), crc)
    for levels in chunk.levels:
        crc = zlib.crc32(levels.astype(np.uint8, copy=False).tobytes(), crc)
    crc = zlib.crc32(chunk.vectors.astype("<i2", copy=False).tobytes(), crc)
    if chunk.picture is not None:
        crc = _crc32_of(chunk.picture, crc)
    for residual in chunk.residuals:
        crc = zlib.crc32(bytes([residual is not None]), crc)
        crc = crc if residual is None else _crc32_of(residual, crc)
    return crc


def _crc32_of(picture: Picture, crc: int) -> int:
    crc = zlib.crc32(picture.coefficients.astype("<i2", copy=False).tobytes(), crc)
    crc = crc if picture.blocks is None else zlib.crc32(picture.blocks.tobytes(), crc)
    return zlib.crc32(bytes([picture.scale]), crc)


def motion_bit_count(chunk: TokenChunk) -> int:
    """About what the motion maps of a chunk are of its coded bits: they are coded by themselves, to whole words."""
    if not chunk.geometry.motion_tokens:
        return 0
    coder, motion = _Encoder(), _motion_traversal(chunk.geometry, *chunk.indices.shape[1:])
    for vectors in chunk.vectors[1:]:
        motion.code_step(coder, vectors.copy())
    return 8 * WORD_BYTES * len(coder.finish())


def _motion_traversal(geometry: TokenGeometry, rows: int, columns: int) -> MotionTraversal:
    network = motion_network() if geometry.motion_network else None
    return MotionTraversal(
        *geometry.motion_blocks(rows, columns),
        maps=geometry.motion_maps,
        network=network,
        choice=geometry.second_reference,
    )


def picture_bit_count(chunk: TokenChunk) -> int:
    """About what the first picture of a chunk is of its coded bits: it is coded by itself, to whole words."""
    if chunk.picture is None:
        return 0
    coder = _Encoder()
    _code_picture(coder, _copied(chunk.picture))
    return 8 * WORD_BYTES * len(coder.finish())


def residual_bit_count(chunk: TokenChunk) -> int:
    """About what the residuals of a chunk are of its coded bits: they are coded by themselves, to whole words."""
    return sum(residual_bit_counts(chunk))


def residual_bit_counts(chunk: TokenChunk) -> list[int]:
    """The same of each later step; none where no step has one."""
    if not any(chunk.residuals):
        return []
    coder, traversal = _Encoder(), ResidualTraversal(residual_network())
    shape = residual_shape(chunk.geometry, *chunk.indices.shape[1:])
    words = [0]
    for residual in chunk.residuals:
        traversal.code_step(coder, *_written(residual, shape))
        words.append(len(coder.finish()))
    return [8 * WORD_BYTES * (after - before) for before, after in pairwise(words)]


def encode_tokens(chunk: TokenChunk, *, model: str = "adaptive", network: PriorNetwork | None = None) -> bytes:
    """Codes the tokens of one chunk; the bytes stand alone but for shape and geometry (spec section 7.2).

    Args:
        chunk: Tokens in canonical form, at least one step of at least one token.
        model: `adaptive`, `prior` or `prior-autoregressive`.
        network: That of the latter two.

    Raises:
        UsageError: The arrays do not fit together, or a bit that is not kept is not zero.
        ModelError: The network is for tokens of another number of bits.
        LimitError: The chunk is too large for the autoregressive order.
    """
    steps, rows, columns = checked_shape(chunk)
    coder = _Encoder()
    traversal = _Traversal(rows, columns, chunk.geometry, model, network)
    traversal.start(coder, steps)
    if chunk.picture is not None:
        _code_picture(coder, _copied(chunk.picture))
    for step in range(steps):
        traversal.code_step(
            coder,
            chunk.indices[step],
            chunk.levels[step],
            chunk.vectors[step].copy(),
            first=step == 0,
            residual=chunk.residual_of(step),
        )
    return coder.finish().astype("<u4").tobytes()


def decode_tokens(
    data: bytes,
    *,
    steps: int,
    rows: int,
    columns: int,
    geometry: TokenGeometry,
    model: str = "adaptive",
    network: PriorNetwork | None = None,
) -> TokenChunk:
    """Decodes what `encode_tokens` made; work and memory depend on the arguments only (spec section 7.2).

    Args:
        data: The coded bytes, all of them and nothing else.
        steps: Latent steps; the caller has bounded `steps * rows * columns`.
        rows: Token rows.
        columns: Token columns.
        geometry: What the tokens mean.
        model: `adaptive`, or `prior` in whichever order it was coded.
        network: That of `prior`.

    Raises:
        CorruptStreamError: The bytes are not the coded form of any tokens of this shape.
        LimitError: There is not enough memory for them, or too much work.
    """
    if min(steps, rows, columns) < 1:
        raise UsageError(f"a chunk of {steps} x {rows} x {columns} tokens cannot be decoded")
    if not data or len(data) % WORD_BYTES:
        raise CorruptStreamError(
            f"coded tokens of {len(data)} bytes are not one or more {WORD_BYTES}-byte words", hint=_HINT
        )
    try:
        coder = _Decoder(np.frombuffer(data, dtype="<u4").astype(np.uint32))
        traversal = _Traversal(rows, columns, geometry, model, network)
        traversal.start(coder, steps)
        indices = np.zeros((steps, rows, columns), dtype=np.uint64)
        levels = np.zeros((steps, *geometry.blocks(rows, columns)), dtype=np.uint8)
        vectors = np.zeros((steps, *geometry.motion_blocks(rows, columns), 2), dtype=np.int16)
        picture = None
        if geometry.pictures:
            coefficients = np.zeros(picture_shape(geometry, rows, columns), dtype=np.int16)
            layout = np.full(layout_shape(geometry, rows, columns), UNKNOWN, np.uint8) if geometry.intra else None
            picture = Picture(coefficients=coefficients, scale=0, blocks=layout)
            picture = replace(picture, scale=_code_picture(coder, picture))
        residuals = []
        for step in range(steps):
            residual = traversal.code_step(coder, indices[step], levels[step], vectors[step], first=step == 0)
            if geometry.residuals and step:
                residuals.append(residual)
            if step == 0 and picture is not None and levels[0].any():
                raise CorruptStreamError("a first step keeps bits beside its picture", hint=_HINT)
        coder.finish()
    except MemoryError as error:
        raise LimitError(
            f"there is not enough memory for {steps} x {rows} x {columns} tokens",
            hint="use a machine with more memory, or shorter chunks when encoding",
        ) from error
    return TokenChunk(
        indices=indices,
        levels=levels,
        geometry=geometry,
        vectors=vectors,
        picture=picture,
        residuals=tuple(residuals),
    )


def _code_picture(coder: _Encoder | _Decoder, picture: Picture) -> int:
    """Codes a first picture, by wavelets or by blocks; a decoder's is filled, but for the scale that is returned."""
    if picture.blocks is None:
        return PictureTraversal(picture_network()).code(coder, picture.coefficients, picture.scale)
    return BlockTraversal(block_network()).code(coder, picture)


def _copied(picture: Picture) -> Picture:
    """A picture that a traversal may write to."""
    blocks = None if picture.blocks is None else picture.blocks.copy()
    return replace(picture, coefficients=picture.coefficients.copy(), blocks=blocks)


def _written(residual: Picture | None, shape: tuple[int, int, int]) -> tuple[NDArray[np.int16], int | None]:
    """A residual as its traversal takes it."""
    if residual is None:
        return np.zeros(shape, np.int16), None
    return residual.coefficients.copy(), residual.scale


class _Coder(Protocol):
    """Passes bits through the range coder; the bits that go in are ignored when decoding."""

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Codes bits under 16-bit probabilities that they are 1; returns the bits."""


_BINARY = constriction.stream.model.Categorical(perfect=False)
_ONES = 256.0 * np.arange(65536) - 1.0
_FREQUENCIES = np.stack([(1 << 24) - 2.0 - _ONES, _ONES], axis=1)
"""Rows `(frequency - 1 of 0, frequency - 1 of 1)` of 24 bits, by 16-bit probability; constriction takes them so."""
_MOST_WAITING = 1 << 15
"""Bits that wait to be written, at most, beside one group."""


class _Writer:
    """Puts bits into a stream, many groups at a time: most groups are small, and there are many."""

    def __init__(self) -> None:
        self._range = constriction.stream.queue.RangeEncoder()
        self._waiting: list[tuple[NDArray[np.integer], NDArray[np.int32]]] = []
        self._count = 0

    def put(self, bits: NDArray[np.integer], probabilities: NDArray[np.int32]) -> None:
        """Takes in bits; neither array may change any more."""
        self._waiting.append((bits, probabilities))
        self._count += bits.size
        if self._count > _MOST_WAITING:
            self._write()

    def _write(self) -> None:
        if self._count:
            bits, probabilities = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._range.encode(bits.astype(np.int32), _BINARY, _FREQUENCIES.take(probabilities, axis=0))
        self._waiting, self._count = [], 0

    def words(self) -> NDArray[np.uint32]:
        """The words of the stream as it would end here."""
        self._write()
        words: NDArray[np.uint32] = self._range.get_compressed()
        return words


class _Encoder:
    """Puts bits into the stream."""

    def __init__(self) -> None:
        self._writer = _Writer()

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """See `_Coder.code`."""
        self._writer.put(bits, probabilities)
        return bits

    def finish(self) -> NDArray[np.uint32]:
        """The words of the stream."""
        return self._writer.words()


class _Decoder:
    """Takes bits out of the stream, and codes them again to see that the words are the right ones."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words = words
        self._range = constriction.stream.queue.RangeDecoder(words)
        self._again = _Writer()

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """See `_Coder.code`."""
        try:
            found: NDArray[np.int32] = self._range.decode(_BINARY, _FREQUENCIES.take(probabilities, axis=0))
        except AssertionError as error:
            raise CorruptStreamError("the coded tokens are invalid", hint=_HINT) from error
        self._again.put(found, probabilities)
        return found.astype(np.uint8)

    def finish(self) -> None:
        """Checks that the stream ends as the encoder would have ended it (spec section 7.2)."""
        if not np.array_equal(self._again.words(), self._words):
            raise CorruptStreamError("the coded tokens do not end where their last bit ends", hint=_HINT)


class _Traversal:
    """Which bits are coded, in which order and groups, in both directions (spec section 7.3)."""

    def __init__(
        self, rows: int, columns: int, geometry: TokenGeometry, model: str, network: PriorNetwork | None = None
    ) -> None:
        self._geometry = geometry
        self._grid = Checkerboard.of(rows, columns)
        self._blocks = Checkerboard.of(*geometry.blocks(rows, columns))
        side = geometry.block_tokens
        block = np.arange(self._blocks.cells).reshape(geometry.blocks(rows, columns))
        whole = block.repeat(side, axis=0).repeat(side, axis=1)[:rows, :columns]
        self._block_of_token = whole.ravel()[self._grid.order]
        schedule_of(model)
        self._model, self._network = model, network
        self._map = AllocationModel(self._blocks, len(geometry.level_bits))
        self._motion = _motion_traversal(geometry, rows, columns) if geometry.motion_tokens else None
        self._residuals = ResidualTraversal(residual_network()) if geometry.residuals else None
        self._residual_shape = residual_shape(geometry, rows, columns)
        self._mode: int | None = None

    def start(self, coder: _Coder, steps: int) -> None:
        """Codes in which order the bits of a prior come (spec section 7.3); a decoder learns it."""
        if self._model != ADAPTIVE:
            bit = np.asarray([self._model == AUTOREGRESSIVE], dtype=np.uint8)
            found = coder.code(bit, np.asarray([AUTOREGRESSIVE_PROBABILITY], dtype=np.int32))
            self._model = AUTOREGRESSIVE if found[0] else PRIOR
        times = looks(steps, self._grid.rows, self._grid.columns, bits=self._geometry.bits_per_token)
        if self._model == AUTOREGRESSIVE and times > MAX_LOOKS:
            raise LimitError(
                f"the autoregressive order would look {times} times at this chunk, the limit is {MAX_LOOKS}",
                hint="use shorter chunks, or the order of `prior`",
            )
        self._schedule = schedule_of(self._model)
        self._tokens = create_model(
            self._model, grid=self._grid, planes=self._geometry.bits_per_token, network=self._network
        )

    def code_step(
        self,
        coder: _Coder,
        indices: NDArray[np.uint64],
        levels: NDArray[np.uint8],
        vectors: NDArray[np.int16],
        *,
        first: bool,
        residual: Picture | None = None,
    ) -> Picture | None:
        """Codes one latent step; a decoder fills `indices` (zero before), `levels` and `vectors` in place, and is given
        the residual."""
        if self._motion is not None and not first:
            self._motion.code_step(coder, vectors)
        if self._residuals is not None and not first:
            coefficients, wanted = _written(residual, self._residual_shape)
            scale = self._residuals.code_step(coder, coefficients, wanted)
            residual = None if scale is None else Picture(coefficients=coefficients, scale=scale)
        self._code_levels(coder, levels)
        kept = np.asarray(self._geometry.level_bits, dtype=np.uint8)[levels.ravel()][self._block_of_token]
        self._tokens.start_step(kept)
        values = indices.reshape(-1)[self._grid.order]
        for group in self._schedule(self._grid, kept, self._geometry.level_bits):
            shift = np.uint64(group.plane)
            bits = (values[group.where] >> shift).astype(np.uint8) & np.uint8(1)
            bits = coder.code(bits, self._tokens.probabilities(group))
            self._tokens.observe(group, bits)
            values[group.where] |= bits.astype(np.uint64) << shift
        self._tokens.finish_step()
        indices.reshape(-1)[self._grid.order] = values
        return residual

    def _code_levels(self, coder: _Coder, levels: NDArray[np.uint8]) -> None:
        """Codes the allocation map of one step (spec section 7.4)."""
        explicit = len(self._geometry.level_bits)
        first = int(levels[0, 0])
        mode = self._code_mode(coder, first if np.all(levels == first) else explicit)
        flat = levels.reshape(-1)[self._blocks.order]
        if mode == explicit:
            self._code_map(coder, flat)
            if np.all(flat == flat[0]):
                raise CorruptStreamError("an explicit allocation map has one level only", hint=_HINT)
        else:
            flat.fill(mode)
            self._map.reveal(slice(0, flat.size), flat)
        self._map.finish_step()
        levels.reshape(-1)[self._blocks.order] = flat

    def _code_mode(self, coder: _Coder, mode: int) -> int:
        """Codes whether all blocks have one level, and which; returns the mode (spec section 7.4)."""

        def is_it(candidate: int, probability: int) -> bool:
            bit = np.asarray([mode == candidate], dtype=np.uint8)
            return bool(coder.code(bit, np.asarray([probability], dtype=np.int32))[0])

        before, self._mode = self._mode, None
        candidates = list(range(len(self._geometry.level_bits) + 1))
        if before is not None:
            candidates.remove(before)
            if is_it(before, SAME_MODE_PROBABILITY):
                candidates = [before]
        while len(candidates) > 1:
            if is_it(candidates[0], 65536 // len(candidates)):
                candidates = candidates[:1]
            else:
                del candidates[0]
        self._mode = candidates[0]
        return self._mode

    def _code_map(self, coder: _Coder, flat: NDArray[np.uint8]) -> None:
        """Codes an explicit map, levels in coding order; a decoder fills `flat`."""
        split = self._blocks.split
        for colour, span in enumerate((slice(0, split), slice(split, flat.size))):
            wanted = flat[span]
            found = np.zeros_like(wanted)
            for plane in range(len(self._geometry.level_bits) - 1):
                at = np.flatnonzero(found == plane)
                if at.size == 0:
                    break
                group = BitGroup(plane=plane, colour=colour, where=at + span.start)
                bits = (wanted[at] > plane).astype(np.uint8)
                bits = coder.code(bits, self._map.probabilities(group))
                self._map.observe(group, bits)
                found[at] += bits
            flat[span] = found
            self._map.reveal(span, found)
