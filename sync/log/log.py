"""The gateway's durable log: everything that a device was promised is in here until the cloud has it.

A directory of segment files (segment.py), each holding blocks as they travel on (protocols/block.py), and a small state
file (state.py). One process has it open at a time.

    append ─▶ queue ─▶ writer thread: one block, one synced write ─▶ catalog, tail ─▶ readers
                                                            accept ─▶ catalog ─▶ keeper: state, then removal
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from sync.log.accounting import EpochAccounting, LogAccounting
from sync.log.commit import GroupCommit
from sync.log.disk import Disk, Lock, RealDisk
from sync.log.entry import Entry
from sync.log.errors import (
    EntryTooLargeError,
    LogBusyError,
    LogClosedError,
    LogError,
    LogFailedError,
    LogFullError,
)
from sync.log.keeper import Keeper
from sync.log.oldest import OldestPending
from sync.log.reader import LogReader, Source
from sync.log.recovery import Recovered, recover
from sync.log.segment import Mark, Segment
from sync.log.settings import SEGMENTS_MIN, STATE_BYTES, TAIL_BYTES_MAX, LogSettings
from sync.log.tail import Position, Tail
from sync.log.threads import DiskThread
from sync.log.writer import SegmentWriter, Written
from tidegate.logs import get_logger

__all__ = [
    "Disk",
    "Entry",
    "EntryTooLargeError",
    "EpochAccounting",
    "Log",
    "LogAccounting",
    "LogBusyError",
    "LogClosedError",
    "LogError",
    "LogFailedError",
    "LogFullError",
    "LogReader",
    "LogSettings",
    "RealDisk",
]

LOCK_NAME = "lock"

logger = get_logger("sync.log")


class Log:
    """Made by `open`; used from one event loop."""

    def __init__(
        self,
        directory: Path,
        settings: LogSettings,
        recovered: Recovered,
        *,
        disk: Disk,
        lock: Lock,
        thread: DiskThread,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._lock = lock
        self._readers: list[LogReader] = []
        self._catalog = recovered.catalog
        self._tail = Tail(TAIL_BYTES_MAX)
        self._thread = thread
        self._source = Source(
            self._catalog, self._tail, thread, disk, directory, self._note_damage, self._readers.remove
        )
        self._oldest = OldestPending(self._catalog, self._tail, thread, disk, directory)
        self._writer = SegmentWriter(
            disk,
            directory,
            segment_bytes=settings.segment_bytes,
            keys=recovered.keys,
            previous=recovered.previous,
            wall_ms=wall_ms,
            new_epoch=new_epoch,
        )
        self._keeper = Keeper(
            disk,
            directory,
            settings,
            self._catalog,
            next_ordinal=recovered.next_ordinal,
            generation=recovered.generation,
            foreign_bytes=recovered.foreign_bytes,
            on_removed=self._note_removed,
        )
        self._commit = GroupCommit(
            self._writer,
            self._keeper,
            recovered.keys,
            linger_max_ms=settings.linger_max_ms,
            on_written=self._note_written,
        )

    @classmethod
    async def open(
        cls,
        directory: Path,
        settings: LogSettings,
        *,
        disk: Disk,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], int],
    ) -> Log:
        """Takes over whatever an earlier process left in the directory, which is made if there is none.

        `wall_ms`: Unix milliseconds; `new_epoch`: 63 random bits at each call, called from other threads too. Raises
        LogBusyError if another process has the log open, ValueError for settings that cannot be, OSError if the disk
        cannot be read or the directory not be written.
        """
        if settings.max_bytes < STATE_BYTES + SEGMENTS_MIN * settings.segment_bytes:
            raise ValueError(
                f"max_bytes {settings.max_bytes:,} is less than {SEGMENTS_MIN} segments of {settings.segment_bytes:,} "
                f"bytes and {STATE_BYTES:,} bytes of state"
            )
        thread = DiskThread("log-reader")
        try:
            try:
                lock = await thread.run(disk.lock, directory / LOCK_NAME)
            except BlockingIOError as error:
                raise LogBusyError(f"another process has the log {directory} open") from error
            try:
                recovered = await thread.run(recover, disk, directory)
            except BaseException:
                lock.close()
                raise
        except BaseException:
            thread.close()
            raise
        log = cls(
            directory,
            settings,
            recovered,
            disk=disk,
            lock=lock,
            thread=thread,
            wall_ms=wall_ms,
            new_epoch=new_epoch,
        )
        log._keeper.start()
        log._commit.start()
        return log

    @property
    def epoch(self) -> int:
        """Of the records being written. A new one begins with each opening, and when a write failed."""
        return self._writer.epoch

    @property
    def queued_bytes(self) -> int:
        """Of entries that wait for the writer, before compression."""
        return self._commit.queued_bytes

    async def append(self, entries: Sequence[Entry]) -> None:
        """Returns once all entries are synced; those whose key the log has already are passed over with the same
        answer. Waits while QUEUE_BYTES_MAX are queued.

        Raises LogFullError (nothing was kept; retry later), LogFailedError (retry with the same keys), LogClosedError,
        EntryTooLargeError (never), ValueError (an entry of no or too many records, or from before 1970). After a
        cancellation the entries may be kept or not: retry with the same keys.
        """
        await self._commit.append(entries)

    def reader(self, name: str, *, at: Literal["pending", "end"] = "pending") -> LogReader:
        """A new reader at the oldest record that is not accepted, or behind the newest."""
        if self._commit.closing:
            raise LogClosedError("the log is closed")
        reader = LogReader(name, self._source)
        if at == "pending":
            reader.rewind()
        else:
            reader.to_end()
        self._readers.append(reader)
        return reader

    def accept(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The cloud has the records [first_seq, end_seq) of this epoch, synced. In any order, for any epoch, again and
        again; what the log does not know is passed over. It persists and trims by itself, in this order."""
        if self._catalog.accept(epoch, first_seq, end_seq):
            self._keeper.wake()

    def accounting(self) -> LogAccounting:
        catalog = self._catalog
        totals = catalog.totals()
        return LogAccounting(
            logged=totals.logged,
            accepted=totals.accepted,
            pending=totals.logged - totals.accepted - totals.damaged,
            damaged=totals.damaged,
            epochs=tuple(epoch.accounting() for epoch in catalog.epochs.values()),
            used_bytes=self._keeper.used_bytes,
            max_bytes=self._settings.max_bytes,
            segments=len(catalog),
            oldest_pending_ms=self._oldest.newest_ms(),
            passed_over=self._commit.passed_over,
            groups=self._commit.groups,
            syncs=self._commit.syncs,
        )

    async def close(self) -> None:
        """Syncs what is queued, remembers what is accepted, ends the readers and the log's threads."""
        await self._commit.close()
        for reader in list(self._readers):
            reader.close()
        await self._keeper.close()
        await self._oldest.close()
        await asyncio.to_thread(self._thread.close)
        self._lock.close()

    def _note_written(self, written: Written) -> None:
        """A block is synced: readers may see it."""
        catalog = self._catalog
        placed = written.placed
        if placed is not None:
            head = placed.block.head
            segment = catalog.get(placed.ordinal)
            if segment is None:
                mark = Mark(head.first_seq, placed.offset, head.newest_ms)
                segment = Segment(placed.ordinal, head.epoch, mark, self._settings.segment_bytes)
                catalog.begin(segment)
                catalog.begin_epoch(head.epoch)
                self._keeper.used(placed.ordinal)
            catalog.extend(segment, head, placed.offset)
            self._tail.add(Position(placed.ordinal, placed.offset), head, placed.block.data)
        for ordinal in written.sealed:
            segment = catalog.get(ordinal)
            if segment is not None:
                catalog.seal(segment)
                self._keeper.sealed(segment, fenced=ordinal == written.fenced)
        if written.spoiled is not None:
            self._keeper.spoil(written.spoiled)
        for reader in self._readers:
            reader.wake()

    def _note_removed(self, segments: Sequence[Segment]) -> None:
        for reader in self._readers:
            reader.removed(segments)

    def _note_damage(self, segment: Segment, first_seq: int, end_seq: int) -> int:
        lost = self._catalog.damage(segment.epoch, first_seq, end_seq)
        if lost:
            logger.error(
                "log damaged",
                directory=str(self._directory),
                segment=segment.ordinal,
                epoch=f"{segment.epoch:016x}",
                first_seq=first_seq,
                records=lost,
            )
            self._keeper.wake()
        return lost
