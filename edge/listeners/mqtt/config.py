"""The configuration of an MQTT listener."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge.listeners.config import PRIORITIES_MAX, Needs, Port, PriorityConfig, Socket, TlsListenerConfig


class MqttConfig(TlsListenerConfig, frozen=True):
    """A listener for MQTT devices of one network: MQTT 3.1.1 and 5."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "0.0.0.0"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 1883
    transport: Annotated[
        Literal["tcp", "websocket"], Meta(description="What MQTT is spoken over; websocket: for browsers.")
    ] = "tcp"
    connections_max: Annotated[int, Meta(ge=1, le=100_000, description="Devices connected at once.")] = 10_000
    messages_per_s_max: Annotated[
        int, Meta(ge=0, description="Messages a second of one device; one that sends more is read no faster. 0: any.")
    ] = 0
    priorities: Annotated[
        tuple[PriorityConfig, ...],
        Meta(max_length=PRIORITIES_MAX, description="Messages that are not telemetry, by topic."),
    ] = ()

    @property
    def files_max(self) -> int:
        return self.connections_max

    @property
    def needs(self) -> Needs:
        return Needs(sockets=(Socket(self.host, self.port),))
