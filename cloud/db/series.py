"""History by buckets: functions of what a path had, evaluated by PostgreSQL (words: cloud/model/series.py).

The texts of the statements are made of parts that stand here; all that a user writes is bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from cloud.db import rollups
from cloud.db.binding import Binding
from cloud.db.database import Connection
from cloud.db.numbers import EXACT, NEWEST, NUMBER, ORDER
from cloud.model.retention import DAY_MS
from cloud.model.series import OF_CHANGES, OF_POINTS, STATES_MAX, Question, percentile

STATE_CHARACTERS_MAX: Final = 200
"""Of a state's name: a state is a word, and long texts that differ behind so much count as one."""

Found: TypeAlias = dict[tuple[int | None, int], dict[int, list[Any]]]
"""(device id, path) to bucket to one value a function."""
Place: TypeAlias = tuple[int | None, int, int]

_PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "points": ("count(*)", "points"),
    "numbers": ("count(number)", "numbers"),
    "total": ("sum(number)", "sums"),
    "low": ("min(number)", "lows"),
    "high": ("max(number)", "highs"),
    "first": (f"(array_agg(value ORDER BY {ORDER}))[1]::text", "firsts"),
    "last": (f"(array_agg(value ORDER BY {NEWEST}))[1]::text", "lasts"),
}
"""What is known of part of a bucket: from its points, and as a rollup has it."""
_OF_PARTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "avg": ("sum(total) / nullif(sum(numbers), 0)", ("total", "numbers")),
    "min": ("min(low)", ("low",)),
    "max": ("max(high)", ("high",)),
    "sum": ("sum(total)", ("total",)),
    "count": ("sum(points)::bigint", ("points",)),
    "first": ("(array_agg(first ORDER BY since))[1]", ("first",)),
    "last": ("(array_agg(last ORDER BY till DESC))[1]", ("last",)),
}
"""Functions of the parts of a bucket, which lie behind each other in time."""
_SELECTED: Final[Mapping[str, str]] = {
    "avg": "avg(number)",
    "min": "min(number)",
    "max": "max(number)",
    "sum": "sum(number)",
    "count": "count(*)",
    "first": f"(array_agg(value ORDER BY {ORDER}))[1]::text",
    "last": f"(array_agg(value ORDER BY {NEWEST}))[1]::text",
}


class _Statement(Binding):
    """The parts that stand in all statements here. $1: the project, $2: devices, $3 to $5: the range and the edges of
    its buckets."""

    def __init__(self, project_id: str, devices: Sequence[int], question: Question) -> None:
        edges = question.buckets.edges
        super().__init__(project_id, devices, edges[0], edges[-1], edges)
        named = all(len(path) == 1 for path in question.paths)
        bound = (f"{self.bind(path[0])}::text" if named else f"{self.bind(path)}::text[]" for path in question.paths)
        self.paths = f"(VALUES {', '.join(f'({place}, {path})' for place, path in enumerate(bound))}) p (path, steps)"
        self._value = f"h.data {'->' if named else '#>'} p.steps"
        self._filters = self.conditions(question.filters)

    def points(self, spans: str = "") -> str:
        """Rows (device_id, path, event_time, received_time, id, value, number) of the range, or of a table of spans of
        it (device_id, start_ms, end_ms)."""
        source = f"{spans} s JOIN history h ON h.device_id = s.device_id" if spans else "history h"
        within = (
            "h.event_time >= s.start_ms AND h.event_time < s.end_ms" if spans else "h.device_id = ANY($2::bigint[])"
        )
        return self._numbered(f"""
            SELECT h.device_id, p.path, h.event_time, h.received_time, h.id, {self._value} AS value
            FROM {source} CROSS JOIN {self.paths}
            WHERE h.project_id = $1 AND {within} AND h.event_time >= $3::bigint
              AND h.event_time < $4::bigint{self._filters}""")

    def points_and_before(self, hold_ms: int, condition: str) -> str:
        """The same, and of each series the last point before the range; of those that meet the condition."""
        since = self.bind(self.values[2] - hold_ms)
        earlier = self._numbered(f"""
            SELECT h.event_time, h.received_time, h.id, {self._value} AS value FROM history h
            WHERE h.project_id = $1 AND h.device_id = d.device_id AND h.event_time < $3
              AND h.event_time >= {since}::bigint{self._filters} ORDER BY {NEWEST}""")
        return f"""(SELECT * FROM {self.points()} point WHERE {condition}
            UNION ALL
            SELECT d.device_id, p.path, before.* FROM unnest($2::bigint[]) d (device_id) CROSS JOIN {self.paths}
            CROSS JOIN LATERAL (
                SELECT * FROM {earlier} earlier WHERE {condition} ORDER BY {NEWEST} LIMIT 1) before)"""

    @staticmethod
    def _numbered(points: str) -> str:
        """OFFSET 0 keeps PostgreSQL from finding value and number anew for each use of them."""
        found = (
            f"SELECT *, {EXACT} AS exact FROM ({points} OFFSET 0) point WHERE jsonb_typeof(value) <> 'null' OFFSET 0"
        )
        return f"(SELECT *, {NUMBER} AS number FROM ({found}) point)"


async def devices_of(conn: Connection, project_id: str, system_id: str | None, limit: int) -> list[int]:
    """Up to `limit` ids, in order, of the system's or project's devices."""
    found = await conn.fetch(
        """SELECT id FROM device WHERE project_id = $1 AND ($2::text IS NULL OR system_id = $2)
           ORDER BY id LIMIT $3""",
        project_id,
        system_id,
        limit,
    )
    return [row["id"] for row in found]


async def values(
    conn: Connection, project_id: str, devices: Sequence[int], question: Question, *, together: bool = False
) -> Found:
    """The buckets that have points, or values that held then where these are asked for. `together`: the devices are
    one series, for functions of points only. The connection is in a transaction that sees one state."""
    found: Found = {}
    of_points = [name for name in question.functions if name in OF_POINTS]
    percentiles = {name: share for name in question.functions if (share := percentile(name)) is not None}

    def keep(row: asyncpg.Record, name: str, value: Any) -> None:
        series = found.setdefault((row["device_id"], row["path"]), {})
        empty = [0 if each == "count" else None for each in question.functions]
        series.setdefault(row["bucket"], empty)[question.functions.index(name)] = value

    if of_points or percentiles:
        rows = None
        if of_points and not percentiles and _may_roll(question, of_points, together):
            rows = await _rolled(conn, project_id, devices, question, of_points, together)
        if rows is None:
            rows = await _points(conn, project_id, devices, question, of_points, list(percentiles.values()), together)
        for row in rows:
            for place, name in enumerate(of_points):
                value = row[3 + place]
                keep(row, name, msgspec.Raw(value.encode()) if name in ("first", "last") else value)
            for place, name in enumerate(percentiles):
                keep(row, name, row["percentiles"] and row["percentiles"][place])
    if any(name in question.functions for name in OF_CHANGES):
        for row in await _changes(conn, project_id, devices, question):
            for name in OF_CHANGES:
                if name in question.functions:
                    keep(row, name, row[name])
    if "twa" in question.functions:
        for row in await _averages(conn, project_id, devices, question):
            keep(row, "twa", row["twa"])
    if "states" in question.functions:
        held: dict[Place, dict[str, int]] = {}
        for row in await _states(conn, project_id, devices, question):
            at = (row["device_id"], row["path"], row["bucket"])
            if at not in held:
                keep(row, "states", held.setdefault(at, {}))
            held[at][row["state"]] = row["held_ms"]
    return found


async def _points(
    conn: Connection,
    project_id: str,
    devices: Sequence[int],
    question: Question,
    functions: Sequence[str],
    shares: Sequence[float],
    together: bool,
) -> list[asyncpg.Record]:
    statement = _Statement(project_id, devices, question)
    selected = [_SELECTED[name] for name in functions]
    if shares:
        bound = statement.bind(shares)
        selected.append(f"percentile_cont({bound}::float8[]) WITHIN GROUP (ORDER BY number) AS percentiles")
    series = "NULL::bigint" if together else "device_id"
    return await conn.fetch(
        f"""SELECT {series} AS device_id, path, width_bucket(event_time, $5::bigint[]) - 1 AS bucket,
            {", ".join(selected)} FROM {statement.points()} point GROUP BY 1, 2, 3""",
        *statement.values,
    )


def _may_roll(question: Question, functions: Sequence[str], together: bool) -> bool:
    """Whether rollups say what is asked."""
    edges = question.buckets.edges
    return (
        not question.filters
        and all(len(path) == 1 and len(path[0]) <= rollups.NAME_CHARACTERS_MAX for path in question.paths)
        and not (together and ("first" in functions or "last" in functions))  # whose was it, of several?
        and edges[0] >= 0
        and all(edge % rollups.QUARTER_MS == 0 for edge in edges[1:-1])
    )


async def _rolled(
    conn: Connection,
    project_id: str,
    devices: Sequence[int],
    question: Question,
    functions: Sequence[str],
    together: bool,
) -> list[asyncpg.Record] | None:
    """From the rollups of whole days, as far as they count, and from points else; None: no day has any."""
    edges = question.buckets.edges
    first_day, end_day = -(-edges[0] // DAY_MS), edges[-1] // DAY_MS
    if edges[0] % rollups.QUARTER_MS == edges[-1] % rollups.QUARTER_MS == 0:  # then parts of a day are in them, too
        first_day, end_day = edges[0] // DAY_MS, -(-edges[-1] // DAY_MS)
    if first_day >= end_day:
        return None
    missing = await rollups.missing(conn, project_id, devices, first_day, end_day)
    if sum(end - first for _, first, end in missing) == (end_day - first_day) * len(devices):
        return None
    spans = [(device, max(first * DAY_MS, edges[0]), min(end * DAY_MS, edges[-1])) for device, first, end in missing]
    for start, end in ((edges[0], first_day * DAY_MS), (end_day * DAY_MS, edges[-1])):
        if start < end:
            spans += [(device, start, end) for device in devices]
    statement = _Statement(project_id, devices, question)
    of_span, starts, ends = (f"{statement.bind([span[place] for span in spans])}::bigint[]" for place in range(3))
    names = list(dict.fromkeys(part for name in functions for part in _OF_PARTS[name][1]))
    made = ", ".join(f"{_PARTS[name][0]} AS {name}" for name in names)
    held = ", ".join(f"r.{_PARTS[name][1]}" for name in names)
    series = "NULL::bigint" if together else "device_id"
    return await conn.fetch(
        f"""WITH span AS MATERIALIZED (
                SELECT * FROM unnest({of_span}, {starts}, {ends}) AS s (device_id, start_ms, end_ms)
            )
            SELECT {series} AS device_id, path, bucket, {", ".join(_OF_PARTS[name][0] for name in functions)} FROM (
                SELECT device_id, path, width_bucket(event_time, $5::bigint[]) - 1 AS bucket,
                    min(event_time) AS since, max(event_time) AS till, {made}
                FROM {statement.points("span")} point GROUP BY 1, 2, 3
                UNION ALL
                SELECT r.device_id, p.path, width_bucket(at_ms, $5::bigint[]) - 1, at_ms, at_ms,
                    {", ".join(f"q.{name}" for name in names)}
                FROM rollup r JOIN {statement.paths} ON p.steps = r.name
                CROSS JOIN LATERAL unnest(r.quarters, {held}) AS q (quarter, {", ".join(names)})
                CROSS JOIN LATERAL (
                    SELECT r.day * {DAY_MS}::bigint + q.quarter * {rollups.QUARTER_MS}::bigint AS at_ms) at
                WHERE r.project_id = $1 AND r.device_id = ANY($2::bigint[])
                    AND r.day >= {first_day} AND r.day < {end_day}
                    AND at_ms >= {edges[0]} AND at_ms < {edges[-1]}
                    AND NOT EXISTS (SELECT FROM span s WHERE s.device_id = r.device_id
                        AND s.start_ms < (r.day + 1) * {DAY_MS}::bigint AND s.end_ms > r.day * {DAY_MS}::bigint)
            ) part GROUP BY 1, 2, 3""",
        *statement.values,
    )


async def _changes(
    conn: Connection, project_id: str, devices: Sequence[int], question: Question
) -> list[asyncpg.Record]:
    """The number before a bucket counts if it could have held until the bucket's first one."""
    statement = _Statement(project_id, devices, question)
    numbers = statement.points_and_before(question.hold_ms, "number IS NOT NULL")
    hold = f"{statement.bind(question.hold_ms)}::bigint"
    return await conn.fetch(
        f"""WITH ends AS (
                SELECT device_id, path, width_bucket(event_time, $5::bigint[]) - 1 AS bucket, count(*) AS numbers,
                    (array_agg(number ORDER BY {ORDER}))[1] AS first, min(event_time) AS first_ms,
                    (array_agg(number ORDER BY {NEWEST}))[1] AS last, max(event_time) AS last_ms
                FROM {numbers} point GROUP BY 1, 2, 3
            ), beside AS (
                SELECT *, lag(last) OVER series AS before, lag(last_ms) OVER series AS before_ms
                FROM ends WINDOW series AS (PARTITION BY device_id, path ORDER BY bucket)
            ), based AS (
                SELECT device_id, path, bucket, last, last_ms,
                    CASE WHEN first_ms - before_ms <= {hold} THEN before WHEN numbers > 1 THEN first END AS base,
                    CASE WHEN first_ms - before_ms <= {hold} THEN before_ms ELSE first_ms END AS base_ms
                FROM beside WHERE bucket >= 0
            )
            SELECT device_id, path, bucket, last - base AS delta,
                (last - base) * 1000 / nullif(last_ms - base_ms, 0) AS rate FROM based""",
        *statement.values,
    )


def _pieces(statement: _Statement, question: Question, condition: str) -> str:
    """Rows (device_id, path, bucket, value, number, held_ms): how long a value held in a bucket."""
    stream = statement.points_and_before(question.hold_ms, condition)
    hold, until = f"{statement.bind(question.hold_ms)}::bigint", f"{statement.bind(question.until_ms)}::bigint"
    return f"""(
        SELECT device_id, path, bucket - 1 AS bucket, value, number,
            least(end_ms, ($5::bigint[])[bucket + 1]) - greatest(start_ms, ($5::bigint[])[bucket]) AS held_ms
        FROM (
            SELECT device_id, path, value, number, greatest(event_time, $3) AS start_ms,
                least(lead(event_time) OVER (PARTITION BY device_id, path ORDER BY {ORDER}),
                      event_time + {hold}, {until}, $4) AS end_ms
            FROM {stream} point) held
        CROSS JOIN LATERAL generate_series(
            width_bucket(start_ms, $5::bigint[]), width_bucket(end_ms - 1, $5::bigint[])) bucket
        WHERE end_ms > start_ms)"""


async def _averages(
    conn: Connection, project_id: str, devices: Sequence[int], question: Question
) -> list[asyncpg.Record]:
    statement = _Statement(project_id, devices, question)
    pieces = _pieces(statement, question, "number IS NOT NULL")
    return await conn.fetch(
        f"""SELECT device_id, path, bucket, sum(number * held_ms) / sum(held_ms) AS twa
            FROM {pieces} piece GROUP BY 1, 2, 3""",
        *statement.values,
    )


async def _states(
    conn: Connection, project_id: str, devices: Sequence[int], question: Question
) -> list[asyncpg.Record]:
    statement = _Statement(project_id, devices, question)
    pieces = _pieces(statement, question, "TRUE")
    return await conn.fetch(
        f"""SELECT device_id, path, bucket, state, held_ms FROM (
                SELECT *, row_number() OVER (
                    PARTITION BY device_id, path, bucket ORDER BY held_ms DESC, state COLLATE "C") AS place
                FROM (
                    SELECT device_id, path, bucket, left(value #>> '{{}}', {STATE_CHARACTERS_MAX}) AS state,
                        sum(held_ms)::bigint AS held_ms
                    FROM {pieces} piece GROUP BY 1, 2, 3, 4) summed) ranked
            WHERE place <= {STATES_MAX} ORDER BY device_id, path, bucket, place""",
        *statement.values,
    )
