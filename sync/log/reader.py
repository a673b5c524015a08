"""Reads the log's blocks in order: from memory while it keeps up, else from the disk in large pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from protocols.block import BlockHead
from sync.log.errors import LogClosedError
from sync.log.segment import Mark, Segment
from sync.log.source import Place, Source
from sync.log.tail import Position


class LogReader:
    """One reader's place in the log. Made by `Log.reader`; one `next` at a time.

    It never holds back trimming: what was removed before it came is added to `skipped`.
    """

    ended: Final = False
    """It follows the log."""

    def __init__(self, name: str, source: Source, on_close: Callable[[LogReader], None]) -> None:
        self.name = name
        self.skipped = 0
        """Records that were trimmed or damaged before this reader came to them."""
        self._source = source
        self._on_close = on_close
        self._at = Position(0, 0)
        """Of the next block to give."""
        self._seq = 0
        """The number that block starts with, if nothing is missing."""
        self._known_until = Position(0, 0)
        """Before it, blocks that are accepted entirely are passed over."""
        self._ahead: deque[tuple[Position, BlockHead, bytes]] = deque()
        """Read from the disk, not given yet: at most READ_BYTES and a block."""
        self._moves = 0
        self._closed = False
        self._more = asyncio.Event()

    async def next(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """Whole blocks, as they stand on the disk: at least one, at most `blocks_max`, and of at most `bytes_max`
        together unless the first alone is larger. Waits while there is none. Only synced blocks are seen.

        Raises LogClosedError once the log or the reader is closed, OSError if the disk cannot be read (call again).
        """
        while True:
            await self.ready()
            blocks = self.take(blocks_max, bytes_max)
            if blocks:
                return blocks

    async def ready(self) -> None:
        """Returns once `take` has blocks at hand, though they may turn out to be accepted; raises like `next`. May be
        cancelled without loss."""
        while True:
            if self._closed:
                raise LogClosedError(f"the log's reader {self.name} is closed")
            segment = self._enter()
            if segment is None or self._at.offset >= segment.end_bytes:
                self._more.clear()
                await self._more.wait()
            elif self._ahead or self._at in self._source.tail:
                return
            else:
                await self._read(segment)

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """What is at hand, within the same bounds; maybe nothing."""
        given: list[bytes] = []
        size = 0
        while len(given) < max(1, blocks_max):
            found = self._ahead[0] if self._ahead else self._source.tail.find(self._at)
            if found is None:
                break
            position, head, data = found
            if given and size + len(data) > bytes_max:
                break
            if self._ahead:
                self._ahead.popleft()
            self.skipped += max(0, head.first_seq - self._seq)
            self._at = Position(position.ordinal, position.offset + len(data))
            self._seq = head.end_seq
            if not self._is_known(position, head):
                given.append(data)
                size += len(data)
        return given

    @property
    def place(self) -> Place:
        """Before the next block to give."""
        return Place(self._at.ordinal, self._seq)

    def rewind(self) -> None:
        """To the oldest record that is not accepted. Of the blocks that the log has by now, those that are accepted
        entirely are passed over; later ones are all given."""
        self._known_until = self._end()
        pending = self._source.catalog.oldest_pending()
        if pending is None:
            self.to_end()
        else:
            segment, seq = pending
            self._move(segment.ordinal, segment.find(seq))

    def to_end(self) -> None:
        """Behind the last synced block."""
        last = self._source.catalog.last()
        if last is not None:
            self._move(last.ordinal, Mark(last.end_seq, last.end_bytes, 0))

    def skip_to_end(self) -> int:
        """Like `to_end`; returns how many records were passed over, and adds them to `skipped`."""
        count = sum(self._unread(segment) for segment in self._source.catalog.segments_from(self._at.ordinal))
        self.skipped += count
        self.to_end()
        return count

    @property
    def behind_bytes(self) -> int:
        """Of synced blocks that this reader has not given yet."""
        total = 0
        for segment in self._source.catalog.segments_from(self._at.ordinal):
            total += max(0, segment.end_bytes - (self._at.offset if self._is_in(segment) else segment.start_bytes))
        return total

    def close(self) -> None:
        """A waiting `next` raises LogClosedError."""
        if not self._closed:
            self._closed = True
            self._more.set()
            self._on_close(self)

    def wake(self) -> None:
        """The log has more, or is closing."""
        self._more.set()

    def removed(self, segments: Iterable[Segment]) -> None:
        """These were trimmed."""
        for segment in segments:
            if Position(segment.ordinal, segment.end_bytes) > self._known_until:
                self.skipped += self._unread(segment)
            if segment.ordinal == self._at.ordinal:
                self._ahead.clear()
        self._more.set()

    def rewritten(self, segment: Segment) -> None:
        """Its blocks have other places now."""
        if segment.ordinal == self._at.ordinal:
            self._move(segment.ordinal, Mark(self._seq, segment.find(self._seq).offset, 0))
        self._more.set()

    def _move(self, ordinal: int, mark: Mark) -> None:
        self._moves += 1
        self._ahead.clear()
        self._at = Position(ordinal, mark.offset)
        self._seq = mark.seq
        self._more.set()

    def _end(self) -> Position:
        last = self._source.catalog.last()
        return Position(0, 0) if last is None else Position(last.ordinal, last.end_bytes)

    def _unread(self, segment: Segment) -> int:
        """Records of the segment that are still to be given."""
        if segment.ordinal < self._at.ordinal:
            return 0
        return segment.end_seq - (self._seq if self._is_in(segment) else segment.first_seq)

    def _is_in(self, segment: Segment) -> bool:
        """Whether the place is in the segment; not before it, where the one that it will be is not known yet."""
        return segment.ordinal == self._at.ordinal and self._at.offset >= segment.start_bytes

    def _enter(self) -> Segment | None:
        """The segment that the place is in, once those that are read or gone are left behind; None: the log ends."""
        catalog = self._source.catalog
        while True:
            segment = catalog.next_from(self._at.ordinal)
            if segment is None:
                return None
            if not self._is_in(segment):
                self._move(segment.ordinal, segment.find(segment.first_seq))
            read = self._at.offset >= segment.end_bytes
            known = Position(segment.ordinal, segment.end_bytes) <= self._known_until and catalog.is_settled(segment)
            if not segment.sealed or not (read or known):
                return segment
            self._move(segment.ordinal + 1, Mark(0, 0, 0))

    def _is_known(self, position: Position, head: BlockHead) -> bool:
        """Whether the block may be passed over because the cloud has it."""
        return position < self._known_until and self._source.catalog.is_accepted(
            head.epoch, head.first_seq, head.end_seq
        )

    async def _read(self, segment: Segment) -> None:
        """Fills `_ahead` from the disk."""
        moves, known = self._moves, self._at < self._known_until
        try:
            piece = await self._source.read(segment, Mark(self._seq, self._at.offset, 0))
        except FileNotFoundError:
            if self._moves == moves:
                # Trimmed a moment ago, and the keeper is about to say so; or somebody else removed it, and what was
                # not accepted is lost.
                unread = self._unread(segment)
                lost = self._source.on_damage(segment, segment.first_seq, segment.end_seq)
                self.skipped += lost if known else unread
                self._move(segment.ordinal + 1, Mark(0, 0, 0))
            return
        if self._moves != moves or piece is None:
            return
        self._ahead.extend((Position(segment.ordinal, offset), head, data) for offset, head, data in piece.blocks)
        if not piece.blocks:
            self.skipped += piece.behind.seq - self._seq
            self._at, self._seq = Position(segment.ordinal, piece.behind.offset), piece.behind.seq
