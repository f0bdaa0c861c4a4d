"""First pictures by blocks: tokcodec and the decoder written from the spec alone make the same whole numbers of them
(spec sections 8.9 and 8.10), for which there is no tolerance; of their bits see `test_vectors`."""

from __future__ import annotations

import json

import block_vectors
import make_vectors
import numpy as np
import pytest
import spec_blocks
import spec_decoder
from block_vectors import block_picture, counted_layout
from numpy.typing import NDArray

from tokcodec import intra
from tokcodec.tokens import Picture


def same_pixels(picture: Picture) -> NDArray[np.int64]:
    assert picture.blocks is not None
    expected = spec_blocks.block_pixels(picture.coefficients.astype(np.int64), picture.scale, picture.blocks)
    np.testing.assert_array_equal(intra.planes(picture), expected)
    return expected


@pytest.mark.parametrize(("level", "rows", "columns"), [(3, 6, 6), (2, 6, 6), (1, 3, 6), (0, 2, 2)])
@pytest.mark.parametrize("turn", [0, 18])
def test_modes_of_every_size(level: int, rows: int, columns: int, turn: int) -> None:
    """All of them, but of 32 x 32 pixels eight (see the next test)."""
    side = 32 >> level
    layout = counted_layout(rows * side, columns * side, level)
    layout = (35 * level + (layout % 35 + turn) % 35).astype(np.uint8)
    width, height = columns * side, rows * side
    found = same_pixels(block_picture("photo", layout, width, height, scale=18, seed=level))
    assert found.std() > 100


@pytest.mark.parametrize("mode", range(35))
def test_large_blocks_behind_others(mode: int) -> None:
    """One of 32 x 32 pixels with blocks on all sides, of which some come later."""
    layout = block_vectors.block_layout(mode, 64, 64, kind="1")
    layout[8:, 8:] = mode
    same_pixels(block_picture("photo", layout, 64, 64, scale=20, seed=mode))


@pytest.mark.parametrize("kind", ["zeros", "sparse", "extreme", "lengths", "last", "photo"])
@pytest.mark.parametrize("scale", [0, 7, 22, 41, 63])
def test_kinds_of_coefficients(kind: str, scale: int) -> None:
    same_pixels(block_picture(kind, "mixed", 40, 24, scale=scale, seed=scale + 1))


@pytest.mark.parametrize(("width", "height"), [(8, 8), (8, 72), (88, 8), (56, 40), (32, 32), (64, 40)])
def test_sizes(width: int, height: int) -> None:
    for seed, scale in ((1, 12), (2, 26)):
        same_pixels(block_picture("photo", "mixed", width, height, scale=scale, seed=seed))


def test_steps_of_the_quantizer() -> None:
    steps = [spec_blocks.step_of(scale) for scale in range(64)]
    assert steps == [intra.step_units(scale) for scale in range(64)]
    assert [*steps[:9], steps[63]] == [128, 152, 181, 215, 256, 304, 362, 431, 512, 7053950]


def test_edges_are_smoothed_and_not_all_of_them() -> None:
    """So that the vectors of pixels show something of 8.10."""
    picture = block_picture("photo", "1", 48, 32, scale=24, seed=5)
    assert picture.blocks is not None
    before = spec_blocks.pixels_before_edges(picture.coefficients.astype(np.int64), picture.scale, picture.blocks)
    changed = same_pixels(picture) != before
    assert 0.02 < changed.mean() < 0.6


def test_vectors_have_all_sizes_and_modes() -> None:
    """What is said of the vectors is said of what the decoder of the spec finds in them."""
    manifest = json.loads((make_vectors.FOLDER / "manifest.json").read_text(encoding="utf-8"))
    found: set[int] = set()
    for entry in manifest["vectors"]:
        if not entry["file"].startswith(("good/block_size_", "good/block_modes_")):
            continue
        file = spec_decoder.parse((make_vectors.FOLDER / entry["file"]).read_bytes())
        for chunk in file.chunks:
            picture = spec_decoder.decode_chunk(chunk, file.header)[3]
            assert picture.layout is not None
            found |= set(np.unique(picture.layout).tolist())
    assert {number // 35 for number in found} == {0, 1, 2, 3}
    assert {number % 35 for number in found if number >= 105} == set(range(35))
    assert {number % 35 for number in found if 70 <= number < 105} == set(range(35))
