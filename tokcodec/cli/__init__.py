"""The command line: parse, call, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

import signal
import sys

from tokcodec.cli import convert, develop, look, train  # noqa: F401  (they register their commands)
from tokcodec.cli.app import app
from tokcodec.console import Console
from tokcodec.errors import TokcodecError

__all__ = ["app", "main"]


class _TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived; temporary outputs are removed on the way out."""


def main() -> None:
    """Run the command line; every error becomes a message and an exit code."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _on_terminate)
    try:
        code = app(standalone_mode=False)
    except TokcodecError as error:
        Console().error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except _TerminatedError:
        code = 143
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads what we wrote, as with `| head`
        code = 141
    except Exception as error:
        code = _framework_or_bug(error)
    sys.exit(code if isinstance(code, int) else 0)


def _on_terminate(*_: object) -> None:
    raise _TerminatedError


def _framework_or_bug(error: Exception) -> int:
    """Usage errors of the framework keep its message and code; anything else is a bug."""
    show = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, RuntimeError) and type(error).__name__ == "Abort":
        return 130
    if "-v" in sys.argv or "--verbose" in sys.argv:
        import traceback

        traceback.print_exc()
    else:
        print(f"error: this is a bug in tokcodec: {type(error).__name__}: {error}", file=sys.stderr)
        print("hint: run again with -v and report what it prints", file=sys.stderr)
    return 1
