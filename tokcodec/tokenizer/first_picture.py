"""First pictures that come without tokens, by wavelets or by blocks: pixels <-> coefficients (spec 8.7 and 8.9)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.intra import UNIT, planes
from tokcodec.tokenizer import block_choice, picture_choice, wavelet
from tokcodec.tokenizer.transform import PEAK, colour_matrix, mixed
from tokcodec.tokens import Picture


def chosen(picture: Tensor, slope: float, *, blocks: bool) -> Picture:
    """What an encoder sends.

    Args:
        picture: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.
        slope: Lambda (squared error, sum over pixels of 8-bit values, that one coded bit of later steps must save).
        blocks: Whether by blocks.
    """
    return block_choice.chosen(picture, slope) if blocks else picture_choice.chosen(picture, slope)


def chosen_and_restored(picture: Tensor, slope: float, *, blocks: bool) -> tuple[Picture, Tensor]:
    """The same, and what :func:`restored` makes of it."""
    if not blocks:
        found = chosen(picture, slope, blocks=False)
        return found, restored(found, picture)
    found, whole = block_choice.chosen_and_decoded(picture, slope)
    return found, _of_planes(whole, picture)


def quickly_chosen(picture: Tensor, slope: float, *, blocks: bool) -> Picture:
    """What training takes: of wavelets those that a dead zone leaves; arguments as of :func:`chosen`."""
    if blocks:
        return block_choice.chosen(picture, slope)
    scale = wavelet.scale_of_slope(slope)
    coefficients = wavelet.quantized(picture, scale, dead=wavelet.dead_of_slope(slope))
    return Picture(coefficients=coefficients, scale=scale)


def restored(picture: Picture, like: Tensor) -> Tensor:
    """Its pixels: float32 `(3, H, W)` in units of [-1, 1], not clamped, on the device of `like`."""
    if picture.blocks is None:
        return wavelet.restored(picture, like)
    return _of_planes(planes(picture), like)


def _of_planes(found: NDArray[np.float64], like: Tensor) -> Tensor:
    whole = torch.from_numpy(found).float().to(like.device) / UNIT
    return mixed(colour_matrix(whole).T, whole.unsqueeze(0))[0] / PEAK
