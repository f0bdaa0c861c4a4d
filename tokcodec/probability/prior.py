"""The `prior` probability model: a network's predictions, mixed with those of `adaptive` (spec section 7.8).

For each step the network looks once at the past, and then, for each group of bits that are coded together, at what
is known of the step so far. Two classes differ in how they come to the same sums: `GroupedPrior` adds what each
group brings, for the fixed schedule; `PlainPrior` computes them anew, for the few cells of a wave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokcodec.probability.adaptive import AdaptiveModel
from tokcodec.probability.interface import BitGroup, Checkerboard, Places
from tokcodec.probability.prior_config import COUNT_UNIT, SIGN_UNIT
from tokcodec.probability.prior_network import Numbers, PriorNetwork, gather


class PlainPrior:
    """See `TokenModel`; any schedule will do.

    Args:
        grid: Coding order of the token grid.
        network: Of as many bits a token as are coded.
    """

    def __init__(self, grid: Checkerboard, network: PriorNetwork) -> None:
        config, dtype = network.config, network.dtype
        self._network, self._grid, self._planes = network, grid, config.bits_per_token
        self._adaptive = AdaptiveModel(grid, self._planes, weights=network.mixer_weights)
        self._near = grid.window(3)
        self._window = self._near if config.window == 3 else grid.window(config.window)
        # A last row of zeros stands for everything outside the grid.
        self._past = np.zeros((grid.cells + 1, self._planes + 1 + config.state_channels), dtype=dtype)
        self._known = np.zeros((grid.cells + 1, config.known_channels), dtype=dtype)
        self._first = np.zeros((grid.cells, config.head_channels), dtype=dtype)
        self._kept = np.zeros(grid.cells, dtype=np.uint8)
        self._behind = 0
        """Steps without bits since the network looked back: it need not, until there are some."""
        self._stretches: dict[int, NDArray[np.int32]] = {}
        self._given = np.zeros(0, dtype=np.int32)
        self._asked: Places = slice(0, 0)

    @property
    def mixing_weights(self) -> NDArray[np.int64]:
        """Weights of the mixer as they are now: int64 `(2 * planes, 4)`."""
        return self._adaptive.weights

    def start_step(self, kept: NDArray[np.uint8]) -> None:
        """See `TokenModel.start_step`; cells that keep nothing cost the context only, a step without bits nothing."""
        self._adaptive.start_step(kept)
        self._kept = kept.copy()
        if not kept.any():
            return
        for _ in range(self._behind):
            self._look_back()
            self._past[:, : self._planes + 1] = 0
        self._behind = 0
        state = self._look_back()
        levels = np.zeros((self._grid.cells + 1, 1), dtype=self._network.dtype)
        levels[:-1, 0] = kept
        levels *= COUNT_UNIT
        live: Places = slice(None) if kept.all() else np.flatnonzero(kept)
        self._first[live] = self._network.first(state[live], gather(levels, self._window[live]))
        self._known.fill(0)

    def _look_back(self) -> Numbers:
        """The state after the step before."""
        state = self._network.context(self._past, self._near)
        self._past[:-1, self._planes + 1 :] = state
        return state

    def probabilities(self, group: BitGroup) -> NDArray[np.int32]:
        """See `TokenModel.probabilities`; the network is asked at the first plane of the group's span."""
        planes, where = group.planes, group.where
        if group.plane == planes.start:
            self._asked = where
            before = self._before(where, planes)
            found = self._network.stretches(self._sums(where), before, planes)
            self._stretches = dict(zip(planes, found, strict=True))
        found = self._stretches[group.plane]
        self._given = found if group.within is None else found[group.within]
        return self._adaptive.mixed(group, self._given)

    def observe(self, group: BitGroup, bits: NDArray[np.uint8]) -> None:
        """See `TokenModel.observe`."""
        self._adaptive.observe(group, bits)
        signs = np.where(bits, SIGN_UNIT, -SIGN_UNIT).astype(self._network.dtype)
        before = self._before(group.where, range(group.plane, group.plane + 1))[:, 0]
        self._known[group.where, group.plane] = signs
        self._known[group.where, self._planes + group.plane] = signs * before
        self._known[group.where, -1] += COUNT_UNIT

    def finish_step(self) -> None:
        """See `TokenModel.finish_step`."""
        self._adaptive.finish_step()
        if not self._kept.any():
            self._behind += 1
            return
        self._past[:, : self._planes] = self._known[:, : self._planes]
        self._past[:-1, self._planes] = self._kept
        self._past[:-1, self._planes] *= COUNT_UNIT

    def _before(self, where: Places, planes: range) -> Numbers:
        """Bits of the step before at some cells: -1, 1, or 0 where absent, `(n, len(planes))`."""
        return np.sign(self._past[where, planes.start : planes.stop])

    def _sums(self, where: Places) -> Numbers:
        """The first layer's sums at some cells, from all that is known."""
        config = self._network.config
        taps, channels = tuple(range(config.window**2)), tuple(range(config.known_channels))
        seen = gather(self._known, self._window[where])
        return self._first[where] + self._network.known(seen, taps=taps, channels=channels)


class GroupedPrior(PlainPrior):
    """The same for the schedule `level_by_level`, whose groups each add to the first layer's sums once."""

    def __init__(self, grid: Checkerboard, network: PriorNetwork) -> None:
        super().__init__(grid, network)
        side = network.config.window
        down, right = np.divmod(np.arange(side * side), side)
        # A window's places by colour, seen from its middle: 0 has that of the middle, 1 the other one.
        parity = (down + right + 2 * (side // 2)) % 2
        self._taps = [tuple(int(tap) for tap in np.flatnonzero(parity == colour)) for colour in (0, 1)]
        self._around = [np.ascontiguousarray(self._window[:, taps]) for taps in self._taps]

    def observe(self, group: BitGroup, bits: NDArray[np.uint8]) -> None:
        """See `TokenModel.observe`."""
        super().observe(group, bits)
        if group.plane == group.planes[-1]:
            self._spread(group.planes, group.colour)

    def _sums(self, where: Places) -> Numbers:
        return self._first[where]

    def _spread(self, planes: range, colour: int) -> None:
        """Add what a span has brought at one colour to the sums of all cells that are coded after it."""
        where = self._asked
        channels = (*planes, *(self._planes + plane for plane in planes), 2 * self._planes)
        news = np.zeros((self._grid.cells + 1, len(channels)), dtype=self._network.dtype)
        news[where] = self._known[where][:, channels]
        news[where, -1] = np.minimum(self._kept[where], planes.stop) - planes.start
        news[:, -1] *= COUNT_UNIT
        for other in (0, 1):
            later = self._later(other, planes.start if other > colour else planes.stop)
            seen = gather(news, self._around[other ^ colour][later])
            if len(seen):
                self._first[later] += self._network.known(seen, taps=self._taps[other ^ colour], channels=channels)

    def _later(self, colour: int, known: int) -> Places:
        """Cells of a colour that keep more than `known` bits."""
        span = slice(0, self._grid.split) if colour == 0 else slice(self._grid.split, self._grid.cells)
        wanted = self._kept[span] > known
        return span if wanted.all() else np.flatnonzero(wanted) + span.start
