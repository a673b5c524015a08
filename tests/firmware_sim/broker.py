"""A small MQTT server for tests of the client side: it parses by its own reading of the standard, and answers as it is
told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec


@dataclass
class Published:
    raw: bytes
    packet_id: int
    again: bool
    user: str

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.raw)
        return found

    @property
    def mark(self) -> tuple[str, int, int]:
        return self.user, self.payload["boot"], self.payload["seq"]


@dataclass
class Broker:
    """`answers` False: takes messages and says nothing. `return_code`: of each CONNACK."""

    answers: bool = True
    return_code: int = 0
    port: int = 0
    published: list[Published] = field(default_factory=list)
    connects: list[dict[str, Any]] = field(default_factory=list)
    subscribed: list[bytes] = field(default_factory=list)
    answers_to_commands: list[tuple[str, bytes]] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    """Packet ids of what was sent to devices."""
    pings: int = 0
    goodbyes: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """As SIGKILL would: connections are reset, the port is free."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Resets all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def tell(self, topic: str, payload: bytes, packet_id: int) -> None:
        """To all that are connected, with QoS 1."""
        body = len(topic).to_bytes(2, "big") + topic.encode() + packet_id.to_bytes(2, "big") + payload
        assert len(body) < 16_384
        for writer in self._writers:
            writer.write(bytes((0x32, len(body) & 0x7F | 0x80, len(body) >> 7)) + body)

    async def until(self, reached: Any) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(reached)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        user = ""
        try:
            while True:
                first, body = await _packet(reader)
                if first == 0x10:
                    connect = _connect(body)
                    user = connect["user"]
                    self.connects.append(connect)
                    writer.write(bytes((0x20, 2, 0, self.return_code)))
                elif first & 0xF0 == 0x30:
                    self._take(first, body, user, writer)
                elif first == 0x82:
                    self.subscribed.append(body[4:-1])
                    writer.write(b"\x90\x03" + body[:2] + b"\x01")
                elif first == 0x40:
                    self.acknowledged.append(int.from_bytes(body, "big"))
                elif first == 0xC0:
                    self.pings += 1
                    if self.answers:
                        writer.write(b"\xd0\x00")
                elif first == 0xE0:
                    self.goodbyes += 1
                else:
                    raise AssertionError(f"unexpected packet {first:02x}")
                async with self.changed:
                    self.changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, first: int, body: bytes, user: str, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        packet_id = 0
        if first & 0x06:
            packet_id, rest = int.from_bytes(rest[:2], "big"), rest[2:]
            assert packet_id
        if topic == "up":
            self.published.append(Published(rest, packet_id, bool(first & 0x08), user))
        else:
            self.answers_to_commands.append((topic, rest))
        if self.answers and packet_id:
            writer.write(b"\x40\x02" + packet_id.to_bytes(2, "big"))


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    remaining = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        remaining |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first, await reader.readexactly(remaining)


def _connect(body: bytes) -> dict[str, Any]:
    assert body[:7] == b"\x00\x04MQTT\x04"
    texts, rest = [], body[10:]
    while rest:
        length = int.from_bytes(rest[:2], "big")
        texts.append(rest[2 : 2 + length].decode())
        rest = rest[2 + length :]
    return {
        "flags": body[7],
        "keep_alive_s": int.from_bytes(body[8:10], "big"),
        "client_id": texts[0],
        "user": texts[1] if len(texts) > 1 else "",
        "password": texts[2] if len(texts) > 2 else "",
    }
