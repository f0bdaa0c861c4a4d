"""Fits networks of whole numbers that say how likely decisions are (:mod:`tokcodec.probability.decision_network`)."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokcodec.probability.decision_network import Sizes
from tokcodec.probability.picture_network import ACTIVATION_MAX, SHIFTS
from tokcodec.training.picture_coding import UNIT


class FloatNetwork(nn.Module):
    """A network before it is rounded."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.inputs = nn.Linear(sizes.inputs, sizes.hidden, bias=False)
        self.place = nn.Embedding(sizes.places, sizes.hidden)
        self.hidden = nn.Linear(sizes.hidden, sizes.hidden)
        self.out = nn.Linear(sizes.hidden, sizes.outputs)
        nn.init.normal_(self.place.weight, std=0.3)

    def forward(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Log-odds, `(n, outputs)`."""
        limit = ACTIVATION_MAX / UNIT
        x = self.inputs(inputs.float() / UNIT) + self.place(places.long())
        found: Tensor = self.out(self.hidden(x.clamp(0, limit)).clamp(0, limit))
        return found

    def rounded(self, name: str = "") -> dict[str, NDArray[np.int64]]:
        """Its tensors in a weights file, whose names begin with `name`."""
        first, second, last = (2.0**shift for shift in SHIFTS)
        last *= 256 / UNIT
        units = {
            "inputs.weight": (self.inputs.weight.T, first),
            "place.bias": (self.place.weight, first * UNIT),
            "hidden.weight": (self.hidden.weight.T, second),
            "hidden.bias": (self.hidden.bias, second * UNIT),
            "out.weight": (self.out.weight.T, last),
            "out.bias": (self.out.bias, last * UNIT),
        }
        return {
            f"{name}.{key}" if name else key: (tensor.detach().double() * unit).round().long().numpy()
            for key, (tensor, unit) in units.items()
        }


def fit(
    sizes: Sizes,
    inputs: NDArray[np.uint8],
    places: NDArray[np.uint8],
    decisions: NDArray[np.int64],
    *,
    name: str,
    steps: int,
    batch: int = 8192,
    learning_rate: float = 4e-3,
) -> FloatNetwork:
    """Fit a network to what was observed.

    Args:
        sizes: Of the network.
        inputs: Of each row, `(rows, inputs)`.
        places: Of each row.
        decisions: Row, output and what was decided, `(n, 3)`.
        name: For the lines of the log.
        steps: Updates.
        batch: Decisions of an update.
        learning_rate: At the start; it falls to zero as a cosine.
    """
    seen, at, made = (torch.from_numpy(part) for part in (inputs, places, decisions))
    model = FloatNetwork(sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    started, total = time.monotonic(), 0.0
    for step in range(steps):
        rows, outputs, happened = made[torch.randint(len(made), (batch,))].unbind(dim=1)
        odds = model(seen[rows], at[rows]).gather(1, outputs[:, None])[:, 0]
        loss = F.binary_cross_entropy_with_logits(odds, happened.float()) / math.log(2)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % 500 == 499:
            seconds = time.monotonic() - started
            print(f"{name}, step {step + 1}: {total / 500:.5f} bits a decision, {seconds:.0f} s", flush=True)
            total = 0.0
    return model
