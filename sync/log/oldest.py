"""Since when the oldest pending record waits: the time of its block, found without a walk through the segment."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from protocols.block import BlockHead
from sync.log.catalog import Catalog
from sync.log.disk import Disk
from sync.log.scan import scan_blocks
from sync.log.segment import Segment, segment_name
from sync.log.settings import RECENT_BLOCKS_MAX
from sync.log.tail import Position, Tail
from sync.log.threads import DiskThread, start_task


class _Known(msgspec.Struct, frozen=True):
    """The block that held the oldest pending record when it was last looked for."""

    position: Position
    head: BlockHead


class OldestPending:
    """Asked once a second or so, it goes on where it last was: through the newest blocks in memory, or by one read of
    the disk, off the event loop, whose result is the next answer."""

    def __init__(self, catalog: Catalog, tail: Tail, thread: DiskThread, disk: Disk, directory: Path) -> None:
        self._catalog = catalog
        self._tail = tail
        self._thread = thread
        self._disk = disk
        self._directory = directory
        self._known: _Known | None = None
        self._recent: deque[tuple[int, int, int, int]] = deque(maxlen=RECENT_BLOCKS_MAX)
        """Epoch, first number, the number after the last, oldest received time: of the newest blocks."""
        self._sought: tuple[int, int] | None = None
        """Epoch and number of the record that was last looked for on the disk: a damaged block is read once."""
        self._reading: asyncio.Task[None] | None = None

    def newest_ms(self) -> int | None:
        """Newest received time of its block, Unix ms; while the disk is being read, that of a block not far before it.
        None: nothing is pending."""
        pending = self._catalog.oldest_pending()
        if pending is None:
            return None
        segment, seq = pending
        place, before_ms = self._start(segment, seq)
        while found := self._tail.find(place):
            position, head, _ = found
            self._known = _Known(position, head)
            if seq < head.end_seq:
                return head.newest_ms
            place, before_ms = Position(position.ordinal, position.offset + head.size), head.newest_ms
        if self._known is not None and self._known.position == place and seq < self._known.head.end_seq:
            return self._known.head.newest_ms
        self._seek(segment, seq, place.offset)
        return before_ms

    def rewritten(self, segment: Segment) -> None:
        """Its blocks have other places now."""
        if self._known is not None and self._known.position.ordinal == segment.ordinal:
            self._known = None

    def written(self, head: BlockHead, oldest_ms: int) -> None:
        """A block is in the log, whose oldest record was received then."""
        self._recent.append((head.epoch, head.first_seq, head.end_seq, oldest_ms))

    def complete_ms(self, now_ms: int) -> int:
        """All records received before this time, Unix ms, are settled: at most `now_ms`. Exact for the newest blocks;
        of older ones, a time at most 1/64 segment too early. Records do not stand in the order of their times where a
        publisher was held up, or the clock was set back, so it looks at all that wait."""
        complete_ms = now_ms
        recent: dict[int, int] = {}
        epochs = self._catalog.epochs
        for epoch, first_seq, end_seq, oldest_ms in self._recent:
            recent.setdefault(epoch, first_seq)
            if oldest_ms < complete_ms and epoch in epochs and not epochs[epoch].settled.covers(first_seq, end_seq):
                complete_ms = oldest_ms
        for segment in self._catalog.segments_from(0):
            if segment.oldest_ms < complete_ms:
                settled, seen_from = epochs[segment.epoch].settled, recent.get(segment.epoch, segment.end_seq)
                for first_seq, end_seq, oldest_ms in segment.pieces():
                    if oldest_ms < complete_ms and not settled.covers(first_seq, min(end_seq, seen_from)):
                        complete_ms = oldest_ms
        return complete_ms

    async def close(self) -> None:
        """Waits for a read that is under way."""
        if self._reading is not None:
            await self._reading

    def _start(self, segment: Segment, seq: int) -> tuple[Position, int]:
        """The nearest block known at or before the record: its place, and its newest received time."""
        mark = segment.find(seq)
        place = Position(segment.ordinal, mark.offset)
        known = self._known
        if known is None or known.position.ordinal != segment.ordinal or known.head.first_seq > seq:
            return place, mark.newest_ms
        return max((place, mark.newest_ms), (known.position, known.head.newest_ms))

    def _seek(self, segment: Segment, seq: int, offset: int) -> None:
        if self._sought == (segment.epoch, seq) or (self._reading is not None and not self._reading.done()):
            return
        self._sought = segment.epoch, seq
        self._reading = start_task(self._read(segment, seq, offset), "oldest pending")

    async def _read(self, segment: Segment, seq: int, offset: int) -> None:
        read = functools.partial(self._disk.read, self._directory / segment_name(segment.ordinal))
        try:
            found = await self._thread.run(_holding, read, offset, segment.end_bytes, segment.epoch, seq)
        except OSError:
            return  # trimmed meanwhile, or a disk of which the readers say what is wrong
        if found is not None:
            self._known = _Known(Position(segment.ordinal, found[0]), found[1])


def _holding(
    read: Callable[[int, int], bytes], start: int, end: int, epoch: int, seq: int
) -> tuple[int, BlockHead] | None:
    """Offset and head of the block from `start` on that holds the record, or of the first one behind it."""
    for found in scan_blocks(read, start=start, end=end, seq=0, epoch=epoch):
        if seq < found.head.end_seq:
            return found.offset, found.head
    return None
