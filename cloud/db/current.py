"""Current values: for each device and attribute the newest by (event_time, received_time, id)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
from protocols.shipment import HISTORY_ONLY, MessageBatch

_raw_values: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_UPSERT: Final = """
    INSERT INTO current_value AS held (project_id, device_id, attribute, value, event_time, received_time, id)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::jsonb[], $5::bigint[], $6::bigint[], $7::uuid[])
        AS asked (project_id, device_id, attribute, value, event_time, received_time, id)
    WHERE NOT EXISTS (
        SELECT FROM current_value newer
        WHERE newer.device_id = asked.device_id AND newer.attribute = asked.attribute
        AND (newer.event_time, newer.received_time, newer.id) >= (asked.event_time, asked.received_time, asked.id))
    ON CONFLICT (device_id, attribute) DO UPDATE
    SET value = excluded.value, event_time = excluded.event_time, received_time = excluded.received_time,
        id = excluded.id
    WHERE (held.event_time, held.received_time, held.id) < (excluded.event_time, excluded.received_time, excluded.id)"""


class CurrentRow(msgspec.Struct, frozen=True):
    attribute: str
    value: bytes
    """JSON."""
    event_time: int
    received_time: int
    id: bytes


async def update(conn: Connection, batch: MessageBatch, rows: Sequence[int]) -> None:
    """Takes the newest value of each attribute among those rows, where it is newer than what is held. Rows are upserted
    in order of (device, attribute), so that concurrent writers wait for each other instead of deadlocking; one that is
    older than what is held, as late data is, is passed over without a lock, as a conflict would take it."""
    newest = _newest(batch, rows)
    if not newest:
        return
    names = sorted(newest)
    picked = [newest[name] for name in names]
    await conn.execute(
        _UPSERT,
        [batch.targets[batch.target_index[i]].project_id for i, _ in picked],
        [device_id for device_id, _ in names],
        [attribute for _, attribute in names],
        [bytes(value).decode() for _, value in picked],
        [batch.event_time[i] for i, _ in picked],
        [batch.received_time[i] for i, _ in picked],
        [uuid.UUID(bytes=batch.ids[16 * i : 16 * i + 16]) for i, _ in picked],
    )


def _newest(batch: MessageBatch, rows: Sequence[int]) -> dict[tuple[int, str], tuple[int, msgspec.Raw]]:
    """(device id, attribute) to (row, value): walking the rows from old to new, the last one written wins."""
    event_time, received_time, ids = batch.event_time, batch.received_time, batch.ids
    in_order = sorted(
        (i for i in rows if not batch.flags[i] & HISTORY_ONLY),
        key=lambda i: (event_time[i], received_time[i], ids[16 * i : 16 * i + 16]),
    )
    newest: dict[tuple[int, str], tuple[int, msgspec.Raw]] = {}
    for i in in_order:
        device_id = batch.targets[batch.target_index[i]].device_id
        for attribute, value in _raw_values(batch.data[i]).items():
            newest[device_id, attribute] = (i, value)
    return newest


async def of_device(conn: Connection, project_id: str, device_id: int) -> list[CurrentRow]:
    """All of a device's current values, by attribute."""
    found = await conn.fetch(
        """SELECT attribute, value::text AS value, event_time, received_time, id FROM current_value
           WHERE project_id = $1 AND device_id = $2 ORDER BY attribute""",
        project_id,
        device_id,
    )
    return [
        CurrentRow(row["attribute"], row["value"].encode(), row["event_time"], row["received_time"], row["id"].bytes)
        for row in found
    ]
