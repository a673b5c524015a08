"""*Where is my message?* The truth in each state, over rows that the services themselves have written."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio

from cloud.db import standings
from cloud.db.standings import Told
from cloud.registry_feed import RegistryFeed
from cloud.services import books
from cloud.services.replay import HOP as INBOX
from cloud.services.replay import _number
from cloud.topics import PROCESSOR, TRANSPONDER
from protocols.ids import KeySpace, record_message_id
from protocols.messages import Gap, GapKind
from protocols.shipment import MessageBatch, Run, decode_messages
from sync.link.frames import RefusedSample, Span, Standing
from tests.contract.pipeline import EPOCH, Pipeline

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")


class Asking:
    """A user of project `demo`, its devices, and a gateway that carries them."""

    def __init__(self, api: Api, client: httpx.AsyncClient, pipeline: Pipeline) -> None:
        self.api = api
        self.client = client
        self.pipeline = pipeline

    async def ask(self, **asked: Any) -> list[dict[str, Any]]:
        answer = await self.client.get("/where", params=asked)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def states(self, message: bytes | str) -> list[str]:
        """Of a message by its id, or of a record."""
        wanted = message if isinstance(message, str) else str(uuid.UUID(bytes=message))
        return [place["state"] for place in await self.ask(id=wanted)]

    async def at(self, alias: str, time_ms: int) -> list[str]:
        return [place["state"] for place in await self.ask(device=f"boats:serial:{alias}", time=time_ms)]

    async def add_device(self, alias: str, **fields: Any) -> int:
        aliases = [{"network_id": "boats", "alias": alias}]
        body = {"system_id": "harbour", "blueprint_id": "pump", "name": alias, "aliases": aliases, **fields}
        answer = await self.client.post("/devices", json=body)
        assert answer.status_code == 201, answer.text
        device_id: int = answer.json()["id"]
        return device_id

    async def tell(self, standing: Standing, complete_until: int | None = None) -> None:
        async with self.api.database.transaction() as conn:
            await standings.keep(conn, [Told("demo", "quay-1", standing, complete_until)])


@pytest_asyncio.fixture
async def asking(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Asking]:
    assert (await admin.post("/gateways", json={"id": "quay-1", "name": "Q"})).status_code == 201
    feed = await RegistryFeed.open(api.database)
    made = Asking(api, admin, Pipeline(api, feed, "quay-1"))
    await made.add_device("known")
    yield made
    await feed.close()


def ids(batch: MessageBatch) -> list[bytes]:
    return [batch.ids[16 * i : 16 * i + 16] for i in range(len(batch))]


async def test_on_its_way_through_the_streams(asking: Asking) -> None:
    shipment = await asking.pipeline.accept("known", b'{"n":1}')
    message = record_message_id(EPOCH, 0)
    (place,) = await asking.ask(id=str(uuid.UUID(bytes=message)))
    assert (place["state"], place["facts"]["hop"], place["facts"]["gateway"]) == ("stream", PROCESSOR, "quay-1")
    written = await asking.pipeline.work(shipment)
    assert ids(decode_messages(written[0])) == [message]
    (place,) = await asking.ask(id=f"{EPOCH:016x}/0")
    assert (place["state"], place["facts"]["hop"]) == ("stream", TRANSPONDER)
    await asking.pipeline.write(written)
    (place,) = await asking.ask(id=str(uuid.UUID(bytes=message)))
    assert place["state"] == "stored"
    (row,) = (await asking.client.get("/devices/boats:serial:known/history")).json()["items"]
    shared = ("id", "event_time", "received_time", "late", "clock", "keyed", "time", "time_error_ms", "time_replaced")
    assert {key: place["facts"][key] for key in shared} == {key: row[key] for key in shared}


async def test_unknown_until_its_device_exists(asking: Asking) -> None:
    now = asking.api.now_ms
    await asking.pipeline.take("later", b'{"n":1}', b'{"boot":1,"seq":7}')
    plain, keyed = record_message_id(EPOCH, 0), KeySpace("demo", "boats", "serial", "later").message_id((1, 7))
    for message in (plain, keyed, f"{EPOCH:016x}/1"):
        (place,) = await asking.ask(id=message if isinstance(message, str) else str(uuid.UUID(bytes=message)))
        assert (place["state"], place["facts"]["name"]) == ("inbox", "boats:serial:later")
        assert "POST /api/v1/devices" in place["next"]
    assert await asking.at("later", now) == ["inbox"]
    await asking.add_device("later")
    assert await asking.states(plain) == ["replay"]
    await asking.pipeline.store.run(lambda tx: _number(tx, 10))
    assert await asking.states(keyed) == ["replay"]

    async def leave_the_inbox(tx: Any) -> None:
        rows = await tx.numbered(10)
        await tx.remove([row.seq for _, row in rows])

    await asking.pipeline.store.run(leave_the_inbox)
    assert await asking.states(plain) == ["replay"], "on its way to the writer, and in no table"
    source = await asking.pipeline.source()
    assert (await asking.pipeline.store.run(lambda tx: tx.claim(INBOX, [Run(source, 0, 0, 2)]))).parts == []


async def test_what_does_not_decode(asking: Asking) -> None:
    batch = await asking.pipeline.take("known", b'{"n":1}', b"\xff?")
    (place,) = await asking.ask(id=f"{EPOCH:016x}/1")
    assert (place["state"], place["facts"]["code"]) == ("rejected", "undecodable")
    assert "known" in place["text"]
    assert await asking.at("known", batch.received_time[0] + 1000) == ["rejected"]
    assert await asking.states(f"{EPOCH:016x}/0") == ["stored"]


async def test_repeated_and_stopped_and_nothing(asking: Asking) -> None:
    batch = await asking.pipeline.take("known", b'{"boot":1,"seq":1}', b'{"boot":1,"seq":1}', b"[]")
    (first, _) = ids(batch)
    (place,) = await asking.ask(id=str(uuid.UUID(bytes=first)))
    assert (place["state"], place["facts"]["record"]) == ("stored", f"{EPOCH:016x}/0")
    assert await asking.states(f"{EPOCH:016x}/0") == ["stored"], "found by the record that carried it"
    assert await asking.states(f"{EPOCH:016x}/1") == ["repeated"]
    await asking.add_device("loose", route={"device_data_event": []})
    now = asking.api.now_ms
    await asking.pipeline.take("loose", b'{"n":1}', received_ms=[now])
    places = await asking.ask(id=f"{EPOCH:016x}/3")
    assert [(place["state"], place["certain"]) for place in places] == [("stopped", False)], (
        "or repeated: not told apart"
    )
    assert (await asking.at("loose", now))[0] == "stopped"


async def test_only_stopped_is_certain(asking: Asking) -> None:
    await asking.add_device("loose", route={"device_data_event": []})
    await asking.pipeline.take("loose", b'{"n":1}', b"[]")
    (place,) = await asking.ask(id=f"{EPOCH:016x}/0")
    assert (place["state"], place["certain"]) == ("stopped", True)


async def test_what_a_service_failed_on(asking: Asking) -> None:
    source = await asking.pipeline.source()
    runs = [Run(source, EPOCH, 5, 3)]

    async def bury(tx: Any) -> None:
        for hop in ("receiver", PROCESSOR, TRANSPONDER):
            await tx.settle(await tx.claim(hop, runs))
        await tx.add_dead_letter(project_id="demo", hop=PROCESSOR, topic="t", runs=runs, detail="CRC-32", data=b"?")

    await asking.pipeline.store.run(bury)
    (place,) = await asking.ask(id=f"{EPOCH:016x}/7")
    assert (place["state"], place["facts"]["hop"]) == ("dead", PROCESSOR)
    assert "CRC-32" in place["text"]
    assert await asking.states(f"{EPOCH:016x}/8") == ["unknown"]


async def test_at_the_gateway_and_lost_there(asking: Asking) -> None:
    now = asking.api.now_ms
    spans = (Span(EPOCH, 100, 200), Span(EPOCH, 300, 400))
    sample = RefusedSample(now - 50, "boats", "known", "limit")
    await asking.tell(Standing(now, now - 9000, ((EPOCH, 400),), spans, spans[1:], (("limit", 1),), (sample,)))
    gaps = [
        Gap(EPOCH, 0, 50, GapKind.EVICTED, now - 9000, now - 8000, now),
        Gap(EPOCH, 60, 61, GapKind.DAMAGED, 0, 0, now),
        Gap(EPOCH, 250, 250, GapKind.TAIL, 0, 0, now, 99),
    ]
    source = await asking.pipeline.source()
    expected = {150: "log", 350: "in-flight", 70: "missing", 400: "damaged"}
    for seq, state in expected.items():
        assert await asking.states(f"{EPOCH:016x}/{seq}") == [state if seq != 400 else "unknown"], seq
    await asking.pipeline.store.run(lambda tx: books.keep_gaps(tx, source, gaps))
    for seq, state in (expected | {10: "evicted", 60: "damaged"}).items():
        assert await asking.states(f"{EPOCH:016x}/{seq}") == [state], seq
    assert await asking.at("known", now) == ["refused"]
    assert await asking.at("known", now - 8500) == ["evicted", "log", "unknown"]
    await asking.tell(Standing(now, now, ((EPOCH, 400),), (), (), (), ()), complete_until=now)
    assert await asking.at("known", now - 60_000) == ["unknown"]


async def test_a_device_and_the_time_that_it_gave(asking: Asking) -> None:
    now = asking.api.now_ms
    hours = 3 * 3600 * 1000
    batch = await asking.pipeline.take(
        "known", b'{"n":1,"time":%d}' % (now - hours), b'{"n":2}', received_ms=[now, now + 1]
    )
    times = {"its own": now - hours, "when it was received": now}
    for said, time_ms in times.items():
        (place,) = await asking.ask(device="boats:serial:known", time=time_ms)
        assert (place["state"], place["facts"]["id"]) == ("stored", str(uuid.UUID(bytes=ids(batch)[0]))), said
    near = await asking.ask(device="boats:serial:known", time=now + 300)
    assert [place["facts"]["received_time"] for place in near] == [now + 1]
    assert await asking.at("known", now + 700) == ["unknown"]


async def test_others_messages_are_not_told(asking: Asking) -> None:
    batch = await asking.pipeline.take("known", b'{"n":1}', b'{"boot":1,"seq":1}')
    assert (await asking.client.post("/projects", json={"id": "elsewhere", "name": "E"})).status_code == 201
    other = await asking.api.user("other", elsewhere="viewer")
    for message in ids(batch):
        answer = await other.get("/where", params={"id": str(uuid.UUID(bytes=message))})
        assert [place["state"] for place in answer.json()["items"]] == ["unknown"]
    answer = await other.get("/where", params={"device": "boats:serial:known", "time": batch.received_time[0]})
    assert [place["state"] for place in answer.json()["items"]] == ["unknown"]


async def test_questions_that_are_none(asking: Asking) -> None:
    for asked, field in (
        ({}, "id"),
        ({"id": "5"}, "id"),
        ({"id": "1/1", "time": "5"}, "id"),
        ({"device": "boats:serial:known"}, "time"),
        ({"device": "known", "time": "5"}, "device"),
        ({"device": "boats:serial:known", "time": "noon"}, "time"),
    ):
        answer = await asking.client.get("/where", params=asked)
        assert (answer.status_code, answer.json()["field"]) == (422, field), asked
