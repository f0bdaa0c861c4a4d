"""The network that says how likely decisions of motion maps are, in whole numbers (spec section 7.14)."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_films import some_tensors
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_MAPS
from tokcodec.motion_bits import PREFIX_BITS
from tokcodec.motion_context import INPUTS, SETS
from tokcodec.probability import motion_network as network
from tokcodec.probability.decision_network import DecisionNetwork, Sizes, check
from tokcodec.probability.logistic import SQUASH, STRETCH_MAX
from tokcodec.probability.motion_network import KINDS, SIZES, MotionNetwork, motion_network, pack, place, unpack

SPEC = Path(__file__).parents[1] / "bitstream_spec.md"
SHAPES = SIZES.shapes()
Tensors = dict[str, NDArray[np.int64]]
axes, numbers, groups = st.integers(0, 1), st.integers(0, MOTION_MAPS - 1), st.integers(0, SETS - 1)


def naive_stretches(tensors: Tensors, inputs: NDArray[np.uint8], row: int | NDArray[np.integer]) -> NDArray[np.int64]:
    """In whole numbers throughout."""
    x = inputs.astype(np.int64) @ tensors["inputs.weight"] + tensors["place.bias"][row]
    x = (x + 128 >> 8).clip(0, 255) @ tensors["hidden.weight"] + tensors["hidden.bias"]
    x = (x + 128 >> 8).clip(0, 255) @ tensors["out.weight"] + tensors["out.bias"]
    return (x + 128 >> 8).clip(-2047, 2047)


def zeros() -> Tensors:
    return {name: np.zeros(shape, np.int64) for name, shape in SHAPES.items()}


# --- what it says ---


@given(
    seed=st.integers(0, 99),
    count=st.sampled_from([0, 1, 2, 9, 8193]),
    reach=st.sampled_from([3, 40, 1700]),
    axis=axes,
    number=numbers,
    group=groups,
)
@settings(max_examples=25)
def test_the_network_computes_in_whole_numbers(
    seed: int, count: int, reach: int, axis: int, number: int, group: int
) -> None:
    tensors, rng = some_tensors(seed, reach=reach), np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (count, INPUTS), dtype=np.uint8)
    found = MotionNetwork(tensors).stretches(inputs, axis=axis, number=number, group=group)
    assert (found.dtype, found.shape) == (np.int32, (count, KINDS))
    np.testing.assert_array_equal(found, naive_stretches(tensors, inputs, 49 * axis + 7 * number + group))
    assert count == 0 or -2047 <= found.min() <= found.max() <= 2047


@given(seed=st.integers(0, 99), count=st.sampled_from([1, 7, 8193]), many=st.booleans())
@settings(max_examples=15)
def test_places_may_be_one_for_all_or_one_each(seed: int, count: int, many: bool) -> None:
    """What networks of decisions have in common; their probabilities are what the stretches stand for."""
    tensors, rng = some_tensors(seed), np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (count, INPUTS), dtype=np.uint8)
    row = rng.integers(0, SIZES.places, count) if many else int(rng.integers(SIZES.places))
    both = DecisionNetwork(tensors, SIZES)
    wanted = naive_stretches(tensors, inputs, row)
    np.testing.assert_array_equal(both.stretches(inputs, row), wanted)
    np.testing.assert_array_equal(both.probabilities(inputs, row), SQUASH[wanted + STRETCH_MAX])
    named = {f"some.{name}": tensor for name, tensor in tensors.items()}
    np.testing.assert_array_equal(DecisionNetwork(named, SIZES, name="some").stretches(inputs, row), wanted)


@pytest.mark.parametrize("side", [1, -1])
def test_sums_at_the_limit_are_exact(side: int) -> None:
    """Of weights and inputs that make sums as large as they may be, of both signs."""
    tensors = zeros()
    for layer, bias in (("inputs", "place"), ("hidden", "hidden"), ("out", "out")):
        weight, most = tensors[f"{layer}.weight"], (1 << 24) - 129
        weight[:2] = 32000 * side
        weight[:, 1::2] *= -1
        left = most - 255 * np.abs(weight).sum(axis=0)
        tensors[f"{bias}.bias"][...] = side * left * np.where(np.arange(weight.shape[1]) % 2, -1, 1)
    inputs = np.full((3, INPUTS), 255, np.uint8)
    inputs[1, 0] = inputs[2, 1] = 254
    found = MotionNetwork(tensors).stretches(inputs, axis=0, number=0, group=0)
    np.testing.assert_array_equal(found, naive_stretches(tensors, inputs, 0))
    assert {int(value) for value in np.unique(abs(found))} <= {0, 2047}


def test_sums_just_below_a_step_are_not_rounded_up() -> None:
    """Each of the three shifts rounds halves up, and what is one less down: one to the next layer, or nothing."""
    tensors = zeros()
    tensors["place.bias"][:] = [127, 128, 383, 384, -129, -128, *[0] * 26]
    tensors["hidden.weight"][:6, :6] = 256 * np.eye(6, dtype=np.int64)
    tensors["out.weight"][:6, :6] = 256 * np.eye(6, dtype=np.int64)
    found = MotionNetwork(tensors).stretches(np.zeros((1, INPUTS), np.uint8), axis=1, number=6, group=6)
    assert found[0, :6].tolist() == [0, 1, 1, 2, 0, 0]
    tensors = zeros()
    tensors["out.bias"][:8] = [127, 128, -128, -129, -384, -385, 2047 * 256 + 128, -2048 * 256]
    found = MotionNetwork(tensors).stretches(np.zeros((1, INPUTS), np.uint8), axis=0, number=3, group=1)
    assert found[0, :8].tolist() == [0, 1, 0, -1, -1, -2, 2047, -2047]


def test_inputs_and_tensors_that_are_given_stay() -> None:
    inputs = np.full((4, INPUTS), 7, np.uint8)
    tensors = some_tensors()
    MotionNetwork(tensors).stretches(inputs, axis=0, number=2, group=3)
    assert (inputs == 7).all()
    for name, tensor in some_tensors().items():
        np.testing.assert_array_equal(tensors[name], tensor)


# --- places ---


def test_every_place_has_a_row_of_its_own() -> None:
    """Of 98: two axes, seven maps, seven sets."""
    found = {
        (axis, number, group): place(axis=axis, number=number, group=group)
        for axis in (0, 1)
        for number in range(MOTION_MAPS)
        for group in range(SETS)
    }
    assert sorted(found.values()) == list(range(98))
    assert SHAPES["place.bias"] == (98, 32)
    assert all(row == 49 * axis + 7 * number + group for (axis, number, group), row in found.items())


def test_a_row_is_asked_for_by_its_place_alone() -> None:
    """A network that says nothing but the number of the row, once for each."""
    tensors = zeros()
    tensors["place.bias"][:, 0] = 256 * np.arange(98)
    tensors["hidden.weight"][0, 0] = tensors["out.weight"][0, 0] = 256
    small, inputs = MotionNetwork(tensors), np.zeros((2, INPUTS), np.uint8)
    for axis in (0, 1):
        for number in range(MOTION_MAPS):
            for group in range(SETS):
                found = small.stretches(inputs, axis=axis, number=number, group=group)
                assert found[:, 0].tolist() == [place(axis=axis, number=number, group=group)] * 2


# --- files ---


def test_the_network_of_the_package_is_that_of_the_specification() -> None:
    data = (resources.files("tokcodec") / "weights" / network.FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == network.SHA256
    assert f"motion-{network.SHA256[:12]}.safetensors" == network.FILE
    section = SPEC.read_text(encoding="utf-8").partition("### 7.14 ")[2]
    assert f"`tokcodec/weights/{network.FILE}`" in section
    assert f"\n    {network.SHA256}\n" in section
    assert KINDS == 2 + PREFIX_BITS
    assert {name: SHAPES[name] for name in SHAPES if name.endswith("weight")} == {
        "inputs.weight": (34, 32),
        "hidden.weight": (32, 32),
        "out.weight": (32, 11),
    }
    tensors = unpack(data)
    assert pack(tensors) == data
    inputs = np.random.default_rng(1).integers(0, 256, (500, INPUTS), dtype=np.uint8)
    for axis, number, group in ((0, 0, 0), (0, 3, 6), (1, 0, 5), (1, 6, 6)):
        found = motion_network().stretches(inputs, axis=axis, number=number, group=group)
        np.testing.assert_array_equal(found, naive_stretches(tensors, inputs, 49 * axis + 7 * number + group))
        assert len(np.unique(found)) > 50


def test_damaged_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(network, "SHA256", "0" * 64)
        with pytest.raises(ModelError, match=r"motion-.*damaged"):
            motion_network.__wrapped__()
    monkeypatch.setattr(network, "FILE", "motion-none.safetensors")
    with pytest.raises(ModelError, match=r"motion-none\.safetensors of the package is missing"):
        motion_network.__wrapped__()


def test_tensors_come_back() -> None:
    tensors = some_tensors(3)
    data = pack(tensors)
    back = unpack(data)
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)
    assert pack(back) == pack(dict(reversed(tensors.items()))) == data
    inputs = np.random.default_rng(2).integers(0, 256, (50, INPUTS), dtype=np.uint8)
    for own in (tensors, back):
        found = MotionNetwork(own).stretches(inputs, axis=1, number=4, group=2)
        np.testing.assert_array_equal(found, naive_stretches(tensors, inputs, 79))


@pytest.mark.parametrize(("layer", "bias"), [("inputs", "place"), ("hidden", "hidden"), ("out", "out")])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_could_be_too_large_are_refused(layer: str, bias: str, sign: int) -> None:
    """Exactly one more than can be is too much, of either sign, and of one place."""
    tensors = zeros()
    tensors[f"{layer}.weight"][:2, -1] = 32767, -32767
    biases = tensors[f"{bias}.bias"].reshape(-1, tensors[f"{bias}.bias"].shape[-1])
    biases[len(biases) // 2, -1] = sign * ((1 << 24) - 1 - 128 - 2 * 32767 * 255)
    MotionNetwork(tensors)
    pack(tensors)
    biases[len(biases) // 2, -1] += sign
    for function in (MotionNetwork, pack):
        with pytest.raises(ModelError, match=f"a sum of {layer} can reach 16777216, not below 16777216"):
            function(tensors)


def test_tensors_that_do_not_fit_are_refused() -> None:
    good = some_tensors(1)
    for wrong in (
        {name: tensor for name, tensor in good.items() if name != "out.bias"},
        {},
        {**good, "more.bias": good["out.bias"]},
        {f"motion.{name}": tensor for name, tensor in good.items()},
    ):
        for function in (MotionNetwork, pack):
            with pytest.raises(ModelError, match="exactly the tensors") as caught:
                function(wrong)
            assert caught.value.message.endswith(", ".join(SHAPES))
    for name, shaped in (
        ("out.weight", good["out.weight"].T),
        ("place.bias", good["place.bias"][:-1]),
        ("hidden.bias", good["hidden.bias"][None]),
        ("inputs.weight", good["inputs.weight"][:30]),
    ):
        for function in (MotionNetwork, pack):
            with pytest.raises(ModelError, match=f"the tensor {name} is .*, must be ") as caught:
                function({**good, name: shaped})
            assert str(SHAPES[name]) in caught.value.message
    for name, most in (("out.weight", 1 << 15), ("place.bias", 1 << 31)):
        wide = zeros()
        wide[name][0, 0] = most
        with pytest.raises(ModelError, match=r"type|sum of"):
            pack(wide)
    wide = zeros()
    wide["out.weight"][0, 0] = 1 << 15
    MotionNetwork(wide)


def test_a_tensor_that_is_missing_is_named() -> None:
    """Also where other networks lie in the same file."""
    sizes = Sizes(inputs=3, places=2, hidden=4, outputs=1)
    tensors = {f"own.{name}": np.zeros(shape, np.int64) for name, shape in sizes.shapes().items()}
    check({**tensors, "other.bias": np.zeros(1, np.int64)}, sizes, name="own")
    for name in sizes.shapes():
        few = {key: tensor for key, tensor in tensors.items() if key != f"own.{name}"}
        for function in (DecisionNetwork, check):
            with pytest.raises(ModelError, match=f"the tensor own.{name} is missing, must be "):
                function(few, sizes, name="own")
    with pytest.raises(ModelError, match=r"the tensor inputs\.weight is missing"):
        check(tensors, sizes)
    tensors["own.out.bias"][:] = 1 << 24
    with pytest.raises(ModelError, match=r"a sum of own\.out can reach"):
        check(tensors, sizes, name="own")


def test_files_that_are_no_network_are_refused() -> None:
    from safetensors.numpy import save

    with pytest.raises(ModelError, match="safetensors"):
        unpack(b"nothing")
    with pytest.raises(ModelError, match="types"):
        unpack(save({"out.bias": np.zeros(KINDS, np.int64)}))
    for name, dtype in (("out.weight", np.int32), ("out.bias", np.int16)):
        given_tensors = {key: array.astype(np.int16) for key, array in zeros().items()}
        given_tensors |= {key: array.astype(np.int32) for key, array in zeros().items() if key.endswith("bias")}
        unpack(save(given_tensors))
        with pytest.raises(ModelError, match="types"):
            unpack(save({**given_tensors, name: given_tensors[name].astype(dtype)}))
    few = unpack(save({"out.bias": np.zeros(KINDS, np.int32)}))
    with pytest.raises(ModelError, match="exactly the tensors"):
        MotionNetwork(few)
    other = unpack(save({"more": np.zeros(3, np.float32)}))
    with pytest.raises(ModelError, match="exactly the tensors"):
        MotionNetwork(other)
