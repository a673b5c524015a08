"""The losses that the cloud is to know of, or was told of lately.

One entry holds the losses of one kind in one epoch that came about together or stand side by side, as ranges with one
pair of times for all: bounded, however they are scattered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from protocols.messages import Gap, GapKind
from sync.log.settings import GAPS_KEPT_MAX, GAPS_MAX
from sync.ranges import Ranges
from tidegate.logs import get_logger

logger = get_logger("sync.log")


class GapState(msgspec.Struct, frozen=True, array_like=True):
    """An entry, as the state file has it."""

    epoch: int
    kind: GapKind
    oldest_ms: int
    newest_ms: int
    noticed_ms: int
    size_bytes: int
    held: list[int]
    """Ranges as steps (state.py); of a tail, the number that would be next."""
    kept: list[int]
    """Those of them that are durable in the cloud."""


class _Entry:
    __slots__ = ("epoch", "held", "kept", "kind", "newest_ms", "noticed_ms", "oldest_ms", "size_bytes", "told")

    def __init__(self, gap: Gap) -> None:
        self.epoch = gap.epoch
        self.kind = gap.kind
        self.oldest_ms = gap.oldest_ms
        self.newest_ms = gap.newest_ms
        self.noticed_ms = gap.noticed_ms
        self.size_bytes = gap.size_bytes
        self.held = Ranges([_span(gap)])
        """A tail holds the number that would be next, which stands for no record."""
        self.kept = Ranges()
        """Durable in the cloud."""
        self.told = Ranges()
        """Kept on this connection."""

    def gap(self, first_seq: int, end_seq: int) -> Gap:
        end_seq = first_seq if self.kind is GapKind.TAIL else end_seq
        return Gap(
            self.epoch,
            first_seq,
            end_seq,
            self.kind,
            self.oldest_ms,
            self.newest_ms,
            self.noticed_ms,
            self.size_bytes,
        )

    def untold(self) -> Iterator[Gap]:
        for held in self.held:
            for part in self.told.missing(*held):
                yield self.gap(*part)

    def merge(self, gap: Gap) -> None:
        times = [ms for ms in (self.oldest_ms, gap.oldest_ms) if ms]
        self.oldest_ms = min(times, default=0)
        self.newest_ms = max(self.newest_ms, gap.newest_ms)
        self.noticed_ms = max(self.noticed_ms, gap.noticed_ms)
        self.held.add(gap.first_seq, gap.end_seq)

    @property
    def is_kept(self) -> bool:
        return len(self.kept) == len(self.held)


class GapBook:
    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        """Oldest first."""

    def __iter__(self) -> Iterator[Gap]:
        """All that are held."""
        for entry in self._entries:
            for held in entry.held:
                yield entry.gap(*held)

    def add(self, gap: Gap, more: Iterable[tuple[int, int]] = ()) -> bool:
        """A loss has come about, `more` ranges of it if it is scattered. False for a tail that is held already."""
        if gap.kind is GapKind.TAIL and any(
            entry.kind is gap.kind and entry.epoch == gap.epoch and gap.first_seq in entry.held
            for entry in self._entries
        ):
            return False
        entry = self._neighbour(gap)
        if entry is None:
            entry = _Entry(gap)
            self._entries.append(entry)
        else:
            entry.merge(gap)
        for part in more:
            entry.held.add(*part)
        if len(self._entries) > GAPS_MAX:
            self._shrink()
        return True

    def untold(self, limit: int) -> list[Gap]:
        """The oldest of those that were not kept on this connection."""
        found: list[Gap] = []
        for entry in self._entries:
            for gap in entry.untold():
                if len(found) == limit:
                    return found
                found.append(gap)
        return found

    @property
    def untold_count(self) -> int:
        """Ranges that are not durable in the cloud."""
        return sum(len(entry.kept.missing(*held)) for entry in self._entries for held in entry.held)

    def keep(self, gap: Gap) -> None:
        """It is durable in the cloud."""
        start, end = _span(gap)
        for entry in self._entries:
            if entry.epoch == gap.epoch and entry.kind is gap.kind:
                for part in entry.held.held(start, end):
                    entry.kept.add(*part)
                    entry.told.add(*part)

    def tell_again(self) -> None:
        """On a new connection."""
        for entry in self._entries:
            entry.told = Ranges()

    def forget_kept(self) -> None:
        """Those that the cloud has go, all but the last few."""
        kept = [entry for entry in self._entries if entry.is_kept]
        gone = kept[: max(0, len(kept) - GAPS_KEPT_MAX)]
        if gone:
            self._entries = [entry for entry in self._entries if entry not in gone]

    def reclaim(self, epoch: int, first_seq: int, end_seq: int) -> dict[GapKind, int]:
        """These records are not lost after all: how many of them were held, by kind."""
        found: dict[GapKind, int] = {}
        for entry in self._entries:
            if entry.epoch == epoch and entry.kind is not GapKind.TAIL:
                for part in entry.held.held(first_seq, end_seq):
                    found[entry.kind] = found.get(entry.kind, 0) + part[1] - part[0]
                    for ranges in (entry.held, entry.kept, entry.told):
                        ranges.remove(*part)
        if found:
            self._entries = [entry for entry in self._entries if len(entry.held)]
        return found

    def kind_of(self, epoch: int, seq: int) -> GapKind | None:
        for entry in self._entries:
            if entry.epoch == epoch and seq in entry.held and entry.kind is not GapKind.TAIL:
                return entry.kind
        return None

    def state(self) -> list[GapState]:
        return [
            GapState(
                entry.epoch,
                entry.kind,
                entry.oldest_ms,
                entry.newest_ms,
                entry.noticed_ms,
                entry.size_bytes,
                entry.held.steps(),
                entry.kept.steps(),
            )
            for entry in self._entries
        ]

    def restore(self, states: Iterable[GapState]) -> None:
        for state in states:
            gap = Gap(
                state.epoch, 0, 0, state.kind, state.oldest_ms, state.newest_ms, state.noticed_ms, state.size_bytes
            )
            entry = _Entry(gap)
            entry.held, entry.kept = Ranges.of_steps(state.held), Ranges.of_steps(state.kept)
            self._entries.append(entry)

    def _neighbour(self, gap: Gap) -> _Entry | None:
        """The newest entry that this one goes on from, if the cloud does not have that yet."""
        if gap.kind is GapKind.TAIL or not self._entries:
            return None
        entry = self._entries[-1]
        alike = entry.epoch == gap.epoch and entry.kind is gap.kind and not len(entry.kept)
        return entry if alike and entry.held.touches(*_span(gap)) else None

    def _shrink(self) -> None:
        """To GAPS_MAX entries: first those that the cloud has go, then neighbours of one epoch and kind become one."""
        entries = self._entries
        for entry in entries:
            if entry.is_kept:
                entries.remove(entry)
                return
        for at, entry in enumerate(entries):
            for other in entries[at + 1 :]:
                if other.epoch == entry.epoch and other.kind is entry.kind is not GapKind.TAIL:
                    for held in other.held:
                        entry.merge(other.gap(*held))
                    for ranges, added in ((entry.kept, other.kept), (entry.told, other.told)):
                        for part in added:
                            ranges.add(*part)
                    entries.remove(other)
                    return
        # As many epochs as entries, each with a loss that the cloud has not heard of. The totals still count it.
        oldest = entries.pop(0)
        logger.error("a gap will not reach the cloud: too many wait", epoch=f"{oldest.epoch:016x}", kind=oldest.kind)


def _span(gap: Gap) -> tuple[int, int]:
    return gap.first_seq, gap.first_seq + 1 if gap.kind is GapKind.TAIL else gap.end_seq
