"""What gaps account for: never more than they claim, never at another time, and as much as can be."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.gaps import RECORD_BYTES_MIN, SLACK_MS, GapItem, accounted_for, gaps_line
from protocols.messages import GapKind

NOW_MS = 1_790_000_000_000


def gap(records: int, oldest_ms: int | None, newest_ms: int | None, **fields: Any) -> GapItem:
    values = {"kind": GapKind.EVICTED, "noticed_time": NOW_MS + 60_000, "size_bytes": 0, **fields}
    return GapItem("quay-1", records=records, oldest_time=oldest_ms, newest_time=newest_ms, **values)


def missing(*times_ms: int) -> dict[tuple[int, int, int], int]:
    return {(0, 41, seq): at_ms for seq, at_ms in enumerate(times_ms, 1)}


def test_a_gap_accounts_for_as_many_as_it_claims() -> None:
    lost = missing(NOW_MS, NOW_MS + 1, NOW_MS + 2)
    assert accounted_for(lost, [gap(2, NOW_MS, NOW_MS + 2)]) == {(0, 41, 1), (0, 41, 2)}
    assert accounted_for(lost, []) == set()


def test_a_gap_accounts_for_nothing_of_another_time() -> None:
    claim = gap(10, NOW_MS, NOW_MS + 1000)
    for at_ms, within in (
        (NOW_MS - SLACK_MS - 1, False),
        (NOW_MS - SLACK_MS, True),
        (NOW_MS + 1000 + SLACK_MS, True),
        (NOW_MS + 1000 + SLACK_MS + 1, False),
    ):
        assert bool(accounted_for(missing(at_ms), [claim])) is within, at_ms


def test_times_that_are_not_known_end_when_the_gap_was_noticed() -> None:
    claim = gap(10, None, None, kind=GapKind.DAMAGED)
    assert accounted_for(missing(NOW_MS - 10**9, NOW_MS + 60_000), [claim]) == {(0, 41, 1), (0, 41, 2)}
    assert accounted_for(missing(NOW_MS + 60_001 + SLACK_MS), [claim]) == set()


def test_a_gap_from_before_a_clock_was_set_goes_by_its_count_alone() -> None:
    claim = gap(1, 5_000, 9_000, noticed_time=9_500)
    assert accounted_for(missing(NOW_MS, NOW_MS + 1), [claim]) == {(0, 41, 1)}


def test_a_tail_accounts_for_no_more_than_its_bytes_can_have_held() -> None:
    tail = gap(0, None, None, kind=GapKind.TAIL, size_bytes=2 * RECORD_BYTES_MIN + 1)
    assert len(accounted_for(missing(NOW_MS, NOW_MS, NOW_MS), [tail])) == 2
    assert not accounted_for(missing(NOW_MS), [gap(0, None, None, kind=GapKind.TAIL)])


@given(
    st.lists(st.integers(0, 40), max_size=12),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 4)), max_size=5),
)
def test_no_other_way_of_sharing_out_accounts_for_more(times: list[int], spans: list[tuple[int, int, int]]) -> None:
    step_ms = 10 * SLACK_MS
    lost = missing(*(NOW_MS + at * step_ms for at in times))
    gaps = [gap(count, NOW_MS + first * step_ms, NOW_MS + (first + length) * step_ms) for first, length, count in spans]
    assert len(accounted_for(lost, gaps)) == most(times, spans)


def most(times: list[int], spans: list[tuple[int, int, int]]) -> int:
    """By augmenting paths: slow and plain."""
    places = [place for place, span in enumerate(spans) for _ in range(span[2])]
    taken: dict[int, int] = {}

    def find(message: int, seen: set[int]) -> bool:
        for claim, place in enumerate(places):
            first, length, _ = spans[place]
            if claim in seen or not first <= times[message] <= first + length:
                continue
            seen.add(claim)
            if claim not in taken or find(taken[claim], seen):
                taken[claim] = message
                return True
        return False

    return sum(find(message, set()) for message in range(len(times)))


def test_gaps_in_a_line() -> None:
    gaps = [gap(500, 1, 2), gap(20, 1, 2), gap(3, 1, 2, kind=GapKind.DAMAGED), gap(0, None, None, kind=GapKind.TAIL)]
    assert gaps_line(gaps) == "quay-1: damaged 3 in 1 gaps, evicted 520 in 2 gaps, 1 torn ends"
