"""What becomes of a picture that does not change, and of chunk borders.

    python bench/static.py PICTURE_OR_VIDEO... [--seconds 4] [--quality 4] [--plot FILE.png]
    python bench/static.py VIDEO... --moving --chunk-frames 17 [--frames 51] [--strip FILE.png]

The first encodes the first frame of each source, repeated at 24 frames a second; the second the video as it is. For
each latent step it prints the PSNR of its frames, the bits that its tokens keep (and the coded bits of a first picture
by wavelets, whose tokens keep none, and of residuals), and the mean absolute change from frame to frame, decoded and in
the source; then both across chunk borders and within chunks, and what still blocks (32x32 pixels) keep beside moving
ones. `--coded` adds coded bits, by encoding chunks again in parts, which is slow.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokcodec import Codec
from tokcodec.bits import picture_bit_count, residual_bit_counts
from tokcodec.chunks import Entropy, encode_chunk
from tokcodec.codec import DEFAULT_CHUNK_FRAMES, DEFAULT_EFFORT
from tokcodec.errors import TokcodecError, UsageError
from tokcodec.evaluation.clips import read_clip
from tokcodec.evaluation.plot import check_matplotlib
from tokcodec.metrics import psnr
from tokcodec.tokens import TokenChunk, TokenGeometry, truncate
from tokcodec.tokenset import read_chunk_records

FRAME_RATE = 24
STILL_CHANGE = 2.0
"""Mean absolute change from frame to frame, 8-bit values, below which a block is still; `--still` sets another."""
STRIP = 288, 352
"""Rows and columns that a picture of a border shows, at most."""
KINDS = ("still since this step", "still for longer", "moving")

Frames = NDArray[np.uint8]
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedChunk:
    """A chunk of a coded video.

    Attributes:
        start: Number of its first frame.
        frames: How many it has.
        tokens: Its tokens.
        coded_bits: Of all of them.
        step_bits: Coded bits of each step; None where that was not asked for.
        listed: Frames that each later step shows, where the file lists them.
    """

    start: int
    frames: int
    tokens: TokenChunk
    coded_bits: int
    step_bits: list[int] | None = None
    listed: tuple[int, ...] = ()

    def step_frames(self) -> list[range]:
        """Numbers of the frames of each step."""
        geometry = self.tokens.geometry
        steps = geometry.steps(self.frames, self.listed)
        ends = list(accumulate(geometry.frames_of_step(step, self.listed) for step in range(steps)))
        ends[-1] = self.frames
        starts = [0, *ends[:-1]]
        return [range(self.start + first, self.start + end) for first, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """A coded video, frame by frame.

    Attributes:
        name: For people.
        bits_per_pixel: Of the whole file.
        chunks: In order.
        psnr: Of each frame, dB, `(T,)`; infinite for no error.
        decoded_change: Mean absolute difference of each frame from the one before, 8-bit values, `(T,)`; 0 of the
            first.
        source_change: The same of the source.
        pictures: Source and decoded, uint8 `(T, H, W, 3)` each; None where they are not kept.
    """

    name: str
    bits_per_pixel: float
    chunks: Sequence[CodedChunk]
    psnr: Values
    decoded_change: Values
    source_change: Values
    pictures: tuple[Frames, Frames] | None = None

    @property
    def borders(self) -> list[int]:
        """Numbers of the first frames of all chunks but the first."""
        return [chunk.start for chunk in self.chunks[1:]]


@dataclass(kw_only=True)
class BlockBits:
    """What blocks of one kind cost, counted in each step of a chunk but the first.

    Attributes:
        blocks: Blocks, counted in each step.
        keeping: Those of them that keep any bits.
        kept_bits: Bits that their tokens keep.
        coded_bits: What the file would save if they kept nothing; None where that was not asked for.
    """

    blocks: int = 0
    keeping: int = 0
    kept_bits: int = 0
    coded_bits: int | None = None


def changes(frames: Frames) -> Values:
    """Mean absolute difference of each frame from the one before: uint8 `(T, H, W, 3)` to `(T,)`; 0 of the first."""
    return np.array([0.0, *(np.abs(after.astype(np.int16) - before).mean() for before, after in pairwise(frames))])


def block_change(frames: Frames, geometry: TokenGeometry) -> Values:
    """The same for each allocation block: `(T, block_rows, block_columns)`."""
    height, width = frames.shape[1:3]
    side = geometry.block_tokens * geometry.spatial_factor
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    pixels = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    change = np.zeros((len(frames), len(rows), len(columns)))
    for number in range(1, len(frames)):
        difference = np.abs(frames[number].astype(np.int16) - frames[number - 1]).mean(axis=2)
        change[number] = np.add.reduceat(np.add.reduceat(difference, rows, axis=0), columns, axis=1) / pixels
    return change


def block_kinds(change: Values, chunk: CodedChunk, *, threshold: float = STILL_CHANGE) -> NDArray[np.int64]:
    """Index into `KINDS` of each block in each step of a chunk, `(steps, block_rows, block_columns)`; -1 in the first.

    A block is still in a step whose frames change by less than the threshold on average.

    Args:
        change: Of the blocks of all frames; see :func:`block_change`.
        chunk: Whose steps are meant.
        threshold: In 8-bit values.
    """
    still = np.stack([change[list(frames)].mean(axis=0) < threshold for frames in chunk.step_frames()])
    kinds = np.full(still.shape, -1, dtype=np.int64)
    for step in range(1, len(still)):
        was_still = still[step - 1] if step > 1 else np.zeros_like(still[0])
        kinds[step] = np.where(still[step], np.where(was_still, 1, 0), 2)
    return kinds


def block_bits(tokens: TokenChunk) -> NDArray[np.int64]:
    """Bits that each block keeps: `(steps, block_rows, block_columns)`."""
    side, kept = tokens.geometry.block_tokens, tokens.kept_bits().astype(np.int64)
    rows, columns = (np.arange(0, size, side) for size in kept.shape[1:])
    return np.add.reduceat(np.add.reduceat(kept, rows, axis=1), columns, axis=2)


def kept_by_step(tokens: TokenChunk) -> list[int]:
    """Bits that the tokens of each step keep, and about the coded bits of a first picture and of residuals."""
    kept = block_bits(tokens).sum(axis=(1, 2)).tolist()
    others = [picture_bit_count(tokens), *residual_bit_counts(tokens)]
    return [own + other for own, other in zip_longest(kept, others, fillvalue=0)]


def count_blocks(
    source: Frames, chunks: Sequence[CodedChunk], *, threshold: float = STILL_CHANGE, entropy: Entropy | None = None
) -> dict[str, BlockBits]:
    """Bits by kind of block.

    Args:
        source: uint8 `(T, H, W, 3)`.
        chunks: How it was coded.
        threshold: See :func:`block_kinds`.
        entropy: Also count coded bits, with this model.
    """
    counts = {kind: BlockBits(coded_bits=None if entropy is None else 0) for kind in KINDS}
    change = block_change(source, chunks[0].tokens.geometry)
    for chunk in chunks:
        kinds, kept = block_kinds(change, chunk, threshold=threshold), block_bits(chunk.tokens)
        for number, count in enumerate(counts.values()):
            chosen = kinds == number
            count.blocks += int(chosen.sum())
            count.keeping += int((kept[chosen] > 0).sum())
            count.kept_bits += int(kept[chosen].sum())
            if entropy is not None and count.coded_bits is not None and kept[chosen].any():
                without = truncate(chunk.tokens, np.where(chosen, 0, chunk.tokens.levels).astype(np.uint8))
                count.coded_bits += chunk.coded_bits - size_of(without, entropy)
    return counts


def size_of(tokens: TokenChunk, entropy: Entropy) -> int:
    """Coded bits of a chunk."""
    record = encode_chunk(tokens, number=0, pts=(0,), last_duration=1, entropy=entropy)
    return 8 * len(record.token_data)


def bits_by_step(tokens: TokenChunk, entropy: Entropy) -> list[int]:
    """Coded bits of each step: by how much the chunk is longer with it than if it ended before it.

    The range coder writes words of 32 bits, so a step is told to about that.
    """
    arrays: dict[str, Any] = {
        field.name: value
        for field in dataclasses.fields(tokens)
        if isinstance(value := getattr(tokens, field.name), np.ndarray)
    }
    sizes = [0]
    for steps in range(1, len(tokens.indices) + 1):
        cut = {name: value[:steps] for name, value in arrays.items()}
        shorter = dataclasses.replace(tokens, **cut, residuals=tokens.residuals[: steps - 1])
        sizes.append(size_of(shorter, entropy))
    return np.diff(sizes).tolist()


def run(
    source: Frames, codec: Codec, *, name: str, quality: int, chunk_frames: int, effort: int, coded: bool = False
) -> Course:
    """Encode frames, decode them, and measure.

    Args:
        source: uint8 `(T, H, W, 3)`.
        codec: With which.
        name: For people.
        quality: 1 to 6.
        chunk_frames: Most frames of a chunk.
        effort: Of the encoder.
        coded: Whether coded bits of each step are wanted.
    """
    data = codec.encode_frames(source, quality=quality, frame_rate=FRAME_RATE, chunk_frames=chunk_frames, effort=effort)
    decoded = codec.decode_frames(data).frames
    chunks: list[CodedChunk] = []
    start = 0
    for _, record, tokens in read_chunk_records(io.BytesIO(data), prior=codec.prior_file):
        steps = bits_by_step(tokens, codec.entropy) if coded else None
        bits = 8 * len(record.token_data)
        chunk = CodedChunk(
            start=start,
            frames=record.frames,
            tokens=tokens,
            coded_bits=bits,
            step_bits=steps,
            listed=record.step_frames,
        )
        chunks.append(chunk)
        start += record.frames
    return Course(
        name=name,
        bits_per_pixel=8 * len(data) / np.prod(source.shape[:3], dtype=float),
        chunks=chunks,
        psnr=np.array([psnr(one, other) for one, other in zip(source, decoded, strict=True)]),
        decoded_change=changes(decoded),
        source_change=changes(source),
        pictures=(source, decoded),
    )


def step_table(course: Course) -> list[str]:
    """A row for each step in Markdown, and one for each chunk border."""
    lines = [
        "| frames | PSNR of each, dB | bits kept | bits coded | change, decoded | change, source |",
        "|---" * 6 + "|",
    ]
    for chunk in course.chunks:
        lines.append(f"| **chunk from frame {chunk.start}** | | | {chunk.coded_bits} | | |")
        kept = kept_by_step(chunk.tokens)
        for step, frames in enumerate(chunk.step_frames()):
            places = list(frames)
            values = " ".join(f"{value:.2f}" for value in course.psnr[places])
            coded = "" if chunk.step_bits is None else str(chunk.step_bits[step])
            change = [f"{some[places].mean():.3f}" for some in (course.decoded_change, course.source_change)]
            span = f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"
            lines.append(f"| {span} | {values} | {kept[step]} | {coded} | {' | '.join(change)} |")
    return lines


def border_table(course: Course) -> list[str]:
    """Mean change of pictures and of PSNR from frame to frame, across chunk borders and within chunks, in Markdown."""
    borders = course.borders
    inside = [number for number in range(1, len(course.psnr)) if number not in borders]
    lines = [
        "| from frame to frame | pairs | change, decoded | change, source | change of PSNR, dB |",
        "|---" * 5 + "|",
    ]
    for name, places in (("within chunks", inside), ("across chunk borders", borders)):
        if places:
            change = [f"{some[places].mean():.3f}" for some in (course.decoded_change, course.source_change)]
            with np.errstate(invalid="ignore"):
                steps = np.nan_to_num(np.diff(course.psnr)[np.array(places) - 1], posinf=0, neginf=0)
            lines.append(f"| {name} | {len(places)} | {' | '.join(change)} | {steps.mean():+.2f} |")
    return lines


def block_table(counts: dict[str, BlockBits]) -> list[str]:
    """Bits by kind of block, in Markdown."""
    lines = [
        "| blocks after a chunk's first step | number | that keep bits | bits kept | bits kept a block | bits coded |",
        "|---" * 6 + "|",
    ]
    for kind, count in counts.items():
        if count.blocks:
            coded = "" if count.coded_bits is None else str(count.coded_bits)
            share, mean = count.keeping / count.blocks, count.kept_bits / count.blocks
            lines.append(f"| {kind} | {count.blocks} | {share:.1%} | {count.kept_bits} | {mean:.2f} | {coded} |")
    return lines


def draw(courses: Sequence[Course], target: Path) -> None:
    """A column for each video: PSNR by frame, bits by step, change from frame to frame; dotted at chunk borders."""
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(courses), 8), layout="constrained")
    axes: Any = figure.subplots(3, len(courses), squeeze=False, sharex="col")
    for (quality, bits, change), course in zip(axes.T, courses, strict=True):
        quality.plot(course.psnr, "o-", markersize=3)
        quality.set_title(f"{course.name}, {course.bits_per_pixel:.4f} bits per pixel", fontsize=10)
        quality.set_ylabel("PSNR, dB")
        for chunk in course.chunks:
            steps = chunk.step_frames()
            places = [(frames[0] + frames[-1]) / 2 for frames in steps]
            widths = [0.9 * len(frames) for frames in steps]
            bits.bar(places, kept_by_step(chunk.tokens), widths, color="#0072b2")
        bits.set_yscale("symlog", linthresh=10)
        bits.set_ylabel("bits kept by each step (pictures, residuals: coded)")
        for label, values, style in (("decoded", course.decoded_change, "-"), ("source", course.source_change, "--")):
            change.plot(range(1, len(values)), values[1:], style, label=label)
        change.set_ylabel("change from frame to frame")
        change.set_xlabel("frame")
        change.legend()
        for panel in (quality, bits, change):
            panel.grid(visible=True, alpha=0.25)
            for border in course.borders:
                panel.axvline(border - 0.5, color="#d55e00", linestyle=":", linewidth=1)
    figure.savefig(target, dpi=110)


def strip(course: Course) -> Frames:
    """The last two frames of a chunk and the first two of the next, source above decoded, uint8 `(H, W, 3)`.

    Of the border at which the decoded picture changes most, the middle of the picture in its own size.

    Raises:
        UsageError: No two chunks of two frames and more follow each other, or the pictures were not kept.
    """
    borders = [after.start for before, after in pairwise(course.chunks) if min(before.frames, after.frames) >= 2]
    if course.pictures is None or not borders:
        raise UsageError("there is no border between chunks to show", hint="ask for other --chunk-frames")
    border = max(borders, key=lambda number: float(course.decoded_change[number]))
    height, width = course.pictures[0].shape[1:3]
    tall, wide = min(height, STRIP[0]), min(width, STRIP[1])
    top, left = (height - tall) // 2, (width - wide) // 2
    rows = [
        np.concatenate(list(frames[border - 2 : border + 2, top : top + tall, left : left + wide]), axis=1)
        for frames in course.pictures
    ]
    return np.concatenate(rows)


def main() -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="pictures or videos")
    parser.add_argument("--moving", action="store_true", help="the video itself, and not its first frame repeated")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the repeated frame")
    parser.add_argument("--frames", type=int, help="with --moving: only the first so many")
    parser.add_argument("--quality", type=int, default=4)
    parser.add_argument("--chunk-frames", type=int, default=DEFAULT_CHUNK_FRAMES)
    parser.add_argument("--effort", type=int, default=DEFAULT_EFFORT)
    parser.add_argument("--still", type=float, default=STILL_CHANGE, help="mean change below which a block is still")
    parser.add_argument("--coded", action="store_true", help="coded bits of steps and of blocks too")
    parser.add_argument("--model", help="model name or weights file")
    parser.add_argument("--entropy", default="auto")
    parser.add_argument("--prior", help="name or file; by default what comes with the model")
    parser.add_argument("--style", default="auto", help="auto, faithful, vivid or a file; of tokcodec's decoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument(
        "--strip", type=Path, metavar="FILE.png", help="of the first source: two frames at each side of a border"
    )
    arguments = parser.parse_args()
    courses = []
    try:
        if arguments.plot is not None:
            check_matplotlib()
        codec = Codec(
            model=arguments.model,
            device=arguments.device,
            entropy=arguments.entropy,
            prior=arguments.prior,
            style=arguments.style,
        )
        for path in arguments.sources:
            frames = read_clip(path, max_frames=arguments.frames if arguments.moving else 1).frames
            if not arguments.moving:
                frames = frames.repeat(max(1, round(arguments.seconds * FRAME_RATE)), axis=0)
            course = run(
                frames,
                codec,
                name=path.stem,
                quality=arguments.quality,
                chunk_frames=arguments.chunk_frames,
                effort=arguments.effort,
                coded=arguments.coded,
            )
            entropy = codec.entropy if arguments.coded else None
            counts = count_blocks(frames, course.chunks, threshold=arguments.still, entropy=entropy)
            print(f"{course.name}: {course.bits_per_pixel:.5f} bits per pixel\n")
            for table in (step_table(course), border_table(course), block_table(counts)):
                print("\n".join(table), end="\n\n")
            courses.append(course)
        if arguments.plot is not None:
            draw(courses, arguments.plot)
        if arguments.strip is not None:
            Image.fromarray(strip(courses[0])).save(arguments.strip)
    except TokcodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
