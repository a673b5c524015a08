"""What a device does with commands: it runs each once, by its id, remembers what it answered, and answers until that is
acknowledged. It is in flash memory: a power failure leaves it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from firmware_sim.devices.outbox import PACKET_ID_MAX

REMEMBERED_MAX: Final = 256
"""Ids that small firmware has room for."""
FIRST_PACKET_ID: Final = PACKET_ID_MAX + 1
"""Of answers; messages use those below."""
ANSWERS_MAX: Final = 0xFFFF - PACKET_ID_MAX


class Answer(msgspec.Struct, frozen=True):
    """To one command; `packet_id` beside those of messages, until it is acknowledged."""

    packet_id: int
    command_id: str
    body: dict[str, Any]


class Orders:
    def __init__(self) -> None:
        self.ran = 0
        self.again = 0
        """Commands that came although they had been run."""
        self._bodies: dict[str, dict[str, Any]] = {}
        """Of answers by command id, the oldest first."""
        self._unacknowledged: dict[int, Answer] = {}
        self._last_id = 0

    def obey(self, name: str, command_id: str) -> Answer | None:
        """The command is done; what is to be answered. None: too many answers wait."""
        if len(self._unacknowledged) >= ANSWERS_MAX:
            return None
        body = self._bodies.get(command_id)
        if body is None:
            self.ran += 1
            body = self._bodies[command_id] = {"ok": True, "did": name, "run": self.ran}
            if len(self._bodies) > REMEMBERED_MAX:
                del self._bodies[next(iter(self._bodies))]
        else:
            self.again += 1
        while True:
            self._last_id = self._last_id % ANSWERS_MAX + 1
            packet_id = PACKET_ID_MAX + self._last_id
            if packet_id not in self._unacknowledged:
                break
        answer = self._unacknowledged[packet_id] = Answer(packet_id, command_id, body)
        return answer

    def acknowledged(self, packet_id: int) -> None:
        self._unacknowledged.pop(packet_id, None)

    def unacknowledged(self) -> Collection[Answer]:
        """To be sent again on a new connection."""
        return self._unacknowledged.values()
