"""A codec of the FFmpeg libraries in PyAV."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tokcodec.bench.codecs.child_codec import ChildCodec, missing_in_pyav
from tokcodec.bench.record import Setting
from tokcodec.frames.elementary import StreamEncoder
from tokcodec.frames.info import Pixels


@dataclass(frozen=True, kw_only=True)
class PyavCodec(ChildCodec):
    """Base of the adapters: an encoder and a decoder of FFmpeg."""

    def settings(self) -> Sequence[Setting]:
        """One curve."""
        return [{"preset": self.preset}]

    def absent(self) -> str:
        """Whether PyAV's FFmpeg has both."""
        for name, mode in ((self.encoder, "w"), (self.decoder, "r")):
            if missing_in_pyav(name, mode):
                return f"the FFmpeg in PyAV has no {name}"
        return ""

    @abstractmethod
    def stream_encoder(self, setting: Setting, *, threads: int) -> StreamEncoder:
        """The encoder with all it is told; the adapter says."""

    def finish(self, stream: bytes) -> bytes:
        """The stream without what carries no picture; as it is, unless the adapter says otherwise."""
        return stream

    def encode(
        self, frames: Iterable[Pixels], *, setting: Setting, frame_rate: Fraction, matrix: int, threads: int
    ) -> bytes:
        """See `ChildCodec`."""
        encoder = self.stream_encoder(setting, threads=threads)
        return self.finish(encoder.encode(frames, frame_rate=frame_rate, matrix=matrix))

    def told(self, setting: Setting, *, threads: int) -> str:
        """The encoder's name, pixel format and options in PyAV."""
        encoder = self.stream_encoder(setting, threads=threads)
        options = " ".join(f"-{key} {value}" for key, value in encoder.options.items())
        gop = "" if encoder.gop_size is None else f" -g {encoder.gop_size}"
        return f"PyAV: -c:v {encoder.name} -pix_fmt {encoder.pixel_format} -threads {threads}{gop} {options}"

    def versions(self) -> dict[str, str]:
        """PyAV, FFmpeg's library, and the encoder as far as it says."""
        import av

        libavcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
        return {"av": av.__version__, "libavcodec": libavcodec}


def version_in(stream: bytes, pattern: bytes) -> str:
    """What an encoder says of itself in its stream; "" where it does not."""
    found = re.search(pattern, stream)
    return found[1].decode("ascii", "replace") if found else ""


def one_picture(encoder: StreamEncoder) -> bytes:
    """A stream of one grey picture, to ask an encoder for its version."""
    import numpy as np

    return encoder.encode([np.full((64, 64, 3), 128, np.uint8)], frame_rate=Fraction(25), matrix=1)
