"""The way of payloads from the receiver to the databases, step by step, without the bus between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloud.db import sources
from cloud.db.postgres_store import PostgresStore
from cloud.registry_feed import RegistryFeed
from cloud.services import books
from cloud.services.processor import Processor
from cloud.services.reject_replay import RejectReplays
from cloud.services.replay import InboxReplay
from cloud.services.transponder import Transponder
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from protocols.shipment import Consignment, MessageBatch, Run, decode_messages, encode_shipment

if TYPE_CHECKING:
    from tests.contract.api_server import Api

EPOCH = 0x1234
SYNCHRONIZED = Clock(1, 0, ClockState.SYNCHRONIZED)


class Pipeline:
    """Of one source of project `demo`: HTTP ingest, or a gateway."""

    def __init__(self, api: Api, feed: RegistryFeed, gateway_id: str | None = None) -> None:
        self._api = api
        self.feed = feed
        self._gateway_id = gateway_id
        self.store = PostgresStore(api.database)
        self.next_seq = 0

    async def source(self) -> int:
        async with self._api.database.transaction() as conn:
            return await sources.number(conn, "demo", "gateway" if self._gateway_id else "rest", self._gateway_id)

    async def take(
        self,
        alias: str,
        *payloads: bytes,
        received_ms: Sequence[int] | None = None,
        clock: Clock = SYNCHRONIZED,
        lane: Lane = Lane.LIVE,
    ) -> MessageBatch:
        """Records of one device; each second one, or as given. The message batch that the writer got."""
        shipment = await self.accept(alias, *payloads, received_ms=received_ms, clock=clock)
        written = await self.work(shipment, lane)
        await self.write(written, lane)
        return decode_messages(written[0])

    async def accept(
        self, alias: str, *payloads: bytes, received_ms: Sequence[int] | None = None, clock: Clock = SYNCHRONIZED
    ) -> bytes:
        """The receiver has them; the shipment for the processor."""
        times = received_ms or [self._api.now_ms + 1000 * (self.next_seq + place) for place in range(len(payloads))]
        batch = RecordBatch(
            BatchKey(1, self.next_seq),
            clock,
            times[0],
            [Origin("boats", "serial", alias, "up", "", "mqtt")],
            [0] * len(payloads),
            [time - times[0] for time in times],
            list(payloads),
        )
        block = encode_block(
            [encode_records(batch)],
            epoch=EPOCH,
            first_seq=self.next_seq,
            records=len(payloads),
            newest_ms=max(times),
            priority=Priority.TELEMETRY,
        )
        source_id = await self.source()
        run = Run(source_id, EPOCH, self.next_seq, len(payloads))
        self.next_seq += len(payloads)
        await self.store.run(lambda tx: books.accept(tx, [run]))
        return encode_shipment([Consignment(source_id, block)])

    async def work(self, shipment: bytes, lane: Lane = Lane.LIVE) -> list[bytes]:
        """The processor's part; what goes to the writer."""
        revision = await self.store.run(lambda tx: tx.newest_revision("demo", held=False))
        await self.feed.refresh("demo", revision)
        outputs = await self.store.run(lambda tx: Processor(self.feed).handle(tx, [shipment], lane))
        return [output.data for output in outputs]

    async def write(self, written: Sequence[bytes], lane: Lane = Lane.LIVE) -> None:
        """The transponder's."""
        await self.store.run(lambda tx: Transponder(lambda: self._api.now_ms).handle(tx, written, lane))

    async def replay_inbox(self) -> None:
        """All whose device exists by now, and written."""
        replay = InboxReplay(self.feed, Writing(self), self.store)
        while await replay.sweep():
            pass

    async def replay_rejects(self) -> None:
        """All that is asked for, and written."""
        replays = RejectReplays(self.feed, Writing(self), self.store)
        while await replays.step():
            pass


class Writing:
    """A bus that hands what is published to the transponder at once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        await self._pipeline.write([data], lane)
