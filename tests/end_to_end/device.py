"""MQTT devices by hand: one that says what a test wants, and a neighbour that does nothing but send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from firmware_sim.devices.packets import (
    PINGREQ,
    ConnAck,
    Incoming,
    PacketReader,
    PubAck,
    encode_connect,
    encode_publish,
)

ANSWER_S = 10.0
"""For what comes within milliseconds: long enough for a busy machine."""
PAUSE_S = 0.01
"""Between two messages of the neighbour."""
TOPIC = b"up"


class Device:
    """One connection; nothing is sent again."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.user = user
        self._port = port
        self._password = password
        self._packets = PacketReader()
        self._waiting: list[Incoming] = []
        self._packet_ids = itertools.cycle(range(1, 65_536))
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> int:
        """CONNACK's return code; 0: let in. Any other ends the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.write(encode_connect(client_id=self.user, user=self.user, password=self._password, keep_alive_s=60))
        answer = await self._next()
        assert isinstance(answer, ConnAck), answer
        if answer.return_code:
            assert await self.is_closed()
            await self.close()
        return answer.return_code

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Device]:
        assert await self.connect() == 0
        try:
            yield self
        finally:
            await self.close()

    def write(self, data: bytes) -> None:
        """Any bytes at all."""
        self._writer.write(data)

    async def publish(self, payload: bytes, topic: bytes = TOPIC) -> bool:
        """Whether it was acknowledged (QoS 1); False: the gateway closed the connection instead."""
        packet_id = next(self._packet_ids)
        self.write(encode_publish(topic, payload, packet_id=packet_id))
        answer = await self._next()
        assert answer in (PubAck(packet_id), None), answer
        return answer is not None

    async def send(self, **data: Any) -> bool:
        return await self.publish(json.dumps(data).encode())

    async def ping(self) -> bool:
        self.write(PINGREQ)
        return await self._next() is not None

    async def is_closed(self) -> bool:
        """By the gateway, in time."""
        return await self._next() is None

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _next(self) -> Incoming | None:
        """The next packet; None at the end of the connection."""
        async with asyncio.timeout(ANSWER_S):
            while not self._waiting:
                try:
                    data = await self._reader.read(4096)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._waiting += self._packets.feed(data)
        return self._waiting.pop(0)


class Neighbour:
    """A well-behaved device that sends all the while, each message once: what disturbs it shows at once."""

    def __init__(self, device: Device) -> None:
        self.acknowledged: list[int] = []
        """Seqs, in order."""
        self._device = device
        self._sending: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    async def start(self) -> None:
        assert await self._device.connect() == 0
        self.resume()

    def resume(self) -> None:
        self._stop.clear()
        self._sending = asyncio.create_task(self._send())

    async def pause(self) -> None:
        """Raises what went wrong since it began."""
        assert self._sending is not None
        self._stop.set()
        await self._sending

    async def still_sends(self) -> None:
        """Some more of its messages are acknowledged, on the connection it has had from the start."""
        assert self._sending is not None
        enough = len(self.acknowledged) + 3
        async with asyncio.timeout(ANSWER_S):
            while len(self.acknowledged) < enough:
                if self._sending.done():
                    self._sending.result()
                await asyncio.sleep(PAUSE_S)

    async def still_connected(self) -> bool:
        """While it is paused."""
        return await self._device.ping()

    async def close(self) -> None:
        await self.pause()
        await self._device.close()

    async def _send(self) -> None:
        while not self._stop.is_set():
            seq = len(self.acknowledged) + 1
            assert await self._device.send(boot=1, seq=seq), f"the neighbour lost its connection at message {seq}"
            self.acknowledged.append(seq)
            await asyncio.sleep(PAUSE_S)
