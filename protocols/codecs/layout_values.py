"""The values of a binary layout's fields: how many bytes, how they are read, what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from protocols.codecs.spec import LayoutBits, LayoutField, SpecError

STRUCT_CODES: Final = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q",
    "f16": "e", "f32": "f", "f64": "d", "bool": "?",
}  # fmt: skip
SIZES: Final = {
    "u8": 1, "u16": 2, "u24": 3, "u32": 4, "u48": 6, "u64": 8,
    "i8": 1, "i16": 2, "i24": 3, "i32": 4, "i48": 6, "i64": 8,
    "f16": 2, "f32": 4, "f64": 8, "bool": 1,
}  # fmt: skip
WHOLE: Final = frozenset(name for name in SIZES if name[0] in "ui")
"""Whole numbers: what bits, values and conditions are of."""
OF_LENGTH: Final = ("string", "bytes", "bcd", "skip")
TYPES: Final = (*SIZES, *OF_LENGTH, "group")

ABSENT: Final = object()
"""The attribute is left out."""
Convert = Callable[[Any], Any]
"""Raw value to what the data holds, or ABSENT; raises ValueError with the reason."""
Holds = Callable[[Mapping[str, Any]], bool]
"""Whether a condition holds, by the raw values of earlier fields."""

_CONDITION: Final = re.compile(r"\s*([^\s=!<>&]+)\s*(==|!=|<=|>=|<|>|&)\s*(-?\d+|0[xX][0-9a-fA-F]+)\s*")
_COMPARE: Final[dict[str, Callable[[Any, int], bool]]] = {
    "==": lambda raw, number: bool(raw == number),
    "!=": lambda raw, number: bool(raw != number),
    "<": lambda raw, number: bool(raw < number),
    "<=": lambda raw, number: bool(raw <= number),
    ">": lambda raw, number: bool(raw > number),
    ">=": lambda raw, number: bool(raw >= number),
    "&": lambda raw, number: bool(raw & number),
}


def raw_reader(kind: str, endian: str) -> Convert | None:
    """From what struct gives (bytes, for sizes that it does not know) to the raw value; None: it is that already."""
    if kind in STRUCT_CODES or kind == "skip":
        return None
    if kind in SIZES:
        signed = kind[0] == "i"
        order: Any = endian
        return lambda data: int.from_bytes(data, order, signed=signed)
    return {"string": _string, "bytes": _hexadecimal, "bcd": _bcd}[kind]


def converter(field: LayoutField | LayoutBits, kind: str, where: str) -> Convert | None:
    """From the raw value to the attribute's; None: it stays as it is. Raises SpecError."""
    steps: list[Convert] = []
    if field.values:
        if kind not in WHOLE:
            raise SpecError(f"{where}.values", f"a {kind} has no values that could be named")
        named = {_whole(raw, f"{where}.values"): text for raw, text in field.values.items()}
        steps.append(lambda raw: named.get(raw, raw))
    elif field.scale != 1 or field.offset != 0:
        if kind not in SIZES and kind != "bcd":
            raise SpecError(f"{where}.scale", f"a {kind} cannot be scaled")
        if not field.scale or not _is_finite(field.scale) or not _is_finite(field.offset):
            raise SpecError(f"{where}.scale", "neither 0 nor infinite")
        steps.append(_scaling(field.scale, field.offset))
    digits = field.digits if isinstance(field, LayoutField) else None
    if digits is not None:
        if not 0 <= digits <= 15 or (kind not in SIZES and kind != "bcd"):
            raise SpecError(f"{where}.digits", "0 to 15, of a number")
        steps.append(lambda number: round(number, digits) if number - number == 0 else number)
    absent = field.absent
    if absent is not None and kind not in WHOLE and kind != "bcd":
        raise SpecError(f"{where}.absent", f"a {kind} has no raw value that could mean it")
    if not steps:
        return None if absent is None else lambda raw: ABSENT if raw == absent else raw
    first, *others = steps
    if absent is None and not others:
        return first

    def convert(raw: Any) -> Any:
        if raw == absent:
            return ABSENT
        value = first(raw)
        for step in others:
            value = step(value)
        return value

    return convert


class Bits(msgspec.Struct, frozen=True):
    """One of a field's bit fields, ready to be read."""

    name: str
    read: Callable[[int], int]
    """From the field's raw value to its own."""
    convert: Convert | None


def bits_of(field: LayoutField, where: str) -> list[Bits]:
    """Raises SpecError."""
    if field.bits and field.type not in WHOLE:
        raise SpecError(f"{where}.bits", f"a {field.type} is no whole number")
    width = SIZES.get(field.type, 0) * 8
    found = []
    for place, bits in enumerate(field.bits):
        inner = f"{where}.bits[{place}]"
        if not bits.name:
            raise SpecError(f"{inner}.name", "needed")
        if bits.at < 0 or bits.count < 1 or bits.at + bits.count > width:
            raise SpecError(
                f"{inner}.at", f"bits {bits.at} to {bits.at + bits.count - 1} are not all in a {field.type}"
            )
        found.append(_bits(bits, inner))
    return found


def condition(text: str, where: str) -> tuple[str, Holds]:
    """The field that it is about, and whether it holds. Raises SpecError."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise SpecError(where, f"{text!r} is no condition; write it as `kind == 2` or `flags & 4`")
    name, number = found[1], int(found[3], 0)
    compare = _COMPARE[found[2]]

    def holds(raw: Mapping[str, Any]) -> bool:
        value = raw.get(name)
        return type(value) is int and compare(value, number)

    return name, holds


def _bits(bits: LayoutBits, where: str) -> Bits:
    at, mask = bits.at, (1 << bits.count) - 1
    top = 1 << bits.count - 1 if bits.signed else 0
    convert = converter(bits, "u64", where)
    if bits.count == 1 and convert is None and not bits.signed:
        convert = bool
    return Bits(bits.name, lambda raw: (raw >> at & mask ^ top) - top, convert)


def _scaling(scale: float, offset: float) -> Convert:
    """A scale of 0.1 divides by 10: the nearest number to the decimal one, 21.3 and not 21.300000000000004. So does its
    offset, where it is a whole number of steps."""
    divisor = round(1 / scale) if 0 < abs(scale) < 1 else 0
    if divisor and abs(divisor * scale - 1) < 1e-9:
        steps = offset * divisor
        if steps == 0:
            return lambda raw: raw / divisor
        if abs(steps - round(steps)) < 1e-6:
            whole = round(steps)
            return lambda raw: (raw + whole) / divisor
        return lambda raw: raw / divisor + offset
    if scale == int(scale) and offset == int(offset):
        times, plus = int(scale), int(offset)
        return lambda raw: raw * times + plus
    return lambda raw: raw * scale + offset


def _string(data: bytes) -> str:
    """Up to the first zero byte."""
    try:
        return data.partition(b"\0")[0].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not text (UTF-8): {error.reason}") from None


def _hexadecimal(data: bytes) -> str:
    return data.hex()


def _bcd(data: bytes) -> int:
    digits = data.hex()
    if not digits.isdecimal():
        raise ValueError(f"{digits} holds digits that are none of BCD")
    return int(digits)


def _whole(text: str, where: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise SpecError(where, f"{text!r} is no whole number") from None


def _is_finite(number: float) -> bool:
    return number - number == 0
