"""Records <-> bytes, with resynchronisation after damage (spec sections 2 and 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

from tokcodec.container import wire
from tokcodec.container.fields import VIOLATION_HINT
from tokcodec.container.items import Limits
from tokcodec.errors import CorruptStreamError, LimitError, MediaError

_READ_BYTES = 1 << 20
_SEARCH_BYTES = 1 << 16
# Payloads that fail their CRC are searched for further records; a hostile file could make that quadratic.
_SEARCH_FACTOR = 16
_SEARCH_ALLOWANCE_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class RecordHeader:
    """The first 24 bytes of a record (spec section 2.2)."""

    offset: int
    type: int
    critical: bool
    sequence: int
    chunks_before: int
    payload_bytes: int

    @property
    def payload_offset(self) -> int:
        """Byte offset of the payload."""
        return self.offset + wire.RECORD_HEADER_BYTES

    @property
    def chunks_through(self) -> int:
        """Chunks of the file up to and with this record."""
        return self.chunks_before + (self.type == wire.TYPE_CHUNK)

    @property
    def name(self) -> str:
        """The type, as a person would say it."""
        return wire.TYPE_NAMES.get(self.type, f"type 0x{self.type:02X}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record whose CRCs are right."""

    header: RecordHeader
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch of bytes that are not a whole record (spec section 9.1).

    Attributes:
        offset: Its first byte.
        length: Its bytes.
        reason: What is wrong with its first record.
        chunks_seen: Chunks that the readable headers of broken chunk records in it account for.
    """

    offset: int
    length: int
    reason: str
    chunks_seen: int


class ByteSource:
    """A stream of bytes, read as far as needed; memory is taken as bytes arrive, never ahead of them.

    Args:
        source: A binary stream; need not be seekable.
        offset: Byte offset in the file at which it stands.
    """

    def __init__(self, source: BinaryIO, *, offset: int = 0) -> None:
        self._source = source
        self._buffer = bytearray()
        self.offset = offset

    @property
    def available(self) -> int:
        """Bytes at hand."""
        return len(self._buffer)

    def fill(self, size: int) -> bool:
        """Read until `size` bytes are at hand; False where the stream ends before."""
        while (missing := size - len(self._buffer)) > 0:
            try:
                more = self._source.read(min(missing, _READ_BYTES))
            except (OSError, ValueError) as error:
                raise MediaError(
                    f"the stream cannot be read: {error}", offset=self.offset + len(self._buffer)
                ) from error
            if not more:
                return False
            self._buffer += more
        return True

    def peek(self, start: int, size: int) -> bytes:
        """`size` bytes at hand, from `start` on."""
        return bytes(memoryview(self._buffer)[start : start + size])

    def skip(self, size: int) -> None:
        """Drop bytes at hand."""
        del self._buffer[:size]
        self.offset += size

    def skip_to(self, mark: bytes) -> None:
        """Drop bytes until `mark` comes next, or the stream ends."""
        while (found := self._buffer.find(mark)) < 0:
            self.skip(max(0, len(self._buffer) - len(mark) + 1))
            if not self.fill(len(self._buffer) + _SEARCH_BYTES) and self._buffer.find(mark) < 0:
                self.skip(len(self._buffer))
                return
        self.skip(found)

    def drain(self) -> int:
        """Drop everything up to the end of the stream, and say how much it was."""
        start = self.offset
        while self.fill(_SEARCH_BYTES):
            self.skip(len(self._buffer))
        self.skip(len(self._buffer))
        return self.offset - start


def pack_record(payload: bytes, *, type: int, critical: bool, sequence: int, chunks_before: int, key: bytes) -> bytes:
    """One record (spec section 2.2); `key` as :func:`record_key` gives it, empty for the header record."""
    head = (
        wire.SYNC
        + bytes([type, wire.FLAG_CRITICAL if critical else 0, 0, 0])
        + sequence.to_bytes(4, "little")
        + chunks_before.to_bytes(4, "little")
        + len(payload).to_bytes(4, "little")
    )
    head_crc = crc32(head + key).to_bytes(4, "little")
    return head + head_crc + payload + crc32(payload).to_bytes(4, "little")


def record_key(header_payload: bytes) -> bytes:
    """What ties records to their file: the CRC-32 of the header's payload (spec section 2.3)."""
    return crc32(header_payload).to_bytes(4, "little")


def parse_record_header(data: bytes, *, offset: int, key: bytes, lowest: int = 0) -> RecordHeader | None:
    """The record header in 24 bytes, or None where they are damaged or not one (spec section 2.2).

    Args:
        data: The bytes.
        offset: Their place in the file.
        key: Ties records to the header.
        lowest: Sequence number below which a record is passed over (spec section 9.1).
    """
    if data[:4] != wire.SYNC or crc32(data[:20] + key) != int.from_bytes(data[20:24], "little"):
        return None
    header = RecordHeader(
        offset=offset,
        type=data[4],
        critical=bool(data[5] & wire.FLAG_CRITICAL),
        sequence=int.from_bytes(data[8:12], "little"),
        chunks_before=int.from_bytes(data[12:16], "little"),
        payload_bytes=int.from_bytes(data[16:20], "little"),
    )
    if header.sequence < lowest:
        return None
    ceiling = wire.MAX_HEADER_BYTES if header.type == wire.TYPE_HEADER else wire.MAX_PAYLOAD_BYTES
    problem = None
    if header.type == 0:
        problem = "record type 0 is forbidden"
    elif data[5] & ~wire.FLAG_CRITICAL or data[6] or data[7]:
        problem = "a reserved field is not zero"
    elif header.type in wire.KNOWN_TYPES and header.critical != (header.type in wire.CRITICAL_TYPES):
        problem = f"the critical flag of the {header.name} record is wrong"
    elif header.payload_bytes > ceiling:
        problem = f"a payload of {header.payload_bytes} bytes, allowed are {ceiling}"
    if problem:
        raise CorruptStreamError(problem, where=f"record {header.sequence}", offset=offset, hint=VIOLATION_HINT)
    return header


def scan(
    source: ByteSource, *, key: bytes, limits: Limits, next_sequence: int, next_chunk: int
) -> Iterator[Record | Gap]:
    """Every whole record from here on, and a gap for each stretch between them (spec section 9.1)."""
    gap_offset: int | None = None
    reason = ""
    chunks_seen = 0
    wasted_bytes = 0
    while True:
        payload: bytes | None = None
        if not source.fill(wire.RECORD_HEADER_BYTES):
            if gap_offset is None and not source.available:
                return
            fault = "the file ends inside a record"
        else:
            header = parse_record_header(
                source.peek(0, wire.RECORD_HEADER_BYTES),
                offset=source.offset,
                key=key,
                lowest=0 if gap_offset is None else next_sequence,
            )
            if header is None:
                fault = "no record header here, or a damaged one"
            else:
                payload, fault = _take_payload(source, header, limits)
                if payload is None:
                    ahead = header.chunks_before - next_chunk
                    if header.type == wire.TYPE_CHUNK and 0 <= ahead <= header.sequence - next_sequence:
                        chunks_seen = max(chunks_seen, header.chunks_through)
                    wasted_bytes += min(header.payload_bytes, source.available - wire.RECORD_HEADER_BYTES)
        if payload is not None and header is not None:
            if gap_offset is not None:
                yield Gap(
                    offset=gap_offset,
                    length=source.offset - gap_offset,
                    reason=reason,
                    chunks_seen=chunks_seen,
                )
            gap_offset, chunks_seen = None, 0
            next_sequence, next_chunk = header.sequence + 1, header.chunks_through
            source.skip(wire.RECORD_HEADER_BYTES + len(payload) + wire.RECORD_TRAILER_BYTES)
            yield Record(header=header, payload=payload)
            continue
        if gap_offset is None:
            gap_offset, reason = source.offset, fault
        _check_search(wasted_bytes, source)
        source.skip(min(1, source.available))
        source.skip_to(wire.SYNC)
        if not source.available:
            yield Gap(
                offset=gap_offset,
                length=source.offset - gap_offset,
                reason=reason,
                chunks_seen=chunks_seen,
            )
            return


def _take_payload(source: ByteSource, header: RecordHeader, limits: Limits) -> tuple[bytes | None, str]:
    """The payload after a good record header, or None and what is wrong."""
    size = header.payload_bytes
    if size > limits.payload_bytes:
        raise LimitError(
            f"the {header.name} record has {size} bytes, the limit is {limits.payload_bytes}",
            where=f"record {header.sequence}",
            offset=header.offset,
            hint="raise the limit if you trust the file",
        )
    if not source.fill(wire.RECORD_HEADER_BYTES + size + wire.RECORD_TRAILER_BYTES):
        return None, f"the file ends inside the {header.name} record"
    payload = source.peek(wire.RECORD_HEADER_BYTES, size)
    expected = source.peek(wire.RECORD_HEADER_BYTES + size, wire.RECORD_TRAILER_BYTES)
    if crc32(payload) != int.from_bytes(expected, "little"):
        return None, f"the payload of the {header.name} record does not match its CRC-32"
    return payload, ""


def _check_search(wasted_bytes: int, source: ByteSource) -> None:
    read = source.offset + source.available
    if wasted_bytes > _SEARCH_FACTOR * read + _SEARCH_ALLOWANCE_BYTES:
        raise LimitError(
            "too many damaged records inside each other",
            offset=source.offset,
            hint="the file was made to waste time, or is beyond repair",
        )
