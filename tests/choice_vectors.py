"""Test vectors of choice maps (spec sections 3.5, 7.15 and 8.5), for `make_vectors`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import make_vectors
import numpy as np
from block_vectors import BLOCK_RESIDUAL_MODEL, block_picture
from make_vectors import Collection, Edit, File, make_tokens, one_chunk, sides, u8
from picture_vectors import WAVELET_MODEL
from plain_vectors import PLAIN_MODEL
from residual_vectors import residual

from tokcodec import bits
from tokcodec.choice_bits import STAYS_PROBABILITY
from tokcodec.tokens import TokenChunk

CHOICE_MODEL: dict[str, Any] = WAVELET_MODEL | {"second_reference": True}


def add_choices(to: Collection) -> None:
    """Good files."""

    def good(name: str, shows: str, *maps: str, **options: Any) -> None:
        frames = 1 + sum(options.get("step_frames", [4] * len(maps)))
        to.good(
            f"choice_{name}", shows, one_chunk(frames=frames, motion=maps, **{"levels": 0, **CHOICE_MODEL, **options})
        )

    good("one_block", "choices of one block", "slow|mean", "none|first", "none", "slow|mean", **sides(16, 16))
    maps = ("slow|random", "none|random", "smooth", "none|random", "slow/even/sparse|first", "none|mean")
    good(
        "random",
        "9 x 9 motion blocks: choices in places of all sets, after steps with and without",
        *maps,
        **sides(136, 138),
    )
    good("clusters", "choices that lie together, and grow", *["none|corner"] * 4, **sides(100, 72))
    good("none", "a file with a second reference and no choice", "none", "slow/sparse", "none", **sides(40, 40))
    good(
        "steps",
        "choices in steps of one, two and four frames",
        "slow|corner",
        "none|random",
        "none|mean",
        step_frames=(1, 2, 4),
    )
    good("still_image", "a picture in a file with a second reference", still_image=True, max_chunk_frames=1)
    made = File(**CHOICE_MODEL)
    made.add_chunk(frames=9, motion=("none|random", "none|random"))
    made.add_chunk(frames=9, motion=("none|random", "none|random"))
    to.good("choice_two_chunks", "what was chosen in the chunk before is forgotten", made.close())
    size = 40, 24
    made = one_chunk(
        frames=9,
        motion=("slow/sparse/even/slow|random", "slow|random"),
        picture=block_picture("sparse", "mixed", *size),
        step_residuals=(residual("sparse", *size), None),
        **{**BLOCK_RESIDUAL_MODEL, "motion_network": True, "second_reference": True, **sides(*size)},
    )
    to.good("choice_with_all", "all flags but that of a still image", made)
    motion = "slow", "slow|random", "extreme|mean", "none|random"
    for name, model, shows, size, count in (
        ("pixels_choice", PLAIN_MODEL, "without a network", (34, 20), 4),
        ("pixels_choice_network", BLOCK_RESIDUAL_MODEL, "with one", (20, 18), 2),
    ):
        made = one_chunk(
            frames=1 + count,
            step_frames=(1,) * count,
            motion=motion[:count],
            picture=block_picture("photo", "mixed", *size, scale=22),
            step_residuals=(None, residual("photo", *size, scale=12), None, None)[:count],
            levels=0,
            **{**model, "second_reference": True, **sides(*size)},
        )
        shows = f"pictures made of two, {shows}: near and far places, their means, and what is not held still"
        to.good(name, shows, made, pixels=make_vectors.decode_pixels(made))


class _Told:
    """A coder that says of a step that it has choices."""

    def __init__(self, coder: bits._Encoder) -> None:
        self._coder = coder

    def code(self, values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        if probabilities.size == 1 and int(probabilities[0]) in (STAYS_PROBABILITY, 65536 - STAYS_PROBABILITY):
            values = np.ones_like(values)
        return self._coder.code(values, probabilities)


def told_for_nothing(tokens: TokenChunk) -> bytes:
    """Token data of two steps, in the second of which choices are told, and there are none."""
    coder = bits._Encoder()
    traversal = bits._Traversal(*tokens.indices.shape[1:], tokens.geometry, "adaptive")
    traversal.start(coder, 2)
    assert tokens.picture is not None
    assert traversal._motion is not None
    bits._code_picture(coder, bits._copied(tokens.picture))
    traversal.code_step(coder, tokens.indices[0], tokens.levels[0], tokens.vectors[0].copy(), first=True)
    choices = traversal._motion._choice
    assert choices is not None
    usual = choices.code_step

    def told(own: bits._Encoder, choice: np.ndarray, changes: np.ndarray) -> None:
        try:
            usual(_Told(own), choice, changes)
        except make_vectors.CorruptStreamError:
            pass
        else:
            raise ValueError("the map was not refused")

    choices.code_step = told  # type: ignore[assignment, method-assign]
    traversal.code_step(coder, tokens.indices[1], tokens.levels[1], tokens.vectors[1].copy(), first=False)
    return coder.finish().astype("<u4").tobytes()


def add_bad_choices(to: Collection) -> None:
    """Bad files."""
    header = make_vectors.DEFAULT_HEADER | CHOICE_MODEL

    def tokens_of(*maps: str) -> TokenChunk:
        return make_tokens(header, 5, levels=2, seed=7, motion=maps)

    def bad(name: str, shows: str, tokens: TokenChunk, token_data: bytes, *, at: str = "token_data") -> None:
        made = File(**CHOICE_MODEL | {"second_reference": tokens.geometry.second_reference})
        made.add_chunk(motion=("slow",))
        made.add_chunk(tokens=tokens, token_data=token_data)
        to.bad(f"choice_{name}", shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    none, some = tokens_of("slow"), tokens_of("slow|random")
    bad("of_zeros", "a coded choice map of zeros alone", none, told_for_nothing(none))
    data = bits.encode_tokens(some)
    bad("trailing_word", "a word of 0 too many", some, data + bytes(4))
    bad("truncated", "the last word is missing", some, data[:-4])
    bad("of_another_chunk", "the same tokens, chosen otherwise", tokens_of("slow|mean"), data, at="tokens_crc")
    plain = replace(
        some,
        geometry=replace(some.geometry, second_reference=False),
        vectors=np.concatenate(np.split(some.vectors, 8, axis=1)[:7], axis=1),
    )
    bad("missing", "data without a choice map in a file with a second reference", some, bits.encode_tokens(plain))
    bad("not_named", "data with a choice map in a file without one", plain, data)
    made = make_vectors.two_chunks(edits={"header": Edit(raw={"flags": u8(128 + 6)})})
    shows = "a second reference, and no first pictures by coefficients"
    to.bad("header_second_without_pictures", shows, "C", made, at="header.flags")
