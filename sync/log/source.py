"""What readers read from: the log's own parts, and one way to read a piece of a segment."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec

from protocols.block import BlockHead
from sync.log.catalog import Catalog
from sync.log.disk import Disk
from sync.log.scan import scan_blocks
from sync.log.segment import Mark, Segment, segment_name
from sync.log.settings import READ_BYTES
from sync.log.tail import Tail
from sync.log.threads import DiskThread


class Place(msgspec.Struct, frozen=True, order=True):
    """A place in the log: before the record `seq` of a segment. Rises with the log, whatever is done to its files."""

    ordinal: int
    seq: int


class Piece(msgspec.Struct, frozen=True):
    """Blocks of a segment, in order: about READ_BYTES of them."""

    blocks: list[tuple[int, BlockHead, bytes]]
    """With their offsets."""
    behind: Mark
    """Where reading goes on."""


class Source(msgspec.Struct, frozen=True):
    catalog: Catalog
    tail: Tail
    thread: DiskThread
    disk: Disk
    directory: Path
    on_damage: Callable[[Segment, int, int], int]
    """Told of records [first, end) of a segment that cannot be read; says of how many that is news."""

    async def read(self, segment: Segment, start: Mark) -> Piece | None:
        """Blocks from `start` on, up to the segment's synced end. Records of which there is no sign are damaged.

        None: the segment was trimmed or rewritten meanwhile. Raises FileNotFoundError for a segment that somebody else
        removed, OSError if the disk cannot be read now.
        """
        end, version = segment.ended, segment.version
        read = functools.partial(self.disk.read, self.directory / segment_name(segment.ordinal))
        try:
            blocks, finished = await self.thread.run(
                _read_some, read, start.offset, end.end_bytes, start.seq, segment.epoch
            )
        except FileNotFoundError:
            if self._is_same(segment, version):
                raise
            return None
        if not self._is_same(segment, version):
            return None
        seq, offset = start.seq, start.offset
        for offset, head, data in blocks:
            segment.mark(Mark(head.first_seq, offset, head.newest_ms), head.newest_ms)
            if head.first_seq > seq:
                self.on_damage(segment, seq, head.first_seq)
            seq, offset = head.end_seq, offset + len(data)
        if finished:
            if end.end_seq > seq:
                self.on_damage(segment, seq, end.end_seq)
            seq, offset = end.end_seq, end.end_bytes
        return Piece(blocks, Mark(seq, offset, 0))

    def _is_same(self, segment: Segment, version: int) -> bool:
        """Whether the file is the one that it was, in the same version, and not just being replaced."""
        return self.catalog.get(segment.ordinal) is segment and segment.version == version and not segment.is_moving


def _read_some(
    read: Callable[[int, int], bytes], start: int, end: int, seq: int, epoch: int
) -> tuple[list[tuple[int, BlockHead, bytes]], bool]:
    """Blocks of about READ_BYTES, and whether the walk came to the end."""
    blocks: list[tuple[int, BlockHead, bytes]] = []
    size = 0
    for found in scan_blocks(read, start=start, end=end, seq=seq, epoch=epoch):
        blocks.append((found.offset, found.head, found.data))
        size += len(found.data)
        if size + len(found.data) > READ_BYTES:  # another one like it would take another read
            return blocks, False
    return blocks, True
