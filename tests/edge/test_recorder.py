"""The recorder over a real hub and a real log: acknowledged means synced, and what cannot be kept is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge.recorder import CHANNEL, TOPIC, Recorder
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import open_block
from protocols.messages import Clock, ClockState, Origin
from sync.bus.contract import BusRefusedError, TopicSpec
from sync.bus.zeromq import ZeroMqBus
from sync.bus.zeromq_hub import ZeroMqHub
from sync.log.log import Entry, Log, LogFailedError, LogSettings, RealDisk

NOW_MS = 1_700_000_000_000
ORIGIN = Origin("quay", "serial", "pump", "up", "", "mqtt")


def batch(counter: int, payloads: list[bytes], *, base_ms: int = NOW_MS, run: int = 5) -> RecordBatch:
    clock = Clock(1, 0, ClockState.SYNCHRONIZED)
    rows = len(payloads)
    return RecordBatch(BatchKey(run, counter), clock, base_ms, [ORIGIN], [0] * rows, [0] * rows, payloads)


def clocked(clock: Clock) -> RecordBatch:
    return msgspec.structs.replace(batch(0, [b"x"]), clock=clock)


class World:
    def __init__(self, log: Log, hub: ZeroMqHub) -> None:
        self.log = log
        self.bus: ZeroMqBus = hub.connect()
        self.recorder = Recorder(hub.connect(), log, lambda clock, received_ms: received_ms - clock.offset_ms)

    async def publish(self, made: RecordBatch) -> None:
        async with asyncio.timeout(10):
            await self.bus.publish(TOPIC, encode_records(made), key=made.key)

    async def payloads(self) -> list[bytes]:
        reader = self.log.reader("test")
        found: list[bytes] = []
        while len(found) < self.log.accounting().logged:
            for block in await reader.next(100, 1 << 20):
                found += [payload for one in open_block(block)[1] for payload in one.payloads]
        reader.close()
        return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings = LogSettings(max_bytes=21_495_808, segment_bytes=4 << 20, evict=False)
    log = await Log.open(
        tmp_path, settings, disk=RealDisk(), wall_ms=lambda: NOW_MS, new_epoch=lambda: int.from_bytes(os.urandom(7))
    )
    hub = ZeroMqHub([TopicSpec(TOPIC, (CHANNEL,), public=True)], endpoint=None)
    made = World(log, hub)
    task = asyncio.create_task(made.recorder.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await hub.close()
    await log.close()


async def test_a_published_batch_is_in_the_log_once(world: World) -> None:
    made = batch(0, [b"a", b"b"])
    await world.publish(made)
    await world.publish(made)
    assert await world.payloads() == [b"a", b"b"]
    assert (world.recorder.counts.batches, world.recorder.counts.records) == (2, 4)


async def test_what_waits_is_as_old_as_it_truly_is(world: World) -> None:
    """The clock that stamped it was a thousand days ahead; the record itself stays as it came."""
    ahead_ms = 1000 * 24 * 3600 * 1000
    clock = Clock(1, ahead_ms, ClockState.RESTORED)
    await world.publish(msgspec.structs.replace(clocked(clock), base_ms=NOW_MS + ahead_ms))
    assert world.log.accounting().oldest_pending_ms == NOW_MS
    reader = world.log.reader("test")
    ((_, (made,)),) = [open_block(block) for block in await reader.next(1, 1 << 20)]
    assert (made.base_ms, made.clock) == (NOW_MS + ahead_ms, clock)


async def test_batches_that_come_together_keep_their_order(world: World) -> None:
    made = [batch(counter, [b"%d" % counter]) for counter in range(200)]
    await asyncio.gather(*(world.publish(one) for one in made))
    assert await world.payloads() == [b"%d" % counter for counter in range(200)]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (batch(0, [b"x"], base_ms=-1), "limit"),
        (batch(0, [b"x"], base_ms=1 << 62), "limit"),
        (batch(0, [b"x"], run=-1), "limit"),
        (batch(0, [b"x"], run=1 << 63), "limit"),
        (batch(0, []), "limit"),
        (clocked(Clock(-1, 0, ClockState.UNSET)), "limit"),
        (clocked(Clock(1 << 63, 0, ClockState.UNSET)), "limit"),
        (clocked(Clock(1, -(1 << 62), ClockState.UNSET)), "limit"),
    ],
)
async def test_what_the_log_cannot_hold_is_refused(world: World, made: RecordBatch, code: str) -> None:
    with pytest.raises(BusRefusedError) as refused:
        await world.publish(msgspec.structs.replace(made))
    assert refused.value.code == code
    await world.publish(batch(1, [b"good"]))
    assert await world.payloads() == [b"good"]
    assert world.recorder.counts.refused == {code: 1}


async def test_a_damaged_batch_is_refused_and_its_neighbour_kept(world: World) -> None:
    data = bytearray(encode_records(batch(0, [b"payload"])))
    data[-1] ^= 1
    with pytest.raises(BusRefusedError) as refused:
        await world.bus.publish(TOPIC, bytes(data))
    assert refused.value.code == "checksum"
    await world.publish(batch(1, [b"good"]))
    assert world.recorder.counts.refused == {"checksum": 1}


async def test_a_full_log_refuses_and_takes_again_once_there_is_room(world: World) -> None:
    counter, code = 0, ""
    while not code:
        try:
            await world.publish(batch(counter, [os.urandom(200_000)] * 4))
            counter += 1
        except BusRefusedError as refused:
            code = refused.code
    assert code == "log-full"
    assert world.recorder.trouble.startswith("log-full")
    accounting = world.log.accounting()
    assert accounting.logged == 4 * counter, "nothing of what was refused is kept"
    assert accounting.used_bytes <= accounting.max_bytes
    assert world.recorder.counts.refused == {"log-full": 4}
    await world.publish(batch(counter + 1, [b"small"]))
    assert world.recorder.trouble.startswith("log-full"), "what is small may find room, and says nothing for the rest"
    world.log.accept(world.log.epoch, 0, accounting.logged)
    async with asyncio.timeout(20):
        while world.recorder.trouble:  # trimming is the log's own task, and nothing comes meanwhile
            await asyncio.sleep(0.01)
    await world.publish(batch(counter + 2, [b"after"]))


async def test_what_a_failing_disk_did_not_keep_is_tried_again_under_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = world.log.append, [LogFailedError("disk"), LogFailedError("disk")]

    async def append(entries: list[Entry]) -> None:
        if failures:
            raise failures.pop()
        await real(entries)

    monkeypatch.setattr(world.log, "append", append)
    monkeypatch.setattr("edge.recorder.RETRY_S", 0.0)
    await world.publish(batch(0, [b"kept"]))
    assert await world.payloads() == [b"kept"]
    assert world.recorder.counts.retries == 2


async def test_a_defect_ends_the_recorder_instead_of_stalling_it(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def append(entries: list[Entry]) -> None:
        raise RuntimeError("a defect")

    hub = ZeroMqHub([TopicSpec(TOPIC, (CHANNEL,), public=True)], endpoint=None)
    monkeypatch.setattr(world.log, "append", append)
    recorder = asyncio.create_task(Recorder(hub.connect(), world.log).run())
    publishing = asyncio.create_task(hub.connect().publish(TOPIC, encode_records(batch(0, [b"x"]))))
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup, match="TaskGroup") as group:
            await recorder
    assert group.group_contains(RuntimeError, match="a defect")
    publishing.cancel()
    await asyncio.wait((publishing,))
    await hub.close()
