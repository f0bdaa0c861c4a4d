"""Integer logistic mixing of context counts, adapted once per latent step (spec section 7.6).

Between two adaptations every table is frozen, so a group of any size is a few gathers and additions. All
sums are of integers, so they do not depend on the order, the machine or the thread count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.probability.logistic import COUNT_MAX, SQUASH, STRETCH_MAX, stretch_of_counts

COUNT_STEP = 16
"""What one coded bit adds to a count."""
COUNT_LIMIT = COUNT_MAX
"""Largest sum of the two counts of a cell after adaptation."""
WEIGHT_INITIAL = 22938
"""Initial mixing weight, 0.35 in units of 1/65536."""
WEIGHT_LIMIT = 131072
"""Largest magnitude of a mixing weight."""
RATE_DIVISOR = 256
"""Divides the mean gradient of a weight."""
RATE_BIAS = 8
"""Added to the number of bits over which a gradient is averaged, so that few bits move little."""


MOST_WAITING = 1 << 18
"""Bits that wait to be counted, at most, beside one group."""
GROUP_SIZE = 32
"""Bits that a group counts for beside its own: many of one bit take memory too."""


@dataclass(frozen=True, kw_only=True)
class ContextTable:
    """One table of counts that a mixer reads.

    Attributes:
        initial: int64 `(2, rows, cells)`, counts of zeros and ones at the start of a chunk, at least 1.
        slots_per_row: Slots that share a row: slot `s` reads row `s // slots_per_row`.
    """

    initial: NDArray[np.int64]
    slots_per_row: int = 1


class _Group(NamedTuple):
    """Bits that were coded together."""

    slots: NDArray[np.intp]
    contexts: Sequence[NDArray[np.int64]]
    bits: NDArray[np.uint8]
    errors: NDArray[np.float64]
    given: NDArray[np.int32] | None


class ContextMixer:
    """Mixes the predictions of a few count tables (spec section 7.6).

    A slot is a class of bits with mixing weights of its own (a bit plane and a colour).

    Args:
        slots: Number of slots.
        tables: The tables of counts.
        weights: Initial weights, int64 `(slots, inputs)`, each at most `WEIGHT_LIMIT`; None: `WEIGHT_INITIAL` for
            each table. An input more than there are tables is a prediction that is given with each bit.
    """

    def __init__(self, slots: int, tables: Sequence[ContextTable], *, weights: NDArray[np.int64] | None = None) -> None:
        self._slots = slots
        self._sharing = [table.slots_per_row for table in tables]
        self._counts = [table.initial.copy() for table in tables]
        if weights is None:
            weights = np.full((slots, len(tables)), WEIGHT_INITIAL, dtype=np.int64)
        self._weights = weights.copy()
        # Weights are at most 2.0, so a mixed stretch stays in +-2 * 2047 for each input; four of them fit in int32.
        self._centre = 2 * STRETCH_MAX * self._weights.shape[1] + 1
        reach = np.arange(-self._centre, self._centre + 1)
        self._squash = SQUASH[reach.clip(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX]
        # What was seen since the last adaptation: numbers of bits, and prediction errors, of each slot and cell.
        cells = [table.initial.shape[2] for table in tables]
        self._bits_seen = np.zeros(slots, dtype=np.int64)
        self._seen = [np.zeros((slots, size, 2), dtype=np.int64) for size in cells]
        self._errors = [np.zeros((slots, size), dtype=np.float64) for size in cells]
        self._given_gradient = np.zeros(slots, dtype=np.float64)
        self._waiting: list[_Group] = []
        self._bits_waiting = 0
        self._refresh()

    @property
    def weights(self) -> NDArray[np.int64]:
        """The weights as they are now: int64 `(slots, inputs)`."""
        return self._weights.copy()

    def _refresh(self) -> None:
        """Computes the tables that `probabilities` gathers from."""
        self._stretch = [
            stretch_of_counts(counts[0], counts[1]).repeat(sharing, axis=0)
            for counts, sharing in zip(self._counts, self._sharing, strict=True)
        ]
        self._weighted = [
            (stretch * self._weights[:, k, None]).astype(np.int32) for k, stretch in enumerate(self._stretch)
        ]
        self._weighted[0] += self._centre << 16

    def probabilities(
        self, slot: int, contexts: Sequence[NDArray[np.int64]], given: NDArray[np.int32] | None = None
    ) -> NDArray[np.int32]:
        """16-bit probabilities that bits are 1, given the cell of each bit in each table.

        Args:
            slot: The class of the bits.
            contexts: Cell of each bit, for each table.
            given: Stretch of each bit from elsewhere, where the mixer has an input for it.
        """
        mixed = self._weighted[0][slot].take(contexts[0])
        for weighted, context in zip(self._weighted[1:], contexts[1:], strict=True):
            mixed += weighted[slot].take(context)
        if given is not None:
            mixed += given * np.int32(self._weights[slot, -1])
        mixed >>= 16
        found: NDArray[np.int32] = self._squash.take(mixed)
        return found

    def probabilities_of(
        self, slots: slice, contexts: Sequence[NDArray[np.int64]], given: NDArray[np.int32] | None = None
    ) -> NDArray[np.int32]:
        """The same of several slots at once, `(slots, n)`; so is what is given."""
        mixed = self._weighted[0][slots].take(contexts[0], axis=1)
        for weighted, context in zip(self._weighted[1:], contexts[1:], strict=True):
            mixed += weighted[slots].take(context, axis=1)
        if given is not None:
            mixed += given * self._weights[slots, -1:].astype(np.int32)
        mixed >>= 16
        found: NDArray[np.int32] = self._squash.take(mixed)
        return found

    def observe(
        self,
        slot: int | NDArray[np.intp],
        contexts: Sequence[NDArray[np.int64]],
        bits: NDArray[np.uint8],
        probabilities: NDArray[np.int32],
        given: NDArray[np.int32] | None = None,
    ) -> None:
        """Takes in coded bits, of one slot or of one each; the tables follow at the next `adapt`."""
        if not bits.size:
            return
        errors = bits.astype(np.float64)
        errors *= 65536.0
        errors -= probabilities
        slots = slot if isinstance(slot, np.ndarray) else np.full(bits.size, slot)
        self._waiting.append(_Group(slots, contexts, bits, errors, given))
        self._bits_waiting += bits.size + GROUP_SIZE
        if self._bits_waiting > MOST_WAITING:
            self._count()

    def _count(self) -> None:
        """Count what waits, all groups at once: most are small, and there are many."""
        if not self._waiting:
            return
        slots = np.concatenate([group.slots for group in self._waiting])
        errors = np.concatenate([group.errors for group in self._waiting])
        bits = np.concatenate([group.bits for group in self._waiting])
        self._bits_seen += np.bincount(slots, minlength=self._slots)
        for k, (seen, sums) in enumerate(zip(self._seen, self._errors, strict=True)):
            places = slots * sums.shape[1] + np.concatenate([group.contexts[k] for group in self._waiting])
            # Sums of integers below 2**53: exact in float64, in any order.
            sums += np.bincount(places, weights=errors, minlength=sums.size).reshape(sums.shape)
            seen += np.bincount(2 * places + bits, minlength=seen.size).reshape(seen.shape)
        given = [group.given for group in self._waiting if group.given is not None]
        if given:
            errors *= np.concatenate(given)
            self._given_gradient += np.bincount(slots, weights=errors, minlength=self._slots)
        self._waiting, self._bits_waiting = [], 0

    def adapt(self) -> None:
        """Updates weights, then counts, from all the bits since the last call (spec section 7.6)."""
        self._count()
        if not self._bits_seen.any():
            return
        divisors = RATE_DIVISOR * (self._bits_seen + RATE_BIAS)
        tables = zip(self._counts, self._sharing, self._seen, self._errors, self._stretch, strict=True)
        for k, (counts, sharing, seen, errors, stretch) in enumerate(tables):
            self._weights[:, k] += (errors.astype(np.int64) * stretch).sum(axis=1) // divisors
            counts += COUNT_STEP * seen.reshape(-1, sharing, *seen.shape[1:]).sum(axis=1).transpose(2, 0, 1)
            total = counts[0] + counts[1]
            over = total > COUNT_LIMIT
            counts[:, over] = np.maximum(counts[:, over] * COUNT_LIMIT // total[over], 1)
            seen.fill(0)
            errors.fill(0.0)
        if self._weights.shape[1] > len(self._counts):
            self._weights[:, -1] += self._given_gradient.astype(np.int64) // divisors
            self._given_gradient.fill(0.0)
        self._weights.clip(-WEIGHT_LIMIT, WEIGHT_LIMIT, out=self._weights)
        self._bits_seen.fill(0)
        self._refresh()
