"""Training data: folders and tar files, packed crops, camera moves, frames on a device."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from media import make_video

from tokcodec.errors import MediaError, UsageError
from tokcodec.training.camera import CameraConfig, camera_move
from tokcodec.training.media import decode_all, default_workers, find_media, leave_out, read_whole
from tokcodec.training.motion import EVERY_SECOND, LAGS, SHORT, USUAL, Pace, read_clip
from tokcodec.training.packed import PackConfig, Sampler, pack, read_index
from tokcodec.training.shards import HEADER_BYTES, SHARD_BYTES, Shards
from tokcodec.training.source import AugmentConfig, Window, draw_window
from tokcodec.training.store import FrameStore

PACK = PackConfig(clip_frames=5, side=32, clips=6, camera_share=0.5)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos (one in a tar file), a photograph there, one video that is too short, and one that is none."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    make_video(folder / "a.mp4", count=8)
    loose = tmp_path_factory.mktemp("loose")
    make_video(loose / "b.mkv", count=9)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(loose / "p.png")
    (loose / "notes.txt").write_text("no media")
    with tarfile.open(folder / "more.tar", "w") as archive:
        archive.add(loose, "more")
    make_video(folder / "short.mp4", count=2)
    (folder / "broken.mp4").write_bytes(b"none")
    return folder


def test_a_folder_and_its_tar_files(media: Path, tmp_path: Path):
    items = find_media(media)
    assert [(item.name, item.kind) for item in items] == [
        ("a.mp4", "video"),
        ("broken.mp4", "video"),
        ("more.tar/more/b.mkv", "video"),
        ("more.tar/more/p.png", "photograph"),
        ("short.mp4", "video"),
    ]
    shapes = [None if pixels is None else pixels.shape for _, pixels in decode_all(items, read_whole, workers=1)]
    assert shapes == [(8, 48, 64, 3), None, (9, 48, 64, 3), (1, 40, 50, 3), (2, 48, 64, 3)]
    with pytest.raises(MediaError, match="no videos"):
        find_media(tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"none")
    with pytest.raises(MediaError, match="tar file"):
        find_media(tmp_path)
    assert default_workers() >= 1


def test_a_pool_of_processes_decodes_the_same(media: Path):
    items = find_media(media)
    alone, pool = (decode_all(items, read_clip, workers=workers) for workers in (1, 2))
    for (_, one), (_, other) in zip(alone, pool, strict=True):
        assert (one is None) == (other is None)
        for a, b in zip(one or (), other or (), strict=True):
            np.testing.assert_array_equal(a, b)


def test_packing_a_folder(media: Path, tmp_path: Path):
    counts = pack(media, tmp_path, PACK)
    assert counts == {"clips": 4 + 3, "camera_moves": 3, "images": 1, "excluded": 0, "passed_over": 2}
    index = read_index(tmp_path)
    assert (index.clip_frames, index.side, index.counts) == (5, 32, counts)
    clips = np.load(tmp_path / "clips-00000.npy", mmap_mode="r")
    assert clips.shape == (7, 5, 32, 32, 3)
    assert clips.dtype == np.uint8
    assert not list(tmp_path.glob("*.part*"))
    motion = np.load(tmp_path / "motion-00000.npy")
    assert (motion.shape, motion.dtype) == ((7, 4, 6, 3, 4, 4), np.int8)
    batch = Sampler(tmp_path, seed=1).batch(3, 5, 24).frames
    assert batch.shape == (3, 5, 3, 24, 24)
    assert -1 <= float(batch.min()) < float(batch.max()) <= 1
    torch.testing.assert_close(Sampler(tmp_path, seed=1).batch(3, 5, 24).frames, batch)
    with pytest.raises(UsageError, match="smaller"):
        Sampler(tmp_path, seed=1).batch(1, 9, 24)
    with pytest.raises(UsageError, match="not packed"):
        Sampler(media, seed=1)


def test_packed_files_are_small_and_give_the_same_batches(media: Path, tmp_path: Path):
    limit = 2 * 5 * 32 * 32 * 3 + HEADER_BYTES
    pack(media, tmp_path / "one", PACK)
    pack(media, tmp_path / "many", PACK, shard_bytes=limit)
    names = [path.name for path in sorted((tmp_path / "one").glob("*.npy"))]
    assert names == ["clips-00000.npy", "images-00000.npy", "motion-00000.npy"]
    files = sorted((tmp_path / "many").glob("clips-*.npy"))
    assert [len(np.load(file)) for file in files] == [2, 2, 2, 1]
    assert max(file.stat().st_size for file in files) <= limit
    assert SHARD_BYTES <= 60 << 20
    one, many = (Sampler(tmp_path / name, seed=1) for name in ("one", "many"))
    for frames in (5, 1):
        for a, b in zip(many.batch(20, frames, 24), one.batch(20, frames, 24), strict=True):
            assert torch.equal(a, b)
    index = read_index(tmp_path / "many")
    shards, stored = Shards(tmp_path / "many", index.clips), np.load(tmp_path / "one" / "clips-00000.npy")
    assert len(shards) == len(stored) == 7
    assert all((shards[number] == stored[number]).all() for number in range(7))
    assert isinstance(shards[6].base, np.memmap), "nothing is read before it is wanted"
    with pytest.raises(UsageError, match="larger than a file"):
        pack(media, tmp_path / "none", PACK, shard_bytes=limit // 2 - HEADER_BYTES)


def test_a_folder_packed_by_an_earlier_version(tmp_path: Path):
    (tmp_path / "pack.json").write_text('{"clips": 7, "camera_moves": 3, "images": 1, "passed_over": 2}')
    with pytest.raises(UsageError, match="earlier version") as found:
        Sampler(tmp_path, seed=1)
    assert "packs again" in (found.value.hint or "")


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["a.*"], ["broken.mp4", "more.tar/more/b.mkv", "more.tar/more/p.png", "short.mp4"]),
        (["*.mp4", "*/b.mkv"], ["more.tar/more/p.png"]),
        (["more.tar", "A.mp4"], ["a.mp4", "broken.mp4", "short.mp4"]),
        (["mor"], ["a.mp4", "broken.mp4", "more.tar/more/b.mkv", "more.tar/more/p.png", "short.mp4"]),
    ],
)
def test_what_is_left_out(media: Path, patterns: list[str], kept: list[str]):
    items = find_media(media)
    assert [item.name for item in leave_out(items, patterns)] == kept
    with pytest.raises(MediaError, match="all 5"):
        leave_out(items, ["*"])


def test_packs_and_stores_leave_out(media: Path, tmp_path: Path):
    counts = pack(media, tmp_path, PACK, exclude=["more.tar", "broken*"])
    assert counts == {"clips": 3, "camera_moves": 0, "images": 0, "excluded": 3, "passed_over": 1}
    assert read_index(tmp_path).exclude == ("more.tar", "broken*")
    store = FrameStore.load(media, device=torch.device("cpu"), seed=3, workers=1, exclude=["more.tar", "short.mp4"])
    assert store.size_bytes == 8 * 48 * 64 * 3 + 7 * 6 * 3 * 6 * 8


def test_a_packed_folder_on_a_device(media: Path, tmp_path: Path):
    pack(media, tmp_path, PACK, shard_bytes=3 * 5 * 32 * 32 * 3 + HEADER_BYTES)
    lines: list[str] = []
    store = FrameStore.load_packed(tmp_path, device=torch.device("cpu"), seed=3, log=lines.append)
    assert store.size_bytes == (7 * 5 + 1) * 32 * 32 * 3 + 7 * 4 * 6 * 3 * 4 * 4
    assert "7 packed clips and 1 images" in lines[0]
    stored = {crop.tobytes() for crop in np.load(tmp_path / "clips-00000.npy")}
    for clip in (store.batch(30, 5, 32).frames + 1).mul(127.5).round().byte().permute(0, 1, 3, 4, 2):
        stored -= {clip.numpy().tobytes(), clip.flip(2).numpy().tobytes()}
    assert not stored, "every clip comes, as it was stored or mirrored"
    assert store.batch(3, 1, 24).frames.shape == (3, 1, 3, 24, 24)


def test_windows_stay_inside_and_paces_are_drawn():
    random = np.random.default_rng(0)
    paces = set()
    for _ in range(200):
        augment = AugmentConfig(stride_two_share=0.4, short_step_share=0.5)
        window = draw_window((9, 20, 30), 5, 16, augment, random)
        assert window is not None
        paces.add(window.pace)
        assert 0 <= window.first == min(window.pixels[0]) <= max(window.pixels[0]) < 9
        assert window.top + 16 <= 20
        assert window.left + 16 <= 30
    assert paces == {USUAL, EVERY_SECOND, *SHORT}
    assert draw_window((4, 20, 30), 5, 16, AugmentConfig(), random) is None


@pytest.mark.parametrize(
    ("pace", "frames", "lags"),
    [
        (USUAL, [3, 4, 5, 6, 7, 8, 9, 10, 11], (1, 2, 3, 4)),
        (EVERY_SECOND, [3, 5, 7, 9, 11, 13, 15, 17, 19], (2, 4, 6, 8)),
        (SHORT[0], [3, 4, 4, 5, 5, 6, 6, 7, 7], (1, 1, 2, 2)),
        (SHORT[1], [3, 4, 4, 4, 4, 5, 5, 5, 5], (1, 1, 1, 1)),
    ],
)
def test_a_window_has_the_frames_of_its_pace_and_their_motion(pace: Pace, frames: list[int], lags: tuple[int, ...]):
    window = Window(3, pace, 8, 16, 9, 24)
    assert window.pixels == (frames, slice(8, 32), slice(16, 40))
    starts = [3, 3 + pace[-1]]
    places = [(starts, LAGS.index(lag), slice(None), slice(1, 4), slice(2, 5)) for lag in lags]
    assert window.motion == places


def gradient(height: int, width: int) -> torch.Tensor:
    """A photograph whose red is the column and whose green is the row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], dim=-1).to(torch.uint8)


def test_a_camera_that_stands_still_gives_the_same_picture_again():
    still = CameraConfig(still_share=1.0, scale=(1.0, 1.0))
    clip = camera_move(gradient(100, 120), 5, 64, np.random.default_rng(0), still)
    assert clip is not None
    pixels = clip.pixels
    assert pixels.shape == (5, 64, 64, 3)
    assert bool((pixels == pixels[:1]).all())
    steps = pixels[0, :, 1:, 0].float() - pixels[0, :, :-1, 0].float()
    assert float(steps.mean()) == pytest.approx(1.0, abs=0.01), "at scale one a pixel is a pixel"


def test_a_camera_moves_smoothly_and_stays_inside():
    moving = CameraConfig(still_share=0.0)
    random = np.random.default_rng(1)
    moved = 0
    for _ in range(20):
        clip = camera_move(gradient(100, 120), 9, 48, random, moving)
        assert clip is not None
        centre = clip.pixels[:, 20:28, 20:28, :2].float().mean(dim=(1, 2))
        steps = (centre[1:] - centre[:-1]).norm(dim=1)
        assert float(steps.max()) <= 6.0 * 1.6 + 1.0, "no faster than the configuration says"
        assert float(steps.max() - steps.min()) < 1.5, "at an even speed"
        moved += float(steps.min()) > 0.2
    assert moved >= 10
    assert camera_move(gradient(20, 20), 5, 64, random, moving) is None


def test_frames_on_a_device(media: Path):
    lines: list[str] = []
    store = FrameStore.load(media, device=torch.device("cpu"), seed=3, workers=1, log=lines.append)
    assert store.size_bytes == (8 + 9 + 2) * 48 * 64 * 3 + 40 * 50 * 3 + (7 + 8 + 1) * 6 * 3 * 6 * 8
    assert "3 videos and 1 photographs" in lines[0]
    assert "1 unreadable" in lines[0]
    for frames, side in ((1, 32), (5, 32), (9, 48)):
        batch = store.batch(6, frames, side).frames
        assert batch.shape == (6, frames, 3, side, side)
        assert batch.dtype == torch.float32
        assert -1 <= float(batch.min()) < float(batch.max()) <= 1
    with pytest.raises(UsageError, match="as large as"):
        store.batch(1, 5, 64)


def test_a_batch_is_cut_out_of_the_frames():
    video = torch.arange(12).view(12, 1, 1, 1) * 10 + torch.zeros(12, 40, 40, 3)
    store = FrameStore([video.to(torch.uint8)], [], seed=0, augment=AugmentConfig(stride_two_share=0.5))
    clips = (store.batch(40, 5, 16).frames[:, :, 0, 0, 0] + 1).mul(127.5).round().long()
    steps = clips[:, 1:] - clips[:, :-1]
    assert set(steps.flatten().tolist()) == {10, 20}
    assert bool((steps == steps[:, :1]).all()), "one stride a clip"
    photograph = torch.randint(0, 256, (1, 60, 60, 3), dtype=torch.uint8)
    assert FrameStore([], [photograph], seed=0).batch(2, 5, 32).frames.shape == (2, 5, 3, 32, 32)
    with pytest.raises(MediaError, match="nothing"):
        FrameStore([], [], seed=0)
