"""VVC by VVenC: `vvencapp`, or an FFmpeg that lists libvvenc."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tokcodec.bench.codecs.base import INTRA_PERIOD, Quantizer
from tokcodec.bench.codecs.child_codec import ChildCodec, missing_in_pyav
from tokcodec.bench.codecs.units import without_units
from tokcodec.bench.ffmpeg import find_ffmpeg, version_of
from tokcodec.bench.record import Setting
from tokcodec.errors import MediaError
from tokcodec.frames.elementary import StreamEncoder
from tokcodec.frames.info import Pixels

QUANTIZER = Quantizer(name="qp", lowest=0, highest=63, typical=(27, 48))
DELIMITER = 20
"""NAL unit type of access unit delimiters: FFmpeg asks for them, 7 bytes a frame, 5% of the lowest rate."""

PICTURES = StreamEncoder(name="libvvenc", options={}, pixel_format="yuv420p10le", smallest_side=32)
"""Only its pictures are used: the same samples that the other codecs get."""


@dataclass(frozen=True, kw_only=True)
class Vvenc(ChildCodec):
    """VVenC medium, 10-bit, with its perceptual adaptation (QPA) off and on; decoded by FFmpeg's own decoder."""

    name: str = "vvenc"
    encoder: str = "VVenC"
    decoder: str = "vvc"
    suffix: str = ".vvc"
    quantizer: Quantizer = QUANTIZER
    preset: str = "medium"
    smallest_side: int = PICTURES.smallest_side

    def settings(self) -> Sequence[Setting]:
        """A curve without QPA, better for PSNR, and one with it, better for LPIPS."""
        return [{"preset": self.preset, "qpa": qpa} for qpa in (0, 1)]

    def absent(self) -> str:
        """An encoder, and PyAV's decoder."""
        if _program() is None:
            return (
                "neither vvencapp nor an ffmpeg with libvvenc is on the PATH, and imageio-ffmpeg 0.8 is not installed "
                "(pip install 'tokcodec[bench]')"
            )
        return "the FFmpeg in PyAV has no decoder of VVC" if missing_in_pyav(self.decoder, "r") else ""

    def told(self, setting: Setting, *, threads: int) -> str:
        """The command that reads raw 10-bit frames."""
        program, is_ffmpeg = _program() or ("vvencapp", False)
        command = _command(program, is_ffmpeg, setting, "WxH", "RATE", threads, "out.vvc")
        return " ".join([Path(program).name.split("-")[0], *command[1:]])

    def versions(self) -> dict[str, str]:
        """Of the program."""
        program, is_ffmpeg = _program() or ("", False)
        if is_ffmpeg:
            return {"ffmpeg": version_of(program), "av": av.__version__}
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        return {"vvencapp": done.stdout.strip() or done.stderr.strip(), "av": av.__version__}

    def encode(
        self, frames: Iterable[Pixels], *, setting: Setting, frame_rate: Fraction, matrix: int, threads: int
    ) -> bytes:
        """See `ChildCodec`; frames go to the program as it takes them."""
        found = _program()
        if found is None:
            raise MediaError(self.absent())
        process: subprocess.Popen[bytes] | None = None
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
            target = Path(folder) / "out.vvc"
            try:
                for picture in PICTURES.pictures(frames, matrix=matrix):
                    if process is None:
                        size = f"{picture.width}x{picture.height}"
                        rate = f"{frame_rate.numerator}/{frame_rate.denominator}"
                        command = _command(*found, setting, size, rate, threads, str(target))
                        process = subprocess.Popen(
                            command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT
                        )
                    _pipe_of(process).write(picture.to_ndarray().tobytes())
                if process is None:
                    raise MediaError("no frames to encode")
                _pipe_of(process).close()
            except BrokenPipeError:
                pass  # the program has ended early; what it said follows
            finally:
                status = process.wait() if process is not None else 0
            stream = target.read_bytes() if status == 0 and target.exists() else b""
            if not stream:
                said.seek(0)
                lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
                raise MediaError(f"VVenC failed ({status}): {' / '.join(lines[-3:]) or 'it wrote nothing'}")
            return without_units(stream, lambda head: head[1] >> 3 == DELIMITER)


def _pipe_of(process: subprocess.Popen[bytes]) -> Any:
    return process.stdin


def _program() -> tuple[str, bool] | None:
    """The encoder, and whether it is an FFmpeg."""
    if (app := shutil.which("vvencapp")) is not None:
        return app, False
    ffmpeg = find_ffmpeg(encoder="libvvenc")
    return None if ffmpeg is None else (ffmpeg, True)


def _command(
    program: str, is_ffmpeg: bool, setting: Setting, size: str, rate: str, threads: int, target: str
) -> list[str]:
    """Reads raw frames on standard input."""
    quantizer, adaptation = str(int(setting["qp"])), str(setting["qpa"])
    if is_ffmpeg:
        # Without poc0idr the first intra period is 31 frames, and a short clip gets an intra picture more than others.
        return [
            *[program, "-hide_banner", "-loglevel", "error", "-y"],
            *["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", size, "-framerate", rate, "-i", "-"],
            *["-c:v", "libvvenc", "-preset", str(setting["preset"]), "-qp", quantizer, "-qpa", adaptation],
            *["-vvenc-params", f"intraperiod={INTRA_PERIOD}:poc0idr=1:threads={threads}"],
            *["-fps_mode", "passthrough", "-f", "vvc", target],
        ]
    return [
        *[program, "-i", "-", "-s", size, "-c", "yuv420_10", "--fps", rate, "--preset", str(setting["preset"])],
        *["--qp", quantizer, "--qpa", adaptation, "--intraperiod", str(INTRA_PERIOD), "--additional", "POC0IDR=1"],
        *["--threads", str(threads), "-o", target],
    ]
