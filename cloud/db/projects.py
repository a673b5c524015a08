"""Projects: the tenants."""

from __future__ import annotations

import datetime

import msgspec

from cloud.db import sources
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError, TakenError, violations
from cloud.db.revision import CHANNEL
from cloud.db.tenancy import VISIBLE, Principal


class Project(msgspec.Struct, frozen=True):
    id: str
    name: str
    revision: int
    """Of its registry."""
    created_at: datetime.datetime


async def create(conn: Connection, project_id: str, name: str) -> Project:
    """With its sources of HTTP messages and of replays. Raises TakenError."""
    with violations({"project_pkey": TakenError("id", f"project {project_id}")}):
        row = await conn.fetchrow(
            "INSERT INTO project (id, name) VALUES ($1, $2) RETURNING id, name, revision, created_at", project_id, name
        )
    await sources.add(conn, project_id, "rest")
    await sources.add(conn, project_id, "inbox")
    await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, project_id)
    assert row is not None
    return Project(**dict(row))


async def get(conn: Connection, project_id: str) -> Project:
    """Raises NotFoundError."""
    row = await conn.fetchrow("SELECT id, name, revision, created_at FROM project WHERE id = $1", project_id)
    if row is None:
        raise NotFoundError("project", project_id)
    return Project(**dict(row))


async def page(conn: Connection, principal: Principal, *, after: str | None = None, limit: int) -> list[Project]:
    """Those that the principal sees, by id."""
    found = await conn.fetch(
        f"""SELECT id, name, revision, created_at FROM project p
            WHERE {VISIBLE} AND ($4::text IS NULL OR id > $4) ORDER BY id LIMIT $5""",
        principal.admin,
        principal.user_id,
        principal.project_id,
        after,
        limit,
    )
    return [Project(**dict(row)) for row in found]


async def rename(conn: Connection, project_id: str, name: str) -> Project:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        "UPDATE project SET name = $2 WHERE id = $1 RETURNING id, name, revision, created_at", project_id, name
    )
    if row is None:
        raise NotFoundError("project", project_id)
    return Project(**dict(row))
