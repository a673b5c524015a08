"""Cursors, and times and spans in queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.api.pages import decode_cursor, encode_cursor
from cloud.api.problems import Problem
from cloud.api.times import TO_MAX_MS, span_ms, time_ms

KEYS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8", exclude_characters="\0")))


@given(KEYS)
def test_a_cursor_comes_back_as_its_key(key: int | str) -> None:
    assert decode_cursor(encode_cursor(key), type(key)) == key


@given(st.text(max_size=50))
def test_what_is_no_cursor_is_a_problem(text: str) -> None:
    try:
        decode_cursor(text, tuple[int, str])
    except Problem as problem:
        assert problem.body["field"] == "cursor"  # noqa: PT017 - some texts are cursors


@pytest.mark.parametrize("key", [2**63, -(2**63) - 1, (0, "a\0"), (2**64, "a")])
def test_what_no_column_can_hold_is_no_cursor(key: int | tuple[int, str]) -> None:
    kind = tuple[int, str] if isinstance(key, tuple) else int
    with pytest.raises(Problem, match="cursor"):
        decode_cursor(encode_cursor(key), kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1772353800000", 1_772_353_800_000),
        ("2026-03-01T08:30:00Z", 1_772_353_800_000),
        ("2026-03-01T08:30:00.250Z", 1_772_353_800_250),
        ("2026-03-01T09:30:00+01:00", 1_772_353_800_000),
        ("2026-03-01T09:30:00 01:00", 1_772_353_800_000),
        ("1960-01-01T00:00:00Z", 0),
        ("-5", 0),
        ("9999999999999999", TO_MAX_MS),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert time_ms(text, "from") == expected


@pytest.mark.parametrize("text", ["", "now", "2026-03-01", "2026-03-01T08:30:00", "1e9", "12345678901234567"])
def test_what_is_no_time_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(Problem) as caught:
        time_ms(text, "to")
    assert caught.value.body["field"] == "to"
    assert "2026-03-01T08:30:00Z" in caught.value.body["remedy"]


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 500), ("10m", 600_000), ("2h", 7_200_000), ("1w", 604_800_000)]
)
def test_spans(text: str, expected: int) -> None:
    assert span_ms(text, "last") == expected


@pytest.mark.parametrize("text", ["", "m", "10", "-1m", "1.5h", "10 m", "1y", "9999999999d"])
def test_what_is_no_span_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(Problem) as caught:
        span_ms(text, "last")
    assert "10m" in caught.value.body["remedy"]
