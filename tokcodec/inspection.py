"""What a `.tok` file says of itself, and whether every chunk is whole. No torch, no pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tokcodec.chunks import PROBABILITY_NAMES, decode_chunk, token_damage
from tokcodec.container import ChunkRecord, Damage, SidePacketBatch, StreamHeader, read_stream
from tokcodec.errors import CorruptStreamError, ModelError
from tokcodec.geometry import MOTION_MAPS, TEMPORAL_FACTOR, TokenGeometry
from tokcodec.sources import CountingSource, open_tok

if TYPE_CHECKING:
    from tokcodec.tokens import TokenChunk

NOT_DECODED = "tokens were not decoded"


@dataclass(frozen=True, kw_only=True)
class ChunkBits:
    """What a chunk costs.

    Attributes:
        number: Position among the file's chunks.
        frames: Frames.
        steps: Later steps by the frames that they show, in a file that may list them; empty elsewhere.
        tokens: Tokens, those that keep no bit among them.
        coded_bits: All of its coded bits: tokens with their levels, motion maps, the first picture, residuals.
        motion_bits: Of these, about as many are motion maps; None where there may be any and nothing was decoded.
        picture_bits: And about as many the first picture, where it is coefficients; None likewise.
        residual_bits: And about as many residuals by wavelets; None likewise.
        raw_bits: Bits that the tokens keep, before coding; None unless tokens were decoded.
    """

    number: int
    frames: int
    steps: dict[int, int]
    tokens: int
    coded_bits: int
    motion_bits: int | None
    picture_bits: int | None
    residual_bits: int | None
    raw_bits: int | None

    @property
    def token_bits(self) -> int | None:
        """About as many of the coded bits are tokens and their levels; None where that is not known."""
        return _of_tokens(self.coded_bits, self.motion_bits, self.picture_bits, self.residual_bits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "number": self.number,
            "frames": self.frames,
            "steps_by_frames": {str(frames): count for frames, count in self.steps.items()},
            "tokens": self.tokens,
            "coded_bits": self.coded_bits,
            "motion_bits": self.motion_bits,
            "picture_bits": self.picture_bits,
            "residual_bits": self.residual_bits,
            "raw_bits": self.raw_bits,
            "coded_bits_per_token": _share(self.token_bits, self.tokens),
            "raw_bits_per_token": _share(self.raw_bits, self.tokens),
        }


def _share(bits: int | None, tokens: int) -> float | None:
    return None if bits is None or not tokens else round(bits / tokens, 4)


def _of_tokens(coded: int, *others: int | None) -> int | None:
    # What is left out was counted in whole words, so that nothing might be left, and less.
    known = [each for each in others if each is not None]
    return max(0, coded - sum(known)) if len(known) == len(others) else None


def _total(counts: Iterable[int | None]) -> int | None:
    found = list(counts)
    known = [count for count in found if count is not None]
    return sum(known) if len(known) == len(found) else None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A summary of a `.tok` file.

    Attributes:
        header: The file's header.
        file_bytes: Bytes read.
        token_bytes: Bytes of coded tokens, with motion maps, first pictures and residuals.
        side_bytes: Bytes of side-stream packets.
        raw_token_bits: Bits of all kept tokens before coding; None unless tokens were decoded.
        motion_bits: About as many of the coded bits are motion maps; None where there may be any and tokens were not
            decoded.
        picture_bits: About as many are first pictures by coefficients; None likewise.
        residual_bits: About as many are residuals by wavelets; None likewise.
        raw_reason: Why tokens were not decoded; None where they were.
        chunk_bits: Each whole chunk's tokens and bits.
        chunks: Whole chunks.
        frames: Frames in whole chunks.
        first_pts: Timestamp of the first frame, in ticks.
        duration_seconds: From the first frame to the end of the last.
        regular: Whether all frames are equally long.
        damages: What was lost.
        complete: Nothing was lost.
        tokens_checked: Whether every chunk's tokens were decoded and their CRC-32 compared.
    """

    header: StreamHeader
    file_bytes: int
    token_bytes: int
    side_bytes: int
    raw_token_bits: int | None
    motion_bits: int | None
    picture_bits: int | None
    residual_bits: int | None
    raw_reason: str | None
    chunk_bits: tuple[ChunkBits, ...]
    chunks: int
    frames: int
    first_pts: int | None
    duration_seconds: float
    regular: bool
    damages: tuple[Damage, ...]
    complete: bool
    tokens_checked: bool

    @property
    def tokens(self) -> int:
        """Tokens of all whole chunks."""
        return sum(chunk.tokens for chunk in self.chunk_bits)

    @property
    def token_bits(self) -> int | None:
        """About as many of the coded bits are tokens and their levels; None where that is not known."""
        return _of_tokens(8 * self.token_bytes, self.motion_bits, self.picture_bits, self.residual_bits)

    @property
    def step_counts(self) -> dict[int, int]:
        """Later steps by the frames that they show, the most frames first; nothing in a file that cannot list them."""
        counts: Counter[int] = Counter()
        for chunk in self.chunk_bits:
            counts.update(chunk.steps)
        return dict(sorted(counts.items(), reverse=True))

    @property
    def bits_per_pixel(self) -> float | None:
        """Bits of the file less its side streams, over pixels of all frames; None without frames."""
        pixels = self.frames * self.header.width * self.header.height
        return 8.0 * (self.file_bytes - self.side_bytes) / pixels if pixels else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the names state the units."""
        header = self.header
        rate = header.frame_rate
        bits = self.bits_per_pixel
        return {
            "width": header.width,
            "height": header.height,
            "frames": self.frames,
            "chunks": self.chunks,
            "frame_rate": None if rate is None else str(rate),
            "time_base": str(header.time_base),
            "first_pts": self.first_pts,
            "duration_seconds": round(self.duration_seconds, 6),
            "regular_timestamps": self.regular,
            "still_image": header.still_image,
            "file_bytes": self.file_bytes,
            "token_bytes": self.token_bytes,
            "side_stream_bytes": self.side_bytes,
            "tokens": self.tokens,
            "coded_token_bits": 8 * self.token_bytes,
            "raw_token_bits": self.raw_token_bits,
            "motion_bits": self.motion_bits,
            "picture_bits": self.picture_bits,
            "residual_bits": self.residual_bits,
            "raw_token_bits_reason": self.raw_reason,
            "coded_bits_per_token": _share(self.token_bits, self.tokens),
            "raw_bits_per_token": _share(self.raw_token_bits, self.tokens),
            "bits_per_pixel": None if bits is None else round(bits, 6),
            "kilobits_per_second": (
                round(8e-3 * self.file_bytes / self.duration_seconds, 3) if self.duration_seconds else None
            ),
            "bits_per_token": header.geometry.bits_per_token,
            "level_bits": list(header.geometry.level_bits),
            "max_chunk_frames": header.max_chunk_frames,
            "probability_model": PROBABILITY_NAMES.get(header.probability_model, str(header.probability_model)),
            "probability_sha256": header.probability_digest.hex() if any(header.probability_digest) else None,
            "tokenizer": header.tokenizer_name,
            "tokenizer_sha256": header.tokenizer_digest.hex(),
            "colour": {
                "primaries": header.colour.primaries,
                "transfer": header.colour.transfer,
                "matrix": header.colour.matrix,
                "full_range": header.colour.full_range,
            },
            "sample_aspect_ratio": None if header.sample_aspect_ratio is None else str(header.sample_aspect_ratio),
            "side_streams": [
                {"index": side.index, "codec": side.codec, "language": side.language} for side in header.side_streams
            ],
            "complete": self.complete,
            "tokens_checked": self.tokens_checked,
            "damages": [damage_dict(damage) for damage in self.damages],
            "chunk_bits": [chunk.to_dict() for chunk in self.chunk_bits],
        }


def damage_dict(damage: Damage) -> dict[str, Any]:
    """Plain values for JSON."""
    missing = damage.missing_chunks
    return {
        "offset": damage.offset,
        "bytes": damage.length,
        "reason": damage.reason,
        "missing_chunks": [missing.start, missing.stop] if missing else None,
        "to_the_end": damage.open_ended,
    }


def survey(
    source: BinaryIO, *, check_tokens: bool, prior: Path | None = None, needs_weights: bool = True
) -> Inspection:
    """Read a `.tok` stream to its end.

    Args:
        source: At the first byte; need not be seekable.
        check_tokens: Decode every chunk's tokens and compare their CRC-32 (no pixels).
        prior: A weights file of the probability model `prior`, beside those that are installed.
        needs_weights: Whether missing weights of a prior are an error; if not, tokens are left undecoded, and
            `raw_reason` says so.

    Raises:
        TokcodecError: Nothing of the file can be used; see :func:`tokcodec.container.read_stream`.
        ModelError: The weights of the probability model that the file names are not there.
    """
    counting = CountingSource(source)
    reader = read_stream(counting)
    header = reader.header
    reason = None if check_tokens else NOT_DECODED
    found: list[ChunkBits] = []
    frames = token_bytes = side_bytes = 0
    damages: list[Damage] = []
    first_pts: int | None = None
    end_pts = 0
    deltas: set[int] = set()
    last: tuple[int, int] | None = None
    for item in reader:
        if isinstance(item, ChunkRecord):
            raw_bits: int | None = None
            motion_bits = None if header.geometry.motion_tokens and item.frames > 1 else 0
            picture_bits = None if header.geometry.pictures else 0
            residual_bits = None if header.geometry.residuals and item.frames > 1 else 0
            if reason is None:
                try:
                    tokens = decode_chunk(item, header, prior=prior)
                    raw_bits, motion_bits, picture_bits, residual_bits = _bits_of(tokens)
                except CorruptStreamError as error:
                    damages.append(token_damage(item, error, offset=reader.item_offset))
                    continue
                except ModelError as error:
                    if needs_weights:
                        raise
                    reason = f"{NOT_DECODED}: {error.message}"
            found.append(
                ChunkBits(
                    number=item.number,
                    frames=item.frames,
                    steps=_steps_of(item, header.geometry),
                    tokens=header.chunk_tokens(item.frames, item.step_frames),
                    coded_bits=8 * len(item.token_data),
                    motion_bits=motion_bits,
                    picture_bits=picture_bits,
                    residual_bits=residual_bits,
                    raw_bits=raw_bits,
                )
            )
            frames += item.frames
            token_bytes += len(item.token_data)
            first_pts = item.pts[0] if first_pts is None else first_pts
            if last is not None and last[0] == item.number - 1:
                deltas.add(item.pts[0] - last[1])
            deltas.update(b - a for a, b in zip(item.pts, item.pts[1:], strict=False))
            last = item.number, item.pts[-1]
            end_pts = item.pts[-1] + item.last_duration
        elif isinstance(item, SidePacketBatch):
            side_bytes += sum(len(packet.data) for packet in item.packets)
        elif isinstance(item, Damage):
            damages.append(item)
    span = Fraction(end_pts - first_pts) * header.time_base if first_pts is not None else Fraction(0)
    return Inspection(
        header=header,
        file_bytes=counting.bytes_read,
        token_bytes=token_bytes,
        side_bytes=side_bytes,
        raw_token_bits=None if reason else sum(chunk.raw_bits or 0 for chunk in found),
        motion_bits=_total(chunk.motion_bits for chunk in found),
        picture_bits=_total(chunk.picture_bits for chunk in found),
        residual_bits=_total(chunk.residual_bits for chunk in found),
        raw_reason=reason,
        chunk_bits=tuple(found),
        chunks=len(found),
        frames=frames,
        first_pts=first_pts,
        duration_seconds=float(span),
        # A time base that does not divide the frame time makes durations differ by one tick.
        regular=not deltas or max(deltas) - min(deltas) <= 1,
        damages=tuple(damages),
        complete=reader.summary.complete and not damages,
        tokens_checked=reason is None,
    )


def _steps_of(chunk: ChunkRecord, geometry: TokenGeometry) -> dict[int, int]:
    if geometry.motion_maps != MOTION_MAPS or geometry.temporal_factor != TEMPORAL_FACTOR or chunk.frames == 1:
        return {}
    if not chunk.step_frames:
        return {TEMPORAL_FACTOR: geometry.steps(chunk.frames) - 1}
    return dict(sorted(Counter(chunk.step_frames).items(), reverse=True))


def _bits_of(tokens: TokenChunk) -> tuple[int, int, int, int]:
    """Bits kept, before coding, and about those of the motion maps, the first picture and residuals, after it."""
    from tokcodec import bits  # late: `info` need not wait for the coder

    counts = bits.motion_bit_count(tokens), bits.picture_bit_count(tokens), bits.residual_bit_count(tokens)
    return tokens.kept_bit_count(), *counts


def inspect(path: str | Path) -> Inspection:
    """Summarise a `.tok` file without decoding its tokens.

    Args:
        path: The file.

    Raises:
        TokcodecError: It is not a `.tok` file, or nothing of it can be used.
    """
    with open_tok(Path(path)) as source:
        return survey(source, check_tokens=False)


def verify(path: str | Path, *, prior: str | Path | None = None) -> Inspection:
    """Check every chunk of a `.tok` file: CRCs, timestamps, and the tokens themselves; no pixels are decoded.

    Args:
        path: The file.
        prior: A weights file of the probability model `prior`, beside those that are installed.

    Returns:
        The summary; `complete` says whether all is well, `damages` what is not.

    Raises:
        TokcodecError: It is not a `.tok` file, or nothing of it can be used.
        ModelError: The weights of the probability model that the file names are not there.
    """
    with open_tok(Path(path)) as source:
        return survey(source, check_tokens=True, prior=None if prior is None else Path(prior))
