"""The backlog in pieces: what is left to send of each segment, and readers for just that."""

from __future__ import annotations

import asyncio
import errno

import pytest

from protocols.block import read_head
from protocols.messages import Priority
from sync.log.log import Log, LogClosedError, LogSettings, StretchReader
from sync.log.settings import READ_BYTES, STATE_BYTES
from tests.sync.log.making import accept, entry, keys_of, open_log, opened, read_all
from tests.sync.log.simulated_disk import SimulatedDisk

LARGE = LogSettings(segment_bytes=4 << 20, max_bytes=STATE_BYTES + (1 << 25), linger_max_ms=0)
"""Segments of several reads."""


async def fill(log: Log, first: int, end: int, noise: bytes) -> None:
    for n in range(first, end):
        await log.append([entry(n, noise=noise)])


async def all_of(reader: StretchReader) -> list[bytes]:
    blocks: list[bytes] = []
    while given := await reader.next(3, 1 << 20):
        blocks += given
    assert reader.ended
    reader.close()
    return blocks


async def numbers_left(log: Log) -> list[list[int]]:
    """Of the entries in each stretch, as its reader gives them."""
    return [[n for _, n in keys_of(await all_of(log.stretch_reader(one)))] for one in log.stretches()]


async def test_each_segment_with_something_to_send_is_a_stretch_the_newest_first(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        await fill(log, 0, 9, noise)
        stretches = log.stretches()
        assert [one.ordinal for one in stretches] == [3, 2, 1]
        assert [(one.first_seq, one.end_seq, one.records) for one in stretches] == [(6, 9, 3), (3, 6, 3), (0, 3, 3)]
        assert {one.epoch for one in stretches} == {log.epoch}
        assert await numbers_left(log) == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]


async def test_what_is_accepted_or_in_flight_is_in_no_stretch(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        await fill(log, 0, 9, noise)
        log.accept(log.epoch, 0, 1)
        log.sending(log.epoch, 2, 5)
        log.sending(log.epoch, 6, 9)
        assert await numbers_left(log) == [[5], [1]]
        log.accept(log.epoch, 6, 8)
        log.nothing_in_flight()
        assert await numbers_left(log) == [[8], [3, 4, 5], [1, 2]]


async def test_what_is_sent_by_others_while_a_reader_is_on_its_way_is_passed_over(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        await fill(log, 0, 3, noise)
        reader = log.stretch_reader(log.stretches()[0])
        assert keys_of(await reader.next(1, 1)) == [(1, 0)]
        log.sending(log.epoch, 1, 2)
        assert keys_of(await all_of(reader)) == [(1, 2)]


async def test_a_reader_ends_where_another_one_is_already(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        await fill(log, 0, 4, noise)
        live = log.reader("live", at="end")
        await fill(log, 4, 8, noise)
        left = [keys_of(await all_of(log.stretch_reader(one, until=live.place))) for one in reversed(log.stretches())]
        assert left == [[(1, 0), (1, 1), (1, 2)], [(1, 3)], []]
        assert keys_of(await live.next(1, 1)) == [(1, 4)]
        newest = log.stretches()[1]
        assert keys_of(await all_of(log.stretch_reader(newest, until=live.place))) == [(1, 3), (1, 4)]


async def test_only_blocks_of_some_priority(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        for n in range(6):
            priority = Priority.ALARM if n % 2 else Priority.TELEMETRY
            await log.append([entry(n, noise=noise, priority=priority)])
        newest, oldest = log.stretches()
        assert (newest.priority, oldest.priority) == (Priority.ALARM, Priority.ALARM)
        alarms = await all_of(log.stretch_reader(oldest, least=Priority.EVENT))
        assert keys_of(alarms) == [(1, 1)]
        accept(log, alarms)
        assert await numbers_left(log) == [[3, 4, 5], [0, 2]]


async def test_pieces_are_read_ahead_and_memory_is_bounded(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk, settings=LARGE) as log:
        await fill(log, 0, 300, noise)
    async with opened(disk, settings=LARGE) as log:
        (oldest,) = log.stretches()[-1:]
        reader = log.stretch_reader(oldest)
        before = disk.bytes_read
        await reader.next(1, 1)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert disk.bytes_read - before < 3 * READ_BYTES
        assert keys_of(await all_of(reader)) == [(1, n) for n in range(1, oldest.records)]


async def test_a_cancelled_call_loses_nothing(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 3, noise)
    async with opened(disk) as log:
        reader = log.stretch_reader(log.stretches()[0])
        call = asyncio.ensure_future(reader.next(9, 1 << 20))
        await asyncio.sleep(0)
        call.cancel()
        assert keys_of(await all_of(reader)) == [(1, 0), (1, 1), (1, 2)]


async def test_damage_in_a_stretch_is_a_gap_and_reading_goes_on(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 6, noise)
    for path in disk.segments()[:2]:
        disk.flip(path, disk.files[path].index(b"TGB1") + 60)
    async with opened(disk) as log:
        assert await numbers_left(log) == [[4, 5], [1, 2]]
        assert [(gap.first_seq, gap.end_seq) for gap in log.gaps(9)] == [(3, 4), (0, 1)]
        assert log.accounting().damaged == 2


async def test_a_segment_that_somebody_removed_is_damage(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 6, noise)
        del disk.files[disk.segments()[0]]
        assert await numbers_left(log) == [[3, 4, 5], []]
        assert (log.accounting().damaged, log.accounting().pending) == (3, 3)


async def test_a_disk_that_cannot_be_read_for_a_while_loses_nothing(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 3, noise)
        reader = log.stretch_reader(log.stretches()[0])
        disk.unreadable = True
        for _ in range(2):
            with pytest.raises(OSError, match="unreadable") as failure:
                await reader.next(1, 1)
            assert failure.value.errno == errno.EIO
        disk.unreadable = False
        assert keys_of(await all_of(reader)) == [(1, 0), (1, 1), (1, 2)]


async def test_what_is_trimmed_under_a_reader_ends_it(noise: bytes) -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 0, 6, noise)
        reader = log.stretch_reader(log.stretches()[-1])
        log.accept(log.epoch, 0, 3)
        while log.accounting().segments > 1:
            await asyncio.sleep(0.001)
        assert await all_of(reader) == []
        assert log.accounting().damaged == 0


async def test_a_closed_log_ends_its_readers(noise: bytes) -> None:
    log = await open_log(SimulatedDisk())
    await fill(log, 0, 2, noise)
    reader = log.stretch_reader(log.stretches()[0])
    await log.close()
    with pytest.raises(LogClosedError):
        await reader.next(1, 1)
    with pytest.raises(LogClosedError):
        log.stretch_reader(log.stretches()[0])


async def test_a_reader_of_a_stretch_does_not_see_what_came_after_it(noise: bytes) -> None:
    async with opened(SimulatedDisk()) as log:
        await fill(log, 0, 2, noise[:100])
        (stretch,) = log.stretches()
        await fill(log, 2, 4, noise[:100])
        assert keys_of(await all_of(log.stretch_reader(stretch))) == [(1, 0), (1, 1)]
        assert [read_head(block).first_seq for block in await read_all(log.reader("check"))] == [0, 1, 2, 3]
