"""What the log says of its records to the cloud: gaps, what is in flight, what is held, what is complete."""

from __future__ import annotations

import asyncio

import pytest

from protocols.messages import Gap, GapKind
from sync.log.gaps import GapBook
from sync.log.log import Log
from sync.log.settings import GAPS_KEPT_MAX, GAPS_MAX
from tests.sync.log.making import START_MS, accept, closes, entry, keys_of, opened, read_all
from tests.sync.log.simulated_disk import SimulatedDisk


async def fill(log: Log, count: int, noise: bytes) -> None:
    for n in range(count):
        await log.append([entry(n, noise=noise, at_ms=START_MS + 1000 * n)])


async def damaged(disk: SimulatedDisk, noise: bytes) -> int:
    """A log of 9 records in 3 segments, whose middle one somebody removed; returns the epoch."""
    async with opened(disk) as log:
        await fill(log, 9, noise)
        epoch = log.epoch
    del disk.files[disk.segments()[1]]
    return epoch


def spans(gaps: list[Gap]) -> list[tuple[int, int]]:
    return [(gap.first_seq, gap.end_seq) for gap in gaps]


class TestGaps:
    async def test_a_loss_is_told_until_the_cloud_has_it(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        epoch = await damaged(disk, noise)
        for _ in range(2):
            async with opened(disk) as log:
                (gap,) = log.gaps(10)
                assert (gap.epoch, gap.first_seq, gap.end_seq, gap.kind) == (epoch, 3, 6, GapKind.DAMAGED)
                assert gap.noticed_ms == START_MS
                assert log.accounting().gaps_untold == 1
        async with opened(disk) as log:
            log.gaps_kept(log.gaps(10))
            assert (log.gaps(10), log.accounting().gaps_untold) == ([], 0)
        async with opened(disk) as log:
            assert log.accounting().gaps_untold == 0
            log.tell_gaps_again()
            assert spans(log.gaps(10)) == [(3, 6)], "once more on each connection"
            log.gaps_kept(log.gaps(10))
            assert log.gaps(10) == []

    async def test_what_the_cloud_has_after_all_is_accepted(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        epoch = await damaged(disk, noise)
        async with opened(disk) as log:
            log.gaps_kept(log.gaps(10), [(epoch, 4, 5), (epoch, 0, 1), (77, 0, 9)])
            total = log.accounting()
            assert (total.accepted, total.damaged, total.pending) == (2, 2, 5)
            assert closes(log)
            assert [log.where(epoch, seq) for seq in (0, 3, 4)] == ["accepted", "damaged", "accepted"]
            log.tell_gaps_again()
            assert spans(log.gaps(10)) == [(3, 4), (5, 6)]
        async with opened(disk) as log:
            assert (log.accounting().accepted, log.accounting().damaged) == (2, 2)

    async def test_also_of_an_epoch_that_is_gone(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        epoch = await damaged(disk, noise)
        async with opened(disk) as log:
            log.accept(epoch, 0, 9 - 6)
            log.accept(epoch, 6, 9)
            await log.append([entry(100)])
            while len(log.accounting().epochs) > 1:
                await asyncio.sleep(0.001)
            assert (log.accounting().accepted, log.accounting().damaged) == (6, 3)
            assert [log.where(epoch, seq) for seq in (0, 3)] == ["unknown", "damaged"]
            for _ in range(2):
                log.gaps_kept([], [(epoch, 3, 5)])
                assert (log.accounting().accepted, log.accounting().damaged) == (8, 1)
            assert closes(log)

    async def test_a_late_answer_takes_a_record_out_of_its_gap(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        epoch = await damaged(disk, noise)
        async with opened(disk) as log:
            log.accept(epoch, 0, 4)
            assert spans(log.gaps(10)) == [(4, 6)]
            assert (log.accounting().accepted, log.accounting().damaged) == (4, 2)


class TestGapBook:
    """Losses of one epoch or many, told or not: bounded, and none forgotten that was not told."""

    def lost(self, first: int, end: int, epoch: int = 1, kind: GapKind = GapKind.EVICTED) -> Gap:
        return Gap(epoch, first, end, kind, START_MS + first, START_MS + end, START_MS)

    def restored(self, book: GapBook) -> GapBook:
        again = GapBook()
        again.restore(book.state())
        return again

    def test_losses_that_touch_are_one(self) -> None:
        book = GapBook()
        book.add(self.lost(0, 5))
        book.add(self.lost(5, 9))
        assert book.untold(9) == [self.lost(0, 9)]
        book.keep(self.lost(0, 5))
        book.add(self.lost(9, 10))
        book.add(self.lost(10, 11, kind=GapKind.DAMAGED))
        assert [(gap.first_seq, gap.end_seq, gap.kind.value) for gap in book.untold(9)] == [
            (5, 9, "evicted"),
            (9, 10, "evicted"),
            (10, 11, "damaged"),
        ]
        assert list(self.restored(book)) == list(book)

    def test_a_limit_is_kept_and_the_rest_comes_next(self) -> None:
        book = GapBook()
        book.add(self.lost(0, 1), [(n, n + 1) for n in range(2, 20, 2)])
        told = []
        while gaps := book.untold(4):
            told += spans(gaps)
            for gap in gaps:
                book.keep(gap)
        assert told == [(n, n + 1) for n in range(0, 20, 2)]

    def test_tails_are_told_once_each(self) -> None:
        book = GapBook()
        tail = Gap(1, 7, 7, GapKind.TAIL, 0, 0, START_MS, 33)
        assert book.add(tail)
        assert not book.add(tail)
        assert book.untold(9) == [tail]
        assert self.restored(book).untold(9) == [tail]
        assert book.reclaim(1, 0, 100) == {}
        book.keep(tail)
        assert book.untold(9) == []
        assert book.untold_count == 0

    def test_of_those_that_the_cloud_has_the_last_few_are_held(self) -> None:
        book = GapBook()
        for n in range(GAPS_KEPT_MAX + 10):
            book.add(self.lost(0, 1, epoch=n))
            book.keep(self.lost(0, 1, epoch=n))
        book.forget_kept()
        assert [gap.epoch for gap in book] == list(range(10, GAPS_KEPT_MAX + 10))

    def test_many_become_fewer_entries_with_the_same_records(self) -> None:
        book = GapBook()
        for n in range(2 * GAPS_MAX):
            book.add(self.lost(2 * n, 2 * n + 1, epoch=n % 5))
        assert len(book.state()) <= GAPS_MAX
        told = {(gap.epoch, gap.first_seq, gap.end_seq) for gap in book.untold(10_000)}
        assert told == {(n % 5, 2 * n, 2 * n + 1) for n in range(2 * GAPS_MAX)}
        assert {gap.oldest_ms <= START_MS + gap.first_seq < gap.newest_ms for gap in book} == {True}

    def test_told_ones_make_room_before_others_are_merged(self) -> None:
        book = GapBook()
        for n in range(GAPS_MAX):
            book.add(self.lost(0, 1, epoch=n))
        book.keep(self.lost(0, 1, epoch=3))
        book.add(self.lost(0, 1, epoch=GAPS_MAX))
        assert {gap.epoch for gap in book} == set(range(GAPS_MAX + 1)) - {3}


class TestHoldings:
    async def test_what_the_cloud_lost_is_pending_again_if_it_is_here(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await fill(log, 9, noise)
            accept(log, (await read_all(log.reader("sender")))[:7])
            while log.accounting().segments > 1:
                await asyncio.sleep(0.001)
            epoch = log.epoch
            assert log.holdings() == [(epoch, 0, 7)]
            log.resend(epoch, 2, 7)
            total = log.accounting()
            assert (total.accepted, total.damaged, total.pending) == (2, 4, 3)
            assert closes(log)
            assert spans(log.gaps(10)) == [(2, 6)]
            assert log.holdings() == [(epoch, 0, 2)]
            assert keys_of(await read_all(log.reader("sender"))) == [(1, 6), (1, 7), (1, 8)]
            assert [one.records for one in log.stretches()] == [3]
        async with opened(disk) as log:
            assert (log.accounting().accepted, log.accounting().damaged, log.accounting().pending) == (2, 4, 3)

    async def test_what_is_just_being_removed_is_lost_and_told(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await fill(log, 6, noise)
            gate = disk.hold_keeper("remove")
            log.accept(log.epoch, 0, 3)
            await gate.wait()
            log.resend(log.epoch, 0, 3)
            assert log.accounting().pending == 6
            gate.open()
            while log.accounting().segments > 1:
                await asyncio.sleep(0.001)
            assert (log.accounting().pending, log.accounting().damaged) == (3, 3)
            assert spans(log.gaps(10)) == [(0, 3)]
            assert closes(log)

    async def test_what_was_never_accepted_is_left_as_it_is(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            await fill(log, 3, noise)
            log.resend(log.epoch, 0, 3)
            log.resend(99, 0, 3)
            assert (log.accounting().pending, log.accounting().damaged) == (3, 0)


class TestWhere:
    async def test_each_record_has_one_place(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        epoch = await damaged(disk, noise)
        async with opened(disk) as log:
            log.accept(epoch, 0, 2)
            log.sending(epoch, 6, 8)
            places = ["accepted"] * 2 + ["logged"] + ["damaged"] * 3 + ["in flight"] * 2 + ["logged"]
            assert [log.where(epoch, seq) for seq in range(9)] == places
            assert log.where(epoch, 9) == log.where(epoch, -1) == log.where(epoch + 1000, 0) == "unknown"
            log.nothing_in_flight()
            assert log.where(epoch, 6) == "logged"


class TestComplete:
    async def test_everything_before_the_oldest_that_waits_is_here(self) -> None:
        async with opened(SimulatedDisk()) as log:
            now_ms = START_MS + 60_000
            assert log.complete_ms(now_ms) == now_ms
            await fill(log, 5, b"")
            assert log.complete_ms(now_ms) == START_MS
            log.accept(log.epoch, 1, 5)
            assert log.complete_ms(now_ms) == START_MS
            log.accept(log.epoch, 0, 1)
            assert log.complete_ms(now_ms) == now_ms
            assert log.complete_ms(START_MS - 5) == START_MS - 5

    async def test_each_answer_moves_it_on_though_nothing_is_trimmed(self) -> None:
        """All blocks are near each other at the start of one segment."""
        async with opened(SimulatedDisk()) as log:
            await fill(log, 5, b"")
            for n in range(5):
                assert log.complete_ms(START_MS + 60_000) == START_MS + 1000 * n
                log.accept(log.epoch, n, n + 1)
            log.resend(log.epoch, 1, 2)
            assert log.complete_ms(START_MS + 60_000) == START_MS + 1000

    async def test_after_a_restart_it_is_not_later_than_it_may_be(self, noise: bytes) -> None:
        disk = SimulatedDisk()
        async with opened(disk) as log:
            await fill(log, 9, noise)
            epoch = log.epoch
        async with opened(disk) as log:
            await log.append([entry(20, at_ms=START_MS + 50_000)])
            assert log.complete_ms(START_MS + 60_000) == START_MS
            log.accept(epoch, 0, 4)
            assert log.complete_ms(START_MS + 60_000) <= START_MS + 4000
            log.accept(epoch, 0, 9)
            assert log.complete_ms(START_MS + 60_000) == START_MS + 50_000

    async def test_a_record_that_was_received_before_older_ones_is_waited_for(self, noise: bytes) -> None:
        async with opened(SimulatedDisk()) as log:
            await fill(log, 4, noise)
            await log.append([entry(9, at_ms=START_MS - 7000)])
            log.accept(log.epoch, 0, 3)
            assert log.complete_ms(START_MS + 60_000) == START_MS - 7000
            log.accept(log.epoch, 4, 5)
            assert log.complete_ms(START_MS + 60_000) == START_MS + 3000


async def test_ranges_that_would_be_too_many_become_counts(noise: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.log.catalog.ACCEPTED_RANGES_MAX", 2)
    disk = SimulatedDisk()
    async with opened(disk) as log:
        await fill(log, 12, noise)
        epoch = log.epoch
    del disk.files[disk.segments()[1]]
    async with opened(disk) as log:
        log.accept(epoch, 0, 3)
        log.accept(epoch, 6, 9)
        log.accept(epoch, 10, 11)
        assert log.accounting().accepted == 6, "one range more than fit: it will be sent again"
        while log.accounting().segments > 1:
            await asyncio.sleep(0.001)
        log.accept(epoch, 10, 11)
        assert (log.accounting().accepted, log.accounting().damaged, log.accounting().pending) == (7, 3, 2)
        assert closes(log)
        assert [log.where(epoch, seq) for seq in (0, 3, 9, 10)] == ["unknown", "damaged", "logged", "accepted"]
    async with opened(disk) as log:
        log.gaps_kept([], [(epoch, 3, 5)])
        log.gaps_kept([], [(epoch, 3, 5)])
        assert (log.accounting().accepted, log.accounting().damaged, log.accounting().pending) == (9, 1, 2)
        assert closes(log)
