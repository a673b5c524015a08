"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Full jitter: each wait is random, between 0 and a bound that doubles from `first_s` to `max_s`, so that many who
    failed together do not come back together. (M. Brooker, Exponential Backoff And Jitter, 2015)"""

    def __init__(self, first_s: float, max_s: float, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 to below 1."""
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self.failures = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """The wait after one more failure; not below `at_least_s`, and spread behind it."""
        bound_s = min(self._max_s, self._first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return at_least_s + self._random() * bound_s

    def reset(self) -> None:
        self.failures = 0
