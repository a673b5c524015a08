"""Configurations pushed to gateways: the API, the database and what goes over their links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio

from cloud.db import configurations as rows
from cloud.services.commands import Commands
from cloud.services.configurations import GatewayConfigurations
from sync.configuration import TOML_BYTES_MAX
from sync.link.frames import Configuration, ConfigurationResult, ListenerChange

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")


DEADLINE_S = 20.0
PATH = "/gateways/quay-1/configuration"
ONE = '[[mqtt]]\nname = "a"\nnetwork = "boats"\n'
TWO = '[[mqtt]]\nname = "b"\nnetwork = "boats"\n'


class Link:
    """A gateway's connection."""

    def __init__(self, feed: GatewayConfigurations, revision: int | None) -> None:
        self.feed = feed
        self.sent: asyncio.Queue[Configuration] = asyncio.Queue()
        self.task = asyncio.create_task(self._read(revision))

    async def _read(self, revision: int | None) -> None:
        async for configuration in self.feed.configurations(revision):
            self.sent.put_nowait(configuration)

    async def next(self) -> Configuration:
        async with asyncio.timeout(DEADLINE_S):
            return await self.sent.get()


@pytest_asyncio.fixture
async def connect(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Any]:
    """Connects gateway `quay-1`, which names the revision."""
    assert (await admin.post("/gateways", json={"id": "quay-1", "name": "Quay 1"})).status_code == 201
    commands, stop, made = Commands(api.database, lambda: api.now_ms), asyncio.Event(), list[Link]()
    running = asyncio.create_task(commands.run(stop))
    with_all = AsyncExitStack()

    def open_link(revision: int | None) -> Link:
        feed = GatewayConfigurations(api.database, "demo", "quay-1")
        with_all.enter_context(commands.heeding("demo", "quay-1", feed.wake))
        made.append(Link(feed, revision))
        return made[-1]

    yield open_link
    await with_all.aclose()
    for link in made:
        link.task.cancel()
    await asyncio.gather(*(link.task for link in made), return_exceptions=True)
    stop.set()
    await running


async def shown(admin: httpx.AsyncClient, state: str) -> dict[str, Any]:
    """Once it is that."""
    async with asyncio.timeout(DEADLINE_S):
        while (seen := (await admin.get(PATH)).json())["state"] != state:
            await asyncio.sleep(0.01)
    return dict(seen)


async def put(admin: httpx.AsyncClient, toml: str) -> int:
    answer = await admin.put(PATH, json={"toml": toml})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["revision"])


async def test_it_waits_for_the_gateway_goes_at_once_and_shows_what_became_of_it(
    api: Api, admin: httpx.AsyncClient, connect: Any
) -> None:
    assert (await admin.get(PATH)).json() == {
        "toml": None, "revision": 0, "put_at": None, "state": None, "message": "", "remedy": "", "told_at": None,
        "listeners": [],
    }  # fmt: skip
    first = await put(admin, ONE)
    assert (await admin.get(PATH)).json()["state"] == "pending"
    link = connect(0)
    assert await link.next() == Configuration(first, ONE)
    await link.feed.became(ConfigurationResult(first, listeners=(ListenerChange("a", "started", ""),)))
    seen = await shown(admin, "applied")
    assert (seen["toml"], seen["listeners"]) == (ONE, [{"name": "a", "what": "started", "reason": ""}])
    assert await put(admin, ONE) == first, "it is in force already"

    second = await put(admin, TWO)
    assert await link.next() == Configuration(second, TWO)
    async with api.database.transaction() as conn:
        await rows.became(conn, "demo", "quay-1", ConfigurationResult(first, "told late, of the one before"))
    assert (await admin.get(PATH)).json()["state"] == "pending"
    await link.feed.became(ConfigurationResult(second, "port 1 is taken", "give it another port"))
    seen = await shown(admin, "refused")
    assert (seen["message"], seen["remedy"]) == ("port 1 is taken", "give it another port")
    third = await put(admin, TWO)
    assert third > second, "what was refused may be tried again"
    assert (await link.next()).revision == third
    await link.feed.became(ConfigurationResult(second))
    await link.feed.became(ConfigurationResult(third))
    await shown(admin, "applied")

    answer = await admin.delete(PATH)
    assert (answer.json()["toml"], answer.json()["state"]) == (None, "pending")
    assert await link.next() == Configuration(answer.json()["revision"], None)


async def test_a_gateway_that_has_it_is_sent_nothing_and_one_that_has_another_is(
    admin: httpx.AsyncClient, connect: Any
) -> None:
    had_one = connect(17)
    assert await had_one.next() == Configuration(0, None), "as of a cloud that was restored, or of another"
    revision = await put(admin, ONE)
    has_it, other = connect(revision), connect(revision + 1)
    assert (await other.next()).revision == revision
    newer = await put(admin, TWO)
    assert (await has_it.next()).revision == newer


async def test_what_a_gateway_says_is_kept_whatever_it_says(admin: httpx.AsyncClient, connect: Any) -> None:
    revision, link = await put(admin, ONE), connect(0)
    change = ListenerChange("a\0b", "not started", "\0" * 100_000)
    await link.feed.became(ConfigurationResult(revision, "x" * 100_000, "\0", (change,)))
    seen = await shown(admin, "refused")
    assert (len(seen["message"]), seen["remedy"], seen["listeners"][0]["name"]) == (400, "\ufffd", "a\ufffdb")


async def test_a_gateway_that_takes_none_is_said_to_be_too_old(admin: httpx.AsyncClient, connect: Any) -> None:
    await put(admin, ONE)
    link = connect(None)
    seen = await shown(admin, "refused")
    assert "version takes no configuration" in seen["message"]
    assert link.sent.empty()


NO_USE = [
    ("[[mqtt]]\nname = \n", "line 2, column 8: not valid TOML"),
    (f"{ONE}[log]\nevict = false\n", "log is for the gateway's own file"),
    ('data_dir = "/tmp"\n', "data_dir is for the gateway's own file"),
    ("# nothing\n", "has no section"),
    ("#" + "ä" * (TOML_BYTES_MAX // 2), "is 65,537 bytes long"),
    ("x = " + "[" * 3000, "nested too deeply"),
]


async def test_what_no_gateway_could_use_is_refused_at_once(admin: httpx.AsyncClient, connect: Any) -> None:
    for toml, detail in NO_USE:
        answer = await admin.put(PATH, json={"toml": toml})
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["field"] == "toml"
        assert detail in problem["detail"]
        assert problem["remedy"]
    assert (await admin.get(PATH)).json()["revision"] == 0


async def test_only_editors_read_it_and_changes_are_not_overwritten_unseen(
    api: Api, admin: httpx.AsyncClient, connect: Any
) -> None:
    viewer = await api.user("viewer", demo="viewer")
    for method in ("GET", "PUT", "DELETE"):
        answer = await viewer.request(method, PATH, json={"toml": ONE} if method == "PUT" else None)
        assert answer.status_code == 403
    assert (await admin.get("/gateways/nobody/configuration")).status_code == 404
    assert (await admin.put("/gateways/nobody/configuration", json={"toml": ONE})).status_code == 404
    etag = (await admin.put(PATH, json={"toml": ONE}, headers={"If-Match": '"0"'})).headers["ETag"]
    assert (await admin.get(PATH)).headers["ETag"] == etag
    assert (await admin.put(PATH, json={"toml": TWO}, headers={"If-Match": '"0"'})).status_code == 412
    assert (await admin.delete(PATH, headers={"If-Match": '"0"'})).status_code == 412
    assert (await admin.delete(PATH, headers={"If-Match": etag})).status_code == 200
