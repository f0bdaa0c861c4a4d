"""Where a chunk begins because a scene does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokcodec.codec import Codec
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.scene_cuts import MEMORY, SceneCuts, least_difference

Frames = NDArray[np.uint8]


def scene(seed: int, count: int, *, height: int = 96, width: int = 160, speed: int = 2) -> Frames:
    """A window that pans over soft blots."""
    import cv2

    room = width + speed * count
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, room // 16 + 1, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (room, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, speed * n : speed * n + width] for n in range(count)])


def cuts(frames: Frames) -> list[int]:
    watch = SceneCuts()
    return [number for number, pixels in enumerate(frames) if watch.is_cut(pixels)]


@given(more=st.integers(1, 9), seeds=st.lists(st.integers(0, 999), min_size=2, max_size=3, unique=True))
def test_a_cut_is_found_where_it_is(more: int, seeds: list[int]):
    parts = [scene(seed, MEMORY + more) for seed in seeds]
    assert cuts(np.concatenate(parts)) == [(MEMORY + more) * number for number in range(1, len(seeds))]


@pytest.mark.parametrize("speed", [0, 3, 12, 20, 40])
def test_a_pan_is_none(speed: int):
    assert cuts(scene(3, 12, speed=speed)) == []


def test_brightness_and_a_fade_are_none():
    still = scene(4, 1)[0].astype(int)
    brighter = np.stack([still, still, still + 60, still, still]).clip(0, 255).astype(np.uint8)
    assert cuts(brighter) == []
    fade = np.stack([still * (20 - n) // 20 for n in range(20)]).astype(np.uint8)
    assert cuts(fade) == []


@pytest.mark.parametrize("value", [0, 255])
def test_blank_frames_are_passed_over(value: int):
    frames = scene(8, 14)
    frames[5:7] = value
    assert cuts(frames) == []
    frames[7:] = scene(9, 7)
    assert cuts(frames) == [7], "another scene behind them is seen"


def test_what_leaps_all_the_time_has_no_cut_in_each_frame():
    one, other = scene(10, 1)[0], scene(11, 1)[0]
    strobe = np.stack([one, other] * 10)
    assert cuts(strobe) == []
    blown = np.stack([one] * 6 + [(3 * one.astype(int)).clip(0, 255).astype(np.uint8)] + [one] * 6)
    assert len(cuts(blown)) <= 1
    frames = np.stack([one] * 4 + [other] + [one] * 3)
    assert cuts(frames) == [4], "no second one right behind"


def test_noise_and_pictures_without_anything_are_none():
    rng = np.random.default_rng(5)
    grain = (scene(6, 1).astype(int) + rng.integers(-20, 21, (8, 96, 160, 3))).clip(0, 255).astype(np.uint8)
    assert cuts(grain) == []
    assert cuts(np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 255, 0, 255)])) == []
    assert cuts(rng.integers(0, 256, (3, 1, 1, 3), dtype=np.uint8)) == []


def test_shifts_are_tried_both_ways():
    picture = np.random.default_rng(7).normal(size=(20, 30)).astype(np.float32)
    for down, right in ((3, -4), (-5, 2), (0, 0), (10, -10)):
        moved = np.roll(picture, (down, right), axis=(0, 1))
        assert least_difference(moved, picture) == 0
    assert least_difference(np.roll(picture, 11, axis=1), picture) > 0.5


def test_chunks_begin_where_scenes_do():
    frames = np.concatenate([scene(1, 6), scene(2, 9)])  # of a size that encodes fast
    codec = Codec(device="cpu")

    def chunks(**options: bool) -> list[int]:
        data = codec.encode_frames(frames, quality=1, **options)
        assert len(codec.decode_frames(data).frames) == 15
        return [item.frames for item in read_stream(io.BytesIO(data)) if isinstance(item, ChunkRecord)]

    assert chunks() == [6, 9]
    assert chunks(scene_cuts=False) == [15]
