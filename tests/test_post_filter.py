"""The filter behind the decoder: what it does, styles, and its weights."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from command_line import called
from media import picture
from network_helpers import smooth

from tokcodec import Codec
from tokcodec.bench.codecs.tokcodec import make_tokcodec
from tokcodec.chunks import decode_chunk
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.errors import ModelError
from tokcodec.tokenizer import post_filter, stream
from tokcodec.tokenizer.cost import post_filter_flops_per_pixel
from tokcodec.tokenizer.post_filter import (
    LEAST_SCALE,
    SCALES,
    SCALES_APART,
    PostFilter,
    PostFilterConfig,
    share_of_scale,
    shown_through,
)
from tokcodec.tokenset import read_chunks
from tokcodec.training.coded_clips import to_batch
from tokcodec.weights import choose_post_filter, find_by_name, load_post_filter, load_tokenizer, post_filters, registry
from tokcodec.weights.post_filters import post_filter_entries, save_post_filter

SMALL = PostFilterConfig(channels=4, inner_channels=8, blocks=1)
FRAMES = np.stack([picture(48, 32, index) for index in range(6)])


TOLD = replace(SMALL, by_scale=True)
"""One that is told the quantizer."""


def loud(config: PostFilterConfig = SMALL) -> PostFilter:
    """A filter that changes what it is given, and by quantizer otherwise if it is told it."""
    torch.manual_seed(0)
    network = PostFilter(config)
    with torch.no_grad():
        network.change_out.weight.normal_(std=0.05)
        if network.by_scale is not None:
            network.by_scale.values.normal_()
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


def test_a_configuration_says_whether_the_filter_is_told_the_quantizer():
    for config in (SMALL, TOLD):
        fields = json.loads(config.to_json())
        assert fields.get("by_scale") is (True if config.by_scale else None), "earlier versions read the others"
        assert PostFilterConfig.from_json(config.to_json()) == config
    assert PostFilterConfig().by_scale is False
    fields.pop("by_scale")
    assert PostFilterConfig.from_json(json.dumps(fields)) == SMALL, "weights of before do not say it"
    for wrong in (1, 0, None, "true", 1.0, [True]):
        with pytest.raises(ModelError, match="by_scale of a post-filter must be true or false, not "):
            PostFilterConfig.from_json(json.dumps({**fields, "by_scale": wrong}))
        with pytest.raises(ModelError, match=f"not {re.escape(repr(wrong))}$"):
            PostFilterConfig(by_scale=wrong)  # type: ignore[arg-type]
    for wrong in (True, False):
        with pytest.raises(ModelError, match="blocks of a post-filter must be a whole number"):
            PostFilterConfig(blocks=wrong)
    with pytest.raises(ModelError, match="unknown or missing keys"):
        PostFilterConfig.from_json(json.dumps({**fields, "by_scales": True}))


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


@pytest.mark.parametrize("name", ["base", "fast"])
def test_what_ships(name: str):
    """For all tokenizers the same: vivid unless another is asked for, and a lighter one that makes nearly the same."""
    tokenizer = find_by_name(name).sha256
    vivid, light = (choose_post_filter(style, tokenizer=tokenizer) for style in ("auto", "light"))
    assert vivid is not None
    assert light is not None
    assert vivid == choose_post_filter("vivid", tokenizer=tokenizer) == choose_post_filter("base-vivid", tokenizer="")
    assert {entry.name for entry in post_filter_entries() if tokenizer in entry.tokenizers} == {vivid.name, light.name}
    assert (vivid.name, light.name) == ("base-vivid", "light")
    pictures = torch.cat([smooth(6, 8, seed) for seed in range(2)])
    networks = [load_post_filter(entry) for entry in (vivid, light)]
    with torch.inference_mode():
        one, other = (network.change(pictures) for network in networks)
    assert (one - other).square().mean() < 0.5 * one.square().mean()
    costs = [post_filter_flops_per_pixel(network.config) for network in networks]
    assert 4 * costs[1] < costs[0]


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


def test_fine_pictures_show_less_of_a_filters_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of one that is not told the quantizer."""
    shares = [share_of_scale(scale) for scale in range(64)]
    assert shares == sorted(shares)
    assert (shares[0], shares[22], shares[-1]) == (0.65, 0.75, 1.0)
    data = Codec(device="cpu", style="faithful").encode_frames(FRAMES, quality=4)
    style = str(save_post_filter(loud(), tmp_path, name="loud").path)
    plain, filtered = (Codec(device="cpu", style=each).decode_frames(data).frames for each in ("faithful", style))
    seen: list[int] = []
    monkeypatch.setattr(post_filter, "share_of_scale", lambda scale: seen.append(scale) or 1.0)
    whole = Codec(device="cpu", style=style).decode_frames(data).frames
    [chunk] = [item for item in read_stream(io.BytesIO(data)) if isinstance(item, ChunkRecord)]
    first = decode_chunk(chunk, read_stream(io.BytesIO(data)).header).picture
    assert first is not None
    assert seen == [first.scale] * 3, "steps of one frame, of four and of one"
    assert 0.65 <= shares[first.scale] < 1.0
    changes = [np.abs(each.astype(int) - plain).mean() for each in (filtered, whole)]
    assert changes[0] == pytest.approx(shares[first.scale] * changes[1], rel=0.1)


# --- those that are told the quantizer ---


@pytest.mark.parametrize("scale", [None, 0, 16, 21, 32, 63])
def test_a_fresh_filter_that_is_told_the_quantizer_is_as_one_that_is_not(scale: int | None):
    plain, told = loud(), PostFilter(TOLD)
    missing = told.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == ["by_scale.values"]
    pictures = torch.cat([smooth(3, 5, seed) for seed in range(2)])
    scales = None if scale is None else torch.full((2,), float(scale))
    with torch.inference_mode():
        assert torch.equal(told(pictures, scales), plain(pictures))
        assert torch.equal(plain(pictures, scales), plain(pictures)), "which does not look at it"


def test_values_lie_on_straight_lines_between_those_that_are_learned():
    told = loud(TOLD).by_scale
    assert told is not None
    values = told.values.detach()
    assert values.shape == (SCALES, 2 * SMALL.inner_channels + SMALL.channels)
    scales = torch.arange(64.0)
    with torch.inference_mode():
        found = told(scales)
    assert found.shape == (64, values.shape[1], 1, 1)
    for scale, own in enumerate(found.flatten(1)):
        place = min(max((scale - LEAST_SCALE) / SCALES_APART, 0), SCALES - 1)  # 16, 20 to 32
        below, share = int(place), place % 1
        above = min(below + 1, SCALES - 1)
        torch.testing.assert_close(own, (1 - share) * values[below] + share * values[above])
    for number, scale in enumerate((16, 20, 24, 28, 32)):
        torch.testing.assert_close(found[scale, :, 0, 0], values[number], rtol=0, atol=0)
    assert torch.equal(found[:17], found[16].expand(17, -1, -1, -1)), "the same below"
    assert torch.equal(found[32:], found[32].expand(32, -1, -1, -1)), "and above"
    with torch.inference_mode():
        torch.testing.assert_close(told(torch.tensor([18.5])), 0.375 * told(torch.tensor([16.0])) + 0.625 * found[[20]])


def test_each_picture_has_the_quantizer_of_its_own():
    network = loud(TOLD)
    pictures, scales = torch.cat([smooth(3, 5, 1)] * 3), torch.tensor([16.0, 23.0, 40.0])
    with torch.inference_mode():
        together = network(pictures, scales)
        alone = torch.cat([network(pictures[:1], scale) for scale in scales.split(1)])
        ends = [network(pictures[:1], torch.tensor([float(scale)])) for scale in (3, 32)]
        untold = network(pictures[:1])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(ends), together[::2], atol=1e-5, rtol=0)
    for one, other in itertools.combinations([*together, *untold], 2):
        assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("scale", [None, 5, 16, 22, 24, 25, 27, 40])
def test_what_is_shown_of_a_change(scale: int | None):
    """A share of that of a filter that is not told the quantizer; all of that of one that is, and learned how much."""
    pictures = torch.cat([smooth(3, 5, seed) for seed in range(2)])
    share = 1.0 if scale is None else share_of_scale(scale)
    assert (share < 1) == (scale in (5, 16, 22, 24, 25))
    with torch.inference_mode():
        plain, told = loud(), loud(TOLD)
        whole = plain(pictures)
        found = shown_through(plain, pictures, scale)
        torch.testing.assert_close(found, pictures + share * (whole - pictures))
        assert (share < 1) or torch.equal(found, whole)
        scales = None if scale is None else torch.full((2,), float(scale))
        assert torch.equal(shown_through(told, pictures, scale), told(pictures, scales))
        assert not torch.equal(told(pictures, scales), whole) or scale is None


def test_weights_of_one_that_is_told_the_quantizer_come_back(tmp_path: Path):
    network = loud(TOLD)
    entry = save_post_filter(network, tmp_path, name="told")
    loaded = load_post_filter(entry)
    assert loaded.config == TOLD
    assert "by_scale.values" in loaded.state_dict()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.bfloat16().float(), rtol=0, atol=0)
    network.config = SMALL  # the tensors of one, and the configuration of the other
    with pytest.raises(ModelError, match="the tensors do not fit the configuration"):
        load_post_filter(save_post_filter(network, tmp_path, name="neither"))
    plain = loud()
    plain.config = TOLD
    with pytest.raises(ModelError, match="the tensors do not fit the configuration"):
        load_post_filter(save_post_filter(plain, tmp_path, name="either"))


@pytest.mark.parametrize("pictures", [True, False])
def test_a_file_is_shown_through_a_filter_that_is_told_its_quantizer(
    pictures: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That of each chunk's first picture; none where chunks have no such picture."""
    model = tiny_model.write_weights(tmp_path, motion=7, pictures=pictures)
    entry = save_post_filter(loud(TOLD), tmp_path, name="told")
    codec = Codec(model=str(model), device="cpu", style=str(entry.path))
    data = codec.encode_frames(FRAMES, quality=4, effort=0, chunk_frames=5, scene_cuts=False)
    scales = [None if chunk.picture is None else chunk.picture.scale for chunk in read_chunks(io.BytesIO(data))]
    assert (len(scales), all(scales)) == (2, pictures)
    seen: list[int | None] = []

    def spy(network: PostFilter, shown: torch.Tensor, scale: int | None) -> torch.Tensor:
        seen.append(scale)
        return shown_through(network, shown, scale)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "shown_through", spy)
        found = codec.decode_frames(data).frames
    assert seen == [scales[0], scales[0], scales[1]], "of two steps, and of one"
    plain = Codec(model=str(model), device="cpu", style="faithful").decode_frames(data).frames
    network = load_post_filter(entry)
    with torch.inference_mode():
        wanted = shown_through(network, to_batch(list(plain[:5])), scales[0])
    assert (to_batch(list(found[:5])) - wanted.clamp(-1, 1)).abs().mean() < 0.02, "but for rounding"
    assert (found != plain).any()


# --- the command line ---


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
