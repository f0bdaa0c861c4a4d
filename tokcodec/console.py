"""The only module that prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from tokcodec.errors import TokcodecError


class Console:
    """How much to say, and where.

    Args:
        json_results: Results as one JSON object instead of lines for people.
        verbosity: -1 errors only, 0 also notes and progress, 1 also what a developer wants.
        results_to_stderr: Standard output is taken by the data itself.
    """

    def __init__(self, *, json_results: bool = False, verbosity: int = 0, results_to_stderr: bool = False) -> None:
        self.json_results = json_results
        self.verbosity = verbosity
        self._results: TextIO = sys.stderr if results_to_stderr else sys.stdout

    def result(self, values: Mapping[str, Any], lines: list[tuple[str, str]]) -> None:
        """Print a result: `values` as JSON, or `lines` (label, text) for people."""
        if self.json_results:
            print(json.dumps(values, allow_nan=False), file=self._results)
        elif self.verbosity >= 0:
            width = max((len(label) for label, _ in lines), default=0)
            for label, text in lines:
                print(f"{label:<{width}}  {text}".rstrip(), file=self._results)

    def note(self, text: str) -> None:
        """Something that a person should know."""
        if self.verbosity >= 0:
            print(f"note: {text}", file=sys.stderr)

    def debug(self, text: str) -> None:
        """Something for `-v`."""
        if self.verbosity >= 1:
            print(text, file=sys.stderr)

    def error(self, error: TokcodecError) -> None:
        """What went wrong, where, and what to do."""
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Callable[[int], None] | None]:
        """A progress bar with frames a second and time left, on a terminal; None in a pipe or when quiet."""
        if self.verbosity < 0 or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.fields[of]} frames"),
            TextColumn("{task.fields[rate]:.1f} frames/s"),
            TimeRemainingColumn(),
        )
        start = time.monotonic()
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total, of=total or "?", rate=0.0)

            def update(done: int) -> None:
                bar.update(task, completed=done, rate=done / max(1e-6, time.monotonic() - start))

            yield update
