"""What the tests named `test_pictures_` share: fixtures of a small model with such pictures, and a film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from network_helpers import silent_hybrid
from numpy.typing import NDArray
from test_conceal import records_of
from test_steps import gliding
from variants import HYBRID

from tokcodec.codec import Codec
from tokcodec.container import ContainerWriter
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder, TokenStep
from tokcodec.tokens import spread_levels

Frames = NDArray[np.uint8]
WAVELET = replace(HYBRID, wavelet=True)
CONFIG_JSON = tiny_model.HYBRID_CONFIG_JSON[:-1] + ', "wavelet": true}'
NARROW_JSON = CONFIG_JSON.replace("36", "18", 1).replace("[0, 6, 12, 18, 24, 30, 36]", "[0, 3, 6, 9, 12, 15, 18]")
"""With as many bits as the tiny prior knows."""


def write_weights(folder: Path, config: str = CONFIG_JSON) -> Path:
    path = folder / "tiny-wavelet.safetensors"
    path.write_bytes(tiny_model.weights_bytes(config))
    return path


@pytest.fixture(scope="module", name="weights")
def weights_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", name="codec")
def codec_fixture(weights: Path) -> Codec:
    return Codec(model=str(weights), device="cpu")


@pytest.fixture(scope="module", name="film")
def film_fixture(codec: Codec) -> bytes:
    """Fourteen frames in chunks of five, of which the last has four."""
    return codec.encode_frames(glide(14), chunk_frames=5, quality=5, effort=0, frame_rate=24, scene_cuts=False)


def glide(count: int) -> Frames:
    return gliding(count)[:, :60, :90]


def silent() -> Tokenizer:
    """A hybrid whose networks say nothing, so that it shows what pictures, bits and motion make."""
    return silent_hybrid(WAVELET)


def coded(
    model: Tokenizer, frames: Frames, *, slope: float = 500.0, step_frames: Sequence[int] = (4,)
) -> tuple[StreamEncoder, list[TokenStep]]:
    allocator = RateDistortionAllocator(RateDistortionConfig(slope=slope))
    encoder = StreamEncoder(model, allocator, step_frames=step_frames)
    return encoder, [step for step in map(encoder.push, frames) if step is not None]


def decoded(model: Tokenizer, steps: Sequence[TokenStep], *, height: int, width: int) -> tuple[StreamDecoder, Frames]:
    decoder = StreamDecoder(model, height=height, width=width)
    pictures = []
    for number, step in enumerate(steps):
        rows, columns = step.indices.shape
        kept = spread_levels(step.levels, model.config.geometry, rows=rows, columns=columns)
        pictures.append(
            decoder.step(
                step.indices,
                kept,
                step.vectors,
                frames=step.frames if number else None,
                picture=step.picture,
                residual=step.residual,
            )
        )
    return decoder, np.concatenate(pictures)


def error_of(shown: Frames, wanted: Frames) -> float:
    return float(np.square(shown.astype(float) - wanted).mean())


def with_header(data: bytes, **changes: object) -> bytes:
    """The same records with another header."""
    header, records, _ = records_of(data)
    sink = io.BytesIO()
    with ContainerWriter(sink, replace(header, extensions=(), **changes)) as writer:  # type: ignore[arg-type]
        for record in records:
            writer.write_chunk(record)
    return sink.getvalue()
