"""Systems: collections of devices that users get access to."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import InUseError, NotFoundError, TakenError, violations


class System(msgspec.Struct, frozen=True):
    project_id: str
    id: str
    name: str
    created_at: datetime.datetime


async def create(conn: Connection, project_id: str, system_id: str, name: str) -> System:
    """Raises TakenError, NotFoundError."""
    meaning = {
        "system_pkey": TakenError("id", f"system {system_id}"),
        "system_project_id_fkey": NotFoundError("project", project_id),
    }
    with violations(meaning):
        row = await conn.fetchrow(
            "INSERT INTO system (project_id, id, name) VALUES ($1, $2, $3) RETURNING *", project_id, system_id, name
        )
    assert row is not None
    return System(**dict(row))


async def get(conn: Connection, project_id: str, system_id: str) -> System:
    """Raises NotFoundError."""
    row = await conn.fetchrow("SELECT * FROM system WHERE project_id = $1 AND id = $2", project_id, system_id)
    if row is None:
        raise NotFoundError("system", system_id)
    return System(**dict(row))


async def page(
    conn: Connection, project_id: str, only: Sequence[str] | None, *, after: str | None = None, limit: int
) -> list[System]:
    """By id. `only`: of these ids; None: all."""
    found = await conn.fetch(
        """SELECT * FROM system WHERE project_id = $1 AND ($2::text IS NULL OR id > $2)
           AND ($4::text[] IS NULL OR id = ANY ($4)) ORDER BY id LIMIT $3""",
        project_id,
        after,
        limit,
        only,
    )
    return [System(**dict(row)) for row in found]


async def rename(conn: Connection, project_id: str, system_id: str, name: str) -> System:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        "UPDATE system SET name = $3 WHERE project_id = $1 AND id = $2 RETURNING *", project_id, system_id, name
    )
    if row is None:
        raise NotFoundError("system", system_id)
    return System(**dict(row))


async def delete(conn: Connection, project_id: str, system_id: str) -> None:
    """Raises NotFoundError; InUseError while devices are in it."""
    with violations(
        {
            "device_system": InUseError("system", system_id, "devices"),
            "auto_create_system": InUseError("system", system_id, "the automatic creation of a network's devices"),
        }
    ):
        status = await conn.execute("DELETE FROM system WHERE project_id = $1 AND id = $2", project_id, system_id)
    if status == "DELETE 0":
        raise NotFoundError("system", system_id)
