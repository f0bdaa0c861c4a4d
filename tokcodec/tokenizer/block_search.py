"""Block matching: what an encoder's choice of vectors for overlapped blocks begins with.

Dense inverse search follows slow motion well, and loses what moves further than a few blocks or against what is around
it. So every shift of a small picture is tried too, and from the better of both each block goes downhill by itself. No
decoder needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MAX_VECTOR, MOTION_TOKENS
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.motion import BLOCK, VECTORS_PER_PIXEL
from tokcodec.tokenizer.overlapped import OVERLAP, TAPS
from tokcodec.tokenizer.second_reference import Places

Luma = NDArray[np.uint8]
Field = NDArray[np.int32]
Errors = NDArray[np.float32]

SAMPLING = 2
"""Every second row and column of a block stands for all."""
REACH = BLOCK + 2 * OVERLAP
"""Pixels along each side of what a block's vector moves, overlap and all."""
COARSE = 8
"""Pixels along each side of one of the small picture's."""
COARSE_REACH = 16
"""Small pixels up to which every shift is tried, in each direction."""
COARSE_WINDOW = 5
"""Small pixels along each side of what is compared."""
COARSE_PENALTY = 0.3
"""Grey values for the root of a shift's length, in small pixels."""
STEPS = (4, 2, 1, 1)
"""Half pixels that blocks go in turn."""
LENGTH_BITS = 1.0
"""About what doubling a vector's distance from those around it costs, in bits."""
WORTH_BITS = 4.0
"""A block whose error is worth fewer bits than this is left as it is."""
_MARGIN = REACH + BLOCK
_SIDE = REACH // SAMPLING


def _window() -> NDArray[np.float32]:
    """Weights by which places of `REACH` count, `(256,)`: those of a decoder's overlapped blocks (but for the edges of
    pictures), which add up to the pixels of a block."""
    up = (np.arange(0, 2 * OVERLAP, SAMPLING) + 0.5) / (2 * OVERLAP)
    ramp = np.concatenate([up, 1 - up])
    weights = np.outer(ramp, ramp).ravel()
    found: NDArray[np.float32] = (weights * (BLOCK**2 / weights.sum())).astype(np.float32)
    return found


_WEIGHTS = _window()


class HalfPixels:
    """Pictures and their values half a pixel to the right, below, and both, to cut blocks from.

    Args:
        pictures: Luma, uint8 `(N, H, W)`.
    """

    def __init__(self, pictures: Luma) -> None:
        import cv2  # late: decoding never needs it

        self.shape = pictures.shape
        height, width = self.shape[1:]
        taps: NDArray[np.floating] = np.asarray((*TAPS, *TAPS[::-1]), np.float32) / 64
        none: NDArray[np.floating] = np.ones(1, np.float32)
        # Every second row and column apart, so that a row of a block is 16 bytes in a piece, which are copied as one.
        self._halved = (height + 1) // SAMPLING + _MARGIN, (width + 1) // SAMPLING + _MARGIN
        planes = np.zeros((len(pictures), 4, SAMPLING, SAMPLING, *self._halved), np.uint8)
        for result, picture in zip(planes, pictures, strict=True):
            for number, (across, down) in enumerate(((none, none), (taps, none), (none, taps), (taps, taps))):
                anchor = (3 if len(across) > 1 else 0, 3 if len(down) > 1 else 0)
                moved = cv2.sepFilter2D(picture, cv2.CV_8U, across, down, None, anchor, 0, cv2.BORDER_REPLICATE)
                framed = cv2.copyMakeBorder(moved, *(_MARGIN,) * 4, cv2.BORDER_REPLICATE)
                for row, column in np.ndindex(SAMPLING, SAMPLING):
                    part = framed[row::SAMPLING, column::SAMPLING]
                    result[number, row, column, : part.shape[0], : part.shape[1]] = part
        last = (_SIDE - 1) * self._halved[1] + _SIDE
        self._blocks = np.ndarray(
            (planes.size - last + 1, _SIDE), np.complex128, planes.reshape(-1).data, strides=(1, self._halved[1])
        )

    def blocks(self, number: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp], vectors: Field) -> Luma:
        """Cut blocks with their overlap, uint8 `(..., 16, 16)`, every second row and column.

        Args:
            number: Of the picture, `(n,)`.
            y: Top row of each block before it is moved, without its overlap, `(n,)`.
            x: Left column.
            vectors: Half pixels, x before y, `(..., n, 2)`.
        """
        height, width = self.shape[1:]
        across, down = vectors[..., 0], vectors[..., 1]
        top = np.minimum(np.maximum((y + (_MARGIN - OVERLAP)) + (down >> 1), 0), height + 2 * _MARGIN - REACH)
        left = np.minimum(np.maximum((x + (_MARGIN - OVERLAP)) + (across >> 1), 0), width + 2 * _MARGIN - REACH)
        plane = 4 * number + 2 * (down & 1) + (across & 1)
        plane = (plane * SAMPLING + top % SAMPLING) * SAMPLING + left % SAMPLING
        place = (plane * self._halved[0] + top // SAMPLING) * self._halved[1] + left // SAMPLING
        found: Luma = self._blocks[place].view(np.uint8).reshape(*place.shape, _SIDE, _SIDE)
        return found


class BlockErrors:
    """Squared errors of blocks, were they moved by one vector or another: of all that a vector moves, its overlap too,
    by how much it has a say there.

    Args:
        wanted: Luma, uint8 `(N, H, W)`.
        reference: What is moved.
        repeats: How often the errors count.
    """

    def __init__(self, wanted: Luma, reference: HalfPixels, *, repeats: float) -> None:
        count, height, width = wanted.shape
        self._rows, self._columns = -(-height // BLOCK), -(-width // BLOCK)
        down, right = self._rows * BLOCK - height, self._columns * BLOCK - width
        framed = np.pad(wanted, ((0, 0), (OVERLAP, down + OVERLAP), (OVERLAP, right + OVERLAP)), mode="edge")
        parts = np.lib.stride_tricks.sliding_window_view(framed, (REACH, REACH), axis=(1, 2))
        parts = parts[:, ::BLOCK, ::BLOCK, ::SAMPLING, ::SAMPLING]
        self._wanted = parts.reshape(-1, _SIDE * _SIDE)
        number, y, x = np.indices((count, self._rows, self._columns)).reshape(3, -1)
        self._places = number, y * BLOCK, x * BLOCK
        self.count = len(number)
        self._reference = reference
        self._scale = np.float32(repeats)

    def of(self, blocks: NDArray[np.intp], vectors: Field) -> Errors:
        """Errors of some blocks: float32 `(k, n)`, for half pixels `(k, n, 2)`."""
        found = np.empty(vectors.shape[:2], np.float32)
        for result, each in zip(found, vectors, strict=True):  # one at a time: all together would take gigabytes
            self.put(result, blocks, self.moved(blocks, each))
        return found

    def moved(self, blocks: NDArray[np.intp], vectors: Field) -> Luma:
        """Some blocks as vectors `(n, 2)` move them, uint8 `(n, 256)`."""
        number, y, x = (part[blocks] for part in self._places)
        return self._reference.blocks(number, y, x, vectors).reshape(len(blocks), -1)

    def put(self, result: Errors, blocks: NDArray[np.intp], values: Luma) -> None:
        """Write the errors of blocks, `(n,)`, were they these values, `(n, 256)`."""
        import cv2

        away = cv2.absdiff(values, self._wanted.take(blocks, axis=0)).astype(np.float32)
        away *= away
        np.einsum("np,p->n", away, _WEIGHTS, out=result)  # rows by themselves, whichever there are
        result *= self._scale

    def errors(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """See :class:`tokcodec.tokenizer.displacement.TriedErrors`; of all blocks of all pictures."""
        some = np.arange(self.count) if blocks is None else blocks
        flat = vectors.reshape(-1, len(some), 2).astype(np.int32)
        return self.of(some, flat).reshape(vectors.shape[:-1])


class EitherErrors:
    """The same of blocks that come from the picture before, or where that is better by a price from the chunk's first
    one, or from the mean of both.

    Args:
        wanted: Luma, uint8 `(1, H, W)`.
        reference: The picture before.
        first: The first one.
        places: Where blocks were in it.
        repeats: How often the errors count.
        price: By which an error must be less.
    """

    def __init__(
        self,
        wanted: Luma,
        reference: HalfPixels,
        first: HalfPixels,
        places: Places,
        *,
        repeats: float,
        price: float,
    ) -> None:
        self.own = BlockErrors(wanted, reference, repeats=repeats)
        self._first = BlockErrors(wanted, first, repeats=repeats)
        self._places, self._price = places, np.float32(price)

    def of(self, blocks: NDArray[np.intp], vectors: Field) -> Errors:
        """Errors of some blocks, were they from the first picture: :meth:`BlockErrors.of`."""
        return self._first.of(blocks, self._places.of(vectors, blocks))

    def errors(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """Errors of blocks, each from where it is best: :meth:`BlockErrors.errors`."""
        found: Errors = self._each(vectors, blocks).min(axis=0)
        return found

    def choice(self, vectors: NDArray[np.integer]) -> NDArray[np.intp]:
        """From where each block is best, a choice map's numbers: `(rows, columns)`, for `(rows, columns, 2)`."""
        found: NDArray[np.intp] = self._each(vectors).argmin(axis=0)
        return found

    def _each(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """Errors and prices of each choice: float32 `(3, ..., rows, columns)`, or `(3, ..., n)`."""
        import cv2

        blocks = np.arange(self.own.count) if blocks is None else blocks
        flat = vectors.reshape(-1, len(blocks), 2).astype(np.int32)
        found = np.empty((3, *flat.shape[:2]), np.float32)
        for number, each in enumerate(flat):
            near = self.own.moved(blocks, each)
            far = self._first.moved(blocks, self._places.of(each, blocks))
            both: Luma = cv2.addWeighted(near, 0.5, far, 0.5, 0.0).astype(np.uint8, copy=False)
            for choice, values in enumerate((near, far, both)):
                self.own.put(found[choice, number], blocks, values)
        found[1:] += self._price
        return found.reshape(3, *vectors.shape[:-1])


class MeanErrors:
    """The same of blocks that are the mean of what they would be by one picture, and of what they are by another.

    Args:
        own: Errors of blocks of the one picture alone.
        other: The blocks as the other one has them, uint8 `(n, 256)`: :meth:`BlockErrors.moved`.
    """

    def __init__(self, own: BlockErrors, other: Luma) -> None:
        self._own, self._other = own, other

    def of(self, blocks: NDArray[np.intp], vectors: Field) -> Errors:
        """Errors of some blocks: :meth:`BlockErrors.of`."""
        import cv2

        found = np.empty(vectors.shape[:2], np.float32)
        other = self._other[blocks]
        for result, each in zip(found, vectors, strict=True):
            both: Luma = cv2.addWeighted(self._own.moved(blocks, each), 0.5, other, 0.5, 0.0).astype(
                np.uint8, copy=False
            )
            self._own.put(result, blocks, both)
        return found

    def errors(self, vectors: NDArray[np.integer], blocks: NDArray[np.intp] | None = None) -> Errors:
        """Errors of blocks: :meth:`BlockErrors.errors`."""
        some = np.arange(self._own.count) if blocks is None else blocks
        flat = vectors.reshape(-1, len(some), 2).astype(np.int32)
        return self.of(some, flat).reshape(vectors.shape[:-1])


def field_of_motion(motion: Tensor) -> Field:
    """Motion as vectors of blocks.

    Args:
        motion: float32 `(N, 2, h, w)`, in units of `MOTION_UNIT` pixels.

    Returns:
        int32 `(N, rows, columns, 2)`, half pixels, x before y, within `MAX_VECTOR`.
    """
    means = F.avg_pool2d(motion, MOTION_TOKENS, ceil_mode=True, count_include_pad=False)
    vectors = (means * (MOTION_UNIT * VECTORS_PER_PIXEL)).round().clamp(-MAX_VECTOR, MAX_VECTOR)
    found: Field = vectors.permute(0, 2, 3, 1).cpu().numpy().astype(np.int32)
    return found


def coarse_field(wanted: Luma, reference: Luma) -> Field:
    """The best of all shifts of a small picture.

    Args:
        wanted: Luma, uint8 `(H, W)`.
        reference: That is moved.

    Returns:
        int32 `(rows, columns, 2)`, half pixels, x before y, each block by its upper left small pixel.
    """
    import cv2

    height, width = wanted.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    size = (2 * columns, 2 * rows)
    edges = (0, rows * BLOCK - height, 0, columns * BLOCK - width)
    whole = [cv2.copyMakeBorder(part, *edges, cv2.BORDER_REPLICATE) for part in (wanted, reference)]
    small, other = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in whole)
    reach = COARSE_REACH
    framed = cv2.copyMakeBorder(other, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    least = np.full((2 * rows, 2 * columns), np.inf, np.float32)
    found = np.zeros((2 * rows, 2 * columns), np.int32)
    sideways = np.abs(np.arange(-reach, reach + 1))
    wanted_often = np.repeat(small[..., None], len(sideways), axis=2)
    for down in range(-reach, reach + 1):
        # All shifts to the sides at once, as colours of one picture.
        moved = np.lib.stride_tricks.sliding_window_view(framed[reach + down :][: 2 * rows], len(sideways), axis=1)
        apart = cv2.absdiff(wanted_often, moved)
        window = (COARSE_WINDOW, COARSE_WINDOW)
        away = np.add(
            cv2.boxFilter(apart, cv2.CV_32F, window, borderType=cv2.BORDER_REPLICATE),
            COARSE_PENALTY * (abs(down) + sideways).astype(np.float32) ** 0.5,
            dtype=np.float32,
        )
        best = away.argmin(axis=2)
        lowest = np.take_along_axis(away, best[..., None], axis=2)[..., 0]
        better = lowest < least
        np.copyto(least, lowest, where=better)
        np.copyto(found, (down + reach) * len(sideways) + best, where=better)
    rights, downs = found[::2, ::2] % len(sideways) - reach, found[::2, ::2] // len(sideways) - reach
    field: Field = np.stack([rights, downs], axis=-1).astype(np.int32) * (2 * COARSE)
    return field


def neighbours(field: NDArray[np.integer]) -> Field:
    """Those above, below, left and right of each: `(..., rows, columns, 2)` -> int32 `(4, ..., rows, columns, 2)`."""
    width = ((0, 0),) * (field.ndim - 3) + ((1, 1), (1, 1), (0, 0))
    framed = np.pad(field.astype(np.int32), width, mode="edge")
    middle = slice(1, -1)
    parts = [(slice(-2), middle), (slice(2, None), middle), (middle, slice(-2)), (middle, slice(2, None))]
    return np.stack([framed[..., down, right, :] for down, right in parts])


def descend(
    errors: BlockErrors | EitherErrors | MeanErrors,
    starts: Sequence[NDArray[np.integer]],
    *,
    slope: float | NDArray[np.floating],
) -> Field:
    """Vectors of least error and price, where a vector costs by how far it is from those around it.

    Args:
        errors: Of the blocks.
        starts: Fields to begin with, `(N, rows, columns, 2)`, half pixels.
        slope: Lambda, squared error that one bit must save; of all, or of each picture, `(N, 1)`.

    Returns:
        int32 `(N, rows, columns, 2)`, within `MAX_VECTOR`.
    """
    shape = starts[0].shape
    price = np.broadcast_to(slope, (shape[0], shape[1] * shape[2])).reshape(-1).astype(np.float32)
    field = starts[0].reshape(-1, 2).clip(-MAX_VECTOR, MAX_VECTOR).astype(np.int32)
    least = np.full(len(field), np.inf, np.float32)
    everywhere = np.arange(len(field))

    def around() -> Field:
        return neighbours(field.reshape(shape)).reshape(4, -1, 2)

    def take(blocks: NDArray[np.intp], options: Field, centre: Field) -> None:
        options = options.clip(-MAX_VECTOR, MAX_VECTOR)
        away = np.abs(options - centre[blocks]).astype(np.float32)
        cost = errors.of(blocks, options) + (LENGTH_BITS * price[blocks]) * np.log2(1 + away).sum(axis=-1)
        best = cost.argmin(axis=0)
        lowest = cost[best, np.arange(len(blocks))]
        better = lowest < least[blocks]
        least[blocks[better]] = lowest[better]
        field[blocks[better]] = options[best, np.arange(len(blocks))][better]

    take(everywhere, np.stack([start.reshape(-1, 2) for start in starts]).astype(np.int32), _middle(around()))
    for step in STEPS:
        blocks = np.flatnonzero(least > WORTH_BITS * price)
        if not blocks.size:
            break
        near = around()
        centre = _middle(near)
        least[blocks] = np.inf
        ways = step * np.asarray(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)), np.int32)
        take(blocks, np.concatenate([near[:, blocks], field[blocks] + ways[:, None]]), centre)
    return field.reshape(shape)


def _middle(near: Field) -> Field:
    """Of four vectors, for each component, the mean of the two in the middle, downwards."""
    found: Field = (near.sum(axis=0) - near.min(axis=0) - near.max(axis=0)) >> 1
    return found
