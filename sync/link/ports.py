"""What the link needs from its owners: a connection at either end; at the gateway blocks, books, and ears for the
cloud; in the cloud somewhere to put them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from protocols.messages import Anchor, Command, Gap, Lane
from sync.link.frames import (
    CommandKept,
    CommandProgress,
    Configuration,
    ConfigurationResult,
    Credit,
    Span,
    Standing,
)
from sync.registry import RegistryChange


class Transport(Protocol):
    """A connection that keeps the bounds of messages, the same for both ends. Frames may be sent by several tasks, and
    are received by one."""

    sent_bytes: int
    """Of messages that the transport has passed on so far. A frame on a thin link takes a while: while this grows, the
    connection lives."""

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


# ---- at the gateway ----


class Parcel(msgspec.Struct, frozen=True):
    """Blocks for one frame, of one lane."""

    lane: Lane
    blocks: list[bytes]


class Room(msgspec.Struct, frozen=True):
    """What a parcel may hold now. A single block larger than this may come alone: it waits until it fits."""

    blocks_max: int
    bytes_max: int
    """Of a parcel of live blocks; 0: none now."""
    backfill_bytes_max: int
    """Of one of backfill; 0: none now."""


class BlockSource(Protocol):
    """Where the blocks come from. Called from the event loop, by one connection at a time."""

    def begin(self, wake: Callable[[], None]) -> None:
        """A connection is up, and nothing is in flight. `wake` is to be called when `take` may give something after it
        gave nothing."""
        ...

    def take(self, room: Room) -> Parcel | None:
        """What is to be sent next; None: nothing that there is room for. What was taken is in flight until it is
        accepted, or all of it is given back."""
        ...

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        """The cloud has these records for good."""
        ...

    def give_back(self) -> None:
        """Nothing is in flight any more: what was taken and not accepted counts as not sent."""
        ...

    async def end(self) -> None:
        """The connection is gone, and with it all that was in flight. Also called where `begin` was not."""
        ...


class Books(Protocol):
    """What a gateway tells beside its blocks, and what the cloud says of it. Nothing here waits. The link tells the
    cloud of it where the cloud has the feature `books`."""

    def greeted(self, server_time_ms: int, round_trip_ms: int) -> None:
        """A connection is up, and nothing was told on it yet. The cloud said its time: an anchor may come of that. It
        may be another cloud than last time, or a restored one."""
        ...

    def probed(self, server_time_ms: int, round_trip_ms: int) -> None:
        """The same cloud said its time once more."""
        ...

    def anchors(self) -> Sequence[Anchor]:
        """Durable here, and not known to be in the cloud. No block is shipped while there are any. Asked often."""
        ...

    def anchors_kept(self, anchors: Sequence[Anchor]) -> None:
        """These are durable in the cloud."""
        ...

    def gaps(self, limit: int) -> Sequence[Gap]:
        """The next ones to tell."""
        ...

    def gaps_kept(self, gaps: Sequence[Gap], has: Sequence[Span]) -> None:
        """These are durable in the cloud, which has the records `has` among them after all."""
        ...

    def standing(self) -> Standing: ...

    def holdings(self) -> Sequence[Span]:
        """Records that are known to be in the cloud and are still here: it may have lost them."""
        ...

    def resend(self, spans: Sequence[Span]) -> None:
        """The cloud does not have these of the holdings: they count as not accepted."""
        ...


class Downlink(Protocol):
    """What the cloud sends the gateway. Both hold up the link's reading while they run, so they are to be short."""

    async def registry_changed(self, change: RegistryChange) -> None:
        """Raises StaleReplicaError to get a snapshot instead."""
        ...

    async def command_arrived(self, command: Command) -> None:
        """To be carried out; one that came before may come again."""
        ...

    def linked(self, *, confirmed: bool) -> None:
        """A connection is up; nothing was reported on it yet. `confirmed`: each report will be answered by
        `command_kept`; otherwise one that was sent counts as known."""
        ...

    def command_kept(self, kept: CommandKept) -> None:
        """The cloud has this state of the command durably."""
        ...


class Configured(Protocol):
    """What the cloud has the gateway listen on. Nothing here waits."""

    def wanted(self, configuration: Configuration) -> None:
        """To be put in force; one that came before may come again."""
        ...

    def result(self) -> ConfigurationResult | None:
        """What became of the last one; None: there was none."""
        ...


# ---- in the cloud ----


class NotTakenError(Exception):
    """Raised by Intake or CloudBooks: it is not stored. The gateway keeps blocks and sends them again later; what
    belongs to the books is asked to be stored again after a while."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Intake(Protocol):
    """Where blocks go. Called for several requests at a time; the credit bounds how much that is."""

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        """Returns once all of them are durable. They are whole: each checksum was verified. The same block may come
        again, also from another connection. Raises NotTakenError."""
        ...


class CloudBooks(Protocol):
    """What a gateway tells beside its blocks. One call at a time for each connection, and each of them may raise
    NotTakenError. The same may come again, also from another connection."""

    async def keep_anchors(self, anchors: Sequence[Anchor]) -> None:
        """Returns once they are durable. Records that they date come after it."""
        ...

    async def keep_gaps(self, gaps: Sequence[Gap]) -> Sequence[Span]:
        """Returns once they are durable, with what of their records is here after all."""
        ...

    async def standing(self, standing: Standing) -> None:
        """Where records are at the gateway. The newest one counts; some may be left out."""
        ...

    async def holdings(self, spans: Sequence[Span]) -> Sequence[Span]:
        """What of it is missing here, and is to be sent again."""
        ...


class CreditFeed(Protocol):
    def credits(self) -> AsyncIterator[Credit]:
        """What the gateway may have in flight: as it is now, at once, then each change. Neither figure is between 0
        and CREDIT_BYTES_MIN."""
        ...


class RegistryFeed(Protocol):
    def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        """What leads from `base_revision` (0: from nothing) to now, then each change as it happens."""
        ...


class CommandFeed(Protocol):
    def commands(self) -> AsyncIterator[Command | CommandKept]:
        """Commands for the gateway's devices as they come up, those that it does not say that it has again; and the
        states that it told, once they are durable here."""
        ...

    async def progress(self, progress: CommandProgress) -> None:
        """Short: it holds up the link's reading. `commands` gives the answer."""
        ...


class ConfigurationFeed(Protocol):
    def configurations(self, revision: int | None) -> AsyncIterator[Configuration]:
        """The one that the gateway is to have, unless that is `revision`, then each change as it happens. None: the
        gateway is of a version that takes none, so nothing comes; it is for the feed to say so to people."""
        ...

    async def became(self, result: ConfigurationResult) -> None:
        """Short: it holds up the link's reading."""
        ...
