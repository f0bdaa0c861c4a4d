"""`tokcodec trim`, `tokcodec tokens`, the data set: `.tok` files without pixels."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_prior
import torch
from command_line import typed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import formula_chunk
from test_prior_wide import WIDE

from tokcodec.chunks import ADAPTIVE, Entropy, choose_entropy, encode_chunk
from tokcodec.container import (
    ContainerWriter,
    Extension,
    SidePacket,
    SidePacketBatch,
    SideStreamInfo,
    StreamHeader,
    read_stream,
)
from tokcodec.errors import CorruptStreamError, IncompleteError, ModelError, UsageError
from tokcodec.inspection import survey
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenChunk, TokenGeometry, truncate
from tokcodec.tokenset import TokenDataset, factorize, join_subtokens, read_chunks, subtoken_bits
from tokcodec.trim import trim
from tokcodec.weights import priors
from tokcodec.weights.priors import PriorEntry
from tokcodec.weights.registry import entry_of_file

ROWS, COLUMNS, FRAMES = 8, 12, 9
SIDE = SideStreamInfo(index=0, kind=1, codec="aac", time_base=Fraction(1, 48000))
PACKET = SidePacket(stream=0, data=b"sound", keyframe=True, pts=7, dts=7, duration=1024)


MOVING = TokenGeometry(motion_tokens=2)


def some_chunk(seed: int = 0, *, mixed_levels: bool = False, geometry: TokenGeometry = DEFAULT_GEOMETRY) -> TokenChunk:
    """Three steps; where the geometry has motion maps, the later ones move."""
    chunk = formula_chunk(steps=3, rows=ROWS, columns=COLUMNS, geometry=geometry, mixed_levels=mixed_levels)
    top = np.full_like(chunk.levels, len(geometry.level_bits) - 1)
    moved = TokenChunk(indices=chunk.indices ^ np.uint64(seed * 77), levels=top, geometry=geometry)
    moved.vectors[1:] = np.random.default_rng(seed).integers(-20, 21, moved.vectors[1:].shape)
    return truncate(moved, chunk.levels)


def make_tok(
    *,
    chunks: int = 2,
    entropy: Entropy = ADAPTIVE,
    mixed_levels: bool = False,
    seed: int = 0,
    geometry: TokenGeometry = DEFAULT_GEOMETRY,
) -> bytes:
    header = StreamHeader(
        width=8 * COLUMNS,
        height=8 * ROWS - 3,
        time_base=Fraction(1, 24),
        frame_rate=Fraction(24),
        max_chunk_frames=FRAMES,
        tokenizer_digest=b"\1" * 32,
        tokenizer_name="none",
        probability_model=entropy.wire_id,
        probability_digest=entropy.digest,
        geometry=geometry,
        side_streams=(SIDE,),
        extensions=(Extension(type=0xDA, data=b"grease"),),
    )
    sink = io.BytesIO()
    writer = ContainerWriter(sink, header)
    for number in range(chunks):
        tokens = some_chunk(seed + number, mixed_levels=mixed_levels, geometry=geometry)
        pts = tuple(range(number * FRAMES, (number + 1) * FRAMES))
        writer.write_chunk(encode_chunk(tokens, number=number, pts=pts, last_duration=1, entropy=entropy))
        writer.write_packets([replace(PACKET, pts=number, dts=number)])
    writer.close()
    return sink.getvalue()


@pytest.fixture
def prior(tmp_path: Path) -> Entropy:
    return Entropy(model="prior", prior=entry_of_file(tiny_prior.write_prior(tmp_path)))


def trimmed(data: bytes, **options: object) -> tuple[bytes, float]:
    sink = io.BytesIO()
    result = trim(io.BytesIO(data), sink, **options)  # type: ignore[arg-type]
    assert result.bytes_before == len(data)
    assert result.bytes_after == len(sink.getvalue())
    return sink.getvalue(), result.bits_per_pixel


# --- trim ---


@pytest.mark.parametrize("mixed_levels", [False, True])
def test_trim_to_a_quality_keeps_prefixes_and_all_else(mixed_levels: bool) -> None:
    data = make_tok(mixed_levels=mixed_levels)
    small, rate = trimmed(data, quality=2)
    assert len(small) < len(data)
    for before, after in zip(read_chunks(io.BytesIO(data)), read_chunks(io.BytesIO(small)), strict=True):
        assert np.array_equal(after.levels, np.minimum(before.levels, 2))
        kept = truncate(before, np.full_like(before.levels, 2))
        assert np.array_equal(after.indices, kept.indices)
    old, new = survey(io.BytesIO(data), check_tokens=True), survey(io.BytesIO(small), check_tokens=True)
    assert (new.complete, new.frames, new.chunks, new.first_pts) == (True, old.frames, old.chunks, old.first_pts)
    assert new.header == replace(old.header, extensions=())
    packets = [item for item in read_stream(io.BytesIO(small)) if isinstance(item, SidePacketBatch)]
    assert [batch.packets[0].data for batch in packets] == [b"sound", b"sound"]
    records = sum(28 + len(b"sound") for _ in packets)
    assert new.bits_per_pixel is not None
    assert rate < new.bits_per_pixel + 1e-9
    assert rate > new.bits_per_pixel - 8 * 2 * records / (old.frames * 96 * 61)


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.3, 1.1))
def test_trim_to_a_rate_fills_it_and_no_more(share: float) -> None:
    data = make_tok()
    _, most = trimmed(data, quality=6)
    _, least = trimmed(data, quality=1)
    wanted = least + share * (most - least)
    small, rate = trimmed(data, bits_per_pixel=wanted)
    assert rate <= wanted
    # What is left is less than what a step costs at one level more.
    assert rate > min(wanted, most) - (most - least) / 10
    assert survey(io.BytesIO(small), check_tokens=True).complete


def test_trim_keeps_the_prior(prior: Entropy, tmp_path: Path) -> None:
    assert prior.prior is not None
    small, _ = trimmed(make_tok(entropy=prior), quality=3, prior=prior.prior.path)
    assert read_stream(io.BytesIO(small)).header.probability_model == 1
    found = list(read_chunks(io.BytesIO(small), prior=prior.prior.path))
    assert max(int(chunk.levels.max()) for chunk in found) == 3
    with pytest.raises(ModelError, match="no weights with SHA-256"):
        trim(io.BytesIO(small), io.BytesIO(), quality=2)


def test_trim_refuses() -> None:
    data = make_tok()
    for options in ({}, {"quality": 2, "bits_per_pixel": 0.1}, {"quality": 7}, {"bits_per_pixel": 0.0}):
        with pytest.raises(UsageError):
            trim(io.BytesIO(data), io.BytesIO(), **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be so small"):
        trim(io.BytesIO(data), io.BytesIO(), bits_per_pixel=1e-4)


@pytest.mark.parametrize("by_rate", [False, True])
def test_trim_keeps_motion(by_rate: bool) -> None:
    data = make_tok(geometry=MOVING)
    small, least = trimmed(data, quality=1)
    if by_rate:
        _, most = trimmed(data, quality=6)
        small, _ = trimmed(data, bits_per_pixel=(least + most) / 2)
    assert survey(io.BytesIO(small), check_tokens=True).complete
    whole, less = list(read_chunks(io.BytesIO(data))), list(read_chunks(io.BytesIO(small)))
    assert sum(chunk.kept_bit_count() for chunk in less) < sum(chunk.kept_bit_count() for chunk in whole)
    for before, after in zip(whole, less, strict=True):
        assert before.vectors[1:].any()
        assert np.array_equal(after.vectors, before.vectors)


def test_trim_goes_around_damage() -> None:
    data = bytearray(make_tok(chunks=3))
    at = data.index(next(iter(read_stream(io.BytesIO(bytes(data))))).token_data)  # type: ignore[union-attr]
    data[at + 3] ^= 1
    sink = io.BytesIO()
    result = trim(io.BytesIO(bytes(data)), sink, quality=3)
    assert (result.chunks, len(result.damages)) == (2, 1)
    assert survey(io.BytesIO(sink.getvalue()), check_tokens=True).complete


# --- sub-tokens ---


@settings(max_examples=80, deadline=None)
@given(bits=st.integers(1, 63), parts=st.integers(1, 8), seed=st.integers(0, 99))
def test_subtokens_come_back(bits: int, parts: int, seed: int) -> None:
    try:
        sizes = subtoken_bits(bits, parts)
    except UsageError:
        return
    assert (sum(sizes), len(sizes)) == (bits, parts)
    indices = np.random.default_rng(seed).integers(0, 1 << bits, (3, 5), dtype=np.uint64)
    cut = factorize(indices, bits=bits, parts=parts)
    assert cut.shape == (3, 5, parts)
    assert all(cut[..., part].max() < 1 << size for part, size in enumerate(sizes))
    assert cut.dtype == np.int32
    assert np.array_equal(join_subtokens(cut, bits=bits), indices)


@settings(max_examples=80, deadline=None)
@given(bits=st.integers(1, 64), seed=st.integers(0, 99))
def test_subtokens_of_nine_bits_serve_every_token(bits: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, 1 << bits, (2, 3), dtype=np.uint64)
    cut = factorize(indices, bits=bits)
    assert cut.shape == (2, 3, -(-bits // 9))
    assert (cut.dtype, cut.max() < 512) == (np.int32, True)
    assert np.array_equal(join_subtokens(cut, bits=bits), indices)


def test_the_first_subtoken_holds_the_important_bits() -> None:
    assert factorize(np.asarray([0b101010101_000000111]), bits=18).tolist() == [[0b111, 0b101010101]]
    with pytest.raises(UsageError):
        join_subtokens(np.asarray([[512, 0]]), bits=18)
    with pytest.raises(UsageError):
        subtoken_bits(18, 19)
    with pytest.raises(UsageError, match="1 sub-tokens of 54 bits"):
        subtoken_bits(54, 1)


# --- files of tokens ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("mixed_levels", [False, True])
def test_tokens_go_out_and_come_back(suffix: str, mixed_levels: bool, tmp_path: Path, prior: Entropy) -> None:
    data = make_tok(mixed_levels=mixed_levels)
    arrays = token_arrays(io.BytesIO(data), parts=2)
    assert arrays["indices"].dtype == np.int32
    assert arrays["indices"].shape == (6, ROWS, COLUMNS)
    assert arrays["subtokens"].shape == (6, ROWS, COLUMNS, 2)
    path = tmp_path / f"tokens{suffix}"
    write_arrays(path, arrays, suffix=suffix)
    for entropy in (ADAPTIVE, prior):
        back = tok_bytes(read_arrays(path), entropy=entropy).getvalue()
        file = None if entropy.prior is None else entropy.prior.path
        found = survey(io.BytesIO(back), check_tokens=True, prior=file)
        assert found.complete
        assert found.frames == 18
        assert found.header.side_streams == ()
        pairs = zip(read_chunks(io.BytesIO(data)), read_chunks(io.BytesIO(back), prior=file), strict=True)
        for before, after in pairs:
            assert np.array_equal(before.indices, after.indices)
            assert np.array_equal(before.levels, after.levels)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_motion_goes_out_and_comes_back(suffix: str, tmp_path: Path) -> None:
    data = make_tok(geometry=MOVING)
    arrays = token_arrays(io.BytesIO(data))
    assert (arrays["vectors"].dtype, arrays["vectors"].shape) == (np.int16, (6, ROWS // 2, COLUMNS // 2, 2))
    assert "vectors" not in token_arrays(io.BytesIO(make_tok()))
    path = tmp_path / f"tokens{suffix}"
    write_arrays(path, arrays, suffix=suffix)
    back = read_arrays(path)
    for dtype in (np.int16, np.int64):
        again = tok_bytes({**back, "vectors": back["vectors"].astype(dtype)}, entropy=ADAPTIVE)
        for before, after in zip(read_chunks(io.BytesIO(data)), read_chunks(again), strict=True):
            assert np.array_equal(before.vectors, after.vectors)
            assert np.array_equal(before.indices, after.indices)
    still = {name: array for name, array in back.items() if name != "vectors"}
    assert not any(chunk.vectors.any() for chunk in read_chunks(tok_bytes(still, entropy=ADAPTIVE)))


def test_motion_that_does_not_fit_is_refused() -> None:
    arrays = token_arrays(io.BytesIO(make_tok(geometry=MOVING)))
    good = arrays["vectors"].astype(np.int64)
    first, *far = (good.copy() for _ in range(5))
    first[0, 0, 0] = 1
    for vectors, value in zip(far, (512, -512, -(1 << 15), -(1 << 63)), strict=True):
        vectors[1, 0, 0, 0] = value
    for wrong in (good[:-1], good[..., :1], good / 2, first, *far, far[2].astype(np.int16)):
        with pytest.raises(UsageError, match="vectors"):
            tok_bytes({**arrays, "vectors": wrong}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="vectors"):
        tok_bytes({**token_arrays(io.BytesIO(make_tok())), "vectors": good}, entropy=ADAPTIVE)


def test_indices_alone_are_enough() -> None:
    arrays = token_arrays(io.BytesIO(make_tok()))
    few = {name: arrays[name] for name in ("indices", "chunk_frames", "header")}
    assert tok_bytes(few, entropy=ADAPTIVE).getvalue() == tok_bytes(arrays, entropy=ADAPTIVE).getvalue()


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    arrays = token_arrays(io.BytesIO(make_tok()))
    changes = {
        "indices": [
            arrays["indices"][:-1],
            arrays["indices"] - (1 << 18),
            arrays["indices"] + (1 << 18),
            arrays["indices"] / 2,
        ],
        "levels": [arrays["levels"][:-1], arrays["levels"] + 1],
        "chunk_frames": [np.asarray([18, 18]), np.asarray([], int), np.asarray([0, 18])],
        "pts": [arrays["pts"][:-1], arrays["pts"][::-1]],
        "durations": [arrays["durations"][:-1]],
        "header": [arrays["header"][:-1]],
    }
    for name, values in changes.items():
        for value in values:
            with pytest.raises(UsageError):
                tok_bytes({**arrays, name: value}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="has no header"):
        tok_bytes({name: arrays[name] for name in ("indices", "chunk_frames")}, entropy=ADAPTIVE)
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(UsageError, match="no file of tokens"):
        read_arrays(tmp_path / "bad.npz")
    with pytest.raises(CorruptStreamError):
        token_arrays(io.BytesIO(b"nothing"))


def test_bits_that_are_not_kept_are_cleared() -> None:
    arrays = token_arrays(io.BytesIO(make_tok()))
    levels = np.full_like(arrays["levels"], 1)
    back = tok_bytes({**arrays, "levels": levels}, entropy=ADAPTIVE)
    assert all(int(chunk.indices.max()) < 8 for chunk in read_chunks(back))


# --- wide tokens ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("parts", "shape"), [(None, 6), (3, 3)])
def test_wide_tokens_go_out_and_come_back(suffix: str, parts: int | None, shape: int, tmp_path: Path) -> None:
    data = make_tok(geometry=WIDE)
    arrays = token_arrays(io.BytesIO(data), parts=parts)
    assert (arrays["indices"].dtype, arrays["subtokens"].dtype) == (np.int64, np.int32)
    assert int(arrays["indices"].max()) > 1 << 53
    assert arrays["subtokens"].shape == (6, ROWS, COLUMNS, shape)
    path = tmp_path / f"tokens{suffix}"
    write_arrays(path, arrays, suffix=suffix)
    back = read_arrays(path)
    for left_out in ("subtokens", "indices", "nothing"):
        some = {name: array for name, array in back.items() if name != left_out}
        pairs = zip(read_chunks(io.BytesIO(data)), read_chunks(tok_bytes(some, entropy=ADAPTIVE)), strict=True)
        for before, after in pairs:
            assert np.array_equal(before.indices, after.indices)
            assert np.array_equal(before.levels, after.levels)
            assert after.geometry == WIDE


def test_indices_of_64_bits_are_unsigned() -> None:
    geometry = TokenGeometry(bits_per_token=64, level_bits=(0, 9, 64))
    data = make_tok(geometry=geometry, chunks=1)
    arrays = token_arrays(io.BytesIO(data))
    assert (arrays["indices"].dtype, arrays["subtokens"].shape[-1]) == (np.uint64, 8)
    assert int(arrays["indices"].max()) > 1 << 63
    (back,) = read_chunks(tok_bytes(arrays, entropy=ADAPTIVE))
    assert np.array_equal(back.indices, arrays["indices"])


def test_indices_and_subtokens_that_disagree_are_refused() -> None:
    arrays = token_arrays(io.BytesIO(make_tok(geometry=WIDE)))
    other = arrays["subtokens"].copy()
    other[0, 0, 0, 5] ^= 1
    with pytest.raises(UsageError, match="do not agree"):
        tok_bytes({**arrays, "subtokens": other}, entropy=ADAPTIVE)
    for wrong in (other + 512, other / 2, other[..., :0]):
        some = {name: array for name, array in arrays.items() if name != "indices"}
        with pytest.raises(UsageError):
            tok_bytes({**some, "subtokens": wrong}, entropy=ADAPTIVE)


# --- the data set ---


def test_a_data_set_reads_without_a_tokenizer(tmp_path: Path, prior: Entropy) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.tok").write_bytes(make_tok())
    (tmp_path / "two.tok").write_bytes(make_tok(entropy=prior, chunks=1, mixed_levels=True))
    assert prior.prior is not None
    data = TokenDataset(tmp_path, prior=prior.prior.path)
    assert len(data) == 3
    item = data[1]
    assert (item["path"], item["chunk"]) == ("a/one.tok", 1)
    assert torch.equal(item["indices"], torch.from_numpy(some_chunk(1).indices.astype(np.int64)))
    assert int(data[2]["kept"].min()) < 18
    pieces = TokenDataset(tmp_path / "a", steps=2)
    assert len(pieces) == 2
    batch = next(iter(torch.utils.data.DataLoader(pieces, batch_size=2)))
    assert batch["indices"].shape == (2, 2, ROWS, COLUMNS)
    assert batch["subtokens"].shape == (2, 2, ROWS, COLUMNS, 2)
    with pytest.raises(UsageError, match=r"no \.tok file"):
        TokenDataset(tmp_path / "a" / "nothing")
    (tmp_path / "wide.tok").write_bytes(make_tok(geometry=WIDE))
    with pytest.raises(UsageError, match="several kinds"):
        TokenDataset(tmp_path)


def test_a_data_set_of_wide_tokens(tmp_path: Path) -> None:
    (tmp_path / "wide.tok").write_bytes(make_tok(geometry=WIDE))
    data = TokenDataset(tmp_path)
    assert (data.bits_per_token, data.subtoken_bits) == (54, (9,) * 6)
    item, wanted = data[1], some_chunk(1, geometry=WIDE).indices
    assert item["subtokens"].dtype == torch.int32
    assert np.array_equal(item["indices"].numpy().astype(np.uint64), wanted)
    assert np.array_equal(join_subtokens(item["subtokens"].numpy(), bits=54), wanted)
    assert TokenDataset(tmp_path, parts=3).subtoken_bits == (18, 18, 18)
    with pytest.raises(UsageError, match="cannot be cut"):
        TokenDataset(tmp_path, parts=1)


@pytest.mark.parametrize("geometry", [DEFAULT_GEOMETRY, WIDE], ids=["18 bits", "54 bits"])
def test_the_example_learns_two_classes(tmp_path: Path, geometry: TokenGeometry) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for number in range(3):
            data = make_tok(seed=number + (40 if name == "second" else 0), geometry=geometry)
            (tmp_path / name / f"{number}.tok").write_bytes(data)
    example = Path(__file__).parent.parent / "examples" / "classify_tokens.py"
    done = subprocess.run([sys.executable, str(example), str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "12 pieces, 2 classes, 100% of them learned\n"


def test_auto_is_the_prior_of_the_tokenizer_and_else_adaptive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_prior.write_prior(tmp_path)
    assert choose_entropy("auto", None, tokenizer="00") == ADAPTIVE
    assert choose_entropy("auto", str(path), tokenizer="00").digest.hex() == tiny_prior.SHA256
    installed = PriorEntry(name="own", sha256=tiny_prior.SHA256, path=path, tokenizers=("00",))
    monkeypatch.setattr(priors, "prior_entries", lambda: (installed,))
    chosen = choose_entropy("auto", None, tokenizer="00")
    assert (chosen.model, chosen.digest.hex()) == ("prior", tiny_prior.SHA256)
    assert choose_entropy("auto", None, tokenizer="01") == ADAPTIVE


def test_choice_of_entropy(tmp_path: Path) -> None:
    path = tiny_prior.write_prior(tmp_path)
    assert choose_entropy("adaptive", None, tokenizer="") == ADAPTIVE
    assert choose_entropy("prior", str(path), tokenizer="").digest.hex() == tiny_prior.SHA256
    with pytest.raises(UsageError, match="no probability model"):
        choose_entropy("oracle", None, tokenizer="")
    with pytest.raises(UsageError, match="has no weights"):
        choose_entropy("adaptive", str(path), tokenizer="")
    with pytest.raises(ModelError, match="no prior"):
        choose_entropy("prior", None, tokenizer="00")
    with pytest.raises(ModelError, match="no prior is called"):
        choose_entropy("prior", "nobody", tokenizer="")


def test_the_command_line(tmp_path: Path) -> None:
    from tokcodec.cli import app

    source, small, arrays, back = (tmp_path / name for name in ("in.tok", "small.tok", "t.npz", "back.tok"))
    source.write_bytes(make_tok())

    def run(*words: str | Path) -> object:
        return app([str(word) for word in words], standalone_mode=False)

    done = typed("trim", source, small, "--bpp", "0.05", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert small.stat().st_size < source.stat().st_size
    done = typed("tokens", small, arrays, "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_arrays(arrays)["subtokens"].shape[-1] == 2
    run("tokens", arrays, back, "-q")
    for before, after in zip(read_chunks(small.open("rb")), read_chunks(back.open("rb")), strict=True):
        assert np.array_equal(before.indices, after.indices)
    with pytest.raises(UsageError, match="one is needed"):
        run("trim", source, tmp_path / "no.tok")
    with pytest.raises(UsageError, match="must be a file of tokens"):
        run("tokens", source, tmp_path / "no.mp4")
    path = tiny_prior.write_prior(tmp_path)
    run("tokens", arrays, tmp_path / "prior.tok", "-q", "--entropy", "prior", "--prior", path)
    run("verify", tmp_path / "prior.tok", "-q", "--prior", path)
    source.write_bytes(source.read_bytes()[:-60])
    with pytest.raises(IncompleteError):
        run("trim", source, tmp_path / "part.tok", "-Q", "3", "-q")
    assert (tmp_path / "part.tok").exists()
