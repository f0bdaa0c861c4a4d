"""The transform: what its bits say before anything is learned, and that encoder and decoder mean the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import spec_decoder
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import clip, small_model
from torch import Tensor
from variants import ANALYSIS, TRANSFORM

from tokcodec import Codec
from tokcodec.errors import ModelError
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig, UniformAllocator
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import measure_cost
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import AnalysisEncoder, Tokenizer
from tokcodec.tokenizer.stream import StreamEncoder, prepare, to_signed_unit
from tokcodec.tokenizer.transform import MAX_BITS, PEAK, REACH, Analysis, Synthesis, start_bits
from tokcodec.training.config import AdversarialConfig, Phase, TrainConfig
from tokcodec.training.inflation import inflate
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.objective import SLOPE_RANGE, sample_slopes
from tokcodec.training.source import Batch
from tokcodec.training.widen import widen
from tokcodec.weights.registry import load_tokenizer, save_tokenizer


def both(frames: int, bits: int = MAX_BITS) -> tuple[Analysis, Synthesis]:
    return Analysis(bits, frames=frames), Synthesis(bits, frames=frames)


def smooth(frames: int, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Pixels in [-1, 1] without much detail, `(1, frames, 3, 8 rows, 8 columns)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, rows + 1, columns + 1, generator=generator) * 2 - 1
    tint = 0.3 * torch.rand(1, 3, 1, 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(8 * rows, 8 * columns), mode="bilinear") + tint
    return fine.clamp(-1, 1).unsqueeze(1).repeat(1, frames, 1, 1, 1)


def shown(synthesis: Synthesis, tokens: Tensor, count: int) -> Tensor:
    """What the first bits add up to."""
    kept = (torch.arange(tokens.shape[1]) < count).float().view(1, -1, 1, 1).expand_as(tokens)
    return synthesis(torch.cat([tokens * kept, kept], dim=1))


@pytest.mark.parametrize("frames", [1, 4])
@torch.no_grad()
def test_the_first_bits_add_up_to_the_picture(frames: int):
    analysis, synthesis = both(frames)
    wanted = smooth(frames, 4, 5)
    tokens = signs(analysis(wanted))
    errors = [float((shown(synthesis, tokens, count) - wanted).square().mean()) for count in (0, 12, 30, MAX_BITS)]
    assert all(less < more for more, less in pairwise(errors))
    assert errors[-1] < 0.3 * errors[0]


@pytest.mark.parametrize("frames", [1, 4])
@given(seed=st.integers(0, 1000), loud=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_each_bit_decides_on_what_those_before_have_left(frames: int, seed: int, loud: float):
    """Every decision, taken again one by one in the picture."""
    analysis, synthesis = both(frames)
    wanted = (torch.rand(1, frames, 3, 8, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * loud
    tokens = signs(analysis(wanted))
    size = synthesis.weight.shape[0]
    atoms = (synthesis.weight / size**0.5).unflatten(1, (2, -1))
    for i, bit in enumerate(start_bits(MAX_BITS, frames=frames)):
        left = torch.nn.functional.pixel_unshuffle((wanted - shown(synthesis, tokens, i)).flatten(1, 2), 8)
        atom = atoms[:, 0, i] / atoms[:, 0, i].norm()
        coefficient = torch.einsum("npij,p->nij", left, atom) * PEAK
        limit = 0.0 if bit.unset else 0.64 * abs(bit.value)
        clear = (coefficient - limit).abs() > 0.1  # nearer ones may round another way
        assert torch.equal(((coefficient > limit) == (tokens[:, i] > 0))[clear], torch.ones_like(clear)[clear]), i


@pytest.mark.parametrize("frames", [1, 4])
@torch.no_grad()
def test_errors_of_all_prefixes_are_those_of_the_pictures(frames: int):
    analysis, synthesis = both(frames)
    synthesis.weight += 0.01 * torch.randn(synthesis.weight.shape, generator=torch.manual_seed(0))
    wanted = smooth(frames, 3, 4)
    tokens = signs(analysis(wanted))
    errors = synthesis.errors(tokens, wanted)
    assert errors.shape == (MAX_BITS + 1, 3, 4)
    for count in (0, 1, 5, 20, MAX_BITS):
        difference = (shown(synthesis, tokens, count) - wanted).square().mean(dim=2).sum(dim=1) * PEAK**2
        by_hand = torch.nn.functional.avg_pool2d(difference, 8)[0] * 64
        torch.testing.assert_close(errors[count], by_hand, rtol=1e-3, atol=0.5)


@torch.no_grad()
def test_dearer_bits_are_set_less_often():
    for frames in (1, 4):
        analysis, _ = both(frames)
        wanted = smooth(frames, 6, 6) + 0.1 * torch.randn(1, frames, 3, 48, 48, generator=torch.manual_seed(1))
        counts = []
        for slope in (0.0, 5000.0, 30000.0, 1e9):
            z = analysis(wanted, slope=torch.tensor([slope]))
            pairs = [i for i, bit in enumerate(start_bits(MAX_BITS, frames=frames)) if bit.unset == 0]
            counts.append(int((z[:, pairs] > 0).sum()))
        assert counts[0] > counts[1] > counts[2] > counts[3] == 0
        assert torch.equal(analysis(wanted, slope=torch.zeros(1)), analysis(wanted)), "free bits: the usual thresholds"


def test_latents_stay_within_reach_and_have_gradients():
    analysis, _ = both(1)
    wanted = smooth(1, 2, 2)
    z = analysis(wanted, torch.zeros(1, MAX_BITS, 2, 2))
    assert z.abs().max() <= REACH
    z.sum().backward()
    for parameter in analysis.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any()
    assert not analysis.feedback.grad.triu().any(), "a bit knows nothing of those after it"


@torch.no_grad()
def test_a_network_adds_an_offset_to_every_decision():
    model = small_model(TRANSFORM)
    frames = to_signed_unit(torch.from_numpy(clip(1, 16, 24)))[None]
    z, _ = model.encoder.step(frames, None)
    model.encoder.first.offset_out.weight.zero_()
    plain, _ = model.encoder.step(frames, None)
    assert (z != plain).any()
    torch.testing.assert_close(plain, model.encoder.first.analysis(frames))
    alone = small_model(ANALYSIS)
    torch.testing.assert_close(alone.encoder.step(frames, None)[0], alone.encoder.first.analysis(frames))
    assert measure_cost(alone).encoder_flops_per_pixel < 0.1 * measure_cost(model).encoder_flops_per_pixel


@torch.no_grad()
def test_a_picture_without_a_network_is_the_sum_of_its_bits():
    """The decoder's own layers silenced, encoder and decoder are a transform codec."""
    torch.manual_seed(0)
    config = replace(ANALYSIS, bits_per_token=MAX_BITS, level_bits=(0, 20, MAX_BITS))
    model = prepare(Tokenizer(config), torch.device("cpu"), torch.float32)
    frames = (smooth(5, 4, 4)[0].permute(0, 2, 3, 1).add(1).mul(127.5)).to(torch.uint8).numpy()
    encoder = StreamEncoder(model, UniformAllocator(level=6))
    step = encoder.push(frames[0])
    assert step is not None
    bits = (step.indices[None] >> np.arange(MAX_BITS, dtype=np.uint64)[:, None, None]) & np.uint64(1)
    tokens = torch.from_numpy(bits.astype(np.float32) * 2 - 1)[None]
    picture, _ = model.decoder.step(tokens, torch.ones_like(tokens), None)
    source = to_signed_unit(torch.from_numpy(frames[:1]))[None]
    assert float((picture - source).square().mean()) < 0.25 * float(source.square().mean())


def test_configurations_that_have_no_transform_are_refused():
    with pytest.raises(ModelError, match="62 bits"):
        TokenizerConfig(transform=True, bits_per_token=63)
    with pytest.raises(ModelError, match="recurrent"):
        TokenizerConfig(transform=True, recurrent=False)
    with pytest.raises(ModelError, match="encoder_blocks"):
        TokenizerConfig(encoder_blocks=0)
    assert TokenizerConfig(transform=True, encoder_blocks=0).encoder_blocks == 0


@pytest.mark.parametrize("config", [TRANSFORM, ANALYSIS])
def test_inflation_leaves_what_is_made_for_four_frames(config: TokenizerConfig):
    model = Tokenizer(config)
    with torch.no_grad():
        model.decoder.first.token_in.weight.fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items() if "later" in name}
    inflate(model)
    after = model.state_dict()
    for name, value in before.items():
        if "analysis" in name or "synthesis" in name:
            assert torch.equal(after[name], value), name
    assert not (after["decoder.later.token_in.weight"] == 0.5).any(), "bits of later steps mean other things"
    assert torch.equal(after["decoder.later.blocks.0.conv1.weight"], after["decoder.first.blocks.0.conv1.weight"])


def test_training_draws_the_prices_of_all_qualities():
    slopes = sample_slopes(2000)
    assert SLOPE_RANGE[0] <= slopes.min() < 1.2 * SLOPE_RANGE[0]
    assert SLOPE_RANGE[1] >= slopes.max() > 0.8 * SLOPE_RANGE[1]


def test_levels_between_those_that_were_tried_fall_as_the_transform_does():
    class Trial:
        geometry = ANALYSIS.geometry
        first, frames, transform = False, 4, True
        tokens = np.full((1, 2), 16)

        def coded_bits(self, levels: int) -> np.ndarray:
            return np.arange(levels, dtype=float)[:, None, None] * np.ones((1, 1, 2))

        def linear(self, levels: int) -> np.ndarray:
            early = np.array([100.0, 10, 10, 10, 10, 10, 10])
            late = np.array([100.0, 100, 100, 100, 100, 100, 10])
            return np.stack([early, late], axis=-1)[:levels, None]

        def distortions(self, levels: list[int]) -> np.ndarray:
            assert list(levels) == [0, 6]
            return np.array([5e4, 1e4])[:, None, None] * np.ones((1, 1, 2))

        def distortion(self, levels: np.ndarray) -> np.ndarray:
            raise AssertionError("nothing is calm")

    allocator = RateDistortionAllocator(RateDistortionConfig(slope=100.0))
    np.testing.assert_array_equal(allocator.choose(Trial()), [[1, 6]])


WHOLE = replace(ANALYSIS, bits_per_token=MAX_BITS, level_bits=(0, 4, 20, 36, 38, MAX_BITS))


@torch.no_grad()
def test_all_bits_in_bfloat16_are_those_of_the_specification(tmp_path: Path):
    """The sum of the first picture is not rounded where everything else is."""
    entry = save_tokenizer(small_model(WHOLE), tmp_path, name="own")
    fast = prepare(load_tokenizer(entry), torch.device("cpu"), torch.bfloat16)
    network = spec_decoder.Network(*spec_decoder.read_weights(entry.path.read_bytes()))
    tokens = signs(torch.randn(1, MAX_BITS, 3, 4, generator=torch.manual_seed(2)))
    kept = torch.ones_like(tokens)
    weight = torch.from_numpy(network.tensors["decoder.first.synthesis.weight"])
    by_hand = torch.einsum("pk,nkij->npij", weight / 192**0.5, torch.cat([tokens, kept], dim=1))
    found = fast.decoder.first.synthesis(torch.cat([tokens, kept], dim=1))
    torch.testing.assert_close(found[:, 0], torch.nn.functional.pixel_shuffle(by_hand, 8), rtol=1e-5, atol=1e-5)
    exact = load_tokenizer(entry).encoder
    for name in ("first", "later"):
        wanted = smooth(1 if name == "first" else 4, 3, 4)
        ours, theirs = (
            getattr(encoder, name).analysis(wanted, slope=torch.tensor([3000.0])) for encoder in (fast.encoder, exact)
        )
        torch.testing.assert_close(ours, theirs)


def run(tmp_path: Path, *, model: TokenizerConfig, adversarial: float = 0.0) -> Trainer:
    phase = Phase(share=1.0, frames=1, side=32, batch=1, stage="nested")
    config = TrainConfig(
        phases=(phase,),
        weights=LossWeights(adversarial=adversarial),
        adversarial=AdversarialConfig(width=4, start=0, adaptive_every=1),
    )
    trainer = Trainer(model_config=model, config=config, checkpoint=tmp_path / "c.pt")

    class Noise:
        def batch(self, size: int, frames: int, side: int) -> Batch:
            return Batch(
                torch.rand(size, frames, 3, side, side) * 2 - 1, torch.zeros(size, 0, 4, 2, side // 8, side // 8)
            )

    def enough(_: object) -> None:
        if trainer.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(Noise(), max_minutes=9.0, total_minutes=9.0, log=enough, log_seconds=0.0)
    return trainer


def test_an_encoder_without_a_network_is_not_trained(tmp_path: Path):
    made = AnalysisEncoder(ANALYSIS).state_dict()
    for name, tensor in run(tmp_path, model=ANALYSIS).model.encoder.state_dict().items():
        assert torch.equal(tensor, made[name]), name


def test_a_discriminator_is_heard_by_pictures_of_a_transform(tmp_path: Path):
    assert run(tmp_path, model=ANALYSIS, adversarial=0.5).adversary is not None


def test_bits_of_other_weights_are_not_taken_for_coefficients():
    assert (
        widen(Tokenizer(TRANSFORM), Tokenizer(replace(TRANSFORM, transform=False, bits_per_token=6)).state_dict()) == ()
    )


def test_the_weights_transform_code_a_picture():
    """At its best quality more of a picture is there than `base` can keep, and its prior is worth having."""
    picture = np.ascontiguousarray(skimage.data.astronaut()[:256, 64:320])[None]
    sizes, errors = {}, {}
    for name in ("base", "transform"):
        codec = Codec(model=name, device="cpu")
        data = codec.encode_frames(picture, quality=6)
        shown = codec.decode_frames(data).frames
        sizes[name], errors[name] = len(data), float(np.square(shown.astype(float) - picture).mean())
    assert errors["transform"] < errors["base"]
    counted = len(Codec(model="transform", device="cpu", entropy="adaptive").encode_frames(picture, quality=6))
    assert sizes["transform"] < 0.6 * counted
