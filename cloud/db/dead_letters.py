"""What a hop could not do for good, as it came, with the reason."""

from __future__ import annotations

from cloud.db.database import Connection


async def add(conn: Connection, *, project_id: str, hop: str, topic: str, detail: str, data: bytes) -> None:
    await conn.execute(
        "INSERT INTO dead_letter (project_id, hop, topic, detail, data) VALUES ($1, $2, $3, $4, $5)",
        project_id,
        hop,
        topic,
        detail,
        data,
    )
