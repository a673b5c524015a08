"""Books, lanes and credit over real sockets; and ends that have no books yet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from protocols.block import read_head
from protocols.messages import Anchor, Gap, GapKind, Lane
from sync.link import frames
from sync.link.frames import Credit, Span, Standing, decode_frame, encode_frame
from sync.link.limits import ANCHORS_MAX, CREDIT_BYTES_MIN, GAPS_MAX
from sync.link.ports import NotTakenError, Parcel, Room
from sync.link.status import LinkState
from tests.sync.link.blocks import BASE_MS, blocks, large_blocks
from tests.sync.link.platform import QUICK, Cloud, Log, Relay, client, linking, serving, token, until, wall_ms

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

CREDIT = 8 * CREDIT_BYTES_MIN
PATIENT = msgspec.structs.replace(QUICK, request_s=20)
"""For answers that a test holds back."""


class SiteBooks:
    """A gateway's books that remember what became of them."""

    def __init__(self) -> None:
        self.unkept: list[Anchor] = []
        self.untold: list[Gap] = []
        self.has: list[Span] = []
        self.resent: list[Span] = []
        self.held: list[Span] = []
        self.times: list[tuple[int, int]] = []
        self.probes = 0
        self.refused = 0

    def greeted(self, server_time_ms: int, round_trip_ms: int) -> None:
        self.times.append((server_time_ms, round_trip_ms))

    def probed(self, server_time_ms: int, round_trip_ms: int) -> None:
        self.probes += 1

    def anchors(self) -> Sequence[Anchor]:
        return list(self.unkept)

    def anchors_kept(self, anchors: Sequence[Anchor]) -> None:
        for anchor in anchors:
            self.unkept.remove(anchor)

    def gaps(self, limit: int) -> Sequence[Gap]:
        return self.untold[:limit]

    def gaps_kept(self, gaps: Sequence[Gap], has: Sequence[Span]) -> None:
        for gap in gaps:
            self.untold.remove(gap)
        self.has += has

    def standing(self) -> Standing:
        return Standing(wall_ms(), wall_ms(), (), (), (), (("limit", self.refused),), ())

    def holdings(self) -> Sequence[Span]:
        return self.held

    def resend(self, spans: Sequence[Span]) -> None:
        self.resent += spans


class Ledger:
    """The cloud's books. `open` lets it keep anything."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.anchors: list[Anchor] = []
        self.gaps: list[Gap] = []
        self.batches: list[int] = []
        self.standings: list[Standing] = []
        self.raises: list[Exception] = []

    async def _wait(self) -> None:
        await self.open.wait()
        if self.raises:
            raise self.raises.pop(0)

    async def keep_anchors(self, anchors: Sequence[Anchor]) -> None:
        await self._wait()
        self.anchors += anchors

    async def keep_gaps(self, gaps: Sequence[Gap]) -> Sequence[Span]:
        await self._wait()
        self.gaps += gaps
        self.batches.append(len(gaps))
        return [Span(gaps[0].epoch, gaps[0].first_seq, gaps[0].end_seq)]

    async def standing(self, standing: Standing) -> None:
        self.standings.append(standing)

    async def holdings(self, spans: Sequence[Span]) -> Sequence[Span]:
        return spans[1:]


class Tap:
    """The cloud's CreditFeed."""

    def __init__(self, first: Credit) -> None:
        self.given: asyncio.Queue[Credit] = asyncio.Queue()
        self.given.put_nowait(first)

    async def credits(self) -> AsyncIterator[Credit]:
        while True:
            yield await self.given.get()


class TwoLanes(Log):
    """Live blocks and backfill, each in order."""

    def __init__(self, live: list[bytes], backfill: list[bytes]) -> None:
        super().__init__(live + backfill)
        self.lanes = {Lane.LIVE: list(live), Lane.BACKFILL: list(backfill)}
        self.wake = lambda: None

    def begin(self, wake: object) -> None:
        self.wake = wake  # type: ignore[assignment]

    def take(self, room: Room) -> Parcel | None:
        for lane, bytes_max in ((Lane.LIVE, room.bytes_max), (Lane.BACKFILL, room.backfill_bytes_max)):
            if bytes_max and self.lanes[lane]:
                return Parcel(lane, [self.lanes[lane].pop(0)])
        return None


@contextlib.asynccontextmanager
async def cloud_with(ledger: Ledger | None) -> AsyncIterator[tuple[Cloud, int]]:
    cloud = Cloud()
    cloud.books = ledger
    async with serving(cloud.app) as port:
        yield cloud, port


async def drained(log: Log) -> None:
    async with asyncio.timeout(20):
        await log.empty.wait()


def gap(number: int) -> Gap:
    return Gap(9, 2 * number, 2 * number + 1, GapKind.EVICTED, BASE_MS, BASE_MS, BASE_MS)


async def test_no_block_is_shipped_before_the_cloud_has_the_anchors() -> None:
    ledger, books, log = Ledger(), SiteBooks(), Log(blocks(5))
    books.unkept = [Anchor(1, number, BASE_MS, 1, "kernel") for number in range(ANCHORS_MAX + 10)]
    ledger.open.clear()
    async with cloud_with(ledger) as (cloud, port), linking(client(port, log, books=books, deadlines=PATIENT)) as link:
        await until(lambda: books.probes > 0)
        assert (cloud.stored, len(log.waiting)) == ({}, 5)
        ledger.open.set()
        await drained(log)
        assert (len(ledger.anchors), books.unkept) == (ANCHORS_MAX + 10, [])
        assert link.status.anchors_told == ANCHORS_MAX + 10
        assert books.times[0][1] < 5000


async def test_an_anchor_that_comes_up_later_holds_back_what_follows() -> None:
    ledger, books, log = Ledger(), SiteBooks(), TwoLanes(blocks(1), [])
    async with cloud_with(ledger) as (cloud, port), linking(client(port, log, books=books, deadlines=PATIENT)):
        await drained(log)
        ledger.open.clear()
        books.unkept = [Anchor(1, 2, BASE_MS, 1, "kernel")]
        later = blocks(1, first_seq=1)
        log.waiting[7, 1] = later[0]
        log.empty.clear()
        log.lanes[Lane.LIVE] += later
        log.wake()
        probes = books.probes
        await until(lambda: books.probes > probes + 1)
        assert len(cloud.stored) == 1
        ledger.open.set()
        await drained(log)
        assert len(ledger.anchors) == 1


async def test_gaps_are_told_a_frame_at_a_time_and_answered() -> None:
    ledger, books = Ledger(), SiteBooks()
    books.untold = made = [gap(number) for number in range(GAPS_MAX + 10)]
    made = list(made)
    async with cloud_with(ledger) as (_, port), linking(client(port, Log([]), books=books)) as link:
        await until(lambda: not books.untold)
        assert ledger.gaps == made
        assert ledger.batches == [GAPS_MAX, 10]
        assert books.has == [Span(9, 0, 1), Span(9, 2 * GAPS_MAX, 2 * GAPS_MAX + 1)]
        assert link.status.gaps_told == len(made)


async def test_what_the_cloud_could_not_keep_is_kept_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.link.server.BOOKS_RETRY_S", 0.05)
    ledger, books, log = Ledger(), SiteBooks(), Log(blocks(1))
    books.unkept, books.untold = [Anchor(1, 2, BASE_MS, 1, "kernel")], [gap(1)]
    ledger.raises = [NotTakenError("database", "it is away") for _ in range(3)]
    async with cloud_with(ledger) as (_, port), linking(client(port, log, books=books)) as link:
        await drained(log)
        await until(lambda: not books.untold)
        assert link.status.connections == 1
        assert not ledger.raises


async def test_books_that_a_cut_connection_left_open_are_told_again() -> None:
    ledger, books, log = Ledger(), SiteBooks(), Log(blocks(1))
    books.unkept, books.untold = [Anchor(1, 2, BASE_MS, 1, "kernel")], [gap(1)]
    ledger.open.clear()
    async with cloud_with(ledger) as (cloud, port):
        relay = Relay(port)
        async with relay.listening() as relay_port, linking(client(relay_port, log, books=books)) as link:
            await until(lambda: bool(cloud.sessions))
            await until(lambda: books.probes > 0)
            relay.silent = True
            await until(lambda: link.status.state is LinkState.DOWN)
            relay.silent = False
            ledger.open.set()
            await drained(log)
            await until(lambda: not books.untold)
    assert set(ledger.gaps) == {gap(1)}


async def test_holdings_that_the_cloud_has_lost_are_sent_again() -> None:
    ledger, books = Ledger(), SiteBooks()
    books.held = [Span(9, 0, 4), Span(9, 6, 8)]
    async with cloud_with(ledger) as (_, port), linking(client(port, Log([]), books=books)):
        await until(lambda: bool(books.resent))
        assert books.resent == [Span(9, 6, 8)]


async def test_standing_is_told_when_it_changes_and_every_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.link.connection.BOOKS_EVERY_S", 0.05)
    ledger, books = Ledger(), SiteBooks()
    async with cloud_with(ledger) as (_, port), linking(client(port, Log([]), books=books)):
        await until(lambda: len(ledger.standings) >= 3)
        first, second = ledger.standings[:2]
        assert second.at_ms - first.at_ms >= 1000 * QUICK.probe_every_s - 50, "nothing had changed"
        books.refused = 5
        await until(lambda: ledger.standings[-1].refused == (("limit", 5),))


@pytest.mark.parametrize("ours", [True, False])
async def test_an_end_without_books_goes_on_without_them(ours: bool) -> None:
    """A newer gateway at an older cloud, and the other way round."""
    ledger, books, log = Ledger(), SiteBooks(), Log(blocks(20))
    books.unkept, books.untold, books.held = [Anchor(1, 2, BASE_MS, 1, "kernel")], [gap(1)], [Span(9, 0, 4)]
    async with cloud_with(None if ours else ledger) as (cloud, port):
        cloud.credit = Tap(Credit(CREDIT, CREDIT_BYTES_MIN))
        async with linking(client(port, log, books=books if ours else None)) as link:
            await drained(log)
            await until(lambda: link.status.round_trip_ms is not None)
            assert not link.status.keeps_books
            assert link.status.backfill_credit_bytes == CREDIT_BYTES_MIN, "told beside other things"
    assert (ledger.anchors, ledger.gaps, ledger.standings, books.resent) == ([], [], [], [])
    assert len(books.times) == ours, "the cloud's time is good without books"


async def test_an_older_gateway_speaks_to_this_cloud() -> None:
    """HELLO, BLOCKS and PROBE as they were, byte for byte, and answers whose first fields are what they were."""
    from websockets.asyncio.client import connect

    cloud = Cloud()
    cloud.books, cloud.credit = Ledger(), Tap(Credit(CREDIT, 0))
    (block,) = blocks(1, 3)
    async with serving(cloud.app) as port:
        headers = {"Authorization": f"Bearer {token(int(time.time()))}"}
        async with connect(f"ws://127.0.0.1:{port}/", additional_headers=headers, proxy=None) as websocket:

            async def answer(kind: type[frames.Frame]) -> frames.Frame:
                async with asyncio.timeout(10):
                    while True:
                        frame = decode_frame(await websocket.recv(decode=False))
                        assert not isinstance(frame, Credit | frames.Resend | frames.AnchorsKept | frames.GapsKept)
                        if isinstance(frame, kind):
                            return frame

            await websocket.send(encode_frame(frames.Hello("tidegate-edge 0.1.0", 7, 1, 2, 3, 0)))
            welcome = await answer(frames.Welcome)
            assert isinstance(welcome, frames.Welcome)
            assert welcome.features == ()
            cloud.credit.given.put_nowait(Credit(CREDIT))
            await websocket.send(
                b"\x01\x03" + b"\x95\x00\xa4live\x00\x91\xc5" + len(block).to_bytes(2) + block + b"\xc4\x00"
            )
            accepted = await answer(frames.Accepted)
            assert isinstance(accepted, frames.Accepted)
            assert accepted.spans == (Span(7, 0, 3),)
            await websocket.send(b"\x01\x0a\x91\x05")
            await answer(frames.ProbeAnswer)


async def test_live_goes_on_while_the_cloud_has_backfill_wait() -> None:
    backfill, live = blocks(30, 50), blocks(30, 50, epoch=8)
    log = TwoLanes([], backfill)
    async with cloud_with(Ledger()) as (cloud, port):
        cloud.credit = tap = Tap(Credit(CREDIT, 0))
        async with linking(client(port, log, books=SiteBooks())) as link:
            await until(lambda: link.status.state is LinkState.UP)
            for block in live:
                log.waiting[8, read_head(block).first_seq] = block
            log.lanes[Lane.LIVE] += live
            log.wake()
            await until(lambda: len(cloud.stored) == len(live))
            assert set(cloud.lanes) == {Lane.LIVE}
            assert link.status.backfill_credit_bytes == 0
            tap.given.put_nowait(Credit(CREDIT, CREDIT_BYTES_MIN))
            await drained(log)
            assert cloud.lanes.count(Lane.BACKFILL) == 30


async def test_a_held_block_of_backfill_holds_up_no_live_one() -> None:
    """It was taken, does not fit, and then the cloud paused backfill."""
    large = large_blocks(3)
    log = TwoLanes([], list(large))
    async with cloud_with(Ledger()) as (cloud, port):
        cloud.credit = tap = Tap(Credit(CREDIT))
        first_stored, go_on = asyncio.Event(), asyncio.Event()

        async def hold(arrived: list[bytes]) -> None:
            if read_head(arrived[0]).epoch == 7:
                first_stored.set()
                await go_on.wait()

        cloud.before = hold
        async with linking(client(port, log, books=SiteBooks(), deadlines=PATIENT)) as link:
            await first_stored.wait()
            tap.given.put_nowait(Credit(CREDIT, 0))
            await until(lambda: link.status.backfill_credit_bytes == 0)
            (live,) = blocks(1, epoch=8)
            log.waiting[8, 0] = live
            log.lanes[Lane.LIVE].append(live)
            log.wake()
            await until(lambda: (8, 0) in cloud.stored)
            go_on.set()
            await until(lambda: len(log.waiting) == 2)
            tap.given.put_nowait(Credit(CREDIT))
            await drained(log)


async def test_no_more_is_sent_a_second_than_is_allowed() -> None:
    made = blocks(40, 100)
    log = Log(made)
    async with cloud_with(None) as (cloud, port):
        started_s = time.monotonic()
        async with linking(client(port, log, bytes_per_s_max=20_000)) as link:
            await drained(log)
            spent_s = time.monotonic() - started_s
            assert link.status.wire_bytes_sent > 40_000
            assert spent_s > (link.status.wire_bytes_sent - 2 * 20_000) / 20_000, "one second's worth may be ahead"
            assert link.status.connections == 1
            assert link.status.bytes_per_s_max == 20_000
    assert len(cloud.stored) == 40
