"""Latencies as a histogram of fixed size: what stands in it is within 5 % of what was measured. Pure."""

from __future__ import annotations

import math
from typing import Final

_PER_DECADE: Final = 48
"""Buckets in a factor of ten: each is 4.9 % wide."""
_LOW_MS: Final = 0.01
_BUCKETS: Final = 8 * _PER_DECADE
"""Up to 1,000 seconds; what takes longer counts as that."""


class Latencies:
    """Add each measurement; ask for quantiles. Memory does not depend on how many there are."""

    __slots__ = ("_counts", "count", "max_ms")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_ms = 0.0

    def add(self, latency_ms: float) -> None:
        bucket = 0 if latency_ms <= _LOW_MS else int(math.log10(latency_ms / _LOW_MS) * _PER_DECADE)
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1
        if latency_ms > self.max_ms:
            self.max_ms = latency_ms

    def merge(self, other: Latencies) -> None:
        self._counts = [mine + its for mine, its in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.max_ms = max(self.max_ms, other.max_ms)

    def quantile_ms(self, share: float) -> float | None:
        """The upper end of the bucket that holds the quantile, never above the largest seen; None without any."""
        if not self.count:
            return None
        rank = max(math.ceil(share * self.count), 1)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_LOW_MS * 10 ** ((bucket + 1) / _PER_DECADE), self.max_ms)
        raise AssertionError("the counts add up to `count`")


class RecentLatencies:
    """The last `seconds` whole seconds and all of them; `turn` is called once a second."""

    def __init__(self, seconds: int = 10) -> None:
        self._seconds = seconds
        self._past: list[Latencies] = []
        self._now = Latencies()
        self._before = Latencies()

    def add(self, latency_ms: float) -> None:
        self._now.add(latency_ms)

    def turn(self) -> None:
        self._past.append(self._now)
        self._now = Latencies()
        if len(self._past) > self._seconds:
            self._before.merge(self._past.pop(0))

    def recent(self) -> Latencies:
        return _sum(self._past)

    def total(self) -> Latencies:
        return _sum([self._before, *self._past, self._now])


def _sum(parts: list[Latencies]) -> Latencies:
    result = Latencies()
    for part in parts:
        result.merge(part)
    return result
