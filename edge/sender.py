"""Log to link: what is new first, the backlog beside it, and what the cloud says of them back into the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.backfill import Backfill
from edge.feed import Feed
from edge.rate import Rate
from protocols.block import read_head
from protocols.messages import Lane
from sync.link.ports import Parcel, Room
from sync.log.log import Log, LogReader
from tidegate.logs import get_logger

LIVE_S: Final = 5.0
LIVE_BYTES: Final = 1024 * 1024
"""New records that wait longer, or behind more than this, are left to backfill: the link does not carry them, and those
who look on want to see what is, not what was."""

LIVE_PER_BACKFILL: Final = 3
"""Bytes of live for each of backfill, while both wait: a backlog gets a quarter of the link, however much is new."""

OWED_BYTES_MAX: Final = 256 * 1024
"""What backfill can be owed: a frame. While the cloud gives it no credit, its share does not pile up."""

logger = get_logger("sender")


class SenderFigures(msgspec.Struct, frozen=True):
    """What went to the cloud since the start. `records_sent` counts a record each time it is sent; so
    records_sent = records_accepted + records_resent + in flight."""

    blocks_sent: int
    bytes_sent: int
    """Of blocks as they stand in the log; over the wire it is less (LinkStatus.wire_bytes_sent)."""
    records_sent: int
    backfill_records_sent: int
    """Of them, as backfill."""
    records_accepted: int
    records_resent: int
    """Sent, and not accepted before the link broke or the cloud refused them."""
    live_left: int
    """Times that what was new had to be left to backfill."""
    accepted_per_s: float
    """Records, lately."""


class Sender:
    """The link's BlockSource over the log."""

    def __init__(self, log: Log, accept: Callable[[int, int, int], None], *, monotonic_s: Callable[[], float]) -> None:
        """`accept(epoch, first seq, end seq)` is the log's."""
        self._log = log
        self._accept = accept
        self._monotonic_s = monotonic_s
        self._rate = Rate(monotonic_s)
        self._live: LogReader | None = None
        self._follow: Feed | None = None
        self._backfill: Backfill | None = None
        self._owed_bytes = 0
        """To backfill, for what live had while both waited."""
        self._marked_s = 0.0
        self._marked_bytes = 0
        """What live has still to give until it is where the log was at `_marked_s`."""
        self._blocks = 0
        self._bytes = 0
        self._sent = 0
        self._backfilled = 0
        self._accepted = 0
        self._resent = 0
        self._left = 0

    def begin(self, wake: Callable[[], None]) -> None:
        self._log.nothing_in_flight()
        self._live = self._log.reader("link", at="end")
        self._follow = Feed((self._live,), wake)
        self._backfill = Backfill(self._log, wake)
        self._leave_behind()

    def take(self, room: Room) -> Parcel | None:
        if self._backfill is None or self._live is None:
            return None
        self._look_behind(self._live)
        first, second = self._take_live, self._take_backfill
        if self._owed_bytes >= min(OWED_BYTES_MAX, room.backfill_bytes_max):
            first, second = second, first
        return first(room) or second(room)

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        self._accepted += end_seq - first_seq
        self._rate.add(end_seq - first_seq)
        self._accept(epoch, first_seq, end_seq)

    def give_back(self) -> None:
        self._resent = self._sent - self._accepted
        self._log.nothing_in_flight()
        self._leave_behind()

    def look_again(self) -> None:
        """Records that were settled are pending again."""
        if self._backfill is not None:
            self._backfill.look_again()

    async def end(self) -> None:
        follow, backfill = self._follow, self._backfill
        self._live = self._follow = self._backfill = None
        self._resent = self._sent - self._accepted
        self._log.nothing_in_flight()
        if follow is not None:
            await asyncio.wait((follow.cancel(),))
        if backfill is not None:
            await backfill.close()

    def figures(self) -> SenderFigures:
        return SenderFigures(
            blocks_sent=self._blocks,
            bytes_sent=self._bytes,
            records_sent=self._sent,
            backfill_records_sent=self._backfilled,
            records_accepted=self._accepted,
            records_resent=self._resent,
            live_left=self._left,
            accepted_per_s=self._rate.per_s(),
        )

    def drain_s(self, pending_records: int) -> float | None:
        """How long until nothing waits, at the rate of lately, were nothing more to come; None while nothing moves."""
        if not pending_records:
            return 0.0
        rate = self._rate.per_s()
        return pending_records / rate if rate >= 1.0 else None

    def _take_live(self, room: Room) -> Parcel | None:
        if not room.bytes_max or self._follow is None or self._backfill is None:
            return None
        blocks = self._pending(self._follow.take, room.blocks_max, room.bytes_max)
        if not blocks:
            return None
        size = self._send(blocks)
        self._marked_bytes -= size
        if self._backfill.is_waiting:
            self._owed_bytes = min(OWED_BYTES_MAX, self._owed_bytes + size // LIVE_PER_BACKFILL)
        return Parcel(Lane.LIVE, blocks)

    def _take_backfill(self, room: Room) -> Parcel | None:
        if not room.backfill_bytes_max or self._backfill is None:
            return None
        blocks = self._pending(self._backfill.take, room.blocks_max, room.backfill_bytes_max)
        if not blocks:
            return None
        sent = self._sent
        size = self._send(blocks)
        self._backfilled += self._sent - sent
        self._owed_bytes = max(0, self._owed_bytes - size)
        return Parcel(Lane.BACKFILL, blocks)

    def _pending(self, take: Callable[[int, int], list[bytes]], blocks_max: int, bytes_max: int) -> list[bytes]:
        """What `take` gives, but for blocks that were evicted since they were read ahead: they are gaps by now."""
        while blocks := take(blocks_max, bytes_max):
            left = [block for block in blocks if self._log.is_pending(read_head(block))]
            if left:
                return left
        return []

    def _send(self, blocks: Sequence[bytes]) -> int:
        """Notes that they are in flight; their size in bytes."""
        size = 0
        for block in blocks:
            head = read_head(block)
            self._log.sending(head.epoch, head.first_seq, head.end_seq)
            self._sent += head.records
            size += len(block)
        self._blocks += len(blocks)
        self._bytes += size
        return size

    def _look_behind(self, live: LogReader) -> None:
        """Leaves what is new behind if the link does not keep up with it."""
        now_s = self._monotonic_s()
        behind_bytes = live.behind_bytes
        if self._marked_bytes <= 0:
            self._marked_s, self._marked_bytes = now_s, behind_bytes
        if behind_bytes > LIVE_BYTES or now_s - self._marked_s > LIVE_S:
            self._left += 1
            logger.info("the link does not keep up", left_bytes=behind_bytes)
            self._leave_behind()

    def _leave_behind(self) -> None:
        """What is not in flight now is backfill; live goes on with what comes."""
        assert self._live is not None, "a connection is up"
        assert self._backfill is not None, "a connection is up"
        self._live.to_end()
        self._marked_bytes = 0
        self._backfill.begin(self._live.place)
