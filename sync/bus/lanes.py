"""Two queues, one reader: live goes first, and backfill gets its share of the bytes all the same."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from protocols.messages import Lane

BACKFILL_SHARE: Final = 0.25
"""Of the bytes that a reader takes while both lanes wait. Live traffic that uses less than the rest is never held up;
backfill of a day's outage still ends within a day at the worst."""


class Laned(Protocol):
    @property
    def data(self) -> bytes: ...

    @property
    def lane(self) -> Lane: ...


T = TypeVar("T", bound=Laned)


class LaneQueue(Generic[T]):
    """What a reader has received and nobody has fetched, by lane and in order."""

    def __init__(self) -> None:
        self._queues: dict[Lane, deque[T]] = {lane: deque() for lane in Lane}
        self._bytes: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._owed = 0.0
        """Bytes that backfill may take before live, for what live took while backfill waited."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def batches(self, lane: Lane) -> int:
        return len(self._queues[lane])

    def bytes(self, lane: Lane) -> int:
        return self._bytes[lane]

    def push(self, item: T) -> None:
        self._queues[item.lane].append(item)
        self._bytes[item.lane] += len(item.data)

    def take(self, batches_max: int, bytes_max: int) -> list[T]:
        """The next ones, all of one lane: one, then more while they keep both bounds. Not to be called when empty."""
        lane = self._turn()
        queue = self._queues[lane]
        taken = [queue.popleft()]
        size = len(taken[0].data)
        while queue and len(taken) < batches_max and size + len(queue[0].data) <= bytes_max:
            taken.append(queue.popleft())
            size += len(taken[-1].data)
        self._bytes[lane] -= size
        if lane is Lane.BACKFILL:
            self._owed = max(0.0, self._owed - size)
        elif self._queues[Lane.BACKFILL]:
            self._owed += size * BACKFILL_SHARE / (1 - BACKFILL_SHARE)
        return taken

    def drain(self) -> list[T]:
        """Everything, at the end."""
        items = [item for queue in self._queues.values() for item in queue]
        for lane, queue in self._queues.items():
            queue.clear()
            self._bytes[lane] = 0
        return items

    def _turn(self) -> Lane:
        live, backfill = self._queues[Lane.LIVE], self._queues[Lane.BACKFILL]
        if not backfill:
            self._owed = 0.0
            return Lane.LIVE
        if not live or self._owed >= len(backfill[0].data):
            return Lane.BACKFILL
        return Lane.LIVE
