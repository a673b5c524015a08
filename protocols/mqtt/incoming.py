"""What one client sends, sans-IO: bytes in; columns of published payloads, packets and bytes to write out.

    receive(bytes) ─▶ Received.connect ─▶ accept(…) or refuse(…), write what it gives, then receive(b"") for the rest
                   ─▶ Received.items   ─▶ in order: runs to record, packets to act upon
                   ─▶ Received.output  ─▶ write it
                   ─▶ Received.error   ─▶ close

The clock is the caller's: it closes a connection that is silent for longer than `silence_max_s`. What outlives a
connection is in session.py.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from protocols.limits import MQTT_CONNECT_BYTES_MAX, MQTT_PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX
from protocols.mqtt.connect import Connack, Connect, decode_connect, encode_connack
from protocols.mqtt.errors import (
    IdentifierError,
    LevelError,
    MalformedPacketError,
    MqttError,
    PacketLimitError,
    ViolationError,
)
from protocols.mqtt.packets import (
    Ack,
    Disconnect,
    Subscribe,
    Unsubscribe,
    check_publish_flags,
    decode_ack,
    decode_disconnect,
    decode_subscribe,
    decode_unsubscribe,
)
from protocols.mqtt.properties import NO_PROPERTIES, NO_PROPERTIES_BLOCK, In, Properties, decode_properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.topics import decode_topic
from protocols.mqtt.wire import (
    AUTH,
    CONNECT,
    DISCONNECT,
    PACKET_NAMES,
    PINGREQ,
    PINGRESP_PACKET,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    V5,
    V311,
    Reader,
    remaining_length,
)

KEEP_ALIVE_FACTOR: Final = 1.5
"""Of the keep-alive, before the connection ends [MQTT-3.1.2-24]."""

TOPICS_REMEMBERED_MAX: Final = 64
"""Decoded topic names kept for a connection; devices use a handful."""

TOPIC_ALIASES_MAX: Final = 64
"""Numbers that a client may give to topics; as many as are remembered without."""

_PUBLISH_TYPE: Final = PUBLISH >> 4
_NO_PACKET_ID: Final = b"\0\0"
_NO_TOPIC: Final = b"\0\0"
_NO_PACKET: Final = -1
"""In the place of a first byte, all of which may come."""
_ACKS: Final = frozenset((PUBACK, PUBREC, PUBREL, PUBCOMP))
_FIRST_BYTES: Final = {
    first >> 4: first for first in (CONNECT, *_ACKS, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH)
}


class Run(msgspec.Struct, gc=False):
    """PUBLISH packets that came one after another alike but for identifier and payload, as columns."""

    topic: str
    payloads: list[bytes]
    packet_ids: list[bytes]
    """Two bytes each, as they came; empty for QoS 0, which has none."""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    properties: Properties = NO_PROPERTIES


class Acks(msgspec.Struct, gc=False):
    """PUBACK, PUBREC, PUBREL or PUBCOMP packets of one kind that came one after another and say nothing but success."""

    kind: int
    packet_ids: list[bytes]
    """Two bytes each, as they came."""


Item = Run | Acks | Ack | Subscribe | Unsubscribe | Disconnect


class Received(msgspec.Struct):
    """What one read gave. Its items are valid even beside an error, which stands behind them in the stream.

    It may be part of a cycle, which has to be found: an error knows the frames that it came through, which know this.
    """

    items: list[Item]
    control: int = 0
    """Packets that move no message: neither PUBLISH nor what answers it. While it is 0, all fields below but `error`
    have their defaults."""
    output: list[bytes] = []
    connect: Connect | None = None
    """Answer it by `accept` or `refuse` before the next `receive`."""
    error: MqttError | None = None


class _State(enum.Enum):
    NEW = enum.auto()
    ASKING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Incoming:
    """Never raises over what a client sends: an error is a value of Received, and ends the connection."""

    __slots__ = ("_aliases", "_held", "_state", "_topics", "_wanted", "connect", "keep_alive_s", "version")

    def __init__(self) -> None:
        self.connect: Connect | None = None
        self.version = V311
        self.keep_alive_s = 0
        self._state = _State.NEW
        self._held: bytes | bytearray = b""
        self._wanted = 0
        self._topics: dict[bytes, str] = {}
        self._aliases: dict[int, str] = {}

    @property
    def silence_max_s(self) -> float | None:
        """How long the client may send nothing; None without a keep-alive."""
        return self.keep_alive_s * KEEP_ALIVE_FACTOR if self.keep_alive_s else None

    @property
    def held_bytes(self) -> int:
        """Bytes of a packet that is not whole yet; at most MQTT_PACKET_BYTES_MAX between calls."""
        return len(self._held)

    def receive(self, data: bytes) -> Received:
        """Takes what one read gave, any cut of the stream."""
        received = Received([])
        held = self._held
        if held:
            if isinstance(held, bytearray):
                held += data
            else:
                held = self._held = bytearray(held + data)
            if len(held) < self._wanted:
                return received
            data = bytes(held)
            self._held = b""
        at = 0
        try:
            if self._state is _State.NEW:
                at = self._ask(data, received)
            if self._state is _State.OPEN:
                at = self._read(data, received)
        except MqttError as error:
            self._state = _State.CLOSED
            received.error = error.with_traceback(None)
        if self._state is not _State.CLOSED and at < len(data):
            self._held = data[at:] if at else data
        return received

    def accept(self, connack: Connack) -> bytes:
        """For the CONNECT that was received."""
        self._state = _State.OPEN
        self._forget_password()
        return encode_connack(connack, self.version)

    def refuse(self, connack: Connack) -> bytes:
        """CONNACK with the reason; then close [MQTT-3.2.2-5]. What came behind is dropped [MQTT-3.1.4-5]."""
        self._state = _State.CLOSED
        self._held = b""
        self._forget_password()
        return encode_connack(connack, self.version)

    def _forget_password(self) -> None:
        if self.connect is not None:
            self.connect = msgspec.structs.replace(self.connect, password=None)

    def _ask(self, data: bytes, received: Received) -> int:
        """The first packet, which must be CONNECT; returns where the next one starts."""
        if data and data[0] != CONNECT:
            name = PACKET_NAMES[data[0] >> 4]
            raise ViolationError(f"first byte 0x{data[0]:02x} ({name}) instead of CONNECT", "MQTT-3.1.0-1")
        found = remaining_length(data, 1)
        if found is None:
            self._wanted = len(data) + 1
            return 0
        length, body = found
        if length > MQTT_CONNECT_BYTES_MAX:
            raise PacketLimitError(
                f"CONNECT of {length:,} bytes; the limit is {MQTT_CONNECT_BYTES_MAX:,}", "section 3.1"
            )
        end = body + length
        if end > len(data):
            self._wanted = end
            return 0
        received.control = 1
        if data[body + 6 : min(body + 7, end)] == b"\x05":
            self.version = V5
        try:
            self.connect = received.connect = decode_connect(data[body:end])
        except (LevelError, IdentifierError) as error:
            received.output = [encode_connack(Connack(error.reason), self.version)]
            raise
        except MqttError as error:
            if self.version == V5:
                received.output = [encode_connack(Connack(error.reason), V5)]
            raise
        self.keep_alive_s = self.connect.keep_alive_s
        self._state = _State.ASKING
        self._wanted = 0
        return end

    def _read(self, data: bytes, received: Received) -> int:
        """All whole packets; returns where the one that is not whole starts.

        The hot path: a PUBLISH like the one before it costs a comparison and two slices.
        """
        size = len(data)
        at = 0
        first_of_run, skip = _NO_PACKET, 0
        prefix = block = packet_id = b""
        identified = False
        payloads: list[bytes] = []
        packet_ids: list[bytes] = []
        while size - at >= 2:
            length = data[at + 1]
            body = at + 2
            if length > 127:
                found = remaining_length(data, at + 1)
                if found is None:
                    self._wanted = size - at + 1
                    return at
                length, body = found
                if length > MQTT_PACKET_BYTES_MAX:
                    detail = f"packet of {length:,} bytes; the limit is {MQTT_PACKET_BYTES_MAX:,}"
                    raise PacketLimitError(detail, "section 2.2.3")
            end = body + length
            if end > size:
                self._wanted = end - at
                return at
            first = data[at]
            if (
                first != first_of_run
                or not data.startswith(prefix, body)
                or (block and not data.startswith(block, body + skip))
            ):
                if first >> 4 != _PUBLISH_TYPE:
                    if length == 2 and first in _ACKS:
                        _acknowledge(first, data[body:end], received.items)
                    else:
                        self._control(first, data[body:end], received)
                        if self._state is _State.CLOSED:
                            return size
                    at = end
                    first_of_run = _NO_PACKET  # what follows it must not come before it
                    continue
                prefix, block, run = self._begin(first, data, body, end)
                received.items.append(run)
                payloads, packet_ids = run.payloads, run.packet_ids
                first_of_run, identified = first, run.qos != 0
                skip = len(prefix) + (2 if identified else 0)
            start = body + skip
            if identified:
                packet_id = data[start - 2 : start]
                if start > end:
                    raise MalformedPacketError("PUBLISH ends within its packet identifier", "section 3.3.2.2")
                if packet_id == _NO_PACKET_ID:
                    raise MalformedPacketError("PUBLISH with packet identifier 0", "MQTT-2.3.1-1")
            if block:
                start += len(block)
            if start > end:
                raise MalformedPacketError("PUBLISH ends within its topic name or properties", "section 3.3.2.1")
            if end - start > PAYLOAD_BYTES_MAX:
                detail = f"payload of {end - start:,} bytes; the limit is {PAYLOAD_BYTES_MAX:,}"
                raise PacketLimitError(detail, "section 3.3.3")
            if identified:
                packet_ids.append(packet_id)
            payloads.append(data[start:end])
            at = end
        self._wanted = 2
        return at

    def _begin(self, first: int, data: bytes, body: int, end: int) -> tuple[bytes, bytes, Run]:
        """The topic name with the two bytes of its length, the properties as they stand there (nothing: MQTT 3.1.1),
        and a run without rows."""
        qos, dup = check_publish_flags(first)
        if end - body < 2:
            raise MalformedPacketError("PUBLISH ends within the length of its topic name", "section 3.3.2.1")
        stop = body + 2 + (data[body] << 8 | data[body + 1])
        if stop > end:
            raise MalformedPacketError("PUBLISH ends within its topic name", "section 3.3.2.1")
        prefix = data[body:stop]
        block, properties = b"", NO_PROPERTIES
        if self.version == V5:
            block, properties = self._properties(data, stop + (2 if qos else 0), end)
        topic = self._topic(prefix) if properties.topic_alias is None else self._aliased(prefix, properties.topic_alias)
        return prefix, block, Run(topic, [], [], qos, bool(first & 1), dup, properties)

    def _properties(self, data: bytes, start: int, end: int) -> tuple[bytes, Properties]:
        if data[start : start + 1] == NO_PROPERTIES_BLOCK:
            return NO_PROPERTIES_BLOCK, NO_PROPERTIES
        reader = Reader(data[start:end], "PUBLISH")
        properties = decode_properties(reader, In.PUBLISH)
        return data[start : end - len(reader.rest())], properties

    def _topic(self, prefix: bytes) -> str:
        topic = self._topics.get(prefix)
        if topic is None:
            topic = decode_topic(prefix[2:])
            if len(self._topics) >= TOPICS_REMEMBERED_MAX:
                self._topics.clear()
            self._topics[prefix] = topic
        return topic

    def _aliased(self, prefix: bytes, alias: int) -> str:
        """Section 3.3.2.3.4 of MQTT 5."""
        if alias > TOPIC_ALIASES_MAX:
            detail = f"topic alias {alias}; the highest is {TOPIC_ALIASES_MAX}"
            raise ViolationError(detail, "MQTT-3.3.2-9", Reason.TOPIC_ALIAS_INVALID)
        if prefix != _NO_TOPIC:
            topic = self._aliases[alias] = self._topic(prefix)
            return topic
        if alias not in self._aliases:
            raise ViolationError(f"topic alias {alias}, which stands for no topic yet", "section 3.3.2.3.4")
        return self._aliases[alias]

    def _control(self, first: int, body: bytes, received: Received) -> None:
        """Any packet but PUBLISH, once the connection is open."""
        kind = first >> 4
        name = PACKET_NAMES[kind]
        expected = _FIRST_BYTES.get(kind)
        if expected is None or (first == AUTH and self.version == V311):
            raise ViolationError(f"{name} is not for a client to send", "section 2.2.1")
        if first != expected:
            raise MalformedPacketError(f"{name} with flags {first & 15:#06b}", "MQTT-2.2.2-2")
        items = received.items
        if first in _ACKS:
            items.append(decode_ack(first, body, self.version))
            return
        received.control += 1
        if first == PINGREQ:
            if body:
                raise MalformedPacketError(f"{name} with a body of {len(body)} bytes", "section 2.2.3")
            received.output.append(PINGRESP_PACKET)
        elif first == SUBSCRIBE:
            items.append(decode_subscribe(body, self.version))
        elif first == UNSUBSCRIBE:
            items.append(decode_unsubscribe(body, self.version))
        elif first == DISCONNECT:
            items.append(self._disconnect(body))
            self._state = _State.CLOSED
        elif first == AUTH:
            raise ViolationError("AUTH without an authentication method in CONNECT", "MQTT-4.12.0-7")
        else:
            raise ViolationError("a second CONNECT", "MQTT-3.1.0-2")

    def _disconnect(self, body: bytes) -> Disconnect:
        disconnect = decode_disconnect(body, self.version)
        if (
            disconnect.properties.session_expiry_s
            and self.connect is not None
            and not self.connect.properties.session_expiry_s
        ):
            raise ViolationError("DISCONNECT gives an expiry to a session that had none", "section 3.14.2.2.2")
        return disconnect


def _acknowledge(kind: int, packet_id: bytes, items: list[Item]) -> None:
    """One that is as short as it can be: most are."""
    if packet_id == _NO_PACKET_ID:
        raise MalformedPacketError(f"{PACKET_NAMES[kind >> 4]} with packet identifier 0", "MQTT-2.3.1-1")
    last = items[-1] if items else None
    if isinstance(last, Acks) and last.kind == kind:
        last.packet_ids.append(packet_id)
    else:
        items.append(Acks(kind, [packet_id]))
