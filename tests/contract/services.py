"""The pipeline's services on engines of their own, and what is sent to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import pytest

from cloud.db import accounting, history
from cloud.db.database import Database
from cloud.db.postgres_store import PostgresStore
from cloud.model.accounting import SourceAccount
from cloud.registry_feed import RegistryFeed
from cloud.services.processor import Processor
from cloud.services.receiver import Receiver
from cloud.services.replay import InboxReplay
from cloud.services.runner import ServiceRunner
from cloud.services.transponder import Transponder
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from sync.bus.contract import BusError
from sync.bus.jetstream import JetStreamBus

NOW = 1_770_000_000_000
SYNCHRONIZED = Clock(1, 1, ClockState.SYNCHRONIZED)
DEADLINE_S = 30.0


class Cloud:
    """The pipeline's services, without API and links, on engines of their own."""

    def __init__(self, database: Database, bus: JetStreamBus, feed: RegistryFeed) -> None:
        self.database = database
        self.bus = bus
        self.feed = feed
        self.store = PostgresStore(database)
        self.receiver = Receiver(bus, self.store)
        self.replay = InboxReplay(feed, bus, self.store)
        feed.on_change(self.replay.want)
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.source = 0

    async def start(self) -> None:
        async with self.database.transaction() as conn:
            await conn.execute("INSERT INTO project (id, name) VALUES ('p', 'P')")
            await conn.execute("INSERT INTO system (project_id, id, name) VALUES ('p', 's', 'S')")
            await conn.execute("INSERT INTO gateway (project_id, id, name) VALUES ('p', 'g', 'G')")
            await conn.execute("INSERT INTO source (project_id, kind, gateway_id) VALUES ('p', 'gateway', 'g')")
            self.source = await conn.fetchval("SELECT id FROM source")
        await self.change(
            """INSERT INTO network (project_id, id, name, alias_key, codec, revision)
               VALUES ('p', 'keyed', 'K', 'serial', '{"key_paths": ["boot", "seq"]}', $1),
                      ('p', 'plain', 'N', 'serial', '{}', $1)""",
            """INSERT INTO blueprint (project_id, id, name, revision) VALUES ('p', 'pump', 'Pump', $1)""",
        )
        for run in (self.feed.run, self.receiver.run, self.replay.run):
            self.tasks.append(asyncio.create_task(run(self.stop)))

    def work(self, *services: Processor | Transponder) -> list[asyncio.Task[None]]:
        new = [asyncio.create_task(ServiceRunner(service, self.bus, self.store).run(self.stop)) for service in services]
        self.tasks += new
        return new

    async def change(self, *statements: str) -> None:
        """A change of the registry, as the API makes them."""
        async with self.database.transaction() as conn:
            revision = await conn.fetchval(
                "UPDATE project SET revision = revision + 1 WHERE id = 'p' RETURNING revision"
            )
            for statement in statements:
                await conn.execute(statement, revision)
            await conn.execute("SELECT pg_notify('registry', 'p')")

    async def add_device(self, network: str, alias: str) -> None:
        await self.change(
            f"""WITH new AS (
                    INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
                    VALUES ('p', 's', 'pump', '{alias}', $1) RETURNING id)
                INSERT INTO alias (project_id, network_id, alias_key, alias, device_id, place)
                SELECT 'p', '{network}', 'serial', '{alias}', id, 0 FROM new"""
        )

    async def device(self, alias: str) -> int:
        async with self.database.connection() as conn:
            found: int = await conn.fetchval("SELECT device_id FROM alias WHERE alias = $1", alias)
            return found

    async def account(self) -> SourceAccount:
        async with self.database.connection() as conn:
            (account,) = [a for a in await accounting.by_source(conn, "p") if a.source_id == self.source]
            return account

    async def stored(self, alias: str) -> list[dict[str, object]]:
        number = await self.device(alias)
        async with self.database.connection() as conn:
            rows = await history.page(conn, "p", number, 0, 2**53, limit=100_000)
        return [json.loads(row.data) for row in rows]

    async def until(self, condition: Callable[[SourceAccount], bool]) -> SourceAccount:
        """Waits for the accounting to say so; it must close at each moment in between."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                account = await self.account()
                assert account.closed, account
                if condition(account):
                    return account
                await asyncio.sleep(0.02)

    async def bus_away(self, work: Callable[[], Awaitable[object]]) -> None:
        """Work that finds no bus to publish to."""
        publish = self.bus.publish
        # Only here: without NATS nobody could have fetched the batch that is worked on.
        self.bus.publish = _no_bus  # type: ignore[method-assign]
        try:
            with pytest.raises(BusError):
                await work()
        finally:
            self.bus.publish = publish  # type: ignore[method-assign]

    async def until_forgotten(self) -> None:
        """Nothing that was published is kept any longer."""
        async with asyncio.timeout(DEADLINE_S), self.database.connection() as conn:
            while await conn.fetchval("SELECT count(*) FROM unsent"):
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        self.stop.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.feed.close()
        await self.bus.close()


def block(
    epoch: int, first_seq: int, rows: Sequence[tuple[str, str, object]], clock: Clock = SYNCHRONIZED, at_ms: int = NOW
) -> bytes:
    """Rows of network, alias, payload, as one block; received from `at_ms` on, one each millisecond."""
    origins = list(dict.fromkeys(Origin(network, "serial", alias, "up", "", "mqtt") for network, alias, _ in rows))
    batch = RecordBatch(
        BatchKey(epoch, first_seq),
        clock,
        at_ms,
        origins,
        [origins.index(Origin(network, "serial", alias, "up", "", "mqtt")) for network, alias, _ in rows],
        list(range(len(rows))),
        [payload if isinstance(payload, bytes) else json.dumps(payload).encode() for _, _, payload in rows],
    )
    return encode_block(
        [encode_records(batch)],
        epoch=epoch,
        first_seq=first_seq,
        records=len(rows),
        newest_ms=at_ms,
        priority=Priority.TELEMETRY,
    )


def send(cloud: Cloud, *blocks: bytes, lane: Lane = Lane.LIVE) -> Awaitable[None]:
    return cloud.receiver.accept(cloud.source, lane, blocks)


async def _no_bus(*args: object, **kwargs: object) -> None:
    raise BusError("NATS is not connected")
