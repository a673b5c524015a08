"""What gateways tell beside their blocks: each loss counts once, and is none once the records are here after all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cloud.services import books
from cloud.services.store import Transaction
from cloud.topics import PROCESSOR
from protocols.messages import Gap, GapKind
from protocols.shipment import Run
from sync.link.frames import Span
from tests.contract.stores import DEADLINE_S, Held, Premises, take, waits

pytest_plugins = ("tests.contract.postgres", "tests.contract.store_fixtures")

EPOCH = 4711
NOW = 1_770_000_000_000


class Ledger:
    """One gateway's source, as the cloud's books have it."""

    def __init__(self, premises: Premises, source: int) -> None:
        self.premises = premises
        self.source = source

    async def accept(self, first: int, end: int) -> int:
        return await self.premises.store.run(lambda tx: books.accept(tx, [self.run(first, end)]))

    async def keep(self, *gaps: Gap) -> Sequence[Span]:
        return await self.premises.store.run(lambda tx: books.keep_gaps(tx, self.source, gaps))

    async def processed(self, first: int, end: int) -> None:
        async def work(tx: Transaction) -> None:
            await take(PROCESSOR, self.run(first, end))(tx)
            await books.reclassify(tx, [self.run(first, end)])

        await self.premises.store.run(work)

    async def lost(self) -> dict[str, int]:
        return await self.premises.fates(books.GAP, self.source, EPOCH)

    async def accepted(self) -> int:
        return (await self.premises.fates(books.RECEIVER, self.source, EPOCH)).get("accepted", 0)

    async def gaps(self) -> list[tuple[int, int, str]]:
        found = await self.premises.store.run(lambda tx: tx.gaps(self.source, EPOCH, 0, 1000))
        return [(gap.first_seq, gap.end_seq, gap.kind.value) for gap in found]

    def run(self, first: int, end: int) -> Run:
        return Run(self.source, EPOCH, first, end - first)


@pytest.fixture
async def ledger(premises: Premises) -> Ledger:
    return Ledger(premises, await premises.add_project("p"))


def evicted(first: int, end: int, kind: GapKind = GapKind.EVICTED) -> Gap:
    return Gap(EPOCH, first, end, kind, NOW - 9, NOW - 5, NOW)


async def test_a_gap_counts_once_however_often_and_in_whatever_pieces_it_is_told(ledger: Ledger) -> None:
    assert await ledger.keep(evicted(0, 10), evicted(30, 40, GapKind.DAMAGED)) == []
    assert await ledger.lost() == {"evicted": 10, "damaged": 10}
    assert await ledger.keep(evicted(0, 10), evicted(30, 40, GapKind.DAMAGED)) == []
    await ledger.keep(evicted(5, 35), evicted(20, 25))
    assert await ledger.lost() == {"evicted": 30, "damaged": 10}
    assert await ledger.gaps() == [(0, 10, "evicted"), (10, 30, "evicted"), (30, 40, "damaged")]


async def test_a_tail_counts_once_and_holds_no_records(ledger: Ledger) -> None:
    for size in (512, 700):
        await ledger.keep(Gap(EPOCH, 10, 10, GapKind.TAIL, 0, 0, NOW, size), evicted(10, 20))
    assert await ledger.lost() == {"tails": 1, "evicted": 10}
    await ledger.accept(0, 20)
    assert await ledger.lost() == {"tails": 1}
    assert await ledger.gaps() == [(10, 10, "tail")]


async def test_what_the_cloud_has_is_no_gap(ledger: Ledger) -> None:
    await ledger.accept(5, 10)
    await ledger.accept(20, 25)
    assert await ledger.keep(evicted(0, 30)) == [Span(EPOCH, 5, 10), Span(EPOCH, 20, 25)]
    assert await ledger.lost() == {"evicted": 20}
    assert await ledger.gaps() == [(0, 5, "evicted"), (10, 20, "evicted"), (25, 30, "evicted")]


async def test_what_was_processed_before_its_range_was_written_is_accepted(ledger: Ledger) -> None:
    await ledger.accept(0, 5)
    await ledger.processed(3, 8)
    assert await ledger.keep(evicted(0, 10)) == [Span(EPOCH, 0, 8)]
    assert (await ledger.accepted(), await ledger.lost()) == (8, {"evicted": 2})


@pytest.mark.parametrize("hop", ["receiver", "processor"])
async def test_a_record_that_comes_after_all_is_no_loss(ledger: Ledger, hop: str) -> None:
    await ledger.keep(evicted(0, 20), evicted(20, 30, GapKind.DAMAGED))
    await (ledger.accept(15, 25) if hop == "receiver" else ledger.processed(15, 25))
    assert await ledger.lost() == {"evicted": 15, "damaged": 5}
    assert await ledger.gaps() == [(0, 15, "evicted"), (25, 30, "damaged")]
    assert await ledger.keep(evicted(0, 20), evicted(20, 30, GapKind.DAMAGED)) == [
        Span(EPOCH, 15, 20),
        Span(EPOCH, 20, 25),
    ]
    assert (await ledger.accepted(), await ledger.lost()) == (10, {"evicted": 15, "damaged": 5})
    await ledger.accept(3, 4)
    assert await ledger.gaps() == [(0, 3, "evicted"), (4, 15, "evicted"), (25, 30, "damaged")]


@pytest.mark.parametrize("hop", ["receiver", "processor"])
@pytest.mark.parametrize("gap_first", [True, False])
async def test_a_gap_and_its_records_cannot_miss_each_other(ledger: Ledger, hop: str, gap_first: bool) -> None:
    """Told at the same moment, in either order of the locks."""

    async def tell(tx: Transaction) -> None:
        await books.keep_gaps(tx, ledger.source, [evicted(0, 10)])

    async def come(tx: Transaction) -> None:
        if hop == "receiver":
            await books.accept(tx, [ledger.run(4, 6)])
        else:
            await take(PROCESSOR, ledger.run(4, 6))(tx)
            await books.reclassify(tx, [ledger.run(4, 6)])

    first, second = (tell, come) if gap_first else (come, tell)
    holder = await Held(ledger.premises, first).worked()
    waiting = asyncio.ensure_future(ledger.premises.store.run(second))
    assert await waits(waiting)
    async with asyncio.timeout(DEADLINE_S):
        await holder.commit()
        await waiting
    assert await ledger.lost() == {"evicted": 8}
    assert await ledger.gaps() == [(0, 4, "evicted"), (6, 10, "evicted")]


async def test_what_the_gateway_takes_for_accepted_and_the_cloud_does_not_have_is_asked_for(ledger: Ledger) -> None:
    await ledger.accept(0, 10)
    await ledger.processed(12, 14)
    spans = [Span(EPOCH, 5, 20), Span(EPOCH + 1, 0, 3), Span(EPOCH, 0, 2)]
    missing = await ledger.premises.store.run(lambda tx: books.missing_of(tx, ledger.source, spans))
    assert missing == [Span(EPOCH, 10, 12), Span(EPOCH, 14, 20), Span(EPOCH + 1, 0, 3)]
    assert await ledger.accepted() == 12
