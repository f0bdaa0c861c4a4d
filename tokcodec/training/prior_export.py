"""A trained prior as integers, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.errors import ModelError
from tokcodec.probability.interface import Checkerboard
from tokcodec.probability.mixing import WEIGHT_LIMIT
from tokcodec.probability.prior import GroupedPrior
from tokcodec.probability.prior_config import ACTIVATION_SHIFT, MIXER_INPUTS, PriorConfig
from tokcodec.probability.prior_network import ACCUMULATOR_LIMIT, PriorNetwork, largest_sums
from tokcodec.probability.schedule import level_by_level
from tokcodec.tokens import TokenChunk
from tokcodec.training.prior_model import PriorModel
from tokcodec.weights.priors import save_prior
from tokcodec.weights.registry import WeightsEntry

MAX_SCALE, MIN_SCALE = 12, 5
"""Weights are multiplied by 2 to this power at most, and at least."""
STRETCH_SHIFT = 8
"""A stretch is in units of 2**-8 nats."""
WEIGHT_UNIT = 65536
NETWORK_WEIGHT, TABLE_WEIGHT = 0.8, 0.1
"""Mixing weights before they are fitted."""

_LAYERS = (("context1",), ("context2",), ("state", "known", "kept", "plane"), ("hidden",), ("out",))
"""Tensors that add up in one sum, and so share a scale."""


def to_integers(model: PriorModel) -> dict[str, NDArray[np.int64]]:
    """The tensors of spec section 7.8, each layer at the largest scale that its bound allows.

    Raises:
        ModelError: A layer's weights are too large at every scale.
    """
    config = model.config
    floats = _floats(model)
    scales = [MAX_SCALE] * len(_LAYERS)
    names = ("context1", "context2", "first", "hidden", "out")
    while True:
        tensors = _rounded(config, floats, scales)
        sums = largest_sums(config, tensors)
        over = [
            layer
            for layer, name in enumerate(names)
            if sums[name] >= ACCUMULATOR_LIMIT or not _fits(tensors, _LAYERS[layer])
        ]
        if not over:
            return tensors
        for layer in over:
            scales[layer] -= 1
            if scales[layer] < MIN_SCALE:
                raise ModelError(f"the weights of {names[layer]} are too large for exact sums")


def from_integers(tensors: Mapping[str, NDArray[np.int64]]) -> dict[str, Tensor]:
    """The parameters of a model, float32, of which :func:`to_integers` makes such tensors, but for the rounding."""
    *scales, last = (int(shift) for shift in tensors["shifts"])
    scales.append(last - ACTIVATION_SHIFT + STRETCH_SHIFT)
    found: dict[str, Tensor] = {}
    for scale, layer in zip(scales, _LAYERS, strict=True):
        for part in layer:
            for kind, shift in (("weight", scale), ("bias", scale + ACTIVATION_SHIFT)):
                if f"{part}.{kind}" in tensors:
                    found[f"{part}.{kind}"] = torch.from_numpy(tensors[f"{part}.{kind}"] / 2.0**shift).float()
    found["plane.weight"] = found.pop("plane.bias")
    for name in ("context1.weight", "context2.weight", "known.weight"):  # (taps, inputs, outputs)
        side = math.isqrt(len(found[name]))
        found[name] = found[name].unflatten(0, (side, side)).permute(3, 2, 0, 1).contiguous()
    side = math.isqrt(len(found["kept.weight"]))
    found["kept.weight"] = found["kept.weight"].T.unflatten(1, (1, side, side)).contiguous()
    for name in ("state.weight", "hidden.weight", "out.weight"):
        found[name] = found[name].T[:, :, None, None].contiguous()
    return found


def _fits(tensors: dict[str, NDArray[np.int64]], layer: tuple[str, ...]) -> bool:
    return all(
        abs(tensors[f"{part}.weight"]).max() <= np.iinfo(np.int16).max for part in layer if f"{part}.weight" in tensors
    )


def _floats(model: PriorModel) -> dict[str, NDArray[np.float64]]:
    def plain(tensor: Tensor) -> NDArray[np.float64]:
        array: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
        return array

    def taps(weight: Tensor) -> NDArray[np.float64]:
        return plain(weight.permute(2, 3, 1, 0).flatten(0, 1))  # (taps, inputs, outputs)

    def dense(weight: Tensor) -> NDArray[np.float64]:
        return plain(weight[:, :, 0, 0].T)

    state = dict(model.named_parameters())
    return {
        "context1.weight": taps(state["context1.weight"]),
        "context1.bias": plain(state["context1.bias"]),
        "context2.weight": taps(state["context2.weight"]),
        "context2.bias": plain(state["context2.bias"]),
        "state.weight": dense(state["state.weight"]),
        "known.weight": taps(state["known.weight"]),
        "kept.weight": taps(state["kept.weight"])[:, 0],
        "plane.bias": plain(state["plane.weight"]),
        "hidden.weight": dense(state["hidden.weight"]),
        "hidden.bias": plain(state["hidden.bias"]),
        "out.weight": dense(state["out.weight"]),
        "out.bias": plain(state["out.bias"]),
    }


def _rounded(
    config: PriorConfig, floats: dict[str, NDArray[np.float64]], scales: list[int]
) -> dict[str, NDArray[np.int64]]:
    tensors = {}
    for scale, layer in zip(scales, _LAYERS, strict=True):
        for part in layer:
            for kind, shift in (("weight", scale), ("bias", scale + ACTIVATION_SHIFT)):
                if f"{part}.{kind}" in floats:
                    tensors[f"{part}.{kind}"] = np.rint(floats[f"{part}.{kind}"] * 2.0**shift).astype(np.int64)
    last = scales[-1] + ACTIVATION_SHIFT - STRETCH_SHIFT
    tensors["shifts"] = np.asarray([*scales[:-1], last], dtype=np.int64)
    first = np.asarray([TABLE_WEIGHT] * (MIXER_INPUTS - 1) + [NETWORK_WEIGHT])
    tensors["mixer.weights"] = np.rint(np.tile(first, (2 * config.bits_per_token, 1)) * WEIGHT_UNIT).astype(np.int64)
    return tensors


def fit_mixer(
    config: PriorConfig, tensors: dict[str, NDArray[np.int64]], chunks: Sequence[TokenChunk]
) -> dict[str, NDArray[np.int64]]:
    """The tensors with mixing weights to start from: means of those that chunks end with."""
    if not chunks:
        return tensors
    network = PriorNetwork(config, tensors)
    found = [_after(network, chunk) for chunk in chunks]
    mean = np.rint(np.mean(found, axis=0)).astype(np.int64)
    return {**tensors, "mixer.weights": mean.clip(-WEIGHT_LIMIT, WEIGHT_LIMIT)}


def _after(network: PriorNetwork, chunk: TokenChunk) -> NDArray[np.int64]:
    """Mixing weights after a chunk."""
    steps, rows, columns = chunk.indices.shape
    grid = Checkerboard.of(rows, columns)
    model = GroupedPrior(grid, network)
    for step in range(steps):
        kept = chunk.kept_bits_of(step).ravel()[grid.order]
        values = chunk.indices[step].ravel()[grid.order]
        model.start_step(kept)
        for group in level_by_level(grid, kept, chunk.geometry.level_bits):
            model.probabilities(group)
            model.observe(group, (values[group.where] >> np.uint64(group.plane)).astype(np.uint8) & np.uint8(1))
        model.finish_step()
    return model.mixing_weights


def export_prior(model: PriorModel, folder: Path, *, name: str, chunks: Sequence[TokenChunk] = ()) -> WeightsEntry:
    """Write a model as integers, its mixing weights fitted to some chunks.

    Raises:
        ModelError: Its weights are too large.
        OutputError: The file cannot be written.
    """
    tensors = fit_mixer(model.config, to_integers(model), chunks)
    return save_prior(model.config.to_json(), tensors, folder, name=name)
