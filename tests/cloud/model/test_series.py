"""What can be asked of history, as people write it."""

from __future__ import annotations

import pytest

from cloud.model.buckets import AskedError, Buckets
from cloud.model.series import Fill, Filter, marked, parse_fill, parse_filter, parse_functions, parse_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("temperature", ("temperature",)),
        ("meta.serial", ("meta", "serial")),
        (r"urn:a\.b.c", ("urn:a.b", "c")),
        ("values.0", ("values", "0")),
        ("größe in m", ("größe in m",)),
        ("a'; DROP TABLE history; --", ("a'; DROP TABLE history; --",)),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a\\", "x" * 201, ".".join("a" * 17), "a\0b"])
def test_what_is_no_path_is_told(text: str) -> None:
    with pytest.raises(AskedError) as refused:
        parse_path(text)
    assert refused.value.field == "path"
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mode=auto", Filter(("mode",), "=", '"auto"')),
        ("mode!=auto", Filter(("mode",), "!=", '"auto"')),
        ("meta.level>=20.5", Filter(("meta", "level"), ">=", "20.5")),
        ("n<-3", Filter(("n",), "<", "-3")),
        ("on=true", Filter(("on",), "=", "true")),
        ('code="7"', Filter(("code",), "=", '"7"')),
        ("note=a=b<c", Filter(("note",), "=", '"a=b<c"')),
        ("note=", Filter(("note",), "=", '""')),
        ("note=null", Filter(("note",), "=", '"null"')),
        ("note=[1]", Filter(("note",), "=", '"[1]"')),
    ],
)
def test_filters(text: str, found: Filter) -> None:
    assert parse_filter(text) == found


@pytest.mark.parametrize(
    "text", ["mode", "=auto", "a>", "a>b", "a<true", 'a>="3"', "a..b=1", "a=" + "x" * 400, "a=\0", r'a="\u0000"']
)
def test_what_is_no_filter_is_told(text: str) -> None:
    with pytest.raises(AskedError) as refused:
        parse_filter(text)
    assert refused.value.field == "filter"


def test_functions_are_known_ones_each_once() -> None:
    assert parse_functions(["max", "p99.9", "p0", "p100", "max"]) == ("max", "p99.9", "p0", "p100")
    for text in ("median", "p101", "p-1", "p", "p1e1", "AVG", ""):
        with pytest.raises(AskedError, match="no function"):
            parse_functions([text])
    with pytest.raises(AskedError) as refused:
        parse_functions([f"p{number}" for number in range(17)])
    assert refused.value.limit == 16


def test_ways_to_fill() -> None:
    assert [parse_fill(text) for text in ("none", "linear", "0", "-1.5")] == [
        Fill("none"),
        Fill("linear"),
        Fill("number", 0),
        Fill("number", -1.5),
    ]
    for text in ("", "number", "nan", "inf", "1e300", "zero"):
        with pytest.raises(AskedError, match="no way to fill"):
            parse_fill(text)


def test_buckets_are_marked_from_the_first_loss_to_the_last() -> None:
    buckets = Buckets((0, 10, 20, 30), (5, 10, 20, 28))
    assert marked(buckets, [(12, 12)]) == {1}
    assert marked(buckets, [(9, 10)]) == {0, 1}
    assert marked(buckets, [(0, 4), (28, 99)]) == set()
    assert marked(buckets, [(0, 5), (27, 99)]) == {0, 2}
    assert marked(buckets, [(-5, 99)]) == {0, 1, 2}
