"""Jobs (cloud/model/job.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.job import Job

_COLUMNS: Final = ", ".join(Job.__struct_fields__)
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


async def create(conn: Connection, project_id: str, kind: str, asked: Mapping[str, Any], total: int) -> Job:
    """`total` 0: there is nothing to do, and it is done."""
    row = await conn.fetchrow(
        f"""INSERT INTO job (project_id, kind, asked, total, state, finished_at)
            VALUES ($1, $2, $3, $4::bigint, CASE WHEN $4::bigint = 0 THEN 'done' ELSE 'waiting' END,
                    CASE WHEN $4::bigint = 0 THEN now() END) RETURNING {_COLUMNS}""",
        project_id,
        kind,
        msgspec.json.encode(asked).decode(),
        total,
    )
    assert row is not None, "INSERT gives its row"
    return _job(row)


async def get(conn: Connection, project_id: str, number: int) -> Job:
    """Raises NotFoundError."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM job WHERE project_id = $1 AND number = $2", project_id, number)
    if row is None:
        raise NotFoundError("job", number)
    return _job(row)


async def page(
    conn: Connection,
    project_id: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    after: int | None = None,
    limit: int,
) -> list[Job]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM job WHERE project_id = $1 AND ($2::bigint IS NULL OR number < $2)
            AND ($4::text IS NULL OR kind = $4) AND ($5::text IS NULL OR state = $5) ORDER BY number DESC LIMIT $3""",
        project_id,
        after,
        limit,
        kind,
        state,
    )
    return [_job(row) for row in found]


async def cancel(conn: Connection, project_id: str, number: int) -> Job:
    """It ends before its next step; what it has done stays. One that has ended stays as it is. Raises NotFoundError."""
    await conn.execute(
        "UPDATE job SET cancel_asked = true WHERE project_id = $1 AND number = $2 AND finished_at IS NULL",
        project_id,
        number,
    )
    return await get(conn, project_id, number)


async def take(conn: Connection, kinds: Collection[str]) -> Job | None:
    """The one that has waited longest for its turn, locked; those that others have locked are passed over."""
    row = await conn.fetchrow(
        f"""SELECT {_COLUMNS} FROM job WHERE finished_at IS NULL AND kind = ANY($1::text[])
            ORDER BY turn_at, number LIMIT 1 FOR UPDATE SKIP LOCKED""",
        list(kinds),
    )
    return None if row is None else _job(row)


async def advance(conn: Connection, job: Job) -> None:
    """Its state, position, progress, result and error are these from now on."""
    await conn.execute(
        """UPDATE job SET state = $2, position = $3, done = $4, total = $5, result = $6, error = $7,
           turn_at = clock_timestamp(), started_at = coalesce(started_at, now()),
           finished_at = CASE WHEN $2 NOT IN ('waiting', 'running') THEN now() END WHERE number = $1""",
        job.number,
        job.state,
        job.position,
        job.done,
        job.total,
        msgspec.json.encode(job.result).decode(),
        job.error,
    )


def _job(row: asyncpg.Record) -> Job:
    fields = dict(row)
    return Job(asked=_decode(fields.pop("asked")), result=_decode(fields.pop("result")), **fields)
