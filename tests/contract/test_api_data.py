"""What the API shows of messages: current, history, inbox, rejects, accounting, the live stream. The rows are written
by the services themselves."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud.api.stream import EVENTS_MAX
from cloud.registry_feed import RegistryFeed
from protocols.messages import Anchor, Clock, ClockState, Lane
from protocols.shipment import MessageBatch
from tests.contract.pipeline import EPOCH, Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

DEADLINE_S = 10.0


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    """With two devices, bench-01 and bench-02."""
    for alias in ("bench-01", "bench-02"):
        aliases = [{"network_id": "boats", "alias": alias}]
        body = {"system_id": "harbour", "blueprint_id": "pump", "name": alias, "aliases": aliases}
        assert (await admin.post("/devices", json=body)).status_code == 201
    feed = await RegistryFeed.open(api.database)
    yield Pipeline(api, feed)
    await feed.close()


PATH = "/devices/boats:serial:bench-01"


async def test_current_shows_each_attribute_with_its_message(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    start = api.now_ms
    await pipeline.take("bench-01", b'{"temperature":71.5,"note":"a\\u00e9"}', b'{"temperature":72}')
    held = (await admin.get(f"{PATH}/current")).json()
    device_id = (await admin.get(PATH)).json()["id"]
    newest = (await admin.get(f"{PATH}/history?limit=1")).json()["items"][0]
    assert held["device"] == device_id
    assert held["attributes"]["note"]["value"] == "aé"
    assert held["attributes"]["temperature"] == {
        "value": 72,
        "event_time": start + 1000,
        "received_time": start + 1000,
        "id": newest["id"],
    }
    assert (await admin.get("/devices/boats:serial:bench-02/current")).json()["attributes"] == {}


async def test_history_turns_pages_both_ways(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    """Several messages have the same event time."""
    times = [api.now_ms + place // 3 for place in range(10)]
    await pipeline.take("bench-01", *(b'{"n":%d}' % n for n in range(10)), received_ms=times)
    for order, expected in (("asc", list(range(10))), ("desc", list(range(9, -1, -1)))):
        seen: list[int] = []
        cursor = ""
        while True:
            page = (await admin.get(f"{PATH}/history?order={order}&limit=4{cursor}")).json()
            seen += [item["data"]["n"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert seen == expected


async def test_history_takes_ranges_as_people_write_them(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    now = api.now_ms  # 2026-03-01T08:30:00Z
    await pipeline.take(
        "bench-01", b'{"n":0}', b'{"n":1}', b'{"n":2}', received_ms=[now - 3_600_000, now - 60_000, now + 1000]
    )

    async def found(**query: str | int) -> list[int]:
        answer = await admin.get(f"{PATH}/history", params={"order": "asc", **query})
        assert answer.status_code == 200, answer.text
        return [item["data"]["n"] for item in answer.json()["items"]]

    assert await found() == [0, 1, 2]
    assert await found(last="10m") == [1, 2]
    assert await found(last="2h") == [0, 1, 2]
    assert await found(**{"from": now - 60_000, "to": now + 1000}) == [1]
    assert await found(**{"from": "2026-03-01T08:29:00Z"}) == [1, 2]
    assert await found(to="2026-03-01T09:29:00+01:00") == [0]
    unencoded = await admin.get(f"{PATH}/history?to=2026-03-01T09:29:00+01:00")
    assert unencoded.json()["count"] == 1
    for query in ("last=soon", "last=10m&from=0", "from=yesterday", "from=2026-03-01T08:30:00", "from=2&to=1"):
        refused = await admin.get(f"{PATH}/history?{query}")
        assert refused.status_code == 422, query
        assert refused.json()["field"] in ("last", "from")


async def test_history_says_what_was_made_of_a_message(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    await pipeline.take(
        "bench-01",
        b'{"boot":1,"seq":1,"time":%d}' % (api.now_ms - 5000),
        b'{"time":4102444800000}',
        b'{"boot":1,"seq":1,"time":%d}' % (api.now_ms - 5000),
    )
    replaced, keyed = (await admin.get(f"{PATH}/history")).json()["items"]
    assert (keyed["keyed"], keyed["time_replaced"], keyed["event_time"]) == (True, False, api.now_ms - 5000)
    assert (replaced["keyed"], replaced["time_replaced"], replaced["time"]) == (False, True, 4102444800000)
    assert replaced["event_time"] == replaced["received_time"] == api.now_ms + 1000


async def test_a_message_by_its_id(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    await pipeline.take("bench-01", b'{"n":1}', b'{"boot":1,"seq":1,"n":2}')
    device_id = (await admin.get(PATH)).json()["id"]
    rows = (await admin.get(f"{PATH}/history")).json()["items"]
    assert len(rows) == 2
    await admin.post("/projects", json={"id": "other", "name": "Other"})
    for row in rows:
        assert (await admin.get(f"/messages/{row['id']}?project_id=demo")).json() == {"device": device_id, **row}
        foreign = await admin.get(f"/messages/{row['id']}?project_id=other")
        assert (foreign.status_code, foreign.json()["type"]) == (404, "urn:tidegate:problem:not-found")
        assert "/where?id=" in foreign.json()["remedy"]
    assert (await admin.get("/messages/7?project_id=demo")).status_code == 422


async def test_history_says_how_a_message_came_by_its_time(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    """A gateway that started in 1970: before the cloud, nothing of its boot was known; with its anchor, true times."""
    now = api.now_ms
    boot = Clock(7, 0, ClockState.UNSET)
    await pipeline.take("bench-01", b'{"n":1}', received_ms=[now])
    await pipeline.take("bench-01", b'{"n":2}', received_ms=[9000], clock=boot, lane=Lane.BACKFILL)
    anchor = Anchor(7, 20_000, now - 60_000, 40, "cloud")
    source = await pipeline.source()
    await pipeline.store.run(lambda tx: tx.keep_anchors(source, [anchor]))
    await pipeline.take("bench-01", b'{"n":3}', received_ms=[10_000], clock=boot, lane=Lane.BACKFILL)
    rows = {row["data"]["n"]: row for row in (await admin.get(f"{PATH}/history")).json()["items"]}
    shown = {
        n: {key: row[key] for key in ("event_time", "received_time", "clock", "time_error_ms", "late")}
        for n, row in rows.items()
    }
    assert shown == {
        1: {"event_time": now, "received_time": now, "clock": "synchronized", "time_error_ms": None, "late": False},
        2: {"event_time": 9000, "received_time": 9000, "clock": "unsure", "time_error_ms": None, "late": True},
        3: {
            "event_time": now - 70_000,
            "received_time": 10_000,
            "clock": "corrected",
            "time_error_ms": 41,
            "late": True,
        },
    }
    held = (await admin.get(f"{PATH}/current")).json()["attributes"]["n"]
    assert held["value"] == 1, "what is late is never current if older"


async def test_history_as_lines_has_no_pages(
    admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.api.history.STREAM_ROWS", 7)
    for total in (7, 20):  # whole reads, and a rest
        await pipeline.take("bench-01", *(b'{"n":%d}' % n for n in range(total)))
    headers = {"Accept": "application/x-ndjson"}
    answer = await admin.get(f"{PATH}/history?order=asc&limit=3", headers=headers)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["data"]["n"] for line in lines] == [*range(7), *range(20)]
    paged = (await admin.get(f"{PATH}/history?order=asc&limit=1000")).json()["items"]
    assert lines == paged
    assert (await admin.get("/devices/boats:serial:bench-02/history", headers=headers)).text == ""


async def test_what_waits_is_listed_and_grouped(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    start = api.now_ms
    await pipeline.take("nobody", b'{"n":1}', b'{"n":2}', b"not json", b"\xff\x00")
    page = (await admin.get("/inbox?limit=1")).json()
    assert page["count"] == 1
    (message,) = page["items"]
    assert (message["alias"], message["data"], message["payload_text"]) == ("nobody", {"n": 2}, '{"n":2}')
    older = (await admin.get(f"/inbox?limit=1&cursor={page['next']}")).json()
    assert [item["data"]["n"] for item in older["items"]] == [1]
    assert older["next"] is None
    (group,) = (await admin.get("/inbox/groups")).json()["items"]
    assert (group["alias"], group["messages"], group["last_received"]) == ("nobody", 2, start + 1000)
    newest, oldest = (await admin.get("/rejects")).json()["items"]
    assert (oldest["code"], oldest["payload_text"]) == ("undecodable", "not json")
    assert (base64.b64decode(newest["payload"]), newest["payload_text"]) == (b"\xff\x00", None)
    assert newest["record"] == f"{EPOCH:016x}/3"
    (rejected,) = (await admin.get("/rejects/groups")).json()["items"]
    assert (rejected["alias"], rejected["code"], rejected["records"]) == ("nobody", "undecodable", 2)


async def test_what_a_codec_rejected_is_looked_at_and_decoded_again(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await pipeline.take("bench-01", b"t=1", b"t=2", b"?", b'{"t":3}')
    (newest, *_) = (await admin.get("/rejects?network_id=boats&code=undecodable")).json()["items"]
    assert (await admin.get("/rejects?network_id=other")).json()["items"] == []
    tried = (await admin.post(f"/rejects/{newest['seq']}/decode", json={})).json()
    assert tried["error"]["detail"] == newest["detail"]
    mended = {"codec": "key-value"}
    tried = (await admin.post(f"/rejects/{newest['seq'] - 1}/decode", json={"codec": mended})).json()
    assert [message["data"] for message in tried["messages"]] == [{"t": 2}]
    assert (await admin.post("/rejects/999999/decode")).status_code == 404

    changed = (await admin.patch("/networks/boats", json={"codec": mended})).json()
    assert changed["rejected_records"] == 3, "offered, and nothing is done by itself"
    assert (await admin.get("/networks/boats")).json()["rejected_records"] is None
    started = await admin.post("/rejects/replay", json={"network_id": "boats"})
    assert started.status_code == 201
    number = started.json()["number"]
    assert (started.json()["total"], started.json()["decoded"], started.json()["finished"]) == (3, 0, False)
    await pipeline.replay_rejects()
    done = (await admin.get(f"/rejects/replay/{number}")).json()
    assert (done["decoded"], done["failed"], done["finished"]) == (2, 1, True)
    assert [one["number"] for one in (await admin.get("/rejects/replay")).json()["items"]] == [number]
    (left,) = (await admin.get("/rejects")).json()["items"]
    assert (left["payload_text"], left["detail"]) == ("?", "line 1, character 0: name=value is expected")
    account = (await admin.get("/accounting")).json()
    assert account["closed"]
    assert (account["total"]["decoded_records"], account["total"]["rejected_records"]) == (3, 1)
    assert (await admin.post("/rejects/replay", json={"network_id": "none"})).json()["finished"], "nothing to do"


async def test_the_accounting_closes(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await pipeline.take("bench-01", b'{"boot":1,"seq":1}', b'{"boot":1,"seq":1}', b"x", b'[{"n":1},{"n":2}]')
    await pipeline.take("nobody", b"{}")
    held = (await admin.get("/accounting")).json()
    assert held["closed"] is True
    assert held["total"] == {
        "accepted": 5,
        "decoded_records": 4,
        "rejected_records": 1,
        "dead_records": 0,
        "records_in_pipeline": 0,
        "decoded": 5,
        "stored": 3,
        "repeated": 1,
        "unresolved": 1,
        "rejected": 0,
        "stopped": 0,
        "dead": 0,
        "in_pipeline": 0,
        "evicted": 0,
        "damaged": 0,
        "tails": 0,
        "derived": 0,
    }
    by_kind = {source["kind"]: source for source in held["sources"]}
    assert (by_kind["rest"]["accepted"], by_kind["inbox"]["accepted"]) == (5, 0)


async def next_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    """The next event: its type (message, if it names none) and its data."""
    kind = "message"
    while True:
        line = await anext(lines)
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return {"event": kind, **json.loads(line.removeprefix("data: "))}


async def test_the_stream_shows_messages_of_the_devices_asked_for(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    async with asyncio.timeout(DEADLINE_S), admin.stream("GET", "/stream?device=boats:serial:bench-02") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        await api.tide.joined.wait()
        for alias in ("bench-01", "nobody", "bench-02"):
            api.tide.rise(await pipeline.take(alias, b'{"of":"%s"}' % alias.encode()))
        event = await next_event(answer.aiter_lines())
    assert (event["alias"], event["data"]) == ("bench-02", {"of": "bench-02"})
    assert event["id"] == (await admin.get("/devices/boats:serial:bench-02/history")).json()["items"][0]["id"]
    await asyncio.wait_for(api.tide.left.wait(), DEADLINE_S)  # the server has seen that the client is gone


async def test_the_stream_shows_nothing_of_other_projects(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    """The feed's batches may hold messages of several projects."""
    await admin.post("/projects", json={"id": "other", "name": "Other"})
    stranger = await api.user("eve", other="viewer")
    batch = await pipeline.take("bench-01", b'{"secret":1}')
    (target,) = batch.targets
    foreign = MessageBatch(**{name: getattr(batch, name) for name in batch.__struct_fields__})
    foreign.targets[0] = type(target)("other", *(getattr(target, name) for name in target.__struct_fields__[1:]))
    async with asyncio.timeout(DEADLINE_S), stranger.stream("GET", "/stream") as answer:
        await api.tide.joined.wait()
        api.tide.rise(await pipeline.take("bench-01", b'{"secret":2}'))
        api.tide.rise(foreign)
        event = await next_event(answer.aiter_lines())
    assert event["project_id"] == "other"


async def test_a_slow_client_is_told_what_it_missed(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    async with asyncio.timeout(DEADLINE_S), admin.stream("GET", "/stream") as answer:
        await api.tide.joined.wait()
        payloads = [b'{"n":1}'] * (EVENTS_MAX // 2 + 50)
        batches = [await pipeline.take("bench-01", *payloads) for _ in range(2)]
        for batch in batches:  # at once: the client takes nothing in between
            api.tide.rise(batch)
        lines = answer.aiter_lines()
        seen = 0
        while (event := await next_event(lines))["event"] == "message":
            seen += 1
    assert seen + event["missed"] == EVENTS_MAX + 100
    assert event["missed"] > 0
