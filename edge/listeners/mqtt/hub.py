"""What an MQTT connection needs of its listener, and what clients are told when it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from edge.credentials import Grant, Refusal, RefusalCode
from edge.listeners.attendance import Attendance
from edge.listeners.collector import Collector
from edge.listeners.listener import ListenerCounters
from edge.listeners.mqtt.network import MqttNetwork
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import Refusals
from edge.listeners.wheel import DeadlineWheel
from protocols.mqtt.connect import Connect
from protocols.mqtt.reasons import Reason

if TYPE_CHECKING:
    from edge.listeners.mqtt.connection import MqttConnection

LOGIN_REASONS: Final = {
    RefusalCode.NO_REGISTRY: Reason.SERVER_UNAVAILABLE,
    RefusalCode.TOO_MANY_GUESSES: Reason.SERVER_UNAVAILABLE,
}
CLOSE_REASONS: Final = {
    "log-full": Reason.QUOTA_EXCEEDED,
    "keep_alive": Reason.KEEP_ALIVE_TIMEOUT,
    "taken_over": Reason.SESSION_TAKEN_OVER,
    "revoked": Reason.NOT_AUTHORIZED,
    "too_frequent": Reason.MESSAGE_RATE_TOO_HIGH,
    "receive_maximum": Reason.RECEIVE_MAXIMUM_EXCEEDED,
}
"""Of DISCONNECT; whatever else keeps records from being taken passes: the server is busy."""

PARTINGS: Final = {"keep_alive": "keep-alive missed", "taken_over": "taken over by another connection"}
"""Code to what people are told of why a device left; where there is none, the detail."""


class Hub(Protocol):
    """What a connection needs of its listener."""

    name: str
    network_id: str
    network: MqttNetwork
    collector: Collector
    priorities: Priorities
    counters: ListenerCounters
    refusals: Refusals
    wheel: DeadlineWheel
    attendance: Attendance
    paused: bool

    def admit(self, connection: MqttConnection) -> bool:
        """False where there are as many as allowed."""
        ...

    def check(self, connect: Connect, transport: asyncio.BaseTransport, address: str) -> Grant | Refusal:
        """Who it is that connects."""
        ...

    def left(self, connection: MqttConnection) -> None: ...

    def new_client_id(self) -> str:
        """Of its own for each connection."""
        ...

    def spend(self, connection: MqttConnection, messages: int) -> bool:
        """False where the device is over its rate: it is released later."""
        ...
