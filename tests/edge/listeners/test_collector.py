from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from edge.listeners import collector as module
from edge.listeners.collector import WAITING_RECORDS_MAX, Collector
from edge.listeners.filling import Owed
from protocols.limits import BATCH_RECORDS_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import ClockState, Origin, Priority
from sync.bus.contract import BusError, BusFullError, BusRefusedError
from tests.edge.listeners.memory_bus import MemoryBus, SetClock

PUMP = Origin("quay", "serial", "pump", "up", "", "mqtt")
FIRE = Origin("quay", "serial", "pump", "alarm/fire", "", "mqtt", Priority.ALARM)
TANK = Origin("quay", "serial", "tank", "up", "", "mqtt")


class Connection:
    def __init__(self) -> None:
        self.answers: list[tuple[str, list[bytes], int]] = []

    def recorded(self, owed: Owed) -> None:
        self.answers.append(("", owed.tokens, owed.rows))

    def refused(self, owed: Owed, code: str) -> None:
        self.answers.append((code, owed.tokens, owed.rows))


class Sockets:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def collector(bus: MemoryBus, clock: SetClock) -> AsyncIterator[Collector]:
    made = Collector(bus, clock, run=9)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_rows_of_one_loop_iteration_leave_as_one_batch(
    collector: Collector, bus: MemoryBus, clock: SetClock
) -> None:
    collector.add(PUMP, [b"a", b"b"])
    clock.boot_now_ms += 3
    collector.add(TANK, [b"c"])
    await collector.drained()
    (batch,) = bus.batches
    assert bus.topics == {"inbound"}
    assert batch.clock == clock.stamp()
    assert [(r.origin, r.payload, r.received_time) for r in batch.records()] == [
        (PUMP, b"a", 1_700_000_010_000),
        (PUMP, b"b", 1_700_000_010_000),
        (TANK, b"c", 1_700_000_010_003),
    ]


async def test_answers_leave_only_when_the_batch_is_recorded(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    bus.hold()
    collector.add(PUMP, [b"a", b"b"], connection, [b"\0\1", b"\0\2"])
    await bus.reached(1)
    assert connection.answers == []
    bus.release()
    await collector.drained()
    assert connection.answers == [("", [b"\0\1", b"\0\2"], 2)]
    assert collector.counters.recorded == 2


async def test_the_next_batch_fills_while_one_is_on_its_way(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    bus.hold()
    collector.add(PUMP, [b"first"], connection, [b"\0\1"])
    await bus.reached(1)
    for number in range(2, 50):
        collector.add(PUMP, [b"%d" % number], connection, [bytes((0, number))])
        await asyncio.sleep(0)
    assert len(bus.batches) == 1
    bus.release()
    await collector.drained()
    assert [len(batch) for batch in bus.batches] == [1, 48]
    assert [batch.key.counter for batch in bus.batches] == [0, 1]
    assert {batch.key.run for batch in bus.batches} == {9}
    assert [token for _, tokens, _ in connection.answers for token in tokens] == [bytes((0, n)) for n in range(1, 50)]


async def test_a_read_larger_than_a_batch_is_split_in_order(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    rows = 2 * BATCH_RECORDS_MAX + 10
    tokens = [number.to_bytes(2, "big") for number in range(rows)]
    collector.add(PUMP, [b"%d" % number for number in range(rows)], connection, tokens)
    collector.add(TANK, [b"x" * PAYLOAD_BYTES_MAX] * 5, connection)
    await collector.drained()
    assert [record.payload for record in bus.records[:rows]] == [b"%d" % number for number in range(rows)]
    assert len(bus.records) == rows + 5
    assert [token for _, owed, _ in connection.answers for token in owed] == tokens
    assert sum(count for _, _, count in connection.answers) == rows + 5


async def test_a_lost_answer_is_asked_for_again_under_the_same_key(
    collector: Collector, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_FULL_S", 0.001)
    connection = Connection()
    bus.failures += [BusError("no answer"), BusFullError("full")]
    collector.add(PUMP, [b"a"], connection, [b"\0\1"])
    await collector.drained()
    assert [batch.key.counter for batch in bus.batches] == [0, 0, 0]
    assert connection.answers == [("", [b"\0\1"], 1)]
    assert collector.counters.retries == 2


async def test_a_bus_that_never_answers_is_asked_again(
    collector: Collector, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_S", 0.01)
    bus.hold()
    collector.add(PUMP, [b"a"])
    await bus.reached(2)
    bus.release()
    await collector.drained()
    assert collector.counters.recorded == 1


async def test_a_refused_batch_is_told_counted_and_not_sent_again(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
    collector.add(PUMP, [b"a", b"b"], connection, [b"\0\1", b"\0\2"])
    await collector.drained()
    assert len(bus.batches) == 1
    assert connection.answers == [("log-full", [b"\0\1", b"\0\2"], 2)]
    assert collector.counters.refused == {"log-full": 2}
    collector.add(PUMP, [b"a"], connection, [b"\0\3"])
    await collector.drained()
    assert connection.answers[1:] == [("", [b"\0\3"], 1)]
    assert [batch.key.counter for batch in bus.batches] == [0, 1]


async def test_alarms_travel_apart_and_answers_keep_their_order(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    for number, one in enumerate((PUMP, FIRE, PUMP)):
        collector.add(one, [b"%d" % number], connection, [b"\0%d" % number])
    await collector.drained()
    assert [(batch.key.counter, [r.payload for r in batch.records()]) for batch in bus.batches] == [
        (0, [b"1"]),
        (1, [b"0", b"2"]),
    ]
    assert connection.answers == [("", [b"\x000", b"\x001", b"\x002"], 3)]


async def test_nothing_is_acknowledged_if_one_of_the_batches_is_refused(collector: Collector, bus: MemoryBus) -> None:
    connection = Connection()
    bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
    collector.add(PUMP, [b"a"], connection, [b"\0\1"])
    collector.add(FIRE, [b"b"], connection, [b"\0\2"])
    await collector.drained()
    assert connection.answers == [("log-full", [b"\0\1", b"\0\2"], 2)]


async def test_a_lasting_failure_is_told_after_the_deadline(
    collector: Collector, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.05)
    connection = Connection()
    bus.failures.extend(BusError("gone") for _ in range(50))
    collector.add(PUMP, [b"a"], connection, [b"\0\1"])
    await collector.drained()
    assert connection.answers == [("bus", [b"\0\1"], 1)]


@pytest.mark.parametrize("step_ms", [-60, 60, 3_600_000])
async def test_a_clock_that_steps_starts_a_new_batch(
    collector: Collector, bus: MemoryBus, clock: SetClock, step_ms: int
) -> None:
    collector.add(PUMP, [b"before"])
    before = clock.stamp()
    clock.offset_ms += step_ms
    collector.add(PUMP, [b"after"])
    await collector.drained()
    assert [batch.clock for batch in bus.batches] == [before, clock.stamp()]
    assert bus.batches[1].base_ms - bus.batches[0].base_ms == step_ms


async def test_a_clock_that_drifts_does_not(collector: Collector, bus: MemoryBus, clock: SetClock) -> None:
    collector.add(PUMP, [b"before"])
    clock.offset_ms -= 50
    clock.now_state = ClockState.RESTORED
    collector.add(PUMP, [b"after"])
    await collector.drained()
    (batch,) = bus.batches
    assert batch.received_delta_ms == [0, -50]


async def test_reading_pauses_when_too_much_waits_and_goes_on_later(collector: Collector, bus: MemoryBus) -> None:
    sockets = Sockets()
    collector.attach(sockets)
    bus.hold()
    collector.add(PUMP, [b"x"] * WAITING_RECORDS_MAX)
    assert sockets.calls == []
    collector.add(PUMP, [b"x"])
    collector.add(PUMP, [b"x"])
    assert sockets.calls == ["pause"]
    bus.release()
    await collector.drained()
    assert sockets.calls == ["pause", "resume"]
    assert collector.counters.recorded == WAITING_RECORDS_MAX + 2


async def test_large_payloads_pause_reading_by_their_bytes(collector: Collector, bus: MemoryBus) -> None:
    sockets = Sockets()
    collector.attach(sockets)
    bus.hold()
    for _ in range(40):
        collector.add(PUMP, [b"x" * PAYLOAD_BYTES_MAX])
    assert sockets.calls == ["pause"]
    bus.release()
    await collector.drained()
    assert sockets.calls == ["pause", "resume"]


async def test_what_waits_at_the_end_is_refused(bus: MemoryBus, clock: SetClock) -> None:
    collector = Collector(bus, clock, run=9)
    task = asyncio.create_task(collector.run())
    connection = Connection()
    bus.hold()
    collector.add(PUMP, [b"on its way"], connection, [b"\0\1"])
    await bus.reached(1)
    collector.add(PUMP, [b"waiting"], connection, [b"\0\2"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.answers == [("closing", [b"\0\1"], 1), ("closing", [b"\0\2"], 1)]
    assert collector.waiting_records == 0
