from __future__ import annotations

import io
import itertools
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import TICK, TIME_BASE, flat_video, make_film, make_video, picture, psnr

from tokcodec.errors import LimitError, MediaError, OutputError, TokcodecError, UsageError
from tokcodec.frames import (
    Colour,
    Frame,
    Packet,
    VideoInfo,
    format_for,
    open_video,
    open_writer,
    packets,
)
from tokcodec.frames.colour import effective_matrix
from tokcodec.frames.orientation import from_matrix, turn
from tokcodec.frames.packets import open_template
from tokcodec.frames.png import encode_png
from tokcodec.frames.timing import TimestampRepair

# kr, kb of the matrices, by H.273 code point.
COEFFICIENTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def read(source, **options):
    with open_video(source, **options) as reader:
        events = list(reader)
    frames = [event for event in events if isinstance(event, Frame)]
    packets = [event for event in events if isinstance(event, Packet)]
    return reader, frames, packets


def info_of(width=64, height=48, **changes) -> VideoInfo:
    info = VideoInfo(width=width, height=height, time_base=TIME_BASE, frame_rate=Fraction(24), colour=Colour())
    return replace(info, **changes)


def write(target, info, *, pts=None, count=6, pixels=None, **options):
    stamps = list(pts) if pts is not None else [TICK * i for i in range(count)]
    with open_writer(target, info, **options) as writer:
        for index, stamp in enumerate(stamps):
            shown = picture(info.width, info.height, index) if pixels is None else pixels[index]
            writer.write_frame(Frame(pixels=shown, pts=stamp))
    return writer


def rgb_of(samples, matrix, full_range):
    kr, kb = COEFFICIENTS[matrix]
    y, cb, cr = (float(sample) for sample in samples)
    if full_range:
        y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
    else:
        y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)


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


# Writing.


@pytest.mark.parametrize(
    ("name", "least"), [("a.mp4", 36), ("a.mov", 36), ("a.mkv", 36), ("a.webm", 38), ("a.y4m", 45)]
)
@pytest.mark.parametrize("size", [(64, 48), (33, 17), (2, 2), (1, 1)])
def test_round_trip_of_each_format(tmp_path, name, least, size):
    least = 30 if size == (2, 2) else least
    write(tmp_path / name, info_of(*size))
    reader, frames, _ = read(tmp_path / name)
    assert (reader.info.width, reader.info.height) == size
    assert reader.info.frame_rate == 24
    assert len(frames) == 6
    for index, frame in enumerate(frames):
        assert psnr(frame.pixels, picture(*size, index)) > least
        assert abs(frame.pts * reader.info.time_base - Fraction(index, 24)) <= Fraction(1, 2000)


@pytest.mark.parametrize(
    ("name", "codec", "exact"),
    [
        ("a.mkv", "ffv1", True),
        ("a.mp4", "libx264rgb", True),
        ("a.mkv", "libx265", False),
        ("a.mkv", "mjpeg", False),
    ],
)
def test_encoders_by_name(tmp_path, name, codec, exact):
    write(tmp_path / name, info_of(), codec=codec) if codec != "libx265" else write(
        tmp_path / name, info_of(64, 64), codec=codec
    )
    reader, frames, _ = read(tmp_path / name)
    for index, frame in enumerate(frames):
        wanted = picture(64, reader.info.height, index)
        assert np.array_equal(frame.pixels, wanted) if exact else psnr(frame.pixels, wanted) > 36


def test_ffv1_is_exact_for_noise(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (4, 31, 45, 3), dtype=np.uint8)
    colour = Colour(primaries=9, transfer=16, matrix=9)
    write(tmp_path / "a.mkv", info_of(45, 31, colour=colour), codec="ffv1", count=4, pixels=noise)
    _, frames, _ = read(tmp_path / "a.mkv")
    assert np.array_equal(np.stack([f.pixels for f in frames]), noise)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
@pytest.mark.parametrize(
    "colour",
    [
        Colour(),
        Colour(primaries=1, transfer=1, matrix=1),
        Colour(primaries=9, transfer=16, matrix=9),
        Colour(primaries=5, transfer=6, matrix=5, full_range=True),
    ],
)
def test_colour_is_carried(tmp_path, name, colour):
    write(tmp_path / name, info_of(colour=colour))
    reader, frames, _ = read(tmp_path / name)
    assert reader.info.colour == colour
    assert psnr(frames[0].pixels, picture(64, 48)) > 36


@pytest.mark.parametrize("matrix", [0, 1, 2, 8, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_y4m_keeps_the_colours_although_it_names_no_matrix(tmp_path, matrix, full_range):
    write(tmp_path / "a.y4m", info_of(colour=Colour(matrix=matrix, full_range=full_range)))
    _, frames, _ = read(tmp_path / "a.y4m")
    assert psnr(frames[0].pixels, picture(64, 48)) > 44


@pytest.mark.parametrize(
    ("time_base", "rate", "stamps"),
    [
        (Fraction(1, 12288), Fraction(24), [0, 512, 700, 3000, 9000, 9500, 12288]),
        (Fraction(1, 12288), Fraction(24), [777, 1289, 1801, 2313]),
        (Fraction(1, 90000), Fraction(30000, 1001), [3003 * i for i in range(5)]),
        (Fraction(1001, 30000), Fraction(30000, 1001), list(range(5))),
        (Fraction(1, 1000), Fraction(24), [5000, 5042, 5083, 5125]),
        (Fraction(1, 1000000), Fraction(24), [41667 * i for i in range(5)]),
        (Fraction(1, 25), Fraction(25), [3]),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_timestamps_are_kept(tmp_path, name, time_base, rate, stamps):
    info = info_of(time_base=time_base, frame_rate=rate)
    write(tmp_path / name, info, pts=stamps)
    reader, frames, _ = read(tmp_path / name)
    slack = 0 if name == "a.mp4" else Fraction(1, 2000)
    assert len(frames) == len(stamps)
    for frame, stamp in zip(frames, stamps, strict=True):
        assert abs(frame.pts * reader.info.time_base - stamp * time_base) <= slack
    steps = {b - a for a, b in itertools.pairwise(stamps)}
    if name == "a.mp4" and steps == {round(1 / (rate * time_base))} and 1 / (rate * time_base) in steps:
        assert reader.info.frame_rate == rate


def packet_times(path: Path) -> list[Fraction]:
    """Timestamps of the video as the file has them, without the reader's repair, in seconds."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        return sorted(packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
@pytest.mark.parametrize(
    ("ticks_a_second", "stamps", "moved"),
    [
        (90000, [10 * i for i in range(6)], "4.4 ms"),
        (90000, [-25, -20, -15, 0, 5, 900, 903], "3.9 ms"),
        (1000000, [0, 41667, 41748, 83333], "1.3 ms"),
        (12288, [0, 512, 700, 3000], "0.3[0-9] ms"),
    ],
)
def test_a_clock_of_milliseconds_keeps_frames_apart_and_says_so(tmp_path, name, ticks_a_second, stamps, moved):
    info = info_of(time_base=Fraction(1, ticks_a_second))
    writer = write(tmp_path / name, info, pts=stamps)
    times = packet_times(tmp_path / name)
    assert len(set(times)) == len(stamps)
    (note,) = writer.notes
    assert re.search(f"milliseconds.* by up to {moved}", note)
    shift = max(abs(a - Fraction(b, ticks_a_second)) for a, b in zip(times, stamps, strict=True))
    assert f"{float(1000 * shift):.2g} ms" in note
    assert not write(tmp_path / "a.mp4", info, pts=stamps).notes


@pytest.mark.parametrize(
    ("ticks_a_second", "stamps"),
    [
        (12288, [512 * i for i in range(6)]),
        (90000, [round(3753.75 * i) for i in range(6)]),
        (1000, [0, 17, 90, 100]),
        (90000, [5]),
    ],
)
def test_even_rates_and_whole_milliseconds_make_no_noise(tmp_path, ticks_a_second, stamps):
    info = info_of(time_base=Fraction(1, ticks_a_second))
    assert not write(tmp_path / "a.mkv", info, pts=stamps).notes


def test_y4m_says_that_it_drops_timestamps(tmp_path):
    writer = write(tmp_path / "a.y4m", info_of(), pts=[0, 512, 9000])
    assert writer.notes == ["y4m has a fixed frame rate; the timestamps are not kept"]
    assert not write(tmp_path / "b.y4m", info_of(), pts=[512, 1024, 1536]).notes


def test_y4m_goes_through_pipes(tmp_path):
    sink = io.BytesIO()
    sink.seekable = lambda: False  # type: ignore[method-assign]
    write(sink, info_of())
    assert sink.getvalue().startswith(b"YUV4MPEG2 W64 H48 F24:1 ")
    assert not sink.closed
    _, frames, _ = read(media.OneWay(sink.getvalue()))
    assert [frame.pts for frame in frames] == list(range(6))
    for cut in (io.BytesIO(sink.getvalue()[:-100]), media.OneWay(sink.getvalue()[:-100])):
        reader, frames, _ = read(cut)
        assert len(frames) == 5
        assert reader.damage


def test_png_is_exact(tmp_path):
    writer = write(tmp_path / "one.png", info_of(33, 17), count=1)
    write(tmp_path / "many", info_of(33, 17), count=3)
    assert not writer.notes
    names = [path.name for path in sorted((tmp_path / "many").iterdir())]
    assert names == [f"frame_{i:06d}.png" for i in (1, 2, 3)]
    for index, path in enumerate([tmp_path / "one.png", *sorted((tmp_path / "many").iterdir())]):
        _, frames, _ = read(path)
        assert np.array_equal(frames[0].pixels, picture(33, 17, max(0, index - 1)))
    with pytest.raises(MediaError, match="holds one frame"):
        write(tmp_path / "two.png", info_of(), count=2)


def test_pixel_aspect_ratio_is_kept_or_noted(tmp_path):
    info = info_of(sample_aspect_ratio=Fraction(4, 3))
    assert not write(tmp_path / "a.mp4", info).notes
    assert read(tmp_path / "a.mp4")[0].info.sample_aspect_ratio == Fraction(4, 3)
    assert any("aspect" in note for note in write(tmp_path / "a.webm", info).notes)


def test_options_reach_the_encoder(tmp_path):
    write(tmp_path / "small.mp4", info_of(), crf=40)
    write(tmp_path / "large.mp4", info_of(), crf=5)
    assert (tmp_path / "small.mp4").stat().st_size < (tmp_path / "large.mp4").stat().st_size
    write(tmp_path / "deep.mp4", info_of(), options={"pix_fmt": "yuv444p10le", "crf": "5"})
    with av.open(tmp_path / "deep.mp4") as deep:
        assert deep.streams.video[0].pix_fmt == "yuv444p10le"


def test_format_name_beats_the_suffix(tmp_path):
    write(tmp_path / "out.tmp", info_of(), format_name="mkv")
    with av.open(tmp_path / "out.tmp") as container:
        assert "matroska" in container.format.name


def test_format_for():
    for name, wanted in [("a.mp4", "mp4"), ("a.MKV", "mkv"), ("a.webm", "webm"), ("a.y4m", "y4m")]:
        assert format_for(name) == wanted
    assert format_for("a.png") == "png"
    assert format_for("frames") == format_for("frames/") == format_for("a.mp4/") == "png-folder"
    with pytest.raises(UsageError, match=r"suffix '\.xyz'") as caught:
        format_for(Path("a.xyz"))
    assert ".webm" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("a.mp4", {"codec": "nope"}, "there is no encoder"),
        ("a.mp4", {"codec": "aac"}, "encodes audio"),
        ("a.webm", {"codec": "libx264"}, "webm cannot hold"),
        ("a.mkv", {"codec": "libx265"}, "no picture with a side below"),
        ("a.mp4", {"options": {"preset": "zz"}}, "libx264"),
        ("a.mp4", {"options": {"pix_fmt": "zz"}}, "libx264"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, name, options, error):
    with pytest.raises(MediaError, match=error) as caught:
        open_writer(tmp_path / name, info_of(32, 32), **options)
    assert caught.value.where


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"options": {"blah": "1"}}),
        ("a.mkv", {"codec": "ffv1", "crf": 3}),
        ("a.y4m", {"crf": 3}),
        ("a.png", {"codec": "libx264"}),
        ("a.mp4", {"format_name": "avi"}),
    ],
)
def test_options_that_do_not_exist_are_refused(tmp_path, name, options):
    with pytest.raises(UsageError):
        open_writer(tmp_path / name, info_of(), **options)


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        open_writer(tmp_path / "no" / "a.mp4", info_of())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        open_writer(tmp_path / "file", info_of(), format_name="png-folder")


class FullDisk(io.BytesIO):
    def write(self, data) -> int:
        if self.tell() + len(data) > 20000:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("format_name", ["y4m", "mkv", "mp4", "png"])
def test_a_full_disk_is_an_output_error(format_name, capfd):
    count, side = (1, 192) if format_name == "png" else (12, 48)
    noise = np.random.default_rng(0).integers(0, 256, (count, side, 64, 3), dtype=np.uint8)
    sink = FullDisk()
    with pytest.raises(OutputError, match="No space left") as caught:
        write(sink, info_of(64, side), count=count, pixels=noise, format_name=format_name, label="films/a")
    assert (caught.value.where, caught.value.offset) == ("films/a", None)
    assert "full" in str(caught.value.hint)
    assert not sink.closed
    assert capfd.readouterr() == ("", "")


def test_a_side_stream_notices_a_full_disk(tmp_path, capfd):
    def write_packets(writer, packets):
        with writer:
            for packet in packets:
                writer.write_packet(packet)

    make_film(tmp_path / "a.mkv", audio="pcm_s16le", subtitles=False)
    reader, frames, packets = read(tmp_path / "a.mkv")
    writer = open_writer(FullDisk(), reader.info, format_name="mkv", label="a.mkv")
    writer.write_frame(frames[0])
    with pytest.raises(OutputError, match="No space left"):
        write_packets(writer, packets)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t.part", {"format_name": "mkv", "codec": "nosuch"}),
        ("t.part", {"format_name": "webm", "codec": "libx264"}),
        ("t.part", {"format_name": "mkv", "options": {"pix_fmt": "zz"}}),
        ("t.part", {"format_name": "mkv"}),
        ("t.part", {"format_name": "png"}),
        ("no/t.part", {"format_name": "mkv"}),
        ("no/t.part", {"format_name": "png"}),
        ("file/t.part", {"format_name": "png-folder"}),
    ],
)
def test_messages_call_the_output_by_its_label(tmp_path, name, options):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TokcodecError) as caught:
        write(tmp_path / name, info_of(), count=0 if name == "t.part" else 1, label="films/a", **options)
    assert caught.value.where == "films/a"
    assert "t.part" not in str(caught.value)


def test_encoders_print_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("SVT_LOG", raising=False)
    for codec in ("libsvtav1", "libx265"):
        write(tmp_path / "a.mkv", info_of(64, 64), codec=codec)
    assert capfd.readouterr() == ("", "")
    assert "SVT_LOG" not in os.environ
    with monkeypatch.context() as patch:
        patch.setenv("SVT_LOG", "2")
        write(tmp_path / "a.mkv", info_of(64, 64), codec="libsvtav1")
        assert os.environ["SVT_LOG"] == "2"


def test_a_video_without_frames_is_an_error(tmp_path):
    for name in ("a.mp4", "a.y4m", "folder"):
        with pytest.raises(MediaError, match="no frame was written"):
            open_writer(tmp_path / name, info_of()).close()


def test_wrong_frames_are_refused(tmp_path):
    with open_writer(tmp_path / "a.mp4", info_of()) as writer:
        writer.write_frame(Frame(pixels=picture(64, 48), pts=5))
        with pytest.raises(UsageError):
            writer.write_frame(Frame(pixels=picture(64, 48), pts=5))
        with pytest.raises(UsageError):
            writer.write_frame(Frame(pixels=picture(48, 64), pts=6))
        with pytest.raises(UsageError):
            writer.write_packet(Packet(stream=9, pts=0, dts=0, duration=0, is_keyframe=True, data=b"x"))


def test_abort_does_not_finish(tmp_path):
    def interrupted(writer):
        with writer:
            writer.write_frame(Frame(pixels=picture(64, 48), pts=0))
            raise KeyError

    writer = open_writer(tmp_path / "a.mp4", info_of())
    with pytest.raises(KeyError):
        interrupted(writer)
    with pytest.raises(MediaError):
        open_video(tmp_path / "a.mp4")
    writer.close()
    writer.abort()


# Side streams.


def copy(source: Path, target: Path, **options):
    with open_video(source) as reader, open_writer(target, reader.info, **options) as writer:
        for event in reader:
            if isinstance(event, Frame):
                writer.write_frame(event)
            else:
                writer.write_packet(event)
    return writer


@pytest.mark.parametrize(
    ("audio", "codec"),
    [
        ("aac", "aac"),
        ("libmp3lame", "mp3"),
        ("libopus", "opus"),
        ("flac", "flac"),
        ("pcm_s16le", "pcm_s16le"),
        ("ac3", "ac3"),
        ("alac", "alac"),
    ],
)
@pytest.mark.parametrize("name", ["b.mkv", "b.mp4"])
def test_side_streams_come_back_unchanged(tmp_path, audio, codec, name):
    make_film(tmp_path / "a.mkv", audio=audio)
    writer = copy(tmp_path / "a.mkv", tmp_path / name)
    before, _, packets = read(tmp_path / "a.mkv")
    after, frames, copied = read(tmp_path / name)
    wanted = [(codec, "fre"), ("subrip", "eng")] if name == "b.mkv" else [(codec, "fre")]
    assert [(side.codec, side.language) for side in after.info.side_streams] == wanted
    assert len(writer.notes) == 2 - len(wanted)
    assert len(frames) == 18
    assert frames[0].pts == 0
    for old, new in zip(before.info.side_streams, after.info.side_streams, strict=False):
        sent = [packet for packet in packets if packet.stream == old.index]
        got = [packet for packet in copied if packet.stream == new.index]
        assert [packet.data for packet in got] == [packet.data for packet in sent]
        for a, b in zip(sent, got, strict=True):
            assert abs(a.pts * old.time_base - b.pts * new.time_base) <= Fraction(1, 2000)
    with av.open(tmp_path / name) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 0


@pytest.mark.parametrize("carrier", packets._CARRIERS, ids=lambda carrier: carrier[0])
def test_a_template_is_always_the_same(tmp_path, monkeypatch, carrier):
    make_film(tmp_path / "a.mkv", audio="pcm_s16le", subtitles=False)
    monkeypatch.setattr(packets, "_CARRIERS", (carrier,))
    one, two = (read(tmp_path / "a.mkv")[0].info.side_streams for _ in range(2))
    assert one[0].template == two[0].template
    assert b"Lavf6" not in one[0].template


def test_mov_text_survives_mp4(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as output:
        video = output.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        text = output.add_mux_stream("mov_text")
        text.time_base = Fraction(1, 1000)
        output.start_encoding()
        for index in range(24):
            frame = av.VideoFrame.from_ndarray(picture(64, 48, index))
            frame.pts, frame.time_base = index, Fraction(1, 24)
            output.mux(video.encode(frame))
        line = av.Packet(b"\0\5Hello")
        line.stream, line.time_base, line.pts, line.dts, line.duration = (
            text,
            Fraction(1, 1000),
            100,
            100,
            500,
        )
        output.mux(line)
        output.mux(video.encode(None))
    assert not copy(tmp_path / "a.mp4", tmp_path / "b.mp4").notes
    reader, _, packets = read(tmp_path / "b.mp4")
    assert [side.codec for side in reader.info.side_streams] == ["mov_text"]
    said = [packet for packet in packets if b"Hello" in packet.data]
    assert [packet.pts * reader.info.side_streams[0].time_base for packet in said] == [Fraction(1, 10)]


def test_fonts_ride_along(tmp_path):
    with av.open(tmp_path / "a.mkv", "w") as output:
        video = output.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_attachment("font.ttf", "application/x-truetype-font", b"font" * 100)
        frame = av.VideoFrame.from_ndarray(picture(64, 48))
        frame.pts, frame.time_base = 0, Fraction(1, 24)
        output.mux([*video.encode(frame), *video.encode(None)])
    assert not copy(tmp_path / "a.mkv", tmp_path / "b.mkv").notes
    with av.open(tmp_path / "b.mkv") as container:
        assert container.streams.attachments[0].data == b"font" * 100
    assert len(copy(tmp_path / "a.mkv", tmp_path / "b.mp4").notes) == 1


def test_side_streams_can_be_left_out_and_are_cut_with_the_range(tmp_path):
    make_film(tmp_path / "a.mkv")
    reader, _, packets = read(tmp_path / "a.mkv", side_streams=False)
    assert not packets
    assert not reader.info.side_streams
    reader, _, packets = read(tmp_path / "a.mkv", start_seconds=0.25, duration_seconds=0.25)
    units = {side.index: side.time_base for side in reader.info.side_streams}
    sound = [packet for packet in packets if packet.stream == 1]
    assert 10 <= len(sound) <= 13
    for packet in sound:
        assert 0.2 < packet.pts * units[packet.stream] < 0.5


@pytest.mark.parametrize("name", ["b.y4m", "b.webm", "frames"])
def test_outputs_that_hold_no_such_stream_say_so(tmp_path, name):
    make_film(tmp_path / "a.mkv")
    writer = copy(tmp_path / "a.mkv", tmp_path / name)
    assert len(writer.notes) == 2
    assert "aac" in writer.notes[0]


@pytest.mark.parametrize("template", [b"", b"junk", b"\x1a\x45\xdf\xa3junk", b"\0\0\0\x18ftypisom" + bytes(40)])
def test_a_hostile_template_is_dropped_with_a_note(tmp_path, template):
    make_film(tmp_path / "a.mkv", subtitles=False)
    reader, frames, packets = read(tmp_path / "a.mkv")
    with pytest.raises(MediaError):
        open_template(template)
    side = replace(reader.info.side_streams[0], template=template)
    with open_writer(tmp_path / "b.mkv", replace(reader.info, side_streams=(side,))) as writer:
        writer.write_frame(frames[0])
        writer.write_packet(packets[0])
    assert len(writer.notes) == 1


@pytest.mark.parametrize(
    "changes",
    [{"data": b""}, {"pts": None, "dts": None}, {"pts": 1 << 62}, {"dts": -(1 << 62)}, {"duration": 1 << 40}],
)
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_packets_that_no_muxer_takes_cost_only_themselves(tmp_path, changes, name):
    make_film(tmp_path / "a.mkv", subtitles=False)
    reader, frames, packets = read(tmp_path / "a.mkv")
    packets[7] = replace(packets[7], **changes)
    with open_writer(tmp_path / name, reader.info) as writer:
        for event in [*packets, *frames]:
            writer.write_frame(event) if isinstance(event, Frame) else writer.write_packet(event)
    assert len(writer.notes) == 1
    _, written, kept = read(tmp_path / name)
    assert (len(written), len(kept)) == (18, len(packets) - 1)


def test_packets_out_of_order_cost_only_themselves(tmp_path):
    make_film(tmp_path / "a.mkv", subtitles=False)
    reader, frames, packets = read(tmp_path / "a.mkv")
    with open_writer(tmp_path / "b.mp4", reader.info) as writer:
        for packet in [packets[5], packets[1], *packets[6:]]:
            writer.write_packet(packet)
        for frame in frames:
            writer.write_frame(frame)
    assert len(writer.notes) == 1
    assert len(read(tmp_path / "b.mp4")[1]) == 18


def test_the_package_does_not_import_torch():
    code = "import sys, tokcodec.frames; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
