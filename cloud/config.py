"""The cloud's configuration: every setting, its default and its documentation in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

ENV_PREFIX: Final = "TIDEGATE_CLOUD_"


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API, HTTP ingest and the gateways' links: one port."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes any free one.")] = 8080
    public_url: Annotated[
        str, Meta(description="Where gateways and browsers reach this server; empty: host and port as they are.")
    ] = ""
    tls_cert: Annotated[str, Meta(description="Certificate chain (PEM); empty: plain HTTP, or TLS by a proxy.")] = ""
    tls_key: Annotated[str, Meta(description="Key of the TLS certificate (PEM).")] = ""


class DatabaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(description="postgresql:// URL; empty: an embedded PostgreSQL in the data folder.")] = ""
    port: Annotated[
        int, Meta(ge=1, le=65535, description="Port of the embedded PostgreSQL; the next free one where it is taken.")
    ] = 7432


class NatsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(description="nats:// URL; empty: an embedded NATS server in the data folder.")] = ""
    port: Annotated[
        int, Meta(ge=1, le=65535, description="Port of the embedded NATS; the next free one where it is taken.")
    ] = 7422


class CloudConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    data_dir: Annotated[Path, Meta(description="Folder of the embedded engines.")] = Path("tidegate-cloud")
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    http: HttpConfig = HttpConfig()
    database: DatabaseConfig = DatabaseConfig()
    nats: NatsConfig = NatsConfig()
