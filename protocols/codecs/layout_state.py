"""How far one payload's decoding by a layout has come, and the steps' common parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from protocols.codecs.device_time import TimeReader
from protocols.codecs.layout_values import ABSENT, Bits, Convert
from protocols.errors import DecodeError
from protocols.limits import MESSAGES_PER_RECORD_MAX

REPEATS_MAX: Final = MESSAGES_PER_RECORD_MAX
"""Of one field or group in one payload."""
TO_END: Final = "end"


class State:
    """Where the decoding of one payload stands."""

    __slots__ = ("at", "item", "messages", "payload", "raw", "time")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0
        self.raw: dict[str, int] = {}
        """Raw values that later fields refer to."""
        self.item: dict[str, Any] = {}
        self.time: int | None = None
        self.messages: list[tuple[dict[str, Any], int | None, float]] = []
        """Of a group whose elements are messages: data, time, seconds after the first."""


Step = Callable[[State], None]


class Sink:
    """Takes a run's value to where it belongs; it stands in the item already, as struct gave it."""

    def __init__(
        self,
        name: str,
        raw_of: Convert | None,
        convert: Convert | None,
        bits: Sequence[Bits],
        time_of: TimeReader | None,
        is_kept: bool,
        is_wanted: bool,
    ) -> None:
        self.name = name
        self._raw_of = raw_of
        self._convert = convert
        self._bits = bits
        self._time_of = time_of
        self._is_kept = is_kept and not bits and time_of is None
        self._is_wanted = is_wanted
        self.is_raw = raw_of is None
        self.is_plain = raw_of is None and convert is None and self._is_kept
        self.take: Callable[[State, Any], None] = self._take
        if convert is not None and self._is_kept and self.is_raw:
            self.take = self._take_converted

    def _take_converted(self, state: State, raw: Any) -> None:
        """The usual case: a number that is scaled."""
        value = self._convert(raw)  # type: ignore[misc]  # there is one, or this would not be called
        if value is ABSENT:
            del state.item[self.name]
        else:
            state.item[self.name] = value

    def _take(self, state: State, raw: Any) -> None:
        if self._raw_of is not None:
            raw = self._raw_of(raw)
            if self._is_wanted and type(raw) is int:
                state.raw[self.name] = raw
        value = raw if self._convert is None else self._convert(raw)
        if self._is_kept and value is not ABSENT:
            state.item[self.name] = value
        else:
            state.item.pop(self.name, None)
        if self._time_of is not None and value is not ABSENT:
            state.time = self._time_of(value)
        for bits in self._bits:
            part = state.raw[bits.name] = bits.read(raw)
            value = part if bits.convert is None else bits.convert(part)
            if value is not ABSENT:
                state.item[bits.name] = value


def numbers(state: State, count_of: int | str, name: str) -> Iterator[int]:
    """Of a repetition's rounds, from 0."""
    if count_of == TO_END:
        for number in itertools.count():
            if state.at >= len(state.payload):
                return
            if number == REPEATS_MAX:
                raise DecodeError(f"{name} repeats more than {REPEATS_MAX} times", offset=state.at, path=name)
            yield number
    count = state.raw.get(count_of, 0) if type(count_of) is str else count_of
    if type(count) is not int or not 0 <= count <= REPEATS_MAX:
        raise DecodeError(f"{name} repeats {count} times; the limit is {REPEATS_MAX}", offset=state.at, path=name)
    yield from range(count)


def too_short(state: State, places: Sequence[tuple[int, str]]) -> DecodeError:
    """Names the field that the payload ends in."""
    left = len(state.payload) - state.at
    offset, name = next((place for place in reversed(places) if place[0] <= left), places[0])
    return DecodeError(f"the payload ends in {name}", offset=state.at + offset, path=name)
