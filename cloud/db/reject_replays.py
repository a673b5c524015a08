"""Wishes to decode rejects again (cloud/model/rejected.py), and how far they are done."""

from __future__ import annotations

import asyncpg

from cloud.db import rejects
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.rejected import RejectFilter, RejectReplay


async def create(conn: Connection, project_id: str, wanted: RejectFilter) -> RejectReplay:
    """Of all that are rejected by now."""
    total, newest = await rejects.count(conn, project_id, wanted)
    (row,) = await conn.fetch(
        """INSERT INTO reject_replay (project_id, network_id, code, since_ms, until_ms, through_seq, total, finished_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7::bigint, CASE WHEN $7::bigint = 0 THEN now() END) RETURNING *""",
        project_id,
        wanted.network_id,
        wanted.code,
        wanted.since_ms,
        wanted.until_ms,
        newest,
        total,
    )
    return _replay(row)


async def get(conn: Connection, project_id: str, number: int) -> RejectReplay:
    """Raises NotFoundError."""
    row = await conn.fetchrow("SELECT * FROM reject_replay WHERE project_id = $1 AND number = $2", project_id, number)
    if row is None:
        raise NotFoundError("replay", str(number))
    return _replay(row)


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[RejectReplay]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        """SELECT * FROM reject_replay WHERE project_id = $1 AND ($2::bigint IS NULL OR number < $2)
           ORDER BY number DESC LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_replay(row) for row in found]


async def take(conn: Connection) -> RejectReplay | None:
    """The oldest that is not finished, locked; one that another transaction has locked is passed over."""
    row = await conn.fetchrow(
        "SELECT * FROM reject_replay WHERE finished_at IS NULL ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    return None if row is None else _replay(row)


async def advance(conn: Connection, replay: RejectReplay, *, is_finished: bool) -> None:
    """Its position and counts are these from now on."""
    await conn.execute(
        """UPDATE reject_replay SET position = $2, decoded = $3, failed = $4,
           finished_at = CASE WHEN $5 THEN now() END WHERE number = $1""",
        replay.number,
        replay.position,
        replay.decoded,
        replay.failed,
        is_finished,
    )


def _replay(row: asyncpg.Record) -> RejectReplay:
    return RejectReplay(
        row["number"],
        row["project_id"],
        RejectFilter(row["network_id"], row["code"], row["since_ms"], row["until_ms"]),
        row["through_seq"],
        row["position"],
        row["total"],
        row["decoded"],
        row["failed"],
        row["created_at"],
        row["finished_at"],
    )
