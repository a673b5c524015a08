"""The bus: topics are streams of batches, channels are their consumer groups.

Each channel of a topic gets every batch; one reader of a channel gets each. Delivery is at least once: a batch that its
reader did not acknowledge (it died, or said `nak`) goes to another reader of the channel, or to the same one again.

`publish` returns when the batch is safe to forget, which is the transport's to define: JetStream has it synced; at the
edge, the channels that count for the topic have acknowledged it. A publisher that gets an error or no answer publishes
again with the same key, and whoever keeps the batch passes over the second one: the recorder by its key, JetStream by
its message id, hops by record numbers.

Batches of one publisher reach a channel's only reader in the order of their `publish` calls, until one is given back
(`nak`, a reader's death, a publisher's retry): that one comes again, behind batches that were already handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from protocols.batch import BatchKey
from protocols.messages import Lane


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic, and the channels that each of its batches must reach."""

    name: str
    channels: tuple[str, ...] = ()
    """At the edge, those that count: publish is answered once all have acknowledged. In the cloud, the durable ones: a
    batch is kept until all have acknowledged."""
    bytes_max: int = 64 * 1024 * 1024
    """Batches that some channel above has not acknowledged yet; beyond it, publish raises BusFullError."""
    public: bool = False
    """At the edge: processes outside the gateway may publish here. Reading from outside is allowed on every topic, but
    not as one of `channels`."""


class BusError(Exception):
    """Retry: the bus could not take or deliver a batch now."""


class BusFullError(BusError):
    """Retry later, more slowly: a bound is reached; nothing was kept."""


class BusRefusedError(Exception):
    """Do not ask again, which is why it is no BusError: a channel that counts refused the batch, or the bus does not
    allow what was asked for."""

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
        """Batches that this reader was told its channel lost since it subscribed: an ephemeral one, or one at the edge
        that does not count, fell behind. 0 on the channels of the topic's TopicSpec."""
        ...

    async def fetch(self, batches_max: int, bytes_max: int) -> Sequence[Delivery]:
        """At least one delivery, more if they are there already, all of one lane: up to `batches_max`, and up to
        `bytes_max` of data unless the first alone is larger. Waits while there is none. One call at a time.

        Raises BusError once the reader or the bus is closed, BusRefusedError if the bus ended the subscription."""
        ...

    async def close(self) -> None:
        """Gives back what was fetched and not answered."""
        ...


class Bus(Protocol):
    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        """Returns when the batch is safe to forget. Raises BusError (retry, same key) or BusRefusedError (never).

        Each publish has a deadline. After an error the batch may still have been taken: hence the key."""
        ...

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> Reader:
        """A reader of `channel`. An ephemeral reader is a channel of its own, whose name is for people: it gets
        every batch that comes while it reads, has no memory, and is told how many it missed when it falls behind.

        Raises BusRefusedError for what the bus does not allow or know."""
        ...

    async def close(self) -> None:
        """Closes its readers; publishes without an answer raise BusError."""
        ...


class DurableBus(Bus, Protocol):
    """The cloud's bus, whose lanes may have readers of their own: what takes long in one then never holds the other."""

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False, lane: Lane | None = None) -> Reader:
        """As above. `lane`: only batches of this lane, of a durable channel; None: of both, live first and backfill
        with a share of the bytes."""
        ...
