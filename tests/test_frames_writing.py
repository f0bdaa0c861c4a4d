"""Writing media files: formats, colour, timestamps, what cannot be written."""

from __future__ import annotations

import io
import itertools
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
from frame_helpers import info_of, read, write
from media import make_film, picture, psnr

from tokcodec.errors import MediaError, OutputError, TokcodecError, UsageError
from tokcodec.frames import (
    Colour,
    Frame,
    Packet,
    format_for,
    open_video,
    open_writer,
)

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
