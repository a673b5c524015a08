"""The configuration of a listener at an existing broker."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from edge.listeners.config import (
    PRIORITIES_MAX,
    CodecName,
    ListenerConfig,
    Needs,
    PriorityConfig,
    Socket,
    TopicTemplates,
    check_tls,
    templates_of,
)
from protocols.templates import Template, TemplateError

COMMAND: Final = "{command}"
"""In `down`: the command's name."""

DAY_S: Final = 86_400


class BrokerConfig(ListenerConfig, frozen=True):
    """An existing MQTT broker (mosquitto, EMQX, …) whose topics hold the messages of one network."""

    host: Annotated[str, Meta(min_length=1, description="Name or address of the broker.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the broker; 8883 is usual for TLS.")] = 1883
    user: Annotated[str, Meta(description="User name at the broker; empty: none is sent.")] = ""
    password: Annotated[str, Meta(description="Password at the broker.")] = ""
    client_id: Annotated[
        str,
        Meta(
            max_length=128,
            description="Client identifier, under which the broker keeps what comes while the gateway is away; empty: "
            "tidegate-PROJECT-GATEWAY-NAME.",
        ),
    ] = ""
    protocol: Annotated[Literal["3.1.1", "5"], Meta(description="Version of MQTT that the broker speaks.")] = "5"
    templates: TopicTemplates = ("{serial}/up",)
    responses: Annotated[
        TopicTemplates,
        Meta(description="Topics of devices' answers to commands; their last level is the command's id."),
    ] = ()
    down: Annotated[
        str,
        Meta(
            description="Topic to which commands are published: {serial}/down/{command}, with the alias and the "
            "command's name. Empty: there are none."
        ),
    ] = ""
    retained: Annotated[
        bool,
        Meta(
            description="Take also what the broker has kept from before (retained messages). They carry no time of "
            "their own and may be old; each new subscription brings them again."
        ),
    ] = False
    session_s: Annotated[
        int,
        Meta(
            ge=60,
            le=365 * DAY_S,
            description="How long the broker is asked to keep what comes while the gateway is away (MQTT 5; with 3.1.1 "
            "the broker decides).",
        ),
    ] = 7 * DAY_S
    inflight_max: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="Messages that the broker may send before they are acknowledged (MQTT 5; with 3.1.1 the broker "
            "decides).",
        ),
    ] = 1_000
    keep_alive_s: Annotated[int, Meta(ge=5, le=3600, description="Of the connection to the broker.")] = 30
    codec: CodecName = ""
    priorities: Annotated[
        tuple[PriorityConfig, ...],
        Meta(max_length=PRIORITIES_MAX, description="Messages that are not telemetry, by topic."),
    ] = ()
    tls: Annotated[bool, Meta(description="Speak TLS to the broker.")] = False
    tls_ca: Annotated[
        str, Meta(description="CA certificates (PEM) that the broker's is held against; empty: the system's.")
    ] = ""
    tls_cert: Annotated[str, Meta(description="Own certificate chain (PEM), where the broker wants one.")] = ""
    tls_key: Annotated[str, Meta(description="Key of the certificate (PEM).")] = ""

    @property
    def needs(self) -> Needs:
        return Needs(peers=(Socket(self.host, self.port),))

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("templates: at least one is needed; it says which topics are subscribed to")
        templates_of(self.templates)
        templates_of(self.responses)
        check_tls(self.tls_cert, self.tls_key, "")
        if (self.tls_ca or self.tls_cert) and not self.tls:
            raise ValueError("tls: it must be true where tls_ca or tls_cert is set")
        if self.password and not self.user:
            raise ValueError("user: it is needed where password is set")
        if self.down:
            try:
                Template(self.down.replace(COMMAND, "command")).fill("alias")
            except TemplateError as error:
                raise ValueError(f"down: {error}") from None
