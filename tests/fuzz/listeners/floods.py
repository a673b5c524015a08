"""Inputs, thrown at a listener from a bounded number of connections; what they are answered is of no interest, but
that it is well formed where a rule says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from protocols.coap.message import decode
from protocols.coap.numbers import Kind
from tests.edge.listeners.coap_world import Client
from tests.fuzz.listeners.serial_line import SerialLine
from tests.fuzz.listeners.site import ELSEWHERE, HERE, Place

CONNECTIONS: Final = 8
"""At a time."""
LISTEN_S: Final = 0.5
"""For the gateway to end a connection whose other side has ended; one that it keeps (a poll) is cut off."""
ANSWER_S: Final = 20.0
"""For an answer that comes within milliseconds."""
DATAGRAMS: Final = 16
"""Between two moments in which the gateway has caught up: so that the kernel drops none."""
DATAGRAM_BYTES_MAX: Final = 1400


async def by_connections(port: int, inputs: Sequence[bytes]) -> None:
    """Each on a connection of its own."""
    left = iter(inputs)

    async def some() -> None:
        for data in left:
            with contextlib.suppress(ConnectionError):  # which is how it may refuse what is not to be read
                await _on_a_connection(port, data)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(some())


async def _on_a_connection(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(HERE, port, local_addr=(ELSEWHERE, 0))
    try:
        writer.write(data)
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S):
                while await reader.read(65_536):
                    pass
    finally:
        writer.transport.abort()


async def by_coap(place: Place, inputs: Sequence[bytes]) -> None:
    """A ping behind each few shows that they were read. Whatever is answered is a message, and asks for nothing."""
    async with Client.to(place.ports["coap"], here=(ELSEWHERE, 0)) as client:
        for several in some_at_a_time(inputs):
            for data in several:
                client.send(data[:DATAGRAM_BYTES_MAX])
            client.send(b"\x40\x00\xff\xff")
            async with asyncio.timeout(ANSWER_S):
                while (answer := await client.next_bytes()) != b"\x70\x00\xff\xff":
                    assert decode(answer).kind != Kind.CONFIRMABLE


async def by_udp(place: Place, inputs: Sequence[bytes]) -> None:
    """A frame behind each few, from another port, shows that they were read."""
    address = (ELSEWHERE, 0)
    async with (
        Client.to(place.ports["udp"], here=address) as client,
        Client.to(place.ports["udp"], here=address) as last,
    ):
        for several in some_at_a_time(inputs):
            for data in several:
                client.send(data[:DATAGRAM_BYTES_MAX])
            last.send(b"{}\n")
            async with asyncio.timeout(ANSWER_S):
                assert (await last.next_bytes()).startswith(b"OK ")


async def by_serial(place: Place, inputs: Iterable[bytes]) -> None:
    """One after the other, as a line has it."""
    async with SerialLine.on(place.serial["serial"]) as line:
        for data in inputs:
            async with asyncio.timeout(ANSWER_S):
                await line.write(data)


def some_at_a_time(inputs: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(inputs), DATAGRAMS):
        yield inputs[at : at + DATAGRAMS]
