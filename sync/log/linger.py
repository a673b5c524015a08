"""When the writer waits for more before it syncs: only while it pays, found by trying. Sans-IO.

A wait is a few ticks of 1 ms. It pays when at least half as many records come in the tick as were there before: then
there are clearly fewer wake-ups and syncs. It does not when traffic is thin, when the disk is slow (all that came
while it synced is here already), or when everyone who could send waits for this very sync. Nothing but trying tells
these apart, so each tick remembers whether it paid, and one that did not is tried again ever more rarely: after 1, 3,
7, … at most 255 groups, which bounds the cost to about 1 % of the time.
"""

from __future__ import annotations

from typing import Final

_SKIPS_MAX: Final = 255


class Linger:
    """`ticks`: the most that one group may wait."""

    def __init__(self, ticks: int) -> None:
        self.ticks = ticks
        self._skips = [0] * ticks
        """Groups that are still to go without this tick."""
        self._penalty = [0] * ticks

    def pays(self, tick: int) -> bool:
        """Whether this group should wait for its tick number `tick`, from 0; asked once a group, until it says no."""
        if tick >= self.ticks:
            return False
        if self._skips[tick]:
            self._skips[tick] -= 1
            return False
        return True

    def learn(self, tick: int, before: int, came: int) -> None:
        """Records there were `before` the tick and those that `came` in it."""
        if 2 * came >= before:
            self._penalty[tick] = 0
        else:
            self._penalty[tick] = min(2 * self._penalty[tick] + 1, _SKIPS_MAX)
        self._skips[tick] = self._penalty[tick]
