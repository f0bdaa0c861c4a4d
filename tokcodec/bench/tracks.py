"""One curve of one clip by one codec, as steps: each wants a task done, and what is known already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any

from tokcodec.bench.codecs import BenchCodec
from tokcodec.bench.engine import Task
from tokcodec.bench.plan import ClipWork, Outcome, Plan
from tokcodec.bench.rates import search
from tokcodec.bench.record import METRICS, BenchRecord, Setting
from tokcodec.bench.store import ResultStore
from tokcodec.bench.tasks import Encoded, Measured, MeasureJob, encode_clip, measure_clip

Steps = Generator[Task, Any, None]
"""Yields tasks, one at a time; their results are sent back."""


class Tracks:
    """Makes the steps of a run.

    Args:
        plan: What shall be measured.
        store: What is known, and where results go.
        outcome: Counts, and remarks for people.
        say: Takes a line for people after each task.
    """

    def __init__(self, plan: Plan, store: ResultStore, outcome: Outcome, say: Callable[[str], None]) -> None:
        self._plan, self._store, self._outcome, self._say = plan, store, outcome, say
        self._versions: dict[str, dict[str, str]] = {}

    def is_done(self, clip: ClipWork, codec: BenchCodec, fixed: Setting) -> bool:
        """Whether the store holds all of a curve: then its steps end without a task."""
        probe = Tracks(self._plan, self._store, Outcome(), lambda _: None)
        return next(probe.curve(clip, codec, fixed), None) is None

    def curve(self, clip: ClipWork, codec: BenchCodec, fixed: Setting) -> Steps:
        """A searched curve, or the single point of a codec without a quantizer."""
        settings = [fixed] if codec.quantizer is None else (yield from self._search(clip, codec, fixed))
        for setting in settings:
            key = clip.key(codec, setting)
            self._outcome.keys.add(key)
            record = self._store.find(key)
            if record is not None and self._plan.is_enough(record):
                self._outcome.known += 1
                continue
            encoded = yield from self.encode(clip, codec, setting)
            yield from self._measure(clip, codec, setting, encoded)

    def _search(self, clip: ClipWork, codec: BenchCodec, fixed: Setting) -> Generator[Task, Any, list[Setting]]:
        quantizer, span = codec.quantizer, self._plan.span
        if quantizer is None:
            return [fixed]
        rates: dict[int, float] = {}
        steps = search(quantizer, span)
        chosen: list[int] = []
        try:
            value = next(steps)
            while True:
                encoded = yield from self.encode(clip, codec, {quantizer.name: value, **fixed})
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

    def encode(self, clip: ClipWork, codec: BenchCodec, setting: Setting) -> Generator[Task, Any, Encoded]:
        """An encode, if it is not known."""
        key = clip.key(codec, setting)
        known = self._store.find_encode(key)
        if known is not None:
            return known
        encoded: Encoded = yield encode_clip, clip.job(codec, setting)
        self._store.add_encode(key, encoded)
        rate = clip.rate(encoded.coded_bytes)
        self._say(f"{clip.source.name} {codec.name} {short_setting(setting)}: {rate:.5f} bpp")
        return encoded

    def _measure(self, clip: ClipWork, codec: BenchCodec, setting: Setting, encoded: Encoded) -> Steps:
        metrics = self._plan.metrics
        job = MeasureJob(encode=clip.job(codec, setting), coded_bytes=encoded.coded_bytes, metrics=metrics)
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
            metric_frames=metrics.frames(),
            metric_first=metrics.first_frames(facts.frames),
            metric_precision=metrics.precisions(),
            metric_sources=measured.sources,
            encode=encoded.speed,
            decode=measured.speed,
            command=codec.told(setting, threads=clip.threads),
            versions=self._versions_of(codec),
            machine=measured.machine.key,
            encode_machine="" if encoded.machine == measured.machine.key else encoded.machine,
        )
        self._store.add_machine(measured.machine)
        self._store.add(record)
        self._outcome.measured += 1
        values = [f"{name} {value:.4g}" for name, value in record.metrics.items() if value is not None]
        self._say(f"{clip.source.name} {codec.name} {short_setting(setting)}: {rate:.5f} bpp, {', '.join(values)}")

    def _versions_of(self, codec: BenchCodec) -> dict[str, str]:
        if codec.name not in self._versions:
            self._versions[codec.name] = {name: text for name, text in codec.versions().items() if text}
        return self._versions[codec.name]


def short_setting(setting: Setting) -> str:
    """A setting for people, without what all of them share."""
    return " ".join(f"{name} {value}" for name, value in setting.items() if name not in ("weights", "chunk_frames"))
