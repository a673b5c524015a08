"""History by buckets, series by series, in steps of bounded size: asked by the API and by `tidegate-cloud history`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from cloud.db import gaps, points, series, standings
from cloud.db.database import Connections
from cloud.model.buckets import AskedError, Buckets
from cloud.model.series import OF_CHANGES, OF_TIME, PointsQuestion, Question, Row, filled, marked

DEVICES_MAX: Final = 10_000
"""Of a system or project in one query."""
DEVICE_ROWS_MAX: Final = 20_000
"""Buckets of all paths of one device: what is in memory at a time, some 10 MB."""
STATE_ROWS_MAX: Final = 2000
"""The same where each may have STATES_MAX states."""
STEP_ROWS: Final = 5000
"""Rows that one transaction reads, if devices are small enough to share it."""
STEP_DEVICES: Final = 500
"""Devices that are looked at together for whether they have anything."""
GAPS_MAX: Final = 1000
"""Gaps of one range that are looked at, the newest first."""


class Scope(msgspec.Struct, frozen=True):
    project_id: str
    devices: tuple[int, ...]
    together: bool = False
    """The devices are one series a path."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Of a row: where the next page goes on behind it."""

    device_id: int | None
    path: int
    bucket: int


async def scope_of(database: Connections, project_id: str, system_id: str | None, *, together: bool) -> Scope:
    """The devices of a system or project. Raises AskedError if they are more than DEVICES_MAX."""
    async with database.connection() as conn:
        devices = await series.devices_of(conn, project_id, system_id, DEVICES_MAX + 1)
    if len(devices) > DEVICES_MAX:
        remedy = "ask for one system or device at a time"
        raise AskedError("system_id", f"more than {DEVICES_MAX:,} devices", limit=DEVICES_MAX, remedy=remedy)
    return Scope(project_id, tuple(devices), together)


def check(question: Question, *, together: bool) -> None:
    """Raises AskedError for what costs too much, or means nothing."""
    limit = STATE_ROWS_MAX if "states" in question.functions else DEVICE_ROWS_MAX
    if (rows := len(question.buckets) * len(question.paths)) > limit:
        remedy = "take wider buckets, a shorter range or fewer paths"
        detail = f"{len(question.buckets):,} buckets of {len(question.paths)} paths are {rows:,} rows a device"
        raise AskedError("bucket", detail, limit=limit, remedy=remedy)
    single = [name for name in question.functions if name in OF_CHANGES or name in OF_TIME]
    if together and single:
        remedy = "ask by=device, or leave it out"
        raise AskedError("function", f"{single[0]} has no meaning for several devices together", remedy=remedy)


async def rows_of(
    database: Connections, scope: Scope, question: Question, *, descending: bool = False, after: Place | None = None
) -> AsyncIterator[list[Row]]:
    """Rows by device, path and bucket (`descending`: the latest bucket first), those behind `after` only. Each step is
    of one state of the database; no connection is held between. Raises DatabaseError."""
    devices = scope.devices
    if after is not None and after.device_id is not None:
        devices = tuple(each for each in devices if each >= after.device_id)
    most = len(devices) if scope.together else max(1, STEP_ROWS // (len(question.buckets) * len(question.paths)))
    for start in range(0, len(devices), max(1, most)):
        rows = await _step(database, scope, devices[start : start + most], question, descending)
        if after is not None:
            rows = [row for row in rows if _is_behind(row, after, descending)]
        if rows:
            yield rows


async def _step(
    database: Connections, scope: Scope, devices: Sequence[int], question: Question, descending: bool
) -> list[Row]:
    async with database.transaction(isolation="repeatable_read", readonly=True) as conn:
        found = await series.values(conn, scope.project_id, devices, question, together=scope.together)
    rows: list[Row] = []
    for device_id in [None] if scope.together else devices:
        for path in range(len(question.paths)):
            made = list(filled(question, device_id, path, found.get((device_id, path), {})))
            rows += reversed(made) if descending else made
    return rows


def _is_behind(row: Row, after: Place, descending: bool) -> bool:
    if (row.device_id, row.path) != (after.device_id, after.path):
        return (row.device_id or 0, row.path) > (after.device_id or 0, after.path)
    return row.bucket < after.bucket if descending else row.bucket > after.bucket


async def points_of(
    database: Connections,
    scope: Scope,
    question: PointsQuestion,
    *,
    descending: bool = False,
    after: points.Place | None = None,
    step: int = STEP_ROWS,
) -> AsyncIterator[list[points.PointRow]]:
    """Messages by device, event time and id (`descending`: the latest of each device first), those behind `after` only,
    up to `step` at a time; no connection is held between. Raises DatabaseError."""
    devices = scope.devices if after is None else tuple(each for each in scope.devices if each >= after.device_id)
    for start in range(0, len(devices), STEP_DEVICES):
        async with database.connection() as conn:
            heard = await points.heard(conn, scope.project_id, devices[start : start + STEP_DEVICES], question)
        for device_id in heard:
            place = after if after is not None and after.device_id == device_id else None
            while True:
                async with database.connection() as conn:
                    rows = await points.page(
                        conn, scope.project_id, device_id, question, after=place, limit=step, descending=descending
                    )
                if rows:
                    yield rows
                if len(rows) < step:
                    break
                place = points.place_of(rows[-1])


def told(question: Question, names: Sequence[str], lossy: frozenset[int], row: Row) -> dict[str, Any]:
    """A row with its names. `names`: the paths as they were written; values may be msgspec.Raw."""
    starts = question.buckets.starts
    return {
        "device": row.device_id,
        "path": names[row.path],
        "start_time": starts[row.bucket],
        "end_time": starts[row.bucket + 1],
        "gap": row.bucket in lossy,
        "filled": row.filled,
        **dict(zip(question.functions, row.values, strict=True)),
    }


async def bucket_rows(
    database: Connections, scope: Scope, question: Question, names: Sequence[str], *, descending: bool = False
) -> AsyncIterator[list[dict[str, Any]]]:
    """Rows as `told` has them. Raises AskedError, DatabaseError."""
    check(question, together=scope.together)
    marks = await lossy(database, scope, question.buckets)
    async for rows in rows_of(database, scope, question, descending=descending):
        yield [told(question, names, marks, row) for row in rows]


async def point_rows(
    database: Connections, scope: Scope, question: PointsQuestion, names: Sequence[str], *, descending: bool = False
) -> AsyncIterator[list[dict[str, Any]]]:
    """Rows of event_time, id, and the paths by the names that they were written by, where a message has them. Raises
    DatabaseError."""
    async for rows in points_of(database, scope, question, descending=descending):
        yield [
            {"event_time": row[1], "id": row[2]}
            | {
                name: msgspec.Raw(value.encode())
                for name, value in zip(names, row[points.VALUES_AT :], strict=True)
                if value is not None
            }
            for row in rows
        ]


async def lossy(database: Connections, scope: Scope, buckets: Buckets) -> frozenset[int]:
    """The buckets in which a gateway lost records, by the time that it received them: of one device, a gateway that
    carried its last messages, if that is known; of several, any of the project."""
    async with database.connection() as conn:
        told = await gaps.during(conn, scope.project_id, buckets.edges[0], buckets.edges[-1], GAPS_MAX)
        carriers: set[str] = set()
        if told and len(scope.devices) == 1:
            carriers = set((await standings.carriers(conn, scope.project_id, scope.devices[0])).values())
    return marked(
        buckets,
        [
            (gap.oldest_ms or gap.noticed_ms, gap.newest_ms or gap.noticed_ms)
            for gateway_id, gap in told
            if not carriers or gateway_id in carriers
        ],
    )
