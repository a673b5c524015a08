"""The gateway's durable log: everything that a device was promised is in here until the cloud has it.

A directory of segment files (segment.py), each holding blocks as they travel on (protocols/block.py), and a small state
file (state.py). One process has it open at a time.

    append ─▶ queue ─▶ writer thread: one block, one synced write ─▶ catalog, tail ─▶ readers
                                                            accept ─▶ catalog ─▶ keeper: state, then removal
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

from protocols.batch import BatchKey
from protocols.block import BlockHead
from protocols.messages import Gap, GapKind, Priority
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
from sync.log.reader import LogReader
from sync.log.recovery import Recovered, recover
from sync.log.segment import Mark, Segment
from sync.log.settings import OPEN_WAITS_S, SEGMENTS_MIN, STATE_BYTES, TAIL_BYTES_MAX, LogSettings
from sync.log.source import Place, Source
from sync.log.stretch import Stretch, StretchReader, stretches
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
    "Place",
    "RealDisk",
    "Stretch",
    "StretchReader",
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
        self._wall_ms = wall_ms
        self._readers: list[LogReader] = []
        self._stretch_readers: list[StretchReader] = []
        self._catalog = recovered.catalog
        self._tail = Tail(TAIL_BYTES_MAX)
        self._thread = thread
        self._source = Source(self._catalog, self._tail, thread, disk, directory, self._note_damage)
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
            wall_ms=wall_ms,
            on_removed=self._note_removed,
            on_rewritten=self._note_rewritten,
        )
        self._keys = recovered.keys
        self._commit = GroupCommit(
            self._writer,
            self._keeper,
            self._keys,
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
    ) -> Self:
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
                recovered = await _recover(thread, disk, directory, now_ms=wall_ms())
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
    def has_room(self) -> bool:
        """Whether one more segment would fit below the cap; a disk may be full before it."""
        return self._keeper.used_bytes + self._settings.segment_bytes <= self._settings.max_bytes

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
        self._check_open()
        reader = LogReader(name, self._source, self._readers.remove)
        if at == "pending":
            reader.rewind()
        else:
            reader.to_end()
        self._readers.append(reader)
        return reader

    def stretches(self) -> list[Stretch]:
        """What is neither settled nor in flight, one for each segment that holds any, the newest first."""
        return stretches(self._source)

    def stretch_reader(
        self, stretch: Stretch, *, until: Place | None = None, least: Priority = Priority.TELEMETRY
    ) -> StretchReader:
        """A reader of what of the stretch is neither settled nor in flight, before the place `until` (of the reader
        that follows the log, say), and of blocks of at least that priority. Close it when done."""
        self._check_open()
        reader = StretchReader(stretch, self._source, until=until, least=least, on_close=self._stretch_readers.remove)
        self._stretch_readers.append(reader)
        return reader

    def sending(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The records [first_seq, end_seq) of this epoch are in flight, until they are accepted or nothing is: they are
        not evicted meanwhile, and in no stretch."""
        self._catalog.sending(epoch, first_seq, end_seq)

    def is_pending(self, head: BlockHead) -> bool:
        """Whether some record of this block is neither accepted nor lost."""
        return self._catalog.is_pending(head.epoch, head.first_seq, head.end_seq)

    def nothing_in_flight(self) -> None:
        """The connection is gone, and with it whatever had no answer."""
        self._catalog.nothing_in_flight()

    def has(self, key: BatchKey) -> bool:
        """Whether the batch was recorded, in this run or an earlier one, as far as keys are remembered (keys.py)."""
        return key in self._keys

    def accept(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The cloud has the records [first_seq, end_seq) of this epoch, synced. In any order, for any epoch, again and
        again, also of records that were counted as lost; what the log does not know is passed over. It persists and
        trims by itself, in this order."""
        if self._catalog.accept(epoch, first_seq, end_seq):
            self._keeper.wake()

    def gaps(self, limit: int) -> list[Gap]:
        """The oldest losses that the cloud does not know of, or has not been told of since `tell_gaps_again`."""
        return self._catalog.gaps.untold(limit)

    def gaps_kept(self, gaps: Iterable[Gap], has: Iterable[tuple[int, int, int]] = ()) -> None:
        """The cloud has these gaps, synced. `has`: epoch, first number, the number after the last, of records among
        them that it has after all, which are accepted then."""
        self._catalog.keep_gaps(gaps)
        for epoch, first_seq, end_seq in has:
            self._catalog.accept(epoch, first_seq, end_seq)
        self._keeper.wake()

    def tell_gaps_again(self) -> None:
        """On a new connection: `gaps` gives once more the last few that the cloud has, so that records among them that
        came late are known."""
        self._catalog.gaps.tell_again()

    def holdings(self) -> list[tuple[int, int, int]]:
        """Epoch, first number, the number after the last: of what is accepted, in epochs that the log knows yet."""
        return self._catalog.holdings()

    def pending(self) -> list[tuple[int, int, int]]:
        """Epoch, first number, the number after the last: of what is not settled, in flight or not; oldest epoch
        first."""
        return self._catalog.pending()

    def in_flight(self) -> list[tuple[int, int, int]]:
        """The same of what `sending` was called for, and has no answer."""
        return self._catalog.in_flight()

    def resend(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The cloud has lost the records [first_seq, end_seq) of this epoch: those that were accepted are pending again
        if they are still on the disk, else damaged."""
        if self._catalog.take_back(epoch, first_seq, end_seq, now_ms=self._wall_ms()):
            self._keeper.wake()

    def complete_ms(self, now_ms: int) -> int:
        """All records that were received before this time, Unix ms by the gateway's wall clock, are settled."""
        return self._oldest.complete_ms(now_ms)

    def where(self, epoch: int, seq: int) -> str:
        """`logged` (pending), `in flight`, `accepted`, `evicted`, `damaged`, or `unknown`: no such record, or one of
        long ago."""
        return self._catalog.where(epoch, seq)

    def accounting(self) -> LogAccounting:
        catalog = self._catalog
        totals = catalog.totals()
        return LogAccounting(
            logged=totals.logged,
            accepted=totals.accepted,
            pending=totals.logged - totals.accepted - totals.evicted - totals.damaged,
            evicted=totals.evicted,
            damaged=totals.damaged,
            tails=catalog.tails,
            gaps_untold=catalog.gaps.untold_count,
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
        for stretch_reader in list(self._stretch_readers):
            stretch_reader.close()
        await self._keeper.close()
        await self._oldest.close()
        await asyncio.to_thread(self._thread.close)
        self._lock.close()

    def _check_open(self) -> None:
        if self._commit.closing:
            raise LogClosedError("the log is closed")

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
            catalog.extend(segment, head, placed.offset, placed.block.oldest_ms)
            self._oldest.written(head, placed.block.oldest_ms)
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

    def _note_rewritten(self, segment: Segment) -> None:
        self._tail.forget(segment.ordinal)
        self._oldest.rewritten(segment)
        for reader in self._readers:
            reader.rewritten(segment)

    def _note_damage(self, segment: Segment, first_seq: int, end_seq: int) -> int:
        lost = self._catalog.lose(GapKind.DAMAGED, segment, [(first_seq, end_seq)], now_ms=self._wall_ms())
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


async def _recover(thread: DiskThread, disk: Disk, directory: Path, *, now_ms: int) -> Recovered:
    """Gives a disk that cannot read a segment some time: it may just be coming up."""
    for wait_s in OPEN_WAITS_S:
        try:
            return await thread.run(recover, disk, directory, now_ms=now_ms, patient=True)
        except OSError as error:
            logger.warning("log cannot be read yet", directory=str(directory), reason=str(error), again_in_s=wait_s)
            await asyncio.sleep(wait_s)
    return await thread.run(recover, disk, directory, now_ms=now_ms)
