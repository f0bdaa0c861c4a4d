"""The networks that say how likely decisions of pictures by blocks are, in whole numbers (spec section 7.13)."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import pytest
from block_pictures import some_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec.bands import PHASES
from tokcodec.block_bits import DIAGONALS
from tokcodec.errors import ModelError
from tokcodec.picture_layout import LIKELY, SIZES
from tokcodec.probability import block_network as network
from tokcodec.probability.block_network import BlockNetwork, block_network, pack, unpack
from tokcodec.probability.logistic import PROBABILITY_MIN, SQUASH

names = st.sampled_from(list(network.OUTPUTS))


def naive_probabilities(
    tensors: dict[str, NDArray[np.int64]], name: str, inputs: NDArray[np.uint8], place: NDArray[np.integer] | int
) -> NDArray[np.int64]:
    """In whole numbers throughout."""
    x = inputs.astype(np.int64) @ tensors[f"{name}.inputs.weight"] + tensors[f"{name}.place.bias"][place]
    x = (x + 128 >> 8).clip(0, 255) @ tensors[f"{name}.hidden.weight"] + tensors[f"{name}.hidden.bias"]
    x = (x + 128 >> 8).clip(0, 255) @ tensors[f"{name}.out.weight"] + tensors[f"{name}.out.bias"]
    return SQUASH[(x + 128 >> 8).clip(-2047, 2047) + 2047]


def zeros() -> dict[str, NDArray[np.int64]]:
    return {name: np.zeros(shape, np.int64) for name, shape in network.SHAPES.items()}


@given(
    name=names, seed=st.integers(0, 99), count=st.sampled_from([0, 1, 2, 9, 8193]), reach=st.sampled_from([3, 40, 1900])
)
@settings(max_examples=25)
def test_the_networks_compute_in_whole_numbers(name: str, seed: int, count: int, reach: int) -> None:
    """With one place for all, and with one for each, across blocks of inputs."""
    tensors, rng = some_tensors(seed, reach=reach), np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (count, network.INPUTS), dtype=np.uint8)
    each = rng.integers(0, network.PLACES[name], count)
    for place in (seed % network.PLACES[name], each):
        found = BlockNetwork(tensors).probabilities(name, inputs, place)
        assert (found.dtype, found.shape) == (np.int32, (count, network.OUTPUTS[name]))
        np.testing.assert_array_equal(found, naive_probabilities(tensors, name, inputs, place))
        assert count == 0 or PROBABILITY_MIN <= found.min() <= found.max() <= 65536 - PROBABILITY_MIN


@pytest.mark.parametrize("name", network.OUTPUTS)
def test_sums_at_the_limit_are_exact(name: str) -> None:
    """Of weights and inputs that make sums as large as they may be, of both signs."""
    tensors = zeros()
    for layer, bias in (("inputs", "place"), ("hidden", "hidden"), ("out", "out")):
        weight, most = tensors[f"{name}.{layer}.weight"], (1 << 24) - 129
        weight[:2] = 32000
        weight[:, 1::2] *= -1
        left = most - 255 * np.abs(weight).sum(axis=0)
        tensors[f"{name}.{bias}.bias"][...] = left * np.where(np.arange(weight.shape[1]) % 2, -1, 1)
    inputs = np.full((3, network.INPUTS), 255, np.uint8)
    inputs[1, 0] = inputs[2, 1] = 254
    found = BlockNetwork(tensors).probabilities(name, inputs, 0)
    np.testing.assert_array_equal(found, naive_probabilities(tensors, name, inputs, 0))


def test_inputs_that_are_given_stay() -> None:
    inputs = np.full((4, network.INPUTS), 7, np.uint8)
    BlockNetwork(some_tensors()).probabilities("size", inputs, 3)
    assert (inputs == 7).all()
    tensors = some_tensors()
    BlockNetwork(tensors)
    for name, tensor in some_tensors().items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_places_are_as_many_as_are_asked_for() -> None:
    """Three sizes by four phases that may be cut, and modes of four; of coefficients colour, size and diagonal."""
    assert network.PLACES["layout"] == (len(SIZES) - 1) * len(PHASES) + len(SIZES)
    assert network.OUTPUTS["layout"] == 1 + LIKELY
    assert network.PLACES["extent"] == network.PLACES["size"] == 3 * len(SIZES) * DIAGONALS


def test_the_networks_of_the_package_are_those_of_the_specification() -> None:
    data = (resources.files("tokcodec") / "weights" / network.FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == network.SHA256
    assert f"blocks-{network.SHA256[:12]}.safetensors" == network.FILE
    tensors = unpack(data)
    assert pack(tensors) == data
    inputs = np.random.default_rng(1).integers(0, 256, (500, network.INPUTS), dtype=np.uint8)
    for name, places in network.PLACES.items():
        for place in (0, places // 2, places - 1):
            found = block_network().probabilities(name, inputs, place)
            np.testing.assert_array_equal(found, naive_probabilities(tensors, name, inputs, place))
            assert len(np.unique(found)) > 50


def test_damaged_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(network, "SHA256", "0" * 64)
        with pytest.raises(ModelError, match="damaged"):
            block_network.__wrapped__()
    monkeypatch.setattr(network, "FILE", "blocks-none.safetensors")
    with pytest.raises(ModelError, match="missing"):
        block_network.__wrapped__()


def test_tensors_come_back() -> None:
    tensors = some_tensors(3)
    back = unpack(pack(tensors))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.parametrize("name", network.OUTPUTS)
@pytest.mark.parametrize(("layer", "bias"), [("inputs", "place"), ("hidden", "hidden"), ("out", "out")])
def test_sums_that_could_be_too_large_are_refused(name: str, layer: str, bias: str) -> None:
    """Exactly one more than can be is too much, of either sign, and of one place."""
    for sign in (1, -1):
        tensors = zeros()
        tensors[f"{name}.{layer}.weight"][:2, -1] = 32767, -32767
        biases = tensors[f"{name}.{bias}.bias"].reshape(-1, tensors[f"{name}.{bias}.bias"].shape[-1])
        biases[len(biases) // 2, -1] = sign * ((1 << 24) - 1 - 128 - 2 * 32767 * 255)
        BlockNetwork(tensors)
        biases[len(biases) // 2, -1] += sign
        with pytest.raises(ModelError, match=rf"sum of {name}\.{layer}"):
            BlockNetwork(tensors)


def test_tensors_that_do_not_fit_are_refused() -> None:
    good = some_tensors(1)
    for wrong in (
        {name: tensor for name, tensor in good.items() if name != "size.out.bias"},
        {name: tensor for name, tensor in good.items() if not name.startswith("layout.")},
        {**good, "more.bias": good["size.out.bias"]},
        {**good, "layout.out.weight": good["layout.out.weight"].T},
        {**good, "layout.place.bias": good["size.place.bias"]},
    ):
        for function in (BlockNetwork, pack):
            with pytest.raises(ModelError, match="tensor"):
                function(wrong)
    for name, most in (("extent.out.weight", 1 << 15), ("extent.place.bias", 1 << 31)):
        wide = zeros()
        wide[name][0, 0] = most
        with pytest.raises(ModelError, match=r"type|sum of"):
            pack(wide)
    wide = zeros()
    wide["extent.out.weight"][0, 0] = 1 << 15
    BlockNetwork(wide)


def test_files_that_are_no_network_are_refused() -> None:
    from safetensors.numpy import save

    with pytest.raises(ModelError, match="safetensors"):
        unpack(b"nothing")
    with pytest.raises(ModelError, match="types"):
        unpack(save({"size.out.bias": np.zeros(4, np.int64)}))
    few = unpack(save({"size.out.bias": np.zeros(4, np.int32)}))
    with pytest.raises(ModelError, match="exactly the tensors"):
        BlockNetwork(few)
    other = unpack(save({name: np.zeros(shape, np.float32) for name, shape in [("more", (3,))]}))
    with pytest.raises(ModelError, match="exactly the tensors"):
        BlockNetwork(other)
