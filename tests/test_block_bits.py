"""First pictures by blocks <-> bytes (spec section 7.13)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from block_pictures import (
    GEOMETRY,
    Counter,
    Formula,
    Scripted,
    Tally,
    chunk_of,
    drawn,
    drawn_layout,
    drawn_picture,
    even_layout,
    formula_network,
    information,
    layout_by,
    sides,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import assert_refused_or_the_code_of_others, decode_like
from test_picture_bits import formula_picture

from tokcodec import bits, chunk_checks
from tokcodec.bits import encode_tokens, picture_bit_count, tokens_crc32
from tokcodec.block_bits import BlockTraversal
from tokcodec.errors import CorruptStreamError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.picture_layout import LIKELY, MODES, SIZES, UNKNOWN, in_order, is_layout, likely_modes
from tokcodec.probability.block_network import block_network
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry


def same(one: Picture | None, other: Picture | None) -> None:
    assert one is not None
    assert other is not None
    assert one.blocks is not None
    assert other.blocks is not None
    assert (one.coefficients.dtype, one.blocks.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(one.blocks, other.blocks)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    assert one.scale == other.scale


def assert_round_trip(chunk: TokenChunk) -> bytes:
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    same(back.picture, chunk.picture)
    assert tokens_crc32(back) == tokens_crc32(chunk)
    return data


# --- there and back ---


@given(
    shape=sides,
    seed=st.integers(0, 999),
    cuts=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
    density=st.sampled_from([0.0, 0.003, 0.05, 0.5, 1.0]),
    reach=st.sampled_from([1, 2, 3, 4, 40, 300, MAX_COEFFICIENT]),
    scale=st.integers(0, MAX_SCALE),
)
@settings(max_examples=12)
def test_any_picture_comes_back(
    shape: tuple[int, int], seed: int, cuts: float, density: float, reach: int, scale: int
) -> None:
    picture = drawn_picture(*shape, seed, cuts=cuts, density=density, reach=reach, scale=scale)
    assert_round_trip(chunk_of(picture))


@pytest.mark.parametrize(("side", "cuts"), [(8, 0.0), (8, 1.0), (32, 0.0), (32, 0.6)])
def test_the_largest_of_all_come_back(side: int, cuts: float) -> None:
    signs = np.random.default_rng(1).choice([-1, 1], (3, side, side))
    coefficients = (MAX_COEFFICIENT * signs).astype(np.int16)
    picture = Picture(coefficients=coefficients, scale=MAX_SCALE, blocks=drawn_layout(side, side, 1, cuts=cuts))
    assert_round_trip(chunk_of(picture))


@pytest.mark.parametrize("level", range(4))
def test_one_coefficient_alone_comes_back(level: int) -> None:
    """At both ends of a block, and at its other corners: where it is the last one nothing says that it ends."""
    side = SIZES[level]
    blocks = even_layout(max(side, 8), max(side, 8), level, 5)
    for size, colour, row, column in (
        (1, 0, 0, 0),
        (-2, 1, side - 1, side - 1),
        (3, 2, 0, side - 1),
        (-16385, 0, side - 1, 0),
        (MAX_COEFFICIENT, 2, side - 1, side - 1),
    ):
        coefficients = np.zeros((3, 4 * len(blocks), 4 * len(blocks)), np.int16)
        coefficients[colour, row, column] = size
        assert_round_trip(chunk_of(Picture(coefficients=coefficients, scale=9, blocks=blocks)))


@pytest.mark.parametrize("mode", range(MODES))
def test_every_mode_comes_back(mode: int) -> None:
    """Among blocks of all others, so that it is likely and is not."""
    blocks = even_layout(24, 24, 3, 0)
    blocks[...] = 3 * MODES + (np.arange(36).reshape(6, 6) + mode) % MODES
    blocks[4:, 2:] = 3 * MODES + mode
    coefficients = np.zeros((3, 24, 24), np.int16)
    assert_round_trip(chunk_of(Picture(coefficients=coefficients, scale=1, blocks=blocks)))


def test_pictures_lie_before_the_tokens_and_change_none() -> None:
    geometry = TokenGeometry(motion_tokens=2, motion_maps=7, pictures=True, intra=True, residuals=True)
    rng = np.random.default_rng(3)
    levels = np.full((3, *geometry.blocks(3, 4)), 6, np.uint8)
    levels[0] = 0
    indices = rng.integers(0, 1 << 18, (3, 3, 4), dtype=np.uint64)
    indices[0] = 0
    vectors = rng.integers(-9, 9, (3, *geometry.motion_blocks(3, 4), 2)).astype(np.int16)
    vectors[0] = 0
    residual = Picture(coefficients=rng.integers(-3, 4, (3, 6, 8)).astype(np.int16), scale=20)
    picture = drawn_picture(24, 32, 1, density=0.1, reach=30, scale=21)
    chunk = TokenChunk(
        indices=indices,
        levels=levels,
        geometry=geometry,
        vectors=vectors,
        picture=picture,
        residuals=(residual, None),
    )
    assert_round_trip(chunk)
    back = decode_like(chunk, encode_tokens(chunk))
    for name in ("indices", "levels", "vectors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))
    first, second = back.residuals
    assert first is not None
    assert (second, first.blocks) == (None, None)
    np.testing.assert_array_equal(first.coefficients, residual.coefficients)
    assert back.geometry == geometry


def test_residuals_have_no_blocks() -> None:
    geometry = TokenGeometry(motion_tokens=2, motion_maps=7, pictures=True, intra=True, residuals=True)
    nothing = np.zeros((2, 3, 4), np.uint64)
    residual = Picture(coefficients=np.ones((3, 6, 8), np.int16), scale=20, blocks=np.zeros((6, 8), np.uint8))
    chunk = TokenChunk(
        indices=nothing,
        levels=np.zeros((2, *geometry.blocks(3, 4)), np.uint8),
        geometry=geometry,
        picture=drawn_picture(24, 32, 1),
        residuals=(residual,),
    )
    with pytest.raises(UsageError, match="a residual has no blocks"):
        encode_tokens(chunk)
    assert encode_tokens(replace(chunk, residuals=(replace(residual, blocks=None),)))


def test_the_checksum_knows_every_part_of_a_picture() -> None:
    picture = drawn_picture(16, 24, 1, density=0.2)
    assert picture.blocks is not None
    numbers, blocks = picture.coefficients.copy(), picture.blocks.copy()
    numbers[2, 15, 23] += 1
    blocks[blocks == blocks[0, 0]] += np.uint8(1)
    assert is_layout(blocks), "of another mode"
    others = (
        picture,
        replace(picture, coefficients=numbers),
        replace(picture, scale=21),
        replace(picture, blocks=blocks),
    )
    assert len({tokens_crc32(chunk_of(each)) for each in others}) == 4
    wavelets = replace(picture, blocks=None)
    plain = replace(chunk_of(wavelets), geometry=replace(GEOMETRY, intra=False))
    assert tokens_crc32(plain) not in {tokens_crc32(chunk_of(each)) for each in others}


def test_coding_again_gives_the_same_bytes_and_leaves_the_picture_alone() -> None:
    picture = drawn_picture(40, 24, 5, density=0.2)
    assert picture.blocks is not None
    before = picture.coefficients.copy(), picture.blocks.copy()
    data = encode_tokens(chunk_of(picture))
    other = replace(
        picture, coefficients=np.asfortranarray(picture.coefficients), blocks=np.asfortranarray(picture.blocks)
    )
    assert encode_tokens(chunk_of(other)) == data
    picture.coefficients.flags.writeable = picture.blocks.flags.writeable = False
    assert encode_tokens(chunk_of(picture)) == data
    for array, was in zip((picture.coefficients, picture.blocks), before, strict=True):
        np.testing.assert_array_equal(array, was)


def test_a_decoder_ignores_what_it_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a decoder's arrays are before, they are the same after."""
    picture = drawn_picture(40, 24, 5, density=0.2)
    assert picture.blocks is not None
    coder = bits._Encoder()
    BlockTraversal(block_network()).code(coder, bits._copied(picture))
    words = coder.finish()
    for seed in (1, 2):
        other = drawn_picture(40, 24, seed, density=0.5, scale=63)
        assert other.blocks is not None
        empty = Picture(
            coefficients=np.zeros_like(other.coefficients), scale=63, blocks=np.full_like(other.blocks, UNKNOWN)
        )
        scale = BlockTraversal(block_network()).code(bits._Decoder(words), empty)
        same(replace(empty, scale=scale), picture)


# --- the same bytes everywhere ---


def test_coded_bytes_are_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """By networks of a formula, so that they do not change with what was trained."""
    golden = {
        "sparse": "b046c29a3cea3f82f6269be9ae5415192b188252861de414d6af734ebbe8d99e",
        "dense": "7a09f73810e1ae4fb8364beb36bf41b061e31eeaf035127f1f7fd2da4b475a95",
        "extreme": "1b1879aa89b230fb36c0cf251e6d00e03800f7bc03987bd245aac046fe75cd7b",
    }
    network = formula_network()
    monkeypatch.setattr(bits, "block_network", lambda: network)
    pictures = {
        "sparse": formula_picture(40, 72, keep=13, reach=4),
        "dense": formula_picture(40, 32, keep=2, reach=90),
        "extreme": formula_picture(24, 32, keep=1, reach=MAX_COEFFICIENT),
    }
    for number, (name, coefficients) in enumerate(pictures.items()):
        blocks = layout_by(Formula(number), Formula(number + 9), *coefficients.shape[1:])
        assert len(np.unique(blocks // MODES)) > 2
        data = assert_round_trip(chunk_of(Picture(coefficients=coefficients, scale=23, blocks=blocks)))
        assert (name, hashlib.sha256(data).hexdigest()) == (name, golden[name])


# --- which decisions there are ---


def tally(picture: Picture) -> Tally:
    found = Tally()
    assert BlockTraversal(found).code(found, bits._copied(picture)) == picture.scale
    return found


@given(shape=sides, seed=st.integers(0, 999), cuts=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_layout_is_cut_where_it_can_be_and_need_not(shape: tuple[int, int], seed: int, cuts: float) -> None:
    """Of what is not whole nothing is said, and nothing of the smallest."""
    picture = drawn_picture(*shape, seed, cuts=cuts, density=0.0)
    assert picture.blocks is not None
    asked = cut = 0
    for level in range(3):
        side = SIZES[level] // 4
        for row in range(0, picture.blocks.shape[0] - side + 1, side):
            for column in range(0, picture.blocks.shape[1] - side + 1, side):
                own = int(picture.blocks[row, column]) // MODES
                asked += own >= level
                cut += own > level
    found = tally(picture)
    assert found.counts.get(("layout", 0), [0, 0]) == [asked, cut]


@given(shape=sides, seed=st.integers(0, 999), few=st.booleans())
def test_modes_are_asked_for_by_name_and_then_by_number(shape: tuple[int, int], seed: int, few: bool) -> None:
    picture = drawn_picture(*shape, seed, density=0.0)
    blocks = picture.blocks
    assert blocks is not None
    if few:
        blocks = blocks // MODES * MODES + blocks % MODES % 2 * 26
        picture = replace(picture, blocks=blocks)
    wanted, numbered = [[0, 0] for _ in range(LIKELY)], 0
    for _, mode, row, column in zip(*in_order(blocks), strict=True):
        left = blocks[row, column - 1] % MODES if column else UNKNOWN
        above = blocks[row - 1, column] % MODES if row else UNKNOWN
        likely = likely_modes(np.asarray([left], np.intp), np.asarray([above], np.intp))[0].tolist()
        place = likely.index(mode) if mode in likely else LIKELY
        for number in range(min(place + 1, LIKELY)):
            wanted[number][0] += 1
            wanted[number][1] += number == place
        numbered += place == LIKELY
    found = tally(picture)
    assert [found.counts.get(("layout", 1 + n), [0, 0]) for n in range(LIKELY)] == wanted
    assert found.even == 6 + 5 * numbered


@given(shape=sides, seed=st.integers(0, 999), density=st.sampled_from([0.0, 0.02, 0.3, 1.0]))
@settings(max_examples=20)
def test_each_block_says_how_far_it_goes_and_no_more(shape: tuple[int, int], seed: int, density: float) -> None:
    """Each diagonal behind one that has coefficients asks for more; behind one that has none there must be some."""
    picture = drawn_picture(*shape, seed, density=density, reach=9)
    assert picture.blocks is not None
    extent, coded = [0, 0], np.zeros(3, int)
    for level, _, row, column in zip(*in_order(picture.blocks), strict=True):
        side = SIZES[level]
        y, x = np.mgrid[:side, :side]
        part = picture.coefficients[:, 4 * row : 4 * row + side, 4 * column : 4 * column + side]
        for block in np.abs(part.astype(int)):
            sums = [int(block[y + x == diagonal].sum()) for diagonal in range(2 * side - 1)]
            last = max((diagonal for diagonal, total in enumerate(sums) if total), default=-1)
            asked = [n for n in range(min(last + 2, 2 * side - 1)) if n == 0 or sums[n - 1]]
            extent[0] += len(asked)
            extent[1] += sum(n <= last for n in asked)
            sizes = block[y + x <= last]
            coded += [sizes.size, (sizes > 0).sum(), (sizes > 1).sum()]
    found = tally(picture).counts
    assert found["extent", 0] == extent
    for output in range(2):
        assert found.get(("size", output), [0, 0]) == coded[output : output + 2].tolist()


# --- what it costs ---


def test_nothing_costs_next_to_nothing() -> None:
    blocks = even_layout(96, 96, 0, 0)
    nothing = Picture(coefficients=np.zeros((3, 96, 96), np.int16), scale=20, blocks=blocks)
    assert len(encode_tokens(chunk_of(nothing))) <= 12


def test_what_lies_together_costs_less() -> None:
    """Contexts are worth something: low frequencies, and the same numbers at random places of their blocks; busy blocks
    side by side, and the same ones at random places."""
    blocks, rng = even_layout(64, 64, 2, 0), np.random.default_rng(0)
    falling = np.exp(-np.add.outer(np.arange(8), np.arange(8)) / 3).reshape(64)
    tiles = np.trunc(rng.laplace(0, 2, (64, 3, 64)) * falling).astype(np.int16)  # by block, colour and place
    tiles[32:] = 0
    sizes = []
    for each in (tiles, rng.permuted(tiles, axis=2), tiles[rng.permutation(64)]):
        back = each.reshape(8, 8, 3, 8, 8).transpose(2, 0, 3, 1, 4).reshape(3, 64, 64)
        sizes.append(information(Picture(coefficients=back, scale=20, blocks=blocks)))
    assert sizes[0] < 0.7 * sizes[1]
    assert sizes[0] < sizes[2] - 20


def test_what_a_picture_costs_is_told_apart() -> None:
    chunk = chunk_of(drawn_picture(40, 24, 2, density=0.2))
    nothing = replace(chunk, geometry=replace(GEOMETRY, pictures=False, intra=False), picture=None)
    both, without = (8 * len(encode_tokens(found)) for found in (chunk, nothing))
    assert both - without == pytest.approx(picture_bit_count(chunk), abs=64)
    assert picture_bit_count(chunk) > 1000
    assert chunk.picture is not None
    assert picture_bit_count(chunk) == pytest.approx(information(chunk.picture), abs=64)


# --- what is refused ---


@given(data=st.binary(max_size=120) | st.binary(min_size=1, max_size=40).map(lambda part: part * 4), shape=sides)
@settings(max_examples=40)
def test_random_words_are_refused_or_are_the_code_of_what_they_say(data: bytes, shape: tuple[int, int]) -> None:
    chunk = chunk_of(drawn_picture(*shape, 0))
    try:
        found = decode_like(chunk, data)
    except CorruptStreamError:
        return
    assert found.picture is not None
    assert found.picture.blocks is not None
    assert is_layout(found.picture.blocks)
    assert encode_tokens(found) == data


@given(at=st.integers(0), bit=st.integers(0, 7), density=st.sampled_from([0.0, 0.05, 0.9]))
@settings(max_examples=10)
def test_altered_words_are_refused_or_are_the_code_of_others(at: int, bit: int, density: float) -> None:
    chunk = chunk_of(drawn_picture(24, 16, 1, density=density, reach=500))
    assert_refused_or_the_code_of_others(chunk, at=at, bit=bit)


def test_words_that_are_too_few_or_too_many_are_refused() -> None:
    chunk = chunk_of(drawn_picture(40, 24, 1, density=0.3))
    data = encode_tokens(chunk)
    for wrong in (data[:-4], data[:8], data + bytes(4), data[:-1], b""):
        with pytest.raises(CorruptStreamError):
            decode_like(chunk, wrong)


def decoded(height: int, width: int, *script: int) -> Picture:
    """What these bits say."""
    blocks = np.full((height // 4, width // 4), UNKNOWN, np.uint8)
    picture = Picture(coefficients=np.zeros((3, height, width), np.int16), scale=0, blocks=blocks)
    return replace(picture, scale=BlockTraversal(block_network()).code(Scripted(*script), picture))


SCALE_0, SCALE_35 = (0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 1, 1)
WHOLE, FIRST_NAME, NO_MORE = (0,), (1,), (0, 0, 0)


def test_a_block_that_says_more_and_has_no_last_coefficient_is_refused() -> None:
    """Each diagonal but the first is empty, so that none is asked for; the last one must not be."""
    found = decoded(8, 8, *SCALE_35, *WHOLE, *FIRST_NAME, *NO_MORE)
    assert (found.scale, found.blocks.tolist()) == (35, [[2 * MODES] * 2] * 2)  # type: ignore[union-attr]
    assert not found.coefficients.any()
    for before in ((), (0,), (0, 0)):  # of each colour
        with pytest.raises(CorruptStreamError, match="no last coefficient"):
            decoded(8, 8, *SCALE_0, *WHOLE, *FIRST_NAME, *before, 1, 0)
    places = [(n, y) for n in range(15) for y in range(max(0, n - 7), min(n, 7) + 1)]
    for at in (0, 1, 2, 3, 20, 27, 28, 35, 36, 43, 61, 62):  # one alone: its sign, it is 1, and then no more, or some
        diagonal, y = places[at]
        rest = sum(other == diagonal for other, _ in places[at + 1 :])
        block = (1, *(0,) * at, 1, *(0,) * rest, 0, 0)
        found = decoded(8, 8, *SCALE_0, *WHOLE, *FIRST_NAME, *block, 0)
        assert found.coefficients[0, y, diagonal - y] == 1, "each diagonal begins at its top right end"
        assert np.count_nonzero(found.coefficients) == 1
        with pytest.raises(CorruptStreamError, match="no last coefficient"):
            decoded(8, 8, *SCALE_0, *WHOLE, *FIRST_NAME, *block, 1, 0)


def test_a_last_coefficient_ends_a_block() -> None:
    """Behind the last of all nothing is asked: the next bit is of the next colour."""
    empty = (0,) * 63
    block = (1, *empty, 1, 1, 0)
    found = decoded(8, 8, *SCALE_0, *WHOLE, *FIRST_NAME, *block, *block, 0)
    assert found.coefficients[:, 7, 7].tolist() == [-1, -1, 0]
    assert np.count_nonzero(found.coefficients) == 2


@pytest.mark.parametrize("shape", [(8, 8), (32, 40)])
def test_a_coefficient_beyond_all_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(CorruptStreamError, match="beyond 32767"):
        decoded(*shape, 1)


def test_a_number_of_a_mode_is_among_those_that_have_no_name() -> None:
    """Of one block nothing is known beside it: planar, mean and down have names, and all others have numbers."""
    found = []
    for number in range(32):
        digits = [number >> bit & 1 for bit in range(4, -1, -1)]
        picture = decoded(8, 8, *SCALE_0, *WHOLE, 0, 0, 0, *digits, 0)
        assert picture.blocks is not None
        found.append(int(picture.blocks[0, 0]) - 2 * MODES)
    assert found == [mode for mode in range(MODES) if mode not in (0, 1, 26)]


def test_pictures_by_wavelets_are_no_pictures_by_blocks() -> None:
    plain = replace(drawn_picture(16, 24, 1), blocks=None)
    with pytest.raises(ValueError, match="not one by blocks"):
        BlockTraversal(block_network()).code(Counter(), plain)


def test_pictures_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = drawn_picture(40, 24, 1, density=0.3)
    good, blocks, low = chunk_of(picture), picture.blocks, picture.coefficients.copy()
    assert blocks is not None
    low[1, 2, 3] = np.iinfo(np.int16).min
    unaligned = even_layout(40, 24, 3, 0)
    unaligned[1:3, 2:4] = 2 * MODES
    for wrong in (
        replace(picture, scale=-1),
        replace(picture, scale=MAX_SCALE + 1),
        replace(picture, coefficients=low),
        replace(picture, coefficients=low[:, :-1]),
        replace(picture, coefficients=drawn(40, 32, density=0.1, reach=3, seed=1)),
        replace(picture, blocks=None),
        None,
    ):
        with pytest.raises(UsageError, match="picture"):
            encode_tokens(replace(good, picture=wrong))
    for layout in (
        blocks[:-1],
        blocks[:, :-2],
        blocks.T,
        blocks[None],
        blocks.astype(np.int16),
        np.full_like(blocks, UNKNOWN),
        np.full_like(blocks, MODES * len(SIZES)),
        np.full_like(blocks, 0),  # a block of 32 pixels does not fit
        unaligned,
    ):
        with pytest.raises(UsageError, match=r"no layout of \(10, 6\) cells"):
            encode_tokens(replace(good, picture=replace(picture, blocks=layout)))
    for geometry in (replace(GEOMETRY, intra=False), replace(GEOMETRY, pictures=False, intra=False)):
        with pytest.raises(UsageError, match="nowhere else"):
            encode_tokens(replace(good, geometry=geometry))
    keeps = replace(good, levels=np.ones_like(good.levels))
    with pytest.raises(UsageError, match="beside its picture"):
        encode_tokens(keeps)
    monkeypatch.setattr(chunk_checks, "_check_picture", lambda chunk: None)
    with pytest.raises(CorruptStreamError, match="beside its picture"):
        decode_like(keeps, encode_tokens(keeps))
