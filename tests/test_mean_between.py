"""The variant `mean_between`: frames between are a mean, while a network mends last frames (spec section 8.5)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spec_decoder
import torch
from picture_films import WAVELET
from test_plain import COLUMNS, ROWS, as_in_spec, displacement_of, first_of, noise, some_bits, vectors_of

from tokcodec.errors import ModelError
from tokcodec.tokenizer.between import Between, Mean
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.cost import measure_cost
from tokcodec.tokenizer.first_picture import restored
from tokcodec.tokenizer.hybrid import HybridDecoder
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.state import SHOWN
from tokcodec.training.config import read_run_config
from tokcodec.training.presets import CPU as CPU_RUN
from tokcodec.training.presets import PRESETS
from tokcodec.weights import find_by_name, load_tokenizer, save_tokenizer

NETWORK = replace(WAVELET, residuals=True)
MEAN = replace(NETWORK, mean_between=True)
BY_BLOCKS = replace(MEAN, intra=True)


def random_model(config: TokenizerConfig, *, share: float) -> Tokenizer:
    """Weights large enough for the network of last frames to show."""
    model = Tokenizer(config)
    generator = torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 4:
                size = (0.3 if name.endswith("repair_out.weight") else 1.0) / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
            if name.endswith("between.share"):
                parameter.fill_(share)
    return model


def decoder_of(model: Tokenizer) -> HybridDecoder:
    assert isinstance(model.decoder, HybridDecoder)
    return model.decoder


def test_a_configuration_says_it() -> None:
    assert json.loads(MEAN.to_json())["mean_between"] is True
    assert TokenizerConfig.from_json(MEAN.to_json()) == MEAN
    fields = json.loads(MEAN.to_json())
    del fields["mean_between"]
    assert json.dumps(fields, sort_keys=True) == NETWORK.to_json(), "weights of before do not say it"
    assert MEAN.geometry == NETWORK.geometry
    assert load_tokenizer(find_by_name("base")).config.mean_between is True
    assert CPU_RUN.model.mean_between is True


@pytest.mark.parametrize("value", [1, None, "true"])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ModelError, match="mean_between of a tokenizer must be true or false"):
        replace(MEAN, mean_between=value)


def test_only_a_hybrid_has_frames_between(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="frames between are those of a hybrid"):
        TokenizerConfig(mean_between=True)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"model": {"hybrid": False, "encoder_blocks": 1}}), encoding="utf-8")
    assert read_run_config(path, PRESETS, CPU_RUN).model.mean_between is False

    class Config(TokenizerConfig):
        def to_json(self) -> str:
            return json.dumps(json.loads(TokenizerConfig().to_json()) | {"mean_between": True})

    model = Tokenizer(TokenizerConfig(frame_channels=1, latent_channels=1))
    model.config = Config()
    entry = save_tokenizer(model, tmp_path, name="own")
    with pytest.raises(spec_decoder.SpecError) as found:
        spec_decoder.read_weights(entry.path.read_bytes())
    assert found.value.kind == "M"
    with pytest.raises(ModelError):
        load_tokenizer(entry)


def test_one_number_stands_for_a_network() -> None:
    without, with_network = Tokenizer(MEAN).state_dict(), Tokenizer(NETWORK).state_dict()
    own = set(without) - set(with_network)
    assert own == {"decoder.between.share"}
    assert without["decoder.between.share"].tolist() == [0.5]
    assert {name for name in set(with_network) - set(without) if ".between." not in name} == set()
    assert isinstance(decoder_of(Tokenizer(MEAN)).between, Mean)
    assert isinstance(decoder_of(Tokenizer(NETWORK)).between, Between)
    less = (
        measure_cost(Tokenizer(NETWORK)).decoder_flops_per_pixel - measure_cost(Tokenizer(MEAN)).decoder_flops_per_pixel
    )
    assert less > 0


@pytest.mark.parametrize(("config", "share"), [(MEAN, 0.34375), (BY_BLOCKS, 0.625)])
@torch.no_grad()
def test_the_decoder_of_the_specification_shows_the_same(config: TokenizerConfig, share: float, tmp_path: Path) -> None:
    entry = save_tokenizer(random_model(config, share=share), tmp_path, name="own")
    model = load_tokenizer(entry)
    network = spec_decoder.Network(*spec_decoder.read_weights(entry.path.read_bytes()))
    picture = first_of(config)
    ours = decoder_of(model).begin(restored(picture, torch.zeros(0)).unsqueeze(0))
    _, theirs = network.begin(as_in_spec(picture))
    for number, count in enumerate((4, 2, 1, 4), start=1):
        signs, kept = some_bits(number)
        vectors = vectors_of(number)
        found, ours = model.decoder.step(signs, kept, ours, displacement_of(vectors), shown=SHOWN[count])
        frames, theirs = network.step((signs * kept)[0].numpy(), kept[0].numpy(), theirs, vectors, None)
        np.testing.assert_allclose(np.stack(frames)[SHOWN[count]], found[0].numpy(), atol=5e-3)
    assert float((found - ours.picture).abs().max()) > 0.1, "frames differ"


def test_the_share_is_learned() -> None:
    model = random_model(MEAN, share=0.5)
    decoder = decoder_of(model)
    state = decoder.begin(noise(1, 3, 8 * ROWS, 8 * COLUMNS))
    signs, kept = some_bits(1)
    frames, _ = decoder.step(signs, kept, state, displacement_of(vectors_of(1)))
    frames.square().mean().backward()
    share = dict(model.named_parameters())["decoder.between.share"]
    assert share.grad is not None
    assert float(share.grad.abs()) > 0
