"""The configuration of an MQTT listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.listeners.config import PRIORITIES_MAX, Port, PriorityConfig, TlsFiles, TlsListenerConfig


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
    tls_client_ca: Annotated[
        str,
        Meta(
            description="Authorities (PEM) that devices' certificates must be from; a certificate's common name, else "
            "its first alternative name, is the device's user name. Empty: devices need no certificate."
        ),
    ] = ""
    priorities: Annotated[
        tuple[PriorityConfig, ...],
        Meta(max_length=PRIORITIES_MAX, description="Messages that are not telemetry, by topic."),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")

    @property
    def tls(self) -> TlsFiles | None:
        files = super().tls
        if files is None or not self.tls_client_ca:
            return files
        return msgspec.structs.replace(files, client_ca=Path(self.tls_client_ca))

    @property
    def files_max(self) -> int:
        return self.connections_max
