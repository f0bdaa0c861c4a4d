"""The prior: exact on every arithmetic, in both orders, as the independent decoder reads it (spec section 7.8)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spec_decoder
import tiny_prior
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bits import chunks, formula_chunk

from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.errors import CorruptStreamError, LimitError, ModelError, UsageError
from tokcodec.probability import MODELS, create_model, prior, prior_int8
from tokcodec.probability.interface import Checkerboard
from tokcodec.probability.mixing import WEIGHT_LIMIT
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.probability.prior_int8 import Int8Windows
from tokcodec.probability.prior_network import (
    ACCUMULATOR_LIMIT,
    Arithmetic,
    NumpyArithmetic,
    PriorNetwork,
    gather,
    largest_sums,
)
from tokcodec.probability.prior_torch import TorchArithmetic
from tokcodec.probability.schedule import level_by_level, wave_by_wave
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenChunk, TokenGeometry
from tokcodec.weights.priors import pack_prior, prior_from_bytes

LEARNED = ("prior", "prior-autoregressive")
TINY = tiny_prior.prior_bytes()


def random_prior(
    *, planes: int = 18, window: int = 3, channels: int = 12, seed: int = 0
) -> tuple[PriorConfig, dict[str, NDArray[np.int64]]]:
    """A network of random weights, each layer as close below the bound as it can be."""
    config = PriorConfig(
        bits_per_token=planes,
        context_channels=channels,
        state_channels=channels,
        head_channels=channels,
        window=window,
    )
    rng = np.random.default_rng(seed)
    tensors = {name: rng.integers(-99, 100, shape) for name, shape in config.shapes().items()}
    tensors["shifts"] = np.full(5, 12)
    tensors["mixer.weights"] = rng.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT + 1, tensors["mixer.weights"].shape)
    layers = {
        "context1": ("context1",),
        "context2": ("context2",),
        "first": ("state", "known", "kept", "plane"),
        "hidden": ("hidden",),
        "out": ("out",),
    }
    for layer, parts in layers.items():
        room = ACCUMULATOR_LIMIT / largest_sums(config, tensors)[layer]
        for name in tensors:
            if name.split(".")[0] in parts:
                tensors[name] = (tensors[name] * max(1.0, room * 0.99)).astype(np.int64)
    assert max(largest_sums(config, tensors).values()) < ACCUMULATOR_LIMIT
    return config, tensors


class Shuffled(NumpyArithmetic):
    """Sums in another order each time."""

    def __init__(self) -> None:
        super().__init__()
        self._random = np.random.default_rng(1)

    def multiply(self, x: NDArray[Any], weights: Any) -> NDArray[Any]:
        order = self._random.permutation(x.shape[1])
        parts = [super(Shuffled, self).multiply(x[:, part], weights[part]) for part in np.array_split(order, 3)]
        product: NDArray[Any] = parts[2] + parts[0] + parts[1]
        return product


class RowByRow(NumpyArithmetic):
    """Batches of one row."""

    def multiply(self, x: NDArray[Any], weights: Any) -> NDArray[Any]:
        rows = [super(RowByRow, self).multiply(row[None], weights) for row in x]
        return np.concatenate(rows) if rows else super().multiply(x, weights)


class TwoThreads(TorchArithmetic):
    """Torch with another number of threads."""

    def multiply(self, x: NDArray[Any], weights: Any) -> NDArray[Any]:
        before = torch.get_num_threads()
        torch.set_num_threads(3 - min(before, 2))
        try:
            return super().multiply(x, weights)
        finally:
            torch.set_num_threads(before)


ARITHMETICS: dict[str, Arithmetic] = {
    "float64": NumpyArithmetic(np.float64),
    "int32": NumpyArithmetic(np.int32),
    "int64": NumpyArithmetic(np.int64),
    "shuffled": Shuffled(),
    "row by row": RowByRow(),
    "torch float32": TorchArithmetic("cpu", np.float32),
    "torch int32": TorchArithmetic("cpu", np.int32),
    "torch threads": TwoThreads("cpu", np.float32),
}


@settings(max_examples=12, deadline=None)
@given(chunk=chunks(), seed=st.integers(0, 99), window=st.sampled_from((3, 5)))
def test_every_arithmetic_gives_the_same_bytes(chunk: TokenChunk, seed: int, window: int) -> None:
    config, tensors = random_prior(planes=chunk.geometry.bits_per_token, window=window, seed=seed)
    wanted = encode_tokens(chunk, model="prior", network=PriorNetwork(config, tensors))
    for name, arithmetic in ARITHMETICS.items():
        network = PriorNetwork(config, tensors, arithmetic)
        assert encode_tokens(chunk, model="prior", network=network) == wanted, name


@pytest.mark.parametrize("window", [3, 5])
def test_sums_at_the_bound_are_exact(window: int) -> None:
    """The layers themselves, at inputs that reach the bound."""
    config, tensors = random_prior(channels=40, window=window, seed=3)
    rng = np.random.default_rng(4)
    past = np.where(rng.random((61, config.bits_per_token + 1 + 40)) < 0.5, 0, 255)
    past[:, :18] = np.where(tensors["context1.weight"][4, :18, 0] < 0, -32, 32)
    grid = Checkerboard.of(6, 10)
    first = rng.integers(-(1 << 20), 1 << 20, (60, 40))
    before = rng.integers(-1, 2, (60, 3))

    def outputs(arithmetic: Arithmetic) -> tuple[NDArray[Any], NDArray[Any]]:
        network, dtype = PriorNetwork(config, tensors, arithmetic), arithmetic.dtype
        context = network.context(past.astype(dtype), grid.window(3))
        return context, network.stretches(first.astype(dtype), before.astype(dtype), range(3, 6))

    wanted = outputs(NumpyArithmetic(np.int64))
    assert len(np.unique(wanted[0])) > 5
    assert len(np.unique(wanted[1])) > 5
    for name, arithmetic in {"float32": NumpyArithmetic(), **ARITHMETICS}.items():
        for one, two in zip(outputs(arithmetic), wanted, strict=True):
            assert np.array_equal(one, two), name


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    taps=st.integers(1, 9),
    inputs=st.integers(1, 130),
    outputs=st.integers(1, 20),
    count=st.integers(1, 40),
    largest=st.sampled_from((1, 63, 64, 127, 128, 611, Int8Windows.LARGEST)),
)
def test_windows_in_8_bits_are_exact(seed: int, taps: int, inputs: int, outputs: int, count: int, largest: int) -> None:
    """At the ends of what inputs and weights can be, too, where 16 bits would not hold a pair of products."""
    rng = np.random.default_rng(seed)
    signed = int(rng.integers(0, inputs + 1))
    weights = rng.integers(-largest, largest + 1, (taps, inputs, outputs))
    weights[rng.random(weights.shape) < 0.3] = rng.choice((-largest, largest))
    x = rng.integers(0, 256, (count + 1, inputs))
    x[rng.random(x.shape) < 0.3] = 255
    x[:, :signed] = rng.integers(-128, 128, (count + 1, signed))
    window = rng.integers(0, count + 1, (count, taps))
    wanted = gather(x, window) @ weights.reshape(-1, outputs)
    found = Int8Windows(weights, signed).of(x.astype(np.float64))(window)
    assert np.array_equal(found, wanted)


def test_weights_beyond_8_bit_digits_stay_with_the_other_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_int8, "is_worth_it", lambda: True)
    weights = np.full((9, 2, 3), Int8Windows.LARGEST)
    assert prior_int8.int8_windows(weights, 1) is not None
    assert prior_int8.int8_windows(-weights - 1, 1) is None
    with pytest.raises(ValueError, match="more than two digits"):
        Int8Windows(-weights - 1, 1)
    monkeypatch.setattr(prior_int8, "is_worth_it", lambda: False)
    assert prior_int8.int8_windows(weights, 1) is None


@settings(max_examples=6, deadline=None)
@given(chunk=chunks(), seed=st.integers(0, 99))
def test_a_network_in_8_bits_gives_the_same_bytes(chunk: TokenChunk, seed: int) -> None:
    config, tensors = random_prior(planes=chunk.geometry.bits_per_token, channels=40, seed=seed)
    for name in ("context1.weight", "context2.weight"):
        assert np.abs(tensors[name]).max() <= Int8Windows.LARGEST
    wanted = encode_tokens(chunk, model="prior", network=PriorNetwork(config, tensors))
    network = PriorNetwork(config, tensors, windows=Int8Windows)
    assert encode_tokens(chunk, model="prior", network=network) == wanted


def test_torch_is_exact_when_others_allow_less_precision() -> None:
    config, tensors = random_prior(channels=40, seed=5)
    grid = Checkerboard.of(6, 10)
    past = np.random.default_rng(6).integers(0, 256, (61, 59))
    wanted = PriorNetwork(config, tensors).context(past.astype(np.float32), grid.window(3))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        network = PriorNetwork(config, tensors, TorchArithmetic())
        assert np.array_equal(network.context(past.astype(np.float32), grid.window(3)), wanted)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gpu_gives_the_same_bytes(dtype: type) -> None:
    config, tensors = random_prior(channels=40, seed=7)
    chunk = formula_chunk(steps=3, rows=45, columns=80, geometry=DEFAULT_GEOMETRY, mixed_levels=True)
    wanted = encode_tokens(chunk, model="prior", network=PriorNetwork(config, tensors))
    torch.set_float32_matmul_precision("high")  # TF32, which must not be used
    try:
        network = PriorNetwork(config, tensors, TorchArithmetic("cuda", dtype))
        assert encode_tokens(chunk, model="prior", network=network) == wanted
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("layer", ["context1", "context2", "state", "known", "kept", "hidden", "out"])
def test_a_weight_too_many_is_refused(layer: str) -> None:
    config, tensors = random_prior()
    PriorNetwork(config, tensors)
    weights = tensors[f"{layer}.weight"].copy()
    weights.flat[0] += np.sign(weights.flat[0] or 1) * (ACCUMULATOR_LIMIT // 4)
    with pytest.raises(ModelError, match="not below 16777216"):
        PriorNetwork(config, {**tensors, f"{layer}.weight": weights})


def test_a_bias_counts_in_the_bound() -> None:
    config, tensors = random_prior()
    for name in ("context1.bias", "context2.bias", "plane.bias", "hidden.bias", "out.bias"):
        bias = tensors[name].copy()
        bias.flat[0] = ACCUMULATOR_LIMIT
        with pytest.raises(ModelError, match="not below"):
            PriorNetwork(config, {**tensors, name: bias})


def test_weights_that_do_not_fit_are_refused() -> None:
    config, tensors = random_prior()
    less = {name: tensor for name, tensor in tensors.items() if name != "shifts"}
    with pytest.raises(ModelError, match="exactly the tensors"):
        PriorNetwork(config, less)
    with pytest.raises(ModelError, match="must be"):
        PriorNetwork(config, {**tensors, "hidden.bias": tensors["hidden.bias"][:-1]})
    with pytest.raises(ModelError, match="shifts"):
        PriorNetwork(config, {**tensors, "shifts": np.zeros(5, np.int64)})
    with pytest.raises(ModelError, match="mixing weights"):
        PriorNetwork(config, {**tensors, "mixer.weights": tensors["mixer.weights"] * 0 + WEIGHT_LIMIT + 1})
    with pytest.raises(ModelError, match="not a safetensors"):
        prior_from_bytes(b"nothing")
    with pytest.raises(ModelError, match="architecture"):
        prior_from_bytes(TINY.replace(b"masked-bits-1", b"masked-bits-9"))
    with pytest.raises(ModelError, match="int32"):
        prior_from_bytes(TINY.replace(b'"I32"', b'"F32"'))
    with pytest.raises(ModelError, match="do not fit 16 bits"):
        pack_prior(config.to_json(), {**tensors, "hidden.weight": tensors["hidden.weight"] * 0 + 40000})
    with pytest.raises(ModelError, match="window"):
        PriorConfig(window=4)


# --- coding ---


@settings(max_examples=20, deadline=None)
@given(chunk=chunks(), seed=st.integers(0, 99), window=st.sampled_from((3, 5)))
def test_every_chunk_comes_back_in_both_orders(chunk: TokenChunk, seed: int, window: int) -> None:
    config, tensors = random_prior(planes=chunk.geometry.bits_per_token, window=window, channels=5, seed=seed)
    network = PriorNetwork(config, tensors)
    steps, rows, columns = chunk.indices.shape
    for model in LEARNED:
        data = encode_tokens(chunk, model=model, network=network)
        back = decode_tokens(
            data, steps=steps, rows=rows, columns=columns, geometry=chunk.geometry, model="prior", network=network
        )
        assert np.array_equal(back.indices, chunk.indices)
        assert np.array_equal(back.levels, chunk.levels)


@settings(max_examples=12, deadline=None)
@given(chunk=chunks(), window=st.sampled_from((3, 5)))
def test_sums_that_grow_group_by_group_are_those_of_all_that_is_known(chunk: TokenChunk, window: int) -> None:
    config, tensors = random_prior(planes=chunk.geometry.bits_per_token, window=window, channels=6, seed=2)
    network = PriorNetwork(config, tensors)
    wanted = encode_tokens(chunk, model="prior", network=network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "GroupedPrior", prior.PlainPrior)
        assert encode_tokens(chunk, model="prior", network=network) == wanted


def test_twelve_looks_a_step_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    ask = PriorNetwork.stretches

    def counted(self: PriorNetwork, *arguments: Any) -> Any:
        looks.append(arguments[2])
        return ask(self, *arguments)

    monkeypatch.setattr(PriorNetwork, "stretches", counted)
    chunk = formula_chunk(steps=2, rows=9, columns=8, geometry=DEFAULT_GEOMETRY, mixed_levels=True)
    encode_tokens(chunk, model="prior", network=prior_from_bytes(TINY))
    assert len(looks) == 2 * 12


def test_schedules_code_every_kept_bit_once() -> None:
    grid, bits = Checkerboard.of(7, 9), (0, 3, 6, 9, 12, 15, 18)
    kept = np.random.default_rng(0).choice(bits, grid.cells).astype(np.uint8)
    for schedule in MODELS.values():
        seen = np.zeros((18, grid.cells), int)
        for group in schedule(grid, kept, bits):
            seen[group.plane, group.where] += 1
            assert group.plane in group.planes
        assert np.array_equal(seen, np.arange(18)[:, None] < kept)


def test_no_cell_of_a_wave_is_in_the_window_of_another() -> None:
    grid = Checkerboard.of(8, 11)
    kept = np.full(grid.cells, 18, np.uint8)
    window, known = grid.window(5), set()
    for group in wave_by_wave(grid, kept, DEFAULT_GEOMETRY.level_bits):
        cells = set(np.asarray(group.where).tolist())
        for cell in cells:
            assert cells & set(window[cell].tolist()) == {cell}
            assert {int(grid.order[cell] // 11 + grid.order[cell] % 11) & 1} == {group.colour}
            # Those of its window that are known are the ones before it in raster order.
            before = {n for n in window[cell].tolist() if n < grid.cells and grid.order[n] < grid.order[cell]}
            if group.plane == 0:
                assert before == {n for n in window[cell].tolist() if n in known}
        if group.plane == 17:
            known |= cells


def test_windows_are_row_major_and_closed_by_the_outside() -> None:
    grid = Checkerboard.of(3, 4)
    window = grid.window(3)
    place = {int(cell): n for n, cell in enumerate(grid.order)}
    assert window[place[5]].tolist() == [place[n] for n in (0, 1, 2, 4, 5, 6, 8, 9, 10)]
    assert window[place[0]].tolist()[:4] == [12, 12, 12, 12]


def test_blocks_that_keep_nothing_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    ask = PriorNetwork.stretches

    def counted(self: PriorNetwork, first: Any, *arguments: Any) -> Any:
        rows.append(len(first))
        return ask(self, first, *arguments)

    monkeypatch.setattr(PriorNetwork, "stretches", counted)
    levels = np.zeros((1, 4, 4), np.uint8)
    levels[0, 1, 2] = 6
    indices = np.zeros((1, 16, 16), np.uint64)
    encode_tokens(TokenChunk(indices=indices, levels=levels), model="prior", network=prior_from_bytes(TINY))
    assert rows == [8] * 12


@pytest.mark.parametrize("model", LEARNED)
@pytest.mark.parametrize("kept", ["0110", "1000", "0001001", "1001100", "0000"])
def test_steps_without_bits_count_when_there_are_some_again(
    kept: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step without bits costs nothing, and what the network knows of it is made when somebody asks."""
    looks = []
    look = PriorNetwork.context
    monkeypatch.setattr(PriorNetwork, "context", lambda self, *a: looks.append(1) or look(self, *a))
    chunk = formula_chunk(steps=len(kept), rows=6, columns=9, geometry=DEFAULT_GEOMETRY, mixed_levels=True)
    there = np.asarray([each == "1" for each in kept])
    levels = (chunk.levels * there[:, None, None]).astype(np.uint8)
    chunk = replace(chunk, levels=levels, indices=chunk.indices * there[:, None, None].astype(np.uint64))
    data = encode_tokens(chunk, model=model, network=prior_from_bytes(TINY))
    assert len(looks) == kept.rfind("1") + 1
    indices, *_ = spec_decoder.decode_tokens(data, len(kept), 6, 9, spec_geometry(chunk.geometry), prior=TINY)
    np.testing.assert_array_equal(indices, chunk.indices)


def test_a_network_learns_from_a_chunk() -> None:
    """The mixer adapts: weights of an input that misleads fall."""
    network = prior_from_bytes(TINY)
    chunk = formula_chunk(steps=6, rows=12, columns=12, geometry=DEFAULT_GEOMETRY, mixed_levels=False)
    grid = Checkerboard.of(12, 12)
    model = prior.GroupedPrior(grid, network)
    for step in range(6):
        kept = np.full(grid.cells, 18, np.uint8)
        values = chunk.indices[step].ravel()[grid.order]
        model.start_step(kept)
        for group in level_by_level(grid, kept, DEFAULT_GEOMETRY.level_bits):
            model.probabilities(group)
            model.observe(group, (values[group.where] >> np.uint64(group.plane)).astype(np.uint8) & np.uint8(1))
        model.finish_step()
    assert model.mixing_weights[:, 3].mean() < network.mixer_weights[:, 3].mean() - 3000


def test_a_few_bytes_cannot_ask_for_hours() -> None:
    """Token after token is slow: a thin picture of many steps is refused before the first of them."""
    network, few = (
        prior_from_bytes(TINY),
        formula_chunk(steps=1, rows=1, columns=64, geometry=DEFAULT_GEOMETRY, mixed_levels=False),
    )
    data = encode_tokens(few, model="prior-autoregressive", network=network)
    with pytest.raises(LimitError, match="1179648 times"):
        decode_tokens(data, steps=1024, rows=1, columns=64, geometry=DEFAULT_GEOMETRY, model="prior", network=network)


def test_usage() -> None:
    grid = Checkerboard.of(2, 2)
    with pytest.raises(UsageError, match="weights"):
        create_model("prior", grid=grid, planes=18)
    with pytest.raises(ModelError, match="of 18 bits, these have 17"):
        create_model("prior", grid=grid, planes=17, network=prior_from_bytes(TINY))
    with pytest.raises(UsageError, match="no probability model"):
        create_model("oracle", grid=grid, planes=18)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=4, max_size=160), model=st.sampled_from(LEARNED))
def test_hostile_bytes_are_refused_or_are_tokens(data: bytes, model: str) -> None:
    network = prior_from_bytes(TINY)
    data = data[: len(data) // 4 * 4]
    shape: dict[str, Any] = {"steps": 2, "rows": 5, "columns": 6, "geometry": DEFAULT_GEOMETRY}
    try:
        chunk = decode_tokens(data, **shape, model=model, network=network)
    except (CorruptStreamError, LimitError):
        return
    codings = {encode_tokens(chunk, model=name, network=network) for name in LEARNED}
    assert data in codings


# --- golden, and the independent decoder ---

GOLDEN = {
    ("plain", "prior"): "c97e6051c94253bc506e8f929bb79497d54224bf737fc3420c965e21bffa1602",
    ("map", "prior"): "943384f0920bfd29f551bf32bbf22878e359b7e926933fc3bff93f112fd0d04a",
    ("plain", "prior-autoregressive"): "1b906dbd6afdc9df06c41906faffedd0e3a5ba9891b5bfd6579b7d780c461e4a",
    ("map", "prior-autoregressive"): "23ccb3ef8afa30e40b928e10c7d7caae642ca15e2943596cbcfb0512d666e9e3",
}


def golden_chunk(name: str) -> TokenChunk:
    return formula_chunk(steps=4, rows=9, columns=14, geometry=DEFAULT_GEOMETRY, mixed_levels=name == "map")


@pytest.mark.parametrize(("name", "model"), GOLDEN)
def test_golden_bytes(name: str, model: str) -> None:
    data = encode_tokens(golden_chunk(name), model=model, network=prior_from_bytes(TINY))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[name, model]


def test_the_tiny_prior_is_what_it_was() -> None:
    assert hashlib.sha256(TINY).hexdigest() == tiny_prior.SHA256


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("model", LEARNED)
@pytest.mark.parametrize("mixed_levels", [False, True])
def test_the_independent_decoder_agrees(model: str, mixed_levels: bool, window: int) -> None:
    weights = tiny_prior.prior_bytes({**tiny_prior.SIZES, "window": window})
    chunk = formula_chunk(steps=3, rows=6, columns=9, geometry=DEFAULT_GEOMETRY, mixed_levels=mixed_levels)
    data = encode_tokens(chunk, model=model, network=prior_from_bytes(weights))
    indices, levels, _ = spec_decoder.decode_tokens(data, 3, 6, 9, spec_geometry(chunk.geometry), prior=weights)
    assert np.array_equal(indices, chunk.indices)
    assert np.array_equal(levels, chunk.levels)


def test_the_independent_decoder_agrees_on_another_geometry() -> None:
    geometry = TokenGeometry(bits_per_token=5, level_bits=(0, 1, 5), block_tokens=3)
    weights = tiny_prior.prior_bytes({**tiny_prior.SIZES, "bits_per_token": 5})
    chunk = formula_chunk(steps=3, rows=5, columns=7, geometry=geometry, mixed_levels=True)
    for model in LEARNED:
        data = encode_tokens(chunk, model=model, network=prior_from_bytes(weights))
        indices, *_ = spec_decoder.decode_tokens(data, 3, 5, 7, spec_geometry(geometry), prior=weights)
        assert np.array_equal(indices, chunk.indices)


def spec_geometry(geometry: TokenGeometry) -> spec_decoder.Geometry:
    return spec_decoder.Geometry(
        geometry.bits_per_token, geometry.level_bits, geometry.block_tokens, probability_model=1
    )


def test_the_entropy_coder_needs_no_torch(tmp_path: Path) -> None:
    path = tiny_prior.write_prior(tmp_path)
    program = f"""
import sys
import numpy as np
from pathlib import Path
from tokcodec.bits import encode_tokens
from tokcodec.tokens import TokenChunk
from tokcodec.weights.priors import prior_from_bytes
network = prior_from_bytes(Path({str(path)!r}).read_bytes())
chunk = TokenChunk(indices=np.zeros((2, 4, 4), np.uint64), levels=np.full((2, 1, 1), 6, np.uint8))
encode_tokens(chunk, model="prior", network=network)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_threads_of_numpy_do_not_matter() -> None:
    """BLAS reads its thread count when it is loaded, so each count is a process of its own."""
    program = """
import sys, hashlib
sys.path.insert(0, sys.argv[1])
from test_prior import *
chunk = formula_chunk(steps=2, rows=45, columns=80, geometry=DEFAULT_GEOMETRY, mixed_levels=False)
config, tensors = random_prior(channels=64, seed=8)
print(hashlib.sha256(encode_tokens(chunk, model="prior", network=PriorNetwork(config, tensors))).hexdigest())
"""
    import os

    found = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent)],
            env={**os.environ, **dict.fromkeys(names, threads)},
            capture_output=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
