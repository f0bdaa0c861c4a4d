"""Signals that end the run, remembered.

The exception that a handler raises is lost where the interpreter runs a callback of C code, and PyAV then takes what
it read for the end of the file. So the signal is also noted: no output takes its name after it, and it is raised again.
"""

from __future__ import annotations

import signal

__all__ = ["TerminatedError", "check", "install", "settle"]

_AGAIN_SECONDS = 5.0

_arrived: list[int] = []


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived; temporary outputs are removed on the way out."""


def install() -> None:
    """Let SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP TerminatedError, again and again until `settle`.

    A signal that the caller ignores, as `nohup` does with SIGHUP, stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)


def settle() -> int | None:
    """The first signal that arrived, or None; it is not raised again by itself."""
    if _arrived and hasattr(signal, "setitimer"):  # or the timer is another's
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return _arrived[0] if _arrived else None


def check() -> None:
    """Raise what a handler raised before, if it was lost.

    Raises:
        KeyboardInterrupt: SIGINT arrived.
        TerminatedError: SIGTERM or SIGHUP arrived.
    """
    if _arrived:
        raise KeyboardInterrupt if _arrived[0] == signal.SIGINT else TerminatedError


def _on_signal(number: int, _: object) -> None:
    if not _arrived:
        _arrived.append(number)
    if hasattr(signal, "setitimer"):  # some systems have no such alarm
        signal.signal(signal.SIGALRM, lambda *_: _on_signal(_arrived[0], None))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    check()
