"""One heap and one timer of the event loop for the timers of all devices."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.002
"""Timers due within one tick run together: thousands of devices wake the process 500 times a second at most."""


class Timers:
    """Calls back at or shortly after the time asked for. There is no cancelling: a callback looks whether it still
    applies."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake: asyncio.TimerHandle | None = None
        self._running = False

    def now(self) -> float:
        """Seconds by the loop's clock."""
        return self._loop.time()

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when_s, next(self._order), call))
        if not self._running and (self._wake is None or when_s < self._wake.when()):
            self._arm()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.at(self._loop.time() + delay_s, call)

    def close(self) -> None:
        self._heap.clear()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _arm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_at(max(self._heap[0][0], self._loop.time() + TICK_S), self._run)

    def _run(self) -> None:
        self._wake = None
        self._running = True
        now = self._loop.time()
        try:
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
        finally:
            self._running = False
            if self._heap:
                self._arm()
