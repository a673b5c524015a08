"""JSON (RFC 8259): an object is one message, an array of objects one message each.

Alias, message key and time are read by dotted paths; the time is lifted out of the data, all else stays in it.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

from protocols.codecs.base import CodecSpec, Decoded, Decoder
from protocols.errors import DecodeError
from protocols.ids import KeyPart
from protocols.limits import JSON_DEPTH_MAX, MESSAGES_PER_RECORD_MAX, NAME_BYTES_MAX

SECONDS_BELOW: Final = 100_000_000_000
"""A number below this is Unix seconds (until the year 5138), from it on milliseconds (since March 1973)."""
_TIME_ABS_MAX_MS: Final = 2**53
_INT64_MAX: Final = 2**63 - 1

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_MISSING: Final = object()


def json_decoder(spec: CodecSpec) -> Decoder:
    alias_path = tuple(spec.alias_path.split(".")) if spec.alias_path else ()
    key_paths = tuple(tuple(path.split(".")) for path in spec.key_paths)
    time_path = tuple(spec.time_path.split(".")) if spec.time_path else ()
    time_name = time_path[0] if len(time_path) == 1 else None

    def decode_one(item: Any) -> Decoded:
        if type(item) is not dict:
            raise DecodeError(f"a JSON object is expected, this is {_kind(item)}")
        alias = None
        if alias_path:
            alias = _alias(_at(item, alias_path), spec.alias_path)
        key: tuple[KeyPart, ...] | None = None
        if key_paths:
            parts = [_at(item, path) for path in key_paths]
            if all(type(part) in (int, str, float, bool) for part in parts):
                key = tuple(parts)
        time = None
        if time_name is not None:
            value = item.pop(time_name, None)
            if value is not None:
                time = time_ms(value, spec.time_path)
        elif time_path:
            time = _lift_time(item, time_path, spec.time_path)
        return Decoded(alias, key, time, _encode(item))

    def decode(payload: bytes) -> list[Decoded]:
        try:
            value = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecodeError(f"not JSON: {error}") from None
        except RecursionError:
            raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels") from None
        if b"\\u0000" in payload:
            raise DecodeError("JSON holds the character U+0000, which no database text can")
        _check_shape(value, 0)
        if type(value) is list:
            if not value:
                raise DecodeError("an empty JSON array holds no message")
            if len(value) > MESSAGES_PER_RECORD_MAX:
                raise DecodeError(f"{len(value)} messages in one payload; the limit is {MESSAGES_PER_RECORD_MAX}")
            return [decode_one(item) for item in value]
        return [decode_one(value)]

    return decode


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


def _lift_time(item: dict[str, Any], path: tuple[str, ...], name: str) -> int | None:
    parent = _at(item, path[:-1])
    if type(parent) is not dict:
        return None
    value = parent.pop(path[-1], None)
    return None if value is None else time_ms(value, name)


def _alias(value: Any, name: str) -> str:
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not value:
        raise DecodeError(f"{name} names no device: a string or whole number is expected")
    if len(value.encode()) > NAME_BYTES_MAX:
        raise DecodeError(f"{name} is longer than {NAME_BYTES_MAX} bytes")
    return value


def _check_shape(value: Any, depth: int) -> None:
    """Flat payloads, nearly all of them, cost one pass over their values."""
    if depth > JSON_DEPTH_MAX:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels")
    for child in value.values() if type(value) is dict else value if type(value) is list else ():
        kind = type(child)
        if kind is dict or kind is list:
            _check_shape(child, depth + 1)
        elif kind is int and not -_INT64_MAX <= child <= _INT64_MAX:
            raise DecodeError("a whole number is beyond 64 bits")


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
