"""Opens what an earlier process left: finds the end of each segment, the batch keys, and what was accepted.

Reads the last segment and the heads of the others; of those, only ones whose end no later header or state tells are
walked through. Whatever is damaged is counted, never a reason not to start.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from protocols.batch import BatchKey
from protocols.block import HEAD_BYTES, read_head
from protocols.errors import VersionError, WireError
from protocols.messages import Gap, GapKind
from sync.log.catalog import Catalog
from sync.log.disk import Disk
from sync.log.ends import SegmentFile, batch_keys, blocks_of, find_ends
from sync.log.keys import KeyTable
from sync.log.scan import Read, read_around_damage, written_bytes
from sync.log.secure import secure
from sync.log.segment import (
    RESERVE_NAME,
    Ended,
    Mark,
    Segment,
    SegmentHeader,
    decode_header,
    header_size,
    segment_name,
    segment_ordinal,
)
from sync.log.settings import CUT_FROM_BYTES, STATE_FILE_BYTES
from sync.log.state import State, Totals, decode_state, state_names
from sync.ranges import Ranges
from tidegate.logs import get_logger

_HEADER_READ_BYTES: Final = 4096
"""Most headers whole; larger ones take a second read."""

logger = get_logger("sync.log")


class Recovered(msgspec.Struct):
    catalog: Catalog
    keys: KeyTable
    previous: Ended
    """The last segment, for the next one's header."""
    next_ordinal: int
    generation: int
    """Of the state."""
    foreign_bytes: int
    """Of segments that a newer version wrote, or that cannot be read at all: left alone."""


def recover(disk: Disk, directory: Path, *, now_ms: int, patient: bool = False) -> Recovered:
    """May change the directory: removes files without a record, makes the end of the last segment durable, gives back
    room behind it. `now_ms`: Unix, of what is noticed to be lost.

    Raises OSError if the disk cannot be read; `patient`: also if it is only one segment, so that the caller may try
    again before the log goes on without it."""
    sizes = disk.sizes(directory)
    disk.remove([directory / RESERVE_NAME])  # it may be half written
    generation, state = read_state(functools.partial(disk.read, directory / name) for name in state_names())
    files, left_alone, highest = _files(disk, directory, sizes, patient=patient)
    recovery = _Recovery(disk, directory, state, {segment_ordinal(name) for name in sizes}, now_ms)
    recovery.load(files)
    recovery.settle()
    last = recovery.catalog.last()
    unknown = max([highest if last is None else 0, *left_alone])
    return Recovered(
        recovery.catalog,
        recovery.keys,
        # What was left alone must not become void, by a header that says that nothing is between it and the one before.
        last.ended if last is not None and last.ordinal > unknown else Ended(unknown, 0, 0),
        highest + 1,
        generation,
        sum(left_alone.values()),
    )


def read_header(read: Read, ordinal: int) -> SegmentHeader | None:
    """A segment's header; None if there is none, or a damaged one. Raises VersionError for a newer one."""
    data = read_around_damage(read, 0, _HEADER_READ_BYTES)
    try:
        size = header_size(data)
        if size > len(data):
            data = read_around_damage(read, 0, size)
        return decode_header(data, ordinal)
    except VersionError:
        raise
    except WireError:
        return None


def read_state(files: Iterable[Read]) -> tuple[int, State | None]:
    """The newest generation and its state; (0, None) where no file holds one."""
    newest: tuple[int, State | None] = (0, None)
    for read in files:
        # One that is not there, not whole or not readable leaves the other; without both, things are sent again.
        with contextlib.suppress(OSError, WireError):
            generation, state = decode_state(read_around_damage(read, 0, STATE_FILE_BYTES))
            if generation > newest[0]:
                newest = generation, state
    return newest


def _files(
    disk: Disk, directory: Path, sizes: dict[str, int], *, patient: bool
) -> tuple[list[SegmentFile], dict[int, int], int]:
    """The segments by ordinal, the ordinals and sizes of those not to be touched, and the highest ordinal of all."""
    files: list[SegmentFile] = []
    left_alone: dict[int, int] = {}
    highest = 0
    failure: OSError | None = None
    for name, size in sizes.items():
        ordinal = segment_ordinal(name)
        if ordinal is None:
            continue
        highest = max(highest, ordinal)
        try:
            header = read_header(functools.partial(disk.read, directory / name), ordinal)
        except (VersionError, OSError) as error:
            if isinstance(error, OSError):
                if patient:
                    raise
                failure = error
            logger.error("segment left alone", file=str(directory / name), reason=str(error))
            left_alone[ordinal] = size
        else:
            files.append(SegmentFile(ordinal, size, header, functools.partial(disk.read, directory / name)))
    if failure is not None and not files:
        raise failure  # it is the disk that is gone, not the data
    files.sort(key=lambda file: file.ordinal)
    return files, left_alone, highest


class _Recovery:
    def __init__(
        self,
        disk: Disk,
        directory: Path,
        state: State | None,
        present: set[int | None],
        now_ms: int,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._state = state
        self._present = present
        self._now_ms = now_ms
        self._damaged: list[tuple[Segment, int, int]] = []
        """Records that are not where their segment should have them."""
        self._tails: list[Gap] = []
        self.catalog = Catalog(state.gone if state else Totals())
        self.keys = KeyTable()

    def load(self, files: list[SegmentFile]) -> None:
        """Fills the catalog and the keys."""
        headed = [file for file in files if file.header is not None]
        ends, void = find_ends(files, self._state)
        keys_from = headed[-1].ordinal if headed else 0
        if headed and headed[-1].header is not None:
            self.keys.load(headed[-1].header.keys)
        empty: list[int] = []
        for file in files:
            end = ends.get(file.ordinal)
            if file.ordinal in void:
                empty.append(file.ordinal)
            elif file.header is not None and end is not None and file.ordinal < keys_from:
                self._add(file, file.header.epoch, self._first_mark(file.ordinal, file.header), end)
            elif not self._walk(file, end, with_keys=file.ordinal >= keys_from):
                empty.append(file.ordinal)
        self._disk.remove([self._path(ordinal) for ordinal in empty])

    def settle(self) -> None:
        """Takes over what the state knows, and accounts for records of which there is no segment any more, for damage
        and for tails."""
        catalog = self.catalog
        if self._state is not None:
            catalog.restore(self._state)
        remembered = {epoch.epoch for epoch in self._state.epochs} if self._state else set()
        for epoch in list(catalog.epochs.values()):
            held = Ranges((segment.first_seq, segment.end_seq) for segment in epoch.segments)
            for first, end in held.missing(0, epoch.end_seq):
                if epoch.epoch not in remembered and self._was_trimmed(epoch.segments, first, end):
                    catalog.accept(epoch.epoch, first, end)
                else:
                    self._damaged.append((epoch.segments[0], first, end))
        for segment, first, end in self._damaged:
            lost = catalog.lose(GapKind.DAMAGED, segment, [(first, end)], now_ms=self._now_ms)
            if lost:
                epoch_id = f"{segment.epoch:016x}"
                logger.error("log damaged", segment=segment.ordinal, epoch=epoch_id, first_seq=first, records=lost)
        for tail in self._tails:
            if catalog.add_tail(tail):
                logger.warning("log ends torn", epoch=f"{tail.epoch:016x}", seq=tail.first_seq, size=tail.size_bytes)
        for segment in catalog.segments_from(0):
            catalog.seal(segment)

    def _was_trimmed(self, segments: list[Segment], first: int, end: int) -> bool:
        """Whether a file is missing where these records would be: without a state to say otherwise, only trimming
        removes files, and only accepted ones."""
        after = next((segment.ordinal for segment in segments if segment.first_seq >= end), None)
        return after is not None and after - 1 not in self._present

    def _walk(self, file: SegmentFile, end: Ended | None, *, with_keys: bool) -> bool:
        """Reads the whole segment; False if there is no record in it."""
        header = file.header
        segment: Segment | None = None
        synced = end if end is not None else self._synced(file.ordinal)
        synced_bytes = 0 if synced is None else synced.end_bytes
        unsure: list[BatchKey] = []
        for found in blocks_of(file, end):
            head = found.head
            if segment is None:
                start = (header.first_seq, header.size) if header else (head.first_seq, found.offset)
                first = Mark(*start, head.newest_ms)
                segment = self._add(file, head.epoch, first, Ended(file.ordinal, first.offset, first.seq))
            if head.first_seq > segment.end_seq:
                self._damaged.append((segment, segment.end_seq, head.first_seq))
            self.catalog.extend(segment, head, found.offset, head.newest_ms)
            if with_keys:
                keys = batch_keys(found.data)
                if found.end_bytes <= synced_bytes:
                    self.keys.add(keys)
                else:
                    unsure += keys
        if segment is None and header is not None and synced is not None and synced.end_seq > header.first_seq:
            first = Mark(header.first_seq, header.size, header.created_ms)
            segment = self._add(file, header.epoch, first, Ended(file.ordinal, first.offset, first.seq))
        if segment is not None and synced is not None and synced.end_seq > segment.end_seq:
            self._damaged.append((segment, segment.end_seq, synced.end_seq))
            self.catalog.epochs[segment.epoch].end_seq = segment.end_seq = synced.end_seq
            segment.end_bytes = synced.end_bytes
        tails = len(self._tails)
        if end is None:
            self._look_behind(file, segment)
        if segment is not None:
            # Where the disk does not take them, they stay pending. But who publishes them again, for want of an answer,
            # is not told that they are kept.
            if secure(self._disk, self._path(file.ordinal), synced_bytes, segment.end_bytes):
                self.keys.add(unsure)
            if len(self._tails) == tails:  # a tail stays until its gap is durable: the next opening may have to tell
                self._cut(segment)
        return segment is not None

    def _synced(self, ordinal: int) -> Ended | None:
        """How far the segment was synced, at least, if it was the one being written."""
        active = self._state.active if self._state else None
        return active if active is not None and active.ordinal == ordinal else None

    def _look_behind(self, file: SegmentFile, segment: Segment | None) -> None:
        """Whatever stands behind the last record of the log was never acknowledged, or it is records, damaged: nobody
        can tell."""
        if segment is not None:
            epoch, seq, at = segment.epoch, segment.end_seq, segment.end_bytes
        elif file.header is not None:
            epoch, seq, at = file.header.epoch, file.header.first_seq, file.header.size
        else:
            last = self.catalog.last()
            epoch, seq, at = (0, 0, 0) if last is None else (last.epoch, last.end_seq, 0)
        size = written_bytes(file.read, at, file.size_bytes)
        if size:
            self._tails.append(Gap(epoch, seq, seq, GapKind.TAIL, 0, 0, self._now_ms, size))

    def _add(self, file: SegmentFile, epoch: int, first: Mark, end: Ended) -> Segment:
        segment = Segment(file.ordinal, epoch, first, file.size_bytes)
        segment.end_bytes, segment.end_seq, segment.classes = end.end_bytes, end.end_seq, end.classes
        self.catalog.begin(segment)
        return segment

    def _first_mark(self, ordinal: int, header: SegmentHeader) -> Mark:
        head = read_around_damage(functools.partial(self._disk.read, self._path(ordinal)), header.size, HEAD_BYTES)
        try:
            newest_ms = read_head(head).newest_ms
        except WireError:  # a reader will come upon it
            newest_ms = header.created_ms
        return Mark(header.first_seq, header.size, newest_ms)

    def _cut(self, segment: Segment) -> None:
        """Gives back the room behind a segment's end, and with it what was torn there."""
        if segment.size_bytes - segment.end_bytes >= CUT_FROM_BYTES:
            with contextlib.suppress(OSError):  # only room is at stake, and the disk's state shows elsewhere
                self._disk.truncate(self._path(segment.ordinal), segment.end_bytes)
                segment.size_bytes = segment.end_bytes

    def _path(self, ordinal: int) -> Path:
        return self._directory / segment_name(ordinal)
