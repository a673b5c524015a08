"""History queries: what can be asked of the values that devices sent, and what becomes of buckets without any.

A *point* is the value of a path in one message; null is none. Points of a device are in order of (event time, received
time, message id). A *series* is one path of one device, or of several together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from cloud.model.buckets import AskedError, Buckets, cut, end_of, parse_width, parse_zone

PATHS_MAX: Final = 16
PATH_CHARACTERS_MAX: Final = 200
STEPS_MAX: Final = 16
FUNCTIONS_MAX: Final = 16
FILTERS_MAX: Final = 8
FILTER_CHARACTERS_MAX: Final = 400
STATES_MAX: Final = 100
"""States of one bucket that are told, those that were held longest: a path that has more is a measurement."""
NUMBER_MAX: Final = 1e270
"""What is larger is no measurement, and its sum over a bucket would overflow: it is passed over as text is."""
HOLD_MAX_MS: Final = 366 * 86_400_000
HOLD_DEFAULT_MS: Final = 31 * 86_400_000
"""Long enough for what reports changes only; what is asked about a device that fell silent ends then."""

OF_POINTS: Final = ("avg", "min", "max", "sum", "count", "first", "last")
"""Functions of the points of a bucket alone."""
OF_CHANGES: Final = ("delta", "rate")
"""Of the bucket's last number and the last one before the bucket."""
OF_TIME: Final = ("twa", "states")
"""Of how long values held."""
FUNCTIONS: Final = (*OF_POINTS, *OF_CHANGES, *OF_TIME)
_PERCENTILE: Final = re.compile(r"p(100|\d{1,2}(?:\.\d{1,3})?)")

Path: TypeAlias = tuple[str, ...]
Comparison = Literal["=", "!=", "<", "<=", ">", ">="]
_FILTER: Final = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_STEP: Final = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)


class Filter(msgspec.Struct, frozen=True):
    """Which messages count: those that have the path, with such a value."""

    path: Path
    comparison: Comparison
    value: str
    """JSON: a number, text or boolean; a number for other comparisons than = and !=."""


class Fill(msgspec.Struct, frozen=True):
    """What stands for a bucket without a value: nothing (it is left out), null, the value before, one on the line
    between the values around it, or this number."""

    kind: Literal["none", "null", "previous", "linear", "number"] = "none"
    number: float = 0


_WORDS: Final = {"none": Fill("none"), "null": Fill("null"), "previous": Fill("previous"), "linear": Fill("linear")}


class Question(msgspec.Struct, frozen=True):
    paths: tuple[Path, ...]
    functions: tuple[str, ...]
    """In the order of the answer's columns."""
    buckets: Buckets
    until_ms: int
    """Now: no value holds beyond it."""
    filters: tuple[Filter, ...] = ()
    fill: Fill = Fill()
    hold_ms: int = HOLD_DEFAULT_MS
    """A value holds until the next one of its series, but no longer than so."""


class PointsQuestion(msgspec.Struct, frozen=True):
    """Which messages, and what of them: those of [from_ms, to_ms) that have one of the paths."""

    paths: tuple[Path, ...]
    from_ms: int
    to_ms: int
    filters: tuple[Filter, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """A bucket of a series."""

    device_id: int | None
    """None: of several together."""
    path: int
    bucket: int
    filled: bool
    values: tuple[Any, ...]
    """One a function. `first` and `last` are msgspec.Raw; `states`: state to milliseconds, the longest first."""


def ask(
    paths: Sequence[str],
    functions: Sequence[str],
    bucket: str,
    zone: str,
    from_ms: int,
    to_ms: int | None,
    now_ms: int,
    *,
    filters: Sequence[str] = (),
    fill: str = "none",
    hold_ms: int = HOLD_DEFAULT_MS,
) -> Question:
    """The question that people's words ask. `to_ms` None: until the end of the bucket that now is in. Raises
    AskedError."""
    width, at = parse_width(bucket), parse_zone(zone)
    if not 0 < hold_ms <= HOLD_MAX_MS:
        raise AskedError("hold", "is not between 1ms and 366d", limit=HOLD_MAX_MS)
    if to_ms is None:
        to_ms = end_of(width, at, max(now_ms, from_ms))
    return Question(
        parse_paths(paths),
        parse_functions(functions or ["avg"]),
        cut(width, at, from_ms, to_ms),
        now_ms,
        parse_filters(filters),
        parse_fill(fill),
        hold_ms,
    )


def parse_paths(texts: Sequence[str]) -> tuple[Path, ...]:
    """Raises AskedError."""
    if not 0 < len(texts) <= PATHS_MAX:
        raise AskedError("path", f"{len(texts)} paths", limit=PATHS_MAX, remedy=f"name 1 to {PATHS_MAX}")
    return tuple(map(parse_path, texts))


def parse_filters(texts: Sequence[str]) -> tuple[Filter, ...]:
    """Raises AskedError."""
    if len(texts) > FILTERS_MAX:
        raise AskedError("filter", f"{len(texts)} filters", limit=FILTERS_MAX)
    return tuple(map(parse_filter, texts))


def parse_path(text: str, field: str = "path") -> Path:
    r"""Dotted names; `\.` is a point in a name. Raises AskedError."""
    remedy = r"write the names in the data, with points between: temperature, meta.serial; \. is a point in a name"
    if not text or len(text) > PATH_CHARACTERS_MAX:
        raise AskedError(field, "is empty or too long", limit=PATH_CHARACTERS_MAX, remedy=remedy)
    steps = _STEP.findall(text)
    if ".".join(steps) != text or "\0" in text:
        raise AskedError(field, f"{text[:60]!r} is no path", remedy=remedy)
    if len(steps) > STEPS_MAX:
        raise AskedError(field, "names more levels than data has", limit=STEPS_MAX, remedy=remedy)
    return tuple(re.sub(r"\\(.)", r"\1", step, flags=re.DOTALL) for step in steps)


def parse_functions(texts: Iterable[str]) -> tuple[str, ...]:
    """Raises AskedError."""
    found = tuple(dict.fromkeys(texts))
    for text in found:
        if text not in FUNCTIONS and percentile(text) is None:
            remedy = f"known are {', '.join(FUNCTIONS)}, and percentiles such as p50, p95, p99.9"
            raise AskedError("function", f"{text[:40]!r} is no function", remedy=remedy)
    if len(found) > FUNCTIONS_MAX:
        raise AskedError("function", f"{len(found)} functions", limit=FUNCTIONS_MAX, remedy="ask in several requests")
    return found


def percentile(function: str) -> float | None:
    """The fraction that a percentile asks for."""
    match = _PERCENTILE.fullmatch(function)
    return None if match is None else float(match[1]) / 100


def parse_filter(text: str) -> Filter:
    """`path=value`, `path>=20`. What is no JSON is text. Raises AskedError."""
    match = _FILTER.fullmatch(text) if len(text) <= FILTER_CHARACTERS_MAX and "\0" not in text else None
    if match is None:
        remedy = "write path, comparison (=, !=, <, <=, >, >=) and value: mode=auto, temperature>=20"
        raise AskedError("filter", f"{text[:60]!r} is no filter", limit=FILTER_CHARACTERS_MAX, remedy=remedy)
    path, comparison, written = parse_path(match[1], "filter"), match[2], match[3]
    value: Any = written
    try:
        read = msgspec.json.decode(written)
        if isinstance(read, str | bool | int | float):
            value = read
    except msgspec.DecodeError:
        pass
    if isinstance(value, str) and "\0" in value:
        raise AskedError("filter", "holds the character U+0000, which no data has", remedy="leave it out")
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if comparison not in ("=", "!=") and not numeric:
        remedy = "compare with a number, or by = and !="
        raise AskedError("filter", f"{text[:60]!r} compares sizes of what is no number", remedy=remedy)
    return Filter(path, cast(Comparison, comparison), msgspec.json.encode(value).decode())  # no other fits _FILTER


def parse_fill(text: str) -> Fill:
    """Raises AskedError."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        number = float(text)
        if abs(number) <= NUMBER_MAX:
            return Fill("number", number)
    except ValueError:
        pass
    raise AskedError("fill", f"{text[:40]!r} is no way to fill", remedy=f"write {', '.join(_WORDS)} or a number")


def filled(question: Question, device_id: int | None, path: int, rows: Mapping[int, Sequence[Any]]) -> Iterator[Row]:
    """All rows of a series, by bucket; `rows`: those that have values."""
    if question.fill.kind == "none":
        for bucket in sorted(rows):
            yield Row(device_id, path, bucket, False, tuple(rows[bucket]))
        return
    columns = [
        _column(question, name, {bucket: values[place] for bucket, values in rows.items()})
        for place, name in enumerate(question.functions)
    ]
    for bucket in range(len(question.buckets)):
        if bucket in rows:
            yield Row(device_id, path, bucket, False, tuple(rows[bucket]))
        else:
            yield Row(device_id, path, bucket, True, tuple(column[bucket] for column in columns))


def _column(question: Question, function: str, known: Mapping[int, Any]) -> list[Any]:
    """What each bucket has where it has no value of its own. Nothing was counted, and no state was held, in a bucket
    without any: neither is filled."""
    count = len(question.buckets)
    if function == "count":
        return [0] * count
    fill = question.fill
    if function == "states" or fill.kind == "null":
        return [None] * count
    if fill.kind == "number":
        return [fill.number] * count
    column: list[Any] = [None] * count
    held = [bucket for bucket in sorted(known) if known[bucket] is not None]
    if fill.kind == "previous":
        for here, following in pairwise([*held, count]):
            column[here + 1 : following] = [known[here]] * (following - here - 1)
        return column
    starts = question.buckets.starts
    for here, following in pairwise(held):
        low, high = _number(known[here]), _number(known[following])
        if low is not None and high is not None:
            for bucket in range(here + 1, following):
                share = (starts[bucket] - starts[here]) / (starts[following] - starts[here])
                column[bucket] = low + (high - low) * share
    return column


def _number(value: Any) -> float | None:
    """`first` and `last` may be anything."""
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def marked(buckets: Buckets, losses: Iterable[tuple[int, int]]) -> frozenset[int]:
    """The buckets in which records were lost; `losses`: first and last time, both included."""
    found: set[int] = set()
    for first_ms, last_ms in losses:
        found.update(range(max(0, buckets.index(first_ms)), min(len(buckets) - 1, buckets.index(last_ms)) + 1))
    return frozenset(found)
