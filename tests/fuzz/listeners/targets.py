"""The listeners: what is thrown at each, and who goes on speaking to it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from protocols.coap.message import Message
from protocols.coap.numbers import Code, Kind, Option
from protocols.mqtt.connect import Connect, Will, encode_connect
from protocols.mqtt.properties import Properties
from protocols.mqtt.wire import V5, V311
from tests.fuzz.cases import PROGRAM_BYTES_MAX
from tests.fuzz.listeners import floods, speakers
from tests.fuzz.listeners.site import Place
from tests.fuzz.listeners.speakers import Speaking
from tests.fuzz.mutation import mutated
from tests.fuzz.parsers import coap, framings, http, mqtt
from tests.fuzz.parsers.texts import UUID

OPENING_SHARE: Final = 0.75
"""Of inputs whose opening stays as it is, so that the rest is looked at."""


class Listener(msgspec.Struct, frozen=True):
    """A listener of the gateway."""

    name: str
    """`listener:` and its name in the gateway's configuration."""
    flood: Callable[[Place, Sequence[bytes]], Awaitable[None]]
    """Throws inputs at it, and returns when it has taken them."""
    speaking: Speaking
    """Connects a well-behaved device to it."""
    seeds: tuple[bytes, ...]
    openings: tuple[bytes, ...] = (b"",)
    """What stands before an input for it to be looked at: a login, a handshake."""
    stays_here: bool = False
    """It can only be flooded by the process that has its other end."""

    def inputs(self, seed: int) -> Iterator[bytes]:
        """The same ones each time, without an end."""
        chance = random.Random(f"{self.name} {seed}")
        while True:
            program, opening = chance.randbytes(chance.randrange(PROGRAM_BYTES_MAX)), chance.choice(self.openings)
            if chance.random() < OPENING_SHARE:
                yield opening + mutated(program, self.seeds)
            else:
                yield mutated(program, [opening + each for each in self.seeds])


def to_port(name: str, place: Place, inputs: Sequence[bytes]) -> Awaitable[None]:
    return floods.by_connections(place.ports[name], inputs)


def connect(**more: object) -> bytes:
    return encode_connect(msgspec.structs.replace(Connect("flood", True, 60, "flood", b"network"), **more))


CONNECTS: Final = {
    V311: (connect(), connect(client_id=""), connect(clean_start=False, will=Will("gone", b"{}", 1, retain=True))),
    V5: (
        connect(version=V5),
        connect(version=V5, clean_start=False, properties=Properties(session_expiry_s=60, receive_max=2)),
        connect(version=V5, will=Will("gone", b"{}", 2, retain=False, properties=Properties(will_delay_s=1))),
    ),
}

_CODES: Final = (Code.GET, Code.POST, Code.PUT, Code.FETCH, Code.EMPTY, Code.CHANGED, 31, 255)
_VALUES: Final = (
    (Option.URI_PATH, b"down"), (Option.URI_PATH, b"response"), (Option.URI_PATH, b"\xc3\xa9"),
    (Option.URI_PATH, b"\xff"), (Option.URI_QUERY, b"key=x"), (Option.OSCORE, b"\x29\x01\x02"),
    (Option.OSCORE, b"\x19\x01\x00\x02"), (Option.OBSERVE, b""), (Option.NO_RESPONSE, b"\x02"),
)  # fmt: skip


def combined() -> Iterator[bytes]:
    """Each code with each kind and each option that means something."""
    for kind in Kind:
        for code in _CODES:
            for option in _VALUES:
                options = tuple(sorted(((int(Option.URI_PATH), b"flood"), option)))
                yield Message(kind, code, 7, b"tk", options, b"{}" if code else b"").encode()


LISTENERS: Final[dict[str, Listener]] = {
    listener.name: listener
    for listener in (
        Listener(
            "listener:mqtt",
            partial(to_port, "mqtt"),
            speakers.by_mqtt,
            (*mqtt.PACKETS[V311], *mqtt.PACKETS[V5]),
            (*CONNECTS[V311], *CONNECTS[V5]),
        ),
        Listener(
            "listener:websocket",
            partial(to_port, "websocket"),
            speakers.by_websocket,
            tuple(mqtt.frame(2, packets) for packets in mqtt.PACKETS[V311]) + tuple(
                frames.removeprefix(mqtt.HANDSHAKE) for frames in mqtt.FRAMES
            ),
            tuple(mqtt.HANDSHAKE + mqtt.frame(2, packet) for packet in CONNECTS[V311]),
        ),
        Listener("listener:coap", floods.by_coap, speakers.by_coap, (*coap.MESSAGES, *combined())),
        Listener("listener:http", partial(to_port, "http"), speakers.by_http, http.REQUESTS),
        Listener(
            "listener:tcp",
            partial(to_port, "tcp"),
            speakers.by_tcp,
            (b'{"t":21.5}\n', b'{"t":1}\r\nx\n\n', b'{"response":"' + UUID + b'"}\n', b"\xff\0\n"),
            (b"ID flood\n", b"ID flood\r\n"),
        ),
        Listener("listener:udp", floods.by_udp, speakers.by_udp, (b'{"t":21.5}\n', b'{"t":1}\nx\n\n', b"\xff\0\n")),
        Listener(
            "listener:serial",
            floods.by_serial,
            speakers.by_serial,
            framings.lines(framings.LARGE[0]),
            stays_here=True,
        ),
    )
}  # fmt: skip
