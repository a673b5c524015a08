"""Writes every record of a log into an SQLite file, for people and their tools.

Reads only, and takes no lock: the gateway may be running, and does not notice. What it trims meanwhile is left out;
what was accepted since its state was last written (a second, at most) still shows as not accepted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlite_utils

from protocols.block import open_block
from protocols.errors import VersionError, WireError
from sync.log.disk import Disk, RealDisk
from sync.log.ends import SegmentFile, blocks_of, find_ends
from sync.log.recovery import read_header, read_state
from sync.log.scan import Read
from sync.log.segment import Ended, segment_name, segment_ordinal
from sync.log.state import State, state_names
from sync.ranges import Ranges

TABLE: Final = "records"
COLUMNS: Final = {
    "epoch": str,
    "seq": int,
    "received_time": int,
    "network": str,
    "alias_key": str,
    "alias": str,
    "topic": str,
    "listener": str,
    "priority": str,
    "payload": bytes,
    "accepted": str,
}
"""`epoch` as sixteen hexadecimal digits; `received_time` in Unix ms; `priority` telemetry, event or alarm;
`accepted` yes or no: whether the cloud has it."""

_ROWS_AT_ONCE: Final = 90
"""SQLite takes a limited number of values in one statement, 999 in older ones: as many rows as that allows."""

_Source = tuple[SegmentFile, Ended | None]
"""A segment, and its end, where that is known."""

Progress = Callable[[int, int], None]
"""Bytes of the log read so far, and of all."""


class Exported(msgspec.Struct, frozen=True):
    records: int
    unreadable_blocks: int
    """Whole blocks that this version cannot open."""


def export(directory: Path, target: Path, progress: Progress) -> Exported:
    """Raises FileExistsError if `target` exists, FileNotFoundError if `directory` does not. May take minutes: not for
    an event loop's thread."""
    disk = RealDisk()
    sources, state = _sources(disk, directory)
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    database = sqlite_utils.Database(target)
    try:
        # A crash costs a file that is made again in the same time: speed counts more here.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        rows = _Rows(sources, state, progress)
        table = database.table(TABLE)
        table.create(COLUMNS, pk=("epoch", "seq"), not_null=set(COLUMNS))
        table.insert_all(rows, batch_size=_ROWS_AT_ONCE)
        database.conn.commit()
        return Exported(rows.records, rows.unreadable_blocks)
    finally:
        database.close()


def _sources(disk: Disk, directory: Path) -> tuple[list[_Source], State | None]:
    """The segments to read, in order, and what is accepted."""
    ordinals = {
        ordinal: size for name, size in disk.sizes(directory).items() if (ordinal := segment_ordinal(name)) is not None
    }
    files: list[SegmentFile] = []
    for ordinal in sorted(ordinals):
        read = _reader(disk, directory / segment_name(ordinal))
        with contextlib.suppress(VersionError):  # not for this version to read
            files.append(SegmentFile(ordinal, ordinals[ordinal], read_header(read, ordinal), read))
    _, state = read_state(functools.partial(disk.read, directory / name) for name in state_names())
    ends, void = find_ends(files, state)
    return [(file, ends.get(file.ordinal)) for file in files if file.ordinal not in void], state


def _reader(disk: Disk, path: Path) -> Read:
    def read(offset: int, length: int) -> bytes:
        try:
            return disk.read(path, offset, length)
        except FileNotFoundError:  # trimmed meanwhile: the cloud has all of it
            return b""

    return read


class _Rows:
    """All rows of the table, one block in memory at a time."""

    def __init__(self, sources: list[_Source], state: State | None, progress: Progress) -> None:
        self.records = 0
        self.unreadable_blocks = 0
        self._sources = sources
        self._accepted = {epoch.epoch: Ranges.of_steps(epoch.accepted) for epoch in state.epochs} if state else {}
        self._progress = progress

    def __iter__(self) -> Iterator[Sequence[Any]]:
        yield list(COLUMNS)  # which columns the following rows are
        done_bytes = 0
        all_bytes = sum(file.size_bytes for file, _ in self._sources)
        for file, end in self._sources:
            for found in blocks_of(file, end):
                yield from self._block_rows(found.data)
                self._progress(done_bytes + found.end_bytes, all_bytes)
            done_bytes += file.size_bytes
            self._progress(done_bytes, all_bytes)

    def _block_rows(self, block: bytes) -> Iterator[Sequence[Any]]:
        try:
            head, batches = open_block(block)
        except WireError:
            self.unreadable_blocks += 1
            return
        epoch = f"{head.epoch:016x}"
        accepted = self._accepted.get(head.epoch, Ranges())
        seq = head.first_seq
        for batch in batches:
            for record in batch.records():
                origin = record.origin
                yield (
                    epoch,
                    seq,
                    record.received_time,
                    origin.network_id,
                    origin.alias_key,
                    origin.alias,
                    origin.topic,
                    origin.listener,
                    origin.priority.name.lower(),
                    record.payload,
                    "yes" if seq in accepted else "no",
                )
                seq += 1
        self.records += head.records
