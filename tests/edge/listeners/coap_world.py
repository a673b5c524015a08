"""A real CoapListener on a free port over a bus in memory, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from edge.listeners.coap.config import CoapConfig
from edge.listeners.coap.listener import CoapListener
from edge.listeners.collector import Collector
from edge.listeners.listener import Shared
from protocols.coap.message import Block, Message, decode, uint
from protocols.coap.numbers import Code, Kind, Option
from sync.registry import Alias, Device, Network, Registry, RegistryChange
from tests.edge.listeners.frame_world import Attended
from tests.edge.listeners.memory_bus import MemoryBus, SetClock
from tests.edge.listeners.mqtt_world import ANSWER_S, digest

KEY = "key=pump-secret"


class World:
    """Network `quay` with the credential `network`, and the device `pump` with its own, `pump-secret`."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.registry = Registry("demo")
        pump = Device(1, "site", "pump", (Alias("quay", "serial", "pump"),), None, (digest("pump-secret"),))
        network = Network("quay", secret_sha256=(digest("network"),))
        self.registry.apply(RegistryChange("demo", 0, 1, networks=(network,), devices=(pump,)))
        self.collector = Collector(self.bus, SetClock(), run=5)
        self.attendance = Attended()

    @contextlib.asynccontextmanager
    async def listening(self, **settings: Any) -> AsyncIterator[CoapListener]:
        settings = {"host": "127.0.0.1", "templates": ("sensors/{serial}/up", "{serial}")} | settings
        config = CoapConfig(name="coap", network="quay", **{"port": 0} | settings)
        shared = Shared(self.registry, self.collector, Path(), attendance=self.attendance)
        listener = CoapListener(config, shared)
        task = asyncio.create_task(self.collector.run())
        await listener.start()
        try:
            yield listener
        finally:
            self.bus.release()
            await listener.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Client(asyncio.DatagramProtocol):
    """Sends and receives datagrams."""

    def __init__(self) -> None:
        self._got: asyncio.Queue[bytes] = asyncio.Queue()
        self._ids = itertools.count(1)
        self.transport: asyncio.DatagramTransport

    @classmethod
    @contextlib.asynccontextmanager
    async def to(
        cls, port: int, host: str = "127.0.0.1", *, here: tuple[str, int] | None = None
    ) -> AsyncIterator[Client]:
        """`here`: an address of this machine to send from."""
        transport, client = await asyncio.get_running_loop().create_datagram_endpoint(
            cls, local_addr=here, remote_addr=(host, port)
        )
        client.transport = transport
        try:
            yield client
        finally:
            transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._got.put_nowait(data)

    def message(
        self,
        path: str,
        payload: bytes = b"",
        *,
        code: int = Code.POST,
        kind: int = Kind.CONFIRMABLE,
        query: str = KEY,
        block: Block | None = None,
        message_id: int = 0,
        options: tuple[tuple[int, bytes], ...] = (),
    ) -> Message:
        found = [(int(Option.URI_PATH), level.encode()) for level in path.split("/")]
        found += [(int(Option.URI_QUERY), query.encode())] if query else []
        found += [(int(Option.BLOCK1), block.encode())] if block is not None else []
        message_id = message_id or next(self._ids)
        ordered = tuple(sorted([*found, *options], key=lambda option: option[0]))
        return Message(kind, code, message_id, b"tk" + uint(message_id), ordered, payload)

    def send(self, message: Message | bytes) -> None:
        self.transport.sendto(message if isinstance(message, bytes) else message.encode())

    async def next_bytes(self) -> bytes:
        async with asyncio.timeout(ANSWER_S):
            return await self._got.get()

    async def next(self) -> Message:
        return decode(await self.next_bytes())

    async def asks(self, message: Message | bytes) -> Message:
        self.send(message)
        return await self.next()

    async def posts(self, path: str, payload: bytes = b"", **how: Any) -> Message:
        """The answer to a message, which it must be."""
        asked = self.message(path, payload, **how)
        answer = await self.asks(asked)
        assert answer.token == asked.token
        if asked.kind == Kind.CONFIRMABLE:
            assert (answer.kind, answer.message_id) == (Kind.ACKNOWLEDGEMENT, asked.message_id)
        return answer

    @property
    def is_quiet(self) -> bool:
        return self._got.empty()
