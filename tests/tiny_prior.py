"""A prior of a few kilobytes that a formula makes: the same bytes, and SHA-256, on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path

from tiny_model import _uniform

SIZES = {"bits_per_token": 18, "context_channels": 6, "head_channels": 8, "state_channels": 5, "window": 3}
CONFIG_JSON = json.dumps({"architecture": "masked-bits-1", **SIZES}, sort_keys=True)
"""The configuration as the weights carry it."""
NAME = "tiny-prior"
SHA256 = "6e3d9c94826e577c0bbd7b19761faea6b1c3f27bb39fe9a67890c66ebce2e3b8"
"""Digest of :func:`prior_bytes`; the vectors name it in their headers."""
WIDE_LEVELS = (0, 3, 6, 9, 12, 15, 18, 24, 30, 36, 45, 54)
WIDE_SIZES = {**SIZES, "bits_per_token": WIDE_LEVELS[-1]}
"""The same for wide tokens, whose levels are too many for a span each."""
WIDE_SHA256 = "283da3a6d3b64d5381e4633a90c848c6c0c30fe21f3febf7af0423c6e6dabbe9"
SHIFTS = (7, 6, 7, 6, 4)
REACH = {"context1": 40, "context2": 30, "state": 30, "known": 40, "kept": 20, "plane": 2000, "hidden": 50, "out": 60}
"""Largest magnitude of the weights of each layer; biases have thirty times as much."""


def _values(name: str, shape: tuple[int, ...], seed: int) -> list[int]:
    if name == "shifts":
        return list(SHIFTS)
    numbers, count = _uniform(1000 + seed), math.prod(shape)
    if name == "mixer.weights":
        return [(6554 if place % 4 < 3 else 40000) + next(numbers) % 8192 for place in range(count)]
    layer, kind = name.split(".")
    reach = REACH[layer] * (30 if kind == "bias" and layer != "plane" else 1)
    return [next(numbers) % (2 * reach + 1) - reach for _ in range(count)]


def prior_bytes(sizes: dict[str, int] = SIZES) -> bytes:
    """The safetensors file; written here and not by the library, so that its layout never changes."""
    from tokcodec.probability.prior_config import PriorConfig

    config = json.dumps({"architecture": "masked-bits-1", **sizes}, sort_keys=True)
    head: dict[str, object] = {"__metadata__": {"tokcodec.prior": config}}
    body = bytearray()
    for seed, (name, shape) in enumerate(sorted(PriorConfig(**sizes).shapes().items())):
        kind, code = ("I16", "h") if name.endswith(".weight") else ("I32", "i")
        data = struct.pack(f"<{math.prod(shape)}{code}", *_values(name, shape, seed))
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def write_prior(folder: Path, *, wide: bool = False) -> Path:
    """Write the weights, for tokens of 18 or of 54 bits, into a folder; gives their path."""
    data, digest = (prior_bytes(WIDE_SIZES), WIDE_SHA256) if wide else (prior_bytes(), SHA256)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the tiny prior is not what it was; see tests/tiny_prior.py")
    path = folder / f"{NAME}-{digest[:12]}.safetensors"
    path.write_bytes(data)
    return path
