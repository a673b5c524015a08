"""Puts what is to be kept of a segment into a file of its own. Runs in the keeper's thread.

survey: walks the blocks, and says which could go
write:  the header and the kept blocks, into a file that then takes the segment's place
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from pathlib import Path

import msgspec

from protocols.messages import Priority
from sync.log.disk import Disk
from sync.log.recovery import read_header
from sync.log.scan import Read, scan_blocks
from sync.log.segment import Ended, Mark, Segment, SegmentHeader, encode_header
from sync.log.settings import MARKS_PER_SEGMENT, READ_BYTES
from sync.ranges import Ranges


class Run(msgspec.Struct):
    """Blocks one behind the other that all are kept, or all could go."""

    is_kept: bool
    classes: int
    """As in Ended."""
    first_seq: int
    end_seq: int
    start: int
    end: int
    """In the file, bytes."""
    marks: list[Mark]
    """Places of the first block and of some behind it."""

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


class Survey(msgspec.Struct):
    """What a segment holds."""

    classes: int
    """As in Ended."""
    runs: list[Run]
    missing: list[tuple[int, int]]
    """Numbers of which there is no whole block."""


def survey(read: Read, first: Mark, end: Ended, *, epoch: int, least: Priority, settled: Ranges) -> Survey:
    """Blocks below that priority could go, and those of which all records are settled."""
    spacing = end.end_bytes // MARKS_PER_SEGMENT
    found = Survey(0, [], [])
    seq = first.seq
    for block in scan_blocks(read, start=first.offset, end=end.end_bytes, seq=first.seq, epoch=epoch):
        head = block.head
        if head.first_seq > seq:
            found.missing.append((seq, head.first_seq))
        seq = head.end_seq
        found.classes |= 1 << head.priority
        is_kept = head.priority >= least and not settled.covers(head.first_seq, head.end_seq)
        mark = Mark(head.first_seq, block.offset, head.newest_ms)
        run = found.runs[-1] if found.runs else None
        if run is None or run.is_kept != is_kept or run.end != block.offset:
            run = Run(is_kept, 0, head.first_seq, seq, block.offset, block.end_bytes, [mark])
            found.runs.append(run)
        elif block.offset - run.marks[-1].offset >= spacing:
            run.marks.append(mark)
        run.classes |= 1 << head.priority
        run.end_seq, run.end = seq, block.end_bytes
    if end.end_seq > seq:
        found.missing.append((seq, end.end_seq))
    return found


def write(disk: Disk, path: Path, target: Path, segment: Segment, runs: Iterable[Run]) -> tuple[Ended, list[Mark]]:
    """Writes the kept `runs` of the sealed segment at `path` into the prepared file `target`, and cuts it to its
    length; returns where it ends, and places of blocks in it."""

    def read(offset: int, length: int) -> bytes:
        return disk.read(path, offset, length)

    kept = [run for run in runs if run.is_kept]
    classes = functools.reduce(operator.or_, (run.classes for run in kept))
    size = sum(run.size_bytes for run in kept)
    old = read_header(read, segment.ordinal)

    def header(end_bytes: int) -> bytes:
        own = Ended(segment.ordinal, end_bytes, segment.end_seq, classes)
        if old is None:  # damaged, which costs no record; but then nothing is known of the file before, and of keys
            before = Ended(segment.ordinal - 1, 0, 0)
            return encode_header(
                SegmentHeader(segment.epoch, segment.first_seq, segment.oldest_ms, before, [], rewritten=own)
            )
        return encode_header(msgspec.structs.replace(old, rewritten=own))

    at = len(header(0))
    marks = [Mark(segment.first_seq, at, kept[0].marks[0].newest_ms)]
    file = disk.open(target)
    try:
        file.write((header(at + size),), 0)
        for run in kept:
            marks += [Mark(mark.seq, at + mark.offset - run.start, mark.newest_ms) for mark in run.marks]
            for offset in range(run.start, run.end, READ_BYTES):
                data = read(offset, min(READ_BYTES, run.end - offset))
                file.write((data,), at)
                at += len(data)
    finally:
        file.close()
    disk.truncate(target, at)
    return Ended(segment.ordinal, at, segment.end_seq, classes), marks
