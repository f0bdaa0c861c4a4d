"""VMAF by an FFmpeg program that has libvmaf; PyAV's libraries have none."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from tokcodec.bench.ffmpeg import find_ffmpeg
from tokcodec.errors import MediaError

MODEL = "vmaf_v0.6.1"
MISSING = "no ffmpeg with libvmaf is on the PATH, nor the one of imageio-ffmpeg"


def vmaf_missing() -> str:
    """Why VMAF cannot be measured here; "" where it can."""
    return "" if find_ffmpeg(filter_name="libvmaf") is not None else MISSING


def measure_vmaf(reference: Path, decoded: Path, *, threads: int) -> float:
    """Mean over frames of VMAF, on luma of the pictures as 8-bit 4:2:0.

    Args:
        reference: A lossless clip.
        decoded: Another with as many frames, of the same size.
        threads: How many it may use.

    Raises:
        MediaError: There is no such program, or it fails.
    """
    program = find_ffmpeg(filter_name="libvmaf")
    if program is None:
        raise MediaError(MISSING)
    # Frames are matched by number, whatever times the two containers keep.
    same = "settb=1/25,setpts=N,scale=out_range=tv,format=yuv420p"
    options = f"model=version={MODEL}:n_threads={threads}:log_fmt=json:log_path=vmaf.json"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *[program, "-hide_banner", "-loglevel", "error", "-threads", str(threads)],
                *["-i", str(decoded.resolve()), "-i", str(reference.resolve())],
                *["-lavfi", f"[0:v]{same}[a];[1:v]{same}[b];[a][b]libvmaf={options}", "-f", "null", "-"],
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        log = Path(folder) / "vmaf.json"
        if done.returncode != 0 or not log.exists():
            raise MediaError(f"VMAF failed: {' / '.join(done.stderr.strip().splitlines()[-2:])}")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])
