"""The REST server: messages that come by HTTP become records of a source of their own, one a project.

It is to HTTP clients what a gateway is to devices: an epoch for each start of its process, consecutive numbers, an
answer only once the records are durable. Requests that come while others are being made durable share one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from cloud.ingest.messages import BYTES_MAX, LISTENER, Row
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block
from protocols.limits import BATCH_RECORDS_MAX
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from protocols.shipment import MessageBatch, Run
from sync.bus.contract import BusFullError
from sync.registry import Registry
from sync.resolve import Resolver

IN_FLIGHT_MAX: Final = 2
"""Batches of one source on their way to JetStream: while one is synced the other is remembered, and the next fills."""
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of messages that wait for a batch: sixteen of the largest requests; over it clients are told to come back."""
ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"

__all__ = ["LISTENER", "IngestResult", "RestServer", "Taken"]


class IngestResult(msgspec.Struct, frozen=True):
    record: str
    """epoch/seq, to ask for it later."""
    state: str
    """ACCEPTED; or REJECTED: it does not decode, and is kept with the reason."""
    device_known: bool
    """False: its messages wait in the inbox."""
    reason: str | None = None
    """Why it does not decode."""
    fate: str | msgspec.UnsetType = msgspec.UNSET
    """What has become of it (cloud/model/fate.py), where somebody waited for it."""


class Taken(msgspec.Struct, frozen=True):
    """What a request's messages became."""

    results: list[IngestResult]
    run: Run
    first_place: int
    """The place of its first record in `batch`."""
    batch: MessageBatch
    """As the processor will make it by the registry of now, with other requests' messages beside it."""


class Accepts(Protocol):
    """The receiver, as far as it concerns us."""

    async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None: ...


class _Request(msgspec.Struct, frozen=True):
    rows: Sequence[Row]
    size: int
    received_ms: int
    registry: Registry
    done: asyncio.Future[Taken]


class _Source:
    """What waits of one project."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.next_seq = 0
        self.waiting: list[_Request] = []
        self.in_flight = 0

    def next_batch(self) -> list[_Request]:
        """The oldest that fit in one batch; one at least."""
        records = size = count = 0
        for request in self.waiting:
            records += len(request.rows)
            size += request.size
            if count and (records > BATCH_RECORDS_MAX or size > BYTES_MAX):
                break
            count += 1
        taken = self.waiting[:count]
        del self.waiting[:count]
        return taken


class RestServer:
    def __init__(self, receiver: Accepts, random_63: Callable[[], int], wall_ms: Callable[[], int]) -> None:
        self._receiver = receiver
        self._wall_ms = wall_ms
        self._epoch = random_63()
        self._clock = Clock(random_63(), 0, ClockState.SYNCHRONIZED)
        self._sources: dict[int, _Source] = {}
        self._waiting_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, source_id: int, registry: Registry, rows: Sequence[Row]) -> Taken:
        """Returns when all of them are durable. `rows`: as rows_of gives them. Raises what the receiver raises: nothing
        is certain."""
        source = self._sources.get(source_id)
        if source is None:
            source = self._sources[source_id] = _Source(source_id)
        size = sum(len(payload) for _, payload in rows)
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise BusFullError(f"{self._waiting_bytes:,} bytes wait for JetStream already")
        self._waiting_bytes += size
        request = _Request(rows, size, self._wall_ms(), registry, asyncio.get_running_loop().create_future())
        source.waiting.append(request)
        if source.in_flight < IN_FLIGHT_MAX:
            source.in_flight += 1
            task = asyncio.create_task(self._ship(source))  # begins once all that came with this one is here
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await request.done

    async def _ship(self, source: _Source) -> None:
        try:
            while requests := source.next_batch():
                try:
                    for request, taken in zip(requests, await self._record(source, requests), strict=True):
                        if not request.done.done():  # its client may be gone
                            request.done.set_result(taken)
                except asyncio.CancelledError:
                    for request in requests:
                        request.done.cancel()
                    raise
                except Exception as error:  # noqa: BLE001  # every client that waits is told, each in its own way
                    for request in requests:
                        if not request.done.done():
                            request.done.set_exception(error)
                finally:
                    self._waiting_bytes -= sum(request.size for request in requests)
        finally:
            source.in_flight -= 1

    async def _record(self, source: _Source, requests: Sequence[_Request]) -> list[Taken]:
        run = Run(source.number, self._epoch, source.next_seq, sum(len(request.rows) for request in requests))
        source.next_seq += run.count
        records = self._batch(run.first_seq, requests)
        resolver = Resolver(requests[-1].registry)
        resolver.add(run, [records])
        batch = resolver.finish()
        results = _results(run, records, batch, requests[-1].registry)
        block = encode_block(
            [encode_records(records)],
            epoch=run.epoch,
            first_seq=run.first_seq,
            records=run.count,
            newest_ms=requests[-1].received_ms,
            priority=Priority.TELEMETRY,
        )
        await self._receiver.accept(source.number, Lane.LIVE, [block])
        given = []
        place = 0
        for request in requests:
            end = place + len(request.rows)
            part = Run(run.source_id, run.epoch, run.first_seq + place, len(request.rows))
            given.append(Taken(results[place:end], part, place, batch))
            place = end
        return given

    def _batch(self, first_seq: int, requests: Sequence[_Request]) -> RecordBatch:
        origins: dict[Origin, int] = {}
        base_ms = min(request.received_ms for request in requests)
        origin_index, delta_ms, payloads = [], [], []
        for request in requests:
            for origin, payload in request.rows:
                origin_index.append(origins.setdefault(origin, len(origins)))
                payloads.append(payload)
            delta_ms += [request.received_ms - base_ms] * len(request.rows)
        key = BatchKey(self._epoch, first_seq)
        return RecordBatch(key, self._clock, base_ms, list(origins), origin_index, delta_ms, payloads)


def _results(run: Run, records: RecordBatch, batch: MessageBatch, registry: Registry) -> list[IngestResult]:
    """Of each record, by what it decodes to."""
    reasons = {reject.record: reject.detail for reject in batch.rejects}
    known_targets = [bool(target.device_id) for target in batch.targets]
    known = dict.fromkeys(range(run.count), True)
    for record, target in zip(batch.record, batch.target_index, strict=True):
        if not known_targets[target]:
            known[record] = False
    for record in reasons:
        origin = records.origins[records.origin_index[record]]
        known[record] = registry.device(origin.network_id, origin.alias_key, origin.alias) is not None
    epoch = f"{run.epoch:016x}"
    return [
        IngestResult(
            f"{epoch}/{run.first_seq + place}",
            REJECTED if place in reasons else ACCEPTED,
            known[place],
            reasons.get(place),
        )
        for place in range(run.count)
    ]
