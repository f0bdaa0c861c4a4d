"""`tokcodec info --json`: bits before and after coding, of the file, of each chunk, and per token."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_prior
from test_prior_wide import WIDE
from test_tokens_files import COLUMNS, FRAMES, ROWS, make_tok, some_chunk

from tokcodec.chunks import Entropy
from tokcodec.cli import app
from tokcodec.inspection import survey
from tokcodec.tokens import DEFAULT_GEOMETRY, TokenGeometry
from tokcodec.weights.registry import entry_of_file

TOKENS = 3 * ROWS * COLUMNS


def info(capfd: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, object]:
    capfd.readouterr()
    app(["info", *map(str, words), "--json"], standalone_mode=False)
    found: dict[str, object] = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.parametrize("geometry", [DEFAULT_GEOMETRY, WIDE], ids=["18 bits", "54 bits"])
def test_bits_are_counted_by_chunk_and_token(
    geometry: TokenGeometry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tok"
    path.write_bytes(make_tok(mixed_levels=True, geometry=geometry))
    values = info(capfd, path)
    table = np.asarray(geometry.level_bits)
    raw = [
        int(table[some_chunk(n, mixed_levels=True, geometry=geometry).levels].repeat(4, 1).repeat(4, 2).sum())
        for n in (0, 1)
    ]
    chunks = values["chunk_bits"]
    assert isinstance(chunks, list)
    assert [chunk["number"] for chunk in chunks] == [0, 1]
    assert [(chunk["frames"], chunk["tokens"]) for chunk in chunks] == [(FRAMES, TOKENS)] * 2
    assert [chunk["raw_bits"] for chunk in chunks] == raw
    assert [chunk["raw_bits_per_token"] for chunk in chunks] == [round(bits / TOKENS, 4) for bits in raw]
    assert sum(chunk["coded_bits"] for chunk in chunks) == values["coded_token_bits"] == 8 * values["token_bytes"]  # type: ignore[operator]
    assert (values["tokens"], values["raw_token_bits"]) == (2 * TOKENS, sum(raw))
    assert values["raw_bits_per_token"] == round(sum(raw) / 2 / TOKENS, 4)
    assert values["coded_bits_per_token"] == round(values["coded_token_bits"] / 2 / TOKENS, 4)
    assert (values["raw_token_bits_reason"], values["tokens_checked"]) == (None, True)
    assert values["level_bits"] == list(geometry.level_bits)


def test_without_the_weights_of_the_prior_raw_bits_are_not_known(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prior = tiny_prior.write_prior(tmp_path)
    path = tmp_path / "a.tok"
    path.write_bytes(make_tok(entropy=Entropy(model="prior", prior=entry_of_file(prior))))
    values = info(capfd, path)
    assert (values["raw_token_bits"], values["raw_bits_per_token"], values["tokens_checked"]) == (None, None, False)
    assert "no weights with SHA-256" in str(values["raw_token_bits_reason"])
    chunks = values["chunk_bits"]
    assert isinstance(chunks, list)
    assert [chunk["raw_bits"] for chunk in chunks] == [None, None]
    assert min(chunk["coded_bits_per_token"] for chunk in chunks) > 0
    assert info(capfd, path, "--prior", prior)["raw_token_bits"] == 18 * 2 * TOKENS


def test_text_is_quick_and_says_bits_of_a_token(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tok"
    path.write_bytes(make_tok())
    found = survey(io.BytesIO(path.read_bytes()), check_tokens=False)
    assert (found.raw_token_bits, found.raw_reason) == (None, "tokens were not decoded")
    each = 8 * found.token_bytes / (2 * TOKENS)
    app(["info", str(path)], standalone_mode=False)
    assert f"{each:.3f} bits each\n" in capfd.readouterr().out
    app(["verify", str(path)], standalone_mode=False)
    assert f"{each:.3f} bits each of 18.000 before coding ({each / 18:.1%})\n" in capfd.readouterr().out
