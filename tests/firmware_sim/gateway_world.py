"""A gateway's listener of any protocol over a bus in memory, and a simulated device that speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.listeners.catalog import make_listener
from edge.listeners.coap.config import CoapConfig
from edge.listeners.http.config import HttpConfig
from edge.listeners.listener import Listener, Shared
from edge.listeners.modbus.config import ModbusConfig
from edge.listeners.mqtt.config import MqttConfig
from edge.listeners.stream_config import SerialConfig, TcpConfig, UdpConfig
from edge.listeners.way import DeviceAbsentError
from firmware_sim.devices.device import Device
from firmware_sim.devices.register_map import RegisterMap
from firmware_sim.devices.roster import Protocol, RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Surroundings
from firmware_sim.ledger import BootTally, LedgerDevice, LedgerWriter, read_ledger
from firmware_sim.signals import PROFILES
from protocols.codecs import CodecSpec
from protocols.messages import Command, Record
from tests.contract.nats_server import free_port
from tests.edge.listeners.mqtt_world import World
from tests.protocols.codecs.decoding import messages

ANSWER_S: Final = 20.0
"""For what comes within milliseconds, or after one time without an answer: long enough for a busy machine."""

BOOT: Final = 41
NOW_MS: Final = 1_790_000_000_000

CONFIGS: Final[dict[str, type[Any]]] = {
    "mqtt": MqttConfig,
    "coap": CoapConfig,
    "http": HttpConfig,
    "tcp": TcpConfig,
    "udp": UdpConfig,
    "serial": SerialConfig,
    "modbus": ModbusConfig,
}
LINES: Final = {"open": True, "ack": "OK {count}\n"}
OWN: Final[dict[str, dict[str, Any]]] = {
    "tcp": LINES | {"login": "ID {serial}"},
    "udp": LINES | {"identity": "payload"},
    "serial": LINES | {"device": "serial:pump", "baud": 115_200},
}
"""Settings of a listener as the device wants it."""


class Gateway:
    """One listener of network `quay`, at the same place however often it is started."""

    def __init__(self, protocol: Protocol, folder: Path, **settings: Any) -> None:
        self.protocol = protocol
        self.world = World()
        self.port = free_port()
        self.path = str(folder / "port") if protocol == "serial" else ""
        self.settings = OWN.get(protocol, {}) | settings
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._listener: Listener | None = None
        self._recording: asyncio.Task[None] | None = None

    @property
    def listener(self) -> Listener:
        assert self._listener is not None
        return self._listener

    @property
    def identity(self) -> RosterDevice:
        port = 0 if self.path else self.port
        return RosterDevice("pump", password="pump-secret", port=port, protocol=self.protocol, path=self.path)

    @property
    def marks(self) -> list[tuple[str, int, int]]:
        """Alias, boot and seq of all records, in order."""
        return [(one["alias"], one["boot"], one["seq"]) for one in self.data]

    @property
    def data(self) -> list[dict[str, Any]]:
        """Of all records that are no answers to commands, under `alias` whose they are."""
        codec = CodecSpec("registers") if self.protocol == "modbus" else CodecSpec()
        records = [record for record in self.world.bus.records if not _is_answer(record)]
        found = [(record, message) for record in records for message in messages(record.payload, codec)]
        return [{"alias": one.origin.alias or message["serial"], **message} for one, message in found]

    async def start(self) -> None:
        given = {"name": self.protocol, "network": "quay", **self.settings}
        if self.protocol == "modbus":
            registers = RegisterMap(PROFILES["tank"]).tables()
            unit = {"unit": 1, "device": "serial:pump", "registers": registers}
            given |= {"host": "127.0.0.1", "port": self.port, "interval_s": 0.05, "units": [unit]}
        elif self.path:
            given |= {"port": self.path}
        else:
            given |= {"host": "127.0.0.1", "port": self.port}
        world = self.world
        shared = Shared(world.registry, world.collector, self.folder)
        self._listener = make_listener(self.protocol, msgspec.convert(given, CONFIGS[self.protocol]), shared)
        self._recording = asyncio.create_task(world.collector.run())
        await self._listener.start()

    async def stop(self) -> None:
        """In order: what came is recorded and answered."""
        if self._listener is not None and self._recording is not None:
            await self._listener.close()
            self._recording.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recording
            self._listener = None

    async def tells(self, name: str, command_id: str) -> None:
        """A command to the device, once it listens."""
        command = Command(command_id, 1, name, b'{"in_s":3}', NOW_MS * 2)
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    if (way := self.listener.way("serial", "pump")) is not None:
                        await way.send(command)
                        return
                except DeviceAbsentError:
                    pass
                await asyncio.sleep(0.005)

    @property
    def answers(self) -> list[dict[str, Any]]:
        """To commands."""
        records = [record for record in self.world.bus.records if _is_answer(record)]
        return [{"topic": record.origin.topic, **msgspec.json.decode(record.payload)} for record in records]


class Bench:
    """A gateway that runs and a device that is switched on; its first boot is BOOT."""

    def __init__(self, gateway: Gateway, device: Device, around: Surroundings, ledger: LedgerWriter) -> None:
        self.gateway = gateway
        self.device = device
        self.around = around
        self.counts = around.counts
        self._ledger = ledger

    async def acknowledged(self, count: int) -> None:
        await until(lambda: self.counts.acknowledged >= count)

    async def up(self) -> None:
        await until(lambda: self.counts.connected == 1)

    def tally(self, boot: int = BOOT) -> BootTally:
        self._ledger.flush()
        return read_ledger(self._ledger.directory).of_device(0)[boot]


@contextlib.asynccontextmanager
async def bench(gateway: Gateway, *, identity: RosterDevice | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """`identity`: another than the gateway's own."""
    folder = gateway.folder / "ledger"
    with LedgerWriter(folder, wall_ms=lambda: NOW_MS) as ledger:
        around = Surroundings(asyncio.get_running_loop(), ledger=ledger, rng=random.Random(1), wall_ms=lambda: NOW_MS)
        ledger.count_boots(ledger.enroll([LedgerDevice("pump", "quay", "serial", True, BOOT - 1)]))
        chosen = DeviceSettings(**{"wait_min_s": 0.01, "wait_max_s": 0.05, "recent_messages": 10, **settings})
        chosen_identity = identity or gateway.identity
        sensors = PROFILES["tank"].sensors(random.Random(1)) if gateway.protocol == "modbus" else {}
        if gateway.protocol == "modbus":
            chosen_identity = msgspec.structs.replace(chosen_identity, profile="tank")
        device = Device(chosen_identity, 0, sensors, chosen, around)
        try:
            await gateway.start()
            device.switch_on()
            yield Bench(gateway, device, around, ledger)
        finally:
            gateway.world.bus.release()
            device.switch_off()
            around.timers.close()
            await gateway.stop()


def _is_answer(record: Record) -> bool:
    return record.origin.codec == "response" or "/response/" in record.origin.topic


async def until(condition: Callable[[], object]) -> None:
    """For what no event tells, such as a count."""
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0.005)
