"""What the gateway fetches itself: registers of Modbus units, and messages of an existing broker.

    .venv/bin/python -m benchmarks polled

Modbus: as many polls as go, of units with ten registers each, played by pymodbus in a process of its own. Broker: a
session's backlog at mosquitto, to its last acknowledgement. Both listeners stand in front of a bus that takes
everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import uvloop
from pymodbus.client import AsyncModbusTcpClient

from benchmarks.beside import serving
from benchmarks.mqtt import SEED, InstantBus
from benchmarks.row import Row
from benchmarks.telemetry import payload
from edge.listeners.broker.config import BrokerConfig
from edge.listeners.broker.listener import make_listener as make_broker
from edge.listeners.clock import SystemClock
from edge.listeners.collector import Collector
from edge.listeners.listener import Listener, Shared
from edge.listeners.modbus.config import ModbusConfig
from edge.listeners.modbus.listener import make_listener as make_modbus
from sync.registry import Registry
from tests.contract.modbus_units import TcpUnits, unit
from tests.contract.mosquitto import Mosquitto, program

UNITS: Final = 100
REGISTERS: Final = 10
INTERVAL_S: Final = 0.05
"""The shortest there is: UNITS of them ask for more polls than one line carries."""
WARM_UP_S: Final = 0.5
BACKLOG_PER_S: Final = 10_000
"""Messages that the broker keeps, for each second that this is to take."""
SESSION: Final = "benchmark"
TOPIC: Final = "sensors/bench/up"
PATIENCE_S: Final = 120.0
LOOK_S: Final = 0.01


def rows(seconds: float) -> list[Row]:
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    with serving(sys.executable, "-m", "benchmarks.polled") as port:
        polls = await _polls_per_s(port, seconds)
        bare_polls = await _bare_polls_per_s(port, seconds)
    with TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        count = int(BACKLOG_PER_S * seconds)
        messages = await _messages_per_s(Path(folder), count)
        bare_messages = await _bare_messages_per_s(Path(folder), count)
    return [
        Row(
            f"Modbus TCP polls of one line, {REGISTERS} registers each",
            polls,
            "records/s",
            baseline="pymodbus alone, nothing recorded",
            baseline_measured=bare_polls,
            note="one request at a time, as a line has it",
        ),
        Row(
            "messages of an existing broker, each acknowledged",
            messages,
            "messages/s",
            baseline="mosquitto_sub, nothing recorded",
            baseline_measured=bare_messages,
            note=f"a backlog of {count:,} at mosquitto, QoS 1",
        ),
    ]


async def _play_units() -> None:
    units = TcpUnits(*(unit(number) for number in range(1, UNITS + 1)))
    await units.start()
    print(units.port, flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def _listening(make: Callable[[Shared], Listener], folder: Path) -> AsyncIterator[Listener]:
    collector = Collector(InstantBus(), SystemClock(), run=1)
    collecting = asyncio.create_task(collector.run())
    listener = make(Shared(Registry("bench"), collector, folder))
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()
        collecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await collecting


async def _polls_per_s(port: int, seconds: float) -> float:
    registers = [{"name": f"r{address}", "address": address} for address in range(REGISTERS)]
    units = [{"unit": number, "device": f"serial:u{number}", "registers": registers} for number in range(1, UNITS + 1)]
    config = _config(ModbusConfig, host="127.0.0.1", port=port, interval_s=INTERVAL_S, units=units)
    async with _listening(lambda shared: make_modbus(config, shared), Path()) as listener:
        await _until(lambda: listener.counters.recorded > 0)
        await asyncio.sleep(WARM_UP_S)
        before, begun_s = listener.counters.recorded, time.perf_counter()
        await asyncio.sleep(seconds)
        return (listener.counters.recorded - before) / (time.perf_counter() - begun_s)


async def _bare_polls_per_s(port: int, seconds: float) -> float:
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    polls, begun_s = 0, time.perf_counter()
    while (now_s := time.perf_counter()) < begun_s + seconds:
        answer = await client.read_holding_registers(0, count=REGISTERS, device_id=polls % UNITS + 1)
        assert not answer.isError()
        polls += 1
    client.close()
    return polls / (now_s - begun_s)


async def _messages_per_s(folder: Path, count: int) -> float:
    async with _broker(folder / "listener") as broker:
        config = _config(
            BrokerConfig, host="127.0.0.1", port=broker.port, user="gateway", password="secret", client_id=SESSION,
            templates=["sensors/{serial}/up"],
        )  # fmt: skip
        async with _listening(lambda shared: make_broker(config, shared), folder) as listener:
            await _until(lambda: listener.counters.connections == 1)
        await _fill(broker, count)
        begun_s = time.perf_counter()
        async with _listening(lambda shared: make_broker(config, shared), folder) as listener:
            await _until(lambda: listener.counters.recorded >= count)
            return count / (time.perf_counter() - begun_s)


async def _bare_messages_per_s(folder: Path, count: int) -> float:
    async with _broker(folder / "bare") as broker:
        command = [
            program("mosquitto_sub"), "-p", str(broker.port), "-u", "gateway", "-P", "secret", "-c", "-i", SESSION,
            "-q", "1", "-t", TOPIC,
        ]  # fmt: skip
        subscribing = await asyncio.create_subprocess_exec(*command, "-E")
        assert await subscribing.wait() == 0
        await _fill(broker, count)
        begun_s = time.perf_counter()
        reading = await asyncio.create_subprocess_exec(*command, "-C", str(count), stdout=asyncio.subprocess.DEVNULL)
        assert await reading.wait() == 0
        return count / (time.perf_counter() - begun_s)


@asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[Mosquitto]:
    folder.mkdir()
    settings = ("autosave_on_changes false", "autosave_interval 1800", "max_queued_messages 0")
    async with Mosquitto.running(folder, *settings) as broker:
        yield broker


async def _fill(broker: Mosquitto, count: int) -> None:
    chance = random.Random(SEED)
    for begin in range(0, count, 10_000):
        await broker.publish(TOPIC, *(payload(chance, number) for number in range(begin, min(begin + 10_000, count))))


def _config(kind: type[Any], **settings: Any) -> Any:
    return msgspec.convert({"name": "bench", "network": "bench", **settings}, kind)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    uvloop.run(_play_units())
