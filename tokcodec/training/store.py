"""All frames of all videos and photographs, and their motion, on the training device: batches are cut out there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokcodec.errors import DeviceError, MediaError, UsageError
from tokcodec.geometry import TEMPORAL_FACTOR
from tokcodec.training.camera import CameraMove, camera_move
from tokcodec.training.media import decode_all, find_media, leave_out
from tokcodec.training.motion import find_motion, read_clip
from tokcodec.training.packed import read_index
from tokcodec.training.shards import Shards
from tokcodec.training.source import (
    GRID,
    AugmentConfig,
    Batch,
    draw_window,
    empty_batch,
    finish_batch,
    motion_of_stored,
)


class FrameStore:
    """Random batches from frames in the memory of one device; no loader, no search, no frames copied from the host.

    Args:
        videos: Each uint8 `(T, H, W, 3)` RGB.
        photographs: Each uint8 `(1, H, W, 3)` RGB.
        motion: Of each video, int8, as :func:`tokcodec.training.motion.find_motion` gives it; searched for where None.
        seed: Seed of the order.
        augment: How to draw.
    """

    def __init__(
        self,
        videos: Sequence[Tensor],
        photographs: Sequence[Tensor],
        *,
        motion: Sequence[Tensor] | None = None,
        seed: int,
        augment: AugmentConfig | None = None,
    ) -> None:
        self._videos, self._photographs = tuple(videos), tuple(photographs)
        if not self._videos and not self._photographs:
            raise MediaError("nothing to train on could be decoded")
        if motion is None:
            motion = [torch.from_numpy(find_motion(video.cpu().numpy())).to(video.device) for video in self._videos]
        self._motion = tuple(motion)
        self._augment = augment or AugmentConfig()
        self._random = np.random.default_rng(seed)
        self._fitting: dict[tuple[bool, int, int], tuple[list[int], list[float]]] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device,
        seed: int,
        workers: int,
        exclude: Sequence[str] = (),
        augment: AugmentConfig | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> FrameStore:
        """Decode a folder (:func:`tokcodec.training.media.find_media`), less what is excluded, onto a device.

        The motion of whole frames is searched by the processes that decode.

        Raises:
            MediaError: Nothing in it can be decoded.
        """
        kept: dict[str, list[Tensor]] = {"video": [], "photograph": []}
        motion = []
        unreadable = 0
        for item, clip in decode_all(leave_out(find_media(folder), exclude), read_clip, workers=workers):
            if clip is None:
                unreadable += 1
                continue
            kept[item.kind].append(torch.from_numpy(clip.pixels).to(device))
            if item.kind == "video":
                motion.append(torch.from_numpy(clip.motion).to(device))
        store = cls(kept["video"], kept["photograph"], motion=motion, seed=seed, augment=augment)
        log(
            f"{len(kept['video'])} videos and {len(kept['photograph'])} photographs on {device}, "
            f"{store.size_bytes / 1e9:.2f} GB; {unreadable} unreadable"
        )
        return store

    @classmethod
    def load_packed(
        cls,
        folder: Path,
        *,
        device: torch.device,
        seed: int,
        augment: AugmentConfig | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> FrameStore:
        """Read a packed folder (:func:`tokcodec.training.packed.pack`) onto a device: nothing is decoded or searched.

        Camera moves are those of the pack; none are made as it goes.

        Raises:
            UsageError: It is not packed, or cannot be read.
            DeviceError: It is larger than the device's memory.
        """
        index = read_index(folder)
        try:
            clips, motion, images = (
                [item for items in Shards(folder, shards).files() for item in torch.tensor(items, device=device)]
                for shards in (index.clips, index.motion, index.images)
            )
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"the pack has {index.size_bytes(folder) / 1e9:.2f} GB, more than {device} has room for",
                where=str(folder),
                hint='leave it on disk with "train": {"source": "packed"} in the file of --config, or pack less of it',
            ) from error
        without_moves = replace(augment or AugmentConfig(), camera_share=0.0)
        store = cls(clips, [image.unsqueeze(0) for image in images], motion=motion, seed=seed, augment=without_moves)
        log(f"{len(clips)} packed clips and {len(images)} images on {device}, {store.size_bytes / 1e9:.2f} GB")
        return store

    @property
    def size_bytes(self) -> int:
        """Bytes of all frames and their motion."""
        return sum(t.numel() for t in (*self._videos, *self._photographs, *self._motion))

    def batch(self, size: int, frames: int, side: int) -> Batch:
        """Clips on the store's device; photographs take part where `frames` is 1, or as camera moves."""
        pixels, motion = empty_batch(size, frames, side, (*self._videos, *self._photographs)[0].device)
        moves: dict[int, CameraMove] = {}
        mirrored = []
        for i in range(size):
            move = self._draw(pixels[i], motion[i])
            if move is not None:
                moves[i] = move
            mirrored.append(self._random.random() < self._augment.flip_share)
        found = motion_of_stored(motion)
        steps = np.arange(motion.shape[1])[:, np.newaxis] * TEMPORAL_FACTOR
        for i, move in moves.items():
            known = move.motion(steps + np.arange(1, TEMPORAL_FACTOR + 1), steps)
            found[i] = torch.from_numpy(known.astype(np.float32)).to(found.device)
        return finish_batch(pixels, found, mirrored)

    def _draw(self, pixels: Tensor, motion: Tensor) -> CameraMove | None:
        """One clip, not mirrored, into its place in a batch; the camera move that it is, whose motion is left out."""
        random, augment = self._random, self._augment
        frames, side = pixels.shape[:2]
        share = augment.photograph_share if frames == 1 else augment.camera_share
        photographs = random.random() < share
        fitting, sums = self._fits(photographs, frames, side)
        if not fitting:
            photographs = not photographs
            fitting, sums = self._fits(photographs, frames, side)
        if not fitting:
            raise UsageError(f"no video and no photograph is as large as {frames} frames of {side}x{side}")
        number = fitting[int(np.searchsorted(sums, random.random() * sums[-1], side="right"))]
        source = (self._photographs if photographs else self._videos)[number]
        if photographs and frames > 1:
            move = camera_move(source[0], frames, side, random, augment.camera)
            if move is None:
                raise UsageError(f"the photographs are too small for {side}x{side}")
            pixels[:] = move.pixels
            return move
        length, height, width = source.shape[:3]
        window = draw_window((length, height, width), frames, side, augment, random, grid=GRID if frames > 1 else 1)
        if window is None:
            raise UsageError(f"no video is as large as {frames} frames of {side}x{side}")
        pixels[:] = source[window.pixels]
        if frames > 1:
            for k, place in enumerate(window.motion):
                motion[:, k] = self._motion[number][place]
        return None

    def _fits(self, photographs: bool, frames: int, side: int) -> tuple[list[int], list[float]]:
        """The sources that are large enough, and the running sum of their frames, by which they are drawn."""
        key = photographs, frames, side
        if key not in self._fitting:
            camera = photographs and frames > 1
            least = side * (self._augment.camera.scale[0] if camera else 1.0)
            sources = self._photographs if photographs else self._videos
            found = [
                number
                for number, source in enumerate(sources)
                if min(source.shape[1:3]) >= least and (camera or source.shape[0] >= frames)
            ]
            self._fitting[key] = found, np.cumsum([sources[number].shape[0] for number in found]).tolist()
        return self._fitting[key]
