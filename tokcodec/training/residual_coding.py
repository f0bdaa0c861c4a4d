"""Trains the network of spec section 7.12, which says how likely coefficients of residuals are.

As that of first pictures it is a part of the format. It learns from residuals as they are sent now, which are chosen by
what the network that stands makes them cost:

    python -m tokcodec.training.residual_coding --data DIR --out FOLDER --exclude PATTERN

`DIR` has videos, of each of which a part is coded, at a quality of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.codec import Codec
from tokcodec.errors import UsageError
from tokcodec.residual_bits import RESIDUAL_BANDS
from tokcodec.tokenizer.allocation import SLOPES
from tokcodec.tokens import Picture
from tokcodec.tokenset import read_chunks
from tokcodec.training.media import find_media, leave_out, read_whole
from tokcodec.training.picture_coding import observations, train_by_arguments

SIZE = 21, 192, 288
"""Frames, rows and columns of what is coded of a video, at most."""


def parts_of(folder: Path, *, count: int, exclude: Sequence[str], seed: int) -> Iterator[NDArray[np.uint8]]:
    """A random part of each of `count` videos, or of all there are, uint8 `(F, H, W, 3)`."""
    random = np.random.default_rng(seed)
    items = [item for item in leave_out(find_media(folder), exclude) if item.kind == "video"]
    for number in random.permutation(len(items))[:count]:
        frames = read_whole(items[number])
        if frames is None or len(frames) < 2:
            continue
        size = [min(there, most) for there, most in zip(frames.shape, SIZE, strict=False)]
        corner = [int(random.integers(0, room - side + 1)) for room, side in zip(frames.shape, size, strict=False)]
        yield np.ascontiguousarray(frames[tuple(slice(a, a + side) for a, side in zip(corner, size, strict=True))])


def residuals_of(codec: Codec, frames: NDArray[np.uint8], *, quality: int) -> Iterator[Picture]:
    """Those that are sent of a video."""
    for chunk in read_chunks(io.BytesIO(codec.encode_frames(frames, quality=quality))):
        yield from (residual for residual in chunk.residuals if residual is not None)


def gather(folder: Path, *, count: int, exclude: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
    """Observations of the residuals of `count` videos, each at a quality of its own.

    Raises:
        UsageError: There is no residual.
    """
    codec, rows, sizes = Codec(device="cpu", entropy="adaptive"), [], []
    random = np.random.default_rng(seed)
    for frames in parts_of(folder, count=count, exclude=exclude, seed=seed):
        quality = int(random.integers(min(SLOPES), max(SLOPES) + 1))
        for residual in residuals_of(codec, frames, quality=quality):
            for row, size in observations(residual.coefficients, residual.scale, RESIDUAL_BANDS):
                rows.append(row)
                sizes.append(size)
    if not rows:
        raise UsageError("holds no videos of which residuals are sent", where=str(folder))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(sizes))


def main() -> None:
    """See the module."""
    train_by_arguments(gather, name="residual", section="7.12", of="videos", count=300)


if __name__ == "__main__":
    main()
