"""Buckets: what history is grouped in. Fixed widths count from 1970-01-01T00:00Z; calendar ones go by a time zone, so
that a day of it may have 23 or 25 hours."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Literal, get_args

import msgspec

BUCKETS_MAX: Final = 10_000
"""Of one series in one query: a week of minutes. What is drawn from it has fewer pixels."""
TIME_MAX_MS: Final = 7_258_118_400_000
"""2200-01-01: no bucket goes by a later time, since the rules of no zone are known that far."""
WIDTH_MAX_MS: Final = 366 * 86_400_000
"""What is wider is a year of the calendar, or all."""
UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FIXED: Final = re.compile(r"([1-9]\d{0,6})(s|m|h|d)")

Unit = Literal["day", "week", "month", "quarter", "year"]
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
WHOLE: Final = "all"


class AskedError(ValueError):
    """A query that cannot be answered: which of its fields is wrong, and what to do about it."""

    def __init__(self, field: str, detail: str, *, remedy: str | None = None, limit: int | None = None) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
        self.remedy = remedy
        self.limit = limit


class Width(msgspec.Struct, frozen=True):
    """One of both: a fixed width, or a unit of the calendar; none: all of the range is one bucket."""

    fixed_ms: int | None = None
    unit: Unit | None = None


class Buckets(msgspec.Struct, frozen=True):
    """Bucket k is [starts[k], starts[k + 1]), as the calendar has it; of it, [edges[k], edges[k + 1]) is in the range
    that was asked for."""

    starts: tuple[int, ...]
    edges: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def index(self, time_ms: int) -> int:
        """Of the bucket that holds it: -1 before all, len(self) behind all."""
        return bisect_right(self.edges, time_ms) - 1


def parse_width(text: str) -> Width:
    """Raises AskedError."""
    if text == WHOLE:
        return Width()
    if text in UNITS:
        return Width(unit=text)
    match = _FIXED.fullmatch(text)
    if match is None:
        remedy = f"write a width such as 15m (s, m, h, d), or one of {', '.join(UNITS)}, {WHOLE}"
        raise AskedError("bucket", f"{text[:40]!r} is no bucket", remedy=remedy)
    fixed_ms = int(match[1]) * UNIT_MS[match[2]]
    if fixed_ms > WIDTH_MAX_MS:
        raise AskedError("bucket", f"{text} is wider than 366d", limit=WIDTH_MAX_MS, remedy=f"write year, or {WHOLE}")
    return Width(fixed_ms=fixed_ms)


def parse_zone(name: str) -> zoneinfo.ZoneInfo:
    """An IANA name. Raises AskedError."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "write an IANA name such as Europe/Berlin, or UTC"
        raise AskedError("zone", f"there is no time zone {name[:60]!r}", remedy=remedy) from None


def end_of(width: Width, zone: datetime.tzinfo, time_ms: int) -> int:
    """When the bucket ends that holds this time; for the whole, right behind it. Raises AskedError."""
    if time_ms >= TIME_MAX_MS:
        raise AskedError(
            "from", "is after 2200-01-01, beyond which there are no buckets", remedy="give an earlier time"
        )
    if width.unit is None and width.fixed_ms is None:
        return time_ms + 1
    starts = _starts(width, zone, time_ms)
    return next(start for start in starts if start > time_ms)


def cut(width: Width, zone: datetime.tzinfo, from_ms: int, to_ms: int, limit: int = BUCKETS_MAX) -> Buckets:
    """The buckets that [from_ms, to_ms) touches. Raises AskedError if they are more than `limit`, or out of reach."""
    if to_ms > TIME_MAX_MS:
        raise AskedError("to", "is after 2200-01-01, beyond which there are no buckets", remedy="give an earlier time")
    if from_ms >= to_ms:
        raise AskedError("from", "is not before to", remedy="give a range that is not empty")
    if width.unit is None and width.fixed_ms is None:
        return Buckets((from_ms, to_ms), (from_ms, to_ms))
    starts: list[int] = []
    for start in _starts(width, zone, from_ms):
        if start <= from_ms:
            starts = [start]
            continue
        if len(starts) > limit:
            remedy = "take wider buckets, a shorter range or fewer paths"
            raise AskedError("bucket", f"more than {limit:,} buckets", limit=limit, remedy=remedy)
        starts.append(start)
        if start >= to_ms:
            break
    return Buckets(tuple(starts), (from_ms, *starts[1:-1], to_ms))


def _starts(width: Width, zone: datetime.tzinfo, time_ms: int) -> Iterator[int]:
    """Starts of buckets in order, each once, from one at or before that time."""
    if width.fixed_ms is not None:
        start = time_ms - time_ms % width.fixed_ms
        while True:
            yield start
            start += width.fixed_ms
    assert width.unit is not None
    day, before = _floor(_date(zone, time_ms), width.unit), None
    while True:
        # Where midnight does not exist, this is the moment of the change, with which the day starts.
        start = round(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)
        if start != before:  # a day that a zone has skipped is none
            yield start
        before = start
        day = _following(day, width.unit)


def _date(zone: datetime.tzinfo, time_ms: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(time_ms // 1000, zone).date()


def _floor(day: datetime.date, unit: Unit) -> datetime.date:
    match unit:
        case "day":
            return day
        case "week":
            return day - datetime.timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return day.replace(month=day.month - (day.month - 1) % 3, day=1)
        case "year":
            return day.replace(month=1, day=1)


def _following(day: datetime.date, unit: Unit) -> datetime.date:
    match unit:
        case "day":
            return day + datetime.timedelta(days=1)
        case "week":
            return day + datetime.timedelta(days=7)
        case "month":
            return (day + datetime.timedelta(days=31)).replace(day=1)
        case "quarter":
            return (day + datetime.timedelta(days=93)).replace(day=1)
        case "year":
            return day.replace(year=day.year + 1)
