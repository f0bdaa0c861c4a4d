"""Frames and side packets -> a container (MP4, MOV, MKV, WebM, Y4M)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from tokcodec.errors import MediaError, TokcodecError, UsageError
from tokcodec.frames import formats
from tokcodec.frames.colour import FromRgb, colour_for_output
from tokcodec.frames.info import Frame, Packet, SideStream, VideoInfo
from tokcodec.frames.packets import copy_stream, fits, is_plausible, open_template, to_av
from tokcodec.frames.streams import AV_ERRORS, ByteSink, describe, label_of, output_errors
from tokcodec.frames.timing import CoarseClock
from tokcodec.frames.video_writer import VideoWriter

_DEFAULT_RATE = Fraction(25)
_MAX_TIMESCALE = (1 << 31) - 1


class MuxWriter(VideoWriter):
    """Encodes frames, and muxes them with the side packets. One frame is held back to know its duration."""

    def __init__(
        self,
        target: Path | BinaryIO,
        info: VideoInfo,
        *,
        output: formats.OutputFormat,
        name: str,
        codec: str | None,
        crf: float | None,
        options: Mapping[str, str] | None,
        label: str | None,
    ) -> None:
        super().__init__(info)
        self._name = name
        self._rate = info.frame_rate or _DEFAULT_RATE
        self._has_timestamps = output.side_streams
        # Y4M counts frames; everything else keeps the source's clock.
        self._time_base = info.time_base if self._has_timestamps else 1 / self._rate
        self._clock: CoarseClock | None = None
        if output.tick_seconds is not None:
            self._clock = CoarseClock(time_base=self._time_base, tick_seconds=output.tick_seconds)
        self._waiting: Frame | None = None
        self._first_pts: int | None = None
        self._count = 0
        self._irregular = False
        self._last_stamps: dict[int, int] = {}
        label = label or label_of(target)
        encoder = formats.find_encoder(codec or output.codec, where=label)
        formats.check_encoder_size(encoder.name, width=info.width, height=info.height, where=label)
        self._sink = ByteSink(target, label=label)
        try:
            with self._errors("opening the output"):
                self._container: OutputContainer = av.open(
                    self._sink, "w", format=output.muxer, container_options=self._muxer_options(output)
                )
            self._stream = self._add_video(encoder, formats.encoder_options(encoder.name, crf, options))
            self._sides = self._add_sides(output)
            if info.sample_aspect_ratio != 1 and not formats.keeps_aspect(name, encoder.name):
                self.notes.append(f"{name} with {encoder.name} does not keep the pixel aspect ratio")
            self._start(encoder.name)
        except BaseException:
            self._drop()
            raise

    def _errors(self, doing: str, hint: str | None = None) -> contextlib.AbstractContextManager[None]:
        return output_errors(self._sink, doing, hint)

    def _muxer_options(self, output: formats.OutputFormat) -> dict[str, str]:
        options = dict(output.options)
        if self._name in ("mp4", "mov"):
            # The offset of a late first frame is stored in this unit; the default of 1/1000 s would round it.
            scale = self._time_base.denominator
            if 1000 < scale <= _MAX_TIMESCALE:
                options["movie_timescale"] = str(scale)
        return options

    def _add_video(self, encoder: av.codec.Codec, options: dict[str, str]) -> VideoStream:
        info = self.info
        pixel_format = options.pop("pix_fmt", None) or formats.pixel_format_for(
            encoder, width=info.width, height=info.height
        )
        colour = colour_for_output(
            info.colour,
            rgb_samples=formats.is_rgb_format(pixel_format),
            carries_matrix=self._has_timestamps,
            full_range_only=encoder.name == "mjpeg",
        )
        try:
            stream = self._container.add_stream(encoder.name, rate=self._rate, options=options)
        except ValueError as error:
            homes = formats.homes_of(encoder.name)
            raise MediaError(
                f"{self._name} cannot hold video of the encoder {encoder.name!r}",
                where=self._sink.label,
                hint=f"Write {' or '.join(homes)}." if homes else "Choose another encoder.",
            ) from error
        with self._errors(f"setting up the encoder {encoder.name}"):
            if not isinstance(stream, VideoStream):
                raise TypeError("not a video encoder")
            stream.width, stream.height = info.width, info.height
            stream.pix_fmt = pixel_format
            stream.time_base = self._time_base
            stream.codec_context.time_base = self._time_base
            stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
            stream.codec_context.color_range = 2 if colour.full_range else 1
            stream.codec_context.color_primaries = colour.primaries
            stream.codec_context.color_trc = colour.transfer
            stream.codec_context.colorspace = colour.matrix
            stream.thread_type = "AUTO"
        self._convert = FromRgb(pixel_format=pixel_format, colour=colour)
        return stream

    def _add_sides(self, output: formats.OutputFormat) -> dict[int, tuple[SideStream, Stream]]:
        added: dict[int, tuple[SideStream, Stream]] = {}
        for side in self.info.side_streams:
            reason = f"{self._name} holds video only"
            if output.side_streams:
                try:
                    with open_template(side.template) as template:
                        source = template.streams[0]
                        if fits(source, output.muxer):
                            stream = copy_stream(self._container, source, time_base=side.time_base)
                            added[side.index] = (side, stream)
                            continue
                    reason = f"{self._name} cannot hold it"
                except TokcodecError as error:
                    reason = error.message
            self.notes.append(f"stream {side.index} ({side.kind}, {side.codec}) dropped: {reason}")
        return added

    def _start(self, encoder: str) -> None:
        hint = "The encoder may refuse this size or an option; libx264 and ffv1 take any size."
        with self._errors(f"starting the encoder {encoder} for {self._name}", hint), formats.quiet_encoders():
            self._container.start_encoding()
        unknown = sorted(self._stream.codec_context.options)
        if unknown:
            raise UsageError(f"the encoder {encoder} has no option {', '.join(unknown)}")

    def _put_frame(self, frame: Frame) -> None:
        if self._clock is not None:
            frame = replace(frame, pts=self._clock.next(frame.pts))
        if self._first_pts is None:
            self._first_pts = frame.pts
        if self._waiting is not None:
            self._encode(self._waiting, frame.pts - self._waiting.pts)
        self._waiting = frame

    def _encode(self, frame: Frame, duration: int) -> None:
        with self._errors("encoding", self._side_hint()):
            picture = self._convert.convert(frame.pixels)
            if self._has_timestamps:
                picture.pts, picture.duration = frame.pts, duration
            else:
                picture.pts, picture.duration = self._count, 1
                self._irregular = self._irregular or self._is_off_beat(frame.pts)
            picture.time_base = self._time_base
            self._count += 1
            self._mux(self._stream.encode(picture))

    def _side_hint(self) -> str | None:
        # The muxer reports a damaged side packet late, at whatever comes after it.
        return "Damaged audio or subtitles may be the cause: write without them." if self._sides else None

    def _is_off_beat(self, pts: int) -> bool:
        elapsed = (pts - (self._first_pts or 0)) * self.info.time_base
        return abs(elapsed * self._rate - self._count) > Fraction(1, 2)

    def _mux(self, made: list[av.Packet[Any]]) -> None:
        for packet in made:
            self._container.mux(packet)

    def _put_packet(self, packet: Packet) -> None:
        held = self._sides.get(packet.stream)
        if held is None:
            return
        side, stream = held
        if not is_plausible(packet, side.time_base):
            self._note_refusal(side, "an empty payload or an impossible time")
            return
        duration = packet.duration or self._usual_duration(packet)
        try:
            self._container.mux(to_av(packet, stream, time_base=side.time_base, duration=duration))
        except AV_ERRORS as error:
            self._sink.check()
            self._note_refusal(side, describe(error))
        self._sink.check()

    def _note_refusal(self, side: SideStream, reason: str) -> None:
        """Damaged packets are left out one by one: the picture is not lost for them."""
        note = f"stream {side.index} ({side.kind}, {side.codec}): some packets were left out: {reason}"
        if note not in self.notes:
            self.notes.append(note)

    def _usual_duration(self, packet: Packet) -> int:
        """The distance from the packet before: MP4 players drop a last packet that lasts no time."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        last = self._last_stamps.get(packet.stream)
        if stamp is not None:
            self._last_stamps[packet.stream] = stamp
        return max(0, stamp - last) if stamp is not None and last is not None else 0

    def _finish(self) -> None:
        try:
            if self._waiting is None:
                raise MediaError("no frame was written", where=self._sink.label)
            self._encode(self._waiting, self._nominal_duration())
            self._waiting = None
            with self._errors("finishing the output", self._side_hint()):
                self._mux(self._stream.encode(None))
                self._container.close()
        except BaseException:
            self._drop()
            raise
        self._sink.release()
        if self._irregular:
            self.notes.append(f"{self._name} has a fixed frame rate; the timestamps are not kept")
        if self._clock is not None and self._clock.shift_seconds:
            shift_ms = float(1000 * self._clock.shift_seconds)
            self.notes.append(
                f"{self._name} counts time in milliseconds: timestamps moved by up to {shift_ms:.2g} ms; mp4 keeps them"
            )

    def _nominal_duration(self) -> int:
        return max(1, round(1 / (self._rate * self._time_base)))

    def _drop(self) -> None:
        self._sink.discard()
        container = getattr(self, "_container", None)
        if container is not None:
            with contextlib.suppress(*AV_ERRORS):
                container.close()
