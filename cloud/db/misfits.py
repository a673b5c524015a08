"""Values that did not fit their device's blueprint, and how many there were."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
from protocols.shipment import MessageBatch

MISFITS_KEPT: Final = 10_000
"""Of a project, the newest: enough to see what is wrong, also where one of a thousand devices sends much of it."""
_COLUMNS: Final = ("project_id", "device_id", "id", "event_time", "attribute", "code", "reason", "value", "count")


class MisfitRow(msgspec.Struct, frozen=True):
    seq: int
    id: str
    """Of the message."""
    event_time: int
    attribute: str
    code: str
    reason: str
    value: str
    """JSON, or the beginning of it."""
    count: int


class MisfitCount(msgspec.Struct, frozen=True):
    attribute: str
    count: int
    newest: int
    """The newest event time of a message that had one, Unix milliseconds."""


async def add(conn: Connection, batch: MessageBatch, rows: Sequence[int]) -> None:
    """Keeps what was left out of those rows of the batch, as far as there is room, and counts all of it. Counts are
    locked in order of (device, attribute)."""
    found = []
    for i in rows:
        for misfit in batch.misfits[i]:
            target = batch.targets[batch.target_index[i]]
            message_id = uuid.UUID(bytes=batch.ids[16 * i : 16 * i + 16])
            found.append(
                (target.project_id, target.device_id, message_id, batch.event_time[i], *msgspec.structs.astuple(misfit))
            )
    if not found:
        return
    await conn.copy_records_to_table("misfit", records=found, columns=_COLUMNS)
    counts: dict[tuple[int, str, str], tuple[int, int]] = {}
    for project_id, device_id, _, event_time, attribute, _, _, _, count in found:
        name = (device_id, attribute, project_id)
        before, newest = counts.get(name, (0, event_time))
        counts[name] = (before + count, max(newest, event_time))
    ordered = sorted(counts)
    await conn.execute(
        """INSERT INTO misfit_count AS held (project_id, device_id, attribute, count, newest)
           SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
           ON CONFLICT (device_id, attribute) DO UPDATE
           SET count = held.count + excluded.count, newest = greatest(held.newest, excluded.newest)""",
        [project_id for _, _, project_id in ordered],
        [device_id for device_id, _, _ in ordered],
        [attribute for _, attribute, _ in ordered],
        [counts[name][0] for name in ordered],
        [counts[name][1] for name in ordered],
    )
    for project_id in sorted({row[0] for row in found}):
        await conn.execute(
            """DELETE FROM misfit WHERE seq IN (
                   SELECT seq FROM misfit WHERE project_id = $1 AND seq <= (
                       SELECT seq FROM misfit WHERE project_id = $1 ORDER BY seq DESC OFFSET $2 LIMIT 1)
                   FOR UPDATE SKIP LOCKED)""",
            project_id,
            MISFITS_KEPT,
        )


async def page(
    conn: Connection, project_id: str, device_id: int, *, after: int | None = None, limit: int
) -> list[MisfitRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        """SELECT seq, id::text, event_time, attribute, code, reason, value, count FROM misfit
           WHERE project_id = $1 AND device_id = $2 AND ($3::bigint IS NULL OR seq < $3) ORDER BY seq DESC LIMIT $4""",
        project_id,
        device_id,
        after,
        limit,
    )
    return [MisfitRow(**dict(row)) for row in found]


async def counts(conn: Connection, project_id: str, device_id: int, limit: int) -> list[MisfitCount]:
    """By attribute."""
    found = await conn.fetch(
        """SELECT attribute, count, newest FROM misfit_count WHERE project_id = $1 AND device_id = $2
           ORDER BY attribute LIMIT $3""",
        project_id,
        device_id,
        limit,
    )
    return [MisfitCount(**dict(row)) for row in found]
