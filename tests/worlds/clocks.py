"""A machine's clocks: the boot clock goes on, the wall clock may start in 1970 and step."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from protocols.messages import ClockState

START_MS: Final = 1_770_000_000_000
"""True time when a world begins, Unix milliseconds."""


def true_ms(now_s: float) -> int:
    """Unix milliseconds, which only the world knows; the cloud's clock is right."""
    return START_MS + int(now_s * 1000)


class MachineClock:
    """The ClockSource of one machine."""

    def __init__(self, now_s: Callable[[], float], rng: random.Random) -> None:
        self._now_s = now_s
        self._random = rng
        self._booted_s = 0.0
        self._ahead_ms = 0
        self.now_state = ClockState.SYNCHRONIZED
        self.boot = rng.getrandbits(63)

    def reboot(self, *, forgets_time: bool) -> None:
        """A machine without a battery comes up in 1970."""
        self._booted_s = self._now_s()
        self.boot = self._random.getrandbits(63)
        if forgets_time:
            self._ahead_ms = 5_000 - true_ms(self._booted_s)
            self.now_state = ClockState.UNSET
        else:
            self._ahead_ms = self._random.randrange(-5_000, 5_000)
            self.now_state = ClockState.RESTORED

    def step(self, ahead_ms: int, state: ClockState) -> None:
        """Somebody sets the clock, to something that far from true time."""
        self._ahead_ms = ahead_ms
        self.now_state = state

    def synchronize(self) -> None:
        self._ahead_ms = 0
        self.now_state = ClockState.SYNCHRONIZED

    def wall_ms(self) -> int:
        return true_ms(self._now_s()) + self._ahead_ms

    def boot_ms(self) -> int:
        return int((self._now_s() - self._booted_s) * 1000) + 3_000

    def state(self) -> ClockState:
        return self.now_state

    def error_ms(self) -> int:
        return 20
