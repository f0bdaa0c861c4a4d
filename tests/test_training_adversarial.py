"""The adversarial set: the discriminator, its losses against values by hand, and runs with it on and off."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_helpers import SMALL, some_frames

from tokcodec.errors import ModelError, UsageError
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training import adversarial
from tokcodec.training.adversarial import (
    Adversary,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    lecam_penalty,
)
from tokcodec.training.checkpoint import initialise, read_checkpoint
from tokcodec.training.config import AdversarialConfig, Phase, TrainConfig
from tokcodec.training.discriminator import SMALLEST_SIDE, BlurDown, ClipConv, Discriminator
from tokcodec.training.distributed import alone
from tokcodec.training.export import export
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.meter import Progress
from tokcodec.weights import load_tokenizer, save_tokenizer

TERMS = {"discriminator", "lecam", "r1", "real_logit", "fake_logit", "adaptive_weight"}
TINY = AdversarialConfig(width=4, start=2, adaptive_every=2, r1_every=2, learning_rate=1e-2)


# The discriminator.


def stripes(frames: int, side: int, *, axis: int) -> torch.Tensor:
    """The highest frequency along one axis of `(1, F, 1, H, W)`: +1, -1, +1, ..."""
    shape = [1, 1, 1, 1, 1]
    length = frames if axis == 1 else side
    shape[axis] = length
    return (1 - 2 * (torch.arange(length) % 2)).float().view(shape).expand(1, frames, 1, side, side)


@pytest.mark.parametrize("axis", [1, 3, 4])
def test_what_the_discriminator_cannot_see_at_half_the_rate_is_blurred_away(axis: int):
    down = BlurDown(1, frames=True)
    inside = (slice(None), slice(1, -1), slice(None), slice(1, -1), slice(1, -1))
    fine = stripes(17, 32, axis=axis)
    assert float(fine[:, ::2, :, ::2, ::2].abs().min()) == 1.0, "without a blur it would look like a flat picture"
    assert float(down(fine)[inside].abs().max()) < 1e-6
    flat = torch.ones(1, 17, 1, 32, 32)
    torch.testing.assert_close(down(flat)[inside], torch.ones(1, 7, 1, 14, 14))
    assert down(flat[:, :1]).shape == (1, 1, 1, 16, 16), "a picture stays one"
    coarse = torch.sin(torch.arange(32) * 2 * math.pi / 32).expand(1, 17, 1, 32, 32)
    assert float(down(coarse)[inside].abs().max()) > 0.9, "what is coarse stays"


def test_nothing_else_in_the_discriminator_strides():
    torch.manual_seed(0)
    network = Discriminator(8)
    assert all(module.stride == (1, 1) for module in network.modules() if isinstance(module, nn.Conv2d))
    # What a shift by one pixel does to the logits; with the plain choice of every second pixel it does far more.
    clip = torch.rand(2, 5, 3, 65, 65) * 2 - 1
    moves = []
    for name in ("blur", "none"):
        if name == "none":
            for module in network.modules():
                if isinstance(module, BlurDown):
                    module.taps.zero_()
                    module.taps[:, :, 1, 1] = 1.0
        with torch.no_grad():
            here, there = network(clip[..., :64, :64]), network(clip[..., 1:, 1:])
        moves.append(float((here - there).std() / here.std()))
    assert moves[0] < 0.7 * moves[1], moves


def test_frames_beside_make_a_convolution_over_time():
    torch.manual_seed(0)
    layer = ClipConv(3, 5, 3, frames=3)
    clip = torch.randn(2, 9, 3, 8, 8)
    kernel = layer.conv.weight.unflatten(1, (3, 3)).transpose(1, 2)
    expected = F.conv3d(clip.transpose(1, 2), kernel, layer.conv.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(layer(clip), expected, rtol=1e-4, atol=1e-5)


def test_logits_of_clips_and_pictures_of_several_sizes():
    torch.manual_seed(0)
    network = Discriminator(AdversarialConfig().width)
    assert 0.5e6 < sum(p.numel() for p in network.parameters()) < 2e6
    small = Discriminator(4)
    for frames, side, shape in ((17, 96, (3, 6, 6)), (1, 144, (1, 9, 9)), (5, 120, (1, 7, 7)), (1, 16, (1, 1, 1))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = small(torch.rand(1, frames, 3, side, side))
        assert logits.shape == (1, *shape)
        assert logits.dtype == torch.float32
        logits.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())


def test_flicker_is_seen_before_frames_are_merged():
    """A clip that flickers at the highest rate is told from one that stands still, though blurs even it out."""
    torch.manual_seed(0)
    network = Discriminator(4)
    still = torch.zeros(1, 9, 3, 16, 16)
    flicker = still + 0.1 * stripes(9, 16, axis=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        discriminator_loss(network(still), network(flicker)).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(network(still).mean()) > 0 > float(network(flicker).mean())


# Its losses.


def test_non_saturating_losses_by_hand():
    fake = torch.tensor([0.0, math.log(3.0)], requires_grad=True)
    real = torch.tensor([math.log(3.0), -math.log(3.0)])
    # sigmoid: 1/2 and 3/4 of fake, 3/4 and 1/4 of real.
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert float(generator_loss(fake).detach()) == pytest.approx(expected)
    expected = (math.log(4 / 3) + math.log(4)) / 2 + (math.log(2) + math.log(4)) / 2
    assert float(discriminator_loss(real, fake).detach()) == pytest.approx(expected)
    sure = torch.tensor([-20.0], requires_grad=True)
    generator_loss(sure).backward()
    assert sure.grad == pytest.approx(-1.0), "where the discriminator is sure, the decoder still hears of it"


def test_lecam_by_hand():
    averages = torch.tensor([0.5, -1.0])  # of real, of decoded clips
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([-0.5, 2.0])
    assert float(lecam_penalty(real, fake, averages)) == pytest.approx((2.0**2 + 0) / 2 + (1.0**2 + 0) / 2)


def test_r1_against_gradients_by_hand():
    torch.manual_seed(0)
    weights = torch.randn(2, 3, 4, 4)
    clips = torch.randn(5, 2, 3, 4, 4)
    linear = gradient_penalty(lambda x: (weights * x).sum(dim=(1, 2, 3, 4)), clips)
    assert float(linear) == pytest.approx(float(weights.square().sum()), rel=1e-5)
    # Half the squared norm has the clip itself as its gradient.
    squares = gradient_penalty(lambda x: 0.5 * x.square().sum(dim=(1, 2, 3, 4)), clips)
    assert float(squares) == pytest.approx(float(clips.square().sum(dim=(1, 2, 3, 4)).mean()), rel=1e-5)

    # A map of logits, each of pixels of its own: the same as of one of them, however many there are.
    def patches(x: torch.Tensor) -> torch.Tensor:
        return (F.pixel_unshuffle(x.flatten(0, 1), 2) * 0.5).sum(dim=1)

    for side in (4, 16):
        assert float(gradient_penalty(patches, torch.randn(1, 1, 3, side, side))) == pytest.approx(12 * 0.25, rel=1e-5)


def test_r1_reaches_every_weight_that_logits_depend_on():
    torch.manual_seed(0)
    network = Discriminator(4)
    before = float(gradient_penalty(network, torch.rand(2, 5, 3, 32, 32)).detach())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        penalty = gradient_penalty(network, torch.rand(2, 5, 3, 32, 32))
        penalty.backward()
        optimizer.step()
    assert network.clip_in.conv.weight.grad is not None
    assert bool(network.clip_in.conv.weight.grad.any())
    assert float(penalty.detach()) < 0.5 * before


def test_the_adaptive_weight_makes_gradients_alike():
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    reconstruction, judged = (3.0 * layer).sum(), (0.01 * layer).sum()
    factor = adaptive_weight(reconstruction, judged, layer, limit=1e4)
    assert float(factor) == pytest.approx(300.0)
    assert not factor.requires_grad
    assert layer.grad is None
    assert float(adaptive_weight(reconstruction, judged, layer, limit=7.0)) == 7.0
    assert float(adaptive_weight(reconstruction, 0.0 * judged, layer, limit=7.0)) == 7.0
    assert float(adaptive_weight(0.0 * reconstruction, 0.0 * judged, layer, limit=7.0)) == 0.0
    (reconstruction + judged).backward()  # both graphs are still there


# Runs.


def run_config(**options: object) -> TrainConfig:
    phase = Phase(share=1.0, frames=5, side=32, batch=2, stage="full")
    values = {"phases": (phase,), "precision": "float32", "warmup_steps": 2, "adversarial": TINY} | options
    return TrainConfig(**values)  # type: ignore[arg-type]


def run_of(
    checkpoint: Path, config: TrainConfig, *, steps: int, init: Path | None = None
) -> tuple[Trainer, list[dict]]:
    """A run that is interrupted after some steps, and the terms of each."""
    run = Trainer(model_config=SMALL, config=config, checkpoint=checkpoint, init=init)
    lines: list[Progress] = []

    def log(line: Progress) -> None:
        lines.append(line)
        if len(lines) == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(some_frames(), max_minutes=1e6, total_minutes=1e6, log=log, log_seconds=0.0)
    return run, [line.terms for line in lines]


def test_without_a_weight_all_is_as_before(tmp_path: Path):
    off = run_config()
    other = run_config(adversarial=AdversarialConfig(width=8, start=0, r1=1.0))
    (first, lines), (_, same) = (
        run_of(tmp_path / f"{number}.pt", config, steps=3) for number, config in enumerate((off, other))
    )
    assert first.adversary is None
    assert lines == same
    assert set(lines[0]) == {"l1", "mse", "moved", "motion", "commitment", "entropy", "gradient_norm"}
    assert "adversary" not in read_checkpoint(tmp_path / "0.pt", torch.device("cpu"))
    # While the discriminator learns alone, the decoder's steps are those of a run without one.
    alone_first = run_config(weights=LossWeights(adversarial=0.1), adversarial=dataclasses.replace(TINY, start=100))
    third, judged = run_of(tmp_path / "2.pt", alone_first, steps=1)
    assert judged[0] == lines[0] | {name: judged[0][name] for name in TERMS}
    assert third.adversary is not None
    assert third.adversary.updates == 1


def test_decoder_and_discriminator_learn_from_each_other(tmp_path: Path):
    config = run_config(weights=LossWeights(adversarial=0.5))
    run, lines = run_of(tmp_path / "c.pt", config, steps=6)
    assert run.adversary is not None
    assert [("adversarial" in terms, "r1" in terms) for terms in lines] == [
        (False, True), (False, False), (True, True), (True, False), (True, True), (True, False),
    ]  # fmt: skip
    assert set(lines[-1]) >= TERMS - {"r1"}
    assert all(math.isfinite(value) for terms in lines for value in terms.values())
    weights = [terms["adaptive_weight"] for terms in lines]
    assert weights[:2] == [0.0, 0.0]
    assert weights[2] == weights[3] > 0, "measured every second step"
    assert weights[4] == weights[5] != weights[2]
    torch.manual_seed(config.seed)
    begun = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "none.pt")
    assert begun.adversary is not None
    for name, tensor in run.adversary.discriminator.named_parameters():
        assert bool((tensor != begun.adversary.discriminator.get_parameter(name)).any()), name
    # The term reaches the decoder, and the encoder through it.
    plain, _ = run_of(tmp_path / "plain.pt", run_config(), steps=6)
    for name in ("decoder.patch_out.weight", "encoder.patch_in.weight"):
        assert not torch.equal(plain.model.get_parameter(name), run.model.get_parameter(name)), name


def test_a_heavy_adversary_is_heard(tmp_path: Path):
    """The decoder paints what the discriminator takes for real, against the other losses."""
    logits = {}
    for weight in (1e-6, 20.0):
        config = run_config(
            weights=LossWeights(adversarial=weight),
            adversarial=dataclasses.replace(TINY, start=0, learning_rate=1e-5),
            learning_rate=3e-3,
            phases=(Phase(share=1.0, frames=1, side=32, batch=2, stage="full"),),
        )
        _, lines = run_of(tmp_path / f"{weight}.pt", config, steps=16)
        logits[weight] = sum(terms["fake_logit"] for terms in lines[-5:]) / 5
    assert logits[20.0] > logits[1e-6] + 0.02, logits


def test_a_run_with_an_adversary_is_taken_up_as_it_was(tmp_path: Path):
    config = run_config(weights=LossWeights(adversarial=0.5))
    first, _ = run_of(tmp_path / "c.pt", config, steps=3)
    second = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt")
    phase, results = config.phases[0], []
    for run in (first, second):
        torch.manual_seed(5)
        terms, skipped = run._update(some_frames(), phase, 1e-3)
        assert not skipped
        results.append((terms, run.model.state_dict(), run.adversary.state_dict()))
    assert results[0][2]["updates"] == results[1][2]["updates"] == 4
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    model = load_tokenizer(export(tmp_path / "c.pt", tmp_path, name="own"))
    assert model.state_dict().keys() == Tokenizer(SMALL).state_dict().keys(), "weights do not hold it"
    assert not initialise(second.model, tmp_path / "c.pt").unused
    wider = dataclasses.replace(config, adversarial=dataclasses.replace(TINY, width=8))
    with pytest.raises(ModelError, match="width of 4, the run's 8") as found:
        Trainer(model_config=SMALL, config=wider, checkpoint=tmp_path / "c.pt")
    assert "--init" in (found.value.hint or "")
    run_of(tmp_path / "plain.pt", run_config(), steps=1)
    taken_up = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "plain.pt")
    assert (taken_up.step, taken_up.adversary.updates) == (1, 0), "a run may begin to mind a discriminator"


def test_phases_without_a_discriminator(tmp_path: Path):
    phase = dataclasses.replace(run_config().phases[0], adversarial=False)
    run, lines = run_of(tmp_path / "c.pt", run_config(weights=LossWeights(adversarial=0.5), phases=(phase,)), steps=3)
    assert run.adversary is not None
    assert run.adversary.updates == 0
    assert all(not TERMS & set(terms) for terms in lines)
    small = dataclasses.replace(phase, side=8)
    run_config(weights=LossWeights(adversarial=0.5), phases=(small,))
    with pytest.raises(UsageError, match=f"side of at least {SMALLEST_SIDE}"):
        run_config(weights=LossWeights(adversarial=0.5), phases=(dataclasses.replace(small, adversarial=True),))


def test_steps_of_the_discriminator_that_are_not_finite_are_skipped():
    torch.manual_seed(0)
    config = run_config(weights=LossWeights(adversarial=0.5), max_skipped_steps=1)
    adversary = Adversary(config, alone(torch.device("cpu")))
    before = {name: tensor.clone() for name, tensor in adversary.discriminator.state_dict().items()}
    decoded, broken = torch.rand(1, 5, 3, 32, 32), torch.full((1, 5, 3, 32, 32), float("nan"))
    adversary.terms(decoded)
    assert adversary.learn(broken, share=1.0) == {}
    torch.testing.assert_close(adversary.discriminator.state_dict(), before, rtol=0, atol=0)
    adversary.terms(decoded)
    assert adversary.learn(decoded, share=1.0), "one good step, and it counts anew"
    for number in range(2):
        adversary.terms(decoded)
        if number == 0:
            assert adversary.learn(broken, share=1.0) == {}
        else:
            with pytest.raises(ModelError, match="2 steps in a row"):
                adversary.learn(broken, share=1.0)
    assert adversary.updates == 1


def test_lecam_and_r1_are_switched_by_the_run(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    decoded, frames = torch.rand(1, 5, 3, 32, 32), -torch.rand(1, 5, 3, 32, 32)
    moved: dict[str, torch.Tensor] = {}
    for name, choice in {
        "all": TINY, "heavy r1": dataclasses.replace(TINY, r1=1e4), "heavy lecam": dataclasses.replace(TINY, lecam=1e4),
        "none": dataclasses.replace(TINY, r1=0.0, lecam=0.0),
    }.items():  # fmt: skip
        torch.manual_seed(1)
        config = run_config(weights=LossWeights(adversarial=0.5), adversarial=choice, gradient_clip=1e9)
        adversary = Adversary(config, alone(torch.device("cpu")))
        adversary.terms(decoded)
        terms = adversary.learn(frames, share=1.0)
        assert ("r1" in terms, "lecam" in terms) == ((False, False) if name == "none" else (True, True))
        moved[name] = adversary.discriminator.clip_in.conv.weight.grad.clone()
    assert all(not torch.allclose(moved[a], moved[b]) for a in moved for b in moved if a < b)
    # Moving averages of logits: the first is (nearly) the first step's.
    terms_of, averages = [], adversary._averages
    for _ in range(3):
        adversary.terms(decoded)
        terms_of.append(adversary.learn(frames, share=1.0))
        step = adversary.updates
        decay = min(TINY.lecam_decay, step / (10 + step))
        means = torch.stack([terms_of[-1]["real_logit"], terms_of[-1]["fake_logit"]])
        averages = decay * averages + (1 - decay) * means
        torch.testing.assert_close(adversary._averages, averages)


def test_the_adaptive_weight_can_be_left_out(monkeypatch: pytest.MonkeyPatch):
    def never(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("nothing is measured")

    monkeypatch.setattr(adversarial, "adaptive_weight", never)
    config = run_config(weights=LossWeights(adversarial=0.5), adversarial=dataclasses.replace(TINY, adaptive_every=0))
    adversary = Adversary(config, alone(torch.device("cpu")))
    assert float(adversary.weight({}, torch.zeros(1))) == 1.0


@pytest.mark.parametrize("prepared", [True, False])
def test_graphs_of_compiled_steps_are_kept_for_the_adaptive_weight(prepared: bool):
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=True):  # put back what the run changes
        differentiate_twice(prepared)


def differentiate_twice(prepared: bool) -> None:
    torch.manual_seed(0)
    config = run_config(weights=LossWeights(adversarial=0.5), compile=prepared)
    Adversary(config, alone(torch.device("cpu")))
    layer, clip = nn.Parameter(torch.rand(8, 8)), torch.rand(4, 8)
    step = torch.compile(lambda x: (x @ layer).sin().exp(), backend="aot_eager")
    step(clip).sum().backward()  # the first steps of a run, in which the discriminator learns alone
    decoded = step(clip)
    losses = (decoded.square().mean(), F.softplus(-decoded).mean())
    if not prepared:
        with pytest.raises(RuntimeError, match="donated"):
            adaptive_weight(*losses, layer, limit=1e4)
        return
    assert float(adaptive_weight(*losses, layer, limit=1e4)) > 0
    (losses[0] + losses[1]).backward()


def test_training_the_decoder_only(tmp_path: Path):
    with pytest.raises(UsageError, match="not there") as found:
        run_of(tmp_path / "c.pt", run_config(decoder_only=True), steps=1)
    assert found.value.hint == "--init FILE"
    torch.manual_seed(3)
    begun = Tokenizer(SMALL)
    weights = save_tokenizer(begun, tmp_path, name="begun").path
    config = run_config(decoder_only=True, weights=LossWeights(adversarial=0.5))
    run, lines = run_of(tmp_path / "c.pt", config, steps=4, init=weights)
    assert "adversarial" in lines[-1]
    kept = {name: tensor.bfloat16().float() for name, tensor in begun.state_dict().items()}
    for model in (run.model, run.average):
        for name, tensor in model.encoder.state_dict().items():
            torch.testing.assert_close(tensor, kept[f"encoder.{name}"], rtol=0, atol=0)
    assert not torch.equal(run.average.decoder.patch_out.weight, kept["decoder.patch_out.weight"])
    whole, _ = run_of(tmp_path / "d.pt", dataclasses.replace(config, decoder_only=False), steps=4, init=weights)
    assert not torch.equal(whole.model.encoder.patch_in.weight, kept["encoder.patch_in.weight"])


@pytest.mark.parametrize(
    "choice", [{"width": 3}, {"r1_every": 0}, {"start": -1}, {"r1": -1.0}, {"lecam_decay": 1.0}, {"learning_rate": 0.0}]
)
def test_choices_that_make_no_sense(choice: dict[str, float]):
    with pytest.raises(UsageError, match=next(iter(choice))):
        AdversarialConfig(**choice)  # type: ignore[arg-type]
