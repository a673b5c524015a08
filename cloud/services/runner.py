"""Runs a service: fetch, transaction, commit, publish, acknowledge; retry what may pass, bury what never will."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import DatabaseError
from cloud.services.outputs import Outputs
from cloud.services.service import Service
from cloud.services.store import Store
from protocols.messages import Lane
from sync.bus.contract import BusError, Delivery, DurableBus
from tidegate.logs import get_logger

BATCHES_MAX: Final = 64
"""Batches in one transaction: many small ones share its commit."""
BYTES_MAX: Final = {Lane.LIVE: 512 * 1024, Lane.BACKFILL: 64 * 1024}
"""Bytes in one transaction, compressed: about 30,000 messages, a quarter of a second of work. Of backfill less, some
5,000: live messages wait for the cores and the disk meanwhile, whatever the process's priority; 24 KiB cost a third of
the speed, 160 KiB gain a sixth."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
"""A bus or database that is away: asked again within this time once it is back."""
ATTEMPTS_MAX: Final = 3
"""Tries of a batch that fails by itself, before it is buried: a fault of the moment passes by then."""

_log = get_logger("runner")


class ServiceCounts(msgspec.Struct):
    """For metrics."""

    batches: int = 0
    transactions: int = 0
    retries: int = 0
    buried: int = 0


class ServiceRunner:
    """A reader of the service's channel for each of the lanes, side by side, each working on one fetch at a time."""

    def __init__(self, service: Service, bus: DurableBus, store: Store, *, lanes: Sequence[Lane] = tuple(Lane)) -> None:
        """`lanes`: those that are worked on here."""
        self._service = service
        self._lanes = lanes
        self._bus = bus
        self._store = store
        self._outputs = Outputs(service.name, service.writes, bus, store)
        self.counts = ServiceCounts()

    @property
    def name(self) -> str:
        return self._service.name

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; the fetches in hand are finished first."""
        tasks = [
            asyncio.create_task(self._run_lane(lane, stop), name=f"{self.name} {lane.value}") for lane in self._lanes
        ]
        if self._service.writes:
            tasks.append(asyncio.create_task(self._outputs.sweep_forever(stop), name=f"{self.name} outputs"))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                if not task.cancelling():  # a second time would cut off how the reader gives back what it holds
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_lane(self, lane: Lane, stop: asyncio.Event) -> None:
        reader = await self._bus.subscribe(self._service.reads, self._service.name, lane=lane)
        stopped = asyncio.ensure_future(stop.wait())
        fetch: asyncio.Future[Sequence[Delivery]] | None = None
        try:
            while not stop.is_set():
                fetch = asyncio.ensure_future(reader.fetch(BATCHES_MAX, BYTES_MAX[lane]))
                await asyncio.wait((fetch, stopped), return_when=asyncio.FIRST_COMPLETED)
                if fetch.done():
                    await self._work(fetch.result(), lane, stop)
        finally:
            stopped.cancel()
            if fetch is not None:
                fetch.cancel()
            await reader.close()

    async def _work(self, deliveries: Sequence[Delivery], lane: Lane, stop: asyncio.Event) -> None:
        try:
            await self._do([delivery.data for delivery in deliveries], lane, stop)
        except _StoppedError:
            await asyncio.gather(*(delivery.nak() for delivery in deliveries))
        else:
            await asyncio.gather(*(delivery.ack() for delivery in deliveries))
            self.counts.batches += len(deliveries)

    async def _do(self, batch: Sequence[bytes], lane: Lane, stop: asyncio.Event) -> None:
        """Retries while bus or database are away. What fails by itself is done again in ever smaller parts, until the
        one that is at fault is alone and buried."""
        delay_s = RETRY_FIRST_S
        attempts = 0
        while True:
            try:
                await self._transact(batch, lane)
                return
            except (BusError, DatabaseError) as error:
                _log.warning("will retry", service=self.name, reason=str(error), again_in_s=delay_s)
                self.counts.retries += 1
                if stop.is_set():
                    raise _StoppedError from None
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            except Exception as error:  # noqa: BLE001  # whatever it is, neighbours go on, and the batch is not lost
                parts = [part for data in batch for part in self._service.split(data)]
                if len(parts) > 1:
                    for part in parts:
                        await self._do([part], lane, stop)
                    return
                attempts += 1
                if attempts >= ATTEMPTS_MAX:
                    await self._bury(parts[0], error)
                    return

    async def _transact(self, batch: Sequence[bytes], lane: Lane) -> None:
        await self._outputs.run(lane, lambda tx: self._service.handle(tx, batch, lane))
        self.counts.transactions += 1

    async def _bury(self, data: bytes, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        _log.error("batch buried as a dead letter", service=self.name, reason=reason, exc_info=error)
        await self._store.run(lambda tx: self._service.bury(tx, data, reason))
        self.counts.buried += 1


class _StoppedError(Exception):
    """The process ends while the batch waits for a bus or database that is away."""
