"""Relations between devices: which there may be, and what is forwarded by them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from cloud.db import relations
from cloud.registry_feed import RegistryFeed
from protocols.messages import Lane
from tests.contract.pipeline import Pipeline
from tests.contract.test_api import created, device, problem

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

FORWARD = {"temperature": "warmest", "meta.fw": "firmware"}


@pytest_asyncio.fixture
async def pipeline(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Pipeline]:
    """With the pumps p1 and p2, and the boats b1 and b2, which are groups."""
    for alias in ("p1", "p2"):
        await created(admin, "/devices", device(alias))
    await created(admin, "/blueprints", {"id": "boat", "name": "Boat", "kind": "group"})
    for alias in ("b1", "b2"):
        await created(admin, "/devices", device(alias, blueprint_id="boat"))
    feed = await RegistryFeed.open(api.database)
    yield Pipeline(api, feed)
    await feed.close()


def path(name: str) -> str:
    return f"/devices/boats:serial:{name}"


async def declare(admin: httpx.AsyncClient, cardinality: str, **more: Any) -> None:
    pumps = {"type": "relationship", "blueprint": "pump", "cardinality": cardinality, **more}
    answer = await admin.patch("/blueprints/boat", json={"attributes": {"pumps": pumps, "warmest": {"type": "number"}}})
    assert answer.status_code == 200, answer.text


async def put(admin: httpx.AsyncClient, parent: str, child: str) -> httpx.Response:
    return await admin.put(f"{path(parent)}/relations/pumps/boats:serial:{child}")


async def values(admin: httpx.AsyncClient, name: str) -> dict[str, Any]:
    held = (await admin.get(f"{path(name)}/current")).json()["attributes"]
    return {attribute: one["value"] for attribute, one in held.items()}


async def history(admin: httpx.AsyncClient, name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await admin.get(f"{path(name)}/history")).json()["items"]
    return items


@pytest.mark.parametrize(
    ("attribute", "field"),
    [
        ({"type": "relationship", "cardinality": "1-N"}, "attributes.x.blueprint"),
        ({"type": "relationship", "blueprint": "pump"}, "attributes.x.cardinality"),
        ({"type": "relationship", "blueprint": "pump", "cardinality": "2-2"}, "attributes.x.cardinality"),
        ({"type": "relationship", "blueprint": "nothing", "cardinality": "1-N"}, "attributes.x.blueprint"),
        ({"type": "number", "blueprint": "pump"}, "attributes.x.blueprint"),
        ({"type": "number", "forward": {"a": "b"}}, "attributes.x.forward"),
        (
            {"type": "relationship", "blueprint": "pump", "cardinality": "1-N", "forward": {"a": "c", "b": "c"}},
            "attributes.x.forward",
        ),
        (
            {"type": "relationship", "blueprint": "pump", "cardinality": "1-N", "forward": {"a": "c.d"}},
            "attributes.x.forward",
        ),
        ({"type": "relationship", "blueprint": "pump", "cardinality": "1-N", "default": 1}, "attributes.x.default"),
    ],
)
async def test_a_relationship_that_makes_no_sense_is_refused_by_its_field(
    admin: httpx.AsyncClient, attribute: dict[str, Any], field: str
) -> None:
    answer = await admin.patch("/blueprints/pump", json={"attributes": {"x": attribute}})
    assert problem(answer, 422, "invalid")["field"] == field


@pytest.mark.parametrize(
    ("cardinality", "second_child", "second_parent"),
    [("1-1", False, False), ("1-N", True, False), ("N-1", False, True), ("N-N", True, True)],
)
async def test_a_cardinality_holds(
    admin: httpx.AsyncClient, pipeline: Pipeline, cardinality: str, second_child: bool, second_parent: bool
) -> None:
    await declare(admin, cardinality)
    first = await put(admin, "b1", "p1")
    ids = {name: (await admin.get(path(name))).json()["id"] for name in ("b1", "p1", "p2")}
    assert first.json() == {"key": "pumps", "parent": ids["b1"], "child": ids["p1"], "cardinality": cardinality}
    assert (await put(admin, "b1", "p1")).json() == first.json(), "once more is the same"
    for parent, child, allowed in (("b1", "p2", second_child), ("b2", "p1", second_parent)):
        answer = await put(admin, parent, child)
        if allowed:
            assert answer.status_code == 200, answer.text
        else:
            held = problem(answer, 409, "cardinality")
            assert (held["limit"], cardinality in held["detail"]) == (1, True)
    shown = (await admin.get(f"{path('b1')}/relations")).json()["items"]
    assert [(one["role"], one["key"], one["device"]) for one in shown][:1] == [("child", "pumps", ids["p1"])]
    shown = (await admin.get(f"{path('p1')}/relations?limit=1")).json()
    assert (shown["items"][0]["role"], shown["items"][0]["device"]) == ("parent", ids["b1"])
    assert (shown["next"] is not None) == second_parent
    gone = f"{path('b1')}/relations/pumps/boats:serial:p1"
    assert (await admin.delete(gone)).status_code == 204
    problem(await admin.delete(gone), 404, "not-found")
    assert (await put(admin, "b1", "p2")).status_code == 200


async def test_only_what_is_declared_is_related(
    admin: httpx.AsyncClient, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem(await put(admin, "b1", "p1"), 404, "not-found")
    await declare(admin, "N-N")
    assert problem(await put(admin, "b1", "b2"), 422, "invalid")["field"] == "other"
    problem(await put(admin, "b1", "nobody"), 404, "not-found")
    monkeypatch.setattr(relations, "PARENTS_MAX", 1)
    monkeypatch.setattr(relations, "CHILDREN_MAX", 1)
    assert (await put(admin, "b1", "p1")).status_code == 200
    for parent, child in (("b2", "p1"), ("b1", "p2")):
        assert problem(await put(admin, parent, child), 409, "cardinality")["limit"] == 1


async def test_a_device_of_another_project_is_no_child(api: Api, admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, "N-N")
    await created(admin, "/projects", {"id": "other", "name": "Other"})
    for kind in ("systems", "blueprints"):
        await created(admin, f"/{kind}?project_id=other", {"id": "x", "name": "X"})
    body = {"system_id": "x", "blueprint_id": "x", "name": "X"}
    there = (await created(admin, "/devices?project_id=other", body))["id"]
    problem(await admin.put(f"{path('b1')}/relations/pumps/{there}?project_id=demo"), 404, "not-found")


async def test_what_a_child_says_is_its_parents_too(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, "1-N", forward=FORWARD)
    for child in ("p1", "p2"):
        await put(admin, "b1", child)
    shipment = await pipeline.accept("p1", b'{"temperature":71.5,"meta":{"fw":"1.4"},"other":1}', b'{"other":2}')
    written = await pipeline.work(shipment)
    for _ in range(2):  # redelivered
        await pipeline.write(written)
    await pipeline.take("p2", b'{"temperature":80,"boot":1,"seq":1}')
    await pipeline.take("p2", b'{"temperature":80,"boot":1,"seq":1}')  # the device's own resend
    assert await values(admin, "b1") == {"warmest": 80, "firmware": "1.4"}
    found = await history(admin, "b1")
    assert [one["data"] for one in found] == [{"warmest": 80}, {"warmest": 71.5, "firmware": "1.4"}]
    assert all(one["derived"] and not one["keyed"] for one in found)
    children = [*await history(admin, "p2"), *await history(admin, "p1")]
    assert [one["event_time"] for one in found] == [children[0]["event_time"], children[-1]["event_time"]]
    total = (await admin.get("/accounting")).json()
    assert total["closed"] is True
    assert {name: total["total"][name] for name in ("decoded", "stored", "repeated", "derived")} == {
        "decoded": 4, "stored": 3, "repeated": 1, "derived": 2,
    }  # fmt: skip
    shown = (await admin.get(f"/messages/{found[0]['id']}")).json()
    assert shown["data"] == {"warmest": 80}


async def test_late_data_of_a_child_does_not_replace_what_the_parent_has(
    api: Api, admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    await declare(admin, "1-N", forward=FORWARD)
    await put(admin, "b1", "p1")
    now = api.now_ms
    await pipeline.take("p1", b'{"temperature":2}', received_ms=[now])
    await pipeline.take("p1", b'{"temperature":1}', received_ms=[now - 60_000], lane=Lane.BACKFILL)
    assert await values(admin, "b1") == {"warmest": 2}
    assert [one["late"] for one in await history(admin, "b1")] == [False, True]


async def test_what_the_parent_does_not_take_is_its_misfit(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, "1-N", forward={"label": "warmest"})
    await put(admin, "b1", "p1")
    await pipeline.take("p1", b'{"label":"hot"}')
    assert await values(admin, "p1") == {"label": "hot"}
    assert await values(admin, "b1") == {}
    (misfit,) = (await admin.get(f"{path('b1')}/misfits")).json()["items"]
    assert misfit["reason"] == 'warmest: "hot" is no number'
    assert (await admin.get(f"{path('p1')}/misfits")).json()["items"] == []


async def test_forwarding_goes_one_level_and_ends_with_the_relation(
    admin: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    """Of two devices that are each other's parents, what one says reaches the other, and no more."""
    peers = {
        "type": "relationship",
        "blueprint": "pump",
        "cardinality": "N-N",
        "forward": {"temperature": "temperature"},
    }
    await pipeline.take("p1", b'{"temperature":0}')  # the registry's replica stands before the relations
    await admin.patch("/blueprints/pump", json={"attributes": {"peers": peers}})
    for parent, child in (("p1", "p2"), ("p2", "p1")):
        answer = await admin.put(f"{path(parent)}/relations/peers/boats:serial:{child}")
        assert answer.status_code == 200, answer.text
    refused = await admin.put(f"{path('p1')}/relations/peers/boats:serial:p1")
    assert problem(refused, 422, "invalid")["field"] == "other"
    await pipeline.take("p1", b'{"temperature":1}')
    assert [len(await history(admin, name)) for name in ("p1", "p2")] == [2, 1]
    await admin.delete(f"{path('p2')}/relations/peers/boats:serial:p1")
    await pipeline.take("p1", b'{"temperature":2}')
    assert await values(admin, "p2") == {"temperature": 1}
    assert (await admin.delete(path("p1"))).status_code == 204
    await pipeline.take("p2", b'{"temperature":3}')
    assert await values(admin, "p2") == {"temperature": 3}


async def test_a_relationship_holds_no_value(admin: httpx.AsyncClient, pipeline: Pipeline) -> None:
    await declare(admin, "1-N")
    await pipeline.take("b1", b'{"pumps":[1],"warmest":3}')
    assert await values(admin, "b1") == {"warmest": 3}
    assert (await admin.get("/blueprints/boat")).json()["kind"] == "group"
