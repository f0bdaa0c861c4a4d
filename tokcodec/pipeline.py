"""Encoding as a stream: frames -> tokens -> bits -> container; no files are opened. The way back is `decoding.py`."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tokcodec import mapping
from tokcodec.chunks import ADAPTIVE, Entropy, encode_chunk
from tokcodec.container import (
    MAX_CHUNK_FRAMES,
    ChunkRecord,
    ContainerWriter,
)
from tokcodec.counts import Stopwatch, StreamCounts
from tokcodec.errors import UsageError
from tokcodec.frames import Frame, Packet, VideoInfo
from tokcodec.frames.info import Pixels
from tokcodec.geometry import STEP_FRAMES, TokenGeometry, usual_steps
from tokcodec.rate import Rate, first_quality
from tokcodec.scene_cuts import SceneCuts
from tokcodec.steering import KeptFrames, Steering
from tokcodec.tokenizer.allocation import QUALITY_LIMITS, allocator_for
from tokcodec.tokenizer.stream import StreamEncoder, TokenStep
from tokcodec.tokens import TokenChunk
from tokcodec.workers import ChunkOfFrames, Seconds, Workers

DEFAULT_QUALITY = 6
PACKET_BATCH_BYTES = 1 << 22
"""Side-stream packets are written at each chunk's end, or when so many bytes wait."""

SHORT = 4
"""A chunk that has less than one part in so many of the frames that a chunk may have is short."""

Progress = Callable[[int, int | None], None]
"""Called with the number of frames done (of an encoder with several processes: read), and of all frames where that is
known; the latter may be wrong."""


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What an encoder may choose.

    Attributes:
        quality: 1 (fewest bits) to 6 (nearly all bits); None where there is a rate, else 6.
        chunk_frames: Most frames of a chunk, 1 + 4t.
        effort: 0 keeps the same number of bits everywhere, but for first pictures and residuals; 1 looks
            for the best places, 2 and 3 for the best bits too.
        entropy: The probability model of the entropy coder.
        rate: How large the file shall be.
        scene_cuts: Whether a chunk begins where another scene does, too.
        step_frames: How many frames a later step of a hybrid may show, of 4, 2 and 1: fewer where things move fast. Not
            on the command line.
    """

    quality: int | None
    chunk_frames: int
    effort: int
    entropy: Entropy = ADAPTIVE
    rate: Rate | None = None
    scene_cuts: bool = True
    step_frames: tuple[int, ...] = STEP_FRAMES

    def __post_init__(self) -> None:
        if self.quality is not None and self.rate is not None:
            raise UsageError("a quality and a rate exclude each other", hint="leave one away")
        if self.quality is not None and (type(self.quality) is not int or not 1 <= self.quality <= 6):
            raise UsageError(f"quality is a whole number from 1 to 6, not {self.quality!r}")
        if type(self.effort) is not int or not 0 <= self.effort <= 3:
            raise UsageError(f"effort is a whole number from 0 to 3, not {self.effort!r}")
        if not self.step_frames or not set(self.step_frames) <= set(STEP_FRAMES):
            raise UsageError(f"a step shows 4, 2 or 1 frames, not {self.step_frames!r}")
        frames = self.chunk_frames
        if type(frames) is not int or not 1 <= frames <= MAX_CHUNK_FRAMES or (frames - 1) % 4:
            raise UsageError(f"a chunk has 1 + 4t frames, not {frames!r}", hint="try 17, 33 or 65")

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest quality that a rate can lead to."""
        return QUALITY_LIMITS[self.effort]

    def quality_for(self, info: VideoInfo) -> float:
        """The quality of a video, or the one to begin with where a rate is asked for."""
        if self.rate is None:
            return DEFAULT_QUALITY if self.quality is None else self.quality
        frames = 100 if info.frame_count_hint is None else max(1, info.frame_count_hint)
        pixels = frames * info.width * info.height
        seconds = frames / (info.frame_rate or Fraction(25))
        return first_quality(8 * self.rate.bytes_for(pixels=pixels, seconds=seconds) / pixels, self.limits)


EncodingWorkers = Workers[tuple[ChunkRecord, Seconds]]


def coded_chunk(
    steps: Sequence[TokenStep],
    *,
    geometry: TokenGeometry,
    number: int,
    pts: tuple[int, ...],
    last_duration: int,
    entropy: Entropy,
) -> ChunkRecord:
    """The record of a chunk of these latent steps; the other arguments are those of `encode_chunk`."""
    tokens = TokenChunk(
        indices=np.stack([step.indices for step in steps]),
        levels=np.stack([step.levels for step in steps]),
        geometry=geometry,
        vectors=np.stack([step.vectors for step in steps]),
        picture=steps[0].picture,
        residuals=tuple(step.residual for step in steps[1:]) if geometry.residuals else (),
    )
    return encode_chunk(
        tokens,
        number=number,
        pts=pts,
        last_duration=last_duration,
        step_frames=usual_steps(tuple(step.frames for step in steps[1:])),
        entropy=entropy,
    )


class _ChunkBuilder:
    """Collects latent steps, or frames for other processes, timestamps and packets, and writes a chunk when it is
    whole."""

    def __init__(
        self,
        writer: ContainerWriter,
        encoder: StreamEncoder,
        *,
        info: VideoInfo,
        settings: EncodeSettings,
        watch: Stopwatch,
        steering: Steering | None,
        workers: EncodingWorkers | None,
    ) -> None:
        self._writer, self._encoder, self._workers = writer, encoder, workers
        self._frames: list[Pixels] = []
        self._begun = self._waiting_bytes = 0
        self._under_way: deque[Future[tuple[ChunkRecord, Seconds]] | list[Packet]] = deque()
        self._info, self._settings, self._watch = info, settings, watch
        self._steering, self._kept = steering, KeptFrames()
        self._cuts = SceneCuts() if settings.scene_cuts else None
        self._steps: list[TokenStep] = []
        self._pts: list[int] = []
        self._packets: list[Packet] = []
        self._packet_bytes = 0
        self._first_pts = 0
        self.frames = self.coded_frames = 0
        self.side_bytes = self.chunk_bytes = 0
        self.seconds = Fraction(0)

    def ends_before(self, frame: Frame) -> bool:
        """Whether the next frame, which is this one, begins another chunk; to be asked once."""
        is_cut = self._cuts is not None and self._cuts.is_cut(frame.pixels)
        return is_cut or len(self._pts) == self._settings.chunk_frames

    def add_frame(self, frame: Frame) -> None:
        """Tokenize a frame; its chunk stays open."""
        if self._steering is not None:
            if not self._pts:
                self._kept.clear()
                self._place_bits(self._steering.quality)
            self._kept.add(frame.pixels.tobytes())
        if not self.frames:
            self._first_pts = frame.pts
        self._pts.append(frame.pts)
        self.frames += 1
        self._tokenize(frame.pixels)

    def _tokenize(self, pixels: Pixels) -> None:
        if self._workers is not None:
            self._frames.append(pixels)
            self.coded_frames += 1
            return
        with self._watch.measure("tokenizer"):
            step = self._encoder.push(pixels)
        self.coded_frames += 1
        if step is not None:
            self._steps.append(step)

    def add_packet(self, packet: Packet) -> None:
        """Keep a packet until the chunk is written, so that seeking to the chunk finds it behind."""
        self._packets.append(packet)
        self._packet_bytes += len(packet.data)
        self.side_bytes += len(packet.data)
        if self._packet_bytes > PACKET_BATCH_BYTES:
            self.flush_packets()

    def flush_packets(self) -> None:
        """Write the packets that wait."""
        if self._workers is None:
            self._writer.write_packets(mapping.packed(self._packets))
        elif self._packets:
            self._under_way.append(self._packets)
            self._waiting_bytes += self._packet_bytes
            self.write(most=0 if self._waiting_bytes > 4 * PACKET_BATCH_BYTES else self._workers.processes)
        self._packets, self._packet_bytes = [], 0

    def write(self, *, most: int) -> None:
        """Write what other processes have done, in order, until at most so many chunks are under way."""
        waiting = sum(isinstance(item, Future) for item in self._under_way)
        while self._under_way:
            item = self._under_way[0]
            if isinstance(item, list):
                self._writer.write_packets(mapping.packed(item))
                self._waiting_bytes -= sum(len(packet.data) for packet in item)
            elif item.done() or waiting > most:
                record, seconds = Workers.result(item)
                waiting -= 1
                self._watch.tokenizer += seconds.tokenizer
                self._watch.entropy_coding += seconds.entropy_coding
                self._write(record)
            else:
                return
            self._under_way.popleft()

    def _write(self, record: ChunkRecord) -> None:
        self.chunk_bytes += self._writer.cost_of(record)
        self._writer.write_chunk(record)

    def end_chunk(self, *, next_pts: int | None) -> None:
        """Write the open chunk, if there is one; `next_pts` is when the next begins, None at the end."""
        if not self._pts:
            return
        last = self._last_duration() if next_pts is None else next_pts - self._pts[-1]
        self.seconds = (self._pts[-1] + last - self._first_pts) * self._info.time_base
        if self._workers is not None:
            chunk = ChunkOfFrames(np.stack(self._frames), self._begun, tuple(self._pts), last)
            self._under_way.append(self._workers.submit(chunk))
            self._frames, self._begun = [], self._begun + 1
            self.write(most=self._workers.processes)
        else:
            record = self._coded(last)
            if self._steering is not None:
                record = self._steered(record, last, self._steering, is_last=next_pts is None)
            self._write(record)
        self._pts = []
        self.flush_packets()

    def _coded(self, last_duration: int) -> ChunkRecord:
        """The open chunk's tokens, coded; they are forgotten."""
        with self._watch.measure("tokenizer"):
            self._steps += self._encoder.end_chunk()
        with self._watch.measure("entropy_coding"):
            record = coded_chunk(
                self._steps,
                geometry=self._encoder.geometry,
                number=self._writer.chunks_written,
                pts=tuple(self._pts),
                last_duration=last_duration,
                entropy=self._settings.entropy,
            )
        self._steps = []
        return record

    def _is_short(self, is_last: bool) -> bool:
        """Whether a chunk is too short to meet a rate by itself, for its first picture takes most of its bits: those
        that follow make up for it."""
        return not is_last and SHORT * len(self._pts) < self._settings.chunk_frames

    def _steered(self, record: ChunkRecord, last_duration: int, steering: Steering, *, is_last: bool) -> ChunkRecord:
        """The chunk at the quality that the rate needs, coded again where the first try was another one."""
        if self._settings.rate is None:
            raise UsageError("steering without a rate")
        pixels = self.frames * self._info.width * self._info.height
        asked = self._settings.rate.bytes_for(pixels=pixels, seconds=self.seconds)
        # Without the packets, but with what is around them.
        spent = (
            self._writer.closed_bytes - self.side_bytes + self._writer.cost_of_packets(mapping.packed(self._packets))
        )
        search = steering.search(asked=asked, spent=spent)
        tried, quality = {}, steering.quality
        while True:
            tried[quality] = record
            wanted = search.add(quality, self._writer.cost_of(record))
            if wanted is None or self._is_short(is_last):
                break
            quality = wanted
            self._place_bits(quality)
            for frame in self._kept:
                self._tokenize(
                    np.frombuffer(bytearray(frame), np.uint8).reshape(self._info.height, self._info.width, 3)
                )
            record = self._coded(last_duration)
        steering.took(search, asked=asked, spent=spent + search.sizes[search.best])
        return tried[search.best]

    def _place_bits(self, quality: float) -> None:
        self._encoder.begin(allocator_for(quality=quality, effort=self._settings.effort))

    def _last_duration(self) -> int:
        if self._info.frame_rate:
            return max(1, round(1 / (self._info.frame_rate * self._info.time_base)))
        return self._pts[-1] - self._pts[-2] if len(self._pts) > 1 else 1

    def close(self) -> None:
        """Give back what frames are kept in."""
        self._kept.close()


def encode_items(
    items: Iterable[Frame | Packet],
    writer: ContainerWriter,
    encoder: StreamEncoder,
    *,
    info: VideoInfo,
    settings: EncodeSettings,
    watch: Stopwatch,
    progress: Progress | None = None,
    steering: Steering | None = None,
    workers: EncodingWorkers | None = None,
) -> StreamCounts:
    """Frames and packets, in file order, to a whole `.tok` stream; the writer is closed.

    With `steering`, the encoder's allocator gives way to those that the rate of the settings leads to. With `workers`,
    which exclude that, chunks are encoded by them.
    """
    if steering is not None and workers is not None:
        raise UsageError("chunks that are steered come one after the other")
    builder = _ChunkBuilder(
        writer, encoder, info=info, settings=settings, watch=watch, steering=steering, workers=workers
    )
    with contextlib.closing(builder):
        for item in items:
            if isinstance(item, Packet):
                builder.add_packet(item)
                continue
            if builder.ends_before(item):
                builder.end_chunk(next_pts=item.pts)
            builder.add_frame(item)
            if progress is not None:
                progress(builder.frames, info.frame_count_hint)
        builder.end_chunk(next_pts=None)
        builder.flush_packets()
        builder.write(most=0)
        writer.close()
    return StreamCounts(
        frames=builder.frames,
        chunks=writer.chunks_written,
        side_bytes=builder.side_bytes,
        chunk_bytes=builder.chunk_bytes,
        coded_frames=builder.coded_frames,
        seconds=builder.seconds,
        used=None if steering is None else steering.used,
        tried=None if steering is None else steering.tried,
    )
