"""What a hop could not do for good, as it came, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.db.progress import multirange, ranges_of
from cloud.model.dead import DeadLetter
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


_LISTED: Final = """seq, hop, topic, detail, source_id, epoch, records, created AS created_at,
    octet_length(data) AS size_bytes"""
_WANTED: Final = "project_id = $1 AND ($2::text IS NULL OR hop = $2) AND ($3::bigint IS NULL OR seq = $3)"


async def page(
    conn: Connection, project_id: str, *, hop: str | None = None, after: int | None = None, limit: int
) -> list[DeadLetter]:
    """Newest first, without their bytes; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT {_LISTED} FROM dead_letter WHERE project_id = $1 AND ($2::text IS NULL OR hop = $2)
            AND ($3::bigint IS NULL OR seq < $3) ORDER BY seq DESC LIMIT $4""",
        project_id,
        hop,
        after,
        limit,
    )
    return [_letter(row) for row in found]


async def get(conn: Connection, project_id: str, seq: int) -> DeadLetter:
    """With its bytes. Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT {_LISTED}, data FROM dead_letter WHERE project_id = $1 AND seq = $2", project_id, seq
    )
    if row is None:
        raise NotFoundError("dead letter", seq)
    return _letter(row)


async def count(conn: Connection, project_id: str, hop: str | None, seq: int | None) -> tuple[int, int]:
    """How many there are, and the number of the newest."""
    (row,) = await conn.fetch(
        f"SELECT count(*) AS letters, coalesce(max(seq), 0) AS newest FROM dead_letter WHERE {_WANTED}",
        project_id,
        hop,
        seq,
    )
    return row["letters"], row["newest"]


async def next_one(
    conn: Connection, project_id: str, position: int, through: int, hop: str | None, seq: int | None
) -> DeadLetter | None:
    """The first behind number `position`, with its bytes, locked."""
    row = await conn.fetchrow(
        f"""SELECT {_LISTED}, data FROM dead_letter WHERE {_WANTED} AND seq > $4 AND seq <= $5
            ORDER BY seq LIMIT 1 FOR UPDATE""",
        project_id,
        hop,
        seq,
        position,
        through,
    )
    return None if row is None else _letter(row)


async def remove(conn: Connection, seq: int) -> None:
    """It was given to its hop again."""
    await conn.execute("DELETE FROM dead_letter WHERE seq = $1", seq)


def _letter(row: asyncpg.Record) -> DeadLetter:
    fields = dict(row)
    records = fields.pop("records")
    return DeadLetter(records=() if records is None else tuple(ranges_of(records)), **fields)
