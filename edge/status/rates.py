"""What happened in each of the last seconds: the sparklines of the page."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

SECONDS_MAX: Final = 300
"""Five minutes: an outage and its end fit."""

LATE_MS: Final = 5_000
"""A record that waits longer than this is backlog; a shorter wait is the link's normal work."""


class Second(msgspec.Struct, frozen=True, array_like=True):
    """Records."""

    at_ms: int
    """Unix milliseconds of its end."""
    logged: int
    accepted: int
    pending: int
    """At its end."""
    refused: int


class Rates:
    """Sampled once a second."""

    def __init__(self) -> None:
        self.seconds: deque[Second] = deque(maxlen=SECONDS_MAX)
        """Oldest first."""
        self.backlog_peak = 0
        """The most records that were pending since there was last no backlog; 0 while there is none."""
        self._before: tuple[int, int, int] | None = None

    def sample(
        self, at_ms: int, *, logged: int, accepted: int, pending: int, refused: int, oldest_pending_ms: int | None
    ) -> None:
        """All totals since the start."""
        if self._before is not None:
            before = self._before
            self.seconds.append(Second(at_ms, logged - before[0], accepted - before[1], pending, refused - before[2]))
        self._before = logged, accepted, refused
        if oldest_pending_ms is None or at_ms - oldest_pending_ms < LATE_MS:
            self.backlog_peak = 0
        else:
            self.backlog_peak = max(self.backlog_peak, pending)
