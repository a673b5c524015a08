"""`tidegate-cloud history`, beside a database with a device's messages."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest_asyncio

from cloud.db.database import Database

pytest_plugins = ("tests.contract.postgres",)

COMMAND = Path(sys.executable).with_name("tidegate-cloud")
PATIENCE_S = 60.0
NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z
RANGE = ("--since", "2026-03-01T00:00:00Z", "--until", "2026-03-02T00:00:00Z")


@pytest_asyncio.fixture
async def device(database: Database) -> int:
    async with database.transaction() as conn:
        await conn.execute(
            """INSERT INTO project (id, name) VALUES ('demo', 'D');
               INSERT INTO system (project_id, id, name) VALUES ('demo', 's', 'S');
               INSERT INTO blueprint (project_id, id, name, revision) VALUES ('demo', 'b', 'B', 1)"""
        )
        device_id: int = await conn.fetchval(
            """INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
               VALUES ('demo', 's', 'b', 'D', 1) RETURNING id"""
        )
        await conn.executemany(
            """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
               VALUES ('demo', $1, $2, $3, $2, 0, $4)""",
            [
                (device_id, NOON + 1000 * n, uuid.UUID(int=n), json.dumps({"n": n, "state": "on, é"}))
                for n in range(1, 5)
            ],
        )
    return device_id


async def history(database_url: str, *words: str | int) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [COMMAND, "history", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "TIDEGATE_CLOUD_DATABASE__URL": database_url},
    )


async def test_buckets_and_points_as_table_json_and_csv(database_url: str, device: int) -> None:
    day = ("--bucket", "day", "-f", "avg", "-f", "last", "--zone", "Europe/Berlin", *RANGE)
    done = await history(database_url, device, "-p", "n", *day)
    assert done.stderr == ""
    heading, line = (row.split() for row in done.stdout.splitlines())
    assert heading == ["path", "start", "end", "gap", "filled", "avg", "last"]
    assert line == ["n", "2026-03-01T00:00:00+01:00", "2026-03-02T00:00:00+01:00", "no", "no", "2.5", "4"]
    (row,) = json.loads((await history(database_url, device, "-p", "state", *day, "--json")).stdout)
    assert (row["start_time"], row["avg"], row["last"]) == (NOON - 13 * 3_600_000, None, "on, é")
    done = await history(
        database_url,
        device,
        "-p",
        "n",
        "-p",
        "state",
        *RANGE,
        "--csv",
        "--limit",
        2,
        "--newest-first",
        "--filter",
        "n<4",
    )
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["event_time", "id", "n", "state"],
        *([str(NOON + 1000 * n), str(uuid.UUID(int=n)), str(n), "on, é"] for n in (3, 2)),
    ]
    assert done.stderr == "these are the first 2 rows; more with --limit\n"


async def test_what_is_wrong_is_told(database_url: str, device: int) -> None:
    for words, error in (
        (("boats:serial:none", "-p", "n"), "device"),
        ((device, "-p", "n", "--bucket", "day", "--zone", "Mars"), "zone"),
    ):
        done = await history(database_url, *words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert error in done.stderr
        assert "\n  try: " in done.stderr
