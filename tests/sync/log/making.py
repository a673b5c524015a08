"""Entries and logs for tests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import open_block
from protocols.messages import Clock, ClockState, Origin, Priority
from sync.log.disk import Disk
from sync.log.log import Entry, EpochAccounting, Log, LogAccounting, LogReader, LogSettings
from sync.log.settings import STATE_BYTES

DIRECTORY = Path("/simulated/log")
START_MS = 1_700_000_000_000
SEGMENT_BYTES = 64 * 1024
SMALL = LogSettings(segment_bytes=SEGMENT_BYTES, max_bytes=STATE_BYTES + 6 * SEGMENT_BYTES, linger_max_ms=0)
"""Segments that a test fills with a few entries."""

REFUSING = msgspec.structs.replace(SMALL, evict=False)
"""The same for sites whose devices keep what is refused."""

epochs = itertools.count(1)
"""What each opening takes its epoch from: never the same twice in a test run."""


def entry(
    counter: int,
    *,
    run: int = 1,
    rows: int = 1,
    noise: bytes = b"",
    at_ms: int = START_MS,
    priority: Priority = Priority.TELEMETRY,
) -> Entry:
    """A batch whose payloads say what they are; `noise` is what zstd shall not compress."""
    payloads = [b"%d/%d/%d " % (run, counter, row) + noise for row in range(rows)]
    key = BatchKey(run, counter)
    origin = Origin("demo", "serial", "pump-1", "up", "", "mqtt", priority)
    batch = RecordBatch(key, Clock(7, 0, ClockState.UNSET), at_ms, [origin], [0] * rows, [0] * rows, payloads)
    return Entry(encode_records(batch), key, rows, at_ms, priority)


@asynccontextmanager
async def opened(disk: Disk, directory: Path = DIRECTORY, settings: LogSettings = SMALL) -> AsyncIterator[Log]:
    log = await open_log(disk, directory, settings)
    try:
        yield log
    finally:
        await log.close()


async def open_log(disk: Disk, directory: Path = DIRECTORY, settings: LogSettings = SMALL) -> Log:
    return await Log.open(directory, settings, disk=disk, wall_ms=lambda: START_MS, new_epoch=lambda: next(epochs))


async def read_all(reader: LogReader) -> list[bytes]:
    """All blocks that there are to give."""
    blocks: list[bytes] = []
    while reader.behind_bytes:
        call = asyncio.ensure_future(reader.next(100, 1 << 20))
        # There is no event for: the rest was passed over, because it is accepted.
        while reader.behind_bytes and not call.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not call.done():
            call.cancel()
            break
        blocks += call.result()
    return blocks


def keys_of(blocks: Iterable[bytes]) -> list[tuple[int, int]]:
    """(run, counter) of each batch, in order."""
    return [(batch.key.run, batch.key.counter) for block in blocks for batch in open_block(block)[1]]


def accept(log: Log, blocks: Iterable[bytes]) -> None:
    for block in blocks:
        head, _ = open_block(block)
        log.accept(head.epoch, head.first_seq, head.end_seq)


def closes(log: Log) -> bool:
    """Whether every record is accounted for, in total and in each epoch."""
    total = log.accounting()
    parts: list[LogAccounting | EpochAccounting] = [total, *total.epochs]
    return all(part.logged == part.accepted + part.pending + part.evicted + part.damaged for part in parts)
