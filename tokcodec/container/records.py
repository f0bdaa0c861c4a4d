"""Payloads of chunk, packets, index and end records <-> values (spec sections 5 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokcodec.container import wire
from tokcodec.container.fields import FieldReader, FieldWriter
from tokcodec.container.items import (
    ChunkEntry,
    ChunkRecord,
    Limits,
    SidePacket,
    SidePacketBatch,
    StreamHeader,
)
from tokcodec.errors import LimitError
from tokcodec.geometry import MOTION_MAPS, STEP_FRAMES, TEMPORAL_FACTOR

_ENTRY = struct.Struct("<QqI")
_SMALLEST_PACKET_BYTES = 4
_CODES = 8 // wire.STEP_CODE_BITS
"""Steps in a byte."""


def pack_chunk(chunk: ChunkRecord, *, header: StreamHeader) -> bytes:
    """The payload of a chunk record (spec section 5.1)."""
    out = FieldWriter(where=f"chunk {chunk.number}")
    out.uint(4, chunk.frames, "frame count", low=1, high=header.max_chunk_frames)
    if header.chunk_tokens(chunk.frames, chunk.step_frames) > wire.MAX_CHUNK_TOKENS:
        out.fail("the chunk has too many tokens")
    if chunk.step_frames and (problem := _steps_problem(chunk.step_frames, chunk.frames, header)):
        out.fail(problem)
    out.int64(chunk.pts[0], "first timestamp", low=-wire.MAX_TICKS, high=wire.MAX_TICKS)
    out.uint(4, chunk.tokens_crc32, "CRC-32 of the tokens")
    deltas = [b - a for a, b in pairwise(chunk.pts)]
    regular = all(delta == chunk.last_duration for delta in deltas)
    out.uint(1, wire.TIMING_REGULAR if regular else wire.TIMING_LISTED, "timing mode")
    out.uint(1, wire.STEPS_LISTED if chunk.step_frames else wire.STEPS_USUAL, "step mode")
    out.zeros(2)
    out.uint(4, len(chunk.token_data), "length of the token data", high=wire.MAX_PAYLOAD_BYTES)
    for delta in [] if regular else deltas:
        out.varint(delta, "timestamp step", low=1, high=2 * wire.MAX_TICKS)
    out.varint(chunk.last_duration, "frame duration", low=1, high=wire.MAX_TICKS)
    if chunk.pts[-1] > wire.MAX_TICKS:
        out.fail("a timestamp is out of range")
    if chunk.step_frames:
        _put_steps(out, chunk.step_frames)
    out.put(chunk.token_data, "token data")
    return out.finish()


def parse_chunk(payload: bytes, *, number: int, offset: int, header: StreamHeader, limits: Limits) -> ChunkRecord:
    """Chunk `number` in a payload that begins at byte `offset` (spec section 5.1)."""
    data = FieldReader(payload, offset=offset, where=f"chunk {number}")
    frames = data.uint(4, "frame count", low=1, high=header.max_chunk_frames)
    if header.still_image and (number or frames != 1):
        data.fail("a still image has one chunk of one frame", at=0)

    def check_tokens(step_frames: tuple[int, ...] = ()) -> None:
        tokens = header.chunk_tokens(frames, step_frames)
        if tokens > wire.MAX_CHUNK_TOKENS:
            data.fail(f"{tokens} tokens in a chunk, allowed are {wire.MAX_CHUNK_TOKENS}", at=0)
        if tokens > limits.chunk_tokens:
            raise LimitError(
                f"{tokens} tokens in a chunk, the limit is {limits.chunk_tokens}",
                where=f"chunk {number}",
                offset=offset,
                hint="raise the limit if you trust the file",
            )

    check_tokens()
    first = data.int64("first timestamp", low=-wire.MAX_TICKS, high=wire.MAX_TICKS)
    tokens_crc = data.uint(4, "CRC-32 of the tokens")
    mode = data.uint(1, "timing mode", high=wire.TIMING_LISTED)
    listed = data.uint(1, "step mode", high=wire.STEPS_LISTED) == wire.STEPS_LISTED
    data.zeros(2)
    size = data.uint(4, "length of the token data", high=wire.MAX_PAYLOAD_BYTES)
    pts, last_duration = _take_timing(data, mode=mode, first=first, frames=frames)
    step_frames = _take_steps(data, frames=frames, header=header) if listed else ()
    check_tokens(step_frames)
    token_data = data.take(size, "token data")
    data.finish()
    return ChunkRecord(
        number=number,
        pts=pts,
        last_duration=last_duration,
        tokens_crc32=tokens_crc,
        token_data=token_data,
        step_frames=step_frames,
    )


def _put_steps(out: FieldWriter, step_frames: Sequence[int]) -> None:
    """The list of a chunk's later steps (spec section 5.4)."""
    out.varint(len(step_frames), "step count")
    codes = [STEP_FRAMES.index(count) for count in step_frames]
    for first in range(0, len(codes), _CODES):
        part = codes[first : first + _CODES]
        out.uint(1, sum(code << wire.STEP_CODE_BITS * place for place, code in enumerate(part)), "frames of steps")


def _take_steps(data: FieldReader, *, frames: int, header: StreamHeader) -> tuple[int, ...]:
    """Frames that each later step shows (spec section 5.4)."""
    count = data.varint("step count", low=1, high=frames - 1) if frames > 1 else 0
    found: list[int] = []
    for first in range(0, count, _CODES):
        codes = data.uint(1, "frames of steps")
        for place in range(_CODES):
            code = codes >> wire.STEP_CODE_BITS * place & (1 << wire.STEP_CODE_BITS) - 1
            if first + place >= count and code:
                data.fail("frames of a step beyond the last")
            if code >= len(STEP_FRAMES):
                data.fail(f"frames of a step are of kind {code}")
            if first + place < count:
                found.append(STEP_FRAMES[code])
    if problem := _steps_problem(found, frames, header):
        data.fail(problem)
    return tuple(found)


def _steps_problem(step_frames: Sequence[int], frames: int, header: StreamHeader) -> str | None:
    """Why the list of a chunk's steps cannot be, or None (spec section 5.4)."""
    geometry = header.geometry
    if geometry.motion_maps != MOTION_MAPS or geometry.temporal_factor != TEMPORAL_FACTOR:
        return "steps are listed in a file without seven motion maps a step"
    if not set(step_frames) <= set(STEP_FRAMES):
        return f"a step of {max(set(step_frames) - set(STEP_FRAMES))} frames"
    if set(step_frames) <= {TEMPORAL_FACTOR}:
        return "steps are listed that all show four frames"
    if not sum(step_frames[:-1]) < frames - 1 <= sum(step_frames):
        return f"steps of {sum(step_frames)} frames after the first in a chunk of {frames}"
    return None


def _take_timing(data: FieldReader, *, mode: int, first: int, frames: int) -> tuple[tuple[int, ...], int]:
    """Timestamps and the last frame's duration (spec section 5.2)."""
    pts = [first]
    deltas: list[int] = []
    if mode == wire.TIMING_LISTED:
        for _ in range(frames - 1):
            deltas.append(data.varint("timestamp step", low=1, high=2 * wire.MAX_TICKS))
            pts.append(pts[-1] + deltas[-1])
    duration = data.varint("frame duration", low=1, high=wire.MAX_TICKS)
    if mode == wire.TIMING_REGULAR:
        pts = [first + i * duration for i in range(frames)]
    elif all(delta == duration for delta in deltas):
        data.fail("regular timestamps are written as a list")
    if pts[-1] > wire.MAX_TICKS:
        data.fail("a timestamp is out of range")
    return tuple(pts), duration


def pack_packets(packets: Sequence[SidePacket], *, header: StreamHeader) -> bytes:
    """The payload of a packets record (spec section 6.1)."""
    out = FieldWriter(where="packets")
    known = {stream.index for stream in header.side_streams}
    predicted: dict[int, int] = {}
    out.uint(4, len(packets), "packet count", low=1, high=wire.MAX_PACKETS)
    for packet in packets:
        if packet.stream not in known:
            out.fail(f"packet of stream {packet.stream}, which the header does not name")
        for ticks in (packet.pts, packet.dts):
            if ticks is not None and abs(ticks) > wire.MAX_TICKS:
                out.fail("a timestamp is out of range")
        out.varint(packet.stream, "packet stream", high=wire.MAX_U16)
        out.uint(1, _packet_flags(packet), "packet flags")
        out.varint(packet.duration, "packet duration", high=wire.MAX_TICKS)
        if packet.pts is not None:
            out.zigzag(packet.pts - predicted.get(packet.stream, 0), "packet timestamp")
        if packet.dts is not None:
            out.zigzag(packet.dts - (packet.pts or 0), "packet decoding timestamp")
        predicted[packet.stream] = 0 if packet.pts is None else packet.pts + packet.duration
        out.varint(len(packet.data), "packet size", high=wire.MAX_PAYLOAD_BYTES)
        out.put(packet.data, "packet")
    return out.finish()


def parse_packets(payload: bytes, *, offset: int, header: StreamHeader) -> SidePacketBatch:
    """The packets in a payload that begins at byte `offset` (spec section 6.1)."""
    data = FieldReader(payload, offset=offset, where="packets")
    known = {stream.index for stream in header.side_streams}
    predicted: dict[int, int] = {}
    packets: list[SidePacket] = []
    count = data.uint(4, "packet count", low=1, high=wire.MAX_PACKETS)
    if count * _SMALLEST_PACKET_BYTES > data.remaining:
        data.fail(f"{count} packets do not fit the payload", at=0)
    for _ in range(count):
        stream = data.varint("packet stream", high=wire.MAX_U16)
        if stream not in known:
            data.fail(f"packet of stream {stream}, which the header does not name")
        flags = data.uint(1, "packet flags", high=wire.PACKET_KEYFRAME | wire.PACKET_HAS_PTS | wire.PACKET_HAS_DTS)
        duration = data.varint("packet duration", high=wire.MAX_TICKS)
        pts = dts = None
        if flags & wire.PACKET_HAS_PTS:
            pts = data.zigzag("packet timestamp") + predicted.get(stream, 0)
        if flags & wire.PACKET_HAS_DTS:
            dts = data.zigzag("packet decoding timestamp") + (pts or 0)
        if max(abs(pts or 0), abs(dts or 0)) > wire.MAX_TICKS:
            data.fail("a timestamp is out of range")
        predicted[stream] = 0 if pts is None else pts + duration
        size = data.varint("packet size", high=wire.MAX_PAYLOAD_BYTES)
        packets.append(
            SidePacket(
                stream=stream,
                data=data.take(size, "packet"),
                keyframe=bool(flags & wire.PACKET_KEYFRAME),
                pts=pts,
                dts=dts,
                duration=duration,
            )
        )
    data.finish()
    return SidePacketBatch(packets=tuple(packets))


def _packet_flags(packet: SidePacket) -> int:
    return (
        (wire.PACKET_KEYFRAME if packet.keyframe else 0)
        | (0 if packet.pts is None else wire.PACKET_HAS_PTS)
        | (0 if packet.dts is None else wire.PACKET_HAS_DTS)
    )


def pack_entry(entry: ChunkEntry) -> bytes:
    """One entry of the index (spec section 6.2)."""
    return _ENTRY.pack(entry.offset, entry.first_pts, entry.frames)


@dataclass(frozen=True, kw_only=True)
class IndexBody:
    """An index record whose entries are still bytes, so that a reader need not hold them as objects."""

    total_frames: int
    total_chunks: int
    entries: bytes

    def __iter__(self) -> Iterator[ChunkEntry]:
        for number, (offset, first_pts, frames) in enumerate(_ENTRY.iter_unpack(self.entries)):
            yield ChunkEntry(number=number, offset=offset, first_pts=first_pts, frames=frames)


def pack_index(index: IndexBody) -> bytes:
    """The payload of the index record (spec section 6.2)."""
    out = FieldWriter(where="index")
    out.uint(8, index.total_frames, "total frames", low=1)
    out.uint(4, index.total_chunks, "total chunks", low=1)
    out.zeros(4)
    out.put(index.entries, "entries", size=index.total_chunks * wire.INDEX_ENTRY_BYTES)
    return out.finish()


def parse_index(payload: bytes, *, offset: int, end: int) -> IndexBody:
    """The index in a payload that begins at byte `offset`, checked for consistency (spec section 6.2).

    Args:
        payload: The payload.
        offset: Byte offset of the payload.
        end: Entries have to point below this byte.
    """
    data = FieldReader(payload, offset=offset, where="index")
    total_frames = data.uint(8, "total frames", low=1)
    total_chunks = data.uint(4, "total chunks", low=1)
    data.zeros(4)
    if data.remaining != total_chunks * wire.INDEX_ENTRY_BYTES:
        data.fail(f"{data.remaining} bytes of entries for {total_chunks} chunks", at=8)
    index = IndexBody(
        total_frames=total_frames, total_chunks=total_chunks, entries=data.take(data.remaining, "entries")
    )
    frames = 0
    before: ChunkEntry | None = None
    for entry in index:
        rising = before is None or (entry.offset > before.offset and entry.first_pts > before.first_pts)
        in_range = wire.SIGNATURE_BYTES < entry.offset < end
        if not (rising and in_range and 1 <= entry.frames <= wire.MAX_CHUNK_FRAMES):
            data.fail(
                f"the entry of chunk {entry.number} is not possible",
                at=wire.INDEX_FIXED_BYTES + entry.number * wire.INDEX_ENTRY_BYTES,
            )
        frames += entry.frames
        before = entry
    if frames != total_frames:
        data.fail(f"{total_frames} frames in all, but the entries have {frames}", at=0)
    return index


def pack_end(index_offset: int) -> bytes:
    """The payload of the end record (spec section 6.3)."""
    out = FieldWriter(where="end")
    out.uint(8, index_offset, "offset of the index")
    return out.finish()


def parse_end(payload: bytes, *, offset: int) -> int:
    """Byte offset of the index record (spec section 6.3)."""
    data = FieldReader(payload, offset=offset, where="end")
    index_offset = data.uint(8, "offset of the index")
    data.finish()
    return index_offset
