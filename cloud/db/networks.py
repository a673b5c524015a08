"""Networks: sources of device data, each a namespace of aliases with its codec."""

from __future__ import annotations

import datetime
from typing import Any, Final, TypedDict

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import InUseError, NotFoundError, TakenError, violations
from cloud.db.revision import bury, check_revision, next_revision, unbury
from cloud.db.secrets import with_secret
from protocols.codecs import CodecSpec

_spec: Final = msgspec.json.Decoder(CodecSpec).decode
_COLUMNS: Final = (
    "project_id, id, name, alias_key, codec, device_talk, cardinality(secret_sha256) AS credentials, revision, "
    "created_at"
)


class Network(msgspec.Struct, frozen=True):
    project_id: str
    id: str
    name: str
    alias_key: str
    spec: CodecSpec
    device_talk: bool
    """Whether its devices may subscribe to what others of them publish."""
    credentials: int
    """How many secrets let unknown devices in: 0, 1, or 2 while one is being rotated."""
    revision: int
    created_at: datetime.datetime


class NetworkChanges(TypedDict, total=False):
    name: str
    alias_key: str
    spec: CodecSpec
    device_talk: bool


async def create(
    conn: Connection,
    project_id: str,
    network_id: str,
    *,
    name: str,
    alias_key: str,
    spec: CodecSpec,
    device_talk: bool = False,
) -> Network:
    """Raises TakenError, NotFoundError (the project)."""
    revision = await next_revision(conn, project_id)
    with violations({"network_pkey": TakenError("id", f"network {network_id}")}):
        row = await conn.fetchrow(
            f"""INSERT INTO network (project_id, id, name, alias_key, codec, device_talk, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}""",
            project_id,
            network_id,
            name,
            alias_key,
            _encode(spec),
            device_talk,
            revision,
        )
    await unbury(conn, project_id, "network", network_id)
    return _network(network_id, row)


async def get(conn: Connection, project_id: str, network_id: str) -> Network:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM network WHERE project_id = $1 AND id = $2", project_id, network_id
    )
    return _network(network_id, row)


async def page(conn: Connection, project_id: str, *, after: str | None = None, limit: int) -> list[Network]:
    """By id."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM network WHERE project_id = $1 AND ($2::text IS NULL OR id > $2)
            ORDER BY id LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_network(row["id"], row) for row in found]


async def update(
    conn: Connection, project_id: str, network_id: str, changes: NetworkChanges, expected_revision: int | None = None
) -> Network:
    """Raises NotFoundError, ChangedError."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, network_id)
    check_revision("network", network_id, held.revision, expected_revision)
    new = msgspec.structs.replace(held, **changes)
    row = await conn.fetchrow(
        f"""UPDATE network SET name = $3, alias_key = $4, codec = $5, device_talk = $6, revision = $7
            WHERE project_id = $1 AND id = $2 RETURNING {_COLUMNS}""",
        project_id,
        network_id,
        new.name,
        new.alias_key,
        _encode(new.spec),
        new.device_talk,
        revision,
    )
    return _network(network_id, row)


async def add_secret(
    conn: Connection, project_id: str, network_id: str, sha256: str, *, keep_previous: bool
) -> Network:
    """Makes it the newest secret of the network. Raises NotFoundError."""
    revision = await next_revision(conn, project_id)
    held = await conn.fetchval(
        "SELECT secret_sha256 FROM network WHERE project_id = $1 AND id = $2", project_id, network_id
    )
    row = await conn.fetchrow(
        f"""UPDATE network SET secret_sha256 = $3, revision = $4 WHERE project_id = $1 AND id = $2
            RETURNING {_COLUMNS}""",
        project_id,
        network_id,
        with_secret(held or [], sha256, keep_previous),
        revision,
    )
    return _network(network_id, row)


async def clear_secrets(conn: Connection, project_id: str, network_id: str) -> None:
    """From now on only known devices get in. Raises NotFoundError."""
    revision = await next_revision(conn, project_id)
    status = await conn.execute(
        "UPDATE network SET secret_sha256 = '{}', revision = $3 WHERE project_id = $1 AND id = $2",
        project_id,
        network_id,
        revision,
    )
    if status == "UPDATE 0":
        raise NotFoundError("network", network_id)


async def delete(conn: Connection, project_id: str, network_id: str, expected_revision: int | None = None) -> None:
    """Raises NotFoundError, ChangedError; InUseError while devices have aliases on it."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, network_id)
    check_revision("network", network_id, held.revision, expected_revision)
    with violations({"alias_network": InUseError("network", network_id, "aliases of devices")}):
        await conn.execute("DELETE FROM network WHERE project_id = $1 AND id = $2", project_id, network_id)
    await bury(conn, project_id, "network", network_id, revision)


def _encode(spec: CodecSpec) -> str:
    return msgspec.json.encode(spec).decode()


def _network(network_id: str, row: asyncpg.Record | None) -> Network:
    if row is None:
        raise NotFoundError("network", network_id)
    fields: dict[str, Any] = dict(row)
    return Network(spec=_spec(fields.pop("codec")), **fields)
