"""The tokenizer's configuration, its weights, and the devices that it runs on."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from network_helpers import CPU, SMALL, encode_stream, small_model

from tokcodec.errors import DeviceError, ModelError
from tokcodec.tokenizer.allocation import UniformAllocator
from tokcodec.tokenizer.block_choice import PRICE, blocks_of_planes, planes_of
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import measure_cost
from tokcodec.tokenizer.device import choose_device, fast_dtype, prepare
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
from tokcodec.weights import default_entry, entries, find_by_digest, find_by_name, load_tokenizer, save_tokenizer


def test_configuration_round_trip_and_refusals():
    config = TokenizerConfig(frame_channels=16, bits_per_token=36)
    assert TokenizerConfig.from_json(config.to_json()) == config
    assert config.geometry.level_bits == (0, 6, 12, 18, 24, 30, 36)
    wide = TokenizerConfig(bits_per_token=24, level_bits=(0, 1, 18, 24))
    assert TokenizerConfig.from_json(wide.to_json()).geometry.level_bits == (0, 1, 18, 24)
    for levels in ((0, 18), (1, 24), (0, 5, 5, 24), (0, 24, 12), (24,), tuple(range(25))):
        with pytest.raises(ModelError, match="levels"):
            TokenizerConfig(bits_per_token=24, level_bits=levels)
    for text in ("", "{}", "[]", '{"architecture": "other"}', config.to_json().replace("quantizer", "q")):
        with pytest.raises(ModelError):
            TokenizerConfig.from_json(text)
    with pytest.raises(ModelError):
        TokenizerConfig(bits_per_token=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bits_per_token = 3  # type: ignore[misc]


def test_continuous_latents_cannot_be_coded():
    with pytest.raises(ModelError, match="continuous"):
        StreamEncoder(small_model(dataclasses.replace(SMALL, quantizer="none")), UniformAllocator(level=6))


def test_weights_round_trip_and_their_digest(tmp_path):
    model = small_model()
    entry = save_tokenizer(model, tmp_path, name="small")
    assert entry.sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()
    assert entry.path.name == f"small-{entry.sha256[:12]}.safetensors"
    loaded = load_tokenizer(entry)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.bfloat16().float(), rtol=0, atol=0)
    assert find_by_name(str(entry.path)).sha256 == entry.sha256
    assert find_by_digest(entry.sha256, extra=entry.path) == find_by_name(str(entry.path))


def test_damaged_or_foreign_weights_are_refused(tmp_path, monkeypatch):
    entry = save_tokenizer(small_model(), tmp_path, name="small")
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_tokenizer(entry)
    with pytest.raises(ModelError, match="the stream needs"):
        find_by_digest(entry.sha256, extra=entry.path)
    with pytest.raises(ModelError, match="no weights with"):
        find_by_digest(entry.sha256)
    monkeypatch.setenv("TOKCODEC_WEIGHTS_PATH", str(tmp_path))
    assert find_by_digest(hashlib.sha256(data).hexdigest()).path == entry.path
    with pytest.raises(ModelError, match="no model is called"):
        find_by_name("nonesuch")
    text = tmp_path / "text.safetensors"
    text.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_tokenizer(find_by_name(str(text)))


def test_the_default_weights_are_there():
    entry = default_entry()
    assert entry.path.stat().st_size <= 32 << 20
    assert entry.path.name == f"{entry.name}-{entry.sha256[:12]}.safetensors"
    model = load_tokenizer(entry)
    cost = measure_cost(model)
    assert cost.decoder_flops_per_pixel < 50_000, "the budget of real time on two cores"
    assert cost.encoder_parameters + cost.decoder_parameters == sum(p.numel() for p in model.parameters())


def test_all_weights_are_there():
    known = entries()
    assert known[0] == default_entry()
    assert len({entry.name for entry in known}) == len({entry.sha256 for entry in known}) == len(known)
    assert sum(entry.path.stat().st_size for entry in known) <= 64 << 20
    for entry in known:
        assert load_tokenizer(entry).config.quantizer == "lfq"


def test_the_fast_path_decodes_what_float32_decodes():
    """Half precision may move pixels a little, never what they are decoded from (spec section 12)."""
    model = load_tokenizer(default_entry())
    frames = np.linspace(0, 255, 9 * 64 * 96 * 3).reshape(9, 64, 96, 3).astype(np.uint8)
    tokens = encode_stream(prepare(model, CPU, torch.float32), frames)
    kept = np.full(tokens.shape[1:], 18, np.uint8)
    first = torch.from_numpy(frames[0]).permute(2, 0, 1).float() / 127.5 - 1
    picture = blocks_of_planes(planes_of(first), 20, price=PRICE)
    vectors = np.full((*model.config.geometry.motion_blocks(8, 12), 2), (5, -3), np.int16)

    def decode(dtype: torch.dtype) -> np.ndarray:
        decoder = StreamDecoder(prepare(load_tokenizer(default_entry()), CPU, dtype), height=64, width=96)
        shown = [decoder.step(tokens[0], 0 * kept, vectors, picture=picture)]
        shown += [decoder.step(step, kept, vectors) for step in tokens[1:]]
        return np.concatenate(shown).astype(int)

    error = np.sqrt(np.mean((decode(torch.float32) - decode(torch.bfloat16))[1:] ** 2))
    assert error <= 1.0


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    assert fast_dtype(CPU) in (torch.bfloat16, torch.float32)
    with pytest.raises(DeviceError):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA"):
            choose_device("cuda")
