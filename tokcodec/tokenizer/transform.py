"""Bits as a transform coder would choose them: a cosine basis, coefficients from coarse to fine, most of them zero.

A network alone learns slowly what an old transform does at once: to say how large a coefficient is, and to say nothing
where there is none. So in the variant `transform` (spec 8.4) a bit is at first a coefficient's sign at one amplitude,
and what the bits add to the picture is linear in them. The decoder learns that sum further, and its network adds
everything that is not linear; an encoder's network, where there is one, adds an offset to every decision.
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""Pixels along each side of a token."""
PEAK = 127.5
"""Amplitudes are in 8-bit values, pixels in [-1, 1]."""
THRESHOLD = 0.64
"""Share of an amplitude from which on a coefficient has it, where bits are cheap: 0.5 is the nearest, and cost more
than it gave (four training clips at quality 6)."""
REACH = 2.0
"""Latents stay within it, so that gradients that pass straight through signs vanish where nothing could change."""
PRICED_BITS = 5.0
"""What it costs to set a bit that is seldom set, in bits of information."""
REPEATS = {1: 16.0, 4: 3.0}
"""How often an error of a first step, or a later one, counts, for what follows is made of it."""
FEEDBACK_SCALE = 0.1
"""Unit in which the feedback is stored, so that one learning rate suits all."""


class Atom(NamedTuple):
    """A product of cosines.

    Attributes:
        amplitude: In the orthonormal basis, in 8-bit values.
        frame: Frequency over a step's frames.
        colour: 0 for grey, 1 for red against blue, 2 for green against both.
        row: Frequency down the cell, 0 to 7.
        column: Frequency across the cell, 0 to 7.
    """

    amplitude: int
    frame: int
    colour: int
    row: int
    column: int


_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
_MEAN_COARSE, _MEAN_FINE = (1024, 512, 256, 128), (64, 32)
"""The mean of a first picture's cell is always there: one bit halves what is left, without a zero between."""
_FIRST = (
    *((768, 0, 1, 0, 0), (768, 0, 2, 0, 0), (384, 0, 1, 0, 0), (384, 0, 2, 0, 0), (384, 0, 0, 1, 0), (384, 0, 0, 0, 1)),
    *((192, 0, 1, 0, 0), (192, 0, 0, 1, 0), (192, 0, 0, 2, 0), (192, 0, 0, 0, 1), (192, 0, 0, 0, 2), (192, 0, 0, 1, 1)),
    *((192, 0, 0, 3, 0), (192, 0, 2, 0, 0), (192, 0, 0, 0, 3), (192, 0, 0, 4, 0), (96, 0, 2, 0, 0), (96, 0, 1, 0, 0)),
    *((96, 0, 0, 1, 0), (96, 0, 0, 2, 1), (96, 0, 0, 0, 1), (96, 0, 0, 1, 2), (96, 0, 0, 2, 0), (96, 0, 0, 0, 2)),
    *((96, 0, 0, 1, 1), (96, 0, 0, 2, 2), (96, 0, 0, 3, 1), (96, 0, 0, 0, 4)),
)
_LATER = (
    *((880, 0, 0, 0, 0), (880, 1, 0, 0, 0), (440, 0, 0, 0, 0), (440, 1, 0, 0, 0), (440, 0, 0, 1, 0), (440, 2, 0, 0, 0)),
    *((440, 0, 0, 0, 1), (440, 0, 1, 0, 0), (440, 3, 0, 0, 0), (440, 0, 0, 2, 0), (440, 0, 0, 0, 2), (440, 1, 1, 0, 0)),
    *((220, 0, 0, 0, 0), (220, 1, 0, 0, 0), (220, 1, 0, 1, 0), (220, 0, 0, 1, 0), (220, 1, 0, 0, 1), (220, 0, 0, 0, 1)),
    *((220, 2, 0, 1, 0), (220, 2, 0, 0, 1), (220, 2, 0, 0, 0), (220, 0, 1, 0, 0), (220, 0, 0, 3, 0), (220, 0, 0, 1, 1)),
    *((220, 1, 0, 2, 0), (220, 3, 0, 0, 1), (220, 3, 0, 0, 0), (220, 3, 0, 1, 0), (220, 0, 0, 0, 3), (220, 0, 0, 2, 0)),
    (220, 0, 0, 4, 0),
)
"""Chosen one after the other by error and entropy at the six qualities' lambdas: of first steps on cells of 203 of the
photographs and the first frames of 130 of the clips that the weights were trained on, of later ones on what earlier
weights' forecasts lacked in 26 of those clips. Sorted by amplitude, so that leaving out the last bits is a coarser
quantizer."""


class Bit(NamedTuple):
    """What a bit says at first: `value * atom` where it is set, `unset * atom` where it is not."""

    atom: Atom
    value: float
    unset: float


def _pair(atom: Atom) -> tuple[Bit, Bit]:
    return Bit(atom, atom.amplitude, 0.0), Bit(atom, -atom.amplitude, 0.0)


def _mean(amplitudes: tuple[int, ...]) -> list[Bit]:
    return [Bit(Atom(amplitude, 0, 0, 0, 0), amplitude, -amplitude) for amplitude in amplitudes]


def _first_bits() -> list[Bit]:
    atoms = [Atom(*values) for values in _FIRST]
    coarse = [bit for atom in atoms if atom.amplitude > 96 for bit in _pair(atom)]
    fine = [bit for atom in atoms if atom.amplitude <= 96 for bit in _pair(atom)]
    return _mean(_MEAN_COARSE) + coarse + _mean(_MEAN_FINE) + fine


def _later_bits() -> list[Bit]:
    return [bit for values in _LATER for bit in _pair(Atom(*values))]


MAX_BITS = min(len(_first_bits()), len(_later_bits()))
"""Bits of a token that have an atom."""


def start_bits(count: int, *, frames: int) -> list[Bit]:
    """What the bits of a token say before anything is learned: of a first step (`frames` 1) or a later one (4)."""
    return (_first_bits() if frames == 1 else _later_bits())[:count]


def _cosines(size: int) -> Tensor:
    """Orthonormal DCT-II, `(frequency, place)`."""
    place = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (place + 0.5) * place.view(-1, 1)) * math.sqrt(2 / size)
    basis[0] *= math.sqrt(0.5)
    return basis


def _patterns(bits: list[Bit], frames: int) -> Tensor:
    """Orthonormal patterns of the bits' atoms: float64 `(len(bits), frames * 3 * 64)`."""
    time, space = _cosines(frames), _cosines(CELL)
    colours = torch.tensor(_COLOURS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    rows = [
        torch.einsum("f,c,i,j->fcij", time[a.frame], colours[a.colour], space[a.row], space[a.column]).flatten()
        for a, _, _ in bits
    ]
    return torch.stack(rows)


def _exactly(values: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast to a lower precision than that of the values; shapes alone (the meta device) have none."""
    return contextlib.nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


class Analysis(nn.Module):
    """What is to be shown, to latents: each bit decides on what the bits before it have left.

    z = offset + weight * cells - bias - feedback * signs, where feedback is strictly lower triangular: a latent knows
    the signs before its own.

    Args:
        bits_per_token: K.
        frames: Of a step, 1 or 4.
    """

    _below: Tensor
    _amplitudes: Tensor

    def __init__(self, bits_per_token: int, *, frames: int) -> None:
        super().__init__()
        bits = start_bits(bits_per_token, frames=frames)
        patterns = _patterns(bits, frames)
        size = patterns.shape[1]
        self.register_buffer("_below", torch.ones(len(bits), len(bits)).tril(-1), persistent=False)
        # A coefficient r is worth an amplitude a where (r^2 - (r - a)^2) / 3 colours, each time it counts, pays for it.
        pairs = torch.tensor([atom.amplitude if unset == 0 else torch.inf for atom, _, unset in bits])
        self.register_buffer("_amplitudes", pairs, persistent=False)
        self._cost = PRICED_BITS * 3 / REPEATS[frames]
        weight, bias, feedback = torch.zeros_like(patterns), torch.zeros(len(bits)), torch.zeros(len(bits), len(bits))
        for i, (atom, value, unset) in enumerate(bits):
            unit = 0.5 * (value - unset)  # a latent of one is what the sign changes, so that gradients fit
            middle = 0.5 * (value + unset)
            weight[i] = patterns[i] * (PEAK / unit)
            bias[i] = (2 * THRESHOLD - 1) + middle / unit if unset == 0 else 0.0
            for j, (other, value_j, unset_j) in enumerate(bits[:i]):
                if other[1:] == atom[1:]:
                    feedback[i, j] = 0.5 * (value_j - unset_j) / unit
                    bias[i] += 0.5 * (value_j + unset_j) / unit
        self.weight = nn.Parameter((weight * math.sqrt(size)).float())
        self.bias = nn.Parameter(bias)
        self.feedback = nn.Parameter(feedback / FEEDBACK_SCALE)

    @property
    def multiply_adds_per_place(self) -> int:
        """For each token."""
        return self.weight.numel() + self.feedback.numel() // 2

    def price(self, slope: float) -> Tensor:
        """What setting each bit costs at a lambda, as squared error of pixels in [-1, 1], summed: float32 `(K,)`."""
        return torch.where(self._amplitudes.isfinite(), slope * self._cost / PEAK**2, 0.0).float()

    def forward(self, frames: Tensor, offset: Tensor | None = None, *, slope: Tensor | None = None) -> Tensor:
        """Latents before the sign.

        Args:
            frames: What the bits are to say: float32 `(N, F, 3, H, W)`.
            offset: By the network, where there is one, `(N, K, H/8, W/8)`.
            slope: Lambda of each clip, float32 `(N,)`: the squared error (sum over pixels of 8-bit values, mean over
                colours) that one coded bit must save. Thresholds rise with it; None leaves them at their lowest.

        Returns:
            float32 `(N, K, H/8, W/8)`, within -`REACH` and `REACH`.
        """
        with _exactly(frames):
            cells = F.pixel_unshuffle(frames.flatten(1, 2), CELL)
            weight = self.weight.float() / math.sqrt(self.weight.shape[1])
            open_loop = F.conv2d(cells, weight[:, :, None, None]) - self.bias.float().view(1, -1, 1, 1)
            if offset is not None:
                open_loop = open_loop + offset.float()
            if slope is not None:
                saved = self._cost / (2 * self._amplitudes.float().square())
                threshold = 0.5 + slope.float().view(-1, 1, 1, 1) * saved.view(1, -1, 1, 1)
                open_loop = open_loop - 2 * (threshold - THRESHOLD).clamp(min=0.0)
            feedback = self.feedback.float() * (FEEDBACK_SCALE * self._below.float())
            with torch.no_grad():
                z, signs = open_loop.detach().clone(), torch.empty_like(open_loop)
                for i in range(z.shape[1]):
                    signs[:, i] = torch.where(z[:, i] > 0, 1.0, -1.0)
                    if i + 1 < z.shape[1]:
                        z[:, i + 1 :] -= feedback[i + 1 :, i].view(1, -1, 1, 1) * signs[:, i : i + 1]
            closed = open_loop - F.conv2d(signs, feedback[:, :, None, None])
            # The sums of the loop are those that signs follow from; the convolution may round another way.
            closed = closed + (z - closed).detach()
            limited: Tensor = REACH * torch.tanh(closed / REACH)
            return limited


class Synthesis(nn.Module):
    """What bits add to the picture, linear in them.

    Args:
        bits_per_token: K.
        frames: Of a step, 1 or 4.
    """

    def __init__(self, bits_per_token: int, *, frames: int) -> None:
        super().__init__()
        bits = start_bits(bits_per_token, frames=frames)
        patterns = _patterns(bits, frames)
        half = torch.tensor([0.5 * (bit.value - bit.unset) for bit in bits], dtype=torch.float64)
        middle = torch.tensor([0.5 * (bit.value + bit.unset) for bit in bits], dtype=torch.float64)
        columns = torch.cat([patterns * half.view(-1, 1), patterns * middle.view(-1, 1)]) / PEAK
        self.weight = nn.Parameter((columns.T * math.sqrt(patterns.shape[1])).float().contiguous())

    @property
    def multiply_adds_per_place(self) -> int:
        """For each token."""
        return self.weight.numel()

    def forward(self, tokens: Tensor) -> Tensor:
        """Pixels of a step: `(N, 2K, h, w)` signs where kept, then kept -> `(N, F, 3, 8h, 8w)` in the same dtype."""
        weight = (self.weight.float() / math.sqrt(self.weight.shape[0])).to(tokens.dtype)
        with _exactly(tokens):
            cells = F.conv2d(tokens, weight[:, :, None, None])
        pixels: Tensor = F.pixel_shuffle(cells, CELL).unflatten(1, (-1, 3))
        return pixels

    @torch.no_grad()
    def errors(self, signs: Tensor, wanted: Tensor) -> Tensor:
        """How far the sum of the first bits is from what is wanted, for every number of them.

        Args:
            signs: `(1, K, h, w)`.
            wanted: float32 `(1, F, 3, 8h, 8w)` in [-1, 1].

        Returns:
            Squared errors, sums over the cell of 8-bit values, mean over colours: float32 `(K + 1, h, w)`.
        """
        count = signs.shape[1]
        weight = self.weight.float() / math.sqrt(self.weight.shape[0])
        cells = F.pixel_unshuffle(wanted.flatten(1, 2), CELL)[0].flatten(1)
        left, products = weight.T @ cells, weight.T @ weight
        sign = signs[0].float().flatten(1)
        of_signs, of_kept = products[:count], products[count:]
        before = [part.tril(-1) for part in (*of_signs.split(count, dim=1), *of_kept.split(count, dim=1))]
        # What a bit adds, times what the bits before it have added, itself, and what was wanted.
        crossed = sign * (before[0] @ sign + before[1].sum(dim=1, keepdim=True))
        crossed += before[2] @ sign + before[3].sum(dim=1, keepdim=True)
        own, mixed = products.diagonal().view(2, count, 1).sum(dim=0), of_signs.diagonal(count).view(-1, 1)
        change = own + 2 * (sign * mixed + crossed - sign * left[:count] - left[count:])
        first = cells.square().sum(dim=0, keepdim=True)
        errors: Tensor = torch.cat([first, first + change.cumsum(dim=0)]).unflatten(1, signs.shape[2:])
        return errors.mul_(PEAK**2 / 3)
