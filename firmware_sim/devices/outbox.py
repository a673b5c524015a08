"""The resend buffer of a small device: messages wait here, in memory, until the server has acknowledged them. Pure.

add ─▶ [ waiting … ] ─▶ take ─▶ [ in flight, by packet id, at most `window` ] ─▶ acknowledge
             ▲                                      │
             └── these first, with DUP ── rewind ◀──┘   (the connection is gone)
"""

from __future__ import annotations

from collections import deque
from typing import Final

PACKET_ID_MAX: Final = 0xEFFF
"""Packet ids have 16 bits and are never 0 (MQTT 3.1.1, 2.3.1); those above are of answers to commands (orders.py)."""


class Outgoing:
    """One message of a device, until it is acknowledged."""

    __slots__ = ("boot", "is_repeat", "made_s", "packet_id", "payload", "sends", "sent_s", "seq")

    def __init__(self, boot: int, seq: int, payload: bytes, made_s: float, *, is_repeat: bool = False) -> None:
        self.boot = boot
        self.seq = seq
        self.payload = payload
        self.made_s = made_s
        """By the loop's clock."""
        self.is_repeat = is_repeat
        """It was acknowledged before: firmware that lost count sends it once more."""
        self.sent_s = 0.0
        """The last time, by the same clock."""
        self.packet_id = 0
        """0 while it waits and was never sent."""
        self.sends = 0
        """How often it left so far."""

    def repeat(self) -> Outgoing:
        """The same once more, under a packet id of its own."""
        return Outgoing(self.boot, self.seq, self.payload, self.made_s, is_repeat=True)


class Outbox:
    """At most `messages_max` messages, `window` of them in flight.

    Full, it drops the oldest one that waits: what is in flight holds its packet id, and is most likely about to be
    acknowledged.
    """

    def __init__(self, *, messages_max: int, window: int) -> None:
        if not 1 <= window < messages_max or window > PACKET_ID_MAX:
            raise ValueError(f"window {window} is not within 1 and {min(messages_max - 1, PACKET_ID_MAX)}")
        self._messages_max = messages_max
        self._window = window
        self._waiting: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """True while a message can be added without dropping one."""
        return len(self) < self._messages_max

    def oldest_in_flight(self) -> Outgoing | None:
        return next(iter(self._in_flight.values()), None)

    def add(self, message: Outgoing) -> Outgoing | None:
        """Takes the message; returns the one that was dropped to make room for it."""
        dropped = None
        if not self.has_room:
            dropped = self._waiting.popleft()
        self._waiting.append(message)
        return dropped

    def take(self) -> list[Outgoing]:
        """What is to be sent now, in order, each with its packet id; `sends` above 1 asks for the DUP flag."""
        taken: list[Outgoing] = []
        while self._waiting and len(self._in_flight) < self._window:
            message = self._waiting.popleft()
            if not message.packet_id:
                message.packet_id = self._free_id()
            message.sends += 1
            self._in_flight[message.packet_id] = message
            taken.append(message)
        return taken

    def acknowledge(self, packet_id: int) -> Outgoing | None:
        """The message that is done with; None where nothing in flight has this id."""
        return self._in_flight.pop(packet_id, None)

    def rewind(self) -> None:
        """The connection is gone: what was in flight goes again, first, in order and under its old packet ids."""
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def clear(self) -> list[Outgoing]:
        """Power off: everything that a device without flash memory forgets."""
        forgotten = [*self._in_flight.values(), *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        return forgotten

    def _free_id(self) -> int:
        # All ids in use are in flight: messages that kept theirs over a lost connection were taken before this one.
        while True:
            self._last_id = self._last_id % PACKET_ID_MAX + 1
            if self._last_id not in self._in_flight:
                return self._last_id
