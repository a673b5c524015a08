"""Sources: what record ranges are kept of. Each has a number, which is what shipments carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError

Kind = Literal["gateway", "rest", "inbox"]


async def add(conn: Connection, project_id: str, kind: Kind, gateway_id: str | None = None) -> int:
    """Its number; the same for the same source."""
    await conn.execute(
        "INSERT INTO source (project_id, kind, gateway_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        project_id,
        kind,
        gateway_id,
    )
    return await number(conn, project_id, kind, gateway_id)


async def number(conn: Connection, project_id: str, kind: Kind, gateway_id: str | None = None) -> int:
    """Raises NotFoundError."""
    found: int | None = await conn.fetchval(
        "SELECT id FROM source WHERE project_id = $1 AND kind = $2 AND gateway_id IS NOT DISTINCT FROM $3",
        project_id,
        kind,
        gateway_id,
    )
    if found is None:
        raise NotFoundError("source", " ".join(filter(None, (project_id, kind, gateway_id))))
    return found


async def projects(conn: Connection, source_ids: Sequence[int]) -> dict[int, str]:
    """Source number to project; a number that no source has is missing."""
    found = await conn.fetch("SELECT id, project_id FROM source WHERE id = ANY($1::bigint[])", source_ids)
    return {row["id"]: row["project_id"] for row in found}
