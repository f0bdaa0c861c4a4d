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
from tokcodec.errors import MediaError

Steps = Generator[Task, Any, None]
"""Yields tasks, one at a time; their results are sent back, and what they raise is thrown in."""

MOST_FAILURES = 3
"""Quantizers at which an encoder may fail in a search; one that fails at more has another problem."""


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
            try:
                encoded = yield from self.encode(clip, codec, setting)
                yield from self._measure(clip, codec, setting, encoded)
            except MediaError as error:  # the other points are measured all the same
                text = f"{clip.source.name}, {codec.name} {short_setting(setting)}: {error}"
                self._outcome.failures.append(text)
                self._say(f"failed: {text}")

    def _search(self, clip: ClipWork, codec: BenchCodec, fixed: Setting) -> Generator[Task, Any, list[Setting]]:
        quantizer, span = codec.quantizer, self._plan.span
        if quantizer is None:
            return [fixed]
        rates: dict[int, float] = {}
        attempts = self.attempts(clip, codec)
        steps = search(quantizer, span)
        chosen: list[int] = []
        try:
            value = next(steps)
            while True:
                rate = yield from attempts.rate({quantizer.name: value, **fixed})
                if rate is not None:
                    rates[value] = rate
                value = steps.send(rate)
        except StopIteration as end:
            chosen = end.value
        attempts.keep()
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

    def attempts(self, clip: ClipWork, codec: BenchCodec) -> Attempts:
        """Encodes of a search."""
        return Attempts(self, self._store, self._outcome, self._say, clip, codec)

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


class Attempts:
    """Encodes of a search, which goes on where an encoder fails at a quantizer.

    Args:
        tracks: Makes encodes.
        store: What is known, and where failures go.
        outcome: Remarks for people.
        say: Takes a line for people.
        clip: Which.
        codec: Which.
    """

    def __init__(
        self,
        tracks: Tracks,
        store: ResultStore,
        outcome: Outcome,
        say: Callable[[str], None],
        clip: ClipWork,
        codec: BenchCodec,
    ) -> None:
        self._tracks, self._store, self._outcome, self._say = tracks, store, outcome, say
        self._clip, self._codec = clip, codec
        self._known: list[tuple[Setting, str]] = []
        self._new: list[tuple[Setting, str]] = []

    def rate(self, setting: Setting) -> Generator[Task, Any, float | None]:
        """Bits per pixel at a setting; None where the encoder fails, and has not failed often.

        Raises:
            MediaError: It fails at more than `MOST_FAILURES`.
        """
        clip, codec = self._clip, self._codec
        if reason := self._store.find_failed(clip.key(codec, setting)):
            self._known.append((setting, reason))
            return None
        try:
            encoded = yield from self._tracks.encode(clip, codec, setting)
        except MediaError as error:
            if len(self._new) == MOST_FAILURES:
                raise
            self._new.append((setting, str(error)))
            self._say(f"{self._text(setting, str(error))}; another quantizer takes its place")
            return None
        return clip.rate(encoded.coded_bytes)

    def keep(self) -> None:
        """To be called when the search has found what it wants: only then it was the quantizers' fault."""
        for setting, reason in self._new:
            key = self._clip.key(self._codec, setting)
            names = {"clip": self._clip.source.name, "codec": self._codec.name}
            self._store.add_failed(key, **names, setting=setting, reason=reason)
        texts = [self._text(*one) for one in (*self._known, *self._new)]
        self._outcome.failed += [text for text in texts if text not in self._outcome.failed]

    def _text(self, setting: Setting, reason: str) -> str:
        return f"{self._clip.source.name}, {self._codec.name} {short_setting(setting)}: {reason}"


def short_setting(setting: Setting) -> str:
    """A setting for people, without what all of them share."""
    return " ".join(f"{name} {value}" for name, value in setting.items() if name not in ("weights", "chunk_frames"))
