"""Frames -> lossless PNG: one file, or a folder of numbered files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from av import VideoFrame
from av.video.codeccontext import VideoCodecContext

from tokcodec.errors import MediaError, OutputError
from tokcodec.frames.info import Frame, Packet, Pixels, VideoInfo
from tokcodec.frames.streams import ByteSink, describe, label_of, output_errors
from tokcodec.frames.video_writer import VideoWriter


class PngWriter(VideoWriter):
    """Writes `frame_000001.png`, `frame_000002.png`, ... into a folder, or one picture into a file."""

    def __init__(self, target: Path | BinaryIO, info: VideoInfo, *, folder: bool, label: str | None) -> None:
        super().__init__(info)
        self._target = target
        self._label = label or label_of(target)
        self._folder: Path | None = None
        self._count = 0
        if folder:
            if not isinstance(target, Path):
                raise OutputError("a folder of PNG cannot go into a stream", where=self._label, hint="Give a name.")
            self._folder = target
            try:
                target.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot be made: {describe(error)}", where=self._label) from error
        for side in info.side_streams:
            self.notes.append(f"stream {side.index} ({side.kind}, {side.codec}) dropped: PNG holds pictures only")

    def _put_frame(self, frame: Frame) -> None:
        self._count += 1
        if self._folder is not None:
            name = f"frame_{self._count:06d}.png"
            self._write(self._folder / name, frame, label=str(Path(self._label) / name))
        elif self._count == 1:
            self._write(self._target, frame, label=self._label)
        else:
            raise MediaError(
                "a PNG file holds one frame, and the video has more",
                where=self._label,
                hint="Give a name without a suffix for a folder of PNG.",
            )

    def _write(self, target: Path | BinaryIO, frame: Frame, *, label: str) -> None:
        sink = ByteSink(target, label=label)
        try:
            with output_errors(sink, "encoding a PNG"):
                sink.write(encode_png(frame.pixels))
        except BaseException:
            sink.discard()
            raise
        sink.release()

    def _put_packet(self, packet: Packet) -> None:
        """Dropped; the notes say so."""

    def _finish(self) -> None:
        if self._count == 0:
            raise MediaError("no frame was written", where=self._label)

    def _drop(self) -> None:
        """Nothing is open between frames."""


def encode_png(pixels: Pixels) -> bytes:
    """Encode uint8 (height, width, 3) RGB as one PNG file; raises what PyAV raises."""
    context = VideoCodecContext.create("png", "w")
    if not isinstance(context, VideoCodecContext):
        raise TypeError("the PNG encoder is not a video encoder")
    context.width, context.height = pixels.shape[1], pixels.shape[0]
    context.pix_fmt = "rgb24"
    context.time_base = Fraction(1, 25)
    frame = VideoFrame.from_ndarray(pixels, format="rgb24")
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
