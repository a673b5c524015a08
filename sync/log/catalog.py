"""Which segments there are, which records they hold, and what became of those.

In memory only: one object a segment and merged ranges an epoch, whatever the backlog. Used from the event loop's
thread alone (and by recovery, before there is a loop to share it with).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from protocols.block import BlockHead
from sync.log.accounting import EpochAccounting
from sync.log.segment import Mark, Segment
from sync.log.settings import ACCEPTED_RANGES_MAX, ENDS_MAX
from sync.log.state import EpochState, State, Totals
from sync.ranges import Ranges


class Epoch:
    """Records 0 to `end_seq` of one opening."""

    __slots__ = ("accepted", "end_seq", "epoch", "segments", "settled")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.end_seq = 0
        self.accepted = Ranges()
        self.settled = Ranges()
        """Accepted or damaged: what needs no sending."""
        self.segments: list[Segment] = []
        """Rising."""

    @property
    def damaged(self) -> int:
        return len(self.settled) - len(self.accepted)

    @property
    def pending(self) -> int:
        return self.end_seq - len(self.settled)

    def damaged_ranges(self) -> list[tuple[int, int]]:
        return [gap for first, end in self.settled for gap in self.accepted.missing(first, end)]

    def accounting(self) -> EpochAccounting:
        return EpochAccounting(
            epoch=self.epoch,
            logged=self.end_seq,
            accepted=len(self.accepted),
            pending=self.pending,
            damaged=self.damaged,
            watermark=self.settled.first_missing(0),
        )


class Catalog:
    def __init__(self, gone: Totals) -> None:
        self.gone = gone
        self.epochs: dict[int, Epoch] = {}
        """Oldest first."""
        self.current: int | None = None
        """The epoch being written: kept even while no segment of it is left."""
        self.changes = 0
        """Grows whenever what the state file holds changes."""
        self._segments: dict[int, Segment] = {}
        self._ordinals: list[int] = []
        self._done: dict[int, Segment] = {}
        self._ranges = 0

    def __len__(self) -> int:
        return len(self._ordinals)

    @property
    def segment_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments.values())

    def get(self, ordinal: int) -> Segment | None:
        return self._segments.get(ordinal)

    def next_from(self, ordinal: int) -> Segment | None:
        """The first segment whose ordinal is not lower."""
        at = bisect_left(self._ordinals, ordinal)
        return self._segments[self._ordinals[at]] if at < len(self._ordinals) else None

    def segments_from(self, ordinal: int) -> list[Segment]:
        """Those whose ordinal is not lower, rising."""
        return [self._segments[at] for at in self._ordinals[bisect_left(self._ordinals, ordinal) :]]

    def last(self) -> Segment | None:
        return self._segments[self._ordinals[-1]] if self._ordinals else None

    def begin(self, segment: Segment) -> None:
        """A new segment, behind all others."""
        self._segments[segment.ordinal] = segment
        self._ordinals.append(segment.ordinal)
        epoch = self.epochs.get(segment.epoch)
        if epoch is None:
            epoch = self.epochs[segment.epoch] = Epoch(segment.epoch)
        epoch.segments.append(segment)
        epoch.end_seq = max(epoch.end_seq, segment.end_seq)

    def begin_epoch(self, epoch_id: int) -> None:
        """What is written from now on."""
        if self.current != epoch_id:
            self.current = epoch_id
            self.fold()

    def extend(self, segment: Segment, head: BlockHead, offset: int) -> None:
        """The block at `offset` is synced, the last of its segment and epoch."""
        segment.mark(Mark(head.first_seq, offset, head.newest_ms))
        segment.end_bytes = offset + head.size
        segment.end_seq = self.epochs[segment.epoch].end_seq = head.end_seq

    def seal(self, segment: Segment) -> None:
        """Nothing more is written to it: it may go once all its records are settled."""
        segment.sealed = True
        self._note_done(self.epochs[segment.epoch], segment)

    def accept(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        """The cloud has these records. Unknown ones are passed over: they belong to an epoch that is gone, or to
        another disk's log. Returns whether any of it is news."""
        epoch = self.epochs.get(epoch_id)
        if epoch is None:
            return False
        first_seq, end_seq = max(first_seq, 0), min(end_seq, epoch.end_seq)
        if first_seq >= end_seq:
            return False
        if self._ranges >= ACCEPTED_RANGES_MAX and not epoch.accepted.touches(first_seq, end_seq):
            return False
        self._ranges -= epoch.accepted.parts
        added = epoch.accepted.add(first_seq, end_seq)
        self._ranges += epoch.accepted.parts
        if not added:
            return False
        self.changes += 1
        epoch.settled.add(first_seq, end_seq)
        self._note_done_between(epoch, first_seq, end_seq)
        return True

    def damage(self, epoch_id: int, first_seq: int, end_seq: int) -> int:
        """These records cannot be read any more; returns how many of them that is news of."""
        epoch = self.epochs.get(epoch_id)
        if epoch is None:
            return 0
        added = epoch.settled.add(first_seq, min(end_seq, epoch.end_seq))
        if added:
            self.changes += 1
            self._note_done_between(epoch, first_seq, end_seq)
        return added

    def is_accepted(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        epoch = self.epochs.get(epoch_id)
        return epoch is None or epoch.accepted.covers(first_seq, end_seq)

    def is_settled(self, segment: Segment) -> bool:
        return self.epochs[segment.epoch].settled.covers(segment.first_seq, segment.end_seq)

    def done(self) -> list[Segment]:
        """Segments that may go: sealed, all their records settled. Never the last one: its header and its blocks are
        what tells the batch keys after a restart."""
        return [segment for segment in self._done.values() if segment.ordinal != self._ordinals[-1]]

    def drop(self, segments: Iterable[Segment]) -> None:
        """Their files are gone for good."""
        for segment in segments:
            del self._segments[segment.ordinal]
            self._ordinals.remove(segment.ordinal)
            self._done.pop(segment.ordinal, None)
            self.epochs[segment.epoch].segments.remove(segment)
        self.fold()

    def fold(self) -> None:
        """Moves epochs of which no segment is left into the totals."""
        for epoch in [epoch for epoch in self.epochs.values() if not epoch.segments and epoch.epoch != self.current]:
            del self.epochs[epoch.epoch]
            self._ranges -= epoch.accepted.parts
            self.changes += 1
            self.gone = Totals(
                self.gone.logged + epoch.end_seq,
                self.gone.accepted + len(epoch.accepted),
                self.gone.damaged + epoch.end_seq - len(epoch.accepted),
            )

    def restore_gone(self, epochs: Iterable[EpochState]) -> None:
        """Adds remembered epochs of which no segment is left to the totals: the process ended before it could."""
        for remembered in epochs:
            accepted = sum(end - first for first, end in remembered.accepted)
            damaged = sum(end - first for first, end in remembered.damaged)
            self.gone = Totals(
                self.gone.logged + accepted + damaged, self.gone.accepted + accepted, self.gone.damaged + damaged
            )

    def oldest_pending(self) -> tuple[Segment, int] | None:
        """The first segment, in the order of writing, with a pending record, and that record's number."""
        for ordinal in self._ordinals:
            segment = self._segments[ordinal]
            seq = self.epochs[segment.epoch].settled.first_missing(segment.first_seq)
            if seq < segment.end_seq:
                return segment, seq
        return None

    def totals(self) -> Totals:
        """Of all epochs, those that are gone included."""
        epochs = self.epochs.values()
        return Totals(
            self.gone.logged + sum(epoch.end_seq for epoch in epochs),
            self.gone.accepted + sum(len(epoch.accepted) for epoch in epochs),
            self.gone.damaged + sum(epoch.damaged for epoch in epochs),
        )

    def state(self, without: Iterable[Segment] = ()) -> State:
        """What is to be remembered, for when the segments `without` are gone."""
        kept = set(self._ordinals).difference(segment.ordinal for segment in without)
        last = [self._segments[ordinal] for ordinal in sorted(kept) if ordinal + 1 not in kept]
        ends = [segment.ended for segment in last if segment.sealed]
        epochs = [
            EpochState(epoch.epoch, list(epoch.accepted), epoch.damaged_ranges()) for epoch in self.epochs.values()
        ]
        return State(self.gone, epochs, ends[:ENDS_MAX])

    def _note_done_between(self, epoch: Epoch, first_seq: int, end_seq: int) -> None:
        segments = epoch.segments
        low = bisect_right(segments, first_seq, key=lambda segment: segment.end_seq)
        high = bisect_left(segments, end_seq, key=lambda segment: segment.first_seq)
        for segment in segments[low:high]:
            self._note_done(epoch, segment)

    def _note_done(self, epoch: Epoch, segment: Segment) -> None:
        if segment.sealed and epoch.settled.covers(segment.first_seq, segment.end_seq):
            self._done[segment.ordinal] = segment
