"""API keys: what programs send in place of a session. Kept as SHA-256."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError, TakenError, violations
from cloud.db.tenancy import Principal, known
from cloud.model.access import Access, Permission

USED_EVERY_S: Final = 60
"""How exactly `last_used_at` is kept: a row written for each request would cost more than the request."""
_COLUMNS: Final = "id, name, permissions, system_ids, by, created_at, expires_at, last_used_at"


class ApiKey(msgspec.Struct, frozen=True):
    id: uuid.UUID
    name: str
    permissions: frozenset[Permission]
    system_ids: list[str] | None
    """None: the whole project."""
    by: str
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
    last_used_at: datetime.datetime | None


async def create(
    conn: Connection,
    project_id: str,
    name: str,
    sha256: str,
    permissions: frozenset[Permission],
    system_ids: Sequence[str] | None,
    by: str,
    expires_at: datetime.datetime | None,
) -> ApiKey:
    """Raises TakenError."""
    with violations({"api_key_project_id_name_key": TakenError("name", f"API key {name}")}):
        row = await conn.fetchrow(
            f"""INSERT INTO api_key (id, project_id, name, sha256, permissions, system_ids, by, expires_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {_COLUMNS}""",
            uuid.uuid4(),
            project_id,
            name,
            sha256,
            sorted(permissions),
            system_ids,
            by,
            expires_at,
        )
    assert row is not None
    return _key(row)


async def page(conn: Connection, project_id: str, *, after: str | None = None, limit: int) -> list[ApiKey]:
    """By name."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM api_key WHERE project_id = $1 AND ($2::text IS NULL OR name > $2)
            ORDER BY name LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_key(row) for row in found]


async def delete(conn: Connection, project_id: str, key_id: uuid.UUID) -> None:
    """It holds no more. Raises NotFoundError."""
    status = await conn.execute("DELETE FROM api_key WHERE project_id = $1 AND id = $2", project_id, key_id)
    if status == "DELETE 0":
        raise NotFoundError("API key", key_id)


async def principal(
    conn: Connection, key_id: uuid.UUID, sha256: str, now: datetime.datetime
) -> tuple[Principal, bool] | None:
    """Whose key it is, and whether it has expired; None if there is no such key with that secret. Notes its use."""
    row = await conn.fetchrow(
        """SELECT project_id, name, permissions, system_ids, expires_at,
                  last_used_at IS NULL OR last_used_at < $3 AS unnoted
           FROM api_key WHERE id = $1 AND sha256 = $2""",
        key_id,
        sha256,
        now - datetime.timedelta(seconds=USED_EVERY_S),
    )
    if row is None:
        return None
    expired = row["expires_at"] is not None and row["expires_at"] <= now
    if row["unnoted"] and not expired:
        await conn.execute("UPDATE api_key SET last_used_at = $2 WHERE id = $1", key_id, now)
    held = known(row["permissions"])
    access = Access(held) if row["system_ids"] is None else Access(by_system=dict.fromkeys(row["system_ids"], held))
    return Principal(row["name"], project_id=row["project_id"], access=access), expired


def _key(row: asyncpg.Record) -> ApiKey:
    fields = dict(row)
    return ApiKey(permissions=known(fields.pop("permissions")), **fields)
