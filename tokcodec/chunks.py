"""A chunk record <-> its tokens, checked against their CRC-32 (spec section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokcodec.container import (
    PROBABILITY_ADAPTIVE,
    PROBABILITY_PRIOR,
    ChunkRecord,
    Damage,
    StreamHeader,
    StreamReader,
)
from tokcodec.errors import CorruptStreamError, TokcodecError, UnsupportedStreamError

if TYPE_CHECKING:
    from tokcodec.tokens import TokenChunk

PROBABILITY_NAMES = {PROBABILITY_ADAPTIVE: "adaptive", PROBABILITY_PRIOR: "prior"}
"""Names of the probability models by their id on the wire (spec section 4.4)."""


def encode_chunk(tokens: TokenChunk, *, number: int, pts: tuple[int, ...], last_duration: int) -> ChunkRecord:
    """Code the tokens of a chunk with the adaptive model.

    Args:
        tokens: In canonical form.
        number: Position among the file's chunks.
        pts: Timestamp of each frame, in ticks.
        last_duration: Ticks for which the last frame is shown.
    """
    from tokcodec.bits import encode_tokens, tokens_crc32

    return ChunkRecord(
        number=number,
        pts=pts,
        last_duration=last_duration,
        tokens_crc32=tokens_crc32(tokens),
        token_data=encode_tokens(tokens),
    )


def decode_chunk(record: ChunkRecord, header: StreamHeader) -> TokenChunk:
    """The tokens of a chunk.

    Raises:
        CorruptStreamError: The coded tokens are not what the encoder wrote.
        UnsupportedStreamError: A probability model that this version does not have.
    """
    from tokcodec.bits import decode_tokens, tokens_crc32  # late: `info` need not wait for the coder

    where = f"chunk {record.number}"
    if header.probability_model != PROBABILITY_ADAPTIVE:
        name = PROBABILITY_NAMES.get(header.probability_model, str(header.probability_model))
        raise UnsupportedStreamError(
            f"the probability model {name} is not in this version", where=where, hint="use a later version"
        )
    rows, columns = header.geometry.grid(header.height, header.width)
    try:
        tokens = decode_tokens(
            record.token_data,
            steps=header.geometry.steps(record.frames),
            rows=rows,
            columns=columns,
            geometry=header.geometry,
        )
    except CorruptStreamError as error:
        raise CorruptStreamError(error.message, where=where, hint=error.hint) from error
    if tokens_crc32(tokens) != record.tokens_crc32:
        raise CorruptStreamError("the decoded tokens have another CRC-32 than the file states", where=where)
    return tokens


def token_damage(record: ChunkRecord, reader: StreamReader, error: TokcodecError) -> Damage:
    """A chunk whose bytes arrived as written but do not decode, as a report."""
    return Damage(
        offset=reader.item_offset,
        length=len(record.token_data),
        reason=f"chunk {record.number}: {error.message}",
        missing_chunks=range(record.number, record.number + 1),
    )
