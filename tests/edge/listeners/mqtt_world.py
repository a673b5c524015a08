"""A real MqttListener on a free port over a bus in memory, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import ssl
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

from edge.listeners.collector import Collector
from edge.listeners.listener import Shared
from edge.listeners.mqtt.config import MqttConfig
from edge.listeners.mqtt.listener import MqttListener
from edge.listeners.way import DeviceAbsentError
from protocols.batch import BatchKey
from protocols.messages import Command
from protocols.mqtt.connect import Connect, encode_connect
from protocols.mqtt.packets import Subscribe, Subscription, encode_subscribe
from protocols.mqtt.wire import remaining_length
from sync.registry import Alias, Device, Network, Registry, RegistryChange
from tests.edge.listeners.memory_bus import MemoryBus, SetClock

ANSWER_S = 10.0
"""For what comes within milliseconds: long enough for a busy machine, short enough to see a test that hangs."""


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def registry_change(*, device_talk: bool = False) -> RegistryChange:
    """A snapshot with network `quay` and device `pump`."""
    pump = Device(1, "site", "pump", (Alias("quay", "serial", "pump"),), None, (digest("pump-secret"),))
    network = Network("quay", secret_sha256=(digest("network"),), device_talk=device_talk)
    return RegistryChange("demo", 0, 1, networks=(network,), devices=(pump,))


class World:
    """Network `quay` with the credential `network`, and the device `pump` with its own, `pump-secret`."""

    def __init__(self, *, registry: Registry | None = None) -> None:
        self.bus = MemoryBus()
        self.clock = SetClock()
        self.registry = Registry("demo") if registry is None else registry
        if registry is None:
            self.registry.apply(registry_change())
        self.collector = Collector(self.bus, self.clock, run=5)
        self._folder = Path(tempfile.mkdtemp(prefix="mqtt-"))
        weakref.finalize(self, shutil.rmtree, self._folder)

    def listener(self, port: int = 0, *, data_dir: Path | None = None, **options: Any) -> MqttListener:
        """Without a folder, one for this listener alone."""
        folder = self._folder if data_dir is None else data_dir
        shared = Shared(self.registry, self.collector, folder, self.has)
        return MqttListener(MqttConfig("mqtt", "quay", host="127.0.0.1", port=port, **options), shared)

    def has(self, key: BatchKey) -> bool:
        """As the log says it."""
        return key in self.bus.kept

    @contextlib.asynccontextmanager
    async def listening(self, **options: Any) -> AsyncIterator[MqttListener]:
        listener = self.listener(**options)
        task = asyncio.create_task(self.collector.run())
        await listener.start()
        try:
            yield listener
        finally:
            await Client.close_all()
            self.bus.release()
            await listener.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def send(
    listener: MqttListener, name: str, payload: bytes, *, alias: str = "pump", command_id: str = "", deadline: int = 0
) -> asyncio.Task[None]:
    """A command on its way. Raises DeviceAbsentError where there is no way."""
    way = listener.way("serial", alias)
    if way is None:
        raise DeviceAbsentError(f"serial:{alias}")
    return asyncio.create_task(way.send(Command(command_id, 1, name, payload, deadline)))


def subscribe(packet_id: int, *filters: tuple[str, int]) -> bytes:
    """Of MQTT 3.1.1."""
    return encode_subscribe(Subscribe(packet_id, tuple(Subscription(name, qos) for name, qos in filters)))


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until the condition holds: for what no event tells, such as a count of the listener."""
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0)


class Client:
    """Sends and receives bytes; `next` gives whole packets."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, *, context: ssl.SSLContext | None = None) -> Client:
        name = None if context is None else "localhost"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        client = cls(reader, writer)
        cls.opened.append(client)
        return client

    @classmethod
    async def logged_in(
        cls,
        port: int,
        user_name: str = "pump",
        password: str = "pump-secret",
        *,
        client_id: str = "c",
        keep_alive_s: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> Client:
        client = await cls.open(port, context=context)
        connect = Connect(client_id, True, keep_alive_s, user_name, password.encode())
        assert await client.asks(encode_connect(connect)) == b"\x20\x02\x00\x00"
        return client

    async def asks(self, data: bytes) -> bytes:
        """Sends, and gives the packet that is answered."""
        self.writer.write(data)
        return await self.next()

    async def next(self) -> bytes:
        async with asyncio.timeout(ANSWER_S):
            packet = await self.reader.readexactly(2)
            while (found := remaining_length(packet, 1)) is None:
                packet += await self.reader.readexactly(1)
            length, start = found
            return packet + await self.reader.readexactly(length - (len(packet) - start))

    async def ended(self) -> bytes:
        """What comes before the server closes."""
        rest = b""
        async with asyncio.timeout(ANSWER_S):
            with contextlib.suppress(ConnectionResetError):
                while data := await self.reader.read(65536):
                    rest += data
        await self.close()
        return rest

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    @classmethod
    async def close_all(cls) -> None:
        for client in cls.opened:
            await client.close()
        cls.opened.clear()
