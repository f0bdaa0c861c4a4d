"""Trains the network of spec section 7.14, which says how likely the decisions are that make motion maps.

It is a part of the format and not of a tokenizer, so there is one file for all. This is how it was made, but for what
chance drew:

    python -m tokcodec.training.motion_coding --tokens DIR --out FOLDER

`DIR` has files that `tokcodec encode` made, of videos that nothing is measured on.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tokcodec.errors import UsageError
from tokcodec.motion_bits import PREFIX_BITS, MotionTraversal
from tokcodec.probability import motion_network as network
from tokcodec.probability.mixing import ContextMixer
from tokcodec.sources import open_tok
from tokcodec.tokens import TokenChunk
from tokcodec.tokenset import read_chunks
from tokcodec.training.decision_training import FloatNetwork, fit


class Observed:
    """Stands for a network and a coder, and remembers what they are shown.

    Attributes:
        inputs: Of components, uint8 `(n, INPUTS)` each.
        places: Of the same, uint8 `(n,)` each.
        rests: What predictions leave of them, int32 `(n,)` each.
    """

    def __init__(self) -> None:
        self.inputs: list[NDArray[np.uint8]] = []
        self.places: list[NDArray[np.uint8]] = []
        self.rests: list[NDArray[np.int32]] = []

    def stretches(self, inputs: NDArray[np.uint8], *, axis: int, number: int, group: int) -> NDArray[np.int32]:
        """Even odds."""
        self.inputs.append(inputs.copy())
        self.places.append(np.full(len(inputs), network.place(axis=axis, number=number, group=group), np.uint8))
        return np.zeros((len(inputs), network.KINDS), np.int32)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Nothing but what is given."""
        return bits

    def decisions(self) -> NDArray[np.int64]:
        """Row, kind and what was decided, `(n, 3)`."""
        rest = np.concatenate(self.rests)
        size, rows = np.abs(rest).astype(np.int64), np.arange(rest.size)
        found = [(rows, rest != 0), (rows[rest != 0], rest[rest != 0] > 0)]
        for j in range(PREFIX_BITS):
            at = np.flatnonzero(size >= 1 << j)
            found.append((at, size[at] >= 2 << j))
        parts = [np.stack([at, np.full(at.size, kind), happened]) for kind, (at, happened) in enumerate(found)]
        return np.concatenate(parts, axis=1).astype(np.int64).T


class _Traversal(MotionTraversal):
    """Remembers what is left of predictions, in the order in which a network is asked."""

    def __init__(self, rows: int, columns: int, *, maps: int, observed: Observed) -> None:
        super().__init__(rows, columns, maps=maps, network=observed)
        self._observed = observed

    def _code_component(
        self,
        coder: object,
        mixer: ContextMixer,
        axis: int,
        contexts: object,
        odds: NDArray[np.int32] | None,
        rest: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        self._observed.rests.append(rest)
        return rest


def observe(chunk: TokenChunk, found: Observed) -> None:
    """Add the motion maps of a chunk that has seven a step."""
    geometry = chunk.geometry
    maps = geometry.motion_maps
    whole = np.concatenate(np.split(chunk.vectors, geometry.step_maps, axis=1)[:maps], axis=1)
    traversal = _Traversal(*whole.shape[1:3], maps=maps, observed=found)
    for vectors in whole[1:]:
        traversal.code_step(found, vectors.copy())


def gather(folder: Path) -> Observed:
    """Observations of all `.tok` files of a folder, at any depth.

    Raises:
        UsageError: There are no seven motion maps in them.
    """
    found = Observed()
    for path in sorted(folder.rglob("*.tok")):
        with open_tok(path) as source:
            for chunk in read_chunks(source):
                if chunk.geometry.motion_maps > 1:
                    observe(chunk, found)
    if not found.rests:
        raise UsageError(
            "holds no tokens with seven motion maps a step", where=str(folder), hint="make some with tokcodec encode"
        )
    return found


def train(found: Observed, *, steps: int, batch: int = 8192, learning_rate: float = 4e-3) -> FloatNetwork:
    """Fit the network to observations."""
    return fit(
        network.SIZES,
        np.concatenate(found.inputs),
        np.concatenate(found.places),
        found.decisions(),
        name="motion",
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Train the network of spec section 7.14.")
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)  # before the work, not after
    torch.manual_seed(given.seed)
    data = network.pack(train(gather(given.tokens), steps=given.steps).rounded())
    digest = hashlib.sha256(data).hexdigest()
    (given.out / f"motion-{digest[:12]}.safetensors").write_bytes(data)
    print(digest)


if __name__ == "__main__":
    main()
