"""Unknown devices of a network that wants it come to be by themselves, once each, and no more than it wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud.registry_feed import RegistryFeed
from cloud.services.auto_create import DEVICES_MAX, AutoCreation
from tests.contract.pipeline import Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

PATH = "/networks/boats/auto-create"
WANTED = {"system_id": "harbour", "blueprint_id": "pump", "name": "Pump {alias} of {network}"}


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    feed = await RegistryFeed.open(api.database)
    yield Pipeline(api, feed)
    await feed.close()


async def put(client: httpx.AsyncClient, status: int = 200, **changes: Any) -> Any:
    answer = await client.put(PATH, json={**WANTED, **changes})
    assert answer.status_code == status, answer.text
    return answer.json()


async def names(client: httpx.AsyncClient) -> list[str]:
    items = (await client.get("/devices?limit=1000")).json()["items"]
    return sorted(item["name"] for item in items)


async def test_who_is_heard_becomes_a_device_once_and_all_messages_are_stored_in_order(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    creating = [AutoCreation(api.database) for _ in range(3)]
    await pipeline.take("early", b'{"temperature":1}', b'{"temperature":2}')
    assert await creating[0].step() == 0, "nobody wants it"
    assert (await put(admin))["devices"] == 0
    await pipeline.take("late", b'{"temperature":3}')
    created = await asyncio.gather(*(each.step() for each in creating))
    assert sum(created) == 2
    assert await names(admin) == ["Pump early of boats", "Pump late of boats"]
    await pipeline.take("early", b'{"temperature":4}')
    await pipeline.replay_inbox()
    history = (await admin.get("/devices/boats:serial:early/history?order=asc")).json()["items"]
    assert [item["data"]["temperature"] for item in history] == [1, 2, 4]
    accounting = (await admin.get("/accounting")).json()
    assert accounting["closed"]
    assert (accounting["total"]["stored"], accounting["total"]["unresolved"]) == (4, 0)
    (entry, *_) = (await admin.get("/audit?kind=device")).json()["items"]
    assert entry["actor"] == "network boats"
    assert (await admin.delete(PATH)).status_code == 204
    await pipeline.take("never", b'{"temperature":5}')
    assert await creating[0].step() == 0


async def test_a_flood_of_names_is_worked_off_in_small_steps_up_to_what_is_wanted(
    admin: httpx.AsyncClient, pipeline: Pipeline, api: Api
) -> None:
    await put(admin, devices_max=DEVICES_MAX + 5)
    for n in range(40):
        await pipeline.take(f"flood-{n:03}", b'{"temperature":1}', b'{"temperature":2}')
    creating = AutoCreation(api.database)
    assert [await creating.step() for _ in range(3)] == [DEVICES_MAX, 5, 0]
    await pipeline.replay_inbox()
    assert (await admin.get("/inbox/groups")).json()["count"] == 40 - DEVICES_MAX - 5
    assert (await put(admin, devices_max=1000))["devices"] == DEVICES_MAX + 5
    assert await creating.step() == 15


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Pump"}, "name"),
        ({"name": "{alias} {serial}"}, "name"),
        ({"system_id": "nowhere"}, "system_id"),
        ({"blueprint_id": "nothing"}, "blueprint_id"),
        ({"devices_max": 0}, "devices_max"),
        ({"devices_max": 1_000_001}, "devices_max"),
    ],
)
async def test_what_is_wrong_is_named(admin: httpx.AsyncClient, changes: dict[str, Any], field: str) -> None:
    assert (await put(admin, 422, **changes))["field"] == field


async def test_what_it_names_cannot_go_and_only_who_may_create_devices_wants_it(
    api: Api, admin: httpx.AsyncClient
) -> None:
    assert (await admin.get(PATH)).status_code == 404
    await put(admin)
    assert (await admin.delete("/systems/harbour")).status_code == 409
    assert (await admin.delete("/blueprints/pump")).status_code == 409
    await put(await api.user("viewer", demo="viewer"), 403)
    assert (await admin.put("/networks/none/auto-create", json=WANTED)).status_code == 404
    assert (await admin.delete("/networks/boats")).status_code == 204
