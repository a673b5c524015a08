"""The configurations of listeners for frames: TCP, UDP, serial ports."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edge.listeners.answers import Answer
from edge.listeners.config import (
    CodecName,
    DeviceName,
    IsOpen,
    ListenerConfig,
    Needs,
    Port,
    PriorityName,
    Socket,
    TlsCert,
    TlsClientCa,
    TlsFiles,
    TlsKey,
    check_tls,
    device_of,
    templates_of,
    tls_files,
)
from protocols.framing.spec import FramingSpec

POLLS_MAX: Final = 256
"""Of one port: asked one after the other, and a line carries some tens a second."""

SILENCE_S_MAX: Final = 7 * 86_400

CommandForm = Literal["json", "payload"]
Identity = Literal["address", "payload"]

_PEER: Final = re.compile(r"^(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})$")
_USB: Final = re.compile(r"^usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(:.+)?$")


class FramedConfig(ListenerConfig, frozen=True, kw_only=True):
    """A listener whose devices send frames."""

    open: IsOpen = False
    device: DeviceName = ""
    codec: CodecName = ""
    priority: Annotated[PriorityName, Meta(description="Of its records. Alarms are never evicted from a full log.")] = (
        "telemetry"
    )
    ack: Annotated[
        str,
        Meta(
            max_length=256,
            description="Sent for each frame once its record is on disk: text, in which {count} stands for how many "
            "frames of this connection or address are, or bytes as hex:06. Empty: nothing is sent.",
        ),
    ] = ""
    nack: Annotated[
        str,
        Meta(
            max_length=256,
            description="Sent for each frame that is not taken: text, in which {code} stands for why, or bytes as "
            "hex:15. Empty: a frame is rejected in silence, and a connection whose records the log does not take ends.",
        ),
    ] = ""
    commands: Annotated[
        CommandForm,
        Meta(
            description='What a command\'s frame holds: json: {"command": name, "id": id, "payload": …}; payload: the '
            "command's payload as it is."
        ),
    ] = "json"

    def __post_init__(self) -> None:
        device_of(self.device)
        for name, fields in (("ack", ("count",)), ("nack", ("code",))):
            try:
                Answer(getattr(self, name), fields)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


class TcpConfig(FramedConfig, frozen=True, kw_only=True):
    """A listener for devices that send frames over TCP: they connect here, or the gateway to one of them."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "0.0.0.0"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 5000
    connect: Annotated[str, Meta(description="HOST:PORT of a device to connect to; then nothing is listened on.")] = ""
    framing: Annotated[FramingSpec, Meta(description="How frames are marked.")] = FramingSpec()
    identity: Annotated[
        Identity,
        Meta(
            description="Who speaks, where neither device, a certificate nor login says it: address: alias key ip, the "
            "peer's address; payload: what the network's codec finds."
        ),
    ] = "address"
    login: Annotated[
        str,
        Meta(
            description="Template of a connection's first frame, which names the device and is no record: ID {serial}. "
            "Empty: there is none."
        ),
    ] = ""
    connections_max: Annotated[int, Meta(ge=1, le=100_000, description="Devices connected at once.")] = 1000
    silence_s: Annotated[
        int,
        Meta(ge=0, le=SILENCE_S_MAX, description="A connection that says nothing for so long is closed; 0: never."),
    ] = 0
    tls_cert: TlsCert = ""
    tls_key: TlsKey = ""
    tls_client_ca: TlsClientCa = ""
    connect_tls: Annotated[bool, Meta(description="With connect: speak TLS.")] = False
    connect_ca: Annotated[str, Meta(description="With connect_tls: CA certificates (PEM); empty: the system's.")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tls(self.tls_cert, self.tls_key, self.tls_client_ca)
        if self.login:
            (template,) = templates_of((self.login,)).all
            if not template.alias_key:
                raise ValueError("login: it names no device; write {KEY} where the alias stands")
        if self.connect:
            if _PEER.match(self.connect) is None:
                raise ValueError(f"connect: {self.connect!r} is no HOST:PORT")
        elif not self.open and not self.tls_client_ca:
            raise ValueError(
                "open: whoever reaches the port may speak, which must be said by open = true; or let devices show "
                "certificates, by tls_client_ca"
            )

    @property
    def tls(self) -> TlsFiles | None:
        return tls_files(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port of `connect`."""
        found = _PEER.match(self.connect)
        if found is None:
            raise ValueError(f"connect: {self.connect!r} is no HOST:PORT")
        return found["host"].strip("[]"), int(found["port"])

    @property
    def files_max(self) -> int:
        return 1 if self.connect else self.connections_max

    @property
    def needs(self) -> Needs:
        if self.connect:
            return Needs(peers=(Socket(*self.peer),))
        return Needs(sockets=(Socket(self.host, self.port),))


class UdpConfig(FramedConfig, frozen=True, kw_only=True):
    """A listener for datagrams. Best effort: what comes while the gateway cannot take it is dropped and counted."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "0.0.0.0"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 5000
    groups: Annotated[
        tuple[str, ...], Meta(max_length=20, description="Multicast groups to join, such as 239.1.2.3 or ff02::114.")
    ] = ()
    interface: Annotated[
        str, Meta(description="Interface that groups are joined on, such as eth0; empty: the system chooses.")
    ] = ""
    framing: Annotated[
        FramingSpec | None, Meta(description="How frames within a datagram are marked; not set: a datagram is a frame.")
    ] = None
    identity: Annotated[
        Identity,
        Meta(
            description="Who speaks, where device does not say it: address: alias key ip, the sender's address; "
            "payload: what the network's codec finds."
        ),
    ] = "address"
    rate_max: Annotated[
        int,
        Meta(
            ge=0, le=1_000_000, description="Datagrams that one address may send in a second; more are dropped. 0: any."
        ),
    ] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.open:
            raise ValueError("open: whoever reaches the port may speak, which must be said by open = true")

    @property
    def needs(self) -> Needs:
        return Needs(sockets=(Socket(self.host, self.port, "udp"),))


class PollConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device on a serial port is asked, again and again."""

    send: Annotated[str, Meta(min_length=1, max_length=256, description="Text, or bytes as hex:0102.")]
    every_s: Annotated[float, Meta(ge=0.01, le=86_400, description="From one time to the next.")] = 10.0
    answer_s: Annotated[
        float, Meta(ge=0.01, le=60, description="How long a frame is waited for before the next is asked.")
    ] = 1.0

    def __post_init__(self) -> None:
        try:
            Answer(self.send, ())
        except ValueError as error:
            raise ValueError(f"send: {error}") from None


class SerialConfig(FramedConfig, frozen=True, kw_only=True):
    """A serial port. It may come and go: the gateway waits for it."""

    port: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            description="A path, such as /dev/ttyUSB0 or one below /dev/serial/by-id; or usb:VID:PID, with :SERIAL if "
            "there are several, for the first adapter that has these numbers.",
        ),
    ]
    baud: Annotated[int, Meta(ge=50, le=4_000_000, description="Bits a second.")] = 9600
    data_bits: Annotated[Literal[5, 6, 7, 8], Meta(description="Of a character.")] = 8
    parity: Annotated[Literal["none", "even", "odd", "mark", "space"], Meta(description="Of a character.")] = "none"
    stop_bits: Annotated[Literal[1, 2], Meta(description="Of a character.")] = 1
    flow: Annotated[Literal["none", "rtscts", "xonxoff"], Meta(description="Flow control.")] = "none"
    framing: Annotated[FramingSpec, Meta(description="How frames are marked.")] = FramingSpec()
    polls: Annotated[
        tuple[PollConfig, ...], Meta(max_length=POLLS_MAX, description="What its device is asked, one after the other.")
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.port.startswith("usb:") and _USB.match(self.port) is None:
            raise ValueError(f"port: {self.port!r} is no usb:VID:PID with four hexadecimal digits each")
        if not self.open:
            raise ValueError("open: whoever is on the line may speak, which must be said by open = true")

    @property
    def needs(self) -> Needs:
        return Needs(serial_ports=(self.port,))
