"""Everything that is missing, and nothing twice: which task comes next, and what its result becomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokcodec.bench.clips import ClipFacts
from tokcodec.bench.codecs import BenchCodec
from tokcodec.bench.datasets import ClipSource, Dataset
from tokcodec.bench.engine import Engine, Task
from tokcodec.bench.rates import RateSpan, search
from tokcodec.bench.record import METRICS, BenchRecord, Setting, record_key
from tokcodec.bench.store import ORIGINAL, ResultStore
from tokcodec.bench.tasks import (
    Encoded,
    EncodeJob,
    Measured,
    MeasureJob,
    MetricChoice,
    PrepareJob,
    encode_clip,
    measure_clip,
    prepare_clip,
)
from tokcodec.errors import IncompleteError, MediaError, TokcodecError

Steps = Generator[Task, Any, None]
"""Yields tasks, one at a time; their results are sent back."""


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
        lpips: Backbones that there are, by metric; "" where there is none.
        vmaf: The model if it can be measured; "" where not.
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

    def is_enough(self, record: BenchRecord) -> bool:
        """Whether a record needs no measuring again: what can be measured now was, by the same networks and frames."""
        every = self.metrics.frames()
        there = {name: source for name, source in {**self.lpips, "vmaf": self.vmaf}.items() if source}
        return all(
            record.metric_sources.get(name) == source and record.metric_frames.get(name) == every[name]
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
        short: Curves that end before the rates of interest do.
        keys: Of all records of this plan.
    """

    measured: int = 0
    known: int = 0
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """A clip that is worked on."""

    source: ClipSource
    sha256: str
    facts: ClipFacts
    path: Path

    def rate(self, coded_bytes: int) -> float:
        """Bits per pixel."""
        return 8.0 * coded_bytes / (self.facts.width * self.facts.height * self.facts.frames)


def run_plan(plan: Plan, store: ResultStore, engine: Engine, say: Callable[[str], None]) -> Outcome:
    """Measure what the store does not hold.

    Args:
        plan: What.
        store: Where results are, and go.
        engine: What runs tasks.
        say: Takes a line for people after each.

    Raises:
        OutputError: The disk takes no more.
        IncompleteError: A worker was killed.
    """
    return _Run(plan, store, engine, say).run()


class _Run:
    def __init__(self, plan: Plan, store: ResultStore, engine: Engine, say: Callable[[str], None]) -> None:
        self._plan, self._store, self._engine, self._say = plan, store, engine, say
        self._outcome = Outcome()
        self._pending: dict[Any, tuple[Steps, str, str]] = {}
        self._open_tracks: dict[str, int] = {}
        self._versions: dict[str, dict[str, str]] = {}

    def run(self) -> Outcome:
        clips = iter(self._plan.dataset.clips)
        while self._fill(clips) or self._pending:
            if not self._pending:
                continue
            handle = self._engine.wait(list(self._pending))
            steps, clip, what = self._pending.pop(handle)
            try:
                result = self._engine.result(handle)
            except IncompleteError:
                raise
            except TokcodecError as error:
                self._fail(f"{clip}, {what}: {error}")
                self._ended(clip)
                continue
            self._go_on(steps, clip, what, result)
        self._store.clear_work()
        return self._outcome

    def _fill(self, clips: Iterator[ClipSource]) -> bool:
        """Begin clips until there is work for all workers; says whether there may be more clips."""
        while len(self._pending) < self._engine.jobs:
            source = next(clips, None)
            if source is None:
                return False
            self._open_tracks[source.name] = 1
            try:
                self._go_on(self._clip(source), source.name, "reading", None)
            except MediaError as error:
                self._fail(f"{source.name}: {error}")
                self._ended(source.name)
        return True

    def _go_on(self, steps: Steps, clip: str, what: str, result: Any) -> None:
        try:
            task = steps.send(result)
        except StopIteration:
            self._ended(clip)
            return
        self._pending[self._engine.submit(task)] = (steps, clip, what)

    def _ended(self, clip: str) -> None:
        self._open_tracks[clip] -= 1
        if not self._open_tracks[clip]:
            self._store.clear_work(clip)

    def _fail(self, text: str) -> None:
        self._outcome.failures.append(text)
        self._say(f"failed: {text}")

    def _clip(self, source: ClipSource) -> Steps:
        """Read a clip if anything of it is missing; then every codec has its own steps."""
        plan = self._plan
        sha256 = source.digest()
        size = "source" if plan.size is None else f"{plan.size[0]}x{plan.size[1]}"
        key = f"{sha256} {size} {'all' if plan.max_frames is None else plan.max_frames}"
        path = self._store.work_folder(source.name) / "clip.avi"
        job = PrepareJob(source=source, target=path, size=plan.size, max_frames=plan.max_frames)
        facts = self._store.facts(key)
        is_read = facts is None
        if facts is None:
            facts = yield prepare_clip, job
            self._store.add_facts(key, facts)
        clip = _Clip(source=source, sha256=sha256, facts=facts, path=path)
        tracks = [(codec, setting) for codec in self._fitting(clip) for setting in self._curves(codec)]
        open_tracks = [(codec, some) for codec, some in tracks if not self._is_done(clip, codec, some)]
        if open_tracks and not is_read:
            yield prepare_clip, job
        for codec, some in tracks:
            self._open_tracks[source.name] += 1
            self._go_on(self._track(clip, codec, some), source.name, codec.name, None)

    def _fitting(self, clip: _Clip) -> list[BenchCodec]:
        fitting = []
        for codec in self._plan.codecs:
            if reason := codec.refuses(clip.facts.width, clip.facts.height):
                self._outcome.left_out.append(f"{clip.source.name}, {codec.name}: {reason}")
                self._say(f"left out: {clip.source.name}, {codec.name}: {reason}")
            else:
                fitting.append(codec)
        return fitting

    @staticmethod
    def _curves(codec: BenchCodec) -> list[list[Setting]]:
        """Settings in one sequence of steps: a searched curve, or a single point."""
        return [[setting] for setting in codec.settings()]

    def _is_done(self, clip: _Clip, codec: BenchCodec, settings: list[Setting]) -> bool:
        """Whether the store holds all: then the steps end without a task."""
        probe = _Run(self._plan, self._store, self._engine, lambda _: None)
        try:
            next(probe._track(clip, codec, settings))
        except StopIteration:
            return True
        return False

    def _track(self, clip: _Clip, codec: BenchCodec, settings: list[Setting]) -> Steps:
        """One curve of one clip by one codec, or one point of it."""
        if codec.quantizer is not None:
            settings = yield from self._search(clip, codec, settings[0])
        for setting in settings:
            key = self._key(clip, codec, setting)
            self._outcome.keys.add(key)
            record = self._store.find(key)
            if record is not None and self._plan.is_enough(record):
                self._outcome.known += 1
                continue
            encoded = yield from self._encode(clip, codec, setting)
            yield from self._measure(clip, codec, setting, encoded)

    def _search(self, clip: _Clip, codec: BenchCodec, fixed: Setting) -> Generator[Task, Any, list[Setting]]:
        quantizer, span = codec.quantizer, self._plan.span
        if quantizer is None:
            return [fixed]
        rates: dict[int, float] = {}
        steps = search(quantizer, span)
        chosen: list[int] = []
        try:
            value = next(steps)
            while True:
                encoded = yield from self._encode(clip, codec, {quantizer.name: value, **fixed})
                rates[value] = clip.rate(encoded.coded_bytes)
                value = steps.send(rates[value])
        except StopIteration as end:
            chosen = end.value
        for reached, wanted, word in (
            (rates[chosen[-1]], span.lowest, "lowest"),
            (rates[chosen[0]], span.highest, "highest"),
        ):
            if (reached > wanted) if word == "lowest" else (reached < wanted):
                self._outcome.short.append(f"{clip.source.name}, {codec.name}: {word} rate {reached:.5f}")
        return [{quantizer.name: value, **fixed} for value in chosen]

    def _key(self, clip: _Clip, codec: BenchCodec, setting: Setting) -> str:
        facts = clip.facts
        return record_key(
            clip_sha256=clip.sha256,
            codec=codec.name,
            setting=setting,
            width=facts.width,
            height=facts.height,
            frames=facts.frames,
            threads=self._plan.threads,
        )

    def _job(self, clip: _Clip, codec: BenchCodec, setting: Setting) -> EncodeJob:
        words = "_".join(f"{name}{value}" for name, value in setting.items()).replace(".", "p")
        return EncodeJob(
            codec=codec,
            setting=setting,
            clip=clip.path,
            target=clip.path.with_name(f"{codec.name}_{words}{codec.suffix}"),
            facts=clip.facts,
            threads=self._plan.threads,
        )

    def _encode(self, clip: _Clip, codec: BenchCodec, setting: Setting) -> Generator[Task, Any, Encoded]:
        key = self._key(clip, codec, setting)
        known = self._store.find_encode(key)
        if known is not None:
            return known
        encoded: Encoded = yield encode_clip, self._job(clip, codec, setting)
        self._store.add_encode(key, encoded)
        self._say(f"{clip.source.name} {codec.name} {_short(setting)}: {clip.rate(encoded.coded_bytes):.5f} bpp")
        return encoded

    def _measure(self, clip: _Clip, codec: BenchCodec, setting: Setting, encoded: Encoded) -> Steps:
        job = MeasureJob(
            encode=self._job(clip, codec, setting),
            coded_bytes=encoded.coded_bytes,
            metrics=self._plan.metrics,
            frame=clip.facts.frames // 2,
            pictures=clip.path.parent / "pictures",
        )
        measured: Measured = yield measure_clip, job
        encoded = measured.encoded or encoded
        facts, rate = clip.facts, clip.rate(encoded.coded_bytes)
        record = BenchRecord(
            dataset=self._plan.dataset.name,
            clip=clip.source.name,
            clip_sha256=clip.sha256,
            codec=codec.name,
            setting=setting,
            width=facts.width,
            height=facts.height,
            frames=facts.frames,
            frame_rate=float(Fraction(facts.frame_rate)),
            coded_bytes=encoded.coded_bytes,
            bits_per_pixel=rate,
            metrics={name: measured.values[name] for name in METRICS},
            metrics_missing=measured.missing,
            metric_frames=self._plan.metrics.frames(),
            metric_sources=measured.sources,
            encode=encoded.speed,
            decode=measured.speed,
            command=codec.told(setting, threads=self._plan.threads),
            versions=self._versions_of(codec),
            machine=measured.machine.key,
            encode_machine="" if encoded.machine == measured.machine.key else encoded.machine,
        )
        self._store.add_machine(measured.machine)
        self._store.add(record)
        self._outcome.measured += 1
        for name, picture, its_rate in ((ORIGINAL, measured.original, None), (codec.name, measured.decoded, rate)):
            self._store.offer_frame(
                clip=clip.source.name, codec=name, bits_per_pixel=its_rate, number=job.frame, picture=picture
            )
        values = [f"{name} {value:.4g}" for name, value in record.metrics.items() if value is not None]
        self._say(f"{clip.source.name} {codec.name} {_short(setting)}: {rate:.5f} bpp, {', '.join(values)}")

    def _versions_of(self, codec: BenchCodec) -> dict[str, str]:
        if codec.name not in self._versions:
            self._versions[codec.name] = {name: text for name, text in codec.versions().items() if text}
        return self._versions[codec.name]


def _short(setting: Setting) -> str:
    return " ".join(f"{name} {value}" for name, value in setting.items() if name not in ("weights", "chunk_frames"))


def records_of(store: ResultStore, outcome: Outcome) -> list[BenchRecord]:
    """The records of this plan, and not what other runs left in the same folder."""
    return [record for record in store.records if record.key in outcome.keys]
