"""History: one row a message, partitioned by event time."""

from __future__ import annotations

import datetime
import io
import uuid
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.history_copy import COLUMNS, pack_history
from protocols.shipment import KEYED, MessageBatch

WEEK_MS: Final = 7 * 24 * 3600 * 1000
_MONDAY_MS: Final = 4 * 24 * 3600 * 1000
"""1970-01-05: partitions are weeks from Monday 00:00 UTC."""
PARTITIONS_AHEAD: Final = 2
"""Weeks for which a partition stands ready, so that no data of theirs can be in the default partition before them."""
_COLUMNS: Final = "event_time, id, time, received_time, flags, data::text AS data, time_error_ms"


class HistoryRow(msgspec.Struct, frozen=True):
    event_time: int
    id: bytes
    time: int | None
    received_time: int
    flags: int
    """Bits of protocols.shipment: KEYED, TIME_REPLACED, HISTORY_ONLY, LATE, CLOCK_CORRECTED, CLOCK_UNSURE."""
    data: bytes
    """A JSON object."""
    time_error_ms: int | None
    """By how much the event time may be off that was found by a clock anchor; None: it was not."""


async def ensure_partitions(conn: Connection, now_ms: int) -> None:
    """Makes this week's partition and those of the next weeks. One caller at a time does it."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('history partitions'))")
    first = (now_ms - _MONDAY_MS) // WEEK_MS
    for week in range(first, first + 1 + PARTITIONS_AHEAD):
        start = week * WEEK_MS + _MONDAY_MS
        day = datetime.datetime.fromtimestamp(start / 1000, datetime.UTC)
        name = f"history_{day:%Y%m%d}"
        if await conn.fetchval("SELECT to_regclass($1) IS NULL", name):
            await conn.execute(
                f"CREATE TABLE {name} PARTITION OF history FOR VALUES FROM ({start}) TO ({start + WEEK_MS})"
            )


async def store(conn: Connection, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
    """Writes those rows of the batch; returns the ones that are in history now and were not before, in their order.

    The hop's ranges and the message keys keep out what history has already; the primary key stands behind them.
    """
    fresh = await _take_keys(conn, batch, rows)
    if fresh:
        packed = pack_history(batch, fresh)
        await conn.copy_to_table("history", source=io.BytesIO(packed), columns=COLUMNS, format="binary")
    return fresh


async def page(
    conn: Connection,
    project_id: str,
    device_id: int,
    from_ms: int,
    to_ms: int,
    *,
    after: tuple[int, bytes] | None = None,
    limit: int,
    descending: bool = False,
) -> list[HistoryRow]:
    """Up to `limit` messages of [from_ms, to_ms) in order of (event_time, id), those behind `after` only."""
    order, beyond = ("DESC", "<") if descending else ("ASC", ">")
    values: list[Any] = [project_id, device_id, from_ms, to_ms, limit]
    behind = ""
    if after is not None:
        behind = f"AND (event_time, id) {beyond} ($6, $7)"
        values += [after[0], uuid.UUID(bytes=after[1])]
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM history
            WHERE project_id = $1 AND device_id = $2 AND event_time >= $3 AND event_time < $4 {behind}
            ORDER BY event_time {order}, id {order} LIMIT $5""",
        *values,
    )
    return [_row(row) for row in found]


async def find(conn: Connection, project_id: str, message_id: uuid.UUID) -> tuple[int, HistoryRow] | None:
    """(device id, message)."""
    row = await conn.fetchrow(
        f"SELECT device_id, {_COLUMNS} FROM history WHERE project_id = $1 AND id = $2 LIMIT 1", project_id, message_id
    )
    return None if row is None else (row["device_id"], _row(row))


def _row(row: asyncpg.Record) -> HistoryRow:
    return HistoryRow(
        row["event_time"],
        row["id"].bytes,
        row["time"],
        row["received_time"],
        row["flags"],
        row["data"].encode(),
        row["time_error_ms"],
    )


async def _take_keys(conn: Connection, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
    """The rows whose message has no key, or a key that is new. Keys are taken in order of id, so that concurrent
    writers wait for each other instead of deadlocking."""
    names = batch.ids.hex()
    keyed: dict[str, int] = {}
    repeated: set[int] = set()
    for i in rows:
        if batch.flags[i] & KEYED and keyed.setdefault(names[32 * i : 32 * i + 32], i) != i:
            repeated.add(i)
    if not keyed:
        return list(rows)
    ordered = sorted(keyed)
    held = await conn.fetch(
        """WITH asked AS (
               SELECT * FROM unnest($1::text::uuid[], $2::text[], $3::bigint[]) AS asked (id, project_id, event_time)
           ), taken AS (
               INSERT INTO message_key (id, project_id, event_time) SELECT * FROM asked
               ON CONFLICT DO NOTHING RETURNING id
           )
           SELECT id FROM asked EXCEPT ALL SELECT id FROM taken""",
        "{" + ",".join(ordered) + "}",
        [batch.targets[batch.target_index[keyed[name]]].project_id for name in ordered],
        [batch.event_time[keyed[name]] for name in ordered],
    )
    repeated.update(keyed[row["id"].hex] for row in held)
    return [i for i in rows if i not in repeated] if repeated else list(rows)
