"""What a listener turned away: counted by reason, the last ones kept to be looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from tidegate.logs import get_logger

KEPT_MAX: Final = 64
"""Refusals that can be looked at: a page of them. A flood pushes older ones out; the counts stay."""

DATA_BYTES_MAX: Final = 64
"""Kept of a refused read: enough to recognise a protocol or a wrong length."""

LOG_EVERY_S: Final = 10.0
"""For each reason, one line in this time: a device that repeats a mistake must not fill the log's disk."""

_log = get_logger("edge.listener")


class Refused(msgspec.Struct, frozen=True):
    time_ms: int
    """Unix milliseconds by the gateway's wall clock."""
    code: str
    detail: str
    peer: str
    user_name: str
    """Empty before a CONNECT was understood."""
    data: bytes
    """The start of the read, without anything that a password could stand in."""


class Refusals:
    def __init__(self, listener: str) -> None:
        self.counts: dict[str, int] = {}
        self.last: deque[Refused] = deque(maxlen=KEPT_MAX)
        self.listener = listener
        self.watch: Callable[[Refused], None] | None = None
        """Told of each, as it is added."""
        self._logged_s: dict[str, float] = {}

    def count(self, code: str, times: int) -> None:
        """What is not kept to be looked at."""
        self.counts[code] = self.counts.get(code, 0) + times

    def add(self, refused: Refused, *, now_s: float) -> None:
        """`now_s`: a clock that never goes back."""
        code = refused.code
        self.count(code, 1)
        self.last.append(refused)
        if self.watch is not None:
            self.watch(refused)
        if now_s - self._logged_s.get(code, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_s[code] = now_s
            _log.warning(
                "refused", listener=self.listener, code=code, reason=refused.detail, peer=refused.peer,
                user_name=refused.user_name, count=self.counts[code],
            )  # fmt: skip
