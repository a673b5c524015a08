"""What one site's disk and devices were told, which tells what has to be in the cloud in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from protocols.block import BlockHead, open_block
from protocols.messages import Gap, Priority
from sync.log.state import State
from sync.ranges import Ranges
from tests.worlds.devices import Name, name_of
from tests.worlds.disk import Held
from tests.worlds.laws import Laws
from tests.worlds.trace import Trace

Place = tuple[int, int]
"""Epoch and number of a record."""


class Record(msgspec.Struct):
    """What is known of one record of a log."""

    name: Name
    priority: Priority
    synced: bool
    """A write of it returned well."""
    excused: bool = False
    """Lost with a disk that was replaced by an older copy: nobody can tell of it."""
    harmed: bool = False
    """Its block was damaged on the disk."""
    unsure: bool = False
    """Found whole by who opened the log, and writing it once more failed too: its batch may be recorded again."""


class Written(msgspec.Struct, frozen=True):
    """A block, as it was written first."""

    number: int
    """Rising."""
    segment: str
    """The file's name."""


class GatewayBook:
    """What one site's disk and devices were told."""

    def __init__(self, name: str, laws: Laws, trace: Trace) -> None:
        self.name = name
        self.records: dict[Place, Record] = {}
        self.blocks: dict[Place, Written] = {}
        """By epoch and first number."""
        self.places: dict[Name, list[Place]] = {}
        """Of what is synced."""
        self.acknowledged_names: set[Name] = set()
        self.has: Callable[[int, int, int], bool] = lambda epoch, first, end: True
        """Whether the cloud has these records for good."""
        self.knows_of: Callable[[Gap], bool] = lambda gap: True
        """Whether the cloud has this loss for good, or the records after all."""
        self.state_harmed = False
        """What the log remembers beside its blocks was damaged, or is older than they are."""
        self._laws = laws
        self._trace = trace

    def on_block(self, held: Held) -> None:
        head, batches = open_block(held.data)
        synced = "synced" if held.synced else "torn"
        self._trace.add(self.name, f"block {synced}", f"{head.epoch:x}", head.first_seq, head.end_seq)
        self.blocks.setdefault((head.epoch, head.first_seq), Written(len(self.blocks), held.segment))
        seq = head.first_seq
        for batch in batches:
            for origin, payload in zip(batch.origin_index, batch.payloads, strict=True):
                self._on_record((head.epoch, seq), name_of(payload), batch.origins[origin].priority, held.synced)
                seq += 1

    def _on_record(self, place: Place, name: Name, priority: Priority, synced: bool) -> None:
        known = self.records.get(place)
        if known is None:
            self.records[place] = Record(name, priority, synced)
        elif known.name != name:
            self._laws.broken("a number is given once", f"{self.name} {place}: {known.name}, then {name}")
            return
        elif known.synced or not synced:
            known.unsure |= not synced
            return
        else:
            known.synced = True
        if synced:
            self.places.setdefault(name, []).append(place)

    def acknowledged(self, names: list[Name]) -> None:
        for name in names:
            if name not in self.places:
                self._laws.broken("acknowledged means on disk", f"{self.name} told {name}, which is not synced")
        self._trace.add(self.name, "acknowledged", *(f"{device}/{number}" for device, number in names))
        self.acknowledged_names.update(names)

    def removed(self, heads: list[BlockHead], state: State | None) -> None:
        """A segment with these blocks goes."""
        if self.state_harmed:
            return
        known = {one.epoch: one for one in state.epochs} if state is not None else {}
        for head in heads:
            places = [(head.epoch, seq) for seq in range(head.first_seq, head.end_seq)]
            if not all(place in self.records and self.records[place].synced for place in places):
                continue  # of a write that failed: never acknowledged
            one = known.get(head.epoch)
            parts = (one.accepted, one.evicted, one.damaged) if one is not None else ()
            told = Ranges(part for steps in parts for part in Ranges.of_steps(steps))
            if one is None or not (told.covers(head.first_seq, head.end_seq) or head.end_seq <= one.folded.seq):
                self._laws.broken(
                    "removed once the state says what became of it",
                    f"{self.name} {head.epoch:x} [{head.first_seq}, {head.end_seq})",
                )

    def harm(self, epoch: int, first: int, end: int) -> None:
        """The block of these records is damaged on the disk."""
        for seq in range(first, end):
            if (epoch, seq) in self.records:
                self.records[epoch, seq].harmed = True

    def excuse_but(self, blocks: Iterable[tuple[Path, int, BlockHead]]) -> None:
        """Only these blocks are there any more."""
        self.state_harmed = True
        there = {(head.epoch, seq) for _, _, head in blocks for seq in range(head.first_seq, head.end_seq)}
        for place, record in self.records.items():
            record.excused |= place not in there

    def accepted(self, epoch: int, first: int, end: int) -> None:
        self._trace.add(self.name, "accepted", f"{epoch:x}", first, end)
        if not self.has(epoch, first, end):
            self._laws.broken("accepted means synced in the cloud", f"{self.name} {epoch:x} [{first}, {end})")

    def gaps_kept(self, gaps: Iterable[Gap]) -> None:
        """The log will not tell of them any more, but to be sure."""
        for gap in gaps:
            if not self.knows_of(gap):
                self._laws.broken(
                    "a gap is kept once the cloud has it", f"{self.name} {gap.epoch:x} [{gap.first_seq}, {gap.end_seq})"
                )
