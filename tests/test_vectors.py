"""Test vectors (spec section 14): tokcodec and the decoder written from the spec alone agree on them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from zlib import crc32

import make_vectors
import numpy as np
import pytest
import spec_decoder
import tiny_model
import torch
from block_vectors import block_layout
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_spans import spans

from tokcodec import errors
from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.codec import Codec
from tokcodec.container import (
    ChunkRecord,
    ContainerWriter,
    Damage,
    Extension,
    SidePacketBatch,
    StreamHeader,
    find_chunk_index,
    read_stream,
)
from tokcodec.errors import CorruptStreamError, TokcodecError
from tokcodec.inspection import decode_chunk, survey
from tokcodec.tokenizer.device import prepare
from tokcodec.tokenizer.stream import StreamDecoder
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, truncate
from tokcodec.weights.registry import entry_of_file, load_tokenizer

FOLDER = make_vectors.FOLDER
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
MAX_TOTAL_BYTES = 690_000
"""What a checkout carries for them: a third of it is the manifest."""
FORGERIES = 300
"""Files that are made up in each of the last tests."""


def of_folder(*folders: str, **wanted: Any) -> list[Any]:
    """Entries of the manifest, as parameters of a test."""
    return [
        pytest.param(entry, id=entry["file"].removesuffix(".tok"))
        for entry in MANIFEST["vectors"]
        if entry["file"].partition("/")[0] in folders and all(entry.get(key) == value for key, value in wanted.items())
    ]


def data_of(entry: dict[str, Any]) -> bytes:
    return (FOLDER / entry["file"]).read_bytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    digests = {tiny_model.SHA256: 0, tiny_model.MOTION_SHA256: 1, tiny_model.HYBRID_SHA256: 7}
    found = {digest: tiny_model.write_weights(folder, motion=motion) for digest, motion in digests.items()}
    for digest, residuals, blocks in [
        (tiny_model.WAVELET_SHA256, False, False),
        (tiny_model.RESIDUAL_SHA256, True, False),
        (tiny_model.BLOCK_SHA256, False, True),
        (tiny_model.BLOCK_RESIDUAL_SHA256, True, True),
    ]:
        kinds = {"residuals": residuals, "blocks": blocks}
        found[digest] = tiny_model.write_weights(folder, motion=7, pictures=True, **kinds)
    found[tiny_model.PLAIN_SHA256] = tiny_model.write_weights(folder, plain=True)
    return found


@pytest.fixture
def weights(models: dict[str, Path], entry: dict[str, Any]) -> Path:
    """Those that the file of an entry names, or where nobody has them others."""
    return models.get(read_by_spec(data_of(entry)).header.tokenizer_digest.hex(), models[tiny_model.SHA256])


# --- what the two readers say, as the manifest says it ---


def listed(value: Fraction | None) -> list[int]:
    return [0, 0] if value is None else [value.numerator, value.denominator]


def header_of_tokcodec(header: StreamHeader) -> dict[str, Any]:
    geometry = header.geometry
    return {
        "width": header.width,
        "height": header.height,
        "time_base": listed(header.time_base),
        "frame_rate": listed(header.frame_rate),
        "sample_aspect_ratio": listed(header.sample_aspect_ratio),
        "still_image": header.still_image,
        "motion_maps": geometry.motion_maps if geometry.motion_tokens else 0,
        "pictures": geometry.pictures,
        "residuals": geometry.residuals,
        "picture_blocks": geometry.intra,
        "motion_network": geometry.motion_network,
        "second_reference": geometry.second_reference,
        **asdict(header.colour),
        "bits_per_token": geometry.bits_per_token,
        "spatial_factor": geometry.spatial_factor,
        "temporal_factor": geometry.temporal_factor,
        "block_tokens": geometry.block_tokens,
        "level_bits": list(geometry.level_bits),
        "max_chunk_frames": header.max_chunk_frames,
        "probability_model": header.probability_model,
        "probability_digest": header.probability_digest.hex(),
        "tokenizer_digest": header.tokenizer_digest.hex(),
        "tokenizer_name": header.tokenizer_name,
        "side_streams": [
            asdict(side) | {"time_base": listed(side.time_base), "template": side.template.hex()}
            for side in header.side_streams
        ],
        "extensions": [asdict(item) | {"data": item.data.hex()} for item in header.extensions],
    }


def header_of_spec(header: spec_decoder.Header) -> dict[str, Any]:
    geometry = header.geometry
    names = ("width", "height", "still_image", "full_range")
    factors = ("bits_per_token", "spatial_factor", "temporal_factor", "block_tokens", "probability_model")
    return {
        **{name: getattr(header, name) for name in (*names, "max_chunk_frames", "tokenizer_name")},
        **{name: getattr(geometry, name) for name in factors},
        **{name: list(getattr(header, name)) for name in ("time_base", "frame_rate", "sample_aspect_ratio")},
        **dict(zip(("primaries", "transfer", "matrix"), header.colour, strict=True)),
        "motion_maps": geometry.maps if geometry.motion else 0,
        "pictures": geometry.pictures,
        "residuals": geometry.residuals,
        "picture_blocks": geometry.blocks,
        "motion_network": geometry.network,
        "second_reference": geometry.second,
        "level_bits": list(geometry.level_bits),
        "probability_digest": header.probability_digest.hex(),
        "tokenizer_digest": header.tokenizer_digest.hex(),
        "side_streams": [
            {
                "index": side.index,
                "kind": side.kind,
                "time_base": list(side.time_base),
                "codec": side.codec,
                "language": side.language,
                "template": side.template.hex(),
            }
            for side in header.side_streams
        ],
        "extensions": [extension_of_spec(item) for item in header.extensions],
    }


def extension_of_spec(item: spec_decoder.Extension) -> dict[str, Any]:
    return {"type": item.type, "critical": item.critical, "data": item.data.hex()}


def chunk_entry(
    number: int,
    pts: list[int],
    duration: int,
    tokens_crc: int,
    indices: NDArray[np.uint64],
    levels: NDArray[np.uint8],
    vectors: NDArray[np.int16],
    picture: Picture | spec_decoder.Picture | None,
    residuals: Sequence[Picture | spec_decoder.Picture | None],
    step_frames: tuple[int, ...],
) -> dict[str, Any]:
    tokens = indices.astype("<u8").tobytes() + levels.astype("u1").tobytes() + vectors.astype("<i2").tobytes()
    if picture is not None:
        layout = layout_of(picture)
        tokens += picture.coefficients.astype("<i2").tobytes()
        tokens += (b"" if layout is None else layout.tobytes()) + bytes([picture.scale])
    for residual in residuals:
        tokens += bytes([residual is not None])
        if residual is not None:
            tokens += residual.coefficients.astype("<i2").tobytes() + bytes([residual.scale])
    assert crc32(tokens) == tokens_crc
    return {
        "number": number,
        "frames": len(pts),
        "pts": pts,
        "duration": duration,
        "tokens_crc": tokens_crc,
        "tokens_sha256": hashlib.sha256(tokens).hexdigest(),
        **({"step_frames": list(step_frames)} if step_frames else {}),
    }


def layout_of(picture: Picture | spec_decoder.Picture) -> NDArray[np.uint8] | None:
    return picture.layout if isinstance(picture, spec_decoder.Picture) else picture.blocks


def chunk_of_tokcodec(record: ChunkRecord, header: StreamHeader) -> dict[str, Any]:
    tokens = decode_chunk(record, header)
    return chunk_entry(
        record.number,
        list(record.pts),
        record.last_duration,
        record.tokens_crc32,
        tokens.indices,
        tokens.levels,
        tokens.vectors,
        tokens.picture,
        tokens.residuals,
        record.step_frames,
    )


def chunk_of_spec(chunk: spec_decoder.Chunk, header: spec_decoder.Header) -> dict[str, Any]:
    tokens = spec_decoder.decode_chunk(chunk, header)
    picture = tokens[3] if len(tokens) > 3 else None
    residuals = tokens[4] if len(tokens) > 4 else []
    times = chunk.number, chunk.pts, chunk.last_duration
    return chunk_entry(*times, chunk.tokens_crc, *tokens[:3], picture, residuals, chunk.listed)


@dataclass(kw_only=True)
class Outcome:
    """What a robust reader makes of a file: what it gave, and the error that ended it."""

    header: Any = None
    items: list[Any]
    damages: list[dict[str, Any]]
    complete: bool = False
    kind: str | None = None
    offset: int | None = None

    def chunks(self) -> list[Any]:
        return [item for item in self.items if isinstance(item, (ChunkRecord, spec_decoder.Chunk))]


KINDS = {name: kind for kind, name in make_vectors.EXCEPTIONS.items() if name}


def read_by_tokcodec(data: bytes) -> Outcome:
    out = Outcome(items=[], damages=[])
    try:
        reader = read_stream(io.BytesIO(data))
        out.header = reader.header
        for item in reader:
            if isinstance(item, Damage):
                missing = [item.missing_chunks.start, item.missing_chunks.stop] if item.missing_chunks else None
                out.damages.append(make_vectors.lost(item.offset, item.length, missing, to_the_end=item.open_ended))
            else:
                out.items.append(item)
        out.complete = reader.summary.complete
    except TokcodecError as error:
        out.kind, out.offset = KINDS[type(error).__name__], error.offset
    return out


def read_by_spec(data: bytes) -> Outcome:
    out = Outcome(items=[], damages=[])
    try:
        found = spec_decoder.Reader(data, robust=True).run()
    except spec_decoder.SpecError as error:
        out.kind, out.offset = error.kind, error.offset
        found = error.partial
    if found is not None:
        out.header = found.header
        out.items = [*found.chunks]
        for damage in found.damages:
            missing = [damage.missing[0], damage.missing[-1] + 1] if damage.missing else None
            out.damages.append(make_vectors.lost(damage.offset, damage.length, missing, to_the_end=damage.open_end))
        out.complete = found.whole
    return out


# --- the vectors themselves ---


def test_vectors_are_what_the_script_makes() -> None:
    assert make_vectors.differences(make_vectors.make()) == []


def test_vectors_are_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < MAX_TOTAL_BYTES
    assert len(MANIFEST["vectors"]) > 200


def test_the_tiny_model_is_the_same_everywhere() -> None:
    assert tiny_model.SHA256 == "7191f6d08d089cb2f3f495da9c411383afcbd1990b3de37eb8ec1c46dd6ab952"
    assert hashlib.sha256(tiny_model.weights_bytes()).hexdigest() == tiny_model.SHA256
    assert MANIFEST["tiny_model_sha256"] == tiny_model.SHA256
    moving = tiny_model.weights_bytes(tiny_model.MOTION_CONFIG_JSON)
    assert hashlib.sha256(moving).hexdigest() == tiny_model.MOTION_SHA256 == MANIFEST["tiny_motion_model_sha256"]
    hybrid = tiny_model.weights_bytes(tiny_model.HYBRID_CONFIG_JSON)
    assert hashlib.sha256(hybrid).hexdigest() == tiny_model.HYBRID_SHA256 == MANIFEST["tiny_hybrid_model_sha256"]
    wavelet = tiny_model.weights_bytes(tiny_model.WAVELET_CONFIG_JSON)
    assert hashlib.sha256(wavelet).hexdigest() == tiny_model.WAVELET_SHA256 == MANIFEST["tiny_wavelet_model_sha256"]
    residual = tiny_model.weights_bytes(tiny_model.RESIDUAL_CONFIG_JSON)
    assert hashlib.sha256(residual).hexdigest() == tiny_model.RESIDUAL_SHA256 == MANIFEST["tiny_residual_model_sha256"]
    block = tiny_model.weights_bytes(tiny_model.BLOCK_CONFIG_JSON)
    assert hashlib.sha256(block).hexdigest() == tiny_model.BLOCK_SHA256 == MANIFEST["tiny_block_model_sha256"]
    both = hashlib.sha256(tiny_model.weights_bytes(tiny_model.BLOCK_RESIDUAL_CONFIG_JSON)).hexdigest()
    assert both == tiny_model.BLOCK_RESIDUAL_SHA256 == MANIFEST["tiny_block_residual_model_sha256"]
    plain = hashlib.sha256(tiny_model.weights_bytes(tiny_model.PLAIN_CONFIG_JSON)).hexdigest()
    assert plain == tiny_model.PLAIN_SHA256 == MANIFEST["tiny_plain_model_sha256"]


# --- good and grease ---


@pytest.mark.parametrize("entry", of_folder("good", "grease"))
def test_whole_file_by_tokcodec(entry: dict[str, Any]) -> None:
    data = data_of(entry)
    found = read_by_tokcodec(data)
    assert (found.kind, found.damages, found.complete) == (None, [], True)
    assert header_of_tokcodec(found.header) == expected_header(entry, least_extension=0x40)
    names = {ChunkRecord: "chunk", SidePacketBatch: "packets", Extension: "extension"}
    assert [names[type(item)] for item in found.items] == entry["records"]
    assert [chunk_of_tokcodec(chunk, found.header) for chunk in found.chunks()] == entry["chunks"]
    packets = [p for item in found.items if isinstance(item, SidePacketBatch) for p in item.packets]
    assert [asdict(packet) | {"data": packet.data.hex()} for packet in packets] == entry["packets"]
    extensions = [item for item in found.items if isinstance(item, Extension)]
    given = [item for item in entry["extensions"] if item["type"] >= 0x40]
    assert [asdict(item) | {"data": item.data.hex()} for item in extensions] == given
    report = survey(io.BytesIO(data), check_tokens=True)
    assert (report.complete, report.frames, report.chunks) == (True, entry["frames"], len(entry["chunks"]))
    index = find_chunk_index(io.BytesIO(data))
    assert index.from_tail
    assert [e.first_pts for e in index.entries] == [chunk["pts"][0] for chunk in entry["chunks"]]


def expected_header(entry: dict[str, Any], *, least_extension: int = 0) -> dict[str, Any]:
    header = MANIFEST["default_header"] | entry["header"]
    kept = [item for item in header["extensions"] if item["type"] >= least_extension]
    return header | {"extensions": kept}


@pytest.mark.parametrize("entry", of_folder("good", "grease"))
def test_whole_file_by_the_spec(entry: dict[str, Any]) -> None:
    found = spec_decoder.parse(data_of(entry))
    assert found.whole
    assert header_of_spec(found.header) == expected_header(entry)
    assert [chunk_of_spec(chunk, found.header) for chunk in found.chunks] == entry["chunks"]
    names = ("stream", "keyframe", "pts", "dts", "duration")
    packets = [{name: getattr(p, name) for name in names} | {"data": p.data.hex()} for p in found.packets]
    assert packets == entry["packets"]
    assert [extension_of_spec(item) for item in found.extensions] == entry["extensions"]


@pytest.mark.parametrize("entry", of_folder("good"))
def test_tokcodec_writes_the_same_bytes(entry: dict[str, Any]) -> None:
    data = data_of(entry)
    found = read_by_tokcodec(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, found.header) as writer:
        for item in found.items:
            if isinstance(item, ChunkRecord):
                writer.write_chunk(item)
            else:
                writer.write_packets(item.packets)
    assert sink.getvalue() == data


@pytest.mark.parametrize("entry", [p for p in of_folder("good") if "pixels" in p.values[0]])
def test_pixels(entry: dict[str, Any], weights: Path) -> None:
    wanted = np.load(FOLDER / entry["pixels"]["file"], allow_pickle=False)
    found = spec_decoder.parse(data_of(entry))
    header = found.header
    decoded = spec_decoder.decode_chunk(found.chunks[0], header)
    count, listed = entry["frames"], found.chunks[0].listed
    by_spec = spec_decoder.decode_pixels(weights.read_bytes(), decoded, header, count, listed)
    model = prepare(load_tokenizer(entry_of_file(weights)), torch.device("cpu"), torch.float32)
    decoder = StreamDecoder(model, height=header.height, width=header.width)
    reader = read_stream(io.BytesIO(data_of(entry)))
    tokens = decode_chunk(next(item for item in reader if isinstance(item, ChunkRecord)), reader.header)
    listed = entry["chunks"][0].get("step_frames")
    shown = [None, *listed] if listed else [None] * len(tokens.indices)
    pictures = [tokens.picture, *[None] * (len(shown) - 1)]
    residuals = [tokens.residual_of(step) for step in range(len(shown))]
    parts = zip(tokens.indices, tokens.kept_bits(), tokens.vectors, shown, pictures, residuals, strict=True)
    steps = [
        decoder.step(*step, frames=frames, picture=picture, residual=residual)
        for *step, frames, picture, residual in parts
    ]
    by_tokcodec = np.concatenate(steps)[: entry["frames"]]
    for pixels in (by_spec, by_tokcodec):
        assert pixels.shape == wanted.shape
        assert pixels.dtype == np.uint8
        # The tolerance of the spec is for bfloat16; in float32 only the rounding of a tie may differ.
        assert make_vectors.rms(pixels, wanted) < 0.05
    assert wanted.std() > 10, "a picture that shows something"
    video = Codec(weights=weights, device="cpu").decode_frames(data_of(entry))
    assert make_vectors.rms(video.frames, wanted) <= entry["pixels"]["rms_at_most"]


# --- bad ---


@pytest.mark.parametrize("entry", of_folder("bad", stage="parse"))
def test_bad_file(entry: dict[str, Any]) -> None:
    data = data_of(entry)
    ours, theirs = read_by_tokcodec(data), read_by_spec(data)
    low, high = entry["within"]
    for found, chunk_of in ((ours, chunk_of_tokcodec), (theirs, chunk_of_spec)):
        assert not found.complete
        assert [chunk_of(chunk, found.header) for chunk in found.chunks()] == entry["chunks"]
        if entry["error"] == "D":
            assert found.kind is None
            assert found.damages == entry["damage"]
        else:
            assert found.kind == entry["error"]
            assert found.damages == []
            assert found.offset is not None
            assert low <= found.offset <= high
    with pytest.raises(spec_decoder.SpecError) as strict:
        spec_decoder.parse(data)
    assert strict.value.kind == {"D": "C"}.get(entry["error"], entry["error"])
    if entry["error"] == "D":
        assert strict.value.damage
        report = survey(io.BytesIO(data), check_tokens=True)
        assert (report.complete, report.chunks) == (False, len(entry["chunks"]))
    else:
        with pytest.raises(getattr(errors, entry["exception"])) as caught:
            survey(io.BytesIO(data), check_tokens=True)
        assert type(caught.value).__name__ == entry["exception"]


@pytest.mark.parametrize("entry", of_folder("bad", stage="tokens"))
def test_bad_tokens(entry: dict[str, Any]) -> None:
    data = data_of(entry)
    ours, theirs = read_by_tokcodec(data), spec_decoder.parse(data)
    assert ours.complete
    assert theirs.whole
    low, high = entry["within"]
    good = {chunk["number"]: chunk for chunk in entry["chunks"]}
    for record, chunk in zip(ours.chunks(), theirs.chunks, strict=True):
        if record.number in good:
            assert chunk_of_tokcodec(record, ours.header) == good[record.number]
            assert chunk_of_spec(chunk, theirs.header) == good[record.number]
            continue
        with pytest.raises(CorruptStreamError, match=f"chunk {record.number}"):
            decode_chunk(record, ours.header)
        with pytest.raises(spec_decoder.SpecError) as caught:
            spec_decoder.decode_chunk(chunk, theirs.header)
        assert caught.value.kind == entry["error"] == "C"
        assert low <= caught.value.offset <= high
    report = survey(io.BytesIO(data), check_tokens=True)
    assert not report.complete
    assert report.chunks == len(good)
    (damage,) = report.damages
    assert list(damage.missing_chunks) == [n for n in range(len(ours.chunks())) if n not in good]
    assert low <= damage.offset <= high


@pytest.mark.parametrize("entry", of_folder("bad", stage="pixels"))
def test_bad_pixels(entry: dict[str, Any], weights: Path) -> None:
    data = data_of(entry)
    found = spec_decoder.parse(data)
    assert [chunk_of_spec(chunk, found.header) for chunk in found.chunks] == entry["chunks"]
    for codec in (Codec(weights=weights, device="cpu"), Codec(device="cpu")):
        with pytest.raises(getattr(errors, entry["exception"])):
            codec.decode_frames(data)
    tokens = spec_decoder.decode_chunk(found.chunks[0], found.header)
    with pytest.raises(spec_decoder.SpecError) as caught:
        spec_decoder.decode_pixels(weights.read_bytes(), tokens, found.header, 5)
    assert caught.value.kind == entry["error"]


def test_every_kind_of_error_has_a_vector() -> None:
    assert {entry["error"] for entry in MANIFEST["vectors"] if "error" in entry} == set("CULMD")
    assert all(entry["shows"] for entry in MANIFEST["vectors"])


# --- files that nobody thought of ---


def compare(data: bytes) -> None:
    """Both readers give the same chunks, report the same damage, and end with the same kind of error."""
    ours, theirs = read_by_tokcodec(data), read_by_spec(data)
    assert (ours.kind, ours.damages, ours.complete) == (theirs.kind, theirs.damages, theirs.complete)
    assert [
        (chunk.number, list(chunk.pts), chunk.last_duration, chunk.tokens_crc32, chunk.token_data, chunk.step_frames)
        for chunk in ours.chunks()
    ] == [
        (chunk.number, chunk.pts, chunk.last_duration, chunk.tokens_crc, chunk.token_data, chunk.listed)
        for chunk in theirs.chunks()
    ]


def sealed(data: bytes) -> bytes:
    """The file with every CRC made right again; sizes are as they were."""
    out = bytearray(data)
    out[12:16] = make_vectors.u32(crc32(out[:12]))
    key = b""
    for number, (start, stop) in enumerate(spans(data)):
        out[stop - 4 : stop] = make_vectors.u32(crc32(out[start + 24 : stop - 4]))
        out[start + 20 : start + 24] = make_vectors.u32(crc32(out[start : start + 20] + key))
        key = bytes(out[stop - 4 : stop]) if number == 0 else key
    return bytes(out)


WHOLE = {entry.id: data_of(entry.values[0]) for entry in of_folder("good", "grease")}
SUBJECTS = [WHOLE[f"good/{name}"] for name in ("side_streams", "two_chunks", "variable_timestamps", "still_image")]
SUBJECTS += [WHOLE["grease/private_records"], WHOLE["grease/header_extensions"]]
SUBJECTS += [WHOLE[f"good/steps_{name}"] for name in ("mixed", "two_chunks", "cut")]
SUBJECTS += [WHOLE[f"good/{name}_chunks"] for name in ("picture", "residual", "block")]
SUBJECTS += [WHOLE[f"good/motion_network_{name}"] for name in ("two_chunks", "steps", "with_all")]
VALUES = st.sampled_from([0, 1, 2, 3, 5, 0x7F, 0x80, 0x81, 0xFE, 0xFF])


@settings(max_examples=FORGERIES)
@given(data=st.data(), source=st.sampled_from(SUBJECTS))
def test_two_readers_agree_on_forged_fields(data: st.DataObject, source: bytes) -> None:
    """Bytes that are not what they were, with CRCs that say that they are."""
    out = bytearray(source)
    start, stop = data.draw(st.sampled_from(spans(source)))
    # Not the sizes, lest the records move, nor the upper halves of the counts, for the decoder of the spec
    # lists the chunks that they make out to be missing.
    places = [start + at for at in (4, 5, 6, 7, 8, 9, 12, 13)] + [*range(start + 24, stop - 4)]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        out[place] = data.draw(VALUES)
    compare(sealed(bytes(out)))


@settings(max_examples=FORGERIES)
@given(data=st.data(), source=st.sampled_from(SUBJECTS))
def test_two_readers_agree_on_damage(data: st.DataObject, source: bytes) -> None:
    """Bytes that are altered, cut out, doubled or put in anywhere."""
    out = source
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0 if data.draw(st.integers(0, 9)) == 0 else 16, max(16, len(out))))
        length = data.draw(st.sampled_from([0, 1, 2, 7, 24, 28, 100]))
        cut, new = out[at : at + length], data.draw(st.binary(max_size=4))
        match data.draw(st.integers(0, 3)):
            case 0:
                out = out[:at] + bytes(b ^ 0x10 for b in cut) + out[at + length :]
            case 1:
                out = out[:at] + out[at + length :]
            case 2:
                out = out[:at] + new + out[at:]
            case _:
                out = out[:at] + cut + new + out[at:]
    compare(out)


@settings(max_examples=FORGERIES)
@given(order=st.lists(st.integers(0, 7), max_size=8), source=st.sampled_from(SUBJECTS))
def test_two_readers_agree_on_records_in_any_order(order: list[int], source: bytes) -> None:
    places = spans(source)
    (_, first), rest = places[0], places[1:]
    picked = [rest[number % len(rest)] for number in order]
    compare(source[:first] + b"".join(source[start:stop] for start, stop in picked))


@settings(max_examples=FORGERIES // 3)
@given(data=st.data())
def test_two_decoders_agree_on_any_token_data(data: st.DataObject) -> None:
    """The same tokens, or both refuse; the CRC of the tokens is not asked."""
    steps, rows, columns = (data.draw(st.integers(1, high)) for high in (3, 5, 6))
    levels = data.draw(st.sampled_from([(0, 1), (0, 3, 6), (0, 2, 5, 7, 18)]))
    motion_tokens = data.draw(st.sampled_from([0, 2]))
    motion_maps = data.draw(st.sampled_from([1, 7])) if motion_tokens else 1
    pictures = motion_maps == 7 and data.draw(st.booleans())
    geometry = TokenGeometry(
        bits_per_token=levels[-1],
        level_bits=levels,
        block_tokens=data.draw(st.integers(1, 3)),
        motion_tokens=motion_tokens,
        motion_maps=motion_maps,
        pictures=pictures,
        residuals=pictures and data.draw(st.booleans()),
        intra=pictures and data.draw(st.booleans()),
        motion_network=motion_maps == 7 and data.draw(st.booleans()),
        second_reference=pictures and data.draw(st.booleans()),
    )
    words = data.draw(st.binary(min_size=4, max_size=40))
    if data.draw(st.booleans()):
        shape = (steps, rows, columns)
        blocks = (steps, *geometry.blocks(rows, columns))
        top = np.full(blocks, len(levels) - 1, np.uint8)
        indices = make_vectors.noise(len(words), shape) & np.uint64((1 << levels[-1]) - 1)
        wanted = (make_vectors.noise(words[0], blocks) % np.uint64(len(levels))).astype(np.uint8)
        vectors = np.zeros((steps, *geometry.motion_blocks(rows, columns), 2), np.int16)
        vectors[1:] = (make_vectors.noise(words[1], vectors[1:].shape) % np.uint64(9)).astype(np.int16) - 4
        if geometry.second_reference:
            choice = np.split(vectors, geometry.step_maps, axis=1)[-1]
            choice[..., 0], choice[..., 1] = np.maximum(choice[..., 0] - words[2] % 4, 0), 0
            choice[..., 0].clip(0, 2, out=choice[..., 0])
        picture = None
        if geometry.pictures:
            wanted[0] = 0
            numbers = make_vectors.noise(words[2], (3, 8 * rows, 8 * columns)) % np.uint64(2 + words[3] % 9)
            layout = block_layout(words[2], 8 * rows, 8 * columns, kind="mixed") if geometry.intra else None
            values = numbers.astype(np.int16) - words[3] % 3
            picture = Picture(coefficients=values, scale=words[3] % 64, blocks=layout)
        residuals: list[Picture | None] = []
        for step in range(steps - 1) if geometry.residuals else ():
            numbers = make_vectors.noise(words[step] + 9, (3, 2 * rows, 2 * columns)) % np.uint64(2 + words[2] % 5)
            residual = Picture(coefficients=numbers.astype(np.int16) - words[2] % 2, scale=words[step] % 64)
            residuals.append(residual if residual.coefficients.any() and words[step] % 4 else None)
        whole = TokenChunk(
            indices=indices,
            levels=top,
            geometry=geometry,
            vectors=vectors,
            picture=picture,
            residuals=tuple(residuals),
        )
        words = encode_tokens(truncate(whole, wanted)) + words[: data.draw(st.sampled_from([0, 0, 4]))]
    theirs = spec_decoder.Geometry(
        levels[-1],
        levels,
        geometry.block_tokens,
        motion=bool(geometry.motion_tokens),
        seven=geometry.motion_maps == 7,
        pictures=geometry.pictures,
        residuals=geometry.residuals,
        blocks=geometry.intra,
        network=geometry.motion_network,
        second=geometry.second_reference,
    )
    try:
        expected = spec_decoder.decode_tokens(words, steps, rows, columns, theirs)
    except spec_decoder.SpecError:
        with pytest.raises(CorruptStreamError):
            decode_tokens(words, steps=steps, rows=rows, columns=columns, geometry=geometry)
        return
    found = decode_tokens(words, steps=steps, rows=rows, columns=columns, geometry=geometry)
    assert np.array_equal(found.indices, expected[0])
    assert np.array_equal(found.levels, expected[1])
    assert np.array_equal(found.vectors, expected[2])
    assert (found.picture is None) == (len(expected) == 3)
    pairs = [(found.picture, expected[3])] if len(expected) > 3 else []
    if geometry.residuals:
        pairs += zip(found.residuals, expected[4], strict=True)
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert np.array_equal(one.coefficients, other.coefficients)
            assert one.scale == other.scale
            assert (one.blocks is None) == (other.layout is None)
            assert one.blocks is None or np.array_equal(one.blocks, other.layout)
