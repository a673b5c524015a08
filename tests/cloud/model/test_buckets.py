"""Buckets by clock and calendar."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from cloud.model.buckets import AskedError, Buckets, cut, end_of, parse_width, parse_zone

HOUR = 3_600_000


def ms(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def lengths(buckets: Buckets) -> list[float]:
    return [(end - start) / HOUR for start, end in zip(buckets.starts, buckets.starts[1:], strict=False)]


@pytest.mark.parametrize(
    ("zone", "from_", "to", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T00:00+01:00", "2026-03-31T00:00+02:00", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-26T01:00+01:00", [24, 25, 24]),
        ("Australia/Lord_Howe", "2026-04-04T12:00+11:00", "2026-04-05T12:00+10:30", [24, 24.5]),
        ("America/Sao_Paulo", "2018-11-03T12:00-03:00", "2018-11-04T12:00-02:00", [24, 23]),
        ("Pacific/Apia", "2011-12-29T00:00-10:00", "2012-01-01T00:00+14:00", [24, 24]),
        ("UTC", "2026-03-28T00:00Z", "2026-03-30T00:00Z", [24, 24]),
    ],
)
def test_a_day_is_as_long_as_its_zone_makes_it(zone: str, from_: str, to: str, hours: list[float]) -> None:
    """Apia left out the 30th of December 2011."""
    assert lengths(cut(parse_width("day"), ZoneInfo(zone), ms(from_), ms(to))) == hours


@pytest.mark.parametrize(
    ("unit", "starts"),
    [
        ("week", ["2026-02-09", "2026-02-16", "2026-02-23", "2026-03-02"]),
        ("month", ["2026-02-01", "2026-03-01"]),
        ("quarter", ["2026-01-01", "2026-04-01"]),
        ("year", ["2026-01-01", "2027-01-01"]),
    ],
)
def test_units_start_where_the_calendar_says(unit: str, starts: list[str]) -> None:
    zone = ZoneInfo("America/New_York")
    buckets = cut(parse_width(unit), zone, ms("2026-02-10T15:00-05:00"), ms("2026-02-28T15:00-05:00"))
    local = [datetime.datetime.fromtimestamp(start / 1000, zone) for start in buckets.starts]
    assert [f"{start:%Y-%m-%d}" for start in local] == starts
    assert {(start.hour, start.minute) for start in local} == {(0, 0)}
    assert buckets.edges[0] == ms("2026-02-10T15:00-05:00")
    assert buckets.edges[-1] == ms("2026-02-28T15:00-05:00")


def test_fixed_widths_count_from_1970_whatever_the_zone() -> None:
    for zone in ("UTC", "Asia/Kathmandu"):
        buckets = cut(parse_width("6h"), ZoneInfo(zone), 7 * HOUR, 13 * HOUR)
        assert buckets == Buckets((6 * HOUR, 12 * HOUR, 18 * HOUR), (7 * HOUR, 12 * HOUR, 13 * HOUR))
    assert [buckets.index(hour * HOUR) for hour in (6, 7, 11, 12, 13)] == [-1, 0, 0, 1, 2]


def test_all_is_one_bucket() -> None:
    assert cut(parse_width("all"), ZoneInfo("UTC"), 5, 9) == Buckets((5, 9), (5, 9))


def test_the_bucket_of_now_ends_with_its_day() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert end_of(parse_width("day"), berlin, ms("2026-03-29T12:00+02:00")) == ms("2026-03-30T00:00+02:00")
    assert end_of(parse_width("day"), berlin, ms("2026-03-29T00:00+01:00")) == ms("2026-03-30T00:00+02:00")
    assert end_of(parse_width("15m"), berlin, 900_000) == 1_800_000


def test_there_are_so_many_and_no_more() -> None:
    minute = parse_width("1m")
    assert len(cut(minute, ZoneInfo("UTC"), 0, 5 * 60_000, limit=5)) == 5
    with pytest.raises(AskedError, match="more than 5 buckets") as refused:
        cut(minute, ZoneInfo("UTC"), 0, 5 * 60_000 + 1, limit=5)
    assert (refused.value.field, refused.value.limit) == ("bucket", 5)


@pytest.mark.parametrize("text", ["", "0m", "15", "15 m", "-5m", "1.5h", "1w", "days", "m", "99999999s"])
def test_what_is_no_bucket_is_told(text: str) -> None:
    with pytest.raises(AskedError, match="no bucket"):
        parse_width(text)


def test_a_width_is_a_leap_year_at_most() -> None:
    assert parse_width("366d").fixed_ms == 366 * 24 * HOUR
    with pytest.raises(AskedError, match="wider than 366d") as refused:
        parse_width("8785h")
    assert refused.value.limit == 366 * 24 * HOUR


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 5000])
def test_what_is_no_zone_is_told(name: str) -> None:
    with pytest.raises(AskedError, match="no time zone") as refused:
        parse_zone(name)
    assert refused.value.field == "zone"


@pytest.mark.parametrize(("from_ms", "to_ms", "field"), [(0, 2**53, "to"), (5, 5, "from")])
def test_ranges_out_of_reach_are_told(from_ms: int, to_ms: int, field: str) -> None:
    with pytest.raises(AskedError) as refused:
        cut(parse_width("day"), ZoneInfo("UTC"), from_ms, to_ms)
    assert refused.value.field == field
    with pytest.raises(AskedError, match="after 2200"):
        end_of(parse_width("day"), ZoneInfo("UTC"), 2**53)
