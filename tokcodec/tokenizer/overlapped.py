"""Overlapped block motion compensation (spec 8.5): how a hybrid's decoder moves pictures.

A pixel is the mean, bilinear in its place between the middles of blocks, of what the four blocks around it take from
the picture. To interpolate the vectors instead, as :func:`tokcodec.tokenizer.motion.warp` does, folds the picture
between blocks that move apart.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.choice_bits import MEAN
from tokcodec.geometry import MOTION_TOKENS
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.motion import BLOCK, VECTORS_PER_PIXEL

if TYPE_CHECKING:
    from tokcodec.tokenizer.second_reference import Chosen

TAPS = (-1, 4, -11, 40)
"""Of the filter for what lies between two pixels, in 64ths, from the outermost to the middle; that of HEVC."""
OVERLAP = BLOCK // 2
"""Pixels that a block reaches into those around it."""
BAND = 32
"""Rows of tiles that are cut out at a time."""
_SIDE = BLOCK + 2 * OVERLAP
_KERNEL = np.asarray([[*TAPS, *TAPS[::-1]]], np.float32) / 64
_ANCHOR = {_KERNEL.shape: (len(TAPS) - 1, 0), _KERNEL.T.shape: (0, len(TAPS) - 1)}


class Reference:
    """A picture that is moved, once or more.

    Args:
        picture: float32 `(N, 3, H, W)`. Where it has a gradient, so have the pictures made of it.
    """

    def __init__(self, picture: Tensor) -> None:
        self._by_pixels = picture.requires_grad
        self._size = picture.shape[2:]
        self._planes = _half_pixels(picture.permute(0, 2, 3, 1), margin=0 if self._by_pixels else _SIDE)

    def moved(self, displacement: Tensor, second: tuple[Reference, Chosen] | None = None) -> Tensor:
        """Move it by blocks.

        Args:
            displacement: float32 `(N, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels: a whole number of
                half pixels, the same in each 2x2 tokens, as :func:`tokcodec.tokenizer.motion.displacement_of_map`
                makes it.
            second: Another picture of the same size, without a gradient, and the blocks that come from there, or from
                both.

        Returns:
            float32 `(N, 3, H, W)`, in memory maybe pixel by pixel.
        """
        vectors = displacement[:, :, ::MOTION_TOKENS, ::MOTION_TOKENS]
        vectors = (vectors * (MOTION_UNIT * VECTORS_PER_PIXEL)).round().long()
        if self._by_pixels:
            if second is not None:
                raise ValueError("a second reference has no gradient")
            return _by_pixels(self._planes, vectors)
        if second is None:
            return _by_blocks(self._planes, vectors, *self._size)
        height, width = self._size
        other, chosen = second
        return _by_blocks(self._planes, vectors, height, width, (other._planes, chosen))


def _half_pixels(picture: Tensor, *, margin: int) -> Tensor:
    """A picture, and it half a pixel to the right, below, and both, edges replicated by a margin.

    Args:
        picture: `(N, H, W, 3)`.
        margin: In pixels. With one there is no gradient.

    Returns:
        `(N, 4, H + 2 * margin, W + 2 * margin, 3)`.
    """
    if not margin:
        across = torch.stack([picture, _between(picture, 2)], dim=1)
        return torch.cat([across, _between(across, 2)], dim=1)
    batch, height, width, colours = picture.shape
    framed = picture.new_empty(batch, 4, height + 2 * margin, width + 2 * margin, colours)
    inner = framed[:, :, margin:-margin, margin:-margin]
    inner[:, 0] = picture
    if picture.device.type == "cpu" and picture.dtype == torch.float32:
        for planes in inner.numpy():
            for source, target, kernel in ((0, 1, _KERNEL), (0, 2, _KERNEL.T), (1, 3, _KERNEL.T)):
                cv2.filter2D(planes[source], -1, kernel, planes[target], _ANCHOR[kernel.shape], 0, cv2.BORDER_REPLICATE)
    else:
        _between(inner[:, 0], 2, out=inner[:, 1])
        _between(inner[:, :2], 2, out=inner[:, 2:])
    across = framed[:, :, margin:-margin]
    across[..., :margin, :] = inner[..., :1, :]
    across[..., -margin:, :] = inner[..., -1:, :]
    framed[:, :, :margin] = across[:, :, :1]
    framed[:, :, -margin:] = across[:, :, -1:]
    return framed


def _between(values: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    """What lies between each place and the next along a dimension; ends replicated."""
    length, reach = values.shape[dim], len(TAPS)
    first, last = values.narrow(dim, 0, 1), values.narrow(dim, length - 1, 1)
    padded = torch.cat([first] * (reach - 1) + [values] + [last] * reach, dim)
    total = torch.zeros_like(values) if out is None else out.zero_()
    for number, tap in enumerate(TAPS):
        for place in (number, 2 * reach - 1 - number):
            total = total.add_(padded.narrow(dim, place, length), alpha=tap / 64)
    return total


def _ramp(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each place: the block whose middle is not after it, and how far it is to the next middle, in blocks."""
    place = (torch.arange(length, device=device) + 0.5) / BLOCK - 0.5
    block = place.floor()
    return block.long(), place - block


def _by_pixels(planes: Tensor, vectors: Tensor) -> Tensor:
    """Pixel by pixel, with a gradient for the planes."""
    batch, _, height, width, colours = planes.shape
    stacked = planes.permute(0, 4, 1, 2, 3).reshape(batch, colours, 4 * height, width)
    rows, columns = vectors.shape[2:]
    (row, down), (column, right) = _ramp(height, planes.device), _ramp(width, planes.device)
    ys = torch.arange(height, device=planes.device).view(-1, 1)
    xs = torch.arange(width, device=planes.device)
    total = planes.new_zeros(batch, colours, height, width)
    for below, weight_y in ((0, 1 - down), (1, down)):
        for after, weight_x in ((0, 1 - right), (1, right)):
            at = vectors[:, :, (row + below).clamp(0, rows - 1)][..., (column + after).clamp(0, columns - 1)]
            y = (ys + (at[:, 1] >> 1)).clamp(0, height - 1) + height * _plane(at)
            x = (xs + (at[:, 0] >> 1)).clamp(0, width - 1)
            grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / (4 * height) - 1], dim=-1)
            taken = F.grid_sample(stacked, grid.to(planes.dtype), mode="nearest", align_corners=False)
            total = total + taken * (weight_y.view(-1, 1) * weight_x)
    return total


def _plane(vectors: Tensor) -> Tensor:
    return 2 * (vectors[:, 1] & 1) + (vectors[:, 0] & 1)


@functools.lru_cache(maxsize=8)
def _windows(device: torch.device) -> Tensor:
    """Weights of the four blocks at a tile's corners, above before below and left before right, for each of its rows
    and the three colours of each of its columns: `(4, 16, 48)`."""
    ramp = (torch.arange(BLOCK, device=device) + 0.5) / BLOCK
    both = torch.stack([1 - ramp, ramp])
    return (both.view(2, 1, BLOCK, 1) * both.repeat_interleave(3, dim=1).view(1, 2, 1, -1)).flatten(0, 1)


def _by_blocks(
    framed: Tensor, vectors: Tensor, height: int, width: int, second: tuple[Tensor, Chosen] | None = None
) -> Tensor:
    """Tile by tile, which is fast: a tile lies between the middles of four blocks, and where all of them have moved
    alike it is one piece of the picture."""
    batch, _, _, framed_width, colours = framed.shape
    rows, columns = vectors.shape[2:]
    device, side = framed.device, BLOCK * colours
    around = [torch.arange(-1, count + 1, device=device).clamp(0, count - 1) for count in (rows, columns)]
    corners = _places(framed, _framed(vectors, around), height, width)
    if second is not None:
        blocks = _framed(second[1].blocks, around).unfold(1, rows + 1, 1).unfold(2, columns + 1, 1)
        from_second = blocks.flatten(1, 2).transpose(0, 1)
        others = _places(second[0], _framed(second[1].vectors, around), height, width)
    down = torch.arange(BLOCK, device=device) * framed_width
    total = framed.new_empty(batch, rows + 1, columns + 1, BLOCK, side)
    for top in range(0, rows + 1, BAND):  # or large pictures would take gigabytes
        at = corners[:, :, top : top + BAND].flatten(1)
        # Elsewhere than on a CPU it costs more to ask than to go on.
        band = _tiles(framed, at, down) if device.type == "cpu" else _mixed(framed, at[..., None] + down)
        if second is not None:
            is_other, other = (each[:, :, top : top + BAND].flatten(1) for each in (from_second, others))
            _put_mixed(band, framed, at, second[0], is_other, other, down)
        total[:, top : top + BAND] = band.view(batch, -1, columns + 1, BLOCK, side)
    whole = total.transpose(2, 3).reshape(batch, BLOCK * (rows + 1), BLOCK * (columns + 1), colours)
    return whole[:, OVERLAP : OVERLAP + height, OVERLAP : OVERLAP + width].permute(0, 3, 1, 2)


def _tiles(framed: Tensor, at: Tensor, down: Tensor) -> Tensor:
    """Tiles `(n, 16, 48)` of what the blocks at their corners take from the places `(4, n)`, rows `down` apart."""
    alike = (at == at[0]).all(dim=0)
    if bool(alike.all()):
        return _taken(framed, at[0, :, None] + down)
    found = framed.new_empty(at.shape[1], BLOCK, BLOCK * framed.shape[-1])
    found[alike] = _taken(framed, at[0, alike, None] + down)
    found[~alike] = _mixed(framed, at[:, ~alike, None] + down)
    return found


def _framed(values: Tensor, around: Sequence[Tensor]) -> Tensor:
    """Values of blocks `(..., rows, columns)`, and once more around them."""
    return values[..., around[0], :][..., around[1]]


def _put_mixed(
    band: Tensor, framed: Tensor, at: Tensor, second: Tensor, from_second: Tensor, others: Tensor, down: Tensor
) -> None:
    """Make tiles again of which some blocks at their corners take from the second reference, or the mean of both."""
    some = torch.nonzero((from_second != 0).any(dim=0))[:, 0]
    if not some.numel():
        return
    windows = _windows(framed.device)
    found = torch.zeros_like(band[some])
    for window, own, other, is_other in zip(windows, at[:, some], others[:, some], from_second[:, some], strict=True):
        taken = _taken(framed, own[:, None] + down)
        there = torch.nonzero(is_other)[:, 0]
        far = _taken(second, other[there, None] + down)
        share = torch.where(is_other[there] == MEAN, 0.5, 1.0).to(far.dtype)
        taken[there] = torch.lerp(taken[there], far, share[:, None, None])
        found.addcmul_(taken, window)
    band[some] = found


def _mixed(framed: Tensor, at: Tensor) -> Tensor:
    """Tiles `(n, 16, 48)` of four pieces each, whose rows begin at the places `(4, n, 16)`."""
    windows = _windows(framed.device)
    found = _taken(framed, at[0]).mul_(windows[0])
    for place, window in zip(at[1:], windows[1:], strict=True):
        found.addcmul_(_taken(framed, place), window)
    return found


def _places(framed: Tensor, vectors: Tensor, height: int, width: int) -> Tensor:
    """Where the pieces of tiles begin among all pixels, for the blocks at each of their corners.

    Args:
        framed: Of `_half_pixels`.
        vectors: Those of all blocks, and once more around them, `(N, 2, rows + 2, columns + 2)`.
        height: Of the picture.
        width: Of the picture.

    Returns:
        int64 `(4, N, rows + 1, columns + 1)`.
    """
    batch, planes, framed_height, framed_width = framed.shape[:4]
    rows, columns = (count - 1 for count in vectors.shape[2:])
    tops = torch.arange(rows, device=framed.device).view(-1, 1) * BLOCK - OVERLAP
    lefts = torch.arange(columns, device=framed.device) * BLOCK - OVERLAP
    y = (vectors[:, 1] >> 1).unfold(1, rows, 1).unfold(2, columns, 1)  # (N, 2, 2, rows, columns)
    x = (vectors[:, 0] >> 1).unfold(1, rows, 1).unfold(2, columns, 1)
    plane = _plane(vectors).unfold(1, rows, 1).unfold(2, columns, 1)
    y, x = (tops + y).clamp(-_SIDE, height) + _SIDE, (lefts + x).clamp(-_SIDE, width) + _SIDE
    number = planes * torch.arange(batch, device=framed.device).view(-1, 1, 1, 1, 1)
    found = ((number + plane) * framed_height + y) * framed_width + x
    return found.flatten(1, 2).transpose(0, 1)


def _taken(framed: Tensor, places: Tensor) -> Tensor:
    """Rows of 16 pixels, from places among all pixels on: `(..., 48)`."""
    colours = framed.shape[-1]
    side = BLOCK * colours
    if framed.device.type != "cpu":
        rows = framed.as_strided((framed.numel() // colours - BLOCK + 1, side), (colours, 1))
        return rows[places]
    values = framed.numpy()  # which copies a row as one piece
    size = values.itemsize
    pieces: NDArray[np.void] = np.ndarray(
        (values.size // colours - BLOCK + 1,), np.dtype((np.void, side * size)), values.data, strides=(colours * size,)
    )
    return torch.from_numpy(pieces[places.numpy()].view(values.dtype)).view(*places.shape, side)
