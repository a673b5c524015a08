"""Retention and the curator's reports as clients of the API and of the command meet them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from cloud.db import curator_reports
from cloud.services.curator import Curator
from tests.contract.test_api import created, device, problem

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

COMMAND = Path(sys.executable).with_name("tidegate-cloud")
PATIENCE_S = 60.0
DAY_MS = 86_400_000
RULES = {
    "history_days": 365,
    "blueprints": {"pump": {"history_days": None, "attributes": {"vibration": 30, "alarm": None}}},
}


async def old_message(api: Api, admin: httpx.AsyncClient) -> int:
    """A device that said something 40 days ago, and today."""
    device_id: int = (await created(admin, "/devices", device("bench-01")))["id"]
    async with api.database.transaction() as conn:
        await conn.executemany(
            """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
               VALUES ('demo', $1, $2, $3, $2, 0, '{"n": 1}')""",
            [(device_id, api.now_ms - days * DAY_MS, uuid.uuid4()) for days in (0, 40)],
        )
    return device_id


async def test_rules_come_back_as_they_were_put(admin: httpx.AsyncClient) -> None:
    first = await admin.get("/retention")
    assert first.headers["etag"] == '"0"'
    assert (first.json()["history_days"], first.json()["blueprints"]) == (None, {})
    put = await admin.put("/retention", json=RULES, headers={"If-Match": '"0"'})
    assert (put.status_code, put.headers["etag"]) == (200, '"1"')
    shown = (await admin.get("/retention")).json()
    assert shown == put.json()
    assert {name: shown[name] for name in RULES} == RULES
    stale = await admin.put("/retention", json={}, headers={"If-Match": '"0"'})
    assert "at revision 1, not 0" in problem(stale, 412, "changed")["detail"]
    assert (await admin.put("/retention", json={})).json()["history_days"] is None


async def test_a_blueprint_without_days_of_its_own_goes_on_as_the_project_says(admin: httpx.AsyncClient) -> None:
    own = {"attributes": {"vibration": 3}}
    shown = (await admin.put("/retention", json={"history_days": 7, "blueprints": {"pump": own}})).json()
    assert shown["blueprints"] == {"pump": own}


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"history_days": 0}, "history_days"),
        ({"history_days": 40_000}, "history_days"),
        ({"history": 3}, "history"),
        ({"blueprints": {"pump": {"attributes": {"n": -1}}}}, "blueprints.pump.attributes.n"),
        ({"blueprints": {"pump": {"attributes": {str(n): 1 for n in range(101)}}}}, "blueprints.pump.attributes"),
        ({"blueprints": {"valve": {"history_days": 3}}}, "blueprints"),
    ],
)
async def test_what_is_no_rule_is_told_by_its_field(admin: httpx.AsyncClient, rules: object, field: str) -> None:
    answer = await admin.put("/retention", json=rules)
    assert answer.status_code in (409, 422), answer.text
    assert answer.json()["field"] == field
    assert (await admin.get("/retention")).headers["etag"] == '"0"'


async def test_a_run_is_asked_for_and_its_report_tells_what_is_gone(api: Api, admin: httpx.AsyncClient) -> None:
    device_id = await old_message(api, admin)
    await admin.put("/retention", json={"history_days": 30})
    async with api.database.transaction() as conn:
        await curator_reports.end_schedule(conn)
    curator = Curator(api.database, lambda: api.now_ms, 86_400)
    told = []
    for dry_run in (True, False):
        asked = await admin.post("/curator/runs", json={"dry_run": dry_run})
        assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
        again = await admin.post("/curator/runs", json={"dry_run": dry_run})
        assert again.json()["number"] == asked.json()["number"]
        assert (await admin.get(f"/devices/{device_id}/history")).json()["count"] == 2
        await curator.step(asyncio.Event())
        report = (await admin.get(f"/curator/reports/{asked.json()['number']}")).json()
        assert (report["state"], report["dry_run"], report["rows"], report["problem"]) == ("finished", dry_run, 1, "")
        (line,) = report["lines"]
        told.append({name: line[name] for name in ("rule", "rows_before", "rows", "row_bytes")})
    assert told[0] == told[1]
    assert told[0]["rule"] == "history_days = 30"
    assert (await admin.get(f"/devices/{device_id}/history")).json()["count"] == 1
    assert [one["dry_run"] for one in (await admin.get("/curator/reports")).json()["items"]] == [False, True]


async def test_viewers_look_and_change_nothing_and_strangers_see_nothing(api: Api, admin: httpx.AsyncClient) -> None:
    viewer = await api.user("ann", demo="viewer")
    assert (await viewer.get("/retention")).status_code == 200
    problem(await viewer.put("/retention", json={"history_days": 1}), 403, "forbidden")
    problem(await viewer.post("/curator/runs", json={}), 403, "forbidden")
    number = (await admin.post("/curator/runs", json={})).json()["number"]
    problem(await viewer.get(f"/curator/reports/{number}"), 403, "forbidden")
    await created(admin, "/projects", {"id": "other", "name": "Other"})
    stranger = await api.user("bob", other="owner")
    problem(await stranger.get(f"/curator/reports/{number}"), 404, "not-found")
    assert (await stranger.get("/curator/reports")).json()["count"] == 0


async def curate(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [str(COMMAND), "curate", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "TIDEGATE_CLOUD_DATABASE__URL": database_url},
    )


async def test_the_command_tells_and_does_it(api: Api, admin: httpx.AsyncClient, database_url: str) -> None:
    device_id = await old_message(api, admin)
    await admin.put("/retention", json={"history_days": 1})
    done = await curate(database_url, "--dry-run")
    assert done.stderr == ""
    heading, line, *_ = done.stdout.splitlines()
    assert heading.split() == ["project", "table", "rule", "action", "rows", "before", "rows", "after", "bytes"]
    project, table, *rule, action = line.split()[:6]
    assert (project, rule) == ("demo", ["history_days", "=", "1"])
    assert (table == "history_default", action) in ((True, "deleted"), (False, "dropped")), (
        "its week has a table, or not"
    )
    assert (await admin.get(f"/devices/{device_id}/history")).json()["count"] == 2
    (report,) = json.loads((await curate(database_url, "--json", "--project", "demo")).stdout)
    assert sum(one["rows"] for one in report["lines"]) == 2
    assert (await admin.get(f"/devices/{device_id}/history")).json()["count"] == 0
    assert (await curate(database_url)).stdout == "nothing is older than its retention\n"
    refused = await curate(database_url, "--project", "nothere")
    assert (refused.returncode, "there is no project nothere" in refused.stderr) == (1, True)


async def test_the_command_waits_for_nobody_who_is_at_it(api: Api, admin: httpx.AsyncClient, database_url: str) -> None:
    async with api.database.session() as conn:
        await conn.execute("SELECT pg_advisory_lock(hashtext('curator'))")
        refused = await curate(database_url, "--dry-run")
    assert "the curator is at work already" in refused.stderr
