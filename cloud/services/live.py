"""What the API's live stream reads: message batches on their way to the writer, while somebody listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from cloud.model.forwarding import derived
from cloud.topics import WRITER
from protocols.shipment import MessageBatch, concat, decode_messages
from sync.bus.contract import Bus

BATCHES_MAX = 64
BYTES_MAX = 1024 * 1024


class LiveTail:
    """An ephemeral channel of the topic `writer` for each listener: it has no memory, and holds nobody up."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def subscribe(self, project_ids: Collection[str]) -> AsyncIterator[MessageBatch]:
        wanted = frozenset(project_ids)
        reader = await self._bus.subscribe(WRITER, "live", ephemeral=True)
        try:
            while True:
                for delivery in await reader.fetch(BATCHES_MAX, BYTES_MAX):
                    batch = decode_messages(delivery.data)
                    if any(target.project_id in wanted for target in batch.targets):
                        yield concat([batch, derived(batch, range(len(batch)))]) if batch.forwards else batch
                    await delivery.ack()
        finally:
            await reader.close()
