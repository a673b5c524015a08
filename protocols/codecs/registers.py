"""What a poll of a Modbus unit gave: its registers as they came, and the map that says what they mean.

MessagePack, so that what a record holds needs no other description than itself:

    [1, [[function, address, data], …], [[function, address, field, low_first], …]]

`function` is Modbus's code of the reading (1 coils, 2 discrete inputs, 3 holding registers, 4 input registers). `data`
is what the unit answered: two bytes a register, big endian; coils and discrete inputs a byte each. `field` is one of a
layout's (spec.py), so that types, scales, named values and units are the same as there; `low_first`: the first of
several registers has the lowest part of the value. What is in no
block was not read: its attribute is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.layout import FIELDS_MAX, layout_decoder
from protocols.codecs.layout_values import OF_LENGTH, SIZES
from protocols.codecs.spec import CodecSpec, Layout, LayoutField, SpecError
from protocols.errors import UNREADABLE, DecodeError

DETAIL_CHARACTERS_MAX: Final = 200
"""Of what is wrong with a map, which may quote it."""

K = TypeVar("K")
V = TypeVar("V")

VERSION: Final = 1
COILS: Final = 1
DISCRETE: Final = 2
HOLDING: Final = 3
INPUT: Final = 4
BITS: Final = (COILS, DISCRETE)

REGISTERS_MAX: Final = FIELDS_MAX
"""Of a map; and blocks of a reading, each of which holds one of them at least."""

MAPS_BYTES_MAX: Final = 256 * 1024
"""Of the maps that are remembered: those of a site's kinds of units, some kB each."""

DECODERS_FIELDS_MAX: Final = 4096
"""Of what was compiled for them, about 1 kB a field."""

FIELD_BYTES: Final = 64
"""Of a map, as much as a field in what it weighs there: what was compiled is found by the map's bytes."""


class Register(msgspec.Struct, frozen=True, array_like=True):
    """Where an attribute stands."""

    function: int
    address: int
    field: LayoutField
    low_first: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether its type is one of coils, or one of whole registers."""
        if self.function in BITS:
            return self.field.type == "bool"
        return self.function in (HOLDING, INPUT) and self._bytes > 0 and self._bytes % 2 == 0

    @property
    def count(self) -> int:
        """Registers, or coils, that it takes."""
        return 1 if self.function in BITS else self._bytes // 2

    @property
    def _bytes(self) -> int:
        if self.field.type in OF_LENGTH:
            return self.field.length if type(self.field.length) is int else 0
        return SIZES.get(self.field.type, 0)


class Block(msgspec.Struct, frozen=True, array_like=True):
    """What one reading gave."""

    function: int
    address: int
    data: bytes

    def part(self, register: Register) -> bytes | None:
        """The register's bytes, the highest first; None: it is not in here."""
        if register.function != self.function or register.address < self.address:
            return None
        width = 1 if self.function in BITS else 2
        at = (register.address - self.address) * width
        size = register.count * width
        found = self.data[at : at + size]
        if len(found) < size:
            return None
        if register.low_first:
            return b"".join(found[start : start + width] for start in range(size - width, -1, -width))
        return found


class _Remembered(Generic[K, V]):
    """Of so much weight at most; when it is full, it begins anew."""

    def __init__(self, weight_max: int) -> None:
        self._held: dict[K, V] = {}
        self._weight = 0
        self._weight_max = weight_max
        self.get = self._held.get

    def add(self, key: K, value: V, *, weight: int) -> None:
        if self._weight + weight > self._weight_max:
            self._held.clear()
            self._weight = 0
        if weight <= self._weight_max:
            self._held[key] = value
            self._weight += weight


class _Reading(msgspec.Struct, frozen=True, array_like=True):
    version: int
    blocks: list[Block]
    registers: msgspec.Raw


_decode: Final = msgspec.msgpack.Decoder(_Reading).decode
_decode_registers: Final = msgspec.msgpack.Decoder(list[Register]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def encode_map(registers: Sequence[Register]) -> bytes:
    """For `encode_reading`: once for a unit."""
    return _encode(list(registers))


def encode_reading(blocks: Sequence[Block], registers: bytes) -> bytes:
    """The payload of a record."""
    return _encode(_Reading(VERSION, list(blocks), msgspec.Raw(registers)))


def registers_decoder(spec: CodecSpec) -> Decoder:
    """Paths and attributes of the network's spec count here too; its layout does not."""
    maps: _Remembered[bytes, list[Register]] = _Remembered(MAPS_BYTES_MAX)
    decoders: _Remembered[tuple[bytes, tuple[int, ...]], Decoder] = _Remembered(
        DECODERS_FIELDS_MAX
    )  # by map and places

    def values_of(payload: bytes) -> Decoded:
        reading = _read(payload)
        raw = bytes(reading.registers)
        registers = maps.get(raw)
        if registers is None:
            registers = _registers(raw)
            maps.add(raw, registers, weight=len(raw))
        places, data = _present(reading.blocks, registers)
        decoder = decoders.get((raw, places))
        if decoder is None:
            decoder = _made(spec, [registers[place].field for place in places])
            decoders.add((raw, places), decoder, weight=len(places) + len(raw) // FIELD_BYTES)
        return decoder([data])

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                _add(out, place, values_of(payload))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def _read(payload: bytes) -> _Reading:
    try:
        reading = _decode(payload)
    except UNREADABLE as error:
        raise DecodeError(f"no reading of registers: {error}") from None
    if reading.version != VERSION:
        raise DecodeError(f"a reading of registers in version {reading.version}; known is {VERSION}")
    if len(reading.blocks) > REGISTERS_MAX:
        raise DecodeError(f"a reading of {len(reading.blocks):,} blocks; the limit is {REGISTERS_MAX}")
    return reading


def _registers(raw: bytes) -> list[Register]:
    try:
        registers = _decode_registers(raw)
    except UNREADABLE as error:
        raise DecodeError(f"no map of registers: {error}") from None
    if len(registers) > REGISTERS_MAX:
        raise DecodeError(f"a map of {len(registers):,} registers; the limit is {REGISTERS_MAX}")
    for place, register in enumerate(registers):
        if not register.is_whole:
            raise DecodeError(f"its map of registers cannot work: {register.field.type[:40]!r} at place {place}")
    if b"\\u0000" in msgspec.json.encode(registers):
        raise DecodeError("its map of registers holds the character U+0000, which no database text can")
    return registers


def _present(blocks: Sequence[Block], registers: Sequence[Register]) -> tuple[tuple[int, ...], bytes]:
    """Places in the map of those that were read, and their bytes in the same order, as a layout has them."""
    places: list[int] = []
    parts: list[bytes] = []
    for place, register in enumerate(registers):
        part = next((found for block in blocks if (found := block.part(register)) is not None), None)
        if part is not None:
            places.append(place)
            parts.append(part)
    if not places:
        raise DecodeError("no register of the map is in it")
    return tuple(places), b"".join(parts)


def _made(spec: CodecSpec, fields: Sequence[LayoutField]) -> Decoder:
    try:
        return layout_decoder(msgspec.structs.replace(spec, codec="layout", layout=Layout(tuple(fields))))
    except SpecError as error:
        raise DecodeError(f"its map of registers cannot work: {str(error)[:DETAIL_CHARACTERS_MAX]}") from None


def _add(out: Decoded, place: int, found: Decoded) -> None:
    """One payload's messages behind the others."""
    out.relative.extend(len(out.place) + row for row in found.relative)
    out.place.extend([place] * len(found.place))
    for name in ("index", "alias", "key", "time", "data"):
        getattr(out, name).extend(getattr(found, name))
    out.errors.extend((place, error) for _, error in found.errors)
    out.units.update(found.units)
