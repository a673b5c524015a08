"""The local resolver over a real log: every record becomes a message, a reject, or is said to be skipped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from edge.resolver import SLICE_RECORDS_MAX, TOPIC, LocalResolver
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.messages import Clock, ClockState, Origin, Priority
from protocols.shipment import MessageBatch, decode_messages
from sync.bus.contract import TopicSpec
from sync.bus.zeromq_hub import ZeroMqHub
from sync.log.log import Entry, Log, LogSettings, RealDisk
from sync.registry import Registry
from tests.edge.site import registry

NOW_MS = 1_700_000_000_000


class World:
    def __init__(self, log: Log, hub: ZeroMqHub) -> None:
        self.log = log
        self.registry = Registry("demo")
        self.registry.apply(registry())
        self.hub = hub
        self.seen: list[MessageBatch] = []
        self.listeners: list[str] = []
        self.came = asyncio.Event()
        self.is_watching = True
        self.resolver = LocalResolver(
            lambda: self.registry,
            log.reader("resolver", at="end"),
            hub.connect(),
            self,
            lambda: any(channel.topic == TOPIC and channel.readers for channel in hub.channels()),
        )
        self._counter = 0

    def add(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        self.seen.append(batch)
        self.listeners += listeners
        self.came.set()

    async def log_batch(self, alias: str, *payloads: bytes) -> None:
        key = BatchKey(5, self._counter)
        self._counter += 1
        origin = Origin("quay", "serial", alias, "up", "", "mqtt")
        rows = len(payloads)
        clock = Clock(1, 0, ClockState.SYNCHRONIZED)
        data = encode_records(RecordBatch(key, clock, NOW_MS, [origin], [0] * rows, [0] * rows, list(payloads)))
        await self.log.append([Entry(data, key, rows, NOW_MS, Priority.TELEMETRY)])

    async def records(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.resolver.counts.records < count:
                self.came.clear()
                await self.came.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.resolver.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings = LogSettings(max_bytes=64 << 20, segment_bytes=4 << 20)
    log = await Log.open(tmp_path, settings, disk=RealDisk(), wall_ms=lambda: NOW_MS, new_epoch=lambda: 77)
    hub = ZeroMqHub([TopicSpec(TOPIC)], endpoint=None)
    yield World(log, hub)
    await hub.close()
    await log.close()


async def test_each_record_is_resolved_rejected_or_unresolved(world: World) -> None:
    async with world.running():
        await world.log_batch("pump", b'{"temperature":1}', b'{"temperature":', b'{"temperature":2}')
        await world.log_batch("stranger", b'{"level":3}')
        await world.records(4)
    messages = [message for batch in world.seen for message in batch.messages()]
    assert [(one.device_id, one.data) for one in messages] == [
        (1, {"temperature": 1}),
        (1, {"temperature": 2}),
        (0, {"level": 3}),
    ]
    counts = world.resolver.counts
    assert (counts.messages, counts.rejected, counts.unresolved, counts.skipped) == (3, 1, 1, 0)
    assert [reject.payload for batch in world.seen for reject in batch.rejects] == [b'{"temperature":']
    assert world.listeners == ["mqtt"] * 4
    assert world.resolver.behind_bytes == 0


async def test_a_process_of_ones_own_reads_what_is_resolved(world: World) -> None:
    reader = await world.hub.connect().subscribe(TOPIC, "mine", ephemeral=True)
    async with world.running():
        await world.log_batch("pump", b'{"temperature":1}')
        async with asyncio.timeout(10):
            (delivery,) = await reader.fetch(10, 1 << 20)
    assert [message.data for message in decode_messages(delivery.data).messages()] == [{"temperature": 1}]


async def test_a_changed_registry_holds_from_the_next_batch_on(world: World) -> None:
    async with world.running():
        await world.log_batch("pump", b'{"n":1}')
        await world.records(1)
        world.registry.apply(registry(8))
        await world.log_batch("pump", b'{"n":2}')
        await world.records(2)
    assert [message.revision for batch in world.seen for message in batch.messages()] == [7, 8]


async def test_far_behind_it_skips_to_the_newest_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.resolver.BEHIND_MAX_BYTES", 1_000)
    monkeypatch.setattr("edge.resolver.BLOCKS_MAX", 1)
    for number in range(60):
        await world.log_batch("pump", b'{"n":%d,"x":"%s"}' % (number, bytes.hex(number.to_bytes(2)).encode() * 100))
    async with world.running():
        await world.records(1)
        while world.resolver.behind_bytes:  # it skips after its pause
            await asyncio.sleep(0.01)
        await world.log_batch("pump", b'{"n":"last"}')
        while (world.seen[-1].data or [b""])[-1] != b'{"n":"last"}':
            await asyncio.sleep(0.01)
    counts = world.resolver.counts
    assert counts.skipped > 0
    assert counts.records + counts.skipped == 61


async def test_a_large_batch_is_resolved_in_slices_and_nothing_is_missing(world: World) -> None:
    async with world.running():
        await world.log_batch("pump", *(b'{"n":%d}' % number for number in range(1300)))
        await world.log_batch("stranger", b'{"n":1300}')
        await world.records(1301)
    assert max(len(batch) for batch in world.seen) <= SLICE_RECORDS_MAX
    assert [message.data["n"] for batch in world.seen for message in batch.messages()] == list(range(1301))
    runs = [run for batch in world.seen for run in batch.runs]
    assert [run.first_seq for run in runs] == [sum(run.count for run in runs[:place]) for place in range(len(runs))]
    assert len({batch.ids[at : at + 16] for batch in world.seen for at in range(0, len(batch.ids), 16)}) == 1301


async def test_while_nobody_reads_nothing_is_published(world: World) -> None:
    async with world.running():
        await world.log_batch("a", b'{"n": 1}')
        await world.records(1)
        before = world.hub.counts.published
        reader = await world.hub.connect().subscribe(TOPIC, "mine", ephemeral=True)
        await world.log_batch("a", b'{"n": 2}')
        (delivery,) = await reader.fetch(1, 10_000)
    assert before == 0
    assert [message.data for message in decode_messages(delivery.data).messages()] == [{"n": 2}]
