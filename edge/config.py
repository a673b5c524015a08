"""The gateway's configuration: every setting, its default and its documentation in one place."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge.listeners.broker.config import BrokerConfig
from edge.listeners.catalog import KINDS
from edge.listeners.coap.config import CoapConfig
from edge.listeners.config import ListenerConfig, Port, Socket
from edge.listeners.http.config import HttpConfig
from edge.listeners.modbus.config import ModbusConfig
from edge.listeners.mqtt.config import MqttConfig
from edge.listeners.stream_config import SerialConfig, TcpConfig, UdpConfig
from sync.log.settings import SEGMENT_BYTES_MIN, SEGMENTS_MIN, STATE_BYTES

ENV_PREFIX: Final = "TIDEGATE_EDGE_"
LOG_BYTES_MIN: Final = STATE_BYTES + SEGMENTS_MIN * SEGMENT_BYTES_MIN
"""Five of the smallest segments: one being written, two prepared, and two that wait."""

BYTES_PER_S_MIN: Final = 1_000
"""A link that is limited to less answers no probe in time once a block of a busy second is on its way."""


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The durable log: everything that devices were promised."""

    max_bytes: Annotated[
        int,
        Meta(ge=LOG_BYTES_MIN, description="Hard cap of the log on disk, in bytes; room for five segments at least."),
    ] = 2_000_000_000
    segment_bytes: Annotated[
        int,
        Meta(
            ge=SEGMENT_BYTES_MIN,
            le=1 << 30,
            description="Size of one preallocated file, at most a fifth of max_bytes; trimming is by whole files.",
        ),
    ] = 16 * 1024 * 1024
    evict: Annotated[
        bool,
        Meta(
            description="When the log is full, the oldest telemetry goes, then the oldest events; alarms never. false: "
            "new messages are refused, for sites whose devices keep them."
        ),
    ] = True
    retain_acked_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Files that the cloud has entirely are kept up to this many bytes of max_bytes, to send them "
            "again if it was restored from a backup.",
        ),
    ] = 0
    linger_max_ms: Annotated[
        float, Meta(ge=0, le=50, description="Longest wait for more messages before a sync, when traffic is dense.")
    ] = 2.0

    def __post_init__(self) -> None:
        least = STATE_BYTES + SEGMENTS_MIN * self.segment_bytes
        if self.max_bytes < least:
            raise ValueError(
                f"max_bytes {self.max_bytes} is below the minimum {least} for segment_bytes {self.segment_bytes}; "
                "give it more, or smaller segments"
            )


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one outbound connection to the cloud."""

    url: Annotated[
        str, Meta(description="ws:// or wss:// address of the cloud's link; empty: the one given at enrolment.")
    ] = ""
    ca_file: Annotated[str, Meta(description="CA certificates (PEM) to trust beside the system's.")] = ""
    window_bytes: Annotated[
        int,
        Meta(
            ge=64 * 1024, le=64 * 1024 * 1024, description="Most bytes in flight, however much credit the cloud gives."
        ),
    ] = 4 * 1024 * 1024
    bytes_per_s_max: Annotated[
        int,
        Meta(ge=0, description="Most bytes that are sent to the cloud in a second, new and old together; 0: no limit."),
    ] = 0

    def __post_init__(self) -> None:
        if 0 < self.bytes_per_s_max < BYTES_PER_S_MIN:
            raise ValueError(f"bytes_per_s_max {self.bytes_per_s_max}: below {BYTES_PER_S_MIN} nothing gets through")
        if self.url and urlsplit(self.url).scheme not in ("ws", "wss"):
            raise ValueError("url must begin with ws:// or wss://")


class StatusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The status page and API, which ask nobody for a password: they are for this machine only."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 8081


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where other processes on this machine publish and read batches."""

    endpoint: Annotated[
        str, Meta(description="ZeroMQ endpoint, ipc:// or tcp:// on loopback; empty: bus.sock in the data folder.")
    ] = ""

    def __post_init__(self) -> None:
        if self.endpoint and not _is_on_this_machine(self.endpoint):
            raise ValueError(
                f"endpoint {self.endpoint}: whoever reaches the bus may publish, so it is for this machine alone; "
                "use ipc://PATH, or tcp://127.0.0.1:PORT"
            )


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data_dir: Annotated[Path, Meta(description="Folder of the log, the identity and the registry replica.")] = Path(
        "/var/lib/tidegate"
    )
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    log: LogConfig = LogConfig()
    link: LinkConfig = LinkConfig()
    mqtt: Annotated[tuple[MqttConfig, ...], Meta(description="MQTT listeners.")] = ()
    http: Annotated[tuple[HttpConfig, ...], Meta(description="HTTP listeners.")] = ()
    tcp: Annotated[tuple[TcpConfig, ...], Meta(description="Listeners for frames over TCP.")] = ()
    udp: Annotated[tuple[UdpConfig, ...], Meta(description="Listeners for datagrams.")] = ()
    serial: Annotated[tuple[SerialConfig, ...], Meta(description="Serial ports.")] = ()
    broker: Annotated[tuple[BrokerConfig, ...], Meta(description="Existing MQTT brokers.")] = ()
    modbus: Annotated[tuple[ModbusConfig, ...], Meta(description="Modbus lines.")] = ()
    coap: Annotated[tuple[CoapConfig, ...], Meta(description="CoAP listeners.")] = ()
    status: StatusConfig = StatusConfig()
    bus: BusConfig = BusConfig()

    def __post_init__(self) -> None:
        names = [listener.name for _, listener in self.listeners]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two listeners are named {name!r}; each needs a name of its own")
        taken = {Socket(self.status.host, self.status.port): "the status page"}
        for _, listener in self.listeners:
            if isinstance(listener, UdpConfig) and listener.groups:
                continue  # several may listen to multicast on one port
            for wanted in listener.needs.sockets:
                if wanted.port and wanted in taken:
                    raise ValueError(
                        f"listener {listener.name!r} and {taken[wanted]} both have {wanted.protocol} port "
                        f"{wanted.port} on {wanted.host}; give one of them another port"
                    )
                taken[wanted] = f"listener {listener.name!r}"

    @property
    def listeners(self) -> Sequence[tuple[str, ListenerConfig]]:
        """All of them, with their kinds (edge/listeners/catalog.py)."""
        return [(kind, listener) for kind in KINDS for listener in getattr(self, kind)]


def _is_on_this_machine(endpoint: str) -> bool:
    """ipc:// with a path, or tcp:// with a port on a loopback address."""
    scheme, _, place = endpoint.partition("://")
    if scheme != "tcp":
        return scheme == "ipc" and bool(place)
    host, _, port = place.rpartition(":")
    if port != "*" and not port.isdecimal():
        return False
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"
