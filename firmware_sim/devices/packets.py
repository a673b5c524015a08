"""The MQTT 3.1.1 packets that a device of ours sends and receives (OASIS mqtt-v3.1.1-os). Pure.

Written apart from the server's side on purpose: two readings of one standard find each other's mistakes.

    fixed header   type and flags (1 byte) | remaining length (1 to 4 bytes, 7 bits each, low first)
    CONNECT        "MQTT" | level 4 | flags | keep-alive | client id | user name | password
    PUBLISH        topic | packet id (QoS 1) | payload
    CONNACK        session present | return code
    PUBACK         packet id
    SUBSCRIBE      packet id | topic filter | QoS
    SUBACK         packet id | granted QoS
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
REMAINING_LENGTH_MAX: Final = 268_435_455
"""2.2.3: four bytes of seven bits."""
INCOMING_BYTES_MAX: Final = 64
"""The packets that a device which subscribes to nothing receives have 2 to 4 bytes; a longer one is not for it."""

COMMAND_BYTES_MAX: Final = 70_000
"""And of one that subscribes to its commands: the largest payload of a command, its topic and the headers."""

CONNECT_REFUSALS: Final = {
    1: "protocol version refused",
    2: "client id refused",
    3: "server unavailable",
    4: "wrong user name or password",
    5: "not authorised",
}
"""Return codes of CONNACK (3.2.2.3)."""

_CONNACK, _PUBACK, _SUBACK, _PINGRESP = 0x20, 0x40, 0x90, 0xD0
_FLAG_USER, _FLAG_PASSWORD, _FLAG_CLEAN = 0x80, 0x40, 0x02
_FLAG_DUP, _FLAG_QOS1 = 0x08, 0x02


class ConnAck(msgspec.Struct, frozen=True):
    return_code: int
    session_present: bool


class PubAck(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class PingResp(msgspec.Struct, frozen=True):
    pass


class SubAck(msgspec.Struct, frozen=True):
    packet_id: int
    is_granted: bool


class Told(msgspec.Struct, frozen=True):
    """A PUBLISH to the device."""

    topic: str
    payload: bytes
    packet_id: int
    """0: QoS 0, no answer is due."""


Incoming = ConnAck | PubAck | PingResp | SubAck | Told


class ProtocolError(Exception):
    """Close the connection: the server sent what the standard does not allow, or what nobody asked for."""


def encode_connect(*, client_id: str, user: str, password: str, keep_alive_s: int, clean: bool = False) -> bytes:
    flags = (_FLAG_USER if user else 0) | (_FLAG_PASSWORD if password else 0) | (_FLAG_CLEAN if clean else 0)
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, keep_alive_s) + _text(client_id)
    if user:
        body += _text(user)
    if password:
        body += _text(password)
    return b"\x10" + _length(len(body)) + body


def encode_publish(topic: bytes, payload: bytes, *, packet_id: int = 0, again: bool = False) -> bytes:
    """QoS 1 with a packet id, QoS 0 without; `topic` in UTF-8; `again` sets the DUP flag (3.3.1.1)."""
    if not packet_id:
        return b"".join(
            (b"\x30", _length(2 + len(topic) + len(payload)), len(topic).to_bytes(2, "big"), topic, payload)
        )
    return b"".join(
        (
            (0x30 | _FLAG_QOS1 | (_FLAG_DUP if again else 0)).to_bytes(1, "big"),
            _length(4 + len(topic) + len(payload)),
            len(topic).to_bytes(2, "big"),
            topic,
            packet_id.to_bytes(2, "big"),
            payload,
        )
    )


def encode_subscribe(topic_filter: bytes, packet_id: int) -> bytes:
    """With QoS 1."""
    body = packet_id.to_bytes(2, "big") + len(topic_filter).to_bytes(2, "big") + topic_filter + b"\x01"
    return b"\x82" + _length(len(body)) + body


def encode_puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


class PacketReader:
    """Takes bytes in any portions, gives whole packets."""

    def __init__(self, *, subscribes: bool = False) -> None:
        self._rest = b""
        self._subscribes = subscribes
        self._bytes_max = COMMAND_BYTES_MAX if subscribes else INCOMING_BYTES_MAX

    def feed(self, data: bytes) -> list[Incoming]:
        """Raises ProtocolError at the first packet that is wrong."""
        data = self._rest + data if self._rest else data
        packets: list[Incoming] = []
        at, end = 0, len(data)
        while end - at >= 2:
            remaining, head = data[at + 1], 2
            while data[at + head - 1] & 0x80 and head < 5 and at + head < end:
                remaining = (remaining & (1 << 7 * (head - 1)) - 1) | data[at + head] << 7 * (head - 1)
                head += 1
            if remaining > self._bytes_max - head:
                raise ProtocolError(f"packet type {data[at] >> 4} is too long for what was asked for")
            if data[at + head - 1] & 0x80 or end - at < head + remaining:
                break
            packets.append(self._packet(data[at], data[at + head : at + head + remaining]))
            at += head + remaining
        self._rest = data[at:]
        return packets

    def _packet(self, first: int, body: bytes) -> Incoming:
        if self._subscribes and first == _SUBACK and len(body) == 3:
            return SubAck(body[0] << 8 | body[1], body[2] != 0x80)
        if self._subscribes and first >> 4 == 3 and len(body) >= 4:
            return _told(first, body)
        return _packet(first, body)


def _packet(first: int, body: bytes) -> Incoming:
    if first == _PUBACK and len(body) == 2:
        return PubAck(body[0] << 8 | body[1])
    if first == _PINGRESP and not body:
        return PingResp()
    if first == _CONNACK and len(body) == 2 and body[0] <= 1:
        return ConnAck(body[1], bool(body[0]))
    raise ProtocolError(f"packet 0x{first:02x} with {len(body)} bytes is malformed or was not asked for")


def _told(first: int, body: bytes) -> Told:
    start = 2 + (body[0] << 8 | body[1])
    topic, packet_id = body[2:start], 0
    if first & 0x06:
        packet_id, start = int.from_bytes(body[start : start + 2], "big"), start + 2
    try:
        return Told(topic.decode(), body[start:], packet_id)
    except UnicodeDecodeError:
        raise ProtocolError("a topic that is no UTF-8") from None


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _length(value: int) -> bytes:
    if value < 128:
        return value.to_bytes(1, "big")
    if value > REMAINING_LENGTH_MAX:
        raise ValueError(f"a packet of {value:,} bytes cannot be written")
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(out)
