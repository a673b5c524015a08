"""Series as clients of the API meet them; what the functions find: test_series.py."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio

from cloud.api.pages import encode_cursor
from cloud.db import gaps, sources
from cloud.registry_feed import RegistryFeed
from protocols.messages import Gap, GapKind
from tests.contract.pipeline import Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

PATH = "/devices/boats:serial:bench-01/series"
MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    """Of a gateway, with devices bench-01 and bench-02, and bench-03 in a system of its own."""
    assert (await admin.post("/gateways", json={"id": "quay-1", "name": "Q"})).status_code == 201
    assert (await admin.post("/systems", json={"id": "yard", "name": "Yard"})).status_code == 201
    for alias, system in (("bench-01", "harbour"), ("bench-02", "harbour"), ("bench-03", "yard")):
        aliases = [{"network_id": "boats", "alias": alias}]
        body = {"system_id": system, "blueprint_id": "pump", "name": alias, "aliases": aliases}
        assert (await admin.post("/devices", json=body)).status_code == 201
    feed = await RegistryFeed.open(api.database)
    yield Pipeline(api, feed, "quay-1")
    await feed.close()


async def found(client: httpx.AsyncClient, at: str, **query: Any) -> list[dict[str, Any]]:
    """All rows, through all pages."""
    rows: list[dict[str, Any]] = []
    while True:
        answer = await client.get(at, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page["count"] == len(page["items"])
        rows += page["items"]
        if page["next"] is None:
            return rows
        query["cursor"] = page["next"]


async def test_buckets_of_a_device(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    now = api.now_ms  # 2026-03-01T08:30:00Z
    times = [now - 70 * MINUTE, now - 20 * MINUTE, now - 10 * MINUTE]
    payloads = (b'{"n":1,"mode":"auto"}', b'{"n":4,"mode":"hand","meta":{"x.y":true}}', b'{"n":6,"mode":"auto"}')
    await pipeline.take("bench-01", *payloads, received_ms=times)
    device_id = (await admin.get("/devices/boats:serial:bench-01")).json()["id"]
    asked = {"path": "n", "bucket": "1h", "last": "3h", "function": ["avg", "max", "last", "states"]}
    rows = await found(admin, PATH, **asked)
    assert [row["avg"] for row in rows] == [1, 5]
    assert rows[1] == {
        "device": device_id,
        "path": "n",
        "start_time": now - 30 * MINUTE,
        "end_time": now + 30 * MINUTE,
        "gap": False,
        "filled": False,
        "avg": 5,
        "max": 6,
        "last": 6,
        "states": {"1": 10 * MINUTE, "4": 10 * MINUTE, "6": 10 * MINUTE},
    }
    assert [row["avg"] for row in await found(admin, PATH, path="n", last="3h")] == [11 / 3]
    assert [row["avg"] for row in await found(admin, PATH, path="n", last="3h", filter="mode=auto")] == [3.5]
    assert [row["avg"] for row in await found(admin, PATH, path="n", last="3h", filter=["n>1", "n<6"])] == [4]
    last = await found(admin, PATH, path=["meta.x\\.y", "mode"], last="3h", function="last")
    assert [(row["path"], row["last"]) for row in last] == [("meta.x\\.y", True), ("mode", "auto")]
    ranged = await found(
        admin,
        PATH,
        path="n",
        bucket="day",
        zone="Europe/Berlin",
        to="2026-03-01T09:15:00+01:00",
        **{"from": "2026-02-01T00:00:00Z"},
    )
    assert [(row["start_time"], row["avg"]) for row in ranged] == [(now - 9 * HOUR - 30 * MINUTE, 2.5)]


def as_cell(value: Any) -> str:
    """What stands in a CSV for what JSON has."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


async def test_pages_and_streams_tell_the_same(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    times = [api.now_ms - 5 * HOUR + HOUR * place for place in range(5)]
    for alias in ("bench-01", "bench-02", "bench-03"):
        payloads = [b'{"n":%d,"note":"a, \\"b\\"\\n\xc3\xa9","o":{"a":1}}' % n for n in range(5)]
        await pipeline.take(alias, *payloads, received_ms=times)
    query = {"path": ["n", "note", "o"], "bucket": "1h", "last": "8h", "function": ["avg", "last"], "fill": "null"}
    for path, series in (("/systems/harbour/series", 6), ("/series", 9)):
        whole = await found(admin, path, **query)
        assert len(whole) == 9 * series
        assert await found(admin, path, limit=7, **query) == whole
        backwards = await found(admin, path, limit=7, order="desc", **query)
        assert sorted(
            backwards, key=lambda row: (row["device"], query["path"].index(row["path"]), row["start_time"])
        ) == (whole)
        assert backwards[0] == whole[8]
        lines = await admin.get(path, params=query, headers={"Accept": "application/x-ndjson"})
        assert lines.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line) for line in lines.text.splitlines()] == whole
        table = await admin.get(path, params=query, headers={"Accept": "text/csv"})
        assert table.headers["content-type"].startswith("text/csv")
        cells = list(csv.DictReader(io.StringIO(table.text, newline="")))
        assert list(cells[0]) == list(whole[0])
        assert [row["avg"] for row in cells] == ["" if row["avg"] is None else str(row["avg"]) for row in whole]
        assert [row["last"] for row in cells] == [as_cell(row["last"]) for row in whole]
    together = await found(admin, "/systems/harbour/series", by="all", path="n", last="8h", function=["sum", "count"])
    assert [(row["device"], row["sum"], row["count"]) for row in together] == [(None, 20, 10)]
    assert (await admin.get("/systems/attic/series", params=query)).status_code == 404


async def test_points_tell_what_each_message_had(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    """Several messages of one time; a message without any of the paths is none."""
    now = api.now_ms
    payloads = [b'{"n":%d}' % n if n % 2 else b'{"n":%d,"o":{"t":"a,\xc3\xa9"}}' % n for n in range(6)]
    for alias in ("bench-01", "bench-02", "bench-03"):
        await pipeline.take(
            alias,
            *payloads,
            b'{"m":1}',
            b'{"n":null}',
            received_ms=[*(now + n // 3 for n in range(6)), now + 9, now + 9],
        )
    devices = [
        (await admin.get(f"/devices/boats:serial:{alias}")).json()["id"]
        for alias in ("bench-01", "bench-02", "bench-03")
    ]
    mine = "/devices/boats:serial:bench-01/points"
    query: dict[str, Any] = {"path": ["n", "o.t"]}
    rows = await found(admin, mine, **query)
    assert [(row["device"], row["event_time"], row["values"]) for row in rows] == [
        (devices[0], now + n // 3, {"n": n} if n % 2 else {"n": n, "o.t": "a,é"}) for n in range(6)
    ]
    message = (await admin.get("/devices/boats:serial:bench-01/history?order=asc&limit=1")).json()["items"][0]
    assert rows[0]["id"] == message["id"]
    assert [row["values"] for row in await found(admin, mine, path="o.t")] == [{"o.t": "a,é"}] * 3
    assert [row["values"]["n"] for row in await found(admin, mine, path="n", filter="n>=4")] == [4, 5]
    ranged = await found(admin, mine, path="n", to=now + 1, **{"from": now})
    assert [row["values"]["n"] for row in ranged] == [0, 1, 2]
    for at, asked in ((mine, devices[:1]), ("/systems/harbour/points", devices[:2]), ("/points", devices)):
        whole = await found(admin, at, **query)
        assert [row["device"] for row in whole] == [device for device in asked for _ in range(6)]
        assert await found(admin, at, limit=4, **query) == whole
        backwards = await found(admin, at, limit=5, order="desc", **query)
        assert [(row["device"], row["values"]["n"]) for row in backwards] == [
            (device, n) for device in asked for n in range(5, -1, -1)
        ]
        lines = await admin.get(at, params=query, headers={"Accept": "application/x-ndjson"})
        assert [json.loads(line) for line in lines.text.splitlines()] == whole
        table = await admin.get(at, params=query, headers={"Accept": "text/csv"})
        cells = list(csv.reader(io.StringIO(table.text, newline="")))
        assert cells[0] == ["device", "event_time", "id", "n", "o.t"]
        assert cells[1:] == [
            [
                str(row["device"]),
                str(row["event_time"]),
                row["id"],
                str(row["values"]["n"]),
                row["values"].get("o.t", ""),
            ]
            for row in whole
        ]


async def test_a_cursor_is_checked(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    for key in ([10**30, 0, "5f1c8a52-6f5e-4c8b-9d5e-000000000000"], [1, 10**30, "x"], [1, 2, 3], 5):
        for at in ("/points?path=n", "/series?path=n&last=1h"):
            refused = await admin.get(f"{at}&cursor={encode_cursor(key)}")
            assert refused.status_code in (200, 422), refused.text


async def test_a_bucket_with_lost_records_is_marked(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    """Not of a device that comes by another gateway."""
    assert (await admin.post("/gateways", json={"id": "quay-2", "name": "Q"})).status_code == 201
    now = api.now_ms
    await pipeline.take("bench-01", b'{"n":1}', received_ms=[now - 10 * MINUTE])
    async with api.database.transaction() as conn:
        lost = Gap(99, 0, 5, GapKind.EVICTED, now - 3 * HOUR, now - 2 * HOUR, now, 0)
        tail = Gap(98, 7, 7, GapKind.TAIL, 0, 0, now - 5 * HOUR, 100)
        source = await sources.number(conn, "demo", "gateway", "quay-1")
        await gaps.add(conn, source, [lost, tail])
        elsewhere = await sources.number(conn, "demo", "gateway", "quay-2")
        await gaps.add(conn, elsewhere, [Gap(97, 0, 5, GapKind.DAMAGED, now - HOUR, now - HOUR + 1, now, 0)])
    query = {"path": "n", "bucket": "1h", "from": now - 6 * HOUR, "to": now, "fill": "null"}
    rows = await found(admin, PATH, **query)
    assert [(row["gap"], row["avg"]) for row in rows] == [
        (False, None), (True, None), (False, None), (True, None), (True, None), (False, None), (False, 1),
    ]  # fmt: skip
    marks = [row["gap"] for row in await found(admin, "/series", by="all", **query)]
    assert marks == [False, True, False, True, True, True, False]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "n"}, "from"),
    ({"last": "1h"}, "path"),
    ({"path": "n", "last": "1h", "from": "0"}, "last"),
    ({"path": "n..m", "last": "1h"}, "path"),
    ({"path": ["n"] * 17, "last": "1h"}, "path"),
    ({"path": "n", "last": "1h", "bucket": "fortnight"}, "bucket"),
    ({"path": "n", "last": "30d", "bucket": "1s"}, "bucket"),
    ({"path": ["n", "m", "o"], "last": "9000m", "bucket": "1m"}, "bucket"),
    ({"path": "n", "last": "9000m", "bucket": "1m", "function": "states"}, "bucket"),
    ({"path": "n", "last": "1h", "zone": "Mars/Olympus"}, "zone"),
    ({"path": "n", "last": "1h", "function": "median"}, "function"),
    ({"path": "n", "last": "1h", "filter": "n"}, "filter"),
    ({"path": "n", "last": "1h", "fill": "zero"}, "fill"),
    ({"path": "n", "last": "1h", "hold": "0s"}, "hold"),
    ({"path": "n", "last": "1h", "hold": "367d"}, "hold"),
    ({"path": "n", "from": "9007199254740992"}, "from"),
    ({"path": "n", "from": "0", "to": "9007199254740992"}, "to"),
    ({"path": "n", "from": "5", "to": "5"}, "from"),
    ({"path": "n", "last": "1h", "limit": "10001"}, "limit"),
    ({"path": "n", "last": "1h", "cursor": "x"}, "cursor"),
]


async def test_what_cannot_be_asked_is_told(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    for query, field in WRONG:
        refused = await admin.get(PATH, params=query)
        assert (refused.status_code, refused.json()["field"].split(".")[0]) == (422, field), refused.text


async def test_what_takes_too_long_is_ended_and_told(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    async with api.database.session() as other, other.transaction():
        await other.execute("LOCK TABLE history")
        async with api.context.tenants.of("demo", "").connection() as conn:  # the one that the next request takes
            await conn.execute("SET statement_timeout = 500")
        answer = await admin.get(PATH, params={"path": "n", "last": "1h"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:tidegate:problem:too-slow"), answer.text
    assert "shorter range" in answer.json()["remedy"]


async def test_functions_of_one_device_are_not_for_all_together(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    for function in ("delta", "rate", "twa", "states"):
        refused = await admin.get("/series", params={"path": "n", "last": "1h", "by": "all", "function": function})
        assert (refused.status_code, refused.json()["field"]) == (422, "function")
        assert refused.json()["remedy"]
