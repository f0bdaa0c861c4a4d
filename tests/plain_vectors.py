"""A test vector of a decoder without a network (spec section 8.5), for `make_vectors`."""

from __future__ import annotations

from typing import Any

import make_vectors
import numpy as np
import tiny_model
from block_vectors import BLOCK_RESIDUAL_MODEL, block_picture
from make_vectors import Collection, one_chunk, sides
from residual_vectors import residual

PLAIN_MODEL: dict[str, Any] = BLOCK_RESIDUAL_MODEL | {
    "tokenizer_digest": tiny_model.PLAIN_SHA256,
    "tokenizer_name": tiny_model.PLAIN_NAME,
}


def add_plain(to: Collection) -> None:
    """A good file, that is to be decoded to the pixel; of what is in files nothing is other than with a network."""
    size = 12, 9
    levels = np.array([[[0, 0], [0, 0]], [[5, 0], [3, 6]], [[4, 0], [0, 0]]])
    options = {**PLAIN_MODEL, "frames": 6, "step_frames": (4, 1), "block_tokens": 1, "levels": levels}
    options |= {"motion": ("slow/even/sparse/slow/even/extreme/slow", "none"), **sides(*size)}
    first = block_picture("photo", "mixed", *size, scale=22)
    residuals = residual("photo", *size, scale=12), None
    made = one_chunk(picture=first, step_residuals=residuals, **options)
    shows = "pictures that no network makes, those between by an uneven share, and what is still"
    to.good("pixels_plain", shows, made, pixels=make_vectors.decode_pixels(made))
