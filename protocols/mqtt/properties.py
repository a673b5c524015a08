"""Properties of MQTT 5 (section 2.2.2): the optional fields of most packets.

    property length: variable byte integer
    …                for each: identifier (a byte; the standard's are all below 128), then its value

A property may stand in some packets only, and once, but for user properties, and subscription identifiers in a PUBLISH
of the server.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocols.limits import MQTT_PROPERTIES_BYTES_MAX
from protocols.mqtt.errors import MalformedPacketError, PacketLimitError, ViolationError
from protocols.mqtt.reasons import Reason
from protocols.mqtt.topics import decode_text, decode_topic
from protocols.mqtt.wire import DOUBLE_WORD, WORD, Reader, encode_length, field, text_field


class In(enum.Flag):
    """Where a property may stand; PUBLISH of a client is apart, as subscription identifiers are the server's alone."""

    CONNECT = enum.auto()
    CONNACK = enum.auto()
    WILL = enum.auto()
    PUBLISH = enum.auto()
    SERVER_PUBLISH = enum.auto()
    ACK = enum.auto()
    """PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK."""
    SUBSCRIBE = enum.auto()
    UNSUBSCRIBE = enum.auto()
    DISCONNECT = enum.auto()
    AUTH = enum.auto()


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one packet; None, or empty: not there."""

    payload_format: int | None = None
    """1: the payload is UTF-8."""
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    auth_method: str | None = None
    auth_data: bytes | None = None
    wants_problems: int | None = None
    will_delay_s: int | None = None
    wants_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason: str | None = None
    receive_max: int | None = None
    topic_alias_max: int | None = None
    topic_alias: int | None = None
    qos_max: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    packet_bytes_max: int | None = None
    wildcards_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


NO_PROPERTIES: Final = Properties()
NO_PROPERTIES_BLOCK: Final = b"\0"


class _Kind(enum.Enum):
    BYTE = enum.auto()
    WORD = enum.auto()
    DOUBLE_WORD = enum.auto()
    LENGTH = enum.auto()
    TEXT = enum.auto()
    BINARY = enum.auto()
    PAIR = enum.auto()


_MESSAGE: Final = In.PUBLISH | In.SERVER_PUBLISH | In.WILL
_TABLE: Final[dict[int, tuple[str, _Kind, In]]] = {
    0x01: ("payload_format", _Kind.BYTE, _MESSAGE),
    0x02: ("message_expiry_s", _Kind.DOUBLE_WORD, _MESSAGE),
    0x03: ("content_type", _Kind.TEXT, _MESSAGE),
    0x08: ("response_topic", _Kind.TEXT, _MESSAGE),
    0x09: ("correlation", _Kind.BINARY, _MESSAGE),
    0x0B: ("subscription_ids", _Kind.LENGTH, In.SERVER_PUBLISH | In.SUBSCRIBE),
    0x11: ("session_expiry_s", _Kind.DOUBLE_WORD, In.CONNECT | In.CONNACK | In.DISCONNECT),
    0x12: ("assigned_client_id", _Kind.TEXT, In.CONNACK),
    0x13: ("server_keep_alive_s", _Kind.WORD, In.CONNACK),
    0x15: ("auth_method", _Kind.TEXT, In.CONNECT | In.CONNACK | In.AUTH),
    0x16: ("auth_data", _Kind.BINARY, In.CONNECT | In.CONNACK | In.AUTH),
    0x17: ("wants_problems", _Kind.BYTE, In.CONNECT),
    0x18: ("will_delay_s", _Kind.DOUBLE_WORD, In.WILL),
    0x19: ("wants_response_information", _Kind.BYTE, In.CONNECT),
    0x1A: ("response_information", _Kind.TEXT, In.CONNACK),
    0x1C: ("server_reference", _Kind.TEXT, In.CONNACK | In.DISCONNECT),
    0x1F: ("reason", _Kind.TEXT, In.CONNACK | In.ACK | In.DISCONNECT | In.AUTH),
    0x21: ("receive_max", _Kind.WORD, In.CONNECT | In.CONNACK),
    0x22: ("topic_alias_max", _Kind.WORD, In.CONNECT | In.CONNACK),
    0x23: ("topic_alias", _Kind.WORD, In.PUBLISH | In.SERVER_PUBLISH),
    0x24: ("qos_max", _Kind.BYTE, In.CONNACK),
    0x25: ("retain_available", _Kind.BYTE, In.CONNACK),
    0x26: ("user", _Kind.PAIR, ~In(0)),
    0x27: ("packet_bytes_max", _Kind.DOUBLE_WORD, In.CONNECT | In.CONNACK),
    0x28: ("wildcards_available", _Kind.BYTE, In.CONNACK),
    0x29: ("subscription_ids_available", _Kind.BYTE, In.CONNACK),
    0x2A: ("shared_available", _Kind.BYTE, In.CONNACK),
}
_MANY: Final = frozenset(("user", "subscription_ids"))
_NOT_ZERO: Final = frozenset(("receive_max", "packet_bytes_max", "subscription_ids"))
"""A protocol error where they are 0 (sections 3.1.2.11.3, 3.1.2.11.4, 3.8.2.1.2)."""


def _pair(value: tuple[str, str]) -> bytes:
    return text_field(value[0]) + text_field(value[1])


_ENCODE: Final[dict[_Kind, Callable[[Any], bytes]]] = {
    _Kind.BYTE: lambda value: bytes((value,)),
    _Kind.WORD: WORD.pack,
    _Kind.DOUBLE_WORD: DOUBLE_WORD.pack,
    _Kind.LENGTH: encode_length,
    _Kind.TEXT: text_field,
    _Kind.BINARY: field,
    _Kind.PAIR: _pair,
}


def _text(reader: Reader, name: str) -> str:
    return decode_text(reader.field(name), name)


_DECODE: Final[dict[_Kind, Callable[[Reader, str], Any]]] = {
    _Kind.BYTE: Reader.byte,
    _Kind.WORD: Reader.word,
    _Kind.DOUBLE_WORD: Reader.double_word,
    _Kind.LENGTH: Reader.length,
    _Kind.TEXT: _text,
    _Kind.BINARY: Reader.field,
    _Kind.PAIR: lambda reader, name: (_text(reader, name), _text(reader, name)),
}


def encode_properties(properties: Properties) -> bytes:
    """With their length in front."""
    if properties is NO_PROPERTIES:
        return NO_PROPERTIES_BLOCK
    parts: list[bytes] = []
    for identifier, (name, kind, _) in _TABLE.items():
        value = getattr(properties, name)
        encode = _ENCODE[kind]
        if name in _MANY:
            parts += [bytes((identifier,)) + encode(each) for each in value]
        elif value is not None:
            parts.append(bytes((identifier,)) + encode(value))
    block = b"".join(parts)
    return encode_length(len(block)) + block


def decode_properties(reader: Reader, where: In) -> Properties:
    """What stands at the reader's place, length included. Raises a MqttError."""
    size = reader.length("property length")
    if not size:
        return NO_PROPERTIES
    if size > MQTT_PROPERTIES_BYTES_MAX:
        detail = f"properties of {size:,} bytes; the limit is {MQTT_PROPERTIES_BYTES_MAX:,}"
        raise PacketLimitError(detail, "section 2.2.2.1")
    inner = Reader(reader.take(size, "properties"), reader.packet)
    found: dict[str, Any] = {}
    while not inner.at_end():
        identifier = inner.length("property identifier")
        row = _TABLE.get(identifier)
        if row is None or where not in row[2]:
            raise MalformedPacketError(f"{reader.packet} with property 0x{identifier:02x}", "section 2.2.2.2")
        name, kind, _ = row
        value = _DECODE[kind](inner, name.replace("_", " "))
        if name in _NOT_ZERO and value == 0:
            raise ViolationError(f"{name.replace('_', ' ')} is 0", "section 2.2.2.2")
        if kind is _Kind.BYTE and value > 1:
            raise ViolationError(f"{name.replace('_', ' ')} is {value}, not 0 or 1", "section 2.2.2.2")
        if name == "user" or (name == "subscription_ids" and where is In.SERVER_PUBLISH):
            found[name] = (*found.get(name, ()), value)
        elif name in found:
            raise ViolationError(f"{name.replace('_', ' ')} stands twice", "section 2.2.2.2")
        else:
            found[name] = (value,) if name == "subscription_ids" else value
    _check(found)
    return Properties(**found)


def _check(found: dict[str, Any]) -> None:
    if "response_topic" in found:
        decode_topic(found["response_topic"].encode(), "response topic", "MQTT-3.3.2-14")
    if found.get("topic_alias") == 0:
        raise ViolationError("topic alias 0", "MQTT-3.3.2-8", Reason.TOPIC_ALIAS_INVALID)
    if "auth_data" in found and "auth_method" not in found:
        raise ViolationError("authentication data without a method", "section 3.1.2.11.10")
