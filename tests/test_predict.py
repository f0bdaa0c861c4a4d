"""A video that goes on: what was there stays, what is new is what was drawn."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from command_line import typed
from media import OneWay, make_film, picture
from test_conceal import (  # noqa: F401
    codec,
    gone_on,
    moving_film,
    prior,
    records_of,
    tokens_of,
    weights,
    with_a_step_emptied,
    without,
)

from tokcodec import Codec
from tokcodec.container import ChunkRecord, ContainerWriter, Extension, SidePacketBatch, read_stream
from tokcodec.continuation import Continuation
from tokcodec.errors import CorruptStreamError, IncompleteError, LimitError, ModelError, TokcodecError, UsageError
from tokcodec.frames import Frame, open_video
from tokcodec.inspection import survey
from tokcodec.prediction import NOTHING_DRAWN, PredictResult, predict
from tokcodec.tokens import TokenChunk
from tokcodec.weights.priors import load_prior
from tokcodec.weights.registry import entry_of_file


@pytest.fixture(scope="module")
def film(codec: Codec) -> bytes:  # noqa: F811
    """Sixteen frames in chunks of nine; the last one has seven, so that two of them do not fill their step."""
    frames = np.stack([picture(48, 32, index) for index in range(16)])
    return codec.encode_frames(frames, chunk_frames=9, effort=0, quality=4, frame_rate=Fraction(24))


def predicted(data: bytes, **options: object) -> tuple[bytes, PredictResult]:
    sink = io.BytesIO()
    result = predict(io.BytesIO(data), sink, **options)  # type: ignore[arg-type]
    return sink.getvalue(), result


def beginning_of(chunk: TokenChunk, steps: int) -> TokenChunk:
    parts = {name: getattr(chunk, name)[:steps] for name in ("indices", "levels", "vectors")}
    return replace(chunk, **parts)


def test_the_last_chunk_goes_on_with_what_is_drawn(film: bytes, prior: Path):  # noqa: F811
    longer, result = predicted(film, seconds=0.5, seed=3, temperature=0.5, prior=str(prior))
    assert (result.frames, result.predicted, result.replaced, result.method) == (28, 14, 2, "prior")
    assert result.start_seconds == pytest.approx(14 / 24)
    found = survey(io.BytesIO(longer), check_tokens=True)
    assert found.complete
    assert (found.frames, found.chunks) == (28, 2)
    (_, before, _), (header, after, _) = records_of(film), records_of(longer)
    assert after[0] == before[0], "the others are copied"
    assert [pts for record in after for pts in record.pts] == list(range(28))
    assert header.max_chunk_frames == 19
    past, now = tokens_of(film, 1), tokens_of(longer, 1)
    np.testing.assert_array_equal(now.indices[:2], past.indices[:2])
    known = beginning_of(past, 2)
    drawing = Continuation(known, load_prior(entry_of_file(prior)), seed=3, temperature=0.5)
    for step in range(2, 6):
        np.testing.assert_array_equal(now.indices[step], drawing.step())
        np.testing.assert_array_equal(now.levels[step], drawing.levels)


def test_the_seed_decides(film: bytes, prior: Path):  # noqa: F811
    one, two, other = (predicted(film, seconds=0.2, seed=seed, prior=str(prior))[0] for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_forecast_needs_no_prior_and_draws_nothing(codec: Codec, film: bytes):  # noqa: F811
    longer, result = predicted(film, seconds=0.25, forecast=True)
    assert (result.predicted, result.method) == (8, "forecast")
    now = tokens_of(longer, 1)
    assert not now.indices[2:].any()
    assert not now.levels[2:].any()
    shown = codec.decode_frames(longer).frames
    past = tokens_of(film, 1)
    known = beginning_of(past, 2)
    np.testing.assert_array_equal(shown[14:], gone_on(codec, film, known, None, 8))
    np.testing.assert_array_equal(shown[:14], codec.decode_frames(film).frames[:14])
    with pytest.raises(ModelError, match="no prior for this tokenizer"):
        predicted(film, seconds=0.25)


def test_where_blocks_usually_keep_nothing_the_note_is_true(codec: Codec, prior: Path):  # noqa: F811
    """The last step keeps bits, the one before none: the lower median is 0."""
    frames = np.stack([picture(48, 32, index) for index in range(9)])
    data = codec.encode_frames(frames, chunk_frames=9, effort=0, quality=4, frame_rate=Fraction(24))
    assert predicted(data, seconds=0.25, prior=str(prior))[1].notes == ()
    data = with_a_step_emptied(data, 0)
    assert tokens_of(data, 0).levels.any(axis=(1, 2)).tolist() == [True, False, True]
    longer, result = predicted(data, seconds=0.25, prior=str(prior))
    assert (result.method, result.notes) == ("forecast", (NOTHING_DRAWN,))
    assert longer == predicted(data, seconds=0.25, forecast=True)[0]


def test_motion_goes_on_with_that_of_the_last_whole_step(tmp_path: Path):
    path = tiny_model.write_weights(tmp_path, motion=True)
    moving = Codec(model=str(path), device="cpu")
    data = moving_film(moving)  # the last chunk has three frames, which do not fill their step
    header, records, _ = records_of(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, header) as writer:
        writer.write_chunk(records[0])
        writer.write_chunk(records[1])
    longer, result = predicted(sink.getvalue(), seconds=0.5, forecast=True)
    assert (result.predicted, result.replaced) == (12, 0)
    now = tokens_of(longer, 1)
    assert now.vectors[2:].any()
    np.testing.assert_array_equal(now.vectors[1:], tokens_of(data, 1).vectors[[1] * 4])
    shown = moving.decode_frames(longer).frames
    np.testing.assert_array_equal(shown[10:], gone_on(moving, data, tokens_of(data, 1), None, 12))


def test_variable_frame_rate_goes_on_at_the_mean_of_the_last_chunk(film: bytes):
    header, records, _ = records_of(film)
    sink = io.BytesIO()
    with ContainerWriter(sink, replace(header, frame_rate=None)) as writer:
        writer.write_chunk(replace(records[0], last_duration=91))
        writer.write_chunk(replace(records[1], pts=(100, 103, 104, 110, 111, 112, 119), last_duration=2))
    longer, result = predicted(sink.getvalue(), seconds=0.5, forecast=True)
    assert records_of(longer)[1][1].pts[7:] == (121, 124, 127, 130), "12 ticks at three each"
    assert result.start_seconds == pytest.approx(112 / 24), "the sixth frame begins the step that is made anew"


def test_what_rides_along_and_what_is_lost(codec: Codec, tmp_path: Path):  # noqa: F811
    make_film(tmp_path / "in.mkv")
    sink = io.BytesIO()
    codec.encode(tmp_path / "in.mkv", sink, chunk_frames=5, effort=0)

    def packets(data: bytes) -> list[object]:
        items = read_stream(io.BytesIO(data))
        return [packet for item in items if isinstance(item, SidePacketBatch) for packet in item.packets]

    longer, _ = predicted(sink.getvalue(), seconds=0.1, forecast=True)
    assert packets(longer) == packets(sink.getvalue()) != []
    broken, result = predicted(without(sink.getvalue(), 3), seconds=0.1, forecast=True)
    assert [list(damage.missing_chunks) for damage in result.damages] == [[3]]
    assert [record.frames for record in records_of(broken)[1]] == [5, 5, 7], "it goes on from the last whole chunk"
    broken, result = predicted(without(sink.getvalue(), 1), seconds=0.1, forecast=True)
    assert [record.number for record in records_of(broken)[1]] == [0, 1, 2]
    assert result.damages


def test_extensions_are_left_out_with_a_note(film: bytes):
    header, records, _ = records_of(film)
    sink = io.BytesIO()
    with ContainerWriter(sink, header) as writer:
        for record in records:
            writer.write_chunk(record)
        writer.write_extension(Extension(type=0x90, data=b"x"))
    longer, result = predicted(sink.getvalue(), seconds=0.1, forecast=True)
    assert "1 extensions were left out" in result.notes[0]
    assert all(isinstance(item, ChunkRecord) for item in read_stream(io.BytesIO(longer)))


def test_what_cannot_be_is_refused(codec: Codec, film: bytes, prior: Path):  # noqa: F811
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="longer than 0"):
            predicted(film, seconds=wrong, forecast=True)
    with pytest.raises(LimitError, match="too long"):
        predicted(film, seconds=1e7, forecast=True)
    with pytest.raises(UsageError, match="temperature"):
        predicted(film, seconds=1, temperature=9.0, prior=str(prior))
    with pytest.raises(CorruptStreamError, match="no chunk"):
        predicted(without(film, 0, 1), seconds=1, forecast=True)
    header, records, _ = records_of(film)
    sink = io.BytesIO()
    with ContainerWriter(sink, replace(header, still_image=True)) as writer:
        writer.write_chunk(replace(records[0], pts=(0,)))
    with pytest.raises(UsageError, match="no motion"):
        predicted(sink.getvalue(), seconds=1, forecast=True)
    with pytest.raises(UsageError, match="seek"):
        predict(OneWay(film), io.BytesIO(), seconds=1, forecast=True)


def test_on_the_command_line(
    codec: Codec,  # noqa: F811
    film: bytes,
    weights: Path,  # noqa: F811
    prior: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    from tokcodec.cli import app

    source = tmp_path / "in.tok"
    source.write_bytes(film)
    options = ("--seconds", "0.5", "--seed", "3", "--temperature", "0.5", "--prior", prior)
    longer = predicted(film, seconds=0.5, seed=3, temperature=0.5, prior=str(prior))[0]
    piped = typed("predict", "-", "-", *options, stdin=film)
    assert (piped.returncode, piped.stdout) == (0, longer), piped.stderr
    assert b"14, from 0.583 s on, drawn from the prior" in piped.stderr
    assert b"made anew: the last 2" in piped.stderr

    def run(*words: str | Path) -> object:
        return app(["predict", *map(str, words)], standalone_mode=False)

    run(source, tmp_path / "out.tok", *options)
    assert (tmp_path / "out.tok").read_bytes() == longer
    capsys.readouterr()
    run(source, tmp_path / "new.mkv", *options, "--only", "--weights", weights, "--device", "cpu", "--json")
    values = json.loads(capsys.readouterr().out)
    assert (values["frames"], values["predicted"], values["method"]) == (28, 14, "prior")
    with open_video(tmp_path / "new.mkv") as reader:
        assert sum(isinstance(item, Frame) for item in reader) == 14
    cases = (
        (2, (source, tmp_path / "x.tok", "--only", "--forecast")),
        (2, (source, tmp_path / "x.xyz", "--forecast")),
        (2, (source, tmp_path / "x.tok", "--forecast", "--seconds", "0")),
        (6, (source, tmp_path / "x.tok")),
        (7, (source, tmp_path / "out.tok", "--forecast")),
    )
    for code, words in cases:
        with pytest.raises(TokcodecError) as caught:
            run(*words)
        assert caught.value.exit_code == code, words
        assert caught.value.hint, words
        assert code != 6 or "--forecast" in caught.value.hint
    assert not (tmp_path / "x.tok").exists()
    source.write_bytes(without(film, 0))
    with pytest.raises(IncompleteError):
        run(source, tmp_path / "y.tok", "--forecast")
    assert (tmp_path / "y.tok").exists()
