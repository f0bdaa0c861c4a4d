"""Values -> a `.tok` stream, front to back (spec sections 2 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO

from tokcodec.container import wire
from tokcodec.container.framing import pack_record, record_key
from tokcodec.container.header import pack_header
from tokcodec.container.items import ChunkEntry, ChunkRecord, Extension, SidePacket, StreamHeader
from tokcodec.container.preamble import pack_signature
from tokcodec.container.records import (
    IndexBody,
    pack_chunk,
    pack_end,
    pack_entry,
    pack_index,
    pack_packets,
)
from tokcodec.errors import OutputError, UsageError

_RECORD_BYTES = wire.RECORD_HEADER_BYTES + wire.RECORD_TRAILER_BYTES


class ContainerWriter:
    """Writes one file to a sink that need not be seekable; the sink stays open.

    The signature and the header are written at once, the index and the end by :meth:`close`. As a context
    manager it closes only where the block did not fail: a file without its end says that it is not whole.

    Args:
        sink: Where bytes go.
        header: What the file is.

    Raises:
        UsageError: A value does not fit the format, or comes out of order.
        OutputError: The sink takes no more bytes.
    """

    def __init__(self, sink: BinaryIO, header: StreamHeader) -> None:
        self._sink = sink
        self._header = header
        self._sequence = 0
        self._chunks = 0
        self._frames = 0
        self._last_pts: int | None = None
        self._entries = bytearray()
        self._closed = False
        self._key = b""
        self.bytes_written = 0
        payload = pack_header(header)
        self._write(pack_signature())
        self._write_record(wire.TYPE_HEADER, payload, critical=True)
        self._key = record_key(payload)

    @property
    def chunks_written(self) -> int:
        """Chunks so far, which is the number of the next one."""
        return self._chunks

    @property
    def closed_bytes(self) -> int:
        """Size of the file if it was closed now."""
        index = _RECORD_BYTES + wire.INDEX_FIXED_BYTES + wire.INDEX_ENTRY_BYTES * self._chunks
        return self.bytes_written + index + wire.END_RECORD_BYTES

    def cost_of(self, chunk: ChunkRecord) -> int:
        """Bytes by which a chunk makes the file larger, its entry of the index included."""
        return _RECORD_BYTES + len(pack_chunk(chunk, header=self._header)) + wire.INDEX_ENTRY_BYTES

    def cost_of_packets(self, packets: Sequence[SidePacket]) -> int:
        """Bytes by which packets make the file larger; none cost nothing."""
        return _RECORD_BYTES + len(pack_packets(packets, header=self._header)) if packets else 0

    def write_chunk(self, chunk: ChunkRecord) -> None:
        """Write the next chunk (spec section 5)."""
        if chunk.number != self._chunks:
            raise UsageError(f"chunk {chunk.number} where chunk {self._chunks} is next")
        if self._header.still_image and (chunk.number or chunk.frames != 1):
            raise UsageError("a still image has one chunk of one frame")
        payload = pack_chunk(chunk, header=self._header)
        if self._last_pts is not None and chunk.pts[0] <= self._last_pts:
            raise UsageError(f"chunk {chunk.number} does not begin after chunk {chunk.number - 1}")
        offset = self.bytes_written
        self._write_record(wire.TYPE_CHUNK, payload, critical=True)
        self._entries += pack_entry(
            ChunkEntry(number=chunk.number, offset=offset, first_pts=chunk.pts[0], frames=chunk.frames)
        )
        self._chunks += 1
        self._frames += chunk.frames
        self._last_pts = chunk.pts[-1]

    def write_packets(self, packets: Sequence[SidePacket]) -> None:
        """Write packets of side streams as one record (spec section 6.1); none writes nothing."""
        if packets:
            self._write_record(wire.TYPE_PACKETS, pack_packets(packets, header=self._header), critical=False)

    def write_extension(self, extension: Extension) -> None:
        """Write an extension record (spec section 6.4)."""
        if not wire.TYPE_EXTENSION_FIRST <= extension.type <= wire.TYPE_LAST:
            raise UsageError(f"0x{extension.type:02X} is not an extension type", hint="use 0x40 to 0xFF")
        if len(extension.data) > wire.MAX_PAYLOAD_BYTES:
            raise UsageError("the extension is too long")
        self._write_record(extension.type, extension.data, critical=extension.critical)

    def close(self) -> None:
        """Write the index and the end (spec sections 6.2 and 6.3); further calls do nothing."""
        if self._closed:
            return
        if not self._chunks:
            raise UsageError("a file has to hold at least one chunk")
        index_offset = self.bytes_written
        index = IndexBody(total_frames=self._frames, total_chunks=self._chunks, entries=bytes(self._entries))
        self._write_record(wire.TYPE_INDEX, pack_index(index), critical=False)
        self._write_record(wire.TYPE_END, pack_end(index_offset), critical=True)
        self._closed = True

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def _write_record(self, type: int, payload: bytes, *, critical: bool) -> None:
        if self._closed:
            raise UsageError("the file is closed")
        if self._sequence > wire.MAX_U32:
            raise UsageError("too many records for one file")
        self._write(
            pack_record(
                payload,
                type=type,
                critical=critical,
                sequence=self._sequence,
                chunks_before=self._chunks,
                key=self._key,
            )
        )
        self._sequence += 1

    def _write(self, data: bytes) -> None:
        write_all(self._sink, data, offset=self.bytes_written)
        self.bytes_written += len(data)


def write_all(sink: BinaryIO, data: bytes, *, offset: int) -> None:
    """Write bytes to a sink, which may be unbuffered and take a part only.

    Args:
        sink: Where they go.
        data: The bytes.
        offset: Of the first one in the file.

    Raises:
        OutputError: The sink takes no more bytes.
    """
    rest = memoryview(data)
    while rest:
        try:
            done = sink.write(rest)
        except (OSError, ValueError) as error:
            raise OutputError(f"the output cannot be written: {error}", offset=offset) from error
        if not done:
            raise OutputError("the output takes no more bytes", offset=offset)
        offset += done
        rest = rest[done:]
