"""A silence on a line: one timer for it, that costs a read nothing but noting the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleTimer:
    """Calls once when nothing was heard for the gap, and again after the next sound and silence."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gap_s: float, call: Callable[[], None]) -> None:
        self._loop = loop
        self._gap_s = gap_s
        self._call = call
        self._heard_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        self._heard_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._gap_s, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left_s = self._heard_s + self._gap_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._timer = None
            self._call()
