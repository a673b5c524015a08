"""Group commit: what arrives while one sync runs is written and synced together by the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from protocols.batch import BatchKey
from protocols.limits import BATCH_RECORDS_MAX
from sync.log.entry import Entry
from sync.log.errors import EntryTooLargeError, LogClosedError, LogError, LogFailedError
from sync.log.keeper import Keeper
from sync.log.keys import KeyTable
from sync.log.linger import Linger
from sync.log.settings import LINGER_TICK_S, QUEUE_BYTES_MAX
from sync.log.threads import DiskThread, start_task
from sync.log.writer import ENTRY_OVERHEAD_BYTES, NeedSegments, SegmentWriter, Written
from tidegate.logs import get_logger

_BATCHES_MAX: Final = 0xFFFF
"""Batches of one block: two bytes in its head."""

_MS_MAX: Final = 2**63 - 1

logger = get_logger("sync.log")


class _Waiter:
    """One append, until all tickets that it waits for are done."""

    __slots__ = ("future", "left")

    def __init__(self, future: asyncio.Future[None], left: int) -> None:
        self.future = future
        self.left = left

    def settle(self, error: LogError | None) -> None:
        self.left -= 1
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(type(error)(*error.args))
        elif not self.left:
            self.future.set_result(None)


class _Ticket:
    """The new entries of one append: written together or, if the log is full, not at all."""

    __slots__ = ("entries", "size", "waiters")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size = 0
        """Bytes in a block, before compression."""
        self.waiters: list[_Waiter] = []


class GroupCommit:
    """Queue in front of the writer thread, and the table of keys that keeps a repeated batch out."""

    def __init__(
        self,
        writer: SegmentWriter,
        keeper: Keeper,
        keys: KeyTable,
        *,
        linger_max_ms: float,
        on_written: Callable[[Written], None],
    ) -> None:
        self.passed_over = 0
        self.groups = 0
        self.syncs = 0
        self._writer = writer
        self._keeper = keeper
        self._keys = keys
        self._on_written = on_written
        self._size_max = writer.block_bytes_max
        self._linger = Linger(round(linger_max_ms / 1000 / LINGER_TICK_S))
        self._thread = DiskThread("log-writer")
        self._queue: deque[_Ticket] = deque()
        self.queued_bytes = 0
        """Of entries that wait for the writer."""
        self._queued_records = 0
        self._in_flight: dict[BatchKey, _Ticket] = {}
        """Queued or being synced."""
        self.closing = False
        """True once nothing more is taken."""
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = start_task(self._write_groups(), "writer")

    async def append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._check(entry)
        while self.queued_bytes >= QUEUE_BYTES_MAX and not self.closing:
            self._room.clear()
            await self._room.wait()
        if self.closing:
            raise LogClosedError("the log is closed")
        awaited = self._enqueue(entries)
        if awaited:
            waiter = _Waiter(asyncio.get_running_loop().create_future(), len(awaited))
            for ticket in awaited:
                ticket.waiters.append(waiter)
            await waiter.future

    async def close(self) -> None:
        """Writes what is queued, then ends."""
        self.closing = True
        self._arrived.set()
        self._room.set()
        if self._task is not None:
            await self._task
        await self._thread.run(self._writer.close)
        self._thread.close()

    def _check(self, entry: Entry) -> None:
        size = len(entry.data) + ENTRY_OVERHEAD_BYTES
        if size > self._size_max:
            raise EntryTooLargeError(f"entry of {size:,} bytes; the limit is {self._size_max:,}")
        if not 1 <= entry.records <= BATCH_RECORDS_MAX or not 0 <= entry.newest_ms <= _MS_MAX:
            raise ValueError(f"entry of {entry.records} records, newest at {entry.newest_ms} ms")

    def _enqueue(self, entries: Sequence[Entry]) -> set[_Ticket]:
        """Queues those entries whose keys are new; returns the tickets that all of them come with."""
        awaited: set[_Ticket] = set()
        ticket = _Ticket()
        for entry in entries:
            key = entry.key
            earlier = self._in_flight.get(key)
            if earlier is not None:
                awaited.add(earlier)
                self.passed_over += 1
            elif key in self._keys:
                self.passed_over += 1
            else:
                self._in_flight[key] = ticket
                ticket.entries.append(entry)
                ticket.size += len(entry.data) + ENTRY_OVERHEAD_BYTES
                self._queued_records += entry.records
        if ticket.entries:
            awaited.add(ticket)
            self._queue.append(ticket)
            self.queued_bytes += ticket.size
            self._arrived.set()
        return awaited

    async def _write_groups(self) -> None:
        try:
            while True:
                if not self._queue:
                    if self.closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                await self._wait_for_more()
                await self._commit(self._take())
        finally:
            self.closing = True
            for ticket in self._queue:  # empty, unless the writer itself broke
                self._settle(ticket, LogFailedError("the log's writer has ended"))
            self._room.set()

    async def _wait_for_more(self) -> None:
        for tick in range(self._linger.ticks):
            if self.closing or self.queued_bytes >= self._size_max or not self._linger.pays(tick):
                return
            before = self._queued_records
            await asyncio.sleep(LINGER_TICK_S)
            self._linger.learn(tick, before, self._queued_records - before)

    def _take(self) -> list[_Ticket]:
        """Tickets that fit one block together; one alone may need several."""
        taken: list[_Ticket] = []
        size = batches = 0
        while self._queue:
            ticket = self._queue[0]
            size += ticket.size
            batches += len(ticket.entries)
            if taken and (size > self._size_max or batches > _BATCHES_MAX):
                break
            taken.append(self._queue.popleft())
            self.queued_bytes -= ticket.size
            self._queued_records -= sum(entry.records for entry in ticket.entries)
        if self.queued_bytes < QUEUE_BYTES_MAX:
            self._room.set()
        return taken

    async def _commit(self, tickets: list[_Ticket]) -> None:
        error: LogError | None = LogFailedError("the log's writer has ended")
        try:
            error = await self._write([entry for ticket in tickets for entry in ticket.entries])
        except LogError as failure:
            error = failure
        finally:
            for ticket in tickets:
                self._settle(ticket, error)

    async def _write(self, entries: list[Entry]) -> LogError | None:
        """Returns what kept some of the entries from being synced."""
        groups = deque(self._split(entries))
        result = await self._thread.run(self._writer.commit, groups, list(self._keeper.spares))
        self.groups += 1
        while True:
            if isinstance(result, NeedSegments):
                await self._keeper.prepare(len(self._keeper.spares) + result.count)
                blocks = result.blocks
            else:
                self._note_written(result, groups)
                if result.failure is not None:
                    logger.error("log write failed", reason=str(result.failure))
                    return LogFailedError(f"the disk failed: {result.failure}")
                blocks = result.rest
                if not blocks:
                    return None
            result = await self._thread.run(self._writer.write, blocks, list(self._keeper.spares))

    def _note_written(self, written: Written, groups: deque[list[Entry]]) -> None:
        if written.placed is not None:
            self.syncs += 1
            self._keys.add([entry.key for entry in groups.popleft()])
        self._on_written(written)

    def _split(self, entries: list[Entry]) -> list[list[Entry]]:
        """Into blocks: one for each priority, the highest first, unless a single append brought more than fits."""
        groups: list[list[Entry]] = []
        for priority in sorted({entry.priority for entry in entries}, reverse=True):
            groups.append([])
            size = 0
            for entry in entries:
                if entry.priority != priority:
                    continue
                entry_size = len(entry.data) + ENTRY_OVERHEAD_BYTES
                if size + entry_size > self._size_max or len(groups[-1]) == _BATCHES_MAX:
                    groups.append([])
                    size = 0
                groups[-1].append(entry)
                size += entry_size
        return groups

    def _settle(self, ticket: _Ticket, error: LogError | None) -> None:
        for entry in ticket.entries:
            del self._in_flight[entry.key]
        for waiter in ticket.waiters:
            waiter.settle(error)
