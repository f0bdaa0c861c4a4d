"""Trains the network of spec section 7.11, which says how likely coefficients of first pictures are.

It is a part of the format and not of a tokenizer, so there is one for all. This is how it was made, but for what
chance drew:

    python -m tokcodec.training.picture_coding --data DIR --out FOLDER --exclude PATTERN

`DIR` has photographs and videos, of which the first frame is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokcodec.bands import BANDS, PHASES, Band
from tokcodec.errors import UsageError
from tokcodec.picture_context import PictureContext
from tokcodec.probability import picture_network as network
from tokcodec.tokenizer.pixels import pad_frame
from tokcodec.tokenizer.wavelet import quantized

UNIT = 32.0
"""An activation of this stands for 1.0."""
SCALES = (14.0, 31.0)
"""Of quantizers that are drawn: steps from 11 to 215."""
SIDES = (272, 400)
"""Rows and columns of what is cut out of a picture, at most."""


def observations(
    coefficients: NDArray[np.int16], scale: int, bands: Sequence[Band] = BANDS
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """What a coder sees before each coefficient of some bands, and the coefficient's magnitude.

    Yields:
        uint8 `(n, INPUTS + 2)`, the inputs, the place of the bias of band and colour, and the phase; int32 `(n, 2)`,
        the magnitude and for how many rows this one stands (zeros around which there is nothing are one row).
    """
    known: list[NDArray[np.uint8]] = []
    for band in bands:
        values = np.abs(coefficients[:, band.rows, band.columns].astype(np.int32))
        known.append(np.zeros(values.shape, np.uint8))
        for colour in range(network.COLOURS):
            if not values[colour].any():
                continue
            context = PictureContext(known, band, colour, scale)
            for phase, (down, right) in enumerate(PHASES):
                wanted = values[colour, down::2, right::2]
                if not wanted.size:
                    continue
                seen = context.inputs(phase)
                size = wanted.reshape(-1)
                idle = ~seen[:, :-1].any(axis=1) & (size == 0)
                many = np.ones(size.size, np.int32)
                rows = np.flatnonzero(~idle)
                if idle.any():
                    first = int(np.argmax(idle))
                    many[first] = idle.sum()
                    rows = np.append(rows, first)
                place = np.full((rows.size, 2), (network.COLOURS * band.number + colour, phase), np.uint8)
                yield np.concatenate([seen[rows], place], axis=1), np.stack([size[rows], many[rows]], axis=1)
                known[-1][colour, down::2, right::2] = np.minimum(wanted, 255)


class FloatNetwork(nn.Module):
    """The network before it is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(network.INPUTS, network.HIDDEN, bias=False)
        self.band = nn.Embedding(network.BANDS * network.COLOURS, network.HIDDEN)
        self.phase = nn.Embedding(network.PHASES, network.HIDDEN)
        self.hidden = nn.Linear(network.HIDDEN, network.HIDDEN)
        self.out = nn.Linear(network.HIDDEN, network.OUTPUTS)
        for table in (self.band, self.phase):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, rows: Tensor) -> Tensor:
        """Log-odds, `(n, OUTPUTS)`, of rows as `observations` gives them."""
        x = self.inputs(rows[:, : network.INPUTS].float() / UNIT)
        x = x + self.band(rows[:, -2].long()) + self.phase(rows[:, -1].long())
        limit = network.ACTIVATION_MAX / UNIT
        found: Tensor = self.out(self.hidden(x.clamp(0, limit)).clamp(0, limit))
        return found

    def rounded(self) -> dict[str, NDArray[np.int64]]:
        """The tensors of a weights file."""
        first, second, last = (2.0**shift for shift in network.SHIFTS)
        last *= 256 / UNIT

        def whole(tensor: Tensor, unit: float) -> NDArray[np.int64]:
            found: NDArray[np.int64] = (tensor.detach().double() * unit).round().long().numpy()
            return found

        return {
            "inputs.weight": whole(self.inputs.weight.T, first),
            "band.bias": whole(self.band.weight, first * UNIT),
            "phase.bias": whole(self.phase.weight, first * UNIT),
            "hidden.weight": whole(self.hidden.weight.T, second),
            "hidden.bias": whole(self.hidden.bias, second * UNIT),
            "out.weight": whole(self.out.weight.T, last),
            "out.bias": whole(self.out.bias, last * UNIT),
        }


def bits_of(odds: Tensor, size: Tensor) -> Tensor:
    """What coefficients cost, in bits, signs left out: `(n,)` of log-odds `(n, OUTPUTS)` and magnitudes `(n,)`."""

    def cost(column: int, happens: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(odds[:, column], happens.float(), reduction="none")

    none = torch.zeros_like(odds[:, 0])
    total = cost(0, size > 0)
    for number in (1, 2):
        total = total + torch.where(size >= number, cost(number, size > number), none)
    length = torch.log2((size - 2).clamp(min=1).float() + 0.5).floor()
    longer = F.softplus(-odds[:, 3]) * length + F.softplus(odds[:, 3])
    total = total + torch.where(size > 2, longer + length * math.log(2), none)
    return total / math.log(2)


def pictures(folder: Path, *, exclude: Sequence[str], seed: int) -> Iterator[NDArray[Any]]:
    """Pictures of a folder, in random order, over and over: uint8 `(H, W, 3)`."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not any(map(path.match, exclude))]
    draw = random.Random(seed)
    while files:
        draw.shuffle(files)
        for path in list(files):
            try:
                with av.open(str(path)) as opened:
                    yield next(opened.decode(video=0)).to_ndarray(format="rgb24")
            except (av.FFmpegError, StopIteration, IndexError):
                files.remove(path)


def cuts(folder: Path, *, count: int, exclude: Sequence[str], seed: int, sides: tuple[int, int]) -> Iterator[Tensor]:
    """Cuts of pictures, made smaller by chance: float32 `(3, H, W)` in units of [-1, 1], H and W multiples of 8.

    Args:
        folder: As for :func:`pictures`.
        count: How many.
        exclude: Patterns of names that are left out.
        seed: Of all that is drawn.
        sides: Rows and columns, at most.
    """
    draw = random.Random(seed)
    for picture, _ in zip(pictures(folder, exclude=exclude, seed=seed), range(count), strict=False):
        cut = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float().div(127.5).sub(1)
        height, width = cut.shape[1:]
        smaller = draw.uniform(0.6, 1.0) if min(height, width) > 400 else 1.0
        if smaller < 1:
            cut = F.interpolate(cut[None], scale_factor=smaller, mode="area")[0]
            height, width = cut.shape[1:]
        spare = (max(0, whole - side) for whole, side in zip((height, width), sides, strict=True))
        top, left = (draw.randrange(each + 1) for each in spare)
        yield pad_frame(cut[:, top : top + sides[0], left : left + sides[1]], 8)


def gather(folder: Path, *, count: int, exclude: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
    """Observations of `count` cuts of pictures, each at a quantizer of its own."""
    draw, rows, sizes = random.Random(seed + 1), [], []
    for cut in cuts(folder, count=count, exclude=exclude, seed=seed, sides=SIDES):
        scale = round(draw.uniform(*SCALES))
        for row, size in observations(quantized(cut, scale), scale):
            rows.append(row)
            sizes.append(size)
    if not rows:
        raise UsageError("holds no pictures that can be read", where=str(folder))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(sizes))


def train(rows: Tensor, sizes: Tensor, *, steps: int, batch: int = 16384, learning_rate: float = 4e-3) -> FloatNetwork:
    """Fit a network to observations."""
    model = FloatNetwork()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    started, total = time.monotonic(), 0.0
    for step in range(steps):
        drawn = torch.randint(len(rows), (batch,))
        size, many = sizes[drawn].unbind(dim=1)
        loss = (bits_of(model(rows[drawn]), size) * many).sum() / many.sum()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if step % 500 == 499:
            seconds = time.monotonic() - started
            print(f"step {step + 1}: {total / 500:.5f} bits a coefficient, {seconds:.0f} s", flush=True)
            total = 0.0
    return model


def save(model: FloatNetwork, folder: Path, *, name: str) -> str:
    """Write the rounded network as `NAME-DIGEST.safetensors`; its SHA-256."""
    data = network.pack(model.rounded())
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"{name}-{digest[:12]}.safetensors").write_bytes(data)
    return digest


class Gather(Protocol):
    """Observations of `count` pictures or videos of a folder."""

    def __call__(self, folder: Path, *, count: int, exclude: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """As :func:`gather`."""
        ...


def train_by_arguments(gather: Gather, *, name: str, section: str, of: str, count: int) -> None:
    """Gather, train and save as the command line says.

    Args:
        gather: Of what is learned from.
        name: Of the network's file.
        section: Of the specification, that has the network.
        of: What is counted; the name of the option.
        count: How many by default.
    """
    parser = argparse.ArgumentParser(description=f"Train the network of spec section {section}.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--exclude", action="append", default=[], help="a pattern of names that are left out")
    parser.add_argument(f"--{of}", dest="count", type=int, default=count)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    rows, sizes = gather(given.data, count=given.count, exclude=given.exclude, seed=given.seed)
    print(f"{len(rows)} rows", flush=True)
    print(save(train(rows, sizes, steps=given.steps), given.out, name=name))


def main() -> None:
    """See the module."""
    train_by_arguments(gather, name="picture", section="7.11", of="pictures", count=400)


if __name__ == "__main__":
    main()
