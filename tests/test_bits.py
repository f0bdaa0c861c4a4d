"""Tokens <-> bytes (spec section 7)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec.bits import decode_tokens, encode_tokens, tokens_crc32
from tokcodec.errors import CorruptStreamError, LimitError, UsageError
from tokcodec.probability import create_model, mixing
from tokcodec.probability.adaptive import AdaptiveModel
from tokcodec.probability.interface import BitGroup, Checkerboard
from tokcodec.probability.logistic import COUNT_MAX, LOG, SQUASH, STRETCH_MAX
from tokcodec.probability.mixing import COUNT_LIMIT, WEIGHT_LIMIT, ContextMixer, ContextTable
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenChunk, TokenGeometry, truncate

PRIME = 0x9E3779B97F4A7C15
WORD = 2**32
STATE = 2**64


def formula_chunk(
    *, steps: int, rows: int, columns: int, geometry: TokenGeometry, mixed_levels: bool, change: int = 4
) -> TokenChunk:
    """Tokens made by integer formulas; one position in `change` differs from the step before."""
    step, row, column = np.indices((steps, rows, columns), dtype=np.uint64)
    with np.errstate(over="ignore"):
        place = (row // np.uint64(2)) * np.uint64(1009) + column // np.uint64(3)
        moved = (place * np.uint64(PRIME) >> np.uint64(40)) % np.uint64(change) == 0
        value = (place + np.where(moved, step, 0).astype(np.uint64) + np.uint64(1)) * np.uint64(PRIME)
        value ^= value >> np.uint64(29)
    value >>= np.uint64(64 - geometry.bits_per_token)
    count = len(geometry.level_bits)
    shape = (steps, *geometry.blocks(rows, columns))
    step, row, column = np.indices(shape)
    levels = (row * 5 + column * 3 + step // 2) % count if mixed_levels else np.full(shape, count - 1)
    full = TokenChunk(indices=value, levels=np.full(shape, count - 1, np.uint8), geometry=geometry)
    return truncate(full, levels.astype(np.uint8))


def decode_like(chunk: TokenChunk, data: bytes) -> TokenChunk:
    steps, rows, columns = chunk.indices.shape
    return decode_tokens(data, steps=steps, rows=rows, columns=columns, geometry=chunk.geometry)


def assert_refused_or_the_code_of_others(chunk: TokenChunk, *, at: int, bit: int) -> None:
    """One bit of a chunk's words is another: they are no code, or the one code of something else."""
    data = bytearray(encode_tokens(chunk))
    data[at % len(data)] ^= 1 << bit
    try:
        found = decode_like(chunk, bytes(data))
    except CorruptStreamError:
        return
    assert tokens_crc32(found) != tokens_crc32(chunk)
    assert encode_tokens(found) == bytes(data)


def assert_round_trip(chunk: TokenChunk) -> bytes:
    data = encode_tokens(chunk)
    back = decode_like(chunk, data)
    assert back.indices.dtype == np.uint64
    assert back.levels.dtype == np.uint8
    assert np.array_equal(back.indices, chunk.indices)
    assert np.array_equal(back.levels, chunk.levels)
    assert back.geometry == chunk.geometry
    assert tokens_crc32(back) == tokens_crc32(chunk)
    return data


@st.composite
def geometries(draw: st.DrawFn) -> TokenGeometry:
    planes = draw(st.sampled_from((1, 2, 5, 18, 40, 63, 64)))
    inner = draw(st.sets(st.integers(1, planes - 1), max_size=14)) if planes > 1 else set()
    return TokenGeometry(
        bits_per_token=planes,
        level_bits=(0, *sorted(inner), planes),
        block_tokens=draw(st.integers(1, 5)),
    )


@st.composite
def chunks(draw: st.DrawFn) -> TokenChunk:
    geometry = draw(geometries())
    steps, rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    indices = rng.integers(0, 2**64, (steps, rows, columns), dtype=np.uint64)
    for step in range(1, steps):
        still = rng.random((rows, columns)) < 0.6
        indices[step][still] = indices[step - 1][still]
    indices >>= np.uint64(64 - geometry.bits_per_token)
    count = len(geometry.level_bits)
    levels = rng.integers(0, count, (steps, *geometry.blocks(rows, columns)), dtype=np.uint8)
    for step in range(steps):
        if draw(st.booleans()):
            levels[step] = draw(st.integers(0, count - 1))
    top = np.full_like(levels, count - 1)
    return truncate(TokenChunk(indices=indices, levels=top, geometry=geometry), levels)


@settings(max_examples=120, deadline=None)
@given(chunks())
def test_every_chunk_comes_back(chunk: TokenChunk) -> None:
    assert_round_trip(chunk)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (7, 1), (2, 2), (45, 80)])
@pytest.mark.parametrize("mixed_levels", [False, True])
def test_grids_of_every_kind_come_back(rows: int, columns: int, mixed_levels: bool) -> None:
    assert_round_trip(
        formula_chunk(steps=3, rows=rows, columns=columns, geometry=DEFAULT_GEOMETRY, mixed_levels=mixed_levels)
    )


GOLDEN = {
    "image": "28e0446af2dd10c1fddfddca4784870b8b76b4852d5eaff69ff5d350f5b4fa81",
    "video": "2f97312e7764c6a91ce3dc50b8c524f9e4d32186c4b51a2cf3c04157abafccd9",
    "map": "477a392a1a4d9b7153d8fb3a80f4402c85d229079b74823cffa3db299adce24d",
    "wide": "d9d5c1dbf508691f47ab64e80d7d132c50efad904208968ce863c3823fb0187e",
    "one_bit": "2266fa67cd9943578ba26cd2f0bcd2dcd5b7ad6dcc7089c49f2f467bcc53b1b7",
}


def golden_chunk(name: str) -> TokenChunk:
    forty = TokenGeometry(bits_per_token=40, level_bits=(0, 1, 10, 40), block_tokens=3)
    one = TokenGeometry(bits_per_token=1, level_bits=(0, 1))
    return {
        "image": lambda: formula_chunk(steps=1, rows=9, columns=16, geometry=DEFAULT_GEOMETRY, mixed_levels=False),
        "video": lambda: formula_chunk(steps=9, rows=18, columns=32, geometry=DEFAULT_GEOMETRY, mixed_levels=False),
        "map": lambda: formula_chunk(steps=9, rows=17, columns=30, geometry=DEFAULT_GEOMETRY, mixed_levels=True),
        "wide": lambda: formula_chunk(steps=5, rows=7, columns=11, geometry=forty, mixed_levels=True),
        # Enough equal bits for the counts to reach their limit.
        "one_bit": lambda: formula_chunk(steps=6, rows=60, columns=60, geometry=one, mixed_levels=False, change=64),
    }[name]()


@pytest.mark.parametrize("name", GOLDEN)
def test_coded_bytes_never_change(name: str) -> None:
    data = assert_round_trip(golden_chunk(name))
    assert hashlib.sha256(data).hexdigest() == GOLDEN[name]


def test_a_still_picture_costs_little() -> None:
    geometry = DEFAULT_GEOMETRY
    rng = np.random.default_rng(7)
    still = rng.integers(0, 2**18, (1, 24, 40), dtype=np.uint64).repeat(9, axis=0)
    chunk = TokenChunk(indices=still, levels=np.full((9, *geometry.blocks(24, 40)), 6, np.uint8), geometry=geometry)
    coded_bits = 8 * len(encode_tokens(chunk))
    assert coded_bits < 0.2 * still.size * 18


def test_noise_costs_hardly_more_than_raw_bits() -> None:
    rng = np.random.default_rng(8)
    noise = rng.integers(0, 2**18, (5, 45, 80), dtype=np.uint64)
    chunk = TokenChunk(indices=noise, levels=np.full((5, *DEFAULT_GEOMETRY.blocks(45, 80)), 6, np.uint8))
    assert 8 * len(encode_tokens(chunk)) < 1.02 * noise.size * 18


def test_blocks_that_keep_nothing_cost_nothing_but_the_map() -> None:
    shape = (17, *DEFAULT_GEOMETRY.blocks(45, 80))
    chunk = TokenChunk(indices=np.zeros((17, 45, 80), np.uint64), levels=np.zeros(shape, np.uint8))
    assert len(encode_tokens(chunk)) == 4


def test_crc_is_over_indices_then_levels() -> None:
    chunk = TokenChunk(
        indices=np.asarray([[[1, 2]], [[3, 2**18 - 1]]], dtype=np.uint64),
        levels=np.asarray([[[6]], [[6]]], dtype=np.uint8),
    )
    raw = b"".join(value.to_bytes(8, "little") for value in (1, 2, 3, 2**18 - 1)) + bytes((6, 6))
    assert tokens_crc32(chunk) == zlib.crc32(raw)


def test_kept_bits_of_each_step() -> None:
    chunk = formula_chunk(steps=3, rows=7, columns=5, geometry=DEFAULT_GEOMETRY, mixed_levels=True)
    kept = chunk.kept_bits()
    assert kept.dtype == np.uint8
    assert kept.shape == chunk.indices.shape
    for step, row, column in np.ndindex(kept.shape):
        assert kept[step, row, column] == DEFAULT_GEOMETRY.level_bits[chunk.levels[step, row // 4, column // 4]]
        assert kept[step, row, column] == chunk.kept_bits_of(step)[row, column]


# Bad input.


def test_too_little_memory_is_a_limit() -> None:
    with pytest.raises(LimitError, match="not enough memory"):
        decode_tokens(bytes(4), steps=1 << 45, rows=1, columns=1, geometry=DEFAULT_GEOMETRY)


def decode_or_corrupt(chunk: TokenChunk, data: bytes) -> TokenChunk | None:
    try:
        return decode_like(chunk, data)
    except CorruptStreamError:
        return None


@pytest.fixture(scope="module")
def small() -> TokenChunk:
    return formula_chunk(steps=3, rows=6, columns=9, geometry=DEFAULT_GEOMETRY, mixed_levels=True)


def test_truncated_at_every_byte_is_refused(small: TokenChunk) -> None:
    data = encode_tokens(small)
    for size in range(len(data)):
        with pytest.raises(CorruptStreamError):
            decode_like(small, data[:size])


@pytest.mark.parametrize("tail", [b"\0", bytes(4), b"\xff" * 4, bytes(400)])
def test_trailing_bytes_are_refused(small: TokenChunk, tail: bytes) -> None:
    with pytest.raises(CorruptStreamError):
        decode_like(small, encode_tokens(small) + tail)


def test_a_flipped_bit_never_gives_the_same_tokens(small: TokenChunk) -> None:
    data = encode_tokens(small)
    for bit in range(0, 8 * len(data), 3):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        found = decode_or_corrupt(small, bytes(broken))
        if found is not None:
            assert tokens_crc32(found) != tokens_crc32(small)
            assert encode_tokens(found) == bytes(broken)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), geometries())
def test_any_bytes_decode_or_are_corrupt(
    data: bytes, steps: int, rows: int, columns: int, geometry: TokenGeometry
) -> None:
    try:
        chunk = decode_tokens(data, steps=steps, rows=rows, columns=columns, geometry=geometry)
    except CorruptStreamError:
        return
    assert encode_tokens(chunk) == data


def test_what_cannot_be_coded_is_a_usage_error(small: TokenChunk) -> None:
    high = small.indices | np.uint64(1 << 18)
    with pytest.raises(UsageError, match="beyond those that its block keeps"):
        encode_tokens(TokenChunk(indices=high, levels=small.levels))
    with pytest.raises(UsageError, match="do not fit"):
        encode_tokens(TokenChunk(indices=small.indices, levels=small.levels[:1]))
    with pytest.raises(UsageError, match="level 7 is not among the 7 levels"):
        encode_tokens(TokenChunk(indices=small.indices, levels=np.full_like(small.levels, 7)))
    with pytest.raises(UsageError, match="cannot be coded"):
        encode_tokens(TokenChunk(indices=small.indices[:0], levels=small.levels[:0]))
    with pytest.raises(UsageError, match="cannot be decoded"):
        decode_tokens(bytes(4), steps=0, rows=1, columns=1, geometry=DEFAULT_GEOMETRY)
    with pytest.raises(UsageError, match="no probability model"):
        encode_tokens(small, model="oracle")


# The range coder of the spec, in plain Python (section 7.2).


def plain_encode(bits: list[int], ones: list[int]) -> list[int]:
    """32-bit words for bits whose 24-bit frequency of 1 is `ones`; carries run into the words written."""
    low, span, shifts = 0, STATE - 1, 0
    for bit, one in zip(bits, ones, strict=True):
        scale, zero = span >> 24, (1 << 24) - one
        low, span = (low + scale * zero, scale * one) if bit else (low, scale * zero)
        if span < WORD:
            low, span, shifts = low * WORD, span * WORD, shifts + 1
    point = low + WORD - 1 >> 32
    words = [point >> 32 * (shifts - n) & WORD - 1 for n in range(shifts + 1)]
    if (low + span >> 32) % WORD == words[-1]:
        words.append(0)
    return words


def plain_decode(words: list[int], ones: list[int]) -> list[int] | None:
    """Bits, or None where the words are not those that the encoder writes."""

    def word(n: int) -> int:
        return words[n] if n < len(words) else 0

    low, span, point, shifts = 0, STATE - 1, word(0) * WORD + word(1), 0
    bits = []
    for one in ones:
        scale, zero = span >> 24, (1 << 24) - one
        quantile = (point - low) % STATE // scale
        if quantile >= 1 << 24:
            return None
        bits.append(int(quantile >= zero))
        low, span = ((low + scale * zero) % STATE, scale * one) if bits[-1] else (low, scale * zero)
        if span < WORD:
            low, span, point = low * WORD % STATE, span * WORD, point * WORD % STATE + word(shifts + 2)
            shifts += 1
    tail = (low + WORD - 1) % STATE >> 32
    expected = [tail, 0] if (low + span) % STATE >> 32 == tail else [tail]
    return bits if words[shifts:] == expected else None


def constriction_encode(bits: list[int], ones: list[int]) -> list[int]:
    frequencies = np.asarray([((1 << 24) - one - 1.0, one - 1.0) for one in ones], dtype=np.float64)
    coder = constriction.stream.queue.RangeEncoder()
    model = constriction.stream.model.Categorical(perfect=False)
    coder.encode(np.asarray(bits, dtype=np.int32), model, frequencies)
    words: NDArray[np.uint32] = coder.get_compressed()
    return words.tolist()


def constriction_decode(words: list[int], ones: list[int]) -> list[int]:
    frequencies = np.asarray([((1 << 24) - one - 1.0, one - 1.0) for one in ones], dtype=np.float64)
    coder = constriction.stream.queue.RangeDecoder(np.asarray(words, dtype=np.uint32))
    model = constriction.stream.model.Categorical(perfect=False)
    bits: NDArray[np.int32] = coder.decode(model, frequencies)
    return bits.tolist()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from((1, 256, 8192, 1 << 23, (1 << 24) - 256, (1 << 24) - 1)),
                st.integers(1, (1 << 24) - 1),
            ),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_constriction_is_the_range_coder_of_the_spec(choices: list[tuple[int, int]]) -> None:
    ones, bits = [one for one, _ in choices], [bit for _, bit in choices]
    words = plain_encode(bits, ones)
    assert constriction_encode(bits, ones) == words
    assert constriction_decode(words, ones) == bits
    assert plain_decode(words, ones) == bits
    assert plain_decode([*words, 0], ones) is None


def test_constriction_takes_24_bit_frequencies_exactly() -> None:
    rng = np.random.default_rng(3)
    ones = rng.integers(1, 1 << 24, 30_000)
    ones[:3000] = rng.choice([1, 2, 255, 256, 257, (1 << 24) - 256, (1 << 24) - 1], 3000)
    bits = (rng.random(ones.size) * (1 << 24) < ones).astype(int)
    words = plain_encode(bits.tolist(), ones.tolist())
    assert constriction_encode(bits.tolist(), ones.tolist()) == words
    assert constriction_decode(words, ones.tolist()) == bits.tolist()


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("count", [200, 400])
def test_carries_run_through_many_words(count: int, last: int) -> None:
    # Bits chosen so that the range keeps straddling one point, and so that no word becomes final.
    ones = np.random.default_rng(count).integers(1 << 20, 15 << 20, count).tolist()
    low, span, edge = 0, STATE - 1, 1 << 63
    bits = []
    for one in ones:
        scale, zero = span >> 24, (1 << 24) - one
        bits.append(int(edge >= low + scale * zero))
        low, span = (low + scale * zero, scale * one) if bits[-1] else (low, scale * zero)
        if span < WORD:
            low, span, edge = low * WORD, span * WORD, edge * WORD
    assert low < edge < low + span
    bits, ones = [*bits, last], [*ones, 1 << 23]
    words = plain_encode(bits, ones)
    assert words[1] == (0 if words[0] == 1 << 31 else WORD - 1)
    assert constriction_encode(bits, ones) == words
    assert constriction_decode(words, ones) == bits
    assert plain_decode(words, ones) == bits


# Integer tables and the model's state.


def test_logistic_tables_are_close_to_the_functions() -> None:
    stretch = np.arange(-STRETCH_MAX, STRETCH_MAX + 1) / 256
    exact = (65536 / (1 + np.exp(-stretch))).clip(32, 65504)
    assert np.abs(SQUASH - exact).max() < 200
    assert (np.diff(SQUASH) >= 0).all()
    assert SQUASH[0] == 32
    assert SQUASH[-1] == 65504
    count = np.arange(1, COUNT_MAX + 1)
    assert np.abs(LOG[1:] - 4096 * np.log(count)).max() < 4
    assert LOG[1] == 0


@pytest.mark.parametrize("pattern", ["ones", "against"])
def test_state_stays_bounded(pattern: str) -> None:
    table = np.full((2, 1, 4), 8, dtype=np.int64)
    mixer = ContextMixer(1, [ContextTable(initial=table), ContextTable(initial=table)])
    cells = np.arange(4).repeat(5000)
    for turn in range(60):
        bits = np.full(cells.size, 1 if pattern == "ones" else turn & 1, dtype=np.uint8)
        found = mixer.probabilities(0, [cells, cells])
        assert found.min() >= 32
        assert found.max() <= 65504
        mixer.observe(0, [cells, cells], bits, found)
        mixer.adapt()
        for counts in mixer._counts:
            assert counts.min() >= 1
            assert counts.sum(axis=0).max() <= COUNT_LIMIT + 1
        assert np.abs(mixer._weights).max() <= WEIGHT_LIMIT


def test_it_does_not_matter_when_bits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(most: int) -> list[np.ndarray]:
        monkeypatch.setattr(mixing, "MOST_WAITING", most)
        random = np.random.default_rng(5)
        tables = [np.full((2, 3, 4), 8, dtype=np.int64), np.full((2, 1, 5), 8, dtype=np.int64)]
        mixer = ContextMixer(
            3,
            [ContextTable(initial=tables[0]), ContextTable(initial=tables[1], slots_per_row=3)],
            weights=np.full((3, 3), 20000),
        )
        for _ in range(4):
            for slot in (0, 1, 2, 0, 2):
                size = int(random.integers(0, 40))
                contexts = [random.integers(0, cells, size) for cells in (4, 5)]
                given, bits = random.integers(-900, 900, size, np.int32), random.integers(0, 2, size, np.uint8)
                mixer.observe(slot, contexts, bits, mixer.probabilities(slot, contexts, given), given)
            mixer.adapt()
        return [*mixer._counts, mixer.weights]

    for one, other in zip(learned(0), learned(1 << 18), strict=True):
        assert np.array_equal(one, other)


def test_a_model_is_frozen_within_a_step() -> None:
    grid = Checkerboard.of(3, 4)
    model = create_model("adaptive", grid=grid, planes=2)
    assert isinstance(model, AdaptiveModel)
    group = BitGroup(plane=0, colour=0, where=slice(0, grid.split))
    model.start_step(np.full(grid.cells, 2, np.uint8))
    first = model.probabilities(group).copy()
    model.observe(group, np.ones(grid.split, np.uint8))
    assert np.array_equal(model.probabilities(group), first)
    model.finish_step()
    model.start_step(np.full(grid.cells, 2, np.uint8))
    assert (model.probabilities(group) > first).all()


def test_checkerboard_order_and_neighbours() -> None:
    grid = Checkerboard.of(2, 3)
    assert grid.order.tolist() == [0, 2, 4, 1, 3, 5]
    assert grid.split == 3
    # Cell 4 (row 1, column 1): above 1, below none, left 3, right 5.
    assert grid.neighbours[:, 2].tolist() == [3, 6, 4, 5]


def test_the_entropy_coder_does_not_import_torch() -> None:
    code = "import sys, tokcodec.bits; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
