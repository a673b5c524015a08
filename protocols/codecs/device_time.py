"""A device's time, as its payload has it, to Unix milliseconds."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from protocols.codecs.spec import SpecError
from protocols.errors import DecodeError

SECONDS_BELOW: Final = 100_000_000_000
"""A number below this is Unix seconds (until the year 5138), from it on milliseconds (since March 1973)."""
TIME_ABS_MAX_MS: Final = 2**53
RECEIVED: Final = "received"
AGO: Final = "ago"
RELATIVE: Final = frozenset((RECEIVED, AGO))
"""Epochs that are moments of reception: a decoder gives the distance, who knows the moment adds it."""
MS_PER_UNIT: Final = {
    "s": Fraction(1000),
    "ms": Fraction(1),
    "us": Fraction(1, 1000),
    "ns": Fraction(1, 1_000_000),
    "min": Fraction(60_000),
}

TimeReader = Callable[[Any], int]
"""A value to Unix milliseconds, or to milliseconds since reception; raises DecodeError."""


def time_ms(value: Any, name: str, zone: datetime.tzinfo | None = None) -> int:
    """Unix milliseconds from a number (seconds or milliseconds) or an RFC 3339 string; DecodeError names `name`.
    `zone`: of a string that names none."""
    if type(value) is int or type(value) is float:
        if not -TIME_ABS_MAX_MS <= value <= TIME_ABS_MAX_MS:
            raise DecodeError(f"{name} is out of range: {_shown(value)}", path=name)
        return round(value * 1000) if -SECONDS_BELOW < value < SECONDS_BELOW else round(value)
    if type(value) is str:
        try:
            moment = datetime.datetime.fromisoformat(value)
            if moment.tzinfo is None:
                if zone is None:
                    raise DecodeError(
                        f"{name} has no time zone: {value!r}; write it as 2026-01-31T12:00:00Z", path=name
                    )
                moment = moment.replace(tzinfo=zone)
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
    if type(value) is datetime.datetime and value.tzinfo is not None:
        return round(value.timestamp() * 1000)
    raise DecodeError(f"{name} is not a time: {_shown(value)!r}; Unix milliseconds or RFC 3339 is expected", path=name)


def time_reader(name: str, unit: str, epoch: str, zone: str, *, of: str = "time") -> TimeReader:
    """`name`: what errors call the value. Raises SpecError for `<of>_unit`, `<of>_epoch` or `<of>_zone`."""
    default_zone = zone_of(zone, f"{of}_zone")
    if not unit and not epoch:
        return lambda value: time_ms(value, name, default_zone)
    if unit not in MS_PER_UNIT:
        known = ", ".join(MS_PER_UNIT)
        raise SpecError(f"{of}_unit", f"{unit!r} is none of {known}" if unit else f"needed beside an epoch: {known}")
    of_number = number_reader(name, unit, epoch, f"{of}_epoch")

    def read(value: Any) -> int:
        if (type(value) is str and epoch not in RELATIVE) or type(value) is datetime.datetime:
            return time_ms(value, name, default_zone)
        return of_number(value)

    return read


def number_reader(name: str, unit: str, epoch: str, field: str) -> TimeReader:
    """Reads numbers only. `unit` is of MS_PER_UNIT. Raises SpecError for `field` where the epoch is no time."""
    start_ms = 0 if epoch in RELATIVE or not epoch else _epoch_ms(epoch, field)
    times = -MS_PER_UNIT[unit] if epoch == AGO else MS_PER_UNIT[unit]
    above, below = times.numerator, times.denominator

    def read(value: Any) -> int:
        if type(value) is int:
            found = start_ms + (value * above + below // 2) // below
        elif type(value) is float and -TIME_ABS_MAX_MS <= value * above / below <= TIME_ABS_MAX_MS:
            found = start_ms + round(value * above / below)
        else:
            raise DecodeError(f"{name} is not a time: {_shown(value)!r}; a number is expected", path=name)
        if not -TIME_ABS_MAX_MS <= found <= TIME_ABS_MAX_MS:
            raise DecodeError(f"{name} is out of range: {_shown(value)}", path=name)
        return found

    return read


def zone_of(text: str, field: str) -> datetime.tzinfo | None:
    """Raises SpecError for `field`."""
    if not text:
        return None
    if text in ("UTC", "Z"):
        return datetime.UTC
    try:
        offset = datetime.datetime.strptime(text, "%z").utcoffset()
    except ValueError:
        offset = None
    if offset is None:
        raise SpecError(field, f"{text!r} is no time zone; write UTC or an offset such as +01:00")
    return datetime.timezone(offset)


def _epoch_ms(text: str, field: str) -> int:
    try:
        return time_ms(text, field, datetime.UTC)
    except DecodeError:
        raise SpecError(field, f"{text!r} is no moment; write it as 2000-01-01T00:00:00Z, received or ago") from None


def _shown(value: Any) -> str:
    """A number of thousands of digits is not written out."""
    if type(value) is int and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    return str(value)[:40]
