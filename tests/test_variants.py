"""The other sides of the switches: adaptive norm, temporal downsampling, recurrence, inflation."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spec_decoder
import torch
from network_helpers import NO_MOTION, SMALL, clip, small_model
from torch import Tensor
from variants import (
    ALL,
    EARLY,
    HYBRID,
    MEMORYLESS,
    MOVED,
    PLAIN,
    RECURRENT_PARTS,
    VARIANTS,
)

from tokcodec import Codec
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import ModelError, UsageError
from tokcodec.prediction import predict
from tokcodec.tokenizer.allocation import UniformAllocator
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import clip_flops_per_pixel, measure_cost
from tokcodec.tokenizer.lfq import signs
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.motion import displacement_of_map, displacements_of_maps
from tokcodec.tokenizer.pixels import to_signed_unit
from tokcodec.tokenizer.refine import refine
from tokcodec.tokenizer.state import Forecast, Past
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
from tokcodec.training.config import RunConfig, read_run_config
from tokcodec.training.presets import CPU as CPU_RUN
from tokcodec.training.presets import PRESETS
from tokcodec.weights import find_by_name, load_tokenizer, save_tokenizer


def names(config: TokenizerConfig, part: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the encoder or the decoder."""
    return {name: tuple(tensor.shape) for name, tensor in getattr(Tokenizer(config), part).state_dict().items()}


def random_tokens(steps: int, rows: int, columns: int, seed: int = 4) -> tuple[Tensor, Tensor]:
    """Signs `(steps, 1, 18, rows, columns)`, and a mask that keeps them all."""
    tokens = torch.randn(steps, 1, 18, rows, columns, generator=torch.manual_seed(seed)).sign()
    return tokens, torch.ones(1, 18, rows, columns)


def encode_stream(model: Tokenizer, frames: np.ndarray, *, iterations: int = 0) -> np.ndarray:
    encoder = StreamEncoder(model, UniformAllocator(level=6), iterations=iterations)
    return np.stack([step.indices for step in map(encoder.push, frames) if step is not None])


# --- the configuration ---


def test_defaults_are_written_as_they_were_before_the_switches():
    assert TokenizerConfig().to_json() == (
        '{"architecture": "causal-recurrent-4", "bits_per_token": 18, "decoder_blocks": 4, "encoder_blocks": 4, '
        '"frame_channels": 64, "latent_channels": 192, "level_bits": [], "quantizer": "lfq"}'
    )
    written = json.loads(ALL.to_json())
    assert (written["adaptive_norm"], written["temporal_downsampling"], written["recurrent"]) == (False, "early", False)
    assert set(json.loads(EARLY.to_json())) - set(json.loads(SMALL.to_json())) == {"temporal_downsampling"}
    assert set(json.loads(MOVED.to_json())) - set(json.loads(SMALL.to_json())) == {"coded_motion"}
    for config in (SMALL, PLAIN, EARLY, MOVED, HYBRID, MEMORYLESS, ALL):
        assert TokenizerConfig.from_json(config.to_json()) == config
    explicit = json.loads(SMALL.to_json()) | {"adaptive_norm": True, "temporal_downsampling": "late", "recurrent": True}
    assert TokenizerConfig.from_json(json.dumps(explicit)) == SMALL


@pytest.mark.parametrize("name", ["adaptive_norm", "recurrent", "temporal_downsampling", "coded_motion", "reccurent"])
@pytest.mark.parametrize("value", [1, 0, None, "true", "middle", [], {}])
def test_values_that_are_not_possible_are_refused(name: str, value: object):
    text = json.dumps(json.loads(SMALL.to_json()) | {name: value})
    with pytest.raises(ModelError, match="keys" if name == "reccurent" else name.replace("_", ".")):
        TokenizerConfig.from_json(text)


def test_a_run_switches_them(tmp_path: Path):
    path = tmp_path / "run.json"

    def read(text: str) -> RunConfig:
        path.write_text(text)
        return read_run_config(path, PRESETS, CPU_RUN)

    switches = {
        "adaptive_norm": False,
        "temporal_downsampling": "early",
        "recurrent": False,
        "coded_motion": False,
        "hybrid": False,
        "encoder_blocks": 4,
    }
    run = read(json.dumps({"preset": "gpu", "model": switches, "train": {"inflate": False}}))
    implied = dict.fromkeys(("wavelet", "residuals", "intra", "mean_between"), False)
    wanted = replace(CPU_RUN.model, **implied, **switches)
    assert (run.model, run.train.inflate) == (wanted, False)
    assert read(run.to_json()) == run
    for text, message in (
        ('{"model": {"recurrent": 1}}', r"model\.recurrent: must be bool"),
        ('{"model": {"adaptive_norm": "no"}}', r"model\.adaptive_norm: must be bool"),
        (
            '{"model": {"temporal_downsampling": "middle"}}',
            r"model\.temporal_downsampling: 'middle' is none of late, e",
        ),
        ('{"train": {"inflate": 0}}', r"train\.inflate: must be bool"),
    ):
        with pytest.raises(UsageError, match=message):
            read(text)


# --- what each one changes ---


@torch.no_grad()
def test_without_the_adaptive_norm_tokens_enter_once():
    default, plain = names(SMALL, "decoder"), names(PLAIN, "decoder")
    assert {name for name in default if "modulation" in name}
    assert plain == {name: shape for name, shape in default.items() if "modulation" not in name}
    assert names(PLAIN, "encoder") == names(SMALL, "encoder")
    model = small_model(PLAIN)
    (first, other), kept = random_tokens(2, 3, 4)
    shown, state = model.decoder.step(first, kept, None)
    assert (model.decoder.step(other, kept, None)[0] != shown).any(), "the tokens are seen"
    assert (model.decoder.step(other, kept, state)[0] != model.decoder.step(first, kept, state)[0]).any()
    # What enters by `token_in` can be taken back at the input, and then nothing is left of it.
    for trunk in (model.decoder.first, small_model().decoder.first):
        x = torch.zeros(1, 16, 3, 4)
        conditions = [trunk.token_in(torch.cat([tokens, kept], dim=1)) for tokens in (first, other)]
        results = [trunk.blocks[0](x, condition) for condition in conditions]
        assert torch.equal(*results) is (trunk is model.decoder.first)


@torch.no_grad()
def test_early_merging_sees_one_map_a_step():
    model = small_model(EARLY)
    seen: list[tuple[int, ...]] = []
    model.encoder.frame_block.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    generator = torch.manual_seed(3)
    before, frames = (torch.rand(1, count, 3, 16, 16, generator=generator) for count in (1, 4))
    nothing = Forecast(
        features=torch.zeros(1, 16, 2, 2), frames=torch.zeros(1, 4, 3, 16, 16), motion=torch.zeros(1, 4, 2, 2, 2)
    )
    past = Past(state=model.encoder.step(before, None)[1], forecast=nothing, motion=torch.zeros(1, 4, 2, 2, 2))
    latents = [model.encoder.step(part, past)[0] for part in (frames, frames.flip(1))]
    assert seen == [(1, 8, 4, 4)] * 3, "frames of a later step share a map"
    assert (latents[0] != latents[1]).any(), "their order counts"
    wrong = replace(past, forecast=replace(nothing, frames=frames))
    assert (model.encoder.step(frames, wrong)[0] != latents[0]).any(), "the forecast counts"
    assert names(EARLY, "decoder") == names(SMALL, "decoder")
    late, early = measure_cost(Tokenizer(SMALL)), measure_cost(Tokenizer(EARLY))
    saved = late.encoder_flops_per_pixel - early.encoder_flops_per_pixel
    assert saved == 2 * (3 * 2 * 9 * 8 * 8 / 64 + 12 * 8 * 16 / 256), "three maps in a block, and twelve to be merged"
    assert early.decoder_flops_per_pixel == late.decoder_flops_per_pixel
    assert clip_flops_per_pixel(EARLY, frames=9) < clip_flops_per_pixel(SMALL, frames=9)
    assert clip_flops_per_pixel(EARLY, frames=1) == clip_flops_per_pixel(SMALL, frames=1)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("changed", [1, 4, 5, 8])
def test_variants_are_causal(config: TokenizerConfig, changed: int):
    model = small_model(config)
    frames = clip(9, 40, 40)
    other = frames.copy()
    other[changed:] = clip(9 - changed, 40, 40, seed=5)
    step = -(-changed // 4)
    first, second = encode_stream(model, frames), encode_stream(model, other)
    np.testing.assert_array_equal(first[:step], second[:step])
    assert (first[step] != second[step]).any()


@pytest.mark.parametrize("config", [pytest.param(SMALL, id="recurrent"), MEMORYLESS, ALL])
@torch.no_grad()
def test_without_recurrence_tokens_alone_make_their_frames(config: TokenizerConfig):
    decoder = small_model(config).decoder
    tokens, kept = random_tokens(4, 3, 4)
    states = [decoder.step(first, kept, None)[1] for first in tokens[:2]]
    states.append(decoder.step(tokens[2], kept, states[0])[1])
    for shown in (slice(None), slice(1, None, 2)):
        frames = [decoder.step(tokens[3], kept, state, shown=shown)[0] for state in states]
        assert frames[0].shape[1] == (4 if shown == slice(None) else 2)
        assert torch.equal(frames[0], frames[1]) is not config.recurrent
        assert torch.equal(frames[0], frames[2]) is not config.recurrent
    forecasts = [decoder.forecast(state) for state in states]
    assert torch.equal(forecasts[0].frames, forecasts[2].frames) is not config.recurrent
    nothing = torch.zeros_like(kept)
    torch.testing.assert_close(forecasts[0].frames, decoder.step(nothing, nothing, states[0])[0].clamp(-1, 1))
    assert forecasts[0].motion.shape == (1, 4, 2, 3, 4)
    assert forecasts[0].motion.dtype == torch.float32
    assert bool(forecasts[0].motion.any()) is config.recurrent
    assert (states[2].motion is None) is not config.recurrent


def test_motion_can_only_move_what_is_held():
    with pytest.raises(ModelError, match="recurrent"):
        replace(SMALL, coded_motion=True, recurrent=False)


def test_coded_motion_takes_the_place_of_found_motion():
    default, moved = names(SMALL, "decoder"), names(MOVED, "decoder")
    parts = [{name.split(".")[0] for name in set(a) - set(b)} for a, b in ((default, moved), (moved, default))]
    assert parts == [{"motion_out"}, {"displacement_in", "rest_out"}]
    assert names(MOVED, "encoder") == names(SMALL, "encoder")


@torch.no_grad()
def test_a_motion_map_moves_features_and_picture():
    """Where all else is off, the picture before is shown, from as far away as the map says."""
    model = small_model(MOVED)
    decoder = model.decoder
    for name, parameter in decoder.named_parameters():
        if name.split(".")[0] in ("rest_out", "patch_out", "repair_out", "mask_out"):
            parameter.zero_()
    decoder.mask_out.bias.fill_(50.0)
    tokens, kept = random_tokens(2, 3, 4)
    _, state = decoder.step(tokens[0], kept, None)
    state = replace(state, picture=torch.rand(1, 3, 24, 32, generator=torch.manual_seed(1)))
    vectors = torch.zeros(1, 2, 2, 2, dtype=torch.int16)
    vectors[..., 0], vectors[..., 1] = 8, -16
    frames, after = decoder.step(tokens[1], kept, state, displacement_of_map(vectors, 3, 4))
    for n in range(4):  # 4 pixels to the right and 8 up by the last frame, linearly; a half pixel is two units
        right, up = n + 1, 2 * (n + 1)
        torch.testing.assert_close(frames[:, n, :, up:, : 32 - right], state.picture[:, :, : 24 - up, right:])
    still = decoder.step(tokens[1], kept, state, torch.zeros(1, 2, 3, 4))[1]
    assert (still.features != after.features).any()


def test_each_later_step_has_a_motion_map():
    encoder = StreamEncoder(small_model(MOVED), UniformAllocator(level=6))
    steps = [step for step in map(encoder.push, clip(9, 40, 56)) if step is not None]
    assert [(step.vectors.shape, step.vectors.dtype) for step in steps] == [((3, 4, 2), np.int16)] * 3
    assert not steps[0].vectors.any()
    assert max(np.abs(step.vectors.astype(int)).max() for step in steps) <= 511


def test_without_recurrence_its_parts_are_not_there(monkeypatch: pytest.MonkeyPatch):
    default, left = names(SMALL, "decoder"), names(MEMORYLESS, "decoder")
    assert {name.split(".")[0] for name in set(default) - set(left)} == set(RECURRENT_PARTS)
    gone = {name.split(".")[0] for name in set(names(SMALL, "encoder")) - set(names(MEMORYLESS, "encoder"))}
    assert gone == {"motion_in", "motion_merge", "norm_known", "known_in"}
    cost, without = measure_cost(Tokenizer(SMALL)), measure_cost(Tokenizer(MEMORYLESS))
    assert without.decoder_flops_per_pixel < cost.decoder_flops_per_pixel
    assert without.encoder_flops_per_pixel < cost.encoder_flops_per_pixel

    def search(*_: object) -> Tensor:
        raise AssertionError("nothing moves, so nobody has to search")

    monkeypatch.setattr("tokcodec.tokenizer.stream.search", search)
    assert encode_stream(small_model(MEMORYLESS), clip(5, 40, 40)).shape == (2, 5, 5)
    with pytest.raises(AssertionError, match="nobody"):
        encode_stream(small_model(), clip(5, 40, 40))


# --- files ---


@pytest.mark.parametrize("config", VARIANTS)
def test_a_weights_file_of_a_variant_encodes_and_decodes(config: TokenizerConfig, tmp_path: Path):
    entry = save_tokenizer(small_model(config), tmp_path, name="own")
    model = load_tokenizer(find_by_name(str(entry.path)))
    assert model.config == config
    codec = Codec(model=str(entry.path), device="cpu")
    frames = clip(11, 40, 56)
    for effort in (0, 1, 2):
        data = codec.encode_frames(frames, quality=4, effort=effort, chunk_frames=9, frame_rate=24)
        shown = Codec(weights=entry.path, device="cpu").decode_frames(data).frames
        assert shown.shape == frames.shape
        np.testing.assert_array_equal(shown, codec.decode_frames(data).frames)
        # Of noise and a network that learned nothing only effort 0 keeps bits without a doubt.
        assert effort > 0 or shown[5:9].std() > 1, "later steps show something"
    reader = read_stream(io.BytesIO(data))
    offsets = [reader.item_offset for item in reader if isinstance(item, ChunkRecord)]
    broken = bytearray(data)
    broken[offsets[1] + 60] ^= 0x10
    assert codec.decode_frames(bytes(broken), conceal=True).frames.shape == frames.shape
    longer = io.BytesIO()
    assert predict(io.BytesIO(data), longer, seconds=0.25, forecast=True).predicted > 0
    assert len(codec.decode_frames(longer.getvalue()).frames) > len(frames)


def test_tensors_of_another_variant_are_refused(tmp_path: Path):
    model = small_model(MEMORYLESS)
    model.config = SMALL
    with pytest.raises(ModelError, match="do not fit"):
        load_tokenizer(save_tokenizer(model, tmp_path, name="own"))


@pytest.mark.parametrize("config", VARIANTS)
def test_the_decoder_of_the_specification_shows_the_same(config: TokenizerConfig, tmp_path: Path):
    entry = save_tokenizer(small_model(config), tmp_path, name="own")
    model = load_tokenizer(entry)
    network = spec_decoder.Network(*spec_decoder.read_weights(entry.path.read_bytes()))
    tokens, kept = random_tokens(3, 5, 7)
    kept[..., :2] = 0
    ours = theirs = None
    for number, step in enumerate(tokens):
        count = config.geometry.motion_maps
        vectors = np.random.default_rng(number).integers(-30, 31, (3 * count, 4, 2)).astype(np.int16)
        vectors[0, 0] = -511, 511
        moved = config.coded_motion and number > 0
        displacement = displacements_of_maps(torch.from_numpy(vectors)[None], 5, 7, maps=count) if moved else None
        with torch.no_grad():
            pixels, ours = model.decoder.step(step, kept, ours, displacement)
        frames, theirs = network.step((step * kept)[0].numpy(), kept[0].numpy(), theirs, vectors)
        np.testing.assert_allclose(np.stack(frames), pixels[0].numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"recurrent": 1},
        {"temporal_downsampling": "middle"},
        {"reccurent": True},
        {"coded_motion": 1},
        {"coded_motion": True, "recurrent": False},
        {"hybrid": 1},
        {"hybrid": True, "coded_motion": True},
        {"hybrid": True, "encoder_blocks": 0},
        {"encoder_blocks": 0},
        {"intra": 1},
        {"intra": True},
    ],
)
def test_the_decoder_of_the_specification_refuses_other_values(change: dict[str, object], tmp_path: Path):
    class Config(TokenizerConfig):
        def to_json(self) -> str:
            return json.dumps(json.loads(SMALL.to_json()) | change)

    model = small_model()
    model.config = Config()
    entry = save_tokenizer(model, tmp_path, name="own")
    with pytest.raises(spec_decoder.SpecError) as found:
        spec_decoder.read_weights(entry.path.read_bytes())
    assert found.value.kind == "M"
    with pytest.raises(ModelError):
        load_tokenizer(entry)


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_tokens_of_variants_are_refined(config: TokenizerConfig):
    if config.hybrid:  # its bits are weighed as they are chosen
        model, frames = small_model(config), clip(5, 24, 32)
        assert np.array_equal(encode_stream(model, frames), encode_stream(model, frames, iterations=8))
        return
    model = small_model(config)
    frames = to_signed_unit(torch.from_numpy(clip(5, 24, 32)))[None]
    z, _ = model.encoder.step(frames[:, :1], None)
    kept = torch.ones_like(z)
    _, state = model.decoder.step(signs(z), kept, None)
    moved = torch.full((1, 2, 3, 4), 0.5) if config.coded_motion else None
    _, state = model.decoder.step(signs(z), kept, state, moved)
    refined = refine(model.decoder, z, kept, state, frames[:, 1:], displacement=moved, iterations=8)
    errors = [
        float((model.decoder.step(tokens, kept, state, moved)[0].clamp(-1, 1) - frames[:, 1:]).square().sum())
        for tokens in (signs(z), refined)
    ]
    assert errors[1] < errors[0]
    plain, better = encode_stream(model, clip(5, 24, 32)), encode_stream(model, clip(5, 24, 32), iterations=8)
    assert (plain != better).any()
    decoder = StreamDecoder(model, height=24, width=32)
    full = np.full(plain.shape[1:], 18, np.uint8)
    motion = np.zeros((2, 2, 2), np.int16) if config.coded_motion else NO_MOTION
    assert [len(decoder.step(step, full, motion)) for step in better] == [1, 4]
