"""What became of the records of one opening of the log.

Each record has one fate: pending, accepted, evicted or damaged. The last three are settled. A record that is in flight
is pending still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sync.log.accounting import EpochAccounting
from sync.ranges import Ranges

if TYPE_CHECKING:
    from sync.log.segment import Segment


class Folded(msgspec.Struct, frozen=True, array_like=True):
    """Counts of the records below `seq`, all of them settled and none in a segment any more, whose ranges would take
    too much room. What is not counted here is damaged."""

    seq: int = 0
    accepted: int = 0
    evicted: int = 0


class Epoch:
    """Records 0 to `end_seq` of one opening."""

    __slots__ = ("accepted", "end_seq", "epoch", "evicted", "folded", "in_flight", "segments", "settled", "taken_back")

    def __init__(self, epoch: int, folded: Folded | None = None) -> None:
        self.epoch = epoch
        self.folded = folded or Folded()
        self.end_seq = self.folded.seq
        self.accepted = Ranges()
        """From `folded.seq` on, as `evicted`."""
        self.evicted = Ranges()
        self.settled = Ranges([(0, self.folded.seq)])
        self.in_flight = Ranges()
        self.taken_back = 0
        """How often accepted records became pending again."""
        self.segments: list[Segment] = []
        """Rising."""

    @property
    def accepted_count(self) -> int:
        return self.folded.accepted + len(self.accepted)

    @property
    def evicted_count(self) -> int:
        return self.folded.evicted + len(self.evicted)

    @property
    def damaged_count(self) -> int:
        return len(self.settled) - self.accepted_count - self.evicted_count

    @property
    def pending(self) -> int:
        return self.end_seq - len(self.settled)

    @property
    def parts(self) -> int:
        """How many ranges are kept of it."""
        return self.accepted.parts + self.evicted.parts

    def damaged_ranges(self) -> list[tuple[int, int]]:
        """From `folded.seq` on."""
        return [
            lost
            for settled in self.settled.held(self.folded.seq, self.end_seq)
            for here in self.accepted.missing(*settled)
            for lost in self.evicted.missing(*here)
        ]

    def unsent(self, first_seq: int, end_seq: int) -> list[tuple[int, int]]:
        """The records among these that are pending and not in flight."""
        pending = self.settled.missing(first_seq, end_seq)
        return [part for start, end in pending for part in self.in_flight.missing(start, end)]

    def accept(self, first_seq: int, end_seq: int) -> int:
        """Returns how many of them were not accepted before."""
        first_seq = max(first_seq, self.folded.seq)
        self.in_flight.remove(first_seq, end_seq)
        added = self.accepted.add(first_seq, end_seq)
        if added:
            self.evicted.remove(first_seq, end_seq)
            self.settled.add(first_seq, end_seq)
        return added

    def evict(self, first_seq: int, end_seq: int) -> list[tuple[int, int]]:
        """Those of them that are pending are evicted; returns which."""
        lost = self.settled.missing(first_seq, end_seq)
        for start, end in lost:
            self.evicted.add(start, end)
            self.settled.add(start, end)
        return lost

    def damage(self, first_seq: int, end_seq: int) -> list[tuple[int, int]]:
        """Those of them that are pending are damaged; returns which."""
        lost = self.settled.missing(first_seq, end_seq)
        for start, end in lost:
            self.settled.add(start, end)
        return lost

    def take_back(self, first_seq: int, end_seq: int) -> list[tuple[int, int]]:
        """Those of them that are accepted and in a segment are pending again, others that are accepted are damaged;
        returns the latter."""
        self.taken_back += 1
        lost: list[tuple[int, int]] = []
        held = Ranges((segment.first_seq, segment.end_seq) for segment in self.segments)
        for start, end in self.accepted.held(first_seq, end_seq):
            self.accepted.remove(start, end)
            for part in held.held(start, end):
                self.settled.remove(*part)
            lost += held.missing(start, end)
        return lost

    def reclaim_folded(self, evicted: int, damaged: int) -> None:
        """Folded records that were counted as lost are accepted after all."""
        folded = self.folded
        self.folded = Folded(folded.seq, folded.accepted + evicted + damaged, folded.evicted - evicted)

    def fold(self) -> None:
        """Counts instead of ranges for what lies before the first segment, as far as all of it is settled."""
        below = min((segment.first_seq for segment in self.segments[:1]), default=self.end_seq)
        seq = min(below, self.settled.first_missing(0))
        if seq > self.folded.seq:
            accepted, evicted = self.accepted.remove(0, seq), self.evicted.remove(0, seq)
            self.folded = Folded(seq, self.folded.accepted + accepted, self.folded.evicted + evicted)

    def accounting(self) -> EpochAccounting:
        return EpochAccounting(
            epoch=self.epoch,
            logged=self.end_seq,
            accepted=self.accepted_count,
            pending=self.pending,
            evicted=self.evicted_count,
            damaged=self.damaged_count,
            watermark=self.settled.first_missing(0),
        )
