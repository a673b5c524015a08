"""HTTP ingest with the hops behind it, without the bus between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloud.db.postgres_store import PostgresStore
from cloud.registry_feed import RegistryFeed
from cloud.services import books
from cloud.services.processor import Processor
from cloud.services.transponder import Transponder
from protocols.block import read_head
from protocols.messages import Lane
from protocols.shipment import Consignment, Run, encode_shipment

if TYPE_CHECKING:
    from tests.contract.api_server import Api

EPOCH = 0x77
BENCH = {"network_id": "boats", "alias": "bench-01"}


class Ingesting:
    """The receiver, and all that is behind it."""

    def __init__(self, api: Api, feed: RegistryFeed) -> None:
        self.store = PostgresStore(api.database)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._processor = Processor(feed)
        self._transponder = Transponder(lambda: api.now_ms)
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None:
        heads = [read_head(block) for block in blocks]
        runs = [Run(source_id, head.epoch, head.first_seq, head.records) for head in heads]
        await self.store.run(lambda tx: books.accept(tx, runs))
        self._tasks.append(asyncio.create_task(self._go_on([Consignment(source_id, block) for block in blocks])))

    async def _go_on(self, consignments: Sequence[Consignment]) -> None:
        await self.flowing.wait()
        shipment = encode_shipment(consignments)
        outputs = await self.store.run(lambda tx: self._processor.handle(tx, [shipment], Lane.LIVE))
        written = [output.data for output in outputs]
        await self.store.run(lambda tx: self._transponder.handle(tx, written, Lane.LIVE))

    async def end(self) -> None:
        self.flowing.set()
        await asyncio.gather(*self._tasks)
