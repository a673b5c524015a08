"""The curator over the rows of two projects, one of which keeps everything, while new rows are written."""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import Awaitable
from statistics import median
from typing import Final

import uvloop

from benchmarks.embedded import embedded_database
from benchmarks.history import YEAR_MINUTES
from benchmarks.row import Row
from cloud.db import history, retention
from cloud.db.database import Database
from cloud.db.migrate import migrate
from cloud.model.curation import Report
from cloud.model.retention import DAY_MS, BlueprintRetention, Retention
from cloud.services.curator import Curator

ROWS: Final = 5_000_000
MINUTE_MS: Final = 60_000
END: Final = datetime.datetime(2026, 11, 2, tzinfo=datetime.UTC)
WEEKS: Final = 52
WRITTEN: Final = f"history_{END:%Y%m%d}"
"""The week that new rows are of."""
BATCH: Final = 500
BATCH_EVERY_S: Final = 0.05
"""10,000 rows a second, which two cores do with room to spare."""
ALONE_S: Final = 20.0
GONE_DAYS: Final = 182
STRIPPED_DAYS: Final = 90
KEEPER_DAYS: Final = 273
"""The project that keeps everything begins then: what is older is the other one's alone."""
_FILL: Final = """
    INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
    SELECT project, device, $3 + minute * 60000,
        (lpad(to_hex(device), 16, '0') || lpad(to_hex(minute), 16, '0'))::uuid, $3 + minute * 60000, 0,
        jsonb_build_object('temperature', round((20 + 5 * sin(minute / 1440.0) + random())::numeric, 2),
                           'vibration', minute % 997, 'state', CASE WHEN minute % 50 < 30 THEN 'on' ELSE 'off' END)
    FROM generate_series($4::bigint, $5 - 1) minute, unnest($1::text[], $2::bigint[], $6::bigint[])
        AS d (project, device, first)
    WHERE minute >= first"""


def rows(share: float) -> list[Row]:
    """`share`: of ROWS."""
    return uvloop.run(_rows(max(2, round(ROWS * share / YEAR_MINUTES))))


async def _rows(devices: int) -> list[Row]:
    async with embedded_database() as database:
        return await _measured(database, devices)


async def _measured(database: Database, devices: int) -> list[Row]:
    end_ms = round(END.timestamp() * 1000)
    ids = await _filled(database, devices, end_ms - YEAR_MINUTES * MINUTE_MS)
    writer = _Writer(database, ids[-1], end_ms)
    alone = await writer.during(asyncio.sleep(ALONE_S))
    before, size_before, written_before = await _held(database), await _size(database), await _size(database, WRITTEN)
    written = writer.written
    curator = Curator(database, lambda: end_ms, 86_400)
    done: list[Report] = []

    async def curate() -> None:
        found = await curator.curate(asyncio.Event(), is_scheduled=True)
        assert found is not None
        done.extend(found)

    started = time.perf_counter()
    beside = await writer.during(curate())
    seconds = time.perf_counter() - started
    after, size_after = await _held(database), await _size(database)
    (report,) = done
    gone = {action: sum(line.rows for line in report.lines if line.action == action) for action in
            ("dropped", "deleted", "stripped")}  # fmt: skip
    assert before - after + writer.written - written == gone["dropped"] + gone["deleted"], (
        "what is gone is what is told"
    )
    assert not any(line.rows_after for line in report.lines)
    dropped = sum(size.bytes_before for size in report.sizes if not size.bytes_after)
    inside = sum(size.bytes_after - size.bytes_before for size in report.sizes if size.bytes_after)
    grown = await _size(database, WRITTEN) - written_before
    note = (
        f"of {before:,}: {gone['dropped']:,} dropped, {gone['deleted']:,} deleted, {gone['stripped']:,} stripped in "
        f"{seconds:.0f} s, {report.lock_waits} locks let go; told: {dropped / 1e6:,.0f} MB given back, "
        f"{inside / 1e6:+,.0f} MB in the weeks that stay; found: {(size_before + grown - size_after) / 1e6:,.0f} MB "
        "less, but for what was written"
    )
    writes = f"{len(beside):,} transactions of {BATCH} rows, one each {BATCH_EVERY_S * 1000:.0f} ms; the longest took "
    return [
        Row("curator, rows let go", sum(gone.values()) / seconds, "rows/s", note=note),
        Row(
            "writes beside the curator, p99", _p99(beside), "ms", None, True, "without it", _p99(alone),
            f"{writes}{max(beside):.0f} ms, {max(alone):.0f} without it; the median {median(beside):.0f} and "
            f"{median(alone):.0f}",
        ),
    ]  # fmt: skip


class _Writer:
    """New rows, as they come."""

    def __init__(self, database: Database, device_id: int, now_ms: int) -> None:
        self._database = database
        self._device_id = device_id
        self._now_ms = now_ms
        self.written = 0

    async def during(self, work: Awaitable[None]) -> list[float]:
        """Milliseconds of each transaction, until the work is done."""
        task = asyncio.ensure_future(work)
        taken = []
        while not task.done():
            started = time.perf_counter()
            made = [
                (
                    "keep",
                    self._device_id,
                    self._now_ms + self.written + place,
                    uuid.uuid4(),
                    self._now_ms,
                    0,
                    '{"n": 1}',
                )
                for place in range(BATCH)
            ]
            async with self._database.transaction() as conn:
                await conn.copy_records_to_table(
                    "history",
                    records=made,
                    columns=("project_id", "device_id", "event_time", "id", "received_time", "flags", "data"),
                )
            self.written += BATCH
            spent = time.perf_counter() - started
            taken.append(spent * 1000)
            await asyncio.sleep(max(0.0, BATCH_EVERY_S - spent))
        await task
        return taken


async def _filled(database: Database, devices: int, start_ms: int) -> list[int]:
    await migrate(database)
    projects = ["bench"] * (devices - devices // 3) + ["keep"] * (devices // 3)
    async with database.transaction() as conn:
        for week in range(WEEKS + 3):
            await history.ensure_partitions(conn, start_ms + week * history.WEEK_MS)
        for project in ("bench", "keep"):
            await conn.execute("INSERT INTO project (id, name) VALUES ($1, 'P')", project)
            await conn.execute("INSERT INTO system (project_id, id, name) VALUES ($1, 's', 'S')", project)
            await conn.execute(
                "INSERT INTO blueprint (project_id, id, name, revision) VALUES ($1, 'b', 'B', 1)", project
            )
        made = await conn.fetch(
            """INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
               SELECT project, 's', 'b', 'D', 1 FROM unnest($1::text[]) project RETURNING id""",
            projects,
        )
        rules = Retention(GONE_DAYS, blueprints={"b": BlueprintRetention(attributes={"vibration": STRIPPED_DAYS})})
        await retention.put(conn, "bench", rules)
    ids = [row["id"] for row in made]
    keeper = YEAR_MINUTES - KEEPER_DAYS * DAY_MS // MINUTE_MS
    step = 7 * 24 * 60
    for first in range(0, YEAR_MINUTES, step):
        async with database.transaction() as conn:
            await conn.execute(
                _FILL, projects, ids, start_ms, first, min(first + step, YEAR_MINUTES),
                [keeper if project == "keep" else 0 for project in projects],
            )  # fmt: skip
    async with database.connection() as conn:
        await conn.execute("VACUUM ANALYZE history")
    return ids


async def _held(database: Database) -> int:
    async with database.connection() as conn:
        found: int = await conn.fetchval("SELECT count(*) FROM history")
    return found


async def _size(database: Database, table: str | None = None) -> int:
    """Bytes of a table, or of all."""
    async with database.connection() as conn:
        await conn.execute("CHECKPOINT")
        sized = "pg_database_size(current_database())" if table is None else f"pg_total_relation_size('{table}')"
        found: int = await conn.fetchval(f"SELECT {sized}")
    return found


def _p99(taken: list[float]) -> float:
    return sorted(taken)[len(taken) * 99 // 100]
