"""Commands in the cloud: the API, the database and what goes to gateways, in as many processes as there are."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from cloud.api.twin import PATCH_BYTES_MAX
from cloud.db import commands as rows
from cloud.db import gateways, presence
from cloud.db.commands import OPEN_MAX, TELL_AGAIN_MS, WORD_MS
from cloud.db.twins import DESIRED_BYTES_MAX
from cloud.model.command import Answer
from cloud.model.presence import Seen
from cloud.model.twin import DEPTH_MAX
from cloud.services.commands import Commands, GatewayCommands
from protocols.messages import Command, CommandState
from sync.link.frames import CommandKept, CommandProgress

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

DEADLINE_S = 20.0


class Cloud:
    """The platform, with a device `bench-01` and two gateways; `at` says where the device was seen."""

    def __init__(self, api: Api, admin: httpx.AsyncClient, device: int) -> None:
        self.api = api
        self.admin = admin
        self.device = device
        self.path = f"/devices/{device}/commands"
        self.processes = [Commands(api.database, lambda: api.now_ms) for _ in range(2)]
        self.ended = asyncio.Event()

    async def seen_at(self, gateway_id: str) -> None:
        """By its gateway's word."""
        async with self.api.database.transaction() as conn:
            await conn.execute(
                """INSERT INTO presence AS p
                   SELECT project_id, 'boats', 'serial', 'bench-01', id, 'mqtt', true, 'connected', $2,
                       gen_random_uuid() FROM source WHERE gateway_id = $1
                   ON CONFLICT (project_id, network_id, alias_key, alias) DO UPDATE SET source_id = excluded.source_id
                """,
                gateway_id,
                self.api.now_ms,
            )
            await rows.move(conn, "demo", self.device, gateway_id)

    async def send(self, name: str = "restart", key: str = "", **body: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.admin.post(self.path, json={"name": name, **body}, headers=headers)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def state(self, command: dict[str, Any]) -> tuple[str, str]:
        shown = (await self.admin.get(f"{self.path}/{command['id']}")).json()
        return shown["state"], shown["reason"]

    async def until(self, command: dict[str, Any], state: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (await self.state(command))[0] != state:
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def cloud(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Cloud]:
    aliases = [{"network_id": "boats", "alias": "bench-01"}]
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "bench", "aliases": aliases}
    device = (await admin.post("/devices", json=body)).json()["id"]
    for gateway_id in ("quay-1", "quay-2"):
        assert (await admin.post("/gateways", json={"id": gateway_id, "name": gateway_id})).status_code == 201
    made = Cloud(api, admin, device)
    stop = asyncio.Event()
    running = [asyncio.create_task(process.run(stop)) for process in made.processes]
    yield made
    stop.set()
    await asyncio.gather(*running)


class Link:
    """A gateway's connection to one of the processes."""

    def __init__(self, feed: GatewayCommands) -> None:
        self.feed = feed
        self.told: asyncio.Queue[Command | CommandKept] = asyncio.Queue()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for told in self.feed.commands():
            self.told.put_nowait(told)

    async def next(self) -> Command | CommandKept:
        async with asyncio.timeout(DEADLINE_S):
            return await self.told.get()

    async def say(self, command_id: str, state: CommandState, text: str = "", at_ms: int = 7) -> None:
        """Returns once the cloud has it."""
        await self.feed.progress(CommandProgress(command_id, state, text, at_ms))
        assert await self.next() == CommandKept(command_id, state)


@pytest_asyncio.fixture
async def links(cloud: Cloud) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        made: list[Link] = []

        async def connect(gateway_id: str = "quay-1", process: int = 0) -> Link:
            feed = await stack.enter_async_context(cloud.processes[process].of_gateway("demo", gateway_id))
            made.append(Link(feed))
            return made[-1]

        yield connect
        for link in made:
            link.task.cancel()
        await asyncio.gather(*(link.task for link in made), return_exceptions=True)


async def test_a_command_goes_to_the_gateway_that_saw_the_device_last(cloud: Cloud, links: Any) -> None:
    one, other = await links("quay-1"), await links("quay-2", 1)
    waiting = await cloud.send(payload={"delay_s": 5})
    assert (waiting["gateway_id"], waiting["state"], waiting["cancellable"]) == (None, "pending", True)
    await cloud.seen_at("quay-2")
    told = await other.next()
    assert (told.id, told.device_id, told.name, told.payload) == (
        waiting["id"], cloud.device, "restart", b'{"delay_s":5}',
    )  # fmt: skip
    assert told.deadline == cloud.api.now_ms + 3_600_000
    second = await cloud.send("blink")
    assert (await other.next()).id == second["id"]
    assert one.told.empty()


async def test_states_are_kept_before_they_are_answered_and_never_go_back(cloud: Cloud, links: Any) -> None:
    await cloud.seen_at("quay-1")
    link = await links()
    made = await cloud.send()
    await link.next()
    for state, text, shown in (
        (CommandState.SENT, "", ("sent", "")),
        (CommandState.EXPIRED, "it was away", ("expired", "it was away")),
        (CommandState.DELIVERED, "", ("delivered", "")),
        (CommandState.SENT, "", ("delivered", "")),
        (CommandState.EXPIRED, "it was away", ("delivered", "")),
    ):
        await link.say(made["id"], state, text)
        assert await cloud.state(made) == shown
    await link.say("no-command", CommandState.SENT)
    await link.say("7cf4a6a4-4f0a-4c57-a2d1-5df0a3c0a9a3", CommandState.DELIVERED)


async def test_a_command_is_told_on_each_connection_until_the_gateway_has_it(cloud: Cloud, links: Any) -> None:
    await cloud.seen_at("quay-1")
    made = await cloud.send()
    first = await links()
    assert (await first.next()).id == made["id"]
    second = await links(process=1)
    assert (await second.next()).id == made["id"]
    cloud.api.now_ms += TELL_AGAIN_MS + 1
    second.feed.wake()
    assert (await second.next()).id == made["id"]
    await second.say(made["id"], CommandState.SENT)
    third = await links()
    other = await cloud.send("blink")
    assert (await third.next()).id == other["id"]
    assert first.told.empty()


async def test_only_the_last_connection_speaks_for_a_gateway(cloud: Cloud, links: Any) -> None:
    """One that hangs half-open in another process is passed by."""
    await cloud.seen_at("quay-1")
    old, new = await links(process=0), await links(process=1)
    made = await cloud.send()
    assert (await new.next()).id == made["id"]
    old.feed.wake()
    later = await cloud.send("blink")
    assert (await new.next()).id == later["id"]
    assert old.told.empty()


async def test_a_device_that_moves_takes_its_commands_with_it(cloud: Cloud, links: Any) -> None:
    await cloud.seen_at("quay-1")
    one, other = await links("quay-1"), await links("quay-2")
    made = await cloud.send()
    await one.next()
    await one.say(made["id"], CommandState.SENT)
    await cloud.seen_at("quay-2")
    assert (await other.next()).id == made["id"]
    assert (await cloud.state(made))[0] == "sent"
    await other.say(made["id"], CommandState.DELIVERED)
    await one.say(made["id"], CommandState.EXPIRED, "the device was away")
    assert await cloud.state(made) == ("delivered", "")


async def test_a_deadline_ends_what_no_gateway_has(cloud: Cloud, links: Any) -> None:
    unseen = await cloud.send(timeout_s=5)
    await cloud.seen_at("quay-2")
    away = await cloud.send(timeout_s=10)
    assert unseen["deadline"] == cloud.api.now_ms + 5_000
    cloud.api.now_ms += 5_001
    await cloud.until(unseen, "expired")
    assert (await cloud.state(away))[0] == "pending"
    cloud.api.now_ms += 5_000
    await cloud.until(away, "expired")
    assert (await cloud.state(away))[1] == "gateway quay-2 was not connected in time"
    late = await links("quay-2")
    fresh = await cloud.send("blink")
    assert (await late.next()).id == fresh["id"]


async def test_what_a_gateway_may_have_waits_for_its_word(cloud: Cloud, links: Any) -> None:
    await cloud.seen_at("quay-1")
    made = await cloud.send(timeout_s=5)
    link = await links()
    await link.next()
    cloud.api.now_ms += 5_001
    await cloud.processes[0].sweep()
    assert (await cloud.state(made))[0] == "pending"
    cloud.api.now_ms += WORD_MS
    await cloud.until(made, "expired")
    assert "no word from gateway quay-1" in (await cloud.state(made))[1]
    await link.say(made["id"], CommandState.DELIVERED)
    assert await cloud.state(made) == ("delivered", "")


async def test_cancelled_is_what_no_gateway_was_told_of(cloud: Cloud, links: Any) -> None:
    made = await cloud.send()
    cancelled = (await cloud.admin.post(f"{cloud.path}/{made['id']}/cancel")).json()
    assert (cancelled["state"], cancelled["reason"]) == ("failed", rows.CANCELLED)
    await cloud.seen_at("quay-1")
    link = await links()
    told = await cloud.send("blink")
    assert (await link.next()).id == told["id"]
    refused = await cloud.admin.post(f"{cloud.path}/{told['id']}/cancel")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tidegate:problem:not-pending")


async def test_an_answer_counts_from_the_device_itself_alone(cloud: Cloud) -> None:
    made = await cloud.send()
    for alias, payload in (("bench-02", b"{}"), ("bench-01", b'{"ok":true}'), ("bench-01", b'{"error":"late"}')):
        said = Answer(made["id"], "boats", "serial", alias, payload, "late" if b"late" in payload else None, 11)
        async with cloud.api.database.transaction() as conn:
            await rows.answer(conn, "demo", [said])
    shown = (await cloud.admin.get(f"{cloud.path}/{made['id']}")).json()
    assert (shown["state"], shown["reason"]) == ("acknowledged", "")
    assert shown["answer"] == {
        "time": 11, "payload": {"ok": True}, "payload_base64": base64.b64encode(b'{"ok":true}').decode(),
    }  # fmt: skip


async def test_one_key_makes_one_command(cloud: Cloud) -> None:
    first = await cloud.send(key="k", payload=1)
    assert await cloud.send(key="k", payload=1) == first
    other = await cloud.admin.post(cloud.path, json={"name": "restart"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["type"]) == (422, "urn:tidegate:problem:key-reused")
    assert (await cloud.admin.get(cloud.path)).json()["count"] == 1


async def test_a_device_has_so_many_open_commands(cloud: Cloud) -> None:
    async with cloud.api.database.transaction() as conn:
        await conn.execute(
            """INSERT INTO command (id, project_id, device_id, name, payload, deadline, created, state_time)
               SELECT gen_random_uuid(), 'demo', $1, 'n', '', $2, 0, 0 FROM generate_series(1, $3)""",
            cloud.device,
            cloud.api.now_ms + 1000,
            OPEN_MAX,
        )
    refused = await cloud.admin.post(cloud.path, json={"name": "restart"})
    assert (refused.status_code, refused.json()["limit"]) == (409, OPEN_MAX)


async def test_lists_by_state(cloud: Cloud) -> None:
    made = [await cloud.send(f"n{n}") for n in range(3)]
    await cloud.admin.post(f"{cloud.path}/{made[1]['id']}/cancel")
    pending = (await cloud.admin.get(f"{cloud.path}?state=pending")).json()["items"]
    assert [item["name"] for item in pending] == ["n2", "n0"]
    page = (await cloud.admin.get(f"{cloud.path}?limit=2")).json()
    rest = (await cloud.admin.get(f"{cloud.path}?limit=2&cursor={page['next']}")).json()
    assert [item["name"] for item in page["items"] + rest["items"]] == ["n2", "n1", "n0"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "down/#"}, "name"),
        ({"name": "/x"}, "name"),
        ({"name": "x", "payload": 1, "payload_base64": "AA=="}, "payload_base64"),
        ({"name": "x", "payload_base64": "?"}, "payload_base64"),
        ({"name": "x", "payload": "a" * 70_000}, "payload"),
        ({"name": "x", "timeout_s": 0}, "timeout_s"),
        ({"name": "x", "timeout_s": 1, "deadline": 2}, "deadline"),
        ({"name": "x", "deadline": 2}, "deadline"),
    ],
)
async def test_what_is_no_command_is_told_by_its_field(cloud: Cloud, body: dict[str, Any], field: str) -> None:
    refused = await cloud.admin.post(cloud.path, json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text


async def test_a_viewer_looks_and_does_not_send(cloud: Cloud) -> None:
    made = await cloud.send()
    viewer = await cloud.api.user("vera", demo="viewer")
    stranger = await cloud.api.user("sam")
    assert (await viewer.get(f"{cloud.path}/{made['id']}")).status_code == 200
    assert (await viewer.post(cloud.path, json={"name": "restart"})).status_code == 403
    assert (await viewer.post(f"{cloud.path}/{made['id']}/cancel")).status_code == 403
    assert (await stranger.get(f"{cloud.path}/{made['id']}")).status_code == 404


async def test_events_and_presence_of_devices(cloud: Cloud, links: Any) -> None:
    """What gateways say of a device, as long as they are there to know."""
    aliases = [{"network_id": "boats", "alias": "bench-02"}]
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "other", "aliases": aliases}
    other = (await cloud.admin.post("/devices", json=body)).json()["id"]
    async with cloud.api.database.transaction() as conn:
        source = await conn.fetchval("SELECT id FROM source WHERE gateway_id = 'quay-1'")

        def seen(alias: str, time: int, *, online: bool, reason: str) -> Seen:
            key = "serial" if alias else ""
            return Seen(source, "boats", key, alias, "mqtt", online, reason, time, bytes(8) + time.to_bytes(8, "big"))

        await presence.note(conn, "demo", [seen("bench-01", 5, online=True, reason="connected")])
        await presence.note(conn, "demo", [seen("bench-02", 6, online=True, reason="connected")])
        await presence.note(conn, "demo", [seen("bench-02", 7, online=False, reason="keep-alive missed")])
        await presence.note(conn, "demo", [seen("stranger", 8, online=True, reason="connected")])
    shown = (await cloud.admin.get(f"/devices/{other}")).json()["presence"]
    assert (shown["online"], shown["reason"], shown["since"], shown["gateway_id"]) == (
        False, "keep-alive missed", 7, "quay-1",
    )  # fmt: skip
    shown = (await cloud.admin.get(f"/devices/{cloud.device}")).json()["presence"]
    assert (shown["online"], shown["reason"]) == (None, "gateway quay-1 is not connected; it said: connected")
    await links("quay-1")
    async with cloud.api.database.transaction() as conn:
        await gateways.seen(conn, "demo", ["quay-1"])
    shown = (await cloud.admin.get(f"/devices/{cloud.device}")).json()["presence"]
    assert (shown["online"], shown["listener"]) == (True, "mqtt")
    page = (await cloud.admin.get("/events?limit=3")).json()
    rest = (await cloud.admin.get(f"/events?limit=3&cursor={page['next']}")).json()
    assert [(item["time"], item["device_id"]) for item in page["items"] + rest["items"]] == [
        (8, None), (7, other), (6, other), (5, cloud.device),
    ]  # fmt: skip
    of_other = (await cloud.admin.get(f"/events?device={other}")).json()["items"]
    assert [item["reason"] for item in of_other] == ["keep-alive missed", "connected"]


async def test_a_twin_is_sent_until_it_is_reported(cloud: Cloud, links: Any) -> None:
    path = f"/devices/{cloud.device}/twin"
    empty = (await cloud.admin.get(path)).json()
    assert (empty["version"], empty["desired"], empty["command"]) == (0, {}, None)
    await cloud.admin.patch(path, json={"setpoint": 20, "mode": {"fan": "low"}})
    twin = (await cloud.admin.patch(path, json={"setpoint": 21.5, "mode": {"lamp": True}})).json()
    desired = {"setpoint": 21.5, "mode": {"fan": "low", "lamp": True}}
    assert (twin["version"], twin["desired"], twin["delta"], twin["command"]["state"]) == (
        2,
        desired,
        desired,
        "pending",
    )
    states = [item["state"] for item in (await cloud.admin.get(cloud.path)).json()["items"]]
    assert states == ["pending", "failed"], "only the newest waits"
    await cloud.seen_at("quay-1")
    link = await links()
    told = await link.next()
    assert (told.name, msgspec.json.decode(told.payload)) == ("twin", {"version": 2, "desired": desired})
    await link.say(told.id, CommandState.DELIVERED)
    async with cloud.api.database.transaction() as conn:
        await conn.executemany(
            """INSERT INTO current_value (project_id, device_id, attribute, value, event_time, received_time, id)
               VALUES ('demo', $1, $2, $3, 1, 1, gen_random_uuid())""",
            [(cloud.device, "setpoint", "21.50"), (cloud.device, "temperature", "70")],
        )
    twin = (await cloud.admin.get(path)).json()
    assert (twin["reported"], twin["delta"]) == ({"setpoint": 21.5, "temperature": 70}, {"mode": desired["mode"]})
    assert twin["command"]["state"] == "delivered"
    settled = (await cloud.admin.patch(path, json={"mode": None})).json()
    assert (settled["version"], settled["delta"], settled["command"]) == (3, {}, None)


async def test_a_twin_is_not_overwritten_unseen(cloud: Cloud) -> None:
    path = f"/devices/{cloud.device}/twin"
    made = await cloud.admin.patch(path, json={"a": 1}, headers={"If-Match": '"0"'})
    assert (made.status_code, made.headers["ETag"]) == (200, '"1"')
    stale = await cloud.admin.patch(path, json={"a": 2}, headers={"If-Match": '"0"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "urn:tidegate:problem:changed")
    assert (await cloud.admin.patch(path, json=[1])).status_code == 422
    deep: Any = 1
    for _ in range(20):
        deep = {"a": deep}
    assert (await cloud.admin.patch(path, json=deep)).json()["limit"] == DEPTH_MAX
    assert (await cloud.admin.patch(path, json={"a": 20_000 * "x"})).json()["limit"] == PATCH_BYTES_MAX
    for name in "bcd":
        last = await cloud.admin.patch(path, json={name: 12_000 * "x"})
    assert (last.status_code, last.json()["limit"]) == (422, DESIRED_BYTES_MAX)
    viewer = await cloud.api.user("vera", demo="viewer")
    assert (await viewer.get(path)).json()["version"] == 3
    assert (await viewer.patch(path, json={})).status_code == 403
