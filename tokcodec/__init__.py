"""A neural video codec whose compressed form is the tokens of a language model.

    media file <-> frames <-> tokens  |  <-> bits <-> container (.tok)
      frames/     tokenizer/  tokens.py  |  bits.py     container/
                   float, tolerance   |  integers, identical on every machine

`encode` and `decode` go from file to file, `inspect` says what a `.tok` file holds, and `Codec` keeps a model
loaded for many files or for arrays in memory. Every error is a `TokcodecError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokcodec.errors import TokcodecError

if TYPE_CHECKING:
    from tokcodec.codec import Codec
    from tokcodec.container import Damage
    from tokcodec.inspection import Inspection, inspect, verify
    from tokcodec.oneshot import decode, encode
    from tokcodec.rate import Rate, RateReport
    from tokcodec.results import CodecResult, DecodedVideo

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "CodecResult",
    "Damage",
    "DecodedVideo",
    "Inspection",
    "Rate",
    "RateReport",
    "TokcodecError",
    "__version__",
    "decode",
    "encode",
    "inspect",
    "verify",
]

_HOMES = {
    "Codec": "tokcodec.codec",
    "CodecResult": "tokcodec.results",
    "DecodedVideo": "tokcodec.results",
    "Damage": "tokcodec.container",
    "decode": "tokcodec.oneshot",
    "encode": "tokcodec.oneshot",
    "Rate": "tokcodec.rate",
    "RateReport": "tokcodec.rate",
    "Inspection": "tokcodec.inspection",
    "inspect": "tokcodec.inspection",
    "verify": "tokcodec.inspection",
}


def __getattr__(name: str) -> Any:
    # Late, so that `tokcodec --help` and `tokcodec info` need not wait for torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tokcodec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
