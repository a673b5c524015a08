"""The log: messages a second appended and synced, beside a bare loop of pwrite and fdatasync on the same disk.

    .venv/bin/python -m benchmarks.log [seconds]

Batches of 98-byte JSON from a seed. `appenders`: how many wait for their sync at once; the bare loop writes and syncs
one batch at a time, uncompressed, and keeps no number, key or account of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.telemetry import payload
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.messages import Clock, ClockState, Origin, Priority
from sync.log.log import Entry, Log, LogSettings, RealDisk

SEED: Final = 71
NOW_MS: Final = 1_700_000_000_000
POOL: Final = 64
"""Prepared batches, appended in a circle under new keys."""
SHAPES: Final = ((10, 1), (10, 32), (100, 1), (100, 32), (500, 8))
"""Messages in a batch, appenders."""
OPEN_RATE: Final = 10_000
"""Messages a second, one an append, for what the linger saves."""
BARE_BYTES: Final = 64 * 1024 * 1024


class LogFigures(msgspec.Struct, frozen=True):
    batch: int
    appenders: int
    """0: appends come at a fixed rate, whatever waits."""
    messages_per_s: float
    bare_per_s: float
    """Of the bare loop, right before."""
    messages_per_sync: float
    us_per_message: float
    """CPU of the process, all threads."""
    bytes_per_message: float
    """On disk."""

    @property
    def ratio(self) -> float:
        return self.messages_per_s / self.bare_per_s


def rows(seconds: float) -> list[LogFigures]:
    """About `seconds` for each row."""
    figures = [_measured(batch, appenders, seconds) for batch, appenders in SHAPES]
    return [*figures, _measured(1, 0, seconds)]


def _measured(batch: int, appenders: int, seconds: float) -> LogFigures:
    pool = _pool(batch)
    bare = _bare(pool, seconds / 2) * batch
    with tempfile.TemporaryDirectory() as name:
        started_cpu = time.process_time()
        count, elapsed, syncs, used = uvloop.run(_append(Path(name), pool, batch, appenders, seconds))
        cpu = time.process_time() - started_cpu
    return LogFigures(
        batch, appenders, count / elapsed, bare, count / max(1, syncs), cpu / count * 1e6, used / max(1, count)
    )


async def _append(
    directory: Path, pool: list[bytes], batch: int, appenders: int, seconds: float
) -> tuple[int, float, int, int]:
    """Messages synced, in how many seconds, by how many syncs, into how many bytes."""
    epochs = itertools.count(1)
    log = await Log.open(
        directory, LogSettings(), disk=RealDisk(), wall_ms=lambda: NOW_MS, new_epoch=lambda: next(epochs)
    )
    reader = log.reader("benchmark")
    entries = _entries(pool, batch)
    started = time.perf_counter()
    end = started + seconds

    async def one_after_the_other() -> None:
        while time.perf_counter() < end:
            await log.append([next(entries)])

    if appenders:
        await asyncio.gather(*(one_after_the_other() for _ in range(appenders)))
    else:
        await _at_rate(log, entries, started, end)
    elapsed = time.perf_counter() - started
    accounting = log.accounting()
    written = reader.behind_bytes
    await log.close()
    return accounting.logged, elapsed, accounting.syncs, written


async def _at_rate(log: Log, entries: Iterator[Entry], started: float, end: float) -> None:
    waiting: set[asyncio.Task[None]] = set()
    sent = 0
    while (now := time.perf_counter()) < end:
        while sent < (now - started) * OPEN_RATE:
            task = asyncio.ensure_future(log.append([next(entries)]))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*waiting)


def _bare(pool: list[bytes], seconds: float) -> float:
    """Writes a second."""
    with tempfile.NamedTemporaryFile() as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, BARE_BYTES)
        os.fsync(descriptor)
        count = offset = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            data = pool[count % POOL]
            if offset + len(data) > BARE_BYTES:
                offset = 0
            os.pwrite(descriptor, data, offset)
            os.fdatasync(descriptor)
            offset += len(data)
            count += 1
        return count / (time.perf_counter() - started)


def _entries(pool: list[bytes], batch: int) -> Iterator[Entry]:
    for counter in itertools.count():
        yield Entry(pool[counter % POOL], BatchKey(1, counter), batch, NOW_MS, Priority.TELEMETRY)


def _pool(batch: int) -> list[bytes]:
    seeded = random.Random(SEED)
    origins = [Origin("bench", "serial", f"pump-{n:03}", "up", "", "mqtt") for n in range(min(batch, 50))]
    pool = []
    for counter in range(POOL):
        payloads = [payload(seeded, counter * batch + n) for n in range(batch)]
        index = [n % len(origins) for n in range(batch)]
        pool.append(
            encode_records(
                RecordBatch(
                    BatchKey(1, counter), Clock(1, 0, ClockState.UNSET), NOW_MS, origins, index, [0] * batch, payloads
                )
            )
        )
    return pool


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    print("batch  appenders      msg/s   bare loop   ratio  msg/sync  µs/msg  bytes/msg")
    for row in rows(seconds):
        print(
            f"{row.batch:5}  {row.appenders or 'rate':>9}  {row.messages_per_s:9,.0f}  {row.bare_per_s:10,.0f}"
            f"  {row.ratio:6.2f}  {row.messages_per_sync:8.1f}  {row.us_per_message:6.2f}  {row.bytes_per_message:9.1f}"
        )


if __name__ == "__main__":
    main()
