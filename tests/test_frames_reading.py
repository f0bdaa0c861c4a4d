"""Reading media files: formats, colour, orientation, timestamps, damage."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from fractions import Fraction

import av
import media
import numpy as np
import pytest
from frame_helpers import COEFFICIENTS, info_of, read, rgb_of, write
from hypothesis import given, settings
from hypothesis import strategies as st
from media import TIME_BASE, flat_video, make_film, make_video, picture, psnr

from tokcodec.errors import LimitError, MediaError, TokcodecError, UsageError
from tokcodec.frames import (
    open_video,
)
from tokcodec.frames.colour import effective_matrix
from tokcodec.frames.orientation import from_matrix, turn
from tokcodec.frames.png import encode_png
from tokcodec.frames.timing import TimestampRepair

# Reading: formats, sizes, colour.


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv422p"),
        ("a.mkv", "libx264", "yuv444p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mkv", "ffv1", "yuv444p12le"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("a.h264", "libx264", "yuv420p"),
    ],
)
def test_reads_containers_codecs_and_pixel_formats(tmp_path, name, codec, pixel_format):
    options = {"crf": "10"} if codec == "libx264" else {}
    make_video(tmp_path / name, codec=codec, pixel_format=pixel_format, options=options)
    reader, frames, _ = read(tmp_path / name)
    assert len(frames) == 8
    assert (reader.info.width, reader.info.height) == (64, 48)
    assert not reader.info.is_image
    assert not reader.damage
    stamps = [frame.pts for frame in frames]
    assert stamps == sorted(set(stamps))
    for index, frame in enumerate(frames):
        assert frame.pixels.shape == (48, 64, 3)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert psnr(frame.pixels, picture(64, 48, index)) > 27


def test_grey_video_is_read_as_grey(tmp_path):
    make_video(tmp_path / "a.mkv", codec="ffv1", pixel_format="gray")
    _, frames, _ = read(tmp_path / "a.mkv")
    assert (frames[0].pixels == frames[0].pixels[..., :1]).all()


def test_gif_is_a_video(tmp_path):
    make_video(
        tmp_path / "a.gif",
        codec="gif",
        pixel_format="rgb8",
        pts=[10 * i for i in range(5)],
        time_base=Fraction(1, 100),
    )
    reader, frames, _ = read(tmp_path / "a.gif")
    assert len(frames) == 5
    assert not reader.info.is_image
    assert psnr(frames[0].pixels, picture(64, 48)) > 15


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (33, 17), (16, 1)])
def test_any_size_round_trips_losslessly(tmp_path, size):
    write(tmp_path / "a.mkv", info_of(*size), codec="ffv1")
    _, frames, _ = read(tmp_path / "a.mkv")
    for index, frame in enumerate(frames):
        assert np.array_equal(frame.pixels, picture(*size, index))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le", "yuv444p12le"])
@pytest.mark.parametrize("matrix", sorted(COEFFICIENTS))
@pytest.mark.parametrize("full_range", [False, True])
def test_matrix_and_range_are_honoured(tmp_path, pixel_format, matrix, full_range):
    samples = (100, 90, 170)
    tags = (matrix, matrix, matrix, 2 if full_range else 1)
    flat_video(tmp_path / "a.mkv", samples, pixel_format=pixel_format, tags=tags)
    reader, frames, _ = read(tmp_path / "a.mkv")
    assert reader.info.colour.matrix == matrix
    assert reader.info.colour.full_range is full_range
    assert np.abs(frames[0].pixels - rgb_of((100, 90, 170), matrix, full_range)).max() <= 1.5


def test_jpeg_range_pixel_format_is_full_range(tmp_path):
    flat_video(tmp_path / "a.mkv", (100, 90, 170), pixel_format="yuvj420p", tags=(2, 2, 5, 2), codec="mjpeg")
    reader, frames, _ = read(tmp_path / "a.mkv")
    assert reader.info.colour.full_range
    assert np.abs(frames[0].pixels[8, 8] - rgb_of((100, 90, 170), 5, True)).max() <= 3


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), 5), ((32, 720), 1)])
def test_unspecified_matrix_depends_on_the_height(tmp_path, size, matrix):
    flat_video(tmp_path / "a.mkv", (100, 90, 170), pixel_format="yuv420p", tags=(2, 2, 2, 1), size=size)
    reader, frames, _ = read(tmp_path / "a.mkv")
    assert reader.info.colour.matrix == 2
    assert effective_matrix(2, size[1]) == matrix
    assert np.abs(frames[0].pixels - rgb_of((100, 90, 170), matrix, False)).max() <= 1


@pytest.mark.parametrize(("stated", "level"), [(1, 128), (2, 126)])
def test_grey_range_is_honoured(tmp_path, stated, level):
    flat_video(tmp_path / "a.mkv", (126, 0, 0), pixel_format="gray", tags=(2, 2, 2, stated))
    _, frames, _ = read(tmp_path / "a.mkv")
    assert (frames[0].pixels == level).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_still_images_are_videos_of_one_frame(tmp_path, name):
    codecs = {"a.png": ("png", "rgb24"), "a.jpg": ("mjpeg", "yuvj444p")}
    codec, pixel_format = codecs.get(name, ("libwebp", "yuv420p") if name == "a.webp" else ("bmp", "bgr24"))
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 64, 48, pixel_format
    context.time_base = Fraction(1, 25)
    shown = av.VideoFrame.from_ndarray(picture(64, 48), format="rgb24").reformat(format=pixel_format)
    if pixel_format.startswith("yuvj"):
        context.color_range = shown.color_range = 2
    made = [*context.encode(shown), *context.encode(None)]
    data = b"".join(bytes(packet) for packet in made)
    (tmp_path / "named_wrongly.txt").write_bytes(data)
    for source in (tmp_path / "named_wrongly.txt", io.BytesIO(data)):
        reader, frames, _ = read(source)
        assert reader.info.is_image
        assert reader.info.frame_rate is None
        assert reader.info.frame_count_hint == 1
        assert len(frames) == 1
        assert psnr(frames[0].pixels, picture(64, 48)) > 27


# Reading: orientation.


@pytest.mark.parametrize(
    ("degrees", "mirror", "upright"),
    [
        (90, False, lambda p: np.rot90(p, 1)),
        (180, False, lambda p: np.rot90(p, 2)),
        (-90, False, lambda p: np.rot90(p, 3)),
        (0, True, lambda p: p[:, ::-1]),
    ],
)
def test_rotation_is_applied(tmp_path, degrees, mirror, upright: Callable):
    make_video(tmp_path / "a.mp4", rotation=degrees, mirror=mirror, options={"crf": "10"})
    reader, frames, _ = read(tmp_path / "a.mp4")
    wanted = upright(picture(64, 48))
    assert frames[0].pixels.shape == wanted.shape
    assert (reader.info.height, reader.info.width) == wanted.shape[:2]
    assert psnr(frames[0].pixels, wanted) > 30


@given(
    first=st.sampled_from([(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]),
    flips=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_orientation_maps_each_pixel_as_the_matrix_does(first, flips, size):
    a, b, c, d = first[0] * flips[0], first[1] * flips[1], first[2] * flips[0], first[3] * flips[1]
    height, width = size
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    turned = turn(pixels, from_matrix([v << 16 for v in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]))
    corners = [(a * x + c * y, b * x + d * y) for y in range(height) for x in range(width)]
    left, top = min(x for x, _ in corners), min(y for _, y in corners)
    for (x, y), source in zip(corners, pixels.reshape(-1, 3), strict=True):
        assert (turned[y - top, x - left] == source).all()


def exif_jpeg(orientation: int) -> bytes:
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.color_range = 64, 48, "yuvj444p", 2
    context.time_base = Fraction(1, 25)
    shown = av.VideoFrame.from_ndarray(picture(64, 48), format="rgb24").reformat(format="yuvj444p")
    data = b"".join(bytes(packet) for packet in [*context.encode(shown), *context.encode(None)])
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: np.rot90(p, 2)),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright: Callable):
    _, frames, _ = read(io.BytesIO(exif_jpeg(orientation)))
    wanted = upright(picture(64, 48))
    assert frames[0].pixels.shape == wanted.shape
    assert psnr(frames[0].pixels, wanted) > 27


# Reading: time.


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_is_kept(tmp_path, name):
    stamps = [0, 512, 700, 3000, 9000, 9500, 12288, 20000]
    make_video(tmp_path / name, pts=stamps)
    reader, frames, _ = read(tmp_path / name)
    unit = reader.info.time_base
    for frame, stamp in zip(frames, stamps, strict=True):
        assert abs(frame.pts * unit - stamp * TIME_BASE) <= (0 if name == "a.mp4" else Fraction(1, 2000))


@given(st.lists(st.one_of(st.none(), st.integers(-50, 200)), max_size=40))
def test_repaired_timestamps_strictly_increase(stamps):
    repair = TimestampRepair(time_base=Fraction(1, 24), frame_rate=Fraction(24))
    made = [repair.next(stamp, None) for stamp in stamps]
    assert all(a < b for a, b in itertools.pairwise(made))


@given(st.sets(st.integers(-1000, 1000), max_size=30))
def test_sound_timestamps_are_not_touched(stamps):
    repair = TimestampRepair(time_base=Fraction(1, 1000), frame_rate=None)
    assert [repair.next(stamp, None) for stamp in sorted(stamps)] == sorted(stamps)
    assert repair.repaired_count == 0


def test_a_timeline_that_starts_again_is_joined():
    repair = TimestampRepair(time_base=Fraction(1, 24), frame_rate=Fraction(24))
    assert [repair.next(pts, None) for pts in (0, 1, 100, 0, 1, 2)] == [0, 1, 100, 101, 102, 103]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("gop", [4, 250])
def test_start_and_duration_select_frames(tmp_path, name, gop):
    make_video(tmp_path / name, count=48, keyframe_every=gop)
    _, everything, _ = read(tmp_path / name)
    reader, frames, _ = read(tmp_path / name, start_seconds=0.5, duration_seconds=0.75)
    assert [f.pts for f in frames] == [f.pts for f in everything[12:30]]
    for part, whole in zip(frames, everything[12:30], strict=True):
        assert np.array_equal(part.pixels, whole.pixels)
    assert reader.info.duration_seconds == pytest.approx(0.75, abs=0.01)
    assert not reader.damage


def test_range_applies_to_a_stream_that_cannot_seek(tmp_path):
    write(tmp_path / "a.y4m", info_of(), count=12)
    source = media.OneWay((tmp_path / "a.y4m").read_bytes())
    _, frames, _ = read(source, start_seconds=0.25)
    assert [f.pts for f in frames] == list(range(6, 12))


@pytest.mark.parametrize("options", [{"start_seconds": -1}, {"start_seconds": float("nan")}, {"duration_seconds": 0}])
def test_a_range_without_sense_is_refused(tmp_path, options):
    make_video(tmp_path / "a.mp4", count=2)
    with pytest.raises(UsageError):
        open_video(tmp_path / "a.mp4", **options)


def test_a_start_behind_the_end_is_an_error(tmp_path):
    make_video(tmp_path / "a.mp4", count=4)
    with pytest.raises(MediaError, match="no frame in the part"):
        open_video(tmp_path / "a.mp4", start_seconds=100)


# Reading: bad input.


@pytest.mark.parametrize("data", [b"", b"not a video at all\n" * 50, bytes(5000), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_media_is_refused(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    for source in (tmp_path / "a.mp4", io.BytesIO(data), media.OneWay(data)):
        with pytest.raises(MediaError):
            open_video(source)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.mp4: cannot be opened: No such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(MediaError, match="is a directory"):
        open_video(tmp_path)


def test_audio_with_a_cover_has_no_video(tmp_path):
    with av.open(tmp_path / "a.mp3", "w") as output:
        sound = media.add_audio(output, "libmp3lame")
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.color_range = 64, 48, "yuvj420p", 2
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(64, 48)).reformat(format="yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1)
        output.mux([*cover.encode(frame), *cover.encode(None), *media.encode_audio(sound)])
    with pytest.raises(MediaError, match="has no video stream") as caught:
        open_video(tmp_path / "a.mp3")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_a_damaged_tail_gives_the_good_frames(tmp_path, name):
    make_video(tmp_path / name, count=40, keyframe_every=10)
    _, whole, _ = read(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    reader, frames, _ = read(tmp_path / "cut")
    assert 10 < len(frames) < 40
    assert reader.damage
    for part, full in zip(frames[:-1], whole, strict=False):
        assert part.pts == full.pts
        assert np.array_equal(part.pixels, full.pixels)
    assert not read(tmp_path / name)[0].damage


def test_a_cut_mp4_with_its_index_in_front_gives_the_good_frames(tmp_path):
    make_video(tmp_path / "a.mp4", count=40, keyframe_every=10, options={"movflags": "faststart"})
    with (
        av.open(tmp_path / "a.mp4") as source,
        av.open(tmp_path / "b.mp4", "w", options={"movflags": "faststart"}) as target,
    ):
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    data = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    reader, frames, _ = read(tmp_path / "cut.mp4")
    assert 5 < len(frames) < 40
    assert reader.damage


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_only_our_errors_escape_from_damaged_files(damaged_files, data):
    original = data.draw(st.sampled_from(damaged_files))
    broken = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(len(broken) // 4, len(broken)))
    try:
        _, frames, _ = read(io.BytesIO(bytes(broken[:cut])))
    except TokcodecError:
        return
    assert frames


@pytest.fixture(scope="module")
def damaged_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    make_film(folder / "a.mkv")
    make_video(folder / "a.mp4")
    make_video(folder / "a.ts")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG with another size in its header: whoever decodes it finds it damaged."""
    data = bytearray(encode_png(picture(16, 16)))
    at = data.index(b"IHDR")
    data[at + 4 : at + 12] = struct.pack(">II", width, height)
    data[at + 17 : at + 21] = struct.pack(">I", zlib.crc32(data[at : at + 17]))
    return bytes(data)


@pytest.mark.parametrize("size", [(8192, 4097), (16385, 1), (1, 16385)])
def test_pictures_that_no_file_can_hold_are_refused_before_decoding(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_that_claims(*size))
    with pytest.raises(LimitError, match=f"{size[0]}x{size[1]}") as caught:
        open_video(tmp_path / "a.png")
    assert caught.value.where == str(tmp_path / "a.png")
    assert "Scale" in str(caught.value.hint)


def test_the_largest_pictures_are_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png_that_claims(16384, 2048))
    with pytest.raises(MediaError, match="no frame could be decoded"):
        open_video(tmp_path / "a.png")


def test_frames_of_another_size_are_scaled(tmp_path):
    make_video(tmp_path / "a.mjpeg", count=2, codec="mjpeg", pixel_format="yuvj420p")
    make_video(tmp_path / "b.mjpeg", count=2, codec="mjpeg", pixel_format="yuvj420p", size=(32, 24))
    data = (tmp_path / "a.mjpeg").read_bytes() + (tmp_path / "b.mjpeg").read_bytes()
    reader, frames, _ = read(io.BytesIO(data))
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert len(frames) == 4
    assert any("scaled" in note for note in reader.notes)


def test_frames_come_one_by_one(tmp_path):
    size = (320, 240)
    write(tmp_path / "a.mkv", info_of(*size), codec="ffv1", count=60)
    tracemalloc.start()
    with open_video(tmp_path / "a.mkv") as reader:
        count = sum(1 for _ in reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60
    assert peak < 12 * size[0] * size[1] * 3


def test_a_reader_closed_early_ends_quietly(tmp_path):
    make_video(tmp_path / "a.mp4", count=30)
    with open_video(tmp_path / "a.mp4") as reader:
        events = iter(reader)
        next(events)
        next(events)
    assert len(list(events)) < 30
    reader.close()


def test_a_stream_of_the_caller_stays_open(tmp_path):
    make_video(tmp_path / "a.mp4", count=2)
    with (tmp_path / "a.mp4").open("rb") as source:
        read(source)
        assert not source.closed


def test_the_package_does_not_import_torch():
    code = "import sys, tokcodec.frames; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
