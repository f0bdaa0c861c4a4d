"""Means of a first picture's cells: each is what the known ones around it say, and a residue (spec 8.5).

A picture is smooth where little is said of it: so a cell without a residue is the mean of its neighbours, and between
the middles of cells colours go over into one another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.cell_sets import cell_sets


class _Set(NamedTuple):
    """Cells that are predicted together.

    Attributes:
        cells: int64 `(n,)`.
        known: int64 `(4, n)`; 0 where there is none.
        shares: float32 `(4, n)`: one over the number of known cells, 0 where there is none.
    """

    cells: Tensor
    known: Tensor
    shares: Tensor


def _sets(rows: int, columns: int, device: torch.device) -> tuple[_Set, ...]:
    return _makers[-1](rows, columns, device)


@functools.lru_cache(maxsize=16)
def _cached_sets(rows: int, columns: int, device: torch.device) -> tuple[_Set, ...]:
    found = []
    with torch.inference_mode(False):  # they outlive the call that made them
        for group in cell_sets(rows, columns):
            known = torch.from_numpy(group.known)
            shares = (known >= 0).float()
            shares = shares / shares.sum(dim=0).clamp(min=1.0)
            parts = torch.from_numpy(group.cells), known.clamp(min=0), shares
            found.append(_Set(*(part.to(device) for part in parts)))
    return tuple(found)


_makers: list[Callable[[int, int, torch.device], tuple[_Set, ...]]] = [_cached_sets]


def keep_from_compiler() -> None:
    """Before anything is compiled: that sets are made, once, is nothing to compile.

    A decorator would say so as well, and load the compiler, for a second and more, wherever this module is imported.
    """
    if len(_makers) == 1:
        _makers.append(torch.compiler.disable(_cached_sets))


def _around(means: Tensor, group: _Set) -> Tensor:
    """What known cells say of those of a set: `(N, C, h * w)` -> `(N, C, n)`, 0 where none is known."""
    return (means[:, :, group.known] * group.shares).sum(dim=2)


def means_of(residues: Tensor) -> Tensor:
    """Means of cells from what they differ by from those around them: float32 `(N, C, h, w)` both."""
    means = residues.flatten(2).clone()
    rows, columns = residues.shape[-2:]
    for group in _sets(rows, columns, residues.device):
        means[:, :, group.cells] += _around(means, group)
    return means.view_as(residues)


def residues_of(wanted: Tensor, decide: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Means `(N, C, h, w)` as :func:`means_of` has them, of residues that are chosen set by set.

    Args:
        wanted: The means that would be right, float32 `(N, C, h, w)`.
        decide: Is given what a set's cells lack, `(N, C, n)`, and their places `(n,)`; gives what it takes of that.
    """
    flat = wanted.flatten(2)
    means = torch.zeros_like(flat)
    rows, columns = wanted.shape[-2:]
    for group in _sets(rows, columns, wanted.device):
        around = _around(means, group)
        rest = flat[:, :, group.cells] - around
        means[:, :, group.cells] = around + decide(rest, group.cells)
    return means.view_as(wanted)


def transitions(planes: Tensor, side: int) -> Tensor:
    """What makes smooth transitions of even cells: `(N, C, h, w)` -> `(N, C, side * h, side * w)`.

    Bilinear interpolation between the middles of cells, less its own mean in each cell, so that means stay as they are.
    """
    between = F.interpolate(planes, scale_factor=side, mode="bilinear", align_corners=False)
    return between - F.interpolate(F.avg_pool2d(between, side), scale_factor=side, mode="nearest")
