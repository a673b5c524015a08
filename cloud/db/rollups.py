"""Rollups: history summed up by quarter hours, which all time zones have their days' edges at.

A device's day is summed up once it has ended. What changes it later, whoever does, says so in the same transaction
(`rollup_late`); from then on it counts as not summed up, until it is made again. So a rollup that counts says what the
rows say, in whatever state of the database they are looked at together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cloud.db.database import Connection
from cloud.db.numbers import EXACT, NEWEST, NUMBER, ORDER
from cloud.model.retention import DAY_MS
from protocols.shipment import MessageBatch

QUARTER_MS: Final = 900_000
NAME_CHARACTERS_MAX: Final = 200
"""What no query can ask for is not summed up."""


async def mark(conn: Connection, batch: MessageBatch, rows: Sequence[int], now_ms: int) -> None:
    """Those rows of the batch are new in history: says which of them change a day that has ended."""
    today_ms = now_ms - now_ms % DAY_MS
    times, places = batch.event_time, batch.target_index
    late = {(places[i], times[i] // DAY_MS) for i in rows if times[i] < today_ms}
    if late:
        days = sorted({(batch.targets[place].project_id, batch.targets[place].device_id, day) for place, day in late})
        await conn.copy_records_to_table("rollup_late", records=days, columns=("project_id", "device_id", "day"))


async def mark_range(conn: Connection, devices: Sequence[int], from_ms: int, until_ms: int) -> None:
    """Messages of these devices in that range of event time change in this transaction. For the curator, beside which
    no rollup is made."""
    await conn.execute(
        """INSERT INTO rollup_late (project_id, device_id, day)
           SELECT project_id, device_id, day FROM rollup_day
           WHERE device_id = ANY($1::bigint[]) AND day >= $2 AND day <= $3 AND NOT kept""",
        devices,
        _day(from_ms),
        _day(until_ms - 1),
    )


async def late(conn: Connection, end_day: int, limit: int) -> list[tuple[int, int]]:
    """(device, day) of the changes of days before `end_day` that wait the longest, each once."""
    found = await conn.fetch(
        """SELECT DISTINCT device_id, day FROM (
               SELECT device_id, day FROM rollup_late l WHERE day < $1 AND NOT EXISTS (
                   SELECT FROM rollup_day r WHERE r.device_id = l.device_id AND r.day = l.day AND kept)
               ORDER BY number LIMIT $2) oldest
           ORDER BY 1, 2""",
        end_day,
        limit,
    )
    return [(row["device_id"], row["day"]) for row in found]


async def make(conn: Connection, days: Sequence[tuple[int, int]]) -> int:
    """Sums up these days of devices, in place of what was there; how many rows. The connection is in a transaction that
    sees one state: repeatable read."""
    devices, numbers = [device for device, _ in days], [day for _, day in days]
    asked = "unnest($1::bigint[], $2::integer[]) AS asked (device_id, day)"
    for table in ("rollup_late", "rollup", "rollup_day"):
        await conn.execute(
            f"DELETE FROM {table} t USING {asked} WHERE t.device_id = asked.device_id AND t.day = asked.day",
            devices,
            numbers,
        )
    status = await conn.execute(
        f"""WITH valued AS (
                SELECT h.*, {NUMBER} AS number FROM (
                    SELECT *, {EXACT} AS exact FROM (
                        SELECT h.project_id, h.device_id, asked.day, h.event_time, h.received_time, h.id,
                            ((h.event_time - asked.day * {DAY_MS}::bigint) / {QUARTER_MS})::smallint AS quarter,
                            e.key AS name, e.value
                        FROM {asked}
                        JOIN history h ON h.device_id = asked.device_id AND h.event_time >= asked.day * {DAY_MS}::bigint
                            AND h.event_time < (asked.day + 1) * {DAY_MS}::bigint
                        CROSS JOIN jsonb_each(h.data) e
                        WHERE jsonb_typeof(e.value) <> 'null' AND length(e.key) <= {NAME_CHARACTERS_MAX} OFFSET 0
                    ) each OFFSET 0
                ) h
            ), quarterly AS (
                SELECT project_id, device_id, name, day, quarter, count(*)::integer AS points,
                    count(number)::integer AS numbers, sum(number) AS total, min(number) AS low, max(number) AS high,
                    (array_agg(value ORDER BY {ORDER}))[1]::text AS first,
                    (array_agg(value ORDER BY {NEWEST}))[1]::text AS last
                FROM valued GROUP BY 1, 2, 3, 4, 5
            )
            INSERT INTO rollup SELECT project_id, device_id, name, day, array_agg(quarter ORDER BY quarter),
                array_agg(points ORDER BY quarter), array_agg(numbers ORDER BY quarter),
                array_agg(total ORDER BY quarter), array_agg(low ORDER BY quarter), array_agg(high ORDER BY quarter),
                array_agg(first ORDER BY quarter), array_agg(last ORDER BY quarter)
            FROM quarterly GROUP BY 1, 2, 3, 4""",
        devices,
        numbers,
    )
    await conn.execute(
        f"""INSERT INTO rollup_day (project_id, device_id, day)
            SELECT h.project_id, asked.device_id, asked.day FROM {asked} CROSS JOIN LATERAL (
                SELECT project_id FROM history h WHERE h.device_id = asked.device_id
                AND h.event_time >= asked.day * {DAY_MS}::bigint
                AND h.event_time < (asked.day + 1) * {DAY_MS}::bigint LIMIT 1) h""",
        devices,
        numbers,
    )
    return int(status.rpartition(" ")[2])


async def forget(conn: Connection, devices: Sequence[int], first_day: int, end_day: int) -> None:
    """What they are of is gone, and they are not kept."""
    for table in ("rollup", "rollup_late", "rollup_day"):
        await conn.execute(
            f"""DELETE FROM {table} t WHERE device_id = ANY($1::bigint[]) AND day >= $2 AND day < $3 AND NOT EXISTS (
                    SELECT FROM rollup_day r WHERE r.device_id = t.device_id AND r.day = t.day AND kept)""",
            devices,
            first_day,
            end_day,
        )


async def unfit(conn: Connection, devices: Sequence[int], first_day: int, end_day: int) -> list[tuple[int, int]]:
    """Which days of these devices that have messages, but for kept ones, are not summed up or have changed since."""
    found = await conn.fetch(
        f"""SELECT device_id, day FROM unnest($1::bigint[]) AS d (device_id)
           CROSS JOIN generate_series($2::integer, $3::integer - 1) day
           WHERE (device_id, day) NOT IN (
               SELECT device_id, day FROM rollup_day r
               WHERE device_id = ANY($1::bigint[]) AND day >= $2 AND day < $3 AND (kept OR NOT EXISTS (
                   SELECT FROM rollup_late l WHERE l.device_id = r.device_id AND l.day = r.day)))
               AND EXISTS (
                   SELECT FROM history h WHERE h.device_id = d.device_id AND h.event_time >= day * {DAY_MS}::bigint
                   AND h.event_time < (day + 1) * {DAY_MS}::bigint)
           ORDER BY 1, 2""",
        devices,
        first_day,
        end_day,
    )
    return [(row["device_id"], row["day"]) for row in found]


async def keep(conn: Connection, devices: Sequence[int], first_day: int, end_day: int) -> None:
    """These days, which are summed up, stay as they are, whatever becomes of their rows."""
    await conn.execute(
        """UPDATE rollup_day SET kept = true
           WHERE device_id = ANY($1::bigint[]) AND day >= $2 AND day < $3 AND NOT kept""",
        devices,
        first_day,
        end_day,
    )


async def kept_by(conn: Connection) -> list[str]:
    """Projects that have days that are kept."""
    found = await conn.fetch(
        """SELECT id FROM project p WHERE EXISTS (
               SELECT FROM rollup_day r WHERE r.project_id = p.id AND kept) ORDER BY 1"""
    )
    return [row["id"] for row in found]


async def expired(conn: Connection, project_id: str, end_day: int, limit: int, *, is_dry: bool) -> tuple[int, int, int]:
    """Deletes the rollups of up to `limit` kept days before `end_day`, or counts those of all: (days, rows, bytes)."""
    chosen = "SELECT device_id, day FROM rollup_day WHERE project_id = $1 AND kept AND day < $2"
    if is_dry:
        statement = f"""SELECT 0 AS days, count(*) AS rows, coalesce(sum(pg_column_size(row(r.*))), 0) AS bytes
            FROM rollup r JOIN ({chosen}) d USING (device_id, day) WHERE $3::integer IS NOT NULL"""
    else:
        statement = f"""WITH chosen AS ({chosen} ORDER BY day LIMIT $3), late AS (
                DELETE FROM rollup_late l USING chosen c WHERE l.device_id = c.device_id AND l.day = c.day
            ), days AS (
                DELETE FROM rollup_day r USING chosen c WHERE r.device_id = c.device_id AND r.day = c.day
            ), gone AS (
                DELETE FROM rollup r USING chosen c WHERE r.device_id = c.device_id AND r.day = c.day
                RETURNING pg_column_size(row(r.*)) AS size
            )
            SELECT (SELECT count(*) FROM chosen) AS days, count(*) AS rows, coalesce(sum(size), 0) AS bytes FROM gone"""
    row = await conn.fetchrow(statement, project_id, end_day, limit)
    assert row is not None, "aggregates have one row"
    return row["days"], row["rows"], row["bytes"]


async def missing(
    conn: Connection, project_id: str, devices: Sequence[int], first_day: int, end_day: int
) -> list[tuple[int, int, int]]:
    """(device, first day, end day) where days are not summed up, as of this state of the database."""
    found = await conn.fetch(
        """SELECT device_id, min(day) AS first, max(day) + 1 AS end FROM (
               SELECT device_id, day, day - row_number() OVER (PARTITION BY device_id ORDER BY day) AS island
               FROM unnest($2::bigint[]) AS d (device_id) CROSS JOIN generate_series($3::integer, $4::integer - 1) day
               WHERE (device_id, day) NOT IN (
                   SELECT device_id, day FROM rollup_day r
                   WHERE project_id = $1 AND device_id = ANY($2::bigint[]) AND day >= $3 AND day < $4
                       AND (kept OR NOT EXISTS (
                           SELECT FROM rollup_late l WHERE l.device_id = r.device_id AND l.day = r.day)))
           ) day GROUP BY device_id, island ORDER BY 1, 2""",
        project_id,
        devices,
        first_day,
        end_day,
    )
    return [(row["device_id"], row["first"], row["end"]) for row in found]


async def done(conn: Connection) -> dict[int, int]:
    """Of weeks (their first day) the day up to which all is summed up."""
    return {row["week"]: row["done"] for row in await conn.fetch("SELECT week, done FROM rollup_week")}


async def end_week(conn: Connection, week: int, day: int) -> None:
    """It is summed up up to that day, exclusively."""
    await conn.execute(
        """INSERT INTO rollup_week (week, done) VALUES ($1, $2)
           ON CONFLICT (week) DO UPDATE SET done = excluded.done""",
        week,
        day,
    )


def _day(time_ms: int) -> int:
    """Within what the column takes."""
    return max(-(2**31), min(2**31 - 2, time_ms // DAY_MS))
