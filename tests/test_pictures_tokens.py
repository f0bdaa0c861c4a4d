"""First pictures by wavelets where files change without a network: trim, and files of tokens (spec section 3.6)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from picture_films import codec_fixture, error_of, film_fixture, glide, weights_fixture, with_header  # noqa: F401
from test_conceal import tokens_of

from tokcodec.chunks import ADAPTIVE
from tokcodec.codec import Codec
from tokcodec.errors import UsageError
from tokcodec.geometry import MAX_COEFFICIENT, MAX_SCALE
from tokcodec.inspection import survey
from tokcodec.tokenfiles import read_arrays, tok_bytes, token_arrays, write_arrays
from tokcodec.trim import SCALES, trim

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
        with pytest.raises(UsageError, match="not coded by coefficients"):
            tok_bytes({**others, name: arrays[name]}, entropy=ADAPTIVE)
