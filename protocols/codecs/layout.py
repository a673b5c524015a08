"""A binary payload by a declared layout: compiled once, then a few calls a payload.

Neighbouring fields of a fixed size are one `struct.Struct` (a *run*); what depends on earlier fields is a step of its
own. A step takes the state of one payload's decoding and goes on in it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Final

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.device_time import MS_PER_UNIT, RELATIVE, number_reader
from protocols.codecs.layout_state import REPEATS_MAX, TO_END, Sink, State, Step, numbers, too_short
from protocols.codecs.layout_values import (
    OF_LENGTH,
    SIZES,
    STRUCT_CODES,
    TYPES,
    WHOLE,
    bits_of,
    condition,
    converter,
    raw_reader,
)
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec, Layout, LayoutField, SpecError
from protocols.errors import DecodeError
from protocols.framing.checksum import Checksum
from protocols.framing.words import ByteOrder
from protocols.limits import NAME_BYTES_MAX, PAYLOAD_BYTES_MAX

FIELDS_MAX: Final = 256
"""Of one layout, those in groups and bit fields included: more than any register map that somebody writes down."""
DEPTH_MAX: Final = 4
"""Groups within groups."""

_ORDERS: Final = {"big": ">", "little": "<"}


def layout_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    if spec.layout is None:
        raise SpecError("layout", "needed: the fields of a payload")
    compiled = _Compiler(spec.layout)
    steps = compiled.steps(spec.layout.fields, "layout.fields", 0)
    reader = MessageReader(spec)
    relative = bool(compiled.epochs & RELATIVE) or (compiled.has_step and not compiled.epochs)
    if relative and "" in compiled.epochs:
        raise SpecError("layout", "times of one layout count from the same moment: all from reception, or none")
    counted_from = 0 if relative and compiled.has_step else None
    ignores_rest = spec.layout.rest == "ignore"
    checksum = _checksum(spec.layout)
    units = {**spec.units, **compiled.units}

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        out.units.update(units)
        for place, payload in enumerate(payloads):
            try:
                body = payload if checksum is None else _opened(payload, checksum)
                state = State(body)
                for step in steps:
                    step(state)
                if state.at < len(body) and not ignores_rest:
                    left = len(body) - state.at
                    raise DecodeError(f"the layout ends here; bytes left: {left}", offset=state.at)
                if state.messages:
                    items = [{**state.item, **item} for item, _, _ in state.messages]
                    start = counted_from if state.time is None else state.time
                    times = [_time(start, own, later_s) for _, own, later_s in state.messages]
                    reader.add_all(out, place, payload, items, times, relative=relative)
                else:
                    reader.add_all(out, place, payload, (state.item,), (state.time,), relative=relative)
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def _checksum(layout: Layout) -> Checksum | None:
    """Raises SpecError."""
    if not layout.checksum:
        return None
    if layout.checksum_order not in ("", *_ORDERS):
        raise SpecError("layout.checksum_order", f"{layout.checksum_order!r} is neither big nor little")
    order: ByteOrder | None = (
        "little" if layout.checksum_order == "little" else "big" if layout.checksum_order else None
    )
    try:
        return Checksum(layout.checksum, order)
    except KeyError:
        what = f"{layout.checksum!r} is not in the catalogue; CRC-16/MODBUS or CRC-32/ISO-HDLC are, for example"
        raise SpecError("layout.checksum", what) from None


def _opened(payload: bytes, checksum: Checksum) -> bytes:
    """Without the checksum at its end. Raises DecodeError."""
    at = max(len(payload) - checksum.size, 0)
    body, found = payload[:at], payload[at:]
    expected = checksum.of(body)
    if found != expected:
        what = f"{checksum.name} is {found.hex()}, and {expected.hex()} by the bytes before it"
        raise DecodeError(what, offset=at, path="checksum")
    return body


def units_of(spec: CodecSpec) -> dict[str, str]:
    """Attribute to unit, as far as the spec says it. Raises SpecError."""
    if spec.codec != "layout" or spec.layout is None:
        return dict(spec.units)
    compiled = _Compiler(spec.layout)
    compiled.steps(spec.layout.fields, "layout.fields", 0)
    return {**spec.units, **compiled.units}


def _time(outer: int | None, own: int | None, later_s: float) -> int | None:
    if own is not None:
        return own
    return None if outer is None else outer + round(later_s * 1000)


class _Compiler:
    """Makes steps of fields. Raises SpecError, which names the field."""

    def __init__(self, layout: Layout) -> None:
        if layout.endian not in _ORDERS:
            raise SpecError("layout.endian", f"{layout.endian!r} is neither big nor little")
        if layout.rest not in ("refuse", "ignore"):
            raise SpecError("layout.rest", f"{layout.rest!r} is neither refuse nor ignore")
        self.endian = layout.endian
        self.units: dict[str, str] = {}
        self.epochs: set[str] = set()
        self._count = 0
        self._known: set[str] = set()
        """Names of whole numbers so far, to which later fields may refer."""
        self._wanted = _references(layout.fields, "layout.fields")
        self._has_messages = False
        self.has_step = False
        """Messages have a time by their place: where nothing else says it, the first is from when it was received."""

    def steps(self, fields: Sequence[LayoutField], where: str, depth: int) -> list[Step]:
        if not fields:
            raise SpecError(where, "at least one field is needed")
        if depth > DEPTH_MAX:
            raise SpecError(where, f"groups are nested deeper than {DEPTH_MAX}")
        steps: list[Step] = []
        for fixed, group in itertools.groupby(
            enumerate(fields), key=lambda numbered: self._order(numbered[1]) if _is_fixed(numbered[1]) else ""
        ):
            members = [(f"{where}[{place}]", field) for place, field in group]
            for path, field in members:
                self._check(path, field, depth)
            if fixed:
                steps.append(self._run(fixed, members))
            else:
                for path, field in members:
                    steps.append(self._single(path, field, depth))
        return steps

    def _order(self, field: LayoutField) -> str:
        return _ORDERS.get(field.endian or self.endian, ">")

    def _check(self, path: str, field: LayoutField, depth: int) -> None:
        self._count += 1 + len(field.bits)
        if self._count > FIELDS_MAX:
            raise SpecError(path, f"more than {FIELDS_MAX} fields")
        if field.type not in TYPES:
            raise SpecError(f"{path}.type", f"{field.type!r} is none of {', '.join(TYPES)}")
        if field.endian and field.endian not in _ORDERS:
            raise SpecError(f"{path}.endian", f"{field.endian!r} is neither big nor little")
        if len(field.name.encode()) > NAME_BYTES_MAX:
            raise SpecError(f"{path}.name", f"longer than {NAME_BYTES_MAX} bytes")
        if field.length and field.type not in OF_LENGTH:
            raise SpecError(f"{path}.length", f"a {field.type} has its own")
        if type(field.length) is int and not 0 <= field.length <= PAYLOAD_BYTES_MAX:
            raise SpecError(f"{path}.length", f"0 to {PAYLOAD_BYTES_MAX}")
        if type(field.repeat) is int and not 1 <= field.repeat <= REPEATS_MAX:
            raise SpecError(f"{path}.repeat", f"1 to {REPEATS_MAX}")
        for name, setting in ((field.length, "length"), (field.repeat, "repeat"), (field.step_s, "step_s")):
            if type(name) is str and name not in self._known and not (setting == "repeat" and name == TO_END):
                raise SpecError(f"{path}.{setting}", f"{name!r} is no whole number that stands before it")
        if field.time and (field.type not in SIZES or field.type == "bool" or field.time not in MS_PER_UNIT):
            raise SpecError(f"{path}.time", f"a unit of a number: {', '.join(MS_PER_UNIT)}")
        if (field.time or field.bits) and field.repeat != 1:
            raise SpecError(f"{path}.repeat", "not of a time or of bits; repeat a group that holds it")
        if field.type == "group":
            if not field.messages and not field.name:
                raise SpecError(f"{path}.name", "needed: what its array is called")
            if field.messages and (depth or self._has_messages):
                raise SpecError(f"{path}.messages", "one group of a layout, not within another")
            self._has_messages |= field.messages
            self.has_step |= bool(field.messages and field.step_s)
        elif field.fields or field.messages:
            raise SpecError(f"{path}.fields", f"a {field.type} is no group")
        if field.type in WHOLE and field.name:
            self._known.add(field.name)
        if field.unit and field.name:
            self.units[field.name] = field.unit
        for bits in field.bits:
            self._known.add(bits.name)
            if bits.unit:
                self.units[bits.name] = bits.unit

    def _run(self, order: str, members: Sequence[tuple[str, LayoutField]]) -> Step:
        """Fields of a fixed size and one byte order."""
        sinks = []
        form = order
        offset = 0
        places: list[tuple[int, str]] = []
        for path, field in members:
            size = _size(field)
            places.append((offset, field.name or field.type))
            if field.type == "skip" or not (field.name or field.bits or field.time):
                form += f"{size}x"
            else:
                form += STRUCT_CODES.get(field.type, f"{size}s")
                sinks.append((self._sink(path, field), offset))
            offset += size
        whole, unpack = offset, struct.Struct(form).unpack_from
        plain = all(sink.is_plain for sink, _ in sinks)
        names = [sink.name for sink, _ in sinks]
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise SpecError(members[0][0], f"two fields are called {doubled[0]!r}")
        wanted = [
            (place, sink.name) for place, (sink, _) in enumerate(sinks) if sink.name in self._wanted and sink.is_raw
        ]
        odd = [(place, sink.take, at) for place, (sink, at) in enumerate(sinks) if not sink.is_plain]

        def read(state: State) -> None:
            at = state.at
            if at + whole > len(state.payload):
                raise too_short(state, places)
            values = unpack(state.payload, at)
            for place, name in wanted:
                state.raw[name] = values[place]
            if plain:
                state.item.update(zip(names, values, strict=True))
            else:
                item = state.item
                item.update(zip(names, values, strict=True))
                for place, take, offset in odd:
                    try:
                        take(state, values[place])
                    except ValueError as error:
                        raise DecodeError(f"{names[place]}: {error}", offset=at + offset, path=names[place]) from None
            state.at = at + whole

        return read

    def _sink(self, path: str, field: LayoutField) -> Sink:
        raw_of = raw_reader(field.type, field.endian or self.endian)
        time_of = None
        if field.time:
            self.epochs.add(field.epoch if field.epoch in RELATIVE else "")
            time_of = number_reader(field.name or "time", field.time, field.epoch, f"{path}.epoch")
        convert = converter(field, field.type, path)
        name = field.name or f"\0{path}"
        return Sink(name, raw_of, convert, bits_of(field, path), time_of, bool(field.name), name in self._wanted)

    def _single(self, path: str, field: LayoutField, depth: int) -> Step:
        """What depends on earlier fields, or on what is left."""
        if field.type == "group":
            one = self._group(path, field, depth)
        elif (field.length == 0 and field.type in OF_LENGTH) or type(field.length) is str:
            one = self._of_length(path, field)
        else:
            one = self._run(self._order(field), [(path, field)])
        step = self._repeated(path, field, one) if field.repeat != 1 or field.type == "group" else one
        if not field.when:
            return step
        name, holds = condition(field.when, f"{path}.when")
        if name not in self._known - {field.name}:
            raise SpecError(f"{path}.when", f"{name!r} is no whole number that stands before it")

        def read(state: State) -> None:
            if holds(state.raw):
                step(state)

        return read

    def _of_length(self, path: str, field: LayoutField) -> Step:
        sink = self._sink(path, field)
        length_of = field.length if type(field.length) is str else ""
        is_kept = field.type != "skip"

        def read(state: State) -> None:
            left = len(state.payload) - state.at
            length = state.raw.get(length_of, 0) if length_of else left
            if not 0 <= length <= left:
                what = f"{field.name or field.type} takes {length} bytes ({length_of}), {left} are left"
                raise DecodeError(what, offset=state.at, path=field.name)
            data = state.payload[state.at : state.at + length]
            if is_kept:
                state.item[sink.name] = data
                try:
                    sink.take(state, data)
                except ValueError as error:
                    raise DecodeError(f"{field.name}: {error}", offset=state.at, path=field.name) from None
            state.at += length

        return read

    def _group(self, path: str, field: LayoutField, depth: int) -> Step:
        steps = self.steps(field.fields, f"{path}.fields", depth + 1)

        def read(state: State) -> None:
            for step in steps:
                step(state)

        return read

    def _repeated(self, path: str, field: LayoutField, one: Step) -> Step:
        name, count_of = field.name or f"\0{path}", field.repeat
        is_group, is_messages, step_s = field.type == "group", field.messages, field.step_s

        def read(state: State) -> None:
            outer, outer_time = state.item, state.time
            found = []
            later_s = 0.0
            for number in numbers(state, count_of, name):
                before = state.at
                state.item = {}
                if is_messages:
                    state.time = None
                one(state)
                if state.at == before:
                    raise DecodeError(f"{name} repeats, and takes no bytes", offset=before, path=name)
                if is_messages:
                    apart_s = state.raw.get(step_s, 0) if type(step_s) is str else step_s
                    later_s = number * float(apart_s)
                    state.messages.append((state.item, state.time, later_s))
                else:
                    found.append(state.item if is_group else state.item.get(name))
            state.item = outer
            if is_messages:
                state.time = outer_time
            elif field.name:
                outer[name] = found

        return read


def _is_fixed(field: LayoutField) -> bool:
    return (
        field.type != "group"
        and not field.when
        and field.repeat == 1
        and (field.type in SIZES or (type(field.length) is int and field.length > 0))
    )


def _size(field: LayoutField) -> int:
    return SIZES[field.type] if field.type in SIZES else int(field.length)


def _references(fields: Sequence[LayoutField], where: str) -> set[str]:
    """Names that fields refer to."""
    found: set[str] = set()
    for place, field in enumerate(fields):
        found.update(name for name in (field.length, field.repeat, field.step_s) if type(name) is str)
        if field.when:
            found.add(condition(field.when, f"{where}[{place}].when")[0])
        found |= _references(field.fields, f"{where}[{place}].fields")
    return found
