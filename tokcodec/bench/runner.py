"""Everything that is missing, and nothing twice: which task comes next, and when a clip's files can go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokcodec.bench.codecs import BenchCodec
from tokcodec.bench.datasets import ClipSource
from tokcodec.bench.engine import Engine
from tokcodec.bench.examples import Examples
from tokcodec.bench.plan import ClipWork, Outcome, Plan
from tokcodec.bench.record import BenchRecord
from tokcodec.bench.store import ResultStore
from tokcodec.bench.tasks import PrepareJob, prepare_clip
from tokcodec.bench.tracks import Steps, Tracks
from tokcodec.errors import IncompleteError, MediaError, TokcodecError

Later = Callable[[], list[tuple[str, Steps]]]
"""Gives steps that begin when all others of a clip have ended, with names for people."""


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
        self._tracks = Tracks(plan, store, self._outcome, say)
        self._examples = Examples(plan, store, self._tracks)
        self._pending: dict[Any, tuple[Steps, str, str]] = {}
        self._open_tracks: dict[str, int] = {}
        self._later: dict[str, Later] = {}

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
                result = error
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
            self._go_on(self._clip(source), source.name, "reading", None)
        return True

    def _go_on(self, steps: Steps, clip: str, what: str, result: Any) -> None:
        try:
            task = steps.throw(result) if isinstance(result, TokcodecError) else steps.send(result)
        except StopIteration:
            self._ended(clip)
            return
        except TokcodecError as error:
            if error is not result and not isinstance(error, MediaError):
                raise
            self._fail(f"{clip}, {what}: {error}")
            self._ended(clip)
            return
        self._pending[self._engine.submit(task)] = (steps, clip, what)

    def _ended(self, clip: str) -> None:
        self._open_tracks[clip] -= 1
        if self._open_tracks[clip]:
            return
        later = self._later.pop(clip, None)
        if later is None:
            self._store.clear_work(clip)
            return
        self._begin(clip, later())

    def _begin(self, clip: str, tracks: list[tuple[str, Steps]]) -> None:
        """Steps that run beside each other; the clip is open until all have ended."""
        self._open_tracks[clip] += 1
        for what, steps in tracks:
            self._open_tracks[clip] += 1
            self._go_on(steps, clip, what, None)
        self._ended(clip)

    def _fail(self, text: str) -> None:
        self._outcome.failures.append(text)
        self._say(f"failed: {text}")

    def _clip(self, source: ClipSource) -> Steps:
        """Read a clip if anything of it is missing; then every curve has its own steps, and example frames the last."""
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
        clip = ClipWork(source=source, sha256=sha256, facts=facts, path=path, threads=plan.threads)
        codecs = self._fitting(clip)
        curves = [(codec, fixed) for codec in codecs for fixed in codec.settings()]
        is_done = all(self._tracks.is_done(clip, *curve) for curve in curves) and self._examples.are_done(clip, codecs)
        if not is_done and not is_read:
            yield prepare_clip, job
        self._later[source.name] = lambda: self._examples.steps(clip, codecs)
        self._begin(source.name, [(codec.name, self._tracks.curve(clip, codec, fixed)) for codec, fixed in curves])

    def _fitting(self, clip: ClipWork) -> list[BenchCodec]:
        fitting = []
        for codec in self._plan.codecs:
            if reason := codec.refuses(clip.facts.width, clip.facts.height):
                self._outcome.left_out.append(f"{clip.source.name}, {codec.name}: {reason}")
                self._say(f"left out: {clip.source.name}, {codec.name}: {reason}")
            else:
                fitting.append(codec)
        return fitting


def records_of(store: ResultStore, outcome: Outcome) -> list[BenchRecord]:
    """The records of this plan, and not what other runs left in the same folder."""
    return [record for record in store.records if record.key in outcome.keys]
