"""Sound, subtitles and fonts: side streams that are carried unchanged."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from frame_helpers import read
from media import make_film, picture

from tokcodec.errors import MediaError
from tokcodec.frames import (
    Frame,
    open_video,
    open_writer,
    packets,
)
from tokcodec.frames.packets import open_template

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
