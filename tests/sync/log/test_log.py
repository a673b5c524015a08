"""The log as its callers see it: what is acknowledged, counted and kept over a restart."""

from __future__ import annotations

import asyncio

import pytest

from protocols.batch import BatchKey
from protocols.block import read_head
from protocols.messages import Priority
from sync.log.log import Entry, EntryTooLargeError, Log, LogBusyError, LogClosedError, LogSettings
from sync.log.settings import QUEUE_BYTES_MAX, STATE_BYTES
from tests.sync.log.making import (
    SEGMENT_BYTES,
    SMALL,
    START_MS,
    accept,
    closes,
    entry,
    keys_of,
    open_log,
    opened,
    read_all,
)
from tests.sync.log.simulated_disk import SimulatedDisk


async def recorded(log: Log) -> list[tuple[int, int]]:
    """Keys of all that is pending."""
    reader = log.reader("check")
    blocks = await read_all(reader)
    reader.close()
    return keys_of(blocks)


async def test_what_is_appended_is_read_and_counted() -> None:
    async with opened(SimulatedDisk()) as log:
        reader = log.reader("sender")
        await log.append([entry(1, rows=3), entry(2, rows=2)])
        (block,) = await reader.next(10, 1 << 20)
        head = read_head(block)
        assert keys_of([block]) == [(1, 1), (1, 2)]
        assert (head.epoch, head.first_seq, head.records) == (log.epoch, 0, 5)
        total = log.accounting()
        assert (total.logged, total.pending, total.accepted, total.groups, total.syncs) == (5, 5, 0, 1, 1)
        assert total.oldest_pending_ms == START_MS


async def test_the_oldest_pending_record_is_known_to_its_block() -> None:
    """Five blocks, all of them near each other in one segment."""
    disk = SimulatedDisk()
    async with opened(disk) as log:
        for number in range(5):
            await log.append([entry(number, rows=2, at_ms=START_MS + 1000 * number)])
        for number in range(4):
            assert log.accounting().oldest_pending_ms == START_MS + 1000 * number
            log.accept(log.epoch, 2 * number, 2 * number + 2)
        log.accept(log.epoch, 8, 9)
        assert log.accounting().oldest_pending_ms == START_MS + 4000


async def test_the_oldest_pending_record_of_an_earlier_start_is_looked_up_on_the_disk() -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        epoch = log.epoch
        for number in range(5):
            await log.append([entry(number, at_ms=START_MS + 1000 * number)])
    async with opened(disk) as log:
        log.accept(epoch, 0, 3)
        async with asyncio.timeout(5):
            while log.accounting().oldest_pending_ms != START_MS + 3000:
                await asyncio.sleep(0)
        log.accept(epoch, 3, 5)
        assert log.accounting().oldest_pending_ms is None


async def test_an_append_is_neither_answered_nor_read_nor_counted_before_its_sync() -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        reading = asyncio.ensure_future(log.reader("sender").next(1, 1 << 20))
        gate = disk.hold_writes()
        append = asyncio.ensure_future(log.append([entry(1)]))
        await gate.wait()
        assert not append.done()
        assert not reading.done()
        assert log.accounting().logged == 0
        gate.open()
        await append
        assert keys_of(await reading) == [(1, 1)]


async def test_what_arrives_during_a_sync_shares_the_next_one() -> None:
    disk = SimulatedDisk()
    async with opened(disk) as log:
        gate = disk.hold_writes()
        first = asyncio.ensure_future(log.append([entry(0)]))
        await gate.wait()
        rest = [asyncio.ensure_future(log.append([entry(n)])) for n in range(1, 50)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *rest)
        assert log.accounting().syncs == 2
        assert await recorded(log) == [(1, n) for n in range(50)]


async def test_each_opening_is_a_new_epoch_with_numbers_from_zero() -> None:
    disk = SimulatedDisk()
    heads = []
    for n in range(3):
        async with opened(disk) as log:
            await log.append([entry(n, rows=4)])
    async with opened(disk) as log:
        heads = [read_head(block) for block in await read_all(log.reader("sender"))]
        assert len({head.epoch for head in heads} | {log.epoch}) == 4
        assert [head.first_seq for head in heads] == [0, 0, 0]
        assert [epoch.logged for epoch in log.accounting().epochs] == [4, 4, 4]
        assert closes(log)


async def test_a_new_epoch_begins_when_the_numbers_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.log.writer.SEQ_MAX", 9)
    async with opened(SimulatedDisk()) as log:
        before = log.epoch
        await log.append([entry(1, rows=6)])
        await log.append([entry(2, rows=4)])
        assert log.epoch == before
        await log.append([entry(3)])
        assert log.epoch != before
        heads = [read_head(block) for block in await read_all(log.reader("sender"))]
        assert [(head.first_seq, head.end_seq) for head in heads] == [(0, 6), (6, 10), (0, 1)]


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_start_reads_the_tail_and_the_heads_of_the_rest(noise: bytes, crashed: bool) -> None:
    disk = SimulatedDisk()
    settings = LogSettings(segment_bytes=1 << 20, max_bytes=STATE_BYTES + (1 << 26), linger_max_ms=0)
    async with opened(disk, settings=settings) as log:
        for n in range(1500):
            await log.append([entry(n, noise=noise)])
        segments = log.accounting().segments
        left = {path: bytearray(content) for path, content in list(disk.files.items())}
    if crashed:
        disk.files = left
    assert segments > 25
    before = disk.bytes_read
    async with opened(disk, settings=settings) as log:
        heads, states, tail = segments * 5000, 2 * STATE_BYTES, 5 * (1 << 20)
        assert disk.bytes_read - before < heads + states + tail
        assert log.accounting().pending == 1500


class TestKeys:
    async def test_a_batch_that_comes_again_is_answered_and_kept_once(self) -> None:
        async with opened(SimulatedDisk()) as log:
            await log.append([entry(1)])
            await log.append([entry(1), entry(2), entry(2)])
            assert await recorded(log) == [(1, 1), (1, 2)]
            assert log.accounting().passed_over == 2

    async def test_one_that_comes_again_before_the_sync_waits_for_it(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            gate = disk.hold_writes()
            first = asyncio.ensure_future(log.append([entry(1)]))
            await gate.wait()
            again = asyncio.ensure_future(log.append([entry(1)]))
            await asyncio.sleep(0)
            assert not again.done()
            first.cancel()  # whoever gives up does not take the answer from others
            gate.open()
            await again
            assert await recorded(log) == [(1, 1)]

    async def test_keys_are_known_after_a_restart(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for run in range(20):
                await log.append([entry(n, run=run, noise=noise[700 * n :][:700]) for n in range(10)])
        assert len(disk.segments()) > 2, "the keys have to come out of a header, not only out of blocks"
        async with opened(disk) as log:
            pending = log.accounting().pending
            await log.append([entry(n, run=run) for run in range(20) for n in range(10)])
            assert log.accounting().pending == pending == 200

    async def test_keys_are_known_after_everything_was_accepted_and_trimmed(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1)])
            accept(log, await read_all(log.reader("sender")))
        for _ in range(2):
            async with opened(disk) as log:
                assert log.accounting().pending == 0
                await log.append([entry(1)])
                assert log.accounting().pending == 0

    async def test_keys_of_an_append_over_several_segments_are_known_after_a_restart(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        entries = [entry(n, noise=noise) for n in range(8)]
        async with opened(disk) as log:
            await log.append(entries)
            assert log.accounting().syncs > 1
        async with opened(disk) as log:
            await log.append(entries)
            assert await recorded(log) == [(1, n) for n in range(8)]

    async def test_a_batch_that_was_never_recorded_is_not_taken_for_known(self) -> None:
        """It was lost on its way here, later ones of its publisher were not, and now it is published again."""
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1), entry(3)])
        async with opened(disk) as log:
            await log.append([entry(2)])
            assert await recorded(log) == [(1, 1), (1, 3), (1, 2)]


class TestAccept:
    async def test_ranges_come_in_any_order(self) -> None:
        async with opened(SimulatedDisk()) as log:
            await log.append([entry(1, rows=100)])
            log.accept(log.epoch, 50, 60)
            log.accept(log.epoch, 20, 50)
            (epoch,) = log.accounting().epochs
            assert (epoch.accepted, epoch.pending, epoch.watermark) == (40, 60, 0)
            log.accept(log.epoch, 0, 30)
            (epoch,) = log.accounting().epochs
            assert (epoch.accepted, epoch.pending, epoch.watermark) == (60, 40, 60)
            assert closes(log)

    async def test_what_the_log_does_not_know_is_passed_over(self) -> None:
        async with opened(SimulatedDisk()) as log:
            await log.append([entry(1, rows=3)])
            log.accept(12345, 0, 100)
            log.accept(log.epoch, 3, 100)
            log.accept(log.epoch, 2, 1)
            assert log.accounting().accepted == 0
            log.accept(log.epoch, -5, 100)
            assert (log.accounting().accepted, log.accounting().logged) == (3, 3)

    async def test_accepted_ranges_are_known_after_a_restart(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await log.append([entry(1, rows=10)])
            log.accept(log.epoch, 2, 6)
        async with opened(disk) as log:
            (epoch,) = log.accounting().epochs
            assert (epoch.accepted, epoch.pending) == (4, 6)

    async def test_segments_that_are_done_with_are_removed_and_stay_in_the_totals(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(20):
                await log.append([entry(n, noise=noise)])
                accept(log, await read_all(log.reader("sender")))
        assert len(disk.segments()) <= 3
        async with opened(disk) as log:
            total = log.accounting()
            assert (total.logged, total.accepted, total.pending) == (20, 20, 0)
            assert total.used_bytes == disk.used_bytes
            await log.append([entry(100)])
        async with opened(disk) as log:
            assert (log.accounting().logged, log.accounting().pending) == (21, 1)
            assert len(log.accounting().epochs) == 1, "an epoch without a segment is in the totals only"

    async def test_a_segment_goes_though_older_ones_are_pending(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(12):
                await log.append([entry(n, noise=noise)])
            before = len(disk.segments())
            log.accept(log.epoch, 4, 12)
        async with opened(disk) as log:
            assert len(disk.segments()) < before
            assert await recorded(log) == [(1, n) for n in range(4)]
            assert log.accounting().damaged == 0
            assert closes(log)

    async def test_losing_the_state_only_means_sending_again(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(12):
                await log.append([entry(n, noise=noise)])
            log.accept(log.epoch, 0, 7)
            log.accept(log.epoch, 11, 12)
        for path in [path for path in disk.files if path.name.startswith("state")]:
            del disk.files[path]
        async with opened(disk) as log:
            assert [key for _, key in await recorded(log)][-5:] == [7, 8, 9, 10, 11]
            assert log.accounting().damaged == 0
            assert closes(log)


class TestLimits:
    async def test_an_entry_that_fits_no_block_is_refused(self) -> None:
        async with opened(SimulatedDisk()) as log:
            with pytest.raises(EntryTooLargeError, match="the limit is"):
                await log.append([entry(1, noise=bytes(SEGMENT_BYTES))])
            for records, at_ms in ((0, START_MS), (1 << 32, START_MS), (1, -1), (1, 1 << 64)):
                with pytest.raises(ValueError, match="records, newest at"):
                    await log.append([Entry(b"x", BatchKey(1, 1), records, at_ms, Priority.ALARM)])
            assert log.accounting().logged == 0

    async def test_append_waits_while_the_queue_is_full(self) -> None:
        disk = SimulatedDisk()
        settings = LogSettings(segment_bytes=1 << 24, max_bytes=STATE_BYTES + (1 << 27), linger_max_ms=0)
        async with opened(disk, settings=settings) as log:
            gate = disk.hold_writes()
            large = [entry(n, noise=bytes(1 << 19)) for n in range(QUEUE_BYTES_MAX >> 18)]
            appends = [asyncio.ensure_future(log.append([each])) for each in large]
            await gate.wait()
            assert log.queued_bytes < QUEUE_BYTES_MAX + (1 << 20)
            gate.open()
            await asyncio.gather(*appends)
            assert log.accounting().logged == len(large)

    async def test_a_second_opening_is_kept_out(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk):
            with pytest.raises(LogBusyError, match="another process"):
                await open_log(disk)
        await (await open_log(disk)).close()

    async def test_settings_that_leave_no_room_are_refused(self) -> None:
        with pytest.raises(ValueError, match="less than 5 segments"):
            await open_log(SimulatedDisk(), settings=LogSettings(segment_bytes=1 << 24, max_bytes=1 << 25))

    async def test_a_closed_log_says_so(self) -> None:
        log = await open_log(SimulatedDisk())
        reading = asyncio.ensure_future(log.reader("sender").next(1, 1))
        await asyncio.sleep(0)
        await log.close()
        with pytest.raises(LogClosedError):
            await reading
        with pytest.raises(LogClosedError):
            await log.append([entry(1)])
        with pytest.raises(LogClosedError):
            log.reader("late")

    async def test_closing_syncs_what_is_queued(self) -> None:
        disk = SimulatedDisk()
        log = await open_log(disk)
        appends = [asyncio.ensure_future(log.append([entry(n)])) for n in range(5)]
        await asyncio.sleep(0)
        await log.close()
        await asyncio.gather(*appends)
        async with opened(disk) as log:
            assert len(await recorded(log)) == 5

    async def test_batches_of_500_take_less_than_thirty_bytes_a_message(self) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            reader = log.reader("sender")
            for n in range(20):
                payloads = [b'{"seq":%d,"temperature":%d.%d}' % (n * 500 + i, 60 + i % 20, i % 97) for i in range(500)]
                await log.append([entry(n, rows=500, noise=payloads[n])])
            assert reader.behind_bytes < 30 * 20 * 500


def test_the_default_settings_keep_their_own_bounds() -> None:
    assert LogSettings().max_bytes >= STATE_BYTES + 4 * LogSettings().segment_bytes
    assert SMALL.segment_bytes == SEGMENT_BYTES
