"""What the parts of the independent decoder share (see `spec_decoder`): errors, the range decoder, and how the
networks of the format (7.11 to 7.14) are read and asked. Numbers in brackets are sections of bitstream_spec.md."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
Ints = NDArray[np.int64]

ERROR_NAMES = {"C": "CorruptStreamError", "U": "UnsupportedStreamError", "L": "LimitError", "M": "ModelError"}


class SpecError(Exception):
    """An error of (1.2); with `damage` it is damage met in strict reading (12). `partial` came before it."""

    def __init__(self, kind: str, offset: int, message: str, damage: bool = False) -> None:
        super().__init__(f"{kind} ({ERROR_NAMES[kind]}) at byte {offset}: {message}")
        self.kind, self.offset, self.message, self.damage = kind, offset, message, damage
        self.name = ERROR_NAMES[kind]
        self.partial: Any = None  # a `spec_decoder.ParsedFile`


def check(condition: bool, offset: int, message: str, kind: str = "C") -> None:
    """Raise the error of a constraint that does not hold."""
    if not condition:
        raise SpecError(kind, offset, message)


class RangeDecoder:
    """The range decoder (7.2)."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.offset = offset
        check(len(data) > 0 and len(data) % 4 == 0, offset, f"token data of {len(data)} bytes")
        self.words = struct.unpack(f"<{len(data) // 4}I", data)
        self.lower, self.range, self.shifts = 0, 2**64 - 1, 0
        self.point = self.word(0) * 2**32 + self.word(1)

    def word(self, n: int) -> int:
        return self.words[n] if n < len(self.words) else 0

    def decode(self, p: int) -> int:
        """One bit, whose probability of being 1 is p / 65536."""
        f1 = p * 256
        f0 = 2**24 - f1
        scale = self.range >> 24
        quantile = ((self.point - self.lower) % 2**64) // scale
        check(quantile < 2**24, self.offset, "token data that no encoder writes")
        bit = int(quantile >= f0)
        self.lower = (self.lower + bit * scale * f0) % 2**64
        self.range = scale * (f1 if bit else f0)
        if self.range < 2**32:
            self.lower = self.lower * 2**32 % 2**64
            self.range *= 2**32
            self.point = self.point * 2**32 % 2**64 + self.word(self.shifts + 2)
            self.shifts += 1
        return bit

    def finish(self) -> None:
        """Check that the data end as the encoder ends them."""
        tail = ((self.lower + 2**32 - 1) % 2**64) >> 32
        expected = (tail, 0) if ((self.lower + self.range) % 2**64) >> 32 == tail else (tail,)
        check(self.words[self.shifts :] == expected, self.offset, "token data do not end as they must")


# fmt: off
SQUASH = np.array([22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743,
                   32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374,
                   65438, 65476, 65500, 65514], dtype=np.int64)
# fmt: on


def squash(s: Ints) -> Ints:
    """The probabilities of stretches (7.5)."""
    x = s + 2048
    i = x >> 7
    return np.clip(SQUASH[i] + (((SQUASH[i + 1] - SQUASH[i]) * (x & 127)) >> 7), 32, 65504)


SIZES = np.array([min(255, math.floor(32 * math.log2(1 + v) + 0.5)) for v in range(256)], dtype=np.int64)


def size_of(value: int) -> int:
    """S of (7.13)."""
    return int(SIZES[min(value, 255)])


@functools.cache
def format_digest(kind: str) -> str:
    """The SHA-256 of the weights of that kind, as the document states it below the name of their file (7.11 to 7.14).

    It is read there and not kept here, so that weights that are made anew need no change of this decoder.
    """
    text = (ROOT / "bitstream_spec.md").read_text(encoding="utf-8")
    stated = rf"`tokcodec/weights/{kind}-([0-9a-f]{{12}})\.safetensors`[^`]*?^    (\1[0-9a-f]{{52}})$"
    (found,) = re.findall(stated, text, re.MULTILINE)
    digest: str = found[1]
    return digest


@functools.cache
def format_network(kind: str) -> dict[str, Ints]:
    """The tensors of the weights of that kind, which are part of the format (7.11 to 7.14)."""
    digest = format_digest(kind)
    data = (ROOT / f"tokcodec/weights/{kind}-{digest[:12]}.safetensors").read_bytes()
    check(hashlib.sha256(data).hexdigest() == digest, 0, f"another network of the format: {kind}", "M")
    start = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:start])
    head.pop("__metadata__", None)
    tensors = {}
    for name, entry in head.items():
        begin, end = entry["data_offsets"]
        number = "<i2" if name.endswith(".weight") else "<i4"
        tensors[name] = np.frombuffer(data[start + begin : start + end], number).reshape(entry["shape"]).astype(int)
    return tensors


def ask_for_stretches(first: Ints, t: dict[str, Ints], name: str = "") -> Ints:
    """The stretches of a network of the format, given its first sums (7.11)."""

    def act(x: Ints) -> Ints:
        return np.clip((x + 128) >> 8, 0, 255)

    hidden = act(act(first) @ t[name + "hidden.weight"] + t[name + "hidden.bias"])
    out = hidden @ t[name + "out.weight"] + t[name + "out.bias"]
    return np.clip((out + 128) >> 8, -2047, 2047)


def ask_network(first: Ints, t: dict[str, Ints], name: str = "") -> Ints:
    """The probabilities of a network of the format, given its first sums (7.11)."""
    return squash(ask_for_stretches(first, t, name))


def decode_scale(decoder: RangeDecoder) -> int:
    """The scale of a picture or residual (7.11)."""
    found = 0
    for _ in range(6):
        found = 2 * found + decoder.decode(32768)
    return found


def decode_coefficients(decoder: RangeDecoder, p: Sequence[Sequence[int]]) -> list[int]:
    """Coefficients of which p[0 .. 3] of each are given: the second half of decode_phase (7.11)."""
    decode, every = decoder.decode, range(len(p))
    size = [decode(p[n][0]) for n in every]
    there = [n for n in every if size[n]]
    negative = {n: decode(32768) for n in there}
    for k in (1, 2):
        for n in there:
            if size[n] == k:
                size[n] += decode(p[n][k])
    large = [n for n in there if size[n] == 3]
    length, value = dict.fromkeys(large, 0), dict.fromkeys(large, 1)
    for j_bit in range(14):
        for n in large:
            if length[n] == j_bit:
                length[n] += decode(p[n][3])
    for j_bit in range(14):
        for n in large:
            if length[n] > j_bit:
                value[n] = 2 * value[n] + decode(32768)
    for n in large:
        size[n] = value[n] + 2
        check(size[n] <= 32767, decoder.offset, "a coefficient beyond 32767")
    return [-size[n] if negative.get(n) else size[n] for n in every]
