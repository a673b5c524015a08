"""How much may be in flight: the cloud's credit, the gateway's own window within it, and live's part of both."""

from __future__ import annotations

import math
from typing import Final

from protocols.messages import Lane
from sync.link.errors import ViolationError
from sync.link.frames import Accepted, Credit, ProbeAnswer, Welcome
from sync.link.limits import (
    BACKFILL_SHARE_MAX,
    CREDIT_BYTES_MIN,
    FRAME_BLOCKS_MAX,
    FRAME_SHARE_MAX,
    QUEUE_S_HIGH,
    QUEUE_S_LOW,
    QUICKEST_OVER_S,
    REQUESTS_MAX,
    WINDOW_BYTES_MIN,
)
from sync.link.ports import Room

NO_ROOM: Final = Room(0, 0, 0)


class Window:
    """Doubles with each round of quick answers while it is used, and shrinks as they begin to wait behind each other:
    so that what is live never waits behind much, and a thin link never has more under way than it carries long before
    a deadline."""

    def __init__(self, size_bytes: int, *, now_s: float, bytes_max: int, frame_bytes_max: int, slow_s: float) -> None:
        self._bytes_max = max(bytes_max, WINDOW_BYTES_MIN)
        self.size_bytes = min(max(size_bytes, WINDOW_BYTES_MIN), self._bytes_max)
        self.credit_bytes = 0
        self.backfill_credit_bytes: int | None = None
        """None: all of the credit."""
        self._frame_bytes_max = frame_bytes_max
        self._slow_s = slow_s
        self._blocks_max = FRAME_BLOCKS_MAX
        self._requests_max = REQUESTS_MAX
        self._requests = 0
        self._in_flight = dict.fromkeys(Lane, 0)
        self._filled_s = -math.inf
        """When more than half of it was in use last: only who uses a window earns a wider one."""
        self._slowed_s = now_s
        self._quickest = _Quickest(now_s)

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight[Lane.LIVE] + self._in_flight[Lane.BACKFILL]

    @property
    def backfill_in_flight_bytes(self) -> int:
        return self._in_flight[Lane.BACKFILL]

    @property
    def is_backfill_paused(self) -> bool:
        """The cloud gives it no credit."""
        return self.backfill_credit_bytes == 0

    def open(self, welcome: Welcome) -> None:
        self._blocks_max = min(FRAME_BLOCKS_MAX, welcome.frame_blocks_max)
        self._requests_max = welcome.requests_max
        self.grant(welcome)

    def grant(self, granted: Welcome | Accepted | ProbeAnswer | Credit) -> None:
        """Raises ViolationError for a credit that is no pause and cannot hold every block."""
        for credit_bytes in (granted.credit_bytes, granted.backfill_bytes):
            if credit_bytes is not None and 0 < credit_bytes < CREDIT_BYTES_MIN:
                raise ViolationError("credit", f"credit of {credit_bytes:,} bytes cannot hold every block")
        self.credit_bytes, self.backfill_credit_bytes = granted.credit_bytes, granted.backfill_bytes

    def room(self) -> Room:
        """What may be shipped now. Small blocks do not trickle into small gaps: some of the window has to be free."""
        if self._requests >= self._requests_max:
            return NO_ROOM
        frame = min(self._frame_bytes_max, int(FRAME_SHARE_MAX * self.size_bytes))
        free = self._free_bytes(Lane.LIVE)
        live = min(frame, free) if 2 * free >= frame else 0
        crowded = self._requests >= BACKFILL_SHARE_MAX * self._requests_max
        backfill = 0 if crowded or self._free_bytes(Lane.BACKFILL) < frame else frame
        return Room(self._blocks_max, live, backfill)

    def fits(self, lane: Lane, size_bytes: int) -> bool:
        """Whether that much may be shipped now. A block larger than the window of a slow link travels alone in its
        lane: then the credit bounds it."""
        if self._requests >= self._requests_max:
            return False
        if size_bytes <= self._free_bytes(lane):
            return True
        paused = lane is Lane.BACKFILL and self.is_backfill_paused
        return not paused and self._in_flight[lane] == 0 and size_bytes <= self.credit_bytes - self.in_flight_bytes

    def take(self, lane: Lane, size_bytes: int, now_s: float) -> None:
        """A request of that size is sent."""
        self._requests += 1
        self._in_flight[lane] += size_bytes
        if 2 * self.in_flight_bytes >= self.size_bytes:
            self._filled_s = now_s

    def release(self, lane: Lane, size_bytes: int) -> None:
        """That much of it is answered."""
        self._in_flight[lane] -= size_bytes

    def settle(self, size_bytes: int, sent_s: float, now_s: float) -> None:
        """A request of that size, sent at `sent_s`, has all its answers: the window follows how long that took."""
        self._requests -= 1
        took_s = now_s - sent_s
        waited_s = took_s - self._quickest.note(took_s, now_s)
        if took_s > self._slow_s or waited_s > QUEUE_S_HIGH:
            if sent_s >= self._slowed_s:  # what was sent before it shrank last says nothing of it
                self.size_bytes = max(WINDOW_BYTES_MIN, self.size_bytes // 2)
                self._slowed_s = now_s
        elif sent_s <= self._filled_s and waited_s < QUEUE_S_LOW:
            self.size_bytes = min(self._bytes_max, self.size_bytes + size_bytes)

    def _free_bytes(self, lane: Lane) -> int:
        """Backfill has at most its share of the window, and counts for no more where a large block of it has more."""
        within = min(self.credit_bytes, self.size_bytes)
        share, backfill = int(BACKFILL_SHARE_MAX * within), self._in_flight[Lane.BACKFILL]
        free = within - self._in_flight[Lane.LIVE] - min(backfill, share)
        if lane is Lane.BACKFILL:
            credit = self.credit_bytes if self.backfill_credit_bytes is None else self.backfill_credit_bytes
            free = min(free, min(share, credit) - backfill)
        return max(0, min(free, self.credit_bytes - self.in_flight_bytes))


class _Quickest:
    """The least of lately: of the present stretch of QUICKEST_OVER_S and the one before."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._before_s = self._here_s = math.inf

    def note(self, took_s: float, now_s: float) -> float:
        if now_s - self._since_s > QUICKEST_OVER_S:
            self._since_s, self._before_s, self._here_s = now_s, self._here_s, math.inf
        self._here_s = min(self._here_s, took_s)
        return min(self._before_s, self._here_s)
