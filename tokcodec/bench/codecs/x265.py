"""HEVC by x265."""

from __future__ import annotations

from dataclasses import dataclass

from tokcodec.bench.codecs.base import INTRA_PERIOD, Quantizer
from tokcodec.bench.codecs.pyav import PyavCodec, one_picture, version_in
from tokcodec.bench.record import Setting
from tokcodec.frames.elementary import StreamEncoder
from tokcodec.frames.hevc import SMALLEST_SIDE, x265_encoder

PARAMS = {"keyint": str(INTRA_PERIOD), "min-keyint": str(INTRA_PERIOD), "scenecut": "0", "info": "0"}
"""Intra pictures where all codecs have them, and no message about settings, which would be 12% of a low rate."""


@dataclass(frozen=True, kw_only=True)
class X265(PyavCodec):
    """libx265, 10-bit."""

    def stream_encoder(self, setting: Setting, *, threads: int) -> StreamEncoder:
        """Frame threads and pool are named, or x265 takes all cores."""
        params = {**PARAMS, "pools": str(threads), "frame-threads": str(threads)}
        return x265_encoder(crf=float(setting["crf"]), preset=str(setting["preset"]), params=params, threads=threads)

    def versions(self) -> dict[str, str]:
        """x265 says its version in the message that is left out otherwise."""
        stream = one_picture(x265_encoder(crf=30, preset="ultrafast", params={"info": "1"}))
        return {**super().versions(), "libx265": version_in(stream, rb"x265 \(build \d+\) - ([\w.+-]+)")}


def make_x265(preset: str) -> X265:
    """x265 with a preset; medium is called x265 alone."""
    return X265(
        name="x265" if preset == "medium" else f"x265-{preset}",
        encoder="libx265",
        decoder="hevc",
        suffix=".hevc",
        quantizer=Quantizer(name="crf", lowest=0, highest=51, typical=(28, 48), step=0.25),
        preset=preset,
        smallest_side=SMALLEST_SIDE,
    )
