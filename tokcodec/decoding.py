"""Decoding as a stream: container -> bits -> tokens -> frames, around damage; no files are opened."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from tokcodec.errors import CorruptStreamError, UsageError
from tokcodec.frames import Frame, Packet
from tokcodec.frames.timing import TimeRange
from tokcodec.tokenizer.stream import StreamDecoder
from tokcodec.tokens import TokenChunk
from tokcodec.workers import Seconds, Workers

MOST_WAITING = 64
"""Records that wait for the chunk before them, at most; a hostile file has any number."""
MOST_WAITING_BYTES = 1 << 24
"""Of their packets, beside one record's."""
DecodingWorkers = Workers[tuple[NDArray[np.uint8], Seconds]]


def pictures_of(decoder: StreamDecoder, record: ChunkRecord, tokens: TokenChunk) -> Iterator[NDArray[np.uint8]]:
    """What each step of a chunk shows, uint8 `(F, H, W, 3)`; the last may show frames beyond the chunk's last."""
    decoder.start_chunk()
    for number, indices in enumerate(tokens.indices):
        shown = record.step_frames[number - 1] if number and record.step_frames else None
        yield decoder.step(
            indices,
            tokens.kept_bits_of(number),
            tokens.vectors[number],
            frames=shown,
            picture=None if number else tokens.picture,
            residual=tokens.residual_of(number),
        )


class _Begun(NamedTuple):
    """A chunk that another process decodes."""

    record: ChunkRecord
    offset: int
    pictures: Future[tuple[NDArray[np.uint8], Seconds]]


class _Outside(NamedTuple):
    """A chunk that is not wanted, before what is or behind it."""

    record: ChunkRecord
    is_behind: bool


class StreamDecoding:
    """Iterates once over the frames and packets of a `.tok` stream, in file order; then `counts` is final.

    Args:
        reader: At the first record to decode.
        decoder: For the picture's size.
        part: The frames and packets that are wanted; chunks outside are not decoded. None takes all.
        watch: Takes the time of the stages.
        prior: A weights file of the probability model `prior`, beside those that are installed.
        concealer: Fills in what is lost; None leaves it out.
        workers: Decode the chunks; not with a concealer.
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
        workers: DecodingWorkers | None = None,
    ) -> None:
        if concealer is not None and workers is not None:
            raise UsageError("chunks that others are made of are decoded one after the other")
        self._reader, self._decoder, self._watch = reader, decoder, watch
        self._part, self._prior, self._concealer, self._workers = part, prior, concealer, workers
        self._side_time_bases = {side.index: side.time_base for side in reader.header.side_streams}
        self._frames = self._chunks = self._side_bytes = self._waiting_bytes = 0
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
        waiting: deque[Damage | SidePacketBatch | ChunkRecord | _Begun | _Outside] = deque()
        for item in self._items():
            waiting.append(item)
            if isinstance(item, SidePacketBatch):
                self._waiting_bytes += _bytes_of(item)
            while waiting and self._is_ready(waiting):
                yield from self._taken(waiting.popleft())
        while waiting:
            yield from self._taken(waiting.popleft())
        yield from self._filled(None)

    def _items(self) -> Iterator[Damage | SidePacketBatch | ChunkRecord | _Begun | _Outside]:
        """What comes in, until it is behind what is wanted; chunks are begun with, where others do that."""
        beyond = False
        for item in self._reader:
            if isinstance(item, (Damage, SidePacketBatch)):
                yield item
            elif not isinstance(item, ChunkRecord):
                continue
            elif self._part is not None and self._part.ends_before(item.pts[0]):
                if beyond:
                    return
                beyond = True  # packets may lag their pictures by a chunk
                yield _Outside(item, is_behind=True)
            elif self._part is not None and self._part.starts_after(item.pts[-1] + item.last_duration - 1):
                yield _Outside(item, is_behind=False)
            elif self._workers is None:
                yield item
            else:
                yield _Begun(item, self._reader.item_offset, self._workers.submit(item))

    def _is_ready(self, waiting: Sequence[object]) -> bool:
        """Whether the first of what waits can be taken, or must, for too much is under way."""
        first = waiting[0]
        if self._workers is None or not isinstance(first, _Begun) or first.pictures.done():
            return True
        too_many = len(waiting) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES
        return too_many or sum(isinstance(item, _Begun) for item in waiting) > self._workers.processes

    def _taken(self, item: Damage | SidePacketBatch | ChunkRecord | _Begun | _Outside) -> Iterator[Frame | Packet]:
        if isinstance(item, Damage):
            self._damages.append(item)
            if self._concealer is not None:
                self._concealer.lose(item.missing_chunks)
        elif isinstance(item, SidePacketBatch):
            self._side_bytes += _bytes_of(item)
            self._waiting_bytes -= _bytes_of(item)
            yield from filter(self._is_wanted, mapping.unpacked(item.packets))
        elif isinstance(item, ChunkRecord):
            yield from self._chunk(item)
        elif isinstance(item, _Begun):
            yield from self._decoded(item)
        elif item.is_behind:
            yield from self._filled(item.record)
        elif self._concealer is not None:
            self._concealer.passed(item.record)

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
            self._damages.append(token_damage(record, error, offset=self._reader.item_offset))
            if self._concealer is not None:
                self._concealer.lose(range(record.number, record.number + 1), record.pts)
            return
        yield from self._filled(record)
        self._chunks += 1
        times = iter(record.pts)
        steps = pictures_of(self._decoder, record, tokens)
        for number in range(len(tokens.indices)):
            with self._watch.measure("tokenizer"):
                pictures = next(steps)
            if self._concealer is not None and number == 0:
                for pts in self._concealer.hold():
                    self._frames += 1
                    yield Frame(pixels=pictures[0], pts=pts)
            # The last step may hold repeated frames beyond the chunk's last; they have no time.
            yield from self._shown(pictures, times)
        if self._concealer is not None:
            self._concealer.passed(record, tokens)

    def _decoded(self, begun: _Begun) -> Iterator[Frame]:
        """A chunk from another process."""
        try:
            pictures, seconds = Workers.result(begun.pictures)
        except CorruptStreamError as error:
            self._damages.append(token_damage(begun.record, error, offset=begun.offset))
            return
        self._watch.tokenizer += seconds.tokenizer
        self._watch.entropy_coding += seconds.entropy_coding
        self._chunks += 1
        yield from self._shown(pictures, iter(begun.record.pts))

    def _shown(self, pictures: NDArray[np.uint8], times: Iterator[int]) -> Iterator[Frame]:
        """Those of some pictures that are wanted."""
        for pixels, pts in zip(pictures, times, strict=False):
            if self._part is None or not (self._part.starts_after(pts) or self._part.ends_before(pts)):
                self._frames += 1
                yield Frame(pixels=pixels, pts=pts)


def _bytes_of(batch: SidePacketBatch) -> int:
    return sum(len(packet.data) for packet in batch.packets)
