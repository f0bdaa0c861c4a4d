"""Residuals of later steps <-> bytes (spec section 7.12), and the network that says how likely they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import test_picture_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bits import assert_refused_or_the_code_of_others, decode_like
from test_picture_bits import Coefficients, Scripted, drawn, naive_contexts, naive_probabilities

from tokcodec import picture_bits
from tokcodec.bands import BANDS
from tokcodec.bits import encode_tokens, picture_bit_count, residual_bit_count, tokens_crc32
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, RESIDUAL_SPACING
from tokcodec.picture_context import PictureContext
from tokcodec.probability import picture_network as network
from tokcodec.probability.network_file import unpack
from tokcodec.probability.picture_network import pack, residual_network
from tokcodec.residual_bits import LIKELY, RESIDUAL_BANDS, SELDOM, ResidualTraversal
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, residual_shape

GEOMETRY = TokenGeometry(bits_per_token=1, level_bits=(0, 1), block_tokens=64, pictures=True, residuals=True)
"""Tokens that cost next to nothing, as does an empty picture."""
Residuals = Sequence[Picture | None]


def chunk_of(
    residuals: Residuals, *, rows: int = 3, columns: int = 2, geometry: TokenGeometry = GEOMETRY
) -> TokenChunk:
    """A chunk with these residuals, and nothing else."""
    steps = 1 + len(residuals)
    empty = np.zeros((3, 8 * rows, 8 * columns), np.int16)
    return TokenChunk(
        indices=np.zeros((steps, rows, columns), np.uint64),
        levels=np.zeros((steps, *geometry.blocks(rows, columns)), np.uint8),
        geometry=geometry,
        picture=Picture(coefficients=empty, scale=0) if geometry.pictures else None,
        residuals=tuple(residuals) if geometry.residuals else (),
    )


def residual_of(
    rows: int, columns: int, *, density: float = 0.2, reach: int = 9, seed: int = 1, scale: int = 20
) -> Picture:
    """One that is not zero everywhere."""
    coefficients = drawn(2 * rows, 2 * columns, density=density, reach=reach, seed=seed)
    if not coefficients.any():
        coefficients[seed % 3, -1, -1] = -reach
    return Picture(coefficients=coefficients, scale=scale)


def assert_same(found: Residuals, wanted: Residuals) -> None:
    assert [each is None for each in found] == [each is None for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        if one is not None and other is not None:
            assert one.scale == other.scale
            assert one.coefficients.dtype == np.int16
            np.testing.assert_array_equal(one.coefficients, other.coefficients)


def assert_round_trip(chunk: TokenChunk) -> bytes:
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    assert_same(back.residuals, chunk.residuals)
    assert tokens_crc32(back) == tokens_crc32(chunk)
    assert encode_tokens(back) == data
    return data


class Recorder:
    """A coder that writes down what happens, and how likely it was said to be."""

    def __init__(self) -> None:
        self.told: list[tuple[list[int], list[int]]] = []

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        assert bits.shape == probabilities.shape
        assert not probabilities.size or 0 < probabilities.min() <= probabilities.max() < 65536
        self.told.append((bits.tolist(), probabilities.tolist()))
        return bits


class Player:
    """Gives it back to one who must think the same of it, and knows nothing."""

    def __init__(self, recorder: Recorder) -> None:
        self.left = list(recorder.told)

    def code(self, bits: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        happened, likely = self.left.pop(0)
        assert probabilities.tolist() == likely
        assert len(happened) == len(bits)
        return np.asarray(happened, np.uint8)


def recorded(residuals: Residuals, shape: tuple[int, int, int]) -> Recorder:
    coder, traversal = Recorder(), ResidualTraversal(residual_network())
    for residual in residuals:
        coefficients = np.zeros(shape, np.int16) if residual is None else residual.coefficients.copy()
        wanted = None if residual is None else residual.scale
        assert traversal.code_step(coder, coefficients, wanted) == wanted
    return coder


SCALES = st.sampled_from([0, 20, 20, 20, 21, MAX_SCALE])
MADE = st.tuples(
    st.sampled_from([0.0, 0.003, 0.05, 0.5, 1.0]),
    st.sampled_from([1, 2, 3, 40, 300, MAX_COEFFICIENT]),
    SCALES,
    st.integers(0, 999),
)
STEPS = st.lists(st.none() | MADE, max_size=5)

# --- there and back ---


@given(height=st.integers(1, 19), width=st.integers(1, 19), steps=STEPS)
def test_residuals_come_back(height: int, width: int, steps: list[tuple[float, int, int, int] | None]) -> None:
    """Of any size: of one or of an odd one some bands are empty."""
    residuals: list[Picture | None] = []
    for step in steps:
        if step is None:
            residuals.append(None)
            continue
        density, reach, scale, seed = step
        coefficients = drawn(height, width, density=density, reach=reach, seed=seed)
        coefficients[seed % 3, seed % height, seed % width] = reach
        residuals.append(Picture(coefficients=coefficients, scale=scale))
    shape = (3, height, width)
    player, traversal = Player(recorded(residuals, shape)), ResidualTraversal(residual_network())
    for residual in residuals:
        coefficients = np.zeros(shape, np.int16)
        found = traversal.code_step(player, coefficients, None)
        assert found == (None if residual is None else residual.scale)
        np.testing.assert_array_equal(coefficients, 0 if residual is None else residual.coefficients)
    assert not player.left


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), steps=STEPS)
def test_chunks_come_back(rows: int, columns: int, steps: list[tuple[float, int, int, int] | None]) -> None:
    residuals = [
        step and residual_of(rows, columns, density=step[0], reach=step[1], scale=step[2], seed=step[3])
        for step in steps
    ]
    assert_round_trip(chunk_of(residuals, rows=rows, columns=columns))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 256, 16385, MAX_COEFFICIENT])
def test_one_coefficient_alone_comes_back(size: int) -> None:
    for place in ((0, 0, 0), (1, 0, 4), (2, 9, 5), (0, 8, 0), (1, 7, 3)):
        coefficients = np.zeros((3, 10, 6), np.int16)
        coefficients[place] = size
        for found in (coefficients, -coefficients):
            chunk = chunk_of([None, Picture(coefficients=found, scale=9)], rows=5, columns=3)
            assert len(assert_round_trip(chunk)) <= 24


def test_residuals_lie_among_the_tokens_and_change_none() -> None:
    geometry = TokenGeometry(motion_tokens=2, motion_maps=7, pictures=True, residuals=True)
    rng = np.random.default_rng(3)
    levels = np.full((4, *geometry.blocks(5, 6)), 6, np.uint8)
    indices = rng.integers(0, 1 << 18, (4, 5, 6), dtype=np.uint64)
    vectors = rng.integers(-9, 9, (4, *geometry.motion_blocks(5, 6), 2)).astype(np.int16)
    levels[0], indices[0], vectors[0] = 0, 0, 0
    picture = Picture(coefficients=drawn(40, 48, density=0.1, reach=30, seed=1), scale=21)
    residuals = (residual_of(5, 6, seed=2), None, residual_of(5, 6, seed=3, scale=24))
    chunk = TokenChunk(
        indices=indices, levels=levels, geometry=geometry, vectors=vectors, picture=picture, residuals=residuals
    )
    back = decode_like(chunk, assert_round_trip(chunk))
    for name in ("indices", "levels", "vectors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))
    assert back.picture is not None
    np.testing.assert_array_equal(back.picture.coefficients, picture.coefficients)


def test_coding_leaves_residuals_alone() -> None:
    residual = residual_of(3, 2)
    before = residual.coefficients.copy()
    chunk = chunk_of([residual])
    data = encode_tokens(chunk)
    residual_bit_count(chunk)
    np.testing.assert_array_equal(residual.coefficients, before)
    residual.coefficients.flags.writeable = False
    assert encode_tokens(chunk) == data
    other = replace(residual, coefficients=np.asfortranarray(residual.coefficients))
    assert encode_tokens(chunk_of([other])) == data


def test_bands_are_the_coarsest_of_a_picture() -> None:
    assert len(RESIDUAL_BANDS) == 10
    for shape in ((2, 2), (18, 10), (16, 24)):
        count = np.zeros(shape, int)
        for band in RESIDUAL_BANDS:
            count[band.rows, band.columns] += 1
        assert (count == 1).all()
    for band, whole in zip(RESIDUAL_BANDS, BANDS, strict=False):
        for side in ("rows", "columns"):
            few, many = getattr(band, side), getattr(whole, side)
            assert (RESIDUAL_SPACING * few.start, RESIDUAL_SPACING * few.step) == (many.start, many.step)
        assert (band.number, band.coarser, band.others) == (whole.number, whole.coarser, whole.others)


# --- chunks that have none ---


def test_without_residuals_given_no_step_has_one() -> None:
    plain = replace(chunk_of([None] * 3), residuals=())
    assert plain.residuals == (None,) * 3
    assert [plain.residual_of(step) for step in range(4)] == [None] * 4
    assert chunk_of([]).residuals == ()
    first, last = residual_of(3, 2, seed=1), residual_of(3, 2, seed=2)
    chunk = chunk_of([first, None, last])
    assert [chunk.residual_of(step) for step in range(4)] == [None, first, None, last]
    without = replace(GEOMETRY, residuals=False)
    assert chunk_of([None] * 3, geometry=without).residual_of(2) is None
    assert residual_shape(GEOMETRY, 5, 7) == (3, 10, 14)


def test_no_residuals_cost_next_to_nothing() -> None:
    without = chunk_of([None] * 40, geometry=replace(GEOMETRY, residuals=False))
    with_none = chunk_of([None] * 40)
    assert len(encode_tokens(with_none)) <= len(encode_tokens(without)) + 4
    assert residual_bit_count(with_none) == residual_bit_count(without) == residual_bit_count(chunk_of([])) == 0


def test_what_residuals_cost_is_told_apart() -> None:
    residuals = [residual_of(8, 6, density=0.3, reach=20, seed=seed) for seed in range(3)]
    chunk, nothing = chunk_of([*residuals, None], rows=8, columns=6), chunk_of([None] * 4, rows=8, columns=6)
    both, without = (8 * len(encode_tokens(found)) for found in (chunk, nothing))
    assert both - without == pytest.approx(residual_bit_count(chunk), abs=128)
    assert residual_bit_count(chunk) > 1000
    assert picture_bit_count(chunk) == picture_bit_count(nothing) <= 64


# --- what is likely ---


def test_what_was_so_before_is_likely() -> None:
    """Whether there is a residual, whether its scale is the same, and in which bands it has coefficients."""
    one = np.zeros((3, 8, 8), np.int16)
    one[1, 0, 4] = 2  # of the second of all bands, which are three times as many flags
    residuals = [None, *[Picture(coefficients=one, scale=scale) for scale in (20, 20, 23)], None, None]
    told = iter(recorded(residuals, one.shape).told)

    def flags() -> None:
        """Those of all bands and colours, of which one has some: the sizes of these are passed by."""
        expected = 0
        for band in range(len(RESIDUAL_BANDS)):
            for colour in range(3):
                there, likely = next(told)
                assert (there, likely) == ([int((band, colour) == (1, 1))], [LIKELY if seen[band, colour] else SELDOM])
                if there[0]:
                    # One coefficient in the one phase that the band has here: is it, its sign, and above 1, above 2.
                    expected += 1
                    assert [next(told)[0] for _ in range(4)] == [[1], [0], [1], [0]]
                    seen[band, colour] = True
        assert expected == 1

    seen = np.zeros((10, 3), bool)
    assert next(told) == ([0], [SELDOM])
    assert next(told) == ([1], [SELDOM])
    assert [next(told) for _ in range(6)] == [([int(bit)], [32768]) for bit in f"{20:06b}"]
    flags()
    assert [next(told) for _ in range(2)] == [([1], [LIKELY]), ([1], [LIKELY])]
    flags()
    assert [next(told) for _ in range(2)] == [([1], [LIKELY]), ([0], [LIKELY])]
    assert [next(told) for _ in range(6)] == [([int(bit)], [32768]) for bit in f"{23:06b}"]
    flags()
    assert [next(told) for _ in range(2)] == [([0], [LIKELY]), ([0], [SELDOM])]
    assert next(told, None) is None


def test_bands_are_remembered_over_steps_without_a_residual() -> None:
    residual = residual_of(4, 4, density=1.0)
    shape = residual.coefficients.shape
    together, apart = (recorded(steps, shape).told for steps in ([residual] * 2, [residual, None, residual]))
    start = len(recorded([residual], shape).told)
    assert together[start + 1 :] == apart[start + 2 :], "but for whether there is one"
    assert together[start] == ([1], [LIKELY])
    assert apart[start : start + 2] == [([0], [LIKELY]), ([1], [SELDOM])]


@pytest.mark.parametrize(
    ("height", "width", "density", "reach"), [(2, 2, 0.6, 3), (18, 10, 0.3, 9), (6, 14, 0.9, 400), (10, 16, 0.02, 2)]
)
def test_inputs_are_those_of_the_specification(
    height: int, width: int, density: float, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[tuple[int, int, int], list[list[int]]]] = []
    asked = []

    class Spy(PictureContext):
        def __init__(self, known, band, colour, scale):
            super().__init__(known, band, colour, scale)
            asked.append((band.number, colour))

        def inputs(self, phase):
            found = super().inputs(phase)
            seen.append(((*asked[-1], phase), found.tolist()))
            return found

    def naive_bands(height: int, width: int) -> list[tuple[list[int], list[int]]]:
        found = [([*range(0, height, 8)], [*range(0, width, 8)])]
        for n in (3, 2, 1):
            h = 2 ** (n - 1)
            for down, right in ((0, h), (h, 0), (h, h)):
                found.append(([*range(down, height, 2 * h)], [*range(right, width, 2 * h)]))
        return found

    coefficients, scale = drawn(height, width, density=density, reach=reach, seed=height), 17
    coefficients[0, 0, 0] = 1
    monkeypatch.setattr(picture_bits, "PictureContext", Spy)
    monkeypatch.setattr(test_picture_bits, "naive_bands", naive_bands)
    recorded([Picture(coefficients=coefficients, scale=scale)], coefficients.shape)
    wanted = list(naive_contexts(coefficients, scale))
    assert [key for key, _ in seen] == [key for key, _ in wanted]
    for (key, found), (_, lines) in zip(seen, wanted, strict=True):
        assert (key, found) == (key, lines)
    assert len(wanted) > 5


def test_the_network_is_that_of_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = residual_network().probabilities
    monkeypatch.setattr(residual_network(), "probabilities", lambda *a, **k: asked.append(k) or real(*a, **k))
    encode_tokens(chunk_of([residual_of(4, 4, density=1.0)], rows=4, columns=4))
    assert {each["band"] for each in asked} == set(range(10))


def test_the_network_of_the_package_is_the_one_of_the_specification() -> None:
    data = (resources.files("tokcodec") / "weights" / network.RESIDUAL_FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == network.RESIDUAL_SHA256
    assert f"residual-{network.RESIDUAL_SHA256[:12]}.safetensors" == network.RESIDUAL_FILE
    assert network.RESIDUAL_SHA256 != network.SHA256
    tensors = unpack(data)
    assert pack(tensors) == data
    inputs = np.random.default_rng(1).integers(0, 256, (500, network.INPUTS), dtype=np.uint8)
    for band, colour, phase in ((0, 0, 0), (9, 2, 3), (5, 1, 2)):
        found = residual_network().probabilities(inputs, band=band, colour=colour, phase=phase)
        wanted = naive_probabilities(tensors, inputs, band=band, colour=colour, phase=phase)
        np.testing.assert_array_equal(found, wanted)
        assert len(np.unique(found)) > 50


def test_a_damaged_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RESIDUAL_SHA256", "0" * 64), ("RESIDUAL_FILE", "nowhere.safetensors")):
        with monkeypatch.context() as patch:
            patch.setattr(network, name, value)
            with pytest.raises(ModelError, match="damaged"):
                residual_network.__wrapped__()


# --- the checksum ---


def test_the_checksum_knows_every_part_of_a_residual() -> None:
    residual, nothing = residual_of(3, 2), np.zeros((3, 6, 4), np.int16)
    other, turned = residual.coefficients.copy(), residual.coefficients.copy()
    other[2, 5, 3] += 1
    place = tuple(np.argwhere(turned)[-1])
    turned[place] = -turned[place]
    some = [
        [residual, None, None],
        [None, residual, None],
        [residual, residual, None],
        [None, None, None],
        [replace(residual, coefficients=other), None, None],
        [replace(residual, coefficients=turned), None, None],
        [replace(residual, scale=21), None, None],
        [replace(residual, coefficients=nothing, scale=0), None, None],
    ]
    assert len({tokens_crc32(chunk_of(each)) for each in some}) == len(some)
    without = chunk_of([None] * 3, geometry=replace(GEOMETRY, residuals=False))
    assert tokens_crc32(without) != tokens_crc32(chunk_of([None] * 3)), "whether there is one is told"


# --- what is refused ---


@given(data=st.binary(max_size=120) | st.binary(min_size=1, max_size=40).map(lambda part: part * 4))
@settings(max_examples=250)
def test_random_words_are_refused_or_are_the_code_of_what_they_say(data: bytes) -> None:
    shape = chunk_of([None] * 6)
    try:
        found = decode_like(shape, data)
    except CorruptStreamError:
        return
    assert len(found.residuals) == 6
    assert encode_tokens(found) == data


@given(at=st.integers(0), bit=st.integers(0, 7), density=st.sampled_from([0.0, 0.05, 0.9]))
def test_altered_words_are_refused_or_are_the_code_of_others(at: int, bit: int, density: float) -> None:
    residuals = [residual_of(3, 2, density=density, reach=500), None, residual_of(3, 2, density=density, scale=24)]
    assert_refused_or_the_code_of_others(chunk_of(residuals), at=at, bit=bit)


def test_words_that_are_too_few_or_too_many_are_refused() -> None:
    chunk = chunk_of([residual_of(3, 2, density=0.6, reach=99)] * 3)
    data = encode_tokens(chunk)
    for wrong in (data[:-4], data[:8], data + bytes(4), data[:-1], b""):
        with pytest.raises(CorruptStreamError):
            decode_like(chunk, wrong)
    with pytest.raises(CorruptStreamError):
        decode_like(chunk_of([None] * 2), data)


def begun() -> ResidualTraversal:
    """One that has coded a residual of scale 20."""
    traversal = ResidualTraversal(residual_network())
    traversal.code_step(Recorder(), residual_of(5, 3).coefficients, 20)
    return traversal


def empty() -> Coefficients:
    return np.zeros((3, 10, 6), np.int16)


def test_a_residual_without_coefficients_is_refused() -> None:
    for traversal, script in (
        (ResidualTraversal(residual_network()), [1, *[0] * 6, 0]),
        (begun(), [1, 1, 0]),
        (begun(), [1, 0, 0, 0, 0, 0, 0, 1, 0]),
    ):
        with pytest.raises(CorruptStreamError, match="a residual has no coefficient"):
            traversal.code_step(Scripted(*script), empty(), None)
    assert ResidualTraversal(residual_network()).code_step(Scripted(0), empty(), 3) is None
    with pytest.raises(CorruptStreamError, match="no coefficient"):
        ResidualTraversal(residual_network()).code_step(Recorder(), empty(), 7)


def test_a_scale_that_is_said_anew_is_another() -> None:
    same, other = [1, 0, *map(int, f"{20:06b}"), 0], [1, 0, *map(int, f"{21:06b}"), 0]
    with pytest.raises(CorruptStreamError, match="another scale that is the same"):
        begun().code_step(Scripted(*same), empty(), None)
    with pytest.raises(CorruptStreamError, match="a residual has no coefficient"):
        begun().code_step(Scripted(*other), empty(), None)
    traversal = begun()
    traversal.code_step(Scripted(0), empty(), None)
    with pytest.raises(CorruptStreamError, match="another scale that is the same"):
        traversal.code_step(Scripted(*same), empty(), None)


def test_a_coefficient_that_is_too_large_is_refused() -> None:
    with pytest.raises(CorruptStreamError, match=f"beyond {MAX_COEFFICIENT}"):
        ResidualTraversal(residual_network()).code_step(Scripted(1), empty(), None)


def test_chunks_that_do_not_fit_are_refused() -> None:
    residual, nothing = residual_of(3, 2), np.zeros((3, 6, 4), np.int16)
    good = chunk_of([residual, None])
    assert_round_trip(good)
    low = residual.coefficients.copy()
    low[0, 0, 0] = np.iinfo(np.int16).min
    for wrong, message in (
        (replace(residual, scale=-1), "does not fit"),
        (replace(residual, scale=MAX_SCALE + 1), "does not fit"),
        (replace(residual, coefficients=residual.coefficients[:, :-1]), "does not fit"),
        (replace(residual, coefficients=residual.coefficients[:2]), "does not fit"),
        (replace(residual, coefficients=np.ones((3, 24, 16), np.int16)), "does not fit"),
        (replace(residual, coefficients=low), "beyond"),
        (replace(residual, coefficients=nothing), "zero everywhere"),
    ):
        with pytest.raises(UsageError, match=message):
            encode_tokens(replace(good, residuals=(None, wrong)))
    for residuals in ((residual,), (residual, None, None)):
        with pytest.raises(UsageError, match=f"{len(residuals)} residuals do not fit 3 steps"):
            encode_tokens(replace(good, residuals=residuals))
    plain = replace(chunk_of([None] * 2, geometry=replace(GEOMETRY, residuals=False)), residuals=(residual, None))
    with pytest.raises(UsageError, match="2 residuals do not fit"):
        encode_tokens(plain)
