"""What a device does with commands: it runs each once, by its id, remembers what it answered, and answers until that is
acknowledged. It is in flash memory: a power failure leaves it. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from firmware_sim.devices.outbox import PACKET_ID_MAX

FILTER: Final = b"down/+/+"
"""So that the topic says name and id: MQTT 3.1.1 has no other place for it."""
REMEMBERED_MAX: Final = 256
"""Ids that small firmware has room for."""
FIRST_PACKET_ID: Final = PACKET_ID_MAX + 1
"""Of answers; messages use those below."""
ANSWERS_MAX: Final = 0xFFFF - PACKET_ID_MAX


class Orders:
    def __init__(self) -> None:
        self.ran = 0
        self.again = 0
        """Commands that came although they had been run."""
        self._answers: dict[str, bytes] = {}
        """By command id, the oldest first."""
        self._unacknowledged: dict[int, tuple[bytes, bytes]] = {}
        self._last_id = 0

    def obey(self, topic: str) -> tuple[int, bytes, bytes] | None:
        """The command that came on this topic is done: packet id, topic and payload of the answer. None: it is no
        command, or too many answers wait."""
        levels = topic.split("/")
        if len(levels) != 3 or len(self._unacknowledged) >= ANSWERS_MAX:
            return None
        _, name, command_id = levels
        answer = self._answers.get(command_id)
        if answer is None:
            self.ran += 1
            answer = self._answers[command_id] = msgspec.json.encode({"ok": True, "did": name, "run": self.ran})
            if len(self._answers) > REMEMBERED_MAX:
                del self._answers[next(iter(self._answers))]
        else:
            self.again += 1
        while True:
            self._last_id = self._last_id % ANSWERS_MAX + 1
            packet_id = PACKET_ID_MAX + self._last_id
            if packet_id not in self._unacknowledged:
                break
        self._unacknowledged[packet_id] = f"up/response/{command_id}".encode(), answer
        return packet_id, *self._unacknowledged[packet_id]

    def acknowledged(self, packet_id: int) -> None:
        self._unacknowledged.pop(packet_id, None)

    def unacknowledged(self) -> list[tuple[int, bytes, bytes]]:
        """To be sent again on a new connection."""
        return [(packet_id, topic, payload) for packet_id, (topic, payload) in self._unacknowledged.items()]
