"""What the gateway's side of the link needs from its owner."""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocols.messages import Command, Lane
from sync.registry import RegistryChange


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
