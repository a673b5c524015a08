"""What the curator was asked for, and what it did (cloud/model/curation.py)."""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.curation import Line, Report, Size

REPORTS_KEPT: Final = 1000
"""Of each project: years of daily runs."""

_lines: Final = msgspec.json.Decoder(tuple[Line, ...]).decode
_sizes: Final = msgspec.json.Decoder(tuple[Size, ...]).decode


async def ask(conn: Connection, project_id: str, *, dry_run: bool) -> Report:
    """One that waits for the curator, or is at work already, of each kind."""
    await conn.execute(
        """INSERT INTO curator_report (project_id, dry_run) VALUES ($1, $2)
           ON CONFLICT (project_id, dry_run) WHERE finished_at IS NULL DO NOTHING""",
        project_id,
        dry_run,
    )
    row = await conn.fetchrow(
        """SELECT * FROM curator_report WHERE project_id = $1 AND dry_run = $2 ORDER BY number DESC LIMIT 1""",
        project_id,
        dry_run,
    )
    assert row is not None, "it was made or there"
    return _report(row)


async def unfinished(conn: Connection) -> list[Report]:
    """In the order in which they were asked for."""
    return [
        _report(row)
        for row in await conn.fetch("SELECT * FROM curator_report WHERE finished_at IS NULL ORDER BY number")
    ]


async def begin(conn: Connection, project_id: str, *, dry_run: bool) -> Report:
    """Work on it starts, or goes on after a process that was killed."""
    asked = await ask(conn, project_id, dry_run=dry_run)
    row = await conn.fetchrow(
        "UPDATE curator_report SET started_at = coalesce(started_at, now()) WHERE number = $1 RETURNING *", asked.number
    )
    assert row is not None, "only the curator takes reports away, and this is it"
    return _report(row)


async def save(conn: Connection, report: Report, *, is_finished: bool) -> Report:
    """What it has by now."""
    row = await conn.fetchrow(
        """UPDATE curator_report SET lines = $2, sizes = $3, lock_waits = $4, problem = $5,
           finished_at = CASE WHEN $6 THEN now() END WHERE number = $1 RETURNING *""",
        report.number,
        msgspec.json.encode(report.lines).decode(),
        msgspec.json.encode(report.sizes).decode(),
        report.lock_waits,
        report.problem,
        is_finished,
    )
    if row is None:  # the project is gone, and its reports with it
        return report
    if is_finished:
        await conn.execute(
            """DELETE FROM curator_report WHERE project_id = $1 AND number <= (
                   SELECT number FROM curator_report WHERE project_id = $1 ORDER BY number DESC OFFSET $2 LIMIT 1)""",
            report.project_id,
            REPORTS_KEPT,
        )
    return _report(row)


async def get(conn: Connection, project_id: str, number: int) -> Report:
    """Raises NotFoundError."""
    row = await conn.fetchrow("SELECT * FROM curator_report WHERE project_id = $1 AND number = $2", project_id, number)
    if row is None:
        raise NotFoundError("report of the curator", number)
    return _report(row)


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[Report]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        """SELECT * FROM curator_report WHERE project_id = $1 AND ($2::bigint IS NULL OR number < $2)
           ORDER BY number DESC LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_report(row) for row in found]


async def since_schedule_s(conn: Connection) -> float | None:
    """Seconds since the last run by schedule ended; None: there was none."""
    found: Any = await conn.fetchval("SELECT extract(epoch FROM now() - finished_at) FROM curator_schedule")
    return None if found is None else float(found)


async def end_schedule(conn: Connection) -> None:
    """A run by schedule ended now."""
    await conn.execute(
        """INSERT INTO curator_schedule (finished_at) VALUES (now())
           ON CONFLICT (single) DO UPDATE SET finished_at = excluded.finished_at"""
    )


def _report(row: asyncpg.Record) -> Report:
    fields: dict[str, Any] = dict(row)
    lines, sizes = fields.pop("lines"), fields.pop("sizes")
    return Report(lines=_lines(lines), sizes=_sizes(sizes), **fields)
