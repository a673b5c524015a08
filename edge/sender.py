"""Log to link: the blocks of the log, in order, and what the cloud says of them back into the log."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from edge.ahead import ReadAhead
from protocols.block import read_head
from protocols.messages import Lane
from sync.link.ports import Parcel, Room

LIVE_MS: Final = 5_000
"""A block whose newest record is older than this waited for the link: it is backfill."""

RATE_OVER_S: Final = 15.0
"""The rate that the drain estimate goes by is a mean over about this time, newer seconds counting more."""


class BlockReader(Protocol):
    """The log's reader for the link."""

    async def next(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """Whole blocks, at least one; waits while there is none. Raises OSError if the disk cannot be read now."""
        ...

    def rewind(self) -> None:
        """To the oldest block that is not accepted."""
        ...


class SenderFigures(msgspec.Struct, frozen=True):
    """What went to the cloud since the start. `records_sent` counts a record each time it is sent; so
    records_sent = records_accepted + records_resent + in flight."""

    blocks_sent: int
    bytes_sent: int
    """Of blocks as they stand in the log; over the wire it is less (LinkStatus.wire_bytes_sent)."""
    records_sent: int
    records_accepted: int
    records_resent: int
    """Sent, and not accepted before the link broke or the cloud refused them."""
    accepted_per_s: float
    """Records, lately."""


class Sender:
    """The link's BlockSource over a log's reader."""

    def __init__(
        self,
        reader: BlockReader,
        accept: Callable[[int, int, int], None],
        *,
        wall_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        """`accept(epoch, first seq, end seq)` is the log's."""
        self._reader = reader
        self._accept = accept
        self._wall_ms = wall_ms
        self._ahead: ReadAhead | None = None
        self._rate = _Rate(monotonic_s)
        self._blocks = 0
        self._bytes = 0
        self._sent = 0
        self._accepted = 0
        self._resent = 0

    def begin(self, wake: Callable[[], None]) -> None:
        self.give_back()
        self._ahead = ReadAhead(self._reader.next, wake)

    def take(self, room: Room) -> Parcel | None:
        if self._ahead is None:
            return None
        blocks = self._ahead.take(room.blocks_max, room.bytes_max)
        if not blocks:
            return None
        newest_ms = 0
        for block in blocks:
            head = read_head(block)
            self._sent += head.records
            newest_ms = max(newest_ms, head.newest_ms)
        self._blocks += len(blocks)
        self._bytes += sum(map(len, blocks))
        return Parcel(Lane.BACKFILL if newest_ms < self._wall_ms() - LIVE_MS else Lane.LIVE, blocks)

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        self._accepted += end_seq - first_seq
        self._rate.add(end_seq - first_seq)
        self._accept(epoch, first_seq, end_seq)

    def give_back(self) -> None:
        self._resent = self._sent - self._accepted
        self._reader.rewind()
        if self._ahead is not None:
            self._ahead.clear()

    async def end(self) -> None:
        if self._ahead is not None:
            await self._ahead.close()
            self._ahead = None

    def figures(self) -> SenderFigures:
        return SenderFigures(self._blocks, self._bytes, self._sent, self._accepted, self._resent, self._rate.per_s())

    def drain_s(self, pending_records: int) -> float | None:
        """How long until nothing waits, at the rate of lately, were nothing more to come; None while nothing moves."""
        if not pending_records:
            return 0.0
        rate = self._rate.per_s()
        return pending_records / rate if rate >= 1.0 else None


class _Rate:
    """A count per second that forgets: each count weighs less by exp(-age / RATE_OVER_S)."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._weighed = 0.0
        self._at_s = self._started_s = monotonic_s()

    def add(self, count: int) -> None:
        self._age()
        self._weighed += count

    def per_s(self) -> float:
        self._age()
        # Until RATE_OVER_S have passed, the mean is over less time than that.
        return self._weighed / (RATE_OVER_S * (1.0 - math.exp((self._started_s - self._at_s) / RATE_OVER_S)) or 1.0)

    def _age(self) -> None:
        now_s = self._monotonic_s()
        self._weighed *= math.exp((self._at_s - now_s) / RATE_OVER_S)
        self._at_s = now_s
