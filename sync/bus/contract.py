"""The bus: topics are streams of batches, channels are their consumer groups.

Each channel of a topic gets every batch; one reader of a channel gets each. Delivery is at least once: a batch that its
reader did not acknowledge (it died, or said `nak`) goes to another reader of the channel, or to the same one again.

`publish` returns when the batch is safe to forget, which is the transport's to define: JetStream has it synced; at the
edge, the channels that count for the topic have acknowledged it. A publisher that gets an error or no answer publishes
again with the same key, and the batch is kept once.
"""

from __future__ import annotations

from typing import Protocol

from protocols.batch import BatchKey
from protocols.messages import Lane


class BusError(Exception):
    """Retry: the bus could not take or deliver a batch now."""


class BusFullError(BusError):
    """Retry later, more slowly: a bound is reached; nothing was kept."""


class BusRefusedError(BusError):
    """Do not publish this batch again: a channel that counts refused it, and why stands in the text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Delivery(Protocol):
    """One batch for one reader, and the means to answer for it."""

    @property
    def data(self) -> bytes: ...

    @property
    def lane(self) -> Lane: ...

    @property
    def key(self) -> BatchKey | None:
        """The key that the publisher gave; None where it gave none."""
        ...

    @property
    def redelivered(self) -> bool:
        """True if an earlier delivery of this batch may have been seen by some reader."""
        ...

    async def ack(self) -> None:
        """The batch is dealt with. Returns once the transport has taken the answer, which may still be lost."""
        ...

    async def nak(self, delay_s: float = 0.0) -> None:
        """Deliver it again, not sooner than `delay_s`."""
        ...

    async def refuse(self, code: str, detail: str) -> None:
        """It will never be accepted: tell the publisher (where the transport still knows one), deliver it no more."""
        ...


class Reader(Protocol):
    """One consumer of a channel."""

    @property
    def missed(self) -> int:
        """Batches that an ephemeral reader was told it missed since it subscribed (0 on durable channels)."""
        ...

    async def fetch(self, batches_max: int, bytes_max: int) -> list[Delivery]:
        """At least one delivery; more if they are there already, up to about both bounds. Waits while there is none."""
        ...

    async def close(self) -> None:
        """Gives back what was fetched and not answered."""
        ...


class Bus(Protocol):
    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        """Returns when the batch is safe to forget. Raises BusError (retry, same key) or BusRefusedError (never)."""
        ...

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> Reader:
        """A reader of `channel`. An ephemeral channel has no memory: it gets what comes while it reads, and is told
        how many batches it missed when it falls behind."""
        ...

    async def close(self) -> None: ...
