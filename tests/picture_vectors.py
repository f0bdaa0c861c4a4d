"""Test vectors of first pictures by wavelets (spec sections 3.6, 7.11 and 8.7), for `make_vectors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch
from zlib import crc32

import make_vectors
import numpy as np
import tiny_model
from make_vectors import HYBRID_MODEL, Collection, Edit, File, noise, one_chunk, sides, u8, u32
from numpy.typing import NDArray

from tokcodec import bits
from tokcodec.bands import BANDS
from tokcodec.picture_bits import PictureTraversal
from tokcodec.tokens import Picture, TokenChunk

WAVELET_MODEL = HYBRID_MODEL | {
    "pictures": True,
    "tokenizer_digest": tiny_model.WAVELET_SHA256,
    "tokenizer_name": tiny_model.WAVELET_NAME,
}
IMAGE = {"still_image": True, "max_chunk_frames": 1, "frames": 1}
MOST = 32767
SIDES = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384)


def picture(kind: str, width: int, height: int, *, scale: int = 8, seed: int = 1) -> Picture:
    """A first picture by a formula.

    Args:
        kind: "zeros"; "small", sizes from 0 to 7; "sparse", one coefficient in 16 of these; "extreme" of the ends of
            the range; "lengths", sizes around powers of two; "finest" with one coefficient, the last one; "coarse" of
            one colour's coarsest bands alone; "photo", smaller the finer they are.
        width: Pixels of the frame.
        height: Likewise.
        scale: Number of the quantizer's step.
        seed: Of the noise.
    """
    shape = 3, 8 * -(-height // 8), 8 * -(-width // 8)
    values = (noise(seed, shape) >> np.uint64(8)).astype(np.int64)
    found = np.zeros(shape, np.int64)
    if kind == "small":
        found = values % 15 - 7
    elif kind == "sparse":
        found = np.where(noise(seed + 1, shape) % np.uint64(16) == 0, values % 15 - 7, 0)
    elif kind == "extreme":
        found = values % 2 * (2 * MOST) - MOST
    elif kind == "lengths":
        powers = np.asarray(SIDES)[values % len(SIDES)]
        found = np.where(values >> 8 & 1, -1, 1) * (powers + (values >> 16) % 5)
    elif kind == "finest":
        found[2, -1, -1] = -1
    elif kind == "coarse":
        for band in BANDS[:6]:
            found[1, band.rows, band.columns] = values[1, band.rows, band.columns] % 601 - 300
    elif kind == "photo":
        for band in BANDS:
            size = 640 >> (band.number + 2) // 3 * 3 // 2
            part = values[:, band.rows, band.columns]
            found[:, band.rows, band.columns] = (part % (2 * size + 1) - size) // np.asarray([1, 3, 4])[:, None, None]
    elif kind != "zeros":
        raise ValueError(kind)
    return Picture(coefficients=found.astype(np.int16), scale=scale)


def add_pictures(to: Collection) -> None:
    """Good files."""

    def good(name: str, shows: str, kind: str, width: int, height: int, scale: int = 8, **options: Any) -> None:
        first = picture(kind, width, height, scale=scale)
        header = {**WAVELET_MODEL, "frames": 1, "levels": 2, **options, **sides(width, height)}
        to.good(f"picture_{name}", shows, one_chunk(picture=first, **header))

    good("still", "a still image by coefficients", "photo", 24, 16, 4, **IMAGE)
    good("one_token", "8 x 8 pixels: all bands but one of those of n = 5 and 4 are empty", "small", 3, 5)
    good("40x24", "bands of unequal shapes, sizes from 0 to 7", "small", 40, 24)
    good("72x56", "bands whose coarser ones end sooner, few coefficients", "sparse", 72, 56)
    good("one_row", "33 tokens in a row", "sparse", 264, 8)
    good("one_column", "9 tokens in a column", "small", 7, 72)
    good("96x64", "bands of which each has all four phases", "sparse", 96, 64)
    good("extreme", "coefficients of 32767 and -32767", "extreme", 16, 16, 20)
    good("lengths", "coefficients whose sizes are a little above powers of two", "lengths", 32, 24)
    good("zeros", "a picture without a coefficient", "zeros", 40, 24, frames=5, motion=("slow",))
    good("finest", "one coefficient, the last one", "finest", 40, 24)
    good("coarse", "coefficients of one colour, in the six coarsest bands", "coarse", 72, 56)
    good("scale_0", "the smallest scale", "photo", 40, 24, 0)
    good("scale_63", "the largest scale", "sparse", 40, 24, 63)
    grid = (noise(6, (3, 2, 3)) % np.uint64(7)).astype(np.uint8)
    options = {"frames": 9, "levels": grid, "motion": ("slow/even/sparse", "smooth")}
    good("levels", "maps of levels behind a first step that keeps nothing", "sparse", 88, 56, **options)
    size = 40, 24
    made = File(**WAVELET_MODEL, **sides(*size))
    made.add_chunk(frames=1, picture=picture("photo", *size))
    made.add_chunk(frames=9, motion=("slow/sparse", "none"), picture=picture("sparse", *size, scale=63, seed=2))
    made.add_chunk(frames=4, motion=("slow", "slow"), step_frames=(2, 1), picture=picture("photo", *size, seed=3))
    made.add_chunk(frames=6, motion=("smooth", "slow"), levels=0)
    to.good("picture_chunks", "chunks of 1, 9, 4 and 6 frames, one with a list of steps", made.close())
    add_pixels(to)


def add_pixels(to: Collection) -> None:
    """Good files that are to be decoded to the pixel."""

    def pixels(name: str, shows: str, first: Picture, width: int, height: int, **options: Any) -> None:
        made = one_chunk(picture=first, **{**WAVELET_MODEL, **options, **sides(width, height)})
        to.good(f"pixels_picture{name}", shows, made, pixels=make_vectors.decode_pixels(made))

    motion = ("slow/even/sparse/slow/even/extreme/slow", "slow/sparse", "sparse")
    levels = np.array([[[0, 0]], [[4, 0]], [[0, 2]], [[3, 0]]])
    options = {"frames": 7, "motion": motion, "step_frames": (2, 1, 4), "levels": levels}
    pixels("", "a first picture by wavelets and the steps behind it", picture("photo", 35, 11), 35, 11, **options)
    shows = "a still image of 38 x 24 pixels: lines of 2, 3, 5 and more values"
    pixels("_still", shows, picture("photo", 38, 24, scale=9), 38, 24, **IMAGE)
    pixels("_one_token", "lines of one value", picture("photo", 8, 8, scale=7), 8, 8, **IMAGE)
    shows = "the smallest scale, and coefficients of all sizes"
    pixels("_scale_0", shows, picture("lengths", 16, 8, scale=0), 16, 8, **IMAGE)
    shows = "the largest scale: values far beyond black and white"
    pixels("_scale_63", shows, picture("extreme", 16, 8, scale=63), 16, 8, **IMAGE)


class Emptied(PictureTraversal):
    """Says of the last band that it has coefficients, and codes none."""

    LAST = BANDS[-1]

    def _code_phase(self, coder: Any, values: Any, sizes: Any, context: Any, place: tuple[int, int, int]) -> None:
        last = place[0] == self.LAST.number
        if last:
            values[:] = 0
        super()._code_phase(coder, values, sizes, context, place)
        if last and place[2] == 3:
            sizes[:] = 1  # so that it is not refused here


class Beyond(int):
    """A largest coefficient that is larger, but for how many bits it has."""

    def bit_length(self) -> int:
        return MOST.bit_length()


def _encode_unchecked(tokens: TokenChunk, traversal: type[PictureTraversal] = PictureTraversal) -> bytes:
    """Token data of a picture that is not as it must be."""
    with (
        patch("tokcodec.chunk_checks._check_picture"),
        patch("tokcodec.bits.PictureTraversal", traversal),
        patch("tokcodec.picture_bits.MAX_COEFFICIENT", Beyond(1 << 16)),
    ):
        return bits.encode_tokens(tokens)


def add_bad_pictures(to: Collection) -> None:
    """Bad files."""
    size = 40, 24
    header = make_vectors.DEFAULT_HEADER | WAVELET_MODEL | sides(*size)

    def tokens_of(first: Picture, frames: int = 5) -> TokenChunk:
        return make_vectors.make_tokens(
            header, frames, levels=2, seed=7, motion=("slow",) * (frames > 1), picture=first
        )

    def bad(name: str, shows: str, tokens: TokenChunk, token_data: bytes, *, at: str = "token_data") -> None:
        made = File(**WAVELET_MODEL, **sides(*size))
        made.add_chunk(motion=("slow",), picture=picture("sparse", *size))
        made.add_chunk(tokens=tokens, token_data=token_data)
        to.bad(f"picture_{name}", shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    def changed(first: Picture, value: int, dtype: type[np.integer[Any]] = np.int16) -> Picture:
        other: NDArray[Any] = first.coefficients.astype(dtype)
        other[2, 23, 39] = value
        return Picture(coefficients=other, scale=first.scale)

    sparse = picture("sparse", *size)
    tokens = tokens_of(sparse)
    data = bits.encode_tokens(tokens)
    beside = tokens_of(sparse)
    beside.levels[0, 0, 1] = 1
    bad("beside_tokens", "a first step that keeps bits beside its picture", beside, _encode_unchecked(beside))
    empty, one = (tokens_of(picture(kind, *size)) for kind in ("zeros", "finest"))
    shows = "a band that is said to have coefficients, and has none"
    bad("empty_band", shows, empty, _encode_unchecked(one, Emptied))
    for name, value in (("", 32768), ("_below", -32768), ("_most", 32769)):
        far = tokens_of(changed(sparse, value, np.int32))
        bad(f"beyond{name}", f"a coefficient of {value}", far, _encode_unchecked(far))
    bad("trailing_word", "a word of 0 too many", tokens, data + bytes(4))
    other = int(sparse.coefficients[2, 23, 39]) + 1
    bad("changed", "the CRC of another coefficient", tokens_of(changed(sparse, other)), data, at="tokens_crc")
    coarser = Picture(coefficients=sparse.coefficients, scale=sparse.scale + 1)
    bad("of_another_scale", "the CRC of another scale", tokens_of(coarser), data, at="tokens_crc")

    def at_once(name: str, shows: str, edits: Mapping[str, Edit], at: str, **more: Any) -> None:
        made = File(edits=edits, **WAVELET_MODEL, **sides(*size))
        made.add_chunk(frames=1, picture=sparse)
        to.bad(name, shows, "C", made.close(), at=at, **more)

    at_once(
        "header_pictures_of_other_tokens",
        "first pictures by coefficients, and tokens of 16 x 16 pixels",
        {"header": Edit(raw={"spatial_factor": u8(16)})},
        "header.spatial_factor",
    )
    shortened = make_vectors.token_bytes(tokens_of(sparse, 1))[: -2 * sparse.coefficients.size - 1]
    edit = Edit(raw={"tokens_crc": u32(crc32(shortened))})
    at_once(
        "picture_crc_without_picture",
        "a CRC without the picture",
        {"chunk0": edit},
        "chunk0.tokens_crc",
        stage="tokens",
    )
    for name, shows, model in [
        (
            "picture_without_model",
            "first pictures, but weights of a model that knows none",
            HYBRID_MODEL | {"pictures": True},
        ),
        (
            "model_without_picture",
            "no first pictures, but weights of a model that needs them",
            WAVELET_MODEL | {"pictures": False},
        ),
    ]:
        made = one_chunk(**model, motion=("slow",))
        to.bad(name, shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
