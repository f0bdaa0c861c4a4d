"""The command line: typed, in a process of its own, or called here, which saves a second of imports."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokcodec.cli import main
from tokcodec.console import Console

TOKCODEC = str(Path(sys.executable).with_name("tokcodec"))
"""The console script, as a person types it."""


def typed(
    *words: str | Path, stdin: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the console script."""
    command = [TOKCODEC, *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, timeout=250, check=False)


def called(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Call what the console script calls, in this process; exit code and output are those of :func:`typed`."""
    command = ["tokcodec", *map(str, words)]
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        patch.setattr(Console, "current", None)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    out.flush()
    err.flush()
    if not isinstance(end.value.code, int):
        raise TypeError(f"no exit code but {end.value.code!r}")
    return subprocess.CompletedProcess(command, end.value.code, out.buffer.getvalue(), err.buffer.getvalue())
