"""Steps of four frames, of two and of one (spec 3.2): how the encoder chooses them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from command_line import called
from network_helpers import silent_hybrid
from numpy.typing import NDArray
from test_step_lists import records_of
from variants import HYBRID

from tokcodec.chunks import Entropy
from tokcodec.codec import Codec
from tokcodec.coders import _step_frames
from tokcodec.errors import UsageError
from tokcodec.frames import Colour, VideoInfo
from tokcodec.geometry import STEP_FRAMES
from tokcodec.pipeline import EncodeSettings
from tokcodec.probability import AUTOREGRESSIVE
from tokcodec.rate import Rate
from tokcodec.tokenizer.allocation import RateDistortionAllocator, RateDistortionConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.step_length import CALM, PATIENCE, TOO_LONG, StepErrors, StepLength
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder, TokenStep
from tokcodec.tokens import spread_levels

Frames = NDArray[np.uint8]


def silent() -> Tokenizer:
    """A hybrid whose networks say nothing, so that it shows what bits and motion make."""
    return silent_hybrid(HYBRID)


def noise(height: int, width: int, *, seed: int, blot: int = 12) -> Frames:
    """A picture of soft blots, uint8 `(height, width, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, height // blot + 1, width // blot + 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (255 * fine[0].expand(3, -1, -1).permute(1, 2, 0)).to(torch.uint8).numpy()


def turning(count: int) -> Frames:
    """A picture that jumps about, each time elsewhere, so that no frame is halfway between others."""
    wide = noise(200, 240, seed=3)
    places = np.random.default_rng(5).integers(0, 24, (count, 2))
    return np.stack([wide[y : y + 96, x : x + 128] for y, x in places])


def gliding(count: int) -> Frames:
    """A picture that glides along evenly."""
    wide = noise(96, 128 + 2 * count, seed=4, blot=24)
    return np.stack([wide[:, 2 * n : 2 * n + 128] for n in range(count)])


def coded(frames: Frames, *, step_frames: tuple[int, ...] = STEP_FRAMES, length: object = None) -> list[TokenStep]:
    encoder = StreamEncoder(
        silent(), RateDistortionAllocator(RateDistortionConfig(slope=3000.0)), step_frames=step_frames
    )
    if length is not None:
        encoder._length = length  # type: ignore[assignment]
    steps = [step for step in map(encoder.push, frames) if step is not None]
    return steps + encoder.end_chunk()


def shown(steps: list[TokenStep]) -> Frames:
    model = silent()
    decoder = StreamDecoder(model, height=96, width=128)
    pictures = []
    for number, step in enumerate(steps):
        kept = spread_levels(step.levels, model.config.geometry, rows=12, columns=16)
        pictures.append(decoder.step(step.indices, kept, step.vectors, frames=step.frames if number else None))
        assert len(pictures[-1]) == step.frames
    return np.concatenate(pictures)


# --- the encoder's choice ---


def errors(excess: float) -> StepErrors:
    return StepErrors(middle=None if excess == 1 else excess * 104 - 4, last=100.0)


def test_excess_compares_the_middle_with_the_last():
    assert errors(1).excess == 1
    assert errors(1.5).excess == pytest.approx(1.5)
    assert not StepLength.is_too_long(None)
    assert not StepLength.is_too_long(errors(TOO_LONG - 0.01))
    assert StepLength.is_too_long(errors(TOO_LONG + 0.01))
    assert not StepLength.is_too_long(StepErrors(middle=1.0, last=0.5)), "nobody sees that"


def test_lengths_fall_at_once_and_rise_after_a_while():
    length = StepLength()
    assert length.candidates(4) == [4, 2, 1]
    length.took(1, tried=4, errors=errors(1))
    for _ in range(PATIENCE):
        assert length.candidates(4) == [1]
        length.took(1, tried=1, errors=errors(1))
    assert length.candidates(4) == [2, 1]
    length.took(1, tried=2, errors=errors(1))
    assert length.candidates(4) == [1], "a try that failed begins the wait anew"
    for _ in range(PATIENCE):
        length.took(1, tried=1, errors=errors(1))
    length.took(2, tried=2, errors=errors(CALM + 0.05))
    for _ in range(2 * PATIENCE):
        assert length.candidates(4) == [2, 1], "neither too long nor calm"
        length.took(2, tried=2, errors=errors(CALM + 0.05))
    length.took(2, tried=2, errors=errors(CALM - 0.01))
    assert length.candidates(4) == [4, 2, 1]
    length.took(2, tried=4, errors=errors(1.01))
    length.start_chunk()
    assert length.candidates(4) == [4, 2, 1]


@pytest.mark.parametrize(("waiting", "expected"), [(3, [2, 1]), (2, [2, 1]), (1, [1])])
def test_at_the_end_no_step_is_longer_than_what_is_left_but_one_of_four(waiting: int, expected: list[int]):
    length = StepLength()
    assert length.candidates(waiting) == [4, *expected]
    length.took(2, tried=4, errors=errors(1.1))
    assert length.candidates(waiting) == expected
    assert StepLength((4,)).candidates(waiting) == [4]
    assert StepLength((2,)).candidates(1) == [2]


def test_what_jumps_is_coded_frame_by_frame_and_what_glides_is_not():
    jumps = coded(turning(13))
    assert [step.frames for step in jumps[:4]] == [1, 1, 1, 1]
    glides = [step.frames for step in coded(gliding(13))[1:]]
    assert glides[0] == 4
    assert 1 not in glides
    usual = coded(turning(13), step_frames=(4,))
    assert {step.frames for step in usual[1:]} == {4}

    def worst(steps: list[TokenStep]) -> float:
        return float(np.square(shown(steps)[:13].astype(float) - turning(13)).mean(axis=(1, 2, 3)).max())

    assert worst(jumps) < 0.25 * worst(usual)


@pytest.mark.parametrize("step_frames", [(1,), (2,), (2, 1), (4, 2, 1)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 10])
def test_every_frame_is_shown_where_it_was(count: int, step_frames: tuple[int, ...]):
    steps = coded(gliding(count), step_frames=step_frames)
    frames = sum(step.frames for step in steps)
    assert frames - steps[-1].frames < count <= frames
    if step_frames == (1,):
        assert len(steps) == count
    error = np.square(shown(steps)[:count].astype(float) - gliding(count)).mean(axis=(1, 2, 3))
    assert error.max() < 150


class Fixed(StepLength):
    """Lengths that are known before."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__()
        self.lengths = list(lengths)

    def start_chunk(self) -> None:
        pass

    def candidates(self, waiting: int) -> list[int]:
        return [self.lengths.pop(0)]

    def took(self, length: int, *, tried: int, errors: StepErrors) -> None:
        pass


def test_steps_that_were_too_long_leave_nothing_behind():
    frames = np.concatenate([gliding(5), turning(6), gliding(6)])
    chosen = coded(frames)
    lengths = [step.frames for step in chosen[1:]]
    assert 4 in lengths
    assert 1 in lengths
    again = coded(frames, length=Fixed(lengths))
    for one, other in zip(chosen, again, strict=True):
        assert one.frames == other.frames
        for name in ("indices", "levels", "vectors"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_frames_that_are_not_shown_have_even_motion():
    steps = coded(turning(9), step_frames=(2,)) + coded(turning(5), step_frames=(1,))
    for step in steps:
        maps = np.split(step.vectors, 7)
        if step.frames == 2:
            np.testing.assert_array_equal(maps[3], maps[1] >> 1)
            np.testing.assert_array_equal(maps[5], maps[2] >> 1)
        if step.frames == 1:
            np.testing.assert_array_equal(maps[1], maps[0] >> 1)
            np.testing.assert_array_equal(maps[2], -(maps[0] >> 1))


def test_settings_are_checked():
    options = {"quality": 3, "chunk_frames": 17, "effort": 1}
    for wrong in ((), (3,), (4, 0)):
        with pytest.raises(UsageError, match="4, 2 or 1"):
            EncodeSettings(**options, step_frames=wrong)  # type: ignore[arg-type]


def test_the_command_line_chooses_them(tmp_path: Path):
    frames, source = turning(13), tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = {}
    for name, options in {"chosen": [], "even": ["--effort", "0"]}.items():
        target = tmp_path / f"{name}.tok"
        done = called("encode", source, target, "--quality", "4", "--no-scene-cuts", *options)
        assert done.returncode == 0, done.stderr
        (found[name],) = records_of(target.read_bytes())
    assert 1 in found["chosen"].step_frames
    assert found["even"].step_frames == ()
    lines = called("info", tmp_path / "chosen.tok").stdout.decode()
    assert f"{found['chosen'].step_frames.count(1)} of 1" in lines
    assert called("decode", tmp_path / "chosen.tok", tmp_path / "out.mkv", "--codec", "ffv1").returncode == 0
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13


def test_a_rate_is_met_with_short_steps_and_short_chunks():
    frames = np.concatenate([gliding(12), turning(12), gliding(3)])
    model = Codec(device="cpu")
    data = model.encode_frames(frames, rate=Rate(bits_per_pixel=0.1), chunk_frames=17)
    records = records_of(data)
    assert any(record.step_frames for record in records)
    assert sum(record.frames for record in records) == len(frames) == len(model.decode_frames(data).frames)
    assert 8 * len(data) / frames[..., 0].size == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("size", "entropy", "expected"),
    [
        ((640, 360), "adaptive", STEP_FRAMES),
        ((1920, 1080), "adaptive", STEP_FRAMES),
        ((7680, 4320), "adaptive", (4,)),  # 33.7 million tokens in a chunk of one step a frame
        ((320, 180), AUTOREGRESSIVE, STEP_FRAMES),
        ((854, 480), AUTOREGRESSIVE, (4,)),
    ],
)
def test_steps_are_short_only_where_any_reader_takes_them(
    size: tuple[int, int], entropy: str, expected: tuple[int, ...]
):
    settings = EncodeSettings(quality=3, chunk_frames=65, effort=1, entropy=Entropy(model=entropy))
    info = VideoInfo(width=size[0], height=size[1], time_base=Fraction(1, 24), frame_rate=Fraction(24), colour=Colour())
    geometry = replace(HYBRID.geometry, bits_per_token=62, level_bits=(0, 62))
    assert _step_frames(settings, geometry, info) == expected
    assert _step_frames(replace(settings, effort=0), geometry, info) == (4,)
