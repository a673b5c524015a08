"""The configuration of a CoAP listener."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge.listeners.config import (
    PRIORITIES_MAX,
    CodecName,
    IsOpen,
    ListenerConfig,
    Needs,
    Port,
    PriorityConfig,
    Socket,
    TopicTemplates,
    templates_of,
)


class CoapConfig(ListenerConfig, frozen=True, kw_only=True):
    """A listener for CoAP devices of one network, over UDP."""

    host: Annotated[str, Meta(description="Address to listen on; :: is IPv6 and IPv4.")] = "0.0.0.0"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 5683
    templates: TopicTemplates = ("{serial}",)
    open: IsOpen = False
    codec: CodecName = ""
    """It counts more than a request's Content-Format."""
    oscore: Annotated[
        str,
        Meta(description="Folder of OSCORE security contexts, a folder in it for each device: KEY:ALIAS. Empty: none."),
    ] = ""
    rate_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Datagrams that one address may send in a second; more are turned away. 0: any.",
        ),
    ] = 1000
    priorities: Annotated[
        tuple[PriorityConfig, ...],
        Meta(max_length=PRIORITIES_MAX, description="Messages that are not telemetry, by path, without its first /."),
    ] = ()

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("templates: at least one is needed; it says which paths there are")
        templates_of(self.paths)

    @property
    def needs(self) -> Needs:
        # Contexts count what was sent, in their folder.
        folders = (self.oscore,) if self.oscore else ()
        return Needs(sockets=(Socket(self.host, self.port, "udp"),), folders=folders)

    @property
    def paths(self) -> tuple[str, ...]:
        """The templates as topics are: without a first `/`."""
        return tuple(template.removeprefix("/") for template in self.templates)
