"""MQTT 3.1.1 control packets: values to bytes and back, for both sides.

    byte 1     packet type (4 bits), flags (4 bits)          section 2.2
    byte 2 …   remaining length, 1 to 4 bytes of 7 bits      section 2.2.3
    …          variable header and payload, `remaining length` bytes: the *body* below

`decode_*` takes a body and raises a MqttError. The session reads PUBLISH packets without them, many in one pass.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.mqtt.errors import IdentifierError, LevelError, MalformedPacketError, ViolationError
from protocols.mqtt.topics import decode_filter, decode_text, decode_topic

PROTOCOL_NAME: Final = b"MQTT"
PROTOCOL_LEVEL: Final = 4
REMAINING_LENGTH_MAX: Final = 268_435_455
"""Four bytes of seven bits (section 2.2.3)."""

CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBSCRIBE: Final = 0x82
SUBACK: Final = 0x90
UNSUBSCRIBE: Final = 0xA2
UNSUBACK: Final = 0xB0
PINGREQ: Final = 0xC0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
"""First bytes, with the flags that table 2.2 prescribes; PUBLISH has flags of its own."""

PACKET_NAMES: Final = (
    "reserved packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "reserved packet type 15",
)  # fmt: skip

SUBSCRIPTION_REFUSED: Final = 0x80
PINGREQ_PACKET: Final = b"\xc0\x00"
PINGRESP_PACKET: Final = b"\xd0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"
_PUBACK_HEAD: Final = b"\x40\x02"

_WORD: Final = struct.Struct(">H")


class ConnectCode(enum.IntEnum):
    """Return codes of CONNACK (table 3.1)."""

    ACCEPTED = 0
    UNACCEPTABLE_LEVEL = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


class Will(msgspec.Struct, frozen=True):
    """What a client wants published when it is gone without a DISCONNECT (section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(msgspec.Struct, frozen=True):
    client_id: str
    clean_session: bool = True
    keep_alive_s: int = 0
    """0: none."""
    user_name: str | None = None
    password: bytes | None = None
    will: Will | None = None

    def __repr__(self) -> str:
        """Without the password, which must not reach a log."""
        return f"Connect(client_id={self.client_id!r}, user_name={self.user_name!r}, keep_alive_s={self.keep_alive_s})"


class Publish(msgspec.Struct, frozen=True):
    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    """1 to 65,535 with QoS 1 and 2, else 0."""
    retain: bool = False
    dup: bool = False


def remaining_length(data: bytes, at: int) -> tuple[int, int] | None:
    """The length that starts at `at`, and where the body starts; None while bytes are missing."""
    length = 0
    for place in range(4):
        if at + place >= len(data):
            return None
        byte = data[at + place]
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return length, at + place + 1
    raise MalformedPacketError("remaining length is longer than 4 bytes", "section 2.2.3")


def encode_packet(first: int, body: bytes) -> bytes:
    length = len(body)
    if length > REMAINING_LENGTH_MAX:
        raise ValueError(f"a packet body of {length:,} bytes; MQTT allows {REMAINING_LENGTH_MAX:,}")
    head = bytearray((first,))
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def encode_connect(connect: Connect) -> bytes:
    flags = connect.clean_session << 1
    fields = [_text(connect.client_id)]
    if connect.will is not None:
        flags |= 0x04 | connect.will.qos << 3 | connect.will.retain << 5
        fields += (_text(connect.will.topic), _field(connect.will.payload))
    if connect.user_name is not None:
        flags |= 0x80
        fields.append(_text(connect.user_name))
    if connect.password is not None:
        flags |= 0x40
        fields.append(_field(connect.password))
    head = _field(PROTOCOL_NAME) + bytes((PROTOCOL_LEVEL, flags)) + _WORD.pack(connect.keep_alive_s)
    return encode_packet(CONNECT, head + b"".join(fields))


def decode_connect(body: bytes) -> Connect:
    """Section 3.1. Raises LevelError or IdentifierError where the standard has an answer, else closes without one."""
    reader = _Reader(body, "CONNECT")
    name, level = reader.field("protocol name"), reader.byte("protocol level")
    if (name, level) != (PROTOCOL_NAME, PROTOCOL_LEVEL):
        if name not in (PROTOCOL_NAME, b"MQIsdp"):  # the latter: the name of MQTT 3.1
            raise MalformedPacketError(f"protocol name {name[:16]!r} instead of {PROTOCOL_NAME!r}", "MQTT-3.1.2-1")
        raise LevelError(f"protocol level {level}; this server speaks level 4 (MQTT 3.1.1)", "MQTT-3.1.2-2")
    flags = reader.byte("connect flags")
    _check_connect_flags(flags)
    keep_alive_s = reader.word("keep alive")
    client_id = decode_text(reader.field("client identifier"), "client identifier")
    will = None
    if flags & 0x04:
        topic = decode_topic(reader.field("will topic"))
        will = Will(topic, reader.field("will message"), flags >> 3 & 3, bool(flags & 0x20))
    user_name = decode_text(reader.field("user name"), "user name") if flags & 0x80 else None
    password = reader.field("password") if flags & 0x40 else None
    reader.finish("MQTT-3.1.4-1")
    clean_session = bool(flags & 0x02)
    if not client_id and not clean_session:
        raise IdentifierError("an empty client identifier needs a clean session", "MQTT-3.1.3-8")
    return Connect(client_id, clean_session, keep_alive_s, user_name, password, will)


def _check_connect_flags(flags: int) -> None:
    if flags & 0x01:
        raise MalformedPacketError("reserved connect flag is set", "MQTT-3.1.2-3")
    if flags & 0x04:
        if flags & 0x18 == 0x18:
            raise MalformedPacketError("will QoS is 3", "MQTT-3.1.2-14")
    elif flags & 0x18:
        raise MalformedPacketError("will QoS without a will", "MQTT-3.1.2-13")
    elif flags & 0x20:
        raise MalformedPacketError("will retain without a will", "MQTT-3.1.2-15")
    if flags & 0x40 and not flags & 0x80:
        raise MalformedPacketError("password without a user name", "MQTT-3.1.2-22")


def encode_connack(code: ConnectCode, *, session_present: bool = False) -> bytes:
    return bytes((CONNACK, 2, session_present, code))


def decode_connack(body: bytes) -> tuple[ConnectCode, bool]:
    """The return code, and whether the server kept a session."""
    reader = _Reader(body, "CONNACK")
    flags, code = reader.byte("acknowledge flags"), reader.byte("return code")
    reader.finish("section 3.2")
    if flags > 1 or code > max(ConnectCode):
        raise MalformedPacketError("reserved acknowledge flag or return code", "section 3.2.2")
    return ConnectCode(code), bool(flags)


def encode_publish(publish: Publish) -> bytes:
    """ValueError where QoS and packet identifier do not fit each other."""
    if bool(publish.qos) != bool(publish.packet_id) or (publish.dup and not publish.qos):
        raise ValueError("QoS 1 and 2 need a packet identifier; QoS 0 has none, and no DUP flag")
    packet_id = _WORD.pack(publish.packet_id) if publish.qos else b""
    first = PUBLISH | publish.dup << 3 | publish.qos << 1 | publish.retain
    return encode_packet(first, b"".join((_text(publish.topic), packet_id, publish.payload)))


def decode_publish(first: int, body: bytes) -> Publish:
    """Section 3.3; `first` is the packet's first byte, which holds its flags."""
    qos, dup = check_publish_flags(first)
    reader = _Reader(body, "PUBLISH")
    topic = decode_topic(reader.field("topic name"))
    packet_id = reader.packet_id() if qos else 0
    return Publish(topic, reader.rest(), qos, packet_id, bool(first & 1), dup)


def check_publish_flags(first: int) -> tuple[int, bool]:
    """QoS and DUP."""
    qos, dup = first >> 1 & 3, bool(first & 8)
    if qos == 3:
        raise MalformedPacketError("PUBLISH with both QoS bits set", "MQTT-3.3.1-4")
    if dup and not qos:
        raise MalformedPacketError("PUBLISH with DUP and QoS 0", "MQTT-3.3.1-2")
    return qos, dup


def encode_pubacks(packet_ids: Sequence[bytes]) -> bytes:
    """PUBACK packets of many, in the order given; each identifier as the two bytes that came. Empty for none."""
    if not packet_ids:
        return b""
    return _PUBACK_HEAD + _PUBACK_HEAD.join(packet_ids)


def encode_subscribe(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    body = b"".join(_text(name) + bytes((qos,)) for name, qos in filters)
    return encode_packet(SUBSCRIBE, _WORD.pack(packet_id) + body)


def decode_subscribe(body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Packet identifier, then filter and requested QoS of each subscription (section 3.8)."""
    reader = _Reader(body, "SUBSCRIBE")
    packet_id = reader.packet_id()
    filters: list[tuple[str, int]] = []
    while not reader.at_end():
        name = decode_filter(reader.field("topic filter"))
        qos = reader.byte("requested QoS")
        if qos > 2:
            raise MalformedPacketError(f"requested QoS byte is {qos}", "MQTT-3.8.3-4")
        filters.append((name, qos))
    if not filters:
        raise ViolationError("SUBSCRIBE without a topic filter", "MQTT-3.8.3-3")
    return packet_id, filters


def encode_suback(packet_id: int, codes: Sequence[int]) -> bytes:
    return encode_packet(SUBACK, _WORD.pack(packet_id) + bytes(codes))


def decode_suback(body: bytes) -> tuple[int, list[int]]:
    """Packet identifier, then the granted QoS of each subscription, SUBSCRIPTION_REFUSED for none (section 3.9)."""
    reader = _Reader(body, "SUBACK")
    packet_id, codes = reader.packet_id(), list(reader.rest())
    if any(code > 2 and code != SUBSCRIPTION_REFUSED for code in codes):
        raise MalformedPacketError("reserved return code in SUBACK", "MQTT-3.9.3-2")
    return packet_id, codes


def encode_unsubscribe(packet_id: int, filters: Sequence[str]) -> bytes:
    return encode_packet(UNSUBSCRIBE, _WORD.pack(packet_id) + b"".join(map(_text, filters)))


def decode_unsubscribe(body: bytes) -> tuple[int, list[str]]:
    """Packet identifier and filters (section 3.10)."""
    reader = _Reader(body, "UNSUBSCRIBE")
    packet_id = reader.packet_id()
    filters: list[str] = []
    while not reader.at_end():
        filters.append(decode_filter(reader.field("topic filter")))
    if not filters:
        raise ViolationError("UNSUBSCRIBE without a topic filter", "MQTT-3.10.3-2")
    return packet_id, filters


def encode_unsuback(packet_id: int) -> bytes:
    return encode_packet(UNSUBACK, _WORD.pack(packet_id))


def decode_packet_id(body: bytes, name: str) -> int:
    """The body of PUBACK or UNSUBACK."""
    reader = _Reader(body, name)
    packet_id = reader.packet_id()
    reader.finish("section 2.3.1")
    return packet_id


def _field(data: bytes) -> bytes:
    return _WORD.pack(len(data)) + data


def _text(text: str) -> bytes:
    return _field(text.encode())


class _Reader:
    """Takes fields off a body in order; a field that is not whole is a MalformedPacketError."""

    __slots__ = ("_at", "_body", "_packet")

    def __init__(self, body: bytes, packet: str) -> None:
        self._body = body
        self._packet = packet
        self._at = 0

    def byte(self, name: str) -> int:
        return self._take(1, name)[0]

    def word(self, name: str) -> int:
        return int.from_bytes(self._take(2, name), "big")

    def field(self, name: str) -> bytes:
        return self._take(self.word(f"length of {name}"), name)

    def packet_id(self) -> int:
        packet_id = self.word("packet identifier")
        if packet_id == 0:
            raise MalformedPacketError(f"{self._packet} with packet identifier 0", "MQTT-2.3.1-1")
        return packet_id

    def rest(self) -> bytes:
        at, self._at = self._at, len(self._body)
        return self._body[at:]

    def at_end(self) -> bool:
        return self._at == len(self._body)

    def finish(self, clause: str) -> None:
        if not self.at_end():
            left = len(self._body) - self._at
            raise MalformedPacketError(f"{self._packet} has {left} bytes behind its last field", clause)

    def _take(self, length: int, name: str) -> bytes:
        end = self._at + length
        if end > len(self._body):
            raise MalformedPacketError(f"{self._packet} ends within its {name}", "section 2.2.3")
        at, self._at = self._at, end
        return self._body[at:end]
