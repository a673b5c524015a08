"""What the curator does to tables, in steps that others do not notice.

It has a session of its own, whose statements wait 200 ms for a lock and are then tried again: whoever asks for a lock
is in the way of all who come after it. A partition is first taken out of history, which needs the lock on all of it for
a moment only; then nobody writes to it any more, so what is counted in it is exactly what goes with it.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.history import WEEK_MS
from cloud.model.retention import Kind, Window

T = TypeVar("T")

LOCK_WAIT_MS: Final = 200
LOCK_TRIES_MAX: Final = 100
"""Of one step: with the pauses below, some 50 s without a chance."""
LOCK_PAUSE_S: Final = 0.3
"""Between two of them: half of it to one and a half."""
STATEMENT_S: Final = 6 * 3600.0
"""To count a partition, or clean it: the largest of its steps, none of which holds anybody up."""
_MINE: Final = "hashtext('curator')"
_PARTITION: Final = re.compile(r"history_(\d{8}|default)")
_BOUNDS: Final = re.compile(r"FOR VALUES FROM \('?(-?\d+)'?\) TO \('?(-?\d+)'?\)")

OLD: Final = {
    "device_event": ("event_days", "TRUE"),
    "reject": ("reject_days", "TRUE"),
    "inbox": ("inbox_days", "replay_seq IS NULL"),
    "misfit": ("misfit_days", "TRUE"),
    "dead_letter": ("dead_letter_days", "TRUE"),
}
"""Tables that go by when a row came: by which rule, and which of them (a message that is on its way
out of the inbox stays)."""
_ARRIVED: Final = {"dead_letter": "created"}


class BusyError(Exception):
    """Retry with the next run: others had the lock all along."""


class Partition(msgspec.Struct, frozen=True):
    name: str
    from_ms: int | None
    """None: it is the default partition, of whatever has no other."""
    until_ms: int | None


class Operation(msgspec.Struct, frozen=True):
    """On the messages of a window. `names`: attributes."""

    is_strip: bool
    condition: str
    data: str
    """What is left of a message."""
    names: tuple[str, ...]


def operations(window: Window) -> list[Operation]:
    if window.whole:
        return [Operation(False, "$4::text[] IS NOT NULL", "", ())]
    if window.gone is not None:
        return [Operation(True, "data ?| $4::text[]", "h.data - $4::text[]", window.gone)]
    rest = "(SELECT jsonb_object_agg(key, value) FROM jsonb_each(h.data) WHERE key = ANY($4::text[]))"
    return [
        Operation(False, "NOT data ?| $4::text[]", "", window.kept),
        Operation(True, "data ?| $4::text[] AND data - $4::text[] <> '{}'", rest, window.kept),
    ]


async def take(conn: Connection) -> bool:
    """Whether this session is the curator from now on, until it ends: one at a time is."""
    await conn.execute(f"SET lock_timeout = {LOCK_WAIT_MS}; SET statement_timeout = 0; SET vacuum_cost_delay = 2")
    taken: bool = await conn.fetchval(f"SELECT pg_try_advisory_lock({_MINE})")
    return taken


async def patiently(step: Callable[[], Awaitable[T]], waited: Callable[[], None]) -> T:
    """Tries a step until it gets its locks; `waited` is told each time that it does not. Raises BusyError."""
    for _ in range(LOCK_TRIES_MAX):
        try:
            return await step()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            waited()
        await asyncio.sleep(LOCK_PAUSE_S * random.uniform(0.5, 1.5))
    raise BusyError("others held its lock all along")


async def partitions(conn: Connection) -> list[Partition]:
    """Of history, the oldest first, the default one last."""
    found = []
    for row in await conn.fetch(
        """SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'history'::regclass"""
    ):
        match = _BOUNDS.fullmatch(row["bounds"])
        if match is not None and _PARTITION.fullmatch(row["name"]):
            found.append(Partition(row["name"], int(match[1]), int(match[2])))
        elif row["bounds"] == "DEFAULT":
            found.append(Partition(row["name"], None, None))
    return sorted(found, key=lambda part: (part.from_ms is None, part.from_ms or 0))


async def detached(conn: Connection) -> list[Partition]:
    """Partitions that were taken out and not dropped, as a process was killed in between."""
    found = await conn.fetch(
        """SELECT relname::text AS name FROM pg_class WHERE relkind = 'r' AND NOT relispartition
           AND relname ~ '^history_[0-9]{8}$' AND relnamespace = current_schema()::regnamespace ORDER BY 1"""
    )
    weeks = []
    for row in found:
        day = datetime.datetime.strptime(row["name"][-8:], "%Y%m%d").replace(tzinfo=datetime.UTC)
        start_ms = round(day.timestamp() * 1000)
        weeks.append(Partition(row["name"], start_ms, start_ms + WEEK_MS))
    return weeks


async def size(conn: Connection, table: str) -> int:
    found: int = await conn.fetchval("SELECT pg_total_relation_size($1::regclass)", table)
    return found


async def about_rows(conn: Connection, table: str) -> int:
    """As many as PostgreSQL believes that it has."""
    found: int = await conn.fetchval(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = $1::regclass", table
    )
    return found


async def devices(conn: Connection, table: str, after: int, limit: int) -> list[tuple[int, Kind]]:
    """Those that have messages there, by id, behind `after`: one step through the index for each."""
    found = await conn.fetch(
        f"""WITH RECURSIVE found (device_id, place) AS (
                (SELECT device_id, 1 FROM {table} WHERE device_id > $1 ORDER BY device_id LIMIT 1)
                UNION ALL
                SELECT next.device_id, place + 1 FROM found CROSS JOIN LATERAL (
                    SELECT device_id FROM {table} h WHERE h.device_id > found.device_id ORDER BY device_id LIMIT 1) next
                WHERE place < $2)
            SELECT found.device_id, d.blueprint_id, coalesce(d.project_id,
                (SELECT h.project_id FROM {table} h WHERE h.device_id = found.device_id LIMIT 1)) AS project_id
            FROM found LEFT JOIN device d ON d.id = found.device_id ORDER BY 1""",
        after,
        limit,
        timeout=STATEMENT_S,
    )
    return [(row["device_id"], (row["project_id"], row["blueprint_id"])) for row in found]


async def held(conn: Connection, table: str) -> dict[Kind, tuple[int, int]]:
    """(messages, bytes) of all that is in a partition."""
    found = await conn.fetch(
        f"""SELECT h.project_id, d.blueprint_id, count(*) AS messages, sum(pg_column_size(row(h.*))) AS bytes
            FROM {table} h LEFT JOIN device d ON d.id = h.device_id GROUP BY 1, 2""",
        timeout=STATEMENT_S,
    )
    return {(row["project_id"], row["blueprint_id"]): (row["messages"], row["bytes"]) for row in found}


async def concerned(
    conn: Connection, table: str, ids: Sequence[int], from_ms: int, until_ms: int, operation: Operation
) -> dict[int, int]:
    """Messages that an operation is about, of each device that has some."""
    found = await conn.fetch(
        f"""SELECT device_id, count(*) AS messages FROM {table} WHERE device_id = ANY($1::bigint[])
            AND event_time >= $2 AND event_time < $3 AND {operation.condition} GROUP BY 1 ORDER BY 1""",
        ids,
        from_ms,
        until_ms,
        operation.names,
        timeout=STATEMENT_S,
    )
    return {row["device_id"]: row["messages"] for row in found}


async def bytes_of(
    conn: Connection, table: str, ids: Sequence[int], from_ms: int, until_ms: int, operation: Operation
) -> int:
    """What an operation would take away."""
    taken = (
        f"pg_column_size(row(data)) - pg_column_size(row({operation.data}))"
        if operation.is_strip
        else "pg_column_size(row(h.*))"
    )
    found: int = await conn.fetchval(
        f"""SELECT coalesce(sum({taken}), 0) FROM {table} h WHERE device_id = ANY($1::bigint[])
            AND event_time >= $2 AND event_time < $3 AND {operation.condition}""",
        ids,
        from_ms,
        until_ms,
        operation.names,
        timeout=STATEMENT_S,
    )
    return found


async def time_after(conn: Connection, table: str, device_id: int, from_ms: int, rows: int) -> int | None:
    """The event time behind so many of a device's messages; None: there are no more."""
    found: int | None = await conn.fetchval(
        f"""SELECT event_time FROM {table} WHERE device_id = $1 AND event_time >= $2 ORDER BY event_time
            OFFSET $3 LIMIT 1""",
        device_id,
        from_ms,
        rows,
    )
    return found


async def carry_out(
    conn: Connection, table: str, ids: Sequence[int], from_ms: int, until_ms: int, operation: Operation
) -> tuple[int, int]:
    """Deletes or strips what an operation is about; (messages, bytes)."""
    where = f"device_id = ANY($1::bigint[]) AND event_time >= $2 AND event_time < $3 AND {operation.condition}"
    if operation.is_strip:
        change = f"""UPDATE {table} h SET data = {operation.data}
            FROM (SELECT ctid AS place, pg_column_size(row(data)) AS size FROM {table} WHERE {where}) old
            WHERE h.ctid = old.place RETURNING old.size - pg_column_size(row(h.data)) AS size"""
    else:
        change = f"DELETE FROM {table} h WHERE {where} RETURNING pg_column_size(row(h.*)) AS size"
    row = await conn.fetchrow(
        f"WITH changed AS ({change}) SELECT count(*) AS messages, coalesce(sum(size), 0) AS bytes FROM changed",
        ids,
        from_ms,
        until_ms,
        operation.names,
        timeout=STATEMENT_S,
    )
    assert row is not None, "an aggregate has one row"
    return row["messages"], row["bytes"]


async def clean(conn: Connection, table: str) -> None:
    """Lets PostgreSQL use the room of deleted rows again, and gives back what is free at the table's end."""
    await conn.execute(f"VACUUM {table}", timeout=STATEMENT_S)


async def is_empty(conn: Connection, table: str) -> bool:
    found: bool = await conn.fetchval(f"SELECT NOT EXISTS (SELECT FROM {table})", timeout=STATEMENT_S)
    return found


async def detach(conn: Connection, table: str) -> None:
    """Takes the partition out of history. CONCURRENTLY is not for tables with a default partition."""
    await conn.execute(f"ALTER TABLE history DETACH PARTITION {table}")


async def put_back(conn: Connection, table: str, kinds: Sequence[Kind]) -> int:
    """What somebody keeps goes from a detached partition back into history; how many messages."""
    chosen = f"""FROM {table} h LEFT JOIN device d ON d.id = h.device_id
        WHERE (h.project_id, coalesce(d.blueprint_id, '')) IN (SELECT * FROM unnest($1::text[], $2::text[]))"""
    status = await conn.execute(
        f"""INSERT INTO history (project_id, device_id, event_time, id, received_time, time, flags, record, data,
                                 time_error_ms)
            SELECT h.project_id, h.device_id, h.event_time, h.id, h.received_time, h.time, h.flags, h.record, h.data,
            h.time_error_ms {chosen} ON CONFLICT DO NOTHING""",
        [kind[0] for kind in kinds],
        [kind[1] or "" for kind in kinds],
        timeout=STATEMENT_S,
    )
    await conn.execute(
        f"DELETE FROM {table} WHERE ctid IN (SELECT h.ctid {chosen})",
        [kind[0] for kind in kinds],
        [kind[1] or "" for kind in kinds],
        timeout=STATEMENT_S,
    )
    return int(status.rpartition(" ")[2])


async def drop(conn: Connection, table: str) -> None:
    """A detached partition."""
    await conn.execute(f"DROP TABLE {table}")


async def old(
    conn: Connection, table: str, project_id: str, days: int, after: int, limit: int, *, is_dry: bool
) -> tuple[int, int, int | None]:
    """Deletes (or counts) rows that came before so many days, of the next `limit` by number: (rows, bytes, number of
    the last one; None: no more are that old). Those that came a little out of order wait for the next run."""
    arrived = _ARRIVED.get(table, "arrived")
    look = f"""look AS (
        SELECT seq, {arrived} < now() - make_interval(days => $2) AS is_old, {OLD[table][1]} AS may_go FROM {table}
        WHERE project_id = $1 AND seq > $3 ORDER BY seq LIMIT $4)"""
    chosen = "look.seq = t.seq AND is_old AND may_go"
    gone = (
        f"SELECT pg_column_size(row(t.*)) AS size FROM {table} t, look WHERE {chosen}"
        if is_dry
        else f"DELETE FROM {table} t USING look WHERE {chosen} RETURNING pg_column_size(row(t.*)) AS size"
    )
    row = await conn.fetchrow(
        f"""WITH {look}, gone AS ({gone})
            SELECT (SELECT count(*) FROM gone) AS rows, (SELECT coalesce(sum(size), 0) FROM gone) AS bytes,
            (SELECT CASE WHEN bool_and(is_old) AND count(*) = $4 THEN max(seq) END FROM look) AS last""",
        project_id,
        days,
        after,
        limit,
        timeout=STATEMENT_S,
    )
    assert row is not None, "aggregates have one row"
    return row["rows"], row["bytes"], row["last"]


async def orphans(conn: Connection, after: int, limit: int) -> tuple[list[int], int | None]:
    """Of the next `limit` devices that have current values those that exist no more, and the last one's id (None: there
    are no more). A device's id is never given again."""
    found = await devices(conn, "current_value", after, limit)
    gone = [device_id for device_id, (_, blueprint_id) in found if blueprint_id is None]
    return gone, found[-1][0] if len(found) == limit else None


async def forget_current(conn: Connection, ids: Sequence[int], *, is_dry: bool) -> dict[str, tuple[int, int]]:
    """Deletes (or counts) the current values of devices: (rows, bytes) of each project."""
    chosen = "device_id = ANY($1::bigint[])"
    gone = (
        f"SELECT project_id, pg_column_size(row(c.*)) AS size FROM current_value c WHERE {chosen}"
        if is_dry
        else f"DELETE FROM current_value c WHERE {chosen} RETURNING project_id, pg_column_size(row(c.*)) AS size"
    )
    found = await conn.fetch(
        f"WITH gone AS ({gone}) SELECT project_id, count(*) AS rows, sum(size) AS bytes FROM gone GROUP BY 1",
        ids,
        timeout=STATEMENT_S,
    )
    return {row["project_id"]: (row["rows"], row["bytes"]) for row in found}
