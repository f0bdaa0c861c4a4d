"""The variant hybrid: its configuration, its training, and the weights that ship."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from network_helpers import small_model
from variants import HYBRID

from tokcodec import Codec
from tokcodec.continuation import expected_vectors
from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_MAPS
from tokcodec.inspection import survey
from tokcodec.tokenizer.allocation import SLOPES, RateDistortionAllocator, RateDistortionConfig
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import (
    EARLY,
    EARLY_BACK,
    LAST,
    LATE,
    LATE_BACK,
    MIDDLE,
    MIDDLE_BACK,
)
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.transform import CellTransform
from tokcodec.tokens import TokenChunk
from tokcodec.training.checkpoint import initialise
from tokcodec.training.config import AdversarialConfig, Phase, TrainConfig
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.objective import SLOPE_RANGE, levels_worth_it, sample_slopes
from tokcodec.training.source import Batch
from tokcodec.training.widen import widen
from tokcodec.weights import load_tokenizer, save_tokenizer


def test_configurations_that_are_no_hybrid_are_refused():
    hybrid = {"hybrid": True, "coded_motion": True, "encoder_blocks": 0}
    assert TokenizerConfig(**hybrid).geometry.motion_maps == MOTION_MAPS
    for change in (
        {"bits_per_token": 63},
        {"bits_per_token": 7},
        {"coded_motion": False},
        {"recurrent": False, "coded_motion": False},
        {"encoder_blocks": 2},
        {"temporal_downsampling": "early"},
        {"quantizer": "none"},
    ):
        with pytest.raises(ModelError):
            TokenizerConfig(**(hybrid | change))
    with pytest.raises(ModelError, match="encoder_blocks"):
        TokenizerConfig(encoder_blocks=0)


def test_inflation_gives_later_steps_the_network_of_first_ones():
    model = Tokenizer(HYBRID)
    assert needs_inflation(model)
    with torch.no_grad():
        model.decoder.first.token_in.bias.fill_(0.5)
        model.decoder.split_first.bias.fill_(0.25)
    inflate(model)
    after = model.state_dict()
    assert not (after["decoder.later.token_in.bias"] == 0.5).any(), "bits of later steps mean other things"
    assert torch.equal(after["decoder.later.blocks.0.conv1.weight"], after["decoder.first.blocks.0.conv1.weight"])
    assert (after["decoder.split_last.bias"] == 0.25).all()
    assert not needs_inflation(model)


def test_it_starts_from_weights_that_are_no_hybrid(tmp_path: Path):
    """Later steps take what those had learned of them, and what made the last of four frames."""
    other = replace(HYBRID, hybrid=False, encoder_blocks=1)
    torch.manual_seed(1)
    source, model = small_model(other), Tokenizer(HYBRID)
    source.decoder.split_rest.bias.normal_()
    source.decoder.later.blocks[0].conv1.weight.normal_()
    entry = save_tokenizer(source, tmp_path, name="own")
    initialise(model, entry.path)
    exact = load_tokenizer(entry).decoder
    channels = HYBRID.frame_channels * 4
    assert torch.equal(model.decoder.split_last.weight, exact.split_rest.weight[-channels:])
    assert torch.equal(model.decoder.later.blocks[0].conv1.weight, exact.later.blocks[0].conv1.weight)
    assert not needs_inflation(model), "which would undo it"


def test_what_goes_on_goes_on_evenly():
    geometry = HYBRID.geometry
    rows, columns = geometry.motion_blocks(4, 6)
    vectors = np.random.default_rng(0).integers(-9, 10, (2, rows, columns, 2)).astype(np.int16)
    past = TokenChunk(
        indices=np.zeros((2, 4, 6), np.uint64), levels=np.zeros((2, 1, 2), np.uint8), geometry=geometry, vectors=vectors
    )
    found = np.split(expected_vectors(past), MOTION_MAPS)
    np.testing.assert_array_equal(found[LAST], vectors[1, : rows // MOTION_MAPS])
    np.testing.assert_array_equal(found[MIDDLE], np.floor(found[LAST] / 2))
    np.testing.assert_array_equal(found[MIDDLE_BACK], -found[MIDDLE])
    np.testing.assert_array_equal(found[EARLY], np.floor(found[MIDDLE] / 2))
    np.testing.assert_array_equal(found[EARLY_BACK], found[EARLY] - found[MIDDLE])
    np.testing.assert_array_equal(found[LATE_BACK], np.floor(found[MIDDLE_BACK] / 2))
    np.testing.assert_array_equal(found[LATE], found[LATE_BACK] - found[MIDDLE_BACK])
    assert expected_vectors(past).dtype == np.int16


def test_training_draws_the_prices_of_all_qualities():
    slopes = sample_slopes(2000)
    assert SLOPE_RANGE[0] < min(SLOPES.values()) < max(SLOPES.values()) < SLOPE_RANGE[1]
    assert SLOPE_RANGE[0] <= slopes.min() < 1.2 * SLOPE_RANGE[0]
    assert SLOPE_RANGE[1] >= slopes.max() > 0.8 * SLOPE_RANGE[1]


@pytest.mark.parametrize("first", [True, False])
def test_training_keeps_what_an_encoder_would_find_worth_its_bits(first: bool):
    transform, table = CellTransform(62, first=first), (0, 4, 8, 12, 16, 24, 36, 62)
    wanted = 0.3 * torch.randn(2, 3, 40, 72, generator=torch.manual_seed(7))
    wanted[:, :, :, :32] = 0.0  # a column of blocks that lacks nothing
    slopes = torch.tensor([300.0, 30000.0])
    z = transform.bits_of(wanted, slopes)
    levels = levels_worth_it(transform, z, wanted, slopes, table)
    assert levels.shape == (2, 5, 9)
    assert torch.equal(levels[:, :4, :4], levels[:, :1, :1].expand(-1, 4, 4)), "one level a block"
    calm, busy = levels[:, :, :4].float().mean(), levels[:, :, 4:].float().mean()
    assert calm < busy if first else calm == 0, "means of a first step are predicted by busy ones too"
    assert levels.min() >= int(first), "a first step is all that there is"
    assert levels[0].float().mean() > levels[1].float().mean(), "dearer bits, fewer of them"
    alone = levels_worth_it(transform, z[1:], wanted[1:], slopes[1:], table)
    assert torch.equal(alone[0], levels[1])
    top = levels_worth_it(transform, z, wanted, slopes * 0, table)
    errors = transform.errors(z, wanted)[list(table)]
    assert (top[:, 4:, 8:] == errors[:, :, 4:, 8:].sum(dim=(2, 3)).argmin(dim=0).view(2, 1, 1)).all(), (
        "a block that is cut"
    )


@pytest.mark.parametrize(
    ("tried", "errors", "chosen"), [((0, 6), (5e4,), [1, 6]), ((0, 3, 6), (5e4, 5e4 - 80, 5e4 - 82), [1, 3])]
)
def test_levels_that_were_not_tried_fall_as_the_transform_does(
    tried: tuple[int, ...], errors: tuple[float, ...], chosen: list[int]
):
    """One that is all in the first bits, and one that is all in the last; at effort 1 no level but 0 is decoded."""

    class Trial:
        geometry = HYBRID.geometry
        first, frames, transform = False, 4, True
        tokens = np.full((1, 2), 16)

        def coded_bits(self, levels: int) -> np.ndarray:
            return np.arange(levels, dtype=float)[:, None, None] * np.ones((1, 1, 2))

        def linear(self, levels: int) -> np.ndarray:
            early = np.array([100.0, 10, 10, 10, 10, 10, 10])
            late = np.array([100.0, 100, 100, 100, 100, 100, 10])
            return np.stack([early, late], axis=-1)[:levels, None]

        def distortions(self, levels: list[int]) -> np.ndarray:
            assert list(levels) == ([0] if len(errors) == 1 else list(tried))
            return np.array(errors)[:, None, None] * np.ones((1, 1, 2))

        def distortion(self, levels: np.ndarray) -> np.ndarray:
            raise AssertionError("nothing is calm")

    allocator = RateDistortionAllocator(RateDistortionConfig(slope=10.0, tried=tried, first_weight_of_transform=12.0))
    np.testing.assert_array_equal(allocator.choose(Trial()), [chosen])


@pytest.mark.parametrize(("gain", "chosen"), [(27.0, 0), (29.0, 1)])
def test_bits_of_later_steps_count_less_than_is_expected_of_them(gain: float, chosen: int):
    """A block of 2 bits and a token of 0.8 for 1 are worth 28 at a lambda of 10; first steps ask for other levels."""

    class Trial:
        geometry = HYBRID.geometry
        frames, transform = 4, True
        tokens = np.full((1, 1), 16)

        def __init__(self, *, first: bool) -> None:
            self.first, self.asked = first, [0]

        def coded_bits(self, levels: int) -> np.ndarray:
            return np.arange(levels, dtype=float)[:, None, None]

        def linear(self, levels: int) -> np.ndarray:
            return np.array([100.0, *[100 - gain] * (levels - 1)])[:, None, None]

        def distortions(self, levels: list[int]) -> np.ndarray:
            self.asked = list(levels)
            return np.array([5e4 - gain * (level > 0) for level in levels])[:, None, None]

        def distortion(self, levels: np.ndarray) -> np.ndarray:
            raise AssertionError("nothing is calm")

    config = RateDistortionConfig(slope=10.0, first_weight_of_transform=1.0)
    assert RateDistortionAllocator(config).choose(Trial(first=False)).tolist() == [[chosen]]
    first = Trial(first=True)
    assert RateDistortionAllocator(config).choose(first).tolist() == [[1]], "all there is to go on from"
    assert first.asked == [1, 6]


def run(tmp_path: Path, *, adversarial: float = 0.0, frames: int = 1) -> Trainer:
    phase = Phase(share=1.0, frames=frames, side=32, batch=1, stage="nested")
    config = TrainConfig(
        phases=(phase,),
        weights=LossWeights(adversarial=adversarial),
        adversarial=AdversarialConfig(width=4, start=0, adaptive_every=1),
    )
    trainer = Trainer(model_config=HYBRID, config=config, checkpoint=tmp_path / "c.pt")

    class Noise:
        def batch(self, size: int, frames: int, side: int) -> Batch:
            motion = torch.rand(size, (frames - 1) // 4, 4, 2, side // 8, side // 8)
            return Batch(torch.rand(size, frames, 3, side, side) * 2 - 1, motion)

    def enough(_: object) -> None:
        if trainer.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(Noise(), max_minutes=9.0, total_minutes=9.0, log=enough, log_seconds=0.0)
    return trainer


def test_training_reaches_every_parameter(tmp_path: Path):
    model = run(tmp_path, frames=5).model
    torch.manual_seed(TrainConfig().seed)
    made = dict(Tokenizer(HYBRID).named_parameters())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, made[name]) or "state" in name, name
    assert not list(model.encoder.parameters()), "an encoder without a network"


def test_a_discriminator_is_heard_by_a_hybrid(tmp_path: Path):
    assert run(tmp_path, adversarial=0.5).adversary is not None


def test_bits_of_other_weights_are_not_taken_for_coefficients():
    plain = TokenizerConfig(
        frame_channels=HYBRID.frame_channels, latent_channels=HYBRID.latent_channels, bits_per_token=9
    )
    assert widen(Tokenizer(HYBRID), Tokenizer(plain).state_dict()) == ()


def test_the_weights_that_ship_code_a_moving_picture():
    """Nearer to its source than a picture that stands still, and the prior is worth having."""
    wide = skimage.data.astronaut()[:192]
    frames = np.stack([wide[:, 4 * n : 4 * n + 256] for n in range(9)])
    sizes = {}
    for entropy in ("prior", "adaptive"):
        codec = Codec(device="cpu", entropy=entropy)
        data = codec.encode_frames(frames, quality=4, frame_rate=24)
        found = survey(io.BytesIO(data), check_tokens=True)
        assert found.token_bits is not None
        sizes[entropy] = found.token_bits
        shown = codec.decode_frames(data).frames.astype(float)
        errors = np.square(shown - frames).mean(axis=(1, 2, 3))
        still = np.square(shown[:1] - frames).mean(axis=(1, 2, 3))
        assert (errors[1:] < 0.15 * still[1:]).all()
        assert errors.max() < 110, "weights whose first picture had an error of 86 kept below 121"
    assert sizes["prior"] < 0.8 * sizes["adaptive"], "of the tokens alone"
