"""The bus contract in memory, for one topic: keeps what is published, and answers when the test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NoReturn

from protocols.batch import BatchKey, RecordBatch, decode_records
from protocols.messages import Clock, ClockState, Lane, Record


class MemoryBus:
    def __init__(self) -> None:
        self.batches: list[RecordBatch] = []
        """Each publish, decoded; an attempt that is repeated stands here again."""
        self.kept: set[BatchKey] = set()
        """Of the publishes that were answered, as a log would have them."""
        self.topics: set[str] = set()
        self.failures: deque[Exception] = deque()
        """Raised by the next publishes, one each."""
        self._open = asyncio.Event()
        self._open.set()
        self._published = asyncio.Condition()

    def hold(self) -> None:
        """From now on, publish does not return."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch.records()]

    async def reached(self, batches: int) -> None:
        """Waits until so many publishes have come."""
        async with self._published:
            await self._published.wait_for(lambda: len(self.batches) >= batches)

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        batch = decode_records(data)
        assert key == batch.key
        self.topics.add(topic)
        self.batches.append(batch)
        async with self._published:
            self._published.notify_all()
        await self._open.wait()
        if self.failures:
            raise self.failures.popleft()
        self.kept.add(batch.key)

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> NoReturn:
        raise NotImplementedError("tests look at `batches`")

    async def close(self) -> None:
        pass


class SetClock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.boot = 42
        self.boot_now_ms = 10_000
        self.offset_ms = 1_700_000_000_000
        self.now_state = ClockState.SYNCHRONIZED
        self.now_error_ms = 20

    def wall_ms(self) -> int:
        return self.boot_now_ms + self.offset_ms

    def boot_ms(self) -> int:
        return self.boot_now_ms

    def state(self) -> ClockState:
        return self.now_state

    def error_ms(self) -> int:
        return self.now_error_ms

    def stamp(self) -> Clock:
        return Clock(self.boot, self.offset_ms, self.now_state)
