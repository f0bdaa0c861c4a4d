"""First pictures by wavelets as a codec: files, and all that is done with them (spec sections 3.6, 8.7)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import tiny_prior
import torch
from network_helpers import CPU, small_model
from numpy.typing import NDArray
from test_conceal import records_of, tokens_of, without
from test_steps import gliding, turning
from variants import HYBRID

from tokcodec.chunks import ADAPTIVE
from tokcodec.codec import Codec
from tokcodec.container import ContainerWriter, StreamHeader, read_stream
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, STEP_FRAMES
from tokcodec.inspection import survey
from tokcodec.prediction import predict
from tokcodec.rate import Rate
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig, UniformAllocator, slope_of
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder, TokenStep, prepare
from tokcodec.tokenizer.trial import block_errors
from tokcodec.tokenizer.wavelet import restored, scale_of_slope
from tokcodec.tokens import TokenGeometry, spread_levels
from tokcodec.trim import SCALES, trim

Frames = NDArray[np.uint8]
WAVELET = replace(HYBRID, wavelet=True)
CONFIG_JSON = tiny_model.HYBRID_CONFIG_JSON[:-1] + ', "wavelet": true}'
NARROW_JSON = CONFIG_JSON.replace("36", "18", 1).replace("[0, 6, 12, 18, 24, 30, 36]", "[0, 3, 6, 9, 12, 15, 18]")
"""With as many bits as the tiny prior knows."""


def write_weights(folder: Path, config: str = CONFIG_JSON) -> Path:
    path = folder / "tiny-wavelet.safetensors"
    path.write_bytes(tiny_model.weights_bytes(config))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def codec(weights: Path) -> Codec:
    return Codec(model=str(weights), device="cpu")


@pytest.fixture(scope="module")
def film(codec: Codec) -> bytes:
    """Fourteen frames in chunks of five, of which the last has four."""
    return codec.encode_frames(glide(14), chunk_frames=5, quality=5, effort=0, frame_rate=24, scene_cuts=False)


def glide(count: int) -> Frames:
    return gliding(count)[:, :60, :90]


def silent() -> Tokenizer:
    """A hybrid whose networks say nothing, so that it shows what pictures, bits and motion make."""
    model = small_model(replace(WAVELET, bits_per_token=62, level_bits=(0, 20, 62)))
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if "repair_out" in name or "share_out" in name:
                parameter.zero_()
    return prepare(model, CPU, torch.float32)


def coded(
    model: Tokenizer, frames: Frames, *, slope: float = 500.0, step_frames: Sequence[int] = (4,)
) -> tuple[StreamEncoder, list[TokenStep]]:
    allocator = RateDistortionAllocator(RateDistortionConfig(slope=slope))
    encoder = StreamEncoder(model, allocator, step_frames=step_frames)
    return encoder, [step for step in map(encoder.push, frames) if step is not None]


def decoded(model: Tokenizer, steps: Sequence[TokenStep], *, height: int, width: int) -> tuple[StreamDecoder, Frames]:
    decoder = StreamDecoder(model, height=height, width=width)
    pictures = []
    for number, step in enumerate(steps):
        rows, columns = step.indices.shape
        kept = spread_levels(step.levels, model.config.geometry, rows=rows, columns=columns)
        pictures.append(
            decoder.step(step.indices, kept, step.vectors, frames=step.frames if number else None, picture=step.picture)
        )
    return decoder, np.concatenate(pictures)


def error_of(shown: Frames, wanted: Frames) -> float:
    return float(np.square(shown.astype(float) - wanted).mean())


# --- the configuration ---


def test_wavelets_are_those_of_hybrids():
    assert WAVELET.geometry == replace(HYBRID.geometry, pictures=True)
    assert TokenizerConfig.from_json(WAVELET.to_json()) == WAVELET
    assert "wavelet" not in HYBRID.to_json()
    with pytest.raises(ModelError, match="hybrid"):
        TokenizerConfig(wavelet=True, hybrid=False)
    with pytest.raises(ModelError, match="true or false"):
        replace(HYBRID, wavelet=1)
    with pytest.raises(ModelError):
        TokenizerConfig.from_json(tiny_model.MOTION_CONFIG_JSON[:-1] + ', "wavelet": true}')


def test_weights_have_nothing_for_first_frames(tmp_path: Path):
    names = set(small_model(WAVELET).decoder.state_dict())
    others = set(small_model(HYBRID).decoder.state_dict())
    assert names < others
    assert {name.split(".")[0] for name in others - names} == {"first", "start", "split_first"}
    path = tmp_path / "other.safetensors"
    data = tiny_model.weights_bytes(tiny_model.HYBRID_CONFIG_JSON)
    head = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + head].replace(
        b'\\"quantizer\\": \\"lfq\\"}', b'\\"quantizer\\": \\"lfq\\", \\"wavelet\\": true}'
    )
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + head :])
    with pytest.raises(ModelError, match="do not fit"):
        Codec(model=str(path), device="cpu").encode_frames(glide(1))


# --- steps ---


@pytest.mark.parametrize("length", [1, 5, 9])
@pytest.mark.parametrize("slope", [20.0, 4000.0])
def test_a_decoder_shows_what_the_encoder_saw(length: int, slope: float):
    model, frames = silent(), glide(length)
    encoder, steps = coded(model, frames, slope=slope)
    saw = encoder._decoded
    assert saw is not None
    assert len(steps) == model.config.geometry.steps(length)
    assert not encoder.end_chunk()
    first = steps[0]
    assert first.picture is not None
    assert (first.frames, first.indices.any(), first.levels.any(), first.vectors.any()) == (1, False, False, False)
    assert first.picture.coefficients.shape == (3, 64, 96)
    assert first.picture.scale == scale_of_slope(slope)
    assert all(step.picture is None for step in steps[1:])
    decoder, shown = decoded(model, steps, height=60, width=90)
    assert decoder._state is not None
    torch.testing.assert_close(decoder._state.picture, saw.picture)
    torch.testing.assert_close(decoder._state.features, saw.features)
    assert shown.shape == frames.shape
    assert error_of(shown, frames) < (6 if slope == 20.0 else 120)


def test_the_first_frame_is_its_picture():
    model, frames = silent(), glide(1)
    encoder, (step,) = coded(model, frames, slope=10.0)
    assert step.picture is not None
    _, shown = decoded(model, [step], height=60, width=90)
    pixels = restored(step.picture, torch.zeros(1))
    whole = pixels.permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    np.testing.assert_array_equal(shown[0], whole[:60, :90])
    assert error_of(shown, frames) < 2
    assert encoder._decoded is not None
    torch.testing.assert_close(encoder._decoded.picture[0], pixels.clamp(-1, 1))
    assert not encoder._decoded.features.any()
    assert encoder._decoded.features.shape == (1, 16, 8, 12)


def test_lambda_says_how_close_the_picture_is():
    frames, errors, counts = turning(1), [], []
    for slope in (4.0, 60.0, 1000.0, 20000.0):
        _, steps = coded(silent(), frames, slope=slope)
        assert steps[0].picture is not None
        errors.append(error_of(decoded(silent(), steps, height=96, width=128)[1], frames))
        counts.append(np.count_nonzero(steps[0].picture.coefficients))
    assert errors == sorted(errors)
    assert counts == sorted(counts, reverse=True)
    assert errors[0] < 1
    assert errors[-1] > 10


def test_each_chunk_has_a_picture():
    model, frames = silent(), glide(10)
    encoder, steps = coded(model, frames[:5])
    encoder.end_chunk()
    again = [step for step in map(encoder.push, frames[:5]) if step is not None]
    for one, other in zip(steps, again, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.vectors, other.vectors)
    assert steps[0].picture is not None
    assert again[0].picture is not None
    np.testing.assert_array_equal(steps[0].picture.coefficients, again[0].picture.coefficients)


def test_what_the_picture_lacks_is_what_the_next_step_hears(monkeypatch: pytest.MonkeyPatch):
    """The allocator is told the errors that the picture leaves in each block."""
    heard = []
    monkeypatch.setattr(RateDistortionAllocator, "began", lambda self, error: heard.append(error))
    model, frames = silent(), turning(1)
    _, steps = coded(model, frames, slope=1000.0)
    ((error,),) = (heard,)
    assert error.shape == model.config.geometry.blocks(12, 16) == (3, 4)
    assert steps[0].picture is not None
    shown = restored(steps[0].picture, torch.zeros(1)).clamp(-1, 1).permute(1, 2, 0).add(1).mul(127.5).numpy()
    blocks = np.square(shown - frames[0]).mean(axis=-1).reshape(3, 32, 4, 32).sum(axis=(1, 3))
    np.testing.assert_allclose(error, blocks, rtol=1e-3)


def test_errors_of_blocks_leave_padding_out():
    geometry = TokenGeometry()
    shown, wanted = torch.zeros(2, 3, 40, 48), torch.full((2, 36, 41, 3), 127, dtype=torch.uint8)
    found = block_errors(shown, wanted, geometry)
    np.testing.assert_allclose(found, 2 * 0.25 * np.outer([32, 4], [32, 9]))
    far = block_errors(shown + 9, wanted, geometry)
    np.testing.assert_allclose(far, 2 * 128.0**2 * np.outer([32, 4], [32, 9]))


@pytest.mark.parametrize("step_frames", [(1,), (2, 1), STEP_FRAMES])
def test_steps_of_all_lengths_follow_a_picture(step_frames: tuple[int, ...]):
    model, frames = silent(), turning(8)
    encoder, steps = coded(model, frames, slope=500.0, step_frames=step_frames)
    steps += encoder.end_chunk()
    assert {step.frames for step in steps} <= {*step_frames, 1}
    shown = decoded(model, steps, height=96, width=128)[1]
    assert error_of(shown[:8], frames) < 60


def test_a_picture_that_is_missing_is_told():
    model = small_model(WAVELET)
    decoder = StreamDecoder(model, height=16, width=24)
    nothing = np.zeros((2, 3), np.uint64), np.zeros((2, 3), np.uint8), np.zeros((7, 2, 2), np.int16)
    with pytest.raises(ModelError, match="picture"):
        decoder.step(*nothing)
    assert isinstance(model.decoder, HybridDecoder)
    with pytest.raises(ValueError, match="begin"):
        model.decoder.step(torch.ones(1, 18, 2, 3), torch.ones(1, 18, 2, 3), None)


def test_an_even_allocation_has_pictures_of_its_quality():
    for level in (1, 6):
        step = StreamEncoder(silent(), UniformAllocator(level=level)).push(glide(1)[0])
        assert step is not None
        assert step.picture is not None
        assert step.picture.scale == scale_of_slope(slope_of(level))
        assert not step.levels.any()


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


def with_header(data: bytes, **changes: object) -> bytes:
    """The same records with another header."""
    header, records, _ = records_of(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, replace(header, extensions=(), **changes)) as writer:  # type: ignore[arg-type]
        for record in records:
            writer.write_chunk(record)
    return sink.getvalue()


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
    data = with_header(film, geometry=replace(geometry, pictures=False))
    found = survey(io.BytesIO(data), check_tokens=True)
    assert (found.chunks, len(found.damages)) == (0, 3)


def test_headers_say_that_there_are_pictures(film: bytes):
    header = records_of(film)[0]
    limits = read_stream.__kwdefaults__["limits"]

    def back(changed: StreamHeader) -> StreamHeader:
        return parse_header(pack_header(changed), offset=0, limits=limits, understood=())

    header = replace(header, extensions=())
    for pictures in (True, False):
        assert back(replace(header, geometry=replace(header.geometry, pictures=pictures))).geometry.pictures == pictures
    for wrong in (
        replace(header.geometry, motion_maps=1),
        replace(header.geometry, spatial_factor=16),
    ):
        with pytest.raises(UsageError, match="first pictures"):
            pack_header(replace(header, geometry=wrong))
    # Where a header has its flags: the one byte that differs.
    plain = pack_header(replace(header, geometry=replace(header.geometry, pictures=False)))
    (at,) = np.flatnonzero(np.frombuffer(plain, np.uint8) != np.frombuffer(pack_header(header), np.uint8))
    flags = plain[at]
    assert flags & 0x0E == 6
    for broken in (flags & ~4 | 8, flags & ~6 | 8, flags | 16):
        data = plain[:at] + bytes([broken]) + plain[at + 1 :]
        with pytest.raises(CorruptStreamError):
            parse_header(data, offset=0, limits=limits, understood=())


# --- trim ---


@pytest.mark.parametrize("quality", [5, 2, 1])
def test_trim_to_a_quality_makes_the_picture_coarser(codec: Codec, film: bytes, quality: int):
    sink = io.BytesIO()
    trim(io.BytesIO(film), sink, quality=quality)
    small = sink.getvalue()
    report = survey(io.BytesIO(small), check_tokens=True)
    assert (report.complete, report.frames) == (True, 14)
    wanted = round(SCALES[0] + (SCALES[1] - SCALES[0]) * quality / 6)
    for number in range(3):
        before, after = tokens_of(film, number).picture, tokens_of(small, number).picture
        assert before is not None
        assert after is not None
        halvings = (after.scale - before.scale) // 4
        assert after.scale == before.scale + 4 * halvings
        assert before.scale >= wanted - 1 if halvings == 0 else wanted - 1 <= after.scale <= wanted + 2
        np.testing.assert_array_equal(after.coefficients, before.coarser(halvings).coefficients)
    again = io.BytesIO()
    trim(io.BytesIO(small), again, quality=quality)
    assert again.getvalue() == small
    shown = codec.decode_frames(small).frames
    assert shown.shape == (14, 60, 90, 3)
    assert (halvings > 0) == (quality < 5)
    if halvings:
        whole, frames = codec.decode_frames(film).frames, glide(14)
        assert len(small) < 0.8 * len(film)
        assert error_of(whole[[0]], frames[[0]]) < error_of(shown[[0]], frames[[0]])


def test_trim_to_a_rate_fills_it_and_no_more(film: bytes):
    pixels, sizes = 14 * 60 * 90, {}
    for quality in (1, 6):
        sink = io.BytesIO()
        trim(io.BytesIO(film), sink, quality=quality)
        sizes[quality] = 8 * len(sink.getvalue()) / pixels
    wanted = (sizes[1] + sizes[6]) / 2
    sink = io.BytesIO()
    result = trim(io.BytesIO(film), sink, bits_per_pixel=wanted)
    assert sizes[1] <= result.bits_per_pixel <= wanted
    assert survey(io.BytesIO(sink.getvalue()), check_tokens=True).complete
    with pytest.raises(UsageError, match="cannot be so small"):
        trim(io.BytesIO(film), io.BytesIO(), bits_per_pixel=0.5 * sizes[1])


# --- files of tokens ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_tokens_go_out_and_come_back(film: bytes, suffix: str, tmp_path: Path):
    arrays = token_arrays(io.BytesIO(film))
    assert (arrays["pictures"].dtype, arrays["pictures"].shape) == (np.int16, (3, 3, 64, 96))
    assert (arrays["scales"].dtype, arrays["scales"].shape) == (np.uint8, (3,))
    write_arrays(tmp_path / f"a{suffix}", arrays, suffix=suffix)
    back = read_arrays(tmp_path / f"a{suffix}")
    wanted = with_header(film)
    assert tok_bytes(back, entropy=ADAPTIVE).getvalue() == wanted
    wide = {**back, "pictures": back["pictures"].astype(np.int64), "scales": back["scales"].astype(np.int32)}
    assert tok_bytes(wide, entropy=ADAPTIVE).getvalue() == wanted


def test_without_levels_all_bits_are_kept_but_those_of_first_steps(film: bytes):
    arrays = token_arrays(io.BytesIO(film))
    few = {name: arrays[name] for name in ("indices", "chunk_frames", "header", "pictures", "scales")}
    data = tok_bytes(few, entropy=ADAPTIVE).getvalue()
    for number in range(3):
        levels = tokens_of(data, number).levels
        assert not levels[0].any()
        assert (levels[1:] == 6).all()


def test_arrays_that_do_not_fit_are_refused(film: bytes, tmp_path: Path):
    arrays = token_arrays(io.BytesIO(film))
    good = arrays["pictures"].astype(np.int64)
    for name in ("pictures", "scales"):
        with pytest.raises(UsageError, match="no pictures or no scales"):
            tok_bytes({key: array for key, array in arrays.items() if key != name}, entropy=ADAPTIVE)
    low, high, lowest = good.copy(), good.copy(), good.copy()
    low[0, 0, 0, 0], high[2, 2, 63, 95], lowest[1, 1, 1, 1] = -MAX_COEFFICIENT - 1, MAX_COEFFICIENT + 1, -(1 << 63)
    for wrong in (good[:2], good[:, :2], good[..., :-1], good[0], good / 2, low, high, lowest, low.astype(np.int16)):
        with pytest.raises(UsageError, match="pictures must be"):
            tok_bytes({**arrays, "pictures": wrong}, entropy=ADAPTIVE)
    scales = arrays["scales"].astype(int)
    for wrong in (scales[:2], scales[:, None], scales / 2, scales - MAX_SCALE, scales + MAX_SCALE):
        with pytest.raises(UsageError, match="scales must be"):
            tok_bytes({**arrays, "scales": wrong}, entropy=ADAPTIVE)
    levels = arrays["levels"].copy()
    levels[0, 0, 0] = 1
    with pytest.raises(UsageError, match="beside its picture"):
        tok_bytes({**arrays, "levels": levels}, entropy=ADAPTIVE)
    plain = Codec(model=str(tiny_model.write_weights(tmp_path, motion=7)), device="cpu")
    others = token_arrays(io.BytesIO(plain.encode_frames(glide(3), quality=4, effort=0)))
    assert not {"pictures", "scales"} & set(others)
    for name in ("pictures", "scales"):
        with pytest.raises(UsageError, match="not coded by wavelets"):
            tok_bytes({**others, name: arrays[name]}, entropy=ADAPTIVE)


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
