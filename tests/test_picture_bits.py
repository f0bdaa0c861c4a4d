"""First pictures <-> bytes (spec section 7.11), and the network that says how likely they are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bits import assert_refused_or_the_code_of_others, decode_like

from tokcodec import chunk_checks, picture_bits
from tokcodec.bands import BANDS
from tokcodec.bits import encode_tokens, picture_bit_count, tokens_crc32
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.picture_bits import PictureTraversal
from tokcodec.picture_context import PictureContext
from tokcodec.probability import picture_network as network
from tokcodec.probability.logistic import SQUASH
from tokcodec.probability.network_file import unpack
from tokcodec.probability.picture_network import PictureNetwork, pack, picture_network
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry

GEOMETRY = TokenGeometry(bits_per_token=1, level_bits=(0, 1), block_tokens=64, pictures=True)
"""Tokens that cost next to nothing beside the picture."""
Coefficients = NDArray[np.int16]


def chunk_of(coefficients: Coefficients, scale: int = 20) -> TokenChunk:
    """A chunk of one step with this picture."""
    rows, columns = (side // 8 for side in coefficients.shape[1:])
    return TokenChunk(
        indices=np.zeros((1, rows, columns), np.uint64),
        levels=np.zeros((1, *GEOMETRY.blocks(rows, columns)), np.uint8),
        geometry=GEOMETRY,
        picture=Picture(coefficients=coefficients, scale=scale),
    )


def drawn(height: int, width: int, *, density: float, reach: int, seed: int) -> Coefficients:
    """Coefficients of which a share is not 0, of all magnitudes up to a limit, each length as often as any other."""
    rng, shape = np.random.default_rng(seed), (3, height, width)
    sizes = np.exp(rng.uniform(0, math.log(reach + 1), shape)).astype(int).clip(1, reach)
    return np.where(rng.random(shape) < density, rng.choice([-1, 1], shape) * sizes, 0).astype(np.int16)


def assert_round_trip(chunk: TokenChunk) -> bytes:
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    assert chunk.picture is not None
    assert back.picture is not None
    assert back.picture.coefficients.dtype == np.int16
    np.testing.assert_array_equal(back.picture.coefficients, chunk.picture.coefficients)
    assert back.picture.scale == chunk.picture.scale
    assert tokens_crc32(back) == tokens_crc32(chunk)
    return data


SIDES = st.integers(1, 9).map(lambda tokens: 8 * tokens)

# --- there and back ---


@given(
    height=SIDES,
    width=SIDES,
    density=st.sampled_from([0.0, 0.003, 0.05, 0.5, 1.0]),
    reach=st.sampled_from([1, 2, 3, 4, 40, 300, MAX_COEFFICIENT]),
    scale=st.integers(0, MAX_SCALE),
    seed=st.integers(0, 999),
)
def test_any_picture_comes_back(height: int, width: int, density: float, reach: int, scale: int, seed: int) -> None:
    assert_round_trip(chunk_of(drawn(height, width, density=density, reach=reach, seed=seed), scale))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 255, 256, 16384, 16385, 16386, MAX_COEFFICIENT])
def test_one_coefficient_alone_comes_back(size: int) -> None:
    for place in ((0, 0, 0), (1, 0, 16), (2, 39, 23), (0, 32, 0), (1, 36, 20)):
        coefficients = np.zeros((3, 40, 24), np.int16)
        coefficients[place] = size
        assert len(assert_round_trip(chunk_of(coefficients))) <= 24
        assert_round_trip(chunk_of(-coefficients))


def test_bands_are_all_coefficients_and_each_once() -> None:
    for shape in ((8, 8), (72, 40), (64, 96)):
        count = np.zeros(shape, int)
        for band in BANDS:
            count[band.rows, band.columns] += 1
        assert (count == 1).all()
    assert [band.coarser for band in BANDS] == [None] * 4 + [*range(1, 13)]
    assert [band.others for band in BANDS[:5]] == [(), (), (1,), (1, 2), ()]


def test_pictures_lie_before_the_tokens_and_change_none() -> None:
    geometry = TokenGeometry(motion_tokens=2, motion_maps=7, pictures=True)
    rng = np.random.default_rng(3)
    levels = np.full((3, *geometry.blocks(5, 6)), 6, np.uint8)
    levels[0] = 0
    indices = rng.integers(0, 1 << 18, (3, 5, 6), dtype=np.uint64)
    indices[0] = 0
    vectors = rng.integers(-9, 9, (3, *geometry.motion_blocks(5, 6), 2)).astype(np.int16)
    vectors[0] = 0
    picture = Picture(coefficients=drawn(40, 48, density=0.1, reach=30, seed=1), scale=21)
    chunk = TokenChunk(indices=indices, levels=levels, geometry=geometry, vectors=vectors, picture=picture)
    assert_round_trip(chunk)
    back = decode_like(chunk, encode_tokens(chunk))
    for name in ("indices", "levels", "vectors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))


def test_the_checksum_knows_every_part_of_a_picture() -> None:
    coefficients = drawn(16, 24, density=0.2, reach=9, seed=1)
    other = coefficients.copy()
    other[2, 15, 23] += 1
    found = {tokens_crc32(chunk_of(*each)) for each in ((coefficients, 20), (other, 20), (coefficients, 21))}
    assert len(found) == 3


# --- the same bytes everywhere ---


def test_coded_bytes_are_the_same_everywhere() -> None:
    golden = {
        "sparse": "35e16d43a74fead097d1d0db210edf117eb01cf313c61d56d2990bf7c3cf728a",
        "dense": "faf96b6f9cbc10461ca742f493c13445cc83f8ca5ebcaaabedb28efdb7bd01d6",
        "extreme": "7f0827d6c1c8fe81ff12ec753d2977216ce04b420371a98050b2aa37f30cedb1",
    }
    pictures = {
        "sparse": formula_picture(40, 72, keep=13, reach=4),
        "dense": formula_picture(72, 56, keep=2, reach=90),
        "extreme": formula_picture(24, 32, keep=1, reach=MAX_COEFFICIENT),
    }
    for name, coefficients in pictures.items():
        data = assert_round_trip(chunk_of(coefficients, 23))
        assert (name, hashlib.sha256(data).hexdigest()) == (name, golden[name])
    few = "ff1f005c9be703fb3f64de013d77e44e6cd26fdaedb708f3e7c14ef2e8f20063ca48aae877fa70886064"
    few += "473d96bc29d1c29aef33ffed7ea62cff70f720b74f65dc17fc0914367130b6f4441441d063e5fa177623"
    assert encode_tokens(chunk_of(pictures["sparse"][:, :8, :16], 23)).hex() == few


def formula_picture(height: int, width: int, *, keep: int, reach: int) -> Coefficients:
    """Coefficients that a formula makes, of which about one in `keep` is not 0."""
    number = np.arange(3 * height * width, dtype=np.int64).reshape(3, height, width)
    noise = (number * number * 40503 + number * 2654435 + 977) % 1000003
    sizes = 1 + noise // 7 % reach
    return np.where(noise % keep == 0, np.where(noise // 3 % 2 == 0, sizes, -sizes), 0).astype(np.int16)


def test_coding_again_gives_the_same_bytes_and_leaves_the_picture_alone() -> None:
    coefficients = drawn(40, 24, density=0.2, reach=9, seed=5)
    before = coefficients.copy()
    data = encode_tokens(chunk_of(coefficients))
    np.testing.assert_array_equal(coefficients, before)
    assert encode_tokens(chunk_of(np.asfortranarray(coefficients))) == data
    coefficients.flags.writeable = False
    assert encode_tokens(chunk_of(coefficients)) == data


# --- what is known around a coefficient, word by word ---


def naive_bands(height: int, width: int) -> list[tuple[list[int], list[int]]]:
    """Rows and columns of each band (spec section 3.6)."""
    found = [([y for y in range(height) if y % 32 == 0], [x for x in range(width) if x % 32 == 0])]
    for n in (5, 4, 3, 2, 1):
        h = 2 ** (n - 1)
        for down, right in ((0, h), (h, 0), (h, h)):
            rows = [y for y in range(height) if y % (2 * h) == down]
            found.append((rows, [x for x in range(width) if x % (2 * h) == right]))
    return found


def naive_contexts(coefficients: Coefficients, scale: int) -> Iterator[tuple[tuple[int, int, int], list[list[int]]]]:
    """The inputs of every coefficient that is decoded, by loops, as section 7.11 has them."""
    bands = naive_bands(*coefficients.shape[1:])
    known: dict[tuple[int, int, int, int], int] = {}  # band, colour, row, column -> magnitude
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]

    def size_of(value: int) -> int:
        return min(255, round(32 * math.log2(1 + min(value, 255))))

    for band, (rows, columns) in enumerate(bands):
        if not rows or not columns:
            continue
        (level, place), grid = divmod(band - 1, 3), (len(rows), len(columns))
        for colour in range(3):
            if not coefficients[colour][np.ix_(rows, columns)].any():
                continue
            for phase, (down, right) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
                places = [(i, j) for i in range(down, len(rows), 2) for j in range(right, len(columns), 2)]
                if not places:
                    continue
                lines = []
                for i, j in places:

                    def m(y: int, x: int, *, b: int = band, c: int = colour) -> int:
                        return min(255, known.get((b, c, y, x), 0))

                    def both(
                        b: int, c: int, i: int = i, j: int = j, *, halved: int = 1, grid: tuple[int, int] = grid
                    ) -> list[int]:
                        """There, and the sum of the eight around that lie in this band's grid."""
                        there = [(i + y, j + x) for y, x in around if 0 <= i + y < grid[0] and 0 <= j + x < grid[1]]
                        near = sum(m(y // halved, x // halved, b=b, c=c) for y, x in there)
                        return [m(i // halved, j // halved, b=b, c=c), near]

                    ways = [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
                    line = [m(i + y, j + x) for y, x in ways]
                    line += [sum(line[:4]), sum(line[4:])]
                    line.append(sum(m(i + y, j + x) for y, x in ((-2, 0), (2, 0), (0, -2), (0, 2))))
                    line += both(band - 3, colour, halved=2) if band >= 4 else [0, 0]
                    line += both(3 * level + 1, colour) if band and place >= 1 else [0, 0]
                    line += both(3 * level + 2, colour) if band and place >= 2 else [0, 0]
                    line += both(band, 0) if colour >= 1 else [0, 0]
                    line += both(band, 1) if colour == 2 else [0, 0]
                    lines.append([*map(size_of, line), 4 * scale])
                yield (band, colour, phase), lines
                for i, j in places:
                    known[band, colour, i, j] = abs(int(coefficients[colour, rows[i], columns[j]]))


@pytest.mark.parametrize(
    ("height", "width", "density", "reach"),
    [(8, 8, 0.6, 3), (72, 40, 0.3, 9), (24, 56, 0.9, 400), (40, 64, 0.02, 2), (16, 8, 0.5, MAX_COEFFICIENT)],
)
def test_inputs_are_those_of_the_specification(
    height: int, width: int, density: float, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coefficients, scale = drawn(height, width, density=density, reach=reach, seed=height), 17
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

    monkeypatch.setattr(picture_bits, "PictureContext", Spy)
    encode_tokens(chunk_of(coefficients, scale))
    wanted = list(naive_contexts(coefficients, scale))
    assert [key for key, _ in seen] == [key for key, _ in wanted]
    for (key, found), (_, lines) in zip(seen, wanted, strict=True):
        assert (key, found) == (key, lines)
    assert len(wanted) > 12


# --- what it costs ---


def test_nothing_costs_next_to_nothing() -> None:
    assert len(encode_tokens(chunk_of(np.zeros((3, 72, 72), np.int16)))) <= 8


def test_what_lies_together_costs_less() -> None:
    """Contexts are worth something: coefficients in patches, and the same ones at random places of their bands."""
    patches = drawn(64, 96, density=0.5, reach=6, seed=4)
    patches[:, :, 24:] = 0
    patches[:, 40:] = 0
    shuffled, rng = np.zeros_like(patches), np.random.default_rng(0)
    for band in BANDS:
        part = patches[:, band.rows, band.columns]
        shuffled[:, band.rows, band.columns] = rng.permuted(part.reshape(3, -1), axis=1).reshape(part.shape)
    together, apart = (len(encode_tokens(chunk_of(each))) for each in (patches, shuffled))
    assert together < 0.75 * apart
    few = drawn(64, 64, density=0.01, reach=1, seed=1)
    assert 8 * len(encode_tokens(chunk_of(few))) < np.count_nonzero(few) * 14


def test_what_a_picture_costs_is_told_apart() -> None:
    chunk = chunk_of(drawn(64, 48, density=0.2, reach=20, seed=2))
    nothing = chunk_of(np.zeros((3, 64, 48), np.int16))
    both, without = (8 * len(encode_tokens(found)) for found in (chunk, nothing))
    assert both - without == pytest.approx(picture_bit_count(chunk), abs=128)
    assert picture_bit_count(chunk) > 1000
    plain = TokenChunk(indices=np.zeros((2, 4, 4), np.uint64), levels=np.zeros((2, 1, 1), np.uint8))
    assert picture_bit_count(plain) == 0


# --- what is refused ---


@given(data=st.binary(max_size=120) | st.binary(min_size=1, max_size=40).map(lambda part: part * 4), rows=SIDES)
@settings(max_examples=250)
def test_random_words_are_refused_or_are_the_code_of_what_they_say(data: bytes, rows: int) -> None:
    shape = chunk_of(np.zeros((3, rows, 24), np.int16))
    try:
        found = decode_like(shape, data)
    except CorruptStreamError:
        return
    assert found.picture is not None
    assert encode_tokens(found) == data


@given(at=st.integers(0), bit=st.integers(0, 7), density=st.sampled_from([0.0, 0.05, 0.9]))
def test_altered_words_are_refused_or_are_the_code_of_others(at: int, bit: int, density: float) -> None:
    chunk = chunk_of(drawn(24, 16, density=density, reach=500, seed=1))
    assert_refused_or_the_code_of_others(chunk, at=at, bit=bit)


def test_words_that_are_too_few_or_too_many_are_refused() -> None:
    chunk = chunk_of(drawn(40, 24, density=0.3, reach=9, seed=1))
    data = encode_tokens(chunk)
    for wrong in (data[:-4], data[:8], data + bytes(4), data[:-1], b""):
        with pytest.raises(CorruptStreamError):
            decode_like(chunk, wrong)


class Scripted:
    """A coder from which these bits come, and then always the last of them."""

    def __init__(self, *script: int) -> None:
        self.script = list(script)

    def code(self, wanted: NDArray[np.uint8], probabilities: NDArray[np.int32]) -> NDArray[np.uint8]:
        assert wanted.shape == probabilities.shape
        return np.asarray([self.script.pop(0) if len(self.script) > 1 else self.script[0] for _ in wanted], np.uint8)


def test_a_band_that_is_told_and_has_nothing_is_refused() -> None:
    empty = np.zeros((3, 40, 24), np.int16)
    with pytest.raises(CorruptStreamError, match="no coefficient"):
        PictureTraversal(picture_network()).code(Scripted(0, 0, 0, 0, 0, 0, 1, 0), empty, 0)
    assert PictureTraversal(picture_network()).code(Scripted(1, 0, 0, 0, 1, 1, 0), empty, 0) == 35
    assert not empty.any()


def test_a_coefficient_beyond_all_is_refused() -> None:
    with pytest.raises(CorruptStreamError, match="beyond 32767"):
        PictureTraversal(picture_network()).code(Scripted(1), np.zeros((3, 8, 8), np.int16), 0)


def test_pictures_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = chunk_of(drawn(40, 24, density=0.3, reach=9, seed=1))
    assert good.picture is not None
    low = good.picture.coefficients.copy()
    low[1, 2, 3] = np.iinfo(np.int16).min
    for picture in (
        replace(good.picture, scale=-1),
        replace(good.picture, scale=MAX_SCALE + 1),
        replace(good.picture, coefficients=low),
        replace(good.picture, coefficients=low[:, :-1]),
        replace(good.picture, coefficients=low[:2]),
        None,
    ):
        with pytest.raises(UsageError, match="picture"):
            encode_tokens(replace(good, picture=picture))
    with pytest.raises(UsageError, match="nowhere else"):
        encode_tokens(replace(good, geometry=replace(GEOMETRY, pictures=False)))
    keeps = replace(good, levels=np.ones_like(good.levels))
    with pytest.raises(UsageError, match="beside its picture"):
        encode_tokens(keeps)
    monkeypatch.setattr(chunk_checks, "_check_picture", lambda chunk: None)
    with pytest.raises(CorruptStreamError, match="beside its picture"):
        decode_like(keeps, encode_tokens(keeps))


# --- the network ---


def some_tensors(seed: int, *, reach: int = 300) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(-reach, reach + 1, shape) * (20 if name.endswith("bias") else 1)
        for name, shape in network.SHAPES.items()
    }


def naive_probabilities(
    tensors: dict[str, NDArray[np.int64]], inputs: NDArray[np.uint8], *, band: int, colour: int, phase: int
) -> NDArray[np.int64]:
    """In whole numbers throughout."""
    x = inputs.astype(np.int64) @ tensors["inputs.weight"]
    x += tensors["band.bias"][3 * band + colour] + tensors["phase.bias"][phase]
    x = (x + 128 >> 8).clip(0, 255) @ tensors["hidden.weight"] + tensors["hidden.bias"]
    x = (x + 128 >> 8).clip(0, 255) @ tensors["out.weight"] + tensors["out.bias"]
    return SQUASH[(x + 128 >> 8).clip(-2047, 2047) + 2047]


@given(seed=st.integers(0, 99), count=st.sampled_from([1, 2, 9, 8191, 8193]), reach=st.sampled_from([3, 40, 1900]))
@settings(max_examples=25)
def test_the_network_computes_in_whole_numbers(seed: int, count: int, reach: int) -> None:
    tensors, rng = some_tensors(seed, reach=reach), np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (count, network.INPUTS), dtype=np.uint8)
    where = {"band": seed % 16, "colour": seed % 3, "phase": seed % 4}
    found = PictureNetwork(tensors).probabilities(inputs, **where)
    np.testing.assert_array_equal(found, naive_probabilities(tensors, inputs, **where))


def test_the_network_of_the_package_is_the_one_of_the_specification() -> None:
    data = (resources.files("tokcodec") / "weights" / network.FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == network.SHA256
    assert f"picture-{network.SHA256[:12]}.safetensors" == network.FILE
    tensors = unpack(data)
    assert pack(tensors) == data
    inputs = np.random.default_rng(1).integers(0, 256, (500, network.INPUTS), dtype=np.uint8)
    for band, colour, phase in ((0, 0, 0), (15, 2, 3), (7, 1, 2)):
        found = picture_network().probabilities(inputs, band=band, colour=colour, phase=phase)
        wanted = naive_probabilities(tensors, inputs, band=band, colour=colour, phase=phase)
        np.testing.assert_array_equal(found, wanted)
        assert len(np.unique(found)) > 50


def test_a_damaged_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match="damaged"):
        picture_network.__wrapped__()


def test_tensors_come_back() -> None:
    tensors = some_tensors(3)
    back = unpack(pack(tensors))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == np.int64
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [("inputs.weight", "band.bias"), ("hidden.weight", "hidden.bias"), ("out.weight", "out.bias")],
)
def test_sums_that_could_be_too_large_are_refused(weight: str, bias: str) -> None:
    """Exactly one more than can be is too much, of either sign."""
    for sign in (1, -1):
        tensors = {name: np.zeros(shape, np.int64) for name, shape in network.SHAPES.items()}
        tensors[weight][:2, 1] = 32767, -32767
        tensors[bias][..., 1] = sign * ((1 << 24) - 1 - 128 - 2 * 32767 * 255)
        PictureNetwork(tensors)
        tensors[bias][..., 1] += sign
        with pytest.raises(ModelError, match="sum of"):
            PictureNetwork(tensors)


def test_sums_count_the_bias_of_the_phase() -> None:
    tensors = {name: np.zeros(shape, np.int64) for name, shape in network.SHAPES.items()}
    tensors["band.bias"][5, 4] = 1 << 23
    tensors["phase.bias"][2, 3] = -(1 << 23)
    PictureNetwork(tensors)
    tensors["phase.bias"][2, 4] = -(1 << 23)
    with pytest.raises(ModelError, match="sum of inputs"):
        PictureNetwork(tensors)


def test_tensors_that_do_not_fit_are_refused() -> None:
    good = some_tensors(1)
    for wrong in (
        {name: tensor for name, tensor in good.items() if name != "out.bias"},
        {**good, "more.bias": good["out.bias"]},
        {**good, "out.weight": good["out.weight"].T},
    ):
        with pytest.raises(ModelError, match="tensor"):
            PictureNetwork(wrong)
    wide = {name: np.zeros_like(tensor) for name, tensor in good.items()}
    wide["out.weight"][0, 0] = 32768
    PictureNetwork(wide)
    with pytest.raises(ModelError, match="type"):
        pack(wide)


def test_files_that_are_no_network_are_refused() -> None:
    from safetensors.numpy import save

    with pytest.raises(ModelError, match="safetensors"):
        unpack(b"nothing")
    with pytest.raises(ModelError, match="types"):
        unpack(save({"out.bias": np.zeros(4, np.int64)}))
