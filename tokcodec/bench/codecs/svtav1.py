"""AV1 by SVT-AV1."""

from __future__ import annotations

from dataclasses import dataclass

from tokcodec.bench.codecs.base import INTRA_PERIOD, Quantizer
from tokcodec.bench.codecs.pyav import PyavCodec
from tokcodec.bench.codecs.units import without_delimiters
from tokcodec.bench.record import Setting
from tokcodec.frames.elementary import StreamEncoder


@dataclass(frozen=True, kw_only=True)
class SvtAv1(PyavCodec):
    """libsvtav1, 10-bit; decoded by dav1d."""

    def stream_encoder(self, setting: Setting, *, threads: int) -> StreamEncoder:
        """Closed groups of pictures, no scene cuts; lp is the number of threads."""
        crf, params = float(setting["crf"]), f"irefresh-type=2:scd=0:lp={threads}"
        # FFmpeg's own option takes whole numbers only, SVT-AV1 quarters.
        quantizer = {"crf": f"{crf:g}"} if crf.is_integer() else {}
        return StreamEncoder(
            name=self.encoder,
            options={
                "preset": str(setting["preset"]),
                **quantizer,
                "svtav1-params": params if quantizer else f"{params}:crf={crf:g}",
            },
            pixel_format="yuv420p10le",
            smallest_side=self.smallest_side,
            gop_size=INTRA_PERIOD,
        )

    def finish(self, stream: bytes) -> bytes:
        """Without temporal delimiters."""
        return without_delimiters(stream)


def make_svtav1() -> SvtAv1:
    """SVT-AV1 with preset 4."""
    return SvtAv1(
        name="svtav1",
        encoder="libsvtav1",
        decoder="libdav1d",
        suffix=".obu",
        quantizer=Quantizer(name="crf", lowest=1, highest=63, typical=(35, 61), step=0.25),
        preset="4",
        smallest_side=64,
    )
