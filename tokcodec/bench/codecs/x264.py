"""AVC by x264."""

from __future__ import annotations

from dataclasses import dataclass

from tokcodec.bench.codecs.base import INTRA_PERIOD, Quantizer
from tokcodec.bench.codecs.pyav import PyavCodec, one_picture, version_in
from tokcodec.bench.codecs.units import without_units
from tokcodec.bench.record import Setting
from tokcodec.frames.elementary import StreamEncoder

PARAMS = f"keyint={INTRA_PERIOD}:min-keyint={INTRA_PERIOD}:scenecut=0"
SEI = 6
"""NAL unit type of supplemental information: x264's message about settings, and nothing that a picture needs."""


@dataclass(frozen=True, kw_only=True)
class X264(PyavCodec):
    """libx264, 10-bit."""

    def stream_encoder(self, setting: Setting, *, threads: int) -> StreamEncoder:
        """Constant rate factor."""
        return StreamEncoder(
            name=self.encoder,
            options={"preset": str(setting["preset"]), "crf": f"{float(setting['crf']):g}", "x264-params": PARAMS},
            pixel_format="yuv420p10le",
            smallest_side=self.smallest_side,
            threads=threads,
        )

    def finish(self, stream: bytes) -> bytes:
        """Without the message about settings: some 700 bytes, 10% of 50 frames at the lowest rate."""
        return without_units(stream, lambda head: head[0] & 0x1F == SEI)

    def versions(self) -> dict[str, str]:
        """x264 says its version in that message."""
        stream = one_picture(self.stream_encoder({"preset": "ultrafast", "crf": 30}, threads=1))
        return {**super().versions(), "libx264": version_in(stream, rb"x264 - core ([\w.+ -]+?) - H\.264")}


def make_x264() -> X264:
    """x264 with the preset medium."""
    return X264(
        name="x264",
        encoder="libx264",
        decoder="h264",
        suffix=".h264",
        quantizer=Quantizer(name="crf", lowest=0, highest=51, typical=(28, 46), step=0.25),
        preset="medium",
    )
