"""What the configurations of all listeners have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.errors import WireError
from protocols.limits import NAME_BYTES_MAX
from protocols.messages import Priority
from protocols.mqtt.topics import decode_filter
from protocols.templates import NOBODY, TEMPLATES_MAX, Name, TemplateError, Templates

PRIORITIES_MAX: Final = 16
TOPICS_MAX: Final = 64
"""Of one rule; a device's first message to a topic is held against all of them."""

Port = Annotated[int, Meta(ge=0, le=65535)]
PriorityName = Literal["telemetry", "event", "alarm"]
CodecName = Annotated[str, Meta(max_length=NAME_BYTES_MAX, description="Codec of its records; empty: the network's.")]
IsOpen = Annotated[
    bool, Meta(description="Whoever reaches it may speak: without credentials this must be said by setting it.")
]
TopicTemplates = Annotated[
    tuple[str, ...],
    Meta(
        max_length=TEMPLATES_MAX,
        description="What its devices' topics or paths look like and which level is the alias: sensors/{serial}/up. "
        "The first that fits counts; what fits none is refused.",
    ),
]
DeviceName = Annotated[str, Meta(description="The one device that speaks here, as KEY:ALIAS; empty: not known here.")]


TlsCert = Annotated[str, Meta(description="Certificate chain (PEM); empty: no TLS.")]
TlsKey = Annotated[str, Meta(description="Key of the certificate (PEM).")]
TlsClientCa = Annotated[
    str,
    Meta(
        description="Authorities (PEM) whose certificates devices must show; the common name, else the first "
        "alternative name, is the user name, ALIAS or KEY:ALIAS. Empty: none is asked for."
    ),
]


FILE_SETTINGS: Final = ("tls_cert", "tls_key", "tls_client_ca", "tls_ca", "connect_ca")
"""Whose values are paths of files that must be readable, and whose content counts as part of the section."""


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files: the certificate with its chain, its key, and the authorities that devices' certificates are held
    against."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """None: devices need no certificate."""


class PriorityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages matter more than telemetry: what the log keeps longest when it is full, and what is sent first."""

    topics: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=TOPICS_MAX,
            description="MQTT topic filters; + and # stand for one level and for all that follow.",
        ),
    ]
    priority: Annotated[
        PriorityName,
        Meta(
            description="Of messages to these topics. Where several fit, the highest counts. Alarms are never evicted."
        ),
    ]

    def __post_init__(self) -> None:
        for topic in self.topics:
            try:
                decode_filter(topic.encode())
            except WireError as error:
                raise ValueError(f"topics: {topic!r}: {error.detail}") from None


def priority_rules(priorities: tuple[PriorityConfig, ...]) -> list[tuple[str, Priority]]:
    """As edge/listeners/priorities.py takes them."""
    return [(topic, Priority[rule.priority.upper()]) for rule in priorities for topic in rule.topics]


def check_tls(cert: str, key: str, client_ca: str) -> None:
    """Raises ValueError, as a configuration does."""
    if bool(cert) != bool(key):
        raise ValueError("tls_cert and tls_key go together, and one of them is not set")
    if client_ca and not cert:
        raise ValueError("tls_client_ca: without tls_cert and tls_key there is no TLS")


def tls_files(cert: str, key: str, client_ca: str) -> TlsFiles | None:
    """None: no TLS."""
    return TlsFiles(Path(cert), Path(key), Path(client_ca) if client_ca else None) if cert else None


def templates_of(texts: tuple[str, ...]) -> Templates:
    """Raises ValueError, as a configuration does."""
    try:
        return Templates(texts)
    except TemplateError as error:
        raise ValueError(f"templates: {error}") from None


def device_of(text: str) -> Name:
    """Of a DeviceName; NOBODY where it is empty. Raises ValueError, as a configuration does."""
    if not text:
        return NOBODY
    key, colon, alias = text.partition(":")
    if not colon or not all(0 < len(part.encode()) <= NAME_BYTES_MAX for part in (key, alias)):
        raise ValueError(f"device: {text!r} is no KEY:ALIAS, such as serial:7, of up to {NAME_BYTES_MAX} bytes each")
    return Name(key, alias)


class Socket(msgspec.Struct, frozen=True):
    """An address and port, of this machine or of another."""

    host: str
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"


class Needs(msgspec.Struct, frozen=True):
    """What a listener needs of the machine and around it: what `tidegate-edge doctor` looks at before it is started."""

    sockets: tuple[Socket, ...] = ()
    """That it listens on."""
    serial_ports: tuple[str, ...] = ()
    """Device files, or `usb:VID:PID[:SERIAL]`."""
    peers: tuple[Socket, ...] = ()
    """That it connects to: a broker, a Modbus device."""
    folders: tuple[str, ...] = ()
    """That it writes to, beside the gateway's data folder."""


class ListenerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listener: devices of one network, by one protocol."""

    name: Annotated[
        str, Meta(min_length=1, max_length=64, description="Name of the listener, in records and metrics; unique.")
    ]
    network: Annotated[str, Meta(min_length=1, max_length=128, description="Network whose devices connect here.")]

    @property
    def files_max(self) -> int:
        """File descriptors that it may need at a time."""
        return 1

    @property
    def needs(self) -> Needs:
        """Each kind says its own."""
        return Needs()

    @property
    def server_tls(self) -> TlsFiles | None:
        """That it shows to those who connect to it; None: no TLS, or it is the one who connects."""
        files = getattr(self, "tls", None)
        return files if isinstance(files, TlsFiles) else None

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that it names, by setting."""
        return {name: Path(value) for name in FILE_SETTINGS if (value := getattr(self, name, ""))}


class TlsListenerConfig(ListenerConfig, frozen=True, kw_only=True):
    """A listener whose connections may be TLS."""

    tls_cert: TlsCert = ""
    tls_key: TlsKey = ""
    tls_client_ca: TlsClientCa = ""

    def __post_init__(self) -> None:
        check_tls(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def tls(self) -> TlsFiles | None:
        return tls_files(self.tls_cert, self.tls_key, self.tls_client_ca)
