"""How much lately."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

RATE_OVER_S: Final = 15.0
"""The rate that the drain estimate goes by is a mean over about this time, newer seconds counting more."""


class Rate:
    """A count per second that forgets: each count weighs less by exp(-age / over_s)."""

    def __init__(self, monotonic_s: Callable[[], float], over_s: float = RATE_OVER_S) -> None:
        self._over_s = over_s
        self._monotonic_s = monotonic_s
        self._weighed = 0.0
        self._at_s = self._started_s = monotonic_s()

    def add(self, count: int) -> None:
        self._age()
        self._weighed += count

    def per_s(self) -> float:
        self._age()
        # Until over_s have passed, the mean is over less time than that.
        return self._weighed / (self._over_s * (1.0 - math.exp((self._started_s - self._at_s) / self._over_s)) or 1.0)

    def _age(self) -> None:
        now_s = self._monotonic_s()
        self._weighed *= math.exp((self._at_s - now_s) / self._over_s)
        self._at_s = now_s
