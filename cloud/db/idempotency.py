"""Requests that were done under an Idempotency-Key, and what was answered."""

from __future__ import annotations

import datetime
from typing import Final

import msgspec

from cloud.db.database import Connection

KEPT: Final = datetime.timedelta(days=1)
"""A client that does not know whether it was done asks within minutes; a day is for people."""
_SWEPT_MAX: Final = 100
"""Old ones that a new one takes away with it: so they never pile up, and none waits for them."""


class Done(msgspec.Struct, frozen=True):
    request_sha256: str
    status: int | None
    """None: its answer is not kept."""
    headers: str | None
    """A JSON object."""
    body: bytes | None


async def find(conn: Connection, project_id: str, actor: str, key: str) -> Done | None:
    row = await conn.fetchrow(
        """SELECT request_sha256, status, headers, body FROM idempotency
           WHERE project_id = $1 AND actor = $2 AND key = $3""",
        project_id,
        actor,
        key,
    )
    return None if row is None else Done(**dict(row))


async def claim(conn: Connection, project_id: str, actor: str, key: str, request_sha256: str) -> bool:
    """Takes the key, in the transaction of the work; waits for who has it. False: it was done meanwhile."""
    await conn.execute(
        """DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
               SELECT ctid FROM idempotency WHERE created_at < now() - $1::interval
               LIMIT $2 FOR UPDATE SKIP LOCKED))""",
        KEPT,
        _SWEPT_MAX,
    )
    status = await conn.execute(
        """INSERT INTO idempotency (project_id, actor, key, request_sha256) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING""",
        project_id,
        actor,
        key,
        request_sha256,
    )
    return bool(status != "INSERT 0 0")


async def keep(conn: Connection, project_id: str, actor: str, key: str, status: int, headers: str, body: bytes) -> None:
    """What was answered."""
    await conn.execute(
        """UPDATE idempotency SET status = $4, headers = $5, body = $6
           WHERE project_id = $1 AND actor = $2 AND key = $3""",
        project_id,
        actor,
        key,
        status,
        headers,
        body,
    )
