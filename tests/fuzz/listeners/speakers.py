"""Well-behaved devices, one of each protocol: a payload is said, and then it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from protocols.coap.numbers import Code
from protocols.framing import make_framing
from protocols.mqtt.connect import Connect, encode_connect
from protocols.mqtt.packets import Publish, encode_acks, encode_publish
from protocols.mqtt.wire import PUBACK
from tests.edge.listeners import coap_world, http_world
from tests.end_to_end.device import Device
from tests.fuzz.listeners.serial_line import SerialLine
from tests.fuzz.listeners.site import HERE, Place
from tests.fuzz.parsers.framings import LARGE

Say = Callable[[bytes], Awaitable[None]]
"""Returns when the payload is acknowledged; AssertionError, or OSError: it is not."""
Speaking = Callable[[Place], contextlib.AbstractAsyncContextManager[Say]]

NAME: Final = "neighbour"
FRAMING: Final = make_framing(LARGE[0])


@contextlib.asynccontextmanager
async def by_mqtt(place: Place) -> AsyncIterator[Say]:
    async with Device(place.ports["mqtt"], NAME, "network").connected() as device:

        async def say(payload: bytes) -> None:
            assert await device.publish(payload), "the connection was closed"

        yield say


@contextlib.asynccontextmanager
async def by_websocket(place: Place) -> AsyncIterator[Say]:
    url = f"ws://{HERE}:{place.ports['websocket']}/mqtt"
    async with connect(url, subprotocols=[Subprotocol("mqtt")], proxy=None) as socket:
        await socket.send(encode_connect(Connect(NAME, True, 0, NAME, b"network")))
        assert await socket.recv() == b"\x20\x02\x00\x00"

        async def say(payload: bytes) -> None:
            await socket.send(encode_publish(Publish("up", payload, 1, 7)))
            assert await socket.recv() == encode_acks(PUBACK, [b"\0\7"])

        yield say


@contextlib.asynccontextmanager
async def by_http(place: Place) -> AsyncIterator[Say]:
    async with http_world.Client.open(place.ports["http"]) as client:

        async def say(payload: bytes) -> None:
            assert (await client.asks(http_world.post(f"/{NAME}", payload, ""))).status == 204

        yield say


@contextlib.asynccontextmanager
async def by_coap(place: Place) -> AsyncIterator[Say]:
    async with coap_world.Client.to(place.ports["coap"]) as client:

        async def say(payload: bytes) -> None:
            assert (await client.posts(NAME, payload, query="")).code == Code.CHANGED

        yield say


@contextlib.asynccontextmanager
async def by_tcp(place: Place) -> AsyncIterator[Say]:
    reader, writer = await asyncio.open_connection(HERE, place.ports["tcp"])
    writer.write(f"ID {NAME}\n".encode())
    count = 0

    async def say(payload: bytes) -> None:
        nonlocal count
        count += 1
        writer.write(payload + b"\n")
        assert await reader.readline() == b"OK %d\n" % count

    try:
        yield say
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def by_udp(place: Place) -> AsyncIterator[Say]:
    async with coap_world.Client.to(place.ports["udp"]) as client:

        async def say(payload: bytes) -> None:
            client.send(payload + b"\n")
            assert (await client.next_bytes()).startswith(b"OK ")

        yield say


@contextlib.asynccontextmanager
async def by_serial(place: Place) -> AsyncIterator[Say]:
    async with SerialLine.on(place.serial["serial-neighbour"]) as line:

        async def say(payload: bytes) -> None:
            await line.write(FRAMING.encode(payload))
            assert await line.read(1) == b"\x06"

        yield say
