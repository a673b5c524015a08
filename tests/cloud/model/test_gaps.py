"""Gaps as sets of records: nothing of them is lost or doubled when they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.model.gaps import new_tails, without
from protocols.messages import Gap, GapKind
from sync.ranges import Ranges

GAP = Gap(7, 100, 200, GapKind.EVICTED, 1, 2, 3)
RANGES = st.lists(st.tuples(st.integers(80, 220), st.integers(0, 40)).map(lambda pair: (pair[0], sum(pair))))


@given(RANGES)
def test_what_is_left_of_a_gap_is_what_has_not_come(came: list[tuple[int, int]]) -> None:
    ranges = Ranges(came)
    left = without(GAP, ranges)
    assert [(gap.first_seq, gap.end_seq) for gap in left] == ranges.missing(100, 200)
    assert all((gap.epoch, gap.kind, gap.noticed_ms) == (7, GapKind.EVICTED, 3) for gap in left)


def test_a_place_has_one_tail() -> None:
    def tail(place: int, size: int, epoch: int = 7) -> Gap:
        return Gap(epoch, place, place, GapKind.TAIL, 0, 0, 1, size)

    told = [tail(5, 10), tail(5, 20), GAP, tail(9, 1), tail(5, 1, epoch=8)]
    assert new_tails(told, [tail(9, 3), Gap(8, 5, 6, GapKind.DAMAGED, 0, 0, 0)]) == [told[0], told[4]]
