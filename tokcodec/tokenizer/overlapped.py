"""Overlapped block motion compensation (spec 8.5): how a hybrid's decoder moves pictures.

A pixel is the mean, bilinear in its place between the middles of blocks, of what the four blocks around it take from
the picture. To interpolate the vectors instead, as :func:`tokcodec.tokenizer.motion.warp` does, folds the picture
between blocks that move apart.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.geometry import MOTION_TOKENS
from tokcodec.tokenizer.dis import MOTION_UNIT
from tokcodec.tokenizer.motion import BLOCK, VECTORS_PER_PIXEL

TAPS = (-1, 4, -11, 40)
"""Of the filter for what lies between two pixels, in 64ths, from the outermost to the middle; that of HEVC."""
OVERLAP = BLOCK // 2
"""Pixels that a block reaches into those around it."""
BAND = 32
"""Rows of blocks that are cut out at a time."""
_SIDE = BLOCK + 2 * OVERLAP


class Reference:
    """A picture that is moved, once or more.

    Args:
        picture: float32 `(N, 3, H, W)`. Where it has a gradient, so have the pictures made of it.
    """

    def __init__(self, picture: Tensor) -> None:
        self._by_pixels = picture.requires_grad
        self._size = picture.shape[2:]
        self._planes = _half_pixels(picture.permute(0, 2, 3, 1), margin=0 if self._by_pixels else _SIDE)

    def moved(self, displacement: Tensor) -> Tensor:
        """Move it by blocks.

        Args:
            displacement: float32 `(N, 2, H/8, W/8)`, x before y, in units of `MOTION_UNIT` pixels: a whole number of
                half pixels, the same in each 2x2 tokens, as :func:`tokcodec.tokenizer.motion.displacement_of_map`
                makes it.

        Returns:
            float32 `(N, 3, H, W)`.
        """
        vectors = displacement[:, :, ::MOTION_TOKENS, ::MOTION_TOKENS]
        vectors = (vectors * (MOTION_UNIT * VECTORS_PER_PIXEL)).round().long()
        if self._by_pixels:
            return _by_pixels(self._planes, vectors)
        return _by_blocks(self._planes, vectors, *self._size)


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
def _window(device: torch.device) -> Tensor:
    """Weights of a block's pixels, three colours each: `(32, 1, 96)`."""
    up = (torch.arange(2 * OVERLAP, device=device) + 0.5) / (2 * OVERLAP)
    ramp = torch.cat([up, up.flip(0)])
    return (ramp.view(-1, 1) * ramp).repeat_interleave(3, dim=1).unsqueeze(1)


@functools.lru_cache(maxsize=8)
def _edge(device: torch.device) -> Tensor:
    """One over the sum of the weights at the first places of a picture, up to the middle of a block: `(8,)`."""
    return 1 / (0.5 + (torch.arange(OVERLAP, device=device) + 0.5) / BLOCK)


def _by_blocks(framed: Tensor, vectors: Tensor, height: int, width: int) -> Tensor:
    """Block by block, which is fast: every second block of every second row at once, for these touch and do not
    overlap."""
    batch, _, framed_height, framed_width, colours = framed.shape
    rows, columns = vectors.shape[2:]
    line = framed_width * colours
    lines = framed.as_strided(
        (batch, 4, framed_height, framed_width - _SIDE + 1, _SIDE * colours),
        (4 * framed_height * line, framed_height * line, line, colours, 1),
    )
    device = framed.device
    y = torch.arange(rows, device=device).view(-1, 1) * BLOCK - OVERLAP + (vectors[:, 1] >> 1)
    x = torch.arange(columns, device=device) * BLOCK - OVERLAP + (vectors[:, 0] >> 1)
    y, x = y.clamp(-_SIDE, height) + _SIDE, x.clamp(-_SIDE, width) + _SIDE
    number = torch.arange(batch, device=device).view(-1, 1, 1, 1)
    down, plane = torch.arange(_SIDE, device=device).view(-1, 1), _plane(vectors)
    total = framed.new_zeros(batch, (rows + 1) * BLOCK, (columns + 1) * BLOCK * colours)
    for top in range(0, rows, BAND):  # or large pictures would take gigabytes
        for row in range(top, min(top + 2, rows)):
            for column in range(min(2, columns)):
                rows_of, columns_of = slice(row, min(top + BAND, rows), 2), slice(column, None, 2)
                at = [values[:, rows_of, None, columns_of] for values in (plane, y, x)]
                taken = lines[number, at[0], at[1] + down, at[2]]  # (N, rows, 32, columns, 96)
                tall, wide = taken.shape[1] * _SIDE, taken.shape[3] * _SIDE * colours
                there = total.narrow(1, row * BLOCK, tall).narrow(2, column * BLOCK * colours, wide)
                there.unflatten(1, (-1, _SIDE)).unflatten(3, (-1, _SIDE * colours)).addcmul_(taken, _window(device))
    whole = total.unflatten(2, (-1, colours))
    for dim, blocks in ((1, rows), (2, columns)):
        whole.narrow(dim, OVERLAP, OVERLAP).mul_(_edge(device).view(-1, *[1] * (3 - dim)))
        whole.narrow(dim, blocks * BLOCK, OVERLAP).mul_(_edge(device).flip(0).view(-1, *[1] * (3 - dim)))
    cut: Tensor = whole[:, OVERLAP : OVERLAP + height, OVERLAP : OVERLAP + width].permute(0, 3, 1, 2)
    return cut.contiguous()  # what follows is done plane by plane
