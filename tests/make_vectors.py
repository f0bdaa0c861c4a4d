"""Makes the test vectors of the bitstream (spec section 14): `python tests/make_vectors.py [--check]`.

Bytes are put together here, field by field, and not by the container that the vectors test; only token data
come from `tokcodec.bits`. What a reader has to make of a file is stated from the values that went in.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

import tiny_model

from tokcodec import bits
from tokcodec.errors import CorruptStreamError
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS
from tokcodec.motion_bits import MotionTraversal, expected_map
from tokcodec.probability.motion_network import motion_network
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, truncate

FOLDER = Path(__file__).parent / "vectors"
PIXEL_RMS = 1.0
"""Root-mean-square difference that a full decoder may have (spec section 12)."""
ROUNDING_RMS = 0.05
"""The same of pixels in 32-bit floating point on two machines: ties may be rounded otherwise."""

SYNC = bytes.fromhex("9D546BF6")
MAGIC = bytes.fromhex("8E544F4B0D0A1A0A")
HEADER, CHUNK, PACKETS, INDEX, END = range(1, 6)
CRITICAL = {HEADER, CHUNK, END}
SIGNATURE_BYTES, RECORD_HEADER_BYTES = 16, 24
MAX_TICKS = 1 << 60
EXCEPTIONS = {
    "C": "CorruptStreamError",
    "U": "UnsupportedStreamError",
    "L": "LimitError",
    "M": "ModelError",
    "D": None,
}

DEFAULT_HEADER: dict[str, Any] = {
    "width": 32,
    "height": 24,
    "time_base": (1, 25),
    "frame_rate": (25, 1),
    "sample_aspect_ratio": (0, 0),
    "still_image": False,
    "motion_maps": False,
    "pictures": False,
    "residuals": False,
    "picture_blocks": False,
    "motion_network": False,
    "second_reference": False,
    "primaries": 2,
    "transfer": 2,
    "matrix": 2,
    "full_range": False,
    "bits_per_token": 18,
    "spatial_factor": 8,
    "temporal_factor": 4,
    "block_tokens": 4,
    "level_bits": (0, 3, 6, 9, 12, 15, 18),
    "max_chunk_frames": 65,
    "probability_model": 0,
    "probability_digest": bytes(32).hex(),
    "tokenizer_digest": tiny_model.SHA256,
    "tokenizer_name": tiny_model.NAME,
    "side_streams": (),
    "extensions": (),
}
"""The header of a vector, but for what the manifest says of it."""


# --- fields ---

Fields = list[tuple[str, bytes]]


def u8(value: int) -> bytes:
    return struct.pack("<B", value)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def i64(value: int) -> bytes:
    return struct.pack("<q", value)


def ratio(top: int, bottom: int) -> bytes:
    return u32(top) + u32(bottom)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def text(value: str) -> bytes:
    data = value.encode()
    return u8(len(data)) + data


def blob(value: bytes) -> bytes:
    return u32(len(value)) + value


def header_fields(header: Mapping[str, Any]) -> Fields:
    """The fields of a header payload (spec sections 4.1, 4.5 and 4.6)."""
    flags = header["still_image"] + {0: 0, 1: 2, MOTION_MAPS: 6}[header["motion_maps"]]
    flags += 8 * header["pictures"] + 16 * header["residuals"] + 32 * header["picture_blocks"]
    flags += 64 * header["motion_network"] + 128 * header["second_reference"]
    fields: Fields = [
        ("width", u16(header["width"])),
        ("height", u16(header["height"])),
        ("time_base", ratio(*header["time_base"])),
        ("frame_rate", ratio(*header["frame_rate"])),
        ("sample_aspect_ratio", ratio(*header["sample_aspect_ratio"])),
        ("flags", u8(flags)),
        *((name, u8(header[name])) for name in ("primaries", "transfer", "matrix", "full_range")),
        *((name, u8(header[name])) for name in ("bits_per_token", "spatial_factor", "temporal_factor", "block_tokens")),
        ("level_count", u8(len(header["level_bits"]))),
        ("level_bits", bytes(header["level_bits"])),
        ("max_chunk_frames", u32(header["max_chunk_frames"])),
        ("probability_model", u8(header["probability_model"])),
        ("probability_digest", bytes.fromhex(header["probability_digest"])),
        ("tokenizer_digest", bytes.fromhex(header["tokenizer_digest"])),
        ("tokenizer_name", text(header["tokenizer_name"])),
        ("side_stream_count", u8(len(header["side_streams"]))),
    ]
    for number, side in enumerate(header["side_streams"]):
        fields += [
            (f"side{number}.index", u16(side["index"])),
            (f"side{number}.kind", u8(side["kind"])),
            (f"side{number}.reserved", bytes(1)),
            (f"side{number}.time_base", ratio(*side["time_base"])),
            (f"side{number}.codec", text(side["codec"])),
            (f"side{number}.language", text(side["language"])),
            (f"side{number}.template", blob(bytes.fromhex(side["template"]))),
        ]
    fields.append(("extension_count", u16(len(header["extensions"]))))
    for number, extension in enumerate(header["extensions"]):
        fields += [
            (f"extension{number}.type", u8(extension["type"])),
            (f"extension{number}.flags", u8(extension["critical"])),
            (f"extension{number}.data", blob(bytes.fromhex(extension["data"]))),
        ]
    return [*fields, ("rest", b"")]


def chunk_fields(chunk: Chunk) -> Fields:
    """The fields of a chunk payload (spec section 5.1)."""
    steps = [b - a for a, b in itertools.pairwise(chunk.pts)]
    listed = any(step != chunk.duration for step in steps)
    return [
        ("frame_count", u32(len(chunk.pts))),
        ("first_pts", i64(chunk.pts[0])),
        ("tokens_crc", u32(chunk.tokens_crc)),
        ("timing_mode", u8(listed)),
        ("step_mode", u8(bool(chunk.step_frames))),
        ("reserved", bytes(2)),
        ("token_data_size", u32(len(chunk.token_data))),
        ("steps", b"".join(map(varint, steps)) if listed else b""),
        ("duration", varint(chunk.duration)),
        ("step_list", step_list(chunk.step_frames) if chunk.step_frames else b""),
        ("token_data", chunk.token_data),
        ("rest", b""),
    ]


def step_list(step_frames: Sequence[int]) -> bytes:
    """The list of a chunk's later steps (spec section 5.4)."""
    number = sum({4: 0, 2: 1, 1: 2}[frames] << 2 * step for step, frames in enumerate(step_frames))
    return varint(len(step_frames)) + number.to_bytes(-(-len(step_frames) // 4), "little")


def packets_fields(packets: Sequence[Mapping[str, Any]]) -> Fields:
    """The fields of a packets payload (spec section 6.1)."""
    fields: Fields = [("packet_count", u32(len(packets)))]
    predicted: dict[int, int] = {}
    for number, packet in enumerate(packets):
        pts, dts, data = packet["pts"], packet["dts"], bytes.fromhex(packet["data"])
        flags = packet["keyframe"] + 2 * (pts is not None) + 4 * (dts is not None)
        before = predicted.get(packet["stream"], 0)
        fields += [
            (f"{number}.stream", varint(packet["stream"])),
            (f"{number}.flags", u8(flags)),
            (f"{number}.duration", varint(packet["duration"])),
            (f"{number}.pts", b"" if pts is None else zigzag(pts - before)),
            (f"{number}.dts", b"" if dts is None else zigzag(dts - (pts or 0))),
            (f"{number}.size", varint(len(data))),
            (f"{number}.data", data),
        ]
        predicted[packet["stream"]] = 0 if pts is None else pts + packet["duration"]
    return [*fields, ("rest", b"")]


def packet(stream: int, data: bytes, **values: Any) -> dict[str, Any]:
    return {
        "stream": stream,
        "keyframe": False,
        "pts": None,
        "dts": None,
        "duration": 0,
        "data": data.hex(),
    } | values


# --- tokens ---


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """SplitMix64 of a counter: numbers that look random and are the same everywhere."""
    count = int(np.prod(shape))
    z = np.arange(count, dtype=np.uint64) + np.uint64((seed << 32) + 1)
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A chunk that goes into a file, and what has to come out of it."""

    pts: list[int]
    duration: int
    tokens: TokenChunk
    token_data: bytes
    tokens_crc: int
    step_frames: tuple[int, ...] = ()

    def expected(self, number: int) -> dict[str, Any]:
        listed = {"step_frames": list(self.step_frames)} if self.step_frames else {}
        return {
            "number": number,
            "frames": len(self.pts),
            "pts": self.pts,
            "duration": self.duration,
            "tokens_crc": self.tokens_crc,
            "tokens_sha256": hashlib.sha256(token_bytes(self.tokens)).hexdigest(),
            **listed,
        }


def token_bytes(tokens: TokenChunk) -> bytes:
    """The canonical tokens as bytes (spec section 5.3)."""
    vectors = tokens.vectors.astype("<i2").tobytes()
    picture = b"" if tokens.picture is None else picture_bytes(tokens.picture)
    residuals = b"".join(u8(0) if each is None else u8(1) + picture_bytes(each) for each in tokens.residuals)
    plain = tokens.indices.astype("<u8").tobytes() + tokens.levels.astype("u1").tobytes()
    return plain + vectors + picture + residuals


def picture_bytes(picture: Picture) -> bytes:
    layout = b"" if picture.blocks is None else picture.blocks.astype("u1").tobytes()
    return picture.coefficients.astype("<i2").tobytes() + layout + u8(picture.scale)


def geometry_of(header: Mapping[str, Any]) -> TokenGeometry:
    names = ("bits_per_token", "spatial_factor", "temporal_factor", "block_tokens")
    numbers = {name: header[name] for name in names}
    motion_tokens = MOTION_TOKENS if header["motion_maps"] else 0
    maps = max(1, header["motion_maps"])
    return TokenGeometry(
        level_bits=tuple(header["level_bits"]),
        motion_tokens=motion_tokens,
        motion_maps=maps,
        pictures=header["pictures"],
        residuals=header["residuals"],
        intra=header["picture_blocks"],
        motion_network=header["motion_network"],
        second_reference=header["second_reference"],
        **numbers,
    )


def make_tokens(
    header: Mapping[str, Any],
    frames: int,
    *,
    levels: object,
    seed: int,
    still: bool = False,
    motion: Sequence[str] = (),
    step_frames: tuple[int, ...] = (),
    picture: Picture | None = None,
    step_residuals: Sequence[Picture | None] = (),
) -> TokenChunk:
    """Tokens of which one bit in eight changes from step to step (none, where `still`), cut to `levels`.

    `motion` names the kind of each later step's motion map, see :func:`motion_map`. Of seven maps it names the first
    ones, "random/even/none": "even" is what is expected of a map, and so are those that are not named. Behind a "|" is
    the kind of the choice map, see :func:`choice_map`, where there is a second reference.

    With first pictures by coefficients the first step keeps nothing; by wavelets `picture` may be None for one of
    zeros.
    Without any `step_residuals` no later step has one.
    """
    geometry = geometry_of(header)
    rows, columns = geometry.grid(header["height"], header["width"])
    steps = geometry.steps(frames, step_frames)
    mask = np.uint64((1 << geometry.bits_per_token) - 1)
    indices = noise(seed, (steps, rows, columns)) & mask
    change = indices & noise(seed + 1, indices.shape) & noise(seed + 2, indices.shape)
    indices[1:] = 0 if still else change[1:]
    indices = np.bitwise_xor.accumulate(indices, axis=0)
    blocks = (steps, *geometry.blocks(rows, columns))
    top = np.full(blocks, len(geometry.level_bits) - 1, np.uint8)
    wanted = np.broadcast_to(np.asarray(levels, np.uint8), blocks)
    if header["pictures"]:
        wanted = wanted.copy()
        wanted[0] = 0
        if picture is None:
            side = geometry.spatial_factor
            picture = Picture(coefficients=np.zeros((3, side * rows, side * columns), np.int16), scale=0)
    vectors = np.zeros((steps, *geometry.motion_blocks(rows, columns), 2), np.int16)
    for step, kind in enumerate(motion, start=1):
        shape = vectors.shape[1] // geometry.step_maps, vectors.shape[2]
        kind, _, choice = kind.partition("|")
        first, *kinds = kind.split("/")
        maps = [motion_map(first, *shape, seed=seed + 2 + step)]
        kinds += ["even"] * (geometry.motion_maps - 1 - len(kinds))
        for number, other in enumerate(kinds, start=1):
            even = other == "even"
            own = expected_map(maps, number) if even else motion_map(other, *shape, seed=seed + 50 * number + 10 + step)
            maps.append(own)
        if geometry.second_reference:
            maps.append(choice_map(choice, *shape, step=step, seed=seed + 700 + step))
        vectors[step] = np.concatenate(maps)
    by_coefficients = {"picture": picture, "residuals": tuple(step_residuals)}
    whole = TokenChunk(indices=indices, levels=top, geometry=geometry, vectors=vectors, **by_coefficients)  # type: ignore[arg-type]
    return truncate(whole, wanted)


def motion_map(kind: str, rows: int, columns: int, *, seed: int) -> NDArray[np.int16]:
    """A motion map `(rows, columns, 2)` by a formula.

    Args:
        kind: "none"; "random" of all vectors there are; "extreme" of the ends of their range; "slow", -2 to 2;
            "smooth", a zoom with a part that moves otherwise; "sparse", a vector in eight of them.
        rows: Rows of motion blocks.
        columns: Columns of motion blocks.
        seed: Of the noise.
    """
    shape = rows, columns, 2
    values = (noise(seed, shape) >> np.uint64(8)).astype(np.int64)
    if kind == "none":
        found = np.zeros(shape)
    elif kind == "random":
        found = values % (2 * MAX_VECTOR + 1) - MAX_VECTOR
    elif kind == "extreme":
        found = values % 2 * (2 * MAX_VECTOR) - MAX_VECTOR
    elif kind == "slow":
        found = values % 5 - 2
    elif kind == "smooth":
        y, x = np.indices((rows, columns))
        found = np.stack([x - columns // 2 + seed % 4, (y - rows // 2) // 2], axis=-1)
        found[rows // 3 : rows // 2, columns // 3 : columns // 2] = -40, 25
    elif kind == "sparse":
        found = np.where(noise(seed + 1, (rows, columns, 1)) % np.uint64(8) == 0, values % 81 - 40, 0)
    else:
        raise ValueError(kind)
    return found.astype(np.int16)


def choice_map(kind: str, rows: int, columns: int, *, step: int, seed: int) -> NDArray[np.int16]:
    """A choice map `(rows, columns, 2)` by a formula.

    Args:
        kind: None ("") of zeros; "first" or "mean", everywhere; "random", one in five each; "corner", a cluster of both
            that grows from step to step.
        rows: Rows of motion blocks.
        columns: Columns of motion blocks.
        step: Of the chunk.
        seed: Of the noise.
    """
    values = (noise(seed, (rows, columns)) >> np.uint64(8)).astype(np.int64)
    y, x = np.ogrid[:rows, :columns]
    corner = np.where(y + x <= 1 + step, 1 + (values % 3 > 0), 0)
    kinds = {"": 0, "first": 1, "mean": 2, "random": np.maximum(values % 5 - 2, 0), "corner": corner}
    found = np.zeros((rows, columns, 2), np.int16)
    found[..., 0] = kinds[kind]
    return found


# --- files ---


@dataclass(kw_only=True)
class Edit:
    """What is wrong with one record: other bytes in named fields, or in the record around them."""

    raw: Mapping[str, bytes] = field(default_factory=dict)
    kind: int | None = None
    flags: int | None = None
    reserved: bytes = bytes(2)
    sequence: int | None = None
    chunks_before: int | None = None
    size: int | None = None
    key: bytes | None = None
    sync: bytes = SYNC
    header_crc_flip: int = 0
    payload_crc_flip: int = 0


class File:
    """Puts a file together; knows where its records and fields are.

    Args:
        version: Major and minor version.
        edits: What is wrong, by the name of the record ("header", "chunk0", "packets0", "index", "end").
        header: What differs from DEFAULT_HEADER.
    """

    def __init__(
        self, *, version: tuple[int, int] = (1, 0), edits: Mapping[str, Edit] | None = None, **header: Any
    ) -> None:
        self.changes = header
        self.header = DEFAULT_HEADER | header
        self.edits = edits or {}
        body = MAGIC + bytes([*version, 0, 0])
        self.data = bytearray(body + u32(crc32(body)))
        self.at: dict[str, int] = {}
        self.records: dict[str, tuple[int, int]] = {}
        self.chunks: list[Chunk] = []
        self.packets: list[dict[str, Any]] = []
        self.extensions: list[dict[str, Any]] = []
        self.order: list[str] = []
        self._entries: list[tuple[int, int, int]] = []
        self._sequence = self._chunk_records = self._frames = 0
        self._key = b""
        self.add("header", HEADER, header_fields(self.header))
        stop = self.records["header"][1]
        self._key = bytes(self.data[stop - 4 : stop])

    def add(self, name: str, kind: int, fields: Fields, *, critical: bool | None = None) -> None:
        """Append a record."""
        edit = self.edits.get(name, Edit())
        kind = kind if edit.kind is None else edit.kind
        start = len(self.data)
        payload = b""
        unused = set(edit.raw)
        for field_name, value in fields:
            self.at[f"{name}.{field_name}"] = start + RECORD_HEADER_BYTES + len(payload)
            payload += edit.raw.get(field_name, value)
            unused.discard(field_name)
        if unused:
            raise ValueError(f"{name} has no field {unused}")
        must = kind in CRITICAL if critical is None else critical
        head = (
            edit.sync
            + bytes([kind, int(must) if edit.flags is None else edit.flags])
            + edit.reserved
            + u32(self._sequence if edit.sequence is None else edit.sequence)
            + u32(self._chunk_records if edit.chunks_before is None else edit.chunks_before)
            + u32(len(payload) if edit.size is None else edit.size)
        )
        crc = crc32(head + (self._key if edit.key is None else edit.key)) ^ edit.header_crc_flip
        self.data += head + u32(crc) + payload + u32(crc32(payload) ^ edit.payload_crc_flip)
        self.records[name] = (start, len(self.data))
        self._sequence += 1
        self._chunk_records += kind == CHUNK

    def add_chunk(
        self,
        *,
        frames: int = 5,
        pts: Sequence[int] | None = None,
        duration: int = 1,
        levels: object = 2,
        seed: int | None = None,
        still: bool = False,
        motion: Sequence[str] = (),
        step_frames: tuple[int, ...] = (),
        picture: Picture | None = None,
        step_residuals: Sequence[Picture | None] = (),
        tokens: TokenChunk | None = None,
        token_data: bytes | None = None,
    ) -> None:
        """Append a chunk of formula-made tokens; regular timestamps follow those of the chunk before."""
        number = len(self.chunks)
        if pts is None:
            first = self.chunks[-1].pts[-1] + self.chunks[-1].duration if self.chunks else 0
            pts = [first + i * duration for i in range(frames)]
        if tokens is None:
            seed = 100 * (number + 1) if seed is None else seed
            options = {"still": still, "motion": motion, "step_frames": step_frames, "picture": picture}
            options["step_residuals"] = step_residuals
            tokens = make_tokens(self.header, len(pts), levels=levels, seed=seed, **options)  # type: ignore[arg-type]
        chunk = Chunk(
            pts=list(pts),
            duration=duration,
            tokens=tokens,
            token_data=bits.encode_tokens(tokens) if token_data is None else token_data,
            tokens_crc=crc32(token_bytes(tokens)),
            step_frames=step_frames,
        )
        self._entries.append((len(self.data), chunk.pts[0], len(chunk.pts)))
        self._frames += len(chunk.pts)
        self.add(f"chunk{number}", CHUNK, chunk_fields(chunk))
        self.chunks.append(chunk)
        self.order.append("chunk")

    def add_packets(self, *packets: dict[str, Any]) -> None:
        """Append a packets record."""
        self.add(f"packets{self.order.count('packets')}", PACKETS, packets_fields(packets))
        self.packets += packets
        self.order.append("packets")

    def add_extension(self, kind: int, data: bytes = b"", *, critical: bool = False, given: bool = True) -> None:
        """Append an extension record, which a reader gives or (where `given` is not set) passes over."""
        self.add(f"extension{len(self.extensions)}", kind, [("data", data)], critical=critical)
        self.extensions.append({"type": kind, "critical": critical, "data": data.hex()})
        if given:
            self.order.append("extension")

    def add_index(self, name: str = "index") -> None:
        """Append the index."""
        fields: Fields = [
            ("total_frames", u64(self._frames)),
            ("total_chunks", u32(self._chunk_records)),
            ("reserved", bytes(4)),
        ]
        for number, (offset, first, frames) in enumerate(self._entries):
            fields += [
                (f"{number}.offset", u64(offset)),
                (f"{number}.first_pts", i64(first)),
                (f"{number}.frame_count", u32(frames)),
            ]
        self.add(name, INDEX, [*fields, ("rest", b"")])

    def add_end(self) -> None:
        """Append the end."""
        index = self.records["index"][0] if "index" in self.records else 0
        self.add("end", END, [("index_offset", u64(index)), ("rest", b"")])

    def close(self) -> File:
        """Append index and end."""
        self.add_index()
        self.add_end()
        return self


def two_chunks(*, edits: Mapping[str, Edit] | None = None, closed: bool = True, **header: Any) -> File:
    """A file of two chunks of five frames."""
    made = File(edits=edits, **header)
    made.add_chunk()
    made.add_chunk()
    return made.close() if closed else made


# --- vectors ---


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A file and what the manifest says of it."""

    path: str
    data: bytes
    entry: dict[str, Any]
    pixels: NDArray[np.uint8] | None = None


class Collection:
    """The vectors, in the order of the manifest."""

    def __init__(self) -> None:
        self.vectors: list[Vector] = []

    def good(self, name: str, shows: str, made: File, *, pixels: NDArray[np.uint8] | None = None) -> None:
        entry = self._whole("good", name, shows, made)
        if pixels is not None:
            entry["pixels"] = {"file": f"good/{name}.npy", "rms_at_most": PIXEL_RMS}
        self._add(entry, made.data, pixels)

    def grease(self, name: str, shows: str, ignored: str, made: File) -> None:
        self._add(self._whole("grease", name, shows, made) | {"ignored": ignored}, made.data)

    def bad(
        self,
        name: str,
        shows: str,
        kind: str,
        made: File,
        *,
        at: int | str,
        within: tuple[int, int] | str | None = None,
        stage: str = "parse",
        good: Iterable[int] = (),
        data: bytes | None = None,
        damage: list[dict[str, Any]] | None = None,
        **extra: Any,
    ) -> None:
        """A file that breaks a rule.

        Args:
            name: Of the file.
            shows: The fact.
            kind: Error kind of the spec (section 1.2).
            made: The file.
            at: Byte offset of what is wrong, or the name of the field.
            within: The record (or its name) in which a reader may notice it.
            stage: "parse", "tokens" or "pixels": what has to be tried for the error to show.
            good: Numbers of the chunks that are given before the error, or in spite of it.
            data: The bytes, where not those of `made`.
            damage: For D, what is reported.
            extra: Further entries of the manifest.
        """
        if isinstance(at, str):
            within = at.partition(".")[0] if within is None else within
            at = made.at[at]
        if isinstance(within, str):
            within = made.records[within]
        entry = {
            "file": f"bad/{name}.tok",
            "shows": shows,
            "error": kind,
            "exception": EXCEPTIONS[kind],
            "stage": stage,
            "offset": at,
            "within": list(within or (at, at)),
            "chunks": [made.chunks[number].expected(number) for number in good],
        }
        if damage is not None:
            entry["damage"] = damage
        self._add(entry | extra, made.data if data is None else data)

    def _whole(self, folder: str, name: str, shows: str, made: File) -> dict[str, Any]:
        chunks = [chunk.expected(number) for number, chunk in enumerate(made.chunks)]
        return {
            "file": f"{folder}/{name}.tok",
            "shows": shows,
            "header": made.changes,
            "frames": sum(chunk["frames"] for chunk in chunks),
            "records": made.order,
            "chunks": chunks,
            "packets": made.packets,
            "extensions": made.extensions,
        }

    def _add(self, entry: dict[str, Any], data: bytes, pixels: NDArray[np.uint8] | None = None) -> None:
        self.vectors.append(Vector(path=entry["file"], data=bytes(data), entry=entry, pixels=pixels))


def lost(
    offset: int, length: int, missing: tuple[int, int] | None = None, *, to_the_end: bool = False
) -> dict[str, Any]:
    """What a reader reports of a stretch of damage (spec section 9.2)."""
    return {"offset": offset, "length": length, "missing_chunks": missing, "to_the_end": to_the_end}


# --- good ---

AUDIO = {
    "index": 1,
    "kind": 1,
    "time_base": (1, 48000),
    "codec": "opus",
    "language": "cy",
    "template": b"head".hex(),
}
SUBTITLE = {
    "index": 7,
    "kind": 2,
    "time_base": (1, 1000),
    "codec": "",
    "language": "",
    "template": "",
}


def one_chunk(**options: Any) -> File:
    """A file of one chunk; options of :meth:`File.add_chunk`, the rest are header fields."""
    names = (
        "frames",
        "pts",
        "duration",
        "levels",
        "seed",
        "still",
        "motion",
        "step_frames",
        "picture",
        "step_residuals",
    )
    made = File(**{key: value for key, value in options.items() if key not in names})
    made.add_chunk(**{key: value for key, value in options.items() if key in names})
    return made.close()


def sides(width: int, height: int) -> dict[str, int]:
    return {"width": width, "height": height}


def add_good(to: Collection) -> None:
    image = {"still_image": True, "max_chunk_frames": 1}
    to.good("still_image", "a picture: one frame, one step, the flag", one_chunk(frames=1, levels=6, **image))
    to.good("one_frame", "a video of one frame", one_chunk(frames=1))
    to.good("two_frames", "two frames: the second step stands for one frame of four", one_chunk(frames=2))
    to.good("five_frames", "five frames: both steps are full", one_chunk(frames=5))
    made = File()
    made.add_chunk(frames=65)
    made.add_chunk(frames=1)
    to.good("two_chunks", "66 frames: a chunk of 65, and one of the frame that is left", made.close())
    to.good("odd_size", "13 x 9 pixels: neither side is a multiple of 8", one_chunk(**sides(13, 9)))
    to.good("smallest_picture", "2 x 2 pixels, one token a step", one_chunk(**sides(2, 2), levels=6))
    to.good("one_pixel", "1 x 1 pixel", one_chunk(**sides(1, 1), levels=6))
    to.good("wide_picture", "16384 x 1 pixels, all that a side may have", one_chunk(**sides(16384, 1), levels=1))
    to.good(
        "variable_timestamps",
        "a listed timing: no two frames are equally long",
        one_chunk(pts=[0, 3, 4, 1000, 1130], duration=7, time_base=(1, 1000), frame_rate=(0, 0)),
    )
    to.good(
        "last_frame_longer",
        "a listed timing where only the last frame differs",
        one_chunk(duration=9, pts=range(5)),
    )
    to.good("negative_timestamps", "the first timestamp is below zero", one_chunk(pts=range(-3, 2)))
    to.good(
        "largest_timestamps",
        "timestamps and durations at both ends of their range",
        one_chunk(pts=[-MAX_TICKS, MAX_TICKS], duration=MAX_TICKS),
    )
    made = File()
    made.add_chunk(pts=range(5))
    made.add_chunk(pts=range(500, 505))
    to.good("pause_between_chunks", "a chunk may begin later than the one before ends", made.close())
    made = File()
    made.add_chunk(pts=range(0, 50, 10), duration=10)
    made.add_chunk(pts=range(45, 95, 10), duration=10)
    to.good("last_frame_cut_short", "a chunk may begin while the last frame would be shown", made.close())
    for level in range(1, 7):
        to.good(f"quality_{level}", f"every block keeps {3 * level} bits", one_chunk(levels=level))
    grid = (noise(5, (3, 2, 3)) % np.uint64(7)).astype(np.uint8)
    to.good(
        "level_map",
        "a map of mixed levels, some of them 0; blocks are cut at the right and at the bottom",
        one_chunk(**sides(88, 56), frames=9, levels=grid),
    )
    grid = np.array([6, 0, 0]).reshape(3, 1, 1)
    to.good("nothing_after_the_first_step", "steps whose blocks all keep 0 bits", one_chunk(frames=9, levels=grid))
    to.good("nothing_at_all", "no block keeps a bit", one_chunk(levels=0))
    grid = np.array([[2, 2], [2, 5], [5, 5], [5, 5], [0, 6], [0, 6], [3, 3]], np.uint8).reshape(7, 1, 2)
    to.good(
        "modes_change",
        "uniform and explicit maps follow each other in every order",
        one_chunk(**sides(64, 8), frames=25, levels=grid),
    )
    to.good(
        "bits_that_come_back",
        "a block keeps 3, 0, 18 and 9 bits in turn, so that contexts are absent",
        one_chunk(frames=13, levels=np.array([1, 0, 6, 3]).reshape(4, 1, 1)),
    )
    to.good("one_bit", "K = 1 with two levels", one_chunk(bits_per_token=1, level_bits=(0, 1), levels=1))
    to.good("forty_bits", "K = 40", one_chunk(bits_per_token=40, level_bits=(0, 10, 40), levels=2))
    to.good("most_bits", "K = 64", one_chunk(bits_per_token=64, level_bits=(0, 63, 64), levels=2, frames=1))
    table = (0, *range(1, 15), 18)
    to.good(
        "most_levels",
        "16 levels, all of them in one map",
        one_chunk(**sides(64, 64), block_tokens=2, level_bits=table, levels=np.arange(16).reshape(1, 4, 4), frames=1),
    )
    for side in (1, 2, 64):
        levels = np.arange(8)[None, :, None] % 5 if side == 1 else 3
        to.good(
            f"blocks_of_{side}",
            f"blocks of {side} x {side} tokens",
            one_chunk(**sides(40, 64), block_tokens=side, levels=levels),
        )
    to.good("spatial_factor_16", "tokens of 16 x 16 pixels", one_chunk(**sides(50, 33), spatial_factor=16))
    to.good("temporal_factor_1", "a step for each frame", one_chunk(temporal_factor=1))
    to.good("temporal_factor_64", "steps of 64 frames", one_chunk(temporal_factor=64, frames=65))
    to.good(
        "counts_are_halved",
        "so many equal contexts that counts pass 16384 and are scaled down",
        one_chunk(**sides(256, 256), frames=17, levels=1, still=True),
    )
    made, seed = None, 0
    while made is None or not made.chunks[0].token_data.endswith(bytes(4)):
        seed += 1
        made = one_chunk(seed=seed)
    to.good("two_words_at_the_end", "a range coder that has to end with two words, the last of them 0", made)
    made = File(side_streams=(AUDIO, SUBTITLE))
    made.add_chunk()
    made.add_packets(
        packet(1, b"first", keyframe=True, pts=-312, dts=-312, duration=960),
        packet(7, b"words", keyframe=True, pts=100, duration=1500),
        packet(1, b"", keyframe=True, pts=648, dts=640, duration=960),
    )
    made.add_chunk()
    made.add_packets(packet(1, b"third", pts=1608, dts=1600, duration=960))
    to.good("side_streams", "packets of two side streams; timestamps start afresh in each record", made.close())
    made = File(side_streams=(AUDIO,))
    made.add_packets(packet(1, b"before"), packet(1, b"dts", dts=5), packet(1, b"pts", pts=5, dts=-MAX_TICKS))
    made.add_chunk()
    to.good("packets_without_times", "packets may lack timestamps, and come before the first chunk", made.close())
    colour = {"primaries": 9, "transfer": 16, "matrix": 9, "full_range": True}
    to.good("colour", "BT.2020 primaries, PQ, full range", one_chunk(**colour))
    to.good("pixel_shape", "pixels that are 64 : 45", one_chunk(sample_aspect_ratio=(64, 45)))
    to.good("no_frame_rate", "an unknown frame rate", one_chunk(frame_rate=(0, 0)))
    largest = (1 << 31) - 1
    to.good(
        "largest_ratio",
        "terms of 2^31 - 1",
        one_chunk(frame_rate=(largest, largest - 1), time_base=(1, largest)),
    )
    to.good("longest_name", "a tokenizer's name of 64 bytes, not all ASCII", one_chunk(tokenizer_name="é" * 32))
    to.good("longest_chunk", "the largest max_chunk_frames", one_chunk(max_chunk_frames=65536))
    tables = {"tokenizer_digest": hashlib.sha256(b"weights that nobody has").hexdigest()}
    to.good("other_weights", "weights that a token decoder does not need", one_chunk(**tables))
    grid = np.array([[[1, 6]], [[0, 4]], [[6, 6]]])
    for name, shows, options in [
        ("pixels_still", "a picture to the pixel", {"frames": 1, "levels": 6, **image, **sides(24, 16)}),
        (
            "pixels_video",
            "a video to the pixel: padding and surplus frames are dropped, a block keeps nothing for a while",
            {"frames": 7, "levels": grid, **sides(37, 9)},
        ),
    ]:
        made = one_chunk(**options)
        to.good(name, shows, made, pixels=decode_pixels(made))


MOTION_MODEL = {
    "motion_maps": True,
    "tokenizer_digest": tiny_model.MOTION_SHA256,
    "tokenizer_name": tiny_model.MOTION_NAME,
}


def add_motion(to: Collection) -> None:
    def motion(name: str, shows: str, *maps: str, **options: Any) -> None:
        frames = 1 + options.get("temporal_factor", 4) * len(maps)
        made = one_chunk(frames=frames, motion=maps, **{"levels": 0, **MOTION_MODEL, **options})
        to.good(f"motion_{name}", shows, made)

    motion("one_token", "a motion map of one block, of one token", "random", "random", "none", **sides(2, 2))
    motion("one_row", "motion maps of 1 x 8 blocks, cut at the right", "random", "smooth", **sides(120, 5))
    motion("one_column", "motion maps of 9 x 1 blocks", "random", "slow", **sides(16, 130))
    motion("cut_blocks", "3 x 5 tokens: motion blocks are cut", "random", "slow", levels=3, **sides(40, 24))
    motion("extreme", "vectors at both ends of their range", "extreme", "extreme", **sides(72, 72))
    motion("random", "vectors of all lengths", "random", "sparse", **sides(128, 144))
    motion("large_smooth", "23 x 40 motion blocks that zoom", "smooth", "smooth", "smooth", **sides(640, 368))
    motion("large_random", "23 x 40 motion blocks of slow noise", "slow", "sparse", **sides(634, 361))
    maps = ("none", "slow", "none", "none", "slow", "smooth", "none", "smooth")
    motion("rests", "steps that move and steps that do not, in every order", *maps, **sides(100, 60))
    motion("nothing", "motion maps of which none moves", "none", "none", levels=2)
    grid = (noise(6, (3, 2, 3)) % np.uint64(7)).astype(np.uint8)
    motion("levels", "motion maps between maps of levels and tokens", "slow", "sparse", levels=grid, **sides(88, 56))
    motion("temporal_factor_1", "a motion map for each frame", "slow", "slow", "smooth", levels=1, temporal_factor=1)
    options = {"spatial_factor": 16, "block_tokens": 3}
    motion("other_factors", "motion blocks are of tokens, not of pixels", "smooth", "slow", **options, **sides(90, 70))
    motion("still_image", "a picture in a file with motion maps", still_image=True, max_chunk_frames=1, levels=3)
    made = File(**MOTION_MODEL)
    made.add_chunk(motion=("slow",))
    made.add_chunk(motion=("slow",))
    to.good("motion_two_chunks", "each chunk begins without motion", made.close())
    made = one_chunk(
        frames=10,
        motion=("slow", "sparse", "extreme"),
        levels=np.array([[[1, 6]], [[0, 4]], [[6, 6]], [[2, 0]]]),
        **MOTION_MODEL,
        **sides(51, 25),
    )
    to.good("pixels_motion", "motion maps to the pixel", made, pixels=decode_pixels(made))
    add_seven_maps(to)


HYBRID_MODEL = {
    "motion_maps": MOTION_MAPS,
    "bits_per_token": 36,
    "level_bits": (0, 6, 12, 18, 24, 30, 36),
    "tokenizer_digest": tiny_model.HYBRID_SHA256,
    "tokenizer_name": tiny_model.HYBRID_NAME,
}


def add_seven_maps(to: Collection) -> None:
    def seven(name: str, shows: str, *maps: str, **options: Any) -> None:
        made = one_chunk(frames=1 + 4 * len(maps), motion=maps, **{"levels": 0, **HYBRID_MODEL, **options})
        to.good(f"seven_maps_{name}", shows, made)

    random, extreme = ("/".join([kind] * MOTION_MAPS) for kind in ("random", "extreme"))
    seven("one_block", "seven maps of one block", random, "none/none/random/even/slow", **sides(16, 16))
    seven("even", "frames that move evenly: one map is told, and of six nothing", "smooth", "slow", **sides(130, 72))
    maps = ("smooth/sparse/random/slow/extreme/slow/random", "extreme/slow/even/sparse/even/random")
    seven("odd", "frames that move otherwise", *maps, **sides(100, 72))
    shows = "frames that stand still where motion is expected: maps of zeros, which are told"
    seven("zeros", shows, "smooth/none/none/none/none/none/none", "slow/slow/even/none/even/none", **sides(72, 50))
    seven("extreme", "predictions beyond what vectors can be", extreme, extreme, **sides(72, 72))
    # Maps 4 and 6 are expected to be what two others differ by, up to 1022, but for the range of vectors.
    maps = ("extreme/extreme/extreme/extreme/even/extreme/even", "extreme/extreme/extreme/extreme/sparse/extreme/slow")
    seven("beyond", "maps that are expected beyond what vectors can be", *maps, **sides(72, 72))
    maps = ("none/slow", "slow/even/slow/none/even/sparse", "slow", "none", "none/even/even/slow/slow", "none", "slow")
    seven("rests", "maps that are as expected and maps that are not, in every order", *maps)
    seven("levels", "seven maps between maps of levels and tokens", "slow/even/sparse/slow", levels=3, **sides(51, 25))
    seven("still_image", "a picture in a file with seven maps", still_image=True, max_chunk_frames=1, levels=3)
    made = File(**HYBRID_MODEL)
    made.add_chunk(motion=("slow/sparse/even/slow",))
    made.add_chunk(motion=("slow/sparse/even/slow",))
    to.good("seven_maps_two_chunks", "what was learned of each kind of map is forgotten", made.close())
    made = one_chunk(
        frames=6,
        motion=("slow/even/sparse/slow/even/extreme/slow", "sparse"),
        levels=np.array([[[6, 6]], [[4, 0]], [[0, 2]]]),
        **HYBRID_MODEL,
        **sides(35, 19),
    )
    to.good("pixels_hybrid", "cosines and frames between to the pixel", made, pixels=decode_pixels(made))
    add_listed_steps(to)


def add_listed_steps(to: Collection) -> None:
    def listed(name: str, shows: str, *step_frames: int, frames: int | None = None, **options: Any) -> None:
        maps = ["slow/sparse", "smooth", "none", "slow/even/sparse", "slow"]
        motion = [maps[step % len(maps)] for step in range(len(step_frames))]
        count = 1 + sum(step_frames) if frames is None else frames
        made = one_chunk(
            frames=count, motion=motion, step_frames=step_frames, **{"levels": 0, **HYBRID_MODEL, **options}
        )
        to.good(f"steps_{name}", shows, made)

    listed("mixed", "steps of four frames, of two and of one, more than a byte of their list holds", 4, 2, 1, 1, 2, 4)
    listed("single", "a step for each frame, in four bytes of the list", *[1] * 14, levels=2)
    listed("one", "a chunk of two frames whose second step shows one", 1)
    listed("two_of_four", "the last step shows two frames, of which one is beyond the chunk", 1, 2, frames=3)
    listed("cut", "the last step shows four frames, of which one is left", 2, 4, frames=4)
    listed("as_many_as_usual", "a list of as many steps as the chunk would have without it", 4, 2)
    listed("many", "64 steps of one frame", *[1] * 64)
    made = File(**HYBRID_MODEL)
    made.add_chunk(frames=4, motion=("slow", "slow"), step_frames=(2, 1), pts=[0, 1, 3, 9], duration=2)
    made.add_chunk(pts=range(20, 25), motion=("slow",))
    to.good("steps_two_chunks", "a list behind listed timestamps, and a chunk without any", made.close())
    made = one_chunk(
        frames=7,
        motion=("slow/even/sparse/slow/even/extreme/slow", "slow/sparse", "sparse"),
        step_frames=(2, 1, 4),
        levels=np.array([[[6, 6]], [[4, 0]], [[0, 2]], [[3, 0]]]),
        **HYBRID_MODEL,
        **sides(35, 19),
    )
    to.good("pixels_steps", "steps of two frames, of one and of four to the pixel", made, pixels=decode_pixels(made))


def decode_pixels(made: File) -> NDArray[np.uint8]:
    """Frames of the first chunk by the tiny model in float32: uint8 `(T, H, W, 3)`."""
    import torch

    from tokcodec.tokenizer.device import prepare
    from tokcodec.tokenizer.stream import StreamDecoder
    from tokcodec.weights.registry import entry_of_file, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "motion": made.header["motion_maps"],
            **{name: made.header[name] for name in ("pictures", "residuals")},
            "blocks": made.header["picture_blocks"],
            "plain": made.header["tokenizer_digest"] == tiny_model.PLAIN_SHA256,
        }
        weights = tiny_model.write_weights(Path(folder), **kinds)
        model = load_tokenizer(entry_of_file(weights))
    prepare(model, torch.device("cpu"), torch.float32)
    decoder = StreamDecoder(model, height=made.header["height"], width=made.header["width"])
    chunk = made.chunks[0]
    steps = zip(chunk.tokens.indices, chunk.tokens.kept_bits(), chunk.tokens.vectors, strict=True)
    shown = [None, *chunk.step_frames] if chunk.step_frames else [None] * len(chunk.tokens.indices)
    frames = [decoder.step(*next(steps), frames=shown[0], picture=chunk.tokens.picture)]
    residuals = chunk.tokens.residuals or [None] * (len(shown) - 1)
    parts = zip(steps, shown[1:], residuals, strict=True)
    frames += [decoder.step(*step, frames=count, residual=residual) for step, count, residual in parts]
    return np.concatenate(frames)[: len(chunk.pts)]


# --- grease ---


def add_grease(to: Collection) -> None:
    made = File(version=(1, 7))
    made.add_chunk()
    to.grease("later_minor_version", "version 1.7", "the minor version", made.close())
    made = File()
    made.add_extension(0x9A, b"\x00grease")
    made.add_chunk()
    made.add_extension(0xBA, SYNC + b"\x02")
    made.add_extension(0xDA)
    made.add_chunk()
    made.add_extension(0xFA, bytes(range(64)))
    to.grease("private_records", "private records in every place", "the extension records", made.close())
    made = File()
    made.add_chunk()
    made.add_extension(0x40, b"registered")
    to.grease("registered_record", "a record of the registered range", "the extension record", made.close())
    made = File()
    made.add_chunk()
    made.add_extension(0x06, b"later", given=False)
    made.add_extension(0x3F, b"later", given=False)
    to.grease("later_records", "records of types that a later minor version may have", "both", made.close())
    extensions = (
        {"type": 0x9A, "critical": False, "data": b"grease".hex()},
        {"type": 0x40, "critical": False, "data": ""},
        {"type": 0x9A, "critical": False, "data": b"twice".hex()},
    )
    to.grease("header_extensions", "header extensions", "the extensions", one_chunk(extensions=extensions))
    extensions = ({"type": 0x20, "critical": False, "data": b"later".hex()},)
    to.grease(
        "later_header_extension",
        "a header extension of a type that a later minor version may have",
        "the extension",
        one_chunk(extensions=extensions),
    )
    made = File(side_streams=(AUDIO | {"kind": 200, "codec": "smell/vanilla"},))
    made.add_chunk()
    made.add_packets(packet(1, b"violets"))
    to.grease("later_kind", "a side stream of an unknown kind", "the side stream", made.close())
    colour = {"primaries": 255, "transfer": 200, "matrix": 100}
    to.grease("unknown_colour", "colour code points that nobody has", "they stand for 2", one_chunk(**colour))


# --- bad ---


def add_bad_signatures(to: Collection) -> None:
    made = two_chunks()
    data = bytes(made.data)
    to.bad("empty", "no bytes at all", "C", made, at=0, data=b"")
    to.bad("magic_wrong", "another kind of file", "C", made, at=0, data=b"\x89PNG" + data[4:], within=(0, 8))
    to.bad(
        "line_ends_mangled",
        "sent as text: CR LF became LF",
        "C",
        made,
        at=4,
        within=(0, 8),
        data=data.replace(b"\r\n", b"\n"),
    )
    to.bad("cut_in_magic", "five bytes", "C", made, at=5, within=(0, 5), data=data[:5])
    to.bad("cut_in_signature", "twelve bytes", "C", made, at=12, within=(0, 12), data=data[:12])
    crc = data[:12] + u32(int.from_bytes(data[12:16], "little") ^ 1) + data[16:]
    to.bad("signature_crc", "the CRC of the signature", "C", made, at=12, within=(0, 16), data=crc)
    later = bytearray(File(version=(2, 0)).data)
    to.bad("future_version", "major version 2", "U", made, at=8, within=(0, 16), data=later + data[len(later) :])
    later[12] ^= 1
    to.bad(
        "future_version_damaged",
        "major version 2, but the CRC is wrong: it may be a damaged version 1",
        "C",
        made,
        at=12,
        within=(0, 16),
        data=bytes(later),
    )
    body = MAGIC + bytes([1, 0, 0, 1])
    to.bad(
        "signature_reserved",
        "a reserved byte of the signature is not 0",
        "C",
        made,
        at=11,
        within=(0, 16),
        data=body + u32(crc32(body)) + data[16:],
    )
    to.bad("cut_before_header", "nothing but a signature", "C", made, at=16, data=data[:16])
    to.bad("cut_in_header", "half a header", "C", made, at=80, within=(16, 80), data=data[:80])


def add_bad_records(to: Collection) -> None:
    def record(name: str, shows: str, where: str, edit: Edit, *, kind: str = "C", offset: int = 0, **more: Any) -> None:
        made = File(edits={where: edit}, side_streams=(AUDIO,))
        made.add_chunk()
        made.add_packets(packet(1, b"sound", pts=0))
        made.add_chunk()
        made.close()
        good = {"header": (), "chunk0": (), "packets0": (0,), "chunk1": (0,)}.get(where, (0, 1))
        start = made.records[where][0]
        to.bad(name, shows, kind, made, at=start + offset, within=where, good=good, **more)

    record("header_sync", "the header has no sync marker", "header", Edit(sync=b"SYNC"))
    record(
        "header_header_crc",
        "the record header of the header is damaged",
        "header",
        Edit(header_crc_flip=1),
        offset=20,
    )
    record(
        "header_payload_crc",
        "the payload of the header is damaged",
        "header",
        Edit(payload_crc_flip=1),
        offset=24,
    )
    record("header_sequence", "the header is not record 0", "header", Edit(sequence=1), offset=8)
    record("header_chunks_before", "chunks before the header", "header", Edit(chunks_before=1), offset=12)
    record("header_not_critical", "a header that may be ignored", "header", Edit(flags=0), offset=5)
    record(
        "header_absurd_size",
        "a header of more than 2^26 bytes",
        "header",
        Edit(size=(1 << 26) + 1),
        offset=16,
    )
    record("first_record_not_header", "a chunk where the header has to be", "header", Edit(kind=CHUNK), offset=4)
    record("type_zero", "record type 0", "chunk0", Edit(kind=0, flags=1), offset=4)
    record("record_flags", "an undefined flag of a record", "chunk1", Edit(flags=3), offset=5)
    record("record_reserved", "a reserved byte of a record is not 0", "chunk1", Edit(reserved=b"\0\1"), offset=6)
    record("absurd_size", "a payload of more than 2^28 bytes", "chunk1", Edit(size=(1 << 28) + 1), offset=16)
    record("chunk_not_critical", "a chunk that may be ignored", "chunk1", Edit(flags=0), offset=5)
    record("packets_critical", "packets that may not be ignored", "packets0", Edit(flags=1), offset=5)
    record("index_critical", "an index that may not be ignored", "index", Edit(flags=1), offset=5)
    record("end_not_critical", "an end that may be ignored", "end", Edit(flags=0), offset=5)
    record(
        "unknown_critical_record",
        "a critical private record",
        "packets0",
        Edit(kind=0x9A, flags=1),
        kind="U",
        offset=4,
    )
    record(
        "later_critical_record",
        "a critical record of a later version",
        "packets0",
        Edit(kind=6, flags=1),
        kind="U",
        offset=4,
    )
    record("second_header", "a header in the middle", "packets0", Edit(kind=HEADER, flags=1), offset=4)
    record("sequence_back", "a record number that was there before", "chunk1", Edit(sequence=2), offset=8)
    record("chunk_number_repeat", "two chunks of one number", "chunk1", Edit(chunks_before=0), offset=12)
    record(
        "chunk_number_gap",
        "a chunk number is skipped, but no record is",
        "chunk1",
        Edit(chunks_before=2),
        offset=12,
    )
    record(
        "absurd_size_within_ceiling",
        "a payload of 2^28 bytes in a small file: L where a reader sets limits, else damage",
        "chunk1",
        Edit(size=1 << 28),
        kind="L",
        offset=16,
        without_limits="D",
    )


def add_bad_order(to: Collection) -> None:
    # A record that breaks two rules: which one is reported (spec section 1.2).
    made = two_chunks(edits={"chunk1": Edit(flags=3, payload_crc_flip=1)})
    shows = "flags are wrong and the payload is damaged: the flags come first"
    to.bad(
        "flags_before_payload_crc",
        shows,
        "C",
        made,
        at=made.records["chunk1"][0] + 5,
        within="chunk1",
        good=(0,),
    )
    for name, shows, edit in [
        (
            "payload_crc_before_critical_type",
            "an unknown critical record that is damaged: it is damage",
            Edit(kind=0x9A, flags=1, payload_crc_flip=1),
        ),
        (
            "second_header_without_key",
            "a header in the middle that does not belong to the file: it is damage",
            Edit(kind=HEADER, flags=1, key=b""),
        ),
    ]:
        made = File(edits={"extension0": edit})
        made.add_chunk()
        made.add_extension(0x9A, b"extension")
        made.add_chunk()
        start, stop = made.records["extension0"]
        damage = [lost(start, stop - start)]
        to.bad(name, shows, "D", made.close(), at=start, good=(0, 1), damage=damage)
    extensions = ({"type": 0x9A, "critical": True, "data": ""},)
    made = File(edits={"header": Edit(raw={"rest": b"more"})}, extensions=extensions)
    shows = "a critical header extension, and bytes left over behind it: fields come in their order"
    to.bad("extension_before_rest", shows, "U", made, at="header.extension0.flags")
    made = File()
    made.close()
    to.bad("no_chunks", "a file without a chunk", "C", made, at="index.total_chunks")
    made = two_chunks(closed=False)
    made.add_end()
    to.bad(
        "end_without_index",
        "an end where the index has to be",
        "C",
        made,
        at=made.records["end"][0],
        within="end",
        good=(0, 1),
    )
    for name, shows, add in [
        ("chunk_after_index", "a chunk between index and end", lambda made: made.add_chunk()),
        (
            "extension_after_index",
            "an extension between index and end",
            lambda made: made.add_extension(0x9A),
        ),
        ("second_index", "two indices", lambda made: made.add_index("again")),
    ]:
        made = two_chunks(closed=False)
        made.add_index()
        start = len(made.data)
        add(made)
        made.add_end()
        end = made.records["end"][0]
        to.bad(name, shows, "C", made, at=start, within=(start, end), good=(0, 1))


HEADER_FAULTS: list[tuple[str, str, str, bytes]] = [
    ("width_zero", "width 0", "width", u16(0)),
    ("width_absurd", "width 16385", "width", u16(16385)),
    ("height_zero", "height 0", "height", u16(0)),
    ("height_absurd", "height 65535", "height", u16(65535)),
    ("time_base_unknown", "no time base", "time_base", ratio(0, 0)),
    ("time_base_zero", "a time base of 0", "time_base", ratio(0, 25)),
    ("time_base_infinite", "a time base of 1/0", "time_base", ratio(1, 0)),
    ("time_base_not_lowest", "a time base of 2/50", "time_base", ratio(2, 50)),
    ("time_base_absurd", "a term of 2^31", "time_base", ratio(1, 1 << 31)),
    ("frame_rate_zero", "a frame rate of 0/1", "frame_rate", ratio(0, 1)),
    ("frame_rate_not_lowest", "a frame rate of 50/2", "frame_rate", ratio(50, 2)),
    ("pixel_shape_zero", "pixels of 1 : 0", "sample_aspect_ratio", ratio(1, 0)),
    ("header_flags", "first pictures by coefficients without motion maps", "flags", u8(8)),
    ("header_flags_undefined", "residuals without motion maps", "flags", u8(16)),
    ("header_flags_unknown", "first pictures by blocks without motion maps", "flags", u8(32)),
    ("header_flags_64", "a network for motion without motion maps", "flags", u8(64)),
    ("header_flags_128", "a second reference without motion maps", "flags", u8(128)),
    ("header_network_of_one_map", "a network for motion with one motion map", "flags", u8(66)),
    ("header_blocks_without_pictures", "first pictures by blocks, and not by coefficients", "flags", u8(38)),
    ("header_residuals_without_pictures", "residuals without first pictures by coefficients", "flags", u8(22)),
    ("header_pictures_of_one_map", "first pictures by coefficients with one motion map", "flags", u8(10)),
    ("header_seven_maps_of_none", "seven motion maps, and no motion maps", "flags", u8(4)),
    ("full_range_two", "a truth value of 2", "full_range", u8(2)),
    ("no_bits", "K = 0", "bits_per_token", u8(0)),
    ("too_many_bits", "K = 65", "bits_per_token", u8(65)),
    ("spatial_factor_zero", "tokens of no pixels", "spatial_factor", u8(0)),
    ("spatial_factor_absurd", "a spatial factor of 65", "spatial_factor", u8(65)),
    ("temporal_factor_zero", "steps of no frames", "temporal_factor", u8(0)),
    ("temporal_factor_absurd", "a temporal factor of 65", "temporal_factor", u8(65)),
    ("block_zero", "blocks of no tokens", "block_tokens", u8(0)),
    ("block_absurd", "blocks of 65 x 65 tokens", "block_tokens", u8(65)),
    (
        "level_table_starts_above_0",
        "the first level keeps a bit",
        "level_bits",
        bytes([1, 3, 6, 9, 12, 15, 18]),
    ),
    (
        "level_table_ends_below_k",
        "the last level keeps 17 bits of 18",
        "level_bits",
        bytes([0, 3, 6, 9, 12, 15, 17]),
    ),
    ("level_table_not_rising", "two levels keep 9 bits", "level_bits", bytes([0, 3, 9, 9, 12, 15, 18])),
    ("level_table_beyond_k", "a level keeps 19 bits of 18", "level_bits", bytes([0, 3, 6, 9, 12, 19, 18])),
    ("max_chunk_frames_zero", "chunks of no frames", "max_chunk_frames", u32(0)),
    ("max_chunk_frames_absurd", "chunks of 65537 frames", "max_chunk_frames", u32(65537)),
    ("adaptive_with_digest", "weights of a model that has none", "probability_digest", bytes(31) + b"\1"),
    ("name_empty", "a tokenizer without a name", "tokenizer_name", b"\0"),
    ("name_too_long", "a name of 65 bytes", "tokenizer_name", text("n" * 65)),
    ("name_not_utf8", "a name that is not UTF-8", "tokenizer_name", b"\2\xc3\x28"),
    ("name_control", "a name that drives a terminal", "tokenizer_name", text("\x1b[2J")),
    ("name_control_c1", "a name with U+009B, which drives a terminal too", "tokenizer_name", text("\x9b2J")),
    ("side_index_repeated", "two side streams of one index", "side1.index", u16(1)),
    ("side_kind_zero", "a side stream of kind 0", "side0.kind", u8(0)),
    ("side_reserved", "a reserved byte of a side stream is not 0", "side0.reserved", b"\1"),
    ("side_time_base_unknown", "a side stream without a time base", "side0.time_base", ratio(0, 0)),
    ("side_codec_too_long", "a codec of 65 bytes", "side0.codec", text("c" * 65)),
    ("side_language_too_long", "a language of 36 bytes", "side0.language", text("l" * 36)),
    ("side_template_absurd", "a template of more than 2^24 bytes", "side0.template", u32((1 << 24) + 1)),
    ("side_template_cut", "a template that is longer than the header", "side0.template", u32(5000)),
    ("header_extension_type_zero", "a header extension of type 0", "extension0.type", u8(0)),
    ("header_extension_flags", "an undefined flag of a header extension", "extension0.flags", u8(2)),
    (
        "header_extension_cut",
        "a header extension that is longer than the header",
        "extension0.data",
        u32(5000),
    ),
    ("header_extension_missing", "fewer header extensions than announced", "extension_count", u16(2)),
    ("header_rest", "a byte after the last header extension", "rest", b"\0"),
]


def add_bad_headers(to: Collection) -> None:
    extensions = ({"type": 0x9A, "critical": False, "data": b"grease".hex()},)
    shape = {"side_streams": (AUDIO, SUBTITLE), "extensions": extensions}

    def fault(name: str, shows: str, raw: Mapping[str, bytes], *, at: str, kind: str = "C") -> None:
        made = File(edits={"header": Edit(raw=raw)}, **shape)
        made.add_chunk(frames=1, levels=1)
        to.bad(name, shows, kind, made.close(), at=f"header.{at}")

    for name, shows, where, value in HEADER_FAULTS:
        fault(name, shows, {where: value}, at=where)
    fault("one_level", "a table of one level", {"level_count": u8(1), "level_bits": u8(0)}, at="level_count")
    table = {"level_count": u8(17), "level_bits": bytes([*range(16), 18])}
    fault("too_many_levels", "a table of 17 levels", table, at="level_count")
    fault("no_levels", "an empty table of levels", {"level_count": u8(0), "level_bits": b""}, at="level_count")
    unknown = {"probability_model": u8(2), "probability_digest": b"\1" * 32}
    fault(
        "unknown_probability_model",
        "a probability model of the future",
        unknown,
        at="probability_model",
        kind="U",
    )
    prior = {"probability_model": u8(1)}
    fault("prior_without_digest", "a learned model without its digest", prior, at="probability_digest")
    critical = {"extension0.flags": u8(1)}
    fault(
        "unknown_critical_header_extension",
        "a critical header extension",
        critical,
        at="extension0.flags",
        kind="U",
    )
    made = File(edits={"header": Edit(raw=dict.fromkeys(["rest", "extension_count"], b""))})
    to.bad(
        "header_cut_short",
        "a header payload that ends before its last field",
        "C",
        made,
        at="header.extension_count",
    )


CHUNK_FAULTS: list[tuple[str, str, dict[str, bytes]]] = [
    ("chunk_without_frames", "a chunk of no frames", {"frame_count": u32(0)}),
    ("chunk_too_long", "a chunk of more than max_chunk_frames", {"frame_count": u32(66)}),
    ("first_pts_too_high", "a first timestamp above 2^60", {"first_pts": i64(MAX_TICKS + 1)}),
    ("first_pts_too_low", "a first timestamp below -2^60", {"first_pts": i64(-MAX_TICKS - 1)}),
    ("last_pts_too_high", "a last timestamp above 2^60", {"first_pts": i64(MAX_TICKS - 3)}),
    ("timing_mode_two", "a timing mode of the future", {"timing_mode": u8(2)}),
    ("chunk_reserved", "a reserved byte of a chunk is not 0", {"reserved": b"\0\1"}),
    ("step_mode_two", "a step mode of the future", {"step_mode": u8(2)}),
    ("token_data_too_long", "more token data than the payload has", {"token_data_size": u32(5000)}),
    ("token_data_too_short", "bytes are left after the token data", {"token_data_size": u32(4)}),
    ("duration_zero", "frames that are not shown", {"duration": varint(0)}),
    ("duration_absurd", "a duration above 2^60", {"duration": varint(MAX_TICKS + 1)}),
    ("varint_not_shortest", "1 in two bytes", {"duration": b"\x81\x00"}),
    ("varint_too_long", "a number of ten bytes", {"duration": b"\x81" + b"\x80" * 8 + b"\x01"}),
    (
        "listed_but_regular",
        "a listed timing for equal frames",
        {"timing_mode": u8(1), "steps": varint(1) * 4},
    ),
    ("step_zero", "two frames of one timestamp", {"timing_mode": u8(1), "steps": varint(1) * 3 + varint(0)}),
    (
        "step_absurd",
        "a step above 2^61",
        {
            "timing_mode": u8(1),
            "first_pts": i64(-MAX_TICKS),
            "steps": varint(1) * 3 + varint(2 * MAX_TICKS + 1),
        },
    ),
    (
        "pts_not_rising",
        "a chunk that begins with the last timestamp of the one before",
        {"first_pts": i64(4)},
    ),
    (
        "chunk_cut_short",
        "a chunk payload that ends before its last field",
        dict.fromkeys(["duration", "token_data"], b""),
    ),
]


STEP_FAULTS: list[tuple[str, str, int, bytes]] = [
    ("steps_none", "a list of no steps", 5, b"\0"),
    ("steps_of_one_frame", "a list of steps in a chunk of one frame", 1, b"\1\2"),
    ("steps_too_many", "a list of more steps than frames", 5, b"\5\xaa\2"),
    ("steps_usual", "a list of steps of four frames", 5, b"\1\0"),
    ("steps_too_few", "steps of three frames after the first, for four", 5, b"\2\11"),
    ("steps_left_over", "a step of which no frame is left", 5, b"\3\45"),
    ("steps_of_the_future", "a step of a kind that there is not", 5, b"\2\15"),
    ("steps_rest", "bits behind the last step of a list", 5, b"\2\25"),
    ("steps_not_shortest", "a length of a list in two bytes", 5, b"\x82\0\5"),
]
"""Of a chunk of so many frames: what its list is."""


def add_bad_chunks(to: Collection) -> None:
    for name, shows, raw in CHUNK_FAULTS:
        made = two_chunks(edits={"chunk1": Edit(raw=raw)})
        last = [key for key in raw if key != "timing_mode"] or ["timing_mode"]
        at = "steps" if "steps" in raw else last[0]
        to.bad(name, shows, "C", made, at=f"chunk1.{at}", good=(0,))
    image = {"still_image": True, "max_chunk_frames": 2}
    made = one_chunk(frames=2, **image)
    to.bad("still_of_two_frames", "a still image of two frames", "C", made, at="chunk0.frame_count")
    made = File(**image)
    made.add_chunk(frames=1)
    made.add_chunk(frames=1)
    to.bad(
        "still_of_two_chunks",
        "a still image of two chunks",
        "C",
        made.close(),
        at="chunk1.frame_count",
        good=(0,),
    )
    for name, shows, frames, step_list in STEP_FAULTS:
        made = File(**HYBRID_MODEL, edits={"chunk1": Edit(raw={"step_mode": u8(1), "step_list": step_list})})
        made.add_chunk(motion=("slow",))
        made.add_chunk(frames=frames, motion=("slow",) * (frames > 1))
        to.bad(name, shows, "C", made.close(), at="chunk1.step_list", good=(0,))
    for name, changes in (("no_maps", {}), ("one_map", MOTION_MODEL), ("factor_two", {"temporal_factor": 2})):
        header = {**HYBRID_MODEL, **changes} if name == "factor_two" else changes
        made = two_chunks(edits={"chunk1": Edit(raw={"step_mode": u8(1), "step_list": b"\2\5"})}, **header)
        shows = "a list of steps where there can be none"
        to.bad(f"steps_{name}", shows, "C", made, at="chunk1.step_list", good=(0,))
    huge = {**sides(1024, 1024), "spatial_factor": 1, "temporal_factor": 1, "max_chunk_frames": 300}
    made = File(**huge)
    small = make_tokens(DEFAULT_HEADER, 1, levels=0, seed=1)
    made.add_chunk(pts=range(300), tokens=small)
    to.bad("too_many_tokens", "a chunk of 300 * 2^20 tokens", "C", made.close(), at="chunk0.frame_count")


PACKET_FAULTS: list[tuple[str, str, dict[str, bytes]]] = [
    ("no_packets", "a packets record without packets", {"packet_count": u32(0)}),
    ("too_many_packets", "65537 packets", {"packet_count": u32(65537)}),
    ("packets_missing", "fewer packets than announced", {"packet_count": u32(3)}),
    ("packets_rest", "a byte after the last packet", {"rest": b"\0"}),
    ("packet_of_unknown_stream", "a stream that the header does not name", {"1.stream": varint(2)}),
    ("packet_flags", "an undefined flag of a packet", {"1.flags": u8(0x0F)}),
    ("packet_duration_absurd", "a duration above 2^60", {"1.duration": varint(MAX_TICKS + 1)}),
    ("packet_pts_absurd", "a timestamp above 2^60", {"1.pts": zigzag(MAX_TICKS)}),
    ("packet_dts_absurd", "a decoding timestamp below -2^60", {"1.dts": zigzag(-MAX_TICKS - 21)}),
    ("packet_pts_not_shortest", "a timestamp that is not in its shortest form", {"1.pts": b"\x80\x00"}),
    ("packet_too_long", "a packet that is longer than its record", {"1.size": varint(5000)}),
]


def add_bad_packets(to: Collection) -> None:
    for name, shows, raw in PACKET_FAULTS:
        made = File(edits={"packets0": Edit(raw=raw)}, side_streams=(AUDIO,))
        made.add_chunk()
        made.add_packets(packet(1, b"one", pts=0, dts=0, duration=10), packet(1, b"two", pts=20, dts=20, duration=10))
        to.bad(name, shows, "C", made.close(), at=f"packets0.{next(iter(raw))}", good=(0,))


def add_bad_ends(to: Collection) -> None:
    made = two_chunks()
    first, second = made.records["chunk0"][0], made.records["chunk1"][0]
    index = made.records["index"][0]
    faults: list[tuple[str, str, dict[str, bytes]]] = [
        ("index_frames_wrong", "an index with a frame too many", {"total_frames": u64(11)}),
        ("index_chunks_wrong", "an index of three chunks with two entries", {"total_chunks": u32(3)}),
        ("index_reserved", "a reserved byte of the index is not 0", {"reserved": b"\1\0\0\0"}),
        ("index_offset_wrong", "an entry that points beside its chunk", {"1.offset": u64(second + 1)}),
        ("index_offset_too_low", "an entry that points to the signature", {"0.offset": u64(16)}),
        ("index_offset_too_high", "an entry that points to the index", {"1.offset": u64(index)}),
        ("index_offset_not_rising", "two entries of one offset", {"1.offset": u64(first)}),
        ("index_pts_wrong", "an entry with another timestamp", {"1.first_pts": i64(6)}),
        ("index_pts_not_rising", "entries whose timestamps fall", {"1.first_pts": i64(0)}),
        (
            "index_frame_count_zero",
            "an entry of no frames",
            {"0.frame_count": u32(0), "1.frame_count": u32(10)},
        ),
        (
            "index_frame_count_wrong",
            "a frame in the wrong entry",
            {"0.frame_count": u32(4), "1.frame_count": u32(6)},
        ),
        ("index_rest", "a byte after the last entry", {"rest": b"\0"}),
        (
            "index_entry_missing",
            "an index of one chunk, of a file of two",
            {"total_frames": u64(5), "total_chunks": u32(1)}
            | dict.fromkeys(["1.offset", "1.first_pts", "1.frame_count"], b""),
        ),
    ]
    for name, shows, raw in faults:
        made = two_chunks(edits={"index": Edit(raw=raw)})
        to.bad(name, shows, "C", made, at=f"index.{next(iter(raw))}", good=(0, 1))
    for name, shows, raw in [
        ("end_offset_wrong", "an end that points beside the index", {"index_offset": u64(index - 1)}),
        ("end_rest", "an end of nine bytes", {"rest": b"\0"}),
        ("end_cut_short", "an end of four bytes", {"index_offset": bytes(4)}),
    ]:
        made = two_chunks(edits={"end": Edit(raw=raw)})
        to.bad(name, shows, "C", made, at=f"end.{next(iter(raw))}", good=(0, 1))


def add_damage(to: Collection) -> None:
    def three(edits: Mapping[str, Edit] | None = None) -> File:
        made = File(edits=edits)
        for _ in range(3):
            made.add_chunk(levels=1)
        return made.close()

    made = three()
    whole = bytes(made.data)
    at = {name: start for name, (start, _) in made.records.items()}

    def damaged(name: str, shows: str, data: bytes, *damage: dict[str, Any], good: tuple[int, ...]) -> None:
        offset = damage[0]["offset"]
        to.bad(name, shows, "D", made, data=data, at=offset, good=good, damage=list(damage))

    length = {name: stop - start for name, (start, stop) in made.records.items()}
    second = lost(at["chunk1"], length["chunk1"], (1, 2))
    for name, shows, edit in [
        ("damage_sync", "a chunk whose sync marker is gone", Edit(sync=b"SYNC")),
        ("damage_header_crc", "a chunk whose record header is damaged", Edit(header_crc_flip=1 << 31)),
        ("damage_payload_crc", "a chunk whose payload is damaged", Edit(payload_crc_flip=1)),
        ("damage_foreign_key", "a chunk of another file", Edit(key=b"\1\2\3\4")),
    ]:
        damaged(name, shows, bytes(three({"chunk1": edit}).data), second, good=(0, 2))
    damaged(
        "damage_twice",
        "two stretches of damage",
        bytes(three({"chunk0": Edit(payload_crc_flip=1), "chunk2": Edit(sync=b"SYNC")}).data),
        lost(at["chunk0"], length["chunk0"], (0, 1)),
        lost(at["chunk2"], length["chunk2"], (2, 3)),
        good=(1,),
    )
    damaged(
        "damage_missing_record",
        "a chunk is gone without a trace",
        whole[: at["chunk1"]] + whole[at["chunk2"] :],
        lost(at["chunk1"], 0, (1, 2)),
        good=(0, 2),
    )
    damaged(
        "damage_inserted_bytes",
        "bytes that belong to no record",
        whole[: at["chunk1"]] + b"stray bytes" + whole[at["chunk1"] :],
        lost(at["chunk1"], 11),
        good=(0, 1, 2),
    )
    damaged(
        "damage_bytes_cut_out",
        "three bytes are missing in a chunk; the next one is found inside what it claims",
        whole[: at["chunk1"] + 30] + whole[at["chunk1"] + 33 :],
        lost(at["chunk1"], length["chunk1"] - 3, (1, 2)),
        good=(0, 2),
    )
    damaged(
        "damage_repeated_in_gap",
        "an old chunk inside a stretch of damage is not taken for a new one",
        whole[: at["chunk1"]] + b"stray" + whole[at["chunk0"] :],
        lost(at["chunk1"], 5 + length["chunk0"]),
        good=(0, 1, 2),
    )
    damaged(
        "damage_index",
        "a damaged index; all chunks are there",
        bytes(three({"index": Edit(payload_crc_flip=1)}).data),
        lost(at["index"], length["index"]),
        good=(0, 1, 2),
    )
    edits = {
        "chunk1": Edit(payload_crc_flip=1),
        "index": Edit(raw={"1.offset": u64((1 << 64) - 2), "2.offset": u64((1 << 64) - 1)}),
    }
    damaged(
        "damage_then_other_offsets",
        "after damage, the offsets of the index are not compared",
        bytes(three(edits).data),
        second,
        good=(0, 2),
    )
    edits = {"chunk1": Edit(payload_crc_flip=1), "end": Edit(raw={"index_offset": u64(1)})}
    damaged(
        "damage_then_other_index_offset",
        "after damage, the offset of the index is not compared",
        bytes(three(edits).data),
        second,
        good=(0, 2),
    )
    packets = File(edits={"packets0": Edit(payload_crc_flip=1)}, side_streams=(AUDIO,))
    packets.add_chunk()
    packets.add_packets(packet(1, b"sound", pts=0))
    packets.close()
    start, stop = packets.records["packets0"]
    to.bad(
        "damage_packets",
        "damaged packets; no chunk is missing",
        "D",
        packets,
        at=start,
        good=(0,),
        damage=[lost(start, stop - start)],
    )
    damaged(
        "trailing_bytes",
        "bytes after the end",
        whole + b"more",
        lost(len(whole), 4),
        good=(0, 1, 2),
    )
    cuts = [
        ("cut_before_chunks", "the file ends with its header", at["chunk0"], at["chunk0"], None),
        (
            "cut_in_record_header",
            "the file ends inside a record header",
            at["chunk1"] + 20,
            at["chunk1"],
            None,
        ),
        (
            "cut_in_payload",
            "the file ends inside a chunk, whose number is known",
            at["chunk2"] - 1,
            at["chunk1"],
            (1, 2),
        ),
        ("cut_between_chunks", "the file ends after a chunk", at["chunk2"], at["chunk2"], None),
        ("cut_before_index", "the file ends before its index", at["index"], at["index"], None),
        ("cut_in_index", "the file ends inside its index", at["end"] - 9, at["index"], None),
    ]
    for name, shows, size, start, missing in cuts:
        good = tuple(number for number in range(3) if made.records[f"chunk{number}"][1] <= size)
        damaged(name, shows, whole[:size], lost(start, size - start, missing, to_the_end=True), good=good)
    damaged("no_end", "an index but no end", whole[: at["end"]], lost(at["end"], 0), good=(0, 1, 2))
    damaged("cut_in_end", "the file ends in its last byte", whole[:-1], lost(at["end"], 35), good=(0, 1, 2))


NO_VECTORS = np.zeros((0, 0, 2), np.int16)


class _Forced(bits._Traversal):
    """Codes every map level by level, even one that has one level only."""

    def _code_mode(self, coder: Any, mode: int) -> int:
        return super()._code_mode(coder, len(self._geometry.level_bits))


def _uniform_explicit_map() -> bytes:
    """Token data that begin with an explicit map whose levels are all 2; a decoder stops behind it."""
    geometry = geometry_of(DEFAULT_HEADER)
    coder = bits._Encoder()
    traversal = _Forced(3, 4, geometry, "adaptive")
    try:
        traversal.code_step(coder, np.zeros((3, 4), np.uint64), np.full((1, 1), 2, np.uint8), NO_VECTORS, first=True)
    except CorruptStreamError:
        return coder.finish().astype("<u4").tobytes()
    raise ValueError("the map was not refused")


def add_bad_tokens(to: Collection) -> None:
    valid = two_chunks().chunks[1].token_data
    word = int.from_bytes(valid[-4:], "little")
    faults = [
        ("tokens_empty", "token data of no bytes", b""),
        ("tokens_odd_size", "token data that are not whole words", valid + b"\0"),
        ("tokens_trailing_word", "a word of 0 too many", valid + bytes(4)),
        ("tokens_word_missing", "a word too few", valid[:-4]),
        (
            "tokens_last_word",
            "a last word that decodes, but that no encoder writes",
            valid[:-4] + u32(word + 1),
        ),
        ("tokens_quantile", "a code word that the range coder cannot make", b"\xff" * 8 + valid[8:]),
        ("tokens_map_of_one_level", "an explicit map whose levels are equal", _uniform_explicit_map()),
    ]
    for name, shows, token_data in faults:
        raw = {"token_data": token_data, "token_data_size": u32(len(token_data))}
        made = two_chunks(edits={"chunk1": Edit(raw=raw)})
        to.bad(name, shows, "C", made, at="chunk1.token_data", stage="tokens", good=(0,))
    other = two_chunks().chunks[0].token_data
    raw = {"token_data": other, "token_data_size": u32(len(other))}
    made = two_chunks(edits={"chunk1": Edit(raw=raw)})
    to.bad(
        "tokens_of_another_chunk",
        "tokens that decode, but to another CRC",
        "C",
        made,
        at="chunk1.tokens_crc",
        stage="tokens",
        good=(0,),
    )
    made = two_chunks(edits={"chunk1": Edit(raw={"tokens_crc": bytes(4)})})
    to.bad(
        "tokens_crc_wrong",
        "a CRC that is not that of the tokens",
        "C",
        made,
        at="chunk1.tokens_crc",
        stage="tokens",
        good=(0,),
    )
    digest = hashlib.sha256(b"weights that nobody has").hexdigest()
    made = two_chunks(tokenizer_digest=digest)
    to.bad(
        "unknown_weights",
        "pixels need weights that are not there",
        "M",
        made,
        at="header.tokenizer_digest",
        stage="pixels",
        good=(0, 1),
    )


class _Moves:
    """A coder that says of a motion map that it differs from what goes without saying."""

    def __init__(self, coder: bits._Encoder) -> None:
        self._coder, self._first = coder, True

    def code(self, found: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        if self._first:
            self._first, found = False, np.ones_like(found)
        return self._coder.code(found, probabilities)


class _Told(MotionTraversal):
    """Tells of one map that it differs from what goes without saying."""

    def __init__(self, *shape: int, told: int, **options: Any) -> None:
        super().__init__(*shape, **options)
        self._told = told

    def _code_map(self, coder: Any, vectors: Any, expected: Any, number: int, others: Any) -> Any:
        return super()._code_map(_Moves(coder) if number == self._told else coder, vectors, expected, number, others)


def told_for_nothing(tokens: TokenChunk, told: int = 0) -> bytes:
    """Token data of two steps, in the second of which a map is told that need not be."""
    coder = bits._Encoder()
    traversal = bits._Traversal(*tokens.indices.shape[1:], tokens.geometry, "adaptive")
    traversal.start(coder, len(tokens.indices))
    network = motion_network() if tokens.geometry.motion_network else None
    motion = _Told(*tokens.vectors.shape[1:3], maps=tokens.geometry.motion_maps, network=network, told=told)
    traversal._motion = None
    for step, (indices, levels, vectors) in enumerate(zip(tokens.indices, tokens.levels, tokens.vectors, strict=True)):
        if step > 0:
            try:
                motion.code_step(coder, vectors.copy())
            except CorruptStreamError:
                pass
            else:
                raise ValueError("the map was not refused")
        traversal.code_step(coder, indices.copy(), levels.copy(), vectors, first=step == 0)
    return coder.finish().astype("<u4").tobytes()


def encode_unchecked(tokens: TokenChunk) -> bytes:
    """Token data of tokens whose vectors may be beyond the range."""
    coder = bits._Encoder()
    traversal = bits._Traversal(*tokens.indices.shape[1:], tokens.geometry, "adaptive")
    traversal.start(coder, len(tokens.indices))
    with patch("tokcodec.motion_bits.MAX_VECTOR", 2 * MAX_VECTOR):
        for step, parts in enumerate(zip(tokens.indices, tokens.levels, tokens.vectors, strict=True)):
            traversal.code_step(coder, *(part.copy() for part in parts), first=step == 0)
    return coder.finish().astype("<u4").tobytes()


def add_bad_motion(to: Collection) -> None:
    def bad(
        name: str,
        shows: str,
        tokens: TokenChunk,
        token_data: bytes,
        *,
        at: str = "token_data",
        model: Mapping[str, Any] = MOTION_MODEL,
    ) -> None:
        made = File(**model)
        made.add_chunk(motion=("slow",))
        made.add_chunk(tokens=tokens, token_data=token_data)
        to.bad(name, shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    header = DEFAULT_HEADER | MOTION_MODEL
    still = make_tokens(header, 5, levels=2, seed=7)
    bad("motion_of_zeros", "a coded motion map of zeros alone", still, told_for_nothing(still))
    even = make_tokens(DEFAULT_HEADER | HYBRID_MODEL, 5, levels=2, seed=7, motion=("sparse/slow",))
    shows = "a coded motion map, the last of seven, as expected alone"
    bad("motion_as_expected", shows, even, told_for_nothing(even, MOTION_MAPS - 1), model=HYBRID_MODEL)
    for name, shows, vector in [
        ("motion_beyond", "a vector of 512 half pixels", (512, 0)),
        ("motion_beyond_below", "a vector of -512 half pixels", (0, -512)),
    ]:
        far = make_tokens(header, 5, levels=2, seed=7)
        far.vectors[1, 1, 1] = vector
        bad(name, shows, far, encode_unchecked(far))
    moving = make_tokens(header, 5, levels=2, seed=7, motion=("slow",))
    data = bits.encode_tokens(moving)
    bad("motion_trailing_word", "a word of 0 too many", moving, data + bytes(4))
    other = make_tokens(header, 5, levels=2, seed=7, motion=("smooth",))
    bad("motion_of_another_chunk", "the same tokens, moving otherwise", other, data, at="tokens_crc")
    raw = {"tokens_crc": u32(crc32(token_bytes(make_tokens(DEFAULT_HEADER, 1, levels=2, seed=100))))}
    made = File(edits={"chunk0": Edit(raw=raw)}, motion_maps=True)
    made.add_chunk(frames=1)
    shows = "a CRC without the vectors of a first step, which are zero"
    to.bad("motion_crc_without_vectors", shows, "C", made.close(), at="chunk0.tokens_crc", stage="tokens")
    made = one_chunk(motion_maps=True, motion=("slow",))
    shows = "motion maps, but weights of a model that knows none"
    to.bad("motion_without_model", shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
    made = one_chunk(**{**MOTION_MODEL, "motion_maps": False})
    shows = "no motion maps, but weights of a model that needs them"
    to.bad("model_without_motion", shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
    made = one_chunk(**{**HYBRID_MODEL, "motion_maps": True}, motion=("slow",))
    shows = "one motion map, but weights of a model that needs seven"
    to.bad("hybrid_with_one_map", shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
    made = one_chunk(**{**MOTION_MODEL, "motion_maps": MOTION_MAPS}, motion=("slow",))
    shows = "seven motion maps, but weights of a model that knows one"
    to.bad("seven_maps_without_hybrid", shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))


def make() -> list[Vector]:
    """All vectors."""
    from block_vectors import add_bad_blocks, add_blocks  # late: they import this module
    from choice_vectors import add_bad_choices, add_choices
    from network_vectors import add_bad_networks, add_networks
    from picture_vectors import add_bad_pictures, add_pictures
    from plain_vectors import add_plain
    from residual_vectors import add_bad_residuals, add_residuals

    to = Collection()
    for add in (
        add_good,
        add_motion,
        add_pictures,
        add_residuals,
        add_blocks,
        add_plain,
        add_networks,
        add_choices,
        add_grease,
        add_bad_signatures,
        add_bad_records,
        add_bad_order,
        add_bad_headers,
        add_bad_chunks,
        add_bad_packets,
        add_bad_ends,
        add_damage,
        add_bad_tokens,
        add_bad_motion,
        add_bad_pictures,
        add_bad_residuals,
        add_bad_blocks,
        add_bad_networks,
        add_bad_choices,
    ):
        add(to)
    names = [vector.path for vector in to.vectors]
    if len(set(names)) != len(names):
        raise ValueError("two vectors have one name")
    return to.vectors


# --- manifest ---


def dump(value: Any, indent: int = 0) -> str:
    """JSON whose short parts stay on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 110 or not isinstance(value, (dict, list, tuple)):
        return line
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {dump(item, indent + 1)}" for key, item in value.items()]
        opening, closing = "{", "}"
    elif all(isinstance(item, int) for item in value):
        return line
    else:
        rows = [dump(item, indent + 1) for item in value]
        opening, closing = "[", "]"
    space = "\n" + " " * (indent + 1)
    return opening + space + ("," + space).join(rows) + "\n" + " " * indent + closing


def manifest(vectors: Sequence[Vector]) -> str:
    """The text of `manifest.json`."""
    head = {
        "about": "Test vectors of the tokcodec bitstream (spec section 14), made by tests/make_vectors.py.",
        "keys": {
            "header": "what differs from default_header; digests, templates and data are hexadecimal",
            "records": "chunks, packets and extensions that a reader gives, in the order of the file",
            "chunks": "for bad files: those that are given before the error, or in spite of the damage",
            "tokens_sha256": "of the bytes that tokens_crc covers (spec section 5.3)",
            "pixels": "8-bit RGB (frames, rows, columns, 3) by the tiny model in 32-bit floating point",
            "error": "kind of error (spec section 1.2); a strict reader reports C for D (section 12)",
            "stage": "what has to be tried for the error to show: parse, tokens or pixels",
            "offset": "the byte that is wrong; an error may be noticed anywhere from within[0] to within[1]",
            "damage": "reports of a robust reader (section 9.2); missing_chunks is [first, last + 1]",
            "without_limits": "the kind of error for a reader that sets no limits of its own (section 10.2)",
        },
        "tiny_model_sha256": tiny_model.SHA256,
        "tiny_motion_model_sha256": tiny_model.MOTION_SHA256,
        "tiny_hybrid_model_sha256": tiny_model.HYBRID_SHA256,
        "tiny_wavelet_model_sha256": tiny_model.WAVELET_SHA256,
        "tiny_residual_model_sha256": tiny_model.RESIDUAL_SHA256,
        "tiny_block_model_sha256": tiny_model.BLOCK_SHA256,
        "tiny_block_residual_model_sha256": tiny_model.BLOCK_RESIDUAL_SHA256,
        "tiny_plain_model_sha256": tiny_model.PLAIN_SHA256,
        "default_header": DEFAULT_HEADER,
        "vectors": [vector.entry for vector in vectors],
    }
    return dump(head) + "\n"


def npy(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    np.save(out, pixels, allow_pickle=False)
    return out.getvalue()


def rms(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Root-mean-square difference."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def differences(vectors: Sequence[Vector], folder: Path = FOLDER) -> list[str]:
    """What on disk is not as this script makes it; pixels may differ by the tolerance of the spec."""
    wanted = {vector.path: vector.data for vector in vectors}
    wanted["manifest.json"] = manifest(vectors).encode()
    pixels = {vector.entry["pixels"]["file"]: vector.pixels for vector in vectors if vector.pixels is not None}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    problems = [f"{name} is not made by the script" for name in sorted(found - set(wanted) - set(pixels))]
    problems += [f"{name} is missing" for name in sorted((set(wanted) | set(pixels)) - found)]
    problems += [
        f"{name} differs" for name, data in wanted.items() if name in found and (folder / name).read_bytes() != data
    ]
    for name, picture in pixels.items():
        if name in found and picture is not None:
            stored = np.load(folder / name, allow_pickle=False)
            if stored.shape != picture.shape or rms(stored, picture) > PIXEL_RMS:
                problems.append(f"{name} differs")
    return problems


def stands(path: Path, pixels: NDArray[np.uint8]) -> bool:
    """Whether a file has these pixels, as another machine may have made them."""
    stored = np.load(path, allow_pickle=False) if path.exists() else np.zeros(0, np.uint8)
    return stored.shape == pixels.shape and rms(stored, pixels) < ROUNDING_RMS


def write(vectors: Sequence[Vector], folder: Path = FOLDER) -> None:
    """Write all files, but no pixels that stand there already; leaves others alone, of which `--check` tells."""
    for vector in vectors:
        path = folder / vector.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(vector.data)
        if vector.pixels is not None and not stands(shown := folder / vector.entry["pixels"]["file"], vector.pixels):
            shown.write_bytes(npy(vector.pixels))
    (folder / "manifest.json").write_text(manifest(vectors), encoding="utf-8", newline="\n")


def main() -> int:
    """Write the vectors, or check those on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the files on disk with what would be made")
    options = parser.parse_args()
    vectors = make()
    if not options.check:
        write(vectors)
    problems = differences(vectors)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    sys.stdout.write(f"{len(vectors)} vectors, {size} bytes, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
