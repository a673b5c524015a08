"""Ranges against a plain set of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sync.ranges import Ranges

pairs = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(st.lists(pairs), pairs)
def test_ranges_behave_as_the_set_of_their_numbers(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    ranges, numbers = Ranges(), set[int]()
    for start, end in added:
        new = set(range(start, end)) - numbers
        assert ranges.add(start, end) == len(new)
        numbers |= new
    start, end = asked
    held = list(ranges)
    assert {n for s, e in held for n in range(s, e)} == numbers
    assert all(before[1] < after[0] for before, after in itertools.pairwise(held)), "merged, sorted, not adjacent"
    assert len(ranges) == len(numbers)
    assert ranges.covers(start, end) == (set(range(start, end)) <= numbers)
    assert {n for s, e in ranges.missing(start, end) for n in range(s, e)} == set(range(start, end)) - numbers
    assert ranges.end == (max(numbers) + 1 if numbers else 0)
    assert ranges.parts == len(held)
    assert [number in ranges for number in range(62)] == [number in numbers for number in range(62)]
    assert ranges.first_missing(start) == next(n for n in range(start, 62) if n not in numbers)
    wider = Ranges(held)
    wider.add(start, end)
    assert ranges.touches(start, end) == (wider.parts <= ranges.parts or start >= end)
    assert {n for s, e in ranges.held(start, end) for n in range(s, e)} == set(range(start, end)) & numbers
    assert Ranges.of_steps(ranges.steps()) == ranges
    less = Ranges(held)
    assert less.remove(start, end) == len(set(range(start, end)) & numbers)
    assert less == Ranges((n, n + 1) for n in numbers - set(range(start, end)))
    assert len(less) == len(numbers - set(range(start, end)))
    if held:
        ranges.drop_first()
        assert list(ranges) == held[1:]
        assert len(ranges) == sum(e - s for s, e in held[1:])
