"""How gateways stand: kept as they said it last, complete only once it is true here, and shown by API and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest_asyncio
from prometheus_client import CollectorRegistry, generate_latest

from cloud.db import sources, standings
from cloud.db.postgres_store import PostgresStore
from cloud.metrics import PipelineMetrics
from cloud.model.standing import GatewayStanding
from cloud.services import books
from cloud.services.standings import GatewayName, Standings
from cloud.services.store import Transaction
from cloud.topics import PROCESSOR, TRANSPONDER
from protocols.ids import record_message_id
from protocols.messages import Gap, GapKind, Lane
from protocols.shipment import MessageBatch, Run, Target
from sync.bus.jetstream_streams import ChannelStats, TopicStats
from sync.link.frames import RefusedSample, Span, Standing

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.api_server")

EPOCH = 0x5F1C


class Site:
    """A gateway of project `demo`, and what the cloud's hops have of it."""

    def __init__(self, api: Api, source_id: int, gateway_id: str) -> None:
        self.name = GatewayName("demo", gateway_id, source_id)
        self.epoch = EPOCH + source_id
        self.store = PostgresStore(api.database)

    async def accept(self, first: int, end: int) -> None:
        await self.store.run(lambda tx: books.accept(tx, [self._run(first, end)]))

    async def done(self, hop: str, first: int, end: int, **fates: int) -> None:
        async def work(tx: Transaction) -> None:
            claim = await tx.claim(hop, [self._run(first, end)])
            for fate, number in fates.items():
                claim.count(self.name.source_id, self.epoch, fate, number)
            await tx.settle(claim)

        await self.store.run(work)

    async def write(self, device_id: int, first: int, end: int, event_time: int) -> None:
        """Messages of a device, as the transponder writes them."""
        await self.done(PROCESSOR, first, end, decoded_records=end - first, decoded=end - first)
        rows = range(end - first)
        batch = MessageBatch(
            [self._run(first, end)],
            [Target("demo", "boats", "serial", "d", device_id, "pump", "harbour", {}, 1)],
            b"".join(record_message_id(self.epoch, first + row) for row in rows),
            list(rows), [0] * len(rows), [0] * len(rows), [0] * len(rows), [None] * len(rows),
            [event_time] * len(rows), [event_time] * len(rows), [b"{}"] * len(rows), [b""] * len(rows), [],
        )  # fmt: skip
        await self.store.run(lambda tx: tx.store(batch, rows))
        await self.done(TRANSPONDER, first, end, stored=end - first)

    def _run(self, first: int, end: int) -> Run:
        return Run(self.name.source_id, self.epoch, first, end - first)


def standing(at_ms: int, complete_ms: int, *pending: Span, refused: int = 0) -> Standing:
    sample = RefusedSample(at_ms, "boats", "d", "limit")
    return Standing(at_ms, complete_ms, ((EPOCH, 500),), pending, pending[:1], (("limit", refused),), (sample,))


@pytest_asyncio.fixture
async def sites(api: Api, admin: httpx.AsyncClient) -> list[Site]:
    made = []
    for gateway_id in ("quay-1", "quay-2"):
        assert (await admin.post("/gateways", json={"id": gateway_id, "name": "Q"})).status_code == 201
        async with api.database.connection() as conn:
            made.append(Site(api, await sources.number(conn, "demo", "gateway", gateway_id), gateway_id))
    return made


async def kept(api: Api, gateway_id: str = "quay-1") -> GatewayStanding:
    async with api.database.connection() as conn:
        found = await standings.of_gateway(conn, "demo", gateway_id)
    assert found is not None
    return found


async def test_the_last_word_is_kept_and_shown(api: Api, admin: httpx.AsyncClient, sites: list[Site]) -> None:
    service = Standings(api.database, lambda: api.now_ms)
    assert (await admin.get("/gateways/quay-1")).json()["backlog"] is None
    now = api.now_ms
    service.tell(sites[0].name, standing(now - 900, now - 900))
    last = standing(now, now - 7500, Span(EPOCH, 10, 110), Span(EPOCH, 200, 250), refused=3)
    service.tell(sites[0].name, last)
    await service.write()
    assert (await kept(api)).standing == last
    shown = (await admin.get("/gateways/quay-1")).json()
    assert {key: shown["backlog"][key] for key in ("pending", "in_flight", "age_s", "refused")} == {
        "pending": 150,
        "in_flight": 100,
        "age_s": 7.5,
        "refused": {"limit": 3},
    }
    assert (await kept(api, "quay-2")).standing is None


async def test_complete_until_waits_for_what_was_here_to_be_written(api: Api, sites: list[Site]) -> None:
    service = Standings(api.database, lambda: api.now_ms)
    site, now = sites[0], api.now_ms
    await site.accept(0, 10)
    service.tell(site.name, standing(now, now - 5))
    await service.write()
    assert (await kept(api)).complete_until is None
    await site.done(TRANSPONDER, 0, 9)
    await site.accept(10, 20)
    service.tell(site.name, standing(now + 2000, now + 1000))
    await service.write()
    assert (await kept(api)).complete_until is None
    await site.done(TRANSPONDER, 9, 10)
    await service.write()
    assert (await kept(api)).complete_until == now - 5, "what came since does not hold it up"
    service.tell(site.name, standing(now, now - 4000))
    await site.done(TRANSPONDER, 10, 20)
    await service.write()
    assert (await kept(api)).complete_until == now - 5, "it does not go back"


async def test_a_device_is_complete_as_far_as_its_slowest_gateway(
    api: Api, admin: httpx.AsyncClient, sites: list[Site]
) -> None:
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "D"}
    device = (await admin.post("/devices", json=body)).json()["id"]
    now = api.now_ms

    async def complete_until() -> int | None:
        found: int | None = (await admin.get(f"/devices/{device}")).json()["complete_until"]
        return found

    async def tell(site: Site, complete_ms: int) -> None:
        service = Standings(api.database, lambda: api.now_ms)
        service.tell(site.name, standing(now, complete_ms))
        await service.write()

    assert await complete_until() is None
    first, second = sites
    await tell(first, now - 10)
    await tell(second, now - 500)
    for site in sites:
        await site.accept(0, 50)
    await first.write(device, 0, 1, now - 100)
    assert await complete_until() == now - 10
    await second.write(device, 0, 1, now - 90)
    assert await complete_until() == now - 500
    await first.write(device, 1, 50, now - 50)
    assert await complete_until() == now - 10, "it has left the other one"


async def test_gaps_are_listed_and_counted(api: Api, admin: httpx.AsyncClient, sites: list[Site]) -> None:
    now = api.now_ms
    told = [
        Gap(EPOCH, 0, 500, GapKind.EVICTED, now - 90, now - 50, now),
        Gap(EPOCH, 600, 601, GapKind.DAMAGED, 0, 0, now),
        Gap(EPOCH, 900, 900, GapKind.TAIL, 0, 0, now, 512),
    ]
    await sites[0].store.run(lambda tx: books.keep_gaps(tx, sites[0].name.source_id, told))
    page = (await admin.get("/gaps", params={"limit": 2})).json()
    assert [row["kind"] for row in page["items"]] == ["tail", "damaged"]
    (row,) = (await admin.get("/gaps", params={"limit": 2, "cursor": page["next"]})).json()["items"]
    row.pop("seq")
    assert row == {
        "gateway_id": "quay-1",
        "kind": "evicted",
        "epoch": f"{EPOCH:016x}",
        "first_seq": 0,
        "end_seq": 500,
        "records": 500,
        "oldest_time": now - 90,
        "newest_time": now - 50,
        "noticed_time": now,
        "size_bytes": 0,
    }
    held = (await admin.get("/accounting")).json()
    assert held["closed"] is True
    assert {name: held["total"][name] for name in ("evicted", "damaged", "tails", "accepted")} == {
        "evicted": 500,
        "damaged": 1,
        "tails": 1,
        "accepted": 0,
    }
    assert (await admin.post("/projects", json={"id": "elsewhere", "name": "E"})).status_code == 201
    other = await api.user("other", elsewhere="viewer")
    assert (await other.get("/gaps")).json()["items"] == []


async def test_metrics_tell_what_the_accounting_says(api: Api, sites: list[Site]) -> None:
    site, now = sites[0], api.now_ms
    service = Standings(api.database, lambda: api.now_ms)
    await site.accept(0, 10)
    await site.done(PROCESSOR, 0, 8, decoded_records=7, rejected_records=1, decoded=9)
    await site.done(TRANSPONDER, 0, 8, stored=9)
    gap = Gap(site.epoch, 20, 25, GapKind.EVICTED, 0, 0, now)
    await site.store.run(lambda tx: books.keep_gaps(tx, site.name.source_id, [gap]))
    service.tell(sites[1].name, standing(now, now - 2000, Span(EPOCH, 0, 4)))
    await service.write()
    channels = [ChannelStats(PROCESSOR, Lane.BACKFILL, 3, 1)]
    api.now_ms += 1000
    metrics = PipelineMetrics(
        api.database, lambda: [TopicStats("default-processor", 4, 4000, 0, channels)], lambda: api.now_ms
    )
    await metrics.read()
    registry = CollectorRegistry()
    registry.register(metrics)  # type: ignore[arg-type]  # it is a collector by its one method
    lines = set(generate_latest(registry).decode().splitlines())
    for line in (
        'tidegate_records{fate="accepted",project="demo",source="quay-1"} 10.0',
        'tidegate_records{fate="rejected",project="demo",source="quay-1"} 1.0',
        'tidegate_records{fate="in_pipeline",project="demo",source="quay-1"} 2.0',
        'tidegate_records{fate="evicted",project="demo",source="quay-1"} 5.0',
        'tidegate_messages{fate="stored",project="demo",source="quay-1"} 9.0',
        'tidegate_accounting_closed{project="demo",source="quay-1"} 1.0',
        'tidegate_gateway_pending_records{gateway="quay-2",project="demo"} 4.0',
        'tidegate_gateway_backlog_age_seconds{gateway="quay-2",project="demo"} 2.0',
        'tidegate_gateway_complete_age_seconds{gateway="quay-2",project="demo"} 3.0',
        'tidegate_topic_bytes{topic="default-processor"} 4000.0',
        'tidegate_topic_waiting_batches{channel="processor",lane="backfill",topic="default-processor"} 4.0',
    ):
        assert line in lines, line
