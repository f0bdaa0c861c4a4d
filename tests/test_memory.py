"""Memory does not grow with the length of the video: minutes of work, so behind `-m slow`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from media import make_video


def peak_bytes(*words: str | Path) -> int:
    """Peak resident memory of a run of the command line."""
    process = subprocess.Popen([sys.executable, "-m", "tokcodec", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_minutes_need_no_more_memory_than_thirty_seconds(tmp_path: Path):
    peaks = {}
    for seconds in (30, 300):
        video, tok = tmp_path / f"{seconds}.mp4", tmp_path / f"{seconds}.tok"
        make_video(video, size=(640, 360), count=24 * seconds, options={"preset": "ultrafast"})
        peaks[seconds] = (
            peak_bytes("encode", video, tok),
            peak_bytes("decode", tok, tmp_path / "out.mp4", "-f"),
        )
    print(f"peak resident memory, bytes (encode, decode): {peaks}")
    for short, long in zip(peaks[30], peaks[300], strict=True):
        assert long < 1.1 * short
