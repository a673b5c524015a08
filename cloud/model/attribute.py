"""Attributes of blueprints: how they are declared, and which value fits.

An attribute is named by its path in the data, as in queries of history: `temperature`, `meta.serial`; `\\.` is a point
in a name. What fits stays as it is; what can be read as what is declared is converted ("21.5" is the number 21.5). null
says that there is no value, and fits everywhere.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from cloud.model.buckets import AskedError
from cloud.model.series import Path, parse_path
from protocols.errors import UNREADABLE

AttributeType = Literal["string", "number", "integer", "boolean", "timestamp", "geoposition", "object", "relationship"]
Cardinality = Literal["1-1", "1-N", "N-1", "N-N"]
Number = int | float
Scalar = str | int | float

WITH_UNIT: Final = ("number", "integer")
"""Types that have a unit, and a range."""
TIMES: Final = (-62_135_596_800_000, 253_402_300_799_999)
"""Unix milliseconds of the years 1 to 9999, which is what calendars know."""
INTEGERS: Final = (-(2**63), 2**63 - 1)
"""What 64 bits hold."""
DEGREES: Final = {"lat": 90, "lon": 180}
"""Of a geoposition, either way."""
QUOTED_CHARACTERS_MAX: Final = 60
"""Of a value within a sentence."""
QUOTED_MAX: Final = 8
"""Of the values of an enumeration."""


class Attribute(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of a blueprint."""

    type: AttributeType
    unit: str | None = None
    """Of a number, as people write it: °C, bar, %."""
    description: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    enumeration: tuple[Scalar, ...] = ()
    """The only values there are; empty: any."""
    default: Any = None
    """What is shown of a device that has not said it; None: nothing."""
    history: bool = True
    """False: its current value is kept, and nothing else."""
    blueprint: str | None = None
    """Of a relationship: what the devices are of that it leads to, its children."""
    cardinality: Cardinality | None = None
    """Of a relationship: from parents, which are of this blueprint, to children."""
    forward: dict[str, str] = {}
    """Of a relationship: which attributes of a child are attributes of its parent, too, and what they are called
    there."""


class MisfitError(Exception):
    """A value does not fit."""

    def __init__(self, code: Literal["type", "range", "enumeration"], detail: str) -> None:
        super().__init__(detail)
        self.code = code


_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_WHOLE: Final = re.compile(r"[-+]?\d{1,19}", re.ASCII)
_TRUTHS: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_LATITUDES: Final = ("lat", "latitude")
_LONGITUDES: Final = ("lon", "lng", "long", "longitude")
_ALTITUDES: Final = ("alt", "altitude")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def path_of(name: str) -> Path:
    """Raises AskedError."""
    return parse_path(name, "name")


def path_or_name(name: str) -> Path:
    """Of a name that is no path, as they were not looked at once, itself."""
    try:
        return path_of(name)
    except AskedError:
        return (name,)


def name_of(path: Sequence[str]) -> str:
    """What `path_of` reads."""
    return ".".join(re.sub(r"([.\\])", r"\\\1", step) for step in path)


def fitting(attribute: Attribute, value: msgspec.Raw) -> msgspec.Raw:
    """The value (JSON): the same object where it fits as it is, or what it is converted to. Raises MisfitError."""
    written = bytes(value).decode()
    try:
        read = _any(written)
    except UNREADABLE:  # a number that no float holds
        raise MisfitError("type", f"{_quoted_json(written)} cannot be read") from None
    fits = _fit(attribute, read, written)
    return value if fits is read else msgspec.Raw(_encode(fits))


def _fit(attribute: Attribute, value: Any, written: str) -> Any:
    """The same object, or what it is converted to. `written`: its JSON."""
    if value is None:
        return None
    fits: Any = _AS[attribute.type](value, written)
    if attribute.type in WITH_UNIT:
        if attribute.minimum is not None and fits < attribute.minimum:
            raise MisfitError("range", f"{quoted(value)} is below the minimum {attribute.minimum}")
        if attribute.maximum is not None and fits > attribute.maximum:
            raise MisfitError("range", f"{quoted(value)} is above the maximum {attribute.maximum}")
    if attribute.enumeration and fits not in attribute.enumeration:
        known = ", ".join(map(quoted, attribute.enumeration[:QUOTED_MAX]))
        more = ", …" if len(attribute.enumeration) > QUOTED_MAX else ""
        raise MisfitError("enumeration", f"{quoted(value)} is none of {known}{more}")
    return fits


def _wrong(value: Any, kind: str) -> MisfitError:
    return MisfitError("type", f"{quoted(value)} is no {kind}")


def _as_string(value: Any, written: str) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return written or str(value)
    raise _wrong(value, "string")


def _as_number(value: Any, _written: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value):
        return value
    raise _wrong(value, "number")


def is_finite(value: Number) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def _as_integer(value: Any, written: str) -> Any:
    number = value
    if not isinstance(value, int) or isinstance(value, bool):
        number = _as_number(value, written)
    whole = number if isinstance(number, int) else int(number)
    if whole != number:
        raise MisfitError("type", f"{quoted(value)} is no whole number")
    if not INTEGERS[0] <= whole <= INTEGERS[1]:
        raise MisfitError("range", f"{quoted(value)} is beyond 64 bits")
    return value if isinstance(value, int) else whole


def _as_boolean(value: Any, _written: str) -> Any:
    if isinstance(value, bool):
        return value
    truth = _TRUTHS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if truth is None:
        raise _wrong(value, "boolean")
    return truth


def _as_timestamp(value: Any, _written: str) -> Any:
    """Unix milliseconds, as a number or in digits, or ISO 8601; without a zone it is UTC."""
    when = value
    if isinstance(value, str):
        text = value.strip()
        when = int(text) if _WHOLE.fullmatch(text) else _moment_ms(text)
    elif isinstance(value, float) and math.isfinite(value):
        when = math.floor(value)
    if not isinstance(when, int) or isinstance(when, bool):
        raise _wrong(value, "timestamp (Unix milliseconds or ISO 8601)")
    if not TIMES[0] <= when <= TIMES[1]:
        raise MisfitError("range", f"{quoted(value)} is outside the years 1 to 9999")
    return when


def _moment_ms(text: str) -> int | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def _as_geoposition(value: Any, _written: str) -> Any:
    """{lat, lon} in degrees, with whatever else is said of it; also by other common names, as GeoJSON, and as
    [lon, lat] or [lon, lat, alt]."""
    place = value
    if isinstance(value, dict) and isinstance(value.get("coordinates"), list) and value.get("type") == "Point":
        place = value["coordinates"]
    if isinstance(place, list) and len(place) in (2, 3):
        found = dict(zip(("lon", "lat", "alt"), place, strict=False))
    elif isinstance(place, dict):
        found = dict(place)
        for name, others in (("lat", _LATITUDES), ("lon", _LONGITUDES), ("alt", _ALTITUDES)):
            for other in others:
                if other in found:
                    found[name] = found.pop(other)
                    break
    else:
        raise _wrong(value, "geoposition ({lat, lon} or [lon, lat])")
    for name, degrees_max in DEGREES.items():
        try:
            found[name] = _as_number(found.get(name), "")
        except MisfitError:
            raise _wrong(value, "geoposition ({lat, lon} or [lon, lat])") from None
        if abs(found[name]) > degrees_max:
            raise MisfitError("range", f"{name} {quoted(found[name])} is beyond {degrees_max} degrees")
    return value if found == value and _same_kinds(found, value) else found


def _same_kinds(found: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """1 and true are equal, and not the same."""
    return all(type(found[name]) is type(value[name]) for name in ("lat", "lon"))


def _as_object(value: Any, _written: str) -> Any:
    if isinstance(value, dict):
        return value
    raise _wrong(value, "object")


def _as_relationship(value: Any, _written: str) -> Any:
    raise MisfitError("type", f"{quoted(value)} is no value: a relationship leads to other devices")


_AS: Final = {
    "string": _as_string,
    "number": _as_number,
    "integer": _as_integer,
    "boolean": _as_boolean,
    "timestamp": _as_timestamp,
    "geoposition": _as_geoposition,
    "object": _as_object,
    "relationship": _as_relationship,
}


def quoted(value: Any) -> str:
    return _quoted_json(_encode(value).decode() if not isinstance(value, int) else str(value).lower())


def _quoted_json(written: str) -> str:
    return written if len(written) <= QUOTED_CHARACTERS_MAX else written[:QUOTED_CHARACTERS_MAX] + "…"
