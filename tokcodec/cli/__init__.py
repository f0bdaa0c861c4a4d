"""The command line: parse, call, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TextIO, cast

from tokcodec import interruption
from tokcodec.cli import (  # noqa: F401  (they register their commands)
    bench,
    convert,
    look,
    measure,
    predict,
    study,
    tokens,
    train,
    train_post_filter,
    train_prior,
)
from tokcodec.cli.app import app
from tokcodec.console import Console
from tokcodec.errors import LimitError, TokcodecError

__all__ = ["app", "main"]

EXIT_BROKEN_PIPE = 141
"""What a shell reports of a process that SIGPIPE ended."""


def main() -> None:
    """Run the command line; every error becomes a message and an exit code."""
    interruption.install()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            cast("TextIO", stream).reconfigure(errors="replace")  # type: ignore[attr-defined]
    try:
        code = app(standalone_mode=False)
    except BaseException as error:
        code = _code_of(error)
    else:
        code = _interrupted() if interruption.settle() is not None else code
    sys.exit(code if isinstance(code, int) else 0)


def _code_of(error: BaseException) -> object:
    """Say what a person should know of `error`."""
    aborted = isinstance(error, RuntimeError) and type(error).__name__ == "Abort"  # the framework's KeyboardInterrupt
    if interruption.settle() is not None or aborted or isinstance(error, KeyboardInterrupt):
        return _interrupted()  # what else went wrong is that reading stopped
    if isinstance(error, TokcodecError):
        return _report(error)
    if isinstance(error, BrokenPipeError):
        return _nobody_reads()
    if isinstance(error, MemoryError):
        return _report(LimitError("there is not enough memory", hint="use a smaller picture or a shorter chunk"))
    if isinstance(error, SystemExit):
        # The framework ends the process itself when standard output is a broken pipe.
        return _nobody_reads() if error.code == 1 else error.code
    return _framework_or_bug(error)


def _interrupted() -> int:
    if interruption.settle() in (None, signal.SIGINT):
        _console().interrupted()
        return 130
    return 143


def _console() -> Console:
    return Console.current or Console()


def _report(error: TokcodecError) -> int:
    if isinstance(error.__cause__, BrokenPipeError):
        return _nobody_reads()
    _console().error(error)
    return error.exit_code


def _nobody_reads() -> int:
    """The reader went away, as with `| head`: no message, and none at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _framework_or_bug(error: BaseException) -> int:
    """Usage errors of the framework keep its message and code; anything else is a bug."""
    show = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    _console().bug(error)
    return 1
