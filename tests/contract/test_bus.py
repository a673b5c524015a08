"""The bus: what both transports promise, and what JetStream promises beyond it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, cast

import pytest

from protocols.batch import BatchKey
from protocols.messages import Lane
from sync.bus.contract import Bus, BusError, BusFullError, BusRefusedError, Delivery, Reader, TopicSpec
from sync.bus.jetstream import JetStreamBus
from sync.bus.jetstream_reader import HEARTBEAT_S, PULL_BATCHES, SILENT_S
from sync.bus.zeromq_hub import ZeroMqHub
from tests.contract.nats_server import NatsServer

TOPICS = [
    TopicSpec("inbound", ("recorder", "auditor"), public=True),
    TopicSpec("solo", ("recorder",), bytes_max=1_000_000, public=True),
]
ROOM = (1000, 100_000_000)


class World(Protocol):
    """A bus that runs, with clients of it."""

    kind: str
    address: str
    outside_channel: str
    """A channel of `solo` that another process may read, and that keeps what is unanswered."""

    async def connect(self) -> Bus: ...


class EdgeWorld:
    kind = "edge"
    outside_channel = "mine"

    def __init__(self, directory: Path) -> None:
        self.address = f"ipc://{directory}/bus"
        self.hub = ZeroMqHub(TOPICS, endpoint=self.address, lease_s=0.5)

    async def connect(self) -> Bus:
        return self.hub.connect()

    async def close(self) -> None:
        await self.hub.close()


class CloudWorld:
    kind = "cloud"
    outside_channel = "recorder"

    def __init__(self, directory: Path) -> None:
        self.server = NatsServer(directory)
        self.address = self.server.url
        self._clients: list[JetStreamBus] = []

    async def connect(self, ack_wait_s: float = 60.0) -> JetStreamBus:
        """By default, nothing comes again because time passed."""
        client = await JetStreamBus.connect(self.address, TOPICS, ack_wait_s=ack_wait_s)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.server.kill()


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[CloudWorld]:
    world = CloudWorld(tmp_path)
    await world.server.start()
    yield world
    await world.close()


@pytest.fixture(params=["edge", "cloud"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    world: EdgeWorld | CloudWorld
    if request.param == "edge":
        world = EdgeWorld(tmp_path)
    else:
        world = CloudWorld(tmp_path)
        await world.server.start()
    yield world
    await world.close()


async def read(reader: Reader, count: int) -> list[Delivery]:
    """The next `count` deliveries, acknowledged."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            for delivery in await reader.fetch(count - len(taken), ROOM[1]):
                taken.append(delivery)
                await delivery.ack()
    return taken


@contextlib.asynccontextmanager
async def background(work: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def publish_all(bus: Bus, topic: str, batches: list[bytes]) -> None:
    await asyncio.gather(*(bus.publish(topic, data) for data in batches))


# What both promise


async def test_each_channel_gets_every_batch(world: World) -> None:
    bus = await world.connect()
    recorder = await bus.subscribe("inbound", "recorder")
    auditor = await bus.subscribe("inbound", "auditor")
    batches = [b"batch %d" % i for i in range(50)]
    async with background(publish_all(bus, "inbound", batches)) as publishing:
        for reader in (recorder, auditor):
            assert sorted(delivery.data for delivery in await read(reader, 50)) == sorted(batches)
        await publishing


async def test_readers_of_a_channel_share_its_batches(world: World) -> None:
    first, second = await world.connect(), await world.connect()
    readers = [await bus.subscribe("solo", "recorder") for bus in (first, second)]
    seen: list[set[bytes]] = [set(), set()]

    async def drain(number: int) -> None:
        while True:
            for delivery in await readers[number].fetch(1, 1000):
                assert delivery.data not in seen[0] | seen[1]
                seen[number].add(delivery.data)
                await delivery.ack()
                if len(seen[0]) + len(seen[1]) == 100:
                    done.set()

    done = asyncio.Event()
    batches = [b"batch %d" % i for i in range(100)]
    async with background(drain(0)), background(drain(1)), background(publish_all(first, "solo", batches)):
        await asyncio.wait_for(done.wait(), 20)
    assert seen[0] | seen[1] == set(batches)
    assert seen[0]
    assert seen[1]


async def test_a_closed_reader_gives_back_what_it_did_not_answer(world: World) -> None:
    bus = await world.connect()
    leaving = await bus.subscribe("solo", "recorder")
    async with background(publish_all(bus, "solo", [b"1", b"2", b"3"])) as publishing:
        taken = list(await leaving.fetch(1, 1000))
        assert [delivery.redelivered for delivery in taken] == [False]
        await leaving.close()
        staying = await (await world.connect()).subscribe("solo", "recorder")
        again = await read(staying, 3)
        assert sorted(delivery.data for delivery in again) == [b"1", b"2", b"3"]
        assert next(delivery for delivery in again if delivery.data == taken[0].data).redelivered
        await publishing


async def test_a_killed_readers_batch_goes_to_another(world: World) -> None:
    channel = world.outside_channel
    bus = await world.connect()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.bus_reader", world.kind, world.address, "solo", channel),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"reads\n"
    async with contextlib.AsyncExitStack() as stack:
        if world.kind == "edge":
            recorder = await bus.subscribe("solo", "recorder")
            await stack.enter_async_context(background(read(recorder, 1)))
        await bus.publish("solo", b"precious")
        assert await process.stdout.readline() == b"precious\n"
        heir = await bus.subscribe("solo", channel)
        process.kill()
        await process.wait()
        (delivery,) = await read(heir, 1)
        assert delivery.data == b"precious"
        assert delivery.redelivered


async def test_nak_brings_a_batch_again_and_not_before_its_delay(world: World) -> None:
    bus = await world.connect()
    reader = await bus.subscribe("solo", "recorder")
    async with background(bus.publish("solo", b"x")) as publishing:
        (first,) = await reader.fetch(*ROOM)
        await first.nak()
        (second,) = await asyncio.wait_for(reader.fetch(*ROOM), 20)
        assert (second.data, second.redelivered) == (b"x", True)
        began = asyncio.get_running_loop().time()
        await second.nak(0.3)
        (third,) = await asyncio.wait_for(reader.fetch(*ROOM), 20)
        assert asyncio.get_running_loop().time() - began >= 0.29
        await third.ack()
        await publishing


async def test_refused_batches_come_no_more(world: World) -> None:
    bus = await world.connect()
    reader = await bus.subscribe("solo", "recorder")
    async with background(bus.publish("solo", b"bad")):
        (bad,) = await reader.fetch(*ROOM)
        await bad.refuse("checksum", "does not match")
        async with background(bus.publish("solo", b"good")) as publishing:
            (good,) = await read(reader, 1)
            assert good.data == b"good"
            await publishing
    await reader.close()
    other = await bus.subscribe("solo", "recorder")
    async with background(bus.publish("solo", b"later")):
        assert [delivery.data for delivery in await read(other, 1)] == [b"later"]


async def test_one_publisher_and_one_reader_keep_the_order(world: World) -> None:
    bus = await world.connect()
    reader = await bus.subscribe("solo", "recorder")
    batches = [b"%d" % i for i in range(200)]

    async def publish_in_turn() -> None:
        for data in batches:
            await bus.publish("solo", data)

    async with background(publish_in_turn()):
        assert [delivery.data for delivery in await read(reader, 200)] == batches


async def test_fetch_keeps_its_bounds(world: World) -> None:
    bus = await world.connect()
    reader = await bus.subscribe("solo", "recorder")
    async with background(publish_all(bus, "solo", [bytes([i]) * 1000 for i in range(20)])):
        left, sizes = 20, []
        while left:
            taken = list(await reader.fetch(4, 2500))
            sizes.append(len(taken))
            left -= len(taken)
            for delivery in taken:
                await delivery.ack()
        assert max(sizes) <= 2
        async with background(bus.publish("solo", b"x" * 5000)):
            assert [len(delivery.data) for delivery in await reader.fetch(4, 2500)] == [5000]


async def test_key_and_lane_travel_and_a_fetch_is_of_one_lane(world: World) -> None:
    bus = await world.connect()
    key = BatchKey(2**63 - 1, 7)
    publishing = asyncio.gather(
        bus.publish("solo", b"now", key=key),
        bus.publish("solo", b"then", lane=Lane.BACKFILL),
    )
    async with background(publishing):
        reader = await bus.subscribe("solo", "recorder")
        seen: dict[bytes, tuple[BatchKey | None, Lane]] = {}
        while len(seen) < 2:
            taken = await asyncio.wait_for(reader.fetch(*ROOM), 20)
            assert len({delivery.lane for delivery in taken}) == 1
            for delivery in taken:
                seen[delivery.data] = (delivery.key, delivery.lane)
                await delivery.ack()
        assert seen == {b"now": (key, Lane.LIVE), b"then": (None, Lane.BACKFILL)}


async def test_each_ephemeral_reader_gets_what_comes_while_it_reads(world: World) -> None:
    bus = await world.connect()
    recorder = await bus.subscribe("solo", "recorder")
    async with background(bus.publish("solo", b"before")):
        await read(recorder, 1)
    tails = [await bus.subscribe("solo", "tail", ephemeral=True) for _ in range(2)]
    async with background(bus.publish("solo", b"during")):
        await read(recorder, 1)
        for tail in tails:
            assert [delivery.data for delivery in await read(tail, 1)] == [b"during"]
            assert tail.missed == 0


async def test_an_ephemeral_reader_that_is_slow_loses_the_oldest_and_is_told(world: World) -> None:
    bus = await world.connect()
    recorder = await bus.subscribe("inbound", "recorder")
    auditor = await bus.subscribe("inbound", "auditor")
    tail = await bus.subscribe("inbound", "tail", ephemeral=True)
    async with background(read(recorder, 60)), background(read(auditor, 60)):
        for i in range(60):
            # Each is answered although the tail takes none: it holds nobody up.
            await bus.publish("inbound", bytes([i]) * 500_000)
        seen = []
        while not seen or seen[-1] != 59:
            seen += [delivery.data[0] for delivery in await read(tail, 1)]
    assert seen == sorted(seen)
    assert tail.missed == 60 - len(seen) > 0


async def test_what_the_bus_does_not_know_or_take_is_refused(world: World) -> None:
    bus = await world.connect()
    with pytest.raises(BusRefusedError, match="no topic nowhere"):
        await bus.publish("nowhere", b"x")
    with pytest.raises(BusRefusedError, match="no topic nowhere"):
        await bus.subscribe("nowhere", "recorder")
    with pytest.raises(BusRefusedError, match=r"ephemeral|durable"):
        await bus.subscribe("solo", "recorder", ephemeral=True)
    with pytest.raises(BusRefusedError, match="5,000,000 bytes"):
        await bus.publish("solo", b"x" * 5_000_000)


async def test_a_full_topic_takes_no_more_until_it_is_read(world: World) -> None:
    bus = await world.connect()
    data = b"x" * 200_000
    async with asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
        publishes = [await stack.enter_async_context(background(bus.publish("solo", data))) for _ in range(6)]
        await asyncio.wait(publishes, return_when=asyncio.FIRST_EXCEPTION)
        reader = await bus.subscribe("solo", "recorder")
        # As they are read, those that were taken are answered where they had to wait for it.
        reading = await stack.enter_async_context(background(read(reader, 6)))
        results = await asyncio.gather(*publishes, return_exceptions=True)
        errors = [result for result in results if result is not None]
        assert errors
        assert all(isinstance(error, BusFullError) for error in errors)
        await publish_all(bus, "solo", [b"after"] * len(errors))
        taken = cast(list[Delivery], await reading)
        assert sorted(len(delivery.data) for delivery in taken) == [5] * len(errors) + [len(data)] * (6 - len(errors))


async def test_closing_wakes_whoever_waits(world: World) -> None:
    bus = await world.connect()
    reader = await bus.subscribe("solo", "recorder")
    fetching = asyncio.ensure_future(reader.fetch(*ROOM))
    await asyncio.sleep(0)
    await reader.close()
    with pytest.raises(BusError):
        await fetching
    await bus.close()
    for late in (bus.publish("solo", b"x"), bus.subscribe("solo", "recorder")):
        with pytest.raises(BusError):
            await late


# What JetStream promises beyond it


async def published_without_reader(world: CloudWorld, count: int) -> JetStreamBus:
    bus = await world.connect()
    for i in range(count):
        await bus.publish("solo", b"%d" % i)
    return bus


async def test_what_was_published_survives_kill_9_of_the_server(cloud: CloudWorld) -> None:
    bus = await published_without_reader(cloud, 20)
    reader = await bus.subscribe("solo", "recorder")
    first = await read(reader, 5)
    await cloud.server.kill()
    await cloud.server.start()
    # The same reader, over the same connection object; acknowledgements of before may have been lost.
    seen = {delivery.data for delivery in first}
    while len(seen) < 20:
        seen |= {delivery.data for delivery in await read(reader, 1)}
    assert seen == {b"%d" % i for i in range(20)}
    await until(lambda: publishes(bus, b"after"))
    async with asyncio.timeout(SILENT_S / 2):  # it pulls because it is connected again, not because it hears nothing
        while b"after" not in seen:
            seen |= {delivery.data for delivery in await read(reader, 1)}


async def test_a_publish_in_flight_when_the_server_dies_fails_at_once(cloud: CloudWorld) -> None:
    bus = await cloud.connect()
    await cloud.server.kill(signal.SIGSTOP)
    publishing = asyncio.ensure_future(bus.publish("solo", b"x"))
    await asyncio.sleep(0)
    await cloud.server.kill()
    with pytest.raises(BusError, match="NATS went away"):
        await asyncio.wait_for(publishing, 5)
    with pytest.raises(BusError, match="not connected"):
        await bus.publish("solo", b"y")


async def test_batches_wait_for_a_channel_that_nobody_reads(cloud: CloudWorld) -> None:
    bus = await published_without_reader(cloud, 3)
    other = await cloud.connect()
    assert [delivery.data for delivery in await read(await other.subscribe("solo", "recorder"), 3)] == [
        b"0",
        b"1",
        b"2",
    ]
    await bus.close()


async def test_a_reader_that_was_full_goes_on_at_once(cloud: CloudWorld) -> None:
    count = 6 * PULL_BATCHES
    bus = await cloud.connect()
    await asyncio.gather(*(bus.publish("solo", b"%d" % i) for i in range(count)))
    reader = await bus.subscribe("solo", "recorder")

    async def is_full() -> bool:
        return (await counts(bus))[2] == PULL_BATCHES

    await until(is_full)
    assert await is_full()  # the answer came behind the batches: they have arrived, too
    async with asyncio.timeout(2 * HEARTBEAT_S):
        assert len({delivery.data for delivery in await read(reader, count)}) == count


async def test_stats_tell_what_waits_and_end_at_zero(cloud: CloudWorld) -> None:
    bus = await published_without_reader(cloud, 10)
    assert await counts(bus) == (10, 10, 0)
    reader = await bus.subscribe("solo", "recorder")
    deliveries = [delivery for _ in range(10) for delivery in await reader.fetch(1, 1000)]
    assert await counts(bus) == (10, 0, 10)
    for delivery in deliveries:
        await delivery.ack()

    async def is_empty() -> bool:
        return await counts(bus) == (0, 0, 0)

    await until(is_empty)


async def test_a_slow_batch_is_not_delivered_again_while_it_is_worked_on(cloud: CloudWorld) -> None:
    bus = await cloud.connect(ack_wait_s=1.0)
    await bus.publish("solo", b"x")
    slow = await bus.subscribe("solo", "recorder")
    (delivery,) = await slow.fetch(*ROOM)
    other = await (await cloud.connect(ack_wait_s=1.0)).subscribe("solo", "recorder")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.fetch(*ROOM), 2.5)
    await delivery.ack()


async def test_live_goes_first_and_backfill_gets_its_share(cloud: CloudWorld) -> None:
    bus = await cloud.connect()
    for i in range(40):
        await bus.publish("solo", b"x" * 1000, lane=Lane.BACKFILL if i < 20 else Lane.LIVE)
    reader = await bus.subscribe("solo", "recorder")
    await until_buffered(bus, 40)
    lanes = []
    for _ in range(40):
        (delivery,) = await read(reader, 1)
        lanes.append(delivery.lane)
    assert lanes[0] is Lane.LIVE
    while_both_wait = lanes[: len(lanes) - lanes[::-1].index(Lane.LIVE)]
    assert while_both_wait.count(Lane.BACKFILL) == pytest.approx(len(while_both_wait) / 4, abs=1.5)


async def test_lanes_may_have_readers_of_their_own(cloud: CloudWorld) -> None:
    bus = await cloud.connect()
    live = await bus.subscribe("solo", "recorder", lane=Lane.LIVE)
    backfill = await bus.subscribe("solo", "recorder", lane=Lane.BACKFILL)
    for i in range(10):
        await bus.publish("solo", b"%d" % i, lane=Lane.BACKFILL if i % 2 else Lane.LIVE)
    assert [delivery.data for delivery in await read(backfill, 5)] == [b"1", b"3", b"5", b"7", b"9"]
    assert [delivery.data for delivery in await read(live, 5)] == [b"0", b"2", b"4", b"6", b"8"]

    async def all_dealt_with() -> bool:
        return await counts(bus) == (0, 0, 0)

    await until(all_dealt_with)


async def test_a_key_is_kept_once(cloud: CloudWorld) -> None:
    bus = await cloud.connect()
    for _ in range(3):
        await bus.publish("solo", b"once", key=BatchKey(1, 1))
    assert await counts(bus) == (1, 1, 0)


async def test_limits_may_change_between_starts(cloud: CloudWorld) -> None:
    await published_without_reader(cloud, 1)
    wider = await JetStreamBus.connect(cloud.address, [TopicSpec("solo", ("recorder",), bytes_max=2_000_000)])
    (stats,) = await wider.stats()
    assert (stats.bytes_max, stats.batches) == (2_000_000, 1)
    await wider.close()


async def test_connecting_says_what_is_wrong(tmp_path: Path) -> None:
    for url in ("nats://127.0.0.1:1", "garbage://", "", "nats://host:port"):
        with pytest.raises(BusError, match="NATS"):
            await JetStreamBus.connect(url, TOPICS, connect_s=0.5)
    server = NatsServer(tmp_path, max_payload=1_000_000)
    await server.start()
    try:
        with pytest.raises(BusError, match="takes messages of 1,000,000 bytes; set max_payload to 4194304"):
            await JetStreamBus.connect(server.url, TOPICS)
    finally:
        await server.kill()


async def counts(bus: JetStreamBus) -> tuple[int, int, int]:
    """Of topic `solo`: batches in the stream, waiting, unanswered."""
    (stats,) = [stats for stats in await bus.stats() if stats.topic == "solo"]
    channels = stats.channels
    return stats.batches, sum(c.waiting for c in channels), sum(c.unanswered for c in channels)


async def publishes(bus: Bus, data: bytes) -> bool:
    try:
        await bus.publish("solo", data)
    except BusError:
        return False
    return True


async def until_buffered(bus: JetStreamBus, batches: int) -> None:
    async def are_delivered() -> bool:
        return (await counts(bus))[2] == batches

    await until(are_delivered)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """For what only asking again can tell; the deadline is for defects."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)
