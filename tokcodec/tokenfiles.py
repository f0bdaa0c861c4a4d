"""Tokens as `.npz` and `.safetensors` files, for those who train models; and back to `.tok` bytes.

Keys of such a file:

    indices      int32 (T', H', W'), all chunks one after the other; int64 above 31 bits, uint64 for 64
    subtokens    int32 (T', H', W', parts), the same indices cut up, least significant bits first
    levels       uint8 (T', H'/4, W'/4), quality level of each block (spec section 3.4)
    vectors      int16 (T', H'/2, W'/2, 2), motion maps, where the model codes motion (spec section 7.10); seven of them
                 lie one below the other, and an eighth says from which picture blocks come (section 7.15)
    pictures     int16 (chunks, 3, 8H', 8W'), coefficients of the first picture of each chunk, and
    scales       uint8 (chunks), of its quantizer, where pictures are coded by coefficients (spec section 3.6)
    layouts      uint8 (chunks, 2H', 2W'), their blocks, where there are some (spec section 3.8)
    residuals    int16 (n, 3, 2H', 2W'), coefficients of the residuals of n later steps,
    residual_scales  uint8 (n), of their quantizers, and
    residual_steps   int64 (n), the steps that have them, where there are any (spec section 3.7); all three or none
    chunk_frames int64 (chunks), frames of each chunk; its steps follow from them (spec section 3.2) but where there are
    chunk_steps  int64 (chunks), steps of each chunk, and
    step_frames  uint8 (T'), frames that each step shows, where a step shows fewer than four: 1 for the first of a chunk
    pts          int64 (frames), timestamps in ticks
    durations    int64 (chunks), ticks of the last frame of each chunk
    header       uint8, the header of the file, without side streams (spec section 4.1)

On the way back only `indices` or `subtokens`, `chunk_frames` and `header` are needed, and where there are both of the
former they must agree; where there are no `levels`, all bits are kept (none of a step that has a picture), and without
`vectors` nothing moves. `pictures`, `scales` and `layouts` are needed where the header says that there are some.
`chunk_steps` and `step_frames` go together.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tokcodec.chunks import Entropy, encode_chunk
from tokcodec.container import DEFAULT_LIMITS, ContainerWriter, StreamHeader
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, OutputError, TokcodecError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, MAX_VECTOR, usual_steps
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, layout_shape, masks, picture_shape, residual_shape
from tokcodec.tokenset import factorize, join_subtokens, read_chunk_records

Arrays = Mapping[str, NDArray[Any]]
SUFFIXES = (".npz", ".safetensors")


def token_arrays(source: BinaryIO, *, parts: int | None = None, prior: Path | None = None) -> dict[str, Any]:
    """All tokens of a `.tok` stream, as the arrays that the module describes; damaged chunks are left out.

    Args:
        source: At the first byte; need not be seekable.
        parts: Sub-tokens of an index; None: as many as have nine bits.
        prior: A weights file of the model `prior`, beside those that are installed.

    Raises:
        CorruptStreamError: No chunk is whole.
        UsageError: An index cannot be cut into so many parts.
    """
    indices: list[NDArray[np.uint64]] = []
    levels: list[NDArray[np.uint8]] = []
    vectors: list[NDArray[np.int16]] = []
    pictures: list[Picture] = []
    residuals: list[Picture | None] = []
    frames: list[int] = []
    pts: list[int] = []
    durations: list[int] = []
    steps: list[int] = []
    step_frames: list[int] = []
    listed = False
    header: StreamHeader | None = None
    for header, record, chunk in read_chunk_records(source, prior=prior):
        indices.append(chunk.indices)
        levels.append(chunk.levels)
        vectors.append(chunk.vectors)
        pictures += [] if chunk.picture is None else [chunk.picture]
        residuals += [chunk.residual_of(step) for step in range(len(chunk.indices))]
        frames.append(record.frames)
        pts.extend(record.pts)
        durations.append(record.last_duration)
        steps.append(len(chunk.indices))
        geometry, listed = header.geometry, listed or bool(record.step_frames)
        step_frames += [geometry.frames_of_step(step, record.step_frames) for step in range(len(chunk.indices))]
    if header is None:
        raise CorruptStreamError("no chunk of the file is whole", hint="run `tokcodec verify`")
    bits = header.geometry.bits_per_token
    whole, moved = np.concatenate(indices), np.concatenate(vectors)
    plain = replace(header, side_streams=(), extensions=())
    return {
        "indices": whole.astype(np.int32 if bits <= 31 else np.int64 if bits <= 63 else np.uint64),
        "subtokens": factorize(whole, bits=bits, parts=parts),
        "levels": np.concatenate(levels),
        **({"vectors": moved} if header.geometry.motion_tokens else {}),
        **(
            {
                "pictures": np.stack([picture.coefficients for picture in pictures]),
                "scales": np.asarray([picture.scale for picture in pictures], np.uint8),
                **_packed_layouts(pictures),
            }
            if pictures
            else {}
        ),
        **_packed_residuals(residuals),
        "chunk_frames": np.asarray(frames, dtype=np.int64),
        **(
            {"chunk_steps": np.asarray(steps, np.int64), "step_frames": np.asarray(step_frames, np.uint8)}
            if listed
            else {}
        ),
        "pts": np.asarray(pts, dtype=np.int64),
        "durations": np.asarray(durations, dtype=np.int64),
        "header": np.frombuffer(pack_header(plain), dtype=np.uint8),
    }


def write_arrays(path: Path, arrays: Arrays, *, suffix: str) -> None:
    """Write arrays as `.npz` or `.safetensors`.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        if suffix == ".npz":
            with path.open("wb") as sink:
                np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]
        else:
            from safetensors.numpy import save

            path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", where=str(path)) from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what :func:`write_arrays` wrote; runs no code from it.

    Raises:
        UsageError: It is no such file.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as loaded:
                return {name: loaded[name] for name in loaded.files}
        from safetensors.numpy import load_file

        return dict(load_file(path))
    except Exception as error:  # zipfile, zlib, NumPy and safetensors each raise their own
        raise UsageError(
            f"no file of tokens: {error}", where=str(path), hint="make one with tokcodec tokens"
        ) from error


def write_tok(arrays: Arrays, target: BinaryIO, *, entropy: Entropy) -> int:
    """Code arrays as a `.tok` stream; gives its bytes.

    Args:
        arrays: As the module describes them.
        target: Where to; need not be seekable.
        entropy: The probability model.

    Raises:
        UsageError: An array is missing, or does not fit the others.
    """
    missing = {"chunk_frames", "header"} - set(arrays)
    if not {"indices", "subtokens"} & set(arrays):
        missing.add("indices")
    if missing:
        raise UsageError(f"the file of tokens has no {', '.join(sorted(missing))}")
    header = replace(_header(arrays["header"]), probability_model=entropy.wire_id, probability_digest=entropy.digest)
    geometry, frames = header.geometry, [int(count) for count in arrays["chunk_frames"]]
    if not frames or min(frames) < 1:
        raise UsageError("chunk_frames must be counts of at least 1")
    listed = _steps(arrays, frames, geometry)
    steps = [geometry.steps(count, later) for count, later in zip(frames, listed, strict=True)]
    shape = (sum(steps), *geometry.grid(header.height, header.width))
    firsts = np.cumsum([0, *steps[:-1]])
    indices, levels = _tokens(arrays, geometry, shape, firsts=firsts)
    vectors = _vectors(arrays, (shape[0], *geometry.motion_blocks(*shape[1:]), 2))
    pictures = _pictures(arrays, geometry, chunks=len(frames), shape=shape[1:])
    residuals = _residuals(arrays, geometry, shape=shape, firsts=firsts)
    tick = 1 if header.frame_rate is None else max(1, round(1 / (header.frame_rate * header.time_base)))
    pts = arrays.get("pts", np.arange(sum(frames)) * tick)
    durations = arrays.get("durations", np.full(len(frames), tick))
    if pts.shape != (sum(frames),) or durations.shape != (len(frames),):
        raise UsageError("pts and durations must be one for each frame and one for each chunk")
    writer = ContainerWriter(target, header)
    step = frame = 0
    for number, (count, length) in enumerate(zip(frames, steps, strict=True)):
        span = slice(step, step + length)
        chunk = TokenChunk(
            indices=indices[span],
            levels=levels[span],
            geometry=geometry,
            vectors=vectors[span],
            picture=pictures[number] if pictures else None,
            residuals=tuple(residuals[step + 1 : step + length]) if geometry.residuals else (),
        )
        writer.write_chunk(
            encode_chunk(
                chunk,
                number=number,
                pts=tuple(int(value) for value in pts[frame : frame + count]),
                last_duration=int(durations[number]),
                step_frames=listed[number],
                entropy=entropy,
            )
        )
        step, frame = step + length, frame + count
    writer.close()
    return writer.bytes_written


def tok_bytes(arrays: Arrays, *, entropy: Entropy) -> io.BytesIO:
    """As :func:`write_tok`, in memory, at its first byte."""
    sink = io.BytesIO()
    write_tok(arrays, sink, entropy=entropy)
    sink.seek(0)
    return sink


def tokenizer_of(arrays: Arrays) -> str:
    """SHA-256 of the weights whose tokens these are; "" where nothing says."""
    return _header(arrays["header"]).tokenizer_digest.hex() if "header" in arrays else ""


def _header(data: NDArray[Any]) -> StreamHeader:
    try:
        return parse_header(data.astype(np.uint8).tobytes(), offset=0, limits=DEFAULT_LIMITS, understood=())
    except TokcodecError as error:
        raise UsageError(f"the header among the tokens is invalid: {error.message}") from error


def _indices(arrays: Arrays, bits: int) -> NDArray[Any]:
    """The indices as they are, or made of sub-tokens."""
    given, cut = arrays.get("indices"), arrays.get("subtokens")
    if cut is not None:
        if cut.dtype.kind not in "iu" or cut.ndim < 1:
            raise UsageError(f"subtokens must be whole numbers, not {cut.dtype} {cut.shape}")
        joined = join_subtokens(cut, bits=bits)
        if given is None:
            return joined
        if not np.array_equal(joined, given.astype(np.uint64)):
            raise UsageError("indices and subtokens do not agree", hint="leave out those that are not meant")
    return arrays["indices"]


def _tokens(
    arrays: Arrays, geometry: TokenGeometry, shape: tuple[int, int, int], *, firsts: NDArray[np.intp]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Indices and levels, checked; bits that are not kept are cleared."""
    given = _indices(arrays, geometry.bits_per_token)
    if given.shape != shape or given.dtype.kind not in "iu":
        raise UsageError(f"indices must be whole numbers of shape {shape}, not {given.dtype} {given.shape}")
    if int(given.min()) < 0 or int(given.max()) >= 1 << geometry.bits_per_token:
        raise UsageError(f"indices must be from 0 to {(1 << geometry.bits_per_token) - 1}")
    blocks = (shape[0], *geometry.blocks(*shape[1:]))
    top = len(geometry.level_bits) - 1
    if "levels" in arrays:
        levels = np.asarray(arrays["levels"])
    else:
        levels = np.full(blocks, top)
        levels[firsts] = 0 if geometry.pictures else top
    if levels.shape != blocks or int(levels.min()) < 0 or int(levels.max()) > top:
        raise UsageError(f"levels must be of shape {blocks} and from 0 to {top}")
    chunk = TokenChunk(indices=given.astype(np.uint64), levels=levels.astype(np.uint8), geometry=geometry)
    for number in range(shape[0]):
        chunk.indices[number] &= masks(chunk.kept_bits_of(number))
    return chunk.indices, chunk.levels


def _pictures(arrays: Arrays, geometry: TokenGeometry, *, chunks: int, shape: tuple[int, int]) -> list[Picture]:
    """The first picture of each chunk, checked; none where they are not coded by coefficients."""
    if not geometry.pictures:
        if {"pictures", "scales", "layouts"} & set(arrays):
            raise UsageError("the header says that first pictures are not coded by coefficients")
        return []
    if not {"pictures", "scales"} <= set(arrays):
        raise UsageError("the file of tokens has no pictures or no scales, and the header says that there are some")
    wanted = (chunks, *picture_shape(geometry, *shape))
    found = _checked(arrays["pictures"], arrays["scales"], wanted, names=("pictures", "scales"))
    if ("layouts" in arrays) != geometry.intra:
        raise UsageError("layouts are there where the header says that first pictures have blocks, and nowhere else")
    if not geometry.intra:
        return found
    layouts = arrays["layouts"]
    if layouts.shape != (chunks, *layout_shape(geometry, *shape)) or layouts.dtype != np.uint8:
        raise UsageError(f"layouts must be uint8 of shape {(chunks, *layout_shape(geometry, *shape))}")
    return [replace(picture, blocks=layout) for picture, layout in zip(found, layouts, strict=True)]


def _packed_layouts(pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
    """The blocks of first pictures, where they have some."""
    blocks = [picture.blocks for picture in pictures if picture.blocks is not None]
    return {"layouts": np.stack(blocks)} if blocks else {}


def _packed_residuals(residuals: Sequence[Picture | None]) -> dict[str, NDArray[Any]]:
    """Those of all steps, of which most may have none."""
    there = [(step, each) for step, each in enumerate(residuals) if each is not None]
    if not there:
        return {}
    return {
        "residuals": np.stack([each.coefficients for _, each in there]),
        "residual_scales": np.asarray([each.scale for _, each in there], np.uint8),
        "residual_steps": np.asarray([step for step, _ in there], np.int64),
    }


def _residuals(
    arrays: Arrays, geometry: TokenGeometry, *, shape: tuple[int, int, int], firsts: NDArray[np.intp]
) -> list[Picture | None]:
    """The residual of each step, checked; None where it has none."""
    found: list[Picture | None] = [None] * shape[0]
    names = {"residuals", "residual_scales", "residual_steps"}
    if not names & set(arrays):
        return found
    if not geometry.residuals:
        raise UsageError("the header says that there are no residuals")
    if not names <= set(arrays):
        raise UsageError(f"{', '.join(sorted(names))} go together")
    steps = arrays["residual_steps"]
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or np.any(steps[1:] <= steps[:-1]):
        raise UsageError("residual_steps must be whole numbers that rise")
    later = np.setdiff1d(np.arange(shape[0]), firsts)
    if not np.isin(steps, later).all():
        raise UsageError("residual_steps must be numbers of steps that are not a chunk's first")
    wanted = (len(steps), *residual_shape(geometry, *shape[1:]))
    pictures = _checked(arrays["residuals"], arrays["residual_scales"], wanted, names=("residuals", "residual_scales"))
    for step, each in zip(steps, pictures, strict=True):
        found[int(step)] = each if each.coefficients.any() else None
    return found


def _checked(
    found: NDArray[Any], scales: NDArray[Any], wanted: tuple[int, ...], *, names: tuple[str, str]
) -> list[Picture]:
    """Coefficients and their scales."""
    if (
        found.shape != wanted
        or found.dtype.kind not in "iu"
        or int(found.min(initial=0)) < -MAX_COEFFICIENT
        or int(found.max(initial=0)) > MAX_COEFFICIENT
    ):
        raise UsageError(f"{names[0]} must be whole numbers within {MAX_COEFFICIENT} of shape {wanted}")
    count = len(found)
    if (
        scales.shape != (count,)
        or scales.dtype.kind not in "iu"
        or scales.min(initial=0) < 0
        or scales.max(initial=0) > MAX_SCALE
    ):
        raise UsageError(f"{names[1]} must be {count} whole numbers from 0 to {MAX_SCALE}")
    return [
        Picture(coefficients=each.astype(np.int16), scale=int(scale)) for each, scale in zip(found, scales, strict=True)
    ]


def _steps(arrays: Arrays, frames: Sequence[int], geometry: TokenGeometry) -> list[tuple[int, ...]]:
    """Frames of the later steps of each chunk, as they are listed; sums are checked where they are written."""
    chunks = len(frames)
    if ("chunk_steps" in arrays) != ("step_frames" in arrays):
        raise UsageError("chunk_steps and step_frames go together")
    if "chunk_steps" not in arrays:
        return [()] * chunks
    counts, each = arrays["chunk_steps"], arrays["step_frames"]
    kinds = counts.dtype.kind + each.dtype.kind
    if counts.shape != (chunks,) or int(counts.min()) < 1 or each.shape != (int(counts.sum()),) or set(kinds) - {*"iu"}:
        raise UsageError("chunk_steps must be counts of at least 1, one for each chunk, and step_frames one each step")
    parts = [tuple(map(int, part)) for part in np.split(each, np.cumsum(counts)[:-1])]
    found = [usual_steps(part[1:]) for part in parts]
    for number, (part, count, listed) in enumerate(zip(parts, frames, found, strict=True)):
        if part[0] != 1 or len(part) != geometry.steps(count, listed):
            raise UsageError(f"steps of chunk {number}: {part[0]} and {len(part) - 1} more, for {count} frames")
    return found


def _vectors(arrays: Arrays, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Motion maps, checked; a first step's is checked where its chunk is coded."""
    given = np.asarray(arrays.get("vectors", np.zeros(shape, np.int16)))
    if (
        given.shape != shape
        or given.dtype.kind not in "iu"
        or (given.size and (int(given.min()) < -MAX_VECTOR or int(given.max()) > MAX_VECTOR))
    ):
        raise UsageError(f"vectors must be whole numbers of shape {shape}, at most {MAX_VECTOR}")
    return given.astype(np.int16)
