"""A real HttpListener on a free port over a bus in memory, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from edge.listeners.attendance import UNATTENDED, Attendance
from edge.listeners.http.config import HttpConfig
from edge.listeners.http.listener import HttpListener, make_listener
from edge.listeners.listener import Shared
from tests.edge.listeners.mqtt_world import ANSWER_S, World


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = msgspec.json.decode(self.body)
        assert found["status"] == self.status
        return found


def basic(name: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}\r\n"


PUMP = basic("pump", "pump-secret")


def post(path: str = "/pump", body: bytes = b'{"t":1}', head: str = PUMP) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: gateway\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, head: str = PUMP) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: gateway\r\n{head}\r\n".encode()


@contextlib.asynccontextmanager
async def listening(
    world: World, *, attendance: Attendance = UNATTENDED, **options: Any
) -> AsyncIterator[HttpListener]:
    config = msgspec.convert({"name": "http", "network": "quay", "host": "127.0.0.1", "port": 0, **options}, HttpConfig)
    listener = make_listener(config, Shared(world.registry, world.collector, Path(), attendance=attendance))
    task = asyncio.create_task(world.collector.run())
    await listener.start()
    try:
        yield listener
    finally:
        world.bus.release()
        await listener.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Client]:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            yield client
        finally:
            client.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()

    async def asks(self, data: bytes) -> Reply:
        self.writer.write(data)
        return await self.reply()

    async def reply(self) -> Reply:
        """The next answer, read by its own rules: what was asked was written as bytes."""
        async with asyncio.timeout(ANSWER_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(status.split()[1]), headers, body)

    async def ended(self) -> bytes:
        """What comes before the server ends its side."""
        async with asyncio.timeout(ANSWER_S):
            return await self.reader.read()
