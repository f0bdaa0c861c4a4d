"""Files to files through the Python API, with the weights that ship."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import OneWay, make_film, make_video, psnr

import tokcodec
from tokcodec import Codec, mapping
from tokcodec.container import ChunkRecord, SidePacketBatch, read_stream
from tokcodec.errors import (
    CorruptStreamError,
    MediaError,
    ModelError,
    OutputError,
    UsageError,
)
from tokcodec.frames import Frame, Packet, open_video
from tokcodec.geometry import TokenGeometry
from tokcodec.inspection import survey
from tokcodec.metrics import psnr_of


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    make_film(path)
    return path


def frames_of(path: Path) -> list[Frame]:
    with open_video(path) as reader:
        return [item for item in reader if isinstance(item, Frame)]


def packets_of(path: Path) -> list[Packet]:
    with open_video(path) as reader:
        return [item for item in reader if isinstance(item, Packet)]


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """A camera that moves over a real photograph."""
    from skimage import data

    source = data.chelsea()
    return np.stack([source[i : i + height, 2 * i : 2 * i + width] for i in range(count)])


def test_round_trip_of_arrays(codec: Codec):
    frames = photographs(9, 96, 128)
    data = codec.encode_frames(frames, frame_rate=Fraction(30000, 1001))
    decoded = codec.decode_frames(data)
    assert decoded.frames.shape == frames.shape
    assert decoded.pts == tuple(range(9))
    assert decoded.time_base == Fraction(1001, 30000)
    assert decoded.damages == ()
    assert psnr(frames, decoded.frames) > 20, "a person recognises everything"


def test_more_quality_costs_more_bits_and_gives_a_better_picture(codec: Codec):
    frames = photographs(5, 128, 160)
    sizes, scores = [], []
    for quality in range(1, 7):
        data = codec.encode_frames(frames, quality=quality)
        sizes.append(len(data))
        scores.append(psnr(frames, codec.decode_frames(data).frames))
    assert sizes == sorted(sizes)
    assert scores == sorted(scores)


def test_the_coded_file_is_smaller_than_its_raw_tokens(codec: Codec):
    data = codec.encode_frames(photographs(17, 192, 256), effort=0)
    found = survey(io.BytesIO(data), check_tokens=True)
    assert found.complete
    assert found.raw_token_bits == found.header.geometry.bits_per_token * 4 * 24 * 32  # the first step keeps none
    assert 8 * found.token_bytes < 0.95 * found.raw_token_bits


def test_same_frames_size_rate_and_timestamps(codec: Codec, tmp_path: Path):
    source = tmp_path / "in.mp4"
    make_video(source, count=11, size=(66, 50))
    result = codec.encode(source, tmp_path / "a.tok")
    back = codec.decode(tmp_path / "a.tok", tmp_path / "out.mp4")
    assert result.frames == back.frames == 11
    before, after = frames_of(source), frames_of(tmp_path / "out.mp4")
    with open_video(source) as one, open_video(tmp_path / "out.mp4") as two:
        assert (one.info.width, one.info.height) == (two.info.width, two.info.height) == (66, 50)
        assert one.info.frame_rate == two.info.frame_rate
        times = [[f.pts * reader.info.time_base for f in fs] for reader, fs in ((one, before), (two, after))]
    assert times[0] == times[1]


def test_variable_frame_rate_is_kept(codec: Codec, tmp_path: Path):
    source = tmp_path / "vfr.mkv"
    stamps = [0, 40, 50, 200, 210, 1000]
    make_video(source, pts=stamps, time_base=Fraction(1, 1000))
    codec.encode(source, tmp_path / "a.tok")
    assert not tokcodec.inspect(tmp_path / "a.tok").regular
    codec.decode(tmp_path / "a.tok", tmp_path / "out.mkv")
    assert [frame.pts for frame in frames_of(tmp_path / "out.mkv")] == stamps


def test_audio_and_subtitles_come_back_unchanged(codec: Codec, film: Path, tmp_path: Path):
    codec.encode(film, tmp_path / "a.tok", chunk_frames=5)
    codec.decode(tmp_path / "a.tok", tmp_path / "out.mkv")
    before, after = packets_of(film), packets_of(tmp_path / "out.mkv")
    assert {p.stream for p in before} == {p.stream for p in after}
    for stream in {p.stream for p in before}:
        assert [p.data for p in before if p.stream == stream] == [p.data for p in after if p.stream == stream]
        assert [p.pts for p in before if p.stream == stream] == [p.pts for p in after if p.stream == stream]
    inspection = tokcodec.inspect(tmp_path / "a.tok")
    assert inspection.side_bytes == sum(len(p.data) for p in before)


def test_audio_can_be_left_behind(codec: Codec, film: Path, tmp_path: Path):
    codec.encode(film, tmp_path / "without.tok", audio=False)
    assert tokcodec.inspect(tmp_path / "without.tok").header.side_streams == ()
    codec.encode(film, tmp_path / "with.tok")
    codec.decode(tmp_path / "with.tok", tmp_path / "out.mkv", audio=False)
    assert packets_of(tmp_path / "out.mkv") == []


def test_chunks_are_independent(codec: Codec):
    frames = photographs(13, 48, 64)
    both = codec.decode_frames(codec.encode_frames(frames, chunk_frames=5)).frames
    alone = codec.decode_frames(codec.encode_frames(frames[5:10], chunk_frames=5)).frames
    np.testing.assert_array_equal(both[5:10], alone)


def test_a_still_image_and_its_png(codec: Codec, tmp_path: Path):
    from PIL import Image

    pixels = photographs(1, 61, 83)[0]
    Image.fromarray(pixels).save(tmp_path / "in.png")
    codec.encode(tmp_path / "in.png", tmp_path / "a.tok")
    inspection = tokcodec.inspect(tmp_path / "a.tok")
    assert inspection.header.still_image
    assert inspection.frames == 1
    codec.decode(tmp_path / "a.tok", tmp_path / "out.png")
    back = np.asarray(Image.open(tmp_path / "out.png"))
    assert back.shape == pixels.shape
    assert psnr(pixels, back) > 20


@pytest.mark.parametrize("size", [(2, 2), (17, 9)])
def test_small_and_odd_sizes(codec: Codec, tmp_path: Path, size: tuple[int, int]):
    source = tmp_path / "in.mkv"
    make_video(source, size=size, codec="ffv1", pixel_format="bgr0", count=6)
    codec.encode(source, tmp_path / "a.tok")
    for name in ("out.mp4", "out.y4m", "out.mkv", "pictures"):
        codec.decode(tmp_path / "a.tok", tmp_path / name)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6
    assert frames_of(tmp_path / "out.mp4")[0].pixels.shape == (size[1], size[0], 3)


def test_ffv1_gives_back_what_the_decoder_made(codec: Codec, tmp_path: Path):
    frames = photographs(5, 48, 64)
    data = codec.encode_frames(frames)
    codec.decode(io.BytesIO(data), tmp_path / "out.mkv", codec="ffv1")
    decoded = codec.decode_frames(data).frames
    np.testing.assert_array_equal(np.stack([f.pixels for f in frames_of(tmp_path / "out.mkv")]), decoded)


def test_start_and_duration(codec: Codec, tmp_path: Path):
    frames = photographs(24, 32, 32)
    path = tmp_path / "a.tok"
    path.write_bytes(codec.encode_frames(frames, frame_rate=10, chunk_frames=5))
    everything = codec.decode_frames(path.read_bytes()).frames
    result = codec.decode(path, tmp_path / "part.mkv", codec="ffv1", start_seconds=0.75, duration_seconds=0.9)
    part = frames_of(tmp_path / "part.mkv")
    assert [f.pts for f in part] == [100 * n for n in range(8, 17)]
    np.testing.assert_array_equal(np.stack([f.pixels for f in part]), everything[8:17])
    assert result.chunks == 3, "only the chunks in the range are decoded"
    codec.encode(tmp_path / "part.mkv", tmp_path / "b.tok", start_seconds=0.2, duration_seconds=0.3)
    assert tokcodec.inspect(tmp_path / "b.tok").frames == 3
    with pytest.raises(UsageError, match="seek"):
        codec.decode(OneWay(path.read_bytes()), tmp_path / "c.mkv", start_seconds=1.0)


def test_a_part_of_a_film_has_that_part_of_its_sound(codec: Codec, film: Path, tmp_path: Path):
    codec.encode(film, tmp_path / "a.tok", chunk_frames=5)
    codec.decode(tmp_path / "a.tok", tmp_path / "part.mkv", start_seconds=0.45, duration_seconds=0.2)
    with open_video(film, start_seconds=0.45, duration_seconds=0.2) as reader:
        wanted = [item for item in reader if isinstance(item, Packet)]
    assert len(wanted) > 5
    assert [packet.data for packet in packets_of(tmp_path / "part.mkv")] == [packet.data for packet in wanted]
    for wrong in ({"start_seconds": float("inf")}, {"duration_seconds": float("nan")}, {"start_seconds": 100.0}):
        with pytest.raises(UsageError):
            codec.decode(tmp_path / "a.tok", tmp_path / "b.mkv", **wrong)


def test_progress_knows_the_total(codec: Codec, film: Path, tmp_path: Path):
    calls: list[tuple[int, int | None]] = []
    codec.encode(film, tmp_path / "a.tok", progress=lambda *call: calls.append(call))
    assert calls[-1][0] == 18
    codec.decode(tmp_path / "a.tok", tmp_path / "a.mkv", progress=lambda *call: calls.append(call))
    assert calls[-1] == (18, 18)


def test_a_codec_decodes_with_its_own_model(tmp_path: Path):
    import tiny_model

    path = tiny_model.write_weights(tmp_path)
    own = Codec(model=str(path), device="cpu")
    frames = photographs(2, 16, 16)
    assert own.decode_frames(own.encode_frames(frames)).frames.shape == frames.shape


def test_orphans_of_killed_runs_are_removed(tmp_path: Path):
    from tokcodec import output

    orphan = tmp_path / f"{output._part_prefix()}999999999-abcd.part"
    foreign = tmp_path / ".tokcodec-00000000-999999999-abcd.part"
    for path in (orphan, foreign):
        path.write_bytes(b"half")
    with output.atomic(tmp_path / "a", force=False) as part:
        part.write_bytes(b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.name, "a"]


def test_streams_that_cannot_seek(codec: Codec, tmp_path: Path):
    source = tmp_path / "in.y4m"
    make_video(source, codec="wrapped_avframe", container="yuv4mpegpipe", count=6)
    sink = io.BytesIO()
    codec.encode(OneWay(source.read_bytes()), sink)
    out = io.BytesIO()
    result = codec.decode(OneWay(sink.getvalue()), out)
    assert result.frames == 6
    assert out.getvalue().startswith(b"YUV4MPEG2")


def test_damage_costs_a_chunk_and_is_reported(codec: Codec, tmp_path: Path):
    frames = photographs(15, 32, 48)
    data = bytearray(codec.encode_frames(frames, chunk_frames=5))
    whole = codec.decode_frames(bytes(data)).frames
    reader = read_stream(io.BytesIO(bytes(data)))
    offsets = [reader.item_offset for item in reader if isinstance(item, ChunkRecord)]
    data[offsets[1] + 60] ^= 0x10
    decoded = codec.decode_frames(bytes(data))
    np.testing.assert_array_equal(decoded.frames, np.concatenate([whole[:5], whole[10:]]))
    assert decoded.pts == (*range(5), *range(10, 15))
    assert [list(damage.missing_chunks) for damage in decoded.damages] == [[1]]


def test_nothing_to_decode_is_an_error_and_leaves_no_output(codec: Codec, tmp_path: Path):
    data = bytearray(codec.encode_frames(photographs(5, 32, 48)))
    reader = read_stream(io.BytesIO(bytes(data)))
    next(iter(reader))
    data[reader.item_offset + 60] ^= 0x10
    (tmp_path / "a.tok").write_bytes(data)
    with pytest.raises(CorruptStreamError, match="nothing could be decoded"):
        codec.decode(tmp_path / "a.tok", tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tok"]


def test_outputs_are_not_replaced_and_not_half_written(codec: Codec, tmp_path: Path):
    source = tmp_path / "in.mp4"
    make_video(source, count=3)
    target = tmp_path / "a.tok"
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        codec.encode(source, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(MediaError):
        codec.encode(target, tmp_path / "b.tok")

    def stop(_: int, __: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codec.encode(source, target, force=True, progress=stop)
    assert target.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tok", "in.mp4"]
    codec.encode(source, target, force=True)
    assert tokcodec.inspect(target).frames == 3
    with pytest.raises(OutputError, match="folder does not exist"):
        codec.encode(source, tmp_path / "none" / "a.tok")


def test_folders_of_pictures_are_replaced_only_when_they_are_ours(codec: Codec, tmp_path: Path):
    data = codec.encode_frames(photographs(2, 16, 16))
    folder = tmp_path / "pictures"
    codec.decode(io.BytesIO(data), folder)
    with pytest.raises(OutputError, match="exists already"):
        codec.decode(io.BytesIO(data), folder)
    codec.decode(io.BytesIO(data), folder, force=True)
    assert len(list(folder.iterdir())) == 2
    (folder / "notes.txt").write_text("keep me")
    with pytest.raises(OutputError, match="other files"):
        codec.decode(io.BytesIO(data), folder, force=True)
    assert (folder / "notes.txt").read_text() == "keep me"


def test_values_out_of_range(codec: Codec, tmp_path: Path):
    frames = photographs(2, 16, 16)
    for wrong in ({"quality": 0}, {"quality": 7}, {"chunk_frames": 4}, {"chunk_frames": 0}):
        with pytest.raises(UsageError):
            codec.encode_frames(frames, **wrong)
    for array in (frames.astype(float), frames[0], frames[..., :2], frames[:0]):
        with pytest.raises(UsageError, match="frames must"):
            codec.encode_frames(array)
    with pytest.raises(UsageError):
        codec.decode(io.BytesIO(b""), tmp_path / "a.mp4", start_seconds=-1)
    for rate in (0, float("nan"), "25", 1e-9):
        with pytest.raises(UsageError, match="frame rate"):
            codec.encode_frames(frames, frame_rate=rate)
    for wrong in ({"quality": "3"}, {"quality": 3.5}, {"quality": True}):
        with pytest.raises(UsageError):
            codec.encode_frames(frames, **wrong)
    with pytest.raises(UsageError):
        codec.encode_frames([frames])
    assert codec.decode_frames(codec.encode_frames(frames, frame_rate=29.97)).time_base == Fraction(100, 2997)
    with pytest.raises(ModelError):
        Codec(model="nonesuch")


def test_another_model_is_its_own_error(codec: Codec, tmp_path: Path):
    data = codec.encode_frames(photographs(1, 16, 16))
    header = read_stream(io.BytesIO(data)).header
    other = data.replace(header.tokenizer_digest, bytes(32))
    with pytest.raises(CorruptStreamError):
        codec.decode_frames(other)  # the CRC tells
    with pytest.raises(ModelError, match="no weights with SHA-256"):
        codec._coders.decoder(dataclasses.replace(header, tokenizer_digest=b"\1" * 32))
    for geometry in (TokenGeometry(bits_per_token=17, level_bits=(0, 17)), TokenGeometry(temporal_factor=2)):
        with pytest.raises(ModelError, match="that of the model"):
            codec._coders.decoder(dataclasses.replace(header, geometry=geometry))
    codec._coders.decoder(dataclasses.replace(header, geometry=dataclasses.replace(header.geometry, block_tokens=2)))


def test_headers_and_media_agree(film: Path):
    with open_video(film) as reader:
        info = reader.info
    header = mapping.header_of(
        info, geometry=TokenGeometry(), chunk_frames=17, tokenizer_name="x", tokenizer_sha256="ab" * 32
    )
    back = mapping.info_of(header, side_streams=True)
    for name in ("width", "height", "time_base", "frame_rate", "colour", "side_streams", "is_image"):
        assert getattr(back, name) == getattr(info, name), name


def test_side_packets_follow_their_chunk(codec: Codec, film: Path):
    sink = io.BytesIO()
    codec.encode(film, sink, chunk_frames=5)
    kinds = [type(item) for item in read_stream(io.BytesIO(sink.getvalue()))]
    assert kinds[0] is ChunkRecord
    assert SidePacketBatch in kinds


def test_the_module_functions_and_inspection(tmp_path: Path):
    source = tmp_path / "in.mp4"
    make_video(source, count=5)
    encoded = tokcodec.encode(source, tmp_path / "a.tok", quality=3)
    decoded = tokcodec.decode(tmp_path / "a.tok", tmp_path / "out.mp4")
    found = tokcodec.verify(tmp_path / "a.tok")
    assert encoded.frames == decoded.frames == found.frames == 5
    assert found.complete
    assert found.tokens_checked
    assert encoded.tok_bytes == found.file_bytes == (tmp_path / "a.tok").stat().st_size
    assert found.bits_per_pixel == pytest.approx(encoded.bits_per_pixel)
    with av.open(str(tmp_path / "out.mp4")) as media:
        assert media.streams.video[0].frames == 5


def test_psnr_of_known_errors():
    assert psnr_of(0) == float("inf")
    assert psnr_of(255**2) == 0
    assert psnr_of(65.025) == pytest.approx(30)
