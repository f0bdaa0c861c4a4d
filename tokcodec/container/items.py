"""What a `.tok` file holds, as values: header, chunks, packets, extensions, damage (spec sections 4 to 6, 9).

Plain frozen dataclasses; nothing here reads or writes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from tokcodec.container import wire
from tokcodec.geometry import DEFAULT_GEOMETRY, MAX_PICTURE_PIXELS, TokenGeometry

NO_DIGEST = bytes(wire.DIGEST_BYTES)
"""Thirty-two zero bytes: the digest of a probability model that has no weights."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a reader is willing to spend; each is at most the format's own ceiling (spec section 10.2).

    Attributes:
        payload_bytes: Largest record payload that is read into memory.
        picture_pixels: Largest width x height; the default holds 7680x4320.
        picture_tokens: Most tokens of one picture; those of 54 bits take about 700 bytes of memory each,
            with a prior of the usual sizes 2700. A first picture by wavelets takes up to 2000 more while it is decoded,
            one by blocks 6000, and 388 as long as its chunk is there.
        chunk_tokens: Most tokens of one chunk; they take at most ten bytes of memory each, with seven
            motion maps 24, with residuals as well 48, the first picture aside. The default holds 65 frames of
            7680x4320 (8.8 million) in steps of four.
        index_chunks: Most entries of a chunk index that is read into memory.
    """

    payload_bytes: int = 1 << 26
    picture_pixels: int = MAX_PICTURE_PIXELS
    picture_tokens: int = 1 << 20
    chunk_tokens: int = 1 << 24
    index_chunks: int = 1 << 20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Colour:
    """How the source was coded, in ITU-T H.273 code points; 2 is unspecified (spec section 4.3)."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False


@dataclass(frozen=True, kw_only=True)
class Extension:
    """Bytes under a registered (0x40 to 0x7F) or private (0x80 to 0xFF) type (spec sections 4.6 and 6.4).

    Attributes:
        type: The type on the wire.
        data: The bytes, opaque to this package.
        critical: A reader that does not know the type has to refuse the file.
    """

    type: int
    data: bytes
    critical: bool = False


@dataclass(frozen=True, kw_only=True)
class SideStreamInfo:
    """A stream that rides along unchanged: audio, subtitles, data (spec section 4.5).

    Attributes:
        index: The number by which packets name the stream.
        kind: 1 audio, 2 subtitle, 3 data, 4 attachment; larger numbers are for later versions.
        codec: Name of the codec, as FFmpeg calls it, or empty.
        language: BCP 47 or ISO 639 tag, or empty.
        time_base: Seconds of one tick of the stream's timestamps.
        template: Set-up bytes of the stream, opaque to this package.
    """

    index: int
    kind: int
    codec: str
    language: str = ""
    time_base: Fraction
    template: bytes = b""


@dataclass(frozen=True, kw_only=True)
class StreamHeader:
    """Everything that a decoder needs to know before the first chunk (spec section 4).

    Attributes:
        width: Columns of the picture, pixels.
        height: Rows of the picture, pixels.
        time_base: Seconds of one tick of the chunks' timestamps.
        frame_rate: Nominal frames a second, or None where there is none.
        still_image: The file holds one picture that is not a video.
        colour: How the source was coded.
        sample_aspect_ratio: Width : height of a pixel, or None where it is not known.
        geometry: What a token means.
        max_chunk_frames: No chunk holds more frames than this.
        probability_model: 0 adaptive, 1 prior.
        probability_digest: SHA-256 of the probability model's weights; zeros for adaptive.
        tokenizer_digest: SHA-256 of the tokenizer's weights.
        tokenizer_name: What people call the tokenizer.
        side_streams: Streams whose packets ride along, by rising index.
        extensions: In file order.
    """

    width: int
    height: int
    time_base: Fraction
    frame_rate: Fraction | None = None
    still_image: bool = False
    colour: Colour = field(default_factory=Colour)
    sample_aspect_ratio: Fraction | None = None
    geometry: TokenGeometry = DEFAULT_GEOMETRY
    max_chunk_frames: int
    probability_model: int = wire.PROBABILITY_ADAPTIVE
    probability_digest: bytes = NO_DIGEST
    tokenizer_digest: bytes
    tokenizer_name: str
    side_streams: tuple[SideStreamInfo, ...] = ()
    extensions: tuple[Extension, ...] = ()

    def chunk_tokens(self, frames: int, step_frames: tuple[int, ...] = ()) -> int:
        """Tokens of a chunk of `frames` frames, with steps as listed where they are (spec section 3.2)."""
        rows, columns = self.geometry.grid(self.height, self.width)
        return self.geometry.steps(frames, step_frames) * rows * columns


@dataclass(frozen=True, kw_only=True)
class ChunkRecord:
    """One chunk, its tokens still coded (spec section 5).

    Attributes:
        number: Position among the file's chunks, from 0.
        pts: Timestamp of each frame in ticks of the header's time base, strictly rising.
        last_duration: Ticks for which the last frame is shown.
        tokens_crc32: CRC-32 of the decoded tokens in canonical form (spec section 5.3).
        token_data: The coded tokens (spec section 7).
        step_frames: Frames that each later step shows, of which at least one shows fewer than four; empty where all
            show four (spec section 3.2).
    """

    number: int
    pts: tuple[int, ...]
    last_duration: int
    tokens_crc32: int
    token_data: bytes
    step_frames: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of the chunk."""
        return len(self.pts)


@dataclass(frozen=True, kw_only=True)
class SidePacket:
    """One packet of a side stream, unchanged (spec section 6.1); times are in ticks of its stream."""

    stream: int
    data: bytes
    keyframe: bool = False
    pts: int | None = None
    dts: int | None = None
    duration: int = 0


@dataclass(frozen=True, kw_only=True)
class SidePacketBatch:
    """The packets of one record, in file order (spec section 6.1)."""

    packets: tuple[SidePacket, ...]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One stretch of the file that could not be used (spec section 9).

    Attributes:
        offset: Where the stretch begins, bytes from the start of the file.
        length: Its bytes; 0 where records are missing without a trace.
        reason: What is wrong, in a sentence.
        missing_chunks: Numbers of the chunks that are known to be lost here.
        open_ended: The file stops here, so that later chunks may be missing too.
    """

    offset: int
    length: int
    reason: str
    missing_chunks: range = range(0)
    open_ended: bool = False


Item = ChunkRecord | SidePacketBatch | Extension | Damage
"""What iterating over a :class:`~tokcodec.container.StreamReader` gives."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What was read (spec section 9.3).

    Attributes:
        chunks: Chunks given.
        frames: Frames of these chunks.
        total_chunks: Chunks of the whole file, where its end or index was read; else None.
        total_frames: Frames of the whole file, where its index was read; else None.
        damages: Stretches of damage.
        complete: The end was reached and nothing was lost.
    """

    chunks: int
    frames: int
    total_chunks: int | None
    total_frames: int | None
    damages: int
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkEntry:
    """Where a chunk is (spec section 6.2)."""

    number: int
    offset: int
    first_pts: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class ChunkIndex:
    """Where every chunk is.

    Attributes:
        entries: By rising chunk number; a damaged file's lost chunks are not in it.
        total_frames: Frames of the entries.
        from_tail: Read from the index at the end; False where the file had to be scanned.
    """

    entries: tuple[ChunkEntry, ...]
    total_frames: int
    from_tail: bool
