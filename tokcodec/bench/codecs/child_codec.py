"""What the codecs other than tokcodec share: they run in the process of :mod:`tokcodec.bench.child`."""

from __future__ import annotations

import dataclasses
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tokcodec.bench.codecs.base import CodecTask, Quantizer
from tokcodec.bench.record import Setting
from tokcodec.frames.info import Pixels

CHILD = "tokcodec.bench.child"


@dataclass(frozen=True, kw_only=True)
class ChildCodec(ABC):
    """Base of the adapters.

    Attributes:
        name: On the command line and in records.
        encoder: Name of the encoder, FFmpeg's where it is one of FFmpeg's.
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

    @abstractmethod
    def settings(self) -> Sequence[Setting]:
        """See `BenchCodec`."""

    @abstractmethod
    def absent(self) -> str:
        """See `BenchCodec`."""

    @abstractmethod
    def told(self, setting: Setting, *, threads: int) -> str:
        """See `BenchCodec`."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """See `BenchCodec`."""

    @abstractmethod
    def encode(
        self, frames: Iterable[Pixels], *, setting: Setting, frame_rate: Fraction, matrix: int, threads: int
    ) -> bytes:
        """The elementary stream, without what carries no picture.

        Args:
            frames: uint8 `(H, W, 3)` RGB.
            setting: What the encoder is told.
            frame_rate: Frames a second.
            matrix: YUV matrix, a code point of H.273.
            threads: How many it may use.

        Raises:
            MediaError: The encoder is missing or fails.
        """

    def refuses(self, width: int, height: int) -> str:
        """The encoder's smallest picture."""
        small = min(width, height) < self.smallest_side
        return f"{self.encoder} takes no picture with a side below {self.smallest_side} pixels" if small else ""

    def encode_command(self, task: CodecTask) -> list[str]:
        """See :mod:`tokcodec.bench.child`."""
        return self._command("encode", task)

    def decode_command(self, task: CodecTask) -> list[str]:
        """See :mod:`tokcodec.bench.child`."""
        return self._command("decode", task)

    def stages(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """None are measured."""
        return None

    def _command(self, action: str, task: CodecTask) -> list[str]:
        values = {**dataclasses.asdict(task), "source": str(task.source), "target": str(task.target)}
        return [sys.executable, "-m", CHILD, action, self.name, json.dumps(values)]


def missing_in_pyav(name: str, mode: str) -> bool:
    """Whether PyAV's FFmpeg lacks an encoder (mode "w") or a decoder ("r")."""
    import av

    try:
        av.codec.Codec(name, mode)  # type: ignore[arg-type]
    except av.codec.codec.UnknownCodecError:
        return True
    return False
