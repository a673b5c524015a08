"""Readers: order, memory and disk, rewinding, falling behind."""

from __future__ import annotations

import asyncio
import errno

import pytest

from sync.log.log import Log, LogClosedError, LogSettings
from sync.log.settings import STATE_BYTES
from tests.sync.log.making import accept, entry, keys_of, open_log, opened, read_all
from tests.sync.log.simulated_disk import SimulatedDisk

LARGE = LogSettings(segment_bytes=1 << 20, max_bytes=STATE_BYTES + (1 << 24), linger_max_ms=0)
"""Room for more than the blocks that are kept in memory."""


async def fill(log: Log, first: int, end: int, noise: bytes) -> None:
    for n in range(first, end):
        await log.append([entry(n, noise=noise)])


async def test_a_reader_that_keeps_up_never_reads_the_disk(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk, settings=LARGE) as log:
        reader = log.reader("sender")
        before = disk.bytes_read
        for n in range(100):
            await log.append([entry(n, noise=noise)])
            assert keys_of(await reader.next(10, 1 << 20)) == [(1, n)]
        assert log.accounting().segments > 1
        assert disk.bytes_read == before


async def test_one_that_is_far_behind_reads_everything_in_order_and_in_large_pieces(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk, settings=LARGE) as log:
        reader = log.reader("sender")
        await fill(log, 0, 400, noise)
        before = disk.bytes_read
        assert keys_of(await read_all(reader)) == [(1, n) for n in range(400)]
        assert 0 < disk.bytes_read - before < 2 * 400 * len(noise)
        assert reader.skipped == 0
        assert reader.behind_bytes == 0


async def test_blocks_come_within_the_bounds_and_one_always() -> None:
    async with opened(SimulatedDisk()) as log:
        reader = log.reader("sender")
        for n in range(6):
            await log.append([entry(n, noise=bytes(range(200)))])
        assert len(await reader.next(2, 1 << 20)) == 2
        (block,) = await reader.next(5, 1)
        assert len(await reader.next(5, 2 * len(block))) == 2


async def test_a_reader_waits_and_is_woken_by_the_next_sync() -> None:
    async with opened(SimulatedDisk()) as log:
        reader = log.reader("sender")
        waiting = asyncio.ensure_future(reader.next(1, 1 << 20))
        await asyncio.sleep(0)
        await log.append([entry(1)])
        assert keys_of(await waiting) == [(1, 1)]


async def test_rewinding_passes_over_what_is_accepted() -> None:
    async with opened(SimulatedDisk()) as log:
        reader = log.reader("sender")
        for n in range(10):
            await log.append([entry(n, rows=2)])
        await read_all(reader)
        log.accept(log.epoch, 0, 5)
        log.accept(log.epoch, 8, 12)
        reader.rewind()
        assert keys_of(await read_all(reader)) == [(1, n) for n in (2, 3, 6, 7, 8, 9)]
        assert reader.skipped == 0


async def test_what_comes_after_rewinding_is_given_though_it_is_accepted_already() -> None:
    async with opened(SimulatedDisk()) as log:
        local = log.reader("resolver")
        await log.append([entry(1)])
        log.accept(log.epoch, 0, 1)
        assert keys_of(await read_all(local)) == [(1, 1)]


async def test_rewinding_while_a_read_is_on_its_way_starts_over(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 6, noise)
    async with opened(disk) as log:
        reader = log.reader("sender")
        assert keys_of(await reader.next(4, 1 << 20))[0] == (1, 0)
        reading = asyncio.ensure_future(reader.next(1, 1 << 20))
        await asyncio.sleep(0)
        reader.rewind()
        first = await reading
        assert keys_of(first + await read_all(reader))[-6:] == [(1, n) for n in range(6)]


async def test_a_reader_at_the_end_sees_only_what_is_new() -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await log.append([entry(1)])
    async with opened(disk) as log:
        early = log.reader("early", at="end")
        await log.append([entry(2)])
        late = log.reader("late", at="end")
        await log.append([entry(3)])
        assert keys_of(await read_all(early)) == [(1, 2), (1, 3)]
        assert keys_of(await read_all(late)) == [(1, 3)]


async def test_a_reader_never_holds_back_trimming_and_is_told_what_it_missed(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        slow = log.reader("slow")
        sender = log.reader("sender")
        for n in range(12):
            await log.append([entry(n, rows=1, noise=noise)])
            accept(log, await read_all(sender))
        while log.accounting().segments > 1:
            await asyncio.sleep(0.001)
        read = keys_of(await read_all(slow))
        assert 0 < len(read) < 12
        assert slow.skipped == 12 - len(read)
        assert read == [(1, n) for n in range(12 - len(read), 12)]


async def test_what_the_cloud_has_is_not_missed_by_whoever_sends_it(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 9, noise)
        sender = log.reader("sender")
        log.accept(log.epoch, 1, 9)
        while log.accounting().segments > 2:
            await asyncio.sleep(0.001)
        assert keys_of(await read_all(sender)) == [(1, 0)]
        assert sender.skipped == 0


async def test_skipping_to_the_end_says_how_much_was_skipped(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        reader = log.reader("resolver")
        await fill(log, 0, 3, noise)
        await reader.next(1, 1)
        await fill(log, 3, 7, noise)
        assert reader.behind_bytes > 6 * len(noise)
        assert reader.skip_to_end() == 6
        assert (reader.skipped, reader.behind_bytes) == (6, 0)
        await log.append([entry(7)])
        assert keys_of(await reader.next(9, 1 << 20)) == [(1, 7)]


async def test_a_disk_that_cannot_be_read_for_a_while_loses_nothing(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 6, noise)
    async with opened(disk) as log:
        reader = log.reader("sender")
        disk.unreadable = True
        with pytest.raises(OSError, match="unreadable") as failure:
            await reader.next(10, 1 << 20)
        assert failure.value.errno == errno.EIO
        disk.unreadable = False
        assert keys_of(await read_all(reader)) == [(1, n) for n in range(6)]
        assert log.accounting().damaged == 0


async def test_a_closed_reader_says_so_and_leaves_the_log_alone() -> None:
    log = await open_log(SimulatedDisk())
    reader = log.reader("sender")
    waiting = asyncio.ensure_future(reader.next(1, 1))
    await asyncio.sleep(0)
    reader.close()
    with pytest.raises(LogClosedError):
        await waiting
    await log.append([entry(1)])
    await log.close()
