"""Test vectors of first pictures by blocks (spec sections 3.8, 7.13, 8.9 and 8.10), for `make_vectors`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from zlib import crc32

import make_vectors
import numpy as np
import tiny_model
from make_vectors import Collection, Edit, File, noise, one_chunk, sides, u8, u32
from numpy.typing import NDArray
from picture_vectors import IMAGE, MOST, SIDES, WAVELET_MODEL, Beyond
from residual_vectors import RESIDUAL_MODEL, residual

from tokcodec import bits
from tokcodec.block_bits import BlockTraversal
from tokcodec.errors import CorruptStreamError
from tokcodec.tokens import Picture, TokenChunk

BLOCK_MODEL: dict[str, Any] = WAVELET_MODEL | {
    "picture_blocks": True,
    "tokenizer_digest": tiny_model.BLOCK_SHA256,
    "tokenizer_name": tiny_model.BLOCK_NAME,
}
BLOCK_RESIDUAL_MODEL: dict[str, Any] = RESIDUAL_MODEL | {
    "picture_blocks": True,
    "tokenizer_digest": tiny_model.BLOCK_RESIDUAL_SHA256,
    "tokenizer_name": tiny_model.BLOCK_RESIDUAL_NAME,
}
MODES = 35
EVEN_PROBABILITY = 32768


def _squares(layout: NDArray[np.uint8], kind: str, numbers: Iterator[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Level and cells of the blocks of a layout, in order."""

    def below(level: int, row: int, column: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        side = 8 >> level
        square = layout[row : row + side, column : column + side]
        cut = level < int(kind) if kind.isdigit() else level < 3 and next(numbers) % 5 < 3
        if square.shape == (side, side) and not cut:
            yield level, square
        elif square.size:
            for down in (0, side // 2):
                for right in (0, side // 2):
                    yield from below(level + 1, row + down, column + right)

    for row in range(0, layout.shape[0], 8):
        for column in range(0, layout.shape[1], 8):
            yield from below(0, row, column)


def block_layout(seed: int, height: int, width: int, *, kind: str) -> NDArray[np.uint8]:
    """A layout by a formula, of a padded picture: "mixed", or with blocks of a level from "0" to "3" wherever they fit.
    Half of the blocks have the mode of the one before them, so that modes are likely and are not."""
    found = np.zeros((height // 4, width // 4), np.uint8)
    numbers = iter((noise(seed, (4 * found.size + 8,)) >> np.uint64(20)).astype(np.int64).tolist())
    mode = 0
    for level, cells in _squares(found, kind, numbers):
        number = next(numbers)
        mode = number // 2 % MODES if number % 2 else mode
        cells[:] = MODES * level + mode
    return found


def counted_layout(height: int, width: int, level: int) -> NDArray[np.uint8]:
    """Blocks of one level, with all modes in turn."""
    side = 8 >> level
    count = height // (4 * side), width // (4 * side)
    modes = np.arange(count[0] * count[1]).reshape(count) % MODES
    return (MODES * level + modes).astype(np.uint8).repeat(side, axis=0).repeat(side, axis=1)


def block_picture(
    kind: str, layout: NDArray[np.uint8] | str, width: int, height: int, *, scale: int = 8, seed: int = 1
) -> Picture:
    """A first picture by blocks by a formula.

    Args:
        kind: "zeros"; "sparse", one coefficient in 16; "extreme" of the ends of the range; "spikes", one in 16 of
            these; "lengths", sizes around powers of two; "last" with one coefficient, the last one; "photo", smaller
            the higher the frequency.
        layout: Of the blocks, or a kind of :func:`block_layout`.
        width: Pixels of the frame.
        height: Likewise.
        scale: Number of the quantizer's step.
        seed: Of the noise.
    """
    shape = 3, 8 * -(-height // 8), 8 * -(-width // 8)
    blocks = block_layout(seed + 70, *shape[1:], kind=layout) if isinstance(layout, str) else layout
    values = (noise(seed, shape) >> np.uint64(8)).astype(np.int64)
    found = np.zeros(shape, np.int64)
    if kind == "sparse":
        found = np.where(noise(seed + 1, shape) % np.uint64(16) == 0, values % 15 - 7, 0)
    elif kind == "extreme":
        found = values % 2 * (2 * MOST) - MOST
    elif kind == "spikes":
        found = np.where(noise(seed + 1, shape) % np.uint64(16) == 0, values % 2 * (2 * MOST) - MOST, 0)
    elif kind == "lengths":
        powers = np.asarray(SIDES)[values % len(SIDES)]
        found = np.where(values >> 8 & 1, -1, 1) * (powers + (values >> 16) % 5)
    elif kind == "last":
        found[2, -1, -1] = -1
    elif kind == "photo":
        side = (32 >> blocks.astype(np.int64) // MODES).repeat(4, axis=0).repeat(4, axis=1)
        u, v = (place % side for place in np.indices(shape[1:]))
        size = 6 * side // (1 + u + v) ** 2
        found = (values % (2 * size + 1) - size) // np.asarray([1, 3, 4])[:, None, None]
    elif kind != "zeros":
        raise ValueError(kind)
    return Picture(coefficients=found.astype(np.int16), scale=scale, blocks=blocks)


def add_blocks(to: Collection) -> None:
    """Good files."""

    def good(name: str, shows: str, first: Picture, width: int, height: int, **options: Any) -> None:
        header = {**BLOCK_MODEL, "frames": 1, "levels": 2, **options, **sides(width, height)}
        to.good(f"block_{name}", shows, one_chunk(picture=first, **header))

    def drawn(name: str, shows: str, kind: str, layout: str, width: int, height: int, *, scale: int = 8) -> None:
        good(name, shows, block_picture(kind, layout, width, height, scale=scale), width, height)

    good("still", "a still image by blocks", block_picture("photo", "mixed", 40, 24, scale=16), 40, 24, **IMAGE)
    drawn("one_token", "8 x 8 pixels: a square of 32 and one of 16 that reach beyond", "sparse", "2", 3, 5)
    drawn("72x56", "blocks of all sizes, few coefficients", "sparse", "mixed", 72, 56)
    drawn("one_row", "33 tokens in a row: no block is larger than 8 x 8 pixels", "sparse", "mixed", 264, 8)
    drawn("one_column", "9 tokens in a column", "sparse", "mixed", 7, 72)
    for level, side in enumerate((32, 16, 8, 4)):
        drawn(f"size_{side}", f"blocks of {side} x {side} pixels, and smaller ones", "sparse", str(level), 72, 40)
    for level, side in ((2, 8), (3, 4)):
        layout = counted_layout(6 * side, 6 * side, level)
        first = block_picture("zeros", layout, 6 * side, 6 * side)
        good(f"modes_{side}", "all modes, and no coefficient", first, 6 * side, 6 * side)
    first = block_picture("zeros", "0", 40, 32)
    good("zeros", "a picture without a coefficient", first, 40, 32, frames=5, motion=("slow",))
    drawn("last", "one coefficient, the last one", "last", "1", 16, 32)
    drawn("extreme", "coefficients of 32767 and -32767, at the largest scale", "extreme", "mixed", 16, 16, scale=63)
    drawn("spikes", "some such coefficients, in one block", "spikes", "0", 32, 32, scale=20)
    drawn("lengths", "coefficients whose sizes are a little above powers of two", "lengths", "mixed", 32, 24)
    drawn("scale_0", "the smallest scale", "photo", "mixed", 40, 24, scale=0)
    drawn("scale_63", "the largest scale", "sparse", "mixed", 40, 24, scale=63)
    size = 40, 24
    sparse, small = residual("sparse", *size), residual("faint", *size, scale=12, seed=2)
    made = File(**{**BLOCK_RESIDUAL_MODEL, **sides(*size)})
    made.add_chunk(frames=1, picture=block_picture("photo", "mixed", *size))
    more: dict[str, Any] = {"motion": ("slow/sparse", "none"), "step_residuals": (sparse, None)}
    made.add_chunk(frames=9, picture=block_picture("sparse", "1", *size, scale=63, seed=2), **more)
    more = {"step_frames": (2, 1), "motion": ("slow", "slow"), "step_residuals": (small, sparse)}
    made.add_chunk(frames=4, picture=block_picture("photo", "mixed", *size, seed=3), **more)
    more = {"motion": ("smooth", "slow"), "step_residuals": (None, None), "levels": 0}
    made.add_chunk(frames=6, picture=block_picture("zeros", "3", *size), **more)
    shows = "chunks of 1, 9, 4 and 6 frames, with residuals, one with a list of steps"
    to.good("block_chunks", shows, made.close())
    add_pixels(to)


def add_pixels(to: Collection) -> None:
    """Good files that are to be decoded to the pixel."""

    def pixels(name: str, shows: str, first: Picture, size: tuple[int, int], **options: Any) -> None:
        made = one_chunk(picture=first, **{**BLOCK_MODEL, **(options or IMAGE), **sides(*size)})
        to.good(f"pixels_block{name}", shows, made, pixels=make_vectors.decode_pixels(made))

    size = 35, 11
    levels = np.array([[[0, 0]], [[4, 0]], [[0, 2]], [[3, 0]]])
    motion = ("slow/even/sparse/slow/even/extreme/slow", "slow/sparse", "sparse")
    options = {**BLOCK_RESIDUAL_MODEL, "frames": 7, "motion": motion, "step_frames": (2, 1, 4), "levels": levels}
    options["step_residuals"] = residual("photo", *size, scale=2), None, residual("sparse", *size, scale=16)
    shows = "a first picture by blocks and the steps behind it, with residuals"
    pixels("", shows, block_picture("photo", "mixed", *size, scale=16), size, **options)
    size = 46, 40
    shows = "a still image of 46 x 40 pixels with blocks of all sizes"
    pixels("_still", shows, block_picture("photo", "mixed", *size, scale=14, seed=4), size)
    shows = "all modes of 8 x 8 pixels"
    pixels("_modes", shows, block_picture("photo", counted_layout(48, 48, 2), 48, 48, scale=20, seed=3), (48, 48))
    shows = "blocks of 16 x 16 pixels, whose edges are smoothed"
    pixels("_edges", shows, block_picture("photo", "1", 48, 32, scale=24, seed=5), (48, 32))
    shows = "the smallest scale, and coefficients of all sizes"
    pixels("_scale_0", shows, block_picture("lengths", "mixed", 24, 16, scale=0), (24, 16))
    shows = "the largest scale: values far beyond black and white"
    pixels("_scale_63", shows, block_picture("extreme", "mixed", 16, 8, scale=63), (16, 8))


class _Changing:
    """A coder that notes what it is given, and says 0 of one of the groups of decisions."""

    def __init__(self, coder: Any, changed: int) -> None:
        self.coder, self.changed = coder, changed
        self.given: list[list[int]] = []

    def code(self, wanted: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        self.given.append(probabilities.tolist())
        if len(self.given) - 1 == self.changed:
            wanted = np.zeros_like(wanted)
        found: NDArray[np.uint8] = self.coder.code(wanted, probabilities)
        return found


class _Nothing:
    def code(self, wanted: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        return wanted


class _Emptied(BlockTraversal):
    """Says of the last block, of which the last coefficient alone is there, that it has more, and that it is not."""

    def code(self, coder: Any, picture: Picture) -> int:
        noted = _Changing(_Nothing(), -1)
        super().code(noted, picture)
        sign = max(number for number, odds in enumerate(noted.given) if odds == [EVEN_PROBABILITY])
        try:
            super().code(_Changing(coder, sign - 1), picture)
        except CorruptStreamError:  # at the end of the picture
            return picture.scale
        raise ValueError("the picture is as it must be")


def _encode_unchecked(tokens: TokenChunk, traversal: type[BlockTraversal] = BlockTraversal) -> bytes:
    """Token data of a picture that is not as it must be."""
    with (
        patch("tokcodec.chunk_checks._check_picture"),
        patch("tokcodec.bits.BlockTraversal", traversal),
        patch("tokcodec.picture_bits.MAX_COEFFICIENT", Beyond(1 << 16)),
    ):
        return bits.encode_tokens(tokens)


def add_bad_blocks(to: Collection) -> None:
    """Bad files."""
    size = 40, 24
    header = make_vectors.DEFAULT_HEADER | BLOCK_MODEL | sides(*size)

    def tokens_of(first: Picture, frames: int = 5) -> TokenChunk:
        motion = ("slow",) * (frames > 1)
        return make_vectors.make_tokens(header, frames, levels=2, seed=7, motion=motion, picture=first)

    def bad(name: str, shows: str, tokens: TokenChunk, token_data: bytes, *, at: str = "token_data") -> None:
        made = File(**{**BLOCK_MODEL, **sides(*size)})
        made.add_chunk(motion=("slow",), picture=block_picture("sparse", "mixed", *size))
        made.add_chunk(tokens=tokens, token_data=token_data)
        to.bad(f"block_{name}", shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    sparse = block_picture("sparse", "mixed", *size)
    assert sparse.blocks is not None

    def changed(value: int, dtype: type[np.integer[Any]] = np.int16) -> Picture:
        other: NDArray[Any] = sparse.coefficients.astype(dtype)
        other[2, 23, 39] = value
        return Picture(coefficients=other, scale=sparse.scale, blocks=sparse.blocks)

    tokens = tokens_of(sparse)
    data = bits.encode_tokens(tokens)
    beside = tokens_of(sparse)
    beside.levels[0, 0, 1] = 1
    bad("beside_tokens", "a first step that keeps bits beside its picture", beside, _encode_unchecked(beside))
    empty, one = (tokens_of(block_picture(kind, "3", *size)) for kind in ("zeros", "last"))
    shows = "a block that is said to have more behind its last diagonal but one, and has nothing there"
    bad("empty_end", shows, empty, _encode_unchecked(one, _Emptied))
    for name, value in (("", 32768), ("_below", -32768), ("_most", 32769)):
        far = tokens_of(changed(value, np.int32))
        bad(f"beyond{name}", f"a coefficient of {value}", far, _encode_unchecked(far))
    bad("truncated", "the last word is missing", tokens, data[:-4])
    bad("half", "half of the words are missing", tokens, data[: len(data) // 8 * 4])
    bad("trailing_word", "a word of 0 too many", tokens, data + bytes(4))
    other = tokens_of(changed(int(sparse.coefficients[2, 23, 39]) + 1))
    bad("changed", "the CRC of another coefficient", other, data, at="tokens_crc")
    coarser = Picture(coefficients=sparse.coefficients, scale=sparse.scale + 1, blocks=sparse.blocks)
    bad("of_another_scale", "the CRC of another scale", tokens_of(coarser), data, at="tokens_crc")
    zeros = block_picture("zeros", "3", *size)
    fine = bits.encode_tokens(tokens_of(zeros))
    assert zeros.blocks is not None
    moded, sized = zeros.blocks.copy(), zeros.blocks.copy()
    moded[-1, -1] = 3 * MODES + (int(moded[-1, -1]) + 1) % MODES
    sized[-2:, -2:] = 2 * MODES
    for name, shows, blocks in (("mode", "another mode", moded), ("layout", "blocks of another size", sized)):
        first = Picture(coefficients=zeros.coefficients, scale=zeros.scale, blocks=blocks)
        bad(f"of_another_{name}", f"the CRC of {shows}", tokens_of(first), fine, at="tokens_crc")
    plain = make_vectors.token_bytes(tokens_of(sparse, 1))[: -sparse.blocks.size - 1]
    layout, scale = sparse.blocks.tobytes(), u8(sparse.scale)
    for name, shows, made_of in [
        ("without_layout", "a CRC without the layout", plain + scale),
        ("scale_first", "a CRC with the scale before the layout", plain + scale + layout),
        ("without_scale", "a CRC without the scale", plain + layout),
    ]:
        edit = Edit(raw={"tokens_crc": u32(crc32(made_of))})
        made = File(edits={"chunk0": edit}, **{**BLOCK_MODEL, **sides(*size)})
        made.add_chunk(frames=1, picture=sparse)
        to.bad(f"block_crc_{name}", shows, "C", made.close(), at="chunk0.tokens_crc", stage="tokens")
    first = block_picture("sparse", "mixed", 32, 24)
    for name, shows, model, picture in [
        ("block_without_model", "blocks, but weights of wavelets", WAVELET_MODEL | {"picture_blocks": True}, first),
        ("model_without_block", "wavelets, but weights of blocks", BLOCK_MODEL | {"picture_blocks": False}, None),
    ]:
        made = one_chunk(**model, motion=("slow",), picture=picture)
        to.bad(name, shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
