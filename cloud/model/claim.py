"""What a hop takes upon itself: the records of a batch that it has not done yet, and what becomes of them.

A *hop* is a service that reads a topic (or another part that counts records once: `inbox`, `gap`). For each source and
epoch it has the set of record numbers that it is done with, and the fates that it has counted.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from protocols.shipment import MessageBatch, Run
from sync.ranges import Ranges

INBOX_EPOCH: Final = 0
"""The epoch of replayed inbox messages; a log's epochs are random and never 0."""

FATES: Final = (
    "accepted",
    "decoded_records",
    "rejected_records",
    "dead_records",
    "decoded",
    "stored",
    "repeated",
    "unresolved",
    "rejected",
    "stopped",
    "dead",
    "evicted",
    "damaged",
    "tails",
    "derived",
)

Name = tuple[int, int]
"""(source id, epoch)."""


class Settlement(msgspec.Struct, frozen=True):
    """What a transaction adds to a hop's progress in one epoch of one source."""

    source_id: int
    epoch: int
    done: Ranges
    released: Ranges
    """What it is not done with any more; none of it is in `done`."""
    counts: Mapping[str, int]
    """By fate, all of FATES; negative where a fate is taken back."""


class OvertakenError(Exception):
    """Repeat the transaction: another one has done records that this one had claimed without holding them."""


class Claim:
    """The records of some runs that a hop has not done yet. Where it is held, nobody else works on them until the
    transaction ends; else somebody may, and whoever settles first wins."""

    def __init__(self, hop: str, runs: Sequence[Run], done: Mapping[Name, Ranges], *, held: bool = True) -> None:
        """`done`: what the hop has of each source and epoch in `runs`; it is not changed."""
        self.hop = hop
        self.held = held
        self.done = done
        self._counts: dict[Name, dict[str, int]] = {}
        self._claimed: dict[Name, Ranges] = {}
        self._released: dict[Name, Ranges] = {}
        self.runs: list[list[Run]] = []
        """For each run asked for: the parts of it that are still to be done."""
        for run in runs:
            name = (run.source_id, run.epoch)
            claimed = self._claimed.setdefault(name, Ranges())
            parts = []
            for start, end in done[name].missing(run.first_seq, run.first_seq + run.count):
                for part_start, part_end in claimed.missing(start, end):
                    parts.append(Run(run.source_id, run.epoch, part_start, part_end - part_start))
            for part in parts:
                claimed.add(part.first_seq, part.first_seq + part.count)
            self.runs.append(parts)
        self.complete = all(parts == [run] for parts, run in zip(self.runs, runs, strict=True))
        """Whether nothing of it was done before: the usual case."""

    @property
    def parts(self) -> list[Run]:
        """All that is still to be done, in order of the runs asked for."""
        return [part for parts in self.runs for part in parts]

    def count(self, source_id: int, epoch: int, fate: str, number: int) -> None:
        if number:
            counts = self._counts.setdefault((source_id, epoch), dict.fromkeys(FATES, 0))
            counts[fate] += number

    def check(self, done: Mapping[Name, Ranges]) -> None:
        """Raises OvertakenError if `done`, what the hop has by now, holds any of what was claimed."""
        for name, claimed in self._claimed.items():
            for start, end in claimed:
                if done[name].missing(start, end) != [(start, end)]:
                    raise OvertakenError(f"records {start} to {end} of epoch {name[1]:016x} at {self.hop}")

    def release(self, run: Run) -> list[Run]:
        """What the hop had done of the run is not done any more when this is settled: those parts, in order."""
        name = (run.source_id, run.epoch)
        released = self._released.setdefault(name, Ranges())
        parts = [
            Run(*name, start, end - start)
            for done_start, done_end in self.done[name].held(run.first_seq, run.first_seq + run.count)
            for start, end in released.missing(done_start, done_end)
        ]
        for part in parts:
            released.add(part.first_seq, part.first_seq + part.count)
        return parts

    def settlements(self) -> Iterator[Settlement]:
        """What settling it changes, in order of (source id, epoch)."""
        none = dict.fromkeys(FATES, 0)
        for name in sorted(self._claimed.keys() | self._counts.keys() | self._released.keys()):
            claimed = self._claimed.get(name, Ranges())
            released = self._released.get(name, Ranges())
            counts = self._counts.get(name, none)
            if claimed or released or counts is not none:
                yield Settlement(*name, claimed, released, counts)


def rows_by_epoch(messages: MessageBatch, rows: Sequence[int]) -> dict[Name, int]:
    """How many of those rows came from each (source, epoch)."""
    names = [(run.source_id, run.epoch) for run in messages.runs]
    if len(set(names)) <= 1:
        return {names[0]: len(rows)} if rows else {}
    ends = list(itertools.accumulate(run.count for run in messages.runs))
    places = Counter(messages.record[i] for i in rows)
    found: dict[Name, int] = {}
    for place, number in places.items():
        name = names[bisect.bisect_right(ends, place)]
        found[name] = found.get(name, 0) + number
    return found
