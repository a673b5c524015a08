"""What a service of the pipeline is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cloud.model.output import Output
from cloud.services.store import Transaction
from protocols.messages import Lane


class Service(Protocol):
    """A hop: reads a topic, works in one transaction, and gives what goes to other topics."""

    name: str
    """Also its channel, and the hop that its progress is kept under."""
    reads: str
    writes: tuple[str, ...]

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        """Does the work for all of `batch`, in that transaction. What it returns is kept in it too, published once it
        is committed (outputs.py), and then the batch is acknowledged. It may be called again with the same batch."""
        ...

    def split(self, data: bytes) -> list[bytes]:
        """The smallest batches that one batch can be handled as instead, in order; itself if there are none."""
        ...

    async def bury(self, tx: Transaction, data: bytes, reason: str) -> None:
        """Writes one batch that `handle` fails on for good as a dead letter, and counts it."""
        ...
