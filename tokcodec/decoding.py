"""Decoding as a stream: container -> bits -> tokens -> frames, around damage; no files are opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokcodec import mapping
from tokcodec.chunks import decode_chunk, token_damage
from tokcodec.concealment import Concealer
from tokcodec.container import (
    ChunkRecord,
    Damage,
    SidePacketBatch,
    StreamReader,
)
from tokcodec.counts import Stopwatch, StreamCounts
from tokcodec.errors import CorruptStreamError
from tokcodec.frames import Frame, Packet
from tokcodec.frames.timing import TimeRange
from tokcodec.tokenizer.stream import StreamDecoder


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
                pictures = self._decoder.step(
                    indices,
                    tokens.kept_bits_of(number),
                    tokens.vectors[number],
                    frames=record.step_frames[number - 1] if number and record.step_frames else None,
                )
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
