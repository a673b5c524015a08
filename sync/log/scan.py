"""Walks the blocks of a segment, whatever is between them.

A block that is damaged is passed over: the walk goes on at the next one that is whole, of this segment's epoch and
higher in number. What is missing between two blocks shows in their numbers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from protocols.block import HEAD_BYTES, MAGIC, BlockHead, check_block, read_head
from protocols.errors import WireError
from sync.log.settings import READ_BYTES

Read = Callable[[int, int], bytes]
"""Offset and length to bytes; fewer only at the end."""

_SECTOR_BYTES: Final = 4096
"""What a disk can fail to read at once."""


class Found(msgspec.Struct, frozen=True):
    """A whole block and where it stands."""

    offset: int
    head: BlockHead
    data: bytes

    @property
    def end_bytes(self) -> int:
        return self.offset + self.head.size


def scan_blocks(read: Read, *, start: int, end: int, seq: int, epoch: int | None) -> Iterator[Found]:
    """The whole blocks in [start, end) of a file, in order, whose numbers start at `seq` or later. `epoch` None: that
    of the first block found."""
    window = _Window(read, end)
    at = start
    while end - at >= HEAD_BYTES:
        found = _block_at(window, at)
        if (
            found is None
            or found.head.first_seq < seq
            or found.head.epoch != (found.head.epoch if epoch is None else epoch)
        ):
            at = window.find(MAGIC, at + 1)
            continue
        epoch, seq, at = found.head.epoch, found.head.end_seq, found.end_bytes
        yield found


def written_bytes(read: Read, start: int, end: int) -> int:
    """How far [start, end) of a file is written to: up to its last byte that is not zero."""
    written = 0
    for at in range(start, end, READ_BYTES):
        data = read_around_damage(read, at, min(READ_BYTES, end - at)).rstrip(b"\0")
        if data:
            written = at + len(data) - start
    return written


def _block_at(window: _Window, at: int) -> Found | None:
    try:
        head = read_head(window.bytes_at(at, HEAD_BYTES))
        data = window.bytes_at(at, head.size)
        check_block(data)
    except WireError:
        return None
    return Found(at, head, data)


class _Window:
    """A piece of a file in memory."""

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._offset = 0
        self._data = b""

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Fewer at the end."""
        length = min(length, self._end - offset)
        at = offset - self._offset
        if at < 0 or at + length > len(self._data):
            self._offset, at = offset, 0
            self._data = read_around_damage(self._read, offset, min(max(length, READ_BYTES), self._end - offset))
        return self._data[at : at + length]

    def find(self, wanted: bytes, offset: int) -> int:
        """Where it stands next, or the end."""
        while self._end - offset >= len(wanted):
            held = self.bytes_at(offset, min(READ_BYTES, self._end - offset))
            at = held.find(wanted)
            if at >= 0:
                return offset + at
            if not held:
                break
            offset += max(1, len(held) - len(wanted) + 1)
        return self._end


def read_around_damage(read: Read, offset: int, length: int) -> bytes:
    """Like `read`; sectors that the disk cannot give read as zeros, so that what is around them is not lost too.

    Raises OSError where nothing around them can be read either: then it is the disk that is gone, not the data.
    """
    try:
        return read(offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        failure = error
    parts: list[bytes] = []
    alive = False
    at = offset
    while at < offset + length:
        size = min(_SECTOR_BYTES - at % _SECTOR_BYTES, offset + length - at)
        part = _sector(read, at, size)
        alive = alive or part is not None
        parts.append(bytes(size) if part is None else part)
        if part is not None and len(part) < size:
            break
        at += size
    if not alive and not _sector(read, 0, _SECTOR_BYTES) and not _sector(read, offset + length, _SECTOR_BYTES):
        raise failure
    return b"".join(parts)


def _sector(read: Read, offset: int, length: int) -> bytes | None:
    """None where the disk cannot read it."""
    try:
        return read(offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
