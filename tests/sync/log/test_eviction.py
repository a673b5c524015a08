"""A full log: the oldest telemetry goes first, then the oldest events; alarms never. Every loss is a gap."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import Counter

import msgspec
import pytest

from protocols.block import open_block
from protocols.messages import GapKind, Priority
from sync.log.eviction import victim
from sync.log.log import Log, LogError, LogFullError
from sync.log.settings import STATE_BYTES
from tests.sync.log.making import (
    SEGMENT_BYTES,
    SMALL,
    START_MS,
    accept,
    closes,
    entry,
    keys_of,
    opened,
    read_all,
)
from tests.sync.log.simulated_disk import SimulatedDisk

TELEMETRY, EVENT, ALARM = Priority


async def append(log: Log, n: int, noise: bytes, priority: Priority = TELEMETRY) -> None:
    """One record of run `priority`, received n seconds after the start; three fill a segment."""
    await log.append([entry(n, run=int(priority), noise=noise, at_ms=START_MS + 1000 * n, priority=priority)])


async def append_until_full(log: Log, noise: bytes, priority: Priority, first: int = 0) -> int:
    """How many it took: full is a log that refuses also when housekeeping is at rest."""
    n = first
    while n < first + 200:
        try:
            await append(log, n, noise, priority)
        except LogFullError:
            await at_rest(log)
            try:
                await append(log, n, noise, priority)
            except LogFullError:
                return n - first
        n += 1
    raise AssertionError("the log never was full")


async def at_rest(log: Log) -> None:
    """Until housekeeping has a segment in hand and one in reserve, or nothing may go for them: it evicts by itself,
    after the append that took the last one."""
    keeper = log._keeper
    async with asyncio.timeout(20):
        while keeper._lacks_reserve or not keeper.spares:
            if victim(log._catalog, may_rewrite=keeper._has_reserve) is None and not log._catalog.done():
                return
            await asyncio.sleep(0.001)


async def left(log: Log) -> dict[Priority, list[int]]:
    """Numbers of the entries that are pending, by priority, once no more of them are on their way out."""
    await at_rest(log)
    reader = log.reader("check")
    found: dict[Priority, list[int]] = {priority: [] for priority in Priority}
    for run, n in keys_of(await read_all(reader)):
        found[Priority(run)].append(n)
    reader.close()
    return found


def evicted(log: Log) -> Counter[int]:
    """How often each record number of the present epoch is in a gap."""
    gaps = log.gaps(1000)
    assert {gap.kind for gap in gaps} <= {GapKind.EVICTED}
    assert {gap.epoch for gap in gaps} <= {log.epoch}
    return Counter(seq for gap in gaps for seq in range(gap.first_seq, gap.end_seq))


class TestOrder:
    async def test_the_oldest_telemetry_goes_and_leaves_a_gap(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(30):
                await append(log, n, noise)
                assert closes(log)
            kept = (await left(log))[TELEMETRY]
            assert kept == list(range(30 - len(kept), 30))
            assert 6 <= len(kept) < 20
            total = log.accounting()
            assert (total.logged, total.pending, total.evicted) == (30, len(kept), 30 - len(kept))
            (gap,) = log.gaps(9)
            assert (gap.first_seq, gap.end_seq, gap.kind) == (0, 30 - len(kept), GapKind.EVICTED)
            assert (gap.oldest_ms, gap.newest_ms) == (START_MS, START_MS + 1000 * (gap.end_seq - 1))
            assert log.where(log.epoch, 0) == "evicted"
        assert disk.largest_bytes <= SMALL.max_bytes
        async with opened(disk) as log:
            assert (log.accounting().evicted, log.accounting().damaged) == (30 - len(kept), 0)
            assert (await left(log))[TELEMETRY] == kept
            assert log.gaps(9) == [gap]

    async def test_alarms_and_events_between_it_stay(self, noise: bytes) -> None:
        """Each segment holds some of everything."""
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(60):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM if n % 4 else EVENT)
                assert closes(log)
            kept = await left(log)
            assert kept[ALARM] == [n for n in range(60) if n % 4]
            assert kept[EVENT] == [n for n in range(60) if not n % 4]
            assert kept[TELEMETRY] == list(range(60 - len(kept[TELEMETRY]), 60))
            total = log.accounting()
            assert (total.damaged, total.evicted) == (0, 60 - len(kept[TELEMETRY]))
            assert evicted(log) == Counter(range(0, 2 * total.evicted, 2))
        assert disk.largest_bytes <= SMALL.max_bytes
        async with opened(disk) as log:
            assert await left(log) == kept
            assert (log.accounting().evicted, log.accounting().damaged) == (total.evicted, 0)

    async def test_events_go_once_there_is_no_telemetry(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            for n in range(3):
                await append(log, n, noise)
            for n in range(30):
                await append(log, n, noise, EVENT)
                await append(log, n, noise[:50], ALARM)
            kept = await left(log)
            assert kept[TELEMETRY] == []
            assert kept[EVENT] == list(range(30 - len(kept[EVENT]), 30))
            assert len(kept[EVENT]) < 20
            assert kept[ALARM] == list(range(30))
            assert closes(log)

    async def test_alarms_never_go_and_new_input_is_refused(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await append(log, 0, noise)
            await append(log, 0, noise, EVENT)
            count = await append_until_full(log, noise, ALARM)
            assert 6 <= count < 20
            with pytest.raises(LogFullError):
                await append(log, 1, noise)
            assert await left(log) == {TELEMETRY: [], EVENT: [], ALARM: list(range(count))}
            blocks = await read_all(log.reader("sender"))
            accept(log, blocks[: count // 2])
            await append(log, 1, noise)
            assert (await left(log))[TELEMETRY] == [1]
            assert closes(log)
        assert disk.largest_bytes <= SMALL.max_bytes


class TestWhatStays:
    async def test_what_is_in_flight(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            for n in range(6):
                await append(log, n, noise)
            log.sending(log.epoch, 1, 2)
            for n in range(6, 40):
                await append(log, n, noise)
            assert (await left(log))[TELEMETRY][:3] == [0, 1, 2]
            assert 3 not in (await left(log))[TELEMETRY]
            log.accept(log.epoch, 1, 2)
            for n in range(40, 50):
                await append(log, n, noise)
            kept = (await left(log))[TELEMETRY]
            assert kept[0] > 6
            assert log.accounting().accepted == 1
            assert closes(log)

    async def test_all_of_it_while_the_log_has_room(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            for n in range(9):
                await append(log, n, noise)
            assert (log.accounting().evicted, log.gaps(9)) == (0, [])

    async def test_keys_of_what_was_evicted(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(30):
                await append(log, n, noise)
        async with opened(disk) as log:
            before = log.accounting().logged
            await append(log, 0, noise)
            assert log.accounting().logged == before, "known, though it is gone"


class TestRewriting:
    async def test_readers_go_on_where_they_were(self, noise: bytes) -> None:
        """They stand in, before and behind segments whose blocks move under them."""
        disk = SimulatedDisk()
        async with opened(disk) as log:
            readers = []
            for n in range(60):
                await append(log, n, noise[:9000])
                await append(log, n, noise[:300], ALARM)
                if n % 6 == 0:
                    reader = log.reader(f"from {n}")
                    readers.append((reader, keys_of(await reader.next(n % 5 + 1, 1 << 20))))
            assert log.accounting().evicted > 20
            for reader, begun in readers:
                keys = begun + keys_of(await read_all(reader))
                assert len(set(keys)) == len(keys), "nothing twice"
                assert [n for run, n in keys if run == ALARM] == list(range(min(n for _, n in begun), 60))
                reader.close()
            assert log.accounting().damaged == 0

    async def test_stretch_readers_too(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            for n in range(6):
                await append(log, n, noise[:9000])
                await append(log, n, noise[:300], ALARM)
            reader = log.stretch_reader(log.stretches()[-1])
            first = keys_of(await reader.next(1, 1))
            for n in range(6, 60):
                await append(log, n, noise[:9000])
                await append(log, n, noise[:300], ALARM)
            rest = []
            while blocks := await reader.next(9, 1 << 20):
                rest += keys_of(blocks)
            assert first == [(0, 0)]
            assert rest[0] == (ALARM, 0)
            assert {run for run, _ in rest} == {ALARM}
            assert log.accounting().damaged == 0

    async def test_a_stretch_reader_in_the_middle_of_one(self, noise: bytes) -> None:
        """It has read a piece of the file that was there before."""
        settings = msgspec.structs.replace(SMALL, segment_bytes=4 << 20, max_bytes=STATE_BYTES + (24 << 20))
        async with opened(SimulatedDisk(), settings=settings) as log:
            for n in range(220):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            reader = log.stretch_reader(log.stretches()[-1])
            keys = keys_of(await reader.next(1, 1))
            for n in range(220, 1500):
                await append(log, n, noise)
            assert log.accounting().evicted > 220
            while blocks := await reader.next(9, 1 << 20):
                keys += keys_of(blocks)
            alarms = [n for run, n in keys if run == ALARM]
            assert alarms == list(range(len(alarms)))
            assert len(alarms) > 150
            assert log.accounting().damaged == 0

    async def test_what_the_cloud_lost_while_a_segment_is_looked_through_stays(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(3):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            log.accept(log.epoch, 1, 2)
            gate = disk.hold_keeper("read")
            full = asyncio.ensure_future(asyncio.gather(*(append(log, n, noise) for n in range(3, 40))))
            await gate.wait()
            log.resend(log.epoch, 1, 2)
            gate.open()
            await full
            assert (await left(log))[ALARM] == [0, 1, 2]
            assert closes(log)

    async def test_a_rewritten_segment_is_read_and_trimmed_like_any_other(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(40):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
        for _ in range(2):
            async with opened(disk) as log:
                blocks = await read_all(log.reader("sender"))
                assert [n for run, n in keys_of(blocks) if run == ALARM] == list(range(40))
                assert log.accounting().damaged == 0
        async with opened(disk) as log:
            accept(log, blocks)
            while log.accounting().segments > 1:
                await asyncio.sleep(0.001)
            assert log.accounting().pending == 0
            assert closes(log)

    async def test_on_a_disk_that_others_have_filled(self, noise: bytes) -> None:
        """There is room for five segments, and the log could be larger."""
        disk = SimulatedDisk(capacity_bytes=STATE_BYTES + 5 * SEGMENT_BYTES)
        async with opened(disk) as log:
            for n in range(40):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            kept = await left(log)
            assert kept[ALARM] == list(range(40))
            assert kept[TELEMETRY] == list(range(40 - len(kept[TELEMETRY]), 40))
            assert closes(log)

    async def test_damage_met_on_the_way_is_a_gap_of_its_own(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(6):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            path = disk.segments()[0]
            second = [at for at in range(len(disk.files[path])) if disk.files[path].startswith(b"TGB1", at)][1]
            disk.flip(path, second + 60)
            for n in range(6, 40):
                await append(log, n, noise)
            kept = await left(log)
            assert kept[ALARM] == [1, 2, 3, 4, 5]
            assert log.accounting().damaged == 1
            assert [(gap.first_seq, gap.end_seq) for gap in log.gaps(99) if gap.kind is GapKind.DAMAGED] == [(1, 2)]
            assert closes(log)

    @pytest.mark.parametrize("operations", range(1, 14))
    async def test_a_crash_at_any_step_loses_no_alarm_and_keeps_the_cap(self, operations: int, noise: bytes) -> None:
        disk = SimulatedDisk(operations)
        async with opened(disk) as log:
            n = 0
            while not log.accounting().evicted:
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
                n += 1
            disk.cut_power_after(operations)
            said = n
            try:
                for n in range(said, 60):
                    await append(log, n, noise[:300], ALARM)
                    said = n + 1
                    await append(log, n, noise)
            except (LogError, OSError):
                assert disk.is_off
        disk.restart()
        for _ in range(2):
            async with opened(disk) as log:
                assert (await left(log))[ALARM][:said] == list(range(said))
                assert log.accounting().damaged == 0
                assert closes(log)
                for m in range(100, 110):
                    await append(log, m, noise)
        assert disk.largest_bytes <= SMALL.max_bytes

    async def test_a_segment_that_cannot_be_rewritten_stays_and_others_go(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(4):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            disk.fail_writes(errno.EIO, to="reserve")
            for n in range(4, 40):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
            kept = await left(log)
            assert kept[ALARM] == list(range(40))
            assert log.accounting().damaged == 0
            assert closes(log)

    async def test_priorities_are_found_again_after_a_restart(self, noise: bytes) -> None:
        """Of segments of the format before, whose successors' headers do not tell them."""
        disk = SimulatedDisk()
        async with opened(disk) as log:
            for n in range(6):
                await append(log, n, noise)
                await append(log, n, noise[:300], ALARM)
        async with opened(disk) as log:
            for segment in log._catalog.segments_from(0):
                segment.classes = 0
            for n in range(6, 40):
                await append(log, n, noise)
            kept = await left(log)
            assert kept[ALARM] == list(range(6))
            assert kept[TELEMETRY] == list(range(40 - len(kept[TELEMETRY]), 40))


async def test_scattered_losses_leave_no_more_ranges_than_can_be_remembered(
    noise: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would leave more of them is kept, the smallest pieces first."""
    monkeypatch.setattr("sync.log.eviction.LOST_RANGES_MAX", 64)
    async with opened(SimulatedDisk()) as log:
        alarms = n = 0
        with contextlib.suppress(LogFullError):
            for n in range(400):
                await append(log, n, noise[:50], ALARM)
                alarms += 1
                await append(log, n, noise[: 100 + n % 7 * 300])
        (epoch,) = log._catalog.epochs.values()
        assert 30 < epoch.evicted.parts <= 64
        kept = await left(log)
        assert kept[ALARM] == list(range(alarms))
        lost = Counter(m % 7 for m in range(n) if m not in kept[TELEMETRY])
        assert lost[6] > lost[5] > lost[3]
        assert closes(log)


class TestRetained:
    RETAINING = msgspec.structs.replace(SMALL, retain_acked_bytes=2 * SEGMENT_BYTES)

    async def test_what_the_cloud_has_stays_for_a_while_and_can_be_sent_again(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk, settings=self.RETAINING) as log:
            for n in range(9):
                await append(log, n, noise)
            accept(log, await read_all(log.reader("sender")))
            while log.accounting().used_bytes > STATE_BYTES + 5 * SEGMENT_BYTES:
                await asyncio.sleep(0.001)
            log.resend(log.epoch, 0, 9)
            assert (await left(log))[TELEMETRY] == list(range(9))
            assert (log.accounting().damaged, log.accounting().accepted) == (0, 0)

    async def test_it_goes_before_anything_else_and_leaves_no_gap(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk, settings=self.RETAINING) as log:
            for n in range(40):
                await append(log, n, noise)
                if n < 30:
                    accept(log, await read_all(log.reader("sender")))
            assert (log.accounting().evicted, log.accounting().accepted) == (0, 30)
            assert (await left(log))[TELEMETRY] == list(range(30, 40))
            log.resend(log.epoch, 0, 30)
            assert log.accounting().damaged > 20
            assert closes(log)
        assert disk.largest_bytes <= SMALL.max_bytes


async def test_a_block_is_of_one_priority() -> None:
    async with opened(SimulatedDisk()) as log:
        await log.append([entry(n, run=n % 3, priority=Priority(n % 3)) for n in range(9)])
        blocks = await read_all(log.reader("check"))
        assert [open_block(block)[0].priority for block in blocks] == [ALARM, EVENT, TELEMETRY]
        assert [keys_of([block]) for block in blocks] == [[(run, run + 3 * n) for n in range(3)] for run in (2, 1, 0)]
