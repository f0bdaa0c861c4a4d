"""The codecs of the bench by name."""

from __future__ import annotations

from collections.abc import Sequence

from tokcodec.bench.codecs.base import INTRA_PERIOD, BenchCodec, CodecTask, Quantizer
from tokcodec.bench.codecs.child_codec import ChildCodec
from tokcodec.bench.codecs.svtav1 import make_svtav1
from tokcodec.bench.codecs.tokcodec import Tokcodec, make_tokcodec
from tokcodec.bench.codecs.vvenc import Vvenc
from tokcodec.bench.codecs.x264 import make_x264
from tokcodec.bench.codecs.x265 import make_x265
from tokcodec.errors import UsageError

__all__ = [
    "INTRA_PERIOD",
    "NAMES",
    "BenchCodec",
    "ChildCodec",
    "CodecTask",
    "Quantizer",
    "Tokcodec",
    "make_codecs",
    "others",
]


def others() -> dict[str, ChildCodec]:
    """All but tokcodec."""
    made: list[ChildCodec] = [make_x265("medium"), make_x265("veryslow"), make_svtav1(), Vvenc(), make_x264()]
    return {codec.name: codec for codec in made}


NAMES = ("tokcodec", *others())


def make_codecs(
    names: Sequence[str],
    *,
    model: str | None = None,
    device: str = "cpu",
    entropy: str = "auto",
    prior: str | None = None,
    style: str = "auto",
) -> list[BenchCodec]:
    """The codecs of these names, in this order; all but the names concerns tokcodec alone.

    Raises:
        UsageError: A name is unknown, or given twice.
        ModelError: There is no such model.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names or len(set(names)) < len(names):
        what = f"no codec is called {unknown[0]!r}" if unknown else "name each codec once"
        raise UsageError(what, hint=f"there are {', '.join(NAMES)}")
    table = others()
    return [
        make_tokcodec(model=model, device=device, entropy=entropy, prior=prior, style=style)
        if name == "tokcodec"
        else table[name]
        for name in names
    ]
