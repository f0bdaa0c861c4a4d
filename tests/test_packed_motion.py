"""Motion that is searched once and handed out with the frames: what is stored, how it is cut, that no loop searches."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from media import make_video

from tokcodec.errors import UsageError
from tokcodec.tokenizer import search as search_module
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.motion import MOTION_LIMIT, MOTION_UNIT, code_of_motion, motion_of_code, warp
from tokcodec.tokenizer.search import search_clip
from tokcodec.training import motion as motion_module
from tokcodec.training.camera import CameraConfig, camera_move
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.loop import Trainer
from tokcodec.training.motion import CODE_STEP, EVERY_SECOND, LAGS, find_motion, stored_motion
from tokcodec.training.packed import PackConfig, Sampler, pack
from tokcodec.training.source import AugmentConfig, Batch, ClipSource, Window, motion_of_stored
from tokcodec.training.store import FrameStore

PLAIN = AugmentConfig(stride_two_share=0.0, flip_share=0.0, camera_share=0.0)


def texture(height: int, width: int) -> torch.Tensor:
    """A smooth random picture, uint8 `(height, width, 3)`."""
    noise = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(1)) * 2 - 0.5
    smooth = F.interpolate(noise, size=(height, width), mode="bicubic", align_corners=False)
    return smooth[0].clamp(0, 1).mul(255).byte().permute(1, 2, 0)


def moving(frames: int, side: int, speed: tuple[int, int]) -> torch.Tensor:
    """A texture that moves by `speed` pixels a frame to the right and down, uint8 `(frames, side, side, 3)`."""
    x, y = (value * (frames - 1) for value in speed)
    whole = texture(side + y, side + x)
    return torch.stack(
        [whole[y - t * speed[1] :, x - t * speed[0] :][:side, :side] for t in range(frames)]
    ).contiguous()


def difference(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Distance of two motions, in units of storage."""
    return (code_of_motion(found) - code_of_motion(expected)).abs() / CODE_STEP


def check_is_searched(batch: Batch) -> None:
    """The motion of a batch is what the encoder's search finds in its frames, to half a unit of storage."""
    expected = search_clip(batch.frames)
    assert batch.motion.shape == expected.shape
    assert batch.motion.dtype == torch.float32
    assert float(expected.abs().max()) > 1, "something moves"
    away = difference(batch.motion, expected)
    assert float((away < 0.51).float().mean()) > 0.99, "but for luma that another machine rounds otherwise"


def test_motion_is_stored_finely():
    code = torch.linspace(-MOTION_LIMIT - 1, MOTION_LIMIT + 1, 2 * 40 * 50).view(1, 40, 50, 2).permute(0, 3, 1, 2)
    stored = stored_motion(torch.sinh(code).numpy())
    assert (stored.shape, stored.dtype) == ((1, 3, 40, 50), np.int8)
    again = motion_of_stored(torch.from_numpy(stored))
    assert again.dtype == torch.float32
    assert float(difference(again, motion_of_code(code)).max()) < 0.51
    still = stored_motion(np.zeros((2, 4, 4)))
    assert not still.any()
    assert not motion_of_stored(torch.from_numpy(still)).any()


def test_what_has_no_motion():
    assert find_motion(np.zeros((1, 48, 64, 3), np.uint8)).shape == (0, len(LAGS), 3, 6, 8)
    small = np.random.default_rng(0).integers(0, 256, (6, 24, 64, 3), dtype=np.uint8)
    assert not find_motion(small).any(), "too small for a search"
    found = find_motion(moving(6, 64, (2, 1)).numpy())
    for start in range(5):
        for number, lag in enumerate(LAGS):
            assert found[start, number].any() == (start + lag < 6), "0 where the clip has ended"


def test_motion_of_whole_frames_is_what_the_encoder_finds():
    store = FrameStore([moving(13, 64, (3, 2))], [], seed=0, augment=PLAIN)
    batch = store.batch(6, 9, 64)
    assert batch.motion.shape == (6, 2, 4, 2, 8, 8)
    assert len({clip[0].sum().item() for clip in batch.frames}) > 1, "clips begin at different frames"
    check_is_searched(batch)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_known_shift_is_found(stride: int):
    augment = AugmentConfig(stride_two_share=float(stride - 1), flip_share=0.0)
    batch = FrameStore([moving(12, 96, (2, 1))], [], seed=0, augment=augment).batch(4, 5, 64)
    for number in range(4):
        pixels = batch.motion[:, 0, number, :, 2:-2, 2:-2] * MOTION_UNIT
        expected = -stride * (number + 1) * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
        assert float((pixels - expected).abs().mean()) < 0.3
    plain = (batch.frames[:, 1:] - batch.frames[:, :1]).abs().mean()
    moved = (batch.frames[:, 1:] - warp(batch.frames[:, 0], batch.motion[:, 0])).abs().mean()
    assert float(moved) < 0.4 * float(plain)


def test_motion_is_cut_and_mirrored_with_the_frames():
    """Pixels say where they are from: red is the column, green the row, blue the frame."""
    t, y, x = torch.meshgrid(torch.arange(20) * 10, torch.arange(67), torch.arange(101), indexing="ij")
    video = torch.stack([x, y, t], dim=-1).to(torch.uint8)
    stored = torch.randint(-128, 128, (19, 6, 3, 8, 12), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    augment = AugmentConfig(stride_two_share=0.5, flip_share=0.5)
    frames, motion = FrameStore([video], [], motion=[stored], seed=0, augment=augment).batch(60, 9, 32)
    places = set()
    for clip, found in zip((frames + 1).mul(127.5).round().int(), motion, strict=True):
        mirrored = int(clip[0, 0, 0, 0]) > int(clip[0, 0, 0, 1])
        left = int(clip[0, 0, 0].min())
        top, first = int(clip[0, 1, 0, 0]), int(clip[0, 2, 0, 0]) // 10
        stride = int(clip[1, 2, 0, 0]) // 10 - first
        places.add((left, top, stride, mirrored))
        for step in range(2):
            for number in range(4):
                lag = LAGS.index(stride * (number + 1))
                cells = stored[first + 4 * stride * step, lag, :, top // 8 : top // 8 + 4, left // 8 : left // 8 + 4]
                expected = motion_of_stored(cells)
                if mirrored:
                    expected = expected.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
                assert torch.equal(found[step, number], expected)
    assert {left for left, *_ in places} == set(range(0, 65, 8)), "crops lie on the grid of the motion"
    assert {place[1:] for place in places} > {(32, 1, True), (32, 2, False)}


def test_mirrored_motion_moves_mirrored_frames():
    augment = AugmentConfig(stride_two_share=0.0, flip_share=1.0)
    batch = FrameStore([moving(9, 96, (3, 1))], [], seed=0, augment=augment).batch(3, 5, 64)
    assert float(batch.motion[:, :, -1, 0].mean()) * MOTION_UNIT == pytest.approx(12, abs=1)
    assert float(batch.motion[:, :, -1, 1].mean()) * MOTION_UNIT == pytest.approx(-4, abs=1)


def test_motion_of_a_camera_is_known():
    photograph = texture(160, 200)
    camera = CameraConfig(still_share=0.0, zoom_per_frame=1.03, roll_degrees=1.0)
    augment = AugmentConfig(camera_share=1.0, flip_share=0.5, camera=camera)
    store = FrameStore([], [photograph.unsqueeze(0)], seed=3, augment=augment)
    frames, motion = store.batch(6, 9, 64)
    searched = search_clip(frames)
    before, later = frames[:, :-1:4], frames[:, 1:].unflatten(1, (2, 4))
    errors = [
        float((warp(before.flatten(0, 1), field.flatten(0, 1)) - later.flatten(0, 1)).abs()[..., 16:-16, 16:-16].mean())
        for field in (torch.zeros_like(motion), searched, motion)
    ]
    assert errors[2] < 0.3 * errors[0]
    assert errors[2] < 1.05 * errors[1], "what is known is no worse than what is found"


def test_a_camera_that_turns_and_nears():
    """Against the definition: a point of the photograph, seen in two frames."""
    y, x = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    places = torch.stack([x, y, 0 * x], dim=-1).to(torch.uint8)
    camera = CameraConfig(still_share=0.0, zoom_per_frame=1.03, roll_degrees=1.5, scale=(1.3, 1.5))
    move = camera_move(places, 5, 64, np.random.default_rng(2), camera)
    assert move is not None
    motion = torch.from_numpy(move.motion([1, 2, 3, 4], [0, 0, 0, 0]).astype(np.float32))
    assert motion.shape == (4, 2, 8, 8)
    pictures = move.pixels.permute(0, 3, 1, 2).float()
    came_from = warp(pictures[:1], motion.unsqueeze(0))[0]
    away = (came_from - pictures[1:]).abs()[:, :2, 16:48, 16:48]
    assert float((pictures[1:] - pictures[:1]).abs()[:, :2, 16:48, 16:48].mean()) > 3, "it moves"
    assert float(away.mean()) < 0.5, "pixels of the photograph: they are whole numbers"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video and a photograph."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    make_video(folder / "a.mp4", count=20, size=(96, 80))
    Image.fromarray(texture(120, 120).numpy()).save(folder / "p.png")
    return folder


def test_packs_hold_motion(media: Path, tmp_path: Path):
    pack(media, tmp_path, PackConfig(clip_frames=17, side=64, clips=6, camera_share=0.0))
    clips, motion = (np.load(tmp_path / f"{name}-00000.npy") for name in ("clips", "motion"))
    assert motion.shape == (6, 16, 6, 3, 8, 8)
    assert motion.nbytes < 0.1 * clips.nbytes
    for number in range(6):
        np.testing.assert_array_equal(motion[number], find_motion(clips[number]))
    for source in (Sampler(tmp_path, seed=0, augment=PLAIN), store_of(tmp_path, PLAIN)):
        check_is_searched(source.batch(4, 9, 64))
        assert source.batch(2, 1, 24).motion.shape == (2, 0, 4, 2, 3, 3)
    augment = AugmentConfig(stride_two_share=1.0, flip_share=1.0)
    for source in (Sampler(tmp_path, seed=0, augment=augment), store_of(tmp_path, augment)):
        frames, found = source.batch(4, 9, 40)
        errors = [
            float((frames[:, 1:5] - warp(frames[:, 0], field[:, 0])).abs()[..., 8:-8].mean())
            for field in (torch.zeros_like(found), search_clip(frames), found)
        ]
        assert errors[2] < 0.7 * errors[0]
        assert errors[2] < 1.1 * errors[1], "twice the time, mirrored: as good as a search in the crop"


def store_of(packed: Path, augment: AugmentConfig) -> FrameStore:
    return FrameStore.load_packed(packed, device=torch.device("cpu"), seed=0, augment=augment)


def test_packed_camera_moves_have_their_motion(media: Path, tmp_path: Path):
    camera = CameraConfig(still_share=0.0)
    pack(media, tmp_path, PackConfig(clip_frames=9, side=64, clips=4, camera_share=1.0, camera=camera), exclude=["a.*"])
    stored = torch.from_numpy(np.load(tmp_path / "motion-00000.npy"))
    clips = torch.from_numpy(np.load(tmp_path / "clips-00000.npy")).permute(0, 1, 4, 2, 3).float()
    assert len(clips) == 4
    window = Window(first=0, pace=EVERY_SECOND, top=0, left=0, frames=5, side=64)
    for clip, motion in zip(clips, stored, strict=True):
        found = torch.stack([motion_of_stored(motion[place])[0] for place in window.motion])
        frames = clip[window.pixels[0]]
        moved = warp(frames[:1], found.unsqueeze(0))[0]
        still = (frames[1:] - frames[:1]).abs()[..., 24:-24, 24:-24].mean()
        assert float((moved - frames[1:]).abs()[..., 24:-24, 24:-24].mean()) < 0.5 * float(still)
        for start in range(8):
            assert [bool(lag.any()) for lag in motion[start]] == [start + lag < 9 for lag in LAGS]


def test_packs_of_single_frames(media: Path, tmp_path: Path):
    pack(media, tmp_path, PackConfig(clip_frames=1, side=64, clips=6, camera_share=0.0))
    for source in (Sampler(tmp_path, seed=0), store_of(tmp_path, PLAIN)):
        batch = source.batch(3, 1, 64)
        assert batch.frames.shape == (3, 1, 3, 64, 64)
        assert batch.motion.shape == (3, 0, 4, 2, 8, 8)


def test_packs_without_motion_are_refused(media: Path, tmp_path: Path):
    pack(media, tmp_path, PackConfig(clip_frames=5, side=32, clips=2, camera_share=0.0))
    index = json.loads((tmp_path / "pack.json").read_text())
    assert index.pop("motion") == [{"file": "motion-00000.npy", "items": 2}]
    (tmp_path / "pack.json").write_text(json.dumps(index))
    for read in (lambda: Sampler(tmp_path, seed=0), lambda: store_of(tmp_path, PLAIN)):
        with pytest.raises(UsageError, match="packed by an earlier version") as found:
            read()
        assert "packs again" in (found.value.hint or "")


@pytest.mark.parametrize("kind", ["folder", "packed", "packed on the device"])
def test_no_loop_searches(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    augment = AugmentConfig(camera_share=0.5, stride_two_share=0.5)
    source: ClipSource
    if kind == "folder":
        source = FrameStore.load(media, device=torch.device("cpu"), seed=0, workers=1, augment=augment)
    else:
        pack(media, tmp_path, PackConfig(clip_frames=9, side=64, clips=4, camera_share=0.5))
        source = Sampler(tmp_path, seed=0, augment=augment) if kind == "packed" else store_of(tmp_path, augment)

    def forbidden(*_: object) -> None:
        raise RuntimeError("a search in the loop")

    monkeypatch.setitem(sys.modules, "cv2", None)  # an import of it fails
    monkeypatch.setattr(search_module, "flows", forbidden)
    monkeypatch.setattr(motion_module, "flows", forbidden)
    with pytest.raises(RuntimeError, match="a search in the loop"):
        search_clip(torch.zeros(1, 5, 3, 32, 32))
    phase = Phase(share=1.0, frames=5, side=32, batch=6, stage="full")
    run = Trainer(
        model_config=TokenizerConfig(frame_channels=8, latent_channels=16, encoder_blocks=1, decoder_blocks=1),
        config=TrainConfig(phases=(phase,), augment=augment),
        checkpoint=tmp_path / "c.pt",
    )
    run.run(source, max_minutes=0.01, total_minutes=0.01, log=lambda _: None)
    assert run.step > 0
