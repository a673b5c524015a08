"""Turns entries into blocks and puts them on the disk. Runs in the log's writer thread, one call at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocols.block import HEAD_BYTES, BlockHead, encode_block, read_head
from protocols.limits import BLOCK_BYTES_MAX, SEQ_MAX
from sync.log.disk import Disk, SyncedFile
from sync.log.entry import Entry
from sync.log.keys import KeyTable
from sync.log.segment import HEADER_BYTES, Ended, SegmentHeader, encode_header, segment_name
from sync.log.settings import HEADER_SHARE

ENTRY_OVERHEAD_BYTES: Final = 4
"""A batch's length, before it in the block."""


class Block(msgspec.Struct, frozen=True):
    head: BlockHead
    data: bytes
    oldest_ms: int
    """Oldest received time of its records."""


class Placed(msgspec.Struct, frozen=True):
    """A block that is synced, and where."""

    block: Block
    ordinal: int
    offset: int


class Written(msgspec.Struct, frozen=True):
    """What came of one write."""

    placed: Placed | None
    rest: list[Block]
    """Blocks still to be written; there is room for them."""
    sealed: list[int]
    """Ordinals of segments to which nothing more is written."""
    fenced: int | None = None
    """Of them, the one to which the write failed."""
    spoiled: int | None = None
    """The ordinal of a segment that failed before anything was synced in it."""
    failure: OSError | None = None
    """What kept the block from being synced. Nothing that was not is tried again."""


class NeedSegments(msgspec.Struct, frozen=True):
    """Nothing was written: these blocks take `count` more prepared segments than were given."""

    blocks: list[Block]
    count: int


class _Active(msgspec.Struct):
    ordinal: int
    epoch: int
    file: SyncedFile
    end_bytes: int
    end_seq: int
    classes: int
    """As in Ended."""


class SegmentWriter:
    """Writes one epoch after the other: a new one when a write failed, or when the numbers of one are used up."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        segment_bytes: int,
        keys: KeyTable,
        previous: Ended,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._keys = keys
        self._previous = previous
        self._wall_ms = wall_ms
        self._new_epoch = new_epoch
        self._active: _Active | None = None
        self._next_seq = 0
        self.epoch = new_epoch()

    @property
    def block_bytes_max(self) -> int:
        """A block's size before compression that fits a fresh segment whatever its header takes."""
        room = self._segment_bytes - self._segment_bytes // HEADER_SHARE - HEAD_BYTES
        return min(BLOCK_BYTES_MAX, room)

    def commit(self, groups: Sequence[Sequence[Entry]], spares: Sequence[int]) -> Written | NeedSegments:
        """Makes one block of each group and writes the first, if there is room for all. `spares`: ordinals of prepared
        segments that may be used, in this order."""
        blocks: list[Block] = []
        epoch, seq = self.epoch, self._next_seq
        for entries in groups:
            records = sum(entry.records for entry in entries)
            if seq + records - 1 > SEQ_MAX:
                epoch, seq = self._new_epoch(), 0
            blocks.append(_encode(entries, epoch, seq, records))
            seq += records
        return self.write(blocks, spares)

    def write(self, blocks: list[Block], spares: Sequence[int]) -> Written | NeedSegments:
        """Like commit, for blocks that it gave back; the keys of those that are written are in the table by now."""
        missing = self._segments_for(blocks) - len(spares)
        if missing > 0:
            return NeedSegments(blocks, missing)
        block, *rest = blocks
        active = self._active
        sealed: list[int] = []
        spoiled: int | None = None
        try:
            if active is not None and self._fits(active, block):
                placed = self._append(active, block)
            else:
                sealed = self._seal()
                spoiled = spares[0]
                placed = self._begin(spoiled, block)
        except OSError as error:
            fenced = self._seal()
            self.epoch, self._next_seq = self._new_epoch(), 0
            return Written(None, [], sealed + fenced, fenced[0] if fenced else None, spoiled, error)
        self.epoch, self._next_seq = block.head.epoch, block.head.end_seq
        return Written(placed, rest, sealed)

    def close(self) -> None:
        self._seal()

    def _segments_for(self, blocks: Sequence[Block]) -> int:
        """How many new segments these blocks take."""
        count = 0
        epoch, left = (self._active.epoch, self._left(self._active)) if self._active else (None, 0)
        for block in blocks:
            if block.head.epoch != epoch or len(block.data) > left:
                count += 1
                epoch, left = block.head.epoch, self._segment_bytes - self._segment_bytes // HEADER_SHARE
            left -= len(block.data)
        return count

    def _left(self, active: _Active) -> int:
        return self._segment_bytes - active.end_bytes

    def _fits(self, active: _Active, block: Block) -> bool:
        return block.head.epoch == active.epoch and len(block.data) <= self._left(active)

    def _begin(self, ordinal: int, block: Block) -> Placed:
        head = block.head
        keys = self._keys.snapshot(self._segment_bytes // HEADER_SHARE - HEADER_BYTES)
        header = encode_header(SegmentHeader(head.epoch, head.first_seq, self._wall_ms(), self._previous, keys))
        file = self._disk.open(self._directory / segment_name(ordinal))
        try:
            file.write((header, block.data), 0)
        except OSError:
            _close(file)
            raise
        end_bytes = len(header) + len(block.data)
        self._active = _Active(ordinal, head.epoch, file, end_bytes, head.end_seq, 1 << head.priority)
        return Placed(block, ordinal, len(header))

    def _append(self, active: _Active, block: Block) -> Placed:
        active.file.write((block.data,), active.end_bytes)
        placed = Placed(block, active.ordinal, active.end_bytes)
        active.end_bytes += len(block.data)
        active.end_seq = block.head.end_seq
        active.classes |= 1 << block.head.priority
        return placed

    def _seal(self) -> list[int]:
        """Ends the segment being written, if there is one; returns its ordinal."""
        active = self._active
        if active is None:
            return []
        _close(active.file)
        self._previous = Ended(active.ordinal, active.end_bytes, active.end_seq, active.classes)
        self._active = None
        return [active.ordinal]


def _encode(entries: Sequence[Entry], epoch: int, first_seq: int, records: int) -> Block:
    data = encode_block(
        [entry.data for entry in entries],
        epoch=epoch,
        first_seq=first_seq,
        records=records,
        newest_ms=max(entry.newest_ms for entry in entries),
        priority=max(entry.priority for entry in entries),
    )
    oldest_ms = min(entry.newest_ms if entry.oldest_ms is None else entry.oldest_ms for entry in entries)
    return Block(read_head(data), data, oldest_ms)


def _close(file: SyncedFile) -> None:
    with contextlib.suppress(OSError):  # all that counts is synced already
        file.close()
