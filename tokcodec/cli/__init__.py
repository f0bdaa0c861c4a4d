"""The command line: parse, call, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TextIO, cast

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

_AGAIN_SECONDS = 5.0
"""An exception of a signal handler is lost where the interpreter runs a callback of C code: it is raised once more."""
EXIT_BROKEN_PIPE = 141
"""What a shell reports of a process that SIGPIPE ended."""


class _TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived; temporary outputs are removed on the way out."""


def main() -> None:
    """Run the command line; every error becomes a message and an exit code."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _on_terminate)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            cast("TextIO", stream).reconfigure(errors="replace")  # type: ignore[attr-defined]
    try:
        code = app(standalone_mode=False)
    except TokcodecError as error:
        code = _report(error)
    except (KeyboardInterrupt, _TerminatedError) as error:
        _raise_again_after(0.0)
        code = 143
        if isinstance(error, KeyboardInterrupt):
            _console().interrupted()
            code = 130
    except BrokenPipeError:
        code = _nobody_reads()
    except MemoryError:
        code = _report(LimitError("there is not enough memory", hint="use a smaller picture or a shorter chunk"))
    except SystemExit as error:
        # The framework ends the process itself when standard output is a broken pipe.
        code = _nobody_reads() if error.code == 1 else error.code
    except Exception as error:
        code = _framework_or_bug(error)
    sys.exit(code if isinstance(code, int) else 0)


def _console() -> Console:
    return Console.current or Console()


def _on_terminate(*_: object) -> None:
    _raise_again_after(_AGAIN_SECONDS)
    raise _TerminatedError


def _raise_again_after(seconds: float) -> None:
    """Set the alarm, or with 0 stop it; some systems have none."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _on_terminate)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _report(error: TokcodecError) -> int:
    if isinstance(error.__cause__, BrokenPipeError):
        return _nobody_reads()
    _console().error(error)
    return error.exit_code


def _nobody_reads() -> int:
    """The reader went away, as with `| head`: no message, and none at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _framework_or_bug(error: Exception) -> int:
    """Usage errors of the framework keep its message and code; anything else is a bug."""
    show = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, RuntimeError) and type(error).__name__ == "Abort":
        _console().interrupted()
        return 130
    _console().bug(error)
    return 1
