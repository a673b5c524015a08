"""Gateways, their keys, and the tokens by which they enrol."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db import sources
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError, TakenError, violations

KEYS_KEPT: Final = 2
"""The new key and the one before it, so that a gateway that enrols again is never locked out half-way."""
TOKENS_KEPT: Final = 16
"""Enrolment tokens of one gateway; the oldest make room."""

_COLUMNS: Final = "project_id, id, name, public_keys, created_at, last_seen_at"


class Gateway(msgspec.Struct, frozen=True):
    project_id: str
    id: str
    name: str
    public_keys: tuple[str, ...]
    """Ed25519, 32 bytes as base64url without padding, the newest first."""
    created_at: datetime.datetime
    last_seen_at: datetime.datetime | None
    """None: it has never connected."""


class EnrolmentRefusedError(Exception):
    """Reject: this token enrols nobody, or nobody any more. `code`: unknown, expired or used."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


async def create(conn: Connection, project_id: str, gateway_id: str, name: str) -> Gateway:
    """With its source. Raises TakenError, NotFoundError (the project)."""
    meaning = {
        "gateway_pkey": TakenError("id", f"gateway {gateway_id}"),
        "gateway_project_id_fkey": NotFoundError("project", project_id),
    }
    with violations(meaning):
        row = await conn.fetchrow(
            f"INSERT INTO gateway (project_id, id, name) VALUES ($1, $2, $3) RETURNING {_COLUMNS}",
            project_id,
            gateway_id,
            name,
        )
    await sources.add(conn, project_id, "gateway", gateway_id)
    return _gateway(gateway_id, row)


async def get(conn: Connection, project_id: str, gateway_id: str) -> Gateway:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM gateway WHERE project_id = $1 AND id = $2", project_id, gateway_id
    )
    return _gateway(gateway_id, row)


async def lock(conn: Connection, project_id: str, gateway_id: str) -> None:
    """Until the end of the transaction, against others who change what is the gateway's. Raises NotFoundError."""
    found = await conn.fetchval(
        "SELECT id FROM gateway WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE", project_id, gateway_id
    )
    if found is None:
        raise NotFoundError("gateway", gateway_id)


async def page(conn: Connection, project_id: str, *, after: str | None = None, limit: int) -> list[Gateway]:
    """By id."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM gateway WHERE project_id = $1 AND ($2::text IS NULL OR id > $2)
            ORDER BY id LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_gateway(row["id"], row) for row in found]


async def rename(conn: Connection, project_id: str, gateway_id: str, name: str) -> Gateway:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        f"UPDATE gateway SET name = $3 WHERE project_id = $1 AND id = $2 RETURNING {_COLUMNS}",
        project_id,
        gateway_id,
        name,
    )
    return _gateway(gateway_id, row)


async def revoke_key(conn: Connection, project_id: str, gateway_id: str, public_key: str) -> Gateway:
    """The gateway can no longer connect by that key. Raises NotFoundError."""
    row = await conn.fetchrow(
        f"""UPDATE gateway SET public_keys = array_remove(public_keys, $3) WHERE project_id = $1 AND id = $2
            AND $3 = ANY (public_keys) RETURNING {_COLUMNS}""",
        project_id,
        gateway_id,
        public_key,
    )
    if row is None:
        raise NotFoundError("key", f"{public_key} of gateway {gateway_id}")
    return _gateway(gateway_id, row)


async def seen(conn: Connection, project_id: str, gateway_ids: Sequence[str]) -> None:
    """They are connected now. For many at once, every now and then: not for each frame."""
    await conn.execute(
        """UPDATE gateway SET last_seen_at = now() FROM (SELECT id FROM gateway
           WHERE project_id = $1 AND id = ANY ($2::text[]) ORDER BY id FOR UPDATE) AS met
           WHERE gateway.project_id = $1 AND gateway.id = met.id""",
        project_id,
        gateway_ids,
    )


async def add_token(
    conn: Connection, project_id: str, gateway_id: str, sha256: str, lifetime: datetime.timedelta
) -> datetime.datetime:
    """When it expires. Raises NotFoundError (the gateway)."""
    with violations({"enrolment_token_project_id_gateway_id_fkey": NotFoundError("gateway", gateway_id)}):
        expires_at: datetime.datetime = await conn.fetchval(
            """INSERT INTO enrolment_token (sha256, project_id, gateway_id, expires_at)
               VALUES ($1, $2, $3, now() + $4) RETURNING expires_at""",
            sha256,
            project_id,
            gateway_id,
            lifetime,
        )
    await conn.execute(
        """DELETE FROM enrolment_token WHERE sha256 IN (
               SELECT sha256 FROM enrolment_token WHERE project_id = $1 AND gateway_id = $2
               ORDER BY created_at DESC, sha256 OFFSET $3)""",
        project_id,
        gateway_id,
        TOKENS_KEPT,
    )
    return expires_at


async def enrol(conn: Connection, token_sha256: str, public_key: str) -> Gateway:
    """Makes `public_key` the newest of the gateway that the token is for. A token enrols one key; asking again with the
    same one gives the same answer, however late. Raises EnrolmentRefusedError."""
    token = await conn.fetchrow(
        """SELECT project_id, gateway_id, used_by, expires_at <= now() AS expired FROM enrolment_token
           WHERE sha256 = $1 FOR UPDATE""",
        token_sha256,
    )
    if token is None:
        raise EnrolmentRefusedError("unknown", "this enrolment token is not known here")
    if token["used_by"] is not None:
        gateway = await get(conn, token["project_id"], token["gateway_id"])
        if token["used_by"] != public_key:
            raise EnrolmentRefusedError("used", "this enrolment token has enrolled another key already")
        if public_key not in gateway.public_keys:
            raise EnrolmentRefusedError(
                "used", "the key that this enrolment token has enrolled was revoked or replaced"
            )
        return gateway
    if token["expired"]:
        raise EnrolmentRefusedError("expired", "this enrolment token has expired")
    await conn.execute(
        "UPDATE enrolment_token SET used_at = now(), used_by = $2 WHERE sha256 = $1", token_sha256, public_key
    )
    row = await conn.fetchrow(
        f"""UPDATE gateway SET public_keys = (array_prepend($3, array_remove(public_keys, $3)))[1:$4]
            WHERE project_id = $1 AND id = $2 RETURNING {_COLUMNS}""",
        token["project_id"],
        token["gateway_id"],
        public_key,
        KEYS_KEPT,
    )
    return _gateway(token["gateway_id"], row)


def _gateway(gateway_id: str, row: asyncpg.Record | None) -> Gateway:
    if row is None:
        raise NotFoundError("gateway", gateway_id)
    fields: dict[str, Any] = dict(row)
    return Gateway(public_keys=tuple(fields.pop("public_keys")), **fields)
