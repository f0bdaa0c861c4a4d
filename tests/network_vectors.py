"""Test vectors of motion maps that a network says the odds of (spec section 7.14), for `make_vectors`.

They name the network that the package has: where it is replaced, they are made anew, and no other vector changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import make_vectors
import numpy as np
from block_vectors import BLOCK_RESIDUAL_MODEL, block_picture
from make_vectors import HYBRID_MODEL, Collection, File, encode_unchecked, make_tokens, one_chunk, sides
from residual_vectors import residual

from tokcodec import bits
from tokcodec.geometry import MAX_VECTOR, MOTION_MAPS
from tokcodec.tokens import TokenChunk

NETWORK_MODEL: dict[str, Any] = HYBRID_MODEL | {"motion_network": True}


def add_networks(to: Collection) -> None:
    """Good files."""

    def good(name: str, shows: str, *maps: str, **options: Any) -> None:
        frames = 1 + sum(options.get("step_frames", [4] * len(maps)))
        made = one_chunk(frames=frames, motion=maps, **{"levels": 0, **NETWORK_MODEL, **options})
        to.good(f"motion_network_{name}", shows, made)

    random, extreme = ("/".join([kind] * MOTION_MAPS) for kind in ("random", "extreme"))
    good("one_block", "a network and maps of one block", random, "none/none/random/even/slow", **sides(16, 16))
    good("even", "frames that move evenly: one map is told, and of six nothing", "smooth", "slow", **sides(130, 72))
    maps = ("smooth/sparse/random/slow/extreme/slow/random", "extreme/slow/even/sparse/even/random")
    good("odd", "frames that move otherwise", *maps, **sides(100, 72))
    shows = "maps of zeros, which are told, and the changes of these and of maps that are not told"
    good("zeros", shows, "smooth/none/none/none/none/none/none", "slow/slow/even/none/even/none", **sides(72, 50))
    good("extreme", "inputs that are as large as can be", extreme, extreme, **sides(72, 72))
    maps = ("extreme/extreme/extreme/extreme/even/extreme/even", "extreme/extreme/extreme/extreme/sparse/extreme/slow")
    good("beyond", "maps that are expected beyond what vectors can be", *maps, **sides(72, 72))
    maps = ("none/slow", "slow/even/slow/none/even/sparse", "slow", "none", "none/even/even/slow/slow", "none", "slow")
    good("rests", "maps that are as expected and maps that are not, in every order", *maps)
    good("sets", "9 x 9 motion blocks: places of all sets", "slow/sparse/smooth/slow", "sparse", **sides(136, 138))
    good("levels", "a network, and maps of levels and tokens", "slow/even/sparse/slow", levels=3, **sides(51, 25))
    good("still_image", "a picture in a file with a network", still_image=True, max_chunk_frames=1, levels=3)
    good("steps", "a list of steps", "slow/sparse", "smooth", "none", "slow/even/sparse", step_frames=(2, 1, 4, 1))
    made = File(**NETWORK_MODEL)
    made.add_chunk(motion=("slow/sparse/even/slow",))
    made.add_chunk(motion=("slow/sparse/even/slow",))
    to.good("motion_network_two_chunks", "what changed in the chunk before is forgotten", made.close())
    size = 40, 24
    made = one_chunk(
        frames=9,
        motion=("slow/sparse/even/slow", "slow"),
        picture=block_picture("sparse", "mixed", *size),
        step_residuals=(residual("sparse", *size), None),
        **{**BLOCK_RESIDUAL_MODEL, "motion_network": True, **sides(*size)},
    )
    shows = "all flags but that of a still image: maps lie between a picture by blocks, residuals and tokens"
    to.good("motion_network_with_all", shows, made)
    made = one_chunk(frames=4, motion=("slow/even/sparse/slow",), levels=5, **NETWORK_MODEL, **sides(19, 11))
    shows = "weights of seven maps show a file with a network as one without"
    to.good("pixels_motion_network", shows, made, pixels=make_vectors.decode_pixels(made))


def add_bad_networks(to: Collection) -> None:
    """Bad files."""
    header = make_vectors.DEFAULT_HEADER | NETWORK_MODEL

    def tokens_of(*maps: str) -> TokenChunk:
        return make_tokens(header, 5, levels=2, seed=7, motion=maps)

    def bad(name: str, shows: str, tokens: TokenChunk, token_data: bytes, *, at: str = "token_data") -> None:
        made = File(**NETWORK_MODEL | {"motion_network": tokens.geometry.motion_network})
        made.add_chunk(motion=("slow",))
        made.add_chunk(tokens=tokens, token_data=token_data)
        to.bad(f"motion_network_{name}", shows, "C", made.close(), at=f"chunk1.{at}", stage="tokens", good=(0,))

    still, even = tokens_of("none"), tokens_of("sparse/slow")
    bad("of_zeros", "a coded motion map of zeros alone", still, make_vectors.told_for_nothing(still))
    shows = "a coded motion map, the last of seven, as expected alone"
    bad("as_expected", shows, even, make_vectors.told_for_nothing(even, MOTION_MAPS - 1))
    for name, number, vector in [
        ("beyond", 0, (MAX_VECTOR + 1, 0)),
        ("beyond_below", MOTION_MAPS - 1, (0, -MAX_VECTOR - 1)),
    ]:
        far = tokens_of("none")
        np.split(far.vectors[1], MOTION_MAPS)[number][1, 1] = vector
        bad(name, f"a vector of {sum(vector)} half pixels in map {number}", far, encode_unchecked(far))
    moving = tokens_of("slow/sparse/even/slow")
    data = bits.encode_tokens(moving)
    bad("trailing_word", "a word of 0 too many", moving, data + bytes(4))
    bad("truncated", "the last word is missing", moving, data[:-4])
    bad("half", "half of the words are missing", moving, data[: len(data) // 8 * 4])
    bad("of_another_chunk", "the same tokens, moving otherwise", tokens_of("smooth"), data, at="tokens_crc")
    plain = replace(moving, geometry=replace(moving.geometry, motion_network=False))
    bad("missing", "data of maps without a network in a file with one", moving, bits.encode_tokens(plain))
    bad("not_named", "data of maps with a network in a file without one", plain, data)
