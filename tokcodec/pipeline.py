"""The two directions as streams: frames -> tokens -> bits -> container, and back; no files are opened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tokcodec import mapping
from tokcodec.chunks import ADAPTIVE, Entropy, decode_chunk, encode_chunk, token_damage
from tokcodec.concealment import Concealer
from tokcodec.container import (
    MAX_CHUNK_FRAMES,
    ChunkRecord,
    ContainerWriter,
    Damage,
    SidePacketBatch,
    StreamReader,
)
from tokcodec.errors import CorruptStreamError, UsageError
from tokcodec.frames import Frame, Packet, VideoInfo
from tokcodec.frames.timing import TimeRange
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder, TokenStep
from tokcodec.tokens import TokenChunk

PACKET_BATCH_BYTES = 1 << 22
"""Side-stream packets are written at each chunk's end, or when so many bytes wait."""

Progress = Callable[[int, int | None], None]
"""Called with the number of frames done, and of all frames where that is known; the latter may be wrong."""


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds since it was made, and seconds by stage."""

    tokenizer: float = 0.0
    entropy_coding: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the block to "tokenizer" or "entropy_coding"."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - start)

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What an encoder may choose.

    Attributes:
        quality: 1 (fewest bits) to 6 (nearly all bits).
        chunk_frames: Frames of a chunk, 1 + 4t.
        effort: 0 keeps the same number of bits everywhere, 1 to 3 look for the best places, ever longer.
        entropy: The probability model of the entropy coder.
    """

    quality: int
    chunk_frames: int
    effort: int
    entropy: Entropy = ADAPTIVE

    def __post_init__(self) -> None:
        if type(self.quality) is not int or not 1 <= self.quality <= 6:
            raise UsageError(f"quality is a whole number from 1 to 6, not {self.quality!r}")
        if type(self.effort) is not int or not 0 <= self.effort <= 3:
            raise UsageError(f"effort is a whole number from 0 to 3, not {self.effort!r}")
        frames = self.chunk_frames
        if type(frames) is not int or not 1 <= frames <= MAX_CHUNK_FRAMES or (frames - 1) % 4:
            raise UsageError(f"a chunk has 1 + 4t frames, not {frames!r}", hint="try 17, 33 or 65")


class _ChunkBuilder:
    """Collects latent steps, timestamps and packets, and writes a chunk when it is whole."""

    def __init__(
        self,
        writer: ContainerWriter,
        encoder: StreamEncoder,
        *,
        info: VideoInfo,
        settings: EncodeSettings,
        watch: Stopwatch,
    ) -> None:
        self._writer, self._encoder = writer, encoder
        self._info, self._settings, self._watch = info, settings, watch
        self._steps: list[TokenStep] = []
        self._pts: list[int] = []
        self._packets: list[Packet] = []
        self._packet_bytes = 0
        self.side_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the next frame begins another chunk."""
        return len(self._pts) == self._settings.chunk_frames

    def add_frame(self, frame: Frame) -> None:
        """Tokenize a frame; its chunk stays open."""
        with self._watch.measure("tokenizer"):
            step = self._encoder.push(frame.pixels)
        self._pts.append(frame.pts)
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
        self._writer.write_packets(mapping.packed(self._packets))
        self._packets, self._packet_bytes = [], 0

    def close(self, *, next_pts: int | None) -> None:
        """Write the open chunk, if there is one; `next_pts` is when the next begins, None at the end."""
        if not self._pts:
            return
        with self._watch.measure("tokenizer"):
            step = self._encoder.end_chunk()
        if step is not None:
            self._steps.append(step)
        last = self._last_duration() if next_pts is None else next_pts - self._pts[-1]
        with self._watch.measure("entropy_coding"):
            record = encode_chunk(
                self._tokens(),
                number=self._writer.chunks_written,
                pts=tuple(self._pts),
                last_duration=last,
                entropy=self._settings.entropy,
            )
        self._writer.write_chunk(record)
        self._steps, self._pts = [], []
        self.flush_packets()

    def _tokens(self) -> TokenChunk:
        """The tokens of the open chunk."""
        return TokenChunk(
            indices=np.stack([step.indices for step in self._steps]),
            levels=np.stack([step.levels for step in self._steps]),
            geometry=self._encoder.geometry,
        )

    def _last_duration(self) -> int:
        if self._info.frame_rate:
            return max(1, round(1 / (self._info.frame_rate * self._info.time_base)))
        return self._pts[-1] - self._pts[-2] if len(self._pts) > 1 else 1


@dataclass(frozen=True, kw_only=True)
class StreamCounts:
    """What went through a pipeline.

    Attributes:
        frames: Frames.
        chunks: Chunks.
        side_bytes: Bytes of side-stream packets.
        damages: What was lost, when decoding.
    """

    frames: int
    chunks: int
    side_bytes: int
    damages: tuple[Damage, ...] = ()


def encode_items(
    items: Iterable[Frame | Packet],
    writer: ContainerWriter,
    encoder: StreamEncoder,
    *,
    info: VideoInfo,
    settings: EncodeSettings,
    watch: Stopwatch,
    progress: Progress | None = None,
) -> StreamCounts:
    """Frames and packets, in file order, to a whole `.tok` stream; the writer is closed."""
    builder = _ChunkBuilder(writer, encoder, info=info, settings=settings, watch=watch)
    frames = 0
    for item in items:
        if isinstance(item, Packet):
            builder.add_packet(item)
            continue
        if builder.is_full:
            builder.close(next_pts=item.pts)
        builder.add_frame(item)
        frames += 1
        if progress is not None:
            progress(frames, info.frame_count_hint)
    builder.close(next_pts=None)
    builder.flush_packets()
    writer.close()
    return StreamCounts(frames=frames, chunks=writer.chunks_written, side_bytes=builder.side_bytes)


class StreamDecoding:
    """Iterates once over the frames and packets of a `.tok` stream, in file order; then `counts` is final.

    Args:
        reader: At the first record to decode.
        decoder: For the picture's size.
        part: The frames and packets that are wanted; chunks outside are not decoded. None takes all.
        watch: Takes the time of the stages.
        prior: A weights file of the probability model `prior`, beside those that are installed.
        concealer: Fills in what is lost; None leaves it out.
    """

    def __init__(
        self,
        reader: StreamReader,
        decoder: StreamDecoder,
        *,
        watch: Stopwatch,
        part: TimeRange | None = None,
        prior: Path | None = None,
        concealer: Concealer | None = None,
    ) -> None:
        self._reader, self._decoder, self._watch = reader, decoder, watch
        self._part, self._prior, self._concealer = part, prior, concealer
        self._side_time_bases = {side.index: side.time_base for side in reader.header.side_streams}
        self._frames = self._chunks = self._side_bytes = 0
        self._damages: list[Damage] = []

    @property
    def counts(self) -> StreamCounts:
        """What came through so far."""
        return StreamCounts(
            frames=self._frames,
            chunks=self._chunks,
            side_bytes=self._side_bytes,
            damages=tuple(self._damages),
        )

    def __iter__(self) -> Iterator[Frame | Packet]:
        beyond = False
        for item in self._reader:
            if isinstance(item, Damage):
                self._damages.append(item)
                if self._concealer is not None:
                    self._concealer.lose(item.missing_chunks)
            elif isinstance(item, SidePacketBatch):
                self._side_bytes += sum(len(packet.data) for packet in item.packets)
                yield from filter(self._is_wanted, mapping.unpacked(item.packets))
            elif isinstance(item, ChunkRecord):
                if self._part is not None and self._part.ends_before(item.pts[0]):
                    if beyond:
                        return
                    beyond = True  # packets may lag their pictures by a chunk
                    yield from self._filled(item)
                elif self._part is None or not self._part.starts_after(item.pts[-1] + item.last_duration - 1):
                    yield from self._chunk(item)
                elif self._concealer is not None:
                    self._concealer.passed(item)
        yield from self._filled(None)

    def _filled(self, after: ChunkRecord | None) -> Iterator[Frame]:
        """What the concealer makes of the chunks that are lost before `after`; None is the end."""
        pictures = iter(()) if self._concealer is None else self._concealer.fill(after)
        while True:
            with self._watch.measure("tokenizer"):
                frame = next(pictures, None)
            if frame is None:
                return
            self._frames += 1
            yield frame

    def _is_wanted(self, packet: Packet) -> bool:
        return self._part is None or self._part.holds(packet, self._side_time_bases[packet.stream])

    def _chunk(self, record: ChunkRecord) -> Iterator[Frame]:
        try:
            with self._watch.measure("entropy_coding"):
                tokens = decode_chunk(record, self._reader.header, prior=self._prior)
        except CorruptStreamError as error:
            self._damages.append(token_damage(record, self._reader, error))
            if self._concealer is not None:
                self._concealer.lose(range(record.number, record.number + 1), record.pts)
            return
        yield from self._filled(record)
        self._chunks += 1
        self._decoder.start_chunk()
        times = iter(record.pts)
        for number, indices in enumerate(tokens.indices):
            with self._watch.measure("tokenizer"):
                pictures = self._decoder.step(indices, tokens.kept_bits_of(number))
            if self._concealer is not None and number == 0:
                for pts in self._concealer.hold():
                    self._frames += 1
                    yield Frame(pixels=pictures[0], pts=pts)
            # The last step may hold repeated frames beyond the chunk's last; they have no time.
            for pixels, pts in zip(pictures, times, strict=False):
                if self._part is None or not (self._part.starts_after(pts) or self._part.ends_before(pts)):
                    self._frames += 1
                    yield Frame(pixels=pixels, pts=pts)
        if self._concealer is not None:
            self._concealer.passed(record, tokens)
