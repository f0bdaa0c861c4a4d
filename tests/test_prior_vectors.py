"""The vectors of the model `prior`: tokcodec and the independent decoder read them as their manifest says."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import make_prior_vectors
import pytest
import spec_decoder
import tiny_prior

from tokcodec.chunks import decode_chunk
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import CorruptStreamError, ModelError, TokcodecError

FOLDER = make_prior_vectors.FOLDER
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
PRIORS = {18: FOLDER / MANIFEST["prior"], 54: FOLDER / MANIFEST["wide_prior"]}
ERRORS: dict[str, type[TokcodecError]] = {"C": CorruptStreamError, "M": ModelError}
VECTORS = [pytest.param(entry, id=entry["file"]) for entry in MANIFEST["vectors"]]


def test_the_vectors_are_those_of_the_script() -> None:
    assert make_prior_vectors.differences() == []


def digest(indices: Any, levels: Any, vectors: Any) -> str:
    data = indices.astype("<u8").tobytes() + levels.astype("u1").tobytes() + vectors.astype("<i2").tobytes()
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("entry", VECTORS)
def test_tokcodec(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS_PATH", str(FOLDER))
    reader = read_stream(io.BytesIO((FOLDER / entry["file"]).read_bytes()))
    assert reader.header.probability_model == 1
    found: list[str] = []
    error = None
    for record in (item for item in reader if isinstance(item, ChunkRecord)):
        try:
            tokens = decode_chunk(record, reader.header)
        except TokcodecError as problem:
            error = problem
            break
        found.append(digest(tokens.indices, tokens.levels, tokens.vectors))
    assert found == [chunk["tokens_sha256"] for chunk in entry["chunks"]]
    assert reader.summary.damages == 0
    assert error is None if entry["error"] is None else type(error) is ERRORS[entry["error"]]


@pytest.mark.parametrize("entry", VECTORS)
def test_the_independent_decoder(entry: dict[str, Any]) -> None:
    file = spec_decoder.Reader((FOLDER / entry["file"]).read_bytes(), robust=True).run()
    found: list[str] = []
    kind = None
    for chunk in file.chunks:
        try:
            weights = PRIORS[file.header.geometry.bits_per_token].read_bytes()
            tokens = spec_decoder.decode_chunk(chunk, file.header, weights)
        except spec_decoder.SpecError as problem:
            kind = problem.kind
            break
        found.append(digest(*tokens))
    assert found == [chunk["tokens_sha256"] for chunk in entry["chunks"]]
    assert kind == entry["error"]


def test_without_the_weights_the_independent_decoder_says_so() -> None:
    file = spec_decoder.Reader((FOLDER / "groups.tok").read_bytes(), robust=True).run()
    with pytest.raises(spec_decoder.SpecError, match=r"^M "):
        spec_decoder.decode_chunk(file.chunks[0], file.header)


def test_weights_given_as_a_file(tmp_path: Path) -> None:
    path = tiny_prior.write_prior(tmp_path)
    reader = read_stream(io.BytesIO((FOLDER / "groups.tok").read_bytes()))
    record = next(item for item in reader if isinstance(item, ChunkRecord))
    with pytest.raises(ModelError) as refused:
        decode_chunk(record, reader.header)
    assert "--prior FILE" in str(refused.value.hint)
    assert decode_chunk(record, reader.header, prior=path).indices.shape == (3, 3, 5)
