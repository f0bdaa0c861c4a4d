"""Runs a command and writes down its seconds and its peak memory: `python launch.py RESULT COMMAND...`.

A process of its own, and a small one: what Linux calls the peak of a process begins with the memory of the process that
started it, so that one started from a worker with networks in memory would be charged for those.
"""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    """Give back the exit status of the command."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    # macOS counts in bytes, Linux in kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 (pathlib would cost memory)
        json.dump({"seconds": seconds, "peak_memory_bytes": usage.ru_maxrss * unit}, file)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
