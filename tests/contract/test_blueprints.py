"""Blueprints as people meet them: what is declared, what becomes of messages that do not fit, what is shown of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud.db import blueprint_versions, misfits
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


async def test_what_the_blueprint_does_not_name_is_shown_and_added(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await declare(admin, {"temperature": {"type": "number"}, "meta.serial": {"type": "string"}})
    await created(admin, "/devices", device("bench-02"))
    await pipeline.take(
        "bench-01",
        b'{"temperature":1,"mode":"slow","on":true,"a.b":1,"meta":{"serial":"x","fw":"1.4","x":{"y":1}},"list":[1],'
        b'"place":{"lat":1,"lon":2},"none":null}',
    )
    await pipeline.take("bench-02", b'{"mode":7,"on":false,"meta":5}')
    found = (await admin.get("/blueprints/pump/unmodelled")).json()["items"]
    assert [(item["name"], item["type"], item["devices"]) for item in found] == [
        ("mode", "number", 2),
        ("on", "boolean", 2),
        ("a\\.b", "number", 1),
        ("list", None, 1),
        ("meta.fw", "string", 1),
        ("meta.x", "object", 1),
        ("place", "geoposition", 1),
    ]
    assert found[0]["kinds"] == {"number": 1, "string": 1}
    assert (found[4]["example"], found[6]["example"]) == ("1.4", {"lat": 1, "lon": 2})
    answer = await admin.post("/blueprints/pump/unmodelled", json={"names": ["meta.fw"]})
    assert set(answer.json()["attributes"]) == {"temperature", "meta.serial", "meta.fw"}
    assert answer.headers["etag"] == f'"{answer.json()["revision"]}"'
    for name in ("meta.fw", "nothing", "list"):
        refused = await admin.post("/blueprints/pump/unmodelled", json={"names": [name]})
        assert problem(refused, 422, "invalid")["field"] == "names"
    answer = await admin.post("/blueprints/pump/unmodelled")
    assert answer.json()["attributes"]["a\\.b"]["type"] == "number"
    assert [item["name"] for item in (await admin.get("/blueprints/pump/unmodelled")).json()["items"]] == ["list"]


async def test_parts_of_an_object_that_is_declared_are_named(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, {"meta": {"type": "object"}, "meta.serial": {"type": "string"}})
    await pipeline.take("bench-01", b'{"meta":{"serial":"x","fw":"1.4"}}')
    assert (await admin.get("/blueprints/pump/unmodelled")).json()["items"] == []


async def test_versions_are_kept_and_compared(admin: httpx.AsyncClient) -> None:
    first = (await admin.get("/blueprints/pump")).json()
    assert first["version"] == 1
    await declare(admin, ATTRIBUTES)
    await admin.patch("/blueprints/pump", json={"name": "Bilge pump", "attributes": {"mode": {"type": "number"}}})
    await admin.patch("/blueprints/pump", json={"name": "Bilge pump"})  # no change, no version
    versions = (await admin.get("/blueprints/pump/versions")).json()["items"]
    assert [(one["version"], one["name"]) for one in versions] == [(3, "Bilge pump"), (2, "Pump"), (1, "Pump")]
    assert [one["changed_at"] for one in versions] == sorted((one["changed_at"] for one in versions), reverse=True)
    page = (await admin.get("/blueprints/pump/versions?limit=2")).json()
    rest = (await admin.get(f"/blueprints/pump/versions?limit=2&cursor={page['next']}")).json()
    assert page["items"] + rest["items"] == versions
    one = (await admin.get("/blueprints/pump/versions/1")).json()
    assert one["attributes"] == first["attributes"]
    assert one["changed_at"] == first["created_at"]
    found = (await admin.get("/blueprints/pump/diff")).json()
    assert (found["from_version"], found["to_version"]) == (2, 3)
    assert found["fields"] == {"name": {"before": "Pump", "after": "Bilge pump"}}
    assert set(found["attributes"]["removed"]) == {"temperature", "on", "rssi"}
    assert found["attributes"]["changed"]["mode"] == {
        "type": {"before": "string", "after": "number"},
        "enumeration": {"before": ["slow", "auto"], "after": []},
        "default": {"before": "auto", "after": None},
    }
    found = (await admin.get("/blueprints/pump/diff?from=1&to=2")).json()
    assert set(found["attributes"]["added"]) == {"mode", "on", "rssi"}
    for path in ("/blueprints/pump/versions/9", "/blueprints/pump/diff?from=9", "/blueprints/none/versions"):
        problem(await admin.get(path), 404, "not-found")


async def test_only_the_last_versions_are_kept(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blueprint_versions, "VERSIONS_KEPT", 2)
    for n in range(4):
        await admin.patch("/blueprints/pump", json={"name": f"Pump {n}"})
    versions = (await admin.get("/blueprints/pump/versions")).json()["items"]
    assert [one["version"] for one in versions] == [5, 4, 3]


async def test_a_preview_says_what_a_change_does_and_changes_nothing(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    for alias in ("bench-02", "bench-03", "bench-04"):
        await created(admin, "/devices", device(alias))
    payloads = (b'{"temperature":10,"mode":"1"}', b'{"temperature":20,"mode":"x"}', b'{"temperature":30,"mode":"2"}')
    for alias, payload in zip(("bench-01", "bench-02", "bench-03"), payloads, strict=True):
        await pipeline.take(alias, payload)
    before = (await admin.get("/blueprints/pump")).json()
    wanted = {"attributes": {"temperature": {"type": "number", "unit": "K", "maximum": 20}, "mode": {"type": "number"}}}
    found = (await admin.post("/blueprints/pump/preview", json=wanted)).json()
    assert (found["devices"], found["all_looked_at"]) == (4, True)
    assert found["diff"]["attributes"]["changed"]["temperature"] == {
        "unit": {"before": "°C", "after": "K"},
        "maximum": {"before": None, "after": 20},
    }
    mode, temperature = found["attributes"]
    assert {name: mode[name] for name in ("attribute", "change", "values", "fit", "convert", "misfit")} == {
        "attribute": "mode", "change": "added", "values": 3, "fit": 0, "convert": 2, "misfit": 1,
    }  # fmt: skip
    assert (temperature["fit"], temperature["convert"], temperature["misfit"]) == (2, 0, 1)
    bench_03 = (await admin.get("/devices/boats:serial:bench-03")).json()["id"]
    assert temperature["examples"] == [
        {"device": bench_03, "value": "30", "becomes": None, "reason": "30 is above the maximum 20"}
    ]
    assert mode["examples"][0] == {"device": bench_03, "value": '"2"', "becomes": "2", "reason": None}
    removed = (await admin.post("/blueprints/pump/preview", json={"attributes": {}})).json()["attributes"]
    assert [(one["change"], one["values"]) for one in removed] == [("removed", 3)]
    assert (await admin.get("/blueprints/pump")).json() == before
    refused = await admin.post("/blueprints/pump/preview", json={"attributes": {"x": {"type": "boolean", "unit": "m"}}})
    assert problem(refused, 422, "invalid")["field"] == "attributes.x.unit"


async def test_a_preview_of_many_values_says_that_it_is_not_all(
    admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blueprint_versions, "VALUES_LOOKED_MAX", 1)
    await created(admin, "/devices", device("bench-02"))
    for alias in ("bench-01", "bench-02"):
        await pipeline.take(alias, b'{"temperature":10}')
    found = (await admin.post("/blueprints/pump/preview", json={"attributes": {}})).json()
    assert (found["all_looked_at"], found["attributes"][0]["values"]) == (False, 1)
