"""What shall be measured, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokcodec.bench.clips import ClipFacts
from tokcodec.bench.codecs import BenchCodec
from tokcodec.bench.datasets import ClipSource, Dataset
from tokcodec.bench.rates import RateSpan
from tokcodec.bench.record import BenchRecord, Setting, record_key
from tokcodec.bench.tasks import EncodeJob, MetricChoice


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall be measured.

    Attributes:
        dataset: The clips.
        codecs: Those that are on this machine.
        size: Width and height; None keeps that of the files.
        max_frames: Only the first so many frames of each clip.
        threads: Of each codec.
        span: Rates, for codecs with a quantizer.
        metrics: How.
        lpips: Backbones of LPIPS and DISTS that there are, by metric; "" where there is none.
        vmaf: The model if it can be measured; "" where not.
        examples: Whether example frames are kept.
    """

    dataset: Dataset
    codecs: Sequence[BenchCodec]
    size: tuple[int, int] | None
    max_frames: int | None
    threads: int
    span: RateSpan
    metrics: MetricChoice
    lpips: dict[str, str]
    vmaf: str
    examples: bool = True

    def is_enough(self, record: BenchRecord) -> bool:
        """Whether a record needs no measuring again: what can be measured now was, by the same networks and frames."""
        every, first = self.metrics.frames(), self.metrics.first_frames(record.frames)
        precision = self.metrics.precisions()
        there = {name: source for name, source in {**self.lpips, "vmaf": self.vmaf}.items() if source}
        return all(
            record.metric_sources.get(name) == source
            and record.metric_frames.get(name) == every[name]
            and record.metric_first.get(name) == first.get(name)
            and record.metric_precision.get(name) == precision.get(name)
            for name, source in there.items()
        )


@dataclass(kw_only=True)
class Outcome:
    """What a run did.

    Attributes:
        measured: New records.
        known: Records that were there.
        left_out: Codec and clip that do not go together, and why.
        failures: What went wrong; the rest went on.
        failed: Quantizers at which an encoder failed, and others took their place.
        short: Curves that end before the rates of interest do.
        keys: Of all records of this plan.
    """

    measured: int = 0
    known: int = 0
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class ClipWork:
    """A clip that is worked on.

    Attributes:
        source: Where it comes from.
        sha256: Its digest.
        facts: What it is.
        path: The lossless clip.
        threads: Of each codec.
    """

    source: ClipSource
    sha256: str
    facts: ClipFacts
    path: Path
    threads: int

    def rate(self, coded_bytes: int) -> float:
        """Bits per pixel."""
        return 8.0 * coded_bytes / (self.facts.width * self.facts.height * self.facts.frames)

    def key(self, codec: BenchCodec, setting: Setting) -> str:
        """What makes a measurement of this clip the same one."""
        facts = self.facts
        return record_key(
            clip_sha256=self.sha256,
            codec=codec.name,
            setting=setting,
            width=facts.width,
            height=facts.height,
            frames=facts.frames,
            threads=self.threads,
        )

    def job(self, codec: BenchCodec, setting: Setting) -> EncodeJob:
        """How it is encoded."""
        words = "_".join(f"{name}{value}" for name, value in setting.items()).replace(".", "p")
        return EncodeJob(
            codec=codec,
            setting=setting,
            clip=self.path,
            target=self.path.with_name(f"{codec.name}_{words}{codec.suffix}"),
            facts=self.facts,
            threads=self.threads,
        )
