"""From what a payload holds to messages, as a network's spec says it: the same for every codec.

Alias, message key and time are read by dotted paths; the time is lifted out of the data, all else stays in it, unless
the spec names the attributes that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded
from protocols.codecs.device_time import RELATIVE, SECONDS_BELOW, TIME_ABS_MAX_MS, time_reader
from protocols.codecs.spec import CodecSpec
from protocols.errors import DecodeError
from protocols.ids import KeyPart
from protocols.limits import DECODED_BYTES_MIN, DECODED_RATIO_MAX, MESSAGES_PER_RECORD_MAX, NAME_BYTES_MAX

_KEY_TYPES: Final = frozenset((int, str, float, bool))
_encode: Final = msgspec.json.Encoder().encode
_MISSING: Final = object()
_ENTRY_BYTES_MIN: Final = 5
"""Of a name and its value, as JSON: `"":1,`."""


class MessageReader:
    """Reads one network's messages into columns."""

    def __init__(self, spec: CodecSpec) -> None:
        """Raises SpecError."""
        self._spec = spec
        self._alias_path = _path(spec.alias_path)
        self._key_of = _key_reader(spec.key_paths)
        self._time_path = _path(spec.time_path)
        self._time_of = time_reader(spec.time_path, spec.time_unit, spec.time_epoch, spec.time_zone)
        self._is_default_time = not spec.time_unit and not spec.time_epoch
        self._is_relative = spec.time_epoch in RELATIVE
        self._messages_path = _path(spec.messages_path)
        self._attributes = [(name, _path(path)) for name, path in spec.attributes.items()]
        self.is_plain = not self._messages_path and not self._attributes and not self._is_relative
        """An item is a message as it stands."""

    def flat_columns(self, items: list[Any]) -> Decoded:
        """One message an item, where `is_plain`. Raises DecodeError if anything is wrong with any of them."""
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

    def add_value(self, out: Decoded, place: int, payload: bytes, value: Any) -> None:
        """The messages of one payload: an array's items, or the one value. All of them, or none and a DecodeError."""
        self.add_all(out, place, payload, value if type(value) is list else [value])

    def add_all(
        self,
        out: Decoded,
        place: int,
        payload: bytes,
        items: Sequence[Any],
        times: Sequence[int | None] | None = None,
        *,
        relative: bool = False,
        aliases: Sequence[str] | None = None,
    ) -> None:
        """The same for items. `times`, `aliases`: where the codec knows them by itself; `relative`: such times count
        from reception."""
        room = DECODED_BYTES_MIN + DECODED_RATIO_MAX * len(payload)
        messages: Iterable[Any] = items
        count = len(items)
        if self._messages_path:
            count, messages = self._messages_of(items, room)
        if not 0 < count <= MESSAGES_PER_RECORD_MAX:
            raise DecodeError(f"{count} messages in one payload; allowed are 1 to {MESSAGES_PER_RECORD_MAX}")
        rows, marks, index = len(out.place), len(out.relative), 0
        try:
            for index, item in enumerate(messages):
                self._add(out, place, index, item, times, relative)
                if aliases is not None:
                    out.alias[-1] = aliases[index]
                room -= len(out.data[-1])
                if room < 0:
                    raise _too_much()
        except DecodeError as error:
            for column in (out.place, out.index, out.alias, out.key, out.time, out.data):
                del column[rows:]
            del out.relative[marks:]
            if count > 1 and error.offset is None:
                raise DecodeError(f"message {index}: {error.detail}", path=f"[{index}].{error.path}") from None
            raise

    def _add(
        self, out: Decoded, place: int, index: int, item: Any, times: Sequence[int | None] | None, relative: bool
    ) -> None:
        if type(item) is not dict:
            raise DecodeError(f"a JSON object is expected, this is {_kind(item)}")
        alias = self._alias_of(item) if self._alias_path else None
        key = self._key_of(item) if self._key_of is not None else None
        if times is not None and (own := times[index]) is not None:
            time: int | None = own
        else:
            time = self._take_time(item) if self._time_path else None
            relative = self._is_relative
        if self._attributes:
            item = self._attributes_of(item)
        data = _encoded(item)
        if relative and time is not None:
            out.relative.append(len(out.place))
        out.place.append(place)
        out.index.append(index)
        out.alias.append(alias)
        out.key.append(key)
        out.time.append(time)
        out.data.append(data)

    def _alias_of(self, item: dict[str, Any]) -> str:
        return alias_of(_at(item, self._alias_path), self._spec.alias_path)

    def _take_time(self, item: dict[str, Any]) -> int | None:
        """Lifts it out of the item."""
        path = self._time_path
        value = item.pop(path[0], None) if len(path) == 1 else _lift(item, path)
        if value is None or (
            self._is_default_time and type(value) is int and SECONDS_BELOW <= value <= TIME_ABS_MAX_MS
        ):
            return value
        return self._time_of(value)

    def _messages_of(self, items: Sequence[Any], room: int) -> tuple[int, Iterator[dict[str, Any]]]:
        """How many there are within the items, and each with what stands beside it; made one by one, as all of them
        may be far more than the payload. `room`: for their bytes."""
        found = [(item, self._inner_of(item)) for item in items]
        if sum((len(item) + 1) * len(inner) for item, inner in found) * _ENTRY_BYTES_MIN > room:
            raise _too_much()
        return sum(len(inner) for _, inner in found), self._merged(found)

    def _inner_of(self, item: Any) -> list[dict[str, Any]]:
        """Taken out of the item."""
        found = _at(item, self._messages_path)
        inner = found if type(found) is list else [found]
        if not all(type(message) is dict for message in inner):
            what = "is missing" if found is _MISSING else "holds no array of JSON objects"
            raise DecodeError(f"{self._spec.messages_path} {what}", path=self._spec.messages_path)
        _lift(item, self._messages_path)
        return inner

    def _merged(self, found: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
        for item, inner in found:
            timed = item
            if len(self._time_path) > 1 and (time := _lift(item, self._time_path)) is not None:
                # It is lifted out of each message, and must be there for the next: so it stands where it is looked for
                # first, and what it stood in can be shared.
                timed = {**item, ".".join(self._time_path): time}
            for message in inner:
                beside = item if self._time_path and self._time_path[0] in message else timed
                yield {**beside, **message}

    def _attributes_of(self, item: dict[str, Any]) -> dict[str, Any]:
        found = {name: _at(item, path) for name, path in self._attributes}
        kept = {name: value for name, value in found.items() if value is not _MISSING}
        if not kept:
            raise DecodeError(f"holds none of the attributes {', '.join(found)[:200]}")
        return kept


def _too_much() -> DecodeError:
    return DecodeError(f"its messages are more than {DECODED_RATIO_MAX} times its size")


def _encoded(item: dict[str, Any]) -> bytes:
    try:
        return _encode(item)
    except (TypeError, ValueError, RecursionError) as error:
        raise DecodeError(f"cannot be written as JSON: {error}") from None


def _path(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _key_reader(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[KeyPart, ...] | None] | None:
    """Reads a message key; None where a part is missing or no plain value."""
    if not names:
        return None
    paths = tuple(map(_path, names))
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


def _at(item: Any, path: tuple[str, ...]) -> Any:
    """What the path leads to: names of objects, numbers of arrays' items; a name may hold dots itself."""
    if len(path) > 1 and type(item) is dict and (whole := item.get(".".join(path), _MISSING)) is not _MISSING:
        return whole
    for name in path:
        if type(item) is dict:
            item = item.get(name, _MISSING)
        elif type(item) is list and name.isdecimal() and len(name) <= 5 and int(name) < len(item):
            item = item[int(name)]
        else:
            return _MISSING
    return item


def _lift(item: dict[str, Any], path: tuple[str, ...]) -> Any:
    whole = item.pop(".".join(path), _MISSING)
    if whole is not _MISSING:
        return whole
    parent = _at(item, path[:-1])
    return parent.pop(path[-1], None) if type(parent) is dict else None


def alias_of(value: Any, name: str) -> str:
    """What names a device; DecodeError calls it `name`."""
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not value:
        raise DecodeError(f"{name} names no device: a string or whole number is expected", path=name)
    if len(value.encode()) > NAME_BYTES_MAX:
        raise DecodeError(f"{name} is longer than {NAME_BYTES_MAX} bytes", path=name)
    return value


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
