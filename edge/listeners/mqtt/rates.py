"""How many messages a second each device may send: one that sends more is read no faster, and loses nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

BURST_S: Final = 2
"""A device may send this many seconds' worth at once: what it kept while it was away comes in bursts."""

_LOOK_EVERY_TICKS: Final = 60


class Rates:
    """By the wheel's ticks (edge/listeners/wheel.py), a second each."""

    def __init__(self, per_s: int) -> None:
        """`per_s` 0: no limit."""
        self._per_s = per_s
        self._levels: dict[Hashable, tuple[int, int]] = {}

    def spend(self, device: Hashable, messages: int, now: int) -> bool:
        """False: the device is over its rate, and is to wait."""
        if not self._per_s:
            return True
        level = self._level(device, now) + messages
        self._levels[device] = (level, now)
        return level <= self._per_s * BURST_S

    def may_go_on(self, device: Hashable, now: int) -> bool:
        return self._level(device, now) <= self._per_s

    def turn(self, now: int) -> None:
        """Forgets devices that have been quiet."""
        if now % _LOOK_EVERY_TICKS == 0:
            for device in [each for each in self._levels if not self._level(each, now)]:
                del self._levels[device]

    def _level(self, device: Hashable, now: int) -> int:
        level, at = self._levels.get(device, (0, now))
        return max(0, level - (now - at) * self._per_s)
