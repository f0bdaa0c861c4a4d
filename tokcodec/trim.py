"""A smaller `.tok` file from a larger one: bits of tokens are left out, without weights of a tokenizer or pixels.

The encoder saw what a decoder makes of all the bits. A decoder of the trimmed file lacks some, so its picture drifts
from what the encoder meant, until the next chunk begins: encoding at the lower quality gives a better picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tokcodec.chunks import Entropy, decode_chunk, encode_chunk, entropy_of, token_damage
from tokcodec.container import ChunkRecord, ContainerWriter, Damage, Extension, SidePacketBatch, read_stream
from tokcodec.container.records import pack_chunk
from tokcodec.errors import CorruptStreamError, LimitError, UsageError
from tokcodec.intra import coarser
from tokcodec.seeking import total_frames
from tokcodec.sources import CountingSource
from tokcodec.tokens import Picture, TokenChunk, truncate

CHUNK_OVERHEAD_BYTES = 28 + 20
"""Of a chunk, beside its payload: the record, and an entry of the index."""
SCALES = (31, 19)
"""Of the pictures of the lowest quality that there might be, 0, and of the highest."""
FILE_OVERHEAD_BYTES = 28 + 16 + 36
"""Of a file, after its header: the index without entries, and the end."""


@dataclass(frozen=True, kw_only=True)
class TrimResult:
    """What a trim did.

    Attributes:
        chunks: Chunks written.
        frames: Frames in them.
        bytes_before: Bytes of the file that was read.
        bytes_after: Bytes of the file that was written.
        bits_per_pixel: Of the file that was written, without its side streams.
        notes: What a person should know, such as extensions that were left out.
        damages: What of the source was lost.
    """

    chunks: int
    frames: int
    bytes_before: int
    bytes_after: int
    bits_per_pixel: float
    notes: tuple[str, ...]
    damages: tuple[Damage, ...]


def trim(
    source: BinaryIO,
    target: BinaryIO,
    *,
    quality: int | None = None,
    bits_per_pixel: float | None = None,
    prior: Path | None = None,
) -> TrimResult:
    """Write a stream at a lower rate.

    Args:
        source: A `.tok` stream at its first byte; need not be seekable.
        target: Where the smaller one goes; need not be seekable.
        quality: No block keeps more than this level, 1 to the highest; the step of a first picture's
            quantizer is doubled until it is about that of `SCALES`, and that of residuals as often.
        bits_per_pixel: Instead of it, an upper bound of the rate, side streams not counted.
        prior: A weights file of the model `prior`, beside those that are installed.

    Raises:
        UsageError: Neither or both are given, or one is out of range.
        CorruptStreamError: Nothing of the file can be used.
    """
    if (quality is None) == (bits_per_pixel is None):
        raise UsageError("a trim needs a quality or bits per pixel, and not both")
    if bits_per_pixel is not None and not bits_per_pixel > 0:
        raise UsageError(f"bits per pixel must be above 0, not {bits_per_pixel!r}")
    total = total_frames(source)
    counting = CountingSource(source)
    reader = read_stream(counting)
    top = len(reader.header.geometry.level_bits) - 1
    if quality is not None and not 1 <= quality <= top:
        raise UsageError(f"quality is a whole number from 1 to {top}, not {quality!r}")
    header = replace(reader.header, extensions=())
    entropy = entropy_of(header, prior=prior)
    writer = ContainerWriter(target, header)
    fixed = 8 * (writer.bytes_written + FILE_OVERHEAD_BYTES)
    spare = 0.0 if total else -float(fixed)  # shared among the chunks, where it is known how many there are
    damages, frames, side_bytes, left_out = [], 0, 0, len(reader.header.extensions)
    for item in reader:
        if isinstance(item, ChunkRecord):
            try:
                tokens = decode_chunk(item, header, prior=prior)
            except CorruptStreamError as error:
                damages.append(token_damage(item, error, offset=reader.item_offset))
                continue
            if quality is not None:
                tokens = _capped(tokens, np.full_like(tokens.levels, quality))
            record = _coded(tokens, item, writer.chunks_written, entropy)
            if bits_per_pixel is not None:
                spare += bits_per_pixel * item.frames * header.width * header.height
                spare -= fixed * item.frames / total if total else 0.0
                around = len(pack_chunk(record, header=header)) - len(record.token_data) + CHUNK_OVERHEAD_BYTES
                record = _fitted(tokens, record, entropy, bits=spare - 8 * around)
                spare -= 8 * (around + len(record.token_data))
            writer.write_chunk(record)
            frames += item.frames
        elif isinstance(item, SidePacketBatch):
            before = writer.bytes_written
            writer.write_packets(item.packets)
            side_bytes += writer.bytes_written - before
        elif isinstance(item, Damage):
            damages.append(item)
        elif isinstance(item, Extension):
            left_out += 1
    if not frames:
        raise CorruptStreamError("no chunk of the file is whole", hint="run `tokcodec verify`")
    writer.close()
    return TrimResult(
        chunks=writer.chunks_written,
        frames=frames,
        bytes_before=counting.bytes_read,
        bytes_after=writer.bytes_written,
        bits_per_pixel=8.0 * (writer.bytes_written - side_bytes) / (frames * header.width * header.height),
        notes=(f"{left_out} extensions were left out: they may describe what changed",) if left_out else (),
        damages=tuple(damages),
    )


def _coded(tokens: TokenChunk, like: ChunkRecord, number: int, entropy: Entropy) -> ChunkRecord:
    return encode_chunk(
        tokens,
        number=number,
        pts=like.pts,
        last_duration=like.last_duration,
        step_frames=like.step_frames,
        entropy=entropy,
    )


def _fitted(tokens: TokenChunk, whole: ChunkRecord, entropy: Entropy, *, bits: float) -> ChunkRecord:
    """The chunk with as many bits as fit.

    Candidates are caps that fall once in the course of the chunk, by one level: the first steps, of which the others
    are made, keep the more. They are tried by bisection.
    """
    steps, top = len(tokens.levels), len(tokens.geometry.level_bits) - 1

    pictures: dict[int, Picture] = {}

    def candidate(number: int) -> ChunkRecord:
        if number == steps * (top - 1):
            return whole
        caps = _caps(tokens, 1 + number // steps, number % steps)
        return _coded(_capped(tokens, caps, pictures), whole, whole.number, entropy)

    best, low, high = candidate(0), 0, steps * (top - 1)
    if 8 * len(best.token_data) > bits:
        raise UsageError(
            f"chunk {whole.number} cannot be so small: at the lowest quality it has {len(best.token_data)} bytes",
            hint="ask for more bits per pixel",
        )
    if 8 * len(whole.token_data) <= bits:
        return whole
    while high - low > 1:
        middle = (low + high) // 2
        tried = candidate(middle)
        if 8 * len(tried.token_data) <= bits:
            best, low = tried, middle
        else:
            high = middle
    return best


def _capped(tokens: TokenChunk, caps: NDArray[np.uint8], pictures: dict[int, Picture] | None = None) -> TokenChunk:
    """A chunk whose blocks keep no more than these levels, and whose picture has the quality of that of its step;
    residuals become coarser as often as it does.

    Args:
        tokens: The chunk.
        caps: Highest level of each block.
        pictures: Coarser ones that were made of it before, by halvings; is added to.
    """
    lower = truncate(tokens, caps)
    if tokens.picture is None:
        return lower
    top, level = len(tokens.geometry.level_bits) - 1, int(caps[0].max())
    wanted = 0 if level == top else round(SCALES[0] + (SCALES[1] - SCALES[0]) * level / top)
    # Once it is no more than a half of a halving away it is there, so that a second trim changes nothing.
    halvings = max(0, (wanted - tokens.picture.scale + 1) // 4)
    residuals = [each and each.coarser(halvings) for each in tokens.residuals]
    left = tuple(each if each and each.coefficients.any() else None for each in residuals)
    known = {} if pictures is None else pictures
    if halvings not in known:
        known[halvings] = _coarser(tokens.picture, halvings)
    return replace(lower, picture=known[halvings], residuals=left)


def _coarser(picture: Picture, halvings: int) -> Picture:
    if picture.blocks is None:
        return picture.coarser(halvings)
    try:
        return coarser(picture, halvings)
    except MemoryError as error:
        raise LimitError("there is not enough memory to make a first picture coarser") from error


def _caps(tokens: TokenChunk, level: int, raised: int) -> NDArray[np.uint8]:
    """A highest level for each block: `level`, and one more in the first `raised` steps."""
    caps = np.full_like(tokens.levels, level)
    caps[:raised] += 1
    return caps
