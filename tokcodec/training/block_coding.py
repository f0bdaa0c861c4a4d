"""Trains the networks of spec section 7.13, which say how likely the decisions are that make pictures by blocks.

They are a part of the format and not of a tokenizer, so there is one file for all. This is how it was made, but
for what chance drew:

    python -m tokcodec.training.block_coding --data DIR --out FOLDER --exclude PATTERN

`DIR` has photographs and videos, of which the first frame is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tokcodec.block_bits import BlockTraversal
from tokcodec.errors import UsageError
from tokcodec.probability import block_network as network
from tokcodec.tokenizer.block_choice import PRICE, blocks_of_planes, planes_of
from tokcodec.tokens import Picture
from tokcodec.training.decision_training import FloatNetwork, fit
from tokcodec.training.picture_coding import SIDES, cuts

SCALES = (15.0, 31.0)
"""Of quantizers that are drawn: steps from 13 to 215."""
PRICES = (0.8, 1.25)
"""Of bits that are drawn, of the usual one."""
_FIRST = 1 << 17
"""Numbers from here on stand for decisions, in the place of probabilities."""


class Observed:
    """A coder and networks that remember decisions, and what the networks would have seen."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in network.OUTPUTS}
        self.places: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in network.OUTPUTS}
        self._decisions: list[NDArray[np.int64]] = []
        self._rows = dict.fromkeys(network.OUTPUTS, 0)

    def probabilities(
        self, name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
    ) -> NDArray[np.int32]:
        """Numbers that `code` knows again, in the place of probabilities."""
        first, outputs = self._rows[name], network.OUTPUTS[name]
        self.inputs[name].append(inputs.copy())
        self.places[name].append(np.broadcast_to(np.asarray(place, np.uint8), (len(inputs),)).copy())
        self._rows[name] += len(inputs)
        rows = np.arange(first, first + len(inputs))[:, None]
        number = (rows * 4 + np.arange(outputs)) * 4 + list(network.OUTPUTS).index(name)
        if self._rows[name] * 16 >= np.iinfo(np.int32).max - _FIRST:
            raise UsageError("more decisions than can be told apart", hint="--pictures with fewer")
        return (_FIRST + number).astype(np.int32)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Remember decisions."""
        known = probabilities >= _FIRST
        number = probabilities[known].astype(np.int64) - _FIRST
        self._decisions.append(np.stack([number % 4, number // 16, number // 4 % 4, bits[known]]))
        return bits

    def decisions(self, name: str) -> NDArray[np.int64]:
        """Of a network: row, output and what was decided, `(n, 3)`."""
        every = np.concatenate(self._decisions, axis=1)
        return every[1:, every[0] == list(network.OUTPUTS).index(name)].T


def gather(folder: Path, *, count: int, exclude: Sequence[str], seed: int) -> Observed:
    """Observations of `count` cuts of pictures, each at a quantizer of its own."""
    draw, found, any_ = random.Random(seed + 1), Observed(), False
    for cut in cuts(folder, count=count, exclude=exclude, seed=seed, sides=SIDES):
        scale, price = round(draw.uniform(*SCALES)), PRICE * draw.uniform(*PRICES)
        picture = blocks_of_planes(planes_of(cut), scale, price=price)
        observe(picture, found)
        any_ = True
    if not any_:
        raise UsageError("holds no pictures that can be read", where=str(folder))
    return found


def observe(picture: Picture, found: Observed) -> None:
    """Add the decisions of a picture."""
    BlockTraversal(found).code(found, picture)


def train(found: Observed, name: str, *, steps: int, batch: int = 8192, learning_rate: float = 4e-3) -> FloatNetwork:
    """Fit one of the networks to observations."""
    inputs, places = (np.concatenate(parts[name]) for parts in (found.inputs, found.places))
    return fit(
        network.SIZES[name],
        inputs,
        places,
        found.decisions(name),
        name=name,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Train the networks of spec section 7.13.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--exclude", action="append", default=[], help="a pattern of names that are left out")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)  # before the work, not after
    torch.manual_seed(given.seed)
    found = gather(given.data, count=given.pictures, exclude=given.exclude, seed=given.seed)
    tensors: dict[str, NDArray[np.int64]] = {}
    for name in network.OUTPUTS:
        tensors |= train(found, name, steps=given.steps).rounded(name)
    data = network.pack(tensors)
    digest = hashlib.sha256(data).hexdigest()
    (given.out / f"blocks-{digest[:12]}.safetensors").write_bytes(data)
    print(digest)


if __name__ == "__main__":
    main()
