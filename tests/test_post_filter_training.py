"""Training of the filter behind the decoder: what it learns from, what it starts from, and what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import called
from network_helpers import smooth
from test_post_filter import SMALL, TOLD, loud

from tokcodec.errors import MediaError, ModelError, UsageError
from tokcodec.metrics.lpips_network import ALEX, Lpips
from tokcodec.tokenizer.post_filter import PostFilter, PostFilterConfig, shown_through
from tokcodec.training.coded_clips import CodedClip, Crops, CropSampler
from tokcodec.training.losses import LossWeights
from tokcodec.training.post_filter_loop import PostFilterTrainConfig, PostFilterTrainer, grow
from tokcodec.weights import load_post_filter
from tokcodec.weights.post_filters import save_post_filter

CPU = torch.device("cpu")


def trainer_of(
    config: PostFilterConfig,
    train: PostFilterTrainConfig,
    folder: Path,
    *,
    init: Path | None = None,
    teacher: PostFilter | None = None,
) -> PostFilterTrainer:
    """Without distances by networks."""
    return PostFilterTrainer(
        config, train, checkpoint=folder / "checkpoint.pt", device=CPU, alex=None, vgg=None, init=init, teacher=teacher
    )


# --- what it learns from ---


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
    coded, original, quality, _ = CropSampler([clip], seed=0).draw(8, 64)
    assert coded.shape == original.shape == (8, 3, 64, 64)
    torch.testing.assert_close(original - coded, torch.full_like(coded, 4 / 127.5), atol=1e-5, rtol=0)
    assert quality.tolist() == [1] * 8
    small, *_ = CropSampler(clips(1, (70, 90)), seed=0).draw(2, 128)
    assert small.shape == (2, 3, 64, 64), "no larger than the clip, and a multiple of 8"
    again, *_ = CropSampler([clip], seed=0).draw(8, 64)
    assert torch.equal(again, coded)
    with pytest.raises(MediaError):
        CropSampler([], seed=0)


def test_crops_say_the_quantizers_of_their_clips():
    one, other = (clip._replace(scale=scale) for clip, scale in zip(clips(), (17, 30), strict=True))
    crops = CropSampler([one, other], seed=3).draw(32, 64)
    assert crops.scales is not None
    assert (crops.scales.dtype, crops.scales.shape) == (torch.float32, (32,))
    assert set(crops.scales.tolist()) == {17.0, 30.0}
    wanted = torch.where(crops.quality == one.quality, 17.0, 30.0)
    assert torch.equal(crops.scales, wanted), "each its own"
    assert CropSampler(clips(), seed=3).draw(4, 64).scales is None
    mixed = CropSampler([one, *clips()[1:]], seed=3)
    drawn = [mixed.draw(2, 64) for _ in range(20)]
    for crops in drawn:
        assert (crops.scales is None) == (2 in crops.quality.tolist()), "one that has none is enough"
    assert {crops.scales is None for crops in drawn} == {True, False}


# --- what it starts from ---


def test_a_run_may_start_from_exported_weights(tmp_path: Path):
    torch.manual_seed(5)
    entry = save_post_filter(PostFilter(SMALL), tmp_path, name="vivid")
    train = PostFilterTrainConfig(batch=2, side=64)
    trainer = trainer_of(SMALL, train, tmp_path, init=entry.path)
    wanted = load_post_filter(entry).state_dict()
    for found in (trainer.model.state_dict(), trainer.average):
        for name, value in wanted.items():
            assert torch.equal(found[name], value)
    with pytest.raises(ModelError, match="other sizes") as caught:
        trainer_of(replace(SMALL, channels=8), train, tmp_path, init=entry.path)
    assert caught.value.where == str(entry.path)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("by_scale", [False, True])
def test_a_filter_that_has_grown_does_what_the_smaller_one_does(blocks: int, by_scale: bool, tmp_path: Path):
    """Exactly; also as the start of a run."""
    smaller, larger = (loud(replace(SMALL, by_scale=by_scale, blocks=count)) for count in (1, blocks))
    grow(larger, smaller, where="here")
    pictures, scales = torch.cat([smooth(4, 5, seed) for seed in range(3)]), torch.tensor([12.0, 21.0, 30.0])
    with torch.inference_mode():
        assert torch.equal(larger(pictures, scales), smaller(pictures, scales))
        assert torch.equal(larger(pictures), smaller(pictures))
        assert torch.equal(smaller(pictures, scales), smaller(pictures)) != by_scale
    entry = save_post_filter(smaller, tmp_path, name="smaller")
    trainer = trainer_of(larger.config, PostFilterTrainConfig(batch=2, side=64), tmp_path, init=entry.path)
    exported = load_post_filter(entry)
    with torch.inference_mode():
        wanted = exported(pictures, scales)
        for model in (trainer.model, trainer.averaged()):
            assert model.config == larger.config
            torch.testing.assert_close(model(pictures, scales), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_filter_that_is_told_the_quantizer_begins_with_what_is_shown_of_one_that_is_not(blocks: int, tmp_path: Path):
    """At quantizers that it has weights of its own for; elsewhere nearly so, and without any it does all of it."""
    smaller, larger = loud(), PostFilter(replace(TOLD, blocks=blocks))
    grow(larger, smaller, where="here")
    trainer = trainer_of(
        larger.config,
        PostFilterTrainConfig(batch=2, side=64),
        tmp_path,
        init=save_post_filter(smaller, tmp_path, name="smaller").path,
    )
    pictures = torch.cat([smooth(4, 5, seed) for seed in range(2)])
    with torch.inference_mode():
        change = (smaller(pictures) - pictures).abs().max()
        for scale in range(10, 40):
            wanted = shown_through(smaller, pictures, scale)
            found = shown_through(larger, pictures, scale)
            own = scale <= 16 or scale >= 32 or scale % 4 == 0
            assert (found - wanted).abs().max() < (1e-5 if own else 0.08 * change)
        assert torch.equal(larger(pictures), smaller(pictures))
        for model in (trainer.model, trainer.averaged()):
            wanted = larger(pictures, torch.full((2,), 24.0))
            torch.testing.assert_close(
                model(pictures, torch.full((2,), 24.0)), wanted, atol=0.02 * float(change), rtol=0
            )


def test_a_block_that_is_added_learns(tmp_path: Path):
    """What adds nothing at first is not dead."""
    entry = save_post_filter(loud(), tmp_path, name="smaller")
    train = PostFilterTrainConfig(
        batch=2, side=64, warmup_steps=1, precision="float32", weights=LossWeights(l1=1.0, lpips=0.0)
    )
    trainer = trainer_of(replace(TOLD, blocks=2), train, tmp_path, init=entry.path)
    assert not trainer.model.state_dict()["blocks.1.conv2.weight"].any()
    sampler = CropSampler([clip._replace(scale=20) for clip in clips()], seed=0)
    for _ in range(3):
        trainer._update(sampler, 100.0)
    for name in ("blocks.1.conv2.weight", "blocks.1.conv2.bias", "blocks.0.conv2.weight"):
        assert trainer.model.state_dict()[name].any()
    assert trainer.model.by_scale is not None
    values = trainer.model.by_scale.values.detach()[:, : 2 * TOLD.inner_channels]  # which are zero at first
    assert [bool(row.any()) for row in values] == [False, True, False, False, False], "of the quantizer that it saw"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SMALL, replace(SMALL, blocks=2)),
        (TOLD, replace(TOLD, blocks=2)),
        (replace(SMALL, channels=8), SMALL),
        (replace(SMALL, channels=2), SMALL),
        (replace(SMALL, inner_channels=16, blocks=2), SMALL),
        (replace(TOLD, inner_channels=4), TOLD),
        (SMALL, TOLD),
        (replace(SMALL, blocks=2), TOLD),
    ],
    ids=["blocks", "blocks, told", "channels", "fewer channels", "inner", "fewer inner", "untold", "untold, blocks"],
)
def test_what_cannot_be_grown_into(ours: PostFilterConfig, theirs: PostFilterConfig, tmp_path: Path):
    model = loud(ours)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match="the post-filter has other sizes") as caught:
        grow(model, loud(theirs), where="some file")
    assert caught.value.where == "some file"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    entry = save_post_filter(loud(theirs), tmp_path, name="other")
    with pytest.raises(ModelError, match="other sizes"):
        trainer_of(ours, PostFilterTrainConfig(), tmp_path, init=entry.path)


# --- what it learns ---


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
    coded, original, *_ = CropSampler(clips(), seed=9).draw(8, 64)
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


def test_one_that_is_told_the_quantizer_is_trained_on_clips_that_say_it(tmp_path: Path):
    train = PostFilterTrainConfig(batch=2, side=64, precision="float32", weights=LossWeights(l1=1.0, lpips=0.0))
    trainer = trainer_of(TOLD, train, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for some in (clips(), [clips()[0]._replace(scale=20), *clips()[1:]]):
        sampler = CropSampler(some, seed=0)
        with pytest.raises(ModelError, match="trained on clips that say theirs") as caught:
            trainer.run(sampler, max_minutes=1.0, total_minutes=100.0, log=print)
        assert caught.value.hint == "code the clips anew"
    (tmp_path / "plain").mkdir()
    (tmp_path / "fresh").mkdir()
    trainer_of(SMALL, train, tmp_path / "plain")._update(CropSampler(clips(), seed=0), 100.0)
    fresh = trainer_of(TOLD, train, tmp_path / "fresh")
    fresh._update(CropSampler([clip._replace(scale=20) for clip in clips()], seed=0), 100.0)
    assert any(not torch.equal(value, before[name]) for name, value in fresh.model.state_dict().items())


def test_it_learns_how_much_to_change_by_the_quantizer(tmp_path: Path):
    """Of clips that look alike: those of a coarse quantizer are too bright, and those of a fine one are right."""
    (clip,) = clips(1)
    right = clip._replace(original=clip.coded, scale=16)
    bright = clip._replace(original=clip.coded - 15, scale=32)
    train = PostFilterTrainConfig(
        batch=6,
        side=64,
        learning_rate=4e-3,
        warmup_steps=2,
        precision="float32",
        weights=LossWeights(l1=1.0, mse=2.0, lpips=0.0),
        ema=0.9,
    )
    trainer = trainer_of(TOLD, train, tmp_path)
    sampler = CropSampler([right, bright], seed=0)
    for _ in range(150):
        trainer._update(sampler, 100.0)
    trainer.save()
    pictures = CropSampler([clip], seed=4).draw(2, 64).coded
    with torch.inference_mode():
        fine, middle, coarse = (
            float((trainer.averaged()(pictures, torch.full((2,), scale)) - pictures).mean() * 127.5)
            for scale in (16.0, 24.0, 32.0)
        )
    assert coarse < -10
    assert abs(fine) < 4
    assert coarse < middle < fine
    again = trainer_of(TOLD, train, tmp_path)
    assert again.step == trainer.step
    for name, value in again.average.items():
        assert torch.equal(value, trainer.average[name])
    with pytest.raises(ModelError, match="another network"):
        trainer_of(SMALL, train, tmp_path)


@pytest.mark.parametrize("by_scale", [False, True])
def test_it_learns_what_a_teacher_does(by_scale: bool, tmp_path: Path):
    """A larger one, from its pictures alone; the teacher stays as it is."""
    teacher = loud(PostFilterConfig(channels=8, inner_channels=8, blocks=2, by_scale=by_scale))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    train = PostFilterTrainConfig(
        batch=4,
        side=64,
        learning_rate=4e-3,
        warmup_steps=2,
        precision="float32",
        weights=LossWeights(l1=0.0, mse=0.0, lpips=0.0),
        ema=0.9,
    )
    trainer = trainer_of(replace(SMALL, by_scale=by_scale), train, tmp_path, teacher=teacher)
    sampler = CropSampler([clip._replace(scale=16 + 8 * number) for number, clip in enumerate(clips())], seed=0)
    found = [trainer._update(sampler, 100.0) for _ in range(120)]
    assert {"teacher_l1", "teacher_mse", "l1", "mse"} == set(found[0])
    assert sum(terms["teacher_mse"] for terms in found[-10:]) < 0.3 * sum(terms["teacher_mse"] for terms in found[:10])
    crops = sampler.draw(8, 64)
    with torch.inference_mode():
        wanted = teacher(crops.coded, crops.scales)
        shown = trainer.averaged()(crops.coded, crops.scales)
    assert (shown - wanted).square().mean() < 0.3 * (crops.coded - wanted).square().mean()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_teacher_counts_by_its_weights(tmp_path: Path):
    """Not at all where they are zero, and else beside the originals."""
    learned = []
    for number, (weight, teacher) in enumerate(((0.0, None), (0.0, loud()), (1.0, loud()))):
        train = PostFilterTrainConfig(
            batch=2,
            side=64,
            precision="float32",
            weights=LossWeights(l1=1.0, mse=1.0, lpips=0.0),
            teacher_l1=weight,
            teacher_mse=weight,
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        trainer = trainer_of(SMALL, train, folder, teacher=teacher)
        trainer._update(CropSampler(clips(), seed=0), 100.0)
        learned.append(trainer.model.change_out.weight.detach().clone())
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])
    for wrong in (-1.0, float("nan"), float("inf")):
        for name in ("teacher_l1", "teacher_mse"):
            with pytest.raises(UsageError, match="teacher_l1 and teacher_mse"):
                PostFilterTrainConfig(**{name: wrong})


@pytest.mark.parametrize(("ours", "theirs"), [(SMALL, TOLD), (TOLD, SMALL)], ids=["told", "untold"])
def test_a_teacher_is_told_the_quantizer_as_its_pupil_is(
    ours: PostFilterConfig, theirs: PostFilterConfig, tmp_path: Path
):
    with pytest.raises(ModelError, match="is told the quantizer") as caught:
        trainer_of(ours, PostFilterTrainConfig(), tmp_path, teacher=loud(theirs))
    assert "--by-scale" in str(caught.value.hint)


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
        def draw(self, count: int, side: int) -> Crops:
            crops = super().draw(count, side)
            return crops._replace(original=crops.original * float("nan"))

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
