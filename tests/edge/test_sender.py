from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.rate import RATE_OVER_S
from edge.sender import LIVE_BYTES, LIVE_PER_BACKFILL, LIVE_S, Sender
from protocols.block import read_head
from protocols.messages import Lane, Priority
from sync.link.ports import Parcel, Room
from sync.log.log import Log, LogSettings, RealDisk
from sync.log.settings import STATE_BYTES
from tests.sync.link.platform import Cloud, Relay, client, linking, serving, until, wall_ms
from tests.sync.log.making import START_MS, entry, open_log, opened
from tests.sync.log.simulated_disk import SimulatedDisk

LARGE = LogSettings(segment_bytes=1 << 20, max_bytes=STATE_BYTES + (1 << 25), linger_max_ms=0)
SMALL = LogSettings(segment_bytes=1 << 16, max_bytes=STATE_BYTES + (1 << 24), linger_max_ms=0)
"""Three entries of NOISE_BYTES fill a segment."""
NOISE_BYTES = 20_000
AMPLE = Room(512, 1 << 18, 1 << 18)
ONE = Room(1, 1 << 18, 1 << 18)
"""A block at a time."""


class Site:
    """A sender over a log, with a connection that asks by hand. Blocks hold one record each, so that a block is told by
    its number in the epoch."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.now_s = 50.0
        self.sender = Sender(log, log.accept, monotonic_s=lambda: self.now_s)
        self.woken = asyncio.Event()

    async def add(self, count: int = 1, *, size: int = 10, priority: Priority = Priority.TELEMETRY) -> None:
        for _ in range(count):
            noise = random.Random(self.log.accounting().logged).randbytes(size)
            await self.log.append([entry(self.log.accounting().logged, noise=noise, priority=priority)])

    async def take(self, room: Room = AMPLE) -> Parcel:
        """The next parcel, awaited."""
        async with asyncio.timeout(5):
            while (parcel := self.sender.take(room)) is None:
                self.woken.clear()
                await self.woken.wait()
        return parcel

    async def rest(self, room: Room = AMPLE) -> list[tuple[Lane, int]]:
        """Lane and number of all that is neither settled nor in flight."""
        found: list[tuple[Lane, int]] = []
        while self.log.stretches():
            parcel = await self.take(room)
            found += [(parcel.lane, number) for number in numbers(parcel)]
        assert self.sender.take(room) is None
        return found

    def begin(self) -> None:
        self.sender.begin(self.woken.set)


def numbers(parcel: Parcel) -> list[int]:
    return [read_head(block).first_seq for block in parcel.blocks]


def backfill(*seqs: int) -> list[tuple[Lane, int]]:
    return [(Lane.BACKFILL, seq) for seq in seqs]


def live(*seqs: int) -> list[tuple[Lane, int]]:
    return [(Lane.LIVE, seq) for seq in seqs]


@contextlib.asynccontextmanager
async def at_site(settings: LogSettings = LARGE) -> AsyncIterator[Site]:
    async with opened(SimulatedDisk(), settings=settings) as log:
        site = Site(log)
        try:
            yield site
        finally:
            await site.sender.end()


async def test_what_was_there_before_the_connection_is_backfill_and_what_comes_is_live_and_first() -> None:
    async with at_site() as site:
        await site.add(3)
        site.begin()
        await site.add(2)
        assert await site.rest(ONE) == [*live(3, 4), *backfill(0, 1, 2)]
        await site.add()
        assert await site.rest() == live(5)


@pytest.mark.parametrize("lane", Lane)
async def test_what_was_settled_before_its_turn_is_not_sent(lane: Lane) -> None:
    """It may have been evicted: what is in flight must not be a gap."""
    async with at_site() as site:
        if lane is Lane.LIVE:
            site.begin()
        await site.add(4)
        if lane is Lane.BACKFILL:
            site.begin()
        assert numbers(await site.take(ONE)) == [0]
        site.log.accept(site.log.epoch, 1, 3)
        assert await site.rest(ONE) == [(lane, 3)]


async def test_live_goes_on_while_backfill_has_no_credit() -> None:
    async with at_site() as site:
        await site.add(3)
        site.begin()
        await site.add(2)
        only_live = Room(1, 1 << 18, 0)
        for number in (3, 4):
            parcel = await site.take(only_live)
            assert (parcel.lane, numbers(parcel)) == (Lane.LIVE, [number])
        assert site.sender.take(only_live) is None
        assert await site.rest() == backfill(0, 1, 2)


async def test_backfill_has_a_quarter_of_the_bytes_while_both_wait() -> None:
    async with at_site() as site:
        await site.add(60, size=5_000)
        site.begin()
        await site.add(60, size=5_000)
        room = Room(512, 5_500, 5_500)
        lanes = [(await site.take(room)).lane for _ in range(40)]
        assert lanes.count(Lane.BACKFILL) in (40 // (LIVE_PER_BACKFILL + 1) - 1, 40 // (LIVE_PER_BACKFILL + 1))
        assert max(len(list(group)) for lane, group in itertools.groupby(lanes) if lane is Lane.LIVE) <= 4


async def test_a_share_that_backfill_could_not_use_does_not_pile_up() -> None:
    async with at_site() as site:
        await site.add(200, size=5_000)
        site.begin()
        for _ in range(200):
            await site.add(size=5_000)
            assert (await site.take(Room(512, 10_000, 0))).lane is Lane.LIVE
        await site.add(20, size=5_000)
        lanes = [(await site.take(Room(512, 5_500, 5_500))).lane for _ in range(80)]
        assert Lane.LIVE in lanes[:55], "a frame's worth is made up for, no more"


async def test_the_newest_stretch_goes_first_and_each_in_order() -> None:
    async with at_site(SMALL) as site:
        await site.add(9, size=NOISE_BYTES)
        assert [one.first_seq for one in site.log.stretches()] == [6, 3, 0]
        site.begin()
        assert await site.rest(ONE) == backfill(6, 7, 8, 3, 4, 5, 0, 1, 2)


async def test_events_and_alarms_wait_for_no_older_nor_for_much_newer_telemetry() -> None:
    async with at_site(SMALL) as site:
        for number in range(30):
            urgent = {4: Priority.ALARM, 16: Priority.EVENT, 29: Priority.ALARM}
            await site.add(size=NOISE_BYTES, priority=urgent.get(number, Priority.TELEMETRY))
        site.begin()
        found = [number for _, number in await site.rest(ONE)]
        assert sorted(found) == list(range(30))
        assert found.index(4) < found.index(16)
        assert set(found[: found.index(16) + 1]) <= {4, 16, *range(24, 30)}, "all else of the backlog comes after them"


async def test_live_that_falls_behind_by_bytes_is_left_to_backfill() -> None:
    async with at_site() as site:
        site.begin()
        block = 100_000
        await site.add(LIVE_BYTES // block + 1, size=block)
        parcel = await site.take()
        assert (parcel.lane, numbers(parcel)) == (Lane.BACKFILL, [10])
        await site.add()
        assert (await site.take(ONE)).lane is Lane.LIVE
        assert site.sender.figures().live_left == 1


async def test_live_that_falls_behind_by_time_is_left_to_backfill() -> None:
    async with at_site() as site:
        site.begin()
        await site.add(4)
        assert numbers(await site.take(ONE)) == [0]
        site.now_s += LIVE_S - 1
        assert (await site.take(ONE)).lane is Lane.LIVE
        site.now_s += 1.1
        parcel = await site.take(ONE)
        assert (parcel.lane, numbers(parcel)) == (Lane.BACKFILL, [2])
        await site.add()
        assert await site.rest(ONE) == [*live(4), *backfill(3)]


async def test_an_idle_hour_is_not_taken_for_falling_behind() -> None:
    async with at_site() as site:
        site.begin()
        for _ in range(3):
            await site.add(2)
            assert await site.rest(ONE) == live(*(site.log.accounting().logged - 2 + n for n in range(2)))
            site.now_s += 3600
        assert site.sender.figures().live_left == 0


async def test_what_is_given_back_comes_again_as_backfill() -> None:
    async with at_site() as site:
        await site.add(2)
        site.begin()
        await site.add(2)
        assert await site.rest() == [*live(2, 3), *backfill(0, 1)]
        site.sender.accepted(site.log.epoch, 1, 3)
        site.sender.give_back()
        assert await site.rest() == backfill(0, 3)
        await site.add()
        assert await site.rest() == live(4)


async def test_a_connection_that_ends_gives_everything_back() -> None:
    async with at_site() as site:
        await site.add(3)
        site.begin()
        assert await site.rest() == backfill(0, 1, 2)
        site.sender.accepted(site.log.epoch, 0, 1)
        assert site.log.where(site.log.epoch, 1) == "in flight"
        await site.sender.end()
        assert site.log.where(site.log.epoch, 1) == "logged"
        assert site.sender.take(AMPLE) is None
        site.begin()
        assert await site.rest() == backfill(1, 2)


async def test_records_that_are_pending_again_are_found() -> None:
    async with at_site() as site:
        await site.add(3)
        site.begin()
        assert await site.rest() == backfill(0, 1, 2)
        site.sender.accepted(site.log.epoch, 0, 3)
        site.log.resend(site.log.epoch, 1, 2)
        site.sender.look_again()
        assert await site.rest() == backfill(1)


async def test_a_disk_that_fails_to_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.feed.READ_AGAIN_S", 0.0)
    async with at_site() as site:
        await site.add(3)
        reader = site.log.stretch_reader
        failures = [OSError("busy"), OSError("busy")]

        def failing(*args: object, **kwargs: object) -> object:
            made = reader(*args, **kwargs)  # type: ignore[arg-type]
            ready = made.ready

            async def unready() -> None:
                if failures:
                    raise failures.pop()
                await ready()

            made.ready = unready  # type: ignore[method-assign]
            return made

        monkeypatch.setattr(site.log, "stretch_reader", failing)
        site.begin()
        assert await site.rest() == backfill(0, 1, 2)
        assert not failures


async def test_what_the_log_raises_comes_out() -> None:
    disk = SimulatedDisk()
    log = await open_log(disk, settings=LARGE)
    site = Site(log)
    site.begin()
    assert site.sender.take(AMPLE) is None
    await log.close()
    async with asyncio.timeout(5):
        await site.woken.wait()
    with pytest.raises(Exception, match="closed"):
        site.sender.take(AMPLE)
    await site.sender.end()


@pytest.mark.parametrize("seed", range(25))
async def test_nothing_is_lost_nor_in_flight_twice_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    async with at_site(SMALL) as site:
        in_flight: set[int] = set()
        accepted: set[int] = set()
        up = False
        for _ in range(300):
            match rng.choice(["add", "add", "take", "take", "take", "accept", "give back", "end", "wait", "stall"]):
                case "add":
                    await site.add(
                        rng.randrange(1, 5), size=rng.choice([10, 9_000]), priority=Priority(rng.randrange(3))
                    )
                case "take" if up:
                    room = Room(rng.randrange(1, 6), rng.choice([0, 1, 20_000]), rng.choice([0, 1, 20_000]))
                    parcel = site.sender.take(room)
                    if parcel is not None:
                        assert in_flight.isdisjoint(numbers(parcel))
                        assert accepted.isdisjoint(numbers(parcel))
                        assert len(parcel.blocks) <= room.blocks_max
                        in_flight.update(numbers(parcel))
                case "accept" if in_flight:
                    number = rng.choice(sorted(in_flight))
                    in_flight.discard(number)
                    accepted.add(number)
                    site.sender.accepted(site.log.epoch, number, number + 1)
                case "give back" if up and rng.random() < 0.2:
                    site.sender.give_back()
                    in_flight.clear()
                case "end" if rng.random() < 0.3:
                    if up:
                        await site.sender.end()
                        in_flight.clear()
                    else:
                        site.begin()
                    up = not up
                case "wait":
                    await asyncio.sleep(0)
                case "stall" if rng.random() < 0.1:
                    site.now_s += LIVE_S + 1
        if not up:
            site.begin()
        left = {number for _, number in await site.rest()}
        assert left.isdisjoint(accepted | in_flight)
        assert left | accepted | in_flight == set(range(site.log.accounting().logged))


async def test_what_is_sent_again_is_counted_and_the_sum_closes() -> None:
    async with at_site() as site:
        await site.add(4)
        site.begin()
        await site.rest()
        site.sender.accepted(site.log.epoch, 0, 1)
        site.sender.give_back()
        figures = site.sender.figures()
        assert (figures.records_sent, figures.records_accepted, figures.records_resent) == (4, 1, 3)
        await site.add()
        await site.rest()
        figures = site.sender.figures()
        assert (figures.records_sent, figures.backfill_records_sent, figures.blocks_sent) == (8, 7, 8)
        assert figures.records_sent - figures.records_accepted - figures.records_resent == 4, "in flight"


async def test_the_drain_estimate_goes_by_the_rate_of_lately() -> None:
    async with at_site() as site:
        assert site.sender.drain_s(1000) is None
        assert site.sender.drain_s(0) == 0.0
        for at in range(0, 1_000_000, 5_000):
            site.now_s += 0.5
            site.sender.accepted(7, at, at + 5_000)
        assert site.sender.drain_s(100_000) == pytest.approx(10, rel=0.05)
        site.now_s += 10 * RATE_OVER_S
        assert site.sender.drain_s(100_000) is None, "it moves no more"


async def test_the_rate_is_right_from_the_first_seconds() -> None:
    async with at_site() as site:
        for second in range(2):
            site.now_s += 1.0
            site.sender.accepted(7, 1000 * second, 1000 * second + 1000)
        assert site.sender.figures().accepted_per_s == pytest.approx(1000, rel=0.1)


@pytest.mark.servers
async def test_a_real_log_drains_over_a_link_that_breaks_and_its_accounting_closes(tmp_path: Path) -> None:
    epochs = itertools.count(11)
    settings = LogSettings(max_bytes=64 << 20, segment_bytes=4 << 20)
    log = await Log.open(tmp_path, settings, disk=RealDisk(), wall_ms=wall_ms, new_epoch=lambda: next(epochs))
    cloud = Cloud()
    try:
        sender = Sender(log, log.accept, monotonic_s=time.monotonic)
        noise = random.Random(1)
        for number in range(300):
            await log.append([entry(number, rows=40, noise=noise.randbytes(30), at_ms=START_MS + number)])
        async with serving(cloud.app) as port:
            relay = Relay(port)
            relay.cut_after = [800, 20_000, 40_000]
            async with relay.listening() as relay_port, linking(client(relay_port, sender)):
                await until(lambda: log.accounting().pending == 0)
                await log.append([entry(300, rows=40)])
                await until(lambda: log.accounting().pending == 0)
        accounting = log.accounting()
        assert (accounting.logged, accounting.accepted, accounting.damaged) == (12_040, 12_040, 0)
        assert sum(read_head(block).records for block in cloud.stored.values()) == 12_040
        figures = sender.figures()
        assert figures.records_accepted == 12_040
        assert figures.records_sent == 12_040 + figures.records_resent
        assert relay.connections == 4
        assert cloud.lanes[-1] is Lane.LIVE
        assert set(cloud.lanes[:-1]) == {Lane.BACKFILL}
    finally:
        await log.close()
