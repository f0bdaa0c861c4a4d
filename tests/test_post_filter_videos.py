"""Training of the filter behind the decoder from videos, as typed: they are coded first, and kept."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from command_line import called, typed
from media import make_video
from test_post_filter import FRAMES, TOLD, loud
from test_post_filter_training import clips

from tokcodec import Codec
from tokcodec.errors import MediaError, ModelError
from tokcodec.training import coded_clips
from tokcodec.training.coded_clips import code_clips, read_clips
from tokcodec.training.losses import LossWeights
from tokcodec.training.media import find_media
from tokcodec.training.post_filter_loop import PostFilterTrainConfig
from tokcodec.training.post_filter_run import train_post_filter_folder
from tokcodec.weights import load_post_filter
from tokcodec.weights.post_filters import save_post_filter
from tokcodec.weights.registry import entry_of_file


def test_train_as_typed_from_a_video(tmp_path: Path):
    """Codes a folder's videos, trains for a moment, goes on, and decodes with the result."""
    (tmp_path / "data").mkdir()
    make_video(tmp_path / "data" / "a.mp4", size=(96, 72))
    make_video(tmp_path / "data" / "tiny.mp4", size=(48, 40))
    words = (
        *("train-post-filter", "--data", "data", "--out", "run", "--max-minutes", "0.02", "--lpips", "0"),
        *("--channels", "4", "--inner-channels", "8", "--blocks", "1", "--batch", "2", "--device", "cpu"),
    )
    run = typed(*words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert b"tiny.mp4: left out" in run.stderr
    (made,) = (tmp_path / "run").glob("vivid-*.safetensors")
    assert str(made.name) in run.stdout.decode()
    (clip,) = read_clips(tmp_path / "run" / "coded")
    assert clip.coded.shape == clip.original.shape
    assert 1 <= clip.quality <= 6
    again = called(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert b"the run is complete" in again.stderr
    other = called(*words, "--seed", "5", cwd=tmp_path)
    assert other.returncode == 2, other.stderr
    assert b"with another seed" in other.stderr
    (tmp_path / "a.tok").write_bytes(Codec(device="cpu", entropy="adaptive").encode_frames(FRAMES, quality=2))
    shown = called("decode", "a.tok", "a.mkv", "--codec", "ffv1", "--style", made, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("pictures", [True, False])
def test_clips_keep_the_quantizer_of_their_first_picture(pictures: bool, tmp_path: Path):
    """Where their model makes such pictures; files of before do not say it."""
    (tmp_path / "data").mkdir()
    make_video(tmp_path / "data" / "a.mp4", size=(96, 72), count=6)
    weights = tiny_model.write_weights(tmp_path, motion=7, pictures=pictures)
    items, out = find_media(tmp_path / "data"), tmp_path / "coded"
    code_clips(items, out, model=str(weights), seed=1, workers=1, say=print)
    (clip,) = read_clips(out)
    made = coded_clips.code_clip(items[0], model=str(weights), seed=1)
    assert made is not None
    assert clip.scale == made.scale
    assert (clip.scale is None) == (not pictures)
    assert clip.quality == made.quality
    (path,) = out.glob("*.npz")
    with np.load(path) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    assert (stored["scale"].dtype, stored["scale"].tolist()) == (np.int64, [clip.scale] if pictures else [])
    stored.pop("scale")
    np.savez(path, **stored)
    (old,) = read_clips(out)
    assert (old.scale, old.quality) == (None, clip.quality)
    np.testing.assert_array_equal(old.coded, clip.coded)
    np.savez(path, **stored, scale=np.asarray([3, 4]))
    with pytest.raises(MediaError, match="not a coded clip"):
        list(read_clips(out))


def test_train_one_that_is_told_the_quantizer_as_typed(tmp_path: Path):
    """From one that is not, and has fewer blocks."""
    (tmp_path / "data").mkdir()
    make_video(tmp_path / "data" / "a.mp4", size=(96, 72), count=6)
    weights = tiny_model.write_weights(tmp_path, motion=7, pictures=True)
    first = save_post_filter(loud(), tmp_path, name="first")
    words = (
        *("train-post-filter", "--data", "data", "--max-minutes", "0.005", "--lpips", "0", "--model", weights),
        *("--channels", "4", "--inner-channels", "8", "--batch", "2", "--device", "cpu", "--init", first.path),
    )
    run = called(*words, "--out", "run", "--by-scale", "--blocks", "3", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (made,) = (tmp_path / "run").glob("vivid-*.safetensors")
    network = load_post_filter(entry_of_file(made))
    assert network.config == replace(TOLD, blocks=3)
    written = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert written["run"]["model"] == json.loads(network.config.to_json())
    (clip,) = read_clips(tmp_path / "run" / "coded")
    assert clip.scale is not None
    data = Codec(model=str(weights), device="cpu").encode_frames(FRAMES, quality=4, effort=0)
    (tmp_path / "a.tok").write_bytes(data)
    shown = called("decode", "a.tok", "a.mkv", "--codec", "ffv1", "--style", made, "--weights", weights, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    # Where it stops: not what it started from, but near it.
    away = [float((network.state_dict()[name] - value).abs().max()) for name, value in loud().state_dict().items()]
    assert 0 < max(away) < 0.1
    for name, *options in (
        ("fewer", "--blocks", "1", "--init", made),
        ("wider", "--blocks", "3", "--channels", "5"),
        ("untold", "--blocks", "3", "--init", made),
    ):
        run = called(*words, "--out", name, *options, cwd=tmp_path)
        assert run.returncode == 6, run.stderr
        assert b"the post-filter has other sizes" in run.stderr


def test_train_one_that_learns_from_another_as_typed(tmp_path: Path):
    """From a file; the log says which. What is no filter is refused before anything is coded."""
    (tmp_path / "data").mkdir()
    make_video(tmp_path / "data" / "a.mp4", size=(96, 72), count=6)
    weights = tiny_model.write_weights(tmp_path, motion=7, pictures=True)
    teacher = save_post_filter(loud(), tmp_path, name="teacher")
    words = (
        *("train-post-filter", "--data", "data", "--max-minutes", "0.005", "--model", weights, "--device", "cpu"),
        *("--channels", "4", "--inner-channels", "8", "--blocks", "1", "--batch", "2", "--name", "light"),
        *("--l1", "0", "--mse", "0", "--lpips", "0", "--teacher-l1", "0.5", "--teacher-mse", "3"),
    )
    run = called(*words, "--out", "run", "--teacher", teacher.path, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "run").glob("light-*.safetensors"))
    first, *_, last = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert first["run"]["teacher"] == teacher.sha256
    assert (first["run"]["train"]["teacher_l1"], first["run"]["train"]["teacher_mse"]) == (0.5, 3.0)
    assert last["teacher_l1"] > 0
    for style, code, message in (
        ("faithful", 2, b"is no filter that another could learn from"),
        ("vivid", 6, b"no post-filter for this file's tokenizer"),
        ("garish", 6, b"there is no style 'garish'"),
        (weights, 6, b"post-filter"),
    ):
        refused = called(*words, "--out", "refused", "--teacher", style, cwd=tmp_path)
        assert refused.returncode == code, refused.stderr
        assert message in refused.stderr
        assert not list((tmp_path / "refused").glob("*.safetensors"))


def test_a_model_without_first_pictures_has_no_quantizer_to_tell(tmp_path: Path):
    (tmp_path / "data").mkdir()
    make_video(tmp_path / "data" / "a.mp4", size=(96, 72), count=6)
    weights = tiny_model.write_weights(tmp_path, motion=7)
    run = called(
        *("train-post-filter", "--data", "data", "--out", "run", "--max-minutes", "0.005", "--lpips", "0"),
        *("--channels", "4", "--inner-channels", "8", "--blocks", "1", "--batch", "2", "--device", "cpu"),
        *("--by-scale", "--model", weights),
        cwd=tmp_path,
    )
    assert run.returncode == 2, run.stderr
    assert b"a filter by scale needs clips that say at which quantizer" in run.stderr
    assert not list((tmp_path / "run").glob("vivid-*.safetensors"))


def test_what_cannot_be_trained_on(tmp_path: Path):
    with pytest.raises(MediaError, match="no coded clips"):
        train_post_filter_folder(
            None,
            tmp_path / "run",
            max_minutes=0.01,
            total_minutes=0.01,
            name="vivid",
            train=PostFilterTrainConfig(weights=LossWeights(lpips=0.0)),
            device="cpu",
            log=print,
        )
    (tmp_path / "run" / "coded").mkdir()
    (tmp_path / "run" / "coded" / "a.npz").write_bytes(b"no arrays")
    with pytest.raises(MediaError, match="not a coded clip"):
        list(read_clips(tmp_path / "run" / "coded"))
    out = io.BytesIO()
    np.savez(out, coded=clips(1)[0].coded)
    (tmp_path / "run" / "coded" / "a.npz").write_bytes(out.getvalue())
    with pytest.raises(MediaError, match="not a coded clip"):
        list(read_clips(tmp_path / "run" / "coded"))
    with pytest.raises(ModelError, match="alexnet_features"):
        train_post_filter_folder(
            None,
            tmp_path / "run",
            max_minutes=0.01,
            total_minutes=0.01,
            name="vivid",
            lpips_weights=tmp_path,
            device="cpu",
            log=print,
        )
