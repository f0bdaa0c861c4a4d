"""The motion maps of a hybrid's steps, as an encoder chooses them: each when the pictures that it moves are decoded
(spec 3.5, 8.5). They come in the order of the constants `LAST` to `LATE` of :mod:`tokcodec.tokenizer.hybrid`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.geometry import MOTION_MAPS, SPATIAL_FACTOR
from tokcodec.motion_bits import expected_map
from tokcodec.tokenizer.block_search import (
    BlockErrors,
    EitherErrors,
    HalfPixels,
    Luma,
    MeanErrors,
    coarse_field,
    descend,
    field_of_motion,
)
from tokcodec.tokenizer.displacement import choose_map
from tokcodec.tokenizer.motion import displacements_of_maps
from tokcodec.tokenizer.search import grey, search
from tokcodec.tokenizer.second_reference import Chosen, Places
from tokcodec.tokenizer.step_length import REPEATS

ALONE_COUNTS = {"middle": 2.0, "other": 0.5}
"""How often an error of a frame between of a step of four counts, when vectors of one side are chosen as if the frame
came from there alone: early and late ones are made of the middle one, too, and half of each error is another side's.
In shorter steps half of that."""
MEAN_COUNTS = {"middle": 2.0, "other": 1.0}
"""The same when it is known what the other side brings."""
ROUNDS = {"last": 2, "middle": 2, "other": 1}
"""In which vectors of a frame are chosen."""
CHOICE_BITS = 1.5
"""About what it costs that a block comes from the chunk's first picture, or from both."""

Vectors = NDArray[np.int16]
Decode = Callable[[Tensor], Tensor]


class HybridMotion:
    """Chooses the maps of a chunk's later steps, in order; for each step `of_last` is called, then `of_others`."""

    def __init__(self, *, second_reference: bool = False) -> None:
        self._has_second = second_reference
        self._last: Vectors | None = None
        self._found: Tensor | None = None
        self._first: HalfPixels | None = None
        self._places: Places | None = None
        self._choice: Vectors | None = None

    def of_last(self, pixels: Tensor, last: Tensor, picture: Tensor, *, slope: float) -> tuple[Tensor, Chosen | None]:
        """Choose the first map.

        Args:
            pixels: The step's frames, float32 `(1, F, 3, H, W)` in [-1, 1], as many as it shows: 4, 2 or 1.
            last: The source's last frame before, float32 `(1, 3, H, W)`.
            picture: That frame as it is decoded.
            slope: Lambda, see :class:`tokcodec.tokenizer.allocation.Allocator`.

        Returns:
            Displacements, float32 `(1, 7, 2, H/8, W/8)`; those of other frames, not known yet, are zero. And what comes
            from the chunk's first picture.
        """
        count = pixels.shape[1]
        self._found = search(pixels[:, 1::2] if count > 2 else pixels, last)
        start = field_of_motion(self._found[:, -1])[0]
        before = np.zeros(start.shape, np.int16) if self._last is None else self._last
        wanted, reference = _luma(pixels[:, -1]), _luma(picture)
        starts = [start, before, coarse_field(wanted[0], reference[0])]
        halves, repeats = HalfPixels(reference), REPEATS[count]
        places, self._choice, chosen = self._places, np.zeros_like(before), None
        if places is None or self._first is None:  # after a first picture, which there is no second beside
            self._first, places = halves, Places.at_start(*start.shape[:2])
            self._last = _chosen(
                wanted, halves, starts, before, slope=slope, kind="last", relative=False, repeats=repeats
            )
        else:
            price = slope * CHOICE_BITS
            both = EitherErrors(wanted, halves, self._first, places, repeats=repeats, price=price)
            found = descend(both.own, [each[None] for each in starts], slope=slope)[0]
            beside = descend(both, [found[None], before[None]], slope=slope)[0]
            self._last = choose_map(
                both,
                [found, starts[0], beside],
                before=before,
                slope=slope,
                relative=False,
                rounds=ROUNDS["last"],
            )
            self._choice[..., 0] = both.choice(self._last)
            chosen = places.chosen(self._last, self._choice, pixels.device)
        if self._has_second:
            self._places = places.after(self._last)
        return self._displacements(pixels, [self._last]), chosen

    def of_others(self, pixels: Tensor, before: Tensor, after: Tensor, middle: Decode, *, slope: float) -> Vectors:
        """Choose the other six; those of frames that are not shown are as expected, which costs next to nothing.

        Args:
            pixels: The step's frames, as for `of_last`.
            before: The last frame before the step as it is decoded, float32 `(1, 3, H, W)`.
            after: The step's last frame as it is decoded.
            middle: Decodes the middle one, of displacements whose first three maps are known.
            slope: Lambda.

        Returns:
            All seven, one below the other, and the choice map, where there is one: int16
            `(motion_rows, motion_columns, 2)`.
        """
        if self._last is None or self._found is None or self._choice is None:
            raise RuntimeError("the motion of the last frame comes first")
        count = pixels.shape[1]
        if count == 1:
            return self._even([self._last])
        second = _luma(pixels[:, 1 if count > 2 else 0])
        earlier, later = _luma(before), _luma(after)
        maps, references = [self._last], (HalfPixels(earlier), HalfPixels(later))
        share = 1.0 if count > 2 else 0.5
        starts = [field_of_motion(self._found[:, 0])[0], coarse_field(second[0], earlier[0])]
        until = [field_of_motion(search(pixels[:, -1 - count // 2][:, None], pixels[:, -1])[:, 0])[0]]
        maps += _pair(second, references, maps, (starts, until), slope=slope, kind="middle", share=share)
        decoded = middle(self._displacements(pixels, maps))
        if count == 2:
            return self._even(maps)
        between = HalfPixels(_luma(decoded))
        for number, reference in ((0, references[0]), (2, references[1])):
            wanted = _luma(pixels[:, number])
            maps += _pair(wanted, (reference, between), maps, ([], []), slope=slope, kind="other", share=share)
        return self._even(maps)

    def _even(self, maps: list[Vectors]) -> Vectors:
        """All maps, of which those that are not known are as expected."""
        for number in range(len(maps), MOTION_MAPS):
            maps.append(expected_map(maps, number))
        if self._has_second and self._choice is not None:
            maps.append(self._choice)
        return np.concatenate(maps)

    @staticmethod
    def _displacements(pixels: Tensor, maps: Sequence[Vectors]) -> Tensor:
        """Displacements of the maps that are known."""
        known = np.concatenate([*maps, *[np.zeros_like(maps[0])] * (MOTION_MAPS - len(maps))])
        vectors = torch.from_numpy(known).to(pixels.device).unsqueeze(0)
        rows, columns = (side // SPATIAL_FACTOR for side in pixels.shape[-2:])
        return displacements_of_maps(vectors, rows, columns, maps=MOTION_MAPS)


def _luma(picture: Tensor) -> Luma:
    """uint8 `(1, H, W)` of `(1, 3, H, W)`."""
    return grey(picture.unsqueeze(1))[:, 0]


def _chosen(
    wanted: Luma,
    reference: HalfPixels,
    starts: Sequence[NDArray[np.integer]],
    before: Vectors,
    *,
    slope: float,
    kind: str,
    relative: bool,
    repeats: float,
) -> Vectors:
    errors = BlockErrors(wanted, reference, repeats=repeats)
    found = descend(errors, [start[None] for start in starts], slope=slope)[0]
    return choose_map(errors, [found, starts[0]], before=before, slope=slope, relative=relative, rounds=ROUNDS[kind])


def _pair(
    wanted: Luma,
    references: tuple[HalfPixels, HalfPixels],
    known: Sequence[Vectors],
    starts: tuple[Sequence[NDArray[np.integer]], Sequence[NDArray[np.integer]]],
    *,
    slope: float,
    kind: str,
    share: float,
) -> list[Vectors]:
    """Both maps of a frame between: the first by what it is alone, the second by the mean of both.

    Args:
        wanted: The frame.
        references: What the maps move.
        known: The step's maps before.
        starts: Fields that were found, of each; what is expected is tried, too.
        slope: Lambda.
        kind: Of the frame, see `ROUNDS`.
        share: By which its errors count less than in a step of four.
    """
    expected = expected_map(known, len(known))
    first = _chosen(
        wanted,
        references[0],
        [*starts[0], expected],
        expected,
        slope=slope,
        kind=kind,
        relative=True,
        repeats=share * ALONE_COUNTS[kind],
    )
    expected = expected_map([*known, first], len(known) + 1)
    errors = BlockErrors(wanted, references[1], repeats=share * ALONE_COUNTS[kind])
    found = descend(errors, [start[None] for start in (*starts[1], expected)], slope=slope)
    own, other = (BlockErrors(wanted, each, repeats=share * MEAN_COUNTS[kind]) for each in reversed(references))
    blocks = np.arange(other.count)
    both = MeanErrors(own, other.moved(blocks, first.reshape(-1, 2).astype(np.int32)))
    better = descend(both, [found, expected[None]], slope=slope)[0]
    second = choose_map(both, [better, found[0]], before=expected, slope=slope, relative=True, rounds=ROUNDS[kind])
    return [first, second]
