"""How many requests of one caller are taken; each answer says what is left (draft-ietf-httpapi-ratelimit-headers).

A caller that asks too often would make the others wait; what one process has counted is not told to the others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from cloud.api.problems import Problem

WINDOW_S: Final = 10
"""What was not asked within it is lost: a page that opens with a hundred requests is welcome, a loop is not."""
CALLERS_MAX: Final = 10_000
"""That are remembered: those that asked last. About 2 MB."""


class Left(msgspec.Struct, frozen=True):
    requests: int
    reset_s: int
    """Until all of them are there again."""


class Rates:
    """A bucket for each caller, which fills with `per_s_max` a second up to WINDOW_S of them."""

    def __init__(self, per_s_max: int, monotonic_s: Callable[[], float]) -> None:
        self.window = per_s_max * WINDOW_S
        self._per_s_max = per_s_max
        self._now_s = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> Left:
        """One request. Raises a problem if none is left."""
        now_s = self._now_s()
        held, at_s = self._buckets.pop(caller, (self.window, now_s))
        held = min(self.window, held + (now_s - at_s) * self._per_s_max)
        taken = held - 1 if held >= 1 else held
        self._buckets[caller] = (taken, now_s)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        left = Left(math.floor(taken), math.ceil((self.window - taken) / self._per_s_max))
        if held >= 1:
            return left
        wait_s = math.ceil((1 - held) / self._per_s_max)
        raise Problem(
            429,
            "too-many-requests",
            "Too many requests",
            f"more than {self._per_s_max} requests a second",
            limit=self._per_s_max,
            remedy="send several messages in one request, ask for larger pages, or wait",
            headers={"Retry-After": str(wait_s), **self.headers(left)},
        )

    def headers(self, left: Left) -> dict[str, str]:
        return {
            "RateLimit-Policy": f'"requests";q={self.window};w={WINDOW_S}',
            "RateLimit": f'"requests";r={left.requests};t={left.reset_s}',
        }
