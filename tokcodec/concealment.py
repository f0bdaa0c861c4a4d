"""What is shown in place of lost chunks: what the model makes of the chunk before, at the times that are missing.

The decoder goes on with the state that the last whole chunk left. The tokens that it lacks are the likelier ones by a
prior, or none at all, which shows the tokenizer's forecast. Where nothing whole comes before, the first picture that
follows is held. No byte whose checksum fails is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tokcodec.chunks import decode_chunk, drawing_prior
from tokcodec.container import ChunkEntry, ChunkRecord, StreamHeader, find_chunk_index
from tokcodec.continuation import Continuation, expected_vectors
from tokcodec.errors import CorruptStreamError, ModelError
from tokcodec.frames import Frame
from tokcodec.frames.timing import TimeRange
from tokcodec.tokens import TokenChunk, spread_levels

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork
    from tokcodec.tokenizer.stream import StreamDecoder

MAX_FILLED_FRAMES = 4096
"""Longest stretch of missing frames that is filled in: a few bytes could state any length."""


def frame_period(header: StreamHeader, like: ChunkRecord | None) -> Fraction:
    """Ticks from frame to frame: by the header's frame rate, else the mean of a chunk, at least one."""
    if header.frame_rate is not None:
        return max(Fraction(1), 1 / (header.frame_rate * header.time_base))
    if like is None:
        return Fraction(1)
    return Fraction(like.pts[-1] + like.last_duration - like.pts[0], like.frames)


def spaced(first: int, period: Fraction, count: int) -> tuple[int, ...]:
    """`count` timestamps from the first on, as evenly as ticks allow."""
    return tuple(first + round(number * period) for number in range(count))


def read_index(source: BinaryIO) -> tuple[ChunkEntry, ...]:
    """The index at the end of a stream, by chunk number; nothing where there is none or the stream cannot seek.

    The position is put back to the first byte.
    """
    if not source.seekable():
        return ()
    index = find_chunk_index(source)
    source.seek(0)
    return index.entries if index.from_tail else ()


class Concealer:
    """Fills in what is lost; it is told of every chunk, in file order, and of every loss.

    Args:
        header: Of the file.
        decoder: The one that decodes the whole chunks.
        entries: The file's index, by chunk number; empty where there is none.
        network: A prior; None shows the tokenizer's forecast.
        load: Gives the tokens of a chunk that was passed by without being decoded.
        part: The frames that are wanted; None takes all.
    """

    def __init__(
        self,
        header: StreamHeader,
        decoder: StreamDecoder,
        *,
        entries: Sequence[ChunkEntry] = (),
        network: PriorNetwork | None,
        load: Callable[[ChunkRecord], TokenChunk],
        part: TimeRange | None = None,
    ) -> None:
        self._header, self._decoder, self._entries = header, decoder, entries
        self._network, self._load, self._part = network, load, part
        self._before: ChunkRecord | None = None
        self._tokens: TokenChunk | None = None
        self._lost: list[range] = []
        self._stated: dict[int, tuple[int, ...]] = {}
        self._held: tuple[int, ...] = ()
        self._drawn = self._expected = self._shown_ahead = self._given_up = 0

    @property
    def frames(self) -> int:
        """Frames filled in so far."""
        return self._drawn + self._expected + self._shown_ahead

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, for people."""
        filled = "frames were filled in after the chunk before them:"
        why = "without a prior" if self._network is None else "for the prior had nothing to draw"
        told = (
            (self._drawn, f"{filled} the prior's likelier bits"),
            (self._expected, f"{filled} what the tokenizer expects next, {why}"),
            (self._shown_ahead, "frames at the beginning are the picture that follows them"),
            (self._given_up, "lost chunks were not filled in: it is not known how long they are, or they are too long"),
        )
        return tuple(f"{count} {text}" for count, text in told if count)

    def lose(self, numbers: range, pts: tuple[int, ...] = ()) -> None:
        """Chunks are missing; `pts` are the timestamps of a single one of which only the tokens are damaged."""
        if numbers:
            self._lost.append(numbers)
        if pts:
            self._stated[numbers.start] = pts

    def passed(self, record: ChunkRecord, tokens: TokenChunk | None = None) -> None:
        """A chunk was decoded just now; or, without `tokens`, passed by."""
        self._before, self._tokens = record, tokens
        self._lost, self._stated, self._held = [], {}, ()

    def fill(self, after: ChunkRecord | None) -> Iterator[Frame]:
        """The frames of what was lost before the chunk `after` (None: before the end), where a chunk comes before.

        Where none does, :meth:`hold` says when to show the first picture of `after`.
        """
        if not self._lost:
            return
        times = self._times(after)
        if times and self._take_up():
            yield from self._generated(times)
        else:
            self._held = times
            if not times or after is None:
                self._given_up += sum(map(len, self._lost))
        self._lost, self._stated = [], {}

    def hold(self) -> tuple[int, ...]:
        """Timestamps, within the range, at which the first picture of the chunk that is decoded now is shown before."""
        times = tuple(pts for pts in self._held if self._place(pts) == 0)
        self._held = ()
        self._shown_ahead += len(times)
        return times

    def _place(self, pts: int) -> int:
        """-1 before the range that is wanted, 0 within it, 1 after it."""
        if self._part is None:
            return 0
        return -1 if self._part.starts_after(pts) else int(self._part.ends_before(pts))

    def _take_up(self) -> bool:
        """Brings the decoder to the end of the chunk before, where it is not there; False if there is no such chunk."""
        if self._before is None:
            return False
        if self._tokens is None:
            try:
                self._tokens = self._load(self._before)
            except CorruptStreamError:
                self._before = None
                return False
            self._decoder.start_chunk()
            for number, indices in enumerate(self._tokens.indices):
                # The state alone is wanted, which is that of the last frame.
                self._decoder.step(
                    indices,
                    self._tokens.kept_bits_of(number),
                    self._tokens.vectors[number],
                    frames=1,
                    picture=None if number else self._tokens.picture,
                    residual=self._tokens.residual_of(number),
                )
        return True

    def _generated(self, times: tuple[int, ...]) -> Iterator[Frame]:
        past = self._tokens
        if past is None or self._place(times[0]) > 0:
            return
        _, rows, columns = past.indices.shape
        drawing = None if self._network is None else Continuation(past, self._network, temperature=0.0)
        if drawing is not None and not drawing.draws:
            drawing = None
        kept = np.zeros((rows, columns), dtype=np.uint8)
        if drawing is not None:
            kept = spread_levels(drawing.levels, past.geometry, rows=rows, columns=columns)
        nothing = np.zeros((rows, columns), dtype=np.uint64)
        vectors = expected_vectors(past)
        frames = None if self._before is None or not self._before.step_frames else self._before.step_frames[-1]
        waiting = iter(times)
        left = len(times)
        while left > 0:
            tokens = nothing if drawing is None else drawing.step()
            pictures = self._decoder.step(tokens, kept, vectors, frames=frames)
            left -= len(pictures)
            for pixels, pts in zip(pictures, waiting, strict=False):
                if self._place(pts) > 0:
                    return
                if self._place(pts) == 0:
                    if drawing is None:
                        self._expected += 1
                    else:
                        self._drawn += 1
                    yield Frame(pixels=pixels, pts=pts)

    def _times(self, after: ChunkRecord | None) -> tuple[int, ...]:
        """Timestamps of the lost frames, as well as they are known; none where that is nothing or too many.

        A chunk of which only the tokens are damaged has its timestamps. The index has each chunk's first one and its
        number of frames. Without it, the time between the chunks around is shared out by the time from frame to frame.
        """
        before, times = self._before, list[int]()
        if sum(map(len, self._lost)) > MAX_FILLED_FRAMES:
            return ()
        numbers = [number for numbers in self._lost for number in numbers]
        if all(number in self._stated or number < len(self._entries) for number in numbers):
            for number in numbers:
                times.extend(self._stated.get(number) or self._indexed(number, after))
                if len(times) > MAX_FILLED_FRAMES:
                    return ()
        elif before is not None and after is not None:
            start = before.pts[-1] + before.last_duration
            span = after.pts[0] - start
            count = round(span / frame_period(self._header, before))
            if 0 < count <= MAX_FILLED_FRAMES:
                times.extend(spaced(start, Fraction(span, count), count))
        low = -1 if before is None else before.pts[-1]
        rising: list[int] = []
        for pts in times:  # an index can state anything
            if pts > low and (after is None or pts < after.pts[0]):
                rising.append(pts)
                low = pts
        return tuple(rising)

    def _indexed(self, number: int, after: ChunkRecord | None) -> tuple[int, ...]:
        """Timestamps of a chunk by the index: exact where the frame rate is even."""
        entry = self._entries[number]
        if entry.frames > MAX_FILLED_FRAMES:
            return tuple(range(MAX_FILLED_FRAMES + 1))
        if number + 1 < len(self._entries):
            span = self._entries[number + 1].first_pts - entry.first_pts
            return spaced(entry.first_pts, Fraction(span, entry.frames), entry.frames)
        return spaced(entry.first_pts, frame_period(self._header, self._before or after), entry.frames)


def concealer_for(
    header: StreamHeader,
    decoder: StreamDecoder,
    *,
    entries: Sequence[ChunkEntry],
    prior: str | None,
    part: TimeRange | None,
    forecast: bool = False,
) -> Concealer:
    """A concealer with the prior that a file, a person or the package names, or without one.

    Args:
        header: Of the file.
        decoder: See :class:`Concealer`.
        entries: See :class:`Concealer`.
        prior: A name or a path; None takes what the file was coded with, or was trained for its tokenizer.
        part: See :class:`Concealer`.
        forecast: Do without a prior.

    Raises:
        ModelError: The prior that was named is not there.
    """
    network = None
    if not forecast:
        try:
            network = drawing_prior(header, prior=prior)
        except ModelError:
            if prior is not None:
                raise
    own = Path(prior) if prior is not None and prior.endswith(".safetensors") else None
    return Concealer(
        header,
        decoder,
        entries=entries,
        network=network,
        load=lambda record: decode_chunk(record, header, prior=own),
        part=part,
    )
