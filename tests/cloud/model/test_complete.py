"""Complete until: never said before it is true, and said in the end, whatever goes on meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.model.complete import CLOCK_OFF_MAX_MS, Completion, told_until
from sync.ranges import Ranges

NOW = 1_770_000_000_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("at_ms", "complete_ms", "until_ms"),
    [
        (NOW, NOW, NOW),
        (NOW + 900, NOW + 900, NOW),  # a clock a little ahead: not beyond our own now
        (NOW - 900, NOW - 5000, NOW - 5000),
        (NOW - 30 * DAY, NOW - 30 * DAY - 7000, NOW - 7000 - CLOCK_OFF_MAX_MS),  # a clock that is wrong: by the age
        (NOW + DAY, NOW + DAY - 7000, NOW - 7000 - CLOCK_OFF_MAX_MS),
        (NOW, NOW + 1, None),  # stepped back: its oldest record is from the future
    ],
)
def test_what_a_standing_says_by_our_clock(at_ms: int, complete_ms: int, until_ms: int | None) -> None:
    assert told_until(at_ms, complete_ms, NOW) == until_ms


def test_nothing_is_complete_before_what_was_here_is_written() -> None:
    completion = Completion()
    assert completion.advance(100, {7: Ranges([(0, 10)])}) is None
    assert completion.advance(200, {7: Ranges([(9, 30)])}) is None
    assert completion.advance(300, {7: Ranges([(10, 30)]), 8: Ranges([(0, 10)])}) == 100
    assert completion.advance(None, {7: Ranges([(30, 31)])}) == 300
    assert not completion.waits
    assert completion.advance(400, {}) == 400
    assert completion.advance(None, {}) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_it_is_true_whenever_it_is_said(steps: list[tuple[bool, int, int]]) -> None:
    """Records arrive in order, are accepted, and are written in order; each stands for its own time."""
    completion = Completion()
    accepted = written = 0
    for told, more, done in steps:
        told_ms = accepted if told else None
        accepted += more
        written = min(accepted, written + done)
        unwritten = {7: Ranges([(written, accepted)])} if written < accepted else {}
        complete = completion.advance(told_ms, unwritten)
        assert complete is None or complete <= written
    completion.advance(accepted, {})
    assert not completion.waits
