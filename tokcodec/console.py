"""The only module that prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tokcodec.errors import OutputError, TokcodecError


class Console:
    """How much to say, and where; the last one made is the one that errors are said through.

    Args:
        json_results: Results and errors as one JSON object instead of lines for people.
        verbosity: -1 errors only, 0 also notes and progress, 1 also what a developer wants.
        results_to_stderr: Standard output is taken by the data itself.
    """

    current: Console | None = None

    def __init__(self, *, json_results: bool = False, verbosity: int = 0, results_to_stderr: bool = False) -> None:
        self.json_results = json_results
        self.verbosity = verbosity
        self._results: TextIO = sys.stderr if results_to_stderr else sys.stdout
        Console.current = self

    def result(self, values: Mapping[str, Any], lines: list[tuple[str, str]]) -> None:
        """Print a result: `values` as JSON (what is not finite becomes null), or `lines` for people."""
        if self.json_results:
            self._print(json.dumps(_finite(values)))
        elif self.verbosity >= 0:
            width = max((len(label) for label, _ in lines), default=0)
            for label, text in lines:
                self._print(f"{label:<{width}}  {text}".rstrip())

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table for people, the first column left and the others right; in JSON it is part of the result."""
        if self.json_results or self.verbosity < 0:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        RichConsole(file=self._results).print(table)

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._results, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "redirect it to another place"
            raise OutputError(f"cannot be written: {error.strerror}", where="standard output", hint=hint) from error

    def note(self, text: str) -> None:
        """Something that a person should know; in JSON it is part of the result."""
        if self.verbosity >= 0 and not self.json_results:
            print(f"note: {text}", file=sys.stderr)

    def debug(self, text: str) -> None:
        """Something for `-v`."""
        if self.verbosity >= 1:
            print(text, file=sys.stderr)

    def error(self, error: TokcodecError) -> None:
        """What went wrong, where, and what to do."""
        if self.json_results:
            fields = {"message": str(error), "hint": error.hint, "offset": error.offset, "exit_code": error.exit_code}
            print(json.dumps({"error": fields}), file=sys.stderr)
            return
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)

    def interrupted(self) -> None:
        """The user pressed the interrupt key."""
        print("interrupted", file=sys.stderr)

    def bug(self, error: BaseException) -> None:
        """An exception that should not have come so far."""
        print(f"error: this is a bug in tokcodec: {type(error).__name__}: {error}", file=sys.stderr)
        if self.verbosity >= 1:
            traceback.print_exception(error, file=sys.stderr)
        else:
            print("hint: run it again with --verbose and report what it prints", file=sys.stderr)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int | None], None] | None]:
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
            task = bar.add_task(label, total=None, of="?", rate=0.0)

            def update(done: int, total: int | None) -> None:
                total = None if total is None else max(done, total)
                rate = done / max(1e-6, time.monotonic() - start)
                bar.update(task, completed=done, total=total, of=total or "?", rate=rate)

            yield update


def _finite(value: Any) -> Any:
    """JSON has no infinity: the PSNR of equal pictures becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
