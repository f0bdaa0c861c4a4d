"""Where the records of a `.tok` file are, for tests that damage them."""

from __future__ import annotations


def spans(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of each record of a whole file (spec section 2.2)."""
    found, at = [], 16
    while at < len(data):
        stop = at + 28 + int.from_bytes(data[at + 16 : at + 20], "little")
        found.append((at, stop))
        at = stop
    return found
