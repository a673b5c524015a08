"""Who may do what: each operation of the API, by its own route table, asked by who may not and by who may."""

from __future__ import annotations

import asyncio
import datetime
import re
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import pytest_asyncio

from cloud.api.app import PREFIX, ROUTERS
from cloud.api.routing import ApiRoute
from cloud.db import audit
from cloud.db.database import Database
from cloud.ingest.fate_watch import FateWatch
from cloud.ingest.routes import Ingest
from cloud.ingest.routes import router as ingest_router
from cloud.model.access import PERMISSIONS, ROLES

if TYPE_CHECKING:
    from cloud.ingest.rest_server import RestServer
    from cloud.registry_feed import RegistryFeed
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

ROUTES = [
    (method, PREFIX + route.path if router is not ingest_router else route.path, route)
    for router in (*ROUTERS, ingest_router)
    for route in router.routes
    if isinstance(route, ApiRoute)
    for method in sorted(route.methods)
]
OF_PROJECTS = [each for each in ROUTES if each[2].needed not in ("anybody", "user")]
NAMES = {
    "project_id": "demo",
    "system_id": "harbour",
    "network_id": "boats",
    "blueprint_id": "pump",
    "gateway_id": "quay-1",
    "device": "boats:serial:bench-01",
    "alias_key": "serial",
    "alias": "bench-01",
    "name": "vera",
    "role_id": "fitter",
    "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "seq": "1",
    "version": "1",
    "group": "boats:serial:bench-02",
    "key": "pump",
    "other": "boats:serial:bench-01",
    "file_id": "1",
    "number": "1",
    "command_id": str(uuid.UUID(int=1)),
    "message_id": str(uuid.UUID(int=1)),
    "key_id": str(uuid.UUID(int=1)),
}
"""What paths name. A new parameter belongs here, with the name of something that is there, if it can be."""
NOT_ALLOWED = (401, 403)
NOT_CONFIGURED = {
    *("history", "message_key", "current_value", "rollup", "rollup_day", "rollup_late", "misfit", "misfit_count"),
    *("inbox", "reject", "dead_letter", "presence", "device_event", "gap", "hop_progress", "clock_anchor", "source"),
    *("blueprint_version", "tombstone", "idempotency", "import_chunk", "import_problem", "curator_report"),
}
"""Data, and what is written beside something that leaves a trail itself."""


def described(case: tuple[str, str, ApiRoute]) -> str:
    return f"{case[0]} {case[1]}"


async def ask(client: httpx.AsyncClient, case: tuple[str, str, ApiRoute], project_id: str = "demo") -> httpx.Response:
    """The operation with an empty body: who is refused is refused before it is looked at."""
    method, path, _ = case
    address = re.sub(r"\{(\w+)(?::path)?\}", lambda name: NAMES[name[1]], path.removeprefix(PREFIX))
    body = None if method in ("GET", "DELETE") else {}
    async with (
        asyncio.timeout(20),
        client.stream(method, address, params={"project_id": project_id}, json=body) as answer,
    ):
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer  # it would never end
        await answer.aread()
        return answer


@pytest_asyncio.fixture
async def peopled(api: Api, admin: httpx.AsyncClient) -> Api:
    """Project demo with a device, a gateway and a user, and project other, whose people see nothing of it."""
    # What takes messages in is not here; who may send them is.
    api.app.state.ingest = Ingest(
        cast("RestServer", None), cast("RegistryFeed", None), FateWatch(api.database), api.context
    )
    api.app.include_router(ingest_router)
    await admin.post("/projects", json={"id": "other", "name": "Another"})
    for path, body in (
        ("/systems", {"id": "yard", "name": "Yard"}),
        ("/gateways", {"id": "quay-1", "name": "Quay 1"}),
        (
            "/devices",
            {
                "system_id": "harbour",
                "blueprint_id": "pump",
                "name": "Bench",
                "aliases": [{"network_id": "boats", "alias_key": "serial", "alias": "bench-01"}],
            },
        ),
    ):
        answer = await admin.post(path, params={"project_id": "demo"}, json=body)
        assert answer.status_code == 201, answer.text
    await api.user("vera", demo="viewer")
    return api


async def key_of(api: Api, admin: httpx.AsyncClient, *permissions: str, **fields: Any) -> httpx.AsyncClient:
    answer = await admin.post(
        "/api-keys",
        params={"project_id": "demo"},
        json={"name": str(uuid.uuid4()), "permissions": permissions, **fields},
    )
    assert answer.status_code == 201, answer.text
    return api.client(answer.json()["key"])


async def test_nobody_gets_in(peopled: Api) -> None:
    nobody = peopled.client()
    for case in ROUTES:
        if case[2].needed != "anybody":
            assert (await ask(nobody, case)).status_code == 401, described(case)


async def test_an_expired_key_does_not_get_in(peopled: Api, admin: httpx.AsyncClient) -> None:
    ends = datetime.datetime.fromtimestamp(peopled.now_ms / 1000 + 60, datetime.UTC).isoformat()
    key = await key_of(peopled, admin, *PERMISSIONS, expires_at=ends)
    assert (await key.get("/devices")).status_code == 200
    peopled.now_ms += 60_000
    for case in ROUTES:
        if case[2].needed != "anybody":
            assert (await ask(key, case)).status_code == 401, described(case)


async def test_to_another_tenants_owner_it_does_not_exist(peopled: Api) -> None:
    stranger = await peopled.user("sam", other="owner")
    for case in OF_PROJECTS:
        answer = await ask(stranger, case)
        assert answer.status_code == 404, f"{described(case)}: {answer.status_code}"


async def test_a_viewer_is_refused_what_viewers_may_not(peopled: Api) -> None:
    viewer = await peopled.user("ulla", demo="viewer")
    for case in OF_PROJECTS:
        answer = await ask(viewer, case)
        if case[2].needed in ROLES["viewer"]:
            assert answer.status_code not in NOT_ALLOWED, described(case)
        else:
            assert answer.status_code == 403, f"{described(case)}: {answer.status_code}"


@pytest.mark.parametrize("permission", PERMISSIONS)
async def test_an_operation_needs_its_permission_and_no_other(
    peopled: Api, admin: httpx.AsyncClient, permission: str
) -> None:
    """Of a device, one has to be able to read, too: else it does not exist."""
    only = await key_of(peopled, admin, "read", permission)
    without = await key_of(peopled, admin, "read", *(one for one in PERMISSIONS if one != permission))
    needing = [case for case in OF_PROJECTS if case[2].needed == permission]
    for case in needing if permission != "read" else ():
        assert (await ask(without, case)).status_code == 403, described(case)
    for case in needing:
        assert (await ask(only, case)).status_code not in NOT_ALLOWED, described(case)


async def test_who_is_limited_to_a_system_sees_no_other(peopled: Api, admin: httpx.AsyncClient) -> None:
    limited = await peopled.limited_user("yuri", "demo", yard="owner")
    for case in OF_PROJECTS:
        answer = await ask(limited, case)
        if "{device}" in case[1] or "{system_id}" in case[1]:
            assert answer.status_code == 404, f"{described(case)}: {answer.status_code}"
        elif not case[2].anywhere:
            assert answer.status_code == 403, f"{described(case)}: {answer.status_code}"
    assert (await limited.get("/devices")).json()["items"] == []
    assert [one["id"] for one in (await limited.get("/systems")).json()["items"]] == ["yard"]
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "Mine"}
    assert (await limited.post("/devices", json=body)).status_code == 403
    made = await limited.post("/devices", json={**body, "system_id": "yard"})
    assert made.status_code == 201, made.text
    moved = await limited.patch(f"/devices/{made.json()['id']}", json={"system_id": "harbour"})
    assert moved.status_code == 403
    assert [one["name"] for one in (await limited.get("/devices")).json()["items"]] == ["Mine"]


async def test_nobody_gives_more_than_they_have(peopled: Api, admin: httpx.AsyncClient) -> None:
    fitter = {"name": "Fitter", "permissions": ["list", "administer"]}
    assert (await admin.put("/roles/fitter?project_id=demo", json=fitter)).status_code == 200
    somebody = await peopled.user("fred", demo="fitter")
    for method, path, body in (
        ("PUT", "/users/vera", {"role": "owner"}),
        ("PUT", "/roles/another", {"name": "Another", "permissions": ["delete"]}),
        ("POST", "/api-keys", {"name": "k", "permissions": ["command"]}),
    ):
        answer = await somebody.request(method, path, json=body)
        assert (answer.status_code, answer.json()["detail"]) == (403, "nobody may give more than they have")
    assert (await somebody.put("/users/vera", json={"role": "fitter"})).status_code == 200
    refused = await somebody.delete("/roles/fitter")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tidegate:problem:in-use")


async def test_a_user_is_made_signs_in_and_goes(peopled: Api, admin: httpx.AsyncClient) -> None:
    made = (
        await admin.post("/users?project_id=demo", json={"name": "otto", "systems": {"harbour": "operator"}})
    ).json()
    signed = (await peopled.client().post("/session", json={"user": "otto", "password": made["password"]})).json()
    otto = peopled.client(signed["token"])
    assert [one["name"] for one in (await otto.get("/devices")).json()["items"]] == ["Bench"]
    body = {"old": made["password"], "new": "a few more words"}
    assert (await otto.post("/session/password", json=body)).status_code == 204
    assert (await otto.get("/devices")).status_code == 401
    again = await peopled.client().post("/session", json={"user": "otto", "password": "a few more words"})
    otto = peopled.client(again.json()["token"])
    assert (await admin.delete("/users/otto?project_id=demo")).status_code == 204
    assert (await otto.get("/devices?project_id=demo")).status_code == 404


async def test_a_refresh_token_holds_once(peopled: Api, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/users?project_id=demo", json={"name": "otto", "role": "viewer"})).json()
    nobody = peopled.client()
    first = (await nobody.post("/session", json={"user": "otto", "password": made["password"]})).json()
    peopled.now_ms += 3600 * 1000
    assert (await peopled.client(first["token"]).get("/devices")).status_code == 401
    following = (await nobody.post("/session/refresh", json={"refresh_token": first["refresh_token"]})).json()
    otto = peopled.client(following["token"])
    assert (await otto.get("/devices")).status_code == 200
    stolen = await nobody.post("/session/refresh", json={"refresh_token": first["refresh_token"]})
    assert stolen.status_code == 401
    assert (await otto.get("/devices")).status_code == 401, "both ends of a token that two have are cut off"


async def test_signing_out_ends_the_session(peopled: Api) -> None:
    somebody = await peopled.user("fred", demo="viewer")
    assert (await somebody.delete("/session")).status_code == 204
    assert (await somebody.get("/devices")).status_code == 401


async def test_the_trail_says_who_changed_what(peopled: Api, admin: httpx.AsyncClient) -> None:
    editor = await peopled.user("edda", demo="editor")
    device = (await editor.get("/devices")).json()["items"][0]["id"]
    await editor.patch(f"/devices/{device}", json={"name": "Pump 7"})
    await editor.post(f"/devices/{device}/credentials")
    await editor.patch("/networks/boats", json={"name": "Ships"})
    trail = (await admin.get("/audit?project_id=demo&actor=user:edda")).json()["items"]
    shown = [(one["action"], one["kind"], one["ref"], one["before"], one["after"]) for one in trail]
    secret = shown[1][4]["secret_sha256"]
    assert shown == [
        ("changed", "network", "boats", {"name": "Boats"}, {"name": "Ships"}),
        ("changed", "device", str(device), {"secret_sha256": []}, {"secret_sha256": secret}),
        ("changed", "device", str(device), {"name": "Bench"}, {"name": "Pump 7"}),
    ]
    assert [len(one) for one in secret] == [8]
    assert (await admin.get("/audit?project_id=other")).json()["count"] == 1, "its creation"


async def test_whatever_is_configured_leaves_a_trail(database: Database) -> None:
    """A table that the API changes is given to the trail by `audited`, with all of its columns, or named above."""
    async with database.connection() as conn:
        tables = await conn.fetch(
            """SELECT c.relname AS name, pg_get_triggerdef(t.oid) AS audited,
                      (SELECT array_agg(attname::text) FROM pg_attribute a
                       WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
               FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'audited'
               WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                     AND has_table_privilege('tidegate_api', c.oid, 'INSERT')"""
        )
    assert {table["name"] for table in tables if table["audited"] is None} == NOT_CONFIGURED
    for table in tables:
        if table["audited"] is not None:
            named = re.fullmatch(r".* UPDATE OF (.*?) ON .*audit_row\('.*?', '.*?', '\{(.*?)\}'\)", table["audited"])
            assert named is not None, table["audited"]
            watched, left_out = named.groups()
            told = {*watched.split(", "), *left_out.split(",")}
            assert set(table["columns"]) - told == set(), table["name"]


async def test_what_no_request_made_is_tidegates(peopled: Api, admin: httpx.AsyncClient) -> None:
    async with peopled.database.transaction() as conn:
        await conn.execute("UPDATE device SET name = 'x'")
        rows = await audit.page(conn, "demo", audit.AuditFilter(kind="device"), limit=1)
    assert (rows[0].actor, rows[0].after) == ("tidegate", '{"name": "x"}')


async def test_a_request_is_done_once_under_its_key(peopled: Api, admin: httpx.AsyncClient) -> None:
    editor = await peopled.user("edda", demo="editor")
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "Once"}
    headers = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(editor.post("/devices", json=body, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    names = [one["name"] for one in (await editor.get("/devices")).json()["items"]]
    assert names.count("Once") == 1
    system = [await editor.post("/systems", json={"id": "dock", "name": "Dock"}, headers=headers) for _ in range(2)]
    assert {answer.status_code for answer in system} == {422}, "the key is another request's"
    headers = {"Idempotency-Key": "l"}
    system = [await editor.post("/systems", json={"id": "dock", "name": "Dock"}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in system] == [201, 201]
    assert system[0].json() == system[1].json()
    assert system[1].headers["Idempotency-Replayed"] == "true"
    refused = [await editor.post("/systems", json={"id": "dock", "name": "Dock"}, headers={"Idempotency-Key": "m"})]
    assert refused[0].status_code == 409, "what is refused is not done"


async def test_an_answer_with_a_secret_is_not_kept(peopled: Api, admin: httpx.AsyncClient) -> None:
    editor = await peopled.user("edda", demo="editor")
    headers = {"Idempotency-Key": "k"}
    first = await editor.post("/devices/boats:serial:bench-01/credentials", headers=headers)
    assert first.status_code == 201
    again = await editor.post("/devices/boats:serial:bench-01/credentials", headers=headers)
    assert (again.status_code, again.json()["type"]) == (409, "urn:tidegate:problem:done-already")
    async with peopled.database.connection() as conn:
        assert await conn.fetchval("SELECT body FROM idempotency") is None


@pytest_asyncio.fixture
async def few(peopled: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody to whom ten requests are left."""
    client = await peopled.user("edda", demo="editor")
    rates = peopled.context.rates
    for _ in range(rates.window - 10):
        rates.take("user:edda")
    yield client


async def test_whoever_asks_too_often_is_told_when_to_ask_again(few: httpx.AsyncClient, peopled: Api) -> None:
    left = [int((await few.get("/devices")).headers["RateLimit"].split("r=")[1].split(";")[0]) for _ in range(10)]
    assert left == list(range(9, -1, -1))
    refused = await few.get("/devices")
    assert refused.status_code == 429
    assert (refused.headers["Retry-After"], refused.json()["limit"]) == ("1", 500)
    peopled.now_s += 1
    assert (await few.get("/devices")).status_code == 200
