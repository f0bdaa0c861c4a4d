"""`bench/static.py` on synthetic frames and tokens."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import bench_script
from test_picture_bits import GEOMETRY, drawn

from tokcodec.bits import picture_bit_count, residual_bit_count
from tokcodec.chunks import ADAPTIVE
from tokcodec.errors import UsageError
from tokcodec.tokens import Picture, TokenChunk, masks

STATIC = bench_script("static")


def made_tokens(levels: np.ndarray, *, rows: int, columns: int) -> TokenChunk:
    """Random tokens in canonical form, that keep what the levels say."""
    random = np.random.default_rng(5)
    empty = TokenChunk(indices=np.zeros((len(levels), rows, columns), np.uint64), levels=levels.astype(np.uint8))
    indices = random.integers(0, 1 << 18, empty.indices.shape, dtype=np.uint64) & masks(empty.kept_bits())
    return TokenChunk(indices=indices, levels=empty.levels)


def moving_square() -> tuple[np.ndarray, Any]:
    """Nine frames of 40x72 and their chunk: the second block of three gets brighter in the first step after the first.

    The chunk has three steps and 1x3 blocks, and with them two rows of 2x3 blocks, the second of one row of tokens.
    """
    frames = np.full((9, 40, 72, 3), 100, np.uint8)
    frames[1:, :32, 32:64] += (10 * np.minimum(np.arange(1, 9), 4)).astype(np.uint8)[:, None, None, None]
    levels = np.zeros((3, 2, 3))
    levels[0] = 6
    levels[1] = [[1, 4, 0], [0, 0, 0]]
    levels[2] = [[0, 2, 0], [0, 0, 3]]
    tokens = made_tokens(levels, rows=5, columns=9)
    return frames, STATIC.CodedChunk(start=0, frames=9, tokens=tokens, coded_bits=STATIC.size_of(tokens, ADAPTIVE))


def test_steps_of_a_chunk():
    frames, chunk = moving_square()
    assert chunk.step_frames() == [range(1), range(1, 5), range(5, 9)]
    later = STATIC.CodedChunk(start=20, frames=7, tokens=chunk.tokens, coded_bits=0)
    assert later.step_frames() == [range(20, 21), range(21, 25), range(25, 27)]
    listed = STATIC.CodedChunk(start=20, frames=7, tokens=chunk.tokens, coded_bits=0, listed=(1, 2, 4))
    assert listed.step_frames() == [range(20, 21), range(21, 22), range(22, 24), range(24, 27)]
    change = STATIC.changes(frames)
    assert change[0] == 0
    assert change[1:] == pytest.approx([10 * 32 * 32 / (40 * 72)] * 4 + [0] * 4)


def test_bits_of_still_and_moving_blocks():
    frames, chunk = moving_square()
    change = STATIC.block_change(frames, chunk.tokens.geometry)
    assert change.shape == (9, 2, 3)
    assert change[1:5, 0, 1] == pytest.approx(10)
    assert np.delete(change.reshape(9, 6), 1, axis=1).max() == 0
    kinds = STATIC.block_kinds(change, chunk)
    assert kinds.tolist() == [[[-1] * 3] * 2, [[0, 2, 0], [0, 0, 0]], [[1, 0, 1], [1, 1, 1]]]
    kept = STATIC.block_bits(chunk.tokens)
    assert kept[1].tolist() == [[3 * 16, 12 * 16, 0], [0, 0, 0]]
    assert kept[2].tolist() == [[0, 6 * 16, 0], [0, 0, 9]], "a block at the corner has one token"
    assert kept.sum() == chunk.tokens.kept_bit_count()
    counts = STATIC.count_blocks(frames, [chunk], entropy=ADAPTIVE)
    found = {kind: (count.blocks, count.keeping, count.kept_bits) for kind, count in counts.items()}
    assert found == {
        "still since this step": (6, 2, 3 * 16 + 6 * 16),
        "still for longer": (5, 1, 9),
        "moving": (1, 1, 12 * 16),
    }
    coded = [count.coded_bits for count in counts.values()]
    assert coded[2] == pytest.approx(12 * 16, abs=96), "random bits do not shrink"
    assert coded[2] > coded[0] > coded[1]
    assert len(STATIC.block_table(counts)) == 5
    assert STATIC.count_blocks(frames, [chunk], threshold=11)["moving"].blocks == 0


def test_bits_of_steps_add_up():
    _, chunk = moving_square()
    steps = STATIC.bits_by_step(chunk.tokens, ADAPTIVE)
    assert len(steps) == 3
    assert sum(steps) == chunk.coded_bits
    assert steps[0] > steps[1] > steps[2] >= 0


def test_a_first_picture_by_wavelets_counts_in_its_step(tmp_path: Path):
    levels = np.zeros((2, 1, 1), np.uint8)
    levels[1] = 1
    indices = np.zeros((2, 5, 9), np.uint64)
    indices[1] = np.arange(45).reshape(5, 9) % 2
    picture = Picture(coefficients=drawn(40, 72, density=0.2, reach=20, seed=3), scale=20)
    tokens = TokenChunk(indices=indices, levels=levels, geometry=GEOMETRY, picture=picture)
    bits = picture_bit_count(tokens)
    assert bits > 1000
    assert STATIC.kept_by_step(tokens) == [bits, 45]
    first, later = STATIC.bits_by_step(tokens, ADAPTIVE)
    assert first == pytest.approx(bits, abs=64)
    assert first + later == STATIC.size_of(tokens, ADAPTIVE)
    chunk = STATIC.CodedChunk(start=0, frames=5, tokens=tokens, coded_bits=first + later)
    nothing = np.zeros(5)
    course = STATIC.Course(
        name="made", bits_per_pixel=1.0, chunks=[chunk], psnr=nothing, decoded_change=nothing, source_change=nothing
    )
    assert STATIC.step_table(course)[3:] == [
        f"| 0 | 0.00 | {bits} |  | 0.000 | 0.000 |",
        "| 1 to 4 | 0.00 0.00 0.00 0.00 | 45 |  | 0.000 | 0.000 |",
    ]
    pytest.importorskip("matplotlib")
    STATIC.draw([course], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_residuals_count_in_their_steps():
    geometry = dataclasses.replace(GEOMETRY, residuals=True)
    indices, levels = np.zeros((4, 5, 9), np.uint64), np.zeros((4, 1, 1), np.uint8)
    levels[1:] = 1
    first = Picture(coefficients=drawn(40, 72, density=0.2, reach=20, seed=3), scale=20)
    residual = Picture(coefficients=drawn(40, 72, density=0.4, reach=20, seed=4)[:, ::4, ::4].copy(), scale=24)
    tokens = TokenChunk(
        indices=indices, levels=levels, geometry=geometry, picture=first, residuals=(None, residual, None)
    )
    kept = STATIC.kept_by_step(tokens)
    assert kept[0] == picture_bit_count(tokens)
    assert sum(kept[1:]) == 3 * 45 + residual_bit_count(tokens)
    assert max(kept[1], kept[3]) <= 45 + 64
    assert kept[2] > 500
    steps = STATIC.bits_by_step(tokens, ADAPTIVE)
    assert sum(steps) == STATIC.size_of(tokens, ADAPTIVE)
    assert steps[2] == pytest.approx(residual_bit_count(tokens), abs=128)
    assert max(steps[1], steps[3]) < 128


def test_tables_and_picture_of_a_course(tmp_path: Path):
    pytest.importorskip("matplotlib")
    _, chunk = moving_square()
    second = STATIC.CodedChunk(start=9, frames=9, tokens=chunk.tokens, coded_bits=77)
    decoded, source = np.full(18, 0.5), np.zeros(18)
    decoded[9] = 3.0
    course = STATIC.Course(
        name="made",
        bits_per_pixel=0.01,
        chunks=[chunk, second],
        psnr=np.where(np.arange(18) < 9, 30.0, 28.0),
        decoded_change=decoded,
        source_change=source,
    )
    assert course.borders == [9]
    assert STATIC.border_table(course)[2:] == [
        "| within chunks | 16 | 0.500 | 0.000 | +0.00 |",
        "| across chunk borders | 1 | 3.000 | 0.000 | -2.00 |",
    ]
    lines = STATIC.step_table(course)
    assert len(lines) == 2 + 2 * (1 + 3)
    assert "| **chunk from frame 9** | | | 77 | | |" in lines
    assert lines[-1] == "| 14 to 17 | 28.00 28.00 28.00 28.00 | 105 |  | 0.500 | 0.000 |"
    STATIC.draw([course], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_strip_shows_both_sides_of_the_border_that_changes_most():
    _, chunk = moving_square()
    chunks = [STATIC.CodedChunk(start=9 * n, frames=9, tokens=chunk.tokens, coded_bits=77) for n in range(3)]
    source = np.arange(27, dtype=np.uint8)[:, None, None, None] * np.ones((1, 300, 40, 3), np.uint8)
    decoded = source + 100
    decoded_change, nothing = np.zeros(27), np.zeros(27)
    decoded_change[[9, 18, 20]] = 2.0, 3.0, 9.0
    values = {"psnr": nothing, "decoded_change": decoded_change, "source_change": nothing}
    course = STATIC.Course(name="made", bits_per_pixel=0.01, chunks=chunks, pictures=(source, decoded), **values)
    found = STATIC.strip(course)
    assert found.shape == (2 * 288, 4 * 40, 3)
    assert found[0, ::40, 0].tolist() == [16, 17, 18, 19]
    assert found[-1, ::40, 0].tolist() == [116, 117, 118, 119]
    for without in ({"pictures": None}, {"chunks": chunks[:1]}):
        with pytest.raises(UsageError, match="no border"):
            STATIC.strip(dataclasses.replace(course, **without))
