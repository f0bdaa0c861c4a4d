"""Packing as a step of its own: the command, a pack that is carried elsewhere, its limits, bytes on the device."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import called, typed
from media import make_video
from torch.utils._python_dispatch import TorchDispatchMode
from training_helpers import SMALL, some_frames

from tokcodec.errors import DeviceError, UsageError
from tokcodec.training import loop
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.loop import Trainer
from tokcodec.training.pack_plan import INDEX_BYTES, PackConfig, plan_pack
from tokcodec.training.packed import Sampler, pack, read_index
from tokcodec.training.shards import HEADER_BYTES, SHARD_BYTES
from tokcodec.training.store import FrameStore

TINY = {
    "model": {
        "frame_channels": 8,
        "latent_channels": 64,
        "encoder_blocks": 1,
        "hybrid": False,
        "decoder_blocks": 1,
        "bits_per_token": 18,
    },
    "train": {"phases": [{"share": 1.0, "frames": 5, "side": 32, "batch": 2, "stage": "full"}]},
    "pack": {"clip_frames": 5, "side": 32, "clips": 6, "camera_share": 0.5},
}
CLIP_BYTES, IMAGE_BYTES = 5 * 32 * 32 * 3 + 4 * 6 * 3 * 4 * 4, 32 * 32 * 3


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos and a photograph."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    for name in "abc":
        make_video(folder / f"{name}.mp4", count=8)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    return folder


@pytest.fixture(scope="module")
def packed(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those, packed."""
    folder = tmp_path_factory.mktemp("packed")
    pack(media, folder, PackConfig(clip_frames=5, side=32, clips=6, camera_share=0.5))
    return folder


def test_pack_here_train_there(media: Path, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    shutil.copytree(media, here / "films")
    (here / "tiny.json").write_text(json.dumps(TINY))
    done = typed(
        *("pack", "--data", "films", "--out", "pack", "--config", "tiny.json", "--exclude", "c.*", "--workers", "1"),
        "--json",
        cwd=here,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    files = list((here / "pack").iterdir())
    assert found == {
        "packed": "pack",
        "clips": 9,
        "camera_moves": 3,
        "images": 1,
        "excluded": 1,
        "passed_over": 0,
        "files": 4,
        "bytes": sum(file.stat().st_size for file in files),
    }
    assert len(files) == 4, "and nothing half-written"
    shutil.copytree(here / "pack", there / "pack")
    shutil.copy(here / "tiny.json", there)
    before = {file.name: file.read_bytes() for file in (there / "pack").iterdir()}
    shutil.rmtree(here)
    train = ("train", "--packed", "pack", "--out", "run", "--config", "tiny.json", "--max-minutes", "0.01")
    for _ in range(2):
        done = called(*train, "--device", "cpu", "--total-minutes", "1", "--exclude", "c.*", cwd=there)
        assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (there / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["started"] for line in lines if "started" in line] == ["initialised", "resumed"]
    assert list((there / "run").glob("*.safetensors"))
    assert not (there / "run" / "packed").exists()
    assert {file.name: file.read_bytes() for file in (there / "pack").iterdir()} == before


def test_what_people_read_and_what_replaces_a_pack(media: Path, tmp_path: Path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    words = ("pack", "--data", media, "--out", "pack", "--config", "tiny.json", "--workers", "1")
    done = called(*words, "--clips", "1000", "--max-megabytes", "0.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = list((tmp_path / "pack").iterdir())
    size = sum(file.stat().st_size for file in files)
    assert 150_000 < size <= 200_000
    counts = read_index(tmp_path / "pack").counts
    assert counts["clips"] > 8
    left_out = counts["left_out"]
    assert f"note: {left_out} clips and images left out, to stay within 0.2 megabytes" in done.stderr.decode()
    text = done.stdout.decode()
    assert f"clips        {counts['clips']}, {counts['camera_moves']} of them camera moves" in text
    assert f"size         {size / 1e6:.1f} MB in {len(files)} files" in text
    assert f"left out     {left_out}" in text
    again = called(*words, cwd=tmp_path)
    assert again.returncode == 7
    assert b"holds a pack" in again.stderr
    assert b"--force" in again.stderr
    (tmp_path / "pack" / "clips-00017.npy").write_bytes(b"left by another pack")
    (tmp_path / "pack" / "mine.txt").write_text("mine")
    assert called(*words, "--force", cwd=tmp_path).returncode == 0
    assert "left_out" not in read_index(tmp_path / "pack").counts
    names = {path.name for path in (tmp_path / "pack").iterdir()}
    assert names == {"clips-00000.npy", "images-00000.npy", "motion-00000.npy", "pack.json", "mine.txt"}
    done = called(*words[:4], "none", "--max-megabytes", "0.004", "--config", "tiny.json", cwd=tmp_path)
    assert done.returncode == 2
    assert b"nothing fits into 0.004 megabytes" in done.stderr
    assert b"a clip takes 0.02" in done.stderr
    (tmp_path / "file").write_text("")
    done = called(*words[:4], "file", "--config", "tiny.json", cwd=tmp_path)
    assert done.returncode == 7
    assert b"cannot be written" in done.stderr


def test_plans_stay_within_their_limit():
    for videos in (0, 1, 7, 300):
        for photographs in (0, 2, 500):
            for clips in (1, 40, 5000):
                config = PackConfig(clip_frames=5, side=32, clips=clips, camera_share=0.3)
                whole = plan_pack(config, videos=videos, photographs=photographs, shard_bytes=SHARD_BYTES)
                assert whole.clips == [math.ceil(clips / max(1, videos))] * videos
                assert (whole.images, whole.left_out) == ([1] * photographs, 0)
                for limit in (0.05, 0.5, 5.0, 5000.0):
                    if not videos and not photographs:
                        continue
                    limited = PackConfig(clip_frames=5, side=32, clips=clips, camera_share=0.3, max_megabytes=limit)
                    plan = plan_pack(limited, videos=videos, photographs=photographs, shard_bytes=SHARD_BYTES)
                    size = CLIP_BYTES * (sum(plan.clips) + plan.most_moves) + IMAGE_BYTES * sum(plan.images)
                    assert size + INDEX_BYTES + 3 * HEADER_BYTES <= 1e6 * limit
                    assert (len(plan.clips), len(plan.images)) == (videos, photographs)
                    assert not plan.clips or max(plan.clips) - min(plan.clips) <= 1
                    assert plan.moves <= whole.moves
                    if limit == 5000.0:
                        assert (plan.clips, plan.images, plan.left_out) == (whole.clips, whole.images, 0)
                        assert plan.moves == whole.moves
                    elif plan.left_out:
                        assert plan.moves * sum(plan.images) <= plan.most_moves + 1e-9
                        assert size > 0.4 * 1e6 * limit, "no more is left out than has to be"


def test_a_limited_pack_has_clips_of_all_videos_alike(media: Path, tmp_path: Path):
    config = PackConfig(clip_frames=5, side=32, clips=90, camera_share=0.0, max_megabytes=0.3)
    counts = pack(media, tmp_path, config)
    clips = np.load(tmp_path / "clips-00000.npy")
    assert 12 <= len(clips) == counts["clips"] < 18
    full = tmp_path / "full"
    pack(media, full, PackConfig(clip_frames=5, side=32, clips=90, camera_share=0.0))
    wanted = [crop.tobytes() for crop in np.load(full / "clips-00000.npy")]
    videos = [wanted.index(clip.tobytes()) // 30 for clip in clips]
    assert max(map(videos.count, range(3))) - min(map(videos.count, range(3))) <= 1


class Transfers(TorchDispatchMode):
    """Notes the type of all that goes from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {value.device for value in (*args, result) if isinstance(value, torch.Tensor)}
        if len(devices) > 1:
            self.types += [value.dtype for value in args if isinstance(value, torch.Tensor)]
        return result


@pytest.mark.parametrize("frames", [5, 1])
def test_batches_are_cut_out_of_bytes_on_the_device(packed: Path, frames: int):
    device = torch.device("meta")
    with Transfers() as loading:
        store = FrameStore.load_packed(packed, device=device, seed=0)
    assert store.size_bytes == (9 * CLIP_BYTES + IMAGE_BYTES)
    assert set(loading.types) <= {torch.uint8, torch.int8}
    with Transfers() as cutting:
        batch = store.batch(4, frames, 32)
    assert batch.frames.device == batch.motion.device == device
    assert batch.frames.dtype == torch.float32
    assert cutting.types == [], "nothing comes from the host"
    with Transfers() as sending:
        batch = Sampler(packed, seed=0, device=device).batch(4, frames, 32)
    assert batch.frames.device == batch.motion.device == device
    assert sending.types == [torch.uint8, torch.int8], "the frames and the motion of a batch, as bytes"


def test_transfers_are_noticed():
    with Transfers() as found:
        torch.zeros(3).to("meta")
        torch.zeros(3, dtype=torch.uint8, device="meta").copy_(torch.zeros(3, dtype=torch.uint8))
    assert found.types == [torch.float32, torch.uint8, torch.uint8]


def test_a_pack_larger_than_the_device(packed: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "tensor", full)
    with pytest.raises(DeviceError, match="more than cpu has room for") as found:
        FrameStore.load_packed(packed, device=torch.device("cpu"), seed=0)
    assert '"source": "packed"' in (found.value.hint or "")


def refused(folder: Path, *words: str | Path) -> str:
    """What `train` says as it refuses; nothing is made."""
    done = called("train", "--out", "run", "--max-minutes", "1", "--device", "cpu", *words, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert not (folder / "run").exists()
    return done.stderr.decode()


def test_what_is_no_pack_or_does_not_fit(packed: Path, tmp_path: Path):
    assert "--data DIR for a folder of media, --packed DIR" in refused(tmp_path)
    assert "exclude each other" in refused(tmp_path, "--data", ".", "--packed", packed)
    assert "--clips is for packing" in refused(tmp_path, "--packed", packed, "--clips", "3")
    (tmp_path / "folder").mkdir()
    for name in ("folder", "nowhere"):
        text = refused(tmp_path, "--packed", name)
        assert f"{name}: not packed" in text
        assert "`tokcodec pack --data DIR --out DIR`" in text
    shutil.copytree(packed, tmp_path / "folder" / "packed")
    assert f"name {Path('folder', 'packed')}" in refused(tmp_path, "--packed", "folder")
    text = refused(tmp_path, "--packed", packed)
    assert "packed clips have 5 of 32x32" in text
    assert '"pack": {"clip_frames": 33, "side": 144} in the file of --config of `tokcodec pack`' in text
    assert "remove" not in text
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    text = refused(tmp_path, "--packed", packed, "--config", "tiny.json", "--exclude", "a*")
    assert "was packed with nothing excluded" in text
    assert "leave --exclude away" in text


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def shorten(file: Path) -> None:
    np.save(file, np.load(file)[:-1])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(Path.unlink, "clips"), (cut, "clips"), (shorten, "clips"), (shorten, "motion"), (Path.unlink, "images")],
)
def test_a_pack_that_was_not_carried_whole(packed: Path, tmp_path: Path, damage: Callable[[Path], None], kind: str):
    shutil.copytree(packed, tmp_path / "pack")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    damage(tmp_path / "pack" / f"{kind}-00000.npy")
    text = refused(tmp_path, "--packed", "pack", "--config", "tiny.json")
    assert f"{kind}-00000.npy" in text
    assert "copy the pack again" in text


def no_compiler(*_: object) -> None:
    raise NotImplementedError("no compiler here\nand more of it")


def no_gradients(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
    """A backend that compiles what it is given, but not its gradients."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    backend = aot_autograd(fw_compiler=lambda forward, _: make_boxed_func(forward), bw_compiler=no_compiler)
    return backend(graph, inputs)


@pytest.mark.parametrize("backend", [no_compiler, no_gradients])
def test_a_network_that_cannot_be_compiled_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Callable[..., object]
):
    torch._dynamo.reset()  # too many compilations in tests before: it would give up without a word
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **choices: compile_with(step, **{**choices, "backend": backend}))
    phase = Phase(share=1.0, frames=1, side=16, batch=1, stage="full")
    config = TrainConfig(phases=(phase,), compile=True)
    run = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    notes: list[str] = []
    run.run(some_frames(), max_minutes=0.0001, total_minutes=1.0, log=lambda _: None, note=notes.append)
    run.run(some_frames(), max_minutes=0.0001, total_minutes=1.0, log=lambda _: None, note=notes.append)
    (note,) = notes
    assert note.startswith("training goes on without compiling, which failed: ")
    assert "no compiler here" in note
    assert "\n" not in note
    assert run.step >= 2
    assert any(not torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_what_is_not_the_compilers_fault_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise UsageError("mine")

    monkeypatch.setattr(loop, "clip_losses", broken)
    phase = Phase(share=1.0, frames=1, side=16, batch=1, stage="full")
    config = TrainConfig(phases=(phase,), compile=True)
    run = Trainer(model_config=SMALL, config=config, checkpoint=tmp_path / "c.pt")
    notes: list[str] = []
    with pytest.raises(UsageError, match="mine"):
        run.run(some_frames(), max_minutes=0.01, total_minutes=1.0, log=lambda _: None, note=notes.append)
    assert not notes
