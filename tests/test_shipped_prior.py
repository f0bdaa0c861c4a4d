"""A prior that comes with the package is found by everything, without a word; and what is said where it is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import tiny_prior
from media import picture
from safetensors import safe_open

import tokcodec
from tokcodec import Codec
from tokcodec.chunks import AUTO, choose_entropy
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import ModelError
from tokcodec.inspection import survey, verify
from tokcodec.prediction import predict
from tokcodec.tokenfiles import tok_bytes, token_arrays, tokenizer_of
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenset import TokenDataset, read_chunks
from tokcodec.trim import trim
from tokcodec.weights import priors, registry
from tokcodec.weights.priors import MAX_PRIOR_BYTES, choose_prior, load_prior, prior_entries


def install(folder: Path, patch: pytest.MonkeyPatch, *, with_prior: bool = True) -> Path:
    """Makes a folder the one of the package's weights: a small tokenizer, and a prior of its tokens."""
    listed: dict[str, list[dict[str, str]]] = {
        "tokenizers": [
            {"name": "base", "file": tiny_model.write_weights(folder).name, "sha256": tiny_model.SHA256},
        ]
    }
    path = tiny_prior.write_prior(folder)
    if with_prior:
        listed["priors"] = [
            {"name": "base-prior", "file": path.name, "sha256": tiny_prior.SHA256, "tokenizer": tiny_model.SHA256}
        ]
    (folder / "registry.json").write_text(json.dumps(listed), encoding="utf-8")
    for module in (registry, priors):
        patch.setattr(module, "PACKAGE_FOLDER", folder)
        patch.setattr(module, "REGISTRY", folder / "registry.json")
    return path


def frames() -> np.ndarray:
    return np.stack([picture(48, 32, index) for index in range(10)])


def encoded(entropy: str = AUTO) -> bytes:
    return Codec(device="cpu", entropy=entropy).encode_frames(frames(), chunk_frames=5, effort=0, quality=4)


def test_it_is_the_default_and_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    data, plain = encoded(), encoded("adaptive")
    assert read_stream(io.BytesIO(data)).header.probability_digest.hex() == tiny_prior.SHA256
    assert read_stream(io.BytesIO(plain)).header.probability_model == 0
    codec = Codec(device="cpu")
    np.testing.assert_array_equal(codec.decode_frames(data).frames, codec.decode_frames(plain).frames)
    found = survey(io.BytesIO(data), check_tokens=True)
    assert found.complete
    assert found.raw_token_bits
    assert found.to_dict()["probability_model"] == "prior"

    arrays = token_arrays(io.BytesIO(data))
    back = tok_bytes(arrays, entropy=choose_entropy(AUTO, None, tokenizer=tokenizer_of(arrays))).getvalue()
    kinds = [
        [item.token_data for item in read_stream(io.BytesIO(each)) if isinstance(item, ChunkRecord)]
        for each in (data, back)
    ]
    assert kinds[0] == kinds[1]
    for source in (data, plain):
        smaller, longer = io.BytesIO(), io.BytesIO()
        trim(io.BytesIO(source), smaller, quality=2)
        assert survey(io.BytesIO(smaller.getvalue()), check_tokens=True).complete
        assert predict(io.BytesIO(source), longer, seconds=0.2).method == "prior"
        assert survey(io.BytesIO(longer.getvalue()), check_tokens=True).complete

    (tmp_path / "film.tok").write_bytes(data)
    assert len(TokenDataset(tmp_path)) == 2
    wanted = next(read_chunks(io.BytesIO(plain))).indices.astype(np.int64)
    np.testing.assert_array_equal(TokenDataset(tmp_path)[0]["indices"].numpy(), wanted)  # type: ignore[union-attr]


def test_lost_chunks_are_filled_in_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    for entropy in (AUTO, "adaptive"):
        broken = bytearray(encoded(entropy))
        reader = read_stream(io.BytesIO(bytes(broken)))
        last = [reader.item_offset for item in reader if isinstance(item, ChunkRecord)][-1]
        broken[last + 60] ^= 0x10
        (tmp_path / "broken.tok").write_bytes(broken)
        result = Codec(device="cpu").decode(tmp_path / "broken.tok", tmp_path / "out.mkv", conceal=True, force=True)
        assert (result.frames, result.concealed) == (10, 5)
        assert "the prior's likelier bits" in " ".join(result.notes)


def test_an_installation_without_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    install(tmp_path / "new", monkeypatch)
    data = encoded()
    path = install(tmp_path / "old", monkeypatch, with_prior=False)
    assert read_stream(io.BytesIO(encoded())).header.probability_model == 0
    with pytest.raises(ModelError, match="no weights with SHA-256 6e3d9c94826e") as caught:
        Codec(device="cpu").decode_frames(data)
    assert "--prior FILE" in str(caught.value.hint)
    found = survey(io.BytesIO(data), check_tokens=True, needs_weights=False)
    assert found.complete
    assert "no weights" in str(found.raw_reason)
    (tmp_path / "film.tok").write_bytes(data)
    with pytest.raises(ModelError, match="no weights"):
        verify(tmp_path / "film.tok")
    assert verify(tmp_path / "film.tok", prior=path).complete
    assert tokcodec.decode(tmp_path / "film.tok", tmp_path / "film.mkv", device="cpu", prior=path).frames == 10
    made = tokcodec.encode(
        tmp_path / "film.mkv", tmp_path / "a.tok", device="cpu", entropy="prior", prior=path, effort=0
    )
    assert made.frames == 10
    monkeypatch.setenv(registry.WEIGHTS_PATH_VARIABLE, str(tmp_path / "old"))
    assert Codec(device="cpu").decode_frames(data).frames.shape == frames().shape


def test_a_file_of_the_package_that_is_gone_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match="damaged") as caught:
        encoded()
    assert caught.value.hint == "install tokcodec again"
    path.unlink()
    with pytest.raises(ModelError, match="cannot read the weights") as caught:
        encoded()
    assert caught.value.hint == "install tokcodec again"


def test_a_prior_of_other_tokens_is_refused_before_a_frame_is_coded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    wide = tiny_prior.write_prior(tmp_path, wide=True)
    codec = Codec(device="cpu", prior=wide)
    monkeypatch.setattr("tokcodec.tokenizer.stream.StreamEncoder.push", lambda *_: pytest.fail("a frame was coded"))
    with pytest.raises(ModelError, match="of 54 bits, these have 18") as caught:
        codec.encode_frames(frames())
    assert caught.value.hint


def test_whose_tokenizer_nobody_said_is_nobodys_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    listed = json.loads((tmp_path / "registry.json").read_text(encoding="utf-8"))
    del listed["priors"][0]["tokenizer"]
    (tmp_path / "registry.json").write_text(json.dumps(listed), encoding="utf-8")
    assert choose_entropy(AUTO, None, tokenizer="").model == "adaptive"
    with pytest.raises(ModelError, match="no prior for this tokenizer"):
        choose_prior(None, tokenizer="")
    assert choose_prior("base-prior", tokenizer="").sha256 == tiny_prior.SHA256


def test_what_ships() -> None:
    """Of the package as it is, with a prior or without."""
    known = prior_entries()
    assert len({entry.sha256 for entry in known}) == len({entry.name for entry in known}) == len(known)
    for entry in known:
        assert entry.path.parent == registry.PACKAGE_FOLDER
        assert entry.path.suffix == ".safetensors", "as the package data in pyproject.toml"
        assert entry.path.stat().st_size <= MAX_PRIOR_BYTES
        load_prior(entry)
    for ours in registry.entries() if known else ():
        with safe_open(ours.path, "numpy") as tensors:
            config = TokenizerConfig.from_json(tensors.metadata()[registry.CONFIG_KEY])
        network = load_prior(choose_prior(None, tokenizer=ours.sha256))
        assert network.config.bits_per_token == config.bits_per_token
