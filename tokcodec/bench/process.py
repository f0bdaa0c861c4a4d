"""A program in its own process: what it printed, its wall clock, its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokcodec.bench import launch
from tokcodec.errors import MediaError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a program did.

    Attributes:
        values: The JSON object on the last line of its standard output.
        seconds: Wall clock of the process, its start included.
        peak_memory_bytes: Peak resident memory of the largest of its processes; None where the system does not say.
    """

    values: dict[str, Any]
    seconds: float
    peak_memory_bytes: int | None


def run_measured(command: Sequence[str], *, threads: int, name: str) -> Ran:
    """Run a command that prints a JSON object as its last line.

    Args:
        command: Program and arguments.
        threads: How many threads it may use, told to it by the environment.
        name: What to call it in an error.

    Raises:
        MediaError: It failed, or printed something else.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        launcher = [sys.executable, "-I", "-S", str(launch.__file__), str(result)]
        done = subprocess.run(
            [*launcher, *command], capture_output=True, text=True, errors="replace", check=False, env=environment
        )
        if done.returncode != 0:
            raise MediaError(f"{name} failed ({done.returncode}): {_said(done.stderr)}")
        measured = json.loads(result.read_text())
    try:
        values = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise MediaError(f"{name} did not print a result") from error
    if not isinstance(values, dict):
        raise MediaError(f"{name} did not print a result")
    return Ran(
        values=values,
        seconds=float(measured["seconds"]),
        peak_memory_bytes=int(measured["peak_memory_bytes"]) or None,
    )


def _said(stderr: str) -> str:
    """The message of an error that is a JSON object, else the last lines."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    try:
        return str(json.loads(lines[-1])["error"]["message"])
    except (ValueError, IndexError, KeyError, TypeError):
        return " / ".join(lines[-3:]) or "it said nothing"
