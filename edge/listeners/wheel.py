"""One timer for all connections of a listener: deadlines in whole seconds, looked at when they may have come."""

from __future__ import annotations

from typing import Protocol


class Watched(Protocol):
    def check(self) -> int:
        """Deals with a deadline that has come. Returns in how many ticks to look again; 0: no more."""
        ...


class DeadlineWheel:
    """A tick is a second in which the event loop ran, not one that passed: after a stall (a suspended machine, a
    stopped process) devices get the rest of their time to be read, instead of all being closed for a silence of ours.

    To be heard from costs a connection nothing but noting `now`: its deadline is moved when it is looked at.
    """

    def __init__(self) -> None:
        self.now = 0
        self._due: dict[int, set[Watched]] = {}
        self._places: dict[Watched, int] = {}

    def watch(self, item: Watched, ticks: int) -> None:
        """Calls `item.check()` after `ticks` ticks, at least 1; replaces what was set before."""
        self.forget(item)
        place = self.now + max(1, ticks)
        self._places[item] = place
        self._due.setdefault(place, set()).add(item)

    def forget(self, item: Watched) -> None:
        place = self._places.pop(item, None)
        if place is not None:
            due = self._due[place]
            due.discard(item)
            if not due:
                del self._due[place]

    def turn(self) -> None:
        """One tick."""
        self.now += 1
        for item in list(self._due.get(self.now, ())):
            if self._places.get(item) != self.now:
                continue  # forgotten by the check of another
            self.forget(item)
            ticks = item.check()
            if ticks:
                self.watch(item, ticks)
