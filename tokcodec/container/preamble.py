"""The start of a file: signature and header record (spec sections 2.1, 2.3 and 4)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn
from zlib import crc32

from tokcodec.container import wire
from tokcodec.container.fields import VIOLATION_HINT
from tokcodec.container.framing import ByteSource, parse_record_header, record_key
from tokcodec.container.header import parse_header
from tokcodec.container.items import Limits, StreamHeader
from tokcodec.errors import CorruptStreamError, UnsupportedStreamError

_CUT_HINT = "get the file again; it was cut off or damaged before the first chunk"


def pack_signature() -> bytes:
    """The first 16 bytes of a file (spec section 2.1)."""
    body = wire.MAGIC + bytes([wire.VERSION_MAJOR, wire.VERSION_MINOR, 0, 0])
    return body + crc32(body).to_bytes(4, "little")


def parse_signature(data: bytes) -> None:
    """Check the first 16 bytes of a file (spec section 2.1)."""
    if data[: len(wire.MAGIC)] != wire.MAGIC:
        cut = len(data) < len(wire.MAGIC) and wire.MAGIC.startswith(data)
        if not data:
            message, hint = "the file is empty", "check that it was written to the end"
        elif cut:
            message, hint = "the file ends inside its signature", "get the file again; it was cut off"
        elif data[:4] == wire.MAGIC[:4]:
            message, hint = "the signature was altered", "copy the file in binary mode, not as text"
        else:
            message, hint = "not a tokcodec file: the signature is missing", "name a .tok file"
        raise CorruptStreamError(message, offset=0, hint=hint)
    if len(data) < wire.SIGNATURE_BYTES:
        raise CorruptStreamError(
            "the file ends inside its signature", offset=len(data), hint="get the file again; it was cut off"
        )
    if crc32(data[:12]) != int.from_bytes(data[12:16], "little"):
        raise CorruptStreamError("the signature is damaged: its CRC-32 is wrong", offset=8, hint="get the file again")
    major, minor = data[8], data[9]
    if major != wire.VERSION_MAJOR:
        raise UnsupportedStreamError(
            f"the file has format version {major}.{minor}, this program reads version {wire.VERSION_MAJOR}",
            offset=8,
            hint="use the version of tokcodec that wrote it, or a newer one",
        )
    if data[10:12] != bytes(2):
        raise CorruptStreamError("a reserved field is not zero", offset=10, hint=VIOLATION_HINT)


def take_preamble(data: ByteSource, *, limits: Limits, understood: Collection[int]) -> tuple[StreamHeader, bytes]:
    """The header at the start of a file, and the key of its records (spec sections 2.1, 2.3 and 4)."""
    data.fill(wire.SIGNATURE_BYTES)
    parse_signature(data.peek(0, wire.SIGNATURE_BYTES))
    data.skip(wire.SIGNATURE_BYTES)
    offset = data.offset

    def fail(message: str, hint: str) -> NoReturn:
        raise CorruptStreamError(message, where="header", offset=offset, hint=hint)

    if not data.fill(wire.RECORD_HEADER_BYTES):
        fail("the file ends before its header", _CUT_HINT)
    head = parse_record_header(data.peek(0, wire.RECORD_HEADER_BYTES), offset=offset, key=b"")
    if head is None:
        fail("the header record is damaged", _CUT_HINT)
    if head.type != wire.TYPE_HEADER or head.sequence or head.chunks_before:
        fail("the first record is not a header", VIOLATION_HINT)
    size = head.payload_bytes
    if not data.fill(wire.RECORD_HEADER_BYTES + size + wire.RECORD_TRAILER_BYTES):
        fail("the file ends inside its header", _CUT_HINT)
    payload = data.peek(wire.RECORD_HEADER_BYTES, size)
    crc = data.peek(wire.RECORD_HEADER_BYTES + size, wire.RECORD_TRAILER_BYTES)
    if crc32(payload) != int.from_bytes(crc, "little"):
        fail("the header is damaged: its CRC-32 is wrong", _CUT_HINT)
    data.skip(wire.RECORD_HEADER_BYTES + size + wire.RECORD_TRAILER_BYTES)
    header = parse_header(payload, offset=head.payload_offset, limits=limits, understood=understood)
    return header, record_key(payload)
