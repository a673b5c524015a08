"""The cloud's configuration: every setting, its default and its documentation in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from cloud.topics import TOPICS

ENV_PREFIX: Final = "TIDEGATE_CLOUD_"
JETSTREAM_BYTES_MIN: Final = sum(topic.bytes_max for topic in TOPICS)
"""NATS makes no stream that it could not fill."""


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API, HTTP ingest and the gateways' links: one port."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes any free one.")] = 8080
    public_url: Annotated[
        str, Meta(description="Where gateways and browsers reach this server; empty: host and port as they are.")
    ] = ""
    tls_cert: Annotated[str, Meta(description="Certificate chain (PEM); empty: plain HTTP, or TLS by a proxy.")] = ""
    tls_key: Annotated[str, Meta(description="Key of the TLS certificate (PEM).")] = ""

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together, and one of them is not set")
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ValueError("public_url must begin with http:// or https://")


class DatabaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL 14 or later: yours, or an embedded one."""

    url: Annotated[str, Meta(description="postgresql:// URL; empty: an embedded PostgreSQL in the data folder.")] = ""
    port: Annotated[
        int, Meta(ge=1, le=65535, description="Port of the embedded PostgreSQL; the next free one where it is taken.")
    ] = 7432

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("postgresql://", "postgres://")):
            raise ValueError("url must begin with postgresql://")


class NatsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """NATS with JetStream: yours, or an embedded one."""

    url: Annotated[
        str, Meta(description="nats:// URL, or several with commas; empty: an embedded NATS server in the data folder.")
    ] = ""
    port: Annotated[
        int, Meta(ge=1, le=65535, description="Port of the embedded NATS; the next free one where it is taken.")
    ] = 7422
    jetstream_bytes_max: Annotated[
        int, Meta(ge=JETSTREAM_BYTES_MIN, description="What the embedded NATS may keep on disk, all topics together.")
    ] = 64 * 1024**3

    def __post_init__(self) -> None:
        if self.url and not all(one.startswith(("nats://", "tls://")) for one in self.url.split(",")):
            raise ValueError("url must begin with nats:// or tls://, each of several")


class EnginesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL and NATS alike."""

    reach_within_s: Annotated[
        float, Meta(gt=0, le=3600, description="How long a start waits for engines that are given by URL, in seconds.")
    ] = 30.0


class CuratorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What retention lets go of (service `curator`)."""

    every_s: Annotated[
        float,
        Meta(
            ge=60, le=7 * 86_400, description="Between two runs by schedule, in seconds; one can be asked for any time."
        ),
    ] = 86_400.0


class CloudConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data_dir: Annotated[Path, Meta(description="Folder of the embedded engines.")] = Path("tidegate-cloud")
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    http: HttpConfig = HttpConfig()
    database: DatabaseConfig = DatabaseConfig()
    nats: NatsConfig = NatsConfig()
    engines: EnginesConfig = EnginesConfig()
    curator: CuratorConfig = CuratorConfig()
