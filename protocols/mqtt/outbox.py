"""What a session has to send, in order, until the client has it (sections 4.3, 4.4 and 4.6). Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.mqtt.packets import Ack, Publish, encode_ack, encode_publish
from protocols.mqtt.properties import NO_PROPERTIES, Properties
from protocols.mqtt.wire import PUBREL, V5

SEND_WINDOW: Final = 16
"""Messages on their way to one client at a time, where it does not ask for fewer: small devices have room for few."""

WAITING_MAX: Final = 1000
"""Messages that wait for a client, on their way included: what a device that was away for a while can work through.
The newest is turned away, as those before it were promised."""

WAITING_BYTES_MAX: Final = 4 * PAYLOAD_BYTES_MAX
"""The same by their payloads."""

PACKET_ID_MAX: Final = 65_535


class Message(msgspec.Struct, frozen=True):
    """A message on its way to subscribers."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES
    """Those that are for the receiver; the expiry stands in `expires_ms` instead."""
    expires_ms: int = 0
    """By the caller's clock; 0: never."""


class Sending(msgspec.Struct, eq=False):
    """One message of one session."""

    message: Message
    qos: int
    retain: bool = False
    subscription_ids: tuple[int, ...] = ()
    command_id: str = ""
    """Of a command; empty: none."""
    number: int = 0
    """Rises within the session: the order in which messages came."""
    packet_id: int = 0
    """0: not sent yet."""
    released: bool = False
    """QoS 2: the client has said PUBREC."""

    def encode(self, version: int, now_ms: int, *, dup: bool = False) -> bytes:
        properties = NO_PROPERTIES
        if version == V5:
            properties = self.message.properties
            if self.subscription_ids or self.message.expires_ms:
                left_s = max(1, (self.message.expires_ms - now_ms + 999) // 1000) if self.message.expires_ms else None
                properties = msgspec.structs.replace(
                    properties, subscription_ids=self.subscription_ids, message_expiry_s=left_s
                )
        return encode_publish(
            Publish(self.message.topic, self.message.payload, self.qos, self.packet_id, self.retain, dup, properties),
            version,
        )


class Outbox:
    """Of one session, QoS 1 and 2. The caller writes what it gives, and keeps on disk what must outlive a process."""

    __slots__ = ("_bytes", "_number", "_packet_id", "_released", "_sent", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Sending] = []  # short: an empty deque takes ten times the memory
        self._sent: dict[int, Sending] = {}
        self._released: dict[int, Sending] = {}
        self._bytes = 0
        self._number = 0
        self._packet_id = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent) + len(self._released)

    def all(self) -> list[Sending]:
        """Those on their way first."""
        return [*self._released.values(), *self._sent.values(), *self._waiting]

    def is_full(self, size: int) -> bool:
        """Whether a message of so many bytes finds no room."""
        return len(self) >= WAITING_MAX or self._bytes + size > WAITING_BYTES_MAX

    def has_window(self, receive_max: int) -> bool:
        """Whether a message that is offered now would leave at once."""
        return not self._waiting and len(self._sent) + len(self._released) < min(receive_max, SEND_WINDOW)

    def offer(self, sending: Sending) -> bool:
        """Takes it as the last one; False where there is no room."""
        if self.is_full(len(sending.message.payload)):
            return False
        self._number += 1
        sending.number = self._number
        self._waiting.append(sending)
        self._bytes += len(sending.message.payload)
        return True

    def restore(self, sending: Sending) -> None:
        """What was kept on disk, in the order of its numbers."""
        self._number = max(self._number, sending.number)
        self._bytes += len(sending.message.payload)
        if not sending.packet_id:
            self._waiting.append(sending)
            return
        self._packet_id = sending.packet_id
        (self._released if sending.released else self._sent)[sending.packet_id] = sending

    def take(self, receive_max: int, now_ms: int) -> tuple[list[Sending], list[Sending]]:
        """Those to send now, which have their packet identifiers, and those that expired meanwhile."""
        out: list[Sending] = []
        expired: list[Sending] = []
        window = min(receive_max, SEND_WINDOW)
        while self._waiting and len(self._sent) + len(self._released) < window:
            sending = self._waiting.pop(0)
            if is_over(sending.message, now_ms):
                self._bytes -= len(sending.message.payload)
                expired.append(sending)
                continue
            sending.packet_id = self._next_id()
            self._sent[sending.packet_id] = sending
            out.append(sending)
        return out, expired

    def acknowledge(self, packet_id: int) -> Sending | None:
        """PUBACK. None for one that nothing waits for: a client may answer twice."""
        sending = self._sent.get(packet_id)
        return None if sending is None or sending.qos != 1 else self._forget(self._sent, packet_id)

    def receive(self, packet_id: int) -> Sending | None:
        """PUBREC: answer with PUBREL, also where it was received before. None: nothing waits for it."""
        sending = self._released.get(packet_id)
        if sending is not None:
            return sending
        sending = self._sent.get(packet_id)
        if sending is None or sending.qos != 2:
            return None
        del self._sent[packet_id]
        sending.released = True
        self._released[packet_id] = sending
        return sending

    def refuse(self, packet_id: int) -> Sending | None:
        """PUBREC with an error: the client does not want it, and it is not sent again [MQTT-4.3.3-4]."""
        return self._forget(self._sent, packet_id)

    def complete(self, packet_id: int) -> Sending | None:
        """PUBCOMP."""
        return self._forget(self._released, packet_id)

    def withdraw(self, sending: Sending) -> bool:
        """Takes back what was not sent yet; False: it was."""
        if sending not in self._waiting:
            return False
        self._waiting.remove(sending)
        self._bytes -= len(sending.message.payload)
        return True

    def again(self, version: int, now_ms: int) -> list[bytes]:
        """All that is on its way, for a client that came back [MQTT-4.4.0-1], in the order in which it was sent."""
        packets = [encode_ack(Ack(PUBREL, packet_id), version) for packet_id in self._released]
        return packets + [sending.encode(version, now_ms, dup=True) for sending in self._sent.values()]

    def find(self, command_id: str) -> Sending | None:
        return next((sending for sending in self.all() if sending.command_id == command_id), None)

    def _forget(self, place: dict[int, Sending], packet_id: int) -> Sending | None:
        sending = place.pop(packet_id, None)
        if sending is not None:
            self._bytes -= len(sending.message.payload)
        return sending

    def _next_id(self) -> int:
        while True:  # ends: the window is smaller than the number of identifiers
            self._packet_id = self._packet_id % PACKET_ID_MAX + 1
            if self._packet_id not in self._sent and self._packet_id not in self._released:
                return self._packet_id


def is_over(message: Message, now_ms: int) -> bool:
    """Whether a message must not be sent any more (MQTT 5, section 3.3.2.3.3)."""
    return 0 < message.expires_ms <= now_ms
