"""Bits as a transform coder would choose them: cosines of a cell at amplitudes that a token scales as a whole.

A network learns slowly what an old transform does at once: to say how large a coefficient is, and to say nothing where
there is none. So in the variant `hybrid` (spec 8.5) two bits of a token are an exponent and the others are pairs,
"this cosine is there" and "its negative is". In a chunk's first step the lowest cosines, the means of a cell, are said
by what they differ by from those around it (:mod:`tokcodec.tokenizer.cell_means`), at amplitudes that are not scaled.
Nothing here is learned; the decoder's network does the rest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.tokenizer.cell_means import means_of, residues_of, transitions

CELL = 8
"""Pixels along each side of a token."""
PEAK = 127.5
"""Amplitudes are in 8-bit values, pixels in [-1, 1]."""
EXPONENT_BITS = 2
"""Each token doubles its amplitudes as often as these bits say."""
EXPONENT_AT = {True: 24, False: 0}
"""The first of them, in a chunk's first step and in later ones."""
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
    *((81, 0, 0, 0), (27, 0, 0, 0), (9, 0, 0, 0), (3, 0, 0, 0), (81, 1, 0, 0), (27, 1, 0, 0), (9, 1, 0, 0)),
    *((3, 1, 0, 0), (81, 2, 0, 0), (27, 2, 0, 0), (9, 2, 0, 0), (3, 2, 0, 0), (4, 0, 1, 0), (4, 0, 0, 1)),
    *((2, 0, 1, 0), (2, 0, 0, 1), (1, 1, 0, 0), (1, 2, 0, 0), (1, 0, 0, 0), (2, 0, 2, 0), (2, 0, 0, 2), (2, 0, 1, 1)),
    *((1, 0, 1, 0), (1, 0, 0, 1), (1, 0, 1, 1), (1, 0, 2, 0), (1, 0, 0, 2), (1, 0, 3, 0), (1, 0, 0, 3), (1, 0, 2, 1)),
)
_LATER = (
    *((4, 0, 0, 0), (2, 0, 0, 0), (2, 0, 1, 0), (2, 0, 0, 1), (2, 1, 0, 0), (2, 0, 2, 0), (2, 0, 0, 2), (1, 0, 0, 0)),
    *((1, 0, 1, 0), (1, 0, 0, 1), (1, 1, 0, 0), (1, 2, 0, 0), (1, 0, 1, 1), (1, 0, 2, 0), (1, 0, 0, 2), (1, 0, 3, 0)),
    *((1, 0, 0, 3), (1, 0, 2, 1), (1, 0, 1, 2), (1, 0, 4, 0), (1, 0, 0, 4), (1, 0, 2, 2), (1, 0, 1, 3), (1, 0, 3, 1)),
    *((1, 0, 5, 0), (1, 0, 0, 5), (1, 0, 2, 3), (1, 0, 3, 2), (1, 0, 1, 4), (1, 0, 4, 1)),
)
"""Multiples of the unit and atoms, by what they saved in training clips; coarse before fine, so that leaving out the
last bits is a coarser quantizer. Means of first steps reach anything by their powers of three."""


class Pair(NamedTuple):
    """Two bits: the first adds `multiple` units of the atom, the second takes them away.

    Attributes:
        multiple: Units, of which the exponent makes more where `scaled`.
        atom: Which.
        bit: The first of the two.
        scaled: Whether the exponent counts: not for the means of first steps.
    """

    multiple: int
    atom: Atom
    bit: int
    scaled: bool


def pairs(*, first: bool) -> tuple[Pair, ...]:
    """All pairs of a chunk's first step or of later ones, in order."""
    found = []
    for number, (multiple, *atom) in enumerate(_FIRST if first else _LATER):
        bit = 2 * number + (EXPONENT_BITS if 2 * number >= EXPONENT_AT[first] else 0)
        found.append(Pair(multiple, Atom(*atom), bit, scaled=not first or atom[1:] != [0, 0]))
    return tuple(found)


MAX_BITS = min(EXPONENT_BITS + 2 * len(pairs(first=first)) for first in (True, False))
"""Bits of a token that say something."""
MIN_BITS = 8
"""Fewer could not say a mean."""


def _cosines() -> Tensor:
    """Orthonormal DCT-II, float64 `(frequency, place)`."""
    place = torch.arange(CELL, dtype=torch.float64)
    basis = torch.cos(math.pi / CELL * (place + 0.5) * place.view(-1, 1)) * math.sqrt(2 / CELL)
    basis[0] *= math.sqrt(0.5)
    return basis


def colour_matrix(like: Tensor) -> Tensor:
    """Grey, red against blue, and green against both, of red, green and blue: orthonormal, `(3, 3)`."""
    colours = torch.tensor(_COLOURS, dtype=like.dtype, device=like.device)
    found: Tensor = colours / colours.norm(dim=1, keepdim=True)
    return found


def _patterns(atoms: list[Atom]) -> Tensor:
    """Orthonormal patterns: float64 `(atoms, 3 * 64)`, in the order of `pixel_unshuffle`."""
    space, colours = _cosines(), torch.tensor(_COLOURS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    rows = [torch.einsum("c,i,j->cij", colours[a.colour], space[a.row], space[a.column]).flatten() for a in atoms]
    return torch.stack(rows)


class CellTransform(nn.Module):
    """Bits of tokens to coefficients and pixels, and back. It has no parameters.

    Args:
        bits_per_token: K, from `MIN_BITS` to `MAX_BITS`.
        first: Whether of a chunk's first step.
    """

    def __init__(self, bits_per_token: int, *, first: bool) -> None:
        super().__init__()
        self.first, self.bits = first, bits_per_token
        self.unit, self.repeats = UNITS[first], REPEATS[first]
        self.pairs = tuple(pair for pair in pairs(first=first) if pair.bit + 2 <= bits_per_token)
        self.atoms = sorted({_GREY, *(pair.atom for pair in self.pairs)})
        self.at = [self.atoms.index(pair.atom) for pair in self.pairs]
        # Atoms that say what differs from the cells around, in their order.
        self.predicted = sorted({place for pair, place in zip(self.pairs, self.at, strict=True) if not pair.scaled})
        scaled, plain = torch.zeros(2, len(self.atoms), bits_per_token)
        for pair, place in zip(self.pairs, self.at, strict=True):
            part = scaled if pair.scaled else plain
            part[place, pair.bit], part[place, pair.bit + 1] = pair.multiple * self.unit, -pair.multiple * self.unit
        colours = torch.tensor(_COLOURS)[[self.atoms[place].colour for place in self.predicted]]
        colours = colours / colours.norm(dim=1, keepdim=True) / (CELL * PEAK)
        # No buffers: they would take on the type of the network.
        self._cells, self._scaled, self._plain, self._colours = _patterns(self.atoms).float(), scaled, plain, colours

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to a device, not to a type."""
        device = fn(torch.empty(0, device=self._cells.device)).device
        parts = (self._cells, self._scaled, self._plain, self._colours)
        self._cells, self._scaled, self._plain, self._colours = (part.to(device) for part in parts)
        applied: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return applied

    def _scale(self, set_: Tensor) -> Tensor:
        """Powers of two, `(N, 1, h, w)`."""
        scale = torch.ones_like(set_[:, :1])
        for number, bit in enumerate(self._exponent):
            scale = scale * (1 + set_[:, bit : bit + 1] * (2.0 ** (1 << number) - 1))
        return scale

    @property
    def _exponent(self) -> range:
        """The bits of the exponent, as many as there are."""
        start = EXPONENT_AT[self.first]
        return range(min(start, self.bits), min(start + EXPONENT_BITS, self.bits))

    def coefficients(self, signs: Tensor, kept: Tensor) -> Tensor:
        """What kept bits say: `(N, K, h, w)` signs and 0 or 1 -> float32 `(N, atoms, h, w)`, in 8-bit values."""
        with exactly(signs):
            signs, kept = signs.float(), kept.float()
            set_ = 0.5 * (signs + 1) * kept
            found = self._scale(set_) * mixed(self._scaled, set_)
            if self.predicted:
                found[:, self.predicted] = means_of(self._residues(set_))
            return found

    def _residues(self, set_: Tensor) -> Tensor:
        """What is said of means, `(N, predicted, h, w)`."""
        return mixed(self._plain[self.predicted], set_)

    def pixels(self, coefficients: Tensor) -> Tensor:
        """Their sum: float32 `(N, 3, 8h, 8w)`, in units of [-1, 1]."""
        with exactly(coefficients):
            picture = F.pixel_shuffle(mixed(self._cells.T / PEAK, coefficients), CELL)
            return picture + self._transitions(coefficients[:, self.predicted]) if self.predicted else picture

    def _transitions(self, means: Tensor) -> Tensor:
        """What makes even cells smooth: `(N, predicted, h, w)` -> `(N, 3, 8h, 8w)`, in units of [-1, 1]."""
        return transitions(mixed(self._colours.T, means), CELL)

    def _analysed(self, pixels: Tensor) -> Tensor:
        """Coefficients of pixels, `(N, atoms, h, w)`."""
        with exactly(pixels):
            return mixed(self._cells * PEAK, F.pixel_unshuffle(pixels.float(), CELL))

    @torch.no_grad()
    def bits_of(self, pixels: Tensor, slope: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """The bits of what is to be added to a picture.

        Each pair decides on what those before it of the same atom have left, and those of a first step's means on what
        known cells around leave. A token has the exponent of least squared error and price of set bits.

        Args:
            pixels: float32 `(N, 3, H, W)`, in units of [-1, 1].
            slope: Lambda of each clip, float32 `(N,)`: the squared error (sum over pixels of 8-bit values, mean over
                colours) that one coded bit must save. Thresholds rise with it; None leaves them at their lowest.
            kept: Which bits of means the decoder will know, `(N, K, H/8, W/8)`, 0 or 1, for one mean is predicted by
                others; None is all.

        Returns:
            +1 or -1, float32 `(N, K, H/8, W/8)`.
        """
        wanted = self._analysed(pixels)
        price = wanted.new_zeros(len(wanted)) if slope is None else slope.to(wanted) * (3 * PRICED_BITS / self.repeats)
        found = wanted.new_full((len(wanted), self.bits, *wanted.shape[-2:]), -1.0)
        if self.predicted:
            means = self._mean_bits(wanted[:, self.predicted], price.view(-1, 1), kept, found)
            wanted = self._analysed(pixels - self._transitions(means))
        places = [place for pair, place in zip(self.pairs, self.at, strict=True) if pair.scaled]
        if not places:
            return found
        price = price.view(-1, 1, 1)
        least, chosen = None, torch.empty(0)
        for exponent in range(1 << len(self._exponent)):
            bits, cost = self._decided(wanted, exponent, price)
            if least is None:
                least, chosen = cost, bits
                power = torch.zeros_like(cost)
            else:
                better = cost < least
                least, chosen = torch.where(better, cost, least), torch.where(better.unsqueeze(1), bits, chosen)
                power = torch.where(better, float(exponent), power)
        for number, bit in enumerate(self._exponent):
            found[:, bit] = torch.where((power.long() >> number & 1) > 0, 1.0, -1.0)
        found[:, [pair.bit + second for pair in self.pairs if pair.scaled for second in (0, 1)]] = chosen
        return found

    @staticmethod
    def _threshold(size: float, price: Tensor, least: float = THRESHOLD) -> Tensor:
        """From where on an amplitude is taken."""
        return size * (0.5 + price / (2 * size * size)).clamp(min=least)

    def _mean_bits(self, wanted: Tensor, price: Tensor, kept: Tensor | None, found: Tensor) -> Tensor:
        """Sets the bits of means in `found`, `(N, K, h, w)`; gives the means, `(N, predicted, h, w)`."""
        flat, known = found.flatten(2), None if kept is None else kept.flatten(2) > 0

        def decide(rest: Tensor, cells: Tensor) -> Tensor:
            left = rest.clone()
            for pair, place in zip(self.pairs, self.at, strict=True):
                if pair.scaled:
                    continue
                colour, size = self.predicted.index(place), pair.multiple * self.unit
                # Finer ones reach half of a power of three, and no farther.
                threshold = self._threshold(size, price, THRESHOLD if pair.multiple == 1 else 0.5)
                for sign in (1, -1):
                    bit = pair.bit + (sign < 0)
                    there = sign * left[:, colour] > threshold
                    if known is not None:
                        there &= known[:, bit, cells]
                    flat[:, bit, cells] = 2.0 * there.float() - 1.0
                    left[:, colour] -= sign * size * there.float()
            return rest - left

        return residues_of(wanted, decide)

    def _decided(self, wanted: Tensor, exponent: int, price: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the scaled pairs at an exponent, `(N, 2 * pairs, h, w)`, and what they cost, `(N, h, w)`."""
        left, unit = wanted.clone(), self.unit * 2.0**exponent
        found, count = [], torch.zeros_like(left[:, 0])
        for pair, place in zip(self.pairs, self.at, strict=True):
            if not pair.scaled:
                continue
            size = pair.multiple * unit
            threshold = self._threshold(size, price)
            rest = left[:, place]
            above, below = rest > threshold, rest < -threshold
            left[:, place] = rest - size * (above.float() - below.float())
            count += (above | below).float()
            found += [torch.where(above, 1.0, -1.0), torch.where(below, 1.0, -1.0)]
        return torch.stack(found, dim=1), left.square().sum(dim=1) + price * count

    @torch.no_grad()
    def errors(self, signs: Tensor, wanted: Tensor) -> Tensor:
        """How far the sum of the first bits is from what is wanted, for every number of them.

        Of a first step, cells around are taken to be as with all bits.

        Args:
            signs: `(N, K, h, w)`.
            wanted: float32 `(N, 3, 8h, 8w)` in units of [-1, 1].

        Returns:
            Squared errors, sums over the cell of 8-bit values, mean over colours: float32 `(K + 1, N, h, w)`.
        """
        set_ = 0.5 * (signs.float() + 1)
        around = None
        if self.predicted:
            residues = self._residues(set_)
            means = means_of(residues)
            wanted, around = wanted - self._transitions(means), means - residues
        left = self._analysed(wanted)
        error = F.pixel_unshuffle(wanted.float(), CELL).square().sum(dim=1) * PEAK**2
        if around is not None:
            rest = left[:, self.predicted] - around
            error = error + (rest.square() - left[:, self.predicted].square()).sum(dim=1)
            left[:, self.predicted] = rest
        errors, scale = [error], self._scale(set_)[:, 0]
        changes = {
            pair.bit + second: (place, (-1) ** second * pair.multiple * self.unit * (scale if pair.scaled else 1.0))
            for pair, place in zip(self.pairs, self.at, strict=True)
            for second in (0, 1)
        }
        for bit in range(self.bits):
            if bit in changes:
                place, change = changes[bit]
                rest = left[:, place] - change * set_[:, bit]
                error = error + rest.square() - left[:, place].square()
                left[:, place] = rest
            errors.append(error)
        return torch.stack(errors) / 3


def exactly(values: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast to a lower precision than that of the values; shapes alone (the meta device) have none."""
    return contextlib.nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


def mixed(weights: Tensor, values: Tensor) -> Tensor:
    """A 1x1 convolution in float32, whatever autocast says: `(outputs, inputs)` of `(N, inputs, h, w)`."""
    with exactly(values):
        if values.is_cuda:  # where float32 may mean TensorFloat-32, and there is little to compute
            return F.conv2d(values.double(), weights.double()[:, :, None, None]).float()
        return F.conv2d(values, weights[:, :, None, None])
