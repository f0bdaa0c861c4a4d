"""The filter behind the decoder: styles, its weights, and its training."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from command_line import called, typed
from media import make_video, picture
from network_helpers import smooth

from tokcodec import Codec
from tokcodec.bench.codecs.tokcodec import make_tokcodec
from tokcodec.chunks import decode_chunk
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import MediaError, ModelError, UsageError
from tokcodec.metrics.lpips_network import ALEX, Lpips
from tokcodec.tokenizer import stream
from tokcodec.tokenizer.post_filter import PostFilter, PostFilterConfig, share_of_scale
from tokcodec.training.coded_clips import CodedClip, CropSampler, read_clips, to_batch
from tokcodec.training.losses import LossWeights
from tokcodec.training.post_filter_loop import PostFilterTrainConfig, PostFilterTrainer
from tokcodec.training.post_filter_run import train_post_filter_folder
from tokcodec.weights import choose_post_filter, load_post_filter, load_tokenizer, post_filters, registry
from tokcodec.weights.post_filters import post_filter_entries, save_post_filter

SMALL = PostFilterConfig(channels=4, inner_channels=8, blocks=1)
FRAMES = np.stack([picture(48, 32, index) for index in range(6)])


def loud(config: PostFilterConfig = SMALL) -> PostFilter:
    """A filter that changes what it is given."""
    torch.manual_seed(0)
    network = PostFilter(config)
    with torch.no_grad():
        network.change_out.weight.normal_(std=0.05)
    return network


def install(folder: Path, patch: pytest.MonkeyPatch, *, tokenizer: str = tiny_model.SHA256) -> Path:
    """Makes a folder the one of the package's weights: a small tokenizer, and a post-filter of one."""
    path = tiny_model.write_weights(folder)
    entry = save_post_filter(loud(), folder, name="tiny-vivid")
    listed = {
        "tokenizers": [{"name": "base", "file": path.name, "sha256": tiny_model.SHA256}],
        "post_filters": [
            {"name": "tiny-vivid", "file": entry.path.name, "sha256": entry.sha256, "tokenizer": tokenizer}
        ],
    }
    (folder / "registry.json").write_text(json.dumps(listed), encoding="utf-8")
    for module in (registry, post_filters):
        patch.setattr(module, "PACKAGE_FOLDER", folder)
        patch.setattr(module, "REGISTRY", folder / "registry.json")
    return entry.path


def decoded(data: bytes, style: str) -> np.ndarray:
    return Codec(device="cpu", style=style).decode_frames(data).frames


def encoded() -> bytes:
    return Codec(device="cpu", entropy="adaptive").encode_frames(FRAMES, chunk_frames=5, effort=0, quality=4)


def test_configuration_round_trip_and_refusals():
    assert PostFilterConfig.from_json(SMALL.to_json()) == SMALL
    other = SMALL.to_json().replace("post-filter-1", "post-filter-9")
    for text in ("", "[]", "{}", other, SMALL.to_json().replace("blocks", "bricks")):
        with pytest.raises(ModelError):
            PostFilterConfig.from_json(text)
    with pytest.raises(ModelError, match="channels"):
        PostFilterConfig(channels=0)


def test_pictures_are_filtered_each_by_itself():
    network = loud()
    pictures = torch.cat([smooth(3, 5, seed) for seed in range(3)])
    with torch.inference_mode():
        together = network(pictures)
        alone = torch.cat([network(part) for part in pictures.split(1)])
    assert together.shape == pictures.shape
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together - pictures).abs().max() > 0.01


def test_a_place_is_changed_by_what_is_near_alone():
    """No norm over the picture: a crop is filtered as the whole is, away from its edges."""
    network = loud()
    whole = smooth(16, 16)
    with torch.inference_mode():
        inside = network(whole[..., :96, :96])[..., :32, :32]
        torch.testing.assert_close(network(whole)[..., :32, :32], inside, atol=1e-5, rtol=0)


def test_weights_round_trip_and_refusals(tmp_path: Path):
    network = loud()
    entry = save_post_filter(network, tmp_path, name="small")
    assert entry.path.name == f"small-{hashlib.sha256(entry.path.read_bytes()).hexdigest()[:12]}.safetensors"
    loaded = load_post_filter(entry)
    assert loaded.config == SMALL
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.bfloat16().float(), rtol=0, atol=0)
    with pytest.raises(ModelError, match="configuration"):
        load_tokenizer(entry)
    with pytest.raises(ModelError, match="configuration of a post-filter"):
        load_post_filter(registry.entry_of_file(tiny_model.write_weights(tmp_path)))
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_post_filter(entry)


def test_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By default and as vivid, by name or as a file, through the filter; faithful as the decoder has it."""
    path = install(tmp_path, monkeypatch)
    data = encoded()
    faithful, vivid = decoded(data, "faithful"), decoded(data, "vivid")
    assert faithful.shape == vivid.shape == FRAMES.shape
    assert (faithful != vivid).any()
    assert np.array_equal(Codec(device="cpu").decode_frames(data).frames, vivid)
    for style in ("tiny-vivid", str(path)):
        assert np.array_equal(decoded(data, style), vivid), style
    with pytest.raises(ModelError, match="no style 'garish'"):
        decoded(data, "garish")
    codec = Codec(device="cpu", style="vivid")
    assert codec.post_filter_sha256 == post_filter_entries()[0].sha256
    assert Codec(device="cpu", style="faithful").post_filter_sha256 == ""


def test_a_filter_of_another_tokenizer_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch, tokenizer="0" * 64)
    data = encoded()
    with pytest.raises(ModelError, match="no post-filter for this file's tokenizer"):
        decoded(data, "vivid")
    assert np.array_equal(decoded(data, "auto"), decoded(data, "faithful"))
    assert choose_post_filter("faithful", tokenizer=tiny_model.SHA256) is None


def test_a_filtered_picture_is_what_the_filter_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = install(tmp_path, monkeypatch)
    data = encoded()
    network = load_post_filter(registry.entry_of_file(path))
    with torch.inference_mode():
        wanted = network(to_batch(list(decoded(data, "faithful"))))
    found = to_batch(list(decoded(data, "vivid")))
    assert (found - wanted.clamp(-1, 1)).abs().mean() < 0.02, "but for rounding, of pixels and of bfloat16"


def test_fine_pictures_show_less_of_a_filters_change(monkeypatch: pytest.MonkeyPatch):
    shares = [share_of_scale(scale) for scale in range(64)]
    assert shares == sorted(shares)
    assert (shares[0], shares[22], shares[-1]) == (0.5, 0.6, 1.0)
    data = Codec(device="cpu", style="faithful").encode_frames(FRAMES, quality=4)
    plain, filtered = (Codec(device="cpu", style=style).decode_frames(data).frames for style in ("faithful", "vivid"))
    seen: list[int] = []
    monkeypatch.setattr(stream, "share_of_scale", lambda scale: seen.append(scale) or 1.0)
    whole = Codec(device="cpu", style="vivid").decode_frames(data).frames
    [chunk] = [item for item in read_stream(io.BytesIO(data)) if isinstance(item, ChunkRecord)]
    first = decode_chunk(chunk, read_stream(io.BytesIO(data)).header).picture
    assert first is not None
    assert seen == [first.scale]
    assert 0.5 < shares[first.scale] < 1.0
    changes = [np.abs(each.astype(int) - plain).mean() for each in (filtered, whole)]
    assert changes[0] == pytest.approx(shares[first.scale] * changes[1], rel=0.1)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch)
    (tmp_path / "a.tok").write_bytes(encoded())
    for style in ("faithful", "vivid"):
        run = called("decode", "a.tok", f"{style}.mkv", "--codec", "ffv1", "--style", style, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
    assert (tmp_path / "faithful.mkv").read_bytes() != (tmp_path / "vivid.mkv").read_bytes()
    run = called("decode", "a.tok", "b.mkv", "--style", "garish", cwd=tmp_path)
    assert run.returncode == 6
    assert b"there is no style 'garish'" in run.stderr
    assert not (tmp_path / "b.mkv").exists()


def test_a_benchmark_tells_styles_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch)
    faithful, vivid = (make_tokcodec(entropy="adaptive", style=style) for style in ("faithful", "vivid"))
    assert (faithful.style, vivid.style) == ("faithful", "vivid")
    assert vivid.settings() != faithful.settings()
    assert "post_filter" not in faithful.settings()[0]
    assert "--style vivid" in vivid.told(vivid.settings()[0], threads=1)


def clips(count: int = 2, size: tuple[int, int] = (72, 80)) -> list[CodedClip]:
    """Originals with a pattern of which coding leaves a quarter, and a little too bright."""
    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        even = random.integers(60, 180, (3, 1, 1, 3)) + np.zeros((3, *size, 1), int)
        stripes = 40 * (np.arange(size[1]) // 2 % 2).reshape(1, 1, -1, 1)
        found.append(
            CodedClip((even + stripes // 4 + 15).astype(np.uint8), (even + stripes).astype(np.uint8), 1 + seed)
        )
    return found


def test_crops_of_both_lie_in_the_same_place():
    ramp = np.arange(72 * 80).reshape(1, 72, 80, 1) % 251 + np.zeros((2, 1, 1, 3), int)
    clip = CodedClip(ramp.astype(np.uint8), (ramp + 4).astype(np.uint8), 1)
    coded, original, quality = CropSampler([clip], seed=0).draw(8, 64)
    assert coded.shape == original.shape == (8, 3, 64, 64)
    torch.testing.assert_close(original - coded, torch.full_like(coded, 4 / 127.5), atol=1e-5, rtol=0)
    assert quality.tolist() == [1] * 8
    small, _, _ = CropSampler(clips(1, (70, 90)), seed=0).draw(2, 128)
    assert small.shape == (2, 3, 64, 64), "no larger than the clip, and a multiple of 8"
    again, _, _ = CropSampler([clip], seed=0).draw(8, 64)
    assert torch.equal(again, coded)
    with pytest.raises(MediaError):
        CropSampler([], seed=0)


def test_it_learns_what_was_lost(tmp_path: Path):
    """The pattern comes back."""
    torch.manual_seed(0)
    alex = Lpips(ALEX).requires_grad_(False)
    train = PostFilterTrainConfig(batch=4, side=64, learning_rate=1e-3, warmup_steps=2, precision="float32", vgg=0.0)
    trainer = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "checkpoint.pt", device=torch.device("cpu"), alex=alex, vgg=None
    )
    lines: list[str] = []
    sampler = CropSampler(clips(), seed=0)
    for _ in range(120):  # and not minutes, of which a busy machine makes less
        trainer._update(sampler, 100.0)
    trainer.run(sampler, max_minutes=0.001, total_minutes=100.0, log=lines.append)
    coded, original, _ = CropSampler(clips(), seed=9).draw(8, 64)
    with torch.inference_mode():
        shown = trainer.averaged()(coded)
    assert (shown - original).square().mean() < 0.7 * (coded - original).square().mean()
    assert json.loads(lines[-1])["lpips"] > 0
    again = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "checkpoint.pt", device=torch.device("cpu"), alex=alex, vgg=None
    )
    assert (again.step, again.minutes) == (trainer.step, trainer.minutes)
    for name, value in again.average.items():
        assert torch.equal(value, trainer.average[name])
    with pytest.raises(ModelError, match="another network"):
        PostFilterTrainer(
            PostFilterConfig(channels=4, inner_channels=8, blocks=2),
            train,
            checkpoint=tmp_path / "none.pt",
            device=torch.device("cpu"),
            alex=None,
            vgg=None,
            init=tmp_path / "checkpoint.pt",
        )


def test_a_run_may_start_from_exported_weights(tmp_path: Path):
    torch.manual_seed(5)
    entry = save_post_filter(PostFilter(SMALL), tmp_path, name="vivid")
    train = PostFilterTrainConfig(batch=2, side=64)
    options = {"checkpoint": tmp_path / "checkpoint.pt", "device": torch.device("cpu"), "alex": None, "vgg": None}
    trainer = PostFilterTrainer(SMALL, train, init=entry.path, **options)  # type: ignore[arg-type]
    wanted = load_post_filter(entry).state_dict()
    for found in (trainer.model.state_dict(), trainer.average):
        for name, value in wanted.items():
            assert torch.equal(found[name], value)
    other = PostFilterConfig(channels=4, inner_channels=8, blocks=2)
    with pytest.raises(ModelError, match="other sizes"):
        PostFilterTrainer(other, train, init=entry.path, **options)  # type: ignore[arg-type]


def test_a_discriminator_may_learn_alongside(tmp_path: Path):
    from tokcodec.training.config import AdversarialConfig

    train = PostFilterTrainConfig(
        batch=2,
        side=64,
        warmup_steps=1,
        precision="float32",
        weights=LossWeights(l1=1.0, mse=1.0, lpips=0.0, adversarial=0.1),
        adversarial=AdversarialConfig(width=4, start=1, r1_every=2),
    )
    trainer = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "checkpoint.pt", device=torch.device("cpu"), alex=None, vgg=None
    )
    lines: list[str] = []
    sampler = CropSampler(clips(), seed=0)
    found = [trainer._update(sampler, 100.0) for _ in range(3)]
    assert "adversarial" not in found[0], "a fresh one knows nothing"
    assert {"adversarial", "discriminator", "lecam", "adaptive_weight"} <= set(found[-1])
    trainer.run(sampler, max_minutes=0.001, total_minutes=100.0, log=lines.append)
    assert json.loads(lines[-1])["step"] == trainer.step > 3
    again = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "checkpoint.pt", device=torch.device("cpu"), alex=None, vgg=None
    )
    assert again._adversary is not None
    assert again._adversary.updates == trainer.step


def test_choices_that_cannot_be(tmp_path: Path):
    with pytest.raises(UsageError):
        PostFilterTrainConfig(side=60)
    with pytest.raises(UsageError):
        PostFilterTrainConfig(batch=0)
    for factors in ((1.0,) * 5, (1.0,) * 5 + (-0.1,), (1.0,) * 5 + (float("nan"),)):
        with pytest.raises(UsageError, match="by_quality"):
            PostFilterTrainConfig(by_quality=factors)
    run = called("train-post-filter", "--out", tmp_path, "--lpips-by-quality", "1,2,three")
    assert run.returncode == 2
    assert b"1,2,three" in run.stderr


def test_distances_count_by_the_quality_of_their_crop(tmp_path: Path):
    torch.manual_seed(0)
    alex = Lpips(ALEX).requires_grad_(False)
    parts, shown = [], smooth(8, 8).expand(3, -1, -1, -1)
    for factors in ((1.0,) * 6, (0.5, 2.0, 0.0, 1.0, 1.0, 1.0)):
        train = PostFilterTrainConfig(alex=0.7, vgg=0.0, by_quality=factors)
        trainer = PostFilterTrainer(
            SMALL, train, checkpoint=tmp_path / "none.pt", device=torch.device("cpu"), alex=alex, vgg=None
        )
        quality = torch.tensor([1, 2, 3])
        found = trainer._lpips(shown, torch.zeros_like(shown), torch.tensor(factors)[quality - 1])
        assert found is not None
        parts.append(float(found))
    each = float(alex(shown[:1], torch.zeros_like(shown[:1])))
    assert parts == pytest.approx([0.7 * each, 0.7 * each * 2.5 / 3])


def test_a_crop_has_the_factor_of_its_own_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train = PostFilterTrainConfig(batch=6, side=64, precision="float32", by_quality=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    trainer = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "none.pt", device=torch.device("cpu"), alex=None, vgg=None
    )
    given: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "_lpips", lambda shown, original, factors: given.append(factors))
    for quality in (1, 6):
        (clip,) = clips(1)
        trainer._update(CropSampler([clip._replace(quality=quality)], seed=0), 100.0)
    torch.testing.assert_close(torch.stack(given), torch.tensor([[0.1] * 6, [0.6] * 6]))


def test_gradients_that_are_not_finite_change_nothing(tmp_path: Path):
    train = PostFilterTrainConfig(batch=2, side=64, precision="float32", weights=LossWeights(l1=1.0, lpips=0.0))
    trainer = PostFilterTrainer(
        SMALL, train, checkpoint=tmp_path / "c.pt", device=torch.device("cpu"), alex=None, vgg=None
    )

    class Broken(CropSampler):
        def draw(self, count: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            coded, original, quality = super().draw(count, side)
            return coded, original * float("nan"), quality

    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    broken = Broken(clips(), seed=0)
    for _ in range(20):
        trainer._update(broken, 100.0)
    for name, value in before.items():
        assert torch.equal(trainer.model.state_dict()[name], value)
        assert torch.equal(trainer.average[name], value)
    trainer._update(CropSampler(clips(), seed=0), 100.0)
    for _ in range(20):
        trainer._update(broken, 100.0)
    with pytest.raises(ModelError, match="not finite"):
        trainer._update(broken, 100.0)


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
