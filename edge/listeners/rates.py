"""How many messages a second each device may send."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

BURST_S: Final = 2
"""A device may send this many seconds' worth at once: what it kept while it was away comes in bursts."""

DEVICES_MAX: Final = 20_000
"""Whose rates are known; the one that has been silent longest makes room. About 4 MB."""

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
        self._levels.pop(device, None)  # so that the order is that of the last messages
        if len(self._levels) >= DEVICES_MAX:
            del self._levels[next(iter(self._levels))]
        self._levels[device] = (level, now)
        return level <= self._per_s * BURST_S

    def has_room(self, device: Hashable, now: int) -> bool:
        """Whether the device may send one message more; False: there is room in the next second."""
        return not self._per_s or self._level(device, now) < self._per_s * BURST_S

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
