"""The backlog in pieces: what of one segment is still to be sent, and a reader for just that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from protocols.block import BlockHead
from protocols.messages import Priority
from sync.log.errors import LogClosedError
from sync.log.segment import Mark
from sync.log.settings import READ_BYTES
from sync.log.source import Place, Source
from sync.log.threads import start_task


class Stretch(msgspec.Struct, frozen=True):
    """What one segment holds that is neither settled nor in flight, as of when it was asked for."""

    ordinal: int
    """Of the segment; rises with the log."""
    epoch: int
    first_seq: int
    """The first such record."""
    end_seq: int
    """The number after the last one."""
    records: int
    priority: Priority | None
    """The highest of the segment's blocks; None: not known before it is read."""


def stretches(source: Source) -> list[Stretch]:
    """One for each segment that has any, the newest first."""
    found: list[Stretch] = []
    for segment in reversed(source.catalog.segments_from(0)):
        unsent = source.catalog.unsent(segment)
        if unsent:
            records = sum(end - first for first, end in unsent)
            found.append(
                Stretch(segment.ordinal, segment.epoch, unsent[0][0], unsent[-1][1], records, segment.priority)
            )
    return found


class StretchReader:
    """Gives the blocks of one stretch once, in order. Made by `Log.stretch_reader`; used from one task.

    Passed over are blocks without a record that is pending and not in flight when their turn comes. While one piece
    (READ_BYTES) is given, the next one is read.
    """

    def __init__(
        self,
        stretch: Stretch,
        source: Source,
        *,
        until: Place | None,
        least: Priority,
        on_close: Callable[[StretchReader], None],
    ) -> None:
        self._stretch = stretch
        self._source = source
        self._end_seq = stretch.end_seq
        if until is not None and until.ordinal <= stretch.ordinal:
            self._end_seq = min(stretch.end_seq, until.seq) if until.ordinal == stretch.ordinal else stretch.first_seq
        self._least = least
        self._on_close = on_close
        self._next: Mark | None = None
        """Where reading goes on."""
        self._seq = stretch.first_seq
        self._version = 0
        """Of the segment's file that `_next` is in."""
        self._ahead: deque[tuple[BlockHead, bytes]] = deque()
        self._ahead_bytes = 0
        self._is_read = self._end_seq <= stretch.first_seq
        self._reading: asyncio.Task[None] | None = None
        self._failure: OSError | None = None
        self._progress = asyncio.Event()
        self._closed = False

    async def next(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """Whole blocks: at least one, at most `blocks_max`, and of at most `bytes_max` together unless the first alone
        is larger; none when the stretch has ended. May be cancelled without loss.

        Raises LogClosedError once the log or the reader is closed, OSError if the disk cannot be read (call again).
        """
        await self.ready()
        return self.take(blocks_max, bytes_max)

    async def ready(self) -> None:
        """Returns once `take` has something to give, or the stretch has ended; raises like `next`."""
        while True:
            if self._closed:
                raise LogClosedError("the reader is closed")
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            self._pass_over()
            if self._ahead or self.ended:
                return
            self._read_on()
            self._progress.clear()
            await self._progress.wait()

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """What is at hand, within the same bounds; maybe nothing."""
        given: list[bytes] = []
        size = 0
        while len(given) < max(1, blocks_max):
            self._pass_over()
            if not self._ahead or (given and size + len(self._ahead[0][1]) > bytes_max):
                break
            data = self._pop()
            given.append(data)
            size += len(data)
        if self._ahead_bytes < READ_BYTES and self._failure is None:
            self._read_on()
        return given

    @property
    def ended(self) -> bool:
        """Whether everything was given."""
        return self._is_read and not self._ahead

    def close(self) -> None:
        """A waiting `next` raises LogClosedError."""
        if not self._closed:
            self._closed = True
            self._ahead.clear()
            self._progress.set()
            self._on_close(self)

    def _pass_over(self) -> None:
        """Lets go of blocks at the front that are not to be sent any more."""
        while self._ahead and not self._source.catalog.has_unsent(self._ahead[0][0]):
            self._pop()

    def _pop(self) -> bytes:
        _, data = self._ahead.popleft()
        self._ahead_bytes -= len(data)
        return data

    def _read_on(self) -> None:
        if not self._is_read and not self._closed and (self._reading is None or self._reading.done()):
            self._reading = start_task(self._read(), "stretch")

    async def _read(self) -> None:
        """Pieces, until one has something to give."""
        try:
            while not self._is_read and not await self._read_piece():
                pass
        except OSError as error:
            self._failure = error
        self._progress.set()

    async def _read_piece(self) -> bool:
        """Whether there is something to give in it."""
        segment = self._source.catalog.get(self._stretch.ordinal)
        if segment is None:
            self._is_read = True
            return False
        if self._next is None or self._version != segment.version:
            self._next = Mark(self._seq, segment.find(self._seq).offset, 0)
            self._version = segment.version
        try:
            piece = await self._source.read(segment, self._next)
        except FileNotFoundError:
            self._source.on_damage(segment, segment.first_seq, segment.end_seq)
            self._is_read = True
            return False
        if piece is None:
            return False
        before = len(self._ahead)
        for _, head, data in piece.blocks:
            if head.first_seq < self._end_seq and head.priority >= self._least:
                self._ahead.append((head, data))
                self._ahead_bytes += len(data)
        self._next, self._seq = piece.behind, piece.behind.seq
        self._is_read = self._seq >= min(self._end_seq, segment.end_seq)
        return len(self._ahead) > before
