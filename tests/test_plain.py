"""The variant `plain`: no network makes pictures of a hybrid's later steps (spec section 8.5)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spec_decoder
import torch
from block_pictures import drawn_picture
from command_line import called
from media import picture, psnr
from network_helpers import CPU
from picture_films import WAVELET, coded, decoded
from test_residual_training import clip
from test_residuals_codec import brightening, passing, some_residual
from torch import Tensor

from tokcodec import Codec
from tokcodec.container import read_stream
from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_MAPS, STEP_FRAMES
from tokcodec.prediction import predict
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import clip_flops_per_pixel, measure_cost
from tokcodec.tokenizer.device import prepare
from tokcodec.tokenizer.first_picture import restored
from tokcodec.tokenizer.hybrid import EARLY, EARLY_BACK, LAST, LATE, LATE_BACK, MIDDLE, MIDDLE_BACK
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.motion import displacements_of_maps
from tokcodec.tokenizer.overlapped import Reference
from tokcodec.tokenizer.plain import PlainDecoder
from tokcodec.tokenizer.search import search_clip
from tokcodec.tokenizer.state import LAST_FRAME, MIDDLE_AND_LAST, SHOWN, DecoderState
from tokcodec.tokenizer.wavelet import restored_residual
from tokcodec.tokens import Picture
from tokcodec.training.config import AdversarialConfig, Phase, TrainConfig, read_run_config
from tokcodec.training.inflation import inflate, needs_inflation
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights
from tokcodec.training.objective import Allocations, clip_losses
from tokcodec.training.presets import CPU as CPU_RUN
from tokcodec.training.presets import PRESETS
from tokcodec.training.source import Batch
from tokcodec.weights import choose_post_filter, find_by_name, load_tokenizer, save_tokenizer
from tokcodec.weights.priors import choose_prior, prior_entries

TRUNK = replace(WAVELET, residuals=True)
PLAIN = replace(TRUNK, plain=True)
BY_BLOCKS = replace(PLAIN, intra=True)
ROWS, COLUMNS = 5, 7
HEIGHT, WIDTH = 8 * ROWS, 8 * COLUMNS
BITS = PLAIN.bits_per_token
SHARE = 0.34375


def plain(config: TokenizerConfig = PLAIN, *, share: float = SHARE) -> Tokenizer:
    model = prepare(Tokenizer(config), CPU, torch.float32)
    decoder_of(model).last_weight.fill_(share)
    return model


def decoder_of(model: Tokenizer) -> PlainDecoder:
    assert isinstance(model.decoder, PlainDecoder)
    return model.decoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.manual_seed(seed)) * 2 - 1


def begun(model: Tokenizer) -> DecoderState:
    return decoder_of(model).begin(0.8 * noise(1, 3, HEIGHT, WIDTH, seed=5))


def some_bits(seed: int) -> tuple[Tensor, Tensor]:
    """Signs, and a mask that keeps no bits in two columns of tokens."""
    signs = noise(1, BITS, ROWS, COLUMNS, seed=seed).sign()
    kept = torch.ones_like(signs)
    kept[:, 9:] = 0
    kept[..., :2] = 0
    return signs, kept


def vectors_of(seed: int) -> np.ndarray:
    """Seven maps, one below the other, of which the first column of blocks is still."""
    maps = np.random.default_rng(seed).integers(-30, 31, (MOTION_MAPS, 3, 4, 2)).astype(np.int16)
    maps[0, 2, 3] = -511, 511
    maps[:, :, 0] = 0
    return maps.reshape(3 * MOTION_MAPS, 4, 2)


def displacement_of(vectors: np.ndarray) -> Tensor:
    return displacements_of_maps(torch.from_numpy(vectors)[None], ROWS, COLUMNS, maps=MOTION_MAPS)


def put_together(model: Tokenizer, state: DecoderState, bits: tuple[Tensor, Tensor], moved: Tensor) -> Tensor:
    """A last frame of motion, the residual and cosines."""
    transform = model.decoder.transform
    cosines = transform.pixels(transform.coefficients(*bits))
    residual = 0.0 if state.residual is None else state.residual
    return state.reference.moved(moved[:, LAST]) + cosines + residual


# --- the configuration ---


def test_a_configuration_says_whether_there_is_a_network() -> None:
    assert json.loads(PLAIN.to_json())["plain"] is True
    for config in (PLAIN, BY_BLOCKS, TRUNK):
        assert TokenizerConfig.from_json(config.to_json()) == config
    fields = json.loads(PLAIN.to_json())
    del fields["plain"]
    assert json.dumps(fields, sort_keys=True) == TRUNK.to_json(), "weights of before do not say it"
    assert TokenizerConfig.from_json(json.dumps(fields)) == TRUNK
    assert TokenizerConfig.from_json(json.dumps(fields | {"plain": False})) == TRUNK
    assert TokenizerConfig().plain is False
    assert PLAIN.geometry == TRUNK.geometry, "tokens are the same, and so is all that a file says"


@pytest.mark.parametrize(
    "change",
    [
        {"wavelet": False, "residuals": False},
        {"wavelet": False, "residuals": False, "hybrid": False, "encoder_blocks": 1},
    ],
)
def test_first_pictures_by_a_network_are_refused(change: dict[str, object]) -> None:
    replace(TRUNK, **change)
    with pytest.raises(ModelError, match="a decoder without a network"):
        replace(PLAIN, **change)
    with pytest.raises(ModelError, match="a decoder without a network"):
        TokenizerConfig.from_json(json.dumps(json.loads(PLAIN.to_json()) | change))


@pytest.mark.parametrize("value", [1, 0, None, "true", 1.0, [True], {}])
def test_values_that_are_neither_true_nor_false_are_refused(value: object) -> None:
    with pytest.raises(ModelError, match="plain of a tokenizer must be true or false"):
        replace(PLAIN, plain=value)
    with pytest.raises(ModelError, match="plain of a tokenizer must be true or false"):
        TokenizerConfig.from_json(json.dumps(json.loads(PLAIN.to_json()) | {"plain": value}))


def test_a_run_switches_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"model": {"plain": True}}), encoding="utf-8")
    assert read_run_config(path, PRESETS, CPU_RUN).model == replace(CPU_RUN.model, plain=True)
    path.write_text(json.dumps({"model": {"wavelet": False}}), encoding="utf-8")
    assert read_run_config(path, PRESETS, replace(CPU_RUN, model=PLAIN)).model.plain is False


# --- steps ---


@pytest.mark.parametrize("adaptive_norm", [True, False])
@pytest.mark.parametrize("channels", [1, 9])
def test_it_learns_one_number_whatever_the_sizes_are(channels: int, adaptive_norm: bool) -> None:
    config = replace(PLAIN, frame_channels=channels, latent_channels=channels, adaptive_norm=adaptive_norm)
    (found,) = Tokenizer(config).state_dict().items()
    assert (found[0], found[1].tolist()) == ("decoder.between.share", [0.5])


def test_what_it_costs_is_counted() -> None:
    cost, trunk = measure_cost(Tokenizer(BY_BLOCKS)), measure_cost(Tokenizer(replace(BY_BLOCKS, plain=False)))
    assert (cost.encoder_parameters, cost.decoder_parameters) == (0, 1)
    assert 0 <= cost.decoder_flops_per_pixel < trunk.decoder_flops_per_pixel
    assert cost.encoder_flops_per_pixel == trunk.encoder_flops_per_pixel
    assert 0 <= clip_flops_per_pixel(BY_BLOCKS, frames=9) < clip_flops_per_pixel(TRUNK, frames=9)


@torch.no_grad()
def test_a_last_frame_is_motion_a_residual_and_cosines() -> None:
    model = plain()
    state = begun(model)
    for number in range(3):
        bits, moved = some_bits(number), displacement_of(vectors_of(number))
        moved += 0.5  # nothing is still
        state = state.with_residual(0.1 * noise(1, 3, HEIGHT, WIDTH, seed=number) if number != 1 else None)
        wanted = put_together(model, state, bits, moved)
        pixels, state = model.decoder.step(*bits, state, moved)
        torch.testing.assert_close(pixels[:, -1], wanted, atol=1e-6, rtol=0)
        assert torch.equal(state.picture, pixels[:, -1].clamp(-1, 1))
        assert (wanted.abs() > 1).any(), "more than there is"
        assert state.features.shape == (1, 0, ROWS, COLUMNS)
        assert state.residual is None


@pytest.mark.parametrize("share", [0.0, 0.5, SHARE, 1.0])
@torch.no_grad()
def test_frames_between_are_means_of_both_sides(share: float) -> None:
    model = plain(share=share)
    before = begun(model)
    moved = displacement_of(vectors_of(1)) + 0.5
    pixels, after = model.decoder.step(*some_bits(1), before, moved)

    def mean(one: Tensor, other: Tensor) -> Tensor:
        return (1 - share) * one + share * other

    first, last, maps = before.reference, after.reference, moved.unbind(dim=1)
    centre = mean(first.moved(maps[MIDDLE]), last.moved(maps[MIDDLE_BACK]))
    middle = Reference(centre.clamp(-1, 1))
    early = mean(first.moved(maps[EARLY]), middle.moved(maps[EARLY_BACK]))
    late = mean(middle.moved(maps[LATE]), last.moved(maps[LATE_BACK]))
    torch.testing.assert_close(pixels[:, :3], torch.stack([early, centre, late], dim=1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_all_that_goes_on_is_the_picture() -> None:
    model = plain()
    _, state = model.decoder.step(*some_bits(1), begun(model), displacement_of(vectors_of(1)))
    again = decoder_of(model).begin(state.picture)
    bits, moved = some_bits(5), displacement_of(vectors_of(5))
    one, other = (model.decoder.step(*bits, each, moved)[0] for each in (state, again))
    assert torch.equal(one, other)
    for shown in (LAST_FRAME, MIDDLE_AND_LAST):
        some, _ = model.decoder.step(*bits, state, moved, shown=shown)
        torch.testing.assert_close(some, one[:, shown], atol=1e-6, rtol=0)


def test_a_step_needs_a_first_picture_and_motion() -> None:
    model = plain()
    with pytest.raises(ValueError, match="call begin"):
        model.decoder.step(*some_bits(1), None)
    with pytest.raises(ValueError, match="made of motion"):
        model.decoder.step(*some_bits(1), begun(model))


@torch.no_grad()
def test_what_stands_still_stays_exactly() -> None:
    """Unless bits or a residual say otherwise; in all frames of a step."""
    model = plain()
    state = begun(model)
    signs, kept = some_bits(1)
    residual = torch.zeros(1, 3, HEIGHT, WIDTH)
    residual[..., :8] = 0.45 / 127.5  # nobody can see it
    residual[..., 8:16] = 1.1 / 127.5
    still = torch.zeros(1, MOTION_MAPS, 2, ROWS, COLUMNS)
    for given in (None, residual):
        pixels, after = model.decoder.step(signs, kept, state.with_residual(given), still)
        for frame in pixels[0]:
            assert torch.equal(frame[..., :8], state.picture[0, ..., :8])
            assert torch.equal(frame[..., 8:16], state.picture[0, ..., 8:16]) is (given is None)
            assert (frame - state.picture[0])[..., 16:].abs().max() > 0.01
        assert torch.equal(after.picture[..., :8], state.picture[..., :8])
    moving = still.clone()
    moving[:, LAST, :, 0, 0] = 0.4
    pixels, _ = model.decoder.step(signs, kept, state, moving)
    assert (pixels[0, -1] - state.picture[0])[..., :8, :8].abs().max() > 0.01


@torch.no_grad()
def test_a_forecast_is_a_step_without_bits() -> None:
    model = plain()
    nothing = torch.zeros(1, BITS, ROWS, COLUMNS)
    moved = displacement_of(vectors_of(6)) + 0.5
    for residual in (None, 0.1 * noise(1, 3, HEIGHT, WIDTH, seed=9)):
        state = begun(model).with_residual(residual)
        forecast = model.decoder.forecast(state, moved)
        assert forecast.frames.shape == (1, 1, 3, HEIGHT, WIDTH)
        wanted = put_together(model, state, (nothing, nothing), moved).clamp(-1, 1)
        torch.testing.assert_close(forecast.frames[:, 0], wanted, atol=1e-6, rtol=0)


# --- the decoder of the specification ---


def first_of(config: TokenizerConfig) -> Picture:
    if config.intra:
        return drawn_picture(HEIGHT, WIDTH, 3, scale=22)
    coefficients = np.zeros((3, HEIGHT, WIDTH), np.int16)
    coefficients[:, ::4, ::4] = np.random.default_rng(2).integers(-9, 10, (3, HEIGHT // 4, WIDTH // 4))
    return Picture(coefficients=coefficients, scale=20)


def as_in_spec(picture: Picture) -> spec_decoder.Picture:
    return spec_decoder.Picture(picture.coefficients, picture.scale, picture.blocks)


@pytest.mark.parametrize(("config", "share"), [(PLAIN, SHARE), (PLAIN, -0.25), (BY_BLOCKS, 0.625)])
@torch.no_grad()
def test_the_decoder_of_the_specification_shows_the_same(config: TokenizerConfig, share: float, tmp_path: Path) -> None:
    entry = save_tokenizer(plain(config, share=share), tmp_path, name="own")
    model = load_tokenizer(entry)
    network = spec_decoder.Network(*spec_decoder.read_weights(entry.path.read_bytes()))
    picture = first_of(config)
    pixels = restored(picture, torch.zeros(0)).unsqueeze(0)
    ours = decoder_of(model).begin(pixels)
    (shown,), theirs = network.begin(as_in_spec(picture))
    np.testing.assert_allclose(shown, pixels[0].numpy(), atol=1e-4)
    for number, count in enumerate((4, 2, 1, 4, 1, 2), start=1):
        signs, kept = some_bits(number)
        vectors = vectors_of(number)
        residual = some_residual(ROWS, COLUMNS, seed=number, scale=12) if number % 2 else None
        added = None if residual is None else restored_residual(residual, torch.zeros(0)).unsqueeze(0)
        before, moved = ours, displacement_of(vectors)
        found, ours = model.decoder.step(signs, kept, before.with_residual(added), moved, shown=SHOWN[count])
        said = None if residual is None else as_in_spec(residual)
        frames, theirs = network.step((signs * kept)[0].numpy(), kept[0].numpy(), theirs, vectors, said)
        assert found.shape[1] == count
        np.testing.assert_allclose(np.stack(frames)[SHOWN[count]], found[0].numpy(), atol=1e-3)
        np.testing.assert_allclose(theirs[1], ours.picture[0].numpy(), atol=1e-3)
        if residual is None:
            assert torch.equal(found[..., :8], before.picture.unsqueeze(1)[..., :8].expand_as(found[..., :8]))


@pytest.mark.parametrize("change", [{"plain": 1}, {"plain": None}, {"wavelet": False, "residuals": False}])
def test_both_decoders_refuse_what_cannot_be(change: dict[str, object], tmp_path: Path) -> None:
    class Config(TokenizerConfig):
        def to_json(self) -> str:
            return json.dumps(json.loads(PLAIN.to_json()) | change)

    model = plain()
    model.config = Config()
    entry = save_tokenizer(model, tmp_path, name="own")
    with pytest.raises(spec_decoder.SpecError) as found:
        spec_decoder.read_weights(entry.path.read_bytes())
    assert found.value.kind == "M"
    with pytest.raises(ModelError):
        load_tokenizer(entry)


# --- weights ---


def test_weights_come_back(tmp_path: Path) -> None:
    entry = save_tokenizer(plain(BY_BLOCKS), tmp_path, name="own")
    loaded = load_tokenizer(find_by_name(str(entry.path)))
    assert loaded.config == BY_BLOCKS
    assert decoder_of(loaded).last_weight.tolist() == [SHARE]
    assert [tensor.tolist() for tensor in loaded.state_dict().values()] == [[SHARE]]


def test_tensors_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    for config, other in ((PLAIN, TRUNK), (TRUNK, PLAIN)):
        model = Tokenizer(config)
        model.config = other
        with pytest.raises(ModelError, match="do not fit"):
            load_tokenizer(save_tokenizer(model, tmp_path, name="own"))


def test_weights_of_before_have_a_network(tmp_path: Path) -> None:
    entry = save_tokenizer(Tokenizer(TRUNK), tmp_path, name="own")
    assert b"plain" not in entry.path.read_bytes()
    loaded = load_tokenizer(entry)
    assert loaded.config.plain is False
    assert not isinstance(loaded.decoder, PlainDecoder)


def test_it_is_described_as_typed(tmp_path: Path) -> None:
    entry = save_tokenizer(plain(BY_BLOCKS), tmp_path, name="own")
    run = called("info", "--model", entry.path, "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["config"]["plain"] is True
    assert (found["encoder_parameters"], found["decoder_parameters"]) == (0, 1)


# --- encoders and decoders ---


@pytest.mark.parametrize(
    ("film", "config", "step_frames"),
    [(brightening, PLAIN, (4,)), (passing, PLAIN, STEP_FRAMES), (passing, BY_BLOCKS, STEP_FRAMES)],
)
def test_a_decoder_shows_what_the_encoder_saw(film, config: TokenizerConfig, step_frames: tuple[int, ...]) -> None:
    model, frames = plain(config), film(9)
    encoder, steps = coded(model, frames, slope=300.0, step_frames=step_frames)
    saw = encoder._decoded
    decoder, shown = decoded(model, steps, height=48, width=64)
    found = decoder._state
    assert saw is not None
    assert found is not None
    torch.testing.assert_close(found.picture, saw.picture, atol=1e-5, rtol=0)
    assert any(step.residual is not None for step in steps)
    last = saw.picture.add(1).mul(127.5)[0, :, :48, :64].permute(1, 2, 0).numpy()
    assert np.abs(shown[-1] - last).max() <= 0.51


@pytest.mark.parametrize(("config", "efforts"), [(PLAIN, (0, 2)), (BY_BLOCKS, (1,))])
def test_a_weights_file_encodes_and_decodes(config: TokenizerConfig, efforts: tuple[int, ...], tmp_path: Path) -> None:
    entry = save_tokenizer(plain(config, share=0.5), tmp_path, name="own")
    codec = Codec(model=str(entry.path), device="cpu")
    frames = passing(11)
    for effort in efforts:
        data = codec.encode_frames(frames, quality=4, effort=effort, chunk_frames=9, frame_rate=24)
        shown = Codec(weights=entry.path, device="cpu").decode_frames(data).frames
        assert shown.shape == frames.shape
        error, still = (np.square(each - frames.astype(float)).mean() for each in (shown, frames[:1]))
        assert error < 0.25 * still
    header = read_stream(io.BytesIO(data)).header
    assert header.geometry == config.geometry
    longer = io.BytesIO()
    assert predict(io.BytesIO(data), longer, seconds=0.25, forecast=True).predicted > 0
    assert len(codec.decode_frames(longer.getvalue()).frames) > len(frames)


# --- training ---


def test_training_has_a_gradient_for_the_share() -> None:
    """Of frames between alone, for no last frame depends on it."""
    frames = clip()
    everything = Allocations(levels=torch.full((1, 3, 12, 16), 6), still=torch.zeros(1), slope=torch.full((1,), 2000.0))
    torch.manual_seed(0)
    model = Tokenizer(PLAIN)
    shown: list[Tensor] = []
    terms = clip_losses(model, frames, everything, TrainConfig(), "full", motion=search_clip(frames), show=shown.append)
    terms["mse"].backward()
    share = decoder_of(model).last_weight
    assert share.grad is not None
    assert share.grad.abs().item() > 0
    assert shown[0].shape == frames.shape
    assert not needs_inflation(model)
    with pytest.raises(ValueError, match="no image model"):
        inflate(model)


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_a_run_trains_it(adversarial: float, tmp_path: Path) -> None:
    phase = Phase(share=1.0, frames=5, side=32, batch=1, stage="nested")
    config = TrainConfig(
        phases=(phase,),
        weights=LossWeights(adversarial=adversarial),
        adversarial=AdversarialConfig(width=4, start=0, adaptive_every=1),
    )
    trainer = Trainer(model_config=PLAIN, config=config, checkpoint=tmp_path / "c.pt")

    class Noise:
        def batch(self, size: int, frames: int, side: int) -> Batch:
            motion = torch.rand(size, (frames - 1) // 4, 4, 2, side // 8, side // 8)
            return Batch(torch.rand(size, frames, 3, side, side) * 2 - 1, motion)

    def enough(_: object) -> None:
        if trainer.step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(Noise(), max_minutes=9.0, total_minutes=9.0, log=enough, log_seconds=0.0)
    share = float(decoder_of(trainer.model).last_weight.detach())
    assert share != 0.5
    assert np.isfinite(share)


def test_the_weights_that_ship_have_a_prior_and_a_filter() -> None:
    entry = find_by_name("fast")
    assert load_tokenizer(entry).config.plain
    assert choose_prior(None, tokenizer=entry.sha256) in prior_entries()
    assert choose_post_filter("auto", tokenizer=entry.sha256) is not None
    frames = np.stack([picture(96, 64, number) for number in range(9)])
    codec = Codec(model="fast", device="cpu")
    data = codec.encode_frames(frames, quality=6, frame_rate=24)
    assert read_stream(io.BytesIO(data)).header.tokenizer_name == "fast"
    shown = codec.decode_frames(data).frames
    assert psnr(shown, frames) > 30
