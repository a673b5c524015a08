"""The resolver: from the log to decoded and resolved messages on the topic `resolved`, for everything local.

It runs behind the log, never in the way of it: it takes a bounded share of the gateway's time, and where that is not
enough it skips to the newest and says how much it skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from protocols.batch import RecordBatch, decode_records
from protocols.block import split_block
from protocols.errors import WireError
from protocols.messages import Anchor
from protocols.shipment import MessageBatch, Run, encode_messages
from sync.bus.contract import Bus, BusError, BusRefusedError
from sync.log.log import LogReader
from sync.registry import Registry
from sync.resolve import NO_ANCHORS, Resolver
from tidegate.logs import get_logger

TOPIC: Final = "resolved"
BLOCKS_MAX: Final = 64
BYTES_MAX: Final = 64 * 1024
"""Taken from the log at once, compressed: some thousand records, unless one block alone holds more."""
SLICE_RECORDS_MAX: Final = 128
"""Resolved at a time, which is 1 ms of work, in which a device may wait for its answer; large batches are cut."""
SHARE_WATCHED: Final = 0.25
"""Of the event loop's time, while somebody reads along: recording goes first on a gateway that is saturated."""
SHARE_UNWATCHED: Final = 0.05
"""The same while nobody does: enough for some thousand messages a second; beyond it, latest values are seconds old."""
ROUND_S: Final = 0.02
"""From one round to the next, at least: what came meanwhile shares what a round costs."""
BEHIND_MAX_BYTES: Final = 4 * 1024 * 1024
"""Further behind than this, it skips: local readers want what is now; the cloud gets everything anyway."""

_log = get_logger("edge.resolver")


class ResolverCounts(msgspec.Struct):
    """For metrics: records, messages."""

    records: int = 0
    messages: int = 0
    rejected: int = 0
    unresolved: int = 0
    skipped: int = 0


class _Part(msgspec.Struct, frozen=True):
    """A batch, or a piece of one, and its records' numbers."""

    run: Run
    batch: RecordBatch


class Audience(Protocol):
    """Who wants to see resolved messages, here on the gateway."""

    def add(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        """Sees each batch before it is published: latest values, rejects, tails of the status page. `listeners`: who
        took each record, by its place among the records of all runs."""
        ...

    @property
    def is_watching(self) -> bool:
        """Whether somebody looks on right now."""
        ...


class LocalResolver:
    def __init__(
        self,
        registry: Callable[[], Registry],
        reader: LogReader,
        bus: Bus,
        audience: Audience,
        has_readers: Callable[[], bool],
        *,
        anchors: Mapping[int, Sequence[Anchor]] = NO_ANCHORS,
    ) -> None:
        """`has_readers`: whether anybody reads the topic; while nobody does, nothing is published. `anchors`: of this
        machine's boots, as they are at any time."""
        self._registry = registry
        self._reader = reader
        self._bus = bus
        self._audience = audience
        self._has_readers = has_readers
        self._anchors = anchors
        self.counts = ResolverCounts()

    @property
    def behind_bytes(self) -> int:
        """Of blocks in the log that it has not come to."""
        return self._reader.behind_bytes

    async def run(self) -> None:
        """Until cancelled. Raises OSError if the disk cannot be read: call again."""
        while True:
            for parts in self._slices(await self._reader.next(BLOCKS_MAX, BYTES_MAX)):
                started_s = time.perf_counter()
                batch = self._resolve(parts)
                self._count(batch)
                self._audience.add(batch, _listeners(parts))
                is_read = self._has_readers()
                if is_read:
                    await self._publish(batch)
                share = SHARE_WATCHED if is_read or self._audience.is_watching else SHARE_UNWATCHED
                await asyncio.sleep(max((time.perf_counter() - started_s) * (1 / share - 1), ROUND_S))
            if self._reader.behind_bytes > BEHIND_MAX_BYTES:
                self.counts.skipped += self._reader.skip_to_end()

    async def _publish(self, batch: MessageBatch) -> None:
        try:
            await self._bus.publish(TOPIC, encode_messages(batch))
        except (BusError, BusRefusedError) as error:
            _log.warning("resolved messages not published", reason=str(error))

    def _slices(self, blocks: Sequence[bytes]) -> Iterator[list[_Part]]:
        """The blocks' batches, several together or one in pieces, none decoded before its turn."""
        parts: list[_Part] = []
        room = SLICE_RECORDS_MAX
        for block in blocks:
            for part in self._open(block):
                at = 0
                while at < part.run.count:
                    piece = _cut(part, at, room)
                    parts.append(piece)
                    at += piece.run.count
                    room -= piece.run.count
                    if not room:
                        yield parts
                        parts, room = [], SLICE_RECORDS_MAX
        if parts:
            yield parts

    def _open(self, block: bytes) -> Iterator[_Part]:
        """What cannot be read is said and skipped: the cloud sees the same bytes, and decides about them."""
        seq, end_seq = 0, 0
        try:
            head, encoded = split_block(block)
            seq, end_seq = head.first_seq, head.end_seq
            for data in encoded:
                batch = decode_records(data)
                yield _Part(Run(0, head.epoch, seq, len(batch)), batch)
                seq += len(batch)
        except WireError as error:
            self.counts.skipped += end_seq - seq
            _log.warning("block not resolved", code=error.code, reason=error.detail)

    def _resolve(self, parts: Sequence[_Part]) -> MessageBatch:
        resolver = Resolver(self._registry(), self._anchors)
        for part in parts:
            resolver.add(part.run, [part.batch])
        return resolver.finish()

    def _count(self, batch: MessageBatch) -> None:
        self.counts.records += batch.records
        self.counts.messages += len(batch)
        self.counts.rejected += len(batch.rejects)
        unknown = {place for place, target in enumerate(batch.targets) if not target.device_id}
        if unknown:
            self.counts.unresolved += sum(place in unknown for place in batch.target_index)


def _listeners(parts: Sequence[_Part]) -> list[str]:
    """Of each record, in order."""
    found: list[str] = []
    for part in parts:
        names = [origin.listener for origin in part.batch.origins]
        found += [names[place] for place in part.batch.origin_index]
    return found


def _cut(part: _Part, first: int, rows_max: int) -> _Part:
    """Up to `rows_max` rows from row `first` on."""
    run, batch = part.run, part.batch
    end = min(first + rows_max, run.count)
    if end - first == run.count:
        return part
    return _Part(
        Run(run.source_id, run.epoch, run.first_seq + first, end - first),
        msgspec.structs.replace(
            batch,
            origin_index=batch.origin_index[first:end],
            received_delta_ms=batch.received_delta_ms[first:end],
            payloads=batch.payloads[first:end],
            metadata=batch.metadata[first:end],
        ),
    )
