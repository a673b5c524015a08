"""JSON (RFC 8259): an object is one message, an array of objects one message each.

Alias, message key and time are read by dotted paths; the time is lifted out of the data, all else stays in it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import CodecSpec, Decoded, Decoder, nothing_decoded
from protocols.errors import UNREADABLE, DecodeError
from protocols.ids import KeyPart
from protocols.limits import JSON_DEPTH_MAX, MESSAGES_PER_RECORD_MAX, NAME_BYTES_MAX

SECONDS_BELOW: Final = 100_000_000_000
"""A number below this is Unix seconds (until the year 5138), from it on milliseconds (since March 1973)."""
_TIME_ABS_MAX_MS: Final = 2**53
_KEY_TYPES: Final = frozenset((int, str, float, bool))

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_MISSING: Final = object()


class JsonReader:
    """Reads one network's JSON into columns."""

    def __init__(self, spec: CodecSpec) -> None:
        self._spec = spec
        self._alias_path = tuple(spec.alias_path.split(".")) if spec.alias_path else ()
        self._key_of = _key_reader(spec.key_paths)
        self._time_path = tuple(spec.time_path.split(".")) if spec.time_path else ()

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Nearly always every payload is one flat object: then columns are made at once. Else each is looked at by
        itself, so that what is wrong with one stays with it."""
        together = b"\n".join(payloads)
        if b"[" not in together and b"\\u0000" not in together and together.count(b"{") == len(payloads):
            try:
                return self._flat_columns([_decode(payload) for payload in payloads])
            except (DecodeError, *UNREADABLE):
                pass
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                self.add_all(out, place, parse_checked(payload))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    def _flat_columns(self, items: list[Any]) -> Decoded:
        """One message an item. Raises DecodeError if anything is wrong with any of them."""
        count = len(items)
        if not all([type(item) is dict for item in items]):  # noqa: C419  # a list is quicker to make than to iterate
            raise DecodeError("a JSON object is expected")
        alias: list[str | None] = [None] * count
        key: list[tuple[KeyPart, ...] | None] = [None] * count
        time: list[int | None] = [None] * count
        if self._alias_path:
            alias = [self._alias_of(item) for item in items]
        if self._key_of is not None:
            key = [self._key_of(item) for item in items]
        if self._time_path:
            time = [self._take_time(item) for item in items]
        return Decoded(list(range(count)), [0] * count, alias, key, time, [_encode(item) for item in items], [])

    def add_all(self, out: Decoded, place: int, items: list[Any]) -> None:
        """The messages of one payload: all of them, or none and a DecodeError."""
        rows = len(out.place)
        try:
            for index, item in enumerate(items):
                self._add(out, place, index, item)
        except DecodeError:
            for column in (out.place, out.index, out.alias, out.key, out.time, out.data):
                del column[rows:]
            raise

    def _add(self, out: Decoded, place: int, index: int, item: Any) -> None:
        if type(item) is not dict:
            raise DecodeError(f"a JSON object is expected, this is {_kind(item)}")
        alias = self._alias_of(item) if self._alias_path else None
        key = self._key_of(item) if self._key_of is not None else None
        time = self._take_time(item) if self._time_path else None
        out.place.append(place)
        out.index.append(index)
        out.alias.append(alias)
        out.key.append(key)
        out.time.append(time)
        out.data.append(_encode(item))

    def _alias_of(self, item: dict[str, Any]) -> str:
        return _alias(_at(item, self._alias_path), self._spec.alias_path)

    def _take_time(self, item: dict[str, Any]) -> int | None:
        """Lifts it out of the item."""
        path = self._time_path
        value = item.pop(path[0], None) if len(path) == 1 else _lift(item, path)
        if value is None or (type(value) is int and SECONDS_BELOW <= value <= _TIME_ABS_MAX_MS):
            return value
        return time_ms(value, self._spec.time_path)


def json_decoder(spec: CodecSpec) -> Decoder:
    return JsonReader(spec).decode


def parse_checked(payload: bytes) -> list[Any]:
    """The items of a payload that may hold any JSON: an array's, or the one value. Raises DecodeError."""
    if b"\\u0000" in payload:
        raise DecodeError("JSON holds the character U+0000, which no database text can")
    value = _parse(payload)
    _check_depth(value, 0)
    if type(value) is not list:
        return [value]
    if not 0 < len(value) <= MESSAGES_PER_RECORD_MAX:
        raise DecodeError(f"{len(value)} messages in one payload; allowed are 1 to {MESSAGES_PER_RECORD_MAX}")
    return value


def _parse(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except UNREADABLE as error:
        raise DecodeError(f"not JSON: {error}") from None
    except RecursionError:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels") from None


def _key_reader(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[KeyPart, ...] | None] | None:
    """Reads a message key; None where a part is missing or no plain value."""
    if not names:
        return None
    paths = tuple(tuple(name.split(".")) for name in names)
    if len(names) == 2 and all(len(path) == 1 for path in paths):
        first, second = names

        def read_two(item: dict[str, Any]) -> tuple[KeyPart, ...] | None:
            one, two = item.get(first, _MISSING), item.get(second, _MISSING)
            if (type(one) is int or type(one) in _KEY_TYPES) and (type(two) is int or type(two) in _KEY_TYPES):
                return one, two
            return None

        return read_two

    def read(item: dict[str, Any]) -> tuple[KeyPart, ...] | None:
        key = tuple([_at(item, path) for path in paths])
        return key if all(type(part) in _KEY_TYPES for part in key) else None

    return read


def time_ms(value: Any, name: str) -> int:
    """Unix milliseconds from a number (seconds or milliseconds) or an RFC 3339 string; DecodeError names `name`."""
    if type(value) is int or type(value) is float:
        if not -_TIME_ABS_MAX_MS <= value <= _TIME_ABS_MAX_MS:
            raise DecodeError(f"{name} is out of range: {value}")
        return round(value * 1000) if -SECONDS_BELOW < value < SECONDS_BELOW else round(value)
    if type(value) is str:
        try:
            moment = datetime.datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise DecodeError(f"{name} has no time zone: {value!r}; write it as 2026-01-31T12:00:00Z")
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
    raise DecodeError(f"{name} is not a time: {str(value)[:40]!r}; Unix milliseconds or RFC 3339 is expected")


def _at(item: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if type(item) is not dict:
            return _MISSING
        item = item.get(name, _MISSING)
    return item


def _lift(item: dict[str, Any], path: tuple[str, ...]) -> Any:
    parent = _at(item, path[:-1])
    return parent.pop(path[-1], None) if type(parent) is dict else None


def _alias(value: Any, name: str) -> str:
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not value:
        raise DecodeError(f"{name} names no device: a string or whole number is expected")
    if len(value.encode()) > NAME_BYTES_MAX:
        raise DecodeError(f"{name} is longer than {NAME_BYTES_MAX} bytes")
    return value


def _check_depth(value: Any, depth: int) -> None:
    if depth > JSON_DEPTH_MAX:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels")
    for child in value.values() if type(value) is dict else value if type(value) is list else ():
        if type(child) is dict or type(child) is list:
            _check_depth(child, depth + 1)


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
