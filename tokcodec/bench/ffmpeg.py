"""An FFmpeg program that has a certain encoder or filter: PyAV's libraries have no VVenC and no libvmaf."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import shutil
import subprocess


@functools.cache
def find_ffmpeg(*, encoder: str = "", filter_name: str = "") -> str | None:
    """The first program that has what is asked for: the one on the PATH, then the one of `imageio-ffmpeg`."""
    for program in _programs():
        if (not encoder or encoder in _list(program, "-encoders")) and (
            not filter_name or filter_name in _list(program, "-filters")
        ):
            return program
    return None


def _programs() -> list[str]:
    programs = [found] if (found := shutil.which("ffmpeg")) else []
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):  # a wheel without the program, for another platform
            programs.append(str(imageio_ffmpeg.get_ffmpeg_exe()))
    return programs


@functools.cache
def _list(program: str, what: str) -> frozenset[str]:
    """Names of what a program has: the second word of each line that begins with flags."""
    try:
        done = subprocess.run([program, "-hide_banner", what], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(re.findall(r"^ *[A-Z.]{2,} +(\S+)", done.stdout, flags=re.MULTILINE))


@functools.cache
def version_of(program: str) -> str:
    """What the program calls its version; "" where it does not say."""
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"ffmpeg version (\S+)", done.stdout)
    return found[1] if found else ""
