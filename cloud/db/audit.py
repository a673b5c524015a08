"""The audit trail: written by triggers (migration `access`), in the transaction of each change."""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec

from cloud.db.database import Connection

Action = Literal["created", "changed", "deleted"]


class AuditRow(msgspec.Struct, frozen=True):
    seq: int
    at: datetime.datetime
    actor: str
    action: Action
    kind: str
    ref: str
    before: str | None
    """JSON: of a change, what differs."""
    after: str | None


class AuditFilter(msgspec.Struct, frozen=True):
    kind: str | None = None
    ref: str | None = None
    actor: str | None = None
    from_at: datetime.datetime | None = None
    to_at: datetime.datetime | None = None


async def act_as(conn: Connection, actor: str) -> None:
    """Whose the changes of this transaction are, where the connection does not say it (`cloud/db/tenants.py` does)."""
    await conn.execute("SELECT set_config('tidegate.actor', $1, true)", actor)


async def page(
    conn: Connection, project_id: str, wanted: AuditFilter, *, after: int | None = None, limit: int
) -> list[AuditRow]:
    """The newest first."""
    found = await conn.fetch(
        """SELECT seq, at, actor, action, kind, ref, before::text, after::text FROM audit
           WHERE project_id = $1 AND ($2::bigint IS NULL OR seq < $2)
             AND ($4::text IS NULL OR kind = $4) AND ($5::text IS NULL OR ref = $5)
             AND ($6::text IS NULL OR actor = $6)
             AND ($7::timestamptz IS NULL OR at >= $7) AND ($8::timestamptz IS NULL OR at < $8)
           ORDER BY seq DESC LIMIT $3""",
        project_id,
        after,
        limit,
        wanted.kind,
        wanted.ref,
        wanted.actor,
        wanted.from_at,
        wanted.to_at,
    )
    return [AuditRow(**dict(row)) for row in found]
