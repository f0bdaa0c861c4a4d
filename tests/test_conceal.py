"""Lost chunks filled in: every frame in its time, whole chunks untouched, and nothing invented without saying so."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import tiny_prior
from command_line import called, typed
from media import OneWay, picture
from numpy.typing import NDArray

from tokcodec import Codec
from tokcodec.chunks import ADAPTIVE, decode_chunk, encode_chunk
from tokcodec.concealment import MAX_FILLED_FRAMES, Concealer
from tokcodec.container import (
    ChunkEntry,
    ChunkRecord,
    ContainerWriter,
    StreamHeader,
    read_stream,
)
from tokcodec.continuation import Continuation
from tokcodec.errors import CorruptStreamError, ModelError
from tokcodec.frames import Frame, open_video
from tokcodec.tokens import TokenChunk, spread_levels, truncate
from tokcodec.weights.priors import load_prior
from tokcodec.weights.registry import entry_of_file

FRAMES = 18
"""In chunks of five frames, so that the last chunk has three."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def codec(weights: Path) -> Codec:
    return Codec(model=str(weights), device="cpu")


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_prior.write_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def whole(codec: Codec) -> bytes:
    frames = np.stack([picture(48, 32, index) for index in range(FRAMES)])
    return codec.encode_frames(frames, chunk_frames=5, effort=0, quality=4, frame_rate=Fraction(24))


@pytest.fixture(scope="module")
def shown(codec: Codec, whole: bytes) -> NDArray[np.uint8]:
    """What the undamaged file shows."""
    return codec.decode_frames(whole).frames


def records_of(data: bytes) -> tuple[StreamHeader, list[ChunkRecord], list[int]]:
    """Header, chunks, and the byte where each chunk begins."""
    reader = read_stream(io.BytesIO(data))
    records, offsets = [], []
    for item in reader:
        if isinstance(item, ChunkRecord):
            records.append(item)
            offsets.append(reader.item_offset)
    return reader.header, records, offsets


def without(data: bytes, *numbers: int) -> bytes:
    """The file with a bit of these chunks turned."""
    broken = bytearray(data)
    for number in numbers:
        broken[records_of(data)[2][number] + 60] ^= 0x10
    return bytes(broken)


def tokens_of(data: bytes, number: int) -> TokenChunk:
    header, records, _ = records_of(data)
    return decode_chunk(records[number], header)


def gone_on(codec: Codec, data: bytes, past: TokenChunk, network: Path | None, count: int) -> NDArray[np.uint8]:
    """Frames after a chunk, made here step by step."""
    decoder = codec._coders.decoder(records_of(data)[0])
    decoder.start_chunk()
    for step, indices in enumerate(past.indices):
        decoder.step(indices, past.kept_bits_of(step), past.vectors[step])
    made, rows, columns = [], *past.indices.shape[1:]
    drawing = None if network is None else Continuation(past, load_prior(entry_of_file(network)), temperature=0.0)
    for _ in range(-(-count // 4)):
        if drawing is None:
            nothing = np.zeros((rows, columns), np.uint64)
            made.append(decoder.step(nothing, np.zeros((rows, columns), np.uint8), past.vectors[-1]))
        else:
            kept = spread_levels(drawing.levels, past.geometry, rows=rows, columns=columns)
            made.append(decoder.step(drawing.step(), kept, past.vectors[-1]))
    return np.concatenate(made)[:count]


@pytest.mark.parametrize("lost", [(0,), (1,), (3,), (1, 2), (0, 1, 3)])
def test_every_frame_has_its_time_and_whole_chunks_are_untouched(
    codec: Codec, whole: bytes, shown: NDArray[np.uint8], lost: tuple[int, ...]
):
    found = codec.decode_frames(without(whole, *lost), conceal=True)
    assert found.pts == tuple(range(FRAMES))
    for number in range(4):
        span = slice(5 * number, 5 * number + 5)
        if number not in lost:
            np.testing.assert_array_equal(found.frames[span], shown[span])
        else:
            assert np.any(found.frames[span] != shown[span]), "the chunk is lost"
    assert sorted(n for damage in found.damages for n in damage.missing_chunks) == list(lost), "and reported as lost"


def test_the_decoder_goes_on_with_the_state_that_it_has(codec: Codec, whole: bytes):
    found = codec.decode_frames(without(whole, 1, 2), conceal=True)
    np.testing.assert_array_equal(found.frames[5:15], gone_on(codec, whole, tokens_of(whole, 0), None, 10))


def test_motion_goes_on(tmp_path: Path):
    moving = Codec(model=str(tiny_model.write_weights(tmp_path, motion=True)), device="cpu")
    data = moving_film(moving)
    assert tokens_of(data, 0).vectors[-1].any()
    found = moving.decode_frames(without(data, 1, 2), conceal=True)
    past = tokens_of(data, 0)
    np.testing.assert_array_equal(found.frames[5:15], gone_on(moving, data, past, None, 10))
    resting = replace(past, vectors=np.zeros_like(past.vectors))
    assert np.any(found.frames[5:15] != gone_on(moving, data, resting, None, 10)), "motion shows"


def with_a_step_emptied(data: bytes, number: int) -> bytes:
    """The file with the second step of a chunk keeping nothing: of two later steps that is the usual level."""
    header, records, _ = records_of(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, header) as writer:
        for record in records:
            if record.number == number:
                tokens = decode_chunk(record, header)
                levels = tokens.levels.copy()
                levels[1] = 0
                times = {"number": number, "pts": record.pts, "last_duration": record.last_duration}
                record = encode_chunk(truncate(tokens, levels), entropy=ADAPTIVE, **times)
            writer.write_chunk(record)
    return sink.getvalue()


def moving_film(codec: Codec) -> bytes:
    """A file with motion maps, of which each later step has one that moves."""
    frames = np.stack([picture(48, 32, index) for index in range(FRAMES)])
    data = codec.encode_frames(frames, chunk_frames=5, effort=0, quality=4, frame_rate=Fraction(24))
    header, records, _ = records_of(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, header) as writer:
        for record in records:
            tokens = decode_chunk(record, header)
            tokens.vectors[1:] = [[[9, -5]]]
            times = {"number": record.number, "pts": record.pts, "last_duration": record.last_duration}
            writer.write_chunk(encode_chunk(tokens, entropy=ADAPTIVE, **times))
    return sink.getvalue()


def test_a_prior_fills_in_its_likelier_bits(weights: Path, codec: Codec, whole: bytes, prior: Path):
    learned = Codec(model=str(weights), device="cpu", prior=prior)
    found = learned.decode_frames(without(whole, 2), conceal=True)
    np.testing.assert_array_equal(found.frames[10:15], gone_on(codec, whole, tokens_of(whole, 1), prior, 5))
    expected = codec.decode_frames(without(whole, 2), conceal=True)
    assert np.any(found.frames[10:15] != expected.frames[10:15])
    again = learned.decode_frames(without(whole, 2), conceal=True, forecast=True)
    np.testing.assert_array_equal(again.frames, expected.frames)


def test_a_prior_that_has_nothing_to_draw_is_not_said_to_be_missing(
    weights: Path, codec: Codec, prior: Path, tmp_path: Path
):
    frames = np.stack([picture(48, 32, index) for index in range(18)])
    data = codec.encode_frames(frames, chunk_frames=9, effort=0, quality=4, frame_rate=Fraction(24))
    learned = Codec(model=str(weights), device="cpu", prior=prior)
    target = tmp_path / "a.mkv"
    cases = (
        (data, False, "the prior's likelier bits"),
        (data, True, "what the tokenizer expects next, without a prior"),
        (with_a_step_emptied(data, 0), False, "what the tokenizer expects next, for the prior had nothing to draw"),
        (with_a_step_emptied(data, 0), True, "what the tokenizer expects next, without a prior"),
    )
    for case, forecast, told in cases:
        source = io.BytesIO(without(case, 1))
        result = learned.decode(source, target, codec="ffv1", conceal=True, forecast=forecast, force=True)
        assert result.concealed == 9
        assert f"9 frames were filled in after the chunk before them: {told}" in result.notes


def test_a_loss_at_the_beginning_shows_the_picture_that_follows(codec: Codec, whole: bytes, shown: NDArray[np.uint8]):
    found = codec.decode_frames(without(whole, 0), conceal=True)
    np.testing.assert_array_equal(found.frames[:5], np.repeat(shown[5:6], 5, axis=0))


def test_without_an_index_the_time_between_the_chunks_tells(codec: Codec, whole: bytes, tmp_path: Path):
    for lost, wanted in (((1, 2), range(FRAMES)), ((0,), range(5, FRAMES)), ((3,), range(15))):
        target = tmp_path / f"{lost[0]}.mkv"
        result = codec.decode(OneWay(without(whole, *lost)), target, codec="ffv1", conceal=True)
        assert len(wanted) == result.frames
        assert result.concealed == (10 if lost == (1, 2) else 0)
        assert any("not known how long" in note for note in result.notes) == (lost != (1, 2))
        with open_video(target) as reader:
            times = [round(f.pts * reader.info.time_base * 24) for f in reader if isinstance(f, Frame)]
        assert times == list(wanted)


def test_a_chunk_whose_tokens_alone_are_damaged_has_its_own_times(codec: Codec, whole: bytes):
    header, records, _ = records_of(whole)
    sink = io.BytesIO()
    irregular = (5, 6, 20, 21, 40)
    with ContainerWriter(sink, header) as writer:
        writer.write_chunk(replace(records[0], last_duration=1))
        bad = replace(records[1], pts=irregular, last_duration=10, tokens_crc32=records[1].tokens_crc32 ^ 1)
        writer.write_chunk(bad)
        writer.write_chunk(replace(records[2], pts=tuple(range(50, 55))))
    found = codec.decode_frames(sink.getvalue(), conceal=True)
    assert found.pts == (0, 1, 2, 3, 4, *irregular, 50, 51, 52, 53, 54)
    np.testing.assert_array_equal(found.frames[5:10], gone_on(codec, whole, tokens_of(whole, 0), None, 5))


@pytest.mark.parametrize(("start", "length"), [(6, 3), (5, 5), (3, 9), (8, 4)])
def test_a_range_of_time_is_filled_in_alike(codec: Codec, whole: bytes, tmp_path: Path, start: int, length: int):
    everything = codec.decode_frames(without(whole, 1), conceal=True).frames
    path = tmp_path / "a.tok"
    path.write_bytes(without(whole, 1))
    result = codec.decode(
        path,
        tmp_path / "a.mkv",
        codec="ffv1",
        conceal=True,
        start_seconds=start / 24,
        duration_seconds=length / 24,
    )
    with open_video(tmp_path / "a.mkv") as reader:
        part = np.stack([item.pixels for item in reader if isinstance(item, Frame)])
    np.testing.assert_array_equal(part, everything[start : start + length])
    assert result.concealed == len(set(range(5, 10)) & set(range(start, start + length)))


def test_nothing_is_filled_in_unasked_or_where_nothing_is_lost(codec: Codec, whole: bytes, shown: NDArray[np.uint8]):
    assert len(codec.decode_frames(without(whole, 1)).frames) == FRAMES - 5
    np.testing.assert_array_equal(codec.decode_frames(whole, conceal=True).frames, shown)


def test_where_nothing_is_whole_nothing_is_made_up(codec: Codec, whole: bytes):
    with pytest.raises(CorruptStreamError, match="nothing could be decoded"):
        codec.decode_frames(without(whole, 0, 1, 2, 3), conceal=True)


def test_a_prior_that_was_named_must_be_there(weights: Path, whole: bytes, tmp_path: Path):
    learned = Codec(model=str(weights), device="cpu", prior=tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="cannot read"):
        learned.decode_frames(whole, conceal=True)


def test_times_that_a_file_makes_up_cost_nothing(codec: Codec, whole: bytes):
    header, records, _ = records_of(whole)
    decoder = codec._coders.decoder(header)
    after = replace(records[2], pts=tuple(range(1 << 50, (1 << 50) + 5)))

    def filled(entries: tuple[ChunkEntry, ...], lost: range) -> Concealer:
        concealer = Concealer(
            header, decoder, entries=entries, network=None, load=lambda record: decode_chunk(record, header)
        )
        concealer.passed(records[0])
        concealer.lose(lost)
        assert list(concealer.fill(after)) == []
        return concealer

    huge = tuple(
        ChunkEntry(number=number, offset=100 + number, first_pts=5 * number, frames=MAX_FILLED_FRAMES)
        for number in range(3)
    )
    for entries, lost in (((), range(1, 2)), ((), range(1, 1 << 32)), (huge, range(1, 3))):
        assert "not filled in" in filled(entries, lost).notes[-1]
    backwards = tuple(ChunkEntry(number=n, offset=100 + n, first_pts=0, frames=5) for n in range(2))
    concealer = Concealer(header, decoder, entries=backwards, network=None, load=lambda record: tokens_of(whole, 0))
    concealer.passed(records[0])
    concealer.lose(range(1, 2))
    times = [frame.pts for frame in concealer.fill(records[2])]
    assert times == [], "none of the five lies after the chunk before"


def test_on_the_command_line(weights: Path, whole: bytes, prior: Path, tmp_path: Path):
    source = tmp_path / "a.tok"
    source.write_bytes(without(whole, 1))

    model = ("--weights", weights, "--device", "cpu")
    done = typed("decode", source, tmp_path / "a.mkv", "--conceal", *model)
    assert done.returncode == 10, done.stderr
    assert b"5 of these frames" in done.stdout
    assert b"note: 5 frames were filled in" in done.stderr
    assert b"without a prior" in done.stderr
    assert b"lost: byte" in done.stderr
    done = called("decode", source, tmp_path / "b.mkv", "--conceal", "--prior", prior, "--json", *model)
    assert done.returncode == 10, done.stderr
    values = json.loads(done.stdout)
    assert (values["frames"], values["concealed"]) == (FRAMES, 5)
    assert "the prior's likelier bits" in values["notes"][0]
    done = called("decode", source, tmp_path / "c.mkv", "--forecast", *model)
    assert done.returncode == 2
    assert b"hint: add --conceal" in done.stderr
