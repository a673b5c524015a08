"""Receiver, processor, transponder and replay on a real NATS and a real PostgreSQL: whatever is repeated, killed or
late, each message is stored once, and the accounting closes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cloud.db import current, history, inbox, rejects, sources
from cloud.db.database import DatabaseDownError
from cloud.model.claim import INBOX_EPOCH
from cloud.services.outputs import Outputs
from cloud.services.processor import Processor
from cloud.services.replay import _number
from cloud.services.runner import ServiceRunner
from cloud.services.store import Transaction
from cloud.services.transponder import Transponder
from protocols.messages import Anchor, Clock, ClockState, Lane
from protocols.shipment import CLOCK_CORRECTED
from tests.contract.services import DEADLINE_S, NOW, Cloud, block, send

T = TypeVar("T")


pytest_plugins = ("tests.contract.postgres", "tests.contract.services_fixtures")


async def test_a_message_is_in_current_and_history(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    await send(cloud, block(7, 0, [("plain", "a", {"t": 1.50, "time": NOW - 10})]))
    account = await cloud.until(lambda a: a.stored == 1)
    assert account.accepted == 1
    assert await cloud.stored("a") == [{"t": 1.5}]
    async with cloud.database.connection() as conn:
        (value,) = await current.of_device(conn, "p", await cloud.device("a"))
    assert (value.attribute, value.value, value.event_time, value.received_time) == ("t", b"1.5", NOW - 10, NOW)


async def test_late_data_enters_history_and_never_replaces_a_newer_current_value(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    times = [NOW - 5, NOW - 1, NOW - 9, 0, 4_070_908_800_000, NOW - 3]
    for seq, when in enumerate(times):
        await send(cloud, block(7, seq, [("plain", "a", {"t": seq, f"only{seq}": True, "time": when})]))
    await cloud.until(lambda a: a.stored == len(times))
    async with cloud.database.connection() as conn:
        held = {row.attribute: row for row in await current.of_device(conn, "p", await cloud.device("a"))}
    assert held["t"].value == b"4", "1970 and 2099 count as received now, and the later of equals wins by its id"
    assert all(held[f"only{seq}"].value == b"true" for seq in range(len(times)))
    assert [row["t"] for row in await cloud.stored("a")] == [2, 0, 5, 1, 3, 4]


async def test_what_is_sent_again_is_stored_once(cloud: Cloud) -> None:
    """The same ranges again and again, cut differently, from two connections, around a full restart of the receiver."""
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    rows: list[tuple[str, str, object]] = [("plain", "a", {"n": n}) for n in range(60)]
    for size in (60, 7, 20):
        cloud.receiver._known.clear()  # as after a restart
        await asyncio.gather(*(send(cloud, block(7, at, rows[at : at + size])) for at in range(0, 60, size)))
    account = await cloud.until(lambda a: a.stored == 60 and not a.in_pipeline and not a.records_in_pipeline)
    assert (account.accepted, account.decoded, account.repeated) == (60, 60, 0)
    assert sorted(int(str(row["n"])) for row in await cloud.stored("a")) == list(range(60))


async def test_a_devices_own_resend_is_repeated_with_a_key_and_stored_without(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("keyed", "k")
    await cloud.add_device("plain", "n")
    for seq in range(3):
        message = {"boot": 1, "seq": 5, "v": seq}
        await send(cloud, block(7, 2 * seq, [("keyed", "k", message), ("plain", "n", message)]))
    account = await cloud.until(lambda a: a.stored + a.repeated == 6)
    assert (account.stored, account.repeated) == (4, 2)
    assert await cloud.stored("k") == [{"boot": 1, "seq": 5, "v": 0}]
    assert len(await cloud.stored("n")) == 3


async def test_unknown_devices_wait_in_the_inbox_and_are_stored_once_they_exist(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    rows: list[tuple[str, str, object]] = [("plain", name, {"n": n}) for n in range(20) for name in ("later", "never")]
    await send(cloud, block(7, 0, rows))
    await cloud.until(lambda a: a.unresolved == 40)
    async with cloud.database.connection() as conn:
        waiting = await inbox.page(conn, "p", limit=100)
        assert {json.loads(row.payload)["n"] for row in waiting} == set(range(20))
        assert {(g.alias, g.messages) for g in await inbox.groups(conn, "p", limit=9)} == {("later", 20), ("never", 20)}
    await cloud.add_device("plain", "later")
    account = await cloud.until(lambda a: a.stored == 20)
    assert account.unresolved == 20
    assert sorted(int(str(row["n"])) for row in await cloud.stored("later")) == list(range(20))


async def test_corrected_times_outlast_the_inbox(cloud: Cloud) -> None:
    """Two gateways that started in 1970, under the same boot's number: each is dated by its own anchor."""
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    async with cloud.database.transaction() as conn:
        await conn.execute("INSERT INTO gateway (project_id, id, name) VALUES ('p', 'h', 'H')")
        other = await sources.add(conn, "p", "gateway", "h")
    boot = Clock(9, 0, ClockState.UNSET)
    for source, wall_ms in ((cloud.source, NOW - 50_000), (other, NOW - 90_000)):
        await cloud.receiver.keep_anchors(source, [Anchor(9, 20_000, wall_ms, 7, "cloud")])
    first = block(7, 0, [("plain", "later", {"n": 1})], boot, 10_000)
    second = block(8, 0, [("plain", "later", {"n": 2})], boot, 20_000)
    await asyncio.gather(
        cloud.receiver.accept(cloud.source, Lane.LIVE, [first]), cloud.receiver.accept(other, Lane.LIVE, [second])
    )
    await cloud.until(lambda a: a.unresolved == 1)
    await cloud.add_device("plain", "later")
    await cloud.until(lambda a: a.stored == 1)
    async with asyncio.timeout(DEADLINE_S):
        while len(await cloud.stored("later")) < 2:
            await asyncio.sleep(0.02)
    async with cloud.database.connection() as conn:
        rows = await history.page(conn, "p", await cloud.device("later"), 0, 2**53, limit=10)
    assert [(row.event_time, row.received_time, row.time_error_ms, row.flags) for row in rows] == [
        (NOW - 90_000, 20_000, 7, CLOCK_CORRECTED),
        (NOW - 60_000, 10_000, 8, CLOCK_CORRECTED),
    ]


async def test_creation_and_arrival_cannot_miss_each_other(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Processor(cloud.feed), Transponder(lambda: NOW))
    names = [f"d{n}" for n in range(30)]

    async def create() -> None:
        for name in names:
            await cloud.add_device("plain", name)

    async def arrive() -> None:
        for seq in range(10):
            await send(cloud, block(7, seq * 30, [("plain", name, {"n": seq}) for name in names]))

    await asyncio.gather(create(), arrive())
    account = await cloud.until(lambda a: a.stored == 300)
    assert (account.unresolved, account.repeated) == (0, 0)


async def test_what_does_not_decode_is_kept_with_its_reason(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    await send(cloud, block(7, 0, [("plain", "a", {"n": 1}), ("plain", "a", b"\xff?"), ("nowhere", "a", {"n": 2})]))
    account = await cloud.until(lambda a: a.stored == 1 and a.rejected_records == 2)
    assert account.decoded_records == 1
    async with cloud.database.connection() as conn:
        found = {(row.payload, row.record_seq, row.code) for row in await rejects.page(conn, "p", limit=10)}
    assert found == {(b"\xff?", 1, "undecodable"), (b'{"n": 2}', 2, "undecodable")}


async def test_workers_that_are_cut_off_at_any_moment_double_and_lose_nothing(cloud: Cloud) -> None:
    """Cancelling a task wherever it stands does what a kill does: the transaction is gone, the batch comes again."""
    random_cuts = random.Random(4)
    await cloud.add_device("keyed", "k")
    await cloud.add_device("plain", "n")
    sent = 0
    total = 40

    async def feed_in() -> None:
        nonlocal sent
        for number in range(total):
            rows: list[tuple[str, str, object]] = []
            for n in range(5):
                message = {"boot": 1, "seq": number * 5 + n}
                rows += [("keyed", "k", message), ("plain", "n", message), ("plain", "unknown", message)]
            await send(cloud, block(7, number * 15, rows))
            sent += 15
            await asyncio.sleep(0.02)

    feeding = asyncio.create_task(feed_in())
    while not feeding.done():
        workers = cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
        await asyncio.sleep(random_cuts.uniform(0.01, 0.15))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    await feeding
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    account = await cloud.until(lambda a: a.stored == 10 * total and a.unresolved == 5 * total)
    assert (account.accepted, account.decoded, account.repeated, account.dead) == (15 * total, 15 * total, 0, 0)
    for alias in ("k", "n"):
        assert sorted(int(str(row["seq"])) for row in await cloud.stored(alias)) == list(range(5 * total))


async def test_a_batch_that_fails_for_good_is_buried_and_its_neighbours_go_on(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    good = block(7, 0, [("plain", "a", {"n": 1})])
    broken = bytearray(block(7, 1, [("plain", "a", {"n": 2})] * 3))
    broken[-1] ^= 1
    await asyncio.gather(send(cloud, good), send(cloud, bytes(broken)), send(cloud, block(7, 4, [("plain", "a", {})])))
    account = await cloud.until(lambda a: a.stored == 2 and a.dead_records == 3)
    assert (account.accepted, account.records_at_writer) == (5, 0)
    async with cloud.database.connection() as conn:
        kept = await conn.fetchrow("SELECT hop, detail, data FROM dead_letter")
    assert kept is not None
    assert (kept["hop"], kept["data"]) == ("processor", bytes(broken))
    assert "CRC-32" in kept["detail"]


async def test_what_is_committed_is_published_by_whoever_comes_next(cloud: Cloud) -> None:
    await cloud.add_device("plain", "a")
    await send(cloud, block(7, 0, [("plain", "a", {"n": 1})]))
    (delivery,) = await (await cloud.bus.subscribe("default-processor", "processor")).fetch(1, 1 << 20)
    processor = Processor(cloud.feed)
    first = Outputs("processor", processor.writes, cloud.bus, cloud.store)
    await cloud.bus_away(lambda: first.run(Lane.LIVE, lambda tx: processor.handle(tx, [delivery.data], Lane.LIVE)))
    await delivery.ack()
    account = await cloud.account()
    assert (account.decoded, account.in_pipeline, account.records_at_writer) == (1, 1, 1)
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.until(lambda a: a.stored == 1)
    await cloud.until_forgotten()


async def test_an_attempt_that_is_rolled_back_has_said_nothing(cloud: Cloud) -> None:
    """It found the device unknown, and the next one knows it."""

    class Failing:
        failed = False

        async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
            if Failing.failed:
                return await cloud.store.run(work)

            async def to_no_end(tx: Transaction) -> T:
                Failing.failed = bool(await work(tx)) or True
                raise CutOffError

            with contextlib.suppress(CutOffError):
                await cloud.store.run(to_no_end)
            await cloud.add_device("plain", "late")
            raise DatabaseDownError("the connection was lost during the commit")

    cloud.work(Transponder(lambda: NOW))
    running = asyncio.create_task(ServiceRunner(Processor(cloud.feed), cloud.bus, Failing()).run(cloud.stop))
    cloud.tasks.append(running)
    await send(cloud, block(7, 0, [("plain", "late", {"n": n}) for n in range(3)]))
    account = await cloud.until(lambda a: a.stored == 3)
    assert (account.decoded, account.unresolved, account.in_pipeline) == (3, 0, 0)


class CutOffError(Exception):
    """Ends a transaction before its commit."""


async def _swept(outputs: Outputs) -> None:
    """Two looks: the first one may have come while somebody else was sending."""
    await outputs.sweep()
    await outputs.sweep()


async def test_replayed_messages_count_once_when_the_replay_is_cut_off(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed))
    await send(cloud, block(7, 0, [("plain", "late", {"n": n}) for n in range(10)]))
    await cloud.until(lambda a: a.unresolved == 10)
    cloud.tasks[2].cancel()  # the replay's own loop: here its steps are taken one by one
    await cloud.add_device("plain", "late")
    await cloud.store.run(lambda tx: _number(tx, 100))

    await cloud.bus_away(lambda: cloud.replay.sweep())
    assert (await cloud.account()).unresolved == 0, "they are on their way"
    await cloud.replay.sweep()
    await _swept(Outputs("inbox", ("writer",), cloud.bus, cloud.store))
    cloud.work(Transponder(lambda: NOW))
    account = await cloud.until(lambda a: a.stored == 10)
    assert (account.unresolved, account.repeated, account.decoded) == (0, 0, 10)
    async with cloud.database.connection() as conn:
        done = await conn.fetchval(
            "SELECT done::text FROM hop_progress WHERE hop = 'transponder' AND epoch = $1", INBOX_EPOCH
        )
    assert done == "{[0,10)}"
