"""History queries through the API, beside the plain statement of what is asked, over the rows of many devices."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from statistics import median
from typing import Any, Final

import httpx
import uvloop

from benchmarks.embedded import embedded_database
from benchmarks.row import Row
from cloud.api.app import PREFIX, create_app
from cloud.api.auth import TOKEN_S, make_token
from cloud.api.context import ApiContext, ApiSettings
from cloud.db import history, users
from cloud.db.database import Database
from cloud.db.migrate import migrate
from cloud.services.curator import Curator
from protocols.shipment import MessageBatch

ROWS: Final = 5_000_000
MINUTE_MS: Final = 60_000
YEAR_MINUTES: Final = 365 * 24 * 60
END: Final = datetime.datetime(2026, 11, 2, tzinfo=datetime.UTC)
"""A Monday: history's weeks end with it."""
POINTS: Final = 10_000
FILL_MINUTES: Final = 7 * 24 * 60
REPEATS: Final = 5
_FILL: Final = """
    INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
    SELECT 'bench', device, $2 + minute * 60000,
        (lpad(to_hex(device), 16, '0') || lpad(to_hex(minute), 16, '0'))::uuid, $2 + minute * 60000, 0,
        jsonb_build_object('temperature', round((20 + 5 * sin(minute / 1440.0) + random())::numeric, 2),
                           'humidity', 40 + minute % 20, 'state', CASE WHEN minute % 50 < 30 THEN 'on' ELSE 'off' END)
    FROM generate_series($3::bigint, $4 - 1) minute, unnest($1::bigint[]) device"""
"""All devices minute by minute, as they come: the rows of one lie far apart."""
_DAYS: Final = """
    SELECT event_time / 86400000, avg((data->'temperature')::float8), max((data->'temperature')::float8) FROM history
    WHERE device_id = $1 AND event_time >= $2 AND event_time < $3 GROUP BY 1 ORDER BY 1"""
_POINTS: Final = """
    SELECT event_time, id, data->'temperature' FROM history
    WHERE device_id = $1 AND event_time >= $2 AND event_time < $3
    ORDER BY event_time, id"""


class NoFeed:
    """A live feed of nothing."""

    async def subscribe(self, project_ids: Collection[str]) -> AsyncIterator[MessageBatch]:
        return
        yield


def rows(share: float) -> list[Row]:
    """`share`: of ROWS, but never less than one device's year of minutes."""
    return uvloop.run(_rows(max(1, round(ROWS * share / YEAR_MINUTES))))


async def _rows(devices: int) -> list[Row]:
    async with embedded_database() as database:
        return await _measured(database, devices)


async def _measured(database: Database, devices: int) -> list[Row]:
    end_ms = round(END.timestamp() * 1000)
    start_ms = end_ms - YEAR_MINUTES * MINUTE_MS
    ids = await _filled(database, devices, start_ms)
    context = await ApiContext.open(database, NoFeed(), ApiSettings())
    async with database.transaction() as conn:
        await users.create(conn, "bench", admin=True)
        user_id = await conn.fetchval("SELECT id FROM app_user")
        session_id, version, _ = await users.open_session(conn, user_id, END)
    token = make_token(context.session_key, user_id, session_id, version, context.wall_ms() // 1000 + TOKEN_S)
    device = ids[len(ids) // 2]
    near_ms = end_ms - POINTS * MINUTE_MS
    async with (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(context)),
            base_url=f"http://bench{PREFIX}/devices/{device}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=600,
        ) as client,
        database.connection() as conn,
    ):

        async def asked(path: str, from_ms: int, **query: Any) -> httpx.Response:
            query |= {"path": "temperature", "from": from_ms, "to": end_ms, "limit": POINTS}
            answer = await client.get(path, params=query)
            assert answer.status_code == 200, answer.text
            return answer

        assert (await asked("/points", near_ms)).json()["count"] == POINTS
        assert (await asked("/series", start_ms, bucket="day")).json()["count"] == 365
        points = await _ms(lambda: asked("/points", near_ms))
        bare_points = await _ms(lambda: conn.fetch(_POINTS, device, near_ms, end_ms))

        async def by_days() -> httpx.Response:
            return await asked("/series", start_ms, bucket="day", function=["avg", "max"], zone="Europe/Berlin")

        from_rows, told = await _ms(by_days), (await by_days()).json()
        started = time.perf_counter()
        while await Curator(database, lambda: end_ms + 2 * 3_600_000, 86_400).roll_up(asyncio.Event()):
            pass
        summed_up = time.perf_counter() - started
        await conn.execute("VACUUM ANALYZE rollup, rollup_day, rollup_late")
        days, told_again = await _ms(by_days), (await by_days()).json()
        assert _rounded(told) == _rounded(told_again), "rollups say what rows say"
        bare_days = await _ms(lambda: conn.fetch(_DAYS, device, start_ms, end_ms))
    note = f"of {devices * YEAR_MINUTES:,} rows; the answer's JSON included, its reader not"
    return [
        Row("history, 10,000 points", points, "ms", 50, True, "plain SQL, its rows in Python", bare_points, note),
        Row("history, a year of minutes by days", days, "ms", 100, True, "plain SQL, days of UTC", bare_days, note),
        Row("the same before its days are summed up", from_rows, "ms", note=f"summing up took {summed_up:.0f} s"),
    ]


async def _filled(database: Database, devices: int, start_ms: int) -> list[int]:
    await migrate(database)
    async with database.transaction() as conn:
        for week in range(54):
            await history.ensure_partitions(conn, start_ms + week * history.WEEK_MS)
        await conn.execute("""
            INSERT INTO project (id, name) VALUES ('bench', 'Bench');
            INSERT INTO system (project_id, id, name) VALUES ('bench', 's', 'S');
            INSERT INTO blueprint (project_id, id, name, revision) VALUES ('bench', 'b', 'B', 1)""")
        made = await conn.fetch(
            """INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
               SELECT 'bench', 's', 'b', 'D', 1 FROM generate_series(1, $1) RETURNING id""",
            devices,
        )
    ids = [row["id"] for row in made]
    for first in range(0, YEAR_MINUTES, FILL_MINUTES):
        async with database.transaction() as conn:
            await conn.execute(_FILL, ids, start_ms, first, min(first + FILL_MINUTES, YEAR_MINUTES))
    async with database.connection() as conn:
        await conn.execute("VACUUM ANALYZE history")
    return ids


def _rounded(page: Any) -> list[tuple[Any, ...]]:
    """Averages are the same but for their last digits."""
    return [(item["start_time"], round(item["avg"], 9), item["max"]) for item in page["items"]]


async def _ms(work: Callable[[], Awaitable[Any]]) -> float:
    """The median of REPEATS."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - started) * 1000)
    return median(taken)
