"""An independent parser and decoder of the `.tok` format, written from bitstream_spec.md alone.

The exceptions: motion in section 8.3 and the limits of 10.2 were brought up to date, and the model `prior` (7.8) and
the variants of the network (8.4, 8.5) but for `coded_motion` were written, by authors of tokcodec.

Of its parts, `spec_coding` is what reads bits, `spec_motion` the network for motion and `spec_blocks` first pictures by
blocks. It shares no code with tokcodec, so that a disagreement shows a bug of one of the two or of the document. It
favours plainness over speed.
Numbers in brackets are sections of bitstream_spec.md.
Use: python tests/spec_decoder.py FILE.tok [WEIGHTS.safetensors]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spec_blocks
import spec_motion
from numpy.typing import NDArray
from spec_coding import (
    SIZES,
    RangeDecoder,
    SpecError,
    ask_network,
    check,
    decode_coefficients,
    decode_scale,
    format_network,
    squash,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Indices = NDArray[np.uint64]
Levels = NDArray[np.uint8]
Vectors = NDArray[np.int16]

LIMITS = {"payload": 2**26, "pixels": 2**25, "grid": 2**20, "tokens": 2**26, "index": 2**20}  # of a reader (10.2)
MAGIC = bytes.fromhex("8e544f4b0d0a1a0a")
SYNC = bytes.fromhex("9d546bf6")
HEADER, CHUNK, PACKETS, INDEX, END = 1, 2, 3, 4, 5
CRITICAL = {HEADER: 1, CHUNK: 1, PACKETS: 0, INDEX: 0, END: 1}  # the critical flag of the known types (2.4)
MAX_TIME = 2**60


class Geometry(NamedTuple):
    """What tokens need of the header (3)."""

    bits_per_token: int
    level_bits: tuple[int, ...]
    block_tokens: int
    spatial_factor: int = 8
    temporal_factor: int = 4
    probability_model: int = 0
    motion: bool = False
    seven: bool = False
    pictures: bool = False
    residuals: bool = False
    blocks: bool = False  # first pictures are by blocks
    network: bool = False  # says how likely motion is (7.14)
    second: bool = False  # reference (3.5)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.spatial_factor), -(-width // self.spatial_factor)

    def motion_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows of all maps of a step, one map below the other, and of the choice map."""
        return ((self.maps + self.second) * -(-rows // 2), -(-columns // 2)) if self.motion else (0, 0)

    @property
    def maps(self) -> int:
        return 7 if self.seven else 1

    def steps(self, frames: int, listed: tuple[int, ...] = ()) -> int:
        return 1 + (len(listed) or -(-(frames - 1) // self.temporal_factor))


Ratio = tuple[int, int]


class SideStream(NamedTuple):
    index: int  # (4.5)
    kind: int
    time_base: Ratio
    codec: str
    language: str
    template: bytes


class Picture(NamedTuple):
    """The first picture of a chunk (3.6, 3.8), or the residual of a later step (3.7)."""

    coefficients: NDArray[np.int16]  # (3, 8 rows, 8 columns); of a residual (3, 2 rows, 2 columns)
    scale: int
    layout: NDArray[np.uint8] | None = None  # (2 rows, 2 columns) of a picture by blocks


Residuals = list[Picture | None]  # of each later step
Tokens = (
    tuple[Indices, Levels, Vectors]
    | tuple[Indices, Levels, Vectors, Picture]
    | tuple[Indices, Levels, Vectors, Picture, Residuals]
)


class Extension(NamedTuple):
    offset: int  # of a header extension (4.6), or of a record of a type that has no meaning here (2.4, 6.4)
    type: int
    critical: bool
    data: bytes


class Chunk(NamedTuple):
    offset: int  # of the record (5)
    number: int
    pts: list[int]
    last_duration: int
    tokens_crc: int
    timing_mode: int
    token_data: bytes
    listed: tuple[int, ...] = ()  # frames that later steps show (5.4)


class Packet(NamedTuple):
    offset: int  # of the record (6.1)
    stream: int
    keyframe: bool
    pts: int | None
    dts: int | None
    duration: int
    data: bytes


class IndexEntry(NamedTuple):
    offset: int  # (6.2)
    first_pts: int
    frame_count: int


class Damage(NamedTuple):
    offset: int  # (9.2)
    length: int
    reason: str
    missing: range  # numbers of chunks
    open_end: bool  # chunks after these may be missing as well


@dataclass
class Header:
    """The fields of (4.1), in their order but for the last; those of tokens are in `geometry`."""

    width: int
    height: int
    time_base: Ratio
    frame_rate: Ratio
    sample_aspect_ratio: Ratio
    still_image: bool
    colour: tuple[int, int, int]  # primaries, transfer, matrix
    full_range: bool
    max_chunk_frames: int
    probability_digest: bytes
    tokenizer_digest: bytes
    tokenizer_name: str
    side_streams: list[SideStream]
    extensions: list[Extension]
    geometry: Geometry

    @property
    def grid(self) -> tuple[int, int]:
        return self.geometry.grid(self.height, self.width)


@dataclass
class ParsedFile:
    """All that a file holds, records in the order of the file. `whole` is that of (9.3)."""

    version_minor: int
    header: Header
    chunks: list[Chunk] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    index: list[IndexEntry] | None = None
    index_offset: int | None = None
    ended: bool = False
    damages: list[Damage] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.ended and not self.damages


class Cursor:
    """Reads the fields of (1.3) from one payload, which begins at `base` in the file."""

    def __init__(self, data: bytes, base: int) -> None:
        self.data, self.base, self.position = data, base, 0

    @property
    def offset(self) -> int:
        return self.base + self.position

    def take(self, size: int, what: str) -> bytes:
        check(size <= len(self.data) - self.position, self.offset, f"{what} does not fit")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, size: int, what: str, low: int = 0, high: int = 2**64, signed: bool = False) -> int:
        """An integer of fixed size; a reserved field has the limits 0 and 0."""
        value = int.from_bytes(self.take(size, what), "little", signed=signed)
        check(low <= value <= high, self.offset - size, f"{what} is {value}")
        return value

    def varint(self, what: str, low: int = 0, high: int = 2**63 - 1) -> int:
        offset, value = self.offset, 0
        for i in range(9):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                check(byte != 0 or i == 0, offset, f"{what} is not in its shortest form")
                check(low <= value <= high, offset, f"{what} is {value}")
                return value
        raise SpecError("C", offset, f"{what} is a varint of more than 9 bytes")

    def zigzag(self, what: str) -> int:
        value = self.varint(what)
        return value >> 1 if value % 2 == 0 else -(value + 1) // 2

    def ratio(self, what: str, unknown: bool) -> Ratio:
        offset = self.offset
        a, b = self.number(4, what), self.number(4, what)
        known = 1 <= a < 2**31 and 1 <= b < 2**31 and math.gcd(a, b) == 1
        check(known or (unknown and a == b == 0), offset, f"{what} is {a}/{b}")
        return a, b

    def text(self, what: str, low: int, high: int) -> str:
        offset = self.offset
        raw = self.take(self.number(1, what, low, high), what)
        try:
            value = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise SpecError("C", offset, f"{what} is not UTF-8") from None
        control = any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in value)
        check(not control, offset, f"{what} holds a control character")
        return value

    def end(self) -> None:
        check(self.position == len(self.data), self.offset, "bytes left over in the payload")


def parse_header(payload: bytes, base: int) -> Header:
    """The header's payload (4). Errors come in the order of the fields."""
    c = Cursor(payload, base)
    width, height = c.number(2, "width", 1, 16384), c.number(2, "height", 1, 16384)
    check(width * height <= LIMITS["pixels"], base, f"a picture of {width}x{height}", "L")
    time_base, rate = c.ratio("time_base", unknown=False), c.ratio("frame_rate", unknown=True)
    aspect = c.ratio("sample_aspect_ratio", unknown=True)
    flags = c.number(1, "flags")
    still, motion, seven, pictures, residuals, blocks, network, second = (flags >> bit & 1 == 1 for bit in range(8))
    check(motion or not seven, c.offset - 1, "seven motion maps, and none")
    check(seven or not pictures, c.offset - 1, "first pictures by coefficients without seven motion maps")
    check(pictures or not residuals, c.offset - 1, "residuals without first pictures by coefficients")
    check(pictures or not blocks, c.offset - 1, "first pictures by blocks, and not by coefficients")
    check(seven or not network, c.offset - 1, "a network for motion without seven motion maps")
    check(pictures or not second, c.offset - 1, "a second reference without first pictures by coefficients")
    colour = (c.number(1, "primaries"), c.number(1, "transfer"), c.number(1, "matrix"))
    full_range = c.number(1, "full_range", 0, 1) == 1
    bits = c.number(1, "bits_per_token", 1, 64)
    spatial = c.number(1, "spatial_factor", 1, 64)
    check(spatial == 8 or not pictures, c.offset - 1, "first pictures by coefficients of other tokens")
    temporal = c.number(1, "temporal_factor", 1, 64)
    block_tokens = c.number(1, "block_tokens", 1, 64)
    levels = tuple(c.take(c.number(1, "level_count", 2, 16), "level_bits"))
    rising = all(a < b for a, b in itertools.pairwise(levels))
    check(rising and levels[0] == 0 and levels[-1] == bits, base + 38, f"level_bits are {levels}")
    max_frames = c.number(4, "max_chunk_frames", 1, 65536)
    model = c.number(1, "probability_model")
    check(model in (0, 1), c.offset - 1, f"probability model {model}", "U")
    model_digest = c.take(32, "probability_digest")
    check(any(model_digest) == (model != 0), c.offset - 32, "probability_digest does not suit the model")
    digest, name = c.take(32, "tokenizer_digest"), c.text("tokenizer_name", 1, 64)
    streams: list[SideStream] = []
    for _ in range(c.number(1, "side_stream_count")):
        index = c.number(2, "side stream index", streams[-1].index + 1 if streams else 0)
        kind = c.number(1, "side stream kind", 1)
        c.number(1, "reserved", 0, 0)
        stream_base = c.ratio("side stream time_base", unknown=False)
        codec, language = c.text("codec", 0, 64), c.text("language", 0, 35)
        template = c.take(c.number(4, "template", 0, 2**24), "template")
        streams.append(SideStream(index, kind, stream_base, codec, language, template))
    extensions: list[Extension] = []
    for _ in range(c.number(2, "extension_count")):
        offset = c.offset
        kind, critical = c.number(1, "extension type", 1), c.number(1, "extension flags", 0, 1) == 1
        data = c.take(c.number(4, "extension size"), "extension data")
        check(not critical, offset, "unknown critical header extension", "U")
        extensions.append(Extension(offset, kind, critical, data))
    c.end()
    geometry = Geometry(bits, levels, block_tokens, spatial, temporal, model,
                        motion, seven, pictures, residuals, blocks, network, second)  # fmt: skip
    header = Header(width, height, time_base, rate, aspect, still, colour, full_range, max_frames,
                    model_digest, digest, name, streams, extensions, geometry)  # fmt: skip
    check(math.prod(header.grid) <= LIMITS["grid"], base, f"{math.prod(header.grid)} tokens in a picture", "L")
    return header


def parse_chunk(payload: bytes, offset: int, number: int, header: Header) -> Chunk:
    """A chunk's payload (5), without what depends on the chunks before it."""
    c = Cursor(payload, offset + 24)
    frames = c.number(4, "frame_count", 1, header.max_chunk_frames)
    check(not header.still_image or (frames == 1 and number == 0), offset + 24, "a still image has one frame")
    tokens = header.geometry.steps(frames) * math.prod(header.grid)
    check(tokens <= 2**28, offset + 24, f"{tokens} tokens in a chunk")
    check(tokens <= LIMITS["tokens"], offset + 24, f"{tokens} tokens in a chunk", "L")
    first_pts = c.number(8, "first_pts", -MAX_TIME, MAX_TIME, signed=True)
    crc, mode = c.number(4, "tokens_crc"), c.number(1, "timing_mode", 0, 1)
    step_mode = c.number(1, "step_mode", 0, 1)
    c.number(2, "reserved", 0, 0)
    size = c.number(4, "token_data_size")
    steps = [c.varint("step", 1, 2**61) for _ in range(frames - 1)] if mode == 1 else []
    duration = c.varint("duration", 1, MAX_TIME)
    uneven = any(step != duration for step in steps)
    check(mode == 0 or uneven, offset + 48, "listed timing that is regular")
    pts = list(itertools.accumulate(steps if uneven else [duration] * (frames - 1), initial=first_pts))
    check(pts[-1] <= MAX_TIME, offset + 48, f"the last timestamp is {pts[-1]}")
    listed = parse_steps(c, frames, header) if step_mode == 1 else ()
    tokens = header.geometry.steps(frames, listed) * math.prod(header.grid)
    check(tokens <= 2**28, offset + 24, f"{tokens} tokens in a chunk")
    check(tokens <= LIMITS["tokens"], offset + 24, f"{tokens} tokens in a chunk", "L")
    token_data = c.take(size, "token_data")
    c.end()
    return Chunk(offset, number, pts, duration, crc, mode, token_data, listed)


def parse_steps(c: Cursor, frames: int, header: Header) -> tuple[int, ...]:
    """The frames that each later step shows (5.4)."""
    start = c.offset
    check(header.geometry.seven and header.geometry.temporal_factor == 4, start, "a list of steps")
    check(frames > 1, start, "a list of no steps")
    count = c.varint("count of steps", 1, frames - 1)
    packed = int.from_bytes(c.take(-(-count // 4), "steps"), "little")
    numbers = [packed >> 2 * step & 3 for step in range(count)]
    check(packed >> 2 * count == 0 and 3 not in numbers, start, "bits of the list")
    check(any(numbers), start, "a list of usual steps")
    shows = [4 >> number for number in numbers]
    check(sum(shows[:-1]) < frames - 1 <= sum(shows), start, f"steps of {sum(shows)} frames for {frames}")
    return tuple(shows)


def parse_packets(payload: bytes, offset: int, header: Header) -> list[Packet]:
    """A packets record (6.1)."""
    c = Cursor(payload, offset + 24)
    packets: list[Packet] = []
    expected_pts: dict[int, int] = {}  # p of (6.1), by stream
    for _ in range(c.number(4, "packet_count", 1, 65536)):
        start = c.offset
        stream = c.varint("stream")
        check(any(stream == s.index for s in header.side_streams), start, f"there is no stream {stream}")
        flags = c.number(1, "packet flags", 0, 7)
        duration = c.varint("packet duration", 0, MAX_TIME)
        pts = c.zigzag("pts_difference") + expected_pts.get(stream, 0) if flags & 2 else None
        dts = c.zigzag("dts_difference") + (pts or 0) if flags & 4 else None
        check(abs(pts or 0) <= MAX_TIME and abs(dts or 0) <= MAX_TIME, start, f"pts {pts}, dts {dts}")
        expected_pts[stream] = 0 if pts is None else pts + duration
        data = c.take(c.varint("packet size", 0, 2**28), "packet data")
        packets.append(Packet(offset, stream, flags & 1 == 1, pts, dts, duration, data))
    c.end()
    return packets


class Reader:
    """Reads a file from its start, strictly or as (9) says."""

    def __init__(self, data: bytes, robust: bool) -> None:
        self.data, self.robust = data, robust
        self.key = b""
        self.position, self.sequence, self.chunk_number = 16, 0, 0  # the place, q0 and c0 of (9)
        self.failed_bytes = 0  # payloads read in vain (9.1)
        self.last_broken = -1  # the highest chunk number in a readable header of a broken record

    def run(self) -> ParsedFile:
        """Signature (2.1), header record, and all other records."""
        data = self.data
        check(len(data) >= 16 and data[:8] == MAGIC, 0, "this is no .tok file")
        check(zlib.crc32(data[:12]) == int.from_bytes(data[12:16], "little"), 12, "signature_crc is wrong")
        check(data[8] == 1, 8, f"major version {data[8]}", "U")
        check(data[10:12] == b"\0\0", 10, "a reserved field is not 0")
        found = self.record_at(16, 0)
        if isinstance(found, str):
            raise SpecError("C", 16, f"header record: {found}", damage=True)
        check(found[:3] == (HEADER, 0, 0), 16, "the first record is not a proper header")
        self.position += 28 + len(found[3])
        self.key, self.sequence = data[self.position - 4 : self.position], 1
        self.file = ParsedFile(data[9], parse_header(found[3], 40))
        try:
            while self.next_record():
                pass
        except SpecError as error:
            error.partial = self.file
            raise
        return self.file

    def report(self, offset: int, end: int, reason: str, missing: range, open_end: bool = False) -> None:
        """Report damage, or stop at it where reading is strict (12)."""
        if not self.robust:
            raise SpecError("C", offset, f"damage: {reason}", damage=True)
        self.file.damages.append(Damage(offset, end - offset, reason, missing, open_end))

    def record_at(self, at: int, lowest: int) -> tuple[int, int, int, bytes] | str:
        """Type, sequence, chunks_before and payload of the whole record at a place (2.2), or a fault."""
        head = self.data[at : at + 24]
        if head[:4] != SYNC or len(head) < 24:
            return "no sync marker" if SYNC[: len(head)] != head[:4] else "the file ends here"
        kind, flags, reserved, sequence, chunks_before, size, header_crc = struct.unpack("<4xBBHIIII", head)
        if zlib.crc32(head[:20] + self.key) != header_crc:
            return "header_crc is wrong"
        if sequence < lowest:
            return "the sequence number is too low"
        check(kind != 0, at + 4, "record type 0")
        check(flags < 2 and CRITICAL.get(kind, flags) == flags, at + 5, f"record flags {flags}")
        check(reserved == 0, at + 6, "a reserved field is not 0")
        check(size <= (2**26 if kind == HEADER else 2**28), at + 16, f"a payload of {size} bytes")
        check(size <= LIMITS["payload"], at + 16, f"a payload of {size} bytes", "L")
        payload, stored = self.data[at + 24 : at + 24 + size], self.data[at + 24 + size : at + 28 + size]
        if len(stored) == 4 and zlib.crc32(payload) == int.from_bytes(stored, "little"):
            return kind, sequence, chunks_before, payload
        if kind == CHUNK and 0 <= chunks_before - self.chunk_number <= sequence - self.sequence:
            self.last_broken = max(self.last_broken, chunks_before)
        self.failed_bytes += len(payload)
        check(self.failed_bytes <= 16 * len(self.data) + 2**26, at, "too much work to find a record", "L")
        return "payload_crc is wrong" if len(stored) == 4 else "the file ends within this record"

    def next_record(self) -> bool:
        """Find the next whole record (9.1), note what is missing (9.2), and read it; False at the end."""
        start = at = self.position
        self.last_broken = -1
        found = self.record_at(at, 0)
        reason = found if isinstance(found, str) else ""
        while isinstance(found, str):
            at = self.data.find(SYNC, at + 1) if self.robust else -1
            if at < 0:
                indexed = self.file.index is not None
                missing = range(0) if indexed else range(self.chunk_number, self.last_broken + 1)
                self.report(start, len(self.data), reason, missing, open_end=not indexed)
                return False
            found = self.record_at(at, self.sequence)
        kind, sequence, chunks_before, payload = found
        gap, lost = sequence - self.sequence, chunks_before - self.chunk_number
        check(gap >= 0, at + 8, f"sequence {sequence}, not {self.sequence}")
        check(0 <= lost <= gap, at + 12, f"chunks_before {chunks_before}, not {self.chunk_number}")
        if reason or gap:
            missing = range(self.chunk_number, chunks_before)
            self.report(start, at, reason or f"{gap} records are missing", missing)
        self.sequence, self.chunk_number, self.position = sequence + 1, chunks_before, at + 28 + len(payload)
        self.read_record(at, kind, payload)
        return not self.file.ended

    def read_record(self, at: int, kind: int, payload: bytes) -> None:
        """Check the order of (2.5), then read a payload."""
        file = self.file
        check(kind != HEADER, at + 4, "a second header")
        check(file.index is None or kind == END, at + 4, f"a record of type {kind} after the index")
        if kind == CHUNK:
            chunk = parse_chunk(payload, at, self.chunk_number, file.header)
            in_order = not file.chunks or chunk.pts[0] > file.chunks[-1].pts[-1]
            check(in_order, at + 28, "a chunk that does not come after the one before")
            file.chunks.append(chunk)
            self.chunk_number += 1
        elif kind == PACKETS:
            file.packets += parse_packets(payload, at, file.header)
        elif kind == INDEX:
            file.index, file.index_offset = self.parse_index(at, payload), at
        elif kind == END:
            check(file.index is not None or bool(file.damages), at + 4, "an end record without an index")
            c = Cursor(payload, at + 24)
            offset = c.number(8, "index_offset")
            c.end()
            check(bool(file.damages) or offset == file.index_offset, at + 24, f"index_offset is {offset}")
            file.ended = True
            if self.position < len(self.data):
                self.report(self.position, len(self.data), "bytes after the end record", range(0))
        else:
            critical = self.data[at + 5] == 1
            check(not critical, at + 4, f"unknown critical record type 0x{kind:02X}", "U")
            file.extensions.append(Extension(at, kind, critical, payload))

    def parse_index(self, at: int, payload: bytes) -> list[IndexEntry]:
        """The index (6.2), compared with the chunks where there was no damage."""
        chunks, damaged, c = self.file.chunks, bool(self.file.damages), Cursor(payload, at + 24)
        total_frames, total_chunks = c.number(8, "total_frames"), c.number(4, "total_chunks", 1)
        check(total_chunks == self.chunk_number, at + 32, f"total_chunks is {total_chunks}")
        c.number(4, "reserved", 0, 0)
        check(len(payload) == 16 + 20 * total_chunks, c.offset, "the entries do not fill the payload")
        check(total_chunks <= LIMITS["index"], at + 32, f"{total_chunks} index entries", "L")
        entries: list[IndexEntry] = []
        for i in range(total_chunks):
            entry = IndexEntry(*struct.unpack("<QqI", c.take(20, "entry")))
            last = entries[-1] if entries else IndexEntry(16, -(2**63), 1)
            rising = entry.offset > last.offset and entry.first_pts > last.first_pts
            check(rising and (damaged or entry.offset < at), c.offset - 20, f"entry {i} is out of order")
            check(1 <= entry.frame_count <= 65536, c.offset - 4, f"entry {i} has {entry.frame_count} frames")
            same = damaged or entry == (chunks[i].offset, chunks[i].pts[0], len(chunks[i].pts))
            check(same, c.offset - 20, f"entry {i} is not that of its chunk")
            entries.append(entry)
        check(total_frames == sum(e.frame_count for e in entries), at + 24, f"total_frames is {total_frames}")
        check(total_frames >= sum(len(k.pts) for k in chunks), at + 24, "total_frames is below those read")
        check(not self.file.header.still_image or total_frames == 1, at + 24, "a still image has one frame")
        return entries


def parse(data: bytes) -> ParsedFile:
    """Strict reading: the first violation or damage is a SpecError (damage as C with `damage` set) (12)."""
    return Reader(data, robust=False).run()


def recover(data: bytes) -> tuple[list[Chunk], list[Damage]]:
    """Robust reading (9). C, U and L still end it; what came before is `partial` of the error."""
    file = Reader(data, robust=True).run()
    return file.chunks, file.damages


# fmt: off
LOG = (0, 126, 248, 367, 482, 595, 704, 810, 914, 1015, 1114, 1210, 1304, 1396, 1486, 1575, 1661, 1745, 1828,
       1909, 1989, 2067, 2143, 2218, 2292, 2365, 2436, 2506, 2575, 2642, 2709, 2775, 2839)
# fmt: on


def log(n: int) -> int:
    """About 4096 ln(n) (7.5)."""
    e = n.bit_length() - 1
    f = (n << (16 - e)) - 65536
    i = f >> 11
    return e * 2839 + LOG[i] + (((LOG[i + 1] - LOG[i]) * (f & 2047)) >> 11)


LOG_OF_COUNT = np.array([0] + [log(n) for n in range(1, 16385)], dtype=np.int64)


class Mixer:
    """A mixer (7.6). A table is given by the row of each slot, and the initial stretch of each cell or row and cell."""

    def __init__(self, tables: list[tuple[list[int], list[Any]]], weights: Ints | None = None) -> None:
        self.rows = [rows for rows, _ in tables]
        self.counts: list[Ints] = []  # of each table: row, cell, n0 and n1
        for rows, stretches in tables:
            start = np.array(stretches)
            start = np.broadcast_to(start, (max(rows) + 1, start.shape[-1]))
            n1 = np.clip((16 * squash(start) + 32768) >> 16, 1, 15)
            self.counts.append(np.stack([16 - n1, n1], axis=-1))
        if weights is None:
            weights = np.full((len(tables[0][0]), len(tables)), 22938, dtype=np.int64)
        self.weights = weights.copy()
        self.pending: list[tuple[int, list[Ints], Ints, Ints, Ints]] = []

    def decode(self, decoder: RangeDecoder, slot: int, cells: list[Ints], given: Ints | None = None) -> Ints:
        """The bits of decisions of one slot, given the cell of each in every table, and a given stretch (7.8, 7.14)."""
        tables = zip(self.counts, self.rows, cells, strict=True)
        counts = [table[rows[slot], cell] for table, rows, cell in tables]
        logs = LOG_OF_COUNT[np.stack(counts)]
        stretches = np.clip((logs[..., 1] - logs[..., 0]) >> 4, -2047, 2047)
        if given is not None:
            stretches = np.concatenate([stretches, given[None]])
        p = squash(np.clip((self.weights[slot] @ stretches) >> 16, -2047, 2047))
        bits = np.array([decoder.decode(value) for value in p.tolist()], dtype=np.int64)
        self.pending.append((slot, cells, stretches, p, bits))
        return bits

    def adapt(self) -> None:
        """Update the weights, then the counts."""
        n, g = np.zeros((len(self.weights), 1), dtype=np.int64), np.zeros_like(self.weights)
        for slot, cells, stretches, p, bits in self.pending:
            n[slot] += len(bits)
            g[slot] += stretches @ (65536 * bits - p)
            for table, rows, cell in zip(self.counts, self.rows, cells, strict=True):
                np.add.at(table, (rows[slot], cell, bits), 16)
        self.weights = np.clip(self.weights + g // (256 * (n + 8)), -131072, 131072)
        for table in self.counts:
            total = table.sum(axis=-1, keepdims=True)
            table[:] = np.where(total > 16384, np.maximum(table * 16384 // total, 1), table)
        self.pending = []


def neighbour_sum(values: Ints) -> Ints:
    """The sum over the neighbours above, below, left and right, with nothing outside (7.3)."""
    p = np.pad(values, 1)
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]


def colour_masks(rows: int, columns: int) -> list[NDArray[np.bool_]]:
    """The cells of both colours (7.3)."""
    parity = np.indices((rows, columns)).sum(axis=0) % 2
    return [parity == 0, parity == 1]


class MapDecoder:
    """The allocation map (7.4); `levels` is L."""

    def __init__(self, decoder: RangeDecoder, levels: int, rows: int, columns: int) -> None:
        self.decoder, self.levels, self.masks = decoder, levels, colour_masks(rows, columns)
        R = [0, -256, -128, 128, 256]
        table_a = [R[back] + 64 * votes for back in range(5) for votes in range(-4, 5)]
        slots = 2 * (levels - 1)
        self.mixer = Mixer([(list(range(slots)), table_a), ([0] * slots, R)])
        self.mode = -1  # of the step before; none yet
        self.before: Ints | None = None

    def decode_mode(self) -> int:
        candidates = [m for m in range(self.levels + 1) if m != self.mode]
        if self.mode >= 0 and self.decoder.decode(61440):
            return self.mode
        while len(candidates) > 1 and not self.decoder.decode(65536 // len(candidates)):
            del candidates[0]
        return candidates[0]

    def decode_step(self) -> Ints:
        self.mode = self.decode_mode()
        level = np.zeros(self.masks[0].shape, dtype=np.int64)
        if self.mode < self.levels:
            level += self.mode
        else:
            for colour, j in itertools.product((0, 1), range(self.levels - 1)):
                votes = back = np.zeros_like(level)
                around = level if colour == 1 else self.before
                if around is not None:
                    votes = neighbour_sum(np.where(around > j, 1, -1))
                if self.before is not None:
                    back = np.clip(self.before - j, -1, 2) + 2
                here = self.masks[colour] & (level == j)
                cells = [(back * 9 + votes + 4)[here], back[here]]
                level[here] += self.mixer.decode(self.decoder, 2 * j + colour, cells)
            check(bool((level != level[0, 0]).any()), self.decoder.offset, "a coded map of one level alone")
            self.mixer.adapt()
        self.before = level
        return level


def motion_sets(rows: int, columns: int) -> list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
    """The sets of motion blocks (7.10): the blocks (y, x), and where those around lie, seen from a block."""

    def blocks(stride: int, *rests: tuple[int, int]) -> list[tuple[int, int]]:
        cells = itertools.product(range(rows), range(columns))
        return [(y, x) for y, x in cells if (y % stride, x % stride) in rests]

    sets: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]] = [(blocks(8, (0, 0)), [])]
    for h in (4, 2, 1):
        sets.append((blocks(2 * h, (h, h)), [(-h, -h), (-h, h), (h, -h), (h, h)]))
        sets.append((blocks(2 * h, (h, 0), (0, h)), [(-h, 0), (h, 0), (0, -h), (0, h)]))
    return sets


class ChoiceDecoder:
    """The choice maps (7.15), on a grid of motion blocks."""

    def __init__(self, decoder: RangeDecoder, rows: int, columns: int) -> None:
        self.decoder, self.sets = decoder, motion_sets(rows, columns)
        others = [-700, -300, -300, 100, 100, 300, 400, 500, 600, 700, -600, 0]
        near = [-600, -400, *3 * [-300, -100], *3 * [0, 100], *3 * [200, 300]]
        tables = [([0, 1], [stretches, [0] * len(stretches)]) for stretches in (others, near)]
        self.mixer = Mixer(tables, np.full((2, 2), 52429, dtype=np.int64))
        self.before = np.zeros((rows, columns), dtype=np.int64)
        self.some = 0

    def decode_step(self, changed: NDArray[np.bool_]) -> Ints:
        """The numbers of a step; `changed` says where map 0 is not as in the step before."""
        choice = np.zeros_like(self.before)
        self.some = self.decoder.decode(57344 if self.some else 8192)
        if self.some:
            for number, (blocks, around) in enumerate(self.sets):
                if blocks:
                    self.decode_set(choice, number, blocks, around, changed)
            check(bool(choice.any()), self.decoder.offset, "a choice map that says nothing")
            self.mixer.adapt()
        self.before = choice
        return choice

    def decode_set(
        self,
        choice: Ints,
        number: int,
        blocks: list[tuple[int, int]],
        around: list[tuple[int, int]],
        changed: NDArray[np.bool_],
    ) -> None:
        rows, columns = choice.shape

        def known(y: int, x: int) -> list[int]:
            places = [(y + dy, x + dx) for dy, dx in around]
            return [int(choice[r, c]) for r, c in places if 0 <= r < rows and 0 <= c < columns]

        cells_a, cells_b = [], []
        for y, x in blocks:
            others = 5 if number == 0 else sum(value != 0 for value in known(y, x))
            near = int((self.before[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] != 0).sum())
            cells_a.append(2 * others + int(self.before[y, x] != 0))
            cells_b.append(2 * near + int(changed[y, x]))
        bits = self.mixer.decode(self.decoder, 0, [np.array(cells_a), np.array(cells_b)])
        there = [block for block, bit in zip(blocks, bits, strict=True) if bit]
        if not there:
            return
        votes = [known(y, x).count(2) - known(y, x).count(1) for y, x in there]
        cells_a = [1 + (vote > 0) - (vote < 0) for vote in votes]
        cells_b = [int(self.before[place]) for place in there]
        bits = self.mixer.decode(self.decoder, 1, [np.array(cells_a), np.array(cells_b)])
        for place, bit in zip(there, bits, strict=True):
            choice[place] = 1 + bit


class MotionDecoder:
    """The motion maps (7.10), on a grid of motion blocks; rows are those of all maps."""

    def __init__(
        self, decoder: RangeDecoder, rows: int, columns: int, maps: int = 1, network: bool = False, second: bool = False
    ) -> None:
        rows //= maps + second
        self.choices = ChoiceDecoder(decoder, rows, columns) if second else None
        self.decoder, self.sets, self.maps = decoder, motion_sets(rows, columns), maps
        differs = [-1400, 100, -900, -100, -700, 100, -500, 300, -200, 500, 0, 700, 0, 500]
        longer = [-300, -300, -200, -200, 0, 0, 300, 300, 500, 500, 500, 500, 500, 500]
        by_set = [700, 700, -200, 400, -300, 200, -400, 100, -500, -200, -600, -200, -700, -300]
        nothing = [0] * 14
        table_a = 2 * [differs, nothing, *9 * [longer]]
        table_b = 2 * [by_set, *10 * [nothing]]
        self.network = spec_motion.MotionNetwork(rows, columns) if network else None
        weights = np.tile([6554, 6554, 55706], (22, 1)) if network else None
        self.mixers = [Mixer([(list(range(22)), table_a), (list(range(22)), table_b)], weights) for _ in range(3)]
        self.first = np.zeros((rows, columns, 2), dtype=np.int64)
        self.before = self.base = self.first
        self.moves = [1] * maps  # so that step 1 finds it as after a step that moves

    def decode_step(self) -> Ints:
        if self.network is not None:
            self.network.begin_step()
        past = self.first
        self.before, self.base = past, np.zeros_like(past)
        v = [self.decode_map(0)]
        self.first = v[0]
        if self.maps == 7:
            expected = (
                lambda: v[0] >> 1,
                lambda: -(v[0] >> 1),
                lambda: v[1] >> 1,
                lambda: np.clip(v[3] - v[1], -511, 511),
                lambda: v[2] >> 1,
                lambda: np.clip(v[5] - v[2], -511, 511),
            )
            for number, e in enumerate(expected, start=1):
                self.before = self.base = e()
                v.append(self.decode_map(number))
        if self.choices is not None:
            choice = self.choices.decode_step((v[0] != past).any(axis=2))
            v.append(np.stack([choice, np.zeros_like(choice)], axis=2))
        return np.concatenate(v)

    def decode_map(self, number_of_map: int) -> Ints:
        v = self.decode_vectors(number_of_map)
        if self.network is not None:
            self.network.end_map(v - self.before)
        return v

    def decode_vectors(self, number_of_map: int) -> Ints:
        v = np.zeros_like(self.before)
        self.mixer = self.mixers[(0, 1, 1, 2, 2, 2, 2)[number_of_map]]
        self.moves[number_of_map] = self.decoder.decode(61440 if self.moves[number_of_map] else 4096)
        if self.moves[number_of_map]:
            for number, (blocks, around) in enumerate(self.sets):
                if blocks:
                    self.decode_set(v, number, blocks, around)
            check(bool((v != self.base).any()), self.decoder.offset, "a coded motion map that says nothing")
            self.mixer.adapt()
            return v
        return self.base

    def predict(self, v: Ints, y: int, x: int, around: list[tuple[int, int]]) -> tuple[list[int], int]:
        """What a vector is predicted to be, and the spread of those around."""
        if not around:
            return [int(e) for e in self.before[y, x]], 6
        rows, columns, _ = v.shape
        places = [(y + dy, x + dx) for dy, dx in around]
        known = [(v[r, c] - self.base[r, c]).tolist() for r, c in places if 0 <= r < rows and 0 <= c < columns]
        middle, span = [], 0
        for axis in (0, 1):
            e = sorted(vector[axis] for vector in known)
            median = (e[(len(e) - 1) // 2] + e[len(e) // 2]) >> 1
            middle.append(min(max(int(self.base[y, x, axis]) + median, -511), 511))
            span = max(span, e[-1] - e[0])
        return middle, sum(span > limit for limit in (0, 2, 6, 16, 40))

    def decode_set(self, v: Ints, number: int, blocks: list[tuple[int, int]], around: list[tuple[int, int]]) -> None:
        predictions = [self.predict(v, y, x, around) for y, x in blocks]
        spread_of = np.array([spread for _, spread in predictions])
        ys, xs = np.array(blocks).T
        rest = d = np.zeros_like(spread_of)
        given = None
        for axis in (0, 1):
            predicted = np.array([vector[axis] for vector, _ in predictions])
            changed = (self.before[ys, xs, axis] != predicted).astype(np.int64)
            cells = [2 * spread_of + d, 2 * number + changed]
            if self.network is not None:
                seen = zip(blocks, [vector for vector, _ in predictions], rest.tolist(), strict=True)
                given = self.network.stretches(axis, number, v, self.before, around, list(seen))
            rest = self.decode_rests(axis, cells, given)
            found = predicted + rest
            check(bool((np.abs(found) <= 511).all()), self.decoder.offset, "a motion vector beyond 511")
            v[ys, xs, axis] = found
            d = (rest != 0).astype(np.int64)

    def decode_rests(self, axis: int, cells: list[Ints], given: Ints | None) -> Ints:
        def decide(kind: int, here: NDArray[np.bool_]) -> Ints:
            stretch = None if given is None else given[here, kind]
            return self.mixer.decode(self.decoder, 11 * axis + kind, [cell[here] for cell in cells], stretch)

        differs = decide(0, np.ones(cells[0].shape, dtype=bool)) == 1
        positive, length, low = (np.zeros_like(cells[0]) for _ in range(3))
        positive[differs] = decide(1, differs)
        for j in range(9):
            here = differs & (length == j)
            length[here] += decide(2 + j, here)
        for j in range(9):
            for i in np.flatnonzero(differs & (length > j)):
                low[i] += self.decoder.decode(32768) << int(length[i] - 1 - j)
        return np.where(differs, (2**length + low) * np.where(positive == 1, 1, -1), 0)


def bands(coefficients: NDArray[Any], coarsest: int = 32) -> list[NDArray[Any]]:
    """Views of the bands of an array whose last axes are rows and columns: 16 (3.6), or 10 of a residual (7.12)."""
    found = [coefficients[..., ::coarsest, ::coarsest]]
    for h in (coarsest >> n for n in range(1, coarsest.bit_length())):
        found += [coefficients[..., y :: 2 * h, x :: 2 * h] for y, x in ((0, h), (h, 0), (h, h))]
    return found


AROUND = [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
FARTHER = [(-2, 0), (2, 0), (0, -2), (0, 2)]


def away(m: Ints, dy: int, dx: int) -> Ints:
    """What lies so far from each place, 0 outside."""
    rows, columns = m.shape
    return np.pad(m, 2)[2 + dy : 2 + dy + rows, 2 + dx : 2 + dx + columns]


def on_grid(m: Ints, rows: int, columns: int) -> Ints:
    """An array for a grid of another size: cut, or with zeros behind it."""
    m = m[:rows, :columns]
    return np.pad(m, ((0, rows - m.shape[0]), (0, columns - m.shape[1])))


class PictureDecoder:
    """The first picture (7.11)."""

    def __init__(self, decoder: RangeDecoder, rows: int, columns: int) -> None:
        self.decoder, self.t = decoder, format_network("picture")
        self.coefficients = np.zeros((3, 8 * rows, 8 * columns), dtype=np.int64)
        self.bands = bands(self.coefficients)
        self.scale = 0

    def decode(self) -> Picture:
        self.scale = decode_scale(self.decoder)
        for band, values in enumerate(self.bands):
            for colour in range(3) if values.size else ():
                if self.decoder.decode(32768):
                    for phase in range(4):
                        self.decode_phase(band, colour, phase)
                    check(bool(values[colour].any()), self.decoder.offset, "a coded band without a coefficient")
        return Picture(self.coefficients.astype(np.int16), self.scale)

    def contexts(self, band: int, colour: int) -> Ints:
        """The inputs (rows, columns, 22) of all places of a band."""
        rows, columns = self.bands[band].shape[1:]

        def sizes(of_band: int, of_colour: int) -> Ints:
            return np.minimum(np.abs(self.bands[of_band][of_colour]), 255)

        def both(m: Ints) -> list[Ints]:
            m = on_grid(m, rows, columns)
            return [m, sum(away(m, *place) for place in AROUND)]

        nothing = [np.zeros((rows, columns), dtype=np.int64)] * 2
        own = sizes(band, colour)
        near, far = [away(own, *place) for place in AROUND], [away(own, *place) for place in FARTHER]
        inputs = [*near, sum(near[:4]), sum(near[4:]), sum(far)]
        inputs += both(sizes(band - 3, colour).repeat(2, axis=0).repeat(2, axis=1)) if band >= 4 else nothing
        number = (band - 1) % 3 if band > 0 else 0  # among the bands of the same n
        for other in (0, 1):
            inputs += both(sizes(band - number + other, colour)) if other < number else nothing
        for other in (0, 1):
            inputs += both(sizes(band, other)) if other < colour else nothing
        found = [SIZES[np.minimum(values, 255)] for values in inputs]
        return np.stack([*found, np.full((rows, columns), 4 * self.scale)], axis=-1)

    def probabilities(self, inputs: Ints, band: int, colour: int, phase: int) -> Ints:
        t = self.t
        first = inputs @ t["inputs.weight"] + t["band.bias"][3 * band + colour] + t["phase.bias"][phase]
        return ask_network(first, t)

    def decode_phase(self, band: int, colour: int, phase: int) -> None:
        i, j = ((0, 0), (1, 1), (0, 1), (1, 0))[phase]
        inputs = self.contexts(band, colour)[i::2, j::2]
        p = self.probabilities(inputs, band, colour, phase).reshape(-1, 4).tolist()
        found = decode_coefficients(self.decoder, p)
        self.bands[band][colour, i::2, j::2] = np.array(found).reshape(inputs.shape[:2])


def decode_picture(decoder: RangeDecoder, rows: int, columns: int, geometry: Geometry) -> Picture:
    """The first picture, by wavelets (7.11) or by blocks (7.13)."""
    if not geometry.blocks:
        return PictureDecoder(decoder, rows, columns).decode()
    found = spec_blocks.BlocksDecoder(decoder, rows, columns)
    found.decode()
    return Picture(found.coefficients.astype(np.int16), found.scale, found.layout)


class ResidualDecoder(PictureDecoder):
    """The residuals of a chunk (7.12)."""

    def __init__(self, decoder: RangeDecoder, rows: int, columns: int) -> None:
        self.decoder, self.t = decoder, format_network("residual")
        self.shape = 3, 2 * rows, 2 * columns
        self.has = np.zeros((10, 3), dtype=np.int64)
        self.there, self.first = 0, True

    def decode_step(self) -> Picture | None:
        self.there = self.decoder.decode(61440 if self.there else 4096)
        if not self.there:
            return None
        if self.first:
            self.scale, self.first = decode_scale(self.decoder), False
        elif not self.decoder.decode(61440):
            before, self.scale = self.scale, decode_scale(self.decoder)
            check(self.scale != before, self.decoder.offset, "another scale of a residual that is the same")
        coefficients = np.zeros(self.shape, dtype=np.int64)
        self.bands = bands(coefficients, 8)
        for band, values in enumerate(self.bands):
            for colour in range(3) if values.size else ():
                self.has[band, colour] = self.decoder.decode(61440 if self.has[band, colour] else 4096)
                if self.has[band, colour]:
                    for phase in range(4):
                        self.decode_phase(band, colour, phase)
                    check(bool(values[colour].any()), self.decoder.offset, "a coded band without a coefficient")
        check(bool(self.has.any()), self.decoder.offset, "a residual without a coefficient")
        return Picture(coefficients.astype(np.int16), self.scale)


def adaptive_model(K: int, weights: Ints | None = None) -> Mixer:
    """The mixer of the model `adaptive` (7.7), and with weights of its own that of `prior` (7.8)."""
    ones = [(agreement & 31).bit_count() for agreement in range(128)]
    trust = [300 + 300 * c if agreement < 32 else 75 * c for agreement, c in enumerate(ones)]
    D = (-1, 1, 0)
    table_a = [D[back] * 205 + 64 * votes for back in range(3) for votes in range(-4, 5)]
    table_b = [64 * votes for votes in range(-4, 5) for _ in range(16)]
    table_c = [D[back] * trust[agreement] for back in range(3) for agreement in range(128)]
    slots = list(range(2 * K))
    return Mixer([(slots, table_a), (slots, table_b), ([s >> 1 for s in slots], table_c)], weights)


def spread(levels: NDArray[Any], geometry: Geometry, rows: int, columns: int) -> Ints:
    """The number of bits kept of each token of a step (3.4)."""
    B, bits = geometry.block_tokens, np.array(geometry.level_bits, dtype=np.int64)
    return bits[levels].repeat(B, axis=0).repeat(B, axis=1)[:rows, :columns]


PRIOR_KEYS = {"architecture", "bits_per_token", "context_channels", "head_channels", "state_channels", "window"}


class Prior:
    """The network of `prior` (7.8), in 64-bit integers."""

    def __init__(self, data: bytes, K: int) -> None:
        start = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:start])
        config = json.loads(head.pop("__metadata__", {}).get("tokcodec.prior", "{}"))
        known = set(config) == PRIOR_KEYS and config["architecture"] == "masked-bits-1"
        check(known and config["bits_per_token"] == K and config["window"] in (3, 5), 0, "another prior", "M")
        self.K, self.C, self.S, self.H = K, *(config[f"{part}_channels"] for part in ("context", "state", "head"))
        self.window, H = config["window"], config["head_channels"]
        taps = self.window**2
        shapes: dict[str, tuple[int, ...]] = {
            "context1.weight": (9, K + 1 + self.S, self.C),
            "context1.bias": (self.C,),
            "context2.weight": (9, self.C, self.S),
            "context2.bias": (self.S,),
            "state.weight": (self.S, H),
            "known.weight": (taps, 2 * K + 1, H),
            "kept.weight": (taps, H),
            "plane.bias": (K, H),
            "hidden.weight": (H, H),
            "hidden.bias": (H,),
            "out.weight": (H, 2 * K),
            "out.bias": (2 * K,),
            "shifts": (5,),
            "mixer.weights": (2 * K, 4),
        }
        check(set(head) == set(shapes), 0, "other tensors", "M")
        self.t: dict[str, Ints] = {}
        for name, entry in head.items():
            kind = ("I16", "<i2") if name.endswith(".weight") else ("I32", "<i4")
            begin, end = entry["data_offsets"]
            check((entry["dtype"], tuple(entry["shape"])) == (kind[0], shapes[name]), 0, f"the tensor {name}", "M")
            self.t[name] = np.frombuffer(data[start + begin : start + end], kind[1]).reshape(shapes[name]).astype(int)
        self.check_bounds()

    def check_bounds(self) -> None:
        t, K = self.t, self.K
        size = {name: np.abs(value) for name, value in t.items()}
        check(bool(((t["shifts"] >= 1) & (t["shifts"] <= 16)).all()), 0, "shifts", "M")
        check(int(size["mixer.weights"].max()) <= 131072, 0, "mixer weights", "M")
        half = [2 ** (int(n) - 1) for n in t["shifts"]]
        past = np.array([32] * K + [4 * K] + [255] * self.S)
        seen = np.array([32] * (2 * K) + [4 * K])
        out = 255 * size["out.weight"].sum(0) + np.abs(t["out.bias"] + np.array([half[4]] * K + [0] * K))
        sums = [
            (size["context1.weight"] * past[:, None]).sum((0, 1)) + np.abs(t["context1.bias"] + half[0]),
            255 * size["context2.weight"].sum((0, 1)) + np.abs(t["context2.bias"] + half[1]),
            255 * size["state.weight"].sum(0)
            + 4 * K * size["kept.weight"].sum(0)
            + (size["known.weight"] * seen[:, None]).sum((0, 1))
            + np.abs(t["plane.bias"] + half[2]).max(0),
            255 * size["hidden.weight"].sum(0) + np.abs(t["hidden.bias"] + half[3]),
            out[:K] + out[K:],
        ]
        check(max(int(s.max()) for s in sums) < 2**24, 0, "a sum can reach 2^24", "M")

    def act(self, x: Ints, n: int) -> Ints:
        shift = int(self.t["shifts"][n])
        return np.clip((x + 2 ** (shift - 1)) >> shift, 0, 255)

    def around(self, x: Ints, side: int) -> Ints:
        """(rows, columns, channels) to (rows, columns, taps, channels), zeros outside."""
        r, (rows, columns, _) = side // 2, x.shape
        p = np.pad(x, ((r, r), (r, r), (0, 0)))
        return np.stack([p[i : i + rows, j : j + columns] for i in range(side) for j in range(side)], axis=2)

    def context(self, past: Ints) -> Ints:
        t = self.t
        u = self.act(np.tensordot(self.around(past, 3), t["context1.weight"], 2) + t["context1.bias"], 0)
        return self.act(np.tensordot(self.around(u, 3), t["context2.weight"], 2) + t["context2.bias"], 1)

    def stretches(self, state: Ints, kept: Ints, seen: Ints, before: Ints, known: int) -> Ints:
        """Stretches (K, rows, columns), given that `known` bits are known where they matter."""
        t, K = self.t, self.K
        first = (
            state @ t["state.weight"]
            + np.tensordot(self.around(4 * kept[:, :, None], self.window), t["kept.weight"][:, None], 2)
            + np.tensordot(self.around(seen, self.window), t["known.weight"], 2)
            + t["plane.bias"][known]
        )
        out = self.act(self.act(first, 2) @ t["hidden.weight"] + t["hidden.bias"], 3) @ t["out.weight"] + t["out.bias"]
        total = (out[..., :K] + before * out[..., K:]).transpose(2, 0, 1)
        shift = int(t["shifts"][4])
        return np.clip((total + 2 ** (shift - 1)) >> shift, -2047, 2047)


class TokenDecoder:
    """The token models (7.3, 7.7, 7.8): the bits of each step, (K, rows, columns); 2 is absent."""

    def __init__(self, decoder: RangeDecoder, K: int, rows: int, columns: int, prior: Prior | None) -> None:
        self.decoder, self.K, self.prior, self.masks = decoder, K, prior, colour_masks(rows, columns)
        self.raster = prior is not None and bool(decoder.decode(4096))
        self.model = adaptive_model(K, None if prior is None else prior.t["mixer.weights"])
        self.before = np.full((K, rows, columns), 2, dtype=np.int64)
        self.kept_before = np.zeros((rows, columns), dtype=np.int64)
        self.state = np.zeros((rows, columns, 0 if prior is None else prior.S), dtype=np.int64)

    def decode_step(self, kept: Ints, level_bits: tuple[int, ...]) -> Ints:
        self.bits = np.full_like(self.before, 2)
        self.tail, self.agreement = np.zeros_like(kept), np.zeros_like(kept)
        if self.prior is not None:
            past = [self.signs(self.before), 4 * self.kept_before[:, :, None], self.state]
            self.state = self.prior.context(np.concatenate(past, axis=2))
        if self.raster:
            rows, columns = np.indices(kept.shape)
            for wave in range(columns.max() + 3 * rows.max() + 1):
                for plane in range(self.K):
                    here = (columns + 3 * rows == wave) & (plane < kept)
                    if here.any():
                        self.decode_plane(plane, wave % 2, here, self.look(kept, plane))
        elif self.prior is not None:
            pairs = len(level_bits) - 1
            for i in range(6):
                first, last = level_bits[pairs * i // 6], level_bits[pairs * (i + 1) // 6]
                for colour in (0, 1) if first < last else ():
                    given = self.look(kept, first)
                    for plane in range(first, last):
                        self.decode_plane(plane, colour, self.masks[colour] & (plane < kept), given)
        else:
            for plane, colour in itertools.product(range(self.K), (0, 1)):
                self.decode_plane(plane, colour, self.masks[colour] & (plane < kept), None)
        self.model.adapt()
        self.before, self.kept_before = self.bits, kept
        return self.bits

    def signs(self, bits: Ints) -> Ints:
        return np.choose(bits, (-32, 32, 0)).transpose(1, 2, 0)

    def look(self, kept: Ints, known: int) -> Ints:
        """What the network says of all bits, given those decoded so far (7.8)."""
        assert self.prior is not None
        now, before = self.signs(self.bits), self.signs(self.before) // 32
        count = 4 * (self.bits != 2).sum(axis=0)[:, :, None]
        seen = np.concatenate([now, now * before, count], axis=2)
        return self.prior.stretches(self.state, kept, seen, before, known)

    def decode_plane(self, plane: int, colour: int, here: NDArray[np.bool_], given: Ints | None) -> None:
        bit, back = self.bits[plane], self.before[plane]
        votes = neighbour_sum(np.choose(bit if colour == 1 else back, (-1, 1, 0)))
        cells = [back * 9 + votes + 4, (votes + 4) * 16 + self.tail, back * 128 + self.agreement]
        stretch = None if given is None else given[plane][here]
        bit[here] = self.model.decode(self.decoder, 2 * plane + colour, [cell[here] for cell in cells], stretch)
        self.tail[here] = (2 * self.tail[here] + bit[here]) & 15
        same = (bit == back)[here]
        old = self.agreement[here]
        self.agreement[here] = 32 * np.minimum((old >> 5) + 1 - same, 3) + ((2 * old + same) & 31)


def decode_tokens(
    token_data: bytes,
    steps: int,
    rows: int,
    columns: int,
    geometry: Geometry,
    offset: int = 0,
    prior: bytes | None = None,
) -> Tokens:
    """Indices (steps, rows, columns), levels (steps, block rows, block columns) and vectors of a chunk (7).

    Where first pictures are coefficients, the picture comes behind them, and where steps may have residuals then a
    list of those of the later steps, None for a step without one.

    Vectors are (steps, motion rows, motion columns, 2), those of the first step zero; without motion maps
    there are no motion rows and columns.
    """
    check(geometry.probability_model == 0 or prior is not None, offset, "the weights of the prior are missing", "M")
    K, B = geometry.bits_per_token, geometry.block_tokens
    network = Prior(prior, K) if prior is not None and geometry.probability_model == 1 else None
    decoder = RangeDecoder(token_data, offset)
    tokens = TokenDecoder(decoder, K, rows, columns, network)
    maps = MapDecoder(decoder, len(geometry.level_bits), -(-rows // B), -(-columns // B))
    kinds = geometry.maps, geometry.network, geometry.second
    motion = MotionDecoder(decoder, *geometry.motion_grid(rows, columns), *kinds) if geometry.motion else None
    indices, levels = np.zeros((steps, rows, columns), dtype=np.uint64), []
    vectors = np.zeros((steps, *geometry.motion_grid(rows, columns), 2), dtype=np.int16)
    picture = decode_picture(decoder, rows, columns, geometry) if geometry.pictures else None
    residual_decoder = ResidualDecoder(decoder, rows, columns) if geometry.residuals else None
    residuals: Residuals = []
    for step in range(steps):
        if motion is not None and step > 0:
            vectors[step] = motion.decode_step()
        if residual_decoder is not None and step > 0:
            residuals.append(residual_decoder.decode_step())
        levels.append(maps.decode_step())
        bits = tokens.decode_step(spread(levels[-1], geometry, rows, columns), geometry.level_bits)
        for plane in range(K):
            indices[step] |= (bits[plane] == 1).astype(np.uint64) << np.uint64(plane)
    check(picture is None or not levels[0].any(), offset, "bits of a first step beside its picture")
    decoder.finish()
    tokens = indices, np.stack(levels).astype(np.uint8), vectors
    if picture is None:
        return tokens
    return (*tokens, picture, residuals) if geometry.residuals else (*tokens, picture)


def tokens_crc(
    indices: Indices,
    levels: Levels,
    vectors: Vectors,
    picture: Picture | None = None,
    residuals: Residuals | None = None,
) -> int:
    """The CRC of canonical tokens (5.3, 7.9)."""
    data = indices.astype("<u8").tobytes() + levels.tobytes() + vectors.astype("<i2").tobytes()
    if picture is not None:
        data += picture.coefficients.astype("<i2").tobytes()
        data += b"" if picture.layout is None else picture.layout.tobytes()
        data += bytes([picture.scale])
    for residual in residuals or ():
        data += bytes([residual is not None])
        if residual is not None:
            data += residual.coefficients.astype("<i2").tobytes() + bytes([residual.scale])
    return zlib.crc32(data)


def decode_chunk(chunk: Chunk, header: Header, prior: bytes | None = None) -> Tokens:
    """A chunk's tokens, checked against its tokens_crc (5.3)."""
    if header.geometry.probability_model == 1:
        suits = prior is not None and hashlib.sha256(prior).digest() == header.probability_digest
        check(suits, 0, "the weights of the prior are missing, or others", "M")
    steps = header.geometry.steps(len(chunk.pts), chunk.listed)
    tokens = decode_tokens(chunk.token_data, steps, *header.grid, header.geometry, chunk.offset, prior)
    check(tokens_crc(*tokens) == chunk.tokens_crc, chunk.offset + 36, "tokens_crc differs")
    return tokens


CONFIG_KEYS = {
    "architecture",
    "bits_per_token",
    "decoder_blocks",
    "encoder_blocks",
    "frame_channels",
    "latent_channels",
    "level_bits",
    "quantizer",
}
VARIANT_KEYS: dict[str, tuple[Any, ...]] = {
    "adaptive_norm": (True, False),
    "recurrent": (True, False),
    "temporal_downsampling": ("late", "early"),
    "coded_motion": (False, True),
    "hybrid": (False, True),
    "wavelet": (False, True),
    "residuals": (False, True),
    "intra": (False, True),
    "plain": (False, True),
    "mean_between": (False, True),
}
"""Keys that may be missing; the first value is then meant."""


def read_weights(data: bytes) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The network's description and tensors of a safetensors file (8.1)."""
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    config = json.loads(head.pop("__metadata__", {}).get("tokcodec.tokenizer", "{}"))
    suits = CONFIG_KEYS <= set(config) <= CONFIG_KEYS | set(VARIANT_KEYS) and config["quantizer"] == "lfq"
    check(suits, 0, "unknown keys or quantizer", "M")
    for name, values in VARIANT_KEYS.items():
        value = config.setdefault(name, values[0])
        check(type(value) is type(values[0]) and value in values, 0, f"{name} is {value}", "M")
    check(config["recurrent"] or not config["coded_motion"], 0, "coded motion without recurrence", "M")
    suits = config["coded_motion"] and config["temporal_downsampling"] == "late" and config["encoder_blocks"] == 0
    suits = suits and 8 <= config["bits_per_token"] <= 62
    check(suits or not config["hybrid"], 0, "a hybrid that cannot be", "M")
    check(config["encoder_blocks"] > 0 or config["hybrid"], 0, "no blocks in the encoder", "M")
    check(config["hybrid"] or not config["wavelet"], 0, "wavelets without a hybrid", "M")
    check(config["wavelet"] or not config["residuals"], 0, "residuals without wavelets", "M")
    check(config["wavelet"] or not config["intra"], 0, "blocks without first pictures by coefficients", "M")
    check(config["hybrid"] or not config["mean_between"], 0, "a mean without a hybrid", "M")
    check(config["wavelet"] or not config["plain"], 0, "no network, but for first pictures", "M")
    tensors: dict[str, Floats] = {}
    for name, entry in head.items():
        check(entry["dtype"] == "BF16", 0, f"the tensor {name} is {entry['dtype']}", "M")
        begin, end = entry["data_offsets"]
        halves = np.frombuffer(data[start + begin : start + end], dtype="<u2")
        tensors[name] = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(entry["shape"])
    return config, tensors


def silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def shuffle(x: Floats, n: int) -> Floats:
    """Depth to space (8.3)."""
    channels, h, w = x.shape
    return x.reshape(-1, n, n, h, w).transpose(0, 3, 1, 4, 2).reshape(channels // (n * n), n * h, n * w)


def unshuffle(x: Floats, n: int) -> Floats:
    """Space to depth, the inverse of shuffle (8.3)."""
    c, h, w = x.shape
    return x.reshape(c, h // n, n, w // n, n).transpose(0, 2, 4, 1, 3).reshape(c * n * n, h // n, w // n)


def lines(maps: Floats, at: Floats, axis: int) -> Floats:
    """Linear interpolation of maps along an axis at places within it, the same for all lines (8.3)."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, maps.shape[axis] - 1)
    part = (at - low).astype(np.float32)
    part = part[:, None] if axis == 1 else part
    return maps.take(low, axis) * (1 - part) + maps.take(high, axis) * part


def warp(picture: Floats, motion: Floats) -> Floats:
    """The picture, each value taken from where the motion points (8.3)."""
    _, height, width = picture.shape
    for axis, size in ((1, height), (2, width)):
        places = np.clip((np.arange(size) + 0.5) / 8 - 0.5, 0, motion.shape[axis] - 1)
        motion = lines(motion, places, axis)
    return sample(picture, 2 * motion)


def half_pixels(picture: Floats, axis: int) -> Floats:
    """The picture half a pixel further along an axis (8.5)."""
    size = picture.shape[axis]
    total = np.zeros_like(picture)
    for k, w in zip(range(-3, 5), (-1, 4, -11, 40, 40, -11, 4, -1), strict=True):
        total = total + np.float32(w / 64) * picture.take(np.clip(np.arange(size) + k, 0, size - 1), axis)
    return total


class Second(NamedTuple):
    """The second reference of a step (8.5)."""

    picture: Floats  # the chunk's first one
    far: Ints  # (motion rows, motion columns, 2)
    choice: Ints  # (motion rows, motion columns)


def far_of(v: Ints, since: Ints) -> Ints:
    """`far` of a step, by its map 0 and `since` (8.5)."""
    rows, columns, _ = v.shape
    found = np.zeros((rows, columns, 2), dtype=np.int64)
    for y, x in itertools.product(range(rows), range(columns)):
        row = min(max((32 * y + 16 + int(v[y, x, 1])) // 32, 0), rows - 1)
        column = min(max((32 * x + 16 + int(v[y, x, 0])) // 32, 0), columns - 1)
        for axis in (0, 1):
            around = sorted(
                int(since[min(max(row + m, 0), rows - 1), min(max(column + n, 0), columns - 1), axis])
                for m, n in itertools.product(range(-3, 4), repeat=2)
            )
            found[y, x, axis] = min(max(int(v[y, x, axis]) + around[24], -32767), 32767)
    return found


def overlapped(picture: Floats, v: Vectors, second: Second | None = None) -> Floats:
    """The picture moved by the vectors of a map (motion rows, motion columns, 2) (8.5)."""
    _, height, width = picture.shape
    pictures = four_pictures(picture)
    j, i = np.mgrid[:height, :width]
    r, c = (j + 0.5) / 16 - 0.5, (i + 0.5) / 16 - 0.5
    row, column = np.floor(r).astype(int), np.floor(c).astype(int)
    total = np.zeros_like(picture)
    for m in (0, 1):
        for n in (0, 1):
            weight = np.abs(1 - m - (r - row)) * np.abs(1 - n - (c - column))
            at = v[np.clip(row + m, 0, v.shape[0] - 1), np.clip(column + n, 0, v.shape[1] - 1)].astype(int)
            taken = taken_from(pictures, at)
            if second is not None:
                block = np.clip(row + m, 0, v.shape[0] - 1), np.clip(column + n, 0, v.shape[1] - 1)
                choice = second.choice[block][..., None]
                other = taken_from(four_pictures(second.picture), second.far[block])
                taken = np.where(choice == 0, taken, np.where(choice == 1, other, (taken + other) / 2))
            total = total + (weight[..., None] * taken).transpose(2, 0, 1).astype(np.float32)
    return total


def four_pictures(picture: Floats) -> Floats:
    """It and what lies half a pixel further: numbers 2 (vx & 1) + (vy & 1) (8.5)."""
    right = half_pixels(picture, 2)
    return np.stack([picture, half_pixels(picture, 1), right, half_pixels(right, 1)])


def taken_from(pictures: Floats, at: Ints) -> Floats:
    """Of four pictures, for each pixel what its vector `at` (height, width, 2) points to: (height, width, 3) (8.5)."""
    height, width = at.shape[:2]
    j, i = np.mgrid[:height, :width]
    vx, vy = at[..., 0], at[..., 1]
    y, x = np.clip(j + (vy >> 1), 0, height - 1), np.clip(i + (vx >> 1), 0, width - 1)
    found: Floats = pictures[2 * (vx & 1) + (vy & 1), :, y, x]
    return found


def sample(picture: Floats, motion: Floats) -> Floats:
    """The picture, each value taken from where a motion (2, height, width) in its own grid points (8.3, 8.4)."""
    _, height, width = picture.shape
    x = np.clip(np.arange(width) + motion[0], 0, width - 1)
    y = np.clip(np.arange(height)[:, None] + motion[1], 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left).astype(np.float32), (y - top).astype(np.float32)
    upper = picture[:, top, left] * (1 - u) + picture[:, top, right] * u
    lower = picture[:, bottom, left] * (1 - u) + picture[:, bottom, right] * u
    return upper * (1 - v) + lower * v


class Network:
    """The decoder network `causal-recurrent-4` (8.3)."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Floats]) -> None:
        self.config, self.tensors = config, tensors

    def column(self, name: str) -> Floats:
        return self.tensors["decoder." + name].reshape(-1, 1, 1)

    def conv(self, name: str, x: Floats) -> Floats:
        weight = self.tensors[f"decoder.{name}.weight"]
        k = weight.shape[-1]
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
        return np.tensordot(weight, windows, axes=([1, 2, 3], [0, 3, 4])) + self.column(name + ".bias")

    def norm(self, name: str, x: Floats) -> Floats:
        y = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + np.float32(1e-5))
        return y * self.column(name + ".gain") + self.column(name + ".bias")

    def block(self, name: str, x: Floats, cond: Floats | None = None) -> Floats:
        y = self.norm(name + ".norm2", self.conv(name + ".conv1", silu(self.norm(name + ".norm1", x))))
        if cond is not None:
            scale, shift = np.split(self.conv(name + ".modulation", cond), 2)
            y = y * (1 + scale) + shift
        return x + self.conv(name + ".conv2", silu(y))

    def step(
        self,
        signs: Floats,
        kept: Floats,
        state: tuple[Floats, Floats] | None,
        vectors: Vectors | None = None,
        residual: Picture | None = None,
    ) -> tuple[list[Floats], tuple[Floats, Floats]]:
        """The frames of one latent step, and the state after it: features and the last picture.

        `vectors` is the step's motion map (motion rows, motion columns, 2), for `coded_motion`.
        """
        if self.config["hybrid"]:
            return self.hybrid_step(signs, kept, state, vectors, residual)
        trunk = "first" if state is None else "later"
        past = state if self.config["recurrent"] else None
        u = None
        if past is not None and self.config["coded_motion"]:
            assert vectors is not None
            u = vectors.transpose(2, 0, 1).repeat(2, axis=1).repeat(2, axis=2) / np.float32(4)
            u = u[:, : kept.shape[1], : kept.shape[2]]
            past = sample(past[0], u / 4), past[1]
        cond = x = self.conv(trunk + ".token_in", np.concatenate([signs, kept]))
        if state is None:
            x = cond + self.column("start")
        elif past is not None:
            s = self.norm("norm_state", past[0])
            x = cond + s + self.conv("state_in", s)
        if u is not None:
            x = x + self.conv("displacement_in", np.clip(np.arcsinh(u), -5, 5))
        for b in range(self.config["decoder_blocks"]):
            x = self.block(f"{trunk}.blocks.{b}", x, cond if self.config["adaptive_norm"] else None)
        y = silu(self.norm(trunk + ".norm_out", x))
        frames = []
        groups = [self.conv("split_first", y)] if state is None else np.split(self.conv("split_rest", y), 4)
        motions = [None] * len(groups)
        if past is not None:
            name = "motion_out" if u is None else "rest_out"
            motions = np.split(np.sinh(np.clip(self.conv(name, y), -5, 5)), 4)
            if u is not None:
                motions = [np.float32((n + 1) / 4) * u + rest for n, rest in enumerate(motions)]
            fastest = np.max([np.sqrt((motion**2).sum(axis=0)) for motion in motions], axis=0)
            still = np.where(kept.any(axis=0), 0, np.clip((0.4 - fastest) / 0.2, 0, 1))
            x = x + still * (past[0] - x)
            held = still.repeat(8, axis=0).repeat(8, axis=1)
        for group, motion in zip(groups, motions, strict=True):
            m = shuffle(group, 2)
            moved = None if motion is None else warp(past[1], motion)
            if moved is not None:
                m = m + self.conv("warp_in", unshuffle(moved, 4))
            m = silu(self.norm("norm_patch", self.block("frame_block", m)))
            frame = shuffle(self.conv("patch_out", m), 4)
            if moved is not None:
                mask = 1 / (1 + np.exp(-shuffle(self.conv("mask_out", m), 4)))
                frame = frame + mask * (moved - frame) + shuffle(self.conv("repair_out", m), 4)
                frame = frame + held * (past[1] - frame)
            frames.append(frame)
        return frames, (x, np.clip(frames[-1], -1, 1))

    def hybrid_step(
        self,
        signs: Floats,
        kept: Floats,
        state: tuple[Floats, Floats] | None,
        vectors: Vectors | None,
        residual: Picture | None = None,
    ) -> tuple[list[Floats], tuple[Floats, Floats]]:
        """The same of a hybrid (8.5); `vectors` has seven maps, one below the other."""
        atoms, values = coefficients_of(signs, kept, first=state is None)
        known = cosines_of(atoms, values, first=state is None)
        if state is None:
            x, _, p = self.by_features(values, signs, kept, known, None, None)
            return [p], (x, np.clip(p, -1, 1))
        assert vectors is not None
        whole = vectors.reshape(-1, -(-kept.shape[1] // 2), *vectors.shape[1:])
        v, choice = whole[:7], whole[7, ..., 0] if len(whole) > 7 else None
        maps = v.transpose(0, 3, 1, 2)
        maps = maps.repeat(2, axis=2).repeat(2, axis=3)[:, :, : kept.shape[1], : kept.shape[2]] / np.float32(4)
        second = None
        if choice is not None:
            self.since = far_of(v[0], self.since)
            second = Second(self.first_picture, self.since, choice)
        known = known + overlapped(state[1], v[0], second)
        even: Any = 1
        if residual is not None:
            added = residual_pixels(residual)
            known = known + added
            cells = np.abs(added).reshape(3, kept.shape[1], 8, kept.shape[2], 8).max(axis=(0, 2, 4))
            even = np.clip(2 - 2 * 127.5 * cells, 0, 1)
        if choice is not None:
            tokens = choice.repeat(2, axis=0).repeat(2, axis=1)[: kept.shape[1], : kept.shape[2]]
            even = np.where(tokens != 0, 0, even)
        if self.config["plain"]:
            x, h, p = state[0], state[0], known
        else:
            x, h, p = self.by_features(values, signs, kept, known, state[0], maps[0])
        lengths = np.sqrt((maps**2).sum(axis=1))
        still, calm = (
            np.where(kept.any(axis=0), 0, even * np.clip((0.4 - f) / 0.2, 0, 1)) for f in (lengths[0], lengths.max(0))
        )
        held, kept_calm = (part.repeat(8, axis=0).repeat(8, axis=1) for part in (still, calm))
        x = x + still * (h - x)
        before = state[1]
        p = p + held * (before - p)
        last = np.clip(p, -1, 1)
        centre = self.between(overlapped(before, v[1]), overlapped(last, v[2]))
        middle = np.clip(centre, -1, 1)
        early = self.between(overlapped(before, v[3]), overlapped(middle, v[4]))
        late = self.between(overlapped(middle, v[6]), overlapped(last, v[5]))
        frames = [frame + kept_calm * (before - frame) for frame in (early, centre, late)]
        return [*frames, p], (x, last)

    def by_features(
        self, values: Floats, signs: Floats, kept: Floats, known: Floats, features: Floats | None, u: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """x, h and p of a step (8.5), of what is known of its frame, and of the features and the motion of a later one;
        with one without, h is x."""
        trunk = "first" if features is None else "later"
        cond = x = self.conv(trunk + ".token_in", np.concatenate([np.arcsinh(values / 32), signs, kept]))
        h = None
        if features is None or u is None:
            x = cond + self.column("start")
        else:
            h = sample(features, u / 4)
            q = self.norm("norm_state", h)
            x = cond + q + self.conv("state_in", q) + self.conv("known_in", unshuffle(known, 8))
            x = x + self.conv("displacement_in", np.clip(np.arcsinh(u), -5, 5))
        for b in range(self.config["decoder_blocks"]):
            x = self.block(f"{trunk}.blocks.{b}", x, cond if self.config["adaptive_norm"] else None)
        y = silu(self.norm(trunk + ".norm_out", x))
        m = shuffle(self.conv("split_first" if features is None else "split_last", y), 2)
        m = m + self.conv("warp_in", unshuffle(known, 4))
        m = silu(self.norm("norm_patch", self.block("frame_block", m)))
        return x, x if h is None else h, known + shuffle(self.conv("repair_out", m), 4)

    def begin(self, picture: Picture) -> tuple[list[Floats], tuple[Floats, Floats]]:
        """The first frame of a chunk and the state after it, where first pictures are coefficients (8.7, 8.9)."""
        p = put_together(picture) if picture.layout is None else put_blocks_together(picture)
        _, height, width = p.shape
        channels = 0 if self.config["plain"] else self.config["latent_channels"]
        features = np.zeros((channels, height // 8, width // 8), dtype=np.float32)
        self.first_picture = np.clip(p, -1, 1)
        self.since = np.zeros((-(-height // 16), -(-width // 16), 2), dtype=np.int64)
        return [p], (features, np.clip(p, -1, 1))

    def between(self, left: Floats, right: Floats) -> Floats:
        if self.config["plain"] or self.config["mean_between"]:
            return left + self.tensors["decoder.between.share"] * (right - left)
        z = self.conv("between.pictures_in", unshuffle(np.concatenate([(left + right) / 2, right - left]), 4))
        z = silu(self.norm("between.norm_out", self.block("between.block", z)))
        a = 1 / (1 + np.exp(-shuffle(self.conv("between.share_out", z), 4)))
        return left + a * (right - left) + shuffle(self.conv("between.repair_out", z), 4)


FIRST_PAIRS = """
    81(0,0,0) 27(0,0,0) 9(0,0,0) 3(0,0,0) 81(1,0,0) 27(1,0,0) 9(1,0,0) 3(1,0,0) 81(2,0,0) 27(2,0,0) 9(2,0,0) 3(2,0,0)
    4(0,1,0) 4(0,0,1) 2(0,1,0) 2(0,0,1) 1(1,0,0) 1(2,0,0) 1(0,0,0) 2(0,2,0) 2(0,0,2) 2(0,1,1) 1(0,1,0) 1(0,0,1)
    1(0,1,1) 1(0,2,0) 1(0,0,2) 1(0,3,0) 1(0,0,3) 1(0,2,1)
"""
LATER_PAIRS = """
    4(0,0,0) 2(0,0,0) 2(0,1,0) 2(0,0,1) 2(1,0,0) 2(0,2,0) 2(0,0,2) 1(0,0,0) 1(0,1,0) 1(0,0,1) 1(1,0,0) 1(2,0,0)
    1(0,1,1) 1(0,2,0) 1(0,0,2) 1(0,3,0) 1(0,0,3) 1(0,2,1) 1(0,1,2) 1(0,4,0) 1(0,0,4) 1(0,2,2) 1(0,1,3) 1(0,3,1)
    1(0,5,0) 1(0,0,5) 1(0,2,3) 1(0,3,2) 1(0,1,4) 1(0,4,1)
"""
Atom = tuple[int, int, int]
COLOURS = [np.array(t) / np.linalg.norm(t) for t in ((1.0, 1, 1), (1.0, 0, -1), (1.0, -2, 1))]  # e of (8.5)


def coefficients_of(signs: Floats, kept: Floats, *, first: bool) -> tuple[list[Atom], Floats]:
    """The atoms of a step, and the coefficient of each at every token (8.5)."""
    table = [tuple(map(int, re.findall(r"\d+", pair))) for pair in (FIRST_PAIRS if first else LATER_PAIRS).split()]
    unit, exponent = (32, 24) if first else (48, 0)
    ones = ((signs > 0) & (kept > 0)).astype(np.float32)
    b0, b1 = (ones[exponent + n] if exponent + n < len(ones) else 0 * ones[0] for n in (0, 1))
    places = [bit for bit in range(2 * len(table) + 2) if bit not in (exponent, exponent + 1)]
    table = [pair for pair, second in zip(table, places[1::2], strict=True) if second < len(ones)]
    atoms: list[Atom] = sorted({(0, 0, 0), *((c, u, v) for _, c, u, v in table)})
    values = np.zeros((len(atoms), *signs.shape[1:]), dtype=np.float32)
    for number, (m, *atom) in enumerate(table):
        plus, minus = ones[places[2 * number]], ones[places[2 * number + 1]]
        values[atoms.index((atom[0], atom[1], atom[2]))] += m * unit * (plus - minus)
    for value, (_, u, v) in zip(values, atoms, strict=True):
        if first and (u, v) == (0, 0):
            add_neighbours(value)
        else:
            value *= 2 ** (b0 + 2 * b1)
    return atoms, values


def add_neighbours(means: Floats) -> None:
    """To what is said of the means of a first step, in place, what those around say (8.5)."""
    rows, columns = means.shape
    for places, around in motion_sets(rows, columns):
        found = []
        for y, x in places:
            inside = [(y + dy, x + dx) for dy, dx in around if 0 <= y + dy < rows and 0 <= x + dx < columns]
            found.append(sum(float(means[p]) for p in inside) / max(1, len(inside)))
        for place, average in zip(places, found, strict=True):
            means[place] += average


def cosines_of(atoms: list[Atom], values: Floats, *, first: bool) -> Floats:
    """Their sum as pixels, with the transitions of a first step (8.5)."""
    places = np.arange(8) + 0.5
    waves = [np.full(8, 8**-0.5), *(np.cos(np.pi / 8 * places * f) / 2 for f in range(1, 8))]
    patterns = np.stack([np.einsum("c,i,j->cij", COLOURS[c], waves[u], waves[v]).reshape(192) for c, u, v in atoms])
    found = shuffle(np.tensordot(patterns.T.astype(np.float32), values, axes=1) / np.float32(127.5), 8)
    if first:
        means = [(c, value) for (c, u, v), value in zip(atoms, values, strict=True) if (u, v) == (0, 0)]
        even = sum(np.multiply.outer(COLOURS[c], value) for c, value in means) / 8 / 127.5
        smooth = enlarged(enlarged(even, 1), 2)
        _, height, width = smooth.shape
        average = smooth.reshape(3, height // 8, 8, width // 8, 8).mean(axis=(2, 4))
        found = found + smooth - average.repeat(8, axis=1).repeat(8, axis=2)
    return found.astype(np.float32)


def enlarged(values: Floats, axis: int) -> Floats:
    """8 times as long along an axis, bilinear between the middles (8.5)."""
    count = values.shape[axis]
    places = (np.arange(8 * count) + 0.5) / 8 - 0.5
    low = np.floor(places).astype(int)
    part = (places - low).reshape(-1, *[1] * (values.ndim - 1 - axis))
    left, right = (np.take(values, np.clip(low + n, 0, count - 1), axis=axis) for n in (0, 1))
    return left * (1 - part) + right * part


def put_together(picture: Picture) -> Floats:
    """The pixels of a first picture (8.7)."""
    q = picture.coefficients.astype(np.float64)
    c = (q + 0.1 * np.sign(q)) * 2 ** (picture.scale / 4)
    for stride in (16, 8, 4, 2, 1):
        part = c[:, ::stride, ::stride]
        put_lines_together(part.transpose(1, 0, 2))
        put_lines_together(part.transpose(2, 0, 1))
    return (sum(np.multiply.outer(COLOURS[colour], c[colour]) for colour in range(3)) / 127.5).astype(np.float32)


def put_blocks_together(picture: Picture) -> Floats:
    """The pixels of a first picture by blocks (8.9)."""
    assert picture.layout is not None
    z = spec_blocks.block_pixels(picture.coefficients, picture.scale, picture.layout) / 8
    return (sum(np.multiply.outer(COLOURS[colour], z[colour]) for colour in range(3)) / 127.5).astype(np.float32)


def residual_pixels(residual: Picture) -> Floats:
    """The pixels of a residual (8.8)."""
    colours, height, width = residual.coefficients.shape
    whole = np.zeros((colours, 4 * height, 4 * width), dtype=np.int16)
    whole[:, ::4, ::4] = residual.coefficients
    return put_together(Picture(whole, residual.scale))


def put_lines_together(x: NDArray[np.float64]) -> None:
    """Put together, in place, lines of values along the first axis (8.7)."""
    count = len(x)
    if count == 1:
        return

    def around(first: int) -> NDArray[np.float64]:
        places = np.arange(first, count, 2)
        right = np.where(places + 1 < count, places + 1, places - 1)
        return x[np.abs(places - 1)] + x[right]

    x[0::2] /= 1.149604398
    x[1::2] *= 1.149604398
    x[0::2] -= 0.443506852 * around(0)
    x[1::2] -= 0.882911075 * around(1)
    x[0::2] += 0.052980118 * around(0)
    x[1::2] += 1.586134342 * around(1)


def decode_pixels(
    weights: bytes,
    tokens: Tokens,
    header: Header,
    frame_count: int,
    listed: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """The frames (frame_count, height, width, 3) of one chunk (8), of the steps that are listed where they are."""
    check(hashlib.sha256(weights).digest() == header.tokenizer_digest, 0, "these are other weights", "M")
    config, tensors = read_weights(weights)
    geometry, K = header.geometry, header.geometry.bits_per_token
    check(config["architecture"] == "causal-recurrent-4", 0, "an unknown architecture", "M")
    found = (config["bits_per_token"], geometry.spatial_factor, geometry.temporal_factor)
    check(found == (K, 8, 4), 0, f"bits and factors are {found}", "M")
    same = (config["coded_motion"], config["hybrid"]) == (geometry.motion, geometry.seven)
    check(same, 0, "weights and header differ about motion maps", "M")
    check(config["wavelet"] == geometry.pictures, 0, "weights and header differ about first pictures", "M")
    check(config["residuals"] == geometry.residuals, 0, "weights and header differ about residuals", "M")
    check(config["intra"] == geometry.blocks, 0, "weights and header differ about blocks", "M")
    network, state, pictures = Network(config, tensors), None, []
    planes = np.arange(K)[:, None, None]
    picture = tokens[3] if len(tokens) > 3 else None
    residuals = [None, *tokens[4]] if len(tokens) > 4 else [None] * len(tokens[0])
    for step, (index, level, vectors) in enumerate(zip(*tokens[:3], strict=True)):
        if step == 0 and picture is not None:
            pictures, state = network.begin(picture)
            continue
        kept = (planes < spread(level, geometry, *header.grid)).astype(np.float32)
        ones = ((index >> planes.astype(np.uint64)) & np.uint64(1)).astype(np.float32)
        frames, state = network.step(kept * (2 * ones - 1), kept, state, vectors, residuals[step])
        pictures += frames[3 :: -4 // listed[step - 1]][::-1] if step and listed else frames
    cut = np.stack(pictures)[:frame_count, :, : header.height, : header.width].transpose(0, 2, 3, 1)
    return np.clip(np.round((cut + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)


def main(path: str, weights: str | None = None) -> None:
    """Print what a file holds."""
    file = Reader(Path(path).read_bytes(), robust=True).run()
    print(f"version 1.{file.version_minor}, whole: {file.whole}, {file.header}")
    for chunk in file.chunks:
        tokens = decode_chunk(chunk, file.header)
        print(f"chunk {chunk.number}: {len(chunk.pts)} frames from {chunk.pts[0]}, tokens {tokens[0].shape}")
        if weights is not None:
            pixels = decode_pixels(Path(weights).read_bytes(), tokens, file.header, len(chunk.pts))
            print(f"  pixels {pixels.shape}, mean {pixels.mean():.3f}")
    print(f"{len(file.packets)} packets, {len(file.extensions)} extension records, index {file.index}")
    for damage in file.damages:
        print(damage)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except SpecError as spec_error:
        sys.exit(str(spec_error))
