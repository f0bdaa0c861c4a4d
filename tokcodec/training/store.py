"""All frames of all videos and photographs as uint8 on the training device: batches are crops, cut out there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokcodec.errors import MediaError, UsageError
from tokcodec.training.camera import camera_move
from tokcodec.training.media import decode_all, find_media, leave_out
from tokcodec.training.packed import read_index
from tokcodec.training.shards import Shards
from tokcodec.training.source import AugmentConfig, draw_window


class FrameStore:
    """Random batches from frames in the memory of one device; no loader and no copy from the host.

    Args:
        videos: Each uint8 `(T, H, W, 3)` RGB.
        photographs: Each uint8 `(1, H, W, 3)` RGB.
        seed: Seed of the order.
        augment: How to draw.
    """

    def __init__(
        self,
        videos: Sequence[Tensor],
        photographs: Sequence[Tensor],
        *,
        seed: int,
        augment: AugmentConfig | None = None,
    ) -> None:
        self._videos, self._photographs = tuple(videos), tuple(photographs)
        if not self._videos and not self._photographs:
            raise MediaError("nothing to train on could be decoded")
        self._augment = augment or AugmentConfig()
        self._random = np.random.default_rng(seed)
        self._fitting: dict[tuple[bool, int, int], tuple[list[Tensor], list[float]]] = {}

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

        Raises:
            MediaError: Nothing in it can be decoded.
        """
        kept: dict[str, list[Tensor]] = {"video": [], "photograph": []}
        unreadable = 0
        for item, pixels in decode_all(leave_out(find_media(folder), exclude), workers=workers):
            if pixels is None:
                unreadable += 1
            else:
                kept[item.kind].append(torch.from_numpy(pixels).to(device))
        store = cls(kept["video"], kept["photograph"], seed=seed, augment=augment)
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
        """Read a packed folder (:func:`tokcodec.training.packed.pack`) onto a device: nothing is decoded.

        Camera moves are those of the pack; none are made as it goes.

        Raises:
            UsageError: It is not packed, or cannot be read.
        """
        index = read_index(folder)
        clips, images = (
            [item for pixels in Shards(folder, shards).files() for item in torch.tensor(pixels, device=device)]
            for shards in (index.clips, index.images)
        )
        without_moves = replace(augment or AugmentConfig(), camera_share=0.0)
        store = cls(clips, [image.unsqueeze(0) for image in images], seed=seed, augment=without_moves)
        log(f"{len(clips)} packed clips and {len(images)} images on {device}, {store.size_bytes / 1e9:.2f} GB")
        return store

    @property
    def size_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(t.numel() for t in (*self._videos, *self._photographs))

    def batch(self, size: int, frames: int, side: int) -> Tensor:
        """float32 `(size, frames, 3, side, side)` in [-1, 1], on the store's device."""
        device = (*self._videos, *self._photographs)[0].device
        out = torch.empty(size, frames, side, side, 3, dtype=torch.uint8, device=device)
        for i in range(size):
            clip = self._draw(frames, side)
            out[i] = clip.flip(2) if self._random.random() < self._augment.flip_share else clip
        return out.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1.0)

    def _draw(self, frames: int, side: int) -> Tensor:
        """One clip, uint8 `(frames, side, side, 3)`, not mirrored."""
        random, augment = self._random, self._augment
        share = augment.photograph_share if frames == 1 else augment.camera_share
        photographs = random.random() < share
        sources, heights = self._fits(photographs, frames, side)
        if not sources:
            photographs = not photographs
            sources, heights = self._fits(photographs, frames, side)
        if not sources:
            raise UsageError(f"no video and no photograph is as large as {frames} frames of {side}x{side}")
        source = sources[int(np.searchsorted(heights, random.random() * heights[-1], side="right"))]
        if photographs and frames > 1:
            moved = camera_move(source[0], frames, side, random, augment.camera)
            if moved is None:
                raise UsageError(f"the photographs are too small for {side}x{side}")
            return moved
        length, height, width = source.shape[:3]
        window = draw_window((length, height, width), frames, side, augment, random)
        if window is None:
            raise UsageError(f"no video is as large as {frames} frames of {side}x{side}")
        first, stride, top, left = window
        last = first + stride * (frames - 1) + 1
        return source[first:last:stride, top : top + side, left : left + side]

    def _fits(self, photographs: bool, frames: int, side: int) -> tuple[list[Tensor], list[float]]:
        """The sources that are large enough, and the running sum of their frames, by which they are drawn."""
        key = photographs, frames, side
        if key not in self._fitting:
            camera = photographs and frames > 1
            least = side * (self._augment.camera.scale[0] if camera else 1.0)
            found = [
                source
                for source in (self._photographs if photographs else self._videos)
                if min(source.shape[1:3]) >= least and (camera or source.shape[0] >= frames)
            ]
            sums = np.cumsum([source.shape[0] for source in found]).tolist() if found else []
            self._fitting[key] = found, sums
        return self._fitting[key]
