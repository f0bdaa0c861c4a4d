"""A codec of the FFmpeg libraries in PyAV."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokcodec.bench.codecs.base import CodecTask, Quantizer
from tokcodec.bench.record import Setting
from tokcodec.frames.elementary import StreamEncoder

CHILD = "tokcodec.bench.child"


def child_command(action: str, name: str, task: CodecTask) -> list[str]:
    """The program of child.py; `name` is the codec's."""
    values = {**dataclasses.asdict(task), "source": str(task.source), "target": str(task.target)}
    return [sys.executable, "-m", CHILD, action, name, json.dumps(values)]


@dataclass(frozen=True, kw_only=True)
class PyavCodec(ABC):
    """Base of the adapters: an encoder and a decoder of FFmpeg, in a process of their own.

    Attributes:
        name: On the command line and in records.
        encoder: FFmpeg's name of the encoder.
        decoder: FFmpeg's name of the decoder.
        suffix: Of coded files.
        quantizer: What is searched.
        preset: Of the encoder.
        smallest_side: Pixels a side below which it takes no picture.
    """

    name: str
    encoder: str
    decoder: str
    suffix: str
    quantizer: Quantizer
    preset: str
    smallest_side: int = 16

    def settings(self) -> Sequence[Setting]:
        """One curve."""
        return [{"preset": self.preset}]

    def absent(self) -> str:
        """Whether PyAV's FFmpeg has both."""
        import av

        for name, mode in ((self.encoder, "w"), (self.decoder, "r")):
            try:
                av.codec.Codec(name, mode)  # type: ignore[arg-type]
            except av.codec.codec.UnknownCodecError:
                return f"the FFmpeg in PyAV has no {name}"
        return ""

    def refuses(self, width: int, height: int) -> str:
        """The encoder's smallest picture."""
        small = min(width, height) < self.smallest_side
        return f"{self.encoder} takes no picture with a side below {self.smallest_side} pixels" if small else ""

    @abstractmethod
    def stream_encoder(self, setting: Setting, *, threads: int) -> StreamEncoder:
        """The encoder with all it is told; the adapter says."""

    def finish(self, stream: bytes) -> bytes:
        """The stream without what carries no picture; as it is, unless the adapter says otherwise."""
        return stream

    def encode_command(self, task: CodecTask) -> list[str]:
        """See :mod:`tokcodec.bench.child`."""
        return child_command("encode", self.name, task)

    def decode_command(self, task: CodecTask) -> list[str]:
        """See :mod:`tokcodec.bench.child`."""
        return child_command("decode", self.name, task)

    def stages(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """None are measured."""
        return None

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
    from fractions import Fraction

    import numpy as np

    return encoder.encode([np.full((64, 64, 3), 128, np.uint8)], frame_rate=Fraction(25), matrix=1)
