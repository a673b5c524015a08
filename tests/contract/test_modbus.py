"""The listener of Modbus lines, against units that pymodbus plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.listeners.attendance import UNATTENDED, Attendance
from edge.listeners.listener import Shared
from edge.listeners.modbus import listener as modbus_listener
from edge.listeners.modbus.config import ModbusConfig
from edge.listeners.modbus.listener import ModbusListener, make_listener
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError
from protocols.codecs import CodecSpec
from protocols.messages import Command, Origin, Priority
from sync.bus.contract import BusRefusedError
from tests.contract.modbus_units import ANSWER_S, TcpUnits, cable, rtu_units, unit
from tests.edge.listeners.mqtt_world import World
from tests.protocols.codecs.decoding import messages

REGISTERS = [
    {"name": "temperature", "address": 0, "type": "i16", "scale": 0.1, "unit": "Cel"},
    {"name": "setpoint", "address": 1, "scale": 0.1, "write": True},
    {"name": "flow", "address": 2, "type": "f32", "write": True},
    {"name": "energy", "address": 4, "type": "u32", "word_order": "little"},
    {"name": "label", "address": 6, "type": "string", "length": 4},
    {"name": "level", "address": 5, "kind": "input"},
    {"name": "on", "address": 1, "kind": "coil", "write": True},
    {"name": "open", "address": 0, "kind": "discrete"},
]
VALUES = {
    "temperature": 21.5, "setpoint": 20, "flow": 1.5, "energy": 131_073, "label": "pump", "level": 7, "on": True,
    "open": True,
}  # fmt: skip


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.collector.run())
    yield world
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus_listener, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(modbus_listener, "RETRY_MAX_S", 0.1)


def entry(number: int, *registers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"unit": number, "device": f"serial:u{number}", "registers": list(registers or REGISTERS), **settings}


class Attended:
    """Keeps what is said of who comes and goes."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []

    def connected(self, *name: str) -> None:
        self.said.append((*name, "connected"))

    def disconnected(self, *name: str) -> None:
        self.said.append(name)


@contextlib.asynccontextmanager
async def polling(
    world: World, *units: dict[str, Any], attendance: Attendance = UNATTENDED, **settings: Any
) -> AsyncIterator[ModbusListener]:
    given = {"name": "boiler", "network": "quay", "units": list(units), "interval_s": 0.1, "timeout_s": 0.3, **settings}
    config = msgspec.convert(given, ModbusConfig)
    listener = make_listener(config, Shared(world.registry, world.collector, Path(), attendance=attendance))
    await listener.start()
    try:
        yield listener
    finally:
        world.bus.release()
        await listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0.01)


def values(world: World, alias: str = "u1") -> list[dict[str, Any]]:
    records = [record for record in world.bus.records if record.origin.alias == alias]
    return [message for record in records for message in messages(record.payload, CodecSpec("registers"))]


async def test_a_unit_over_tcp_gives_a_record_a_poll(world: World) -> None:
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1), host="127.0.0.1", port=units.port) as listener,
    ):
        await until(lambda: listener.counters.recorded >= 3)
        assert (listener.trouble, listener.counters.connections, listener.kind) == ("", 1, "modbus")
        assert listener.place == f"127.0.0.1:{units.port}"
    assert values(world)[:3] == [VALUES] * 3
    assert world.bus.records[0].origin == Origin(
        "quay", "serial", "u1", "unit/1", "registers", "boiler", Priority.TELEMETRY
    )
    times = [record.received_time for record in world.bus.records]
    assert times == sorted(times)


async def test_a_line_that_is_never_idle_can_be_closed(world: World) -> None:
    """pymodbus waits by asyncio.wait_for, which in Python 3.11 hides a cancellation that comes with an answer."""
    async with TcpUnits.running(*(unit(number) for number in range(1, 101))) as units:
        line = {"host": "127.0.0.1", "port": units.port, "interval_s": 0.05}
        asked = [entry(number, REGISTERS[0]) for number in range(1, 101)]
        for _ in range(20):
            async with asyncio.timeout(ANSWER_S), polling(world, *asked, **line) as listener:
                await until(lambda listener=listener: listener.counters.recorded > 100)


async def test_units_on_a_serial_line_and_one_that_is_not_there(world: World, tmp_path: Path) -> None:
    async with cable(tmp_path) as (ours, theirs), rtu_units(theirs, [unit(1), unit(3, temperature=50)]):
        line = {"serial": str(ours), "baud": 19_200, "parity": "none", "retries": 0}
        async with polling(world, entry(1), entry(2), entry(3), **line) as listener:
            await until(lambda: values(world, "u3") and len(values(world, "u1")) > 2)
            assert listener.trouble == "unit 2 (serial:u2): no answer within 0.3 s"
            assert listener.counters.connections == 2
            assert listener.refusals.counts == {"unit_silent": 1}
            assert listener.place == str(ours)
    assert values(world, "u1")[0] == VALUES
    assert values(world, "u3")[0]["temperature"] == 5.0
    assert values(world, "u2") == []


async def test_noise_on_a_serial_line_costs_polls_and_no_values(world: World, tmp_path: Path) -> None:
    generator = random.Random(7)
    async with cable(tmp_path) as (ours, theirs), rtu_units(theirs, [unit(1)]):
        line = {"serial": str(ours), "parity": "none", "retries": 0, "timeout_s": 0.05, "interval_s": 0.05}
        async with polling(world, entry(1), **line) as listener:
            await until(lambda: listener.counters.recorded)
            with theirs.open("wb", buffering=0) as wire:
                for _ in range(100):
                    wire.write(
                        bytes(generator.choices(b"\x01\x03\x04\x83\x00\x02\xff\x10", k=generator.randint(1, 60)))
                    )
                    await asyncio.sleep(0.005)
            seen = listener.counters.recorded
            await until(lambda: listener.counters.recorded > seen + 2)
            assert listener.trouble == ""
    assert [value for value in values(world) if value.items() - VALUES.items()] == []


async def test_an_adapter_that_is_plugged_in_pulled_out_and_plugged_in_again(world: World, tmp_path: Path) -> None:
    line = {"serial": str(tmp_path / "gateway.tty"), "parity": "none"}
    async with polling(world, entry(1), **line) as listener:
        await until(lambda: "there is no such port; is the adapter plugged in?" in listener.trouble)
        assert listener.is_listening
        for _ in range(2):
            seen = listener.counters.recorded
            async with cable(tmp_path) as (_, theirs), rtu_units(theirs, [unit(1)]):
                await until(lambda seen=seen: listener.counters.recorded > seen)
                assert listener.trouble == ""
            await until(lambda: "is the adapter plugged in?" in listener.trouble)
            assert listener.counters.connections == 0
        assert listener.counters.connections_total == 2


async def test_a_device_that_restarts(world: World) -> None:
    attended = Attended()
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1), host="127.0.0.1", port=units.port, attendance=attended) as listener,
    ):
        await until(lambda: listener.counters.recorded)
        await units.stop()
        await until(lambda: f"127.0.0.1:{units.port}: cannot be reached" in listener.trouble)
        seen = listener.counters.recorded
        await units.start()
        await until(lambda: listener.counters.recorded > seen)
        assert listener.trouble == ""
    name = ("boiler", "quay", "serial", "u1")
    came, went, came_back = attended.said
    assert came == came_back == (*name, "connected")
    assert went[:4] == name
    assert went[4]


async def test_what_a_unit_refuses_is_told_and_the_rest_is_read(world: World) -> None:
    missing = {"name": "missing", "address": 900}
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1, *REGISTERS, missing), host="127.0.0.1", port=units.port) as listener,
    ):
        await until(lambda: listener.counters.recorded >= 2)
        assert listener.trouble == "unit 1 (serial:u1): registers 900 to 900: illegal data address (2)"
        assert listener.refusals.counts["exception_2"] >= 2
        assert listener.counters.connections == 1
    assert values(world)[0] == VALUES


async def test_what_is_no_answer_costs_its_unit_and_no_other(world: World) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(6)
                number, *_ = await reader.readexactly(int.from_bytes(head[4:], "big"))
                said = b"\x03\x02\x00\x07" if number == 1 else b"\x7f\x02\xff"
                writer.write(head[:4] + (len(said) + 1).to_bytes(2, "big") + bytes((number,)) + said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    attended = Attended()
    register = {"name": "a", "address": 0}
    there = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "timeout_s": 0.05, "retries": 0}
    async with (
        server,
        polling(world, entry(1, register), entry(2, register), attendance=attended, **there) as listener,
    ):
        await until(lambda: listener.counters.recorded >= 5 and listener.refusals.counts.get("unit_silent"))
        assert listener.counters.connections_total == 1, "the line goes on"
    assert {message["a"] for message in values(world)} == {7}
    assert [said for said in attended.said if "u1" in said] == [("boiler", "quay", "serial", "u1", "connected")]


async def test_for_a_layout_records_hold_the_bytes_of_the_registers(world: World) -> None:
    wanted = [REGISTERS[0], REGISTERS[3], REGISTERS[6]]
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1, *wanted), host="127.0.0.1", port=units.port, codec="layout", priority="event"),
    ):
        await world.bus.reached(1)
    record = world.bus.records[0]
    assert record.payload == b"\x00\xd7" + b"\x00\x02\x00\x01" + b"\x01"
    assert (record.origin.codec, record.origin.priority) == ("layout", Priority.EVENT)


async def test_what_cannot_be_recorded_is_counted(world: World) -> None:
    world.bus.failures.append(BusRefusedError("log_full", "no room"))
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1), host="127.0.0.1", port=units.port, interval_s=60) as listener,
    ):
        await until(lambda: listener.counters.refused)
        assert listener.counters.refused == {"log_full": 1}
        assert listener.counters.recorded == 0


class TestCommands:
    @pytest.fixture
    async def listener(self, world: World) -> AsyncIterator[ModbusListener]:
        async with (
            TcpUnits.running(unit(1)) as units,
            polling(world, entry(1), entry(9), host="127.0.0.1", port=units.port, interval_s=30) as listener,
        ):
            await until(lambda: listener.counters.recorded)
            yield listener

    async def test_registers_are_written_and_read_back_soon(self, world: World, listener: ModbusListener) -> None:
        assert listener.way("serial", "other") is None
        await send(listener, "setpoint", 35.5)
        await send(listener, "write", {"flow": 2.25, "on": False})
        await until(lambda: values(world)[-1]["on"] is False)  # though a turn is half a minute away
        assert values(world)[-1] == {**VALUES, "setpoint": 35.5, "flow": 2.25, "on": False}

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("temperature", 1, "no register 'temperature' to write; it has setpoint, flow, on"),
            ("setpoint", 1e9, "u16, which cannot hold"),
            ("setpoint", "x", "is a number"),
            ("write", 5, "takes an object"),
        ],
    )
    async def test_what_cannot_be_written_is_refused(
        self, listener: ModbusListener, name: str, value: object, said: str
    ) -> None:
        with pytest.raises(CommandRefusedError, match=said):
            await send(listener, name, value)

    async def test_a_unit_that_does_not_answer_may_have_it(self, listener: ModbusListener) -> None:
        with pytest.raises(DeviceGoneError, match=r"unit 9 \(serial:u9\): no answer"):
            await send(listener, "setpoint", 1, alias="u9")


async def test_a_command_while_the_line_is_down(world: World) -> None:
    async with polling(world, entry(1), serial="/nowhere") as listener:
        await until(lambda: listener.trouble)
        with pytest.raises(DeviceAbsentError, match="adapter plugged in"):
            await send(listener, "setpoint", 1)


async def test_a_unit_that_refuses_a_write(world: World) -> None:
    missing = {"name": "missing", "address": 900, "write": True}
    async with (
        TcpUnits.running(unit(1)) as units,
        polling(world, entry(1, *REGISTERS, missing), host="127.0.0.1", port=units.port) as listener,
    ):
        await until(lambda: listener.counters.recorded)
        with pytest.raises(CommandRefusedError, match=r"missing: illegal data address \(2\); setpoint was written"):
            await send(listener, "write", {"setpoint": 21, "missing": 1})


async def send(listener: ModbusListener, name: str, value: object, *, alias: str = "u1") -> None:
    way = listener.way("serial", alias)
    assert way is not None
    assert way.confirms
    await way.send(Command("c-1", 1, name, json.dumps(value).encode(), 0))
