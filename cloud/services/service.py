"""What a service of the pipeline is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from cloud.services.store import Transaction
from protocols.messages import Lane


class Output(msgspec.Struct, frozen=True):
    """A batch for the next hop."""

    topic: str
    data: bytes


class Service(Protocol):
    """A hop: reads a topic, works in one transaction, and gives what goes to other topics."""

    name: str
    """Also its channel, and the hop that its progress is kept under."""
    reads: str
    writes: tuple[str, ...]

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        """Does the work for all of `batch`, in that transaction. What it returns is published before
        the transaction commits, and the batch is acknowledged after. It may be called again with the same batch."""
        ...

    def split(self, data: bytes) -> list[bytes]:
        """The smallest batches that one batch can be handled as instead, in order; itself if there are none."""
        ...

    async def bury(self, tx: Transaction, data: bytes, reason: str) -> None:
        """Writes one batch that `handle` fails on for good as a dead letter, and counts it."""
        ...
