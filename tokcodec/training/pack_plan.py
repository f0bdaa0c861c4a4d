"""How much of a folder becomes a pack: clips of each video, images, camera moves, and a bound on their bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokcodec.errors import UsageError
from tokcodec.geometry import SPATIAL_FACTOR
from tokcodec.training.camera import CameraConfig
from tokcodec.training.motion import LAGS, PLANES
from tokcodec.training.shards import HEADER_BYTES

MEGABYTE = 1_000_000
INDEX_BYTES = 4096
"""Room for the index of a pack of no files."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How a folder becomes arrays.

    Attributes:
        clip_frames: Frames of each clip, 1 + 4t.
        side: Pixels along each side of a stored crop; training crops again within it.
        clips: Clips to store, spread evenly over the videos.
        camera_share: Camera moves over photographs, as a share of `clips`; they come on top.
        max_megabytes: Most that the whole pack may take, in 10^6 bytes: clips, camera moves and images are made fewer
            in proportion, spread as evenly. 0 is no limit.
        camera: How far the camera moves.
        seed: Seed of the choice of crops.
    """

    clip_frames: int = 17
    side: int = 160
    clips: int = 4000
    camera_share: float = 0.1
    max_megabytes: float = 0.0
    camera: CameraConfig = field(default_factory=CameraConfig)
    seed: int = 0

    @property
    def clip_shape(self) -> tuple[int, ...]:
        """Of a clip, uint8."""
        return self.clip_frames, *self.image_shape

    @property
    def motion_shape(self) -> tuple[int, ...]:
        """Of its motion, int8."""
        cells = self.side // SPATIAL_FACTOR
        return self.clip_frames - 1, len(LAGS), PLANES, cells, cells

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of an image, uint8."""
        return self.side, self.side, 3


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """What is stored of each item, if it can be decoded and is large enough.

    Attributes:
        clips: Of each video.
        images: Of each photograph, 1 or 0.
        moves: Camera moves over a photograph that is stored, on average.
        most_moves: Camera moves of the whole pack, at most.
        left_out: Clips, camera moves and images that the limit leaves out, about.
    """

    clips: Sequence[int]
    images: Sequence[int]
    moves: float
    most_moves: int
    left_out: int


def plan_pack(
    config: PackConfig, *, videos: int, photographs: int, shard_bytes: int, index_bytes: int = INDEX_BYTES
) -> PackPlan:
    """Share clips out over videos and camera moves over photographs.

    Args:
        config: What to store, and within how many bytes.
        videos: How many there are.
        photographs: How many there are.
        shard_bytes: Largest file.
        index_bytes: Room for what the index says besides its files.

    Raises:
        UsageError: Nothing fits.
    """
    each = -(-config.clips // max(1, videos))
    moves = config.camera_share * config.clips / max(1, photographs)
    wanted, most = each * videos, math.ceil(moves) * photographs
    if not config.max_megabytes:
        return PackPlan(clips=[each] * videos, images=[1] * photographs, moves=moves, most_moves=most, left_out=0)
    clip = math.prod(config.clip_shape) + math.prod(config.motion_shape)
    image = math.prod(config.image_shape)
    limit = int(config.max_megabytes * MEGABYTE)
    files = 3 + 2 * limit // shard_bytes  # all but the last of each kind are more than half full
    room = max(0, limit - index_bytes - 2 * HEADER_BYTES * files)  # a header each, and a line of the index
    share = min(1.0, room / max(1, clip * (wanted + moves * photographs) + image * photographs))
    clips = int(share * wanted)
    images = min(math.ceil(share * photographs), (room - clip * clips) // image)  # a few more, for camera moves
    if not clips and not images:
        raise UsageError(
            f"nothing fits into {config.max_megabytes:g} megabytes",
            hint=f"a clip takes {clip / MEGABYTE:.2f}: raise --max-megabytes, or pack shorter or smaller clips",
        )
    most = min(most, (room - clip * clips - image * images) // clip) if images else 0
    expected = round(moves * photographs)
    return PackPlan(
        clips=_evenly(clips, videos),
        images=_evenly(images, photographs),
        moves=moves if share == 1 else min(moves, most / max(1, images)),
        most_moves=most,
        left_out=0 if share == 1 else wanted - clips + photographs - images + max(0, expected - most),
    )


def _evenly(total: int, places: int) -> list[int]:
    """`total` shared out over places, which differ by one at most."""
    return [(i + 1) * total // places - i * total // places for i in range(places)]
