"""What a hop could not do for good, as it came, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.db.database import Connection
from cloud.db.progress import multirange
from protocols.shipment import Run
from sync.ranges import Ranges


async def add(
    conn: Connection, *, project_id: str, hop: str, topic: str, runs: Sequence[Run], detail: str, data: bytes
) -> None:
    """`runs`: the records that it is about, of one source and epoch."""
    records = Ranges((run.first_seq, run.first_seq + run.count) for run in runs)
    await conn.execute(
        """INSERT INTO dead_letter (project_id, hop, topic, source_id, epoch, records, detail, data)
           VALUES ($1, $2, $3, $4, $5, $6::text::int8multirange, $7, $8)""",
        project_id,
        hop,
        topic,
        runs[0].source_id,
        runs[0].epoch,
        multirange(records),
        detail,
        data,
    )
