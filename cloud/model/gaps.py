"""Gaps: which of the records that a gateway has lost are lost to us too, and what stays of a gap when some are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from protocols.messages import Gap, GapKind
from protocols.shipment import Run

FATE_OF: Final = {GapKind.EVICTED: "evicted", GapKind.DAMAGED: "damaged", GapKind.TAIL: "tails"}
"""The fate that a gap's records are counted under; a tail is of unknown length and counts as one."""


def run_of(source_id: int, gap: Gap) -> Run:
    """The gap's records; none for a tail."""
    return Run(source_id, gap.epoch, gap.first_seq, gap.records)


def cut(gap: Gap, start: int, end: int) -> Gap:
    """The part of it that covers records [start, end)."""
    return msgspec.structs.replace(gap, first_seq=start, end_seq=end)


def without(gap: Gap, gone: Iterable[tuple[int, int]]) -> list[Gap]:
    """What is left of it, in order, when the records of some disjoint, sorted ranges are no part of it any more."""
    left = []
    start = gap.first_seq
    for first, end in gone:
        if end <= start or first >= gap.end_seq:
            continue
        if first > start:
            left.append(cut(gap, start, first))
        start = min(end, gap.end_seq)
    if start < gap.end_seq:
        left.append(cut(gap, start, gap.end_seq))
    return left


def new_tails(told: Sequence[Gap], held: Sequence[Gap]) -> list[Gap]:
    """The tails among `told` that are not held yet. A place has one tail, however often and with whatever size it is
    told."""
    known = {(gap.epoch, gap.first_seq) for gap in held if gap.kind is GapKind.TAIL}
    new = []
    for gap in told:
        place = (gap.epoch, gap.first_seq)
        if gap.kind is GapKind.TAIL and place not in known:
            known.add(place)
            new.append(gap)
    return new
