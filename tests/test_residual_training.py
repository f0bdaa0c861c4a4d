"""Residuals where things are trained: in the loop of a tokenizer, and the network that codes them (spec 7.12)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from network_helpers import silent_hybrid
from picture_films import WAVELET

from tokcodec.codec import Codec
from tokcodec.errors import UsageError
from tokcodec.probability.network_file import unpack
from tokcodec.probability.picture_network import PictureNetwork
from tokcodec.residual_bits import RESIDUAL_BANDS
from tokcodec.tokenizer.search import search_clip
from tokcodec.training import residual_coding
from tokcodec.training.config import TrainConfig
from tokcodec.training.objective import Allocations, clip_losses, residuals_of
from tokcodec.training.picture_coding import observations, save, train


def appearing(frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A large soft spot that comes and goes over an even gradient: uint8 `(F, H, W, 3)`."""
    y, x = np.mgrid[:height, :width]
    spot = np.exp(-((y - height / 2) ** 2 + (x - width / 2) ** 2) / (2 * 22.0**2))
    ground = 60 + 60 * x / width
    shown = [ground + 110 * spot * np.sin(0.7 * number) ** 2 for number in range(frames)]
    return np.stack([np.repeat(each[..., None], 3, axis=-1) for each in shown]).clip(0, 255).astype(np.uint8)


def clip() -> torch.Tensor:
    return torch.from_numpy(appearing(9)).permute(0, 3, 1, 2).float().div(127.5).sub(1).unsqueeze(0)


def test_training_adds_residuals_to_what_is_predicted() -> None:
    """Where tokens keep nothing and networks say nothing, a residual is all that tells a spot that appears."""
    frames = clip()
    nothing = Allocations(
        levels=torch.zeros(1, 3, 12, 16, dtype=torch.int64), still=torch.zeros(1), slope=torch.full((1,), 2000.0)
    )
    errors = {}
    for residuals in (False, True):
        model = silent_hybrid(replace(WAVELET, residuals=residuals))
        shown: list[torch.Tensor] = []
        terms = clip_losses(
            model, frames, nothing, TrainConfig(), "full", motion=search_clip(frames), show=shown.append
        )
        assert torch.isfinite(terms["mse"])
        errors[residuals] = float((shown[0][:, [4, 8]] - frames[:, [4, 8]]).square().mean())
    assert errors[True] < 0.2 * errors[False]


def test_residuals_of_training_follow_lambda() -> None:
    missing = torch.cat([clip()[:, 4] - clip()[:, 0]] * 2)
    fine, coarse = residuals_of(missing, torch.tensor([500.0, 50000.0]))
    assert float((fine - missing[0]).square().mean()) < 0.5 * float((coarse - missing[0]).square().mean())
    torch.testing.assert_close(residuals_of(missing[:1], None)[0], residuals_of(missing[:1], torch.tensor([1500.0]))[0])
    assert not residuals_of(torch.zeros(1, 3, 16, 16), torch.tensor([500.0])).any()


def film(folder: Path, frames: np.ndarray) -> None:
    with av.open(str(folder / "spot.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames.shape[1:3], "yuv420p", 4_000_000
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))


def test_the_network_learns_from_what_is_sent(tmp_path: Path) -> None:
    """Every coefficient of the residuals of a video is seen once, and what is learned is a valid network."""
    film(tmp_path, appearing(21))
    rows, sizes = residual_coding.gather(tmp_path, count=4, exclude=(), seed=2)
    codec = Codec(device="cpu", entropy="adaptive")
    (frames,) = residual_coding.parts_of(tmp_path, count=4, exclude=(), seed=2)
    quality = int(np.random.default_rng(2).integers(1, 7))
    sent = list(residual_coding.residuals_of(codec, frames, quality=quality))
    assert sent
    assert all(each.coefficients.shape == (3, 24, 32) for each in sent)
    assert int((sizes[:, 0] > 0).sum()) == sum(np.count_nonzero(each.coefficients) for each in sent)
    seen = [observations(each.coefficients, each.scale, RESIDUAL_BANDS) for each in sent]
    assert len(rows) == sum(len(row) for each in seen for row, _ in each)
    digest = save(train(rows, sizes, steps=40, batch=512), tmp_path, name="residual")
    PictureNetwork(unpack((tmp_path / f"residual-{digest[:12]}.safetensors").read_bytes()))


def test_without_residuals_there_is_nothing_to_learn(tmp_path: Path) -> None:
    film(tmp_path, appearing(1).repeat(9, axis=0))
    with pytest.raises(UsageError, match="no videos of which residuals are sent"):
        residual_coding.gather(tmp_path, count=1, exclude=(), seed=2)
