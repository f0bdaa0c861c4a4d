"""What the bench wants of a codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokcodec.bench.record import Setting

INTRA_PERIOD = 64
"""Frames from one intra picture to the next; tokcodec's chunks have 65, the nearest of 1 + 4t."""


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """The number by which a codec's rate is chosen; a larger one gives a lower rate.

    Attributes:
        name: What the setting calls it ("crf").
        lowest: Smallest value.
        highest: Largest value.
        typical: Where 0.1 and 0.005 bits per pixel are likely to be found; the search begins there.
        step: The smallest step that the encoder takes. Curves are measured at whole quantizers all the same.
    """

    name: str
    lowest: int
    highest: int
    typical: tuple[int, int]
    step: float = 1.0


@dataclass(frozen=True, kw_only=True)
class CodecTask:
    """One call of an encoder or decoder.

    Attributes:
        source: What is read: the lossless clip, or the coded file.
        target: What is written: the coded file, or a lossless clip.
        setting: What the codec is told.
        threads: How many it may use.
        matrix: YUV matrix of the clip, a code point of H.273.
        width: Of the pictures, pixels.
        height: Of the pictures, pixels.
        frame_rate: Frames a second, as a ratio ("24/1").
    """

    source: Path
    target: Path
    setting: Setting
    threads: int
    matrix: int
    width: int
    height: int
    frame_rate: str


class BenchCodec(Protocol):
    """A codec on the bench; it holds no state and can be sent to another process."""

    @property
    def name(self) -> str:
        """On the command line and in records."""

    @property
    def suffix(self) -> str:
        """Of its files."""

    @property
    def quantizer(self) -> Quantizer | None:
        """What is searched; None where every setting of `settings` is measured."""

    def settings(self) -> Sequence[Setting]:
        """Settings to measure, without the quantizer; each is a curve of its own if there is one."""

    def absent(self) -> str:
        """Why it is not on this machine; "" where it is."""

    def refuses(self, width: int, height: int) -> str:
        """Why it takes no pictures of this size; "" where it does."""

    def encode_command(self, task: CodecTask) -> list[str]:
        """A program that writes the coded file and prints a JSON object with "seconds"."""

    def decode_command(self, task: CodecTask) -> list[str]:
        """A program that writes the decoded clip, lossless, and prints such an object."""

    def stages(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """Seconds by stage, from what such a program printed; None where it has none."""

    def told(self, setting: Setting, *, threads: int) -> str:
        """What a person would type, or tell PyAV, to repeat it."""

    def versions(self) -> dict[str, str]:
        """Of what takes part."""
