"""The API as its clients meet it: problems, pages, sign-in, tenants, resources."""

from __future__ import annotations

import base64
import datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cloud.db import users
from cloud.db.secrets import sha256_hex
from protocols.limits import BATCH_BYTES_MAX

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
OTHER_KEY = base64.urlsafe_b64encode(bytes(range(1, 33))).decode().rstrip("=")


def device(alias: str, **fields: Any) -> dict[str, Any]:
    aliases = [{"network_id": "boats", "alias": alias}]
    return {"system_id": "harbour", "blueprint_id": "pump", "name": alias, "aliases": aliases, **fields}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer is, which is of that kind."""
    held: dict[str, Any] = answer.json()
    assert (answer.status_code, held["type"]) == (status, f"urn:tidegate:problem:{code}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert held["status"] == status
    assert held["title"]
    assert held["detail"]
    return held


async def created(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    held: dict[str, Any] = answer.json()
    return held


class TestSession:
    async def test_a_wrong_password_and_an_unknown_user_look_the_same(self, api: Api, admin: httpx.AsyncClient) -> None:
        wrong = await api.client().post("/session", json={"user": "admin", "password": "guess"})
        unknown = await api.client().post("/session", json={"user": "nobody", "password": "guess"})
        assert problem(wrong, 401, "unauthorized") == problem(unknown, 401, "unauthorized")
        assert wrong.headers["www-authenticate"].startswith("Bearer")

    async def test_guessing_is_slowed_down_and_others_are_not(self, api: Api) -> None:
        async with api.database.transaction() as conn:
            password = await users.create(conn, "ann")
            await users.create(conn, "bob")
        client = api.client()
        for _ in range(5):
            problem(await client.post("/session", json={"user": "bob", "password": "guess"}), 401, "unauthorized")
        refused = await client.post("/session", json={"user": "bob", "password": "guess"})
        assert "60 s" in problem(refused, 429, "too-many-attempts")["remedy"]
        assert refused.headers["retry-after"] == "60"
        right = {"user": "ann", "password": password}
        assert (await client.post("/session", json=right)).status_code == 200
        api.now_s += 60.0
        problem(await client.post("/session", json={"user": "bob", "password": "guess"}), 401, "unauthorized")

    async def test_a_token_holds_for_an_hour(self, api: Api, admin: httpx.AsyncClient) -> None:
        assert (await admin.get("/session")).json()["user"] == "admin"
        api.now_ms += 3600 * 1000
        assert "expired" in problem(await admin.get("/session"), 401, "unauthorized")["detail"]

    async def test_a_new_password_ends_old_sessions(self, api: Api, admin: httpx.AsyncClient) -> None:
        async with api.database.transaction() as conn:
            password = await users.reset(conn, "admin")
        problem(await admin.get("/projects"), 401, "unauthorized")
        answer = await api.client().post("/session", json={"user": "admin", "password": password})
        assert answer.status_code == 200

    @pytest.mark.parametrize("token", ["", "x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwidmVyIjoxfQ."])
    async def test_without_a_token_of_ours_there_is_nothing(self, api: Api, token: str) -> None:
        for path in ("/projects", "/devices", "/devices/1/current", "/inbox", "/accounting", "/stream"):
            problem(await api.client(token).get(path), 401, "unauthorized")


class TestProblems:
    async def test_every_error_is_a_problem(self, api: Api, admin: httpx.AsyncClient) -> None:
        assert "/docs" in problem(await admin.get("/nowhere"), 404, "not-found")["remedy"]
        refused = await admin.put("/devices")
        problem(refused, 405, "method-not-allowed")
        assert refused.headers["allow"]
        broken = await admin.post("/systems", content=b"{", headers={"content-type": "application/json"})
        assert problem(broken, 422, "invalid")["field"] == "body"
        assert problem(await admin.get("/systems?limit=5000"), 422, "invalid") | {"detail": ""} == {
            "type": "urn:tidegate:problem:invalid",
            "title": "Invalid request",
            "status": 422,
            "detail": "",
            "field": "limit",
            "limit": 1000,
        }
        problem(await admin.get("/devices?search=%00"), 400, "invalid")
        problem(await admin.get("/devices?cursor=@@"), 422, "invalid")

    async def test_several_wrong_fields_are_all_named(self, admin: httpx.AsyncClient) -> None:
        answer = await admin.post("/systems", json={"id": "Not An Id", "nmae": "x"})
        held = problem(answer, 422, "invalid")
        assert {error["field"] for error in held["errors"]} == {"id", "name", "nmae"}

    async def test_a_body_without_end_is_cut(self, api: Api, admin: httpx.AsyncClient) -> None:
        async def endless() -> Any:
            for _ in range(200):
                yield b" " * (BATCH_BYTES_MAX // 100)

        declared = await admin.post("/systems", content=b" " * (BATCH_BYTES_MAX + 1))
        assert problem(declared, 413, "too-large")["limit"] == BATCH_BYTES_MAX
        streamed = await admin.post("/systems", content=endless(), headers={"content-type": "application/json"})
        problem(streamed, 413, "too-large")

    async def test_a_database_that_is_gone_is_a_problem_too(self, api: Api, admin: httpx.AsyncClient) -> None:
        async with api.database.connection() as conn:
            await conn.execute("ALTER TABLE app_user RENAME TO app_user_gone")
        problem(await admin.get("/projects"), 500, "internal")
        async with api.database.connection() as conn:
            await conn.execute("ALTER TABLE app_user_gone RENAME TO app_user")
        await api.database.close()
        answer = await admin.get("/projects")
        assert problem(answer, 503, "unavailable")["remedy"] == "try again"
        assert answer.headers["retry-after"]

    async def test_the_description_is_whole(self, api: Api) -> None:
        description = (await api.client().get("/openapi.json")).json()
        operations = [
            (path, method, operation)
            for path, methods in description["paths"].items()
            for method, operation in methods.items()
        ]
        assert len(operations) > 30
        for path, method, operation in operations:
            assert operation["summary"], (path, method)
            assert "application/problem+json" in operation["responses"]["422"]["content"], (path, method)
        page = await api.client().get(api.url + "/docs")
        assert "http://" not in page.text
        assert "https://" not in page.text


class TestTenancy:
    async def test_a_foreign_project_does_not_exist(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/devices", device("bench-01"))
        await created(admin, "/gateways", {"id": "quay-1", "name": "Quay 1"})
        await created(admin, "/projects", {"id": "other", "name": "Other"})
        stranger = await api.user("eve", other="editor")
        for path in (
            "/projects/demo",
            f"/devices/{held['id']}",
            f"/devices/{held['id']}/current",
            f"/devices/{held['id']}/history",
            f"/devices/{held['id']}/series?path=n&last=1h",
            "/systems/harbour/series?path=n&last=1h&project_id=demo",
            "/series?path=n&last=1h&project_id=demo",
            f"/devices/{held['id']}/points?path=n",
            "/systems/harbour/points?path=n&project_id=demo",
            "/points?path=n&project_id=demo",
            f"/devices/{held['id']}?project_id=other",
            "/devices/boats:serial:bench-01",
            "/devices/boats:serial:bench-01?project_id=demo",
            "/networks/boats",
            "/networks/boats?project_id=demo",
            "/systems?project_id=demo",
            "/devices?project_id=demo",
            "/gateways/quay-1",
            "/blueprints/pump?project_id=demo",
            "/inbox?project_id=demo",
            "/rejects?project_id=demo",
            "/accounting?project_id=demo",
            "/stream?project_id=demo",
            f"/stream?device={held['id']}",
        ):
            problem(await stranger.get(path), 404, "not-found")
        problem(await stranger.delete(f"/devices/{held['id']}"), 404, "not-found")
        problem(await stranger.patch(f"/devices/{held['id']}", json={"name": "mine"}), 404, "not-found")
        problem(await stranger.post("/devices?project_id=demo", json=device("x")), 404, "not-found")
        problem(await stranger.post(f"/devices/{held['id']}/credentials"), 404, "not-found")
        problem(await stranger.post("/gateways/quay-1/enrolment-tokens?project_id=demo"), 404, "not-found")
        assert [project["id"] for project in (await stranger.get("/projects")).json()["items"]] == ["other"]
        assert (await stranger.get("/devices")).json()["items"] == []

    async def test_a_foreign_name_in_a_body_is_dangling(self, api: Api, admin: httpx.AsyncClient) -> None:
        """Systems, blueprints and networks of another project cannot be referred to."""
        await created(admin, "/projects", {"id": "other", "name": "Other"})
        stranger = await api.user("eve", other="editor")
        assert problem(await stranger.post("/devices", json=device("x")), 422, "invalid")["field"] == "aliases"
        answer = await stranger.post("/devices", json=device("x", aliases=[]))
        assert problem(answer, 422, "invalid")["field"] == "system_id"

    async def test_a_viewer_looks_and_does_not_touch(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/devices", device("bench-01"))
        viewer = await api.user("vic", demo="viewer")
        assert (await viewer.get(f"/devices/{held['id']}")).status_code == 200
        problem(await viewer.post("/devices", json=device("x")), 403, "forbidden")
        problem(await viewer.delete(f"/devices/{held['id']}"), 403, "forbidden")
        problem(await viewer.post("/networks/boats/credentials"), 403, "forbidden")
        problem(await viewer.post("/gateways", json={"id": "quay-1", "name": "Quay"}), 403, "forbidden")
        problem(await viewer.post("/projects", json={"id": "mine", "name": "Mine"}), 403, "forbidden")

    async def test_the_project_is_found_or_asked_for(self, api: Api, admin: httpx.AsyncClient) -> None:
        assert (await admin.get("/systems")).json()["count"] == 1
        await created(admin, "/projects", {"id": "other", "name": "Other"})
        held = problem(await admin.get("/systems"), 409, "ambiguous-project")
        assert held["field"] == "project_id"
        assert "demo, other" in held["detail"]
        assert (await admin.get("/systems?project_id=demo")).json()["count"] == 1
        problem(await (await api.user("new")).get("/systems"), 409, "ambiguous-project")


class TestDevices:
    async def test_from_creation_to_deletion(self, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/devices", device("bench-01", credential=True))
        assert held["aliases"] == [{"network_id": "boats", "alias_key": "serial", "alias": "bench-01"}]
        assert held["credential"]["user"] == "bench-01"
        assert len(held["credential"]["password"]) >= 20
        path = "/devices/boats:serial:bench-01"
        read = await admin.get(path)
        assert read.json() == {name: value for name, value in held.items() if name != "credential"} | {
            "complete_until": None,
            "last_received": None,
            "presence": None,
        }
        assert (await admin.get(f"/devices/{held['id']}")).json() == read.json()
        change = {"name": "Bench", "aliases": [{"network_id": "boats", "alias_key": "esn", "alias": "a:b:c"}]}
        changed = await admin.patch(path, json=change, headers={"If-Match": read.headers["etag"]})
        assert (changed.status_code, changed.json()["name"]) == (200, "Bench")
        problem(await admin.get(path), 404, "not-found")
        path = "/devices/boats:esn:a:b:c"
        stale = await admin.patch(path, json={"name": "x"}, headers={"If-Match": read.headers["etag"]})
        problem(stale, 412, "changed")
        assert (await admin.delete(path)).status_code == 204
        problem(await admin.get(f"/devices/{held['id']}"), 404, "not-found")

    async def test_credentials_rotate_with_overlap(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/devices", device("bench-01", credential=True))
        path = f"/devices/{held['id']}"
        passwords = [held["credential"]["password"]]
        passwords += [(await created(admin, f"{path}/credentials", {}))["password"] for _ in range(2)]
        async with api.database.connection() as conn:
            kept = await conn.fetchval("SELECT secret_sha256 FROM device")
        assert kept == [sha256_hex(passwords[2]), sha256_hex(passwords[1])]
        await created(admin, f"{path}/credentials", {"keep_previous": False})
        assert (await admin.get(path)).json()["credentials"] == 1
        assert (await admin.delete(f"{path}/credentials")).status_code == 204
        assert (await admin.get(path)).json()["credentials"] == 0

    async def test_a_name_that_is_no_plain_one_carries_its_key(self, admin: httpx.AsyncClient) -> None:
        aliases = [{"network_id": "boats", "alias_key": "esn", "alias": "55"}]
        held = await created(admin, "/devices", device("x", aliases=aliases, credential=True))
        assert held["credential"]["user"] == "esn:55"
        nameless = await admin.post("/devices", json=device("x", aliases=[], credential=True))
        assert problem(nameless, 422, "invalid")["field"] == "aliases"

    async def test_an_alias_that_is_taken_is_named(self, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/devices", device("bench-01"))
        answer = problem(await admin.post("/devices", json=device("bench-01")), 409, "exists")
        assert answer["field"] == "aliases"
        assert f"boats:serial:bench-01 of device {held['id']}" in answer["detail"]

    async def test_search(self, admin: httpx.AsyncClient) -> None:
        for alias in ("Pump-1", "pump-2", "tank_1", "tank%1"):
            await created(admin, "/devices", device(alias, name=f"The {alias}"))

        async def found(query: str) -> list[str]:
            items = (await admin.get(f"/devices?{query}")).json()["items"]
            return [item["aliases"][0]["alias"] for item in items]

        assert await found("search=PUMP") == ["Pump-1", "pump-2"]
        assert await found("search=the tank_") == ["tank_1"]
        assert await found("search=tank%25") == ["tank%1"]
        assert await found("alias=pump-1") == ["Pump-1"]
        assert await found("network_id=nowhere") == []
        assert len(await found("system_id=harbour&blueprint_id=pump&network_id=boats")) == 4

    async def test_what_is_no_device_is_told_how_to_write_one(self, admin: httpx.AsyncClient) -> None:
        held = problem(await admin.get("/devices/bench-01"), 422, "invalid")
        assert "network:key:alias" in held["remedy"]
        problem(await admin.get("/devices/99999999999999999999999"), 422, "invalid")
        problem(await admin.get("/devices/4711"), 404, "not-found")

    async def test_a_route_leads_to_topics_that_exist(self, admin: httpx.AsyncClient) -> None:
        route = {"device_data_event": ["writer"]}
        assert (await created(admin, "/devices", device("a", route=route)))["route"] == route
        answer = await admin.post("/devices", json=device("b", route={"device_data_event": ["nowhere"]}))
        assert "writer" in problem(answer, 422, "invalid")["remedy"]
        cleared = await admin.patch("/devices/boats:serial:a", json={"route": None})
        assert cleared.json()["route"] is None


class TestLists:
    async def test_pages_neither_repeat_nor_skip_while_rows_come_and_go(self, admin: httpx.AsyncClient) -> None:
        made = [(await created(admin, "/devices", device(f"d{number}")))["id"] for number in range(7)]
        seen: list[int] = []
        cursor = ""
        while True:
            page = (await admin.get(f"/devices?limit=3{cursor}")).json()
            assert page["count"] == len(page["items"])
            seen += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
            await admin.delete(f"/devices/{page['items'][0]['id']}")
            made.append((await created(admin, "/devices", device(f"later-{len(made)}")))["id"])
        assert seen == made

    async def test_each_list_ends_exactly(self, admin: httpx.AsyncClient) -> None:
        for number in range(3):
            await created(admin, "/systems", {"id": f"s{number}", "name": "S"})
        first = (await admin.get("/systems?limit=2")).json()
        second = (await admin.get(f"/systems?limit=2&cursor={first['next']}")).json()
        assert [item["id"] for item in first["items"] + second["items"]] == ["harbour", "s0", "s1", "s2"]
        assert second["next"] is None


class TestNetworksAndBlueprints:
    async def test_a_codec_is_shown_as_it_was_given(self, admin: httpx.AsyncClient) -> None:
        held = (await admin.get("/networks/boats")).json()
        given = {"codec": "json", "alias_path": "", "key_paths": ["boot", "seq"], "time_path": "time", "layout": None}
        assert {name: held["codec"][name] for name in given} == given
        answer = await admin.patch("/networks/boats", json={"codec": {"codec": "morse"}})
        assert "known are" in problem(answer, 422, "invalid")["detail"]
        assert held["device_talk"] is False
        assert (await admin.patch("/networks/boats", json={"device_talk": True})).json()["device_talk"] is True
        changed = await admin.patch("/networks/boats", json={"alias_key": "esn"})
        assert changed.json()["device_talk"] is True
        assert (changed.json()["alias_key"], changed.json()["codec"]) == ("esn", held["codec"])

    async def test_a_codec_that_cannot_work_is_refused_by_its_field(self, admin: httpx.AsyncClient) -> None:
        for codec, field in (
            ({"codec": "layout"}, "codec.layout"),
            ({"codec": "layout", "layout": {"fields": [{"name": "a", "type": "u7"}]}}, "codec.layout.fields[0].type"),
            ({"layout": {"fields": [{"name": "a", "typ": "u8"}]}}, "codec.layout.fields.0.typ"),
            ({"codec": "csv", "delimiter": "ab"}, "codec.delimiter"),
            ({"units": {"a\0": "x"}}, "codec.codec"),
        ):
            answer = await admin.post("/networks", json={"id": "n", "name": "N", "codec": codec})
            assert problem(answer, 422, "invalid")["field"] == field

    async def test_a_payload_is_tried_before_the_codec_is_saved(self, admin: httpx.AsyncClient) -> None:
        fields = [{"name": "t", "type": "i16", "scale": 0.1, "unit": "Cel"}, {"name": "h", "unit": "%RH"}]
        codec = {"codec": "layout", "layout": {"fields": fields}}
        body = {"payload": "hex:00d763", "codec": codec}
        found = (await admin.post("/networks/boats/decode", json=body)).json()
        assert found["error"] is None
        assert [message["data"] for message in found["messages"]] == [{"t": 21.5, "h": 99}]
        assert found["units"] == {"t": "Cel", "h": "%RH"}
        found = (await admin.post("/networks/boats/decode", json={**body, "payload": "base64:ANc="})).json()
        assert found["messages"] == []
        assert (found["error"]["offset"], found["error"]["path"]) == (2, "h")
        assert found["error"]["around"] == {"start": 0, "hex": "00 d7", "text": ".."}
        own = (await admin.post("/networks/boats/decode", json={"payload": '{"boot":1,"seq":2}'})).json()
        assert own["messages"][0]["key"] == [1, 2]
        hinted = (await admin.post("/networks/boats/decode", json={"payload": "a=1", "hint": "key-value"})).json()
        assert hinted["messages"][0]["data"] == {"a": 1}
        for wrong, field in (({"payload": "hex:0"}, "payload"), ({"payload": "", "hint": "morse"}, "hint")):
            answer = await admin.post("/networks/boats/decode", json=wrong)
            assert problem(answer, 422, "invalid")["field"] == field
        assert (await admin.post("/networks/nowhere/decode", json={"payload": ""})).status_code == 404
        saved = await admin.patch("/networks/boats", json={"codec": codec})
        assert saved.json()["units"] == {"t": "Cel", "h": "%RH"}
        assert (await admin.get("/networks/boats")).json()["codec"]["layout"]["fields"][0]["scale"] == 0.1

    async def test_a_network_credential_is_shown_once(self, api: Api, admin: httpx.AsyncClient) -> None:
        first = await created(admin, "/networks/boats/credentials", {})
        second = await created(admin, "/networks/boats/credentials", {})
        assert (first["credentials"], second["credentials"]) == (1, 2)
        assert first["password"] not in (await admin.get("/networks/boats")).text
        assert (await admin.delete("/networks/boats/credentials")).status_code == 204
        assert (await admin.get("/networks/boats")).json()["credentials"] == 0

    async def test_what_is_in_use_stays(self, admin: httpx.AsyncClient) -> None:
        await created(admin, "/devices", device("bench-01"))
        for path in ("/networks/boats", "/blueprints/pump", "/systems/harbour"):
            assert "first" in problem(await admin.delete(path), 409, "in-use")["remedy"]
        await admin.delete("/devices/boats:serial:bench-01")
        for path in ("/networks/boats", "/blueprints/pump", "/systems/harbour"):
            assert (await admin.delete(path)).status_code == 204
            problem(await admin.get(path), 404, "not-found")

    async def test_an_id_is_taken_once(self, admin: httpx.AsyncClient) -> None:
        for path in ("/projects", "/systems?project_id=demo", "/gateways?project_id=demo"):
            body = {"id": "demo", "name": "Demo"}
            await admin.post(path, json=body)
            assert problem(await admin.post(path, json=body), 409, "exists")["field"] == "id"


class TestEnrolment:
    async def test_a_token_enrols_one_key_and_says_so_again(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/gateways", {"id": "quay-1", "name": "Quay 1"})
        gateway = api.client()
        body = {"token": held["enrolment"]["token"], "public_key": KEY}
        first = await created(gateway, "/enrolments", body)
        assert first == {
            "gateway_id": "quay-1",
            "project_id": "demo",
            "link_url": api.url.replace("http", "ws") + "/link/v1",
        }
        plain = base64.b64encode(bytes(range(32))).decode()
        assert await created(gateway, "/enrolments", body | {"public_key": plain}) == first
        other = await gateway.post("/enrolments", json=body | {"public_key": OTHER_KEY})
        problem(other, 403, "enrolment-used")
        assert (await admin.get("/gateways/quay-1")).json()["public_keys"] == [KEY]

    async def test_an_expired_token_enrols_nobody(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/gateways", {"id": "quay-1", "name": "Quay 1", "token_lifetime_s": 60})
        expires = datetime.datetime.fromisoformat(held["enrolment"]["expires_at"])
        created_at = datetime.datetime.fromisoformat(held["created_at"])
        assert expires - created_at == datetime.timedelta(seconds=60)
        async with api.database.connection() as conn:
            await conn.execute("UPDATE enrolment_token SET expires_at = now()")
        body = {"token": held["enrolment"]["token"], "public_key": KEY}
        answer = problem(await api.client().post("/enrolments", json=body), 403, "enrolment-expired")
        assert "new token" in answer["remedy"]
        unknown = await api.client().post("/enrolments", json=body | {"token": "guess"})
        problem(unknown, 403, "enrolment-unknown")
        assert (await admin.get("/gateways/quay-1")).json()["public_keys"] == []

    async def test_a_key_that_is_none_is_refused(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/gateways", {"id": "quay-1", "name": "Quay 1"})
        for key in ("", "no key", KEY[:-2], "é" * 43):
            body = {"token": held["enrolment"]["token"], "public_key": key}
            assert problem(await api.client().post("/enrolments", json=body), 422, "invalid")["field"] == "public_key"

    async def test_keys_rotate_with_overlap_and_can_be_revoked(self, api: Api, admin: httpx.AsyncClient) -> None:
        held = await created(admin, "/gateways", {"id": "quay-1", "name": "Quay 1"})
        tokens = [held["enrolment"]["token"]]
        tokens.append((await created(admin, "/gateways/quay-1/enrolment-tokens", {}))["token"])
        for token, key in zip(tokens, (KEY, OTHER_KEY), strict=True):
            await created(api.client(), "/enrolments", {"token": token, "public_key": key})
        assert (await admin.get("/gateways/quay-1")).json()["public_keys"] == [OTHER_KEY, KEY]
        revoked = await admin.delete(f"/gateways/quay-1/keys/{KEY}")
        assert revoked.json()["public_keys"] == [OTHER_KEY]
        again = await api.client().post("/enrolments", json={"token": tokens[0], "public_key": KEY})
        problem(again, 403, "enrolment-used")
