"""`tokcodec.container`: round trips, cuts, flips, hostile lengths, and the spec's hex example."""

from __future__ import annotations

import io
import re
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokcodec import container
from tokcodec.bits import decode_tokens
from tokcodec.container import (
    ChunkEntry,
    ChunkRecord,
    Colour,
    ContainerWriter,
    Damage,
    Extension,
    Item,
    Limits,
    SidePacket,
    SidePacketBatch,
    SideStreamInfo,
    StreamHeader,
    StreamSummary,
    find_chunk_index,
    framing,
    read_stream,
    read_stream_from,
    wire,
)
from tokcodec.errors import (
    CorruptStreamError,
    LimitError,
    MediaError,
    OutputError,
    TokcodecError,
    UnsupportedStreamError,
    UsageError,
)
from tokcodec.geometry import MAX_PICTURE_PIXELS
from tokcodec.tokens import TokenGeometry

SPEC = Path(__file__).parents[1] / "bitstream_spec.md"


class Pipe(io.RawIOBase):
    """Bytes that can be read once, a few at a time."""

    def __init__(self, data: bytes, *, most: int = 1 << 30) -> None:
        self._inner = io.BytesIO(data)
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(min(len(buffer), self._most))
        buffer[: len(data)] = data
        return len(data)


def make_header(**changes: Any) -> StreamHeader:
    header = StreamHeader(
        width=32,
        height=32,
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        max_chunk_frames=9,
        tokenizer_digest=bytes(range(32)),
        tokenizer_name="tiny",
    )
    return replace(header, **changes)


def make_chunk(number: int, *, frames: int = 5, first: int | None = None, data: bytes = b"tokens") -> ChunkRecord:
    start = number * frames if first is None else first
    return ChunkRecord(
        number=number,
        pts=tuple(range(start, start + frames)),
        last_duration=1,
        tokens_crc32=crc32(bytes([number])),
        token_data=data + bytes([number]),
    )


AUDIO = SideStreamInfo(
    index=1,
    kind=container.KIND_AUDIO,
    codec="opus",
    language="cy",
    time_base=Fraction(1, 48000),
    template=b"head",
)
PACKETS = (
    SidePacket(stream=1, data=b"first", keyframe=True, pts=-312, dts=-312, duration=960),
    SidePacket(stream=1, data=b"", keyframe=True, pts=648, dts=640, duration=960),
    SidePacket(stream=1, data=b"third"),
)


def write(header: StreamHeader, items: Iterable[Item]) -> bytes:
    sink = io.BytesIO()
    with ContainerWriter(sink, header) as writer:
        for item in items:
            match item:
                case ChunkRecord():
                    writer.write_chunk(item)
                case SidePacketBatch():
                    writer.write_packets(item.packets)
                case Extension():
                    writer.write_extension(item)
                case Damage():
                    raise AssertionError("damage cannot be written")
    return sink.getvalue()


def read(data: bytes, **options: Any) -> tuple[list[Item], StreamSummary]:
    reader = read_stream(io.BytesIO(data), **options)
    items = list(reader)
    return items, reader.summary


SMALL_HEADER = make_header(side_streams=(AUDIO,))
SMALL_ITEMS: tuple[Item, ...] = (
    make_chunk(0),
    SidePacketBatch(packets=PACKETS),
    make_chunk(1),
    Extension(type=0x80, data=b"grease"),
    make_chunk(2, frames=2, first=10),
)
SMALL = write(SMALL_HEADER, SMALL_ITEMS)


def record_offsets(data: bytes) -> list[int]:
    offsets = [wire.SIGNATURE_BYTES]
    while offsets[-1] < len(data):
        length = int.from_bytes(data[offsets[-1] + 16 : offsets[-1] + 20], "little")
        offsets.append(offsets[-1] + wire.RECORD_HEADER_BYTES + length + wire.RECORD_TRAILER_BYTES)
    return offsets


OFFSETS = record_offsets(SMALL)
"""Of header, chunk 0, packets, chunk 1, extension, chunk 2, index, end, and the end of the file."""


def forge(
    parts: Iterable[tuple[int, bytes]],
    *,
    header: StreamHeader = SMALL_HEADER,
    **changes: dict[int, Any],
) -> bytes:
    """A file of records with right CRCs and any payload; `changes` replace record header fields."""
    from tokcodec.container.header import pack_header
    from tokcodec.container.preamble import pack_signature

    payload = pack_header(header)
    key = framing.record_key(payload)
    data = pack_signature()
    chunks = 0
    for sequence, (kind, body) in enumerate([(wire.TYPE_HEADER, payload), *parts]):
        fields: dict[str, Any] = {
            "type": kind,
            "critical": kind in wire.CRITICAL_TYPES,
            "sequence": sequence,
            "chunks_before": chunks,
            "key": key if sequence else b"",
        }
        fields.update({name: by[sequence] for name, by in changes.items() if sequence in by})
        data += framing.pack_record(body, **fields)
        chunks += kind == wire.TYPE_CHUNK
    return data


def chunk_body(number: int = 0, **options: Any) -> tuple[int, bytes]:
    from tokcodec.container.records import pack_chunk

    return wire.TYPE_CHUNK, pack_chunk(make_chunk(number, **options), header=SMALL_HEADER)


def given_chunks(items: Iterable[Item]) -> list[ChunkRecord]:
    return [item for item in items if isinstance(item, ChunkRecord)]


def given_damage(items: Iterable[Item]) -> list[Damage]:
    return [item for item in items if isinstance(item, Damage)]


# --- whole files ---


def test_small_file_comes_back() -> None:
    items, summary = read(SMALL)
    assert tuple(items) == SMALL_ITEMS
    assert summary == StreamSummary(chunks=3, frames=12, total_chunks=3, total_frames=12, damages=0, complete=True)
    assert read_stream(io.BytesIO(SMALL)).header == SMALL_HEADER


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_pipe_gives_the_same(most: int) -> None:
    assert tuple(read_stream(io.BufferedReader(Pipe(SMALL, most=most)))) == SMALL_ITEMS
    assert tuple(read_stream(Pipe(SMALL, most=most))) == SMALL_ITEMS  # type: ignore[arg-type]


ratios = st.builds(Fraction, st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=16)  # at most 64 bytes of UTF-8
ticks = st.integers(-wire.MAX_TICKS, wire.MAX_TICKS)
extensions = st.builds(Extension, type=st.integers(0x40, 0xFF), data=st.binary(max_size=30), critical=st.booleans())
geometries = st.builds(
    lambda levels, spatial, temporal, block: TokenGeometry(
        bits_per_token=max(levels),
        level_bits=(0, *sorted(levels)),
        spatial_factor=spatial,
        temporal_factor=temporal,
        block_tokens=block,
    ),
    st.sets(st.integers(1, 64), min_size=1, max_size=15),
    *[st.integers(1, 64)] * 3,
)
side_streams = st.builds(
    lambda infos: tuple(replace(info, index=3 * i) for i, info in enumerate(infos)),
    st.lists(
        st.builds(
            SideStreamInfo,
            index=st.just(0),
            kind=st.integers(1, 255),
            codec=names,
            language=names.map(lambda s: s[:8]),
            time_base=ratios,
            template=st.binary(max_size=40),
        ),
        max_size=3,
    ),
)
headers = st.builds(
    StreamHeader,
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    time_base=ratios,
    frame_rate=st.none() | ratios,
    colour=st.builds(
        Colour,
        primaries=st.integers(0, 255),
        transfer=st.integers(0, 255),
        matrix=st.integers(0, 255),
        full_range=st.booleans(),
    ),
    sample_aspect_ratio=st.none() | ratios,
    geometry=geometries,
    max_chunk_frames=st.integers(6, 65536),
    tokenizer_digest=st.binary(min_size=32, max_size=32),
    tokenizer_name=names,
    side_streams=side_streams,
    extensions=st.lists(extensions, max_size=3).map(tuple),
) | st.builds(
    lambda digest: make_header(probability_model=1, probability_digest=digest),
    st.binary(min_size=32, max_size=32).filter(any),
)


@st.composite
def files(draw: st.DrawFn) -> tuple[StreamHeader, list[Item]]:
    header = draw(headers)
    items: list[Item] = []
    now = draw(st.integers(-(2**40), 2**40))
    step = draw(st.integers(1, 5000))
    steps = draw(st.sampled_from([st.just(step), st.integers(1, 2**30)]))
    for number in range(draw(st.integers(1, 4))):
        deltas = draw(st.lists(steps, max_size=5))
        pts = tuple(accumulate(deltas, initial=now))
        now = pts[-1] + draw(steps)
        crc = draw(st.integers(0, 2**32 - 1))
        items.append(
            ChunkRecord(
                number=number,
                pts=pts,
                last_duration=now - pts[-1],
                tokens_crc32=crc,
                token_data=draw(st.binary(max_size=50)),
            )
        )
        if header.side_streams:
            packets = st.builds(
                SidePacket,
                stream=st.sampled_from([s.index for s in header.side_streams]),
                data=st.binary(max_size=20),
                keyframe=st.booleans(),
                pts=st.none() | ticks,
                dts=st.none() | ticks,
                duration=st.integers(0, wire.MAX_TICKS),
            )
            items += draw(
                st.lists(packets, min_size=1, max_size=4).map(tuple).map(lambda batch: [SidePacketBatch(packets=batch)])
            )
        items += draw(st.lists(extensions, max_size=1))
    return header, items


@settings(max_examples=150, deadline=None)
@given(files())
def test_what_is_written_is_read_and_writes_the_same_bytes(file: tuple[StreamHeader, list[Item]]) -> None:
    header, items = file
    data = write(header, items)
    reader = read_stream(io.BytesIO(data), understood=range(256))
    back = list(reader)
    assert reader.header == header
    assert back == items
    assert reader.summary.complete
    assert write(reader.header, back) == data


@settings(max_examples=60, deadline=None)
@given(files(), st.data())
def test_damage_anywhere_never_alters_a_chunk(file: tuple[StreamHeader, list[Item]], data: st.DataObject) -> None:
    header, items = file
    good = write(header, items)
    first = data.draw(st.integers(0, len(good)))
    last = data.draw(st.integers(first, min(len(good), first + 200)))
    bad = good[:first] + data.draw(st.binary(max_size=60)) + good[last:]
    check_damaged(bad, given_chunks(items), complete_as=items)


def test_still_image() -> None:
    header = make_header(still_image=True, max_chunk_frames=1)
    data = write(header, [make_chunk(0, frames=1)])
    assert read(data)[1].complete
    two = forge([chunk_body(0)], header=header)
    with pytest.raises(CorruptStreamError, match="frame count"):
        read(two)
    with pytest.raises(UsageError, match="still image"):
        write(header, [make_chunk(0, frames=2)])


# --- cuts and flips ---


def check_damaged(data: bytes, whole: list[ChunkRecord], *, complete_as: Iterable[Item] | None = None) -> list[Item]:
    """Whole good chunks and damage, or a TokcodecError with offset and hint; never an altered chunk."""
    items: list[Item] = []
    try:
        reader = read_stream(io.BytesIO(data), understood=range(256))
        for item in reader:
            items.append(item)
        if reader.summary.complete:
            assert complete_as is not None
            assert items == list(complete_as)
        else:
            assert given_damage(items)
    except TokcodecError as error:
        assert error.offset is not None  # noqa: PT017
        assert error.hint  # noqa: PT017
        assert 0 <= error.offset <= len(data)  # noqa: PT017
    chunks = given_chunks(items)
    assert all(chunk in whole for chunk in chunks)
    numbers = [chunk.number for chunk in chunks]
    assert numbers == sorted(set(numbers))
    return items


def test_a_cut_at_any_byte_gives_every_whole_chunk() -> None:
    chunk_ends = [OFFSETS[2], OFFSETS[4], OFFSETS[6]]
    whole = given_chunks(SMALL_ITEMS)
    for size in range(len(SMALL)):
        part = SMALL[:size]
        if size < OFFSETS[1]:
            with pytest.raises(CorruptStreamError) as caught:
                read(part)
            assert caught.value.hint
            continue
        items = check_damaged(part, whole)
        expected = sum(end <= size for end in chunk_ends)
        assert given_chunks(items) == whole[:expected], size
        (damage,) = given_damage(items)
        assert items[-1] is damage
        assert damage.offset + damage.length == size
        assert damage.offset in OFFSETS
        assert damage.open_ended == (size < OFFSETS[7])
        assert find_chunk_index(io.BytesIO(part)).total_frames == sum(c.frames for c in whole[:expected])


def test_a_cut_chunk_whose_head_is_there_is_named() -> None:
    items, summary = read(SMALL[: OFFSETS[3] + 40])
    assert given_damage(items) == [
        Damage(
            offset=OFFSETS[3],
            length=40,
            reason="the rest of the file is missing: the file ends inside the chunk record",
            missing_chunks=range(1, 2),
            open_ended=True,
        )
    ]
    assert not summary.complete


def test_every_flipped_bit_is_noticed() -> None:
    whole = given_chunks(SMALL_ITEMS)
    spans = {0: (OFFSETS[1], OFFSETS[2]), 1: (OFFSETS[3], OFFSETS[4]), 2: (OFFSETS[5], OFFSETS[6])}
    for bit in range(8 * len(SMALL)):
        bad = bytearray(SMALL)
        bad[bit // 8] ^= 1 << (bit % 8)
        items = check_damaged(bytes(bad), whole)
        if bit // 8 < OFFSETS[1]:
            assert not items
            continue
        hit = [number for number, (start, end) in spans.items() if start <= bit // 8 < end]
        (damage,) = given_damage(items)
        assert list(damage.missing_chunks) == hit
        assert given_chunks(items) == [chunk for chunk in whole if chunk.number not in hit]
        assert damage.offset <= bit // 8 < damage.offset + damage.length
        assert not damage.open_ended


def test_records_cut_out_without_a_trace_are_missed() -> None:
    items, _ = read(SMALL[: OFFSETS[1]] + SMALL[OFFSETS[4] :])
    assert given_damage(items) == [
        Damage(offset=OFFSETS[1], length=0, reason="3 records missing", missing_chunks=range(2))
    ]


def test_bytes_cut_out_of_a_payload_cost_one_chunk() -> None:
    items, _ = read(SMALL[: OFFSETS[1] + 30] + SMALL[OFFSETS[1] + 33 :])
    (damage,) = given_damage(items)
    assert (damage.offset, damage.missing_chunks) == (OFFSETS[1], range(1))
    assert [chunk.number for chunk in given_chunks(items)] == [1, 2]


def test_a_file_inside_a_payload_is_not_taken_for_records() -> None:
    inner = write(make_header(), [make_chunk(0, data=b"foreign")])
    data = bytearray(write(SMALL_HEADER, [make_chunk(0, data=inner), make_chunk(1)]))
    data[OFFSETS[1] + 30] ^= 1
    items, _ = read(bytes(data))
    assert given_chunks(items) == [make_chunk(1)]
    assert given_damage(items)[0].missing_chunks == range(1)


def test_bytes_after_the_end_are_reported() -> None:
    items, summary = read(SMALL + bytes(100_000))
    assert items[:-1] == list(SMALL_ITEMS)
    assert items[-1] == Damage(offset=len(SMALL), length=100_000, reason="100000 bytes after the end of the file")
    assert not summary.complete


# --- violations ---


def test_order_of_records() -> None:
    for parts, changes, message in [
        ([chunk_body(0), chunk_body(1)], {"sequence": {2: 1}}, "record number 1 where 2 is next"),
        ([chunk_body(0), chunk_body(1)], {"chunks_before": {2: 0}}, "0 chunks before it where there are 1"),
        ([chunk_body(0), chunk_body(1)], {"chunks_before": {2: 5}}, "5 chunks before it where there are 1"),
        ([chunk_body(0), chunk_body(0)], {}, "does not begin after"),
        ([chunk_body(0), (wire.TYPE_HEADER, b"")], {}, "a second header"),
        ([chunk_body(0), (wire.TYPE_END, bytes(8))], {}, "without an index"),
        ([chunk_body(0), (wire.TYPE_END, bytes(9))], {}, "1 bytes left over"),
    ]:
        with pytest.raises(CorruptStreamError, match=message) as caught:
            read(forge(parts, **changes))
        assert caught.value.offset
        assert caught.value.hint


def test_index_and_end_have_to_agree_with_the_file() -> None:
    body = chunk_body(0)
    offset = len(forge([]))
    index_offset = len(forge([body]))

    def index(*, frames: int = 5, chunks: int = 1, at: int = offset, tail: bytes = b"") -> tuple[int, bytes]:
        entry = at.to_bytes(8, "little") + bytes(8) + (5).to_bytes(4, "little")
        head = frames.to_bytes(8, "little") + chunks.to_bytes(4, "little") + bytes(4)
        return wire.TYPE_INDEX, head + entry + tail

    end = (wire.TYPE_END, index_offset.to_bytes(8, "little"))
    assert read(forge([body, index(), end]))[1].complete
    for parts, message in [
        ([body, index(frames=6), end], "6 frames in all, but the entries have 5"),
        ([body, index(chunks=2), end], "20 bytes of entries for 2 chunks"),
        ([body, index(at=offset + 1), end], "does not match the chunks"),
        ([body, index(at=1 << 40), end], "not possible"),
        ([body, index(tail=bytes(20), chunks=2), end], "entry of chunk 1 is not possible"),
        ([body, index(), body], "chunk record after the index"),
        ([body, index(), index(), end], "index record after the index"),
        ([body, index(), (wire.TYPE_END, bytes(8))], "does not point to the index"),
    ]:
        with pytest.raises(CorruptStreamError, match=message):
            read(forge(parts))


def test_critical_means_critical() -> None:
    for kind in (0x06, 0x3F, 0x40, 0xFF):
        plain = forge([(kind, b"x"), chunk_body(0)])
        assert given_chunks(read(plain)[0])
        critical = forge([(kind, b"x"), chunk_body(0)], critical={1: True})
        with pytest.raises(UnsupportedStreamError, match="critical"):
            read(critical)
        assert given_chunks(read(critical, understood={kind})[0])
    header = make_header(extensions=(Extension(type=0x41, data=b"", critical=True),))
    data = write(header, [make_chunk(0)])
    with pytest.raises(UnsupportedStreamError, match="0x41"):
        read(data)
    assert read(data, understood={0x41})[1].complete
    with pytest.raises(CorruptStreamError, match="critical flag"):
        read(forge([chunk_body(0)], critical={1: False}))
    with pytest.raises(CorruptStreamError, match="type 0"):
        read(forge([(0, b"")]))


@pytest.mark.parametrize(
    ("at", "value", "error", "message"),
    [
        (0, b"\x00\x00", CorruptStreamError, "width is 0"),
        (2, b"\x01\x40", CorruptStreamError, "height is 16385"),
        (4, bytes(8), CorruptStreamError, "time base is 0/0"),
        (4, b"\x02\0\0\0\x04\0\0\0", CorruptStreamError, "lowest terms"),
        (12, b"\x00\0\0\0\x01\0\0\0", CorruptStreamError, "frame rate is 0/1"),
        (28, b"\x80", CorruptStreamError, "a second reference, and no first pictures"),
        (28, b"\x40", CorruptStreamError, "by a network, and no seven motion maps"),
        (28, b"\x42", CorruptStreamError, "by a network, and no seven motion maps"),
        (28, b"\x20", CorruptStreamError, "by blocks, and none by coefficients"),
        (28, b"\x10", CorruptStreamError, "no such first pictures"),
        (28, b"\x08", CorruptStreamError, "no seven motion maps"),
        (28, b"\x04", CorruptStreamError, "seven motion maps"),
        (32, b"\x02", CorruptStreamError, "full range"),
        (33, b"\x41", CorruptStreamError, "bits per token is 65"),
        (34, b"\x00", CorruptStreamError, "spatial factor"),
        (37, b"\x01", CorruptStreamError, "number of levels"),
        (38, b"\x01", CorruptStreamError, "level table"),
        (45, bytes(4), CorruptStreamError, "frames a chunk"),
        (49, b"\x02", UnsupportedStreamError, "probability model 2"),
        (49, b"\x01", CorruptStreamError, "digest has to be zero"),
        (114, b"\x00", CorruptStreamError, "length of tokenizer name"),
        (115, b"\x1b", CorruptStreamError, "control characters"),
        (115, b"\xff", CorruptStreamError, "UTF-8"),
    ],
)
def test_header_fields_are_checked(at: int, value: bytes, error: type[TokcodecError], message: str) -> None:
    from tokcodec.container.header import pack_header
    from tokcodec.container.preamble import pack_signature

    payload = bytearray(pack_header(make_header()))
    payload[at : at + len(value)] = value
    data = pack_signature() + framing.pack_record(
        bytes(payload), type=1, critical=True, sequence=0, chunks_before=0, key=b""
    )
    with pytest.raises(error, match=message) as caught:
        read(data)
    assert caught.value.offset is not None
    assert caught.value.hint


def test_chunk_and_packet_fields_are_checked() -> None:
    kind, body = chunk_body(0)
    packets = b"\x01\0\0\0"
    for parts, message in [
        ([(kind, bytes(4) + body[4:])], "frame count is 0"),
        ([(kind, b"\x0a" + body[1:])], "frame count is 10"),
        ([(kind, body[:16] + b"\x02" + body[17:])], "timing mode is 2"),
        ([(kind, body[:17] + b"\x02" + body[18:])], "step mode is 2"),
        ([(kind, body[:18] + b"\x01" + body[19:])], "reserved"),
        ([(kind, body[:20] + b"\xff" + body[21:])], "token data needs 255 bytes"),
        ([(kind, body + b"x")], "1 bytes left over"),
        ([(kind, body[:24] + b"\x00" + body[25:])], "frame duration is 0"),
        ([(kind, body[:24] + b"\x81\x00" + body[25:])], "shortest form"),
        ([(kind, body[:24] + b"\xff" * 9 + body[25:])], "longer than nine"),
        ([(kind, body[:16] + b"\x01" + body[17:24] + b"\x01" * 5 + body[25:])], "written as a list"),
        ([(kind, body[:4] + b"\xff" * 7 + b"\x0f" + body[12:])], "out of range"),
        ([(wire.TYPE_PACKETS, bytes(4))], "packet count is 0"),
        ([(wire.TYPE_PACKETS, b"\xff\xff\0\0")], "65535 packets do not fit"),
        ([(wire.TYPE_PACKETS, packets + b"\x02\0\0\0")], "stream 2, which the header does not name"),
        ([(wire.TYPE_PACKETS, packets + b"\x01\x08\0\0")], "packet flags is 8"),
        ([(wire.TYPE_PACKETS, packets + b"\x01\x00\0\x01")], "packet needs 1 bytes"),
    ]:
        with pytest.raises(CorruptStreamError, match=message):
            read(forge(parts))


def test_signature() -> None:
    def signature(body: bytes) -> bytes:
        return body + crc32(body).to_bytes(4, "little") + SMALL[16:]

    for data, error, message in [
        (b"", CorruptStreamError, "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), CorruptStreamError, "not a tokcodec file"),
        (SMALL.replace(b"\r\n", b"\n"), CorruptStreamError, "altered"),
        (signature(wire.MAGIC + b"\x02\0\0\0"), UnsupportedStreamError, "version 2.0"),
        (signature(wire.MAGIC + b"\x01\0\x01\0"), CorruptStreamError, "reserved"),
    ]:
        with pytest.raises(error, match=message) as caught:
            read(data)
        assert caught.value.hint
    assert read(signature(wire.MAGIC + b"\x01\x07\0\0"))[1].complete  # a later minor version


# --- limits ---


def test_hostile_lengths_take_no_memory() -> None:
    head = bytearray(SMALL[OFFSETS[1] : OFFSETS[1] + 24])
    key = framing.record_key(SMALL[OFFSETS[0] + 24 : OFFSETS[1] - 4])
    head[16:20] = (60 << 20).to_bytes(4, "little")
    head[20:24] = crc32(head[:20] + key).to_bytes(4, "little")
    data = SMALL[: OFFSETS[1]] + bytes(head) + b"short"
    tracemalloc.start()
    try:
        items, _ = read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given_damage(items)[0].reason.endswith("the file ends inside the chunk record")
    assert peak < 1 << 20
    with pytest.raises(LimitError, match="record has"):
        read(data, limits=Limits(payload_bytes=1000))
    head[16:20] = b"\xff" * 4
    head[20:24] = crc32(head[:20] + key).to_bytes(4, "little")
    with pytest.raises(CorruptStreamError, match="4294967295 bytes"):
        read(SMALL[: OFFSETS[1]] + bytes(head))


def test_limits() -> None:
    with pytest.raises(LimitError, match="32x32"):
        read(SMALL, limits=Limits(picture_pixels=1023))
    with pytest.raises(LimitError, match="16 tokens in a picture"):
        read(SMALL, limits=Limits(picture_tokens=15))
    with pytest.raises(LimitError, match="32 tokens in a chunk"):
        read(SMALL, limits=Limits(chunk_tokens=31))
    with pytest.raises(LimitError, match="index"):
        find_chunk_index(io.BytesIO(SMALL), limits=Limits(index_chunks=2))
    assert Limits().picture_pixels == MAX_PICTURE_PIXELS
    data = write(make_header(width=16384, height=16384), [make_chunk(0)])
    with pytest.raises(LimitError, match="16384x16384"):
        read(data)


def test_nested_damaged_records_do_not_cost_quadratic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "_SEARCH_ALLOWANCE_BYTES", 0)
    key = framing.record_key(SMALL[OFFSETS[0] + 24 : OFFSETS[1] - 4])
    bomb = b""
    for _ in range(100):
        record = framing.pack_record(bytes(20_000), type=2, critical=True, sequence=1, chunks_before=0, key=key)
        bomb += record[:24]
    with pytest.raises(LimitError, match="inside each other"):
        read(SMALL[: OFFSETS[1]] + bomb + bytes(20_001))


# --- writer ---


def test_writer_refuses_what_a_reader_would() -> None:
    for header in [
        make_header(width=0),
        make_header(width=16385),
        make_header(time_base=Fraction(0)),
        make_header(frame_rate=Fraction(-1)),
        make_header(tokenizer_digest=b"short"),
        make_header(tokenizer_name=""),
        make_header(tokenizer_name="a\x1b[0m"),
        make_header(tokenizer_name="\ud800"),
        make_header(probability_model=1),
        make_header(geometry=TokenGeometry(level_bits=(0, 18, 18))),
        make_header(geometry=TokenGeometry(motion_network=True)),
        make_header(geometry=TokenGeometry(motion_tokens=2, motion_network=True)),
        make_header(geometry=TokenGeometry(motion_tokens=2, motion_maps=7, second_reference=True)),
        make_header(side_streams=(AUDIO, AUDIO)),
        make_header(extensions=(Extension(type=0x3F, data=b""),)),
    ]:
        with pytest.raises(UsageError):
            ContainerWriter(io.BytesIO(), header)
    for items in [
        [make_chunk(1)],
        [make_chunk(0), make_chunk(0)],
        [make_chunk(0), make_chunk(1, first=4)],
        [make_chunk(0, frames=10)],
        [replace(make_chunk(0), pts=())],
        [replace(make_chunk(0), pts=(1, 1))],
        [replace(make_chunk(0), last_duration=0)],
        [SidePacketBatch(packets=(SidePacket(stream=2, data=b""),))],
        [Extension(type=5, data=b"")],
        [],
    ]:
        with pytest.raises(UsageError):
            write(SMALL_HEADER, items)


def test_a_failed_block_leaves_a_file_that_says_so() -> None:
    sink = io.BytesIO()

    def fail_inside() -> None:
        with ContainerWriter(sink, SMALL_HEADER) as writer:
            writer.write_chunk(make_chunk(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert not read(sink.getvalue())[1].complete


def test_a_full_disk_is_an_output_error() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space"):
        ContainerWriter(Full(), SMALL_HEADER)


def test_a_failing_disk_is_a_media_error() -> None:
    class Bad(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(MediaError, match="Input/output"):
        read_stream(Bad())


# --- seeking ---


def test_index_is_read_from_the_tail_or_found_by_a_scan() -> None:
    expected = tuple(
        ChunkEntry(number=number, offset=OFFSETS[at], first_pts=5 * number, frames=frames)
        for number, at, frames in [(0, 1, 5), (1, 3, 5), (2, 5, 2)]
    )
    index = find_chunk_index(io.BytesIO(SMALL))
    assert (index.entries, index.total_frames, index.from_tail) == (expected, 12, True)
    for bad in (SMALL[:-1], SMALL + b"x", SMALL[: OFFSETS[6] + 30] + b"?" + SMALL[OFFSETS[6] + 31 :]):
        index = find_chunk_index(io.BytesIO(bad))
        assert (index.entries, index.from_tail) == (expected, False)
    with pytest.raises(UsageError, match="seek"):
        find_chunk_index(Pipe(SMALL))  # type: ignore[arg-type]


def test_reading_from_a_chunk() -> None:
    entries = find_chunk_index(io.BytesIO(SMALL)).entries
    for entry in entries:
        reader = read_stream_from(io.BytesIO(SMALL), entry)
        assert [chunk.number for chunk in given_chunks(reader)] == list(range(entry.number, 3))
        assert reader.summary.complete
        assert reader.summary.total_chunks == 3
    lying = replace(entries[2], offset=entries[1].offset)
    with pytest.raises(CorruptStreamError, match="chunks before it"):
        list(read_stream_from(io.BytesIO(SMALL), lying))


# --- the spec's example ---


def spec_example() -> bytes:
    block = re.search(r"```hex\n(.*?)```", SPEC.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    data = b""
    for line in block[1].splitlines():
        fields = line.split(";")[0].split()
        if fields:
            assert int(fields[0], 16) == len(data), line
            data += bytes.fromhex("".join(fields[1:]))
    return data


def test_the_hex_example_of_the_spec_is_a_file() -> None:
    data = spec_example()
    reader = read_stream(io.BytesIO(data))
    items = list(reader)
    assert reader.summary.complete
    assert (reader.header.width, reader.header.height) == (8, 8)
    (chunk,) = given_chunks(items)
    assert chunk.frames == 1
    # Level 1 keeps three bits: z_1 > 0, z_2 <= 0, z_3 > 0.
    canonical = (0b101).to_bytes(8, "little") + bytes([1])
    assert chunk.tokens_crc32 == crc32(canonical)
    tokens = decode_tokens(chunk.token_data, steps=1, rows=1, columns=1, geometry=reader.header.geometry)
    assert tokens.indices.item() == 0b101
    assert tokens.levels.item() == 1
    assert write(reader.header, items) == data
