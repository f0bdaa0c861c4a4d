"""Exact everywhere: every way to compute the prior gives the same bytes, and files pass between devices (7.8)."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import json
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_prior
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bits import formula_chunk
from test_prior import LEARNED, random_prior
from test_prior_wide import WIDE

from tokcodec import Codec
from tokcodec.bands import BANDS
from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.chunks import ADAPTIVE, Entropy
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import ModelError
from tokcodec.geometry import MAX_VECTOR
from tokcodec.inspection import survey
from tokcodec.picture_layout import MODES, is_layout
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.probability.prior_network import ACCUMULATOR_LIMIT, Arithmetic, NumpyArithmetic, PriorNetwork
from tokcodec.probability.prior_torch import TorchArithmetic
from tokcodec.tokenfiles import tok_bytes, token_arrays
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenGeometry
from tokcodec.weights.priors import choose_prior, load_prior, pack_prior, prior_from_bytes
from tokcodec.weights.registry import default_entry, entry_of_file

ROOT = Path(__file__).parent.parent
GEOMETRIES = st.sampled_from((DEFAULT_GEOMETRY, WIDE, TokenGeometry(bits_per_token=7, level_bits=(0, 2, 7))))


class Rearranged:
    """An arithmetic that adds up in another order, in batches of other sizes, with another number of threads.

    Args:
        inner: What multiplies.
        seed: Of the orders and sizes, which are other ones at each product.
        threads: Of torch.
    """

    def __init__(self, inner: Arithmetic, *, seed: int, threads: int) -> None:
        self._inner, self.dtype, self._threads = inner, inner.dtype, threads
        self._random = np.random.default_rng(seed)

    def prepare(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        return weights

    def multiply(self, x: NDArray[Any], weights: NDArray[np.int64]) -> NDArray[Any]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            cuts = np.sort(self._random.integers(0, len(x) + 1, self._random.integers(0, 4)))
            return np.concatenate([self._batch(rows, weights) for rows in np.split(x, cuts)])
        finally:
            torch.set_num_threads(before)

    def _batch(self, x: NDArray[Any], weights: NDArray[np.int64]) -> NDArray[Any]:
        """The inputs in another order, in parts that are added up in that order too."""
        order = self._random.permutation(x.shape[1])
        total = np.zeros((len(x), weights.shape[1]), dtype=self.dtype)
        for part in np.array_split(order, self._random.integers(1, 5)):
            total += self._inner.multiply(x[:, part], self._inner.prepare(weights[part]))
        return total


KINDS = {
    "NumPy float32": lambda: NumpyArithmetic(np.float32),
    "NumPy float64": lambda: NumpyArithmetic(np.float64),
    "NumPy int32": lambda: NumpyArithmetic(np.int32),
    "torch float32": lambda: TorchArithmetic("cpu", np.float32),
    "torch float64": lambda: TorchArithmetic("cpu", np.float64),
    "torch int32": lambda: TorchArithmetic("cpu", np.int32),
}


@settings(max_examples=8)
@given(
    geometry=GEOMETRIES,
    mixed_levels=st.booleans(),
    model=st.sampled_from(LEARNED),
    window=st.sampled_from((3, 5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_type_order_threads_and_batches_do_not_matter(
    geometry: TokenGeometry, mixed_levels: bool, model: str, window: int, seed: int
) -> None:
    rows, columns = (6, 9) if model == "prior" else (2, 3)
    chunk = formula_chunk(steps=2, rows=rows, columns=columns, geometry=geometry, mixed_levels=mixed_levels)
    config, tensors = random_prior(planes=geometry.bits_per_token, window=window, seed=seed)
    wanted = encode_tokens(chunk, model=model, network=PriorNetwork(config, tensors, NumpyArithmetic(np.int64)))
    for number, (name, make) in enumerate(KINDS.items()):
        threads = 1 + (seed + number) % 2  # each type has either number, by the seed
        arithmetic = Rearranged(make(), seed=seed + number, threads=threads)
        found = encode_tokens(chunk, model=model, network=PriorNetwork(config, tensors, arithmetic))
        assert found == wanted, (name, threads)


def test_beyond_the_bound_order_matters() -> None:
    """So the property above can fail: float32 sums that pass 2**24 depend on their order."""
    x = np.asarray([[1.0, 1.0, 1.0, 1.0]], np.float32)
    weights = np.asarray([[ACCUMULATOR_LIMIT], [1], [1], [-ACCUMULATOR_LIMIT]])
    exact = NumpyArithmetic(np.int64)
    arithmetic = NumpyArithmetic(np.float32)
    found = {float(Rearranged(arithmetic, seed=seed, threads=1).multiply(x, weights)[0, 0]) for seed in range(40)}
    assert exact.multiply(x.astype(np.int64), exact.prepare(weights))[0, 0] == 2
    assert found - {2.0}


# --- the bound, when weights are loaded ---


@pytest.mark.parametrize("planes", [18, 54])
@pytest.mark.parametrize("layer", ["context1", "context2", "state", "known", "kept", "hidden", "out"])
def test_a_file_whose_sums_could_reach_the_bound_is_not_loaded(layer: str, planes: int, tmp_path: Path) -> None:
    config = PriorConfig(bits_per_token=planes, context_channels=96, state_channels=64, head_channels=128)
    tensors = {name: np.zeros(shape, np.int64) for name, shape in config.shapes().items()}
    tensors["shifts"] += 8
    # At one output: weights that reach the bound exactly, with the rounding half (128) and what else is added up.
    weight = tensors[f"{layer}.weight"]
    size = {"known": 32, "kept": 4 * planes}.get(layer, 255)
    column = weight.reshape(-1, weight.shape[-1])[:, 0]
    inputs = np.full(len(column), size)
    if layer == "context1":
        taps = [32] * planes + [4 * planes] + [255] * config.state_channels
        inputs = np.tile(taps, 9)
    if layer == "known":
        inputs = np.tile([32] * (2 * planes) + [4 * planes], 9)
    room = ACCUMULATOR_LIMIT - 1 - 128
    for place, unit in enumerate(inputs):
        column[place] = min(np.iinfo(np.int16).max, room // unit)
        room -= int(column[place]) * int(unit)
    path = tmp_path / "prior.safetensors"
    path.write_bytes(pack_prior(config.to_json(), tensors))
    load_prior(entry_of_file(path))
    column[np.flatnonzero(column < np.iinfo(np.int16).max)[-1]] += 1
    path.write_bytes(pack_prior(config.to_json(), tensors))
    with pytest.raises(ModelError, match=r"a sum of \w+ can reach 1677\d+, which is not below 16777216"):
        load_prior(entry_of_file(path))


# --- between devices ---

DEVICES = [
    pytest.param("cpu", "cpu", id="cpu to cpu"),
    pytest.param("cuda", "cpu", marks=pytest.mark.cuda, id="cuda to cpu"),
    pytest.param("cpu", "cuda", marks=pytest.mark.cuda, id="cpu to cuda"),
]


@pytest.mark.parametrize(("here", "there"), DEVICES)
@pytest.mark.parametrize("geometry", [DEFAULT_GEOMETRY, WIDE], ids=["18 bits", "54 bits"])
def test_what_one_device_codes_another_decodes(here: str, there: str, geometry: TokenGeometry) -> None:
    """The prior's network on both; the bytes are equal."""
    chunk = formula_chunk(steps=2, rows=12, columns=20, geometry=geometry, mixed_levels=True)
    sizes = tiny_prior.SIZES if geometry is DEFAULT_GEOMETRY else tiny_prior.WIDE_SIZES
    weights = tiny_prior.prior_bytes({**sizes, "context_channels": 48, "state_channels": 32, "head_channels": 64})
    one, two = (prior_from_bytes(weights, TorchArithmetic(device)) for device in (here, there))
    data = encode_tokens(chunk, model="prior", network=one)
    back = decode_tokens(data, steps=2, rows=12, columns=20, geometry=geometry, model="prior", network=two)
    assert np.array_equal(back.indices, chunk.indices)
    assert np.array_equal(back.levels, chunk.levels)
    assert encode_tokens(back, model="prior", network=two) == data


@pytest.mark.parametrize(("here", "there"), DEVICES)
@pytest.mark.parametrize("entropy", ["adaptive", "prior"])
def test_files_pass_between_devices(here: str, there: str, entropy: str) -> None:
    """Tokens of a file are those that its encoder chose, wherever it is decoded, and give the same file again."""
    from skimage import data as pictures

    ships = choose_prior(None, tokenizer=default_entry().sha256)
    how = Entropy(model="prior", prior=ships) if entropy == "prior" else ADAPTIVE
    frames = np.stack([pictures.chelsea()[i : i + 64, 2 * i : 2 * i + 96] for i in range(5)])
    file = Codec(device=here, entropy=entropy).encode_frames(frames, effort=0)
    assert survey(io.BytesIO(file), check_tokens=True).complete
    arrays = token_arrays(io.BytesIO(file))
    again = tok_bytes(arrays, entropy=how).getvalue()
    records = [
        [item.token_data for item in read_stream(io.BytesIO(each)) if isinstance(item, ChunkRecord)]
        for each in (file, again)
    ]
    assert records[0] == records[1]
    # Each device shows what the tokens say: pixels are close, not equal.
    shown = [Codec(device=device).decode_frames(file).frames for device in (here, there)]
    apart = np.abs(shown[0].astype(int) - shown[1].astype(int))
    assert np.percentile(apart, 99) <= 8
    assert shown[1].shape == frames.shape


# --- the record of a machine ---


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_exactness", ROOT / "bench" / "exactness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_this_machine_codes_as_those_that_were_recorded(script: ModuleType) -> None:
    here = script.coded()
    recorded = sorted((ROOT / "docs" / "records").glob("exactness-*.json"))
    known: set[str] = set()
    for path in recorded:
        there = json.loads(path.read_text(encoding="utf-8"))["must_be_equal"]
        assert set(here) - set(there) <= set(script.LATER), path.name
        for name, found in there.items():
            assert set(found.values()) == set(here[name].values()), (path.name, name)
        known |= set(there)
    assert known == set(here) == {*script.NAMES, *script.LATER}, "some machine has recorded each"


def test_the_records_agree_and_name_no_version_of_a_system(script: ModuleType) -> None:
    paths = sorted((ROOT / "docs" / "records").glob("exactness-*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert script.problems(records) == []
    here = platform.system(), platform.machine()
    for described in (script.machine(), *(found["machine"] for found in records)):
        assert len(described["system"].split()) == len(here)
    assert script.machine()["system"] == " ".join(here)


def test_a_first_picture_is_recorded_too(script: ModuleType) -> None:
    chunk = script.fixed_chunk_with(script.fixed_picture())
    assert chunk.picture is not None
    coefficients = chunk.picture.coefficients
    assert not chunk.levels[0].any()
    assert chunk.levels[1].any()
    for band in BANDS:
        part = coefficients[:, band.rows, band.columns]
        assert part.any(axis=(1, 2)).all(), "every band of every colour has coefficients"
    assert 0.1 < np.mean(coefficients != 0) < 0.6
    data = encode_tokens(chunk)
    assert script.returns(data, chunk)
    other = coefficients.copy()
    other[2, -1, -1] += 1
    changed = dataclasses.replace(chunk, picture=dataclasses.replace(chunk.picture, coefficients=other))
    assert not script.returns(encode_tokens(changed), chunk)
    assert script.digest_of_contents([changed]) != script.digest_of_contents([chunk])
    assert script.digest_of_tokens([changed]) == script.digest_of_tokens([chunk]), "as older records have it"
    assert set(script.by_network(chunk).values()) == {script.digest(data)}


def test_motion_with_a_network_is_recorded_too(script: ModuleType) -> None:
    chunk = script.fixed_motion()
    rest = chunk.vectors[1:] - np.median(chunk.vectors[1:].reshape(2, 7, -1, 2), axis=2).repeat(9, axis=1)[:, :, None]
    assert 0.05 < np.mean(rest != 0) < 0.4, "most blocks move as others do"
    assert {int(step.any()) for step in chunk.vectors} == {0, 1}
    assert np.abs(chunk.vectors).max() == MAX_VECTOR
    data = encode_tokens(chunk)
    assert script.returns(data, chunk)
    assert script.by_network(chunk) == {"NumPy float32": script.digest(data)}
    without = dataclasses.replace(chunk, geometry=dataclasses.replace(chunk.geometry, motion_network=False))
    assert encode_tokens(without) != data
    other = chunk.vectors.copy()
    other[2, -1, -1, 1] += 1
    changed = dataclasses.replace(chunk, vectors=other)
    assert not script.returns(encode_tokens(changed), chunk)
    assert script.digest_of_contents([changed]) != script.digest_of_contents([chunk])


def test_choice_maps_are_recorded_too(script: ModuleType) -> None:
    chunk = script.fixed_choice()
    choice = chunk.vectors[:, -9:]
    assert [set(np.unique(step[..., 0])) for step in choice] == [{0}, {0, 1, 2}, {0, 1, 2}]
    assert not choice[..., 1].any()
    assert np.array_equal(chunk.vectors[:, :-9], script.fixed_motion().vectors)
    data = encode_tokens(chunk)
    assert script.returns(data, chunk)
    assert script.by_network(chunk) == {"NumPy float32": script.digest(data)}
    other = chunk.vectors.copy()
    other[2, -1, -1, 0] += 1
    changed = dataclasses.replace(chunk, vectors=other)
    assert not script.returns(encode_tokens(changed), chunk)
    assert script.digest_of_contents([changed]) != script.digest_of_contents([chunk])


def test_a_first_picture_by_blocks_is_recorded_too(script: ModuleType) -> None:
    picture = script.fixed_blocks()
    chunk = script.fixed_chunk_with(picture)
    assert is_layout(picture.blocks)
    assert set(np.unique(picture.blocks // MODES)) == {0, 1, 2, 3}
    assert 0.01 < np.mean(picture.coefficients != 0) < 0.5
    data = encode_tokens(chunk)
    assert script.returns(data, chunk)
    other = picture.blocks.copy()
    other[-1, -1] ^= 1
    changed = dataclasses.replace(chunk, picture=dataclasses.replace(picture, blocks=other))
    assert not script.returns(encode_tokens(changed), chunk)
    assert script.digest_of_contents([changed]) != script.digest_of_contents([chunk])


def two_records() -> list[dict[str, Any]]:
    """A record of another machine, twice."""
    path = min((ROOT / "docs" / "records").glob("exactness-*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for _ in range(2)]


def test_what_an_earlier_record_lacks_is_told_and_not_compared(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = two_records()
    for found in (one, two):
        found["must_be_equal"] |= {name: {"NumPy float32": "0" * 64} for name in script.LATER}
    assert (script.problems([one, two]), script.gaps([one, two])) == ([], [])
    two["must_be_equal"][script.PICTURE] = {"NumPy float32": "1" * 64}
    assert script.problems([one, two]) == [f"{script.PICTURE}: 2 digests where there must be one"]
    del two["must_be_equal"][script.PICTURE]
    names = tmp_path / "one.json", tmp_path / "two.json"
    for name, found in zip(names, (one, two), strict=True):
        name.write_text(json.dumps(found), encoding="utf-8")
    assert script.compare(argparse.Namespace(records=list(names))) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f"not all records have it: {script.PICTURE}")


def test_a_record_that_lacks_anything_else_is_wrong(script: ModuleType, tmp_path: Path) -> None:
    for name in script.NAMES:
        one, two = two_records()
        del two["must_be_equal"][name]
        assert script.problems([one, two]) == script.problems([two]) == [f"{name}: not all records have it"]
    nothing: dict[str, dict[str, str]] = {}
    for empty in (nothing, dict.fromkeys((*script.NAMES, *script.LATER), nothing)):
        one, two = two_records()
        two["must_be_equal"] = empty
        assert len(script.problems([one, two])) == len(script.problems([two, two])) == len(script.NAMES)
        path = tmp_path / "empty.json"
        path.write_text(json.dumps(two), encoding="utf-8")
        assert script.compare(argparse.Namespace(records=[path])) == 1


def test_tokens_that_did_not_come_back_are_wrong(script: ModuleType) -> None:
    (one, _) = two_records()
    one["must_be_equal"][script.PICTURE] = {"NumPy float32": script.LOST}
    assert script.problems([one]) == [f"{script.PICTURE}: {script.LOST}"]


def test_motion_and_pictures_of_a_file_are_compared_where_both_records_have_them(script: ModuleType) -> None:
    one, two = two_records()
    one["may_differ"]["cpu"].pop("contents_sha256", None)
    two["may_differ"]["cpu"]["contents_sha256"] = "0" * 64
    assert script.problems([one, two]) == [], "an older record says nothing of them"
    one["may_differ"]["cpu"]["contents_sha256"] = "1" * 64
    (problem,) = script.problems([one, two])
    assert problem.endswith("other motion, first pictures or residuals on another machine")


def test_records_that_differ_are_told_apart(script: ModuleType) -> None:
    one, two = two_records()
    assert script.problems([one, two]) == []
    two["must_be_equal"]["54 bits, prior"]["NumPy float32"] = "0" * 64
    assert script.problems([one, two]) == ["54 bits, prior: 2 digests where there must be one"]
    two["must_be_equal"] = one["must_be_equal"]
    two["may_differ"]["cpu"]["pixels_sha256"] = {}
    assert script.problems([one, two]) == []
    two["may_differ"]["cpu"]["tokens_sha256"] = "0" * 64
    assert len(script.problems([one, two])) == 1, "the same file, and other tokens in it"
    two["may_differ"]["cpu"]["file_sha256"] = "1" * 64
    assert script.problems([one, two]) == [], "another file may have other tokens"
