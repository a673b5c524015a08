"""Any datagrams at the socket of a CoAP listener: nothing escapes, and it goes on answering."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.coap.message import Message, decode
from protocols.coap.numbers import Code, Kind, Option
from protocols.errors import MalformedError
from tests.edge.listeners.coap_world import KEY, Client, World
from tests.edge.listeners.mqtt_world import ANSWER_S
from tests.edge.listeners.test_coap_oscore import context

CASES = 2_000

CODES = (Code.GET, Code.POST, Code.PUT, Code.FETCH, Code.EMPTY, Code.CHANGED, 31, 255)
VALUES = (
    (Option.URI_PATH, b"pump"),
    (Option.URI_PATH, b"down"),
    (Option.URI_PATH, b"response"),
    (Option.URI_PATH, b"\xc3\xa9"),
    (Option.URI_PATH, b"\xff"),
    (Option.URI_QUERY, KEY.encode()),
    (Option.URI_QUERY, b"key="),
    (Option.OSCORE, b"\x09\x01\x02"),
    (Option.OSCORE, b"\x29\x01\x02"),
    (Option.OSCORE, b"\x19\x01\x00\x02"),
    (Option.OBSERVE, b""),
    (Option.NO_RESPONSE, b"\x02"),
)
NUMBERS = (*Option, 5, 2048, 65_535)


def shaped(drawn: bytes) -> bytes:
    """Something like a request, by the bytes drawn: one draw for a message is what makes thousands of them quick."""
    code, message_id, token_bytes, damage = drawn[0], drawn[1] % 40, drawn[2] % 9, drawn[3]
    options, at = [(Option.URI_PATH, b"pump"), (Option.URI_QUERY, KEY.encode())][: drawn[4] % 3], 5
    while at + 2 < len(drawn) and drawn[at] > 32:
        if drawn[at] > 96:
            options.append(VALUES[drawn[at + 1] % len(VALUES)])
        else:
            value = drawn[at + 2 : at + 2 + drawn[at] % 8]
            options.append((NUMBERS[drawn[at + 1] % len(NUMBERS)], value))
        at += 3
    ordered = tuple(sorted((int(number), value) for number, value in options))
    kind = Kind.CONFIRMABLE if code & 0x80 else code >> 4 & 3
    message = Message(kind, CODES[code & 7], message_id, drawn[:token_bytes], ordered, drawn[at:])
    data = bytearray(message.encode())
    if damage & 3 == 3:
        data[damage % len(data)] ^= damage
    return bytes(data[: damage % len(data)] if damage & 7 == 1 else data)


DATAGRAMS = st.one_of(st.binary(min_size=6, max_size=80).map(shaped), st.binary(max_size=60))


def test_any_datagrams(tmp_path: Path) -> None:
    context(tmp_path / "contexts" / "serial:pump", "01", "02")
    escaped: list[dict[str, Any]] = []

    async def send_some() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: escaped.append(said))
        world = World()
        oscore = str(tmp_path / "contexts")
        async with world.listening(rate_max=0, oscore=oscore) as listener, Client.to(listener.port) as client:
            await asyncio.to_thread(generate, client, asyncio.get_running_loop())
            assert (await client.posts("pump", b"after all")).code == Code.CHANGED
        assert world.bus.records[-1].payload == b"after all"
        assert len(listener.refusals.counts) > 5, "the cases reach more than the first check"

    def generate(client: Client, loop: asyncio.AbstractEventLoop) -> None:
        @settings(max_examples=CASES // 4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(DATAGRAMS, min_size=4, max_size=4))
        def datagrams(several: list[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(exchange(client, several), loop).result(ANSWER_S)
            assert escaped == []

        datagrams()

    async def exchange(client: Client, several: list[bytes]) -> None:
        for data in several:
            client.send(data)
        client.send(b"\x40\x00\xff\xff")
        while (answer := await client.next_bytes()) != b"\x70\x00\xff\xff":
            check(answer)

    def check(answer: bytes) -> None:
        try:
            message = decode(answer)
        except MalformedError as error:
            raise AssertionError(f"{answer.hex()}: {error.detail}") from None
        assert message.kind != Kind.CONFIRMABLE

    asyncio.run(send_some())
    assert escaped == []
