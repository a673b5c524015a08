"""CONNECT and CONNACK (sections 3.1 and 3.2 of both standards): values to bytes and back, for both sides."""

from __future__ import annotations

import msgspec

from protocols.mqtt.errors import IdentifierError, LevelError, MalformedPacketError
from protocols.mqtt.properties import NO_PROPERTIES, In, Properties, decode_properties, encode_properties
from protocols.mqtt.reasons import CONNECT_CODES, ConnectCode, Reason
from protocols.mqtt.topics import decode_text, decode_topic
from protocols.mqtt.wire import (
    CONNACK,
    CONNECT,
    PROTOCOL_NAME,
    V5,
    V311,
    WORD,
    Reader,
    encode_packet,
    field,
    text_field,
)


class Will(msgspec.Struct, frozen=True):
    """What a client wants published when it is gone without a DISCONNECT (section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = NO_PROPERTIES


class Connect(msgspec.Struct, frozen=True):
    client_id: str
    clean_start: bool = True
    """MQTT 3.1.1 calls it Clean Session."""
    keep_alive_s: int = 0
    """0: none."""
    user_name: str | None = None
    password: bytes | None = None
    will: Will | None = None
    version: int = V311
    properties: Properties = NO_PROPERTIES

    def __repr__(self) -> str:
        """Without the password, which must not reach a log."""
        return f"Connect(client_id={self.client_id!r}, user_name={self.user_name!r}, keep_alive_s={self.keep_alive_s})"


class Connack(msgspec.Struct, frozen=True):
    reason: Reason
    session_present: bool = False
    properties: Properties = NO_PROPERTIES


def encode_connect(connect: Connect) -> bytes:
    is_v5 = connect.version == V5
    flags = connect.clean_start << 1
    fields = [encode_properties(connect.properties)] if is_v5 else []
    fields.append(text_field(connect.client_id))
    will = connect.will
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        if is_v5:
            fields.append(encode_properties(will.properties))
        fields += (text_field(will.topic), field(will.payload))
    if connect.user_name is not None:
        flags |= 0x80
        fields.append(text_field(connect.user_name))
    if connect.password is not None:
        flags |= 0x40
        fields.append(field(connect.password))
    head = field(PROTOCOL_NAME) + bytes((connect.version, flags)) + WORD.pack(connect.keep_alive_s)
    return encode_packet(CONNECT, head + b"".join(fields))


def decode_connect(body: bytes) -> Connect:
    """Raises LevelError or IdentifierError where MQTT 3.1.1 has an answer, else closes without one."""
    reader = Reader(body, "CONNECT")
    name, version = reader.field("protocol name"), reader.byte("protocol level")
    if name != PROTOCOL_NAME and name != b"MQIsdp":  # the latter: the name of MQTT 3.1
        raise MalformedPacketError(f"protocol name {name[:16]!r} instead of {PROTOCOL_NAME!r}", "MQTT-3.1.2-1")
    if name != PROTOCOL_NAME or version not in (V311, V5):
        detail = f"protocol level {version}; this server speaks levels 4 and 5 (MQTT 3.1.1 and 5)"
        raise LevelError(detail, "MQTT-3.1.2-2")
    is_v5 = version == V5
    flags = reader.byte("connect flags")
    _check_flags(flags, is_v5=is_v5)
    keep_alive_s = reader.word("keep alive")
    properties = decode_properties(reader, In.CONNECT) if is_v5 else NO_PROPERTIES
    client_id = decode_text(reader.field("client identifier"), "client identifier")
    will = None
    if flags & 0x04:
        will_properties = decode_properties(reader, In.WILL) if is_v5 else NO_PROPERTIES
        topic = decode_topic(reader.field("will topic"), "will topic")
        will = Will(topic, reader.field("will message"), flags >> 3 & 3, bool(flags & 0x20), will_properties)
    user_name = decode_text(reader.field("user name"), "user name") if flags & 0x80 else None
    password = reader.field("password") if flags & 0x40 else None
    reader.finish("MQTT-3.1.4-1")
    clean_start = bool(flags & 0x02)
    if not client_id and not clean_start and not is_v5:
        raise IdentifierError("an empty client identifier needs a clean session", "MQTT-3.1.3-8")
    return Connect(client_id, clean_start, keep_alive_s, user_name, password, will, version, properties)


def _check_flags(flags: int, *, is_v5: bool) -> None:
    if flags & 0x01:
        raise MalformedPacketError("reserved connect flag is set", "MQTT-3.1.2-3")
    if flags & 0x04:
        if flags & 0x18 == 0x18:
            raise MalformedPacketError("will QoS is 3", "MQTT-3.1.2-14")
    elif flags & 0x18:
        raise MalformedPacketError("will QoS without a will", "MQTT-3.1.2-13")
    elif flags & 0x20:
        raise MalformedPacketError("will retain without a will", "MQTT-3.1.2-15")
    if flags & 0x40 and not flags & 0x80 and not is_v5:
        raise MalformedPacketError("password without a user name", "MQTT-3.1.2-22")


def encode_connack(connack: Connack, version: int) -> bytes:
    """Empty where MQTT 3.1.1 has no code for the reason: then the connection is closed without an answer."""
    if version == V5:
        head = bytes((connack.session_present, connack.reason))
        return encode_packet(CONNACK, head + encode_properties(connack.properties))
    code = CONNECT_CODES.get(connack.reason)
    return b"" if code is None else bytes((CONNACK, 2, connack.session_present, code))


def decode_connack(body: bytes, version: int) -> Connack:
    """With MQTT 3.1.1, the reason that has its return code."""
    reader = Reader(body, "CONNACK")
    flags, code = reader.byte("acknowledge flags"), reader.byte("return code")
    if flags > 1:
        raise MalformedPacketError("reserved acknowledge flag", "section 3.2.2.1")
    properties = decode_properties(reader, In.CONNACK) if version == V5 else NO_PROPERTIES
    reader.finish("section 3.2")
    try:
        reason = Reason(code) if version == V5 else _REASONS[ConnectCode(code)]
    except ValueError:
        raise MalformedPacketError(f"return code {code}", "section 3.2.2") from None
    return Connack(reason, bool(flags), properties)


_REASONS = {code: reason for reason, code in reversed(CONNECT_CODES.items())}
