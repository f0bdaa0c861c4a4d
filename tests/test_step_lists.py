"""Lists of steps (spec 3.2, 5.4): in the container, and in all that has to keep them."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from variants import HYBRID

from tokcodec.chunks import ADAPTIVE, decode_chunk, encode_chunk
from tokcodec.codec import Codec
from tokcodec.container import ChunkRecord, ContainerWriter, StreamHeader, read_stream
from tokcodec.container.records import pack_chunk, parse_chunk
from tokcodec.errors import LimitError, UsageError
from tokcodec.geometry import STEP_FRAMES, usual_steps
from tokcodec.inspection import survey
from tokcodec.prediction import predict
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.trim import trim

Frames = NDArray[np.uint8]

# --- the container ---

HEADER = StreamHeader(
    width=16,
    height=16,
    time_base=Fraction(1, 25),
    max_chunk_frames=300,
    tokenizer_digest=bytes(32),
    tokenizer_name="hybrid",
    geometry=HYBRID.geometry,
)


def record(step_frames: tuple[int, ...], *, cut: int = 0) -> ChunkRecord:
    count = 1 + sum(step_frames) - cut
    return ChunkRecord(
        number=0, pts=tuple(range(count)), last_duration=1, tokens_crc32=7, token_data=b"data", step_frames=step_frames
    )


@given(step_frames=st.lists(st.sampled_from(STEP_FRAMES), min_size=1, max_size=70), cut=st.integers(0, 3))
def test_lists_come_back(step_frames: list[int], cut: int):
    wanted = record(usual_steps(tuple(step_frames)), cut=min(cut, step_frames[-1] - 1))
    if not wanted.step_frames:
        wanted = replace(wanted, pts=tuple(range(1 + sum(step_frames))))
    data = pack_chunk(wanted, header=HEADER)
    limits = read_stream.__kwdefaults__["limits"]
    assert parse_chunk(data, number=0, offset=0, header=HEADER, limits=limits) == wanted
    steps = HEADER.geometry.steps(wanted.frames, wanted.step_frames)
    assert steps == 1 + len(step_frames)
    each = [HEADER.geometry.frames_of_step(step, wanted.step_frames) for step in range(steps)]
    assert each == [1, *step_frames]


def test_a_writer_refuses_lists_that_cannot_be():
    for wrong in (
        record((4, 4)),
        record((4, 3)),
        record((2, 2), cut=2),
        replace(record((1, 2)), pts=(0, 1, 2, 3, 4)),
    ):
        with pytest.raises(UsageError):
            pack_chunk(wrong, header=HEADER)
    with pytest.raises(UsageError, match="seven"):
        pack_chunk(record((1,)), header=replace(HEADER, geometry=replace(HEADER.geometry, motion_maps=1)))


def test_steps_count_against_the_limit():
    limits = replace(read_stream.__kwdefaults__["limits"], chunk_tokens=40)
    data = pack_chunk(record((4,) * 8 + (1,)), header=HEADER)
    assert parse_chunk(data, number=0, offset=0, header=HEADER, limits=limits).frames == 34
    data = pack_chunk(record((1,) * 12), header=HEADER)
    with pytest.raises(LimitError, match="52 tokens"):
        parse_chunk(data, number=0, offset=0, header=HEADER, limits=limits)


# --- all that keeps them ---


def noise(height: int, width: int, *, seed: int, blot: int = 12) -> Frames:
    """A picture of soft blots, uint8 `(height, width, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, height // blot + 1, width // blot + 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (255 * fine[0].expand(3, -1, -1).permute(1, 2, 0)).to(torch.uint8).numpy()


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return Codec(model=str(tiny_model.write_weights(tmp_path, motion=7)), device="cpu")


def film(codec: Codec, *lists: tuple[int, ...], cut: int = 0) -> bytes:
    """A file of chunks with such lists, of tokens that move."""
    frames = np.stack([noise(32, 48, seed=number) for number in range(2)])
    data = codec.encode_frames(frames, quality=4, effort=0, frame_rate=24, scene_cuts=False)
    reader = read_stream(io.BytesIO(data))
    first = next(item for item in reader if isinstance(item, ChunkRecord))
    tokens, sink, pts = decode_chunk(first, reader.header), io.BytesIO(), 0
    with ContainerWriter(sink, replace(reader.header, max_chunk_frames=65)) as writer:
        for number, step_frames in enumerate(lists):
            count = 1 + sum(step_frames) - (cut if number == len(lists) - 1 else 0)
            later = [1] * len(step_frames)
            many = replace(
                tokens, indices=tokens.indices[[0, *later]], levels=tokens.levels[[0, *later]], vectors=np.empty(0)
            )
            vectors = np.repeat(tokens.vectors[:1], 1 + len(later), axis=0)
            vectors[1:, : vectors.shape[1] // 7] = 9, -5
            chunk = encode_chunk(
                replace(many, vectors=vectors),
                number=number,
                pts=tuple(range(pts, pts + count)),
                last_duration=1,
                step_frames=usual_steps(step_frames),
                entropy=ADAPTIVE,
            )
            writer.write_chunk(chunk)
            pts += count
    return sink.getvalue()


def records_of(data: bytes) -> list[ChunkRecord]:
    return [item for item in read_stream(io.BytesIO(data)) if isinstance(item, ChunkRecord)]


def test_frames_of_short_steps_are_some_of_those_of_long_ones(codec: Codec):
    usual = codec.decode_frames(film(codec, (4, 4))).frames
    found = codec.decode_frames(film(codec, (1, 2))).frames
    np.testing.assert_array_equal(found, usual[[0, 4, 6, 8]])
    report = survey(io.BytesIO(film(codec, (1, 2), (4,))), check_tokens=True)
    assert (report.complete, report.frames, report.chunks) == (True, 9, 2)
    assert [chunk.tokens for chunk in report.chunk_bits] == [3 * 24, 2 * 24]
    assert report.step_counts == {4: 1, 2: 1, 1: 1}
    assert [chunk["steps_by_frames"] for chunk in report.to_dict()["chunk_bits"]] == [{"2": 1, "1": 1}, {"4": 1}]


def test_a_part_of_a_file_begins_within_a_chunk(codec: Codec, tmp_path: Path):
    data = film(codec, (1, 2, 4, 1), (2, 1))
    whole = codec.decode_frames(data).frames
    path = tmp_path / "a.tok"
    path.write_bytes(data)
    codec.decode(path, tmp_path / "part.y4m", start_seconds=2 / 24, duration_seconds=9 / 24)
    with av.open(str(tmp_path / "part.y4m")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9
    assert len(whole) == 13


def test_trim_keeps_lists(codec: Codec):
    data = film(codec, (1, 2, 4), (2,))
    for options in ({"quality": 1}, {"bits_per_pixel": 0.5}):
        sink = io.BytesIO()
        trim(io.BytesIO(data), sink, **options)  # type: ignore[arg-type]
        assert [r.step_frames for r in records_of(sink.getvalue())] == [(1, 2, 4), (2,)]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_lists_go_out_as_arrays_and_come_back(codec: Codec, suffix: str, tmp_path: Path):
    data = film(codec, (1, 2, 4), (4,), (2,), cut=1)
    arrays = token_arrays(io.BytesIO(data))
    assert arrays["chunk_steps"].tolist() == [4, 2, 2]
    assert arrays["step_frames"].tolist() == [1, 1, 2, 4, 1, 4, 1, 2]
    write_arrays(tmp_path / f"a{suffix}", arrays, suffix=suffix)
    back = read_arrays(tmp_path / f"a{suffix}")
    assert tok_bytes(back, entropy=ADAPTIVE).read() == data
    assert "chunk_steps" not in token_arrays(io.BytesIO(film(codec, (4,), (4, 4))))
    for wrong in (
        {"chunk_steps": back["chunk_steps"][:-1]},
        {"chunk_steps": back["chunk_steps"] + 1},
        {"chunk_steps": np.asarray([0, 6, 2])},
        {"step_frames": back["step_frames"] + 0.5},
        {"step_frames": np.where(np.arange(8) == 0, 9, back["step_frames"])},
    ):
        with pytest.raises(UsageError, match=r"chunk_steps|steps of chunk 0: 9"):
            tok_bytes({**back, **wrong}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="go together"):
        tok_bytes({name: array for name, array in back.items() if name != "step_frames"}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="3 frames"):
        tok_bytes({**back, "step_frames": back["step_frames"] + (back["step_frames"] == 2)}, entropy=ADAPTIVE)


@pytest.mark.parametrize(
    ("step_frames", "cut", "expected"),
    [
        ((1, 2), 0, (1, 2, 2, 2, 2)),  # six frames more, as the last step went
        ((2, 1), 0, (2, *[1] * 7)),
        ((2, 4), 3, (2, 2, 2, 2, 2)),  # the last step is not whole, and is made anew: seven frames after the first two
        ((4, 2), 1, ()),
    ],
)
def test_predictions_go_on_as_the_last_whole_step(
    codec: Codec, step_frames: tuple[int, ...], cut: int, expected: tuple[int, ...]
):
    data = film(codec, step_frames, cut=cut)
    sink = io.BytesIO()
    result = predict(io.BytesIO(data), sink, seconds=6 / 24, forecast=True)
    longer = records_of(sink.getvalue())[0]
    count = records_of(data)[0].frames
    assert longer.frames == count + 6 == result.frames
    assert longer.step_frames == expected
    assert result.predicted - result.replaced == 6
    found = codec.decode_frames(sink.getvalue()).frames
    whole = count - result.replaced
    np.testing.assert_array_equal(found[:whole], codec.decode_frames(data).frames[:whole])


def test_what_is_lost_is_filled_in_as_the_last_step_went(codec: Codec):
    data = film(codec, (4, 1), (1, 1, 1), (4,))
    records = records_of(data)
    cut = data.replace(records[1].token_data, bytes(len(records[1].token_data)), 1)
    assert cut != data
    found = codec.decode_frames(cut, conceal=True, forecast=True).frames
    whole = codec.decode_frames(data).frames
    assert found.shape == whole.shape
    np.testing.assert_array_equal(found[:6], whole[:6])
    sink = io.BytesIO()
    predict(io.BytesIO(film(codec, (4, 1))), sink, seconds=4 / 24, forecast=True)
    gone_on = codec.decode_frames(sink.getvalue()).frames
    np.testing.assert_array_equal(found[6:10], gone_on[6:10])
