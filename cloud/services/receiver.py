"""The receiver: blocks of gateways and of the REST server into shipments, synced by JetStream, remembered by range.

publish → JetStream's answer → record the ranges → acknowledge. What came again after a lost answer is acknowledged at
once where its range is known, and passed over by the processor where it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.services import books
from cloud.services.store import Store
from cloud.topics import DEFAULT_PROCESSOR
from protocols.block import BlockHead, read_head
from protocols.limits import SHIPMENT_BYTES_MAX
from protocols.messages import Anchor, Gap, Lane
from protocols.shipment import Consignment, Run, encode_shipment
from sync.bus.contract import Bus, BusFullError
from sync.link.frames import Span
from sync.ranges import Ranges

SHIPMENT_BYTES: Final = {Lane.LIVE: SHIPMENT_BYTES_MAX // 4, Lane.BACKFILL: 64 * 1024}
"""Coalesced up to this size and cut at it, so that one shipment stays a fraction of a second of work; of backfill a
smaller one, as live messages wait meanwhile for the cores."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Blocks that wait for a shipment; link credit keeps gateways below it, over it a sender is told to come back."""
SHIPMENTS_IN_FLIGHT: Final = 3
"""Enough to keep JetStream's sync and the database's commit busy at the same time."""
KNOWN_EPOCHS_MAX: Final = 20_000
"""Epochs whose accepted ranges are kept in memory, the least recently used forgotten first."""


class _Waiting(msgspec.Struct, frozen=True):
    consignments: list[Consignment]
    heads: list[BlockHead]
    done: asyncio.Future[None]


class ReceiverCounts(msgspec.Struct):
    """For metrics. Records, but for the shipments."""

    accepted: int = 0
    resent: int = 0
    shipments: int = 0


class Receiver:
    """Takes blocks from any number of sessions. One lane never waits behind the other."""

    name = books.RECEIVER

    def __init__(self, bus: Bus, store: Store) -> None:
        self._bus = bus
        self._store = store
        self._queues: dict[Lane, list[_Waiting]] = {lane: [] for lane in Lane}
        self._arrived = asyncio.Event()
        self._waiting_bytes = 0
        self._known: dict[tuple[int, int], Ranges] = {}
        self.counts = ReceiverCounts()

    async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None:
        """Returns when all of `blocks` (checked by the caller) are durable and remembered. Raises BusError or
        DatabaseError: nothing is certain, send them again."""
        heads = [read_head(block) for block in blocks]
        fresh = [i for i, head in enumerate(heads) if not self._knows(source_id, head)]
        self.counts.resent += sum(head.records for head in heads) - sum(heads[i].records for i in fresh)
        if not fresh:
            return
        size = sum(len(blocks[i]) for i in fresh)
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise BusFullError(f"{self._waiting_bytes:,} bytes wait for JetStream already")
        self._waiting_bytes += size
        parts = [
            _Waiting(
                [Consignment(source_id, blocks[i]) for i in part],
                [heads[i] for i in part],
                asyncio.get_running_loop().create_future(),
            )
            for part in _cut(fresh, blocks, SHIPMENT_BYTES[lane])
        ]
        self._queues[lane] += parts
        self._arrived.set()
        try:
            # All to their end: what fails in one says nothing of the others.
            for result in await asyncio.gather(*(part.done for part in parts), return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        finally:
            self._waiting_bytes -= size

    def meet(self, source_id: int) -> None:
        """It connects anew: what it sends again is passed on, and found out by the hops. What is remembered here knows
        neither what other processes have, nor that the database was set back to a backup."""
        for name in [name for name in self._known if name[0] == source_id]:
            del self._known[name]

    async def keep_anchors(self, source_id: int, anchors: Sequence[Anchor]) -> None:
        """Returns when they are durable. Raises DatabaseError, as all that follows."""
        await self._store.run(lambda tx: tx.keep_anchors(source_id, anchors))

    async def keep_gaps(self, source_id: int, gaps: Sequence[Gap]) -> list[Span]:
        """Returns when they are durable, and which records among them the cloud has after all."""
        return await self._store.run(lambda tx: books.keep_gaps(tx, source_id, gaps))

    async def missing_of(self, source_id: int, spans: Sequence[Span]) -> list[Span]:
        """What of these records, which the gateway takes for accepted, is not here."""
        return await self._store.run(lambda tx: books.missing_of(tx, source_id, spans))

    async def run(self, stop: asyncio.Event) -> None:
        """Ships until `stop`; what waits then is answered as uncertain."""
        workers = [asyncio.ensure_future(self._ship_forever()) for _ in range(SHIPMENTS_IN_FLIGHT)]
        await stop.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for queue in self._queues.values():
            for waiting in queue:
                waiting.done.cancel()

    async def _ship_forever(self) -> None:
        while True:
            await self._arrived.wait()
            lane, taken = self._take()
            if not taken:
                if not any(self._queues.values()):
                    self._arrived.clear()
                continue
            try:
                await self._ship(lane, taken)
            except asyncio.CancelledError:
                for waiting in taken:
                    waiting.done.cancel()
                raise
            except Exception as error:  # noqa: BLE001  # every sender that waits is told, each in its own way
                for waiting in taken:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)

    def _take(self) -> tuple[Lane, list[_Waiting]]:
        """What goes into the next shipment: live first, of one lane."""
        for lane, queue in self._queues.items():
            size, number = 0, 0
            for waiting in queue:
                size += sum(len(consignment.block) for consignment in waiting.consignments)
                if number and size > SHIPMENT_BYTES[lane]:
                    break
                number += 1
            if number:
                taken = queue[:number]
                del queue[:number]
                return lane, [waiting for waiting in taken if not waiting.done.done()]
        return Lane.LIVE, []

    async def _ship(self, lane: Lane, taken: Sequence[_Waiting]) -> None:
        consignments = [consignment for waiting in taken for consignment in waiting.consignments]
        await self._bus.publish(DEFAULT_PROCESSOR, encode_shipment(consignments), lane=lane)
        heads = [head for waiting in taken for head in waiting.heads]
        runs = [
            Run(consignment.source_id, head.epoch, head.first_seq, head.records)
            for consignment, head in zip(consignments, heads, strict=True)
        ]
        accepted = await self._store.run(lambda tx: books.accept(tx, runs))
        self.counts.accepted += accepted
        self.counts.resent += sum(run.count for run in runs) - accepted
        self.counts.shipments += 1
        for run in runs:
            self._learn(run)
        for waiting in taken:
            if not waiting.done.done():
                waiting.done.set_result(None)

    def _knows(self, source_id: int, head: BlockHead) -> bool:
        known = self._known.get((source_id, head.epoch))
        return known is not None and known.covers(head.first_seq, head.end_seq)

    def _learn(self, run: Run) -> None:
        known = self._known.pop((run.source_id, run.epoch), None) or Ranges()
        known.add(run.first_seq, run.first_seq + run.count)
        self._known[run.source_id, run.epoch] = known
        if len(self._known) > KNOWN_EPOCHS_MAX:
            del self._known[next(iter(self._known))]


def _cut(places: Sequence[int], blocks: Sequence[bytes], bytes_max: int) -> list[list[int]]:
    """The places in order, in parts whose blocks have about `bytes_max` together; a larger block is a part alone."""
    parts: list[list[int]] = []
    size = bytes_max
    for place in places:
        if size + len(blocks[place]) > bytes_max:
            parts.append([])
            size = 0
        parts[-1].append(place)
        size += len(blocks[place])
    return parts
