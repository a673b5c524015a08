"""Control packets of MQTT 3.1.1 and 5 but CONNECT and CONNACK: values to bytes and back, for both sides.

`decode_*` takes a body and raises a MqttError. The connection reads PUBLISH packets without them, many in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from protocols.mqtt.errors import MalformedPacketError, ViolationError
from protocols.mqtt.properties import NO_PROPERTIES, In, Properties, decode_properties, encode_properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.topics import decode_filter, decode_topic, split_shared
from protocols.mqtt.wire import (
    DISCONNECT,
    PACKET_NAMES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    V5,
    V311,
    WORD,
    Reader,
    encode_packet,
    text_field,
)

SUBSCRIPTION_REFUSED: Final = 0x80
"""The one reason that MQTT 3.1.1 knows."""

_HEADS: Final = {first: bytes((first, 2)) for first in (PUBACK, PUBREC, PUBREL, PUBCOMP)}
_ACK_REASONS: Final = {
    PUBACK: frozenset(map(Reason, (0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))),
    PUBREC: frozenset(map(Reason, (0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))),
    PUBREL: frozenset((Reason.SUCCESS, Reason.PACKET_ID_NOT_FOUND)),
    PUBCOMP: frozenset((Reason.SUCCESS, Reason.PACKET_ID_NOT_FOUND)),
}
"""Tables 3-4 to 3-7."""
_DISCONNECT_REASONS: Final = frozenset(
    map(Reason, (0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99))
)
"""Those that a client may give (table 3-10)."""


class Publish(msgspec.Struct, frozen=True):
    topic: str
    """Empty only where a topic alias of MQTT 5 stands for it."""
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    """1 to 65,535 with QoS 1 and 2, else 0."""
    retain: bool = False
    dup: bool = False
    properties: Properties = NO_PROPERTIES


class Ack(msgspec.Struct, frozen=True):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    """The packet's first byte."""
    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


class Subscription(msgspec.Struct, frozen=True):
    """One topic filter of a SUBSCRIBE, with its options (MQTT 5, section 3.8.3.1)."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    """Not what its own connection published."""
    retain_as_published: bool = False
    retain_handling: int = 0
    """Retained messages: 0 at each SUBSCRIBE, 1 at a new subscription only, 2 never."""
    identifier: int = 0
    """0: none."""


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = NO_PROPERTIES


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NO_PROPERTIES


class Disconnect(msgspec.Struct, frozen=True):
    reason: Reason = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


def encode_publish(publish: Publish, version: int = V311) -> bytes:
    """ValueError where QoS and packet identifier do not fit each other."""
    if bool(publish.qos) != bool(publish.packet_id) or (publish.dup and not publish.qos):
        raise ValueError("QoS 1 and 2 need a packet identifier; QoS 0 has none, and no DUP flag")
    parts = [text_field(publish.topic)]
    if publish.qos:
        parts.append(WORD.pack(publish.packet_id))
    if version == V5:
        parts.append(encode_properties(publish.properties))
    parts.append(publish.payload)
    first = PUBLISH | publish.dup << 3 | publish.qos << 1 | publish.retain
    return encode_packet(first, b"".join(parts))


def decode_publish(first: int, body: bytes, version: int = V311, where: In = In.PUBLISH) -> Publish:
    """Section 3.3; `first` is the packet's first byte, which holds its flags."""
    qos, dup = check_publish_flags(first)
    reader = Reader(body, "PUBLISH")
    name = reader.field("topic name")
    packet_id = reader.packet_id() if qos else 0
    properties = decode_properties(reader, where) if version == V5 else NO_PROPERTIES
    topic = "" if not name and properties.topic_alias is not None else decode_topic(name)
    return Publish(topic, reader.rest(), qos, packet_id, bool(first & 1), dup, properties)


def check_publish_flags(first: int) -> tuple[int, bool]:
    """QoS and DUP."""
    qos, dup = first >> 1 & 3, bool(first & 8)
    if qos == 3:
        raise MalformedPacketError("PUBLISH with both QoS bits set", "MQTT-3.3.1-4")
    if dup and not qos:
        raise MalformedPacketError("PUBLISH with DUP and QoS 0", "MQTT-3.3.1-2")
    return qos, dup


def encode_acks(kind: int, packet_ids: Sequence[bytes]) -> bytes:
    """Packets of one kind, in the order given, each with reason 0 (which both versions write alike); each identifier as
    the two bytes that came. Empty for none."""
    if not packet_ids:
        return b""
    head = _HEADS[kind]
    return head + head.join(packet_ids)


def encode_ack(ack: Ack, version: int) -> bytes:
    body = WORD.pack(ack.packet_id)
    if version == V5 and (ack.reason or ack.properties is not NO_PROPERTIES):
        body += bytes((ack.reason,))
        if ack.properties is not NO_PROPERTIES:
            body += encode_properties(ack.properties)
    return encode_packet(ack.kind, body)


def decode_ack(kind: int, body: bytes, version: int) -> Ack:
    reader = Reader(body, PACKET_NAMES[kind >> 4])
    packet_id = reader.packet_id()
    reason, properties = Reason.SUCCESS, NO_PROPERTIES
    if version == V5 and not reader.at_end():
        reason = _reason(reader, _ACK_REASONS[kind])
        if not reader.at_end():
            properties = decode_properties(reader, In.ACK)
    reader.finish("section 2.3.1")
    return Ack(kind, packet_id, reason, properties)


def encode_subscribe(subscribe: Subscribe, version: int = V311) -> bytes:
    parts = [WORD.pack(subscribe.packet_id)]
    if version == V5:
        parts.append(encode_properties(subscribe.properties))
    for each in subscribe.subscriptions:
        options = each.qos | each.no_local << 2 | each.retain_as_published << 3 | each.retain_handling << 4
        parts += (text_field(each.topic_filter), bytes((options,)))
    return encode_packet(SUBSCRIBE, b"".join(parts))


def decode_subscribe(body: bytes, version: int) -> Subscribe:
    reader = Reader(body, "SUBSCRIBE")
    packet_id = reader.packet_id()
    properties = decode_properties(reader, In.SUBSCRIBE) if version == V5 else NO_PROPERTIES
    identifier = properties.subscription_ids[0] if properties.subscription_ids else 0
    subscriptions: list[Subscription] = []
    while not reader.at_end():
        name = decode_filter(reader.field("topic filter"))
        options = reader.byte("subscription options")
        _check_options(options, name, version)
        subscriptions.append(
            Subscription(name, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3, identifier)
        )
    if not subscriptions:
        raise ViolationError("SUBSCRIBE without a topic filter", "MQTT-3.8.3-3")
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _check_options(options: int, name: str, version: int) -> None:
    if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC):
        raise MalformedPacketError(f"subscription options are {options:#010b}", "MQTT-3.8.3-4")
    if version == V5:
        if options & 0x30 == 0x30:
            raise ViolationError("retain handling is 3", "section 3.8.3.1")
        if options & 4 and split_shared(name)[0]:
            raise ViolationError("No Local on a shared subscription", "MQTT-3.8.3-4")


def encode_suback(packet_id: int, codes: Iterable[int], version: int = V311) -> bytes:
    """`codes`: of MQTT 5; MQTT 3.1.1 has one for all refusals."""
    if version == V5:
        return encode_packet(SUBACK, WORD.pack(packet_id) + b"\0" + bytes(codes))
    return encode_packet(SUBACK, WORD.pack(packet_id) + bytes(min(code, SUBSCRIPTION_REFUSED) for code in codes))


def decode_suback(body: bytes, version: int = V311) -> tuple[int, list[int]]:
    """Packet identifier, then the granted QoS of each subscription, or why there is none (section 3.9)."""
    reader = Reader(body, "SUBACK")
    packet_id = reader.packet_id()
    if version == V5:
        decode_properties(reader, In.ACK)
    codes = list(reader.rest())
    if any(2 < code < 0x80 or (version == V311 and code > 0x80) for code in codes):
        raise MalformedPacketError("reserved return code in SUBACK", "MQTT-3.9.3-2")
    return packet_id, codes


def encode_unsubscribe(unsubscribe: Unsubscribe, version: int = V311) -> bytes:
    properties = encode_properties(unsubscribe.properties) if version == V5 else b""
    filters = b"".join(map(text_field, unsubscribe.filters))
    return encode_packet(UNSUBSCRIBE, WORD.pack(unsubscribe.packet_id) + properties + filters)


def decode_unsubscribe(body: bytes, version: int) -> Unsubscribe:
    reader = Reader(body, "UNSUBSCRIBE")
    packet_id = reader.packet_id()
    properties = decode_properties(reader, In.UNSUBSCRIBE) if version == V5 else NO_PROPERTIES
    filters: list[str] = []
    while not reader.at_end():
        filters.append(decode_filter(reader.field("topic filter")))
    if not filters:
        raise ViolationError("UNSUBSCRIBE without a topic filter", "MQTT-3.10.3-2")
    return Unsubscribe(packet_id, tuple(filters), properties)


def encode_unsuback(packet_id: int, codes: Iterable[int], version: int = V311) -> bytes:
    """MQTT 3.1.1 says nothing of each filter."""
    return encode_packet(UNSUBACK, WORD.pack(packet_id) + (b"\0" + bytes(codes) if version == V5 else b""))


def encode_disconnect(disconnect: Disconnect, version: int) -> bytes:
    if version != V5 or disconnect == Disconnect():
        return encode_packet(DISCONNECT, b"")
    return encode_packet(DISCONNECT, bytes((disconnect.reason,)) + encode_properties(disconnect.properties))


def decode_disconnect(body: bytes, version: int, *, by_server: bool = False) -> Disconnect:
    reader = Reader(body, "DISCONNECT")
    reason, properties = Reason.SUCCESS, NO_PROPERTIES
    if version == V5 and not reader.at_end():
        reason = _reason(reader, frozenset(Reason) if by_server else _DISCONNECT_REASONS)
        if not reader.at_end():
            properties = decode_properties(reader, In.DISCONNECT)
    reader.finish("section 3.14")
    return Disconnect(reason, properties)


def _reason(reader: Reader, allowed: frozenset[Reason]) -> Reason:
    code = reader.byte("reason code")
    if code not in allowed:
        raise ViolationError(f"{reader.packet} with reason 0x{code:02x}", "section 2.4")
    return Reason(code)
