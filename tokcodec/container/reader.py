"""A `.tok` stream -> values, front to back, around damage (spec sections 2 to 6 and 9).

Damage (bytes lost or altered on their way) is reported and skipped; a violation (bytes that arrived as they
were written, but should not have been) ends reading with an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO, NoReturn
from zlib import crc32

from tokcodec.container import wire
from tokcodec.container.fields import VIOLATION_HINT
from tokcodec.container.framing import (
    ByteSource,
    Gap,
    Record,
    RecordHeader,
    scan,
)
from tokcodec.container.items import (
    DEFAULT_LIMITS,
    ChunkEntry,
    ChunkRecord,
    Damage,
    Extension,
    Item,
    Limits,
    StreamHeader,
    StreamSummary,
)
from tokcodec.container.preamble import take_preamble
from tokcodec.container.records import pack_entry, parse_chunk, parse_end, parse_index, parse_packets
from tokcodec.errors import CorruptStreamError, UnsupportedStreamError


def read_stream(source: BinaryIO, *, limits: Limits = DEFAULT_LIMITS, understood: Collection[int] = ()) -> StreamReader:
    """Read the signature and the header, and get ready for the rest (spec sections 2 and 4).

    Args:
        source: A binary stream at the first byte of the file; need not be seekable.
        limits: What may be spent.
        understood: Types of the critical extensions that the caller knows how to honour.

    Raises:
        CorruptStreamError: Not a `.tok` file, or its header is damaged or not possible.
        UnsupportedStreamError: Another version, or something critical that is not known.
        LimitError: The file asks for more than `limits`.
    """
    data = ByteSource(source)
    header, key = take_preamble(data, limits=limits, understood=understood)
    return StreamReader(data, header=header, key=key, limits=limits, understood=understood)


class StreamReader:
    """Iterates once over chunks, packets, extensions and damage, in file order; see :func:`read_stream`.

    Memory holds one record, whatever the length of the file.

    Args:
        data: Stands at the first record after the header, or at that of `start`.
        header: The file's header.
        key: Ties records to the header.
        limits: What may be spent.
        understood: Types of critical extensions that the caller honours.
        start: The chunk at which reading begins; None reads the whole file.
    """

    def __init__(
        self,
        data: ByteSource,
        *,
        header: StreamHeader,
        key: bytes,
        limits: Limits,
        understood: Collection[int] = (),
        start: ChunkEntry | None = None,
    ) -> None:
        self.header = header
        self.item_offset = data.offset
        """Byte offset of the record, or of the damage, that was given last."""
        self._data = data
        self._key = key
        self._limits = limits
        self._understood = understood
        self._start = start
        self._next_sequence = 1 if start is None else None
        self._next_chunk = 0 if start is None else start.number
        self._last_pts: int | None = None
        self._entries_crc = 0
        self._index_offset: int | None = None
        self._total_chunks: int | None = None
        self._total_frames: int | None = None
        self._chunks = self._frames = self._damages = 0
        self._ended = False
        self._items = self._run()

    @property
    def summary(self) -> StreamSummary:
        """What was read so far; final once iteration has ended (spec section 9.3)."""
        return StreamSummary(
            chunks=self._chunks,
            frames=self._frames,
            total_chunks=self._total_chunks,
            total_frames=self._total_frames,
            damages=self._damages,
            complete=self._ended and not self._damages,
        )

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._items)

    def _run(self) -> Iterator[Item]:
        gap: Gap | None = None
        found = scan(
            self._data,
            key=self._key,
            limits=self._limits,
            next_sequence=self._next_sequence or 0,
            next_chunk=self._next_chunk,
        )
        for record in found:
            if isinstance(record, Gap):
                gap = record
                continue
            damage = self._follow(record.header, gap)
            gap = None
            if damage is not None:
                yield self._report(damage)
            item = self._open(record)
            if item is not None:
                self.item_offset = record.header.offset
                yield item
            if record.header.type == wire.TYPE_END:
                start = self._data.offset
                if extra := self._data.drain():
                    yield self._report(
                        Damage(offset=start, length=extra, reason=f"{extra} bytes after the end of the file")
                    )
                self._ended = True
                return
        yield self._report(self._cut(gap))

    def _report(self, damage: Damage) -> Damage:
        self._damages += 1
        self.item_offset = damage.offset
        return damage

    def _cut(self, gap: Gap | None) -> Damage:
        """The file stopped without an end record (spec section 9.2)."""
        known = self._total_chunks is not None
        total = self._next_chunk if gap is None or known else max(self._next_chunk, gap.chunks_seen)
        missing = range(self._next_chunk, total)
        lost = "the end record is missing" if known else "the rest of the file is missing"
        return Damage(
            offset=self._data.offset if gap is None else gap.offset,
            length=0 if gap is None else gap.length,
            reason=f"{lost}: " + ("the file ends without it" if gap is None else gap.reason),
            missing_chunks=missing,
            open_ended=not known,
        )

    def _follow(self, head: RecordHeader, gap: Gap | None) -> Damage | None:
        """Check that a record follows what came before; what is missing in between (spec section 9.2)."""
        lost = None if self._next_sequence is None else head.sequence - self._next_sequence
        missing = head.chunks_before - self._next_chunk
        if lost is not None and lost < 0:
            self._fail(head, f"record number {head.sequence} where {self._next_sequence} is next")
        if missing < 0 or (lost is not None and missing > lost):
            self._fail(head, f"{head.chunks_before} chunks before it where there are {self._next_chunk}")
        chunks = range(self._next_chunk, head.chunks_before)
        self._next_sequence = head.sequence + 1
        self._next_chunk = head.chunks_through
        if gap is None and not lost and not chunks:
            return None
        if lost is None:
            what = "records are missing"
        elif lost == 0:
            what = "bytes that belong to no record"
        else:
            what = f"{lost} record{'s' if lost > 1 else ''} missing"
        return Damage(
            offset=head.offset if gap is None else gap.offset,
            length=0 if gap is None else gap.length,
            reason=f"{what}: {gap.reason}" if gap is not None and lost else what,
            missing_chunks=chunks,
        )

    def _open(self, record: Record) -> Item | None:
        """The value of a record, or None where there is nothing to give (spec section 2.4)."""
        head = record.header
        if self._index_offset is not None and head.type != wire.TYPE_END:
            self._fail(head, f"{head.name} record after the index")
        if head.type == wire.TYPE_HEADER:
            self._fail(head, "a second header")
        if head.type == wire.TYPE_CHUNK:
            return self._open_chunk(record)
        if head.type == wire.TYPE_PACKETS:
            return parse_packets(record.payload, offset=head.payload_offset, header=self.header)
        if head.type == wire.TYPE_INDEX:
            self._open_index(record)
            return None
        if head.type == wire.TYPE_END:
            self._open_end(record)
            return None
        if head.critical and head.type not in self._understood:
            raise UnsupportedStreamError(
                f"a critical record of type 0x{head.type:02X} is not known",
                where=f"record {head.sequence}",
                offset=head.offset,
                hint="a newer tokcodec may read it",
            )
        if head.type < wire.TYPE_EXTENSION_FIRST:
            return None
        return Extension(type=head.type, data=record.payload, critical=head.critical)

    def _open_chunk(self, record: Record) -> ChunkRecord:
        head = record.header
        chunk = parse_chunk(
            record.payload,
            number=head.chunks_before,
            offset=head.payload_offset,
            header=self.header,
            limits=self._limits,
        )
        if self._last_pts is not None and chunk.pts[0] <= self._last_pts:
            self._fail(head, f"chunk {chunk.number} does not begin after the chunk before it")
        entry = ChunkEntry(number=chunk.number, offset=head.offset, first_pts=chunk.pts[0], frames=chunk.frames)
        self._entries_crc = crc32(pack_entry(entry), self._entries_crc)
        self._last_pts = chunk.pts[-1]
        self._chunks += 1
        self._frames += chunk.frames
        return chunk

    def _open_index(self, record: Record) -> None:
        head = record.header
        intact = self._start is None and not self._damages
        index = parse_index(record.payload, offset=head.payload_offset, end=head.offset if intact else wire.MAX_U64 + 1)
        if self.header.still_image and index.total_frames != 1:
            self._fail(head, "a still image has one chunk of one frame")
        if index.total_chunks != head.chunks_before:
            self._fail(head, f"the index has {index.total_chunks} chunks of {head.chunks_before}")
        if intact and crc32(index.entries) != self._entries_crc:
            self._fail(head, "the index does not match the chunks")
        if index.total_frames < self._frames:
            self._fail(head, f"the index has {index.total_frames} frames of {self._frames}")
        self._index_offset = head.offset
        self._total_chunks = index.total_chunks
        self._total_frames = index.total_frames

    def _open_end(self, record: Record) -> None:
        head = record.header
        index_offset = parse_end(record.payload, offset=head.payload_offset)
        if not self._damages:
            if self._index_offset is None:
                self._fail(head, "an end record without an index before it")
            if index_offset != self._index_offset:
                self._fail(head, "the end record does not point to the index")
        self._total_chunks = head.chunks_before

    def _fail(self, head: RecordHeader, message: str) -> NoReturn:
        raise CorruptStreamError(message, where=f"record {head.sequence}", offset=head.offset, hint=VIOLATION_HINT)
