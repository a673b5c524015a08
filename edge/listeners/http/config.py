"""The configuration of an HTTP listener."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge.listeners.config import (
    PRIORITIES_MAX,
    CodecName,
    IsOpen,
    Needs,
    Port,
    PriorityConfig,
    Socket,
    TlsListenerConfig,
    TopicTemplates,
    templates_of,
)


class HttpConfig(TlsListenerConfig, frozen=True):
    """A listener for devices of one network that POST their messages."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "0.0.0.0"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes any free one.")] = 8082
    connections_max: Annotated[int, Meta(ge=1, le=100_000, description="Connections open at once.")] = 1_000
    messages_per_s_max: Annotated[
        int, Meta(ge=0, description="Messages a second of one device; more are answered by 429. 0: any.")
    ] = 0
    templates: TopicTemplates = ("{serial}",)
    open: IsOpen = False
    codec: CodecName = ""
    """It counts more than a request's Content-Type."""
    priorities: Annotated[
        tuple[PriorityConfig, ...],
        Meta(max_length=PRIORITIES_MAX, description="Messages that are not telemetry, by path, without its first /."),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.templates:
            raise ValueError("templates: at least one is needed; it says which paths there are")
        templates_of(self.paths)

    @property
    def paths(self) -> tuple[str, ...]:
        """The templates as topics are: without a first `/`."""
        return tuple(template.removeprefix("/") for template in self.templates)

    @property
    def files_max(self) -> int:
        return self.connections_max

    @property
    def needs(self) -> Needs:
        return Needs(sockets=(Socket(self.host, self.port),))
