"""Bits as a transform coder would choose them: cosines of a cell at amplitudes that a token scales as a whole.

A network learns slowly what an old transform does at once: to say how large a coefficient is, and to say nothing where
there is none. So in the variant `hybrid` (spec 8.5) two bits of a token are an exponent and most others are pairs,
"this cosine is there" and "its negative is"; in a chunk's first step the mean of the cell comes before them. Nothing
here is learned; the decoder's network does the rest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""Pixels along each side of a token."""
PEAK = 127.5
"""Amplitudes are in 8-bit values, pixels in [-1, 1]."""
EXPONENT_BITS = 2
"""Each token doubles its amplitudes as often as these bits say."""
MEANS = (1024, 512, 256, 128, 64, 32)
"""The mean of a first picture's cell is always there: one bit halves what is left, without a zero between."""
UNITS = {True: 32.0, False: 48.0}
"""Amplitudes at exponent 0, of a chunk's first step and of later ones, in the orthonormal basis."""
REPEATS = {True: 24.0, False: 4.0}
"""How often an error of a first step, or a later one, counts, for what follows is made of it."""
PRICED_BITS = 1.0
"""What it costs to set a bit, in bits of information: far less than it does, for what is worth too little is left out
by blocks (:mod:`tokcodec.tokenizer.allocation`)."""
THRESHOLD = 0.58
"""Share of an amplitude from which on a coefficient has it, where bits are cheap."""


class Atom(NamedTuple):
    """A product of cosines.

    Attributes:
        colour: 0 for grey, 1 for red against blue, 2 for green against both.
        row: Frequency down the cell, 0 to 7.
        column: Frequency across the cell, 0 to 7.
    """

    colour: int
    row: int
    column: int


_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
_GREY = Atom(0, 0, 0)
_FIRST = (
    *((4, 1, 0, 0), (4, 2, 0, 0), (4, 0, 1, 0), (4, 0, 0, 1), (2, 1, 0, 0), (2, 2, 0, 0), (2, 0, 1, 0), (2, 0, 0, 1)),
    *((2, 0, 2, 0), (2, 0, 0, 2), (2, 0, 1, 1), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1), (1, 2, 0, 0), (1, 0, 1, 1)),
    *((1, 0, 2, 0), (1, 0, 0, 2), (1, 0, 3, 0), (1, 0, 0, 3), (1, 0, 2, 1), (1, 0, 1, 2), (1, 0, 4, 0), (1, 0, 0, 4)),
    *((1, 0, 2, 2), (1, 0, 1, 3), (1, 0, 3, 1)),
)
_LATER = (
    *((4, 0, 0, 0), (2, 0, 0, 0), (2, 0, 1, 0), (2, 0, 0, 1), (2, 1, 0, 0), (2, 0, 2, 0), (2, 0, 0, 2), (1, 0, 0, 0)),
    *((1, 0, 1, 0), (1, 0, 0, 1), (1, 1, 0, 0), (1, 2, 0, 0), (1, 0, 1, 1), (1, 0, 2, 0), (1, 0, 0, 2), (1, 0, 3, 0)),
    *((1, 0, 0, 3), (1, 0, 2, 1), (1, 0, 1, 2), (1, 0, 4, 0), (1, 0, 0, 4), (1, 0, 2, 2), (1, 0, 1, 3), (1, 0, 3, 1)),
    *((1, 0, 5, 0), (1, 0, 0, 5), (1, 0, 2, 3), (1, 0, 3, 2), (1, 0, 1, 4), (1, 0, 4, 1)),
)
"""Multiples of the unit and atoms, by what they saved in training clips; coarse before fine, so that leaving out the
last bits is a coarser quantizer."""


class Pair(NamedTuple):
    """Two bits: the first adds `multiple` units of the atom, the second takes them away."""

    multiple: int
    atom: Atom


def pairs(*, first: bool) -> tuple[Pair, ...]:
    """All pairs of a chunk's first step or of later ones, in order."""
    return tuple(Pair(multiple, Atom(*atom)) for multiple, *atom in (_FIRST if first else _LATER))


HEAD = {True: len(MEANS) + EXPONENT_BITS, False: EXPONENT_BITS}
"""Bits before the pairs."""
MAX_BITS = min(HEAD[first] + 2 * len(pairs(first=first)) for first in (True, False))
"""Bits of a token that say something."""
MIN_BITS = max(HEAD.values())
"""Fewer could not say a mean and an exponent."""


def _cosines() -> Tensor:
    """Orthonormal DCT-II, float64 `(frequency, place)`."""
    place = torch.arange(CELL, dtype=torch.float64)
    basis = torch.cos(math.pi / CELL * (place + 0.5) * place.view(-1, 1)) * math.sqrt(2 / CELL)
    basis[0] *= math.sqrt(0.5)
    return basis


def _patterns(atoms: list[Atom]) -> Tensor:
    """Orthonormal patterns: float64 `(atoms, 3 * 64)`, in the order of `pixel_unshuffle`."""
    space, colours = _cosines(), torch.tensor(_COLOURS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    rows = [torch.einsum("c,i,j->cij", colours[a.colour], space[a.row], space[a.column]).flatten() for a in atoms]
    return torch.stack(rows)


class CellTransform(nn.Module):
    """Bits of tokens to coefficients and pixels, and back. It has no parameters.

    Args:
        bits_per_token: K, from 8 to `MAX_BITS`.
        first: Whether of a chunk's first step.
    """

    def __init__(self, bits_per_token: int, *, first: bool) -> None:
        super().__init__()
        self.first, self.bits = first, bits_per_token
        self.unit, self.repeats = UNITS[first], REPEATS[first]
        self.pairs = pairs(first=first)[: (bits_per_token - HEAD[first]) // 2]
        self.atoms = sorted({_GREY, *(pair.atom for pair in self.pairs)})
        self.at = [self.atoms.index(pair.atom) for pair in self.pairs]
        plus, mean = torch.zeros(len(self.atoms), bits_per_token), torch.zeros(len(self.atoms), bits_per_token)
        for number, (pair, place) in enumerate(zip(self.pairs, self.at, strict=True)):
            bit = HEAD[first] + 2 * number
            plus[place, bit], plus[place, bit + 1] = pair.multiple * self.unit, -pair.multiple * self.unit
        if first:
            mean[0, : len(MEANS)] = torch.tensor(MEANS, dtype=torch.float32)
        # No buffers: they would take on the type of the network.
        self._cells, self._plus, self._mean = _patterns(self.atoms).float(), plus, mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to a device, not to a type."""
        device = fn(torch.empty(0, device=self._cells.device)).device
        self._cells, self._plus, self._mean = (part.to(device) for part in (self._cells, self._plus, self._mean))
        applied: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return applied

    def _scale(self, set_: Tensor) -> Tensor:
        """Powers of two, `(N, 1, h, w)`."""
        start = HEAD[self.first] - EXPONENT_BITS
        scale = torch.ones_like(set_[:, :1])
        for number in range(EXPONENT_BITS):
            scale = scale * (1 + set_[:, start + number : start + number + 1] * (2.0 ** (1 << number) - 1))
        return scale

    def coefficients(self, signs: Tensor, kept: Tensor) -> Tensor:
        """What kept bits say: `(N, K, h, w)` signs and 0 or 1 -> float32 `(N, atoms, h, w)`, in 8-bit values."""
        with _exactly(signs):
            signs, kept = signs.float(), kept.float()
            set_ = 0.5 * (signs + 1) * kept
            scaled = self._scale(set_) * _mixed(self._plus, set_)
            return scaled + _mixed(self._mean, signs * kept) if self.first else scaled

    def pixels(self, coefficients: Tensor) -> Tensor:
        """Their sum: float32 `(N, 3, 8h, 8w)`, in units of [-1, 1]."""
        with _exactly(coefficients):
            return F.pixel_shuffle(_mixed(self._cells.T / PEAK, coefficients), CELL)

    def _analysed(self, pixels: Tensor) -> Tensor:
        """Coefficients of pixels, `(N, atoms, h, w)`."""
        with _exactly(pixels):
            return _mixed(self._cells * PEAK, F.pixel_unshuffle(pixels.float(), CELL))

    @torch.no_grad()
    def bits_of(self, pixels: Tensor, slope: Tensor | None = None) -> Tensor:
        """The bits of what is to be added to a picture.

        Each pair decides on what those before it of the same atom have left. A token has the exponent of least squared
        error and price of set bits.

        Args:
            pixels: float32 `(N, 3, H, W)`, in units of [-1, 1].
            slope: Lambda of each clip, float32 `(N,)`: the squared error (sum over pixels of 8-bit values, mean over
                colours) that one coded bit must save. Thresholds rise with it; None leaves them at their lowest.

        Returns:
            +1 or -1, float32 `(N, K, H/8, W/8)`.
        """
        left = self._analysed(pixels)
        price = left.new_zeros(len(left)) if slope is None else slope.to(left) * (3 * PRICED_BITS / self.repeats)
        price = price.view(-1, 1, 1)
        head = []
        if self.first:
            for mean in MEANS:
                head.append(torch.where(left[:, 0] > 0, 1.0, -1.0))
                left[:, 0] -= mean * head[-1]
        least, found = None, torch.empty(0)
        for exponent in range(1 << EXPONENT_BITS):
            chosen, cost = self._decided(left, exponent, price)
            if least is None:
                least, found = cost, chosen
                power = torch.zeros_like(cost)
            else:
                better = cost < least
                least, found = torch.where(better, cost, least), torch.where(better.unsqueeze(1), chosen, found)
                power = torch.where(better, float(exponent), power)
        for number in range(EXPONENT_BITS):
            head.append(torch.where((power.long() >> number & 1) > 0, 1.0, -1.0))
        bits = [*head, *found.unbind(dim=1)]
        unset = torch.full_like(power, -1.0)
        return torch.stack([*bits, *[unset] * (self.bits - len(bits))], dim=1)

    def _decided(self, wanted: Tensor, exponent: int, price: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the pairs at an exponent, `(N, 2 * pairs, h, w)`, and what they cost, `(N, h, w)`."""
        left, unit = wanted.clone(), self.unit * 2.0**exponent
        found, count = [], torch.zeros_like(left[:, 0])
        for pair, place in zip(self.pairs, self.at, strict=True):
            size = pair.multiple * unit
            threshold = size * (0.5 + price / (2 * size * size)).clamp(min=THRESHOLD)
            rest = left[:, place]
            above, below = rest > threshold, rest < -threshold
            left[:, place] = rest - size * (above.float() - below.float())
            count += (above | below).float()
            found += [torch.where(above, 1.0, -1.0), torch.where(below, 1.0, -1.0)]
        bits = torch.stack(found, dim=1) if found else left[:, :0]
        return bits, left.square().sum(dim=1) + price * count

    @torch.no_grad()
    def errors(self, signs: Tensor, wanted: Tensor) -> Tensor:
        """How far the sum of the first bits is from what is wanted, for every number of them.

        Args:
            signs: `(N, K, h, w)`.
            wanted: float32 `(N, 3, 8h, 8w)` in units of [-1, 1].

        Returns:
            Squared errors, sums over the cell of 8-bit values, mean over colours: float32 `(K + 1, N, h, w)`.
        """
        coefficients = self._analysed(wanted)
        outside = F.pixel_unshuffle(wanted.float(), CELL).square().sum(dim=1) * PEAK**2
        errors = [outside]
        set_ = 0.5 * (signs.float() + 1)
        scale = self._scale(set_)[:, 0]
        for bit in range(self.bits):
            pair = (bit - HEAD[self.first]) // 2
            if self.first and bit < len(MEANS):
                place, change = 0, MEANS[bit] * signs[:, bit].float()
            elif 0 <= pair < len(self.pairs) and bit >= HEAD[self.first]:
                place = self.at[pair]
                change = self._plus[place, bit] * scale * set_[:, bit]
            else:
                errors.append(errors[-1])
                continue
            rest = coefficients[:, place] - change
            errors.append(errors[-1] + rest.square() - coefficients[:, place].square())
            coefficients[:, place] = rest
        return torch.stack(errors) / 3


def _exactly(values: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast to a lower precision than that of the values; shapes alone (the meta device) have none."""
    return contextlib.nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


def _mixed(weights: Tensor, values: Tensor) -> Tensor:
    """A 1x1 convolution: float32, `(outputs, inputs)` of `(N, inputs, h, w)`."""
    if values.is_cuda:  # where float32 may mean TensorFloat-32, and there is little to compute
        return F.conv2d(values.double(), weights.double()[:, :, None, None]).float()
    return F.conv2d(values, weights[:, :, None, None])
