"""Test vectors of residuals by wavelets (spec sections 3.7, 7.12 and 8.8), for `make_vectors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch
from zlib import crc32

import make_vectors
import numpy as np
import tiny_model
from make_vectors import Collection, Edit, File, noise, one_chunk, sides, u32
from numpy.typing import NDArray
from picture_vectors import IMAGE, WAVELET_MODEL, Beyond, Emptied, picture

from tokcodec import bits
from tokcodec.geometry import RESIDUAL_SPACING
from tokcodec.picture_bits import PictureTraversal, code_scale
from tokcodec.residual_bits import LIKELY, RESIDUAL_BANDS, SELDOM, ResidualTraversal, _decide
from tokcodec.tokens import Picture, TokenChunk

RESIDUAL_MODEL: dict[str, Any] = WAVELET_MODEL | {
    "residuals": True,
    "tokenizer_digest": tiny_model.RESIDUAL_SHA256,
    "tokenizer_name": tiny_model.RESIDUAL_NAME,
}
Residuals = Sequence[Picture | None]


def residual(kind: str, width: int, height: int, *, scale: int = 8, seed: int = 1) -> Picture:
    """A residual by a formula: a kind of `picture_vectors.picture`, of which every fourth row and column is taken, or
    "last" with one coefficient, the last one; "faint" of the coarsest band alone, small; "green" of one colour."""
    shape = 3, 2 * -(-height // 8), 2 * -(-width // 8)
    values = (noise(seed, shape) >> np.uint64(8)).astype(np.int64)
    found = np.zeros(shape, np.int64)
    if kind == "last":
        found[2, -1, -1] = -1
    elif kind == "faint":
        found[:, ::8, ::8] = values[:, ::8, ::8] % 41 - 20
    elif kind == "green":
        found[2] = values[2] % 5 - 2
    else:
        whole = picture(kind, width, height, seed=seed).coefficients
        found = whole[:, ::RESIDUAL_SPACING, ::RESIDUAL_SPACING].astype(np.int64)
    return Picture(coefficients=found.astype(np.int16), scale=scale)


def add_residuals(to: Collection) -> None:
    """Good files."""

    def good(name: str, shows: str, size: tuple[int, int], residuals: Residuals, **options: Any) -> None:
        frames = 1 + 4 * len(residuals)
        first = picture("sparse", *size)
        header = {**RESIDUAL_MODEL, "frames": frames, "levels": 1, **options, **sides(*size)}
        to.good(f"residual_{name}", shows, one_chunk(picture=first, step_residuals=residuals, **header))

    size = 40, 24
    sparse, small = residual("sparse", *size), residual("small", *size, scale=12, seed=2)
    again = residual("sparse", *size, scale=12, seed=3)
    shows = "steps with a residual and without, of which two have another scale than the one before"
    motion = ("slow/even/sparse", "none", "slow", "sparse", "slow", "none", "slow")
    good("steps", shows, size, (None, sparse, small, None, again, None, sparse), motion=motion)
    tiny = tuple(residual(kind, 3, 5, seed=4) for kind in ("small", "last"))
    good("one_token", "8 x 8 pixels: six bands of ten are empty", (3, 5), (tiny[0], None, tiny[1]))
    good("none", "steps that might have residuals, and have none", size, (None, None))
    good("still", "a still image in a file with residuals", size, (), **IMAGE)
    size = 72, 56
    kinds = [residual(kind, *size, seed=5 + n) for n, kind in enumerate(("coarse", "green", "sparse", "last"))]
    good("bands", "bands and colours that come and go", size, kinds, levels=0)
    good("one_row", "33 tokens in a row", (264, 8), [residual("sparse", 264, 8)], levels=0)
    good("one_column", "9 tokens in a column", (7, 72), [residual("small", 7, 72)], levels=0)
    size = 32, 24
    shows = "coefficients of 32767 and -32767, at the largest scale"
    good("extreme", shows, size, [residual("extreme", *size, scale=63)], levels=0)
    shows = "coefficients whose sizes are a little above powers of two, at the smallest scale"
    good("lengths", shows, size, [residual("lengths", *size, scale=0)], levels=0)
    size = 40, 24
    made = File(**{**RESIDUAL_MODEL, **sides(*size)})
    made.add_chunk(frames=1, picture=picture("sparse", *size))
    residuals = sparse, None
    made.add_chunk(frames=9, motion=("slow/sparse", "none"), picture=picture("sparse", *size), step_residuals=residuals)
    steps: dict[str, Any] = {"step_frames": (2, 1), "motion": ("slow", "slow")}
    made.add_chunk(frames=4, picture=picture("sparse", *size, seed=3), step_residuals=(sparse, again), **steps)
    made.add_chunk(frames=6, motion=("smooth", "slow"), levels=0)
    shows = "chunks of 1, 9, 4 and 6 frames, one with a list of steps: what was learned of residuals is forgotten"
    to.good("residual_chunks", shows, made.close())
    add_pixels(to)


def add_pixels(to: Collection) -> None:
    """Good files that are to be decoded to the pixel."""

    def pixels(name: str, shows: str, size: tuple[int, int], residuals: Residuals, **options: Any) -> None:
        first = picture("photo", *size)
        made = one_chunk(picture=first, step_residuals=residuals, **{**RESIDUAL_MODEL, **options, **sides(*size)})
        to.good(f"pixels_residual{name}", shows, made, pixels=make_vectors.decode_pixels(made))

    size = 35, 11
    motion = ("slow/even/sparse/slow/even/extreme/slow", "slow/sparse", "sparse")
    options = {"frames": 7, "motion": motion, "step_frames": (2, 1, 4)}
    options["levels"] = np.array([[[0, 0]], [[4, 0]], [[0, 2]], [[3, 0]]])
    residuals = residual("photo", *size, scale=2), None, residual("sparse", *size, scale=16)
    pixels("", "steps with residuals, and one without", size, residuals, **options)
    size = 40, 16
    shows = "what stands still but for a residual of 0.3 to 1.3 8-bit values"
    faint = residual("faint", *size, scale=0)
    pixels("_faint", shows, size, (faint, None), frames=9, levels=0)
    shows = "a residual of one token: lines of one and two values"
    pixels("_one_token", shows, (8, 8), (residual("small", 8, 8, scale=12),), frames=5, levels=1)


class _Careless(ResidualTraversal):
    """Says the scale of each residual anew, and refuses nothing."""

    def code_step(self, coder: Any, coefficients: NDArray[np.int16], scale: int | None) -> int | None:
        self._there = _decide(coder, scale is not None, LIKELY if self._there else SELDOM)
        if scale is None:
            return None
        if self._scale >= 0:
            _decide(coder, False, LIKELY)
        self._scale = code_scale(coder, scale)
        likely = np.where(self._has, LIKELY, SELDOM).astype(np.int32)
        self._has = self._traversal.code_bands(coder, coefficients, scale, likely=likely)
        return scale


class _Emptied(Emptied):
    LAST = RESIDUAL_BANDS[-1]


def _encode_unchecked(
    tokens: TokenChunk,
    residuals: type[ResidualTraversal] = ResidualTraversal,
    bands: type[PictureTraversal] = PictureTraversal,
) -> bytes:
    """Token data of residuals that are not as they must be."""
    with (
        patch("tokcodec.chunk_checks._check_picture"),
        patch("tokcodec.bits.ResidualTraversal", residuals),
        patch("tokcodec.residual_bits.PictureTraversal", bands),
        patch("tokcodec.picture_bits.MAX_COEFFICIENT", Beyond(1 << 16)),
    ):
        return bits.encode_tokens(tokens)


def add_bad_residuals(to: Collection) -> None:
    """Bad files."""
    size = 40, 24
    header = make_vectors.DEFAULT_HEADER | RESIDUAL_MODEL | sides(*size)
    sparse = residual("sparse", *size)

    def tokens_of(*residuals: Picture | None) -> TokenChunk:
        options: dict[str, Any] = {"levels": 2, "seed": 7, "motion": ("slow",), "picture": picture("sparse", *size)}
        return make_vectors.make_tokens(header, 1 + 4 * len(residuals), step_residuals=residuals, **options)

    def bad(name: str, shows: str, tokens: TokenChunk, token_data: bytes, *, at: str = "token_data") -> None:
        made = File(**{**RESIDUAL_MODEL, **sides(*size)})
        made.add_chunk(motion=("slow",), picture=picture("sparse", *size), step_residuals=(sparse,))
        made.add_chunk(frames=4 * len(tokens.indices) - 3, tokens=tokens, token_data=token_data)
        to.bad(f"residual_{name}", shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    def changed(value: int, dtype: type[np.integer[Any]] = np.int16) -> Picture:
        other: NDArray[Any] = sparse.coefficients.astype(dtype)
        other[2, 5, 9] = value
        return Picture(coefficients=other, scale=sparse.scale)

    one, two = tokens_of(sparse), tokens_of(sparse, sparse)
    shows = "a residual whose scale is said anew, and is that of the one before"
    bad("same_scale", shows, two, _encode_unchecked(two, _Careless))
    empty = tokens_of(residual("zeros", *size))
    bad("empty", "a residual without a coefficient", empty, _encode_unchecked(empty, _Careless))
    shows = "a band of a residual that is said to have coefficients, and has none"
    coarse = residual("coarse", *size)
    last = coarse.coefficients + residual("last", *size).coefficients
    claimed = tokens_of(Picture(coefficients=last, scale=coarse.scale))
    bad("empty_band", shows, tokens_of(coarse), _encode_unchecked(claimed, bands=_Emptied))
    for name, value in (("", 32768), ("_below", -32768), ("_most", 32769)):
        far = tokens_of(changed(value, np.int32))
        bad(f"beyond{name}", f"a coefficient of a residual of {value}", far, _encode_unchecked(far))
    data = bits.encode_tokens(one)
    bad("trailing_word", "a word of 0 too many", one, data + bytes(4))
    other = changed(int(sparse.coefficients[2, 5, 9]) + 1)
    bad("changed", "the CRC of another coefficient", tokens_of(other), data, at="tokens_crc")
    coarser = Picture(coefficients=sparse.coefficients, scale=sparse.scale + 1)
    bad("of_another_scale", "the CRC of another scale", tokens_of(coarser), data, at="tokens_crc")
    data = bits.encode_tokens(tokens_of(sparse, None))
    bad("of_another_step", "the CRC of a residual in another step", tokens_of(None, sparse), data, at="tokens_crc")
    for name, shows, edited, count in [
        ("without_residual", "a CRC without the residual", (sparse,), 1 + 2 * sparse.coefficients.size + 1),
        ("without_flag", "a CRC that does not say that a step has no residual", (None,), 1),
    ]:
        made_of = make_vectors.token_bytes(tokens_of(*edited))
        edit = Edit(raw={"tokens_crc": u32(crc32(made_of[:-count]))})
        made = File(edits={"chunk0": edit}, **{**RESIDUAL_MODEL, **sides(*size)})
        made.add_chunk(tokens=tokens_of(*edited))
        to.bad(f"residual_crc_{name}", shows, "C", made.close(), at="chunk0.tokens_crc", stage="tokens")
    for name, shows, model in [
        (
            "residual_without_model",
            "residuals, but weights of a model that knows none",
            WAVELET_MODEL | {"residuals": True},
        ),
        (
            "model_without_residual",
            "no residuals, but weights of a model that has them",
            RESIDUAL_MODEL | {"residuals": False},
        ),
    ]:
        made = one_chunk(**model, motion=("slow",))
        to.bad(name, shows, "M", made, at="header.tokenizer_digest", stage="pixels", good=(0,))
