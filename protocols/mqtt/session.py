"""One client's connection, the server's side, sans-IO: bytes in; columns of published payloads and bytes to write out.

    receive(bytes) ─▶ Received.connect ─▶ accept() or refuse(code), write what it gives, then receive(b"") for the rest
                   ─▶ Received.runs    ─▶ record them; once they are on disk, write encode_pubacks(packet_ids)
                   ─▶ Received.output  ─▶ write it
                   ─▶ Received.error   ─▶ close

The clock is the caller's: it closes a connection that is silent for longer than `silence_max_s`. No session state
outlives the connection, so `session present` is always 0 and a client subscribes again [MQTT-3.2.2-3].
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from protocols.limits import (
    MQTT_CONNECT_BYTES_MAX,
    MQTT_PACKET_BYTES_MAX,
    MQTT_SUBSCRIPTIONS_MAX,
    PAYLOAD_BYTES_MAX,
)
from protocols.mqtt.errors import (
    IdentifierError,
    LevelError,
    MalformedPacketError,
    MqttError,
    NotSubscribedError,
    PacketLimitError,
    UnsupportedError,
    ViolationError,
    WindowFullError,
)
from protocols.mqtt.packets import (
    CONNECT,
    DISCONNECT,
    PACKET_NAMES,
    PINGREQ,
    PINGRESP_PACKET,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    SUBSCRIPTION_REFUSED,
    UNSUBSCRIBE,
    Connect,
    ConnectCode,
    Publish,
    check_publish_flags,
    decode_connect,
    decode_packet_id,
    decode_subscribe,
    decode_unsubscribe,
    encode_connack,
    encode_publish,
    encode_suback,
    encode_unsuback,
    remaining_length,
)
from protocols.mqtt.topics import decode_topic, is_own, matches

TOPICS_REMEMBERED_MAX: Final = 64
"""Decoded topic names that a session keeps; a device has a handful, and one that invents more only loses speed."""

SEND_WINDOW: Final = 16
"""QoS 1 messages to a device that may wait for its PUBACK: small devices have room for few."""

QOS_MAX: Final = 1
"""Granted to subscriptions, and accepted in a PUBLISH."""

KEEP_ALIVE_FACTOR: Final = 1.5
"""[MQTT-3.1.2-24]"""

_NO_PACKET_ID: Final = b"\0\0"
_PUBLISH_TYPE: Final = PUBLISH >> 4
_FIRST_BYTES: Final = {first >> 4: first for first in (CONNECT, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT)}
_QOS_2_TYPES: Final = (5, 6, 7)


class Run(msgspec.Struct, gc=False):
    """PUBLISH packets that came one after another with the same topic and first byte, as columns."""

    topic: str
    payloads: list[bytes]
    packet_ids: list[bytes]
    """Two bytes each, as they came; empty for QoS 0, which has none."""


class Received(msgspec.Struct, gc=False):
    """What one read gave. Its runs are valid even beside an error, which stands behind them in the stream."""

    runs: list[Run]
    control: int = 0
    """Packets that are not PUBLISH; while it is 0, all fields below but `error` have their defaults."""
    output: list[bytes] = []
    acknowledged: list[int] = []
    """Packet identifiers of PUBACKs for messages that went out."""
    connect: Connect | None = None
    """Answer it by `accept` or `refuse` before the next `receive`."""
    ended: bool = False
    """The client said DISCONNECT: close, and forget its will [MQTT-3.14.4-3]."""
    error: MqttError | None = None


class _State(enum.Enum):
    NEW = enum.auto()
    ASKING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Session:
    """Never raises over what a client sends: an error is a value of Received, and ends the session."""

    __slots__ = ("_held", "_packet_id", "_sent", "_state", "_subscriptions", "_topics", "_wanted", "connect")

    def __init__(self) -> None:
        self.connect: Connect | None = None
        self._state = _State.NEW
        self._held = bytearray()
        self._wanted = 0
        self._topics: dict[bytes, str] = {}
        self._subscriptions: dict[str, int] = {}
        self._sent: set[int] = set()
        self._packet_id = 0

    @property
    def silence_max_s(self) -> float | None:
        """How long the client may send nothing; None without a keep-alive."""
        if self.connect is None or not self.connect.keep_alive_s:
            return None
        return self.connect.keep_alive_s * KEEP_ALIVE_FACTOR

    @property
    def held_bytes(self) -> int:
        """Bytes of a packet that is not whole yet; at most MQTT_PACKET_BYTES_MAX between calls."""
        return len(self._held)

    def receive(self, data: bytes) -> Received:
        """Takes what one read gave, any cut of the stream."""
        received = Received([])
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return received
            data = bytes(self._held)
            self._held = bytearray()
        at = 0
        try:
            if self._state is _State.NEW:
                at = self._ask(data, received)
            if self._state is _State.OPEN:
                at = self._read(data, received)
        except MqttError as error:
            self._state = _State.CLOSED
            received.error = error
        if self._state is not _State.CLOSED and at < len(data):
            self._held += data[at:] if at else data
        return received

    def accept(self) -> bytes:
        """CONNACK for the CONNECT that was received."""
        self._state = _State.OPEN
        self._forget_password()
        return encode_connack(ConnectCode.ACCEPTED)

    def refuse(self, code: ConnectCode) -> bytes:
        """CONNACK with the reason; then close [MQTT-3.2.2-5]. What came behind is dropped [MQTT-3.1.4-5]."""
        self._state = _State.CLOSED
        self._held = bytearray()
        self._forget_password()
        return encode_connack(code)

    def publish(self, topic: str, payload: bytes, qos: int) -> tuple[bytes, int]:
        """A message to the device: the bytes to write, and its packet identifier, which a later
        `Received.acknowledged` names (0: by the subscription, QoS 0).

        Raises NotSubscribedError or WindowFullError; nothing is kept then.
        """
        granted = [given for topic_filter, given in self._subscriptions.items() if matches(topic_filter, topic)]
        if not granted:
            raise NotSubscribedError(topic)
        if min(qos, max(granted)) == 0:
            return encode_publish(Publish(topic, payload)), 0
        if len(self._sent) >= SEND_WINDOW:
            raise WindowFullError(f"{SEND_WINDOW} messages wait for the device's PUBACK")
        while True:  # ends: fewer identifiers are in use than there are
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in self._sent:
                break
        self._sent.add(self._packet_id)
        return encode_publish(Publish(topic, payload, 1, self._packet_id)), self._packet_id

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
        try:
            self.connect = received.connect = decode_connect(data[body:end])
        except LevelError:
            received.output = [encode_connack(ConnectCode.UNACCEPTABLE_LEVEL)]
            raise
        except IdentifierError:
            received.output = [encode_connack(ConnectCode.IDENTIFIER_REJECTED)]
            raise
        self._state = _State.ASKING
        self._wanted = 0
        return end

    def _read(self, data: bytes, received: Received) -> int:
        """All whole packets; returns where the one that is not whole starts.

        The hot path: a PUBLISH like the one before it costs a comparison and two slices.
        """
        size = len(data)
        at = 0
        first_of_run = skip = 0
        prefix = b""
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
            if first != first_of_run or not data.startswith(prefix, body):
                if first >> 4 != _PUBLISH_TYPE:
                    received.control += 1
                    self._control(first, data[body:end], received)
                    if received.ended:
                        return size
                    at = end
                    continue
                prefix, topic = self._topic(first, data, body, end)
                payloads, packet_ids = [], []
                received.runs.append(Run(topic, payloads, packet_ids))
                first_of_run, skip, identified = first, len(prefix), first & 0x06 != 0
            start = body + skip
            if identified:
                packet_id = data[start : start + 2]
                start += 2
                if start > end:
                    raise MalformedPacketError("PUBLISH ends within its packet identifier", "section 3.3.2.2")
                if packet_id == _NO_PACKET_ID:
                    raise MalformedPacketError("PUBLISH with packet identifier 0", "MQTT-2.3.1-1")
                if end - start > PAYLOAD_BYTES_MAX:
                    raise _payload_limit(end - start)
                packet_ids.append(packet_id)
            elif start > end:
                raise MalformedPacketError("PUBLISH ends within its topic name", "section 3.3.2.1")
            elif end - start > PAYLOAD_BYTES_MAX:
                raise _payload_limit(end - start)
            payloads.append(data[start:end])
            at = end
        self._wanted = 2
        return at

    def _topic(self, first: int, data: bytes, body: int, end: int) -> tuple[bytes, str]:
        """The topic name of a PUBLISH: its bytes with the two of their length, and the text."""
        qos, _ = check_publish_flags(first)
        if qos > QOS_MAX:
            raise UnsupportedError(f"PUBLISH with QoS {qos}; this server takes QoS 0 and 1", "section 4.3.3")
        if end - body < 2:
            raise MalformedPacketError("PUBLISH ends within the length of its topic name", "section 3.3.2.1")
        stop = body + 2 + (data[body] << 8 | data[body + 1])
        if stop > end:
            raise MalformedPacketError("PUBLISH ends within its topic name", "section 3.3.2.1")
        prefix = data[body:stop]
        topic = self._topics.get(prefix)
        if topic is None:
            topic = decode_topic(prefix[2:])
            if len(self._topics) >= TOPICS_REMEMBERED_MAX:
                self._topics.clear()
            self._topics[prefix] = topic
        return prefix, topic

    def _control(self, first: int, body: bytes, received: Received) -> None:
        """Any packet but PUBLISH, once the session is open."""
        kind = first >> 4
        name = PACKET_NAMES[kind]
        expected = _FIRST_BYTES.get(kind)
        if expected is None:
            if kind in _QOS_2_TYPES:
                raise UnsupportedError(f"{name} belongs to QoS 2, which this server does not take", "section 4.3.3")
            raise ViolationError(f"{name} is not for a client to send", "section 2.2.1")
        if first != expected:
            raise MalformedPacketError(f"{name} with flags {first & 15:#06b}", "MQTT-2.2.2-2")
        output = received.output
        if first == PINGREQ:
            _check_empty(body, name)
            output.append(PINGRESP_PACKET)
        elif first == PUBACK:
            packet_id = decode_packet_id(body, name)
            if packet_id in self._sent:  # one that waits for nothing is harmless: a client may answer twice
                self._sent.discard(packet_id)
                received.acknowledged.append(packet_id)
        elif first == SUBSCRIBE:
            packet_id, filters = decode_subscribe(body)
            output.append(encode_suback(packet_id, [self._subscribe(*wanted) for wanted in filters]))
        elif first == UNSUBSCRIBE:
            packet_id, names = decode_unsubscribe(body)
            for topic_filter in names:
                self._subscriptions.pop(topic_filter, None)
            output.append(encode_unsuback(packet_id))
        elif first == DISCONNECT:
            _check_empty(body, name)
            self._state = _State.CLOSED
            received.ended = True
        else:
            raise ViolationError("a second CONNECT", "MQTT-3.1.0-2")

    def _subscribe(self, topic_filter: str, qos: int) -> int:
        """The granted QoS; one that is subscribed already is replaced [MQTT-3.8.4-3]."""
        known = topic_filter in self._subscriptions
        if not is_own(topic_filter) or (not known and len(self._subscriptions) >= MQTT_SUBSCRIPTIONS_MAX):
            return SUBSCRIPTION_REFUSED
        granted = self._subscriptions[topic_filter] = min(qos, QOS_MAX)
        return granted


def _check_empty(body: bytes, name: str) -> None:
    if body:
        raise MalformedPacketError(f"{name} with a body of {len(body)} bytes", "section 2.2.3")


def _payload_limit(size: int) -> PacketLimitError:
    return PacketLimitError(f"payload of {size:,} bytes; the limit is {PAYLOAD_BYTES_MAX:,}", "section 3.3.3")
