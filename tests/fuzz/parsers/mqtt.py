"""MQTT as a server reads it: from the first byte, and behind a CONNECT of each version; the same over WebSocket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final

from edge.listeners.mqtt.websocket import WebSocketDoor
from protocols.limits import MQTT_PACKET_BYTES_MAX
from protocols.mqtt import wire
from protocols.mqtt.connect import Connect, Will, encode_connect
from protocols.mqtt.incoming import Incoming, Received
from protocols.mqtt.packets import (
    Ack,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    encode_ack,
    encode_acks,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from protocols.mqtt.properties import Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.wire import V5, V311
from tests.fuzz.target import TAKEN, Parser, Stretch, cuts_of, in_pieces
from tests.fuzz.transport import NO_LOOP, Wire
from tests.protocols.mqtt.test_incoming import feed, open_one, open_v5

WILL = Will("gone", b"bye", 1, retain=True)
USER = Properties(user=(("site", "quay"), ("line", "2")))
CONNECTS: Final = (
    encode_connect(Connect("pump", True, 60, "pump", b"pump-secret", WILL)),
    encode_connect(Connect("", True, version=V5)),
    encode_connect(
        Connect("pump", False, 5, "pump", b"x", Will("gone", b"", 2, retain=False, properties=USER), V5,
                Properties(session_expiry_s=60, receive_max=20, topic_alias_max=5, packet_bytes_max=1000))
    ),
)  # fmt: skip


def packets(version: int) -> tuple[bytes, ...]:
    """One of each kind that a client sends."""
    return (
        encode_publish(Publish("up", b'{"t":21.5}', 1, 7), version) * 2,
        encode_publish(Publish("up/fast", b"x"), version) * 3,
        encode_publish(Publish("ü/$x", b"", 2, 65_535, retain=True, dup=True), version),
        encode_subscribe(Subscribe(7, (Subscription("down/#", 1), Subscription("+/x", 2))), version),
        encode_unsubscribe(Unsubscribe(8, ("down/#", "$share/a/b")), version),
        b"".join(encode_acks(kind, [b"\0\1", b"\xff\xff"]) for kind in (wire.PUBACK, wire.PUBREC, wire.PUBCOMP)),
        encode_acks(wire.PUBREL, [b"\0\1"]) + wire.PINGREQ_PACKET * 2,
        wire.PINGREQ_PACKET + wire.DISCONNECT_PACKET,
    )


PACKETS: Final = {
    V311: packets(V311),
    V5: (
        *packets(V5),
        encode_publish(Publish("up", b"{}", 1, 9, properties=Properties(
            payload_format=1, message_expiry_s=60, content_type="application/json", response_topic="a/b",
            correlation=b"\0\xff", topic_alias=3, user=(("a", "b"), ("a", "")))), V5),
        encode_publish(Publish("", b"{}", properties=Properties(topic_alias=3)), V5),
        encode_ack(Ack(wire.PUBREL, 5, Reason.PACKET_ID_NOT_FOUND, Properties(reason="why")), V5),
        encode_subscribe(
            Subscribe(7, (Subscription("down/#", 1, True, True, 2),), Properties(subscription_ids=(5,))), V5
        ),
        b"\xe0\x01\x04",
        b"\xe0\x07\x00\x05\x11\x00\x00\x00\x0a",
    ),
}  # fmt: skip


def frame(opcode: int, data: bytes, *, last: bool = True) -> bytes:
    """Of a WebSocket client, masked by zeros (RFC 6455, section 5.2)."""
    size = len(data)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((0x80 * last | opcode,)) + length + bytes(4) + data


HANDSHAKE: Final = (
    b"GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
FRAMES: Final = tuple(
    HANDSHAKE + frames
    for frames in (
        frame(2, CONNECTS[0]) + frame(2, PACKETS[V311][0]),
        frame(2, CONNECTS[0][:9], last=False) + frame(9, b"ping") + frame(0, CONNECTS[0][9:]) + frame(10, b""),
        frame(2, b"x" * 200) + frame(8, b"\x03\xe8bye"),
        frame(1, b"text"),
    )
)


def reads(make: Callable[[], Incoming]) -> Callable[[bytes], str]:
    def check(data: bytes) -> str:
        one, other = make(), make()
        items, output, error = feed(one, data, [])
        cut = feed(other, data, cuts_of(data))
        assert (cut[0], cut[1], bool(cut[2])) == (items, output, bool(error)), "cut otherwise, it gives something else"
        assert max(one.held_bytes, other.held_bytes) <= MQTT_PACKET_BYTES_MAX
        if error:
            assert one.receive(CONNECTS[0]) == Received([]), "an error ends it for good"
        return "refused" if error else TAKEN

    return check


class _Inner(asyncio.Protocol):
    """Keeps what a door gives it."""

    def __init__(self) -> None:
        self.got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data


def through_door(pieces: Iterable[bytes]) -> tuple[bytes, bytes, bool]:
    """What came through, what was answered, whether it ended."""
    inner, wire_ = _Inner(), Wire()
    door = WebSocketDoor(lambda: inner, NO_LOOP)
    wire_.connect(door)
    for piece in pieces:
        wire_.deliver(piece)
    return bytes(inner.got), re.sub(rb"Date: .*", b"", bytes(wire_.written)), wire_.is_closing()


def reads_websocket(data: bytes) -> str:
    got, answered, ends = through_door([data])
    cut = through_door(in_pieces(data))
    assert (cut[0], cut[2]) == (got, ends), "cut otherwise, it gives something else"
    assert len(got) <= len(data)
    if not answered.startswith(b"HTTP/1.1 101 "):
        return "handshake"
    return TAKEN if not ends else "closed"


PARSERS: Final = (
    Parser("mqtt", reads(Incoming), CONNECTS),
    Parser(
        "mqtt:3.1.1",
        reads(open_one),
        PACKETS[V311],
        stretches=(
            Stretch(b"", PACKETS[V311][0]),
            Stretch(b"", b"\x30\x03\x00\x01a"),
            Stretch(b"", b"\x30\x03\x00\x01a\x30\x03\x00\x01b"),
            Stretch(b"", b"\xc0\x00"),
            Stretch(b"", b"\x40\x02\x00\x01\x50\x02\x00\x01"),
        ),
    ),
    Parser(
        "mqtt:5",
        reads(open_v5),
        PACKETS[V5],
        stretches=(
            Stretch(b"", PACKETS[V5][-6]),
            Stretch(b"", b"\x30\x04\x00\x01a\x00"),
            Stretch(b"", b"\x40\x03\x00\x01\x10\x50\x03\x00\x01\x10"),
            Stretch(b"\x82\xfa\x1f\x00\x01\x00", b"\x00\x01a\x00"),
            Stretch(b"\x30\x84\x20\x00\x01a\xfe\x1f", b"\x26\x00\x00\x00\x00"),
        ),
    ),
    Parser(
        "mqtt:websocket",
        reads_websocket,
        FRAMES,
        stretches=(
            Stretch(HANDSHAKE, frame(2, b"x")),
            Stretch(HANDSHAKE, frame(9, b"")),
            Stretch(HANDSHAKE + frame(2, b"", last=False), frame(0, b"", last=False)),
            Stretch(b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"\r\n"),
            Stretch(b"GET /", b"x"),
        ),
        steps_per_byte=100,
    ),
)
