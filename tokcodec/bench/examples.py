"""Example frames: one frame of each clip, original and by each codec, all codecs at tokcodec's rate.

tokcodec has few rates: of its points the one nearest to the working rate is taken, and the quantizers of the other
codecs are searched until theirs is the same.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from tokcodec.bench.child import frames_of
from tokcodec.bench.codecs import BenchCodec
from tokcodec.bench.engine import Task
from tokcodec.bench.plan import ClipWork, Plan
from tokcodec.bench.rates import match
from tokcodec.bench.record import BenchRecord, Setting
from tokcodec.bench.store import ResultStore
from tokcodec.bench.tasks import Encoded, EncodeJob, decoded_clip
from tokcodec.bench.tracks import Steps, Tracks
from tokcodec.errors import MediaError
from tokcodec.frames import Frame, VideoInfo, open_writer
from tokcodec.frames.info import Colour, Pixels

WORKING_RATE = 0.03
"""Bits per pixel near which example frames are shown."""

OWN = "tokcodec"
ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True)
class ExampleJob:
    """Make a picture of one frame.

    Attributes:
        number: Of the frame.
        target: The PNG.
        clip: The lossless clip, whose own frame is wanted.
        encode: Of the codec whose frame is wanted; None for the clip's own.
        coded_bytes: Size of its coded file.
    """

    number: int
    target: Path
    clip: Path
    encode: EncodeJob | None = None
    coded_bytes: int = 0


def make_example(job: ExampleJob) -> Encoded | None:
    """Write the picture; gives the new encode, if there had to be one.

    Raises:
        MediaError: The codec fails, or gives back fewer frames.
    """
    job.target.parent.mkdir(parents=True, exist_ok=True)
    if job.encode is None:
        _write_frame(frames_of(job.clip), job.number, job.target)
        return None
    with decoded_clip(job.encode, job.coded_bytes) as (encoded, decoded, _):
        _write_frame(frames_of(decoded), job.number, job.target)
    return encoded


def _write_frame(frames: Iterable[Pixels], number: int, target: Path) -> None:
    pixels = next(islice(frames, number, None), None)
    if pixels is None:
        raise MediaError(f"there is no frame {number}")
    height, width = pixels.shape[:2]
    colour = Colour(matrix=0, full_range=True)
    info = VideoInfo(width=width, height=height, time_base=Fraction(1), frame_rate=None, colour=colour, is_image=True)
    with open_writer(target, info) as writer:
        writer.write_frame(Frame(pixels=pixels, pts=0))


class Examples:
    """Makes the steps that keep example frames.

    Args:
        plan: What shall be measured.
        store: What is known, and where frames go.
        tracks: Makes encodes.
    """

    def __init__(self, plan: Plan, store: ResultStore, tracks: Tracks) -> None:
        self._plan, self._store, self._tracks = plan, store, tracks

    def are_done(self, clip: ClipWork, codecs: Sequence[BenchCodec]) -> bool:
        """Whether all frames of a measured clip are kept."""
        return all(next(steps, None) is None for _, steps in self.steps(clip, codecs))

    def steps(self, clip: ClipWork, codecs: Sequence[BenchCodec]) -> list[tuple[str, Steps]]:
        """Steps for the original and each codec, to be taken when the clip has been measured; with names for people."""
        if not self._plan.examples or not codecs:
            return []
        own = self._own_record(clip)
        target = WORKING_RATE if own is None else own.bits_per_pixel
        steps = [(ORIGINAL, self._original(clip))]
        for codec in codecs:
            if codec.quantizer is not None:
                steps.append((codec.name, self._searched(clip, codec, target)))
            elif own is not None and own.key in self._planned(clip):
                steps.append((codec.name, self._shown(clip, codec, own.setting, target)))
        return [(f"example frame of {name}", some) for name, some in steps]

    def _own_record(self, clip: ClipWork) -> BenchRecord | None:
        """tokcodec's point nearest to the working rate."""
        records = [record for record in self._store.records if record.codec == OWN and self._is_of(record, clip)]
        # An earlier run may have left points of other weights here.
        records = [record for record in records if record.key in self._planned(clip)] or records
        return min(records, key=lambda record: abs(math.log(record.bits_per_pixel / WORKING_RATE)), default=None)

    def _planned(self, clip: ClipWork) -> set[str]:
        """Keys of the points of codecs without a quantizer."""
        codecs = [codec for codec in self._plan.codecs if codec.quantizer is None]
        return {clip.key(codec, setting) for codec in codecs for setting in codec.settings()}

    @staticmethod
    def _is_of(record: BenchRecord, clip: ClipWork) -> bool:
        facts = clip.facts
        size = (record.width, record.height, record.frames)
        return record.clip_sha256 == clip.sha256 and size == (facts.width, facts.height, facts.frames)

    def _original(self, clip: ClipWork) -> Steps:
        facts = clip.facts
        key = f"{clip.sha256} {facts.width}x{facts.height}x{facts.frames} {ORIGINAL}"
        if self._store.has_example(key):
            return
        job = self._job(clip, ORIGINAL)
        yield make_example, job
        self._keep(clip, key, ORIGINAL, job, rate=None, target=None)

    def _searched(self, clip: ClipWork, codec: BenchCodec, target: float) -> Steps:
        # VVenC's last curve is the perceptual one, which is made for eyes.
        fixed = codec.settings()[-1]
        key = clip.key(codec, {**fixed, "rate": round(target, 6)})
        if self._store.has_example(key):
            return
        setting = yield from self._match(clip, codec, fixed, target)
        yield from self._shown(clip, codec, setting, target, key=key)

    def _match(self, clip: ClipWork, codec: BenchCodec, fixed: Setting, target: float) -> Generator[Task, Any, Setting]:
        quantizer = codec.quantizer
        if quantizer is None:
            return fixed

        def setting(value: float) -> Setting:
            return {quantizer.name: int(value) if float(value).is_integer() else value, **fixed}

        known: dict[float, float] = {}
        for whole in range(quantizer.lowest, quantizer.highest + 1):
            if (encoded := self._store.find_encode(clip.key(codec, setting(whole)))) is not None:
                known[whole] = clip.rate(encoded.coded_bytes)
        attempts = self._tracks.attempts(clip, codec)
        steps = match(quantizer, target, known)
        try:
            value = next(steps)
            while True:
                value = steps.send((yield from attempts.rate(setting(value))))
        except StopIteration as end:
            attempts.keep()
            return setting(end.value)

    def _shown(self, clip: ClipWork, codec: BenchCodec, setting: Setting, target: float, *, key: str = "") -> Steps:
        """Decode what a setting gives, and keep its frame."""
        key = key or clip.key(codec, {**setting, "rate": round(target, 6)})
        if self._store.has_example(key):
            return
        encoded = yield from self._tracks.encode(clip, codec, setting)
        job = self._job(clip, codec.name, clip.job(codec, setting), encoded.coded_bytes)
        again: Encoded | None = yield make_example, job
        rate = clip.rate((again or encoded).coded_bytes)
        self._keep(clip, key, codec.name, job, rate=rate, target=target)

    def _job(self, clip: ClipWork, name: str, encode: EncodeJob | None = None, coded_bytes: int = 0) -> ExampleJob:
        target = clip.path.parent / "pictures" / f"{name}.png"
        number = clip.facts.frames // 2
        return ExampleJob(number=number, target=target, clip=clip.path, encode=encode, coded_bytes=coded_bytes)

    def _keep(
        self, clip: ClipWork, key: str, name: str, job: ExampleJob, *, rate: float | None, target: float | None
    ) -> None:
        self._store.add_example(
            key,
            clip=clip.source.name,
            codec=name,
            bits_per_pixel=rate,
            target=target,
            number=job.number,
            picture=job.target,
        )
