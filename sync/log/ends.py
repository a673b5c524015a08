"""Where segments end: what a failed write left behind an end was never acknowledged, and must not be read.

The header behind a segment tells, or the state, or its own, if it was rewritten (segment.py). Where the header behind
it is damaged and the state older, batch keys tell: what a failed write left may be a whole block, whose batches were
then written once more, behind it; a batch that is in the log is never taken again. Only the last block of a segment can
be such a one, because nothing is written to it after that.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from protocols.batch import BatchKey, read_key
from protocols.block import split_block
from protocols.errors import WireError
from sync.log.scan import Found, Read, read_around_damage, scan_blocks
from sync.log.segment import HEADER_BYTES, Ended, SegmentHeader
from sync.log.state import State


class SegmentFile(msgspec.Struct, frozen=True):
    ordinal: int
    size_bytes: int
    header: SegmentHeader | None
    """None: it is damaged."""
    read: Read


def find_ends(files: Sequence[SegmentFile], state: State | None) -> tuple[dict[int, Ended], set[int]]:
    """Of segments by ordinal, rising: the known ends, and those in which nothing was ever synced."""
    headers = [(file.ordinal, file.header) for file in files]
    ends, void = known_ends(headers, state), void_ordinals(headers)
    begun = [file for file in files if file.header is not None or _is_begun(file)]
    for place, file in enumerate(begun[:-1]):
        if file.ordinal not in ends and file.ordinal not in void:
            end = _end_by_keys(file, begun[place + 1 :], state)
            if end is not None:
                ends[file.ordinal] = end
    return ends, void


def blocks_of(file: SegmentFile, end: Ended | None) -> Iterator[Found]:
    """Its whole blocks, up to its end where that is known."""
    header = file.header
    return scan_blocks(
        file.read,
        start=header.size if header else 0,
        end=min(file.size_bytes, end.end_bytes) if end else file.size_bytes,
        seq=header.first_seq if header else 0,
        epoch=header.epoch if header else None,
    )


def known_ends(files: Iterable[tuple[int, SegmentHeader | None]], state: State | None) -> dict[int, Ended]:
    """Where segments end, by ordinal, as far as the state or headers say: their own, if they were rewritten, or that of
    the next one."""
    ends = {end.ordinal: end for end in state.ends} if state else {}
    rewritten: dict[int, Ended] = {}
    for ordinal, header in files:
        if header is not None and header.previous.end_bytes:
            ends[header.previous.ordinal] = header.previous
        if header is not None and header.rewritten is not None:
            rewritten[ordinal] = header.rewritten
    return ends | rewritten


def void_ordinals(files: Iterable[tuple[int, SegmentHeader | None]]) -> set[int]:
    """Segments in which nothing was ever synced, as a later header tells: those between it and the one it follows."""
    listed = list(files)
    spans = [(header.previous.ordinal, ordinal) for ordinal, header in listed if header is not None]
    return {ordinal for ordinal, _ in listed for before, after in spans if before < ordinal < after}


def batch_keys(block: bytes) -> list[BatchKey]:
    """Of its batches. One that a whole block holds and this version cannot read was nevertheless written: its key is
    unknown, which can at worst record it twice."""
    with contextlib.suppress(WireError):
        return [read_key(batch) for batch in split_block(block)[1]]
    return []


def _is_begun(file: SegmentFile) -> bool:
    """A segment that is prepared holds nothing yet, where its header will be."""
    return any(read_around_damage(file.read, 0, HEADER_BYTES))


def _end_by_keys(file: SegmentFile, later: Sequence[SegmentFile], state: State | None) -> Ended | None:
    """The start of the last block, if all of its batches stand behind the segment once more. They were sent again at
    once: no further is looked than the next header that tells of the segments before it."""
    last = next(iter(deque(blocks_of(file, None), maxlen=1)), None)
    synced = state.active if state is not None else None
    if last is None or (synced is not None and synced.ordinal == file.ordinal and last.end_bytes <= synced.end_bytes):
        return None
    missing = set(batch_keys(last.data))
    for each in later if missing else ():
        for found in blocks_of(each, None):
            missing.difference_update(batch_keys(found.data))
        if not missing:
            return Ended(file.ordinal, last.offset, last.head.first_seq)
        if each.header is not None:
            break
    return None
