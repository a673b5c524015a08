"""Projects' rules of retention (cloud/model/retention.py)."""

from __future__ import annotations

from typing import Final

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import ChangedError, DanglingError
from cloud.model.retention import KEPT, Retention

_rules: Final = msgspec.json.Decoder(Retention).decode


async def get(conn: Connection, project_id: str) -> tuple[Retention, int]:
    """With their revision; 0: there were never any."""
    row = await conn.fetchrow("SELECT rules, revision FROM retention WHERE project_id = $1", project_id)
    return (KEPT, 0) if row is None else (_rules(row["rules"]), row["revision"])


async def every(conn: Connection) -> dict[str, Retention]:
    """Those of all projects that have some."""
    return {
        row["project_id"]: _rules(row["rules"])
        for row in await conn.fetch("SELECT project_id, rules FROM retention ORDER BY project_id")
    }


async def put(
    conn: Connection, project_id: str, retention: Retention, expected_revision: int | None = None
) -> tuple[Retention, int]:
    """In place of all that there were. Raises DanglingError, ChangedError."""
    missing = await conn.fetchval(
        """SELECT blueprint_id FROM unnest($2::text[]) AS given (blueprint_id)
           WHERE NOT EXISTS (SELECT FROM blueprint b WHERE b.project_id = $1 AND b.id = given.blueprint_id) LIMIT 1""",
        project_id,
        list(retention.blueprints),
    )
    if missing is not None:
        raise DanglingError("blueprints", "blueprint", missing)
    await conn.execute(
        "INSERT INTO retention (project_id, rules, revision) VALUES ($1, '{}', 0) ON CONFLICT DO NOTHING", project_id
    )
    revision: int = await conn.fetchval("SELECT revision FROM retention WHERE project_id = $1 FOR UPDATE", project_id)
    if expected_revision is not None and expected_revision != revision:
        raise ChangedError("retention of project", project_id, expected_revision, revision)
    await conn.execute(
        "UPDATE retention SET rules = $2, revision = $3 WHERE project_id = $1",
        project_id,
        msgspec.json.encode(retention).decode(),
        revision + 1,
    )
    return retention, revision + 1
