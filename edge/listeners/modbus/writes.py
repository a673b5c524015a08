"""From the value of a command to what is written into a coil or holding registers."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec

from protocols.codecs.layout_values import SIZES, STRUCT_CODES, WHOLE
from protocols.codecs.registers import COILS, Register


class ValueRefusedError(Exception):
    """The register cannot hold the value; says why."""


class Write(msgspec.Struct, frozen=True):
    register: Register
    words: tuple[int, ...]
    """Of a coil: one, 0 or 1."""


def write_of(register: Register, value: Any) -> Write:
    """Raises ValueRefusedError."""
    name, kind = register.field.name, register.field.type
    if register.function == COILS:
        if type(value) is not bool and value not in (0, 1):
            raise ValueRefusedError(f"{name} is a coil, and {_shown(value)} is neither true nor false")
        return Write(register, (int(value),))
    if kind in SIZES:
        data = _number(register, value)
    elif kind == "string":
        data = _text(register, value)
    else:
        raise ValueRefusedError(f"{name} is of type {kind}, which cannot be written")
    words = struct.unpack(f">{len(data) // 2}H", data)
    return Write(register, words[::-1] if register.low_first else words)


def _number(register: Register, value: Any) -> bytes:
    """The opposite of what the codec does: named values first, else scale and offset."""
    field = register.field
    raw: float | int
    if field.values:
        named = {text: int(number) for number, text in field.values.items()}
        if type(value) is str and value in named:
            raw = named[value]
        elif type(value) is int:
            raw = value
        else:
            raise ValueRefusedError(f"{field.name} is one of {', '.join(named)}, not {_shown(value)}")
    elif type(value) not in (int, float) or not math.isfinite(value):
        raise ValueRefusedError(f"{field.name} is a number, and {_shown(value)} is none")
    else:
        raw = value if field.scale == 1 and field.offset == 0 else (value - field.offset) / field.scale
    size = SIZES[field.type]
    try:
        if field.type in WHOLE:
            return round(raw).to_bytes(size, "big", signed=field.type[0] == "i")
        return struct.pack(">" + STRUCT_CODES[field.type], raw)
    except (OverflowError, struct.error):
        raise ValueRefusedError(f"{field.name} is {field.type}, which cannot hold {_shown(value)}") from None


def _text(register: Register, value: Any) -> bytes:
    size = register.count * 2
    if type(value) is not str or len(value.encode()) > size:
        raise ValueRefusedError(f"{register.field.name} is a text of up to {size} bytes, and {_shown(value)} is none")
    return value.encode().ljust(size, b"\0")


def _shown(value: Any) -> str:
    return repr(value)[:60]
