"""What a worker does: make a clip, encode it, or decode and measure it. Each can run on any machine of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokcodec.bench.child import frames_of
from tokcodec.bench.clips import ClipFacts, write_clip
from tokcodec.bench.codecs import BenchCodec, CodecTask
from tokcodec.bench.datasets import ClipSource
from tokcodec.bench.machine import Machine, this_machine
from tokcodec.bench.process import Ran, run_measured
from tokcodec.bench.record import METRICS, Setting, Speed
from tokcodec.bench.vmaf import MODEL, measure_vmaf, vmaf_missing
from tokcodec.errors import MediaError

if TYPE_CHECKING:
    from tokcodec.metrics.backbones import Precision
    from tokcodec.metrics.meter import Meter


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """Make the lossless clip; see :func:`write_clip`."""

    source: ClipSource
    target: Path
    size: tuple[int, int] | None
    max_frames: int | None


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """One encode.

    Attributes:
        codec: Which.
        setting: What it is told.
        clip: The lossless clip.
        target: The coded file.
        facts: Of the clip.
        threads: How many it may use.
    """

    codec: BenchCodec
    setting: Setting
    clip: Path
    target: Path
    facts: ClipFacts
    threads: int

    def task(self, source: Path, target: Path) -> CodecTask:
        """A call with the clip's facts."""
        return CodecTask(
            source=source,
            target=target,
            setting=self.setting,
            threads=self.threads,
            matrix=self.facts.matrix,
            width=self.facts.width,
            height=self.facts.height,
            frame_rate=self.facts.frame_rate,
        )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encode gave.

    Attributes:
        coded_bytes: Size of the coded file.
        speed: Of the encoder.
        machine: Key of the machine.
    """

    coded_bytes: int
    speed: Speed
    machine: str


@dataclass(frozen=True, kw_only=True)
class MetricChoice:
    """How metrics are measured.

    Attributes:
        lpips_folder: Backbones; None leaves torch's cache.
        alex_every: LPIPS with AlexNet on every so many frames; 1 is all.
        vgg_every: Likewise with VGG16, and DISTS.
        dists: Whether DISTS is wanted.
        vmaf: Whether VMAF is wanted.
        device: Where MS-SSIM, LPIPS and DISTS are computed.
        precision: Of the convolutions of LPIPS and DISTS.
    """

    lpips_folder: Path | None = None
    alex_every: int = 1
    vgg_every: int = 1
    dists: bool = True
    vmaf: bool = True
    device: str = "cpu"
    precision: Precision = "float32"

    def frames(self) -> dict[str, int]:
        """Every how many frames, by metric."""
        return dict.fromkeys(METRICS, 1) | {
            "lpips_alex": self.alex_every,
            "lpips_vgg": self.vgg_every,
            "dists": self.vgg_every,
        }

    def first_frames(self, count: int) -> dict[str, int]:
        """Numbers of the first frames measured in a clip of so many, by metric, where that is not 0: see `Meter`."""
        first = {name: min(every // 2, count - 1) for name, every in self.frames().items()}
        return {name: number for name, number in first.items() if number}

    def precisions(self) -> dict[str, str]:
        """Of LPIPS and DISTS, by metric, where that is not float32."""
        names = ("lpips_alex", "lpips_vgg", "dists")
        return {} if self.precision == "float32" else dict.fromkeys(names, self.precision)


@dataclass(frozen=True, kw_only=True)
class MeasureJob:
    """Decode what an encode gave, afresh, and measure it.

    Attributes:
        encode: How the coded file is made again if it is not there.
        coded_bytes: Its size.
        metrics: How to measure.
    """

    encode: EncodeJob
    coded_bytes: int
    metrics: MetricChoice


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What it gave.

    Attributes:
        encoded: A new encode, where the coded file was not there.
        speed: Of the decoder.
        values: Metrics by name.
        missing: Why a value is None.
        sources: Where LPIPS, DISTS and VMAF come from, also where they gave no value.
        machine: Where it was decoded and measured.
    """

    encoded: Encoded | None
    speed: Speed
    values: dict[str, float | None]
    missing: dict[str, str]
    sources: dict[str, str]
    machine: Machine


def prepare_clip(job: PrepareJob) -> ClipFacts:
    """Make the lossless clip.

    Raises:
        TokcodecError: As :func:`write_clip`.
    """
    job.target.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(job.source, job.target, size=job.size, max_frames=job.max_frames)


def encode_clip(job: EncodeJob) -> Encoded:
    """Encode in a process of its own.

    Raises:
        MediaError: The codec fails.
    """
    job.target.parent.mkdir(parents=True, exist_ok=True)
    command = job.codec.encode_command(job.task(job.clip, job.target))
    setting = " ".join(f"{key} {value}" for key, value in job.setting.items())
    ran = run_measured(command, threads=job.threads, name=f"{job.codec.name} {setting}, encoding")
    return Encoded(coded_bytes=job.target.stat().st_size, speed=_speed(ran, job), machine=this_machine().key)


def _speed(ran: Ran, job: EncodeJob) -> Speed:
    seconds = float(ran.values["seconds"])
    return Speed(
        seconds=round(seconds, 4),
        frames_per_second=round(job.facts.frames / max(seconds, 1e-9), 3),
        peak_memory_bytes=ran.peak_memory_bytes,
        threads=job.threads,
        stages=job.codec.stages(ran.values),
    )


def measure_clip(job: MeasureJob) -> Measured:
    """Decode in a process of its own, and compare with the clip.

    Raises:
        MediaError: The codec fails, or gives back another number of frames.
    """
    with decoded_clip(job.encode, job.coded_bytes) as (encoded, decoded, ran):
        values, missing, sources = _metrics(job, decoded)
    return Measured(
        encoded=encoded,
        speed=_speed(ran, job.encode),
        values=values,
        missing=missing,
        sources=sources,
        machine=this_machine(),
    )


@contextlib.contextmanager
def decoded_clip(job: EncodeJob, coded_bytes: int) -> Iterator[tuple[Encoded | None, Path, Ran]]:
    """Decode in a process of its own, for as long as the context lasts.

    Args:
        job: How the coded file is made again if it is not there.
        coded_bytes: Its size.

    Yields:
        The new encode, if there had to be one; the lossless decoded clip; what the decoder did.

    Raises:
        MediaError: The codec fails.
    """
    encoded = None
    if not job.target.is_file() or job.target.stat().st_size != coded_bytes:
        encoded = encode_clip(job)
    decoded = job.target.with_suffix(".decoded.mkv")
    command = job.codec.decode_command(job.task(job.target, decoded))
    try:
        yield encoded, decoded, run_measured(command, threads=job.threads, name=f"{job.codec.name}, decoding")
    finally:
        decoded.unlink(missing_ok=True)


def _metrics(job: MeasureJob, decoded: Path) -> tuple[dict[str, float | None], dict[str, str], dict[str, str]]:
    clip, choice = job.encode.clip, job.metrics
    meter = meter_for(choice, job.encode.threads)
    try:
        quality = meter.measure(frames_of(clip), frames_of(decoded), matrix=job.encode.facts.matrix)
    except ValueError as error:
        raise MediaError(f"{job.encode.codec.name} gave back something else: {error}") from error
    measured = dataclasses.asdict(quality)
    values: dict[str, float | None] = {name: measured.get(name) for name in METRICS}
    missing, sources = meter.missing, meter.sources
    if not choice.vmaf:
        missing["vmaf"] = "not asked for"
    elif reason := vmaf_missing():
        missing["vmaf"] = reason
    else:
        sources["vmaf"] = MODEL
        try:
            values["vmaf"] = measure_vmaf(clip, decoded, threads=job.encode.threads)
        except MediaError as error:
            missing["vmaf"] = str(error)
    for name, value in values.items():
        if value is None:
            missing.setdefault(name, "the pictures are too small")
    return values, missing, {name: source for name, source in sources.items() if source}


@functools.lru_cache(maxsize=1)
def meter_for(choice: MetricChoice, threads: int) -> Meter:
    """The networks, loaded once in a process."""
    import torch

    from tokcodec.metrics.meter import make_meter

    torch.set_num_threads(threads)
    return make_meter(
        folder=choice.lpips_folder,
        every=choice.alex_every,
        vgg_every=choice.vgg_every,
        centred=True,
        device=choice.device,
        precision=choice.precision,
        dists=choice.dists,
    )
