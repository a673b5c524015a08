"""One file of the log: a header, blocks one behind the other, zeros to its end.

    offset  size  field of the header (little endian)
    0       4     magic "TGS2" (the digit is the version)
    4       4     length of the body
    8       8     epoch
    16      8     first seq: that of the segment's first block
    24      8     created, Unix ms
    32      8     ordinal of the segment that was written before this one; 0: there is none
    40      8     where its synced blocks end, in bytes of that file
    48      8     the seq after its last synced record
    56      1     what its blocks hold: bit p for priority p; 0: not known
    57      1     the same of this segment, if it was rewritten
    58      6     zero
    64      8     where this segment's blocks end, if it was rewritten; else 0
    72      8     the seq after its last record, if it was rewritten
    80      4     CRC-32 (zlib) of bytes 0 to 79 and the body
    84      …     body: MessagePack, the batch keys that the log had: [[run, [[first counter, end], …]], …]
    …       …     blocks (protocols/block.py), all of this epoch, numbers rising

The header is written together with the first block, when both are known. It names the end of the segment before it,
because what a failed write left behind that end was never acknowledged and must not be read; for the same reason, files
whose ordinal lies between the two are void.

A segment is rewritten when the log is full and the segment holds records that may go beside others that may not. Then
it has the numbers that it had, without those that are gone, and tells its own end, as the file after it tells that of
the file that was there before.

A file is named by its ordinal, which only rises: `00000001.seg`. A segment is rewritten into the file `reserve`, which
takes its name when it is whole.

Version 1, which is still read, has the CRC at 56 and the body at 60.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import msgspec

from protocols.block import BlockHead
from protocols.errors import UNREADABLE, ChecksumError, MalformedError, VersionError
from protocols.messages import Priority
from sync.log.keys import KeySnapshot
from sync.log.settings import MARKS_PER_SEGMENT

MAGIC: Final = b"TGS2"
_MAGIC_1: Final = b"TGS1"
_HEAD: Final = struct.Struct("<4sIQQQQQQBB6xQQ")
_HEAD_1: Final = struct.Struct("<4sIQQQQQQ")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size
"""Without its body."""
RESERVE_NAME: Final = "reserve"
_NAME: Final = re.compile(r"(\d{8,})\.seg")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(KeySnapshot)


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """How far a segment is to be read."""

    ordinal: int
    end_bytes: int
    end_seq: int
    classes: int = 0
    """What its blocks hold: bit p for priority p. 0: not known."""


NOTHING_BEFORE: Final = Ended(0, 0, 0)


class SegmentHeader(msgspec.Struct, frozen=True):
    epoch: int
    first_seq: int
    created_ms: int
    previous: Ended
    keys: KeySnapshot
    rewritten: Ended | None = None
    """The segment's own end, if it was rewritten."""
    size: int = 0
    """Bytes of the whole header; blocks follow."""


def segment_name(ordinal: int) -> str:
    return f"{ordinal:08}.seg"


def segment_ordinal(name: str) -> int | None:
    """None for a file that is no segment."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def encode_header(header: SegmentHeader) -> bytes:
    body = _encoder.encode(header.keys)
    previous, own = header.previous, header.rewritten or NOTHING_BEFORE
    head = _HEAD.pack(
        MAGIC,
        len(body),
        header.epoch,
        header.first_seq,
        header.created_ms,
        previous.ordinal,
        previous.end_bytes,
        previous.end_seq,
        previous.classes,
        own.classes,
        own.end_bytes,
        own.end_seq,
    )
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def header_size(data: bytes) -> int:
    """Bytes of the header that starts with `data`, which holds HEADER_BYTES of them or more."""
    layout = _layout(data)
    if len(data) < layout.size + _CRC.size:
        raise MalformedError(f"{len(data)} bytes are shorter than a segment's header")
    return layout.size + _CRC.size + int(layout.unpack_from(data)[1])


def decode_header(data: bytes, ordinal: int) -> SegmentHeader:
    """`data` starts with a whole header (header_size) of this segment. Raises a WireError."""
    size = header_size(data)
    if len(data) < size:
        raise MalformedError(f"segment header of {size:,} bytes ends after {len(data):,}")
    layout = _layout(data)
    (crc,) = _CRC.unpack_from(data, layout.size)
    body = data[layout.size + _CRC.size : size]
    if zlib.crc32(body, zlib.crc32(data[: layout.size])) != crc:
        raise ChecksumError("the segment header's CRC-32 does not match")
    _, _, epoch, first_seq, created_ms, *ends = layout.unpack_from(data)
    before, own = (ends[:4], ends[4:]) if layout is _HEAD else (ends, [0, 0, 0])
    try:
        keys = _decoder.decode(body)
    except UNREADABLE as error:
        raise MalformedError(f"segment header's keys: {error}") from None
    classes, end_bytes, end_seq = own
    rewritten = Ended(ordinal, end_bytes, end_seq, classes) if end_bytes else None
    return SegmentHeader(epoch, first_seq, created_ms, Ended(*before), keys, rewritten, size)


def _layout(data: bytes) -> struct.Struct:
    if data[:4] == MAGIC:
        return _HEAD
    if data[:4] == _MAGIC_1:
        return _HEAD_1
    if len(data) >= len(MAGIC) and data[:3] == MAGIC[:3]:
        raise VersionError(f"segment version {data[3:4]!r}; this side reads up to {MAGIC[3:]!r}")
    raise MalformedError("not a segment: the magic number is missing")


class Mark(msgspec.Struct, frozen=True):
    """A block's place in its segment."""

    seq: int
    offset: int
    newest_ms: int


class Segment:
    """What is known in memory of one file: constant size, however many blocks it holds."""

    __slots__ = (
        "_marks",
        "_oldest_ms",
        "classes",
        "end_bytes",
        "end_seq",
        "epoch",
        "first_seq",
        "is_moving",
        "newest_ms",
        "ordinal",
        "packed",
        "sealed",
        "size_bytes",
        "version",
    )

    def __init__(self, ordinal: int, epoch: int, first: Mark, size_bytes: int) -> None:
        self.ordinal = ordinal
        self.epoch = epoch
        self.first_seq = first.seq
        self.end_seq = first.seq
        self.end_bytes = first.offset
        """Behind the last synced block."""
        self.size_bytes = size_bytes
        """Of the file."""
        self.sealed = False
        """True once nothing is written to it any more."""
        self.classes = 0
        """As in Ended."""
        self.newest_ms = first.newest_ms
        """Newest received time, as far as its blocks were seen."""
        self.version = 0
        """Of the file: rises when another takes its place."""
        self.is_moving = False
        """True while that is going on: either may be read."""
        self.packed = -1
        """What was rewritten, or could not be, to keep only blocks of this priority and higher."""
        self._marks = [first]
        self._oldest_ms = [first.newest_ms]
        """Oldest received time of each mark's block and those behind it, up to the next mark; as far as it is known."""

    @property
    def start_bytes(self) -> int:
        """Where the first block stands."""
        return self._marks[0].offset

    @property
    def oldest_ms(self) -> int:
        """Oldest received time, as far as its blocks were seen."""
        return min(self._oldest_ms)

    @property
    def ended(self) -> Ended:
        return Ended(self.ordinal, self.end_bytes, self.end_seq, self.classes)

    @property
    def priority(self) -> Priority | None:
        """The highest of its blocks; None: not known."""
        return Priority(self.classes.bit_length() - 1) if self.classes else None

    def extend(self, head: BlockHead, offset: int, oldest_ms: int) -> None:
        """The block at `offset` is its last."""
        self.mark(Mark(head.first_seq, offset, head.newest_ms), oldest_ms)
        self.end_bytes = offset + head.size
        self.end_seq = head.end_seq
        self.classes |= 1 << head.priority
        self.newest_ms = max(self.newest_ms, head.newest_ms)

    def mark(self, mark: Mark, oldest_ms: int) -> None:
        """Remembers the place of a block behind all marks so far, unless one is near. `oldest_ms`: of its records."""
        last = self._marks[-1]
        if mark.offset - last.offset >= self.size_bytes // MARKS_PER_SEGMENT:
            self._marks.append(mark)
            self._oldest_ms.append(oldest_ms)
        elif mark.offset >= last.offset:
            self._oldest_ms[-1] = min(self._oldest_ms[-1], oldest_ms)

    def replace(self, marks: list[Mark], ended: Ended) -> None:
        """The file was rewritten: fewer blocks of the same numbers. `marks`: places of blocks, rising."""
        oldest_ms = self.oldest_ms
        self.size_bytes = self.end_bytes = ended.end_bytes
        self.classes = ended.classes
        self._marks = marks[:1]
        self._oldest_ms = [oldest_ms]
        for mark in marks[1:]:
            self.mark(mark, oldest_ms)
        self.version += 1

    def find(self, seq: int) -> Mark:
        """The last known place at or before the record."""
        return self._marks[max(0, bisect_right(self._marks, seq, key=lambda mark: mark.seq) - 1)]

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """From each known place to the next: first number, the number after the last, oldest received time."""
        ends = [*(mark.seq for mark in self._marks[1:]), self.end_seq]
        for mark, end_seq, oldest_ms in zip(self._marks, ends, self._oldest_ms, strict=True):
            yield mark.seq, end_seq, oldest_ms
