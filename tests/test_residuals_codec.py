"""Residuals of later steps by wavelets: transform, choice, encoder and decoder, files (spec sections 3.7 and 8.8)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import called
from network_helpers import silent_hybrid, small_model
from picture_films import CONFIG_JSON, WAVELET, Frames, coded, decoded, error_of, with_header, write_weights
from test_conceal import records_of, tokens_of, without
from test_wavelet import NOTHING, noise

from tokcodec.chunks import ADAPTIVE
from tokcodec.codec import Codec
from tokcodec.container import StreamHeader, read_stream
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, ModelError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE, RESIDUAL_SPACING, STEP_FRAMES
from tokcodec.inspection import survey
from tokcodec.prediction import predict
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.picture_choice import ResidualChoice
from tokcodec.tokenizer.state import DecoderState
from tokcodec.tokenizer.transform import PEAK
from tokcodec.tokenizer.wavelet import restored, restored_residual
from tokcodec.tokens import Picture, TokenChunk
from tokcodec.tokenset import TokenDataset
from tokcodec.training.prior_data import without_picture
from tokcodec.trim import trim

RESIDUALS = replace(WAVELET, residuals=True)
RESIDUALS_JSON = CONFIG_JSON[:-1] + ', "residuals": true}'
HEIGHT, WIDTH = 48, 64


def bump(*, height: int = HEIGHT, width: int = WIDTH, reach: float = 15.0) -> torch.Tensor:
    """Something large and smooth, from 0 to 1: float32 `(height, width)`."""
    y, x = torch.arange(height).float().unsqueeze(1), torch.arange(width).float()
    return torch.exp(-(((x - 30) / reach) ** 2 + ((y - 24) / reach) ** 2))


def brightening(count: int, *, by: float = 14.0) -> Frames:
    """A soft disc that grows out of a soft background, which no motion can say: uint8 `(count, 48, 64, 3)`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    scene = 90 + 20 * np.sin(x / 9) + 15 * np.cos(y / 7)
    frames = np.stack([scene + by * n * bump().numpy() for n in range(count)])
    return np.stack([frames] * 3, axis=-1).clip(0, 255).astype(np.uint8)


def passing(count: int) -> Frames:
    """A soft disc that comes in from the side."""
    found = brightening(1).repeat(count, axis=0).astype(float)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for n in range(1, count):
        found[n] += 100 * np.exp(-(((x + 14 - 12 * n) / 15) ** 2 + ((y - 24) / 15) ** 2))[..., None]
    return found.clip(0, 255).astype(np.uint8)


def silent(config: TokenizerConfig = RESIDUALS) -> Tokenizer:
    return silent_hybrid(config)


def some_residual(rows: int, columns: int, *, seed: int = 1, scale: int = 20) -> Picture:
    coefficients = np.random.default_rng(seed).integers(-9, 10, (3, 2 * rows, 2 * columns))
    return Picture(coefficients=coefficients.astype(np.int16), scale=scale)


# --- the configuration ---


def test_residuals_come_with_pictures_by_wavelets(tmp_path: Path):
    assert RESIDUALS.geometry == replace(WAVELET.geometry, residuals=True)
    assert TokenizerConfig.from_json(RESIDUALS.to_json()) == RESIDUALS
    assert "residuals" not in WAVELET.to_json()
    with pytest.raises(ModelError, match="such first pictures"):
        replace(RESIDUALS, wavelet=False)
    with pytest.raises(ModelError, match="residuals of a tokenizer must be true or false"):
        replace(WAVELET, residuals=1)
    shapes, others = (
        {name: tensor.shape for name, tensor in small_model(config).state_dict().items()}
        for config in (RESIDUALS, WAVELET)
    )
    assert shapes == others, "no network takes part"


# --- the transform ---


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (6, 8), (9, 3)])
def test_a_residual_is_a_picture_without_its_two_finest_sizes(rows: int, columns: int):
    residual = some_residual(rows, columns)
    whole = np.zeros((3, 8 * rows, 8 * columns), np.int16)
    whole[:, ::RESIDUAL_SPACING, ::RESIDUAL_SPACING] = residual.coefficients
    found = restored_residual(residual, NOTHING)
    assert (found.dtype, found.shape) == (torch.float32, (3, 8 * rows, 8 * columns))
    torch.testing.assert_close(found, restored(Picture(coefficients=whole, scale=20), NOTHING), atol=1e-5, rtol=0)
    assert float(found.abs().max()) > 0.05
    finer = replace(residual, scale=16)
    torch.testing.assert_close(2 * restored_residual(finer, NOTHING), found)


# --- the choice ---


def test_what_is_not_worth_its_bits_is_none():
    assert ResidualChoice().chosen(torch.zeros(3, HEIGHT, WIDTH), 500.0, repeats=4.0) is None
    faint = 2 / PEAK * bump().expand(3, -1, -1)
    assert ResidualChoice().chosen(faint, 1e6, repeats=4.0) is None
    assert ResidualChoice().chosen(faint, 1.0, repeats=4.0) is not None
    fine = 8 / PEAK * noise(3, HEIGHT, WIDTH)
    assert ResidualChoice().chosen(fine, 5000.0, repeats=4.0) is None, "fine noise is for others"


def test_a_smooth_bump_comes_back():
    wanted = 40 / PEAK * bump() * torch.tensor([1.0, -0.5, 0.2]).view(3, 1, 1)
    found = ResidualChoice().chosen(wanted, 20.0, repeats=4.0)
    assert found is not None
    assert found.coefficients.dtype == np.int16
    assert found.coefficients.shape == (3, HEIGHT // RESIDUAL_SPACING, WIDTH // RESIDUAL_SPACING)
    error = (restored_residual(found, wanted) - wanted).abs().max() * PEAK
    assert float(error) < 4, "of 40"


def test_lambda_says_how_close_it_is():
    wanted = 40 / PEAK * bump(reach=9.0).expand(3, -1, -1)
    errors, counts, scales = [float(wanted.square().mean())], [], []
    for slope in (100000.0, 10000.0, 500.0, 20.0):
        found = ResidualChoice().chosen(wanted, slope, repeats=4.0)
        assert found is not None
        errors.append(float((restored_residual(found, wanted) - wanted).square().mean()))
        counts.append(np.count_nonzero(found.coefficients))
        scales.append(found.scale)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 300
    assert counts == sorted(counts)
    assert scales == sorted(scales, reverse=True)
    assert len(set(scales)) == 4


def test_an_error_that_lasts_longer_counts_more():
    wanted = 40 / PEAK * bump().expand(3, -1, -1)
    short, long, same = (
        ResidualChoice().chosen(wanted, slope, repeats=repeats)
        for slope, repeats in ((3000.0, 2.0), (3000.0, 8.0), (750.0, 2.0))
    )
    assert short is not None
    assert long is not None
    assert same is not None
    assert short.scale == long.scale + 4
    assert long.scale == same.scale
    np.testing.assert_array_equal(long.coefficients, same.coefficients)


# --- the state ---


def test_a_state_with_a_residual_keeps_its_reference():
    state = DecoderState(features=torch.zeros(1, 2, 3, 4), picture=noise(1, 3, 24, 32))
    early = state.with_residual(torch.ones(1, 3, 24, 32))
    assert state.residual is None
    assert early.residual is not None
    assert "reference" not in vars(early), "nobody asked for one"
    reference = state.reference
    later = state.with_residual(torch.ones(1, 3, 24, 32))
    assert later.reference is reference
    assert (later.picture is state.picture, later.features is state.features) == (True, True)
    assert later.with_residual(None).residual is None
    assert later.with_residual(None).reference is reference


@torch.no_grad()
def test_a_residual_is_added_once_and_ends_what_is_still():
    """Of networks that say nothing: to the last frame of a step, and no more to the next one."""
    model = silent()
    state = model.decoder.begin(0.5 * noise(1, 3, 24, 32))  # type: ignore[operator]
    nothing, still = torch.zeros(1, 62, 3, 4), torch.zeros(1, 7, 2, 3, 4)
    added = torch.zeros(1, 3, 24, 32)
    added[..., :8] = 9 / PEAK  # a column of cells
    added[..., 8:16] = 0.4 / PEAK  # less than anyone can see
    pixels, after = model.decoder.step(nothing, nothing, state.with_residual(added), still)
    assert after.residual is None
    torch.testing.assert_close(pixels[:, -1, ..., :8], (state.picture + added)[..., :8], atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels[:, -1, ..., 8:], state.picture[..., 8:])
    for number in range(3):
        torch.testing.assert_close(pixels[:, number, ..., 8:], state.picture[..., 8:])
    halfway = (pixels[:, 1] - state.picture)[..., :8] * PEAK
    torch.testing.assert_close(halfway, torch.full_like(halfway, 4.5), atol=0.01, rtol=0)
    plain, _ = model.decoder.step(nothing, nothing, state, still)
    torch.testing.assert_close(plain[:, -1], state.picture)
    again, _ = model.decoder.step(nothing, nothing, after, still)
    torch.testing.assert_close(again[:, -1], after.picture)


# --- encoders and decoders ---


@pytest.mark.parametrize("film", [brightening, passing])
@pytest.mark.parametrize("slope", [200.0, 8000.0])
def test_what_appears_is_a_residual(film, slope: float, monkeypatch: pytest.MonkeyPatch):
    # What comes from the first picture would help without residuals, too.
    monkeypatch.setattr("tokcodec.tokenizer.hybrid_motion.CHOICE_BITS", 1e9)
    frames = film(9)
    encoder, steps = coded(silent(), frames, slope=slope)
    assert steps[0].residual is None
    assert all(step.residual is not None for step in steps[1:])
    saw = encoder._decoded
    assert not encoder.end_chunk()
    decoder, shown = decoded(silent(), steps, height=HEIGHT, width=WIDTH)
    found = decoder._state
    assert saw is not None
    assert found is not None
    assert torch.equal(found.picture, saw.picture)
    assert torch.equal(found.features, saw.features)
    _, others = coded(silent(WAVELET), frames, slope=slope)
    assert all(step.residual is None for step in others)
    plain = decoded(silent(WAVELET), others, height=HEIGHT, width=WIDTH)[1]
    assert error_of(shown[[-1]], frames[[-1]]) < 0.5 * error_of(plain[[-1]], frames[[-1]])
    assert sum(int(step.levels.sum()) for step in steps) <= sum(int(step.levels.sum()) for step in others)
    lost = [replace(step, residual=None) for step in steps]
    wrong = decoded(silent(), lost, height=HEIGHT, width=WIDTH)[1]
    np.testing.assert_array_equal(wrong[0], shown[0])
    assert error_of(wrong[[-1]], shown[[-1]]) > 20, "it is what makes the picture"


def test_what_stands_still_has_none_and_does_not_change():
    frames = brightening(1).repeat(9, axis=0)
    for slope in (50.0, 3000.0):
        _, steps = coded(silent(), frames, slope=slope)
        assert [step.residual for step in steps] == [None] * 3
        _, shown = decoded(silent(), steps, height=HEIGHT, width=WIDTH)
        for frame in shown[1:]:
            np.testing.assert_array_equal(frame, shown[0])


def test_only_the_steps_that_need_one_have_one():
    frames = np.concatenate([brightening(5), brightening(5)[-1:].repeat(4, axis=0)])
    _, steps = coded(silent(), frames, slope=3000.0)
    assert [step.residual is not None for step in steps] == [False, True, False]


def test_each_chunk_begins_without_one():
    encoder, steps = coded(silent(), brightening(5))
    encoder.end_chunk()
    again = [step for step in map(encoder.push, brightening(5)) if step is not None]
    assert again[0].residual is None
    assert steps[1].residual is not None
    assert again[1].residual is not None
    np.testing.assert_array_equal(steps[1].residual.coefficients, again[1].residual.coefficients)
    still = [step for step in map(encoder.push, brightening(1).repeat(5, axis=0)) if step is not None]
    assert still[-1].residual is not None, "the disc goes"


@pytest.mark.parametrize("step_frames", [(1,), (2, 1), STEP_FRAMES])
def test_steps_of_all_lengths_have_residuals(step_frames: tuple[int, ...]):
    frames = passing(7)
    encoder, steps = coded(silent(), frames, slope=500.0, step_frames=step_frames)
    saw = encoder._decoded
    decoder, _ = decoded(silent(), steps, height=HEIGHT, width=WIDTH)
    assert saw is not None
    assert decoder._state is not None
    assert torch.equal(decoder._state.picture, saw.picture)
    steps += encoder.end_chunk()
    assert {step.frames for step in steps[1:]} <= {*step_frames, 1}
    assert sum(step.residual is not None for step in steps) > 1
    shown = decoded(silent(), steps, height=HEIGHT, width=WIDTH)[1]
    assert error_of(shown[:7], frames) < 120


# --- files ---


@pytest.fixture(scope="module", name="codec")
def codec_fixture(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec(model=str(write_weights(tmp_path_factory.mktemp("weights"), RESIDUALS_JSON)), device="cpu")


@pytest.fixture(scope="module", name="film")
def film_fixture(codec: Codec) -> bytes:
    """Fourteen frames in chunks of five, of which the last has four."""
    return codec.encode_frames(
        brightening(14, by=9.0), chunk_frames=5, quality=5, effort=0, frame_rate=24, scene_cuts=False
    )


def residuals_of(data: bytes) -> list[Picture | None]:
    """Of all later steps of a film of three chunks."""
    return [each for number in range(3) for each in tokens_of(data, number).residuals]


def test_films_come_back(codec: Codec, film: bytes):
    assert read_stream(io.BytesIO(film)).header.geometry.residuals
    assert any(residuals_of(film))
    found = codec.decode_frames(film).frames
    assert found.shape == (14, HEIGHT, WIDTH, 3)
    decoder = codec._coders.decoder(records_of(film)[0])
    tokens, without_them = tokens_of(film, 0), []
    assert tokens.residuals[0] is not None
    for used in (tokens.residuals, (None,)):
        decoder.start_chunk()
        shown = [
            decoder.step(
                indices,
                tokens.kept_bits_of(number),
                tokens.vectors[number],
                picture=None if number else tokens.picture,
                residual=used[number - 1] if number else None,
            )
            for number, indices in enumerate(tokens.indices)
        ]
        without_them.append(np.concatenate(shown))
    np.testing.assert_array_equal(without_them[0], found[:5])
    assert (without_them[1][-1] != found[4]).any()


def test_a_part_of_a_file_is_that_of_the_whole(codec: Codec, film: bytes, tmp_path: Path):
    import av

    source = tmp_path / "a.tok"
    source.write_bytes(film)
    codec.decode(source, tmp_path / "all.mkv", codec="ffv1")
    for start, count in ((7, 5), (4, 1), (9, 3)):
        part = f"{start}.mkv"
        codec.decode(source, tmp_path / part, codec="ffv1", start_seconds=start / 24, duration_seconds=count / 24)
        shown = []
        for name in ("all.mkv", part):
            with av.open(str(tmp_path / name)) as container:
                shown.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
        assert len(shown[1]) == count
        np.testing.assert_array_equal(shown[1], shown[0][start : start + count])


def test_residuals_are_counted(film: bytes, tmp_path: Path):
    (tmp_path / "a.tok").write_bytes(film)
    values = json.loads(called("info", "--json", tmp_path / "a.tok").stdout)
    counted = json.loads(called("verify", "--json", tmp_path / "a.tok").stdout)
    report = survey(io.BytesIO(film), check_tokens=True)
    whole = report.to_dict()
    assert report.complete
    assert report.residual_bits is not None
    assert report.residual_bits > 200
    assert whole["residual_bits"] == report.residual_bits == sum(each.residual_bits or 0 for each in report.chunk_bits)
    for number, chunk in enumerate(whole["chunk_bits"]):
        assert (chunk["residual_bits"] > 0) == any(tokens_of(film, number).residuals)
        parts = chunk["motion_bits"] + chunk["picture_bits"] + chunk["residual_bits"]
        assert chunk["residual_bits"] < parts <= chunk["coded_bits"]
        alone = max(0, chunk["coded_bits"] - parts)
        assert chunk["coded_bits_per_token"] == round(alone / chunk["tokens"], 4)
    assert values["residual_bits"] == counted["residual_bits"] == report.residual_bits
    assert values["chunk_bits"] == whole["chunk_bits"]
    blind = survey(io.BytesIO(film), check_tokens=False)
    assert (blind.residual_bits, blind.chunk_bits[0].residual_bits, blind.token_bits) == (None, None, None)
    assert b"residuals among them" in called("info", tmp_path / "a.tok").stdout


def test_files_without_residuals_have_none_to_count(tmp_path: Path):
    codec = Codec(model=str(write_weights(tmp_path)), device="cpu")
    data = codec.encode_frames(brightening(5), quality=5, effort=0, scene_cuts=False)
    for check in (True, False):
        assert survey(io.BytesIO(data), check_tokens=check).residual_bits == 0


# --- headers and weights that do not fit ---


def test_headers_say_that_there_are_residuals(film: bytes):
    header = replace(records_of(film)[0], extensions=())
    limits = read_stream.__kwdefaults__["limits"]

    def back(changed: StreamHeader) -> StreamHeader:
        return parse_header(pack_header(changed), offset=0, limits=limits, understood=())

    for residuals in (True, False):
        changed = replace(header, geometry=replace(header.geometry, residuals=residuals))
        assert back(changed).geometry == changed.geometry
    with pytest.raises(UsageError, match="residuals by coefficients"):
        pack_header(replace(header, geometry=replace(header.geometry, pictures=False)))
    plain = pack_header(replace(header, geometry=replace(header.geometry, residuals=False)))
    (at,) = np.flatnonzero(np.frombuffer(plain, np.uint8) != np.frombuffer(pack_header(header), np.uint8))
    flags = pack_header(header)[at]
    assert flags & 0x1E == 0x1E
    assert plain[at] == flags & ~0x10
    data = plain[:at] + bytes([flags & ~0x08]) + plain[at + 1 :]
    with pytest.raises(CorruptStreamError, match="residuals by coefficients, and no such first pictures"):
        parse_header(data, offset=0, limits=limits, understood=())


def test_weights_that_the_header_does_not_fit_are_refused(codec: Codec, film: bytes, tmp_path: Path):
    plain = Codec(model=str(write_weights(tmp_path)), device="cpu")
    others = plain.encode_frames(brightening(3), quality=4, effort=0)
    one, other = (records_of(data)[0] for data in (film, others))
    with pytest.raises(ModelError, match="residuals is True"):
        plain.decode_frames(with_header(film, tokenizer_digest=other.tokenizer_digest))
    with pytest.raises(ModelError, match="residuals is False"):
        codec.decode_frames(with_header(others, tokenizer_digest=one.tokenizer_digest))


def test_tokens_that_the_header_does_not_fit_are_damaged(film: bytes):
    geometry = records_of(film)[0].geometry
    found = survey(io.BytesIO(with_header(film, geometry=replace(geometry, residuals=False))), check_tokens=True)
    assert (found.chunks, len(found.damages)) == (0, 3)


# --- files of tokens ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_tokens_go_out_and_come_back(film: bytes, suffix: str, tmp_path: Path):
    arrays = token_arrays(io.BytesIO(film))
    there = [each for each in residuals_of(film) if each is not None]
    assert (arrays["residuals"].dtype, arrays["residuals"].shape) == (np.int16, (len(there), 3, 12, 16))
    assert (arrays["residual_scales"].dtype, arrays["residual_scales"].shape) == (np.uint8, (len(there),))
    assert arrays["residual_steps"].dtype == np.int64
    steps = [(number, step) for number in range(3) for step in range(len(tokens_of(film, number).indices))]
    wanted = [at for at, (number, step) in enumerate(steps) if tokens_of(film, number).residual_of(step)]
    assert arrays["residual_steps"].tolist() == wanted
    write_arrays(tmp_path / f"a{suffix}", arrays, suffix=suffix)
    back = read_arrays(tmp_path / f"a{suffix}")
    data = with_header(film)
    assert tok_bytes(back, entropy=ADAPTIVE).getvalue() == data
    wide = {
        **back,
        "residuals": back["residuals"].astype(np.int64),
        "residual_scales": back["residual_scales"].astype(np.int32),
        "residual_steps": back["residual_steps"].astype(np.uint16),
    }
    assert tok_bytes(wide, entropy=ADAPTIVE).getvalue() == data


def test_without_arrays_of_residuals_no_step_has_one(film: bytes):
    arrays = token_arrays(io.BytesIO(film))
    few = {name: array for name, array in arrays.items() if not name.startswith("residual")}
    data = tok_bytes(few, entropy=ADAPTIVE).getvalue()
    assert residuals_of(data) == [None] * len(residuals_of(film))
    assert not [name for name in token_arrays(io.BytesIO(data)) if name.startswith("residual")]
    zero = {**arrays, "residuals": np.zeros_like(arrays["residuals"])}
    assert tok_bytes(zero, entropy=ADAPTIVE).getvalue() == data, "none is zero everywhere"


def test_arrays_that_do_not_fit_are_refused(film: bytes, tmp_path: Path):
    arrays = token_arrays(io.BytesIO(film))
    names = ("residuals", "residual_scales", "residual_steps")
    assert len(arrays["residual_steps"]) > 1
    for name in names:
        with pytest.raises(UsageError, match="go together"):
            tok_bytes({key: array for key, array in arrays.items() if key != name}, entropy=ADAPTIVE)
    good = arrays["residuals"].astype(np.int64)
    low, high = good.copy(), good.copy()
    low[0, 0, 0, 0], high[-1, 2, 11, 15] = -MAX_COEFFICIENT - 1, MAX_COEFFICIENT + 1
    for wrong in (good[:-1], good[:, :2], good[..., :-1], good[0], good / 2, low, high):
        with pytest.raises(UsageError, match="residuals must be"):
            tok_bytes({**arrays, "residuals": wrong}, entropy=ADAPTIVE)
    scales = arrays["residual_scales"].astype(int)
    for wrong in (scales[:-1], scales[:, None], scales / 2, scales - MAX_SCALE, scales + MAX_SCALE):
        with pytest.raises(UsageError, match="residual_scales must be"):
            tok_bytes({**arrays, "residual_scales": wrong}, entropy=ADAPTIVE)
    steps = arrays["residual_steps"]
    same = np.full_like(steps, steps[0])
    for wrong in (steps[::-1], steps[::-1].astype(np.uint64), same, steps.astype(float), steps[:, None]):
        with pytest.raises(UsageError, match="residual_steps must be whole numbers that rise"):
            tok_bytes({**arrays, "residual_steps": wrong}, entropy=ADAPTIVE)
    total = len(arrays["indices"])
    for first, last in ((0, steps[-1]), (-1, steps[-1]), (steps[0], total), (steps[0], 1 << 40)):
        wrong = steps.copy()
        wrong[0], wrong[-1] = first, last
        with pytest.raises(UsageError, match="not a chunk's first"):
            tok_bytes({**arrays, "residual_steps": wrong}, entropy=ADAPTIVE)
    plain = Codec(model=str(write_weights(tmp_path)), device="cpu")
    others = token_arrays(io.BytesIO(plain.encode_frames(brightening(5), quality=4, effort=0)))
    for name in names:
        with pytest.raises(UsageError, match="there are no residuals"):
            tok_bytes({**others, name: arrays[name]}, entropy=ADAPTIVE)


# --- trim ---


@pytest.mark.parametrize("quality", [6, 5, 3, 1])
def test_trim_makes_residuals_coarser_or_drops_them(codec: Codec, film: bytes, quality: int):
    sink = io.BytesIO()
    trim(io.BytesIO(film), sink, quality=quality)
    small = sink.getvalue()
    report = survey(io.BytesIO(small), check_tokens=True)
    assert (report.complete, report.frames) == (True, 14)
    for number in range(3):
        before, after = tokens_of(film, number), tokens_of(small, number)
        assert before.picture is not None
        assert after.picture is not None
        halvings = (after.picture.scale - before.picture.scale) // 4
        assert (halvings > 0) == (quality < 5)
        for one, other in zip(before.residuals, after.residuals, strict=True):
            wanted = one and one.coarser(halvings)
            if wanted is None or not wanted.coefficients.any():
                assert other is None
                continue
            assert other is not None
            assert other.scale == wanted.scale
            np.testing.assert_array_equal(other.coefficients, wanted.coefficients)
    assert codec.decode_frames(small).frames.shape == (14, HEIGHT, WIDTH, 3)
    again = io.BytesIO()
    trim(io.BytesIO(small), again, quality=quality)
    assert again.getvalue() == small


def test_a_residual_of_ones_goes_with_the_first_halving(film: bytes):
    arrays = token_arrays(io.BytesIO(film))
    ones = np.zeros_like(arrays["residuals"])
    ones[:, 0, 0, 0] = 1
    ones[0, 1, 4, 4] = -2
    data = tok_bytes({**arrays, "residuals": ones}, entropy=ADAPTIVE).getvalue()
    sink = io.BytesIO()
    trim(io.BytesIO(data), sink, quality=3)
    left = [each for each in residuals_of(sink.getvalue()) if each is not None]
    assert len(left) == 1
    assert (np.count_nonzero(left[0].coefficients), left[0].coefficients[1, 4, 4]) == (1, -1)


def test_trim_to_a_rate_fills_it_and_no_more(film: bytes):
    pixels, sizes = 14 * HEIGHT * WIDTH, {}
    for quality in (1, 6):
        sink = io.BytesIO()
        trim(io.BytesIO(film), sink, quality=quality)
        sizes[quality] = 8 * len(sink.getvalue()) / pixels
    wanted = (sizes[1] + sizes[6]) / 2
    sink = io.BytesIO()
    result = trim(io.BytesIO(film), sink, bits_per_pixel=wanted)
    assert sizes[1] <= result.bits_per_pixel <= wanted
    assert survey(io.BytesIO(sink.getvalue()), check_tokens=True).complete


# --- data sets ---


def test_items_of_a_dataset_have_the_residuals_of_their_steps(film: bytes, tmp_path: Path):
    (tmp_path / "film.tok").write_bytes(film)
    for steps in (None, 1):
        data = TokenDataset(tmp_path, steps=steps)
        chunks = [tokens_of(film, number) for number in range(3)]
        found = {number: [data[n] for n in range(len(data)) if data[n]["chunk"] == number] for number in range(3)}
        for number, chunk in enumerate(chunks):
            residuals = np.concatenate([item["residuals"].numpy() for item in found[number]])  # type: ignore[union-attr]
            scales = np.concatenate([item["residual_scales"].numpy() for item in found[number]])  # type: ignore[union-attr]
            assert (residuals.dtype, scales.dtype) == (np.int16, np.uint8)
            assert residuals.shape == (len(chunk.indices), 3, 12, 16)
            for step in range(len(chunk.indices)):
                each = chunk.residual_of(step)
                assert scales[step] == (0 if each is None else each.scale)
                np.testing.assert_array_equal(residuals[step], 0 if each is None else each.coefficients)
    item = TokenDataset(tmp_path, steps=1)[1]
    assert item["residuals"].any()  # type: ignore[union-attr]
    item["residuals"] += 1  # type: ignore[operator]
    np.testing.assert_array_equal(data[1]["residuals"][0].numpy(), chunks[0].residuals[0].coefficients)  # type: ignore


def test_a_prior_learns_from_tokens_alone(film: bytes):
    chunk = tokens_of(film, 0)
    plain = without_picture(chunk)
    assert (plain.picture, plain.residuals, plain.geometry.residuals) == (None, (), False)
    np.testing.assert_array_equal(plain.indices, chunk.indices)


# --- what is lost, and what goes on ---


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_chunk_that_is_lost_is_filled_in(codec: Codec, film: bytes, lost: int):
    whole = codec.decode_frames(film).frames
    found = codec.decode_frames(without(film, lost), conceal=True, forecast=True).frames
    assert found.shape == whole.shape
    rest = [n for n in range(14) if not 5 * lost <= n < 5 * lost + 5]
    np.testing.assert_array_equal(found[rest], whole[rest])
    span = slice(5 * lost, 5 * lost + 5)
    assert (found[span] != whole[span]).any()


def test_what_is_filled_in_goes_on_from_the_chunk_before(codec: Codec, film: bytes, tmp_path: Path):
    """Also where that chunk is not shown, so that it is decoded for its state alone."""
    import av

    assert tokens_of(film, 0).residuals[-1] is not None
    (tmp_path / "a.tok").write_bytes(without(film, 1))
    wanted = codec.decode_frames(without(film, 1), conceal=True, forecast=True).frames[5:10]
    codec.decode(
        tmp_path / "a.tok",
        tmp_path / "part.mkv",
        codec="ffv1",
        conceal=True,
        forecast=True,
        start_seconds=5 / 24,
        duration_seconds=5 / 24,
    )
    codec.decode(tmp_path / "a.tok", tmp_path / "all.mkv", codec="ffv1", conceal=True, forecast=True)
    shown = []
    for name in ("part.mkv", "all.mkv"):
        with av.open(str(tmp_path / name)) as container:
            shown.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    np.testing.assert_array_equal(shown[0], shown[1][5:10])
    assert len(wanted) == 5


def test_a_video_goes_on(codec: Codec, film: bytes):
    sink = io.BytesIO()
    result = predict(io.BytesIO(film), sink, seconds=6 / 24, forecast=True)
    longer = sink.getvalue()
    assert (result.method, result.frames) == ("forecast", 20)
    for number in range(2):
        assert_same_residuals(tokens_of(film, number), tokens_of(longer, number))
    before, after = tokens_of(film, 2), tokens_of(longer, 2)
    assert len(after.indices) > len(before.indices)
    assert after.residuals[-1] is None, "what is not known is not added"
    shown, whole = codec.decode_frames(longer).frames, codec.decode_frames(film).frames
    count = 14 - result.replaced
    np.testing.assert_array_equal(shown[:count], whole[:count])
    assert survey(io.BytesIO(longer), check_tokens=True).complete


def test_whole_steps_of_a_video_that_goes_on_keep_their_residuals(codec: Codec):
    data = codec.encode_frames(brightening(9), quality=5, effort=0, frame_rate=24, scene_cuts=False)
    before = tokens_of(data, 0)
    assert any(before.residuals)
    sink = io.BytesIO()
    result = predict(io.BytesIO(data), sink, seconds=6 / 24, forecast=True)
    assert (result.replaced, result.frames) == (0, 15)
    after = tokens_of(sink.getvalue(), 0)
    count = len(before.residuals)
    assert_same_residuals(before, replace(after, indices=before.indices, residuals=after.residuals[:count]))
    assert after.residuals[count:] == (None,) * (len(after.indices) - 1 - count)
    np.testing.assert_array_equal(codec.decode_frames(sink.getvalue()).frames[:9], codec.decode_frames(data).frames)


def assert_same_residuals(one: TokenChunk, other: TokenChunk) -> None:
    assert len(one.residuals) == len(other.residuals)
    for first, second in zip(one.residuals, other.residuals, strict=True):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert first.scale == second.scale
            np.testing.assert_array_equal(first.coefficients, second.coefficients)
