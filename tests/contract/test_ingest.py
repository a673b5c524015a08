"""HTTP ingest over the API: what clients are told, at once and once all hops are done. The bus is left out: what is
accepted goes through processor and transponder as soon as a test lets it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cloud.ingest import fate_watch
from tests.contract.ingesting import BENCH, EPOCH, Ingesting

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server", "tests.contract.ingest_fixtures")


async def post(client: httpx.AsyncClient, path: str, status: int = 200, **request: Any) -> Any:
    answer = await client.post(path, **request)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_who_waits_is_told_the_fate_of_each_record(admin: httpx.AsyncClient, behind: Ingesting) -> None:
    body = {"id": "still", "name": "Still", "route": {"device_data_event": []}}
    assert (await admin.post("/blueprints", json=body)).status_code == 201
    aliases = [{"network_id": "boats", "alias": "silent"}]
    still = {"system_id": "harbour", "blueprint_id": "still", "name": "Still", "aliases": aliases}
    assert (await admin.post("/devices", json=still)).status_code == 201
    sent = [
        {**BENCH, "data": {"t": 1}},
        {**BENCH, "data": {"t": 2}, "id": "mine"},
        {**BENCH, "data": {"t": 2}, "id": "mine"},
        {**BENCH, "alias": "bench-02", "data": {"t": 3}},
        {**BENCH, "data": 7},
        {**BENCH, "alias": "silent", "data": {"t": 4}},
        {**BENCH, "data": []},
    ]
    results = await post(admin, "/messages?wait=stored", json=sent)
    fates = ["stored", "stored", "repeated", "unresolved", "rejected", "stopped", "rejected"]
    assert [result["fate"] for result in results] == fates
    assert [result["state"] for result in results] == ["accepted"] * 4 + ["rejected", "accepted", "rejected"]
    assert [result["device_known"] for result in results] == [True, True, True, False, True, True, True]
    again = await post(admin, "/messages?wait=stored", json={**BENCH, "data": {"t": 2}, "id": "mine"})
    assert again["fate"] == "repeated"
    history = (await admin.get("/devices/boats:serial:bench-01/history")).json()["items"]
    assert sorted(item["data"]["t"] for item in history) == [1, 2]


async def test_without_a_wish_to_wait_the_answer_has_no_fate(admin: httpx.AsyncClient, behind: Ingesting) -> None:
    result = await post(admin, "/messages", json={**BENCH, "data": {"t": 1}})
    assert result == {"record": f"{EPOCH:016x}/0", "state": "accepted", "device_known": True, "reason": None}


async def test_the_wait_is_bounded_and_says_that_it_goes_on(admin: httpx.AsyncClient, behind: Ingesting) -> None:
    behind.flowing.clear()
    result = await post(admin, "/messages?wait=stored&within_s=0.2", json={**BENCH, "data": {"t": 1}})
    assert result["fate"] == "waiting"
    waiting = asyncio.create_task(post(admin, "/messages?wait=stored", json={**BENCH, "data": {"t": 2}}))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    behind.flowing.set()
    assert (await waiting)["fate"] == "stored"
    problem = await post(admin, "/messages?wait=stored&within_s=31", 422, json={**BENCH, "data": {}})
    assert problem["field"] == "within_s"


async def test_so_many_may_wait_and_no_more_and_nothing_of_those_is_recorded(
    api: Api, admin: httpx.AsyncClient, behind: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fate_watch, "WAITING_RECORDS_MAX", 3)
    behind.flowing.clear()
    two = [{**BENCH, "data": {"t": n}} for n in range(2)]
    waiting = asyncio.create_task(post(admin, "/messages?wait=stored&within_s=30", json=two))
    while api.app.state.ingest.watch.has_room(len(two)):
        await asyncio.sleep(0.01)
    problem = await post(admin, "/messages?wait=stored", 503, json=two)
    assert problem["type"].endswith("too-many-waiting")
    assert (await admin.get("/accounting")).json()["total"]["accepted"] == 2
    behind.flowing.set()
    assert [result["fate"] for result in await waiting] == ["stored", "stored"]
    assert [result["fate"] for result in await post(admin, "/messages?wait=stored", json=two)] == ["stored", "stored"]


async def test_a_payload_goes_as_the_body_whatever_its_codec(admin: httpx.AsyncClient, behind: Ingesting) -> None:
    path = "/ingest/boats/serial/bench-01"
    assert (await post(admin, f"{path}?wait=stored", content=b'{"t":1}'))["fate"] == "stored"
    csv = {"content": b"t,u\n2,5\n3,6\n", "headers": {"Content-Type": "text/csv"}}
    assert (await post(admin, f"{path}?codec=csv&wait=stored", **csv))["fate"] == "stored"
    timed = f"{path}?codec=csv&id=x&time=2026-02-02T02:40:00Z&wait=stored"
    assert [(await post(admin, timed, **csv))["fate"] for _ in range(2)] == ["stored", "repeated"]
    rejected = await post(admin, path, content=b"\xff")
    assert rejected["state"] == "rejected"
    assert "not JSON" in rejected["reason"]
    history = (await admin.get("/devices/boats:serial:bench-01/history")).json()["items"]
    assert sorted(item["data"]["t"] for item in history) == [1, 2, 2, 3, 3]
    odd = await post(admin, "/ingest/boats/key/a%2Fb/c", content=b"{}")
    assert odd["device_known"] is False
    await behind.end()
    assert (await admin.get("/inbox")).json()["items"][0]["alias"] == "a/b/c"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/messages", b"{", "body"),
        ("/messages", b'{"network_id":"boats"}', "body"),
        ("/messages", b'[{"network_id":"boats","alias":"a"}]', "messages[0].data"),
        ("/messages", b'{"network_id":"boats","alias":"a","data":1,"codec":"csv"}', "codec"),
        ("/ingest/boats/serial/a?codec=presence", b"{}", "codec"),
        ("/ingest/BOATS/serial/a", b"{}", "network_id"),
    ],
)
async def test_what_is_wrong_is_named(
    admin: httpx.AsyncClient, behind: Ingesting, path: str, body: bytes, field: str
) -> None:
    assert (await post(admin, path, 422, content=body))["field"] == field


async def test_only_who_may_write_may_send(api: Api, admin: httpx.AsyncClient, behind: Ingesting) -> None:
    message = {**BENCH, "data": {"t": 1}}
    await post(api.client(), "/messages", 401, json=message)
    await post(api.client("forged"), "/messages", 401, json=message)
    await post(await api.user("viewer", demo="viewer"), "/messages", 403, json=message)
    await post(await api.user("stranger"), "/messages?project_id=demo", 404, json=message)
    editor = await api.user("editor", demo="editor")
    await post(editor, "/messages", json=message)
    async with api.database.transaction() as conn:
        await conn.execute("UPDATE app_user SET session_version = 2 WHERE name = 'editor'")
    await post(editor, "/messages", 401, json=message)
