"""What the link needs from its owners: a connection at either end, and at the gateway blocks and ears for the cloud."""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocols.messages import Command, Lane
from sync.registry import RegistryChange


class Transport(Protocol):
    """A connection that keeps the bounds of messages, the same for both ends. Frames may be sent by several tasks, and
    are received by one."""

    async def receive(self) -> bytes:
        """The next message. Raises TransportClosedError."""
        ...

    async def send(self, data: bytes) -> None:
        """Returns when the transport has taken it. Raises TransportClosedError."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Closes in good order, which waits for a peer that goes along. Never raises; nothing happens if it is
        closed."""
        ...

    def abort(self) -> None:
        """Ends it at once; whoever waits in the other calls gets TransportClosedError or returns."""
        ...


class Dial(Protocol):
    """Opens the connection to the cloud."""

    async def __call__(self, token: str, *, software: str) -> Transport:
        """`token` says who calls, `software` what. Raises DialError; may be cancelled."""
        ...


class Parcel(msgspec.Struct, frozen=True):
    """Blocks for one frame, of one lane."""

    lane: Lane
    blocks: list[bytes]


class BlockSource(Protocol):
    """Where the blocks come from, in order. Called from one task at a time."""

    async def next(self, blocks_max: int, bytes_max: int) -> Parcel:
        """At least one block, more up to about both bounds; waits while there is none. May be cancelled: `rewind`
        follows before the next call."""
        ...

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The cloud has these records for good."""
        ...

    def rewind(self) -> None:
        """Start again from the oldest block that was not accepted: the connection is new, or one was refused."""
        ...


class Downlink(Protocol):
    """What the cloud sends the gateway. Both hold up the link's reading while they run, so they are to be short."""

    async def registry_changed(self, change: RegistryChange) -> None:
        """Raises StaleReplicaError to get a snapshot instead."""
        ...

    async def command_arrived(self, command: Command) -> None: ...
