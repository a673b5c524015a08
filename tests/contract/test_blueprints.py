"""Blueprints as people meet them: what is declared, what becomes of messages that do not fit, what is shown of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud.db import misfits
from cloud.registry_feed import RegistryFeed
from tests.contract.pipeline import Pipeline
from tests.contract.test_api import created, device, problem

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

PATH = "/devices/boats:serial:bench-01"
ATTRIBUTES = {
    "temperature": {"type": "number", "unit": "°C", "minimum": -40, "maximum": 120},
    "mode": {"type": "string", "enumeration": ["slow", "auto"], "default": "auto"},
    "on": {"type": "boolean"},
    "rssi": {"type": "integer", "history": False},
}


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    """With the device bench-01, a pump."""
    await created(admin, "/devices", device("bench-01"))
    feed = await RegistryFeed.open(api.database)
    yield Pipeline(api, feed)
    await feed.close()


async def declare(admin: httpx.AsyncClient, attributes: dict[str, Any]) -> None:
    answer = await admin.patch("/blueprints/pump", json={"attributes": attributes})
    assert answer.status_code == 200, answer.text


async def values(admin: httpx.AsyncClient) -> dict[str, Any]:
    held = (await admin.get(f"{PATH}/current")).json()["attributes"]
    return {name: one["value"] for name, one in held.items()}


async def history(admin: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The newest first."""
    return [item["data"] for item in (await admin.get(f"{PATH}/history")).json()["items"]]


async def test_an_attribute_is_shown_as_it_was_declared(admin: httpx.AsyncClient) -> None:
    await declare(admin, ATTRIBUTES)
    shown = (await admin.get("/blueprints/pump")).json()["attributes"]
    for name, given in ATTRIBUTES.items():
        assert shown[name] | given == shown[name]
    assert shown["temperature"]["history"] is True


@pytest.mark.parametrize(
    ("attribute", "field"),
    [
        ({"type": "number", "minimum": 3, "maximum": 2}, "attributes.x.minimum"),
        ({"type": "number", "maximum": 2, "default": 3}, "attributes.x.default"),
        ({"type": "boolean", "unit": "°C"}, "attributes.x.unit"),
        ({"type": "number", "enumeration": ["a"]}, "attributes.x.enumeration"),
        ({"type": "colour"}, "attributes.x.type"),
    ],
)
async def test_a_declaration_that_makes_no_sense_is_refused_by_its_field(
    admin: httpx.AsyncClient, attribute: dict[str, Any], field: str
) -> None:
    for answer in (
        await admin.post("/blueprints", json={"id": "b", "name": "B", "attributes": {"x": attribute}}),
        await admin.patch("/blueprints/pump", json={"attributes": {"x": attribute}}),
    ):
        assert problem(answer, 422, "invalid")["field"] == field


async def test_what_does_not_fit_is_left_out_with_its_reason(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, ATTRIBUTES)
    await pipeline.take("bench-01", b'{"temperature":"21.5","on":"true","extra":[1]}')
    await pipeline.take("bench-01", b'{"temperature":900,"mode":"fast","on":false}')
    assert await values(admin) == {"temperature": 21.5, "on": False, "extra": [1]}
    assert await history(admin) == [{"on": False}, {"temperature": 21.5, "on": True, "extra": [1]}]
    found = (await admin.get(f"{PATH}/misfits")).json()
    newest = (await admin.get(f"{PATH}/history?limit=1")).json()["items"][0]
    assert {item["id"] for item in found["items"]} == {newest["id"]}
    assert {item["event_time"] for item in found["items"]} == {newest["event_time"]}
    assert [(item["code"], item["reason"], item["value"]) for item in found["items"]] == [
        ("enumeration", 'mode: "fast" is none of "slow", "auto"', '"fast"'),
        ("range", "temperature: 900 is above the maximum 120", "900"),
    ]
    first = (await admin.get(f"{PATH}/misfits?limit=1")).json()
    rest = (await admin.get(f"{PATH}/misfits?limit=1&cursor={first['next']}")).json()
    assert first["items"] + rest["items"] == found["items"]
    counts = (await admin.get(f"{PATH}/misfits/counts")).json()["items"]
    assert {item["attribute"]: item["count"] for item in counts} == {"mode": 1, "temperature": 1}


async def test_a_message_of_which_nothing_fits_is_stored_all_the_same(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await declare(admin, ATTRIBUTES)
    await pipeline.take("bench-01", b'{"temperature":"hot"}')
    assert await history(admin) == [{}]
    sources = (await admin.get("/accounting")).json()["sources"]
    assert [(source["decoded"], source["stored"]) for source in sources if source["decoded"]] == [(1, 1)]


async def test_history_has_nothing_of_what_it_is_not_to_keep(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, ATTRIBUTES)
    await pipeline.take("bench-01", b'{"temperature":1,"rssi":-70}', b'{"rssi":-71}')
    assert await values(admin) == {"temperature": 1, "rssi": -71}
    assert await history(admin) == [{}, {"temperature": 1}]


async def test_a_default_is_shown_until_the_device_says_otherwise(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, ATTRIBUTES)
    assert (await admin.get(f"{PATH}/current")).json()["defaults"] == {"mode": "auto"}
    await pipeline.take("bench-01", b'{"mode":"slow"}')
    assert (await admin.get(f"{PATH}/current")).json()["defaults"] == {}


async def test_what_is_sent_again_is_counted_once(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, ATTRIBUTES)
    shipment = await pipeline.accept("bench-01", b'{"boot":1,"seq":1,"temperature":900}')
    written = await pipeline.work(shipment)
    for _ in range(2):
        await pipeline.write(written)
    await pipeline.take("bench-01", b'{"boot":1,"seq":1,"temperature":900}')  # the device's own resend
    assert (await admin.get(f"{PATH}/misfits")).json()["count"] == 1
    assert (await admin.get(f"{PATH}/misfits/counts")).json()["items"][0]["count"] == 1


async def test_messages_that_waited_for_their_device_are_looked_at_too(
    api: Api, admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await declare(admin, ATTRIBUTES)
    await pipeline.take("bench-02", b'{"temperature":900,"on":1}')
    await created(admin, "/devices", device("bench-02"))
    await pipeline.replay_inbox()
    answer = await admin.get("/devices/boats:serial:bench-02/misfits")
    assert [item["attribute"] for item in answer.json()["items"]] == ["temperature"]
    held = (await admin.get("/devices/boats:serial:bench-02/current")).json()["attributes"]
    assert held["on"]["value"] is True


async def test_only_the_newest_misfits_are_kept(
    admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misfits, "MISFITS_KEPT", 3)
    await declare(admin, ATTRIBUTES)
    await pipeline.take("bench-01", *(b'{"temperature":%d}' % (900 + n) for n in range(5)))
    found = (await admin.get(f"{PATH}/misfits")).json()["items"]
    assert [item["value"] for item in found] == ["904", "903", "902"]
    assert (await admin.get(f"{PATH}/misfits/counts")).json()["items"][0]["count"] == 5
