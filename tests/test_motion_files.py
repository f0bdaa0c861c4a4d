"""Files whose motion maps a network of whole numbers helped to code, and files of before it (spec 4.1 and 7.14)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from command_line import called
from picture_films import glide
from test_tokens_files import make_tok, some_chunk

from tokcodec import bits
from tokcodec.bits import encode_tokens, motion_bit_count, tokens_crc32
from tokcodec.chunks import ADAPTIVE, encode_chunk
from tokcodec.codec import Codec
from tokcodec.container import ContainerWriter, StreamHeader, read_stream
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.geometry import MOTION_MAPS, MOTION_TOKENS
from tokcodec.inspection import survey
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.tokens import TokenChunk, TokenGeometry
from tokcodec.tokenset import TokenDataset, read_chunk_records, read_chunks
from tokcodec.training.prior_data import load_chunks
from tokcodec.trim import trim

SEVEN = TokenGeometry(motion_tokens=MOTION_TOKENS, motion_maps=MOTION_MAPS)
BY_NETWORK = replace(SEVEN, motion_network=True)


def file_of(chunks: list[TokenChunk]) -> bytes:
    """A file of these chunks of nine frames."""
    header = read_stream(io.BytesIO(make_tok(geometry=chunks[0].geometry))).header
    sink = io.BytesIO()
    with ContainerWriter(sink, replace(header, side_streams=(), extensions=())) as writer:
        for number, chunk in enumerate(chunks):
            pts = tuple(range(9 * number, 9 * number + 9))
            writer.write_chunk(encode_chunk(chunk, number=number, pts=pts, last_duration=1, entropy=ADAPTIVE))
    return sink.getvalue()


def recoded(data: bytes, *, network: bool) -> bytes:
    """The same tokens in a file that says, or does not say, that a network helped."""
    sink, writer = io.BytesIO(), None
    for header, record, chunk in read_chunk_records(io.BytesIO(data)):
        geometry = replace(header.geometry, motion_network=network)
        if writer is None:
            writer = ContainerWriter(sink, replace(header, geometry=geometry, extensions=()))
        writer.write_chunk(
            encode_chunk(
                replace(chunk, geometry=geometry),
                number=record.number,
                pts=record.pts,
                last_duration=record.last_duration,
                step_frames=record.step_frames,
                entropy=ADAPTIVE,
            )
        )
    assert writer is not None
    writer.close()
    return sink.getvalue()


def header_of(data: bytes) -> StreamHeader:
    return read_stream(io.BytesIO(data)).header


def test_chunks_of_a_file_are_alike_wherever_they_are() -> None:
    data = make_tok(chunks=1, geometry=BY_NETWORK)
    (record,) = (record for _, record, _ in read_chunk_records(io.BytesIO(data)))
    assert record.token_data == encode_tokens(some_chunk(geometry=BY_NETWORK))
    found = file_of([some_chunk(seed, geometry=BY_NETWORK) for seed in (1, 0, 0)])
    records = [record for _, record, _ in read_chunk_records(io.BytesIO(found))]
    assert [each.token_data == record.token_data for each in records] == [False, True, True]


@pytest.fixture(scope="module", params=[False, True], ids=["tokens", "blocks"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    folder = tmp_path_factory.mktemp("weights")
    path = tiny_model.write_weights(folder, motion=7, pictures=request.param, blocks=request.param)
    return Codec(model=str(path), device="cpu", entropy="adaptive")


@pytest.fixture(scope="module")
def film(codec: Codec) -> bytes:
    return codec.encode_frames(glide(9), chunk_frames=5, quality=4, effort=0, frame_rate=24, scene_cuts=False)


def test_new_files_have_the_network_and_old_ones_are_shown_alike(codec: Codec, film: bytes) -> None:
    assert header_of(film).geometry.motion_network
    old = recoded(film, network=False)
    assert not header_of(old).geometry.motion_network
    assert old != film
    np.testing.assert_array_equal(codec.decode_frames(old).frames, codec.decode_frames(film).frames)
    for one, other in zip(read_chunks(io.BytesIO(film)), read_chunks(io.BytesIO(old)), strict=True):
        assert one.vectors[1:].any()
        np.testing.assert_array_equal(one.vectors, other.vectors)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert tokens_crc32(one) == tokens_crc32(other), "the checksum is of the tokens, however they are coded"
    records = [[record for _, record, _ in read_chunk_records(io.BytesIO(data))] for data in (film, old)]
    assert [each.tokens_crc32 for each in records[0]] == [each.tokens_crc32 for each in records[1]]
    for data in (film, old):
        found = survey(io.BytesIO(data), check_tokens=True)
        assert (found.complete, found.chunks) == (True, 2)
    assert recoded(old, network=True) == recoded(film, network=True)


def test_a_file_that_says_the_wrong_thing_is_damaged(film: bytes) -> None:
    """Bits that a network helped to code do not decode without it, nor the other way round."""
    for data in (film, recoded(film, network=False)):
        header, sink = header_of(data), io.BytesIO()
        wrong = replace(header.geometry, motion_network=not header.geometry.motion_network)
        with ContainerWriter(sink, replace(header, geometry=wrong, extensions=())) as writer:
            for _, record, _ in read_chunk_records(io.BytesIO(data)):
                writer.write_chunk(record)
        found = survey(io.BytesIO(sink.getvalue()), check_tokens=True)
        assert (found.chunks, len(found.damages)) == (0, 2)


@pytest.mark.parametrize("network", [True, False])
def test_files_stay_of_their_kind(codec: Codec, film: bytes, network: bool) -> None:
    """Trimmed, and as arrays and back."""
    data = recoded(film, network=network)
    sink = io.BytesIO()
    trim(io.BytesIO(data), sink, quality=2)
    assert header_of(sink.getvalue()).geometry == header_of(data).geometry
    assert survey(io.BytesIO(sink.getvalue()), check_tokens=True).complete
    assert tok_bytes(token_arrays(io.BytesIO(data)), entropy=ADAPTIVE).getvalue() == data


def test_headers_say_that_there_is_a_network() -> None:
    header = replace(header_of(make_tok(geometry=BY_NETWORK)), extensions=())
    limits = read_stream.__kwdefaults__["limits"]

    def parsed(data: bytes) -> StreamHeader:
        return parse_header(data, offset=0, limits=limits, understood=())

    for geometry in (SEVEN, BY_NETWORK):
        assert parsed(pack_header(replace(header, geometry=geometry))).geometry == geometry
    plain, coded = (pack_header(replace(header, geometry=geometry)) for geometry in (SEVEN, BY_NETWORK))
    (at,) = np.flatnonzero(np.frombuffer(plain, np.uint8) != np.frombuffer(coded, np.uint8))
    assert (plain[at], coded[at]) == (0x06, 0x46)
    one = TokenGeometry(motion_tokens=MOTION_TOKENS, motion_network=True)
    for wrong in (one, replace(one, motion_tokens=0)):
        with pytest.raises(UsageError, match="motion maps by a network, and no seven motion maps"):
            pack_header(replace(header, geometry=wrong))
    for flags in (0x40, 0x41, 0x42):
        with pytest.raises(CorruptStreamError, match="motion maps by a network, and no seven motion maps"):
            parsed(plain[:at] + bytes([flags]) + plain[at + 1 :])
    with pytest.raises(CorruptStreamError, match="a second reference, and no first pictures"):
        parsed(plain[:at] + bytes([0xC6]) + plain[at + 1 :])


# --- without a tokenizer ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("geometry", [SEVEN, BY_NETWORK], ids=["without", "with"])
def test_tokens_go_out_and_come_back(suffix: str, geometry: TokenGeometry, tmp_path: Path) -> None:
    data = make_tok(geometry=geometry)
    path = tmp_path / f"tokens{suffix}"
    write_arrays(path, token_arrays(io.BytesIO(data)), suffix=suffix)
    again = tok_bytes(read_arrays(path), entropy=ADAPTIVE).getvalue()
    assert header_of(again).geometry == geometry
    for before, after in zip(read_chunks(io.BytesIO(data)), read_chunks(io.BytesIO(again)), strict=True):
        assert before.geometry == after.geometry == geometry
        assert before.vectors[1:].any()
        np.testing.assert_array_equal(before.vectors, after.vectors)
        np.testing.assert_array_equal(before.indices, after.indices)


def test_the_command_line_keeps_the_network(tmp_path: Path) -> None:
    (tmp_path / "a.tok").write_bytes(make_tok(geometry=BY_NETWORK))
    for words in (("tokens", "a.tok", "a.npz"), ("tokens", "a.npz", "b.tok"), ("verify", "b.tok")):
        run = called(*words, "-q", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
    assert header_of((tmp_path / "b.tok").read_bytes()).geometry == BY_NETWORK
    values = json.loads(called("info", "--json", "b.tok", cwd=tmp_path).stdout)
    wanted = [motion_bit_count(chunk) for chunk in read_chunks(io.BytesIO((tmp_path / "b.tok").read_bytes()))]
    assert [chunk["motion_bits"] for chunk in values["chunk_bits"]] == wanted


def test_a_data_set_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.tok").write_bytes(make_tok(geometry=BY_NETWORK))
    data = TokenDataset(tmp_path)
    assert len(data) == 2
    for number in (0, 1):
        wanted = some_chunk(number, geometry=BY_NETWORK)
        np.testing.assert_array_equal(data[number]["indices"].numpy(), wanted.indices.astype(np.int64))
    geometry, chunks = load_chunks(tmp_path)
    assert (geometry, len(chunks)) == (BY_NETWORK, 2)


def test_files_of_before_lie_beside_them_in_a_folder(tmp_path: Path) -> None:
    """How motion is coded is nothing that tokens mean."""
    for number, kind in enumerate((SEVEN, BY_NETWORK)):
        (tmp_path / f"{number}.tok").write_bytes(file_of([some_chunk(number, geometry=kind)]))
    assert len(TokenDataset(tmp_path)) == 2
    geometry, chunks = load_chunks(tmp_path)
    assert [chunk.geometry for chunk in chunks] == [geometry, BY_NETWORK]
    assert geometry == SEVEN


@pytest.mark.parametrize("maps", [0, 1])
def test_one_map_has_no_network(maps: int) -> None:
    geometry = TokenGeometry(motion_tokens=MOTION_TOKENS * maps, motion_network=True)
    with pytest.raises(UsageError, match="a network for motion is one of 7 maps, not of 1"):
        encode_tokens(some_chunk(0, geometry=geometry))


def test_files_without_it_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModelError("not there")

    monkeypatch.setattr(bits, "motion_network", missing)
    for geometry in (SEVEN, TokenGeometry(motion_tokens=MOTION_TOKENS), TokenGeometry()):
        assert survey(io.BytesIO(make_tok(geometry=geometry)), check_tokens=True).complete
    with pytest.raises(ModelError, match="not there"):
        make_tok(geometry=BY_NETWORK)
