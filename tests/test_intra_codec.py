"""First pictures by blocks as a codec: models, files, their headers, trim, and files of tokens (spec 3.8 and 8.9)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from block_pictures import drawn_picture
from network_helpers import silent_hybrid, small_model
from picture_films import CONFIG_JSON, WAVELET, coded, decoded, error_of, glide, with_header, write_weights
from test_conceal import records_of, tokens_of, without
from test_picture_choice import scene
from test_steps import turning

from tokcodec.bits import encode_tokens, picture_bit_count
from tokcodec.chunks import ADAPTIVE
from tokcodec.codec import Codec
from tokcodec.container import StreamHeader, read_stream
from tokcodec.container.header import pack_header, parse_header
from tokcodec.errors import CorruptStreamError, LimitError, ModelError, UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.inspection import survey
from tokcodec.intra import UNIT, coarser, planes
from tokcodec.picture_layout import MODES, UNKNOWN, is_layout
from tokcodec.prediction import predict
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.tokenizer import block_choice, picture_choice, wavelet
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.first_picture import chosen, quickly_chosen, restored
from tokcodec.tokenizer.stream import StreamDecoder
from tokcodec.tokenizer.transform import PEAK, colour_matrix
from tokcodec.tokens import Picture, layout_shape, picture_shape
from tokcodec.tokenset import TokenDataset
from tokcodec.training.config import read_run_config
from tokcodec.training.objective import begun
from tokcodec.training.presets import CPU, PRESETS
from tokcodec.training.prior_data import load_chunks, without_picture
from tokcodec.trim import SCALES, trim

INTRA = replace(WAVELET, intra=True)
INTRA_JSON = CONFIG_JSON[:-1] + ', "intra": true, "residuals": true}'
FRAMES = 9
"""In chunks of five frames, so that the last has four."""


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec(model=str(write_weights(tmp_path_factory.mktemp("weights"), INTRA_JSON)), device="cpu")


@pytest.fixture(scope="module")
def film(codec: Codec) -> bytes:
    return codec.encode_frames(glide(FRAMES), chunk_frames=5, quality=5, effort=0, frame_rate=24, scene_cuts=False)


def picture_of(data: bytes, number: int) -> Picture:
    found = tokens_of(data, number).picture
    assert found is not None
    assert found.blocks is not None
    return found


def assert_same(one: Picture, other: Picture) -> None:
    assert one.scale == other.scale
    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    np.testing.assert_array_equal(one.blocks, other.blocks)


# --- the configuration ---


def test_blocks_come_in_the_place_of_wavelets() -> None:
    assert INTRA.geometry == replace(WAVELET.geometry, intra=True)
    assert layout_shape(INTRA.geometry, 3, 5) == (6, 10)
    assert picture_shape(INTRA.geometry, 3, 5) == (3, 24, 40)
    assert TokenizerConfig.from_json(INTRA.to_json()) == INTRA
    assert json.loads(INTRA.to_json())["intra"] is True
    assert "intra" not in WAVELET.to_json()
    with pytest.raises(ModelError, match="without a network"):
        replace(INTRA, wavelet=False)
    with pytest.raises(ModelError, match="without a network"):
        TokenizerConfig.from_json(CONFIG_JSON.replace('"wavelet": true', '"intra": true'))
    with pytest.raises(ModelError, match="intra of a tokenizer must be true or false"):
        replace(WAVELET, intra=1)
    shapes, others = (
        {name: tensor.shape for name, tensor in small_model(config).state_dict().items()} for config in (INTRA, WAVELET)
    )
    assert shapes == others, "no network takes part"


# --- pictures ---


def test_either_kind_is_chosen_and_restored() -> None:
    picture = scene(3, 4)
    for slope in (300.0, 16000.0):
        blocks, other = (chosen(picture, slope, blocks=each) for each in (True, False))
        assert_same(blocks, block_choice.chosen(picture, slope))
        assert_same(quickly_chosen(picture, slope, blocks=True), blocks)
        assert other.blocks is None
        np.testing.assert_array_equal(other.coefficients, picture_choice.chosen(picture, slope).coefficients)
        quick = quickly_chosen(picture, slope, blocks=False)
        assert (quick.blocks, quick.scale) == (None, other.scale)
        torch.testing.assert_close(restored(other, picture), wavelet.restored(other, picture))
        exact = torch.from_numpy(planes(blocks)).float() / UNIT
        wanted = torch.einsum("kc,khw->chw", colour_matrix(exact), exact) / PEAK
        torch.testing.assert_close(restored(blocks, picture), wanted)


def test_restored_pictures_are_where_they_are_needed() -> None:
    picture = drawn_picture(16, 24, 1)
    found = restored(picture, torch.zeros(1, dtype=torch.float32))
    assert (found.dtype, found.shape, found.device) == (torch.float32, (3, 16, 24), torch.device("cpu"))
    assert restored(picture, torch.zeros(1, device="meta")).device == torch.device("meta")


@pytest.mark.parametrize("length", [1, 5, 9])
@pytest.mark.parametrize("slope", [20.0, 4000.0])
def test_a_decoder_shows_what_the_encoder_saw(length: int, slope: float) -> None:
    model, frames = silent_hybrid(INTRA), glide(length)
    encoder, steps = coded(model, frames, slope=slope)
    saw = encoder._decoded
    assert saw is not None
    assert not encoder.end_chunk()
    first = steps[0]
    assert first.picture is not None
    assert first.picture.blocks is not None
    assert (first.frames, first.indices.any(), first.levels.any(), first.vectors.any()) == (1, False, False, False)
    assert first.picture.coefficients.shape == (3, 64, 96)
    assert is_layout(first.picture.blocks)
    assert all(step.picture is None for step in steps[1:])
    decoder, shown = decoded(model, steps, height=60, width=90)
    assert decoder._state is not None
    torch.testing.assert_close(decoder._state.picture, saw.picture)
    torch.testing.assert_close(decoder._state.features, saw.features)
    assert error_of(shown, frames) < (6 if slope == 20.0 else 120)


def test_training_begins_with_such_pictures() -> None:
    model = small_model(INTRA)
    pictures = torch.stack([scene(2, 3), scene(2, 3, seed=1)])
    slopes = torch.tensor([1.0, 1e5])
    state = begun(model, pictures, slopes)
    errors = (state.picture - pictures).square().mean(dim=(1, 2, 3))
    assert errors[0] < 0.01 * errors[1]
    for picture, slope, found in zip(pictures, slopes.tolist(), state.picture, strict=True):
        torch.testing.assert_close(found, restored(block_choice.chosen(picture, slope), picture).clamp(-1, 1))


def test_what_has_no_pictures_without_a_network_has_no_blocks(tmp_path: Path) -> None:
    assert CPU.model.intra
    for given, intra in (
        ("{}", True),
        ('{"wavelet": false}', False),
        ('{"hybrid": false, "encoder_blocks": 4, "coded_motion": false}', False),
        ('{"intra": false}', False),
    ):
        (tmp_path / "run.json").write_text(f'{{"model": {given}}}')
        assert read_run_config(tmp_path / "run.json", PRESETS, CPU).model.intra == intra


# --- files ---


def test_films_come_back(codec: Codec, film: bytes) -> None:
    frames, found = glide(FRAMES), codec.decode_frames(film)
    assert found.frames.shape == frames.shape
    geometry = read_stream(io.BytesIO(film)).header.geometry
    assert (geometry.pictures, geometry.residuals, geometry.intra) == (True, True, True)
    for number, first in enumerate((0, 5)):
        pixels = restored(picture_of(film, number), torch.zeros(1)).permute(1, 2, 0)
        whole = pixels.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        np.testing.assert_array_equal(found.frames[first], whole[:60, :90])
        assert error_of(found.frames[[first]], frames[[first]]) < 60


def test_files_are_surveyed(film: bytes) -> None:
    report = survey(io.BytesIO(film), check_tokens=True)
    assert (report.complete, report.frames, report.chunks) == (True, FRAMES, 2)
    counts = [picture_bit_count(tokens_of(film, number)) for number in range(2)]
    assert [chunk.picture_bits for chunk in report.chunk_bits] == counts
    assert report.picture_bits == sum(counts) > 2 * 500


@pytest.mark.parametrize(("height", "width"), [(9, 17), (8, 8), (40, 33)])
def test_noise_is_a_picture_too(codec: Codec, height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    found = codec.decode_frames(codec.encode_frames(frames, quality=6, effort=0)).frames
    assert found.shape == frames.shape
    assert error_of(found[:1], frames[:1]) < 27**2 / 3, "a step of 27 pixels' values, at random within it"


def test_a_still_picture_is_a_file(codec: Codec) -> None:
    frames = turning(1)
    data = codec.encode_frames(frames, quality=6)
    shown = codec.decode_frames(data).frames
    assert error_of(shown, frames) < 20
    assert len(codec.encode_frames(frames, quality=1)) < len(data)
    assert codec.encode_frames(frames, quality=6) == data


def test_a_chunk_that_is_lost_is_filled_in_and_a_video_goes_on(codec: Codec, film: bytes) -> None:
    whole = codec.decode_frames(film).frames
    for lost in (0, 1):
        found = codec.decode_frames(without(film, lost), conceal=True, forecast=True).frames
        assert found.shape == whole.shape
        rest = [n for n in range(FRAMES) if not 5 * lost <= n < 5 * lost + 5]
        np.testing.assert_array_equal(found[rest], whole[rest])
    sink = io.BytesIO()
    result = predict(io.BytesIO(film), sink, seconds=4 / 24, forecast=True)
    assert (result.method, result.frames) == ("forecast", FRAMES + 4)
    for number in range(2):
        assert_same(picture_of(film, number), picture_of(sink.getvalue(), number))
    assert survey(io.BytesIO(sink.getvalue()), check_tokens=True).complete


# --- headers and weights that do not fit ---


def test_headers_say_that_there_are_blocks(film: bytes) -> None:
    header = replace(records_of(film)[0], extensions=())
    limits = read_stream.__kwdefaults__["limits"]

    def parsed(data: bytes) -> StreamHeader:
        return parse_header(data, offset=0, limits=limits, understood=())

    for intra in (True, False):
        geometry = replace(header.geometry, intra=intra)
        assert parsed(pack_header(replace(header, geometry=geometry))).geometry == geometry
    alone = replace(header.geometry, pictures=False, residuals=False, second_reference=False)
    with pytest.raises(UsageError, match="by blocks, and none by coefficients"):
        pack_header(replace(header, geometry=alone))
    plain = pack_header(replace(header, geometry=replace(header.geometry, intra=False)))
    blocks = pack_header(header)
    (at,) = np.flatnonzero(np.frombuffer(plain, np.uint8) != np.frombuffer(blocks, np.uint8))
    assert (plain[at], blocks[at]) == (0xDE, 0xFE)
    for flags, message in (
        (0x26, "by blocks, and none by coefficients"),
        (0x20, "by blocks, and none by coefficients"),
        (0x36, "no such first pictures"),
        (0x3A, "no seven motion maps"),
        (0x7A, "no seven motion maps"),
        (0x86, "a second reference, and no first pictures"),
        (0xC6, "a second reference, and no first pictures"),
        (0xB6, "no such first pictures"),
    ):
        with pytest.raises(CorruptStreamError, match=message):
            parsed(plain[:at] + bytes([flags]) + plain[at + 1 :])
    assert parsed(plain[:at] + bytes([0xEE]) + plain[at + 1 :]).geometry == replace(header.geometry, residuals=False)


def test_weights_that_the_header_does_not_fit_are_refused(codec: Codec, film: bytes, tmp_path: Path) -> None:
    config = CONFIG_JSON[:-1] + ', "residuals": true}'
    plain = Codec(model=str(write_weights(tmp_path, config)), device="cpu")
    others = plain.encode_frames(glide(1), quality=4, effort=0)
    one, other = (records_of(data)[0] for data in (film, others))
    with pytest.raises(ModelError, match="intra is True"):
        plain.decode_frames(with_header(film, tokenizer_digest=other.tokenizer_digest))
    with pytest.raises(ModelError, match="intra is False"):
        codec.decode_frames(with_header(others, tokenizer_digest=one.tokenizer_digest))


def test_tokens_that_the_header_does_not_fit_are_damaged(film: bytes) -> None:
    geometry = records_of(film)[0].geometry
    found = survey(io.BytesIO(with_header(film, geometry=replace(geometry, intra=False))), check_tokens=True)
    assert (found.chunks, len(found.damages)) == (0, 2)


# --- files of tokens ---


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_tokens_go_out_and_come_back(film: bytes, suffix: str, tmp_path: Path) -> None:
    arrays = token_arrays(io.BytesIO(film))
    assert (arrays["pictures"].dtype, arrays["pictures"].shape) == (np.int16, (2, 3, 64, 96))
    assert (arrays["scales"].dtype, arrays["scales"].shape) == (np.uint8, (2,))
    assert (arrays["layouts"].dtype, arrays["layouts"].shape) == (np.uint8, (2, 16, 24))
    for number, layout in enumerate(arrays["layouts"]):
        np.testing.assert_array_equal(layout, picture_of(film, number).blocks)
    write_arrays(tmp_path / f"a{suffix}", arrays, suffix=suffix)
    back = read_arrays(tmp_path / f"a{suffix}")
    assert tok_bytes(back, entropy=ADAPTIVE).getvalue() == with_header(film)
    wide = {**back, "pictures": back["pictures"].astype(np.int64), "scales": back["scales"].astype(np.int32)}
    assert tok_bytes(wide, entropy=ADAPTIVE).getvalue() == with_header(film)


def test_without_levels_all_bits_are_kept_but_those_of_first_steps(film: bytes) -> None:
    arrays = token_arrays(io.BytesIO(film))
    few = {name: arrays[name] for name in ("indices", "chunk_frames", "header", "pictures", "scales", "layouts")}
    data = tok_bytes(few, entropy=ADAPTIVE).getvalue()
    for number in range(2):
        levels = tokens_of(data, number).levels
        assert not levels[0].any()
        assert (levels[1:] == 6).all()
        assert_same(picture_of(data, number), picture_of(film, number))


def test_arrays_that_do_not_fit_are_refused(film: bytes, tmp_path: Path) -> None:
    arrays = token_arrays(io.BytesIO(film))
    for name in ("pictures", "scales"):
        with pytest.raises(UsageError, match="no pictures or no scales"):
            tok_bytes({key: array for key, array in arrays.items() if key != name}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="layouts are there where"):
        tok_bytes({key: array for key, array in arrays.items() if key != "layouts"}, entropy=ADAPTIVE)
    good = arrays["layouts"]
    for wrong in (good[:1], good[:, :-1], good[..., :-1], good[0], good[..., None], good.astype(np.int16), good / 2):
        with pytest.raises(UsageError, match="layouts must be"):
            tok_bytes({**arrays, "layouts": wrong}, entropy=ADAPTIVE)
    unknown, torn = good.copy(), good.copy()
    unknown[1, 15, 23] = UNKNOWN
    torn[1, :8, :8] = 3  # a block of 32 pixels, of which one cell is another
    torn[1, 5, 5] = 2 * MODES
    for wrong in (unknown, torn, np.full_like(good, 4 * MODES)):
        with pytest.raises(UsageError, match="no layout of"):
            tok_bytes({**arrays, "layouts": wrong}, entropy=ADAPTIVE)
    high = arrays["pictures"].astype(np.int64)
    high[1, 2, 63, 95] = MAX_COEFFICIENT + 1
    with pytest.raises(UsageError, match="pictures must be"):
        tok_bytes({**arrays, "pictures": high}, entropy=ADAPTIVE)
    with pytest.raises(UsageError, match="scales must be"):
        tok_bytes({**arrays, "scales": arrays["scales"].astype(int) + MAX_SCALE}, entropy=ADAPTIVE)
    plain = Codec(model=str(write_weights(tmp_path)), device="cpu")
    others = token_arrays(io.BytesIO(plain.encode_frames(glide(1), quality=4, effort=0)))
    assert "layouts" not in others
    with pytest.raises(UsageError, match="nowhere else"):
        tok_bytes({**others, "layouts": good[:1]}, entropy=ADAPTIVE)


def test_layouts_of_others_can_be_put_in(film: bytes) -> None:
    """What is in a file is what is in the arrays, and no encoder has to have made it."""
    arrays = token_arrays(io.BytesIO(film))
    picture = drawn_picture(64, 96, 3, density=0.001, reach=MAX_COEFFICIENT, scale=MAX_SCALE)
    assert picture.blocks is not None
    changed = {
        **arrays,
        "pictures": np.stack([picture.coefficients] * 2),
        "layouts": np.stack([picture.blocks] * 2),
        "scales": np.full(2, MAX_SCALE, np.uint8),
    }
    data = tok_bytes(changed, entropy=ADAPTIVE).getvalue()
    for number in range(2):
        assert_same(picture_of(data, number), picture)
    assert survey(io.BytesIO(data), check_tokens=True).complete


# --- data sets ---


def test_items_of_a_dataset_have_pictures_and_layouts_of_their_own(film: bytes, tmp_path: Path) -> None:
    (tmp_path / "film.tok").write_bytes(film)
    data = TokenDataset(tmp_path, steps=1)
    picture = picture_of(film, 0)
    assert picture.blocks is not None
    for item in (data[0], data[1]):
        assert item["scale"] == picture.scale
        layout, numbers = item["layout"], item["picture"]
        assert isinstance(layout, torch.Tensor)
        assert isinstance(numbers, torch.Tensor)
        assert (layout.dtype, layout.shape) == (torch.uint8, (16, 24))
        np.testing.assert_array_equal(layout.numpy(), picture.blocks)
        np.testing.assert_array_equal(numbers.numpy(), picture.coefficients)
        layout += 1
        numbers += 1
    np.testing.assert_array_equal(data[1]["layout"].numpy(), picture.blocks)  # type: ignore[union-attr]


def test_a_data_set_of_wavelets_has_no_layouts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plain = Codec(model=str(write_weights(tmp_path)), device="cpu")
    (tmp_path / "data" / "film.tok").write_bytes(plain.encode_frames(glide(1), quality=4, effort=0))
    assert "layout" not in TokenDataset(tmp_path / "data")[0]


def test_a_prior_learns_from_tokens_alone(film: bytes, tmp_path: Path) -> None:
    """By whichever pictures they come: their tokens are of one kind."""
    chunk = tokens_of(film, 0)
    plain = without_picture(chunk)
    assert (plain.picture, plain.residuals) == (None, ())
    assert (plain.geometry.pictures, plain.geometry.residuals, plain.geometry.intra) == (False, False, False)
    np.testing.assert_array_equal(plain.indices, chunk.indices)
    assert len(encode_tokens(plain)) < len(encode_tokens(chunk))
    (tmp_path / "data").mkdir()
    wavelets = Codec(model=str(write_weights(tmp_path)), device="cpu")
    (tmp_path / "data" / "one.tok").write_bytes(film)
    (tmp_path / "data" / "other.tok").write_bytes(wavelets.encode_frames(glide(1), quality=4, effort=0))
    _, chunks = load_chunks(tmp_path / "data")
    assert len(chunks) == 3


# --- trim ---


@pytest.mark.parametrize("quality", [5, 2, 1])
def test_trim_to_a_quality_makes_the_picture_coarser(codec: Codec, film: bytes, quality: int) -> None:
    sink = io.BytesIO()
    trim(io.BytesIO(film), sink, quality=quality)
    small = sink.getvalue()
    report = survey(io.BytesIO(small), check_tokens=True)
    assert (report.complete, report.frames) == (True, FRAMES)
    wanted = round(SCALES[0] + (SCALES[1] - SCALES[0]) * quality / 6)
    halvings = 0
    for number in range(2):
        before, after = picture_of(film, number), picture_of(small, number)
        halvings = (after.scale - before.scale) // 4
        assert after.scale == before.scale + 4 * halvings
        assert before.scale >= wanted - 1 if halvings == 0 else wanted - 1 <= after.scale <= wanted + 2
        assert_same(after, coarser(before, halvings))
        np.testing.assert_array_equal(after.blocks, before.blocks)
    again = io.BytesIO()
    trim(io.BytesIO(small), again, quality=quality)
    assert again.getvalue() == small
    assert (halvings > 0) == (quality < 5)
    whole, shown, frames = codec.decode_frames(film).frames, codec.decode_frames(small).frames, glide(FRAMES)
    assert shown.shape == (FRAMES, 60, 90, 3)
    if halvings:
        assert len(small) < 0.8 * len(film)
        error = error_of(shown[[0]], frames[[0]])
        assert error_of(whole[[0]], frames[[0]]) < error
        made = codec.encode_frames(frames[:1], quality=quality, effort=0)
        assert error < 3 * error_of(codec.decode_frames(made).frames, frames[:1]) + 10, "nothing adds up"


def test_trim_to_a_rate_fills_it_and_no_more(film: bytes) -> None:
    pixels, sizes = FRAMES * 60 * 90, {}
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


def test_a_rate_makes_each_coarser_picture_once(film: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    def counted(picture: Picture, halvings: int) -> Picture:
        made.append((id(picture), halvings))
        return coarser(picture, halvings)

    monkeypatch.setattr("tokcodec.trim.coarser", counted)
    sink = io.BytesIO()
    trim(io.BytesIO(film), sink, quality=1)
    smallest = 8 * len(sink.getvalue()) / (FRAMES * 60 * 90)
    made.clear()
    trim(io.BytesIO(film), io.BytesIO(), bits_per_pixel=1.1 * smallest)
    assert len({halvings for _, halvings in made}) > 1
    assert len(made) == len(set(made))


def test_too_little_memory_to_trim_is_said(film: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: Picture, halvings: int) -> Picture:
        raise MemoryError

    monkeypatch.setattr("tokcodec.trim.coarser", full)
    with pytest.raises(LimitError, match="not enough memory"):
        trim(io.BytesIO(film), io.BytesIO(), quality=1)


def test_pictures_of_another_kind_than_the_weights_are_refused() -> None:
    model, frames = silent_hybrid(INTRA), glide(1)
    _, [step] = coded(model, frames, slope=4000.0)
    assert step.picture is not None
    decoder = StreamDecoder(model, height=60, width=90)
    kept = np.zeros(step.indices.shape, np.uint8)
    with pytest.raises(ModelError, match="by blocks where the weights are made for it"):
        decoder.step(step.indices, kept, step.vectors, picture=replace(step.picture, blocks=None))
    assert decoder.step(step.indices, kept, step.vectors, picture=step.picture).shape == (1, 60, 90, 3)
