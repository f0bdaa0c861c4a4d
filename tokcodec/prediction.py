"""A `.tok` stream that goes on: the tokens of its last chunk are continued by a prior, or by the tokenizer's forecast.

All chunks but the last are copied as they are. The last one gets further steps, so that a decoder goes on with the
state that it has there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tokcodec.chunks import decode_chunk, drawing_prior, encode_chunk, entropy_of
from tokcodec.concealment import frame_period
from tokcodec.container import (
    DEFAULT_LIMITS,
    MAX_CHUNK_FRAMES,
    ChunkRecord,
    ContainerWriter,
    Damage,
    Extension,
    SidePacketBatch,
    StreamHeader,
    read_stream,
)
from tokcodec.continuation import Continuation, expected_vectors
from tokcodec.errors import CorruptStreamError, LimitError, UsageError
from tokcodec.geometry import usual_steps
from tokcodec.tokens import Picture, TokenChunk

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork


NOTHING_DRAWN = "nothing was drawn from the prior: of late blocks usually keep no bits"


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """What a prediction did.

    Attributes:
        frames: Frames of the stream that was written.
        predicted: Frames among them, at the end, that are made up.
        replaced: Frames of the original that are made anew, because they did not fill a step.
        start_seconds: When the first of these is shown, counted from the first frame.
        method: "prior" where bits were drawn from one, else "forecast".
        notes: What a person should know.
        damages: What of the source was lost.
    """

    frames: int
    predicted: int
    replaced: int
    start_seconds: float
    method: str
    notes: tuple[str, ...]
    damages: tuple[Damage, ...]


def predict(
    source: BinaryIO,
    target: BinaryIO,
    *,
    seconds: float,
    seed: int = 0,
    temperature: float = 1.0,
    prior: str | None = None,
    forecast: bool = False,
) -> PredictResult:
    """Write a stream with its continuation.

    Args:
        source: A `.tok` stream that can seek, at its first byte.
        target: Where the longer one goes; need not be seekable.
        seconds: How much longer it is to be.
        seed: Of what is drawn; the same one draws the same tokens on every machine.
        temperature: 0 takes the likelier bits, 1 draws them as the prior says.
        prior: Name or path of the prior's weights; None takes those that the file names, or that are installed.
        forecast: Draw nothing: show what the tokenizer expects.

    Raises:
        UsageError: A value is out of range, or the stream is a picture.
        LimitError: A chunk cannot be so long.
        CorruptStreamError: The last chunk, or everything, is damaged.
        ModelError: There is no prior.
    """
    if not math.isfinite(seconds) or seconds <= 0:
        raise UsageError(f"a prediction is longer than 0 seconds, not {seconds!r}", hint="try 1")
    if not source.seekable():
        raise UsageError("the stream cannot seek", hint="name a file")
    start = source.tell()
    reader = read_stream(source)
    header, record = reader.header, None
    if header.still_image:
        raise UsageError("a picture has no motion to go on with", hint="give the .tok file of a video")
    network = None if forecast else drawing_prior(header, prior=prior)
    for item in reader:
        record = item if isinstance(item, ChunkRecord) else record
    if record is None:
        raise CorruptStreamError("no chunk of the file is whole", hint="run `tokcodec verify`")
    own = Path(prior) if prior is not None and prior.endswith(".safetensors") else None
    longer, whole, first = _longer(header, record, seconds)
    tokens, drawn = _continued(
        decode_chunk(record, header, prior=own),
        header.geometry.steps(longer.frames, longer.step_frames),
        whole=whole,
        network=network,
        seed=seed,
        temperature=temperature,
    )
    coded = encode_chunk(
        tokens,
        number=record.number,
        pts=longer.pts,
        last_duration=longer.last_duration,
        step_frames=longer.step_frames,
        entropy=entropy_of(header, prior=own),
    )
    source.seek(start)
    header = replace(header, extensions=(), max_chunk_frames=max(header.max_chunk_frames, coded.frames))
    copy = _copied(source, target, header, coded)
    notes = () if network is None or drawn else (NOTHING_DRAWN,)
    return PredictResult(
        frames=copy.frames,
        predicted=longer.frames - first,
        replaced=record.frames - first,
        start_seconds=float((longer.pts[first] - copy.origin) * header.time_base),
        method="prior" if drawn else "forecast",
        notes=(*notes, *copy.notes),
        damages=copy.damages,
    )


def _whole_steps(header: StreamHeader, record: ChunkRecord) -> tuple[int, int]:
    """Steps of a chunk that hold no repeated frames, and the frames of these."""
    if not record.step_frames:
        factor = header.geometry.temporal_factor
        whole = (record.frames - 1) // factor
        return 1 + whole, 1 + factor * whole
    later = record.step_frames
    if sum(later) > record.frames - 1:
        later = later[:-1]
    return 1 + len(later), 1 + sum(later)


def _longer(header: StreamHeader, record: ChunkRecord, seconds: float) -> tuple[ChunkRecord, int, int]:
    """A chunk's record with timestamps and steps of its continuation, its whole steps, and the frames of these.

    Steps go on as long as the last ones were: their motion is what is known of how things move.
    """
    period = frame_period(header, record)
    count = max(1, round(Fraction(seconds) / (period * header.time_base)))
    frames = record.frames + count
    room = DEFAULT_LIMITS.chunk_tokens // header.chunk_tokens(1)
    whole, shown = _whole_steps(header, record)
    each = record.step_frames[whole - 2] if record.step_frames and whole > 1 else header.geometry.temporal_factor
    most = min(MAX_CHUNK_FRAMES, shown + each * (room - whole))
    if frames > most:
        left = max(0.0, float((most - record.frames) * period * header.time_base))
        raise LimitError(
            f"a chunk of {frames} frames of this size is too long",
            hint=f"the last chunk has room for {math.floor(left)} seconds",
        )
    begin = record.pts[-1] + record.last_duration
    news = tuple(begin + round(number * period) for number in range(count + 1))
    step_frames: tuple[int, ...] = ()
    if record.step_frames[: whole - 1]:
        more = -(-(frames - shown) // each)
        step_frames = usual_steps((*record.step_frames[: whole - 1], *[each] * more))
    longer = replace(record, pts=(*record.pts, *news[:-1]), last_duration=news[-1] - news[-2], step_frames=step_frames)
    return longer, whole, shown


def _continued(
    past: TokenChunk, steps: int, *, whole: int, network: PriorNetwork | None, seed: int, temperature: float
) -> tuple[TokenChunk, bool]:
    """The `whole` first steps of a chunk, and others drawn from them, `steps` in all; and whether any bit was drawn."""
    known = replace(
        past,
        indices=past.indices[:whole],
        levels=past.levels[:whole],
        vectors=past.vectors[:whole],
        residuals=past.residuals[: max(whole - 1, 0)],
    )
    indices = np.zeros((steps, *past.indices.shape[1:]), dtype=np.uint64)
    levels = np.zeros((steps, *past.levels.shape[1:]), dtype=np.uint8)
    vectors = np.zeros((steps, *past.vectors.shape[1:]), dtype=np.int16)
    indices[:whole], levels[:whole], vectors[:whole] = known.indices, known.levels, known.vectors
    vectors[whole:] = expected_vectors(known)
    drawing = None if network is None else Continuation(known, network, seed=seed, temperature=temperature)
    draws = drawing is not None and drawing.draws
    if drawing is not None and draws:
        levels[whole:] = drawing.levels
        for step in range(whole, steps):
            indices[step] = drawing.step()
    residuals: tuple[Picture | None, ...] = ()
    if past.geometry.residuals:
        residuals = (*known.residuals, *[None] * (steps - max(whole, 1)))
    return replace(past, indices=indices, levels=levels, vectors=vectors, residuals=residuals), draws


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """What went into the target: frames, the first timestamp, and what a person should know."""

    frames: int
    origin: int
    notes: tuple[str, ...]
    damages: tuple[Damage, ...]


def _copied(source: BinaryIO, target: BinaryIO, header: StreamHeader, last: ChunkRecord) -> _Copy:
    """Copy a stream, with another header and another last chunk; what is damaged is left out."""
    writer = ContainerWriter(target, header)
    reader = read_stream(source)
    frames, left_out = 0, len(reader.header.extensions)
    origin: int | None = None
    damages: list[Damage] = []
    for item in reader:
        if isinstance(item, ChunkRecord):
            chosen = last if item.number == last.number else item
            writer.write_chunk(replace(chosen, number=writer.chunks_written))
            frames += chosen.frames
            origin = chosen.pts[0] if origin is None else origin
        elif isinstance(item, SidePacketBatch):
            writer.write_packets(item.packets)
        elif isinstance(item, Damage):
            damages.append(item)
        elif isinstance(item, Extension):
            left_out += 1
    writer.close()
    return _Copy(
        frames=frames,
        origin=origin or 0,
        notes=(f"{left_out} extensions were left out: they may describe what changed",) if left_out else (),
        damages=tuple(damages),
    )
