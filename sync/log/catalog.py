"""Which segments there are, which records they hold, and what became of those.

In memory only: one object a segment and merged ranges an epoch, whatever the backlog. Used from the event loop's
thread alone (and by recovery, before there is a loop to share it with).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from protocols.block import BlockHead
from protocols.messages import Gap, GapKind
from sync.log.epoch import Epoch
from sync.log.gaps import GapBook
from sync.log.segment import Ended, Segment
from sync.log.settings import ACCEPTED_RANGES_MAX, ENDS_MAX
from sync.log.state import EpochState, State, Totals
from sync.ranges import Ranges


class Catalog:
    def __init__(self, gone: Totals) -> None:
        self.gone = gone
        self.tails = 0
        """Ends of segments that were no block, since the log was made."""
        self.gaps = GapBook()
        self.epochs: dict[int, Epoch] = {}
        """Oldest first."""
        self.current: int | None = None
        """The epoch being written: kept even while no segment of it is left."""
        self.changes = 0
        """Grows whenever what the state file holds changes, but for the end of the segment being written."""
        self._segments: dict[int, Segment] = {}
        self._ordinals: list[int] = []
        self._done: dict[int, Segment] = {}
        self._accepted_ranges = 0

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

    @property
    def active(self) -> Ended | None:
        """How far the segment being written is synced."""
        last = self.last()
        return None if last is None or last.sealed else last.ended

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

    def extend(self, segment: Segment, head: BlockHead, offset: int, oldest_ms: int) -> None:
        """The block at `offset` is synced, the last of its segment and epoch. `oldest_ms`: of its records."""
        segment.extend(head, offset, oldest_ms)
        self.epochs[segment.epoch].end_seq = head.end_seq

    def seal(self, segment: Segment) -> None:
        """Nothing more is written to it: it may go once all its records are settled."""
        segment.sealed = True
        self.changes += 1
        self._note_done(self.epochs[segment.epoch], segment)

    def sending(self, epoch_id: int, first_seq: int, end_seq: int) -> None:
        """These records are in flight."""
        epoch = self.epochs.get(epoch_id)
        if epoch is not None:
            epoch.in_flight.add(first_seq, min(end_seq, epoch.end_seq))

    def is_pending(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        epoch = self.epochs.get(epoch_id)
        return epoch is not None and not epoch.settled.covers(max(first_seq, epoch.folded.seq), end_seq)

    def nothing_in_flight(self) -> None:
        for epoch in self.epochs.values():
            if epoch.in_flight.parts:
                epoch.in_flight = Ranges()

    def accept(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        """The cloud has these records, also where they were counted as lost. Unknown ones are passed over: they belong
        to an epoch that is gone, or to another disk's log. Returns whether any of it is news."""
        first_seq = max(first_seq, 0)
        epoch = self.epochs.get(epoch_id)
        if epoch is None:
            return self._reclaim_gone(epoch_id, first_seq, end_seq)
        end_seq = min(end_seq, epoch.end_seq)
        news = first_seq < epoch.folded.seq and self._reclaim_folded(epoch, first_seq, min(end_seq, epoch.folded.seq))
        epoch.in_flight.remove(first_seq, end_seq)
        if first_seq < end_seq and self._has_room_for(epoch, first_seq, end_seq):
            pending, parts = epoch.pending, epoch.accepted.parts
            added = epoch.accept(first_seq, end_seq)
            self._accepted_ranges += epoch.accepted.parts - parts
            if added > pending - epoch.pending:
                self.gaps.reclaim(epoch_id, first_seq, end_seq)
            if added:
                news = True
                self._note_done_between(epoch, first_seq, end_seq)
        self.changes += news
        return news

    def lose(self, kind: GapKind, segment: Segment, parts: Iterable[tuple[int, int]], *, now_ms: int) -> int:
        """These records of the segment's epoch are evicted, or cannot be read any more; returns how many of them were
        pending, which is what is lost."""
        epoch = self.epochs.get(segment.epoch)
        if epoch is None:
            return 0
        lose = epoch.evict if kind is GapKind.EVICTED else epoch.damage
        lost = [part for first, end in parts for part in lose(first, min(end, epoch.end_seq))]
        if not lost:
            return 0
        self.changes += 1
        (first, end), *more = lost
        gap = Gap(epoch.epoch, first, end, kind, segment.oldest_ms, segment.newest_ms, now_ms)
        self.gaps.add(gap, more)
        self._note_done_between(epoch, first, lost[-1][1])
        return sum(end - first for first, end in lost)

    def add_tail(self, gap: Gap) -> bool:
        """Whether it is news."""
        if not self.gaps.add(gap):
            return False
        self.tails += 1
        self.changes += 1
        return True

    def may_lose(self, segment: Segment) -> bool:
        """Whether something of it may be evicted now: nothing of it is being written or in flight."""
        in_flight = self.epochs[segment.epoch].in_flight
        return segment.sealed and not in_flight.held(segment.first_seq, segment.end_seq)

    @property
    def evicted_ranges(self) -> int:
        return sum(epoch.evicted.parts for epoch in self.epochs.values())

    def keep_gaps(self, gaps: Iterable[Gap]) -> None:
        """The cloud has them."""
        for gap in gaps:
            self.gaps.keep(gap)
        self.gaps.forget_kept()
        self.changes += 1

    def take_back(self, epoch_id: int, first_seq: int, end_seq: int, *, now_ms: int) -> bool:
        """The cloud does not have these records: those that were accepted are pending again, or damaged where they are
        in no segment any more. Returns whether there were any."""
        epoch = self.epochs.get(epoch_id)
        if epoch is None:
            return False
        accepted, parts = epoch.accepted_count, epoch.accepted.parts
        lost = epoch.take_back(first_seq, end_seq)
        self._accepted_ranges += epoch.accepted.parts - parts
        for first, end in lost:
            self.gaps.add(Gap(epoch_id, first, end, GapKind.DAMAGED, 0, 0, now_ms))
        for segment in epoch.segments:
            if not epoch.settled.covers(segment.first_seq, segment.end_seq):
                self._done.pop(segment.ordinal, None)
        if epoch.accepted_count == accepted:
            return False
        self.changes += 1
        return True

    def holdings(self) -> list[tuple[int, int, int]]:
        """Epoch, first number, the number after the last: of what is accepted, as far as its ranges are known."""
        return [(epoch.epoch, *part) for epoch in self.epochs.values() for part in epoch.accepted]

    def pending(self) -> list[tuple[int, int, int]]:
        """Epoch, first number, the number after the last: of what is not settled, the oldest epoch first."""
        return [
            (epoch.epoch, *part) for epoch in self.epochs.values() for part in epoch.settled.missing(0, epoch.end_seq)
        ]

    def in_flight(self) -> list[tuple[int, int, int]]:
        return [(epoch.epoch, *part) for epoch in self.epochs.values() for part in epoch.in_flight]

    def where(self, epoch_id: int, seq: int) -> str:
        """`logged` (pending), `in flight`, `accepted`, `evicted`, `damaged`, or `unknown`: no such record, or one of
        long ago."""
        epoch = self.epochs.get(epoch_id)
        if epoch is None or 0 <= seq < epoch.folded.seq:
            if epoch is not None and epoch.folded.accepted == epoch.folded.seq:
                return "accepted"
            lost = self.gaps.kind_of(epoch_id, seq)
            return "unknown" if lost is None else lost.value
        if not 0 <= seq < epoch.end_seq:
            return "unknown"
        for fate, records in (("accepted", epoch.accepted), ("evicted", epoch.evicted), ("damaged", epoch.settled)):
            if seq in records:
                return fate
        return "in flight" if seq in epoch.in_flight else "logged"

    def is_accepted(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        epoch = self.epochs.get(epoch_id)
        return epoch is None or epoch.accepted.covers(first_seq, end_seq)

    def is_settled(self, segment: Segment) -> bool:
        return self.epochs[segment.epoch].settled.covers(segment.first_seq, segment.end_seq)

    def unsent(self, segment: Segment) -> list[tuple[int, int]]:
        """Its records that are pending and not in flight."""
        return self.epochs[segment.epoch].unsent(segment.first_seq, segment.end_seq)

    def done(self) -> list[Segment]:
        """Segments that may go: sealed, all their records settled. Never the last one: its header and its blocks are
        what tells the batch keys after a restart. Oldest first."""
        return [self._done[ordinal] for ordinal in sorted(self._done) if ordinal != self._ordinals[-1]]

    def drop(self, segments: Iterable[Segment], *, now_ms: int) -> None:
        """Their files are gone for good, and with them what became pending again at the last moment."""
        for segment in segments:
            self.lose(GapKind.DAMAGED, segment, [(segment.first_seq, segment.end_seq)], now_ms=now_ms)
            del self._segments[segment.ordinal]
            self._ordinals.remove(segment.ordinal)
            self._done.pop(segment.ordinal, None)
            self.epochs[segment.epoch].segments.remove(segment)
        self.fold()

    def fold(self) -> None:
        """Moves epochs of which no segment is left into the totals."""
        for epoch in [epoch for epoch in self.epochs.values() if not epoch.segments and epoch.epoch != self.current]:
            del self.epochs[epoch.epoch]
            self._accepted_ranges -= epoch.accepted.parts
            self.changes += 1
            lost = epoch.end_seq - epoch.accepted_count - epoch.evicted_count
            self._add_gone(epoch.end_seq, epoch.accepted_count, epoch.evicted_count, lost)

    def restore(self, remembered: State) -> None:
        """Takes over what the state knows of epochs; of those without a segment, the totals."""
        self.tails = remembered.tails
        self.gaps.restore(remembered.gaps)
        for one in remembered.epochs:
            accepted, evicted, damaged = map(Ranges.of_steps, (one.accepted, one.evicted, one.damaged))
            known = self.epochs.get(one.epoch)
            epoch = Epoch(one.epoch, one.folded)
            epoch.end_seq = max(one.end_seq, known.end_seq if known else 0)
            for ranges, settle in ((accepted, epoch.accept), (evicted, epoch.evict), (damaged, epoch.damage)):
                for first, end in ranges:
                    settle(first, end)
            if known is None:
                lost = epoch.damaged_count
                logged = epoch.accepted_count + epoch.evicted_count + lost
                self._add_gone(logged, epoch.accepted_count, epoch.evicted_count, lost)
            else:
                epoch.segments = known.segments
                self.epochs[one.epoch] = epoch
                self._accepted_ranges += epoch.accepted.parts

    def has_unsent(self, head: BlockHead) -> bool:
        """Whether a record of the block is pending and not in flight."""
        epoch = self.epochs.get(head.epoch)
        return epoch is not None and bool(epoch.unsent(head.first_seq, head.end_seq))

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
            logged=self.gone.logged + sum(epoch.end_seq for epoch in epochs),
            accepted=self.gone.accepted + sum(epoch.accepted_count for epoch in epochs),
            damaged=self.gone.damaged + sum(epoch.damaged_count for epoch in epochs),
            evicted=self.gone.evicted + sum(epoch.evicted_count for epoch in epochs),
        )

    def state(self, without: Iterable[Segment] = ()) -> State:
        """What is to be remembered, for when the segments `without` are gone."""
        kept = set(self._ordinals).difference(segment.ordinal for segment in without)
        # Those that are to go, too: a crash may come before they do.
        last = [self._segments[ordinal] for ordinal in self._ordinals if ordinal + 1 not in kept]
        ends = [segment.ended for segment in last if segment.sealed]
        epochs = [
            EpochState(
                epoch.epoch,
                epoch.folded,
                epoch.accepted.steps(),
                epoch.evicted.steps(),
                Ranges(epoch.damaged_ranges()).steps(),
            )
            for epoch in self.epochs.values()
        ]
        return State(self.gone, epochs, ends[:ENDS_MAX], self.active, self.gaps.state(), self.tails)

    def _has_room_for(self, epoch: Epoch, first_seq: int, end_seq: int) -> bool:
        """Whether there may be another accepted range, if it takes one."""
        if self._accepted_ranges < ACCEPTED_RANGES_MAX or epoch.accepted.touches(first_seq, end_seq):
            return True
        for each in self.epochs.values():
            self._accepted_ranges -= each.accepted.parts
            each.fold()
            self._accepted_ranges += each.accepted.parts
        return self._accepted_ranges < ACCEPTED_RANGES_MAX

    def _reclaim_folded(self, epoch: Epoch, first_seq: int, end_seq: int) -> bool:
        evicted, damaged = self._reclaim(epoch.epoch, first_seq, end_seq)
        epoch.reclaim_folded(evicted, damaged)
        return bool(evicted or damaged)

    def _reclaim_gone(self, epoch_id: int, first_seq: int, end_seq: int) -> bool:
        evicted, damaged = self._reclaim(epoch_id, first_seq, end_seq)
        self._add_gone(0, evicted + damaged, -evicted, -damaged)
        self.changes += bool(evicted or damaged)
        return bool(evicted or damaged)

    def _reclaim(self, epoch_id: int, first_seq: int, end_seq: int) -> tuple[int, int]:
        """How many of them were told of as evicted, and as damaged."""
        found = self.gaps.reclaim(epoch_id, first_seq, end_seq)
        return found.get(GapKind.EVICTED, 0), found.get(GapKind.DAMAGED, 0)

    def _add_gone(self, logged: int, accepted: int, evicted: int, damaged: int) -> None:
        gone = self.gone
        self.gone = Totals(
            gone.logged + logged, gone.accepted + accepted, gone.damaged + damaged, gone.evicted + evicted
        )

    def _note_done_between(self, epoch: Epoch, first_seq: int, end_seq: int) -> None:
        segments = epoch.segments
        low = bisect_right(segments, first_seq, key=lambda segment: segment.end_seq)
        high = bisect_left(segments, end_seq, key=lambda segment: segment.first_seq)
        for segment in segments[low:high]:
            self._note_done(epoch, segment)

    def _note_done(self, epoch: Epoch, segment: Segment) -> None:
        if segment.sealed and epoch.settled.covers(segment.first_seq, segment.end_seq):
            self._done[segment.ordinal] = segment
