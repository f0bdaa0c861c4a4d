"""Fields <-> bytes: integers, varints, ratios, text, each with its bounds (spec section 1.3).

The reader and the writer have the same methods in the same order. The reader raises
:class:`~tokcodec.errors.CorruptStreamError` at the field's byte offset, the writer
:class:`~tokcodec.errors.UsageError`, so that what is written can be read.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd
from typing import NoReturn

from tokcodec.container import wire
from tokcodec.errors import CorruptStreamError, UsageError

VIOLATION_HINT = "the program that wrote this file does not follow the specification; encode the video again"


def text_problem(text: str) -> str | None:
    """Why `text` may not be in a file: control characters could drive a terminal (spec section 1.3)."""
    if any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text):
        return "holds control characters"
    return None


class FieldReader:
    """Reads fields in order from one payload, never past its end.

    Args:
        data: The payload.
        offset: Byte offset of the payload in the file.
        where: What the payload is, for messages.
    """

    def __init__(self, data: bytes, *, offset: int, where: str) -> None:
        self._data = data
        self._offset = offset
        self._where = where
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._position

    def fail(self, message: str, *, at: int | None = None) -> NoReturn:
        """Raise the violation `message` at payload position `at`, or where the reader stands."""
        position = self._position if at is None else at
        raise CorruptStreamError(message, where=self._where, offset=self._offset + position, hint=VIOLATION_HINT)

    def take(self, size: int, name: str) -> bytes:
        """`size` bytes."""
        if size > self.remaining:
            self.fail(f"{name} needs {size} bytes, the payload has {self.remaining} left")
        start = self._position
        self._position += size
        return self._data[start : self._position]

    def uint(self, size: int, name: str, *, low: int = 0, high: int | None = None) -> int:
        """An unsigned integer of `size` bytes within bounds."""
        at = self._position
        value = int.from_bytes(self.take(size, name), "little")
        return self._bounded(value, name, low, (1 << (8 * size)) - 1 if high is None else high, at)

    def int64(self, name: str, *, low: int, high: int) -> int:
        """A signed integer of eight bytes within bounds."""
        at = self._position
        value = int.from_bytes(self.take(8, name), "little", signed=True)
        return self._bounded(value, name, low, high, at)

    def varint(self, name: str, *, low: int = 0, high: int = wire.MAX_VARINT) -> int:
        """An unsigned integer of seven bits a byte, in its shortest form, within bounds."""
        at = self._position
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1, name)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            self.fail(f"{name} is longer than nine bytes", at=at)
        if byte == 0 and shift:
            self.fail(f"{name} is not in its shortest form", at=at)
        return self._bounded(value, name, low, high, at)

    def zigzag(self, name: str) -> int:
        """A signed integer: 0, -1, 1, -2, ... as the varints 0, 1, 2, 3, ..."""
        value = self.varint(name)
        return (value >> 1) ^ -(value & 1)

    def zeros(self, size: int) -> None:
        """Reserved bytes, which must be zero."""
        at = self._position
        if any(self.take(size, "a reserved field")):
            self.fail("a reserved field is not zero", at=at)

    def text(self, name: str, *, low: int, high: int) -> str:
        """A byte count (one byte) and UTF-8 text of that many bytes."""
        size = self.uint(1, f"length of {name}", low=low, high=high)
        at = self._position
        try:
            text = self.take(size, name).decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{name} is not UTF-8", at=at)
        if problem := text_problem(text):
            self.fail(f"{name} {problem}", at=at)
        return text

    def block(self, name: str, *, high: int) -> bytes:
        """A byte count (four bytes) and that many bytes."""
        return self.take(self.uint(4, f"length of {name}", high=high), name)

    def ratio(self, name: str) -> Fraction | None:
        """Numerator and denominator, both above zero and in lowest terms, or None where both are zero."""
        at = self._position
        top = self.uint(4, name, high=wire.MAX_RATIO_TERM)
        bottom = self.uint(4, name, high=wire.MAX_RATIO_TERM)
        if top == bottom == 0:
            return None
        if top == 0 or bottom == 0:
            self.fail(f"{name} is {top}/{bottom}", at=at)
        if gcd(top, bottom) != 1:
            self.fail(f"{name} {top}/{bottom} is not in lowest terms", at=at)
        return Fraction(top, bottom)

    def finish(self) -> None:
        """The payload has to end here."""
        if self.remaining:
            self.fail(f"{self.remaining} bytes left over at the end of the payload")

    def _bounded(self, value: int, name: str, low: int, high: int, at: int) -> int:
        if not low <= value <= high:
            self.fail(f"{name} is {value}, allowed are {low} to {high}", at=at)
        return value


class FieldWriter:
    """Appends fields to a payload; mirrors :class:`FieldReader`.

    Args:
        where: What the payload is, for messages.
    """

    def __init__(self, *, where: str) -> None:
        self._out = bytearray()
        self._where = where

    def fail(self, message: str) -> NoReturn:
        """Refuse to write."""
        raise UsageError(message, where=self._where)

    def put(self, data: bytes, name: str, *, size: int | None = None) -> None:
        """`data` as it is; exactly `size` bytes where that is given."""
        if size is not None and len(data) != size:
            self.fail(f"{name} has {len(data)} bytes instead of {size}")
        self._out += data

    def uint(self, size: int, value: int, name: str, *, low: int = 0, high: int | None = None) -> None:
        """An unsigned integer of `size` bytes within bounds."""
        self._bounded(value, name, low, (1 << (8 * size)) - 1 if high is None else high)
        self._out += int(value).to_bytes(size, "little")

    def int64(self, value: int, name: str, *, low: int, high: int) -> None:
        """A signed integer of eight bytes within bounds."""
        self._bounded(value, name, low, high)
        self._out += int(value).to_bytes(8, "little", signed=True)

    def varint(self, value: int, name: str, *, low: int = 0, high: int = wire.MAX_VARINT) -> None:
        """An unsigned integer of seven bits a byte, in its shortest form, within bounds."""
        self._bounded(value, name, low, high)
        while value >= 0x80:
            self._out.append(value & 0x7F | 0x80)
            value >>= 7
        self._out.append(value)

    def zigzag(self, value: int, name: str) -> None:
        """A signed integer: 0, -1, 1, -2, ... as the varints 0, 1, 2, 3, ..."""
        self.varint(2 * value if value >= 0 else -2 * value - 1, name)

    def zeros(self, size: int) -> None:
        """Reserved bytes."""
        self._out += bytes(size)

    def text(self, value: str, name: str, *, low: int, high: int) -> None:
        """A byte count (one byte) and UTF-8 text of that many bytes."""
        if problem := text_problem(value):
            self.fail(f"{name} {problem}")
        try:
            data = value.encode("utf-8")
        except UnicodeEncodeError:
            self.fail(f"{name} cannot be written as UTF-8")
        self.uint(1, len(data), f"length of {name}", low=low, high=high)
        self._out += data

    def block(self, value: bytes, name: str, *, high: int) -> None:
        """A byte count (four bytes) and that many bytes."""
        self.uint(4, len(value), f"length of {name}", high=high)
        self._out += value

    def ratio(self, value: Fraction | None, name: str) -> None:
        """Numerator and denominator in lowest terms; zeros for None."""
        low = 0 if value is None else 1
        top, bottom = (0, 0) if value is None else (value.numerator, value.denominator)
        self.uint(4, top, name, low=low, high=wire.MAX_RATIO_TERM)
        self.uint(4, bottom, name, low=low, high=wire.MAX_RATIO_TERM)

    def finish(self, *, high: int = wire.MAX_PAYLOAD_BYTES) -> bytes:
        """The payload."""
        if len(self._out) > high:
            self.fail(f"the payload has {len(self._out)} bytes, allowed are {high}")
        return bytes(self._out)

    def _bounded(self, value: int, name: str, low: int, high: int) -> None:
        if not low <= value <= high:
            self.fail(f"{name} is {value}, allowed are {low} to {high}")
