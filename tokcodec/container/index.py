"""Seeking: the chunk index at the end of a file, or a scan where that is damaged (spec section 6.5)."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import BinaryIO
from zlib import crc32

from tokcodec.container import wire
from tokcodec.container.framing import ByteSource, parse_record_header
from tokcodec.container.items import (
    DEFAULT_LIMITS,
    ChunkEntry,
    ChunkIndex,
    ChunkRecord,
    Limits,
    StreamHeader,
)
from tokcodec.container.preamble import take_preamble
from tokcodec.container.reader import StreamReader
from tokcodec.container.records import parse_end, parse_index
from tokcodec.errors import CorruptStreamError, LimitError, MediaError, UsageError


def find_chunk_index(
    source: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, understood: Collection[int] = ()
) -> ChunkIndex:
    """Where the chunks of a seekable file are; the file's position is left anywhere (spec section 6.5).

    Args:
        source: A seekable binary file whose byte 0 is the file's first.
        limits: What may be spent.
        understood: As for :func:`~tokcodec.container.read_stream`.

    Raises:
        UsageError: `source` cannot seek.
        TokcodecError: As for :func:`~tokcodec.container.read_stream`.
    """
    header, key, data = _preamble(source, limits, understood)
    entries = _from_tail(source, key, limits)
    if entries is not None:
        return ChunkIndex(entries=entries, total_frames=sum(e.frames for e in entries), from_tail=True)
    _seek(source, data.offset)
    reader = StreamReader(
        ByteSource(source, offset=data.offset), header=header, key=key, limits=limits, understood=understood
    )
    found: list[ChunkEntry] = []
    for item in reader:
        if isinstance(item, ChunkRecord):
            _check_count(len(found) + 1, limits)
            found.append(
                ChunkEntry(
                    number=item.number,
                    offset=reader.item_offset,
                    first_pts=item.pts[0],
                    frames=item.frames,
                )
            )
    return ChunkIndex(entries=tuple(found), total_frames=sum(e.frames for e in found), from_tail=False)


def read_stream_from(
    source: BinaryIO,
    entry: ChunkEntry,
    *,
    limits: Limits = DEFAULT_LIMITS,
    understood: Collection[int] = (),
) -> StreamReader:
    """Read a seekable file from one of its chunks on; `summary` then counts from there (spec section 6.5).

    Args:
        source: A seekable binary file whose byte 0 is the file's first.
        entry: The chunk, from :func:`find_chunk_index`.
        limits: What may be spent.
        understood: As for :func:`~tokcodec.container.read_stream`.
    """
    header, key, _ = _preamble(source, limits, understood)
    _seek(source, entry.offset)
    return StreamReader(
        ByteSource(source, offset=entry.offset),
        header=header,
        key=key,
        limits=limits,
        understood=understood,
        start=entry,
    )


def _preamble(source: BinaryIO, limits: Limits, understood: Collection[int]) -> tuple[StreamHeader, bytes, ByteSource]:
    if not source.seekable():
        raise UsageError("the stream cannot seek", hint="read it from the start, or name a file")
    _seek(source, 0)
    data = ByteSource(source)
    header, key = take_preamble(data, limits=limits, understood=understood)
    return header, key, data


def _from_tail(source: BinaryIO, key: bytes, limits: Limits) -> tuple[ChunkEntry, ...] | None:
    """The entries of the index, or None where the end of the file does not lead to a good one."""
    size = _seek(source, 0, io.SEEK_END)
    end_offset = size - wire.END_RECORD_BYTES
    if end_offset < wire.SIGNATURE_BYTES:
        return None
    try:
        end = _payload_at(source, end_offset, size, wire.TYPE_END, key, limits)
        if end is None:
            return None
        index_offset = parse_end(end, offset=end_offset + wire.RECORD_HEADER_BYTES)
        if index_offset >= end_offset:
            return None
        payload = _payload_at(source, index_offset, end_offset, wire.TYPE_INDEX, key, limits)
        if payload is None:
            return None
        index = parse_index(payload, offset=index_offset + wire.RECORD_HEADER_BYTES, end=index_offset)
    except CorruptStreamError:
        return None  # reading from the start says what is wrong, and where
    _check_count(index.total_chunks, limits)
    return tuple(index)


def _payload_at(source: BinaryIO, offset: int, end: int, kind: int, key: bytes, limits: Limits) -> bytes | None:
    """The payload of a record of type `kind` that lies exactly between two offsets."""
    overhead = wire.RECORD_HEADER_BYTES + wire.RECORD_TRAILER_BYTES
    size = end - offset - overhead
    if not 0 <= size <= limits.payload_bytes:
        return None
    _seek(source, offset)
    data = ByteSource(source, offset=offset)
    if not data.fill(size + overhead):
        return None
    head = parse_record_header(data.peek(0, wire.RECORD_HEADER_BYTES), offset=offset, key=key)
    if head is None or head.type != kind or head.payload_bytes != size:
        return None
    payload = data.peek(wire.RECORD_HEADER_BYTES, size)
    stored = data.peek(wire.RECORD_HEADER_BYTES + size, wire.RECORD_TRAILER_BYTES)
    return payload if crc32(payload) == int.from_bytes(stored, "little") else None


def _check_count(chunks: int, limits: Limits) -> None:
    if chunks > limits.index_chunks:
        raise LimitError(
            f"an index of more than {limits.index_chunks} chunks",
            hint="raise the limit if you trust the file",
        )


def _seek(source: BinaryIO, offset: int, whence: int = io.SEEK_SET) -> int:
    try:
        return source.seek(offset, whence)
    except (OSError, ValueError, OverflowError) as error:
        raise MediaError(f"the stream cannot be read: {error}", offset=offset) from error
