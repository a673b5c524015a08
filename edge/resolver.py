"""The resolver: from the log to decoded and resolved messages on the topic `resolved`, for everything local.

It runs behind the log, never in the way of it: it takes a bounded share of the gateway's time, and where that is not
enough it skips to the newest and says how much it skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from protocols.block import open_block
from protocols.errors import WireError
from protocols.shipment import MessageBatch, Run, encode_messages
from sync.bus.contract import Bus, BusError, BusRefusedError
from sync.log.log import LogReader
from sync.registry import Registry
from sync.resolve import Resolver
from tidegate.logs import get_logger

TOPIC: Final = "resolved"
BLOCKS_MAX: Final = 32
BYTES_MAX: Final = 256 * 1024
"""Taken at once: some 20 ms of work, in which a device may wait for its answer."""
SHARE_MAX: Final = 0.25
"""Of the event loop's time: recording goes first on a gateway that is saturated."""
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


class LocalResolver:
    def __init__(
        self, registry: Callable[[], Registry], reader: LogReader, bus: Bus, watch: Callable[[MessageBatch], None]
    ) -> None:
        """`watch` sees each batch before it is published: latest values, rejects and rates of the status page."""
        self._registry = registry
        self._reader = reader
        self._bus = bus
        self._watch = watch
        self.counts = ResolverCounts()

    @property
    def behind_bytes(self) -> int:
        """Of blocks in the log that it has not come to."""
        return self._reader.behind_bytes

    async def run(self) -> None:
        """Until cancelled. Raises OSError if the disk cannot be read: call again."""
        while True:
            blocks = await self._reader.next(BLOCKS_MAX, BYTES_MAX)
            started = time.perf_counter()
            batch = self._resolve(blocks)
            self._count(batch)
            self._watch(batch)
            try:
                await self._bus.publish(TOPIC, encode_messages(batch))
            except (BusError, BusRefusedError) as error:
                _log.warning("resolved messages not published", reason=str(error))
            worked_s = time.perf_counter() - started
            await asyncio.sleep(worked_s * (1 / SHARE_MAX - 1))
            if self._reader.behind_bytes > BEHIND_MAX_BYTES:
                self.counts.skipped += self._reader.skip_to_end()

    def _resolve(self, blocks: list[bytes]) -> MessageBatch:
        resolver = Resolver(self._registry())
        for block in blocks:
            try:
                head, batches = open_block(block)
            except WireError as error:
                _log.warning("block not resolved", code=error.code, reason=error.detail)
                continue
            resolver.add(Run(0, head.epoch, head.first_seq, head.records), batches)
        return resolver.finish()

    def _count(self, batch: MessageBatch) -> None:
        self.counts.records += batch.records
        self.counts.messages += len(batch)
        self.counts.rejected += len(batch.rejects)
        unknown = {place for place, target in enumerate(batch.targets) if not target.device_id}
        if unknown:
            self.counts.unresolved += sum(place in unknown for place in batch.target_index)
