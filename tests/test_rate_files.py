"""Files at a rate, through the Python API and as typed, with the tiny model."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import called, typed
from hypothesis import given, settings
from hypothesis import strategies as st
from media import TICK, OneWay, make_film, make_video, picture
from tiny_model import write_weights

import tokcodec
from tokcodec import Codec, CodecResult, Rate
from tokcodec.errors import UsageError
from tokcodec.evaluation import EvalSettings, RecordStore, evaluate
from tokcodec.inspection import verify
from tokcodec.metrics.lpips_network import LoadedLpips
from tokcodec.metrics.meter import Meter
from tokcodec.rate import PROMISED

FRAMES = 57
"""More than two seconds at 24 frames a second."""
SIZE = 96, 80
# At effort 1 the encoder takes back most bits of the tiny model, for they do no good: sizes are smaller, and jump.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the tiny model, and a clip."""
    place = tmp_path_factory.mktemp("rate")
    write_weights(place).rename(place / "tiny.safetensors")
    make_video(place / "in.mkv", codec="ffv1", size=SIZE, count=FRAMES)
    return place


@pytest.fixture(scope="module")
def codec(folder: Path) -> Codec:
    return Codec(model=str(folder / "tiny.safetensors"), device="cpu")


def encode(codec: Codec, folder: Path, rate: Rate, **options: object) -> CodecResult:
    return codec.encode(folder / "in.mkv", folder / "out.tok", rate=rate, force=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("effort", "chunk_frames", "asked"), [(0, 65, 0.025), (0, 17, 0.025), (1, 65, 0.0125), (1, 17, 0.0165)]
)
def test_bits_per_pixel(codec: Codec, folder: Path, effort: int, chunk_frames: int, asked: float):
    if effort:  # sizes jump elsewhere on a machine that rounds otherwise: what is asked for is one that there is
        asked = encode(
            codec, folder, Rate(bits_per_pixel=asked), effort=effort, chunk_frames=chunk_frames
        ).bits_per_pixel
    result = encode(codec, folder, Rate(bits_per_pixel=asked), effort=effort, chunk_frames=chunk_frames)
    size = (folder / "out.tok").stat().st_size
    reached = 8 * size / (FRAMES * SIZE[0] * SIZE[1])
    assert reached == pytest.approx(asked, rel=PROMISED)
    assert result.bits_per_pixel == pytest.approx(reached)
    assert result.rate is not None
    assert (result.rate.asked, result.rate.reached) == (asked, pytest.approx(reached))
    assert result.rate.passes >= 1
    assert result.notes == ()
    assert verify(folder / "out.tok").complete


def test_kilobits_per_second(codec: Codec, folder: Path):
    seconds = FRAMES / 24
    for multi_pass in (False, True):
        result = encode(codec, folder, Rate(kilobits_per_second=2.8, multi_pass=multi_pass), chunk_frames=17)
        size = (folder / "out.tok").stat().st_size
        assert 8 * size / 1000 / seconds == pytest.approx(2.8, rel=PROMISED)
        assert result.rate is not None
        assert (result.rate.lowest_quality == result.rate.highest_quality) == multi_pass
    codec.encode_frames(np.stack([picture(64, 48)] * 2), rate=Rate(kilobits_per_second=5.0))


def test_pipes(codec: Codec, folder: Path):
    data = (folder / "in.mkv").read_bytes()
    sink = io.BytesIO()
    codec.encode(OneWay(data), sink, rate=Rate(bits_per_pixel=0.025), chunk_frames=17, effort=0)  # type: ignore[arg-type]
    assert 8 * len(sink.getvalue()) / (FRAMES * SIZE[0] * SIZE[1]) == pytest.approx(0.025, rel=PROMISED)
    for rate in (Rate(max_bytes=2000), Rate(bits_per_pixel=0.1, multi_pass=True)):
        with pytest.raises(UsageError, match="read only once"):
            codec.encode(OneWay(data), io.BytesIO(), rate=rate)  # type: ignore[arg-type]


def test_streams_that_can_seek_are_read_again(codec: Codec):
    data = io.BytesIO()
    make_video(data, container="matroska", codec="ffv1", count=9)
    data.seek(0)
    sink = io.BytesIO()
    result = codec.encode(data, sink, rate=Rate(max_bytes=600), effort=0)
    assert result.frames == 9
    assert 480 < len(sink.getvalue()) <= 600


@settings(max_examples=6)
@given(max_bytes=st.integers(100, 5000))
def test_never_more_bytes_than_allowed(codec: Codec, max_bytes: int):
    frames = np.stack([picture(64, 48, index) for index in range(9)])
    with contextlib.suppress(UsageError):
        data = codec.encode_frames(frames, rate=Rate(max_bytes=max_bytes), effort=0)
        assert len(data) <= max_bytes
        assert codec.decode_frames(data).frames.shape == frames.shape


def test_sound_counts_where_bytes_are_counted(codec: Codec, tmp_path: Path):
    make_film(tmp_path / "film.mkv")
    target = tmp_path / "out.tok"
    quiet = codec.encode(tmp_path / "film.mkv", target, quality=1)
    assert quiet.tok_bytes is not None
    assert quiet.bits_per_pixel is not None
    allowed = quiet.tok_bytes + 100
    codec.encode(tmp_path / "film.mkv", target, rate=Rate(max_bytes=allowed), force=True)
    assert quiet.tok_bytes - 100 < target.stat().st_size <= allowed
    with pytest.raises(UsageError, match="lowest quality") as error:
        codec.encode(tmp_path / "film.mkv", tmp_path / "none.tok", rate=Rate(max_bytes=allowed // 2))
    assert error.value.hint is not None
    assert "audio" in error.value.hint
    assert not (tmp_path / "none.tok").exists()
    asked = 1.2 * quiet.bits_per_pixel
    result = codec.encode(tmp_path / "film.mkv", target, rate=Rate(bits_per_pixel=asked), chunk_frames=5, force=True)
    assert result.bits_per_pixel == pytest.approx(asked, rel=0.1), "so short a clip has few sizes to choose from"
    assert result.tok_bytes is not None
    assert 8 * result.tok_bytes > 1.3 * asked * 18 * 64 * 48, "packets are not counted"


def test_what_cannot_be_reached_is_said(codec: Codec, folder: Path):
    result = encode(codec, folder, Rate(bits_per_pixel=9.0), chunk_frames=17)
    assert result.rate is not None
    assert result.rate.limit == "highest"
    assert "the highest quality takes no more" in result.notes[0]
    assert encode(codec, folder, Rate(bits_per_pixel=1e-4)).rate.limit == "lowest"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="exclude"):
        codec.encode(folder / "in.mkv", folder / "no.tok", quality=3, rate=Rate(max_bytes=9))
    make_video(folder / "still.png", codec="png", container="image2", pixel_format="rgb24", count=1)
    with pytest.raises(UsageError, match="no duration"):
        codec.encode(folder / "still.png", folder / "no.tok", rate=Rate(kilobits_per_second=9.0))
    assert not (folder / "no.tok").exists()


def test_variable_frame_rate_is_counted_in_seconds(codec: Codec, tmp_path: Path):
    stamps = [TICK * index * (4 if index > 20 else 1) for index in range(40)]
    make_video(tmp_path / "vfr.mkv", codec="ffv1", size=SIZE, pts=stamps)
    result = codec.encode(
        tmp_path / "vfr.mkv", tmp_path / "a.tok", rate=Rate(kilobits_per_second=1.2), chunk_frames=17, effort=0
    )
    seconds = (stamps[-1] - stamps[0] + TICK) / 12288
    assert result.tok_bytes is not None
    assert 8 * result.tok_bytes / 1000 / seconds == pytest.approx(1.2, rel=0.08), "the last frame's duration is a guess"


def test_rates_in_an_evaluation(codec: Codec, folder: Path, tmp_path: Path):
    absent = LoadedLpips(network=None, reason="absent")
    clip = tmp_path / "clip.mkv"
    make_video(clip, codec="ffv1", size=SIZE, count=25)
    store = RecordStore(tmp_path / "out.jsonl")
    for trimmed_from in (0, 6):
        wanted = EvalSettings(rates=(0.04,), effort=0, crfs=(), trimmed_from=trimmed_from)
        (record,) = evaluate([clip], codec, Meter(alex=absent, vgg=absent), wanted, model_sha256="m", store=store)
        assert (record.key.by, record.key.setting, record.key.trimmed_from) == ("bpp", 0.04, trimmed_from)
        assert 0.9 * 0.04 < record.bits_per_pixel < 1.05 * 0.04
    assert len(store) == 2
    with pytest.raises(UsageError, match="rates"):
        EvalSettings(trimmed_from=6)
    with pytest.raises(UsageError, match="above zero"):
        EvalSettings(rates=(0.0,))


def test_as_typed(folder: Path, tmp_path: Path):
    target = tmp_path / "a.tok"
    model = ("--model", folder / "tiny.safetensors", "--device", "cpu")
    done = typed("encode", folder / "in.mkv", target, "--max-bytes", "2000", *model, "--json")
    assert done.returncode == 0, done.stderr
    rate = json.loads(done.stdout)["rate"]
    assert (rate["unit"], rate["asked"]) == ("max_bytes", 2000)
    assert rate["reached"] == target.stat().st_size <= 2000
    assert rate["passes"] >= 1
    done = called("encode", folder / "in.mkv", target, "--bpp", "8", *model, "--force")
    assert done.returncode == 0, done.stderr
    assert b"highest quality takes no more" in done.stderr
    assert b"8 asked" in done.stdout
    target.unlink()
    for words in (
        ("--bpp", "0.1", "--quality", "3"),
        ("--bpp", "0.1", "--kbps", "3"),
        ("--kbps", "3", "--max-bytes", "3000"),
        ("--kbps", "0"),
        ("--multi-pass",),
        ("--max-bytes", "60", *model),
    ):
        done = called("encode", folder / "in.mkv", target, *words)
        assert done.returncode == 2, (words, done.stderr)
        assert b"hint: " in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_bench_tells_the_probability_model():
    from tokcodec.bench.codecs.base import CodecTask
    from tokcodec.bench.codecs.tokcodec import Tokcodec

    plain, ours = Tokcodec(), Tokcodec(entropy="prior", prior="my.safetensors", prior_sha256="ab" * 32)
    assert plain.settings()[0]["entropy"] == "adaptive"
    assert "prior" not in plain.settings()[0]
    assert ours.settings()[0]["entropy"] == "prior"
    assert ours.settings()[0]["prior"] == "ab" * 6
    task = CodecTask(
        source=Path("a"),
        target=Path("b"),
        setting=ours.settings()[0],
        threads=1,
        matrix=1,
        width=9,
        height=9,
        frame_rate="24/1",
    )
    words = " ".join(ours.encode_command(task))
    assert "--entropy prior --prior my.safetensors" in words
    assert "--prior my.safetensors" in " ".join(ours.decode_command(task))
    assert "--entropy prior" in ours.told(task.setting, threads=1)
    assert "--prior" not in " ".join(plain.encode_command(task) + plain.decode_command(task))


def test_the_public_names():
    assert tokcodec.Rate is Rate
