"""First pictures by wavelets as a codec: files, their headers, and what goes on from them (spec sections 3.6, 8.7)."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import tiny_prior
import torch
from picture_films import (  # noqa: F401
    NARROW_JSON,
    codec_fixture,
    error_of,
    film_fixture,
    glide,
    weights_fixture,
    with_header,
    write_weights,
)
from test_conceal import records_of, tokens_of, without
from test_steps import turning

from tokcodec.bits import encode_tokens
from tokcodec.chunks import decode_chunk
from tokcodec.cli import app
from tokcodec.codec import Codec
from tokcodec.console import Console
from tokcodec.container import StreamHeader, read_stream
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.inspection import survey
from tokcodec.prediction import predict
from tokcodec.rate import Rate
from tokcodec.tokenizer.wavelet import restored

# --- files ---


def test_films_come_back(codec: Codec, film: bytes):
    frames, found = glide(14), codec.decode_frames(film)
    assert found.frames.shape == frames.shape
    reader = read_stream(io.BytesIO(film))
    assert reader.header.geometry.pictures
    firsts = [0, 5, 10]
    assert error_of(found.frames[firsts], frames[firsts]) < 60
    for number, first in enumerate(firsts):
        picture = tokens_of(film, number).picture
        assert picture is not None
        pixels = restored(picture, torch.zeros(1)).permute(1, 2, 0)
        whole = pixels.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        np.testing.assert_array_equal(found.frames[first], whole[:60, :90])


def test_files_are_surveyed(film: bytes):
    report = survey(io.BytesIO(film), check_tokens=True)
    assert (report.complete, report.frames, report.chunks) == (True, 14, 3)
    assert report.picture_bits is not None
    assert report.to_dict()["picture_bits"] == report.picture_bits
    each = [chunk.picture_bits for chunk in report.chunk_bits]
    assert sum(bits or 0 for bits in each) == report.picture_bits
    for chunk in report.chunk_bits:
        assert chunk.picture_bits is not None
        assert 500 < chunk.picture_bits < chunk.coded_bits
        assert chunk.to_dict()["picture_bits"] == chunk.picture_bits
    blind = survey(io.BytesIO(film), check_tokens=False)
    assert blind.picture_bits is None
    assert blind.chunk_bits[0].picture_bits is None


def test_bits_of_a_token_are_those_of_tokens_alone(
    film: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    values = survey(io.BytesIO(film), check_tokens=True).to_dict()
    for found, coded in [(values, "coded_token_bits"), *((chunk, "coded_bits") for chunk in values["chunk_bits"])]:
        assert min(found["motion_bits"], found["picture_bits"]) > 0
        alone = max(0, found[coded] - found["motion_bits"] - found["picture_bits"])
        assert found["coded_bits_per_token"] == round(alone / found["tokens"], 4)
    # The same film without motion and pictures: tokens by themselves cost about as much.
    for number, chunk in enumerate(values["chunk_bits"]):
        tokens = tokens_of(film, number)
        none = {"pictures": False, "motion_tokens": 0, "motion_maps": 1, "motion_network": False}
        geometry = replace(tokens.geometry, **none)
        nothing = np.zeros((len(tokens.indices), 0, 0, 2), np.int16)
        alone = 8 * len(encode_tokens(replace(tokens, geometry=geometry, vectors=nothing, picture=None)))
        assert chunk["coded_bits_per_token"] == pytest.approx(alone / chunk["tokens"], abs=128 / chunk["tokens"])
    blind = survey(io.BytesIO(film), check_tokens=False).to_dict()
    for found in (blind, *blind["chunk_bits"]):
        assert (found["motion_bits"], found["picture_bits"], found["coded_bits_per_token"]) == (None, None, None)
    source = tmp_path / "a.tok"
    source.write_bytes(film)
    monkeypatch.setattr(Console, "current", None)
    app(["info", str(source)], standalone_mode=False)
    wanted = f"{values['tokens']} in {values['token_bytes']} bytes, and motion and first pictures among them\n"
    assert wanted in capsys.readouterr().out
    app(["verify", str(source)], standalone_mode=False)
    each = f"{values['coded_bits_per_token']:.3f} bits each of {values['raw_bits_per_token']:.3f} before coding"
    assert each in capsys.readouterr().out


def test_a_still_picture_is_a_file(codec: Codec, tmp_path: Path):
    frames = turning(1)
    data = codec.encode_frames(frames, quality=6)
    shown = codec.decode_frames(data).frames
    assert shown.shape == frames.shape
    assert error_of(shown, frames) < 20
    assert len(codec.encode_frames(frames, quality=1)) < len(data)
    np.testing.assert_array_equal(codec.decode_frames(codec.encode_frames(frames, quality=6)).frames, shown)


def test_short_steps_come_back(codec: Codec):
    frames = turning(9)
    data = codec.encode_frames(frames, quality=5, effort=1, chunk_frames=9, scene_cuts=False)
    (record,) = records_of(data)[1]
    assert 1 in record.step_frames
    assert codec.decode_frames(data).frames.shape == frames.shape


def test_a_rate_is_met(codec: Codec):
    frames = glide(14)
    for rate in (0.1, 0.16):
        data = codec.encode_frames(frames, rate=Rate(bits_per_pixel=rate), chunk_frames=5, effort=0, scene_cuts=False)
        assert 8 * len(data) / frames[..., 0].size == pytest.approx(rate, rel=0.08)


def test_a_prior_codes_what_follows(tmp_path: Path):
    prior = tiny_prior.write_prior(tmp_path)
    codec = Codec(model=str(write_weights(tmp_path, NARROW_JSON)), device="cpu", entropy="prior", prior=prior)
    data = codec.encode_frames(glide(6), quality=4, effort=0, frame_rate=24, scene_cuts=False)
    assert read_stream(io.BytesIO(data)).header.probability_model == 1
    found = codec.decode_frames(data).frames
    plain = Codec(model=str(tmp_path / "tiny-wavelet.safetensors"), device="cpu", entropy="adaptive")
    wanted = plain.decode_frames(plain.encode_frames(glide(6), quality=4, effort=0, scene_cuts=False)).frames
    np.testing.assert_array_equal(found, wanted)
    sink = io.BytesIO()
    result = predict(io.BytesIO(data), sink, seconds=4 / 24, prior=str(prior), seed=1)
    assert result.method == "prior"
    longer = codec.decode_frames(sink.getvalue()).frames
    np.testing.assert_array_equal(longer[:5], found[:5])
    assert len(longer) == 10


# --- headers and weights that do not fit ---


def test_weights_that_the_header_does_not_fit_are_refused(codec: Codec, film: bytes, tmp_path: Path):
    plain = Codec(model=str(tiny_model.write_weights(tmp_path, motion=7)), device="cpu")
    others = plain.encode_frames(glide(3), quality=4, effort=0)
    one, other = (records_of(data)[0] for data in (film, others))
    with pytest.raises(ModelError, match="pictures is True"):
        plain.decode_frames(with_header(film, tokenizer_digest=other.tokenizer_digest))
    with pytest.raises(ModelError, match="pictures is False"):
        codec.decode_frames(with_header(others, tokenizer_digest=one.tokenizer_digest))


def test_tokens_that_the_header_does_not_fit_are_damaged(codec: Codec, film: bytes):
    geometry = records_of(film)[0].geometry
    data = with_header(film, geometry=replace(geometry, pictures=False, second_reference=False))
    found = survey(io.BytesIO(data), check_tokens=True)
    assert (found.chunks, len(found.damages)) == (0, 3)


def test_headers_say_that_there_are_pictures(film: bytes):
    header = records_of(film)[0]
    limits = read_stream.__kwdefaults__["limits"]

    def back(changed: StreamHeader) -> StreamHeader:
        return parse_header(pack_header(changed), offset=0, limits=limits, understood=())

    header = replace(header, extensions=())
    for pictures in (True, False):
        geometry = replace(header.geometry, pictures=pictures, second_reference=False)
        assert back(replace(header, geometry=geometry)).geometry == geometry
    assert back(header).geometry.second_reference
    with pytest.raises(UsageError, match="a second reference, and no first pictures"):
        pack_header(replace(header, geometry=replace(header.geometry, pictures=False)))
    for wrong in (
        replace(header.geometry, motion_maps=1),
        replace(header.geometry, spatial_factor=16),
    ):
        with pytest.raises(UsageError, match="first pictures"):
            pack_header(replace(header, geometry=wrong))
    # Where a header has its flags: the one byte that differs.
    plain = pack_header(replace(header, geometry=replace(header.geometry, pictures=False, second_reference=False)))
    (at,) = np.flatnonzero(np.frombuffer(plain, np.uint8) != np.frombuffer(pack_header(header), np.uint8))
    flags = plain[at]
    assert flags & 0x0E == 6
    for broken in (flags & ~4 | 8, flags & ~6 | 8, flags | 16, flags | 32, flags & ~4 | 64, flags | 128):
        data = plain[:at] + bytes([broken]) + plain[at + 1 :]
        with pytest.raises(CorruptStreamError):
            parse_header(data, offset=0, limits=limits, understood=())


# --- what is lost, and what goes on ---


def test_a_chunk_that_is_lost_is_filled_in(codec: Codec, film: bytes):
    whole = codec.decode_frames(film).frames
    for lost in (0, 1, 2):
        found = codec.decode_frames(without(film, lost), conceal=True, forecast=True).frames
        assert found.shape == whole.shape
        span = slice(5 * lost, 5 * lost + 5)
        rest = [n for n in range(14) if not 5 * lost <= n < 5 * lost + 5]
        np.testing.assert_array_equal(found[rest], whole[rest])
        assert (found[span] != whole[span]).any()


def test_a_video_goes_on(codec: Codec, film: bytes):
    sink = io.BytesIO()
    result = predict(io.BytesIO(film), sink, seconds=6 / 24, forecast=True)
    longer = sink.getvalue()
    assert (result.method, result.frames) == ("forecast", 20)
    for number in range(3):
        before, after = tokens_of(film, number).picture, tokens_of(longer, number).picture
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before.coefficients, after.coefficients)
    shown, whole = codec.decode_frames(longer).frames, codec.decode_frames(film).frames
    count = 14 - result.replaced
    np.testing.assert_array_equal(shown[:count], whole[:count])
    assert survey(io.BytesIO(longer), check_tokens=True).complete


@pytest.mark.parametrize("frames", [6, 8])
def test_where_nothing_can_be_drawn_none_says_that_it_was(frames: int, tmp_path: Path):
    """The last chunk has one frame, or three, which do not fill a step: all that is known is a picture."""
    prior = tiny_prior.write_prior(tmp_path)
    codec = Codec(model=str(write_weights(tmp_path, NARROW_JSON)), device="cpu", entropy="prior", prior=prior)
    data = codec.encode_frames(glide(frames), chunk_frames=5, quality=4, effort=0, frame_rate=24, scene_cuts=False)
    made = {}
    for forecast in (False, True):
        sink = io.BytesIO()
        result = predict(io.BytesIO(data), sink, seconds=8 / 24, prior=str(prior), seed=1, forecast=forecast)
        assert (result.method, result.frames) == ("forecast", frames + 8)
        assert ("nothing was drawn from the prior" in " ".join(result.notes)) == (not forecast)
        made[forecast] = sink.getvalue()
    assert made[False] == made[True]
    header, records, _ = records_of(made[False])
    assert not decode_chunk(records[1], header, prior=prior).levels.any()
    # Likewise where a chunk is filled in behind such a one.
    ones = codec.encode_frames(glide(3), chunk_frames=1, quality=4, effort=0, frame_rate=24, scene_cuts=False)
    source = tmp_path / "a.tok"
    source.write_bytes(without(ones, 1))
    notes = " ".join(codec.decode(source, tmp_path / "a.mkv", conceal=True).notes)
    assert "1 frames were filled in after the chunk before them: what the tokenizer expects next" in notes
    assert "likelier bits" not in notes


def test_a_part_of_a_file_begins_within_a_chunk(codec: Codec, film: bytes, tmp_path: Path):
    import av

    source = tmp_path / "a.tok"
    source.write_bytes(film)
    whole = codec.decode_frames(film).frames
    codec.decode(source, tmp_path / "part.mkv", codec="ffv1", start_seconds=7 / 24, duration_seconds=5 / 24)
    with av.open(str(tmp_path / "part.mkv")) as container:
        found = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(found) == 5
    assert error_of(found, whole[7:12]) < 20


@pytest.mark.parametrize(("height", "width"), [(9, 17), (8, 8), (40, 33)])
def test_noise_is_a_picture_too(codec: Codec, height: int, width: int):
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    found = codec.decode_frames(codec.encode_frames(frames, quality=6, effort=0)).frames
    assert found.shape == frames.shape
    assert error_of(found[:1], frames[:1]) < 27**2 / 3, "a step of 27 pixels' values, at random within it"
