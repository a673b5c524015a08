"""Files of past telemetry over the API, and the job that reads them: each line once, wherever it is cut off."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud import imports as files
from cloud.db import imports
from cloud.registry_feed import RegistryFeed
from cloud.services import jobs as jobs_service
from cloud.services.imports import ImportJob
from cloud.services.jobs import Jobs
from cloud.topics import DEFAULT_PROCESSOR
from protocols.messages import Lane
from tests.contract.pipeline import Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

ONE = {"network_id": "boats", "alias": "bench-01"}
START = 1_772_000_000


class Working:
    """A bus whose readers work at once: processor, then transponder."""

    working: set[asyncio.Task[None]] = set()

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def publish(self, topic: str, data: bytes, *, key: object = None, lane: Lane = Lane.LIVE) -> None:
        """Who publishes may be cut off; what has come this far is worked on."""
        assert topic == DEFAULT_PROCESSOR
        task = asyncio.create_task(self._work(data, lane))
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        await asyncio.shield(task)

    async def _work(self, data: bytes, lane: Lane) -> None:
        await self._pipeline.write(await self._pipeline.work(data, lane), lane)


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    feed = await RegistryFeed.open(api.database)
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "Bench", "aliases": [ONE]}
    assert (await admin.post("/devices", json=body)).status_code == 201
    yield Pipeline(api, feed)
    await feed.close()


def working(pipeline: Pipeline, api: Api) -> Jobs:
    kinds: dict[str, jobs_service.JobKind] = {imports.KIND: ImportJob(pipeline.feed, lambda: api.now_ms)}
    return Jobs(kinds, Working(pipeline), pipeline.store)


async def upload(client: httpx.AsyncClient, content: bytes, status: int = 201, name: str = "summer.csv") -> Any:
    answer = await client.post("/imports", content=content, params={"name": name})
    assert answer.status_code == status, answer.text
    return answer.json()


async def post(client: httpx.AsyncClient, path: str, status: int, **body: Any) -> Any:
    answer = await client.post(path, json={**ONE, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


async def temperatures(client: httpx.AsyncClient, device: str = "boats:serial:bench-01") -> list[float]:
    answer = await client.get(f"/devices/{device}/history?order=asc", headers={"Accept": "application/x-ndjson"})
    return [json.loads(line)["data"]["temperature"] for line in answer.text.splitlines()]


async def test_a_file_is_looked_at_and_then_read_once_though_it_is_killed_all_along(
    api: Api, admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 500)
    lines = [f"{START + n},{n}" if n % 10 else f"{START + n},warm" if n % 20 else "," for n in range(400)]
    file = await upload(admin, ("time,temperature\n" + "\n".join(lines)).encode())
    assert (file["lines"], file["format"], file["columns"]) == (401, "csv", ["time", "temperature"])
    look = await post(admin, f"/imports/{file['id']}/preview?limit=3", 200, types={"temperature": "number"})
    assert look["problems"] == 1
    assert (look["lines"][0]["line"], look["lines"][0]["text"]) == (2, ",")
    assert look["lines"][1]["data"] == {"temperature": 1}
    assert (look["lines"][1]["time"], look["lines"][1]["device_known"]) == ((START + 1) * 1000, True)
    assert (await admin.get("/accounting")).json()["total"]["accepted"] == 0, "nothing is recorded by looking"

    job = await post(admin, f"/imports/{file['id']}/run", 201, types={"temperature": "number"})
    assert (job["kind"], job["total"]) == ("import", 401)
    await post(admin, f"/imports/{file['id']}/run", 409)
    cuts = random.Random(4)
    while (await admin.get(f"/jobs/{job['number']}")).json()["state"] != "done":
        worker = asyncio.create_task(working(pipeline, api).run(asyncio.Event()))
        await asyncio.sleep(cuts.uniform(0.01, 0.2))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    await asyncio.gather(*Working.working)
    # What was committed and not published is found by the sweep of the inbox's outputs.
    async with api.database.transaction() as conn:
        left = await conn.fetch("SELECT data FROM unsent ORDER BY number")
    for row in left:
        await Working(pipeline).publish(DEFAULT_PROCESSOR, row["data"], lane=Lane.BACKFILL)
    kept = [n for n in range(400) if n % 10]
    assert await temperatures(admin) == kept
    done = (await admin.get(f"/jobs/{job['number']}")).json()
    assert (done["done"], done["result"]) == (401, {"records": 360, "rejected": 40})
    accounting = (await admin.get("/accounting")).json()
    assert accounting["closed"]
    assert (accounting["total"]["accepted"], accounting["total"]["stored"]) == (360, 360)
    page = (await admin.get(f"/imports/problems/{job['number']}?limit=30")).json()
    rest = (await admin.get(f"/imports/problems/{job['number']}?cursor={page['next']}")).json()
    found = page["items"] + rest["items"]
    assert [problem["line"] for problem in found] == [n + 2 for n in range(400) if n % 10 == 0]
    assert found[1] == {"line": 12, "detail": "temperature is no number: 'warm'", "text": f"{START + 10},warm"}

    again = await post(admin, f"/imports/{file['id']}/run", 201, types={"temperature": "number"})
    while await working(pipeline, api).step():
        pass
    assert (await admin.get(f"/jobs/{again['number']}")).json()["state"] == "done"
    assert await temperatures(admin) == kept, "the same lines are the same messages"
    assert (await admin.get("/accounting")).json()["total"]["repeated"] == 360
    assert (await admin.delete(f"/imports/{file['id']}")).status_code == 204
    assert (await admin.get("/imports")).json()["items"] == []


async def test_a_job_is_cancelled_and_one_whose_file_is_gone_fails(
    api: Api, admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 100)
    content = b"time,temperature\n" + b"".join(b"%d,%d\n" % (START + n, n) for n in range(100))
    file = await upload(admin, content)
    job = await post(admin, f"/imports/{file['id']}/run", 201)
    doing = working(pipeline, api)
    assert await doing.step()
    assert await doing.step()
    assert (await admin.delete(f"/imports/{file['id']}")).status_code == 409
    await admin.post(f"/jobs/{job['number']}/cancel")
    while await doing.step():
        pass
    cancelled = (await admin.get(f"/jobs/{job['number']}")).json()
    assert cancelled["state"] == "cancelled"
    assert len(await temperatures(admin)) == cancelled["result"]["records"] > 0
    job = await post(admin, f"/imports/{file['id']}/run", 201)
    async with api.database.transaction() as conn:
        await conn.execute("DELETE FROM import_file")
    while await doing.step():
        pass
    failed = (await admin.get(f"/jobs/{job['number']}")).json()
    assert (failed["state"], failed["error"]) == ("failed", f"there is no import {file['id']}")


async def test_lines_name_devices_and_unknown_ones_wait_in_the_inbox(
    api: Api, admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    content = b'{"time":%d,"dev":"bench-01","temperature":1}\n{"time":%d,"dev":"new","temperature":2}\n' % (
        START,
        START,
    )
    file = await upload(admin, content + b'{"time":%d,"dev":"x","net":"none"}' % START)
    assert (file["format"], file["lines"]) == ("ndjson", 3)
    mapping = {"format": "ndjson", "alias": "", "alias_column": "dev"}
    look = await post(admin, f"/imports/{file['id']}/preview", 200, **mapping)
    assert [line["device_known"] for line in look["lines"]] == [True, False, False]
    await post(admin, f"/imports/{file['id']}/run", 201, **mapping)
    while await working(pipeline, api).step():
        pass
    assert await temperatures(admin) == [1]
    assert {group["alias"] for group in (await admin.get("/inbox/groups")).json()["items"]} == {"new", "x"}
    job = await post(admin, f"/imports/{file['id']}/run", 201, **mapping, network_id="none")
    while await working(pipeline, api).step():
        pass
    assert (await admin.get(f"/jobs/{job['number']}")).json()["result"] == {"records": 0, "rejected": 3}


async def test_what_is_wrong_is_named(api: Api, admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    assert (await upload(admin, b"", 422))["field"] == "body"
    long = await upload(admin, b"time,t\n1,2\n" + b"x" * 70_000, 422)
    assert (long["field"], long["limit"]) == ("body", 65_536)
    file = await upload(admin, b"time,t\n" + b"1,2\n" * 500_000)
    assert file["lines"] == 500_001, "larger than other requests may be"
    problem = await post(admin, f"/imports/{file['id']}/preview", 422, time_column="at")
    assert problem["field"] == "time_column"
    assert (await post(admin, f"/imports/{file['id']}/run", 422, alias=""))["field"] == "alias"
    assert (await post(admin, "/imports/999999/preview", 404))["title"] == "Not found"
    viewer = await api.user("viewer", demo="viewer")
    await upload(viewer, b"time,t\n", 403)
    await post(viewer, f"/imports/{file['id']}/run", 403)
    stranger = await api.user("stranger")
    assert (await stranger.get(f"/imports/{file['id']}?project_id=demo")).status_code == 404
