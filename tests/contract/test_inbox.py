"""The inbox by unknown name, and the one call that makes the device."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio

from cloud.registry_feed import RegistryFeed
from tests.contract.pipeline import Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    feed = await RegistryFeed.open(api.database)
    found = Pipeline(api, feed)
    yield found
    await feed.close()


async def make(client: httpx.AsyncClient, group: str, status: int = 201, **body: Any) -> Any:
    answer = await client.post(f"/inbox/groups/{group}/device", json={"system_id": "harbour", **body})
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_groups_come_in_pages_with_their_newest_message_and_a_blueprint(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    for n in range(7):
        await pipeline.take(f"new-{n}", b'{"temperature":1}', b'{"temperature":%d}' % n)
    await pipeline.take("odd", b'{"wind":"north"}')
    seen: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await admin.get(f"/inbox/groups?limit=3{cursor}")).json()
        seen += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert [group["alias"] for group in seen] == ["odd", *(f"new-{n}" for n in range(6, -1, -1))]
    assert seen[0]["suggested_blueprint"] is None
    newest = seen[1]
    assert (newest["messages"], newest["suggested_blueprint"], newest["suggested_fitting"]) == (2, "pump", 1)
    assert newest["data"] == {"temperature": 6}
    assert base64.b64decode(newest["payload"]) == b'{"temperature":6}'
    assert newest["last_received"] == newest["first_received"] + 1000
    assert (await admin.get("/inbox/groups?network_id=other")).json()["items"] == []


async def test_one_call_makes_the_device_and_all_that_waited_is_stored(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await pipeline.take("a/b:c", *(b'{"temperature":%d}' % n for n in range(5)))
    made = await make(admin, "boats:serial:a/b:c")
    assert (made["name"], made["blueprint_id"], made["messages"]) == ("a/b:c", "pump", 5)
    await pipeline.replay_inbox()
    history = (await admin.get(f"/devices/{made['id']}/history")).json()["items"]
    assert sorted(item["data"]["temperature"] for item in history) == list(range(5))
    assert (await admin.get("/inbox/groups")).json()["items"] == []
    accounting = (await admin.get("/accounting")).json()
    assert accounting["closed"]
    assert (accounting["total"]["stored"], accounting["total"]["unresolved"]) == (5, 0)
    await make(admin, "boats:serial:a/b:c", 404)


async def test_a_blueprint_is_made_from_the_payload_where_that_is_asked_for(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await pipeline.take("vane", b'{"wind":3.5,"gusty":true,"from":"north"}')
    assert (await make(admin, "boats:serial:vane", 422))["field"] == "blueprint_id"
    assert (await make(admin, "boats:serial:vane", 409, new_blueprint="pump"))["field"] == "id"
    made = await make(admin, "boats:serial:vane", new_blueprint="vane", name="Vane on the roof")
    assert (made["blueprint_id"], made["name"]) == ("vane", "Vane on the roof")
    attributes = (await admin.get("/blueprints/vane")).json()["attributes"]
    assert {name: attribute["type"] for name, attribute in attributes.items()} == {
        "wind": "number",
        "gusty": "boolean",
        "from": "string",
    }


async def test_what_is_wrong_is_named(admin: httpx.AsyncClient, pipeline: Pipeline, api: Api) -> None:
    await pipeline.take("new", b'{"temperature":1}')
    assert (await make(admin, "boats:new", 422))["field"] == "group"
    assert (await make(admin, "boats:serial:new", 422, system_id="nowhere"))["field"] == "system_id"
    assert (await make(admin, "boats:serial:new", 422, blueprint_id="nothing"))["field"] == "blueprint_id"
    both = {"blueprint_id": "pump", "new_blueprint": "other"}
    assert (await make(admin, "boats:serial:new", 422, **both))["field"] == "new_blueprint"
    await make(await api.user("viewer", demo="viewer"), "boats:serial:new", 403)
    assert (await admin.get("/inbox/groups")).json()["count"] == 1
