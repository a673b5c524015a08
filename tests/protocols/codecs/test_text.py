"""CSV and key=value."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import CODECS, CodecSpec, SpecError
from tests.protocols.codecs.decoding import decode, error, messages

CSV = CodecSpec(codec="csv")
PAIRS = CodecSpec(codec="key-value")
words = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\x85"), max_size=6)


@given(st.lists(st.lists(words, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from([",", ";", "\t"]))
def test_text_comes_out_of_csv_as_it_went_in(rows: list[list[str]], delimiter: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    spec = CodecSpec(codec="csv", columns=("a", "b"), types={"a": "text", "b": "text"}, delimiter=delimiter)
    expected = [{"a": a.strip(), "b": b.strip()} for a, b in rows]
    assert messages(out.getvalue().encode(), spec) == expected


def test_csv_with_a_header_and_values_as_they_look() -> None:
    text = "time,temp,state,serial,ok\n2026-02-02T02:40:00Z,21.5,on,007,true\n1770000060,-3,,NaN,false\n"
    decoded = decode(text.encode(), CSV)
    assert decoded.time == [1_770_000_000_000, 1_770_000_060_000]
    assert messages(text.encode(), CSV) == [
        {"temp": 21.5, "state": "on", "serial": "007", "ok": True},
        {"temp": -3, "ok": False},
    ]


def test_csv_as_loggers_of_the_continent_write_it() -> None:
    spec = CodecSpec(
        codec="csv",
        columns=("time", "-", "temp"),
        delimiter=";",
        decimal=",",
        types={"temp": "number"},
        time_zone="+01:00",
    )
    decoded = decode(b"2026-02-02 03:40:00;x;21,5\r\n", spec)
    assert (decoded.time, decoded.data) == ([1_770_000_000_000], [b'{"temp":21.5}'])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no row"),
        (b"a,b\n", "no row"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,b\n1,2\n3\n", "line 3: 1 values for 2 columns"),
        (b'a\n"x\n', "line 2"),
        (b"a\n\xff", "not text (UTF-8) (byte 2)"),
        (b"a\nx\0", "U+0000"),
        (b"a\n" + b"1\n" * 4097, "more than 4096"),
        (b"time,a\nsoon,1\n", "time is not a time"),
    ],
)
def test_csv_that_cannot_be_read_says_why_and_where(text: bytes, said: str) -> None:
    assert said in error(text, CSV).detail


def test_types_hold() -> None:
    spec = CodecSpec(codec="csv", columns=("n", "b"), types={"n": "number", "b": "boolean"})
    assert messages(b"1e3,on", spec) == [{"n": 1000.0, "b": True}]
    assert "line 1: n is no number: 'x'" in error(b"x,on", spec).detail
    assert "b is neither" in error(b"1,perhaps", spec).detail


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ("temp=21.5 state=on", [{"temp": 21.5, "state": "on"}]),
        ("temp=21.5;hum=40, ok=true&n=-3\n", [{"temp": 21.5, "hum": 40, "ok": True, "n": -3}]),
        ('name="pump, big" x=', [{"name": "pump, big"}]),
        ("a=1\r\na=2\n\n", [{"a": 1}, {"a": 2}]),
    ],
)
def test_pairs_as_devices_write_them(payload: str, found: list[dict[str, Any]]) -> None:
    assert messages(payload.encode(), PAIRS) == found


def test_pairs_with_marks_of_their_own() -> None:
    spec = CodecSpec(codec="key-value", assign=":", delimiter="\n", decimal=",", types={"S": "text"})
    assert messages(b"T: 21,5\nS: 0 1\n", spec) == [{"T": 21.5, "S": "0 1"}]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no name and value"),
        (b"21.5", "line 1, character 0: name=value is expected"),
        (b"a=1\nb=2 c", "line 2, character 3"),
        (b"a=1 a=2", "a is there twice"),
        (b"=1", "expected"),
        (b'a="x', "expected"),
    ],
)
def test_pairs_that_cannot_be_read_say_why_and_where(payload: bytes, said: str) -> None:
    assert said in error(payload, PAIRS).detail


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (CodecSpec(codec="csv", delimiter="ab"), "delimiter"),
        (CodecSpec(codec="csv", decimal=","), "delimiter"),
        (CodecSpec(codec="csv", columns=("a", "a")), "columns"),
        (CodecSpec(codec="csv", types={"a": "date"}), "types.a"),
        (CodecSpec(codec="key-value", assign=" "), "assign"),
        (CodecSpec(codec="key-value", delimiter=", "), "delimiter"),
        (CodecSpec(codec="csv", decimal="x"), "decimal"),
        (CodecSpec(codec="csv", time_zone="Berlin"), "time_zone"),
    ],
)
def test_settings_that_cannot_work(spec: CodecSpec, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        CODECS[spec.codec](spec)
    assert refused.value.field == field
